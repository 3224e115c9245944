"""Programs that know nothing of proxies, through `bauta tcp`; a UDP application through the SOCKS5 of `bauta proxy`."""

import hashlib

import pytest
from harness import peers, socks, web
from harness.bauta import Bauta
from harness.certificates import ORIGIN_NAME, Certificates
from harness.daemons import Iperf, Ssh
from harness.payload import pattern

FILE_BYTES = 4 << 20
BULK_BYTES = 16 << 20
UDP_SIZES = [0, 1, 64, 1200]


@pytest.fixture(scope="module")
def front(bauta: Bauta) -> str:
    return bauta.relay("front")


@pytest.fixture(params=["direct", "chained", "nested", "h3", "h2", "h1"])
def way(request: pytest.FixtureRequest) -> tuple[str, list[str], str | None]:
    """Name, what `--via` says, and what `--carrier` says."""
    vias = {"chained": ["chained"], "nested": ["front", "relay"]}.get(request.param, ["relay"])
    carrier = request.param if request.param in ("h3", "h2", "h1") else None
    return request.param, [request.getfixturevalue(name) for name in vias], carrier


def test_ssh(bauta: Bauta, way: tuple[str, list[str], str | None], ssh: Ssh) -> None:
    name, via, carrier = way
    local = bauta.forward_tcp(f"ssh-{name}", ssh.address, *via, carrier=carrier)
    file = pattern("a file", FILE_BYTES)
    assert ssh.run(local, "sha256sum", file).split()[0].decode() == hashlib.sha256(file).hexdigest()
    assert ssh.run(local, "cat", file) == file


@pytest.mark.parametrize("direction", [(), ("--reverse",), ("--parallel", "4")], ids=["up", "down", "parallel"])
def test_iperf3(
    bauta: Bauta, way: tuple[str, list[str], str | None], iperf: Iperf, direction: tuple[str, ...]
) -> None:
    name, via, carrier = way
    local = bauta.forward_tcp(f"iperf3-{name}-{len(direction)}", iperf.address, *via, carrier=carrier)
    iperf.transfer(local, BULK_BYTES, *direction)


def test_target_by_name(
    bauta: Bauta, way: tuple[str, list[str], str | None], https_origin: str, certificates: Certificates
) -> None:
    name, via, carrier = way
    port = https_origin.rpartition(":")[2]
    local = bauta.forward_tcp(f"name-{name}", f"{ORIGIN_NAME}:{port}", *via, carrier=carrier)
    url = web.random_url(f"{ORIGIN_NAME}:{port}", 21, 1 << 20)
    fetched = web.fetch(certificates.ca, url, "--connect-to", f"::{local}")
    assert fetched.exit_code == 0, fetched.log
    assert fetched.sha256 == web.digest_of_random(21, 1 << 20)


def test_dig_over_tcp_carriers(bauta: Bauta, relay: str, dns: str) -> None:
    for carrier in ("h2", "h1"):
        local = bauta.forward(f"dig-{carrier}", dns, relay, carrier=carrier)
        assert peers.dig(local, peers.ECHO_NAME, "A") == ["127.0.0.1"]
        assert peers.dig(local, peers.TEXT_NAME, "TXT") == [" ".join(f'"{text}"' for text in peers.TEXT)]


@pytest.mark.parametrize("carrier", ["h2", "h1"])
def test_http3_download_over_tcp_carriers(
    bauta: Bauta, relay: str, origin: str, clients: peers.Clients, carrier: str
) -> None:
    local = bauta.forward(f"download-{carrier}", origin, relay, carrier=carrier)
    result = clients.download(local, "--bytes", FILE_BYTES, "--seed", 8441)
    assert result["ok"], result


@pytest.mark.parametrize("host", ["127.0.0.1", peers.ECHO_NAME])
def test_socks5_udp(
    bauta: Bauta, way: tuple[str, list[str], str | None], echo: str, host: str
) -> None:
    """RFC 1928 section 7."""
    name, via, carrier = way
    local = bauta.proxy(f"socks5-udp-{name}-{host}", *via, carrier=carrier)
    port = int(echo.rpartition(":")[2])
    with socks.associate(local) as association:
        for turn, size in enumerate(UDP_SIZES * 5):
            payload = pattern(turn, size)
            association.send(host, port, payload)
            assert association.receive() == payload
    # The association ends with its TCP connection: a new one works.
    with socks.associate(local) as association:
        association.send(host, port, b"again")
        assert association.receive() == b"again"
