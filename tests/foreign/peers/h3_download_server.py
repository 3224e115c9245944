"""An HTTP/3 origin (aioquic) that serves `/random?seed=S&bytes=N`: N bytes that depend on the seed alone.

Prints `listening on ADDR:PORT` once it is bound.
"""

import argparse
import asyncio
import random
from urllib.parse import parse_qs, urlsplit

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

BODY_BYTES_MAX = 64 << 20


def random_body(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


class Origin(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._h3 = H3Connection(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self._h3.handle_event(event):
            if isinstance(happened, HeadersReceived):
                self._answer(happened.stream_id, dict(happened.headers).get(b":path", b"").decode())

    def _answer(self, stream_id: int, path: str) -> None:
        target = urlsplit(path)
        query = parse_qs(target.query)
        try:
            seed, size = int(query["seed"][0]), int(query["bytes"][0])
        except (KeyError, ValueError):
            seed, size = 0, -1
        if target.path != "/random" or not 0 <= size <= BODY_BYTES_MAX:
            self._h3.send_headers(stream_id, [(b":status", b"404")], end_stream=True)
            return
        self._h3.send_headers(stream_id, [(b":status", b"200"), (b"content-length", str(size).encode())])
        self._h3.send_data(stream_id, random_body(seed, size), end_stream=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDR")
    parser.add_argument("--certificate", required=True, metavar="PEM")
    parser.add_argument("--key", required=True, metavar="PEM")
    arguments = parser.parse_args()

    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(arguments.certificate, arguments.key)
    server = await serve(arguments.listen, 0, configuration=configuration, create_protocol=Origin)
    host, port = server._transport.get_extra_info("sockname")[:2]
    print(f"listening on {host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
