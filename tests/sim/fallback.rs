//! Pools and chains of relays on TCP carriers: which connections there are, and what happens when a carrier fails.

use bauta::client::TcpForm;
use bauta::error::{CertificateFault, Refusal, TlsFault};
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;

use crate::host::Behaviour;
use crate::net::{NodeId, UdpCut};
use crate::node::{STRANGER, Settings, hop_on};
use crate::sim::{Sim, ms, payload, secs};

const TARGET: &str = "target.test:80";

/// A relay, and a client that reaches it on one carrier.
fn direct(
    seed: u64,
    carrier: Carrier,
    at_relay: impl FnOnce(&mut Settings),
) -> (Sim, NodeId, NodeId) {
    let mut sim = Sim::new(seed);
    let relay = sim.relay_with("egress.test", &[], at_relay);
    let client = sim.client_with_hops(vec![hop_on("egress.test", &[carrier])], |_| {});
    sim.tcp_host("target.test", 80, Behaviour::Echo);
    (sim, client, relay)
}

fn open_many(sim: &mut Sim, client: NodeId, count: usize) -> Vec<TunnelId> {
    let open = |_| sim.open_tcp(client, TARGET, None);
    (0..count).map(open).collect()
}

fn count_open(sim: &Sim, client: NodeId, tunnels: &[TunnelId]) -> usize {
    let is_open = |tunnel: &&TunnelId| sim.tunnel(client, **tunnel).is_open();
    tunnels.iter().filter(is_open).count()
}

#[track_caller]
fn assert_echoes(sim: &mut Sim, client: NodeId, tunnel: TunnelId) {
    let before = sim.tunnel(client, tunnel).received.len();
    let data = payload(9, 500);
    sim.write(client, tunnel, data.clone(), false);
    let came = sim.run_until(secs(5), |sim| {
        sim.tunnel(client, tunnel).received.len() == before + data.len()
    });
    assert!(came, "no echo");
    assert_eq!(sim.tunnel(client, tunnel).received[before..], data);
}

#[test]
fn connections_of_http2_are_shared_up_to_the_limit_of_streams() {
    let (mut sim, client, relay) = direct(501, Carrier::H2, |settings| {
        settings.checked.limits.tunnels_per_connection = 10;
    });
    let first = open_many(&mut sim, client, 10);
    sim.run_for(secs(1));
    assert_eq!(count_open(&sim, client, &first), 10);
    assert_eq!(sim.tcp_connections(relay), 1);
    let more = open_many(&mut sim, client, 5);
    sim.run_for(secs(1));
    assert_eq!(count_open(&sim, client, &more), 5);
    assert_eq!(sim.tcp_connections(relay), 2);
}

#[test]
fn a_connection_of_http11_carries_one_tunnel_and_is_not_used_again() {
    let (mut sim, client, relay) = direct(502, Carrier::H1, |_| {});
    let tunnels = open_many(&mut sim, client, 30);
    sim.run_for(secs(2));
    assert_eq!(count_open(&sim, client, &tunnels), 30);
    assert_eq!(sim.tcp_connections(relay), 30);
    for tunnel in &tunnels {
        sim.reset(client, *tunnel);
    }
    sim.run_for(secs(10));
    assert_eq!(
        [client, relay].map(|node| sim.tcp_connections(node)),
        [0, 0]
    );
    let again = sim.open_tcp_now(client, TARGET, None);
    assert_echoes(&mut sim, client, again);
    assert_eq!(sim.net.log(client).connected_tcp.len(), 31);
}

#[test]
fn a_pooled_connection_that_carries_nothing_is_closed() {
    for carrier in [Carrier::H2, Carrier::H1] {
        let (mut sim, client, relay) = direct(503, carrier, |_| {});
        let tunnel = sim.open_tcp_now(client, TARGET, None);
        sim.reset(client, tunnel);
        sim.run_for(secs(90));
        let left = [client, relay].map(|node| sim.tcp_connections(node));
        assert_eq!(left, [0, 0], "{carrier:?}");
    }
}

/// A relay that drains: its tunnels go on, new ones go to the relay that has its place.
#[test]
fn tunnels_move_away_from_a_relay_that_drains() {
    for carrier in [Carrier::H2, Carrier::H1] {
        let (mut sim, client, old) = direct(504, carrier, |_| {});
        let stays = sim.open_tcp_now(client, TARGET, None);
        let new = sim.relay("egress.test", &[]);
        sim.drain(old);
        sim.run_for(ms(500));
        let moved = sim.open_tcp_now(client, TARGET, None);
        assert_echoes(&mut sim, client, stays);
        assert_echoes(&mut sim, client, moved);
        let opened = [old, new].map(|relay| sim.stats(relay).tunnels_opened);
        assert_eq!(opened, [1, 1], "{carrier:?}");
        sim.reset(client, stays);
        sim.run_for(secs(5));
        assert!(sim.node(old).machine.is_finished(), "{carrier:?}");
        assert_echoes(&mut sim, client, moved);
    }
}

// RFC 8305 section 5.
#[test]
fn addresses_race_on_tcp_too() {
    for carrier in [Carrier::H2, Carrier::H1] {
        let (mut sim, client, relay) = direct(505, carrier, |_| {});
        let gone = "192.0.2.250".parse().unwrap();
        sim.net
            .set_name("egress.test", Ok(vec![gone, sim.net.ip(relay)]));
        let began = sim.net.now;
        let tunnel = sim.open_tcp_now(client, TARGET, None);
        let took = sim.tunnel(client, tunnel).opened.unwrap() - began;
        assert!(took > ms(250) && took < ms(500), "{carrier:?}: {took:?}");
        sim.run_for(secs(30));
        assert_eq!(sim.tcp_connections(client), 1, "the loser is closed");
    }
}

#[test]
fn faults_of_tls_are_told_apart_on_every_carrier() {
    for carrier in Carrier::ALL {
        let (mut sim, client, _) = direct(506, carrier, |settings| settings.identity = &STRANGER);
        let tunnel = sim.open_tcp(client, TARGET, None);
        sim.run_for(secs(2));
        let (refusal, _) = sim.tunnel(client, tunnel).refused.as_ref().unwrap();
        let fault = TlsFault::Certificate(CertificateFault::UnknownIssuer);
        assert_eq!(*refusal, Refusal::NextHopTls { fault }, "{carrier:?}");
    }
    // The relay speaks no HTTP/2, and says so in an alert (RFC 7301 section 3.2).
    let (mut sim, client, _) = direct(507, Carrier::H2, |settings| {
        settings.serves = vec![Carrier::H1];
    });
    let tunnel = sim.open_tcp(client, TARGET, None);
    sim.run_for(secs(2));
    let (refusal, _) = sim.tunnel(client, tunnel).refused.as_ref().unwrap();
    let fault = TlsFault::Alert { id: 120 };
    assert_eq!(*refusal, Refusal::NextHopTls { fault });
}

/// Ingress and egress, the ingress free to choose, and a client on one carrier.
fn chain(seed: u64, carrier: Carrier) -> (Sim, [NodeId; 3]) {
    let mut sim = Sim::new(seed);
    let egress = sim.relay("egress.test", &[]);
    let next = vec![hop_on("egress.test", &Carrier::ALL)];
    let ingress = sim.relay_with_hops("ingress.test", next, |_| {});
    let client = sim.client_with_hops(vec![hop_on("ingress.test", &[carrier])], |_| {});
    sim.tcp_host("target.test", 80, Behaviour::Echo);
    (sim, [client, ingress, egress])
}

#[test]
fn an_ingress_prefers_http3_and_falls_back() {
    for carrier in Carrier::ALL {
        let (mut sim, [client, ingress, egress]) = chain(508, carrier);
        let tunnel = sim.open_tcp_now(client, TARGET, None);
        assert_echoes(&mut sim, client, tunnel);
        assert!(sim.net.log(ingress).connected_tcp.is_empty(), "{carrier:?}");

        let (mut sim, [client, ingress, egress2]) = chain(508, carrier);
        assert_eq!(egress, egress2);
        sim.net
            .cut_udp(ingress, egress, Some(UdpCut::AfterPackets(0)));
        let tunnel = sim.open_tcp_now(client, TARGET, None);
        assert_echoes(&mut sim, client, tunnel);
        assert_eq!(sim.net.log(ingress).connected_tcp.len(), 1, "{carrier:?}");
    }
}

#[test]
fn what_refusals_say_crosses_carriers() {
    for carrier in Carrier::ALL {
        let (mut sim, [client, ingress, egress]) = chain(509, carrier);
        sim.net
            .cut_udp(ingress, egress, Some(UdpCut::AfterPackets(0)));
        for form in [TcpForm::Classic, TcpForm::Raw, TcpForm::Capsules] {
            let tunnel = sim.open_tcp(client, "target.test:81", Some(form));
            sim.run_for(secs(3));
            let local = sim.tunnel(client, tunnel);
            assert_eq!(local.status(), Some(502), "{form:?} on {carrier:?}");
            let (_, response) = local.refused.as_ref().unwrap();
            let fields = response.as_ref().unwrap().headers.get_all("proxy-status");
            let members: Vec<_> = fields.iter().filter_map(|v| v.to_str().ok()).collect();
            let members = members.join(", ");
            // The one that knows first, the one next to us last (RFC 9209 section 2).
            let egress = members.find("egress.test").expect("a member of the egress");
            let ingress = members
                .find("ingress.test")
                .expect("a member of the ingress");
            assert!(egress < ingress, "{members}");
            assert!(members.contains("connection_refused"), "{members}");
        }
    }
}

#[test]
fn a_chain_that_bites_its_tail_is_refused_on_every_carrier() {
    for carrier in Carrier::ALL {
        let mut sim = Sim::new(510);
        let next = vec![hop_on("loop.test", &[carrier])];
        sim.relay_with_hops("loop.test", next, |_| {});
        let client = sim.client_with_hops(vec![hop_on("loop.test", &[carrier])], |_| {});
        for form in [TcpForm::Classic, TcpForm::Raw, TcpForm::Capsules] {
            let tunnel = sim.open_tcp(client, TARGET, Some(form));
            sim.run_for(secs(2));
            let local = sim.tunnel(client, tunnel);
            assert_eq!(local.status(), Some(508), "{form:?} on {carrier:?}");
        }
        let tunnel = sim.open(client, "target.test:7");
        sim.run_for(secs(2));
        assert_eq!(
            sim.tunnel(client, tunnel).status(),
            Some(508),
            "{carrier:?}"
        );
    }
}

/// An outage that sixteen dials feel at once is one failure: the next dial comes a quarter of a second later.
#[test]
fn many_dials_that_fail_together_are_one_failure() {
    let mut sim = Sim::new(511);
    sim.relay_with("egress.test", &[], |settings| {
        settings.serves = vec![Carrier::H3];
    });
    let client = sim.client_with_hops(vec![hop_on("egress.test", &[Carrier::H1])], |_| {});
    sim.tcp_host("target.test", 80, Behaviour::Echo);
    let tunnels = open_many(&mut sim, client, 16);
    sim.run_for(ms(200));
    for tunnel in &tunnels {
        let (refusal, _) = sim.tunnel(client, *tunnel).refused.as_ref().unwrap();
        assert_eq!(*refusal, Refusal::ConnectionRefused);
    }
    sim.relay("egress.test", &[]);
    sim.run_for(ms(300));
    sim.open_tcp_now(client, TARGET, None);
}
