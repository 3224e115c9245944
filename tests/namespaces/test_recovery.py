"""What a tunnel survives: a path that gets narrower, a relay that dies, an interface that goes away."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import web
from harness.certificates import Certificates
from harness.process import Processes
from netns import traffic
from netns.namespace import Namespace
from netns.programs import Programs
from netns.topology import EGRESS_IPV4, INGRESS_IPV4, ORIGIN_IPV4, ORIGIN_IPV6, Topology

FILE_BYTES = 32 << 20
RATE = "6M"
NARROW_MTU = 1350
# Reconnects have pauses between them. Less than the three minutes after which a relay takes a silent peer for dead;
# `bauta tun` has an idle timeout of its own, 20 s, and opens the tunnel anew after it.
COMEBACK_SECONDS = 90.0


def wait_pings(host: Namespace, address: str, size: int) -> None:
    """Until echoes of that size come back one after the other."""

    def passed() -> bool:
        return traffic.ping(host, address, "-s", size, count=5, wait_seconds=1) == 5

    traffic.wait_until(passed, f"echoes of {size} bytes", COMEBACK_SECONDS)


@pytest.mark.parametrize(("carrier", "is_told"), [("h3", True), ("h3", False), ("h2", True), ("h1", True)])
@pytest.mark.parametrize("is_chain", [False, True], ids=["direct", "chained"])
def test_path_gets_narrower(
    hosts: Topology,
    programs: Programs,
    processes: Processes,
    origin: str,
    certificates: Certificates,
    tmp_path: Path,
    carrier: str,
    is_told: bool,
    is_chain: bool,
) -> None:
    """In the middle between client and relay. Silent: what is too long downwards is lost and nobody says so."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    if is_chain:
        relay = programs.relay(hosts.ingress, INGRESS_IPV4, upstream=relay.url)
    programs.tun(hosts.client, relay, carrier=carrier).wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    ends = [(hosts.router, hosts.router.interface_to(hosts.ingress))]
    if is_told:
        ends.append((hosts.ingress, hosts.ingress.interface_to(hosts.router)))
    file = tmp_path / "file"
    curl = traffic.start_fetch(
        processes, hosts.client, certificates, web.random_url(origin, 8899, FILE_BYTES), file, RATE
    )
    try:
        traffic.wait_until(lambda: file.exists() and file.stat().st_size > FILE_BYTES // 8, "start of the transfer")
        for host, interface in ends:
            host.ip("link", "set", interface, "mtu", NARROW_MTU)
        assert curl.is_running() and file.stat().st_size < FILE_BYTES, "the transfer was too fast for this test"
        traffic.wait_until(lambda: not curl.is_running(), "end of the transfer", COMEBACK_SECONDS)
        assert web.digest(file.read_bytes()) == web.digest_of_random(8899, FILE_BYTES), curl.output()
        # QUIC learns of a narrow path by what it loses, each end for its own direction; then what IPv6 promises passes.
        for address, size in ((ORIGIN_IPV4, 1252), (ORIGIN_IPV6, 1232)):
            wait_pings(hosts.client, address, size)
    finally:
        for host, interface in ends:
            host.ip("link", "set", interface, "mtu", 1500)
        hosts.client.ip("route", "flush", "cache")
        hosts.egress.ip("route", "flush", "cache")


@pytest.fixture
def narrow(hosts: Topology) -> Iterator[None]:
    """Too narrow between router and ingress for a QUIC packet that holds 1280 bytes, not for IPv6 itself."""
    ends = [(hosts.router, hosts.router.interface_to(hosts.ingress))]
    ends.append((hosts.ingress, hosts.ingress.interface_to(hosts.router)))
    for host, interface in ends:
        host.ip("link", "set", interface, "mtu", 1300)
    yield
    for host, interface in ends:
        host.ip("link", "set", interface, "mtu", 1500)


def test_path_too_narrow_from_the_start(hosts: Topology, programs: Programs, narrow: None) -> None:
    """Whatever HTTP/3 makes of it, there are other carriers, and IPv6 passes with the size that it promises."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    programs.tun(hosts.client, relay).wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV6, COMEBACK_SECONDS)
    wait_pings(hosts.client, ORIGIN_IPV6, 1232)


# spec: 9484-7.2-h, map-47
def test_path_too_narrow_for_http3(hosts: Topology, programs: Programs, narrow: None) -> None:
    """HTTP/3 alone: no tunnel that breaks its promise, or one that keeps it."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    tunnel = programs.tun(hosts.client, relay, carrier="h3")
    programs.forget(tunnel.process)

    def decided() -> str | None:
        if not tunnel.process.is_running() or "1280" in tunnel.process.output():
            return "refused"
        return "open" if tunnel.host.has_address(tunnel.interface, 6) else None

    if traffic.wait_until(decided, "decision", COMEBACK_SECONDS) == "open":
        wait_pings(hosts.client, ORIGIN_IPV6, 1232)


@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
@pytest.mark.parametrize("killed", ["relay", "ingress", "egress"])
def test_relay_dies_and_comes_back(hosts: Topology, programs: Programs, carrier: str, killed: str) -> None:
    """Killed, it says nothing. Started again, it says to whoever goes on that it knows nothing of them."""
    egress = programs.relay(hosts.egress, EGRESS_IPV4)
    relay = egress
    if killed != "relay":
        relay = programs.relay(hosts.ingress, INGRESS_IPV4, upstream=egress.url)
    tunnel = programs.tun(hosts.client, relay, carrier=carrier).wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    victim = relay if killed == "ingress" else egress
    programs.forget(victim.process)
    victim.process.kill()
    assert traffic.ping(hosts.client, ORIGIN_IPV4, wait_seconds=1) == 0
    programs.start(victim.host, victim.config)
    traffic.wait_ping(hosts.client, ORIGIN_IPV4, COMEBACK_SECONDS)
    traffic.wait_ping(hosts.client, ORIGIN_IPV6, COMEBACK_SECONDS)
    assert tunnel.process.is_running()


def test_relay_comes_back_after_an_orderly_end(hosts: Topology, programs: Programs) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    programs.tun(hosts.client, relay).wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    programs.forget(relay.process)
    # Twice: for the tunnels that are still open it would wait for a while.
    relay.process.send_signal(signal.SIGTERM)
    relay.process.wait_for(lambda line: True if "draining" in line else None)
    relay.process.send_signal(signal.SIGTERM)
    relay.process.wait()
    programs.start(relay.host, relay.config)
    traffic.wait_ping(hosts.client, ORIGIN_IPV4, COMEBACK_SECONDS)


def test_client_starts_before_the_relay(hosts: Topology, programs: Programs) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    programs.forget(relay.process)
    relay.process.kill()
    tunnel = programs.tun(hosts.client, relay)
    assert traffic.ping(hosts.client, ORIGIN_IPV4, wait_seconds=1) == 0
    programs.start(relay.host, relay.config)
    tunnel.wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4, COMEBACK_SECONDS)


def test_client_changes_its_address(hosts: Topology, programs: Programs) -> None:
    """Its interface gets another address, as in another network: QUIC migrates, or the tunnel is made anew."""
    relay = programs.relay(hosts.egress, EGRESS_IPV4)
    programs.tun(hosts.client, relay, carrier="h3").wait_up()
    traffic.wait_ping(hosts.client, ORIGIN_IPV4)
    interface = hosts.client.interface_to(hosts.router)

    def default_route() -> list[dict]:
        return [route for route in json.loads(hosts.client.run("ip", "-json", "route").stdout)]

    before = default_route()
    hosts.client.ip("address", "add", "10.64.0.77/24", "dev", interface)
    hosts.client.ip("address", "delete", "10.64.0.1/24", "dev", interface)
    try:
        # The kernel took the routes through the old address away, as a change of networks does.
        after = default_route()
        for route in before:
            if route not in after and route.get("gateway"):
                hosts.client.ip("route", "replace", route["dst"], "via", route["gateway"])
        traffic.wait_ping(hosts.client, ORIGIN_IPV4, COMEBACK_SECONDS)
    finally:
        hosts.client.ip("address", "add", "10.64.0.1/24", "dev", interface)
        hosts.client.ip("address", "delete", "10.64.0.77/24", "dev", interface)
        hosts.client.ip("route", "replace", "default", "via", "10.64.0.2")
