"""The UDP ASSOCIATE of SOCKS5 (RFC 1928) as an application speaks it; for CONNECT there are curl and Chromium."""

import ipaddress
import socket
import struct

from .carriers.link import split_address

WAIT_SECONDS = 15.0
NO_AUTHENTICATION = b"\x05\x01\x00"
IPV4, NAME, IPV6 = 1, 3, 4


def associate(proxy: str) -> "Association":
    return Association(proxy)


def _address(host: str, port: int) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes([NAME, len(host)]) + host.encode() + struct.pack(">H", port)
    return bytes([IPV4 if address.version == 4 else IPV6]) + address.packed + struct.pack(">H", port)


class Association:
    def __init__(self, proxy: str) -> None:
        self._control = socket.create_connection(split_address(proxy), timeout=WAIT_SECONDS)
        self._control.sendall(NO_AUTHENTICATION)
        assert self._read(2) == b"\x05\x00"
        self._control.sendall(b"\x05\x03\x00" + _address("0.0.0.0", 0))
        version, reply, _, kind = self._read(4)
        assert (version, reply, kind) == (5, 0, IPV4), (version, reply, kind)
        host = str(ipaddress.IPv4Address(self._read(4)))
        (port,) = struct.unpack(">H", self._read(2))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.settimeout(WAIT_SECONDS)
        self._udp.connect((host, port))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._control.recv(size - len(data))
            assert piece, f"the proxy closed after {data!r}"
            data += piece
        return data

    def __enter__(self) -> "Association":
        return self

    def __exit__(self, *_: object) -> None:
        self._udp.close()
        self._control.close()

    def send(self, host: str, port: int, payload: bytes) -> None:
        self._udp.send(b"\0\0\0" + _address(host, port) + payload)

    def receive(self) -> bytes:
        """The payload of one datagram, whoever its head says it is from."""
        datagram = self._udp.recv(65535)
        assert datagram[:3] == b"\0\0\0", datagram[:3]
        match datagram[3]:
            case 1:
                head = 4 + 4 + 2
            case 3:
                head = 4 + 1 + datagram[4] + 2
            case 4:
                head = 4 + 16 + 2
            case other:
                raise AssertionError(f"address type {other}")
        return datagram[head:]
