"""Downloads `/random?seed=S&bytes=N` over HTTP/3 (aioquic) and compares it with what the seed says it must be.

The connection goes to `--address`, which may be a UDP forwarder; the certificate has to be that of `--name`.
Prints one JSON object: ok, problem, bytes, sha256, seconds. Exit code 0 or 1.
"""

import argparse
import asyncio
import hashlib
import time

from aioquic.asyncio import connect
from h3 import Connection, Failure, client_configuration, finish
from h3_download_server import random_body


async def download(arguments: argparse.Namespace, result: dict) -> None:
    configuration = client_configuration(arguments.ca)
    configuration.server_name = arguments.name
    host, _, port = arguments.address.rpartition(":")
    started = time.monotonic()
    async with connect(
        host.strip("[]"), int(port), configuration=configuration, create_protocol=Connection
    ) as connection:
        path = f"/random?seed={arguments.seed}&bytes={arguments.bytes}"
        request = connection.request(
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", arguments.name.encode()),
                (b":path", path.encode()),
            ],
            is_tunnel=False,
        )
        connection.transmit()
        status = dict(await request.head)[b":status"].decode()
        if status != "200":
            raise Failure(f"status {status} for {path}")
        end = await request.end
    result["bytes"] = len(request.body)
    result["sha256"] = hashlib.sha256(request.body).hexdigest()
    result["seconds"] = round(time.monotonic() - started, 3)
    expected = hashlib.sha256(random_body(arguments.seed, arguments.bytes)).hexdigest()
    if end != "fin":
        raise Failure(f"the stream ended with {end}")
    if result["sha256"] != expected:
        raise Failure(f"{result['bytes']} bytes with SHA-256 {result['sha256']}, expected {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", default="localhost", help="server name and :authority")
    parser.add_argument("--ca", metavar="PEM", help="trust this authority; nothing is checked without it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=10 << 20)
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    arguments = parser.parse_args()

    result: dict = {}
    try:
        asyncio.run(asyncio.wait_for(download(arguments, result), arguments.timeout))
    except Failure as failure:
        finish(result, str(failure))
    except (TimeoutError, asyncio.TimeoutError):
        finish(result, f"no answer within {arguments.timeout} s")
    except ConnectionError as error:
        finish(result, f"no connection to {arguments.address}: {error}")
    finish(result, None)


if __name__ == "__main__":
    main()
