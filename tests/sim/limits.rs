//! Limits are reached, answered and counted, and what was refused leaves room for the next.

use std::time::Duration;

use bauta::error::Refusal;
use bauta::http::h3::code::Code;
use bauta::http::h3::frame;
use bauta::tunnel::TunnelId;

use crate::net::NodeId;
use crate::node::Settings;
use crate::raw::frame_of;
use crate::sim::{Sim, ms, secs};

/// An egress with these settings, a client of it and a target.
fn egress(seed: u64, change: impl FnOnce(&mut Settings)) -> (Sim, NodeId, NodeId) {
    let mut sim = Sim::new(seed);
    let egress = sim.relay_with("egress.test", &[], change);
    sim.host("target.test", 7, true);
    let client = sim.client(&["egress.test"]);
    (sim, egress, client)
}

fn open_three(sim: &mut Sim, client: NodeId) -> [TunnelId; 3] {
    let tunnels = [(); 3].map(|()| sim.open(client, "target.test:7"));
    sim.run_for(secs(1));
    tunnels
}

/// Two of three are open and the third one was told to come later; once one has ended, the next one is welcome.
#[track_caller]
fn expect_two(sim: &mut Sim, client: NodeId, tunnels: [TunnelId; 3]) {
    let [first, second, third] = tunnels.map(|id| (id, sim.tunnel(client, id)));
    assert!(first.1.is_open() && second.1.is_open());
    assert_eq!(third.1.status(), Some(503));
    let (first, _) = first;
    sim.close(client, first);
    sim.run_for(secs(1));
    sim.open_now(client, "target.test:7");
}

#[test]
fn tunnels_are_limited() {
    let (mut sim, egress, client) = egress(101, |settings| settings.checked.limits.tunnels = 2);
    let tunnels = open_three(&mut sim, client);
    expect_two(&mut sim, client, tunnels);
    let stats = sim.stats(egress);
    assert_eq!((stats.tunnels_refused, stats.requests_refused), (1, 1));
}

#[test]
fn target_sockets_are_limited() {
    let (mut sim, egress, client) = egress(102, |settings| {
        settings.checked.limits.target_sockets = 2;
    });
    let tunnels = open_three(&mut sim, client);
    expect_two(&mut sim, client, tunnels);
    let stats = sim.stats(egress);
    assert_eq!(
        (stats.target_sockets_refused, stats.requests_refused),
        (1, 1)
    );
    assert_eq!(sim.net.log(egress).connected.len(), 3);
}

#[test]
fn lookups_are_limited() {
    let (mut sim, egress, client) = egress(103, |settings| settings.checked.limits.resolves = 2);
    // The client has to know the egress first.
    sim.open_now(client, "target.test:7");
    sim.net.dns_delay = ms(500);
    let tunnels = open_three(&mut sim, client);
    expect_two(&mut sim, client, tunnels);
    assert_eq!(sim.stats(egress).resolves_refused, 1);

    // Who leaves while the name server thinks leaves room.
    for _ in 0..5 {
        let leaving = [(); 2].map(|()| sim.open(client, "target.test:7"));
        sim.run_for(ms(100));
        leaving.map(|tunnel| sim.close(client, tunnel));
        sim.run_for(ms(100));
    }
    assert_eq!(sim.stats(egress).resolves_refused, 1);
}

#[test]
fn an_answer_that_is_lost_does_not_close_the_way_to_a_hop() {
    let (mut sim, _, client) = egress(104, |_| {});
    sim.net.dns_delay = secs(1000);
    let first = sim.open(client, "target.test:7");
    sim.run_for(secs(31));
    assert!(sim.tunnel(client, first).refused.is_some());
    sim.net.dns_delay = ms(10);
    sim.open_now(client, "target.test:7");
}

#[test]
fn who_waits_behind_a_full_connection_hears_how_the_next_dial_ends() {
    let mut sim = Sim::new(105);
    sim.relay_with("egress.test", &[], |settings| {
        settings.checked.limits.tunnels_per_connection = 1;
        settings.checked.limits.connections = 1;
    });
    sim.host("target.test", 7, true);
    let client = sim.client(&["egress.test"]);
    let open = sim.open_now(client, "target.test:7");
    let refused = sim.open(client, "target.test:7");
    sim.run_for(ms(100));
    let waiting = sim.open(client, "target.test:7");
    sim.run_for(secs(1));
    for tunnel in [refused, waiting] {
        let (refusal, _) = sim.tunnel(client, tunnel).refused.as_ref().unwrap();
        assert_eq!(*refusal, Refusal::ConnectionRefused);
    }
    assert!(sim.tunnel(client, open).is_open());
}

#[test]
fn a_drain_does_not_wait_for_tunnels_that_carry_nothing_but_our_own() {
    let mut sim = Sim::new(106);
    sim.relay("egress.test", &[]);
    sim.relay("middle.test", &[]);
    // A relay that nests: its clients' tunnels travel inside a tunnel of its own.
    let ingress = sim.relay("ingress.test", &["middle.test", "egress.test"]);
    sim.host("target.test", 7, true);
    let client = sim.client(&["ingress.test"]);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.close(client, tunnel);
    sim.run_for(secs(1));
    assert_eq!(sim.node(ingress).machine.tunnel_count(), 1, "the carrier");
    sim.drain(ingress);
    sim.run_for(secs(2));
    assert!(sim.node(ingress).machine.is_finished());
}

// spec: 9114-4.2.2-b
#[test]
fn a_client_that_accepts_no_answer_gets_no_tunnel() {
    let mut sim = Sim::new(107);
    let egress = sim.relay("egress.test", &[]);
    sim.host("target.test", 7, true);
    let hostile = sim.raw_client();
    let (now, to) = (sim.net.now, sim.address(egress));
    let index = sim.raw(hostile).connect(now, to, "egress.test");
    sim.run_for(ms(100));
    let connection = &mut sim.raw(hostile).connections[index];
    // A control stream: MAX_FIELD_SECTION_SIZE 1, H3_DATAGRAM 1.
    let settings = frame_of(frame::SETTINGS, &[0x06, 0x01, 0x33, 0x01]);
    connection.open_uni(&[&[0x00], &settings[..]].concat());
    let stream = connection.request("target.test:7");
    sim.run_for(Duration::from_secs(1));
    let connection = &sim.raw(hostile).connections[index];
    assert_eq!(connection.status(stream), None);
    let reset = connection.ended(stream).reset;
    assert_eq!(reset, Some(Code::H3_REQUEST_CANCELLED));
    assert_eq!(sim.node(egress).machine.tunnel_count(), 0);
}
