"""A CONNECT-UDP client (RFC 9298 over HTTP/3, on aioquic) that says what it expects and checks every byte.

```text
open ── head sent ──► response ──► per size: one payload out, its echo in, bytes equal ──► close (FIN or nothing)
          └─ early payloads            └─ before it: the requested oddities (unknown capsules, contexts, grease)
```

Tunnels of one run share one connection and speak at the same time; each keeps one payload in flight, so that loss is
the relay's doing and a payload of another tunnel is noticed. Nothing is sent twice. Prints one JSON object (ok,
problem, settings, status, proxy_status, echoed, bytes, as_capsules, end) and leaves with 0 or 1.
"""

import argparse
import asyncio
import hashlib
import sys
from urllib.parse import quote, urlsplit

import http_sf
from aioquic.asyncio import connect
from aioquic.h3.connection import Setting, encode_frame
from h3 import (
    CAPSULE_DATAGRAM,
    CONTEXT_UDP,
    DATAGRAM_OVERHEAD_BYTES,
    GREASE_CAPSULE,
    Connection,
    Failure,
    Request,
    client_configuration,
    encode_capsule,
    encode_uint_var,
    finish,
)

UDP_PAYLOAD_MAX = 65527
UNREACHABLE_INTERVAL_SECONDS = 0.1
ODDITIES = ("unknown-capsule", "unknown-context", "long-context", "empty-datagram", "grease")


def payload_of(tunnel: int, turn: int, size: int) -> bytes:
    """Bytes that no other tunnel and no other turn has; `size` may be 0."""
    return hashlib.shake_128(f"tunnel {tunnel} turn {turn}".encode()).digest(size)


def split_target(target: str) -> tuple[str, str]:
    host, _, port = target.rpartition(":")
    return host.strip("[]"), port


def expand(template: str, target: str) -> str:
    """RFC 6570 expansion, for templates made of simple `{target_host}` and `{target_port}`."""
    host, port = split_target(target)
    return template.replace("{target_host}", quote(host, safe="")).replace("{target_port}", quote(port, safe=""))


class Tunnel:
    """One request and the payloads that go through it."""

    def __init__(self, connection: Connection, arguments: argparse.Namespace, number: int) -> None:
        self.connection = connection
        self.arguments = arguments
        self.number = number
        self.request: Request | None = None
        self.echoed = 0
        self.echoed_bytes = 0
        self.as_capsules = 0

    def open(self) -> None:
        url = urlsplit(expand(self.arguments.template, self.arguments.target))
        path = self.arguments.path or url.path + (f"?{url.query}" if url.query else "")
        headers = [
            (b":method", self.arguments.method.encode()),
            (b":protocol", self.arguments.protocol.encode()),
            (b":scheme", url.scheme.encode()),
            (b":authority", (self.arguments.authority or url.netloc).encode()),
            (b":path", path.encode()),
            (b"capsule-protocol", b"?1"),
        ]
        for line in self.arguments.header:
            name, _, value = line.partition(":")
            headers.append((name.strip().lower().encode(), value.strip().encode()))
        if not self.arguments.protocol:
            del headers[1]
        self.request = self.connection.request(headers, is_tunnel=True)

    def send(self, payload: bytes) -> None:
        self.send_datagram(encode_uint_var(CONTEXT_UDP) + payload)

    def send_datagram(self, datagram: bytes) -> None:
        """Sends an HTTP datagram: context id and payload."""
        if self.arguments.mode == "datagram":
            self.connection.h3.send_datagram(self.request.stream_id, datagram)
        else:
            self.send_capsules(encode_capsule(CAPSULE_DATAGRAM, datagram))

    def send_capsules(self, data: bytes) -> None:
        step = self.arguments.chop or len(data)
        for start in range(0, len(data), step):
            self.connection.h3.send_data(self.request.stream_id, data[start : start + step], end_stream=False)
            if self.arguments.chop:
                self.connection.transmit()

    def send_oddities(self) -> None:
        """Sends what a proxy has to ignore (RFC 9297 section 3.2, RFC 9298 sections 4 and 5, RFC 9114 section 9)."""
        oddities = self.arguments.odd
        if "grease" in oddities:
            self.connection.send_grease_frame(self.request)
        if "unknown-capsule" in oddities:
            self.send_capsules(encode_capsule(GREASE_CAPSULE, bytes(1000)) + encode_capsule(GREASE_CAPSULE, b""))
        if "unknown-context" in oddities:
            # One as the client would allocate it, one as the proxy would, one of eight bytes.
            for context in (2, 3, 1 << 60):
                self.send_datagram(encode_uint_var(context) + b"not UDP")
        if "empty-datagram" in oddities and self.arguments.mode == "datagram":
            self.send_datagram(b"")

    async def check_response(self) -> str:
        """Returns the status after comparing the head with what was asked for."""
        fields = list(await self.request.head)
        status = dict(fields)[b":status"].decode()
        if self.arguments.expect_status != status:
            raise Failure(f"status {status}, expected {self.arguments.expect_status}; {described(fields)}")
        if status.startswith("2"):
            check_accepted(fields)
        else:
            check_refused(fields, self.arguments)
            for line in self.arguments.expect_field:
                name, _, wanted = line.partition(":")
                if (found := field_value(fields, name.encode())) != wanted.strip():
                    raise Failure(f"{name} is {found!r}, expected {wanted.strip()!r}")
            if (end := await self.request.end) != "fin":
                raise Failure(f"refusal ended with {end}, expected fin")
        return status

    async def expect_echo(self, payload: bytes) -> None:
        how, received = await self.request.payload()
        if received != payload:
            raise Failure(
                f"tunnel {self.number}: sent {len(payload)} bytes {payload[:16].hex()}, "
                f"got {len(received)} bytes {received[:16].hex()} ({how})"
            )
        self.echoed += 1
        self.echoed_bytes += len(payload)
        self.as_capsules += how == "capsule"

    async def exchange(self) -> None:
        for turn, size in enumerate(self.arguments.sizes * self.arguments.rounds):
            payload = payload_of(self.number, turn, size)
            if "long-context" in self.arguments.odd and turn % 2:
                # Context 0 in two bytes: legal, not minimal (RFC 9298 section 4, RFC 9000 section 16).
                self.send_datagram(b"\x40\x00" + payload)
            else:
                self.send(payload)
            self.connection.transmit()
            await self.expect_echo(payload)

    async def close(self) -> str | None:
        if self.arguments.oversize:
            self.send_capsules(encode_capsule(CAPSULE_DATAGRAM, bytes(1 + UDP_PAYLOAD_MAX + 1)))
        elif self.arguments.half_close:
            self.connection.h3.send_data(self.request.stream_id, b"", end_stream=True)
        elif self.arguments.unreachable:
            await self.send_until_end()
        else:
            return None
        self.connection.transmit()
        end = await self.request.end
        if end != self.arguments.expect_end:
            raise Failure(f"tunnel {self.number} ended with {end}, expected {self.arguments.expect_end}")
        return end

    async def send_until_end(self) -> None:
        """Sends to a target that nobody listens on; the ICMP answer may reach the proxy with a later send only."""
        while not self.request.end.done():
            self.send(b"anybody?")
            self.connection.transmit()
            await asyncio.wait([self.request.end], timeout=UNREACHABLE_INTERVAL_SECONDS)

    async def run(self) -> dict:
        early = [payload_of(self.number, 1000 + turn, 100) for turn in range(self.arguments.early)]
        self.open()
        # Separate QUIC packets, in this order: the request first, then payloads that cannot have seen the response.
        self.connection.transmit()
        for payload in early:
            self.send(payload)
            self.connection.transmit()
        status = await self.check_response()
        end = None
        if status.startswith("2"):
            for payload in early:
                await self.expect_echo(payload)
            self.send_oddities()
            await self.exchange()
            end = await self.close()
            if self.request.unknown_capsules:
                raise Failure(f"capsules nobody asked for: {self.request.unknown_capsules}")
        return {
            "status": status,
            "proxy_status": field_value(await self.request.head, b"proxy-status"),
            "echoed": self.echoed,
            "bytes": self.echoed_bytes,
            "as_capsules": self.as_capsules,
            "end": end,
        }


def field_value(fields: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    """All lines of a field joined as RFC 9651 section 4.2 wants it, or None without any."""
    lines = [value.decode("latin-1") for key, value in fields if key == name]
    return ", ".join(lines) if lines else None


def described(fields: list[tuple[bytes, bytes]]) -> str:
    return "; ".join(f"{name.decode()}={value.decode('latin-1')}" for name, value in fields)


def check_accepted(fields: list[tuple[bytes, bytes]]) -> None:
    """RFC 9298 section 3.5, RFC 9297 section 3.2: capsules announced, no content."""
    value = field_value(fields, b"capsule-protocol")
    try:
        announced = http_sf.parse(value.encode(), tltype="item")[0] if value else None
    except http_sf.StructuredFieldError as error:
        raise Failure(f"capsule-protocol {value!r} is no structured field: {error}") from error
    if announced is not True:
        raise Failure(f"capsule-protocol is {value!r}, expected ?1")
    for name in (b"content-length", b"content-type", b"transfer-encoding"):
        if field_value(fields, name) is not None:
            raise Failure(f"{name.decode()} on a successful response (RFC 9297 section 3.2)")


def check_refused(fields: list[tuple[bytes, bytes]], arguments: argparse.Namespace) -> None:
    """RFC 9209 section 2: the last member is the proxy's own; `error` is a Token, other values have their own type."""
    if arguments.expect_error is None:
        return
    value = field_value(fields, b"proxy-status")
    if value is None:
        raise Failure(f"no proxy-status, expected error={arguments.expect_error}")
    try:
        members = http_sf.parse(value.encode(), tltype="list")
    except http_sf.StructuredFieldError as error:
        raise Failure(f"proxy-status {value!r} is no structured field: {error}") from error
    _, parameters = members[-1]
    error = parameters.get("error")
    if not isinstance(error, http_sf.Token) or str(error) != arguments.expect_error:
        raise Failure(f"proxy-status {value!r}, expected error={arguments.expect_error} (a Token)")
    for line in arguments.expect_parameter:
        name, _, wanted = line.partition("=")
        found = parameters.get(name)
        if isinstance(found, http_sf.Token) or str(found) != wanted:
            raise Failure(f"proxy-status {value!r}, expected {name}={wanted!r} (no Token)")


async def run(arguments: argparse.Namespace, result: dict) -> None:
    url = urlsplit(expand(arguments.template, arguments.target))
    configuration = client_configuration(arguments.ca, arguments.mtu, datagrams=arguments.mode == "datagram")
    async with connect(
        url.hostname, url.port or 443, configuration=configuration, create_protocol=Connection
    ) as connection:
        settings = await connection.settings()
        result["settings"] = {f"{name:#x}": value for name, value in settings.items()}
        for setting in (Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM):
            if settings.get(setting) != 1:
                raise Failure(f"SETTINGS {setting.name} is {settings.get(setting)}, expected 1")
        if "grease" in arguments.odd:
            connection.send_grease()
        tunnels = [Tunnel(connection, arguments, number) for number in range(arguments.tunnels)]
        outcomes = await asyncio.gather(*(tunnel.run() for tunnel in tunnels))
        result["tunnels"] = len(outcomes)
        for name in ("status", "proxy_status", "end"):
            result[name] = outcomes[0][name]
        for name in ("echoed", "bytes", "as_capsules"):
            result[name] = sum(outcome[name] for outcome in outcomes)
        if arguments.mode == "capsule" and result["as_capsules"] != result["echoed"]:
            raise Failure("a QUIC DATAGRAM came although the client had not announced SETTINGS_H3_DATAGRAM")


def sizes(text: str) -> list[int | str]:
    return [size if size == "max" else int(size) for size in text.split(",") if size]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template", required=True, help="with {target_host} and {target_port}")
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--ca", metavar="PEM", help="trust this authority; nothing is checked without it")
    parser.add_argument("--mtu", type=int, default=1350, help="UDP payload bytes of the QUIC packets of this client")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--tunnels", type=int, default=1, help="requests on the one connection")
    parser.add_argument("--sizes", type=sizes, default=[64], help="payload sizes, `max` is what --mtu can carry")
    parser.add_argument("--rounds", type=int, default=1, help="how often the sizes are gone through")
    parser.add_argument("--mode", choices=("datagram", "capsule"), default="datagram")
    parser.add_argument("--chop", type=int, default=0, metavar="BYTES", help="cut capsules into DATA frames this long")
    parser.add_argument("--early", type=int, default=0, metavar="N", help="payloads sent before the response")
    parser.add_argument("--odd", action="append", default=[], choices=ODDITIES)
    parser.add_argument("--half-close", action="store_true", help="FIN after the payloads; the proxy has to FIN too")
    parser.add_argument("--oversize", action="store_true", help="end with a capsule of more than 65527 payload bytes")
    parser.add_argument("--unreachable", action="store_true", help="send until the proxy ends the tunnel")
    parser.add_argument("--expect-end", default="fin", help="`fin` or `reset 0x33`, after the previous three")
    parser.add_argument("--method", default="CONNECT")
    parser.add_argument("--protocol", default="connect-udp", help="empty for none")
    parser.add_argument("--authority", help="instead of that of the template")
    parser.add_argument("--path", help="instead of the expanded template, sent as it is")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    parser.add_argument("--expect-status", default="200")
    parser.add_argument("--expect-error", help="Proxy-Status error of the last member")
    parser.add_argument("--expect-parameter", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--expect-field", action="append", default=[], metavar="NAME:VALUE", help="of a refusal")
    parsed = parser.parse_args(arguments)
    parsed.sizes = [parsed.mtu - DATAGRAM_OVERHEAD_BYTES if size == "max" else size for size in parsed.sizes]
    if parsed.mode == "datagram" and max(parsed.sizes, default=0) > parsed.mtu - DATAGRAM_OVERHEAD_BYTES:
        parser.error(f"--sizes: more than {parsed.mtu - DATAGRAM_OVERHEAD_BYTES} bytes need --mode capsule")
    return parsed


def main() -> None:
    arguments = parse(sys.argv[1:])
    result: dict = {}
    try:
        asyncio.run(asyncio.wait_for(run(arguments, result), arguments.timeout))
    except Failure as failure:
        finish(result, str(failure))
    except (TimeoutError, asyncio.TimeoutError):
        finish(result, f"not done within {arguments.timeout} s")
    except ConnectionError as error:
        finish(result, f"no connection: {error}")
    finish(result, None)


if __name__ == "__main__":
    main()
