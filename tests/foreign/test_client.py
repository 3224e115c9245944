"""Our forwarder through proxies of other authors."""

from harness import udp
from harness.bauta import Bauta

SIZES = [0, 1, 64, 1200]


def test_one_source(bauta: Bauta, foreign_proxy: str, echo: str) -> None:
    local = bauta.forward("one", echo, foreign_proxy)
    assert udp.exchange(local, SIZES * 25) == 100


def test_many_sources(bauta: Bauta, foreign_proxy: str, echo: str) -> None:
    local = bauta.forward("many", echo, foreign_proxy)
    assert udp.exchange(local, SIZES, sources=20) == 80


# spec: 9298-3-b
def test_ipv6_target(bauta: Bauta, masque_go: str, echo_ipv6: str) -> None:
    local = bauta.forward("ipv6", echo_ipv6, masque_go)
    assert udp.exchange(local, SIZES) == 4


def test_name_as_target(bauta: Bauta, masque_go: str, echo: str) -> None:
    local = bauta.forward("name", f"localhost:{echo.rpartition(':')[2]}", masque_go)
    assert udp.exchange(local, SIZES) == 4


def test_nested_through_two_foreign_proxies(bauta: Bauta, masque_go: str, inner_masque_go: str, echo: str) -> None:
    local = bauta.forward("nested", echo, masque_go, inner_masque_go)
    assert udp.exchange(local, [0, 1, 64, 1000]) == 4
