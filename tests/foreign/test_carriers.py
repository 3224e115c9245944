"""Every kind of tunnel on every carrier, opened by clients of other authors: bytes, half-closes, resets.

```text
{classic, raw, capsules} x {h3, h2, h1} x {one relay, two relays}
```
"""

from pathlib import Path

import pytest
from harness import carriers, peers
from harness import certificates as pki
from harness.bauta import Bauta
from harness.carriers import Tunnel
from harness.carriers.stream import FIN, TRUNCATED
from harness.carriers.tunnel import CAPSULE_DATA, encode_capsule
from harness.payload import pattern
from harness.process import free_port
from harness.target import Target

BULK_BYTES = 4 << 20
# More than any buffer on the way holds, so that it goes through a direction whose other half is closed.
REST_BYTES = 1 << 20

# What a client sees of an RST at the target (RFC 9114 section 4.4, RFC 9113 section 8.5).
CONNECT_ERROR = {"h3": "reset 0x10f", "h2": "reset 0xa", "h1": TRUNCATED}
# A malformed message (RFC 9114 section 4.1.2, RFC 9113 section 8.1.1).
MESSAGE_ERROR = {"h3": "reset 0x10e", "h2": "reset 0x1", "h1": None}

ALL_CARRIERS = pytest.mark.parametrize("carrier", ["h3", "h2", "h1"])
ALL_FORMS = pytest.mark.parametrize("form", carriers.FORMS)
TEMPLATED = pytest.mark.parametrize("form", ["raw", "capsules"])


class Relayed:
    """Opens tunnels through one relay or a chain of two."""

    def __init__(self, proxy: str, ca: Path, is_chain: bool = False) -> None:
        self.proxy = proxy
        self.ca = ca
        self.is_chain = is_chain

    def open(self, carrier: str, form: str, target: str, **fields: str) -> Tunnel:
        return carriers.open_tunnel(carrier, self.proxy, self.ca, form, target, fields)

    def request(self, carrier: str, form: str, target: str, **fields: str) -> carriers.Stream:
        return carriers.request(carrier, self.proxy, self.ca, form, target, fields)


@pytest.fixture
def relayed(via: str, relay: str, certificates: pki.Certificates) -> Relayed:
    return Relayed(via, certificates.ca, is_chain=via != relay)


@pytest.fixture
def direct(relay: str, certificates: pki.Certificates) -> Relayed:
    return Relayed(relay, certificates.ca)


@ALL_FORMS
@ALL_CARRIERS
def test_bytes_arrive_both_ways(relayed: Relayed, tcp_echo: str, carrier: str, form: str) -> None:
    data = pattern(f"{carrier} {form}", BULK_BYTES)
    with relayed.open(carrier, form, tcp_echo) as tunnel:
        tunnel.send(data)
        assert tunnel.receive(len(data)) == data
        tunnel.finish()
        assert tunnel.wait_end() == FIN
        assert tunnel.wait_close() == FIN


# spec: 9112-9.8-a, 9113-8.5-d, ctcp-3.4-b
@ALL_FORMS
@ALL_CARRIERS
def test_client_closes_its_half(relayed: Relayed, tcp_target: Target, carrier: str, form: str) -> None:
    rest = pattern("rest", REST_BYTES)
    with relayed.open(carrier, form, tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        tunnel.send(b"all there is")
        tunnel.finish()
        assert peer.receive(12) == b"all there is"
        assert peer.wait_end() == FIN
        # Both ends are in this one thread: what the kernel and the relays do not hold has to be read meanwhile.
        for start in range(0, len(rest), 1 << 16):
            peer.send(rest[start : start + (1 << 16)])
            assert tunnel.receive(1 << 16) == rest[start : start + (1 << 16)]
        peer.finish()
        assert tunnel.wait_end() == FIN
        assert tunnel.wait_close() == FIN


# spec: ctcp-3.4-a, 9113-8.5-d
@ALL_FORMS
@ALL_CARRIERS
def test_target_closes_its_half(relayed: Relayed, tcp_target: Target, carrier: str, form: str) -> None:
    rest = pattern("rest", REST_BYTES)
    with relayed.open(carrier, form, tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        peer.send(b"all there is")
        peer.finish()
        assert tunnel.receive(12) == b"all there is"
        assert tunnel.wait_end() == FIN
        for start in range(0, len(rest), 1 << 16):
            tunnel.send(rest[start : start + (1 << 16)])
            assert peer.receive(1 << 16) == rest[start : start + (1 << 16)]
        tunnel.finish()
        assert peer.wait_end() == FIN


# spec: ctcp-3.4-d, 9113-8.5-f, conn-9114-a
@ALL_FORMS
@ALL_CARRIERS
def test_target_resets(relayed: Relayed, tcp_target: Target, carrier: str, form: str) -> None:
    with relayed.open(carrier, form, tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        tunnel.send(b"request")
        assert peer.receive(7) == b"request"
        peer.abort()
        assert tunnel.wait_end() == CONNECT_ERROR[carrier]


# spec: ctcp-3.4-e, 9113-8.5-f
@ALL_FORMS
@ALL_CARRIERS
def test_client_resets(relayed: Relayed, tcp_target: Target, carrier: str, form: str) -> None:
    with relayed.open(carrier, form, tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        tunnel.send(b"request")
        assert peer.receive(7) == b"request"
        tunnel.stream.abort()
        assert peer.wait_end() == "reset"


# spec: ctcp-3.4-e
@ALL_CARRIERS
def test_end_without_final_data_is_a_reset(relayed: Relayed, tcp_target: Target, carrier: str) -> None:
    with relayed.open(carrier, "capsules", tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        tunnel.send(b"half of it")
        assert peer.receive(10) == b"half of it"
        tunnel.stream.finish()
        assert peer.wait_end() == "reset"


# spec: ctcp-3.4-e
@ALL_CARRIERS
def test_end_inside_a_capsule_is_a_reset(direct: Relayed, tcp_target: Target, carrier: str) -> None:
    with direct.open(carrier, "capsules", tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        tunnel.stream.send(encode_capsule(CAPSULE_DATA, b"half of it")[:-5])
        # What has come of a capsule goes on before the rest of it is there.
        assert peer.receive(5) == b"half "
        tunnel.stream.finish()
        assert peer.wait_end() == "reset"


# spec: 9112-9.8-a
@ALL_FORMS
def test_end_without_close_notify_is_a_reset(direct: Relayed, tcp_target: Target, form: str) -> None:
    with direct.open("h1", form, tcp_target.address) as tunnel:
        peer = tcp_target.accept()
        tunnel.send(b"half of it")
        assert peer.receive(10) == b"half of it"
        tunnel.stream.truncate()
        assert peer.wait_end() == "reset"


# spec: 9298-5-a, 9297-3.2-a
@pytest.mark.parametrize("cut", [1, 7, 1000])
@ALL_CARRIERS
def test_unknown_capsules_are_skipped(direct: Relayed, tcp_echo: str, carrier: str, cut: int) -> None:
    first, second = pattern("first", 3000), pattern("second", 3000)
    unknown = encode_capsule(0x17 + 0x29 * 7, bytes(3000))
    sent = encode_capsule(CAPSULE_DATA, first) + unknown + encode_capsule(CAPSULE_DATA, second)
    with direct.open(carrier, "capsules", tcp_echo) as tunnel:
        for start in range(0, len(sent), cut):
            tunnel.stream.send(sent[start : start + cut])
        assert tunnel.receive(6000) == first + second
        assert tunnel.unknown_capsules == []


# spec: 9298-3.2-a, 9298-3.4-a
@ALL_CARRIERS
def test_datagrams_in_capsules(relayed: Relayed, echo: str, carrier: str) -> None:
    with relayed.open(carrier, "udp", echo) as tunnel:
        # Between the relays of a chain a payload has to fit a QUIC packet.
        sizes = [0, 1, 64, 1200] if relayed.is_chain else [0, 1, 64, 1200, 9000]
        for turn, size in enumerate(sizes * 5):
            payload = pattern(turn, size)
            tunnel.send_datagram(payload)
            assert tunnel.receive_datagram() == payload
        assert tunnel.unknown_capsules == []
        tunnel.stream.finish()
        assert tunnel.stream.wait_end() == FIN


@ALL_FORMS
@ALL_CARRIERS
def test_names_are_resolved_by_the_relay(relayed: Relayed, tcp_echo: str, carrier: str, form: str) -> None:
    target = f"{peers.ECHO_NAME}:{tcp_echo.rpartition(':')[2]}"
    with relayed.open(carrier, form, target) as tunnel:
        tunnel.send(b"by name")
        assert tunnel.receive(7) == b"by name"


# spec: map-13, map-17, 9110-9.3.6-d
@pytest.mark.parametrize(
    ("host", "status", "error"),
    [("127.0.0.1", 502, "connection_refused"), (f"nowhere.{peers.ZONE}", 502, "dns_error")],
)
@ALL_FORMS
@ALL_CARRIERS
def test_targets_out_of_reach(
    relayed: Relayed, carrier: str, form: str, host: str, status: int, error: str
) -> None:
    stream = relayed.request(carrier, form, f"{host}:{free_port()}")
    assert stream.wait_head() == status
    assert f"error={error}" in stream.fields.get("proxy-status", ""), stream.fields
    stream.close()


# spec: 9110-9.3.6-b
@pytest.mark.parametrize("target", ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:"])
@ALL_CARRIERS
def test_bad_ports(direct: Relayed, carrier: str, target: str) -> None:
    stream = direct.request(carrier, "classic", target)
    stream.wait(lambda: stream.status is not None or stream.end is not None, "answer")
    # "Typically by responding with 400"; one that does not parse is a malformed message as well.
    assert stream.status == 400 or stream.end == MESSAGE_ERROR[carrier], (stream.status, stream.end)
    stream.close()


# spec: 9931-8-b
def test_refused_connect_ends_the_connection(direct: Relayed, tcp_echo: str, relay: str) -> None:
    connection = carriers.h1.connect(relay, direct.ca)
    head = carriers.tunnel_request("classic", relay, f"127.0.0.1:{free_port()}", {})
    stream = connection.request(head)
    connection.link.send(f"CONNECT {tcp_echo} HTTP/1.1\r\nHost: {tcp_echo}\r\n\r\n".encode())
    assert stream.wait_head() == 502
    assert stream.wait_end() in (FIN, TRUNCATED)
    assert b"HTTP/1.1 200" not in stream.received


# spec: ctcp-3.1-f, 9110-7.8-h
@TEMPLATED
def test_refused_upgrade_keeps_the_connection(direct: Relayed, tcp_echo: str, relay: str, form: str) -> None:
    connection = carriers.h1.connect(relay, direct.ca)
    refused = connection.request(carriers.tunnel_request(form, relay, f"127.0.0.1:{free_port()}", {}))
    assert refused.wait_head() == 502
    length = int(refused.fields.get("content-length", "0"))
    refused.wait(lambda: len(refused.received) >= length, "content")
    with Tunnel(connection.request(carriers.tunnel_request(form, relay, tcp_echo, {})), form) as tunnel:
        tunnel.send(b"second")
        assert tunnel.receive(6) == b"second"


# spec: 9110-15.5.20-a, rc-all-c, 9110-11.7.1-a
@ALL_FORMS
@ALL_CARRIERS
def test_credentials(
    guarded: str, certificates: pki.Certificates, tcp_echo: str, carrier: str, form: str
) -> None:
    relayed = Relayed(guarded, certificates.ca)
    refused = relayed.request(carrier, form, tcp_echo)
    status, challenge = (407, "proxy-authenticate") if form == "classic" else (401, "www-authenticate")
    assert refused.wait_head() == status
    assert "basic" in refused.fields.get(challenge, "").lower(), refused.fields
    refused.close()
    # Each field is as good as the other (rc-all-b).
    for name in ("authorization", "proxy-authorization"):
        with relayed.open(carrier, form, tcp_echo, **{name: Bauta.AUTHORIZATION}) as tunnel:
            tunnel.send(b"let in")
            assert tunnel.receive(6) == b"let in"


# spec: rc-all-a
def test_alternative_service(direct: Relayed, relay: str) -> None:
    port = relay.rpartition(":")[2]
    for carrier in ("h2", "h1"):
        stream = direct.request(carrier, "raw", f"127.0.0.1:{free_port()}")
        stream.wait_head()
        assert f'h3=":{port}"' in stream.fields.get("alt-svc", ""), stream.fields
        stream.close()
