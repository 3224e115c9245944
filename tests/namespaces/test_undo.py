"""`bauta tun` and the relay leave a host as they found it, however they end."""

import pytest
from netns import snapshot, traffic
from netns.namespace import Namespace
from netns.programs import TUN, Programs, Relay, Tunnel
from netns.topology import EGRESS_IPV4, ORIGIN_IPV4, Topology


@pytest.fixture
def relay(programs: Programs, hosts: Topology) -> Relay:
    """One that says which name servers to use."""
    return programs.relay(hosts.egress, EGRESS_IPV4, ip=('dns = ["192.0.2.99"]',))


def check_restored(host: Namespace, before: dict[str, list[str]]) -> None:
    """The kernel needs a moment to take away what went with an interface."""
    try:
        traffic.wait_until(lambda: not snapshot.differences(before, snapshot.take(host)), "former state", 5.0)
    except AssertionError:
        assert snapshot.differences(before, snapshot.take(host)) == []
        raise


def start(programs: Programs, hosts: Topology, relay: Relay, *options: object) -> Tunnel:
    tunnel = programs.tun(hosts.client, relay, options=options).wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    traffic.wait_until(lambda: "192.0.2.99" in hosts.client.resolv_conf.read_text(), "other name server")
    return tunnel


def test_a_tunnel_changes_something(hosts: Topology, programs: Programs, relay: Relay) -> None:
    """Otherwise the other tests would say nothing."""
    before = snapshot.take(hosts.client)
    start(programs, hosts, relay)
    found = snapshot.differences(before, snapshot.take(hosts.client))
    for kind in ("address", "route", "route6", "resolv.conf"):
        assert any(line.startswith(f"+ {kind} ") for line in found), found


@pytest.mark.parametrize("options", [(), ("--route", "203.0.113.0/24")], ids=["everything", "split"])
def test_undone_at_the_end(hosts: Topology, programs: Programs, relay: Relay, options: tuple[str, ...]) -> None:
    before = snapshot.take(hosts.client)
    tunnel = start(programs, hosts, relay, *options)
    programs.forget(tunnel.process)
    assert tunnel.process.stop() == 0, tunnel.process.output()
    check_restored(hosts.client, before)


def test_undone_by_the_next_start_after_a_crash(hosts: Topology, programs: Programs, relay: Relay) -> None:
    before = snapshot.take(hosts.client)
    for _ in range(2):
        tunnel = start(programs, hosts, relay)
        programs.forget(tunnel.process)
        tunnel.process.kill()
        assert tunnel.is_gone()
    tunnel = start(programs, hosts, relay)
    programs.forget(tunnel.process)
    assert tunnel.process.stop() == 0, tunnel.process.output()
    check_restored(hosts.client, before)


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_an_interface_that_was_there_stays(
    hosts: Topology, programs: Programs, relay: Relay, is_killed: bool
) -> None:
    """It was made beforehand and has an address: that is left, and nothing of ours."""
    hosts.client.ip("tuntap", "add", TUN, "mode", "tun")
    try:
        hosts.client.ip("address", "add", "198.51.100.77/32", "dev", TUN)
        hosts.client.run("sysctl", "-q", "-w", f"net.ipv6.conf.{TUN}.addr_gen_mode=1")
        hosts.client.ip("link", "set", TUN, "up")

        def kept() -> dict[str, list[str]]:
            """Without what the kernel makes of an interface that has been in use."""
            seen = snapshot.take(hosts.client)
            for name in ("route", "route6"):
                seen[name] = [line for line in seen[name] if '"table": "local"' not in line]
            addresses = hosts.client.show("address", "show", "dev", TUN)
            seen["address"] = sorted(entry["local"] for device in addresses for entry in device["addr_info"])
            return seen

        before = kept()
        tunnel = start(programs, hosts, relay)
        assert kept() != before
        programs.forget(tunnel.process)
        if is_killed:
            tunnel.process.kill()
            tunnel = start(programs, hosts, relay)
            programs.forget(tunnel.process)
        assert tunnel.process.stop() == 0, tunnel.process.output()
        traffic.wait_until(lambda: kept() == before, f"former state {snapshot.differences(before, kept())}", 5.0)
    finally:
        hosts.client.ip("tuntap", "delete", TUN, "mode", "tun")


def test_undone_when_the_relay_is_not_there(hosts: Topology, programs: Programs, relay: Relay) -> None:
    before = snapshot.take(hosts.client)
    tunnel = start(programs, hosts, relay)
    programs.forget(relay.process)
    relay.process.kill()
    programs.forget(tunnel.process)
    assert tunnel.process.stop() == 0, tunnel.process.output()
    check_restored(hosts.client, before)


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_relay_leaves_nothing(hosts: Topology, programs: Programs, is_killed: bool) -> None:
    """Its TUN device, its addresses and routes, and the NAT that it was told to make."""
    before = snapshot.take(hosts.egress)
    relay = programs.relay(hosts.egress, EGRESS_IPV4, ip=('nat = "apply"',))
    found = snapshot.differences(before, snapshot.take(hosts.egress))
    for kind in ("address", "route", "firewall"):
        assert any(line.startswith(f"+ {kind} ") for line in found), found
    programs.forget(relay.process)
    if is_killed:
        relay.process.kill()
        relay = programs.start(hosts.egress, relay.config)
        programs.forget(relay.process)
    assert relay.process.stop() == 0
    check_restored(hosts.egress, before)


def test_without_rights_it_says_what_lacks(hosts: Topology, programs: Programs, relay: Relay) -> None:
    """No CAP_NET_ADMIN: an answer for people, and nothing is changed."""
    before = snapshot.take(hosts.client)
    without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    done = hosts.client.run(*without, *programs.tun_command(relay), check=False)
    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stdout + done.stderr, done.stdout + done.stderr
    check_restored(hosts.client, before)
