"""What the aioquic peers share: an HTTP/3 client connection, capsules, structured fields, output.

```text
Connection ── one per QUIC connection: SETTINGS, grease, end of the connection
   └─ Request ── one per stream: head, HTTP datagrams (QUIC frames or capsules), unknown capsules, end of the stream
```

Everything that waits, waits on a future or queue of its request; when the connection ends, each of them fails with
the reason, so that a peer which closes the connection gives a message and not a timeout.
"""

import asyncio
import json
import ssl
import sys
from typing import NoReturn

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection, Setting, encode_frame
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

CAPSULE_DATAGRAM = 0x00
CONTEXT_UDP = 0
DATAGRAM_FRAME_SIZE_MAX = 65535
# Short header (1 + 20 + 4), AEAD tag (16), DATAGRAM frame type and length (3), quarter stream id (2), context id (1).
DATAGRAM_OVERHEAD_BYTES = 47

# Values reserved for exercising "ignore what you do not know": RFC 9114 section 7.2.8, RFC 9297 section 5.4.
GREASE_FRAME = 0x21 + 0x1F * 3
GREASE_STREAM = 0x21 + 0x1F * 5
GREASE_CAPSULE = 0x17 + 0x29 * 7


class Failure(Exception):
    """An expectation that the peer did not meet; the message is the whole report."""


def encode_capsule(kind: int, value: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(value)) + value


class CapsuleReader:
    """Splits the data stream of a request into capsules, whatever the sizes of the DATA frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def push(self, data: bytes) -> list[tuple[int, bytes]]:
        self._buffer += data
        capsules = []
        while self._buffer:
            view = Buffer(data=self._buffer)
            try:
                kind, length = view.pull_uint_var(), view.pull_uint_var()
                value = view.pull_bytes(length)
            except BufferReadError:
                break
            capsules.append((kind, value))
            self._buffer = self._buffer[view.tell() :]
        return capsules

    def is_between_capsules(self) -> bool:
        return not self._buffer


class Request:
    """One request stream as the client sees it."""

    def __init__(self, stream_id: int, is_tunnel: bool) -> None:
        loop = asyncio.get_running_loop()
        self.stream_id = stream_id
        self._wants_tunnel = is_tunnel
        self.head: asyncio.Future[list[tuple[bytes, bytes]]] = loop.create_future()
        # "fin" or "reset 0x10f"
        self.end: asyncio.Future[str] = loop.create_future()
        # (how it travelled, UDP payload)
        self.payloads: asyncio.Queue[tuple[str, bytes] | Failure] = asyncio.Queue()
        # Content of a plain request, or of the refusal of a tunnel.
        self.body = bytearray()
        self.unknown_capsules: list[int] = []
        self._capsules = CapsuleReader()

    def is_tunnel(self) -> bool:
        return self._wants_tunnel and dict(self.head.result())[b":status"].startswith(b"2")

    def handle_datagram(self, how: str, datagram: bytes) -> None:
        view = Buffer(data=datagram)
        try:
            context = view.pull_uint_var()
        except BufferReadError:
            return self.fail(Failure(f"{how} without a context id on stream {self.stream_id}"))
        if context == CONTEXT_UDP:
            self.payloads.put_nowait((how, datagram[view.tell() :]))

    def handle_data(self, data: bytes) -> None:
        if not self.is_tunnel():
            self.body += data
            return
        for kind, value in self._capsules.push(data):
            if kind == CAPSULE_DATAGRAM:
                self.handle_datagram("capsule", value)
            else:
                self.unknown_capsules.append(kind)

    def handle_fin(self) -> None:
        if not self._capsules.is_between_capsules():
            return self.fail(Failure(f"FIN inside a capsule on stream {self.stream_id}"))
        self.handle_end("fin")

    def handle_end(self, how: str) -> None:
        reason = Failure(f"stream {self.stream_id} ended ({how}) while the client was waiting")
        if not self.head.done():
            self.head.set_exception(reason)
        if not self.end.done():
            self.end.set_result(how)
        self.payloads.put_nowait(reason)

    def fail(self, reason: Failure) -> None:
        for future in (self.head, self.end):
            if not future.done():
                future.set_exception(reason)
                # Whoever waits gets it; whoever does not wait must not make the event loop complain.
                future.exception()
        self.payloads.put_nowait(reason)

    async def payload(self) -> tuple[str, bytes]:
        received = await self.payloads.get()
        if isinstance(received, Failure):
            raise received
        return received


class Http3(H3Connection):
    """aioquic announces SETTINGS_H3_DATAGRAM for WebTransport only; here it goes with the transport parameter."""

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        if self._quic.configuration.max_datagram_frame_size:
            settings[Setting.H3_DATAGRAM] = 1
        return settings


class Connection(QuicConnectionProtocol):
    """An HTTP/3 client connection; `create_protocol` argument of `aioquic.asyncio.connect`."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.h3 = Http3(self._quic)
        self.requests: dict[int, Request] = {}
        self.terminated: Failure | None = None
        self._settings: asyncio.Future[dict[int, int]] = self._loop.create_future()

    async def settings(self) -> dict[int, int]:
        """SETTINGS of the server. An extended CONNECT has to wait for them (RFC 8441 section 3)."""
        return await asyncio.shield(self._settings)

    def request(self, headers: list[tuple[bytes, bytes]], is_tunnel: bool) -> Request:
        """Sends a request head; a plain request ends with it, a tunnel stays open."""
        if self.terminated:
            raise self.terminated
        request = Request(self._quic.get_next_available_stream_id(), is_tunnel)
        self.requests[request.stream_id] = request
        self.h3.send_headers(request.stream_id, headers, end_stream=not is_tunnel)
        return request

    def send_grease(self) -> None:
        """Opens a reserved stream and sends reserved frames on the control stream (RFC 9114 sections 6.2.3, 7.2.8)."""
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream, encode_uint_var(GREASE_STREAM) + b"ignore me")
        self._quic.send_stream_data(self.h3._local_control_stream_id, encode_frame(GREASE_FRAME, b"and me"))
        self._quic.send_stream_data(self.h3._local_control_stream_id, encode_frame(GREASE_FRAME, b""))

    def send_grease_frame(self, request: Request) -> None:
        """Sends reserved frames on a request stream, one of them empty."""
        self._quic.send_stream_data(request.stream_id, encode_frame(GREASE_FRAME, bytes(300)))
        self._quic.send_stream_data(request.stream_id, encode_frame(GREASE_FRAME, b""))

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self._handle_terminated(event)
        for happened in self.h3.handle_event(event):
            request = self.requests.get(happened.stream_id)
            if request is None:
                continue
            if isinstance(happened, HeadersReceived) and not request.head.done():
                request.head.set_result(happened.headers)
            elif isinstance(happened, DataReceived):
                request.handle_data(happened.data)
            elif isinstance(happened, DatagramReceived):
                request.handle_datagram("datagram", happened.data)
            if getattr(happened, "stream_ended", False):
                request.handle_fin()
        if isinstance(event, StreamReset) and event.stream_id in self.requests:
            self.requests[event.stream_id].handle_end(f"reset {event.error_code:#x}")
        if self.h3.received_settings is not None and not self._settings.done():
            self._settings.set_result(self.h3.received_settings)

    def _handle_terminated(self, event: ConnectionTerminated) -> None:
        self.terminated = Failure(f"connection closed with {event.error_code:#x} {event.reason_phrase!r}")
        if not self._settings.done():
            self._settings.set_exception(self.terminated)
            self._settings.exception()
        for request in self.requests.values():
            request.fail(self.terminated)


def client_configuration(ca: str | None, mtu: int = 1200, datagrams: bool = False) -> QuicConfiguration:
    """TLS without `ca` is unchecked. `datagrams` announces QUIC DATAGRAM frames and SETTINGS_H3_DATAGRAM."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        max_datagram_size=mtu,
        max_datagram_frame_size=DATAGRAM_FRAME_SIZE_MAX if datagrams else None,
        verify_mode=None if ca else ssl.CERT_NONE,
    )
    if ca:
        configuration.load_verify_locations(cafile=ca)
    return configuration


def finish(result: dict, problem: str | None) -> NoReturn:
    """Prints the JSON result and leaves with 0 or 1; the problem, if any, also goes to stderr for people."""
    print(json.dumps({"ok": problem is None, "problem": problem, **result}), flush=True)
    if problem:
        print(f"FAILED: {problem}", file=sys.stderr)
    sys.exit(1 if problem else 0)
