"""The network itself, without bauta: what fails here is not the fault of bauta."""

from pathlib import Path

from harness import web
from harness.certificates import Certificates
from harness.process import Processes
from netns import topology, traffic
from netns.namespace import Network
from netns.topology import Topology
from netns.traffic import Counter


def test_relays_are_in_reach(hosts: Topology) -> None:
    for relay in topology.RELAYS:
        assert traffic.ping(hosts.client, relay) == 1
    assert traffic.ping(hosts.egress, topology.ORIGIN_IPV4) == 1
    assert traffic.ping(hosts.egress, topology.ORIGIN_IPV6) == 1


def test_nobody_reaches_the_origin_without_a_tunnel(hosts: Topology) -> None:
    for address in (topology.ORIGIN_IPV4, topology.ORIGIN_IPV6):
        assert traffic.ping(hosts.client, address) == 0
        assert traffic.ping(hosts.ingress, address) == 0


def test_programs(origin: str, hosts: Topology, certificates: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "file"
    url = web.random_url(origin, 9484, 100_000)
    assert traffic.fetch(hosts.egress, certificates, url, file) == web.digest_of_random(9484, 100_000)
    assert traffic.upload(hosts.egress, certificates, f"https://{origin}/digest", file) == web.digest(file.read_bytes())
    assert traffic.traceroute(hosts.client, topology.EGRESS_IPV4) == ["10.64.0.2", "10.64.1.2", "10.64.2.2"]
    result = traffic.iperf(hosts.egress, topology.ORIGIN_IPV6, "--bytes", "1M")
    assert result["sum_received"]["bytes"] > 0


def test_counters_count(hosts: Topology) -> None:
    counter = Counter(hosts.origin, "heard", "ip saddr 203.0.113.1 icmp type echo-request")
    assert counter.packets() == 0
    assert traffic.ping(hosts.egress, topology.ORIGIN_IPV4, count=2) == 2
    assert counter.packets() == 2


def test_a_lower_mtu_is_told(hosts: Topology) -> None:
    """Upwards by the router that has the narrow link; a packet downwards is lost without a word."""
    interface = hosts.router.interface_to(hosts.ingress)
    hosts.router.ip("link", "set", interface, "mtu", 1350)
    try:
        said = hosts.client.run(
            "ping", "-n", "-M", "do", "-s", 1400, "-c", 1, "-W", 2, topology.EGRESS_IPV4, check=False
        )
        assert "mtu = 1350" in said.stdout or "mtu=1350" in said.stdout, said.stdout
        assert traffic.ping(hosts.ingress, "10.64.0.1", "-M", "do", "-s", 1400) == 0
    finally:
        hosts.router.ip("link", "set", interface, "mtu", 1500)


def test_namespaces_go(processes: Processes) -> None:
    network = Network()
    lone = network.namespace("lone")
    assert lone.name in lone.run("ip", "netns", "list").stdout
    assert lone.run("cat", "/etc/resolv.conf").stdout == lone.resolv_conf.read_text()
    network.close()
    assert not lone.resolv_conf.exists()
