"""A plain UDP application in front of a forwarder: sends a payload, waits for its echo, compares the bytes."""

import hashlib
import socket
from contextlib import ExitStack

ECHO_SECONDS = 10.0
RECEIVE_BYTES_MAX = 65535


def exchange(address: str, sizes: list[int], sources: int = 1) -> int:
    """Sends every size from each of `sources` local ports, which take turns; returns how many echoes were equal."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(sources)]
        for udp in sockets:
            udp.settimeout(ECHO_SECONDS)
            udp.connect((host, int(port)))
        echoed = 0
        for size in sizes:
            # All of them are on their way before the first echo is read: a mix-up between sources shows.
            seeds = [f"source {number} size {size}".encode() for number in range(sources)]
            sent = [hashlib.shake_128(seed).digest(size) for seed in seeds]
            for udp, payload in zip(sockets, sent):
                udp.send(payload)
            for number, (udp, payload) in enumerate(zip(sockets, sent)):
                received = udp.recv(RECEIVE_BYTES_MAX)
                assert received == payload, f"source {number}: sent {size} bytes, got {len(received)} other bytes"
                echoed += 1
        return echoed
