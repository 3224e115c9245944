"""HTTP/1.1 over TLS: CONNECT, or GET with Upgrade; a tunnel takes the connection."""

from pathlib import Path

from .link import TlsLink
from .stream import FIN, Head, Stream, joined


def connect(proxy: str, ca: Path) -> "Connection":
    return Connection(proxy, ca)


class Connection:
    """Its link may be written to directly by tests that send what no client should."""

    def __init__(self, proxy: str, ca: Path) -> None:
        self.proxy = proxy
        self.link = TlsLink(proxy, ca, ["http/1.1"])
        assert self.link.alpn == "http/1.1", f"ALPN {self.link.alpn}"

    def request(self, head: Head) -> "H1Stream":
        if head.protocol:
            lines = [f"GET {head.path} HTTP/1.1", f"Host: {head.authority}", "Connection: Upgrade"]
            lines.append(f"Upgrade: {head.protocol}")
        elif head.path:
            lines = [f"GET {head.path} HTTP/1.1", f"Host: {head.authority}"]
        else:
            lines = [f"CONNECT {head.authority} HTTP/1.1", f"Host: {head.authority}"]
        lines += [f"{name}: {value}" for name, value in head.fields.items()]
        self.link.send("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        return H1Stream(self, head)


class H1Stream(Stream):
    def __init__(self, connection: Connection, head: Head) -> None:
        super().__init__()
        self.connection = connection
        self._protocol = head.protocol

    def set_patience(self, seconds: float) -> None:
        super().set_patience(seconds)
        self.connection.link.wait_seconds = seconds

    def pump(self, seconds: float) -> None:
        link = self.connection.link
        link.pump(seconds)
        while self.status is None and (end := link.received.find(b"\r\n\r\n")) >= 0:
            self._handle_head(bytes(link.received[:end]).decode("latin-1"))
            del link.received[: end + 4]
        if self.status is not None:
            self.received += link.received
            link.received.clear()
        self.end = link.end

    def _handle_head(self, text: str) -> None:
        line, *rest = text.split("\r\n")
        version, status, *_ = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        lines = (field.partition(":") for field in rest)
        self.fields.update(joined((name.strip().lower(), value.strip()) for name, _, value in lines))
        if status == "101":
            # An upgrade that happened is a success like that of the other carriers.
            assert self._protocol and self.fields.get("upgrade", "").lower() == self._protocol, text
            assert "upgrade" in self.fields.get("connection", "").lower(), text
            self.status = 200
        elif not status.startswith("1"):
            assert not (self._protocol and status.startswith("2")), f"no upgrade: {text}"
            self.status = int(status)
        else:
            self.fields.clear()

    def send(self, data: bytes) -> None:
        self.connection.link.send(data)

    def finish(self) -> None:
        self.connection.link.finish()

    def truncate(self) -> None:
        self.connection.link.cut()

    def abort(self) -> None:
        self.connection.link.abort()

    def close(self) -> None:
        self.connection.link.close()

    def is_closed(self) -> bool:
        return self.end not in (None, FIN) or self.connection.link.is_gone()
