"""The foreign peers among themselves: what fails here is not the fault of bauta."""

from pathlib import Path

import pytest
from harness import certificates as pki
from harness import peers

BODY_BYTES = 10 << 20


def test_dnsmasq_serves_the_zone(dns: str) -> None:
    assert peers.dig(dns, peers.ECHO_NAME, "A") == ["127.0.0.1"]
    assert peers.dig(dns, peers.TEXT_NAME, "TXT") == [" ".join(f'"{text}"' for text in peers.TEXT)]
    assert peers.dig(dns, f"nowhere.{peers.ZONE}", "A") == []


def test_download_arrives_whole(origin: str, clients: peers.Clients) -> None:
    result = clients.download(origin, "--bytes", BODY_BYTES, "--seed", 1)
    assert result["ok"], result
    assert result["bytes"] == BODY_BYTES


def test_download_notices_a_refusal(origin: str, clients: peers.Clients) -> None:
    result = clients.download(origin, "--bytes", (64 << 20) + 1)
    assert not result["ok"]
    assert "status 404" in result["problem"]


@pytest.mark.parametrize("tunnels", [1, 50])
def test_aioquic_client(foreign_proxy: str, echo: str, clients: peers.Clients, tunnels: int) -> None:
    result = clients.aioquic(foreign_proxy, echo, "--tunnels", tunnels, "--sizes", "0,1,64,1200,max")
    assert result["ok"], result
    assert result["echoed"] == 5 * tunnels


@pytest.mark.parametrize("odd", ["unknown-capsule", "unknown-context", "long-context", "grease"])
def test_aioquic_oddities_are_ignored(foreign_proxy: str, echo: str, clients: peers.Clients, odd: str) -> None:
    result = clients.aioquic(foreign_proxy, echo, "--odd", odd, "--rounds", 3)
    assert result["ok"], result


def test_aioquic_half_close(masque_go: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(masque_go, echo, "--half-close")
    assert result["ok"], result


def test_aioquic_early_payload(envoy: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(envoy, echo, "--early", 1)
    assert result["ok"], result
    assert result["echoed"] == 2


def test_aioquic_notices_a_wrong_status(masque_go: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(masque_go, echo, "--expect-status", "403")
    assert not result["ok"]
    assert "status 200, expected 403" in result["problem"]


def test_masque_go_client(foreign_proxy: str, echo: str, clients: peers.Clients) -> None:
    result = clients.masque_go(foreign_proxy, echo, "-sizes", "0,1,64,1200", "-rounds", 5)
    assert result["ok"], result
    assert result["echoed"] == 20


def test_certificate_of_another_authority_is_refused(masque_go: str, echo: str, tmp_path: Path) -> None:
    stranger = peers.Clients(pki.make(tmp_path).ca)
    assert not stranger.aioquic(masque_go, echo, "--timeout", 5)["ok"]
    assert not stranger.masque_go(masque_go, echo, "-timeout", "5s")["ok"]
