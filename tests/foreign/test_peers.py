"""The foreign peers among themselves: what fails here is not the fault of bauta."""

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import carriers, hostile, peers, web
from harness import certificates as pki
from harness.carriers.link import TlsLink
from harness.carriers.stream import FIN, TRUNCATED
from harness.conformance import run_h2spec
from harness.daemons import Iperf, Ssh
from harness.payload import pattern
from harness.target import Target

BODY_BYTES = 10 << 20
PAGE_BYTES = 4 << 20


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


@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_tunnels_echo(
    envoy_connect: dict[str, str], certificates: pki.Certificates, tcp_echo: str, carrier: str
) -> None:
    data = pattern(carrier, PAGE_BYTES)
    with carriers.open_tunnel(carrier, envoy_connect[carrier], certificates.ca, "classic", tcp_echo) as tunnel:
        tunnel.send(data)
        assert tunnel.receive(len(data)) == data


@pytest.mark.parametrize("carrier", ["h3", "h2"])
def test_tunnels_close_by_halves(
    envoy_connect: dict[str, str], certificates: pki.Certificates, tcp_target: Target, carrier: str
) -> None:
    target = tcp_target.address
    with carriers.open_tunnel(carrier, envoy_connect[carrier], certificates.ca, "classic", target) as tunnel:
        peer = tcp_target.accept()
        tunnel.finish()
        assert peer.wait_end() == FIN
        peer.send(bytes(100_000))
        peer.finish()
        assert tunnel.receive(100_000) == bytes(100_000)
        assert tunnel.wait_end() == FIN


@pytest.mark.parametrize(("carrier", "end"), [("h3", "reset 0x10f"), ("h2", "reset 0xa")])
def test_tunnels_notice_a_reset(
    envoy_connect: dict[str, str], certificates: pki.Certificates, tcp_target: Target, carrier: str, end: str
) -> None:
    target = tcp_target.address
    with carriers.open_tunnel(carrier, envoy_connect[carrier], certificates.ca, "classic", target) as tunnel:
        tcp_target.accept().abort()
        assert tunnel.wait_end() == end


@pytest.mark.parametrize(("options", "version"), [([], "1.1"), (["--proxy-http2"], "2")])
def test_curl(
    envoy_connect: dict[str, str], certificates: pki.Certificates, https_origin: str, options: list[str], version: str
) -> None:
    proxy = ["--proxy", f"https://{envoy_connect['h1']}", *options]
    fetched = web.fetch(certificates.ca, web.random_url(https_origin, 1, PAGE_BYTES), *proxy)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.proxy_versions == [version]
    assert fetched.sha256 == web.digest_of_random(1, PAGE_BYTES)


@pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
def test_curl_with_http3(
    envoy_connect: dict[str, str], clients: peers.Clients, https_origin: str, carrier: str
) -> None:
    version = carrier.replace("h", "http")
    url = web.random_url(https_origin, 2, PAGE_BYTES)
    result = clients.curl_http3(envoy_connect[carrier], version, "http1", url)
    assert result["ok"], result
    assert result["sha256"] == web.digest_of_random(2, PAGE_BYTES)


def test_chromium(
    envoy_connect: dict[str, str], certificates: pki.Certificates, https_origin: str, tmp_path: Path
) -> None:
    proxy = f"https://{envoy_connect['h2']}"
    web.check_page(*web.browse(tmp_path, certificates, proxy, f"https://{https_origin}/page.html"))


def test_chromium_goes_nowhere_without_the_proxy(
    certificates: pki.Certificates, https_origin: str, tcp_target: Target, tmp_path: Path
) -> None:
    tcp_target.close()
    proxy = f"https://{tcp_target.address}"
    with pytest.raises(AssertionError, match="ERR_PROXY_CONNECTION_FAILED"):
        web.browse(tmp_path, certificates, proxy, f"https://{https_origin}/page.html")


def test_ssh(ssh: Ssh) -> None:
    assert ssh.run(ssh.address, "cat", b"and back") == b"and back"


@pytest.mark.parametrize("direction", [(), ("--reverse",)])
def test_iperf3(iperf: Iperf, direction: tuple[str, ...]) -> None:
    iperf.transfer(iperf.address, 4 << 20, *direction)


def test_h2spec(envoy_connect: dict[str, str], tmp_path: Path) -> None:
    """Envoy leaves out of RFC 9113 what it likes, so that both outcomes are seen."""
    results = run_h2spec(envoy_connect["h2"], tmp_path / "report.xml", "http2/3.5", "http2/8.1.2.3")
    assert results["http2/3.5 Sends client connection preface"] is None
    assert any(results.values()), results


@pytest.mark.parametrize("end", ["orderly", "cut"])
def test_tls_ends_are_told_apart(certificates: pki.Certificates, end: str) -> None:
    """Against the TLS of Python: one half closed while the other goes on, and an end without a close_notify."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    seen: list[bytes | type] = []

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False) as server:
            try:
                while data := server.recv(1 << 16):
                    seen.append(data)
                seen.append(b"")
                server.sendall(bytes(100_000))
                server.unwrap().close()
            except ssl.SSLEOFError as cut:
                seen.append(type(cut))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        link = TlsLink(f"127.0.0.1:{listener.getsockname()[1]}", certificates.ca, ["http/1.1"])
        link.send(b"all there is")
        if end == "orderly":
            link.finish()
            assert link.receive(100_000) == bytes(100_000)
            assert link.wait_end() == FIN
        else:
            link.cut()
            assert link.wait_end() == TRUNCATED
        thread.join(15)
        link.close()
    assert seen == [b"all there is", b"" if end == "orderly" else ssl.SSLEOFError]


@pytest.mark.parametrize("how", [["--socks5-hostname"], ["--socks5"]])
def test_curl_by_socks5(
    ssh_socks: str, certificates: pki.Certificates, https_origin: str, how: list[str]
) -> None:
    fetched = web.fetch(certificates.ca, web.random_url(https_origin, 3, PAGE_BYTES), *how, ssh_socks)
    assert fetched.exit_code == 0, fetched.log
    assert fetched.sha256 == web.digest_of_random(3, PAGE_BYTES)


def test_chromium_by_socks5(
    ssh_socks: str, certificates: pki.Certificates, https_origin: str, tmp_path: Path
) -> None:
    web.check_page(*web.browse(tmp_path, certificates, f"socks5://{ssh_socks}", f"https://{https_origin}/page.html"))


@pytest.mark.parametrize("attack", hostile.FLOODS, ids=lambda attack: attack.__name__)
def test_floods_end_the_connection(
    envoy_connect: dict[str, str], certificates: pki.Certificates, tcp_echo: str, attack: Callable
) -> None:
    sent, _, end = hostile.flood(envoy_connect["h2"], certificates.ca, attack(tcp_echo))
    assert end is not None, f"still open after {sent} frames"
