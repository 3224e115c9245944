"""CONNECT-IP with connect-ip-go: its client through our relays, and our client through its proxy."""

import sys
from ipaddress import ip_network

import pytest

from harness.certificates import Certificates
from harness.process import Processes, listening_address
from harness.tools import PEERS
from netns import foreign, packet, topology, traffic
from netns.capsules import EVERYTHING as EVERY_RANGE
from netns.capsules import MALFORMED, IpTunnel, request
from netns.programs import POOL_IPV4, POOL_IPV6, Programs
from netns.topology import EGRESS_IPV4, INGRESS_IPV4, ORIGIN_IPV4, ORIGIN_IPV6, Topology

EVERYTHING = [
    {"start": "0.0.0.0", "end": "255.255.255.255", "protocol": 0},
    {"start": "::", "end": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "protocol": 0},
]
# Hosts that only the proxy of connect-ip-go knows of.
SOMEWHERE = ("198.51.100.77", "2001:db8:77::1")
SIZES = "0,1,64,1000,1200"


@pytest.fixture(scope="module")
def go_proxy(processes: Processes, hosts: Topology, certificates: Certificates) -> foreign.Proxy:
    listen = f"{EGRESS_IPV4}:4434"
    return foreign.start_proxy(processes, hosts.egress, certificates, listen, "-dns", "192.0.2.54")


@pytest.fixture(scope="module")
def udp_echo(processes: Processes, hosts: Topology) -> str:
    command = hosts.origin.command(sys.executable, PEERS / "udp_echo.py", "--listen", ORIGIN_IPV4)
    return processes.spawn("udp-echo", command).wait_for(listening_address)[0]


def test_go_client_and_go_proxy(hosts: Topology, go_proxy: foreign.Proxy, certificates: Certificates) -> None:
    """Without bauta."""
    options = ("-sizes", SIZES, "-rounds", 2, "-request", "0.0.0.0/32,::/128", "-dns")
    for address in SOMEWHERE:
        result = foreign.client(hosts.client, certificates.ca, go_proxy.address, "-ping", address, *options)
        assert result["ok"], result
        assert result["echoed"] == 10 and result["requested"] == [1, 2] and result["routes"] == EVERYTHING, result
        assert result["dns"] == ["192.0.2.54"], result


def test_go_client_notices_a_refusal(
    hosts: Topology, processes: Processes, certificates: Certificates
) -> None:
    """Without bauta: a host to which the proxy advertises no route."""
    options = ("-routes", "192.0.2.0-192.0.2.255")
    narrow = foreign.start_proxy(processes, hosts.egress, certificates, f"{EGRESS_IPV4}:4435", *options)
    options = ("-ping", SOMEWHERE[0], "-timeout", "1s")
    assert not foreign.client(hosts.client, certificates.ca, narrow.address, *options)["ok"]


@pytest.mark.parametrize("carrier", ["h3", "h3-datagrams"])
def test_hand_made_client_and_go_proxy(
    hosts: Topology, go_proxy: foreign.Proxy, certificates: Certificates, carrier: str
) -> None:
    """Without bauta: what test_capsules.py sends is understood by others."""
    with hosts.client.inside():
        opening = IpTunnel(carrier, go_proxy.address, certificates.ca)
    with opening as tunnel:
        tunnel.open()
        assert tunnel.routes[-1] == EVERY_RANGE and tunnel.address(4) == foreign.ASSIGNED_IPV4
        given = tunnel.ask(request("::/128", 9), request("0.0.0.0/32", 70_000), request("::/128", 3))
        refusals = {entry.request_id: entry.is_refusal for entry in given}
        assert refusals == {9: False, 70_000: False, 3: True}, given
        if carrier == "h3-datagrams":
            for sequence, (own, address) in enumerate(zip((tunnel.address(4), tunnel.address(6)), SOMEWHERE)):
                tunnel.send_packet(packet.echo(own, address, bytes(1000), sequence=sequence))
                tunnel.wait_packet(lambda came: came.is_echo_reply(sequence), "echo")
        tunnel.stream.send(bytes.fromhex(MALFORMED["bad-version"]))
        assert tunnel.stream.wait_end() == "reset 0x107"


# spec: 9484-4.1-d, 9484-4.5-a, 9484-6-b
@pytest.mark.parametrize("chained", [False, True], ids=["direct", "chained"])
def test_go_client_through_relays(
    hosts: Topology, programs: Programs, certificates: Certificates, udp_echo: str, chained: bool
) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    if chained:
        relay = programs.relay(hosts.ingress, INGRESS_IPV4, upstream=relay.url)
    for address in (ORIGIN_IPV4, ORIGIN_IPV6):
        options = ("-ping", address, "-sizes", SIZES, "-rounds", 5)
        result = foreign.client(hosts.client, certificates.ca, relay.address, *options)
        assert result["ok"], result
        assert result["echoed"] == 25, result
        # The origin sends with 64, and the egress is a router.
        assert result["hop_limit"] == 63, result
        assert result["routes"] == EVERYTHING, result
        given = [ip_network(entry["prefix"]) for entry in result["assigned"]]
        pools = [ip_network(POOL_IPV4), ip_network(POOL_IPV6)]
        assert [net.subnet_of(pool) for net, pool in zip(given, pools, strict=True)] == [True, True], result
    result = foreign.client(hosts.client, certificates.ca, relay.address, "-udp", udp_echo, "-sizes", SIZES)
    assert result["ok"] and result["datagrams"] == 5, result


# spec: 9484-4.7.2-e, 9484-4.7.1-b
@pytest.mark.parametrize("chained", [False, True], ids=["direct", "chained"])
def test_go_client_asks_for_addresses(
    hosts: Topology, programs: Programs, certificates: Certificates, chained: bool
) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    if chained:
        relay = programs.relay(hosts.ingress, INGRESS_IPV4, upstream=relay.url)
    options = ("-request", "0.0.0.0/32,::/128", "-ping", ORIGIN_IPV6)
    result = foreign.client(hosts.client, certificates.ca, relay.address, *options)
    assert result["ok"], result
    answers = [entry["id"] for entry in result["assigned"] if entry["id"]]
    assert sorted(answers) == sorted(result["requested"]) and len(answers) == 2, result


# spec: 9484-4.7.1-a, 9484-4.7.3-h
@pytest.mark.parametrize("chained", [False, True], ids=["direct", "chained"])
def test_bauta_tun_through_go_proxy(
    hosts: Topology, programs: Programs, go_proxy: foreign.Proxy, chained: bool
) -> None:
    via: str = go_proxy.url
    if chained:
        via = programs.relay(hosts.ingress, INGRESS_IPV4, upstream=via).url
    tunnel = programs.tun(hosts.client, via).wait_up()
    assert [tunnel.address(4), tunnel.address(6)] == [foreign.ASSIGNED_IPV4, foreign.ASSIGNED_IPV6]
    for address in SOMEWHERE:
        traffic.wait_ping(hosts.client, address)
        for size in (0, 1000, 1200):
            assert traffic.ping(hosts.client, address, "-s", size) == 1, size
    # The relay is still reached beside the tunnel.
    assert traffic.ping(hosts.client, topology.INGRESS_IPV4) == 1


# spec: cidns-3.4-a
def test_bauta_tun_takes_name_servers(hosts: Topology, programs: Programs, go_proxy: foreign.Proxy) -> None:
    before = hosts.client.resolv_conf.read_text()
    tunnel = programs.tun(hosts.client, go_proxy.url).wait_up()
    conf = hosts.client.resolv_conf
    traffic.wait_until(lambda: conf.read_text() != before, "another resolv.conf")
    assert "nameserver 192.0.2.54" in conf.read_text()
    programs.forget(tunnel.process)
    assert tunnel.process.stop() == 0
    assert conf.read_text() == before
