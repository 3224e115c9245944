"""IP packets by hand: what a peer sends that is no kernel."""

import ipaddress
import socket
import struct
from dataclasses import dataclass

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOP_LIMIT = 64
IPV4_BYTES, IPV6_BYTES, ECHO_BYTES = 20, 40, 8


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def wrap(source: str, destination: str, protocol: int, payload: bytes, hop_limit: int = HOP_LIMIT) -> bytes:
    """An IP header, with Don't Fragment, before `payload`."""
    ends = [ipaddress.ip_address(address).packed for address in (source, destination)]
    if len(ends[0]) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, IPV4_BYTES + len(payload), 0, 0x4000, hop_limit, protocol, 0)
        head += ends[0] + ends[1]
        return head[:10] + checksum(head).to_bytes(2) + head[12:] + payload
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, hop_limit) + ends[0] + ends[1] + payload


def _pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    ends = [ipaddress.ip_address(address).packed for address in (source, destination)]
    return ends[0] + ends[1] + struct.pack(">II", length, protocol)


def echo(
    source: str, destination: str, data: bytes = b"", *, identity: int = 9484, sequence: int = 0,
    hop_limit: int = HOP_LIMIT,
) -> bytes:
    """An ICMP echo request."""
    is_ipv4 = "." in source
    body = struct.pack(">BBHHH", 8 if is_ipv4 else 128, 0, 0, identity, sequence) + data
    pseudo = b"" if is_ipv4 else _pseudo(source, destination, ICMPV6, len(body))
    body = body[:2] + checksum(pseudo + body).to_bytes(2) + body[4:]
    return wrap(source, destination, ICMP if is_ipv4 else ICMPV6, body, hop_limit)


def udp(source: str, destination: str, ports: tuple[int, int], data: bytes) -> bytes:
    body = struct.pack(">HHHH", *ports, 8 + len(data), 0) + data
    total = checksum(_pseudo(source, destination, UDP, len(body)) + body) or 0xFFFF
    return wrap(source, destination, UDP, body[:6] + total.to_bytes(2) + body[8:])


def tcp_syn(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    body = struct.pack(">HHIIBBHHH", *ports, 1, 0, 5 << 4, 2, 65535, 0, 0)
    total = checksum(_pseudo(source, destination, TCP, len(body)) + body)
    return wrap(source, destination, TCP, body[:16] + total.to_bytes(2) + body[18:])


def with_destination_options(packet: bytes) -> bytes:
    """The same IPv6 packet with an empty Destination Options header in front of its payload (RFC 8200 section 4.6)."""
    extension = bytes([packet[6], 0, 1, 4, 0, 0, 0, 0])
    length = struct.unpack(">H", packet[4:6])[0] + len(extension)
    head = packet[:4] + length.to_bytes(2) + bytes([60]) + packet[7:IPV6_BYTES]
    return head + extension + packet[IPV6_BYTES:]


@dataclass(frozen=True)
class Packet:
    """What there is to know of a packet that came."""

    source: str
    destination: str
    protocol: int
    hop_limit: int
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Packet":
        if data[0] >> 4 == 4:
            size = (data[0] & 15) * 4
            assert checksum(data[:size]) == 0, f"checksum of {data[:size].hex()}"
            assert struct.unpack(">H", data[2:4])[0] == len(data), data.hex()
            ends = [socket.inet_ntop(socket.AF_INET, end) for end in (data[12:16], data[16:20])]
            return cls(*ends, data[9], data[8], data[size:])
        assert data[0] >> 4 == 6, data[:8].hex()
        assert struct.unpack(">H", data[4:6])[0] == len(data) - IPV6_BYTES, data.hex()
        ends = [socket.inet_ntop(socket.AF_INET6, end) for end in (data[8:24], data[24:40])]
        return cls(*ends, data[6], data[7], data[IPV6_BYTES:])

    @property
    def is_icmp(self) -> bool:
        return self.protocol in (ICMP, ICMPV6)

    def icmp(self) -> tuple[int, int]:
        """Type and code."""
        assert self.is_icmp, self
        return self.payload[0], self.payload[1]

    def icmp_number(self) -> int:
        """The second word of an ICMP error: the MTU, where there is one."""
        return struct.unpack(">I", self.payload[4:8])[0]

    def quoted(self) -> bytes:
        """What an ICMP error quotes, or the data of an echo."""
        return self.payload[ECHO_BYTES:]

    def is_echo_reply(self, sequence: int) -> bool:
        return (
            self.is_icmp
            and self.icmp() in ((0, 0), (129, 0))
            and struct.unpack(">HH", self.payload[4:8]) == (9484, sequence)
        )
