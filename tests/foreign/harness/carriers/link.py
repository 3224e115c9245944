"""A TCP connection, plain or under TLS, that says how it ended.

The TLS engine of Python works on memory here, so that one direction can be closed (close_notify) while the other goes
on, which `ssl.SSLSocket` cannot do.
"""

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

from .stream import FIN, TRUNCATED, WAIT_SECONDS

RECEIVE_BYTES = 1 << 16
RESET = "reset"


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Link:
    """A plain TCP connection. `end` is FIN or RESET once the peer has ended it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.setblocking(False)
        self._outgoing = bytearray()
        self._shutdown = False
        self.received = bytearray()
        self.end: str | None = None
        self.wait_seconds = WAIT_SECONDS

    def pump(self, seconds: float) -> None:
        """Writes what waits, and reads; returns when something came, everything is written, or `seconds` are over."""
        wants = [self._socket]
        readable, writable, _ = select.select(
            wants if self.end is None else [], wants if self._outgoing else [], [], max(seconds, 0)
        )
        try:
            if writable:
                del self._outgoing[: self._socket.send(self._outgoing)]
            if readable:
                data = self._socket.recv(RECEIVE_BYTES)
                self._handle_bytes(data) if data else self._handle_end(FIN)
        except (ConnectionResetError, BrokenPipeError):
            self._outgoing.clear()
            self._handle_end(RESET)
        if self._shutdown and not self._outgoing:
            self._shutdown = False
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            # The peer was faster; `end` tells.
            pass

    def _handle_bytes(self, data: bytes) -> None:
        self.received += data

    def _handle_end(self, how: str) -> None:
        self.end = self.end or how

    def _wait(self, ready: Callable[[], bool], what: str, deadline: float | None = None) -> None:
        deadline = deadline or time.monotonic() + self.wait_seconds
        while not ready():
            left = deadline - time.monotonic()
            assert left > 0, f"no {what} in time; {len(self.received)} bytes, end {self.end}"
            self.pump(left)

    def send(self, data: bytes) -> None:
        self.send_until(data, time.monotonic() + self.wait_seconds)

    def send_until(self, data: bytes, deadline: float) -> None:
        self._outgoing += data
        # A peer that has ended its direction may still read; one that has reset the connection has emptied this.
        self._wait(lambda: not self._outgoing, "room to send", deadline)

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        self._wait(lambda: len(self.received) >= size or self.end is not None, f"{size} bytes")
        assert len(self.received) >= size, f"{len(self.received)} of {size} bytes, then {self.end}"
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def wait_end(self) -> str:
        self._wait(lambda: self.end is not None, "end")
        return self.end

    def finish(self) -> None:
        """FIN behind everything sent."""
        self._shutdown = True
        self.pump(0)

    def abort(self) -> None:
        """RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


class TlsLink(Link):
    """The same under TLS. `end` is FIN after a close_notify, TRUNCATED without; `finish` is a close_notify."""

    def __init__(self, address: str, ca: Path, alpn: list[str]) -> None:
        super().__init__(socket.create_connection(split_address(address), timeout=WAIT_SECONDS))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(alpn)
        self._from_peer, self._to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_peer, self._to_peer, server_hostname=split_address(address)[0])
        self._established = False
        self._advance()
        self._wait(lambda: self._established or self.end is not None, "TLS handshake")
        assert self._established, f"TLS handshake ended with {self.end}"

    @property
    def alpn(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    def _handle_bytes(self, data: bytes) -> None:
        self._from_peer.write(data)
        self._advance()

    def _handle_end(self, how: str) -> None:
        self._from_peer.write_eof()
        self._advance()
        super()._handle_end(TRUNCATED)

    def _advance(self) -> None:
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
            while self.end is None:
                if not (data := self._tls.read(RECEIVE_BYTES)):
                    self.end = FIN
                self.received += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.end = FIN
        except ssl.SSLError:
            # The end of TCP in place of a close_notify, or a fatal alert, which is no orderly end either.
            if not self._established:
                raise
            self.end = TRUNCATED
        self._outgoing += self._to_peer.read()

    def send_until(self, data: bytes, deadline: float) -> None:
        if data:
            self._tls.write(data)
        super().send_until(self._to_peer.read(), deadline)

    def finish(self) -> None:
        """close_notify; the TCP connection stays open for what the peer still sends."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # It wants the close_notify of the peer, which `pump` reads in its time.
            pass
        super().send_until(self._to_peer.read(), time.monotonic() + self.wait_seconds)

    def cut(self) -> None:
        """FIN of TCP without a close_notify."""
        super().finish()

    def is_gone(self) -> bool:
        """Whether the peer has closed the TCP connection, which may come after its close_notify."""
        if self.end in (None, FIN):
            try:
                return select.select([self._socket], [], [], 0)[0] != [] and self._socket.recv(RECEIVE_BYTES) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
        return True
