"""What must not pass does not: sources that nobody assigned, and what lies outside the scope of a tunnel."""

import re

import pytest
from harness.certificates import Certificates
from netns import packet, traffic
from netns.capsules import IpTunnel
from netns.namespace import Namespace
from netns.programs import TUN, Programs, Relay, Tunnel
from netns.topology import EGRESS_IPV4, ORIGIN_IPV4, ORIGIN_IPV6, OTHER_IPV4, OTHER_IPV6, Topology
from netns.traffic import Counter

SPOOFED = {4: "10.99.0.1", 6: "fd99::1"}
ORIGINS = {4: ORIGIN_IPV4, 6: ORIGIN_IPV6}
OTHERS = {4: OTHER_IPV4, 6: OTHER_IPV6}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def relay(programs: Programs, hosts: Topology, origin: str) -> Relay:
    return programs.relay(hosts.egress, EGRESS_IPV4)


def start(programs: Programs, hosts: Topology, relay: Relay, *options: object, version: int = 4) -> Tunnel:
    tunnel = programs.tun(hosts.client, relay, options=options).wait_up(version)
    traffic.wait_ping(hosts.client, ORIGINS[version])
    return tunnel


def family(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def connects(host: Namespace, address: str) -> bool:
    """Whether a TCP connection to iperf3 comes about."""
    where = f"[{address}]" if ":" in address else address
    command = ["curl", "--silent", "--connect-timeout", 3, "--max-time", 4, f"telnet://{where}:{traffic.IPERF_PORT}"]
    done = host.run(*command, check=False)
    # 28: it connected, and nobody said anything until the time was over.
    return done.returncode == 28 and not re.search(r"time.*connect|Connection timed out", done.stderr, re.I)


# spec: 9484-11-c
@VERSIONS
def test_spoofed_sources(hosts: Topology, programs: Programs, relay: Relay, version: int) -> None:
    """From the kernel of the client, by an address that it gave itself. The relay's part is in test_capsules.py."""
    start(programs, hosts, relay, version=version)
    spoofed, prefix = SPOOFED[version], 32 if version == 4 else 128
    arrived = Counter(hosts.origin, f"spoofed{version}", f"{family(version)} saddr {spoofed}")
    left = Counter(hosts.client, f"left{version}", f"{family(version)} saddr {spoofed} oifname {TUN}", "postrouting")
    hosts.client.ip("address", "add", f"{spoofed}/{prefix}", "dev", TUN)
    assert traffic.ping(hosts.client, ORIGINS[version], "-I", spoofed, count=3, wait_seconds=1) == 0
    assert left.packets() == 3
    assert traffic.ping(hosts.client, ORIGINS[version]) == 1
    assert arrived.packets() == 0


# spec: 9484-4.7.3-c, 9484-4.6-e
@VERSIONS
def test_protocol_of_the_scope(hosts: Topology, programs: Programs, relay: Relay, version: int) -> None:
    """UDP alone was asked for: TCP does not pass, ICMP does as always."""
    start(programs, hosts, relay, "--ipproto", 17, version=version)
    arrived = Counter(hosts.origin, f"tcp{version}", f"{family(version)} daddr {ORIGINS[version]} meta l4proto tcp")
    assert not connects(hosts.client, ORIGINS[version])
    assert arrived.packets() == 0
    command = ["traceroute", f"-{version}", "-n", "-q", "1", "-w", "2", "-m", "4", ORIGINS[version]]
    assert ORIGINS[version] in hosts.client.run(*command).stdout.splitlines()[-1]
    assert traffic.ping(hosts.client, ORIGINS[version]) == 1


# spec: 9484-4.6-a, 9484-7.2-a
@VERSIONS
def test_target_of_the_scope(hosts: Topology, programs: Programs, relay: Relay, version: int) -> None:
    """One host was asked for: its neighbour is out of reach, the host is not."""
    start(programs, hosts, relay, "--target", ORIGINS[version], version=version)
    arrived = Counter(hosts.origin, f"other{version}", f"{family(version)} daddr {OTHERS[version]}")
    assert connects(hosts.client, ORIGINS[version])
    # It would not go into the tunnel by itself.
    hosts.client.ip("route", "add", OTHERS[version], "dev", TUN)
    assert traffic.ping(hosts.client, OTHERS[version], wait_seconds=1) == 0
    assert arrived.packets() == 0


@VERSIONS
def test_split_routes(hosts: Topology, programs: Programs, relay: Relay, version: int) -> None:
    """`--route` takes one network into the tunnel and leaves the rest as it was."""
    network = {4: "203.0.113.0/24", 6: "2001:db8:113::/64"}[version]
    start(programs, hosts, relay, "--route", network, version=version)
    for address, interface in ((ORIGINS[version], TUN), ({4: "192.0.2.1", 6: "2001:db8:2::1"}[version], "to-router")):
        route = hosts.client.run("ip", "route", "get", address).stdout
        assert f"dev {interface}" in route, route


def test_clients_do_not_reach_each_other(hosts: Topology, programs: Programs, relay: Relay) -> None:
    """Unless the configuration says that they may."""
    start(programs, hosts, relay)
    other = programs.tun(hosts.router, relay).wait_up(4)
    assert traffic.ping(hosts.client, other.address(4), wait_seconds=1) == 0


# spec: 9484-10.3-a
@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_traffic_class_stays_inside(hosts: Topology, programs: Programs, relay: Relay, carrier: str) -> None:
    """DSCP and ECN of a packet arrive with it; the packets of the tunnel, which have a congestion control, have none."""
    start(programs, hosts, relay, "--carrier", carrier)
    arrived = Counter(hosts.origin, f"class-{carrier}", "ip dscp ef ip ecn ect0 icmp type echo-request")
    outside = Counter(hosts.router, f"outside-{carrier}", f"ip daddr {EGRESS_IPV4} ip dscp != cs0")
    # Expedited Forwarding, ECT(0).
    assert traffic.ping(hosts.client, ORIGIN_IPV4, "-Q", 0xBA, count=3) == 3
    assert (arrived.packets(), outside.packets()) == (3, 0)


# spec: 9484-7.1-a, 9484-10-c
def test_link_of_a_tunnel(hosts: Topology, programs: Programs, relay: Relay) -> None:
    """HTTP/3 unless it does not work; no link-local addresses on the interface, nor anything learnt by itself."""
    tunnel = start(programs, hosts, relay)
    assert re.search(r"^up .* over h3\b", tunnel.process.output(), re.M), tunnel.process.output()
    (link,) = hosts.client.show("address", "show", "dev", TUN)
    assert [entry["scope"] for entry in link["addr_info"]] == ["global", "global"], link


# spec: 9484-4.1-f, 9484-4.3-b, 9484-4.5-b
@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_a_refusal_is_no_tunnel(hosts: Topology, programs: Programs, carrier: str) -> None:
    """A relay that has no IP tunnels answers with an error: that is told, and nothing is changed at the client."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4, pools=())
    before = hosts.client.run("ip", "route").stdout
    tunnel = programs.tun(hosts.client, relay, carrier=carrier)
    programs.forget(tunnel.process)
    said = tunnel.process.wait_for(lambda line: line if re.search(r"\b[45]\d\d\b", line) else None)
    assert said and not tunnel.host.has_address(TUN), said
    assert hosts.client.run("ip", "route").stdout == before


# spec: 9484-7.2-a
def test_drops_are_counted(
    hosts: Topology, programs: Programs, relay: Relay, certificates: Certificates
) -> None:
    """By their reasons, in the last line of the relay. The client is one by hand: ours would send none of it."""
    with hosts.client.inside():
        tunnel = IpTunnel("h2", relay.address, certificates.ca, "203.0.113.0%2F24", "17")
    with tunnel.open():
        own = tunnel.address()
        good = packet.udp(own, ORIGIN_IPV4, (9, 9), b"good")
        sent = {
            "ip_dropped_malformed": [good[:19], b"", b"\x55" + good[1:], good[:-1]],
            "ip_dropped_source": [packet.udp(SPOOFED[4], ORIGIN_IPV4, (9, 9), b"spoofed")] * 3,
            "ip_dropped_destination": [packet.udp(own, "192.0.2.1", (9, 9), b"elsewhere")] * 2,
            "ip_dropped_protocol": [packet.tcp_syn(own, ORIGIN_IPV4, (9, 9))],
        }
        for packets in sent.values():
            for dropped in packets:
                tunnel.send_packet(dropped)
        tunnel.send_packet(packet.echo(own, ORIGIN_IPV4, sequence=1))
        tunnel.wait_packet(lambda came: came.is_echo_reply(1), "echo")
        tunnel.stream.finish()
        tunnel.stream.wait_end()
    programs.forget(relay.process)
    counters = relay.stop()
    assert {name: counters[name] for name in sent} == {name: len(packets) for name, packets in sent.items()}
    assert counters["ip_errors_sent"] == 6 and counters["ip_addresses_assigned"] == 1, counters
