"""Our relay, as clients of other authors see it: aioquic with and without QUIC datagrams, masque-go."""

import pytest
from harness import peers
from harness.bauta import Bauta
from harness.process import free_port

# The last one is more than a QUIC DATAGRAM holds.
CAPSULE_SIZES = "0,1,64,1200,9000"


@pytest.fixture(scope="module")
def closed_relay(bauta: Bauta, dns: str) -> str:
    """A relay with the default policy: public targets only."""
    return bauta.relay("closed", allow=(), dns=dns)


# spec: 9298-5-b, rc-chromium-a
@pytest.mark.parametrize("tunnels", [1, 50])
def test_datagrams_of_all_sizes(relay: str, echo: str, clients: peers.Clients, tunnels: int) -> None:
    result = clients.aioquic(relay, echo, "--tunnels", tunnels, "--sizes", "0,1,64,1200,max", "--rounds", 3)
    assert result["ok"], result
    assert result["echoed"] == 15 * tunnels
    # spec: rc-firefox-b
    assert result["settings"]["0x8"] == result["settings"]["0x33"] == 1


# spec: 9298-5-j
def test_payloads_before_the_response(relay: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(relay, echo, "--early", 3)
    assert result["ok"], result
    assert result["echoed"] == 4


# spec: 9298-5-j, 9298-3.1-c
def test_payloads_before_the_response_wait_for_dns(relay: str, echo: str, clients: peers.Clients) -> None:
    target = f"{peers.ECHO_NAME}:{echo.rpartition(':')[2]}"
    result = clients.aioquic(relay, target, "--early", 3)
    assert result["ok"], result
    assert result["echoed"] == 4


# spec: rc-curl-a, rc-curl-b, rc-curl-c
def test_capsules_for_a_client_without_datagrams(relay: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(relay, echo, "--mode", "capsule", "--sizes", CAPSULE_SIZES, "--tunnels", 5)
    assert result["ok"], result
    assert result["as_capsules"] == result["echoed"] == 25


# spec: 9297-3.2-a
@pytest.mark.parametrize("step", [1, 2, 7])
def test_capsules_cut_anywhere(relay: str, echo: str, clients: peers.Clients, step: int) -> None:
    result = clients.aioquic(relay, echo, "--mode", "capsule", "--chop", step, "--sizes", "0,1,64,300")
    assert result["ok"], result


# spec: 9298-4-a, 9298-5-a, 9298-5-k, 9297-3.2-a, 9114-7.2.8-a, 9114-9-a
@pytest.mark.parametrize("mode", ["datagram", "capsule"])
@pytest.mark.parametrize("odd", ["unknown-capsule", "unknown-context", "long-context", "grease"])
def test_oddities_are_ignored(relay: str, echo: str, clients: peers.Clients, odd: str, mode: str) -> None:
    result = clients.aioquic(relay, echo, "--odd", odd, "--mode", mode, "--sizes", "1,64", "--rounds", 3)
    assert result["ok"], result
    assert result["echoed"] == 6


# spec: 9298-5-k
def test_datagram_without_context_is_dropped(relay: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(relay, echo, "--odd", "empty-datagram")
    assert result["ok"], result


# spec: 9298-5-d, 9298-5-l
def test_payload_above_the_udp_limit_ends_the_tunnel(relay: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(relay, echo, "--mode", "capsule", "--oversize", "--expect-end", "reset 0x33")
    assert result["ok"], result


# spec: 9298-3.1-t
@pytest.mark.parametrize("mode", ["datagram", "capsule"])
def test_half_close_ends_the_tunnel(relay: str, echo: str, clients: peers.Clients, mode: str) -> None:
    result = clients.aioquic(relay, echo, "--half-close", "--mode", mode)
    assert result["ok"], result
    assert result["end"] == "fin"


# spec: 9298-3.1-k, map-42
def test_unreachable_target_resets_the_tunnel(relay: str, clients: peers.Clients) -> None:
    options = ["--sizes", "", "--unreachable", "--expect-end", "reset 0x10f"]
    result = clients.aioquic(relay, f"127.0.0.1:{free_port()}", *options)
    assert result["ok"], result


# spec: map-1
def test_path_of_no_template(relay: str, echo: str, clients: peers.Clients) -> None:
    refusal = ["--expect-status", "404", "--expect-error", "http_request_error"]
    result = clients.aioquic(relay, echo, "--path", "/nowhere/127.0.0.1/443/", *refusal)
    assert result["ok"], result


# spec: 9298-3-g, map-2
@pytest.mark.parametrize(
    "target",
    [
        "/443",
        "127.0.0.1/0",
        "127.0.0.1/65536",
        "127.0.0.1/+443",
        "127.1/443",
        "%5B%3A%3A1%5D/443",
        "fe80%3A%3A1%25eth0/443",
        "a%00b/443",
        "a%252Eb/443",
    ],
)
def test_malformed_target(relay: str, echo: str, clients: peers.Clients, target: str) -> None:
    refusal = ["--expect-status", "400", "--expect-error", "http_request_error"]
    result = clients.aioquic(relay, echo, "--path", f"/.well-known/masque/udp/{target}/", *refusal)
    assert result["ok"], result


# spec: 9220-3-a, map-5, 9297-2-b
@pytest.mark.parametrize("early", [0, 3])
def test_unknown_protocol(relay: str, echo: str, clients: peers.Clients, early: int) -> None:
    refusal = ["--expect-status", "501", "--expect-error", "proxy_internal_response"]
    result = clients.aioquic(relay, echo, "--protocol", "connect-nothing", "--early", early, *refusal)
    assert result["ok"], result


# spec: map-22
def test_head_too_large(relay: str, echo: str, clients: peers.Clients) -> None:
    refusal = ["--expect-status", "431", "--expect-error", "http_request_error"]
    padding = ["--header", f"x-padding: {'x' * 4000}"] * 5
    result = clients.aioquic(relay, echo, *padding, *refusal)
    assert result["ok"], result


# spec: map-6
def test_other_method_on_a_template_path(relay: str, echo: str, clients: peers.Clients) -> None:
    refusal = ["--expect-status", "405", "--expect-error", "http_request_error", "--expect-field", "allow: CONNECT"]
    result = clients.aioquic(relay, echo, "--method", "GET", "--protocol", "", *refusal)
    assert result["ok"], result


# spec: 9298-7-b, 9298-7-c, map-12
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.0.1", peers.ECHO_NAME])
def test_prohibited_target(closed_relay: str, clients: peers.Clients, host: str) -> None:
    refusal = ["--expect-status", "403", "--expect-error", "destination_ip_prohibited"]
    result = clients.aioquic(closed_relay, f"{host}:443", *refusal)
    assert result["ok"], result


# spec: 9298-3.1-e, map-13
def test_name_that_does_not_exist(relay: str, clients: peers.Clients) -> None:
    refusal = ["--expect-status", "502", "--expect-error", "dns_error", "--expect-parameter", "rcode=NXDOMAIN"]
    result = clients.aioquic(relay, f"nowhere.{peers.ZONE}:443", *refusal)
    assert result["ok"], result


# spec: map-13
def test_name_without_address(relay: str, clients: peers.Clients) -> None:
    refusal = ["--expect-status", "502", "--expect-error", "dns_error"]
    result = clients.aioquic(relay, f"{peers.TEXT_NAME}:443", *refusal)
    assert result["ok"], result


# spec: rc-all-g
def test_masque_go_client(relay: str, echo: str, clients: peers.Clients) -> None:
    result = clients.masque_go(relay, echo, "-sizes", "0,1,64,1200", "-rounds", 25)
    assert result["ok"], result
    assert result["echoed"] == 100


def test_masque_go_client_is_refused(closed_relay: str, echo: str, clients: peers.Clients) -> None:
    result = clients.masque_go(closed_relay, echo)
    assert not result["ok"]
    assert result["status"] == 403


@pytest.mark.parametrize("mode", ["datagram", "capsule"])
def test_chained_relays(chained: str, echo: str, clients: peers.Clients, mode: str) -> None:
    result = clients.aioquic(chained, echo, "--mode", mode, "--tunnels", 10, "--sizes", "0,1,64,1200", "--half-close")
    assert result["ok"], result
    assert result["echoed"] == 40


# spec: map-28, 9209-2-b
def test_refusal_of_the_egress_reaches_the_client(bauta: Bauta, closed_relay: str, clients: peers.Clients) -> None:
    ingress = bauta.relay("ingress-refused", upstream=closed_relay)
    result = clients.aioquic(ingress, "127.0.0.1:443", "--expect-status", "403")
    assert result["ok"], result
    assert "destination_ip_prohibited" in (result["proxy_status"] or ""), result


# spec: 9298-5-j
def test_early_payloads_through_a_chain(chained: str, echo: str, clients: peers.Clients) -> None:
    result = clients.aioquic(chained, echo, "--early", 5, "--sizes", "0,1200")
    assert result["ok"], result
    assert result["echoed"] == 7


# spec: 9298-3.1-k, 9298-3.1-s, map-42
def test_unreachable_target_behind_a_chain(chained: str, clients: peers.Clients) -> None:
    options = ["--sizes", "", "--unreachable", "--expect-end", "reset 0x10f"]
    result = clients.aioquic(chained, f"127.0.0.1:{free_port()}", *options)
    assert result["ok"], result


@pytest.mark.parametrize("tunnels", [1, 20])
def test_foreign_egress(bauta: Bauta, foreign_proxy: str, echo: str, clients: peers.Clients, tunnels: int) -> None:
    ingress = bauta.relay("ingress-foreign", upstream=foreign_proxy)
    result = clients.aioquic(ingress, echo, "--tunnels", tunnels, "--sizes", "0,1,64,1200")
    assert result["ok"], result
    assert result["echoed"] == 4 * tunnels
