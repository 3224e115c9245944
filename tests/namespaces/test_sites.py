"""Site to site: the networks behind two clients reach each other through a relay that joins them.

```text
 host-a ──── site-a ──── relay ──── site-b ──── host-b
    192.168.1  `bauta tun`   `bauta tun`  192.168.2          and fd01::/64, fd02::/64
```

The sites know their own networks and the relay; neither the relay nor its kernel has a route to what is behind them.
With a TUN device and without one, which such a relay does not need.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from harness import certificates as pki
from harness import web
from harness.certificates import Certificates
from harness.process import Processes
from netns import packet, traffic
from netns.capsules import ROUTE_ADVERTISEMENT, IpTunnel, Range
from netns.namespace import Namespace, Network
from netns.programs import POOL_IPV4, Programs, Relay

RELAY_ADDRESSES = {"site-a": "10.65.1.2", "site-b": "10.65.2.1"}
HOST_A = ("192.168.1.1", "fd01::1")
HOST_B = ("192.168.2.2", "fd02::2")
NETWORKS_A = ("192.168.1.0/24", "fd01::/64")
NETWORKS_B = ("192.168.2.0/24", "fd02::/64")
# For clients by hand.
NETWORK_C = "192.168.3.0/24"
# More than the pause between two attempts.
COMEBACK_SECONDS = 60.0


@dataclass(frozen=True)
class Sites:
    host_a: Namespace
    site_a: Namespace
    relay: Namespace
    site_b: Namespace
    host_b: Namespace


@pytest.fixture(scope="module")
def sites(network: Network) -> Sites:
    roles = ("hosta", "sitea", "relay", "siteb", "hostb")
    path = [network.namespace(role, role in ("sitea", "relay", "siteb")) for role in roles]
    nets = (NETWORKS_A, ("10.65.1.0/24", "fd65:1::/64"), ("10.65.2.0/24", "fd65:2::/64"), NETWORKS_B)
    for left, right, (ipv4, ipv6) in zip(path, path[1:], nets):
        network.link(left, right, ipv4, ipv6)
    made = Sites(*path)
    for host, gateways in ((made.host_a, ("192.168.1.2", "fd01::2")), (made.host_b, ("192.168.2.1", "fd02::1"))):
        for gateway in gateways:
            host.route("default", gateway)
    return made


@pytest.fixture(params=[True, False], ids=["tun", "off"])
def relay(programs: Programs, sites: Sites, request: pytest.FixtureRequest) -> Relay:
    joined = [f'"{prefix}"' for prefix in (*NETWORKS_A, *NETWORKS_B, NETWORK_C)]
    extra = ("[[ip.site]]", f"prefixes = [{', '.join(joined)}]")
    ip = ("client_to_client = true",)
    return programs.relay(sites.relay, "0.0.0.0", has_tun=request.param, ip=ip, extra=extra)


def join(programs: Programs, sites: Sites, *, carrier: str | None = None) -> list:
    """Both clients; each advertises what is behind it, and takes what is behind the other."""
    tunnels = []
    for name, host, own, other in (
        ("site-a", sites.site_a, NETWORKS_A, NETWORKS_B),
        ("site-b", sites.site_b, NETWORKS_B, NETWORKS_A),
    ):
        options = [word for net in own for word in ("--advertise", net)]
        options += [word for net in other for word in ("--route", net)]
        url = f"https://{RELAY_ADDRESSES[name]}:4433"
        tunnels.append(programs.tun(host, url, carrier=carrier, options=tuple(options)))
    for tunnel in tunnels:
        tunnel.wait_up()
    for address in HOST_B:
        traffic.wait_ping(sites.host_a, address)
    for address in HOST_A:
        traffic.wait_ping(sites.host_b, address)
    return tunnels


@pytest.fixture(scope="module")
def certificates(folder: Path) -> Certificates:
    (folder / "sites").mkdir()
    return pki.make(folder / "sites", *RELAY_ADDRESSES.values(), HOST_B[0])


# spec: 9484-4.7.3-a, 9484-4.7.3-h
@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_networks_reach_each_other(
    sites: Sites, programs: Programs, processes: Processes, relay: Relay, certificates: Certificates, tmp_path: Path,
    carrier: str,
) -> None:
    join(programs, sites, carrier=carrier)
    for address in HOST_B:
        assert traffic.ping(sites.host_a, address, "-s", 1200, count=3) == 3
    for address in HOST_A:
        assert traffic.ping(sites.host_b, address, "-s", 1200, count=3) == 3
    origin = traffic.start_origin(processes, sites.host_b, HOST_B[0], certificates)
    url = web.random_url(origin, 12, 4 << 20)
    digest = traffic.fetch(sites.host_a, certificates, url, tmp_path / "file")
    assert digest == web.digest_of_random(12, 4 << 20)


# spec: 9484-7.2-b, 9484-7.2-c
def test_every_router_shows(sites: Sites, programs: Programs, relay: Relay) -> None:
    """The near site, the relay, which forwards between its clients itself, and the far site."""
    join(programs, sites)
    near, relayed, far, end = traffic.traceroute(sites.host_a, HOST_B[0])
    assert [near, end] == ["192.168.1.2", HOST_B[0]]
    assert ip_address(relayed) in ip_network(POOL_IPV4)
    assert far == "192.168.2.1" or ip_address(far) in ip_network(POOL_IPV4)


def test_a_site_leaves_and_comes_back(sites: Sites, programs: Programs, relay: Relay) -> None:
    _, far = join(programs, sites)
    programs.forget(far.process)
    assert far.process.stop() == 0
    assert traffic.ping(sites.host_a, HOST_B[0], wait_seconds=1) == 0
    options = [word for net in NETWORKS_B for word in ("--advertise", net)]
    options += [word for net in NETWORKS_A for word in ("--route", net)]
    programs.tun(sites.site_b, f"https://{RELAY_ADDRESSES['site-b']}:4433", options=tuple(options)).wait_up()
    traffic.wait_ping(sites.host_a, HOST_B[0], COMEBACK_SECONDS)
    traffic.wait_ping(sites.host_b, HOST_A[1], COMEBACK_SECONDS)


@pytest.fixture
def opened(sites: Sites, relay: Relay, certificates: Certificates) -> Iterator[list[IpTunnel]]:
    """One tunnel by hand on each carrier."""
    with sites.site_a.inside():
        url = f"{RELAY_ADDRESSES['site-a']}:4433"
        tunnels = [IpTunnel(carrier, url, certificates.ca) for carrier in ("h3", "h2", "h1")]
    for tunnel in tunnels:
        tunnel.open()
    yield tunnels
    for tunnel in tunnels:
        tunnel.stream.close()


# spec: 9484-4.7-a, 9484-4.7.3-a, 9484-7.2-b
def test_clients_by_hand_advertise(opened: list[IpTunnel]) -> None:
    """Each carrier in turn: what is behind a client is reached by the next, with one hop less, and may answer."""
    for turn, (near, far) in enumerate(zip(opened, [*opened[1:], opened[0]])):
        inner = f"192.168.3.{turn * 16}"
        far.send(ROUTE_ADVERTISEMENT, Range(inner, f"192.168.3.{turn * 16 + 15}"))
        # The relay reads capsules of one stream in order: who is answered has been heard.
        far.send_packet(packet.echo(inner, near.address(), b"from behind", sequence=1))
        came = near.wait_packet(lambda got: got.source == inner, "packet from behind a client")
        assert came.hop_limit == packet.HOP_LIMIT - 1
        near.send_packet(packet.echo(near.address(), inner, b"to behind", sequence=2))
        came = far.wait_packet(lambda got: got.destination == inner, "packet to behind a client")
        assert came.hop_limit == packet.HOP_LIMIT - 1 and came.quoted() == b"to behind"
        # An empty list withdraws it.
        far.send(ROUTE_ADVERTISEMENT)
        far.send_packet(packet.echo(far.address(), near.address(), b"heard", sequence=3))
        near.wait_packet(lambda got: got.source == far.address(), "packet of a client")
        near.send_packet(packet.echo(near.address(), inner, b"to nobody", sequence=4))
        refused = near.wait_packet(lambda got: got.is_icmp and got.icmp()[0] == 3, "ICMP error")
        assert b"to nobody" in refused.quoted()
        assert not [packet for packet in far.packets if packet.destination == inner]


def test_the_last_one_that_advertises_has_a_network(opened: list[IpTunnel]) -> None:
    """A client that comes back is at its new tunnel, and stays there when the old one goes."""
    near, old, new = opened
    inner = "192.168.3.1"
    for far in (old, new):
        far.send(ROUTE_ADVERTISEMENT, Range("192.168.3.0", "192.168.3.255"))
        far.send_packet(packet.echo(inner, near.address(), b"here", sequence=1))
        near.wait_packet(lambda got: got.source == inner, "packet from behind a client")
        near.send_packet(packet.echo(near.address(), inner, b"there", sequence=2))
        far.wait_packet(lambda got: got.destination == inner, "packet to behind a client")
    old.stream.finish()
    old.stream.wait_end()
    near.send_packet(packet.echo(near.address(), inner, b"still there", sequence=3))
    came = new.wait_packet(lambda got: got.destination == inner, "packet to behind a client")
    assert came.quoted() == b"still there"


# spec: 9484-10.1-a
def test_too_large_for_the_other_client(sites: Sites, relay: Relay, certificates: Certificates) -> None:
    """The relay tells the one client what the way to the other takes."""
    with sites.site_a.inside():
        url = f"{RELAY_ADDRESSES['site-a']}:4433"
        tunnels = [IpTunnel(carrier, url, certificates.ca) for carrier in ("h2", "h3-datagrams")]
    try:
        near, far = [tunnel.open() for tunnel in tunnels]
        for version, wanted in ((4, (3, 4)), (6, (2, 0))):
            size = 1472 if version == 4 else 1452
            near.send_packet(packet.echo(near.address(version), far.address(version), bytes(size)))
            told = near.wait_packet(lambda came: came.is_icmp and came.icmp() == wanted, "too big")
            mtu = told.icmp_number() & 0xFFFF
            assert 1280 <= mtu < 1500, told
            data = bytes(mtu - 1500 + size)
            near.send_packet(packet.echo(near.address(version), far.address(version), data, sequence=9))
            came = far.wait_packet(lambda came: came.source == near.address(version), "packet that fits")
            assert came.quoted() == data
    finally:
        for tunnel in tunnels:
            tunnel.stream.close()


def test_networks_of_nobody_are_not_taken(opened: list[IpTunnel], relay: Relay, programs: Programs) -> None:
    """What the configuration does not name is not routed to a client that advertises it; the tunnel lives."""
    near, far, *_ = opened
    far.send(ROUTE_ADVERTISEMENT, Range("192.168.9.0", "192.168.9.255"))
    far.send_packet(packet.echo("192.168.9.1", near.address(), b"spoofed", sequence=1))
    far.send_packet(packet.echo(far.address(), near.address(), b"alive", sequence=2))
    near.wait_packet(lambda got: got.source == far.address(), "packet of a client")
    assert not [came for came in near.packets if came.source == "192.168.9.1"]
    for tunnel in opened:
        tunnel.stream.finish()
        tunnel.stream.wait_end()
    programs.forget(relay.process)
    counters = relay.stop()
    assert counters["ip_routes_refused"] == 1 and counters["ip_dropped_source"] == 1, counters
