"""Clients of CONNECT-IP that send every capsule and every packet by hand, on each carrier, to one relay and to two.

What is malformed ends the stream with the code that the carrier has for it; everything else leaves the tunnel alive.
"""

import base64
import contextlib
import itertools
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from harness import peers
from harness.carriers import h1
from harness.carriers.stream import FIN, TRUNCATED, Head
from harness.carriers.tunnel import encode_capsule
from harness.certificates import Certificates
from harness.process import Processes
from harness.tools import bauta, tool
from netns import capsules, packet
from netns.capsules import ADDRESS_REQUEST, EVERYTHING, MALFORMED, VALID, IpTunnel, Range, request
from netns.namespace import Namespace
from netns.packet import Packet
from netns.programs import POOL_IPV4, POOL_IPV6, Programs, Relay
from netns.topology import (
    EGRESS_IPV4,
    INGRESS_IPV4,
    ORIGIN_IPV4,
    ORIGIN_IPV6,
    OTHER_IPV4,
    OTHER_IPV6,
    Topology,
)
from netns.traffic import Counter

# A malformed message (RFC 9114 section 4.1.2, RFC 9113 section 8.1.1); HTTP/1.1 can only close.
MESSAGE_ERROR = {"h3": "reset 0x10e", "h3-datagrams": "reset 0x10e", "h2": "reset 0x1", "h1": TRUNCATED}
ALL_CARRIERS = pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
# Those on which packets can travel in two ways.
ALL_DATAGRAMS = pytest.mark.parametrize("carrier", capsules.CARRIERS)
ORIGINS = {4: ORIGIN_IPV4, 6: ORIGIN_IPV6}
OTHERS = {4: OTHER_IPV4, 6: OTHER_IPV6}
POOLS = {4: ip_network(POOL_IPV4), 6: ip_network(POOL_IPV6)}

OTHER_POOLS = ("10.202.0.0/24", "fd64:202::/64")
NAMES_PORT, OTHER_PORT, NAT_PORT = 4437, 4438, 4439
# Where nobody listens at the origin, and how it says so.
CLOSED_PORT = 7
PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}
# The egress as the origin sees it.
OUTSIDE = {4: "ip saddr 203.0.113.1", 6: "ip6 saddr 2001:db8:113::1"}

_names = itertools.count()

Open = Callable[..., IpTunnel]


class Opener:
    """Opens tunnels from the client's namespace; closes them all."""

    def __init__(self, host: Namespace, relay: Relay, ca: Path) -> None:
        self._host, self._relay, self._ca = host, relay, ca
        self.is_chain = relay.host.name.endswith("ingress")
        self._opened: list[IpTunnel] = []

    def request(self, carrier: str, target: str = "%2A", protocol: str = "%2A", **fields: str) -> IpTunnel:
        """A request whose answer may not be there yet."""
        with self._host.inside():
            tunnel = IpTunnel(carrier, self._relay.address, self._ca, target, protocol, fields)
        self._opened.append(tunnel)
        return tunnel

    def __call__(self, carrier: str, target: str = "%2A", protocol: str = "%2A") -> IpTunnel:
        return self.request(carrier, target, protocol).open()

    def close(self) -> None:
        while self._opened:
            self._opened.pop().stream.close()


@pytest.fixture(scope="module")
def egress(lasting: Programs, hosts: Topology) -> Relay:
    return lasting.relay(hosts.egress, EGRESS_IPV4)


@pytest.fixture(scope="module")
def ingress(lasting: Programs, hosts: Topology, egress: Relay) -> Relay:
    return lasting.relay(hosts.ingress, INGRESS_IPV4, upstream=egress.url)


@pytest.fixture(params=["direct", "chained"])
def relay(request: pytest.FixtureRequest) -> Relay:
    return request.getfixturevalue({"direct": "egress", "chained": "ingress"}[request.param])


@pytest.fixture
def opened(hosts: Topology, relay: Relay, certificates: Certificates) -> Iterator[Opener]:
    opener = Opener(hosts.client, relay, certificates.ca)
    yield opener
    opener.close()


@pytest.fixture
def direct(hosts: Topology, egress: Relay, certificates: Certificates) -> Iterator[Opener]:
    opener = Opener(hosts.client, egress, certificates.ca)
    yield opener
    opener.close()


def check_echo(tunnel: IpTunnel, version: int = 4, data: bytes = b"alive?") -> Packet:
    """The origin answers an echo, and its data come back."""
    sequence = tunnel.next_sequence()
    tunnel.send_packet(packet.echo(tunnel.address(version), ORIGINS[version], data, sequence=sequence))
    reply = tunnel.wait_packet(lambda came: came.is_echo_reply(sequence), "echo")
    assert reply.quoted() == data and reply.source == ORIGINS[version]
    return reply


def check_dropped(tunnel: IpTunnel, counter: Counter, sent: bytes, version: int = 4) -> None:
    """`sent` does not reach the origin: `counter` is there for it. What follows it does."""
    tunnel.send_packet(sent)
    check_echo(tunnel, version)
    assert counter.packets() == 0


def wait_icmp(tunnel: IpTunnel, sent: bytes, *errors: tuple[int, int]) -> Packet:
    """An ICMP error of one of these types and codes that quotes `sent`, whose TTL may have changed."""
    version = sent[0] >> 4
    ends = slice(12, 20) if version == 4 else slice(8, 40)
    error = tunnel.wait_packet(lambda came: came.is_icmp and came.icmp() in errors, f"ICMP error out of {errors}")
    assert error.quoted()[ends] == sent[ends]
    assert error.destination == tunnel.address(version)
    return error


def watch(host: Namespace, rule: str) -> Counter:
    return Counter(host, f"watch{next(_names)}", rule)


# spec: 9484-4-a, 9484-4.5-a, 9484-4.7.1-h, 9484-4.7.1-b, 9484-6-b, 9484-7.2-b
@ALL_DATAGRAMS
def test_tunnel_opens(opened: Opener, carrier: str) -> None:
    tunnel = opened(carrier)
    assert tunnel.routes[-1] == EVERYTHING
    given = tunnel.assigned[-1]
    assert [entry.network.version for entry in given] == [4, 6]
    for entry in given:
        assert entry.request_id == 0 and entry.network.prefixlen == entry.network.max_prefixlen
        assert entry.network.subnet_of(POOLS[entry.network.version])
    for version in (4, 6):
        # The origin sends with 64, and the kernel of the egress is a router.
        assert check_echo(tunnel, version, bytes(1000)).hop_limit == 63


# spec: 9484-4.7-a, 9484-4.7.1-a, 9484-4.7.3-a, 9484-4.7.3-b, 9484-4.7.3-d, 9297-3.2-a
@ALL_CARRIERS
def test_valid_capsules(opened: Opener, carrier: str) -> None:
    tunnel = opened(carrier)
    for name, vector in VALID.items():
        tunnel.stream.send(bytes.fromhex(vector))
        assert tunnel.stream.end is None, name
        check_echo(tunnel)


@ALL_CARRIERS
def test_capsules_in_pieces(direct: Opener, carrier: str) -> None:
    """Wherever a carrier cuts."""
    tunnel = direct(carrier)
    for vector in VALID.values():
        for byte in bytes.fromhex(vector):
            tunnel.stream.send(bytes([byte]))
    check_echo(tunnel, 6)


# spec: 9484-4.7-b, 9484-4.7.1-c, 9484-4.7.1-d, 9484-4.7.1-e, 9484-4.7.2-a, 9484-4.7.2-b, 9484-4.7.2-h, 9484-4.7.3-b
# spec: 9484-4.7.3-e, 9484-4.7.3-g, 9297-3.3-b, map-46, cidns-4.2-a
@pytest.mark.parametrize("name", MALFORMED)
@ALL_CARRIERS
def test_malformed_capsules(opened: Opener, carrier: str, name: str) -> None:
    tunnel = opened(carrier)
    tunnel.stream.send(bytes.fromhex(MALFORMED[name]))
    assert tunnel.stream.wait_end() == MESSAGE_ERROR[carrier]


# spec: 9297-3.3-c
@ALL_CARRIERS
def test_end_inside_a_capsule(opened: Opener, carrier: str) -> None:
    tunnel = opened(carrier)
    tunnel.stream.send(bytes.fromhex(capsules.CUT_BY_FIN))
    tunnel.stream.finish()
    # With HTTP/1.1 the answer to an orderly end may be one.
    assert tunnel.stream.wait_end() in (MESSAGE_ERROR[carrier], FIN if carrier == "h1" else None)


@ALL_CARRIERS
def test_orderly_end(opened: Opener, carrier: str) -> None:
    tunnel = opened(carrier)
    check_echo(tunnel)
    tunnel.stream.finish()
    assert tunnel.stream.wait_end() == FIN


# spec: 9484-4.7.2-d, 9484-4.7.2-e, 9484-4.7.1-b, 9484-4.7.2-i
@ALL_CARRIERS
def test_address_requests_are_answered(opened: Opener, carrier: str) -> None:
    tunnel = opened(carrier)
    # The higher id first: order means nothing.
    given = tunnel.ask(request("::/128", 70_000), request("0.0.0.0/32", 7))
    answers = {entry.request_id: entry for entry in given if entry.request_id}
    assert set(answers) == {7, 70_000} and len([entry for entry in given if entry.request_id]) == 2
    assert answers[7].network.subnet_of(POOLS[4]) and answers[70_000].network.subnet_of(POOLS[6])
    check_echo(tunnel, 4)
    check_echo(tunnel, 6)
    # A list is complete: what was given before is still in it, or another address of that family is.
    again = tunnel.ask(request("0.0.0.0/32", 8))
    assert any(entry.network.version == 6 and not entry.is_refusal for entry in again)
    check_echo(tunnel, 6)


# spec: 9484-4.7.2-a, 9484-4.7.2-j
@ALL_CARRIERS
def test_request_ids_are_used_once(opened: Opener, carrier: str) -> None:
    tunnel = opened(carrier)
    tunnel.ask(request("0.0.0.0/32", 7))
    tunnel.send(ADDRESS_REQUEST, request("0.0.0.0/32", 7))
    assert tunnel.stream.wait_end() == MESSAGE_ERROR[carrier]


# spec: 9484-4.7.2-f
@ALL_CARRIERS
def test_addresses_of_others_are_refused_or_replaced(direct: Opener, carrier: str) -> None:
    """An address outside the pools, and one that another client has."""
    first, second = direct(carrier), direct(carrier)
    taken = first.address()
    assert second.address() != taken
    given = second.ask(request("192.0.2.1/32", 1), request(f"{taken}/32", 2))
    for entry in given:
        assert entry.address not in ("192.0.2.1", taken), given
        assert entry.is_refusal or entry.network.subnet_of(POOLS[entry.network.version]), given
    check_echo(first)
    check_echo(second)


# spec: 9484-4.7.2-e, 9484-4.7.2-f, 9484-4.7.2-g
@ALL_CARRIERS
def test_exhausted_pool(hosts: Topology, programs: Programs, certificates: Certificates, carrier: str) -> None:
    """A pool of four IPv4 addresses, of which at most three are for clients."""
    small = programs.relay(hosts.ingress, INGRESS_IPV4, port=OTHER_PORT, pools=("10.201.0.0/30", "fd64:201::/64"))
    opener = Opener(hosts.client, small, certificates.ca)
    try:
        opened = [opener(carrier) for _ in range(4)]
        given = [[entry.address for entry in tunnel.assigned[-1] if entry.network.version == 4] for tunnel in opened]
        served = [addresses[0] for addresses in given if addresses and addresses[0] != "0.0.0.0"]
        assert 1 <= len(served) == len(set(served)) <= 3, given
        # The last one has none, is told so when it asks, and keeps its IPv6.
        poor = opened[-1]
        refused = [entry for entry in poor.ask(request("0.0.0.0/32", 5)) if entry.request_id == 5]
        assert [entry.is_refusal for entry in refused] == [True]
        later = poor.ask(request("::/128", 6))
        assert not any(entry.request_id == 5 for entry in later)
        # What a client leaves is for others.
        opened[0].stream.finish()
        opened[0].stream.wait_end()

        def ask_again() -> bool:
            (entry,) = [entry for entry in poor.ask(request("0.0.0.0/32", next(ids))) if entry.network.version == 4]
            return not entry.is_refusal

        ids = itertools.count(7)
        assert any(ask_again() for _ in range(50))
    finally:
        opener.close()


# spec: 9484-4.7.1-f, 9484-4.7.2-c
@ALL_CARRIERS
def test_prefixes_are_delegated(direct: Opener, hosts: Topology, carrier: str) -> None:
    """A whole network, from each address of which the client may send; a longer wish than the pool has is refused."""
    tunnel = direct(carrier)
    (given,) = [entry for entry in tunnel.ask(request("::/96", 1)) if entry.request_id == 1]
    assert given.network.prefixlen == 96 and given.network.subnet_of(POOLS[6]), given
    for number, own in enumerate((given.network[0], given.network[77], given.network[-1])):
        tunnel.send_packet(packet.echo(str(own), ORIGIN_IPV6, b"one of many", sequence=100 + number))
        reply = tunnel.wait_packet(lambda came: came.is_echo_reply(100 + number), "echo")
        assert reply.destination == str(own)
    spoofed = str(given.network[-1] + 1)
    check_dropped(
        tunnel, watch(hosts.origin, f"ip6 saddr {spoofed}"), packet.udp(spoofed, ORIGIN_IPV6, (9, 9), b""), 6
    )
    refused = [entry for entry in tunnel.ask(request("0.0.0.0/8", 2)) if entry.request_id == 2]
    assert all(entry.is_refusal or entry.network.subnet_of(POOLS[4]) for entry in refused), refused


# spec: 9484-4.7.2-e, 9484-4.7.2-f
@ALL_CARRIERS
def test_nobody_gets_everything(direct: Opener, carrier: str) -> None:
    """Requests beyond what one tunnel may hold are refused one by one, and the tunnel lives."""
    tunnel = direct(carrier)
    given = tunnel.ask(*(request("0.0.0.0/32", number) for number in range(1, 65)))
    refused = [entry for entry in given if entry.request_id and entry.is_refusal]
    served = [entry for entry in given if not entry.is_refusal and entry.network.version == 4]
    assert refused and len(served) <= 16, given
    assert len({entry.network for entry in served}) == len(served)
    check_echo(tunnel)


# spec: 9484-11-a, 9484-11-b
def test_known_clients_keep_their_addresses(
    hosts: Topology, programs: Programs, certificates: Certificates, tmp_path: Path
) -> None:
    """For a while: one that comes back is who it was, unless somebody else was that meanwhile."""
    passwords = tmp_path / "passwords"
    lines = []
    for user in ("first", "second"):
        command = [bauta(), "passwd", "--user", user]
        hashed = subprocess.run(command, input="secret\n", capture_output=True, text=True, timeout=30, check=True)
        lines.append(hashed.stdout)
    passwords.write_text("".join(lines))
    passwords.chmod(0o600)
    extra = ("[auth]", f'passwords = "{passwords}"')
    relay = programs.relay(hosts.ingress, INGRESS_IPV4, port=OTHER_PORT, pools=OTHER_POOLS, extra=extra)
    opener = Opener(hosts.client, relay, certificates.ca)

    def open_as(user: str) -> IpTunnel:
        secret = base64.b64encode(f"{user}:secret".encode()).decode()
        return opener.request("h2", authorization=f"Basic {secret}").open()

    try:
        stranger = opener.request("h2")
        assert stranger.stream.wait_head() == 401
        before = {}
        for user in ("first", "second"):
            tunnel = open_as(user)
            before[user] = tunnel.assigned[-1]
            tunnel.stream.finish()
            tunnel.stream.wait_end()
        assert before["first"] != before["second"]
        for user in ("second", "first"):
            assert open_as(user).assigned[-1] == before[user]
    finally:
        opener.close()


# spec: 9484-4.6-a, 9484-4.6-b, 9484-4.6-c, 9484-4.6-d, 9484-4.6-h
@pytest.mark.parametrize(
    ("target", "protocol", "routes"),
    [
        ("*", "*", EVERYTHING),
        ("%2A", "%2a", EVERYTHING),
        ("203.0.113.0%2F24", "*", [Range("203.0.113.0", "203.0.113.255")]),
        ("203.0.113.0%2f24", "17", [Range("203.0.113.0", "203.0.113.255", 17)]),
        (ORIGIN_IPV4, "6", [Range(ORIGIN_IPV4, ORIGIN_IPV4, 6)]),
        ("2001%3Adb8%3A113%3A%3A%2F64", "%2A", [Range("2001:db8:113::", "2001:db8:113:0:ffff:ffff:ffff:ffff")]),
        ("2001%3Adb8%3A113%3A%3A2", "132", [Range("2001:db8:113::2", "2001:db8:113::2", 132)]),
        ("*", "17", [Range(entry.start, entry.end, 17) for entry in EVERYTHING]),
    ],
)
@ALL_CARRIERS
def test_scopes(opened: Opener, carrier: str, target: str, protocol: str, routes: list[Range]) -> None:
    tunnel = opened(carrier, target, protocol)
    assert tunnel.routes[-1] == routes
    # A prefix restricts the request to one version; ICMP passes whatever the protocol.
    versions = {ip_address(entry.start).version for entry in routes}
    assert {entry.network.version for entry in tunnel.assigned[-1]} == versions
    for version in versions:
        check_echo(tunnel, version)


# spec: 9484-4.1-a, map-3
@pytest.mark.parametrize(
    ("target", "protocol"),
    [
        ("192.0.2.0%2F33", "*"),
        ("192.0.2.1%2F24", "*"),
        ("2001%3Adb8%3A%3A%2F129", "*"),
        ("2001%3Adb8%3A%3A1%2F64", "*"),
        ("fe80%3A%3A1%25eth0", "*"),
        ("*", "256"),
        ("*", "-1"),
        ("*", "tcp"),
        ("192.0.2.0%2F", "*"),
        ("192.0.2.0%2F0024", "*"),
    ],
)
@ALL_CARRIERS
def test_malformed_scopes(direct: Opener, carrier: str, target: str, protocol: str) -> None:
    tunnel = direct.request(carrier, target, protocol)
    tunnel.stream.wait(lambda: tunnel.stream.status is not None or tunnel.stream.end is not None, "answer")
    assert tunnel.stream.status == 400 or tunnel.stream.end == MESSAGE_ERROR[carrier], tunnel.stream.status


@pytest.fixture(scope="module")
def resolving(lasting: Programs, hosts: Topology, processes: Processes) -> Relay:
    """A relay whose name server, in its own namespace, knows the origin by a name."""
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
    options += ["--pid-file", "--log-facility=-", "--listen-address=127.0.0.1", "--bind-interfaces", "--port=53"]
    options += [f"--local=/{peers.ZONE}/", f"--host-record=origin.{peers.ZONE},{ORIGIN_IPV4},{ORIGIN_IPV6}"]
    options += [f"--host-record=ipv6.{peers.ZONE},{ORIGIN_IPV6}"]
    server = processes.spawn("dnsmasq", hosts.ingress.command(tool("dnsmasq", "dnsmasq-base"), *options))
    server.wait_for(lambda line: True if "started" in line else None)
    extra = ("[dns]", 'servers = ["127.0.0.1:53"]')
    return lasting.relay(hosts.ingress, INGRESS_IPV4, port=NAMES_PORT, pools=OTHER_POOLS, extra=extra)


# spec: 9484-4.1-b, 9484-4.1-c, 9484-4.6-f, map-17
@ALL_CARRIERS
def test_names(hosts: Topology, resolving: Relay, certificates: Certificates, carrier: str) -> None:
    """The addresses of a name are the routes; there is no host behind this relay, so nothing is sent."""
    opener = Opener(hosts.client, resolving, certificates.ca)
    try:
        both = [Range(ORIGIN_IPV4, ORIGIN_IPV4, 17), Range(ORIGIN_IPV6, ORIGIN_IPV6, 17)]
        tunnel = opener(carrier, f"origin.{peers.ZONE}", "17")
        assert tunnel.routes[-1] == both
        assert [entry.network.version for entry in tunnel.assigned[-1]] == [4, 6]
        tunnel = opener(carrier, f"ipv6.{peers.ZONE}")
        assert tunnel.routes[-1] == [Range(ORIGIN_IPV6, ORIGIN_IPV6)]
        assert [entry.network.version for entry in tunnel.assigned[-1]] == [6]
        nowhere = opener.request(carrier, f"nowhere.{peers.ZONE}")
        assert nowhere.stream.wait_head() == 502
        assert "error=dns_error" in nowhere.stream.fields.get("proxy-status", ""), nowhere.stream.fields
    finally:
        opener.close()


# spec: 9484-4.2-b
@pytest.mark.parametrize("protocol", ["connect-ipx", "CONNECT-UDP", ""])
def test_other_upgrades_are_refused(hosts: Topology, egress: Relay, certificates: Certificates, protocol: str) -> None:
    with hosts.client.inside():
        connection = h1.connect(egress.address, certificates.ca)
    path = "/.well-known/masque/ip/*/*/"
    stream = connection.request(Head(protocol or None, egress.address, path, {"capsule-protocol": "?1"}))
    assert stream.wait_head() >= 400
    stream.close()


# spec: 9484-4-b
@pytest.mark.parametrize("opening", ["upgrade", "preface"])
def test_nothing_is_said_in_clear_text(hosts: Topology, egress: Relay, opening: str) -> None:
    """Both versions of HTTP on TCP without TLS: no answer that is HTTP, and no connection."""
    path = "/.well-known/masque/ip/*/*/"
    upgrade = f"GET {path} HTTP/1.1\r\nHost: {egress.address}\r\nConnection: Upgrade\r\nUpgrade: connect-ip\r\n\r\n"
    preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    address, port = egress.address.rsplit(":", 1)
    with hosts.client.inside():
        connection = socket.create_connection((address, int(port)), timeout=10)
    said = bytearray()
    # It may not have read everything when it closes.
    with connection, contextlib.suppress(ConnectionResetError):
        connection.sendall({"upgrade": upgrade, "preface": preface}[opening].encode())
        while more := connection.recv(4096):
            said += more
    # A TLS alert at most.
    assert not said or said[0] == 21, said


# spec: 9484-7.1-b
@pytest.mark.parametrize("carrier", ["h3", "h3-datagrams", "h2"])
def test_packets_before_the_answer(opened: Opener, carrier: str) -> None:
    """Nobody can have an address yet: they are dropped, or held back and dropped, and do no harm."""
    tunnel = opened.request(carrier)
    for _ in range(3):
        tunnel.send_packet(packet.echo("192.0.2.99", ORIGIN_IPV4))
    tunnel.open()
    check_echo(tunnel)


# spec: 9484-7.2-i, 9484-7.2.1-b
@pytest.mark.parametrize("version", [4, 6])
def test_destinations_that_are_not_public(
    hosts: Topology, programs: Programs, certificates: Certificates, version: int
) -> None:
    """Addresses for documentation are out of reach unless the configuration says otherwise."""
    relay = programs.relay(hosts.ingress, INGRESS_IPV4, port=OTHER_PORT, pools=OTHER_POOLS, policy=())
    opener = Opener(hosts.client, relay, certificates.ca)
    try:
        tunnel = opener("h2")
        sent = packet.udp(tunnel.address(version), ORIGINS[version], (9, 9), b"not public")
        tunnel.send_packet(sent)
        wait_icmp(tunnel, sent, (3, 13) if version == 4 else (1, 1))
    finally:
        opener.close()


# spec: 9484-11-c, 9484-7.2-a, 9484-7.2.1-a, 9484-7.2.1-b
@pytest.mark.parametrize("version", [4, 6])
@ALL_DATAGRAMS
def test_foreign_sources_are_dropped(
    hosts: Topology, opened: Opener, carrier: str, version: int
) -> None:
    tunnel = opened(carrier)
    source = {4: "192.0.2.99", 6: "2001:db8:99::1"}[version]
    counter = watch(hosts.origin, f"ip{'' if version == 4 else '6'} saddr {source}")
    spoofed = packet.udp(source, ORIGINS[version], (9, 9), b"spoofed")
    check_dropped(tunnel, counter, spoofed, version)
    # Another client's address is no better.
    other = opened(carrier)
    counter = watch(hosts.origin, f"ip{'' if version == 4 else '6'} saddr {other.address(version)}")
    spoofed = packet.udp(other.address(version), ORIGINS[version], (9, 9), b"spoofed")
    check_dropped(tunnel, counter, spoofed, version)


# spec: 9484-4.6-e, 9484-4.7.3-c, 9484-4.8-b, 9484-7.2.1-b, 9484-7.2.1-d
@pytest.mark.parametrize("version", [4, 6])
@ALL_DATAGRAMS
def test_protocols_outside_the_scope_are_dropped(
    hosts: Topology, opened: Opener, carrier: str, version: int
) -> None:
    tunnel = opened(carrier, "*", "17")
    own, origin = tunnel.address(version), ORIGINS[version]
    family = "ip" if version == 4 else "ip6"
    heard = watch(hosts.origin, f"{family} saddr {own} meta l4proto udp")
    dropped = watch(hosts.origin, f"{family} saddr {own} meta l4proto tcp")
    syn = packet.tcp_syn(own, origin, (40_000, 443))
    check_dropped(tunnel, dropped, syn, version)
    wait_icmp(tunnel, syn, (3, 13) if version == 4 else (1, 1))
    datagram = packet.udp(own, origin, (40_000, 9), b"in scope")
    tunnel.send_packet(datagram)
    check_echo(tunnel, version)
    assert heard.packets() == 1
    if version == 6:
        # The protocol is what comes behind the extension headers.
        check_dropped(tunnel, dropped, packet.with_destination_options(syn), version)
        tunnel.send_packet(packet.with_destination_options(datagram))
        check_echo(tunnel, version)
        assert heard.packets() == 2


# spec: 9484-7.2-a, 9484-7.2.1-b, 9484-7.2.1-d
@pytest.mark.parametrize("version", [4, 6])
@ALL_DATAGRAMS
def test_targets_outside_the_scope_are_dropped(
    hosts: Topology, opened: Opener, carrier: str, version: int
) -> None:
    target = {4: ORIGIN_IPV4, 6: ORIGIN_IPV6.replace(":", "%3A")}[version]
    tunnel = opened(carrier, target, "*")
    own, other = tunnel.address(version), OTHERS[version]
    counter = watch(hosts.origin, f"ip{'' if version == 4 else '6'} daddr {other}")
    sent = packet.udp(own, other, (40_000, 9), b"out of scope")
    check_dropped(tunnel, counter, sent, version)
    wait_icmp(tunnel, sent, *([(3, 0), (3, 1), (3, 13)] if version == 4 else [(1, 0), (1, 1)]))


# spec: 9484-7.2-c, 9484-7.2-d
@pytest.mark.parametrize("version", [4, 6])
@ALL_DATAGRAMS
def test_hop_limit_exceeded(opened: Opener, carrier: str, version: int) -> None:
    tunnel = opened(carrier)
    sent = packet.echo(tunnel.address(version), ORIGINS[version], b"too far", hop_limit=1)
    tunnel.send_packet(sent)
    error = wait_icmp(tunnel, sent, (11, 0) if version == 4 else (3, 0))
    assert ip_address(error.source) in POOLS[version], error


# spec: 9484-6-c, 9484-5-a, 9484-6-a
@ALL_DATAGRAMS
def test_no_packets(opened: Opener, carrier: str) -> None:
    """What is no IP packet, and what is in a context that nobody knows, is dropped; the tunnel lives."""
    tunnel = opened(carrier)
    good = packet.echo(tunnel.address(), ORIGIN_IPV4)
    wrong_version = bytes([0x55]) + good[1:]
    too_long = good[:2] + (len(good) + 1).to_bytes(2) + good[4:]
    short_header = bytes([0x44]) + good[1:]
    for broken in (b"", b"\x45", good[:19], wrong_version, too_long, short_header, bytes(40), b"\x60" + bytes(38)):
        tunnel.send_packet(broken)
        check_echo(tunnel)
    tunnel.send_packet(good, context=2)
    tunnel.send_packet(b"", context=(1 << 62) - 1)
    check_echo(tunnel)


@ALL_CARRIERS
def test_large_packets_in_capsules(direct: Opener, carrier: str) -> None:
    """Nothing on a stream limits a packet to a QUIC datagram; the TUN device does."""
    tunnel = direct(carrier)
    check_echo(tunnel, 4, bytes(1252))
    check_echo(tunnel, 6, bytes(1232))


# spec: 9484-7.2-f, 9484-10.1-a, 9484-7.2.1-b
@pytest.mark.parametrize("version", [4, 6])
@ALL_DATAGRAMS
def test_large_packets_downwards(hosts: Topology, opened: Opener, carrier: str, version: int) -> None:
    """What IPv6 promises arrives on every carrier. What does not fit a datagram of QUIC is told to its sender."""
    tunnel = opened(carrier)
    own, headers = tunnel.address(version), 28 if version == 4 else 48

    def ping(size: int) -> str:
        command = ["ping", "-n", "-M", "do", "-s", size - headers, "-c", "2", "-i", "0.2", "-W", "1", own]
        done = hosts.origin.run(*command, check=False)
        return done.stdout + done.stderr

    said = ping(1280)
    tunnel.wait_packet(lambda came: came.is_icmp and len(came.payload) >= 1240, f"1280 bytes, but {said}")
    tunnel.packets.clear()
    said = ping(1500)
    found = re.search(r"mtu\s?[=:]\s?(\d+)", said)
    hosts.origin.ip("route", "flush", "cache")
    hosts.origin.ip("-6", "route", "flush", "cache")
    if carrier == "h3-datagrams":
        assert found and 1280 <= int(found[1]) < 1500, said
    elif found:
        # A stream has room for it; between two relays are datagrams again.
        assert opened.is_chain, said
    else:
        tunnel.wait_packet(lambda came: came.is_icmp and len(came.payload) >= 1460, "1500 bytes")


# spec: 9484-7.2.1-a
@pytest.mark.parametrize("version", [4, 6])
def test_nobody_has_an_address(hosts: Topology, egress: Relay, version: int) -> None:
    """Who sends to one of the pools that no client has is told so."""
    absent = POOLS[version][0x77]
    done = hosts.origin.run("ping", "-n", "-c", 1, "-W", 5, absent, check=False)
    assert re.search("Unreachable|unreachable", done.stdout), done.stdout


# spec: 9484-11-d
@pytest.mark.parametrize("version", [4, 6])
@ALL_DATAGRAMS
def test_errors_reach_the_client_that_they_are_about(
    hosts: Topology, programs: Programs, certificates: Certificates, carrier: str, version: int
) -> None:
    """Two clients with one address outside, who ask the same of the same: the port of an origin where nobody listens."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4, port=NAT_PORT, pools=OTHER_POOLS, ip=('nat = "apply"',))
    opener = Opener(hosts.client, relay, certificates.ca)
    outside = watch(hosts.origin, f"{OUTSIDE[version]} udp dport {CLOSED_PORT}")
    try:
        tunnels = [opener(carrier) for _ in range(2)]
        for number, (asking, silent) in enumerate([tunnels, tunnels[::-1]]):
            sent = packet.udp(asking.address(version), ORIGINS[version], (7777, CLOSED_PORT), b"anybody?")
            asking.send_packet(sent)
            error = wait_icmp(asking, sent, PORT_UNREACHABLE[version])
            assert error.source == ORIGINS[version]
            check_echo(silent, version)
            assert not silent.packets
            assert outside.packets() == number + 1
    finally:
        opener.close()


# spec: 9484-7.2.1-d
@ALL_DATAGRAMS
def test_no_error_about_an_error(direct: Opener, carrier: str) -> None:
    tunnel = direct(carrier, ORIGIN_IPV4, "*")
    own = tunnel.address()
    quoted = packet.udp(OTHER_IPV4, own, (9, 9), b"never sent")
    body = bytes([3, 1, 0, 0, 0, 0, 0, 0]) + quoted
    body = body[:2] + packet.checksum(body).to_bytes(2) + body[4:]
    tunnel.send_packet(packet.wrap(own, OTHER_IPV4, packet.ICMP, body))
    check_echo(tunnel)
    assert tunnel.packets == []


# spec: cidns-5-b
@ALL_CARRIERS
def test_name_servers_are_assigned(
    hosts: Topology, programs: Programs, certificates: Certificates, carrier: str
) -> None:
    """One plain name server of each family for all names, behind the routes to them."""
    relay = programs.relay(hosts.ingress, INGRESS_IPV4, port=OTHER_PORT, ip=('dns = ["192.0.2.53", "2001:db8::53"]',))
    opener = Opener(hosts.client, relay, certificates.ca)
    try:
        tunnel = opener(carrier)
        tunnel.wait(lambda: bool(tunnel.others), "DNS_ASSIGN")
        (kind, value), *_ = tunnel.others
        assert kind == capsules.DNS_ASSIGN
        for address in ("192.0.2.53", "2001:db8::53"):
            assert ip_address(address).packed in value, value.hex()
    finally:
        opener.close()


def test_capsules_by_hand() -> None:
    """The encoder of this client against a vector, without bauta."""
    encoded = encode_capsule(ADDRESS_REQUEST, request("0.0.0.0/32", 1).encode() + request("::/128", 2).encode())
    assert encoded.hex(" ") == f"02 1a 01 04 00 00 00 00 20 02 06 {'00 ' * 16}80"
