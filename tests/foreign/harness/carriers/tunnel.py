"""Tunnels in all their forms over one kind of stream.

```text
classic    CONNECT host:port, raw bytes                                 RFC 9110 section 9.3.6
raw        connect-tcp without capsules: raw bytes                      draft-ietf-httpbis-connect-tcp before -08
capsules   connect-tcp: DATA capsules, FINAL_DATA is FIN                draft-ietf-httpbis-connect-tcp section 3.4
udp        connect-udp: DATAGRAM capsules with context 0                RFC 9297, RFC 9298
```
"""

from collections.abc import Callable
from urllib.parse import quote

from aioquic.buffer import Buffer, BufferReadError, encode_uint_var

from .stream import FIN, Head, Stream

CAPSULE_DATAGRAM = 0x00
CAPSULE_DATA = 0x2028D7F2
CAPSULE_FINAL_DATA = 0x2028D7F3
FORMS = ("classic", "raw", "capsules")
CAPSULE_BYTES = 1 << 14


def tunnel_request(form: str, proxy: str, target: str, fields: dict[str, str]) -> Head:
    if form == "classic":
        return Head(None, target, None, fields)
    host, _, port = target.rpartition(":")
    kind = "udp" if form == "udp" else "tcp"
    path = f"/.well-known/masque/{kind}/{quote(host.strip('[]'), safe='')}/{port}/"
    with_capsules = {} if form == "raw" else {"capsule-protocol": "?1"}
    return Head(f"connect-{kind}", proxy, path, with_capsules | fields)


def encode_capsule(kind: int, value: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(value)) + value


class Tunnel:
    """An open tunnel."""

    def __init__(self, stream: Stream, form: str) -> None:
        self.stream = stream
        self._form = form
        self._received = bytearray()
        self._ended = False
        self.datagrams: list[bytes] = []
        self.unknown_capsules: list[int] = []
        status = stream.wait_head()
        assert status == 200, f"{form}: status {status}, {stream.fields}, {bytes(stream.received[:200])!r}"
        if form in ("capsules", "udp"):
            assert stream.fields.get("capsule-protocol") == "?1", stream.fields

    def __enter__(self) -> "Tunnel":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def _read_stream(self) -> None:
        if self._form in ("classic", "raw"):
            self._received += self.stream.received
            self.stream.received.clear()
            self._ended = self.stream.end == FIN
            return
        view, whole = Buffer(data=bytes(self.stream.received)), 0
        while not view.eof():
            try:
                kind, length = view.pull_uint_var(), view.pull_uint_var()
                value = view.pull_bytes(length)
            except BufferReadError:
                break
            whole = view.tell()
            self._handle_capsule(kind, value)
        del self.stream.received[:whole]

    def _handle_capsule(self, kind: int, value: bytes) -> None:
        assert not self._ended, f"capsule {kind:#x} after FINAL_DATA"
        if self._form == "udp" and kind == CAPSULE_DATAGRAM:
            assert value[:1] == b"\0", f"context id of {value[:8].hex()}"
            self.datagrams.append(value[1:])
        elif self._form == "capsules" and kind in (CAPSULE_DATA, CAPSULE_FINAL_DATA):
            self._received += value
            self._ended = kind == CAPSULE_FINAL_DATA
        else:
            self.unknown_capsules.append(kind)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        def is_ready() -> bool:
            self._read_stream()
            return ready() or self.stream.end is not None

        self.stream.wait(is_ready, what)

    def send(self, data: bytes) -> None:
        if self._form == "capsules":
            pieces = (data[start : start + CAPSULE_BYTES] for start in range(0, len(data), CAPSULE_BYTES))
            data = b"".join(encode_capsule(CAPSULE_DATA, piece) for piece in pieces)
        self.stream.send(data)

    def send_datagram(self, payload: bytes) -> None:
        self.stream.send(encode_capsule(CAPSULE_DATAGRAM, b"\0" + payload))

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        self._wait(lambda: len(self._received) >= size, f"{size} bytes")
        assert len(self._received) >= size, f"{len(self._received)} of {size} bytes, then {self.stream.end}"
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def receive_datagram(self) -> bytes:
        self._wait(lambda: bool(self.datagrams), "datagram")
        assert self.datagrams, f"no datagram, but {self.stream.end}"
        return self.datagrams.pop(0)

    def finish(self) -> None:
        """Half-close: the TCP FIN of this direction."""
        if self._form == "capsules":
            self.stream.send(encode_capsule(CAPSULE_FINAL_DATA, b""))
        else:
            self.stream.finish()

    def wait_end(self) -> str:
        """How the direction towards us ended: FIN, or what the stream says. Nothing may be left unread."""
        self._wait(lambda: self._ended, "end")
        assert not self._received, f"{len(self._received)} bytes nobody expected"
        return FIN if self._ended else self.stream.end

    def wait_close(self) -> str:
        """How the stream ended after both directions are through; with capsules its FIN comes behind FINAL_DATA."""
        if self._form == "capsules":
            self.stream.finish()
        return self.stream.wait_end()
