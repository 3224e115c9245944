"""Programs that know nothing of MASQUE, through our forwarder and our relays: dig and an HTTP/3 download."""

import pytest
from harness import peers
from harness.bauta import Bauta

BODY_BYTES = 10 << 20


@pytest.fixture(scope="module")
def egress(bauta: Bauta) -> str:
    return bauta.relay("egress")


@pytest.fixture(scope="module")
def ingress(bauta: Bauta, egress: str) -> str:
    return bauta.relay("ingress", upstream=egress)


@pytest.fixture(scope="module")
def front(bauta: Bauta) -> str:
    """The first hop of nested tunnels; it sees the egress as its target."""
    return bauta.relay("front")


@pytest.fixture(params=["single", "chained", "nested"])
def hops(request: pytest.FixtureRequest) -> list[str]:
    """What `--via` names, for each way to reach a target."""
    names = {"single": ["egress"], "chained": ["ingress"], "nested": ["front", "egress"]}[request.param]
    return [request.getfixturevalue(name) for name in names]


def test_dig(bauta: Bauta, hops: list[str], dns: str) -> None:
    local = bauta.forward("dig", dns, *hops)
    for _ in range(10):
        assert peers.dig(local, peers.ECHO_NAME, "A") == ["127.0.0.1"]
    assert peers.dig(local, peers.TEXT_NAME, "TXT") == [" ".join(f'"{text}"' for text in peers.TEXT)]


def test_http3_download(bauta: Bauta, hops: list[str], origin: str, clients: peers.Clients) -> None:
    local = bauta.forward("download", origin, *hops)
    result = clients.download(local, "--bytes", BODY_BYTES, "--seed", 9298)
    assert result["ok"], result
    assert result["bytes"] == BODY_BYTES
