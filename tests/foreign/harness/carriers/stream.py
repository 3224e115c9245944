"""What the streams of the three carriers have in common."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

WAIT_SECONDS = 15.0

FIN = "fin"
# HTTP/1.1 has no codes: the connection ended without close_notify, by FIN or by RST.
TRUNCATED = "truncated"


def joined(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields of a head; several lines of one name are one list (RFC 9110 section 5.3)."""
    fields: dict[str, str] = {}
    for name, value in lines:
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


@dataclass
class Head:
    """A request for a tunnel; each carrier writes it in its own way."""

    # Of an extended CONNECT or an upgrade; classic CONNECT has none.
    protocol: str | None
    authority: str
    path: str | None
    fields: dict[str, str] = field(default_factory=dict)


class Stream:
    """One request. `pump` of the carrier moves bytes; everything else is shared."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.fields: dict[str, str] = {}
        self.received = bytearray()
        # FIN, TRUNCATED, or "reset 0x10f" with the code of the carrier.
        self.end: str | None = None
        self.wait_seconds = WAIT_SECONDS

    def set_patience(self, seconds: float) -> None:
        """How long everything may take from now on."""
        self.wait_seconds = seconds

    def pump(self, seconds: float) -> None:
        """Sends what waits, then receives what comes within `seconds`; returns earlier when something came."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Hands all of `data` to the carrier; receives meanwhile."""
        raise NotImplementedError

    def finish(self) -> None:
        """Ends the own direction in order."""
        raise NotImplementedError

    def abort(self) -> None:
        """Ends both directions abruptly, as a client that gives up does."""
        raise NotImplementedError

    def truncate(self) -> None:
        """Ends the own direction without saying that it is complete, where the carrier can do so."""
        self.finish()

    def close(self) -> None:
        """Lets the connection go; sends nothing more than its kernel does."""
        raise NotImplementedError

    def is_closed(self) -> bool:
        """Whether the whole connection has been closed by the peer."""
        raise NotImplementedError

    def is_writable(self) -> bool:
        """Whether the own direction may still lead somewhere: a FIN of the other one does not matter."""
        return self.end in (None, FIN)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.wait_seconds
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(
                    f"no {what} within {self.wait_seconds} s; status {self.status}, "
                    f"{len(self.received)} bytes, end {self.end}"
                )
            self.pump(left)

    def wait_head(self) -> int:
        self.wait(lambda: self.status is not None or self.end is not None, "response")
        assert self.status is not None, f"ended with {self.end} instead of a response"
        return self.status

    def wait_end(self) -> str:
        self.wait(lambda: self.end is not None, "end")
        return self.end
