"""curl through our relays and through our local proxy: a page of some MiB, uploads, credentials.

Two of them: the program of Debian, over HTTP/1.1 and HTTP/2, and a libcurl that speaks HTTP/3 to proxies and
CONNECT-UDP over all three (curl_cffi).
"""

from pathlib import Path

import pytest
from harness import peers, web
from harness.bauta import Bauta
from harness.certificates import ORIGIN_NAME, Certificates
from harness.payload import pattern
from harness.process import free_port

PAGE_BYTES = 6 << 20
UPLOAD_BYTES = 3 << 20
# curl: "Failure with receiving network data", which is how it reports a refused tunnel.
REFUSED = 56

TO_PROXY = pytest.mark.parametrize(
    ("version", "options"), [("1.1", []), ("2", ["--proxy-http2"])], ids=["http1", "http2"]
)


@pytest.fixture
def by_name(https_origin: str) -> str:
    """The origin by a name that only the relay can resolve."""
    return f"{ORIGIN_NAME}:{https_origin.rpartition(':')[2]}"


# spec: rc-chromium-c, rc-apple-a
@TO_PROXY
def test_download(
    via: str, by_name: str, certificates: Certificates, version: str, options: list[str]
) -> None:
    url = web.random_url(by_name, 11, PAGE_BYTES)
    fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{via}", *options)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.proxy_versions == [version], fetched.log
    assert fetched.sha256 == web.digest_of_random(11, PAGE_BYTES)


@TO_PROXY
def test_upload(
    via: str, by_name: str, certificates: Certificates, tmp_path: Path, version: str, options: list[str]
) -> None:
    file = tmp_path / "upload"
    file.write_bytes(pattern("upload", UPLOAD_BYTES))
    sending = ["--data-binary", f"@{file}", "--header", "expect:"]
    url = f"https://{by_name}/digest"
    fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{via}", *options, *sending)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.body.decode() == web.digest(file.read_bytes())


@TO_PROXY
def test_many_at_once(
    via: str, by_name: str, certificates: Certificates, tmp_path: Path, version: str, options: list[str]
) -> None:
    """Over HTTP/2 these are streams of one connection."""
    urls = [web.random_url(by_name, seed, 1 << 20) for seed in range(8)]
    files = [tmp_path / str(seed) for seed in range(8)]
    more = [word for url, file in zip(urls[1:], files[1:]) for word in (url, "--output", file)]
    # curl pairs URLs and outputs in their order; urls[0] comes last.
    parallel = ["--parallel", "--parallel-max", "8", *more, "--output", files[0]]
    fetched = web.fetch(certificates.ca, urls[0], "--proxy", f"https://{via}", *options, *parallel)
    assert fetched.exit_code == 0, fetched.log
    for seed, file in enumerate(files):
        assert web.digest(file.read_bytes()) == web.digest_of_random(seed, 1 << 20), f"seed {seed}\n{fetched.log}"


# spec: 9110-11.7.1-a, 9110-15.5.20-a
@pytest.mark.parametrize("credentials", [[], ["--proxy-user", "alice:wrong"], ["--proxy-user", "mallory:x"]])
@TO_PROXY
def test_no_way_in(
    guarded: str, by_name: str, certificates: Certificates, version: str, options: list[str], credentials: list[str]
) -> None:
    url = web.random_url(by_name, 1, 1000)
    fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{guarded}", *options, *credentials)
    assert fetched.exit_code == REFUSED, fetched.log
    # curl does not say what it was over HTTP/2; test_carriers.py looks at the response.
    assert version == "2" or "response 407" in fetched.log
    assert fetched.body == b""


@pytest.mark.parametrize("credentials", [["--proxy-basic"], ["--proxy-anyauth"]], ids=["at once", "when asked"])
@TO_PROXY
def test_credentials(
    guarded: str, by_name: str, certificates: Certificates, version: str, options: list[str], credentials: list[str]
) -> None:
    # spec: 9931-8-d: over HTTP/1.1 `--proxy-anyauth` needs a second connection after the 407. Over HTTP/2 curl 8.14.1
    # reads the challenge of the 407 and gives up: it repeats no CONNECT there, whoever the proxy is.
    url = web.random_url(by_name, 12, PAGE_BYTES)
    asks_first = "--proxy-anyauth" in credentials
    credentials = [*credentials, "--proxy-user", Bauta.USER]
    if version == "2" and asks_first:
        fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{guarded}", *options, *credentials)
        assert fetched.exit_code == REFUSED, "curl repeats CONNECT over HTTP/2: test it like the others"
        return
    # curl 8.14.1 crashes when it connects again to an HTTPS proxy that closed after the 407; the system's does not.
    program = "/usr/bin/curl" if version == "1.1" and asks_first else None
    fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{guarded}", *options, *credentials, program=program)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.sha256 == web.digest_of_random(12, PAGE_BYTES)
    if version == "1.1":
        assert ("407" in fetched.log) == ("--proxy-anyauth" in credentials), fetched.log


# spec: rc-firefox-a
@TO_PROXY
def test_bearer(
    guarded: str, by_name: str, certificates: Certificates, version: str, options: list[str]
) -> None:
    url = web.random_url(by_name, 13, 1000)
    header = ["--proxy-header", f"Proxy-Authorization: Bearer {Bauta.TOKEN}"]
    fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{guarded}", *options, *header)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.sha256 == web.digest_of_random(13, 1000)


# spec: map-17
@TO_PROXY
def test_target_that_refuses(via: str, certificates: Certificates, version: str, options: list[str]) -> None:
    url = f"https://127.0.0.1:{free_port()}/"
    fetched = web.fetch(certificates.ca, url, "--proxy", f"https://{via}", *options)
    assert fetched.exit_code == REFUSED, fetched.log
    if version == "1.1":
        assert "response 502" in fetched.log
        assert "error=connection_refused" in fetched.log


# spec: rc-curl-a, rc-curl-b, rc-curl-c, rc-curl-d
@pytest.mark.parametrize("target", ["http1", "http3"])
@pytest.mark.parametrize("proxy_version", ["http1", "http2", "http3"])
def test_libcurl(
    via: str, https_origin: str, origin: str, clients: peers.Clients, proxy_version: str, target: str
) -> None:
    """`http3` is CONNECT-UDP with an HTTP/3 connection inside, `http1` is CONNECT with a TLS connection inside."""
    port = {"http1": https_origin, "http3": origin}[target].rpartition(":")[2]
    url = web.random_url(f"{ORIGIN_NAME}:{port}", 14, PAGE_BYTES)
    result = clients.curl_http3(via, proxy_version, target, url)
    assert result["ok"], result
    assert result["sha256"] == web.digest_of_random(14, PAGE_BYTES)


# CONNECT-UDP is missing on HTTP/2 and HTTP/3: there curl sends no credentials before it is asked, and repeats no request.
@pytest.mark.parametrize(
    ("proxy_version", "target"), [("http1", "http1"), ("http1", "http3"), ("http2", "http1"), ("http3", "http1")]
)
def test_libcurl_credentials(
    guarded: str, https_origin: str, origin: str, clients: peers.Clients, proxy_version: str, target: str
) -> None:
    port = {"http1": https_origin, "http3": origin}[target].rpartition(":")[2]
    url = web.random_url(f"{ORIGIN_NAME}:{port}", 15, 1000)
    result = clients.curl_http3(guarded, proxy_version, target, url, "--proxy-user", Bauta.USER)
    assert result["ok"], result
    assert result["sha256"] == web.digest_of_random(15, 1000)
    assert not clients.curl_http3(guarded, proxy_version, target, url)["ok"]


@pytest.fixture(scope="module")
def front(bauta: Bauta) -> str:
    """The first hop of nested tunnels; it sees the second one as its target."""
    return bauta.relay("front")


@pytest.fixture(scope="module", params=["direct", "chained", "nested", "h2", "h1"])
def local_proxy(bauta: Bauta, request: pytest.FixtureRequest) -> str:
    """`bauta proxy`, each way to reach the origin and each carrier."""
    vias = {"chained": ["chained"], "nested": ["front", "relay"]}.get(request.param, ["relay"])
    carrier = request.param if request.param in ("h2", "h1") else None
    addresses = [request.getfixturevalue(name) for name in vias]
    return bauta.proxy(request.param, *addresses, carrier=carrier)


@pytest.mark.parametrize("how", [["--socks5-hostname"], ["--proxytunnel", "--proxy"]], ids=["socks5", "connect"])
def test_local_proxy(local_proxy: str, by_name: str, certificates: Certificates, how: list[str]) -> None:
    url = web.random_url(by_name, 16, PAGE_BYTES)
    fetched = web.fetch(certificates.ca, url, *how, local_proxy)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.sha256 == web.digest_of_random(16, PAGE_BYTES)


@pytest.mark.parametrize("how", [["--socks5-hostname"], ["--proxytunnel", "--proxy"]], ids=["socks5", "connect"])
def test_local_proxy_upload(
    local_proxy: str, by_name: str, certificates: Certificates, tmp_path: Path, how: list[str]
) -> None:
    file = tmp_path / "upload"
    file.write_bytes(pattern("upload", UPLOAD_BYTES))
    sending = ["--data-binary", f"@{file}", "--header", "expect:"]
    fetched = web.fetch(certificates.ca, f"https://{by_name}/digest", *how, local_proxy, *sending)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.body.decode() == web.digest(file.read_bytes())


@pytest.mark.parametrize("how", [["--socks5-hostname"], ["--proxytunnel", "--proxy"]], ids=["socks5", "connect"])
def test_local_proxy_refuses(local_proxy: str, certificates: Certificates, how: list[str]) -> None:
    """What the relay refused, the application is told at once."""
    url = f"https://127.0.0.1:{free_port()}/"
    fetched = web.fetch(certificates.ca, url, *how, local_proxy)
    assert fetched.exit_code != 0
    assert fetched.body == b""
    # "Couldn't connect to server" by way of SOCKS5, or a refused tunnel; never a timeout (28).
    assert fetched.exit_code in (REFUSED, 97), fetched.log
