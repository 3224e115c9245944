"""Clients that mean no good: the relay ends their connection, and others do not notice.

Each attack has bystanders: tunnels on every carrier that were there before it, move bytes while it goes on, and do so
afterwards; new ones can be opened as well.
"""

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import carriers, hostile
from harness import certificates as pki
from harness.bauta import Bauta
from harness.carriers import Tunnel
from harness.carriers.link import Link, TlsLink, split_address
from harness.carriers.stream import FIN
from harness.payload import pattern
from harness.target import Target

PROTOCOL_ERROR = 0x1
ENHANCE_YOUR_CALM = 0xB
# Longer than every timeout of the relay for clients that do not come to the point.
SLOW_SECONDS = 40.0
# A byte now and then, so that a timeout for silence alone does not see it.
SLOW_INTERVAL_SECONDS = 0.2

ENDLESS_BYTES = 128 << 20
# What the buffers of two kernels and the relay may hold of a transfer that nobody reads.
HELD_BYTES_MAX = 64 << 20
STALLED_SECONDS = 3.0


class Bystanders:
    """One tunnel per carrier to an echo, used from a thread of its own until `stop`."""

    def __init__(self, proxy: str, ca: Path, echo: str) -> None:
        self._open: Callable[[str], Tunnel] = lambda carrier: carriers.open_tunnel(carrier, proxy, ca, "classic", echo)
        self._tunnels = {carrier: self._open(carrier) for carrier in carriers.CARRIERS}
        self.turns = 0
        self._problem: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bystanders", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._exchange()
                self.turns += 1
        except BaseException as problem:  # It is raised again where the test can see it.
            self._problem = problem

    def _exchange(self) -> None:
        for carrier, tunnel in self._tunnels.items():
            data = pattern(f"{carrier} {self.turns}", 20_000)
            tunnel.send(data)
            assert tunnel.receive(len(data)) == data

    def stop(self) -> None:
        """They had something to do all the time, still have, and others can come."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a bystander is stuck"
        if self._problem:
            raise self._problem
        assert self.turns > 0
        self._exchange()
        for carrier, tunnel in self._tunnels.items():
            tunnel.stream.close()
            with self._open(carrier) as tunnel:
                tunnel.send(b"new here")
                assert tunnel.receive(8) == b"new here"


@pytest.fixture(scope="module")
def relay(bauta: Bauta, dns: str) -> str:
    """A relay with less patience than it has by itself, so that slow clients do not take minutes."""
    patience = ("[tcp]", 'handshake_timeout = "5s"', 'head_timeout = "5s"', 'idle_timeout = "10s"')
    return bauta.relay("hasty", dns=dns, extra=patience)


@pytest.fixture
def bystanders(relay: str, certificates: pki.Certificates, tcp_echo: str) -> Iterator[Bystanders]:
    present = Bystanders(relay, certificates.ca, tcp_echo)
    yield present
    present.stop()


# spec: 9113-10.5-a
@pytest.mark.parametrize("attack", hostile.FLOODS, ids=lambda attack: attack.__name__)
def test_floods_end_the_connection(
    relay: str, certificates: pki.Certificates, tcp_echo: str, bystanders: Bystanders, attack: Callable
) -> None:
    sent, code, end = hostile.flood(relay, certificates.ca, attack(tcp_echo))
    assert end is not None, f"still open after {sent} frames"
    assert code in (None, PROTOCOL_ERROR, ENHANCE_YOUR_CALM), f"GOAWAY {code:#x} after {sent} frames"


@pytest.mark.parametrize("attack", hostile.NUISANCES, ids=lambda attack: attack.__name__)
def test_nuisances_trouble_nobody(
    relay: str,
    certificates: pki.Certificates,
    tcp_echo: str,
    bystanders: Bystanders,
    attack: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hostile, "SECONDS", 10.0)
    sent, _, _ = hostile.flood(relay, certificates.ca, attack(tcp_echo))
    assert sent > 0


def test_slow_clients_are_sent_away(
    relay: str, certificates: pki.Certificates, tcp_echo: str, bystanders: Bystanders
) -> None:
    """All at once, since each of them takes as long as a timeout of the relay."""
    ca = certificates.ca
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = preface + hostile.frame(hostile.SETTINGS, 0, 0)
    block = hostile.connect_block(tcp_echo)
    head = f"CONNECT {tcp_echo} HTTP/1.1\r\nHost: {tcp_echo}\r\nX-Padding: {'x' * 2000}".encode()

    def tcp() -> Link:
        return Link(socket.create_connection(split_address(relay)))

    def tls(alpn: str) -> TlsLink:
        return TlsLink(relay, ca, [alpn])

    clients = {
        "TCP and nothing": hostile.Slow(tcp()),
        "a ClientHello by bytes": hostile.Slow(tcp(), hello),
        "TLS and nothing, h1": hostile.Slow(tls("http/1.1")),
        "a head by bytes": hostile.Slow(tls("http/1.1"), head),
        "TLS and nothing, h2": hostile.Slow(tls("h2")),
        "a preface by bytes": hostile.Slow(tls("h2"), preface[:20]),
        "SETTINGS and nothing": _started(tls("h2"), settings),
        "a field block by bytes": _started(tls("h2"), settings, hostile.frame(hostile.HEADERS, 0, 1, block)),
    }
    deadline = time.monotonic() + SLOW_SECONDS
    while waiting := [name for name, client in clients.items() if not client.step()]:
        assert time.monotonic() < deadline, f"still connected after {SLOW_SECONDS} s: {waiting}"
        time.sleep(SLOW_INTERVAL_SECONDS)
    for client in clients.values():
        client.link.close()


def _started(link: TlsLink, first: bytes, then: bytes = b"") -> hostile.Slow:
    link.send(first)
    return hostile.Slow(link, then)


class Endless:
    """A target connection into which a thread writes so many bytes."""

    def __init__(self, connection: socket.socket, amount: int) -> None:
        self.amount = amount
        self.sent = 0
        self.digest = hashlib.sha256()
        self._connection = connection
        self._thread = threading.Thread(target=self._run, name="endless", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        block = pattern("endless", 1 << 16)
        try:
            while self.sent < self.amount:
                # The block carries its number: what is lost or comes twice shows.
                piece = struct.pack(">Q", self.sent) + block[8:]
                self._connection.sendall(piece)
                self.digest.update(piece)
                self.sent += len(piece)
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            # The test is over, or the relay has let go: the numbers say.
            pass

    def wait_stalled(self) -> int:
        """How much was taken, once nothing more is for STALLED_SECONDS."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < STALLED_SECONDS:
            if self.sent != before:
                before, since = self.sent, time.monotonic()
            time.sleep(0.05)
        return before

    def join(self) -> None:
        self._thread.join(30)


@pytest.mark.parametrize("form", carriers.FORMS)
@pytest.mark.parametrize("carrier", ["h2", "h1"])
def test_reader_that_stops(
    relay: str, certificates: pki.Certificates, bystanders: Bystanders, carrier: str, form: str
) -> None:
    """Bounded memory while it does, and nothing lost when it goes on."""
    # The client in Python is quick enough for a gigabyte only where there is nothing to do but to decrypt.
    amount = 1 << 30 if (carrier, form) == ("h1", "raw") else ENDLESS_BYTES
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(15)
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with carriers.open_tunnel(carrier, relay, certificates.ca, form, target) as tunnel:
            connection, _ = listener.accept()
            endless = Endless(connection, amount)
            held = endless.wait_stalled()
            assert 0 < held < HELD_BYTES_MAX, f"{held} bytes are held for a client that does not read"
            received = hashlib.sha256()
            for _ in range(amount >> 16):
                received.update(tunnel.receive(1 << 16))
            assert tunnel.wait_end() == FIN
            endless.join()
            assert received.digest() == endless.digest.digest()
            connection.close()


@pytest.mark.parametrize("form", carriers.FORMS)
@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_target_that_does_not_read(
    relay: str, certificates: pki.Certificates, tcp_target: Target, bystanders: Bystanders, carrier: str, form: str
) -> None:
    """The other direction: the client is held back, and the rest arrives when the target reads."""
    block = pattern("upward", 1 << 16)
    with carriers.open_tunnel(carrier, relay, certificates.ca, form, tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        sent = 0
        # A send that does not get through within a moment means that we are held back.
        tunnel.stream.set_patience(STALLED_SECONDS)
        with pytest.raises(AssertionError, match="no (room|window)"):
            while sent < ENDLESS_BYTES:
                tunnel.send(block)
                sent += len(block)
        assert 0 < sent < HELD_BYTES_MAX, f"{sent} bytes are held for a target that does not read"
        for _ in range(sent >> 16):
            assert peer.receive(1 << 16) == block
