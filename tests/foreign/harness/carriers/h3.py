"""HTTP/3 with aioquic, moved by hand over one UDP socket."""

import select
import socket
import time
from pathlib import Path

from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import DatagramReceived, DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

from .link import RECEIVE_BYTES, split_address
from .stream import FIN, Head, Stream, joined

REQUEST_CANCELLED = 0x10C
NO_ERROR = 0x100
WINDOW_BYTES = 1 << 24
# More than this waits here and not in aioquic, whose send buffers have no bound.
SEND_BYTES_AHEAD = 1 << 16


# Room for a packet of 1280 bytes in a datagram, on a path with the MTU of Ethernet.
DATAGRAM_PACKET_BYTES = 1400
DATAGRAM_FRAME_BYTES_MAX = 65535


def connect(proxy: str, ca: Path) -> "Connection":
    return Connection(proxy, ca)


def connect_with_datagrams(proxy: str, ca: Path) -> "Connection":
    """With QUIC DATAGRAM frames and SETTINGS_H3_DATAGRAM, so that the peer sends HTTP datagrams in them."""
    return Connection(proxy, ca, datagrams=True)


class Http3(H3Connection):
    """aioquic announces SETTINGS_H3_DATAGRAM for WebTransport only; here it goes with the transport parameter."""

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        if self._quic.configuration.max_datagram_frame_size:
            settings[Setting.H3_DATAGRAM] = 1
        return settings


class Connection:
    def __init__(self, proxy: str, ca: Path, datagrams: bool = False) -> None:
        self.proxy = proxy
        self._peer = split_address(proxy)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", 0))
        self._socket.setblocking(False)
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=["h3"],
            server_name=self._peer[0],
            max_data=WINDOW_BYTES,
            max_stream_data=WINDOW_BYTES,
        )
        if datagrams:
            configuration.max_datagram_frame_size = DATAGRAM_FRAME_BYTES_MAX
            configuration.max_datagram_size = DATAGRAM_PACKET_BYTES
        configuration.load_verify_locations(cafile=str(ca))
        self.quic = QuicConnection(configuration=configuration)
        self.h3: Http3 | None = None
        self.streams: dict[int, H3Stream] = {}
        self.terminated: str | None = None
        self.quic.connect(self._peer, now=time.monotonic())
        self.h3 = Http3(self.quic)

    def flush(self) -> None:
        for datagram, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self._socket.sendto(datagram, self._peer)

    def pump(self, seconds: float) -> None:
        self.flush()
        timer = self.quic.get_timer()
        if timer is not None:
            seconds = min(seconds, timer - time.monotonic())
        if select.select([self._socket], [], [], max(seconds, 0))[0]:
            self._receive()
        if timer is not None and time.monotonic() >= timer:
            self.quic.handle_timer(now=time.monotonic())
        while (event := self.quic.next_event()) is not None:
            self._handle_event(event)
        self.flush()

    def _receive(self) -> None:
        try:
            while True:
                self.quic.receive_datagram(self._socket.recv(RECEIVE_BYTES), self._peer, now=time.monotonic())
        except BlockingIOError:
            pass

    def _handle_event(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.terminated = f"connection closed with {event.error_code:#x} {event.reason_phrase!r}"
            for stream in self.streams.values():
                stream.end = stream.end or self.terminated
        for happened in self.h3.handle_event(event):
            if stream := self.streams.get(getattr(happened, "stream_id", -1)):
                stream.handle_event(happened)
        if isinstance(event, StreamReset) and (stream := self.streams.get(event.stream_id)):
            stream.end = stream.end or f"reset {event.error_code:#x}"

    def request(self, head: Head) -> "H3Stream":
        stream = H3Stream(self)
        # RFC 9220 section 3 by way of RFC 8441 section 3: an extended CONNECT waits for SETTINGS.
        stream.wait(lambda: self.h3.received_settings is not None or self.terminated is not None, "SETTINGS")
        assert self.terminated is None, self.terminated
        if head.protocol:
            enabled = self.h3.received_settings.get(Setting.ENABLE_CONNECT_PROTOCOL)
            assert enabled == 1, f"SETTINGS_ENABLE_CONNECT_PROTOCOL is {enabled}"
        lines = [(":method", "CONNECT" if head.protocol or not head.path else "GET")]
        lines += [(":protocol", head.protocol)] if head.protocol else []
        lines += [(":scheme", "https")] if head.path else []
        lines += [(":authority", head.authority)]
        lines += [(":path", head.path)] if head.path else []
        lines += head.fields.items()
        stream.id = self.quic.get_next_available_stream_id()
        self.streams[stream.id] = stream
        fields = [(name.encode(), value.encode()) for name, value in lines]
        self.h3.send_headers(stream.id, fields, end_stream=lines[0][1] == "GET")
        self.flush()
        return stream


class H3Stream(Stream):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.id = 0
        # HTTP datagrams that came in QUIC DATAGRAM frames, with their context ids.
        self.datagrams: list[bytes] = []

    def handle_event(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived) and self.status is None:
            fields = joined((name.decode(), value.decode()) for name, value in event.headers)
            status = int(fields.pop(":status"))
            if status >= 200:
                self.status, self.fields = status, fields
        elif isinstance(event, DataReceived):
            self.received += event.data
        elif isinstance(event, DatagramReceived):
            self.datagrams.append(event.data)
        if getattr(event, "stream_ended", False):
            self.end = FIN

    def pump(self, seconds: float) -> None:
        self.connection.pump(seconds)

    def _is_sent(self) -> bool:
        """Whether everything has left, and little of it is unacknowledged."""
        stream = self.connection.quic._streams.get(self.id)
        return stream is None or len(stream.sender._pending) == 0 and len(stream.sender._buffer) < SEND_BYTES_AHEAD

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), SEND_BYTES_AHEAD):
            self.connection.h3.send_data(self.id, data[start : start + SEND_BYTES_AHEAD], end_stream=False)
            self.connection.flush()
            # Unlike a kernel, aioquic sends nothing while nobody pumps.
            self.wait(lambda: self._is_sent() or not self.is_writable(), "room to send")

    def send_datagram(self, datagram: bytes) -> None:
        """In a QUIC DATAGRAM frame; `datagram` begins with a context id."""
        self.connection.h3.send_datagram(self.id, datagram)
        self.connection.flush()

    def finish(self) -> None:
        self.connection.h3.send_data(self.id, b"", end_stream=True)
        self.connection.flush()

    def abort(self) -> None:
        self.connection.quic.reset_stream(self.id, REQUEST_CANCELLED)
        self.connection.quic.stop_stream(self.id, REQUEST_CANCELLED)
        self.connection.flush()

    def close(self) -> None:
        self.connection.quic.close(error_code=NO_ERROR)
        self.connection.flush()
        self.connection._socket.close()

    def is_closed(self) -> bool:
        return self.connection.terminated is not None
