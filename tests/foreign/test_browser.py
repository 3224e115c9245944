"""Chromium loads a page with a picture and a script through two relays, and the page is looked at."""

from pathlib import Path

import pytest
from harness import web
from harness.bauta import Bauta
from harness.certificates import ORIGIN_NAME, Certificates


@pytest.fixture
def url(https_origin: str) -> str:
    return f"https://{ORIGIN_NAME}:{https_origin.rpartition(':')[2]}/page.html"


# spec: rc-chromium-c
def test_chain_as_https_proxy(chained: str, url: str, certificates: Certificates, tmp_path: Path) -> None:
    web.check_page(*web.browse(tmp_path, certificates, f"https://{chained}", url))


@pytest.mark.parametrize("scheme", ["socks5", "http"])
def test_local_proxy_in_front_of_a_chain(
    bauta: Bauta, chained: str, url: str, certificates: Certificates, tmp_path: Path, scheme: str
) -> None:
    local = bauta.proxy(f"browser-{scheme}", chained)
    web.check_page(*web.browse(tmp_path, certificates, f"{scheme}://{local}", url))


@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_local_proxy_nested(
    bauta: Bauta, relay: str, dns: str, url: str, certificates: Certificates, tmp_path: Path, carrier: str
) -> None:
    """Two hops that this client chooses: the second relay sees the first one, and not who asks."""
    front = bauta.relay(f"front-{carrier}", dns=dns)
    local = bauta.proxy(f"browser-nested-{carrier}", front, relay, carrier=carrier)
    web.check_page(*web.browse(tmp_path, certificates, f"socks5://{local}", url))
