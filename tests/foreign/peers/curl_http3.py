"""Downloads through a proxy with a libcurl that speaks HTTP/3 to proxies (the one that curl_cffi brings).

```text
--target http3   CONNECT-UDP (RFC 9298), an HTTP/3 connection inside
--target http1   CONNECT, a TLS connection inside
```

Prints one JSON object: ok, problem, version, connect_status, bytes, sha256. Exit code 0 or 1.
"""

import argparse
import hashlib
import json
import sys

from curl_cffi import Curl, CurlError, CurlInfo, CurlOpt

# Of curl/curl.h; the Python enumerations lack those of proxies.
PROXY_TYPES = {"http1": 2, "http2": 3, "http3": 8}
HTTP_VERSIONS = {"http1": 2, "http3": 31}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ca", required=True, metavar="PEM", help="of the proxy and of the origin")
    parser.add_argument("--proxy", required=True, metavar="URL")
    parser.add_argument("--proxy-version", choices=PROXY_TYPES, required=True)
    parser.add_argument("--proxy-user", metavar="USER:PASSWORD")
    parser.add_argument("--target", choices=HTTP_VERSIONS, required=True)
    parser.add_argument("--timeout", type=int, default=30, metavar="SECONDS")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("url")
    arguments = parser.parse_args()

    body = bytearray()
    curl = Curl()
    result = {"version": curl.version().decode(), "connect_status": None, "bytes": 0, "sha256": None}
    problem = None
    options = {
        CurlOpt.URL: arguments.url,
        CurlOpt.HTTP_VERSION: HTTP_VERSIONS[arguments.target],
        CurlOpt.CAINFO: arguments.ca,
        CurlOpt.PROXY: arguments.proxy,
        CurlOpt.PROXYTYPE: PROXY_TYPES[arguments.proxy_version],
        CurlOpt.HTTPPROXYTUNNEL: 1,
        CurlOpt.PROXY_CAINFO: arguments.ca,
        CurlOpt.NOPROXY: "",
        CurlOpt.TIMEOUT: arguments.timeout,
        CurlOpt.VERBOSE: int(arguments.verbose),
        CurlOpt.FAILONERROR: 1,
        CurlOpt.WRITEFUNCTION: body.extend,
    }
    if arguments.proxy_user:
        options[CurlOpt.PROXYUSERPWD] = arguments.proxy_user
    try:
        for option, value in options.items():
            curl.setopt(option, value.encode() if isinstance(value, str) else value)
        curl.perform()
    except CurlError as error:
        problem = str(error)
    result["connect_status"] = curl.getinfo(CurlInfo.HTTP_CONNECTCODE)
    result["bytes"] = len(body)
    result["sha256"] = hashlib.sha256(body).hexdigest()
    print(json.dumps({"ok": problem is None, "problem": problem, **result}), flush=True)
    sys.exit(1 if problem else 0)


if __name__ == "__main__":
    main()
