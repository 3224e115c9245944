"""What is to go through the tunnel goes no other way."""

import pytest
from netns import snapshot, traffic
from netns.programs import POOL_IPV4, POOL_IPV6, Programs
from netns.topology import EGRESS_IPV4, EGRESS_IPV6, INGRESS_IPV4, ORIGIN_IPV4, ORIGIN_IPV6, Topology

# Reached without a tunnel, and inside of one only if that has IPv6.
BESIDE_IPV6 = "fd64:1::2"
# The tunnel's own way to the relay, in the other IP version than the tunnel has.
RELAYS = pytest.mark.parametrize("relay_address", [EGRESS_IPV4, EGRESS_IPV6], ids=["over-ipv4", "over-ipv6"])


@RELAYS
@pytest.mark.parametrize(
    ("pool", "inside", "outside"),
    [(POOL_IPV4, ORIGIN_IPV4, BESIDE_IPV6), (POOL_IPV6, ORIGIN_IPV6, INGRESS_IPV4)],
    ids=["ipv4", "ipv6"],
)
def test_the_other_version_is_unreachable(
    hosts: Topology, programs: Programs, relay_address: str, pool: str, inside: str, outside: str
) -> None:
    assert traffic.ping(hosts.client, outside) == 1
    before = snapshot.take(hosts.client)
    relay = programs.relay(hosts.egress, relay_address, pools=(pool,))
    tunnel = programs.tun(hosts.client, relay)
    tunnel.process.wait_for(lambda line: True if line.startswith("unreachable ") else None)
    traffic.wait_ping(hosts.client, inside)
    assert traffic.ping(hosts.client, outside) == 0
    # The link itself is no way past the tunnel.
    beside = "fd64:0::2" if ":" in outside else "10.64.0.2"
    assert traffic.ping(hosts.client, beside) == 1
    programs.forget(tunnel.process)
    assert tunnel.process.stop() == 0
    traffic.wait_until(lambda: not snapshot.differences(before, snapshot.take(hosts.client)), "former state", 5.0)
    assert traffic.ping(hosts.client, outside) == 1


def test_undone_by_the_next_start_after_a_crash(hosts: Topology, programs: Programs) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4, pools=(POOL_IPV4,))
    tunnel = programs.tun(hosts.client, relay)
    tunnel.process.wait_for(lambda line: True if line.startswith("unreachable ") else None)
    programs.forget(tunnel.process)
    tunnel.process.kill()
    assert traffic.ping(hosts.client, BESIDE_IPV6) == 0
    programs.tun(hosts.client, relay, options=("--route", "203.0.113.0/24")).wait_up(4)
    traffic.wait_ping(hosts.client, BESIDE_IPV6)


def test_until_the_tunnel_has_it(hosts: Topology, programs: Programs) -> None:
    """The relay comes back with IPv6, and the tunnel takes it in place of nowhere."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4, pools=(POOL_IPV4,))
    tunnel = programs.tun(hosts.client, relay)
    tunnel.process.wait_for(lambda line: True if line.startswith("unreachable ") else None)
    programs.forget(relay.process)
    relay.process.kill()
    text = relay.config.read_text()
    relay.config.write_text(text.replace(f'["{POOL_IPV4}"]', f'["{POOL_IPV4}", "{POOL_IPV6}"]'))
    programs.start(hosts.egress, relay.config)
    traffic.wait_ping(hosts.client, ORIGIN_IPV6, 90.0)
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)


@pytest.mark.parametrize("route", ["0.0.0.0/0", "203.0.113.0/24"])
def test_who_asks_for_one_version_keeps_the_other(hosts: Topology, programs: Programs, route: str) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4, pools=(POOL_IPV4,))
    programs.tun(hosts.client, relay, options=("--route", route)).wait_up(4)
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    assert traffic.ping(hosts.client, BESIDE_IPV6) == 1
