"""`bauta tun` through one relay, through two, and nested, on each carrier; programs of the system do the rest."""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from harness import web
from harness.certificates import Certificates
from harness.payload import pattern
from netns import traffic
from netns.programs import POOL_IPV4, POOL_IPV6, Programs, Relay, Tunnel
from netns.topology import EGRESS_IPV4, INGRESS_IPV4, ORIGIN_IPV4, ORIGIN_IPV6, Topology

FRONT_PORT = 4436
# Through one relay; further hops have less to show with so much.
FILE_BYTES = 64 << 20
SMALL_FILE_BYTES = 8 << 20
PAGE_BYTES = 100_000

ORIGINS = pytest.mark.parametrize("address", [ORIGIN_IPV4, ORIGIN_IPV6], ids=["ipv4", "ipv6"])
WAYS = [f"{way}-{carrier}" for way in ("direct", "chained", "nested") for carrier in ("h3", "h2", "h1")]


@pytest.fixture(scope="module")
def egress(lasting: Programs, hosts: Topology) -> Relay:
    return lasting.relay(hosts.egress, EGRESS_IPV4)


@pytest.fixture(scope="module")
def chain(lasting: Programs, hosts: Topology, egress: Relay) -> list[Relay]:
    return [lasting.relay(hosts.ingress, INGRESS_IPV4, upstream=egress.url)]


@pytest.fixture(scope="module")
def nest(lasting: Programs, hosts: Topology, egress: Relay) -> list[Relay]:
    """The first relay knows nothing of IP: it moves the bytes of the connection to the second."""
    return [lasting.relay(hosts.ingress, INGRESS_IPV4, port=FRONT_PORT, pools=()), egress]


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tunnel(
    way: str, request: pytest.FixtureRequest, lasting: Programs, hosts: Topology, egress: Relay, origin: str
) -> Iterator[Tunnel]:
    """A client that takes every route."""
    kind, carrier = way.split("-")
    via = [egress] if kind == "direct" else request.getfixturevalue({"chained": "chain", "nested": "nest"}[kind])
    running = lasting.tun(hosts.client, *via, carrier=carrier).wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    traffic.wait_ping(hosts.client, ORIGIN_IPV6)
    yield running
    lasting.forget(running.process)
    assert running.process.stop() == 0
    assert running.is_gone()


# spec: 9484-4.7.1-f, 9484-4.7.3-h, 9484-7.2-f
def test_addresses_come_from_the_relay(tunnel: Tunnel) -> None:
    assert ip_address(tunnel.address(4)) in ip_network(POOL_IPV4)
    assert ip_address(tunnel.address(6)) in ip_network(POOL_IPV6)
    assert 1280 <= tunnel.mtu() <= 9000


@ORIGINS
def test_ping(tunnel: Tunnel, hosts: Topology, address: str) -> None:
    for size in (0, 56, 1000, 1232 if ":" in address else 1252):
        assert traffic.ping(hosts.client, address, "-s", size) == 1, size


# spec: 9484-10.1-a
@ORIGINS
def test_ping_without_fragments(tunnel: Tunnel, hosts: Topology, address: str) -> None:
    """What the interface takes passes, or a hop behind it says what does; nothing is lost without a word.

    The first answer may be lost, while the relay has not found out yet how much passes the other way: then the word is
    for the origin, which makes the second one smaller."""
    headers = 48 if ":" in address else 28
    command = ["ping", "-n", "-M", "do", "-c", 2, "-i", 0.2, "-W", 2, "-s", tunnel.mtu() - headers, address]
    said = hosts.client.run(*command, check=False).stdout
    if " 0 received" in said:
        found = re.search(r"mtu\s?[=:]\s?(\d+)", said)
        assert found and 1280 <= int(found[1]) < tunnel.mtu(), said
        assert traffic.ping(hosts.client, address, "-M", "do", "-s", int(found[1]) - headers) == 1


# spec: 9484-7.2-c, 9484-7.2.1-c
@ORIGINS
def test_traceroute_shows_the_relay(tunnel: Tunnel, hosts: Topology, address: str) -> None:
    """Its TUN address is the first router, whatever there is between client and relay."""
    first, *rest = traffic.traceroute(hosts.client, address)
    assert ip_address(first) in ip_network(POOL_IPV6 if ":" in address else POOL_IPV4)
    assert rest == [address]


def test_relays_are_outside_of_the_tunnel(tunnel: Tunnel, hosts: Topology, way: str) -> None:
    """The next hop, whose packets must not go into the tunnel that they carry."""
    relay = EGRESS_IPV4 if way.startswith("direct") else INGRESS_IPV4
    route = hosts.client.run("ip", "route", "get", relay, "ipproto", "udp").stdout
    assert hosts.client.interface_to(hosts.router) in route, route


def test_page(tunnel: Tunnel, hosts: Topology, origin: str, certificates: Certificates, tmp_path: Path) -> None:
    digest = traffic.fetch(hosts.client, certificates, f"https://{origin}/page.html", tmp_path / "page")
    assert digest and b"picture.png" in (tmp_path / "page").read_bytes()
    url = web.random_url(origin, 7, PAGE_BYTES)
    expected = web.digest_of_random(7, PAGE_BYTES)
    for _ in range(5):
        assert traffic.fetch(hosts.client, certificates, url, tmp_path / "random") == expected


def test_file_down(
    tunnel: Tunnel, way: str, hosts: Topology, origin: str, certificates: Certificates, tmp_path: Path
) -> None:
    size = FILE_BYTES if way.startswith("direct") else SMALL_FILE_BYTES
    url = web.random_url(origin, 9484, size)
    assert traffic.fetch(hosts.client, certificates, url, tmp_path / "file") == web.digest_of_random(9484, size)


def test_file_up(
    tunnel: Tunnel, way: str, hosts: Topology, origin: str, certificates: Certificates, tmp_path: Path
) -> None:
    data = pattern(way, FILE_BYTES if way.startswith("direct") else SMALL_FILE_BYTES)
    (tmp_path / "file").write_bytes(data)
    said = traffic.upload(hosts.client, certificates, f"https://{origin}/digest", tmp_path / "file")
    assert said == web.digest(data)


@pytest.mark.parametrize("direction", [(), ("--reverse",)], ids=["up", "down"])
@ORIGINS
def test_iperf_tcp(tunnel: Tunnel, hosts: Topology, address: str, direction: tuple[str, ...]) -> None:
    size = 8 << 20
    end = traffic.iperf(hosts.client, address, "--bytes", size, "--parallel", 2, *direction)
    sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
    assert sent >= size, f"{sent} of {size} bytes sent"
    # Upwards the server stops to count when the client has handed over its last byte.
    assert (size if direction else 1) <= received <= sent, f"{received} of {sent} bytes received"


@pytest.mark.parametrize("direction", [(), ("--reverse",)], ids=["up", "down"])
@ORIGINS
def test_iperf_udp(tunnel: Tunnel, hosts: Topology, address: str, direction: tuple[str, ...]) -> None:
    """At a rate that everything on the way has room for; the last packets may come after the server has counted."""
    size = 1 << 20
    end = traffic.iperf(
        hosts.client, address, "--udp", "--bitrate", "8M", "--length", 1200, "--bytes", size, *direction
    )
    sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
    assert sent >= size, f"{sent} of {size} bytes sent"
    assert received >= sent * 0.9, f"{received} of {sent} bytes received"


# spec: 9484-7.2.1-b
def test_nobody_answers_for_absent_hosts(tunnel: Tunnel, hosts: Topology) -> None:
    """The egress says that it finds nobody, by ICMP through the tunnel."""
    said = hosts.client.run("ping", "-n", "-c", 1, "-W", 5, "203.0.113.77", check=False, seconds=20).stdout
    assert re.search(r"From \S+ icmp_seq=1 Destination Host Unreachable", said), said


def test_other_networks_are_reached_as_before(tunnel: Tunnel, hosts: Topology) -> None:
    """The link that the client is on keeps its route."""
    route = hosts.client.run("ip", "route", "get", "10.64.0.2").stdout
    assert hosts.client.interface_to(hosts.router) in route, route
    assert traffic.ping(hosts.client, "10.64.0.2") == 1
