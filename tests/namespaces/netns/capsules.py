"""A client of CONNECT-IP by hand, on any carrier: every byte of a capsule and of a packet is what a test says.

Packets travel in DATAGRAM capsules, or, on the carrier `h3-datagrams` alone, in QUIC DATAGRAM frames.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from harness.carriers import CARRIERS as STREAMS
from harness.carriers import h3
from harness.carriers.stream import Head, Stream
from harness.carriers.tunnel import encode_capsule

from .packet import Packet

DATAGRAM, ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT = range(4)
DNS_ASSIGN, PREF64 = 0x1ACE79EC, 0x274C0FBC

CARRIERS = STREAMS | {"h3-datagrams": h3.connect_with_datagrams}

# RFC 9484 section 4.7, by what makes them special.
VALID = {
    "aa-v4": "01 07 00 04 c0 00 02 0b 20",
    "aa-v4-net": "01 07 00 04 c0 00 02 00 18",
    "aa-v4-all": "01 07 00 04 00 00 00 00 00",
    "aa-empty": "01 00",
    "aa-nonminimal": "40 01 40 08 40 00 04 c0 00 02 0b 20",
    "ra-all-v4": "03 0a 04 00 00 00 00 ff ff ff ff 00",
    "ra-split": "03 14 04 c0 00 02 00 c0 00 02 29 00 04 c0 00 02 2b c0 00 02 ff 00",
    "ra-v6-sctp": "03 22 06 20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b"
    "20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b 84",
    "ra-v4-v6-udp": "03 2c 04 c6 33 64 02 c6 33 64 02 11"
    "06 20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b 20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b 11",
    "ra-two-protos": "03 14 04 c6 33 64 02 c6 33 64 02 06 04 c6 33 64 02 c6 33 64 02 11",
    "ra-adjacent": "03 14 04 c0 00 02 00 c0 00 02 7f 00 04 c0 00 02 80 c0 00 02 ff 00",
    "ra-empty": "03 00",
    "unknown": "80 00 95 84 03 01 02 03",
    "pref64": "a7 4c 0f bc 0d 60 00 64 ff 9b 00 00 00 00 00 00 00 00",
    "pref64-empty": "a7 4c 0f bc 00",
}

MALFORMED = {
    "bad-version": "01 07 00 05 c0 00 02 0b 20",
    "bad-prefix-v4": "01 07 00 04 c0 00 02 0b 21",
    "bad-prefix-v6": "01 13 00 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 81",
    "bad-hostbits-v4": "01 07 00 04 c0 00 02 0b 18",
    "bad-hostbits-v6": "01 13 00 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 40",
    "bad-short": "01 06 00 04 c0 00 02 0b",
    "bad-trailing": "01 08 00 04 c0 00 02 0b 20 00",
    "ar-empty": "02 00",
    "ar-id-0": "02 07 00 04 00 00 00 00 20",
    "ar-dup-id": "02 1a 01 04 00 00 00 00 20 01 06 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80",
    "ra-start-gt-end": "03 0a 04 c0 00 02 09 c0 00 02 01 00",
    "ra-version": "03 0a 01 c0 00 02 00 c0 00 02 01 00",
    "ra-version-order": "03 2c 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01"
    "20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 04 c0 00 02 01 c0 00 02 01 00",
    "ra-proto-order": "03 14 04 c0 00 02 01 c0 00 02 01 11 04 c0 00 02 02 c0 00 02 02 06",
    "ra-overlap": "03 14 04 c0 00 02 00 c0 00 02 7f 00 04 c0 00 02 7f c0 00 02 ff 00",
    "ra-overlap-0": "03 14 04 c0 00 02 00 c0 00 02 ff 00 04 c0 00 02 01 c0 00 02 01 11",
    "ra-short": "03 09 04 c0 00 02 00 c0 00 02 01",
    "ra-trailing": "03 0b 04 c0 00 02 00 c0 00 02 01 00 06",
    "pref64-length": "a7 4c 0f bc 0d 61 00 64 ff 9b 00 00 00 00 00 00 00 00",
    "pref64-short": "a7 4c 0f bc 0c 60 00 64 ff 9b 00 00 00 00 00 00 00",
}
# What of a capsule is there before FIN.
CUT_BY_FIN = "01 07 00 04 c0 00"


@dataclass(frozen=True)
class Assigned:
    """An entry of ADDRESS_ASSIGN or ADDRESS_REQUEST. `network` has a full length and the address zero for a refusal."""

    request_id: int
    network: ipaddress.IPv4Network | ipaddress.IPv6Network

    @property
    def is_refusal(self) -> bool:
        return int(self.network.network_address) == 0 and self.network.prefixlen == self.network.max_prefixlen

    @property
    def address(self) -> str:
        return str(self.network.network_address)

    def encode(self) -> bytes:
        head = encode_uint_var(self.request_id) + bytes([self.network.version])
        return head + self.network.network_address.packed + bytes([self.network.prefixlen])


@dataclass(frozen=True)
class Range:
    """An entry of ROUTE_ADVERTISEMENT."""

    start: str
    end: str
    protocol: int = 0

    def encode(self) -> bytes:
        ends = [ipaddress.ip_address(address) for address in (self.start, self.end)]
        return bytes([ends[0].version]) + ends[0].packed + ends[1].packed + bytes([self.protocol])


# What would describe content, which a tunnel has none of.
CONTENT = {"content-length", "content-type", "transfer-encoding"}
EVERYTHING = [Range("0.0.0.0", "255.255.255.255"), Range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]


def _pull_address(view: Buffer, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(view.pull_bytes({4: 4, 6: 16}[version]))


def parse_assigned(value: bytes) -> list[Assigned]:
    view, entries = Buffer(data=value), []
    while not view.eof():
        request_id, version = view.pull_uint_var(), view.pull_uint8()
        address = _pull_address(view, version)
        entries.append(Assigned(request_id, ipaddress.ip_network(f"{address}/{view.pull_uint8()}")))
    return entries


def parse_routes(value: bytes) -> list[Range]:
    view, entries = Buffer(data=value), []
    while not view.eof():
        version = view.pull_uint8()
        ends = [str(_pull_address(view, version)) for _ in range(2)]
        entries.append(Range(*ends, view.pull_uint8()))
    return entries


def request(address: str, request_id: int) -> Assigned:
    """`0.0.0.0/32` and `::/128` for no preference."""
    return Assigned(request_id, ipaddress.ip_network(address))


class IpTunnel:
    """A CONNECT-IP tunnel, or a request for one."""

    def __init__(
        self, carrier: str, proxy: str, ca: Path, target: str = "%2A", protocol: str = "%2A",
        fields: dict[str, str] | None = None,
    ) -> None:
        path = f"/.well-known/masque/ip/{target}/{protocol}/"
        head = Head("connect-ip", proxy, path, {"capsule-protocol": "?1"} | (fields or {}))
        self.stream: Stream = CARRIERS[carrier](proxy, ca).request(head)
        self.packets: list[Packet] = []
        # Every list that came, the last one is in force.
        self.assigned: list[list[Assigned]] = []
        self.routes: list[list[Range]] = []
        self.requests: list[list[Assigned]] = []
        self.others: list[tuple[int, bytes]] = []
        self._uses_frames = carrier == "h3-datagrams"
        self._sequence = 0

    def __enter__(self) -> "IpTunnel":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def open(self) -> "IpTunnel":
        """Waits for success, addresses and routes."""
        status = self.stream.wait_head()
        assert status == 200, f"status {status}, {self.stream.fields}"
        assert self.stream.fields.get("capsule-protocol") == "?1", self.stream.fields
        assert not CONTENT.intersection(self.stream.fields), self.stream.fields
        self.wait(lambda: bool(self.assigned and self.routes), "addresses and routes")
        return self

    def _read(self) -> None:
        if self._uses_frames:
            for datagram in self.stream.datagrams:
                self._handle_datagram(datagram)
            self.stream.datagrams.clear()
        view, whole = Buffer(data=bytes(self.stream.received)), 0
        while not view.eof():
            try:
                kind = view.pull_uint_var()
                value = view.pull_bytes(view.pull_uint_var())
            except BufferReadError:
                break
            whole = view.tell()
            self._handle_capsule(kind, value)
        del self.stream.received[:whole]

    def _handle_datagram(self, datagram: bytes) -> None:
        assert datagram[:1] == b"\0", f"context id of {datagram[:8].hex()}"
        self.packets.append(Packet.parse(datagram[1:]))

    def _handle_capsule(self, kind: int, value: bytes) -> None:
        if kind == DATAGRAM:
            self._handle_datagram(value)
        elif kind == ADDRESS_ASSIGN:
            self.assigned.append(parse_assigned(value))
        elif kind == ADDRESS_REQUEST:
            self.requests.append(parse_assigned(value))
        elif kind == ROUTE_ADVERTISEMENT:
            self.routes.append(parse_routes(value))
        else:
            self.others.append((kind, value))

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Moves the carrier until `ready`; the end of the stream before is a failure."""

        def is_over() -> bool:
            self._read()
            return ready() or self.stream.end is not None

        self.stream.wait(is_over, what)
        assert ready(), f"no {what}, but {self.stream.end}"

    def send(self, kind: int, *entries: Assigned | Range) -> None:
        self.stream.send(encode_capsule(kind, b"".join(entry.encode() for entry in entries)))

    def send_packet(self, packet: bytes, context: int = 0) -> None:
        datagram = encode_uint_var(context) + packet
        if self._uses_frames:
            self.stream.send_datagram(datagram)
        else:
            self.stream.send(encode_capsule(DATAGRAM, datagram))

    def ask(self, *entries: Assigned) -> list[Assigned]:
        """The first assignment after a request of `entries` that answers all of them."""
        seen, wanted = len(self.assigned), {entry.request_id for entry in entries}

        def answer() -> list[Assigned] | None:
            lists = self.assigned[seen:]
            return next((given for given in lists if wanted <= {entry.request_id for entry in given}), None)

        self.send(ADDRESS_REQUEST, *entries)
        self.wait(lambda: answer() is not None, "answer to an address request")
        return answer() or []

    def address(self, version: int = 4) -> str:
        """An address that this client may use."""
        usable = [entry for entry in self.assigned[-1] if not entry.is_refusal and entry.network.version == version]
        return usable[0].address

    def wait_packet(self, matches: Callable[[Packet], bool], what: str) -> Packet:
        """The first packet that matches; those that came with it stay in `packets`."""
        self.wait(lambda: any(map(matches, self.packets)), what)
        found = next(packet for packet in self.packets if matches(packet))
        self.packets.remove(found)
        return found

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence
