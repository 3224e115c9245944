//! Silence: which tunnels and connections it ends, and which it must not.

use bauta::http::h3::code::Code;

use crate::net::Link;
use crate::raw::Ended;
use crate::sim::{Sim, ms, payload, secs};

// spec: 9298-3.1-l, 9298-3.1-m, 9298-3.1-s, map-43
#[test]
fn an_idle_tunnel_ends_in_order() {
    let mut sim = Sim::new(111);
    let relay = sim.relay("egress.test", &[]);
    let target = sim.host("target.test", 7, true);
    let client = sim.raw_client();
    let (now, to) = (sim.net.now, sim.address(relay));
    sim.raw(client).connect(now, to, "egress.test");
    sim.run_for(ms(100));
    sim.raw(client).connections[0].open_control();
    let silent = sim.raw(client).connections[0].request("target.test:7");
    let busy = sim.raw(client).connections[0].request("target.test:7");
    sim.run_for(secs(170));
    // A datagram in either direction is a sign of life.
    sim.raw(client).connections[0].datagram(&b"\x01\0ping"[..]);
    sim.run_for(secs(9));
    assert_eq!(
        sim.raw(client).connections[0].ended(silent),
        Ended::default()
    );
    sim.run_for(secs(2));
    let ended = Ended {
        reset: None,
        stopped: Some(Code::H3_NO_ERROR),
        finished: true,
    };
    assert_eq!(sim.raw(client).connections[0].ended(silent), ended);
    assert_eq!(sim.stats(relay).tunnels_idle, 1);

    sim.run_for(secs(160));
    let socket = sim.target(target).first_peer().unwrap();
    sim.reply(target, socket, payload(1, 50));
    sim.run_for(secs(170));
    assert_eq!(sim.raw(client).connections[0].ended(busy), Ended::default());
    sim.run_for(secs(15));
    assert_eq!(sim.raw(client).connections[0].ended(busy), ended);
    assert_eq!(sim.stats(relay).tunnels_idle, 2);
    assert_eq!(sim.raw(client).connections[0].datagrams.len(), 2);
}

// spec: 9298-3.1-m, 9000-10.1.2-a, 9000-10.1-c, 9114-5.1-a
#[test]
fn a_quiet_tunnel_stays_open() {
    for route in [&["egress.test"][..], &["ingress.test", "egress.test"]] {
        let mut sim = Sim::new(112);
        let relays = [
            sim.relay_with("ingress.test", &[], |settings| {
                settings.checked.quic.idle_timeout = secs(40);
            }),
            sim.relay_with("egress.test", &[], |settings| {
                settings.checked.quic.idle_timeout = secs(40);
            }),
        ];
        let client = sim.client(route);
        sim.host("target.test", 7, true);
        let tunnel = sim.open_now(client, "target.test:7");
        // Four times the idle timeout of the connections below it.
        for round in 1..4 {
            sim.run_for(secs(170));
            sim.send(client, tunnel, payload(round, 100));
            sim.run_for(secs(1));
            assert_eq!(sim.tunnel(client, tunnel).payloads.len(), round as usize);
        }
        for relay in relays {
            assert!(sim.hub(relay).connections_opened <= 1);
        }
    }
}

#[test]
fn a_chain_of_idle_tunnels_leaves_nothing_behind() {
    let mut sim = Sim::new(113);
    let egress = sim.relay("egress.test", &[]);
    let ingress = sim.relay("ingress.test", &["egress.test"]);
    let client = sim.client(&["ingress.test"]);
    sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.run_for(secs(182));
    assert!(sim.tunnel(client, tunnel).closed.is_some());
    for node in [client, ingress, egress] {
        assert_eq!(sim.node(node).machine.tunnel_count(), 0);
    }
    // And a minute later the connections are gone, too.
    sim.run_for(secs(65));
    for node in [client, ingress, egress] {
        assert_eq!(sim.connections(node), 0);
    }
}

#[test]
fn a_connection_without_tunnels_is_kept_for_a_minute() {
    let mut sim = Sim::new(114);
    let ingress = sim.relay("ingress.test", &[]);
    let egress = sim.relay("egress.test", &[]);
    let client = sim.client(&["ingress.test", "egress.test"]);
    sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.run_for(secs(100));
    sim.close(client, tunnel);
    sim.run_for(secs(59));
    assert_eq!(sim.connections(client), 2);

    // It is used again, and the minute starts over.
    let tunnel = sim.open_now(client, "target.test:7");
    assert_eq!(
        [ingress, egress].map(|node| sim.hub(node).connections_opened),
        [1, 1]
    );
    sim.run_for(secs(30));
    sim.close(client, tunnel);
    sim.run_for(secs(59));
    assert_eq!(sim.connections(client), 2);

    // The inner connection goes first, with the tunnel that carries it; a minute later the outer one.
    sim.run_for(secs(3));
    assert_eq!(sim.connections(client), 1);
    assert_eq!(sim.node(ingress).machine.tunnel_count(), 0);
    sim.run_for(secs(60));
    assert_eq!(sim.connections(client), 0);
    sim.run_for(secs(5));
    assert_eq!([ingress, egress].map(|node| sim.connections(node)), [0, 0]);

    sim.open_now(client, "target.test:7");
    assert_eq!(
        [ingress, egress].map(|node| sim.hub(node).connections_opened),
        [2, 2]
    );
}

#[test]
fn a_handshake_that_nobody_answers_is_given_up() {
    let mut sim = Sim::new(115);
    let relay = sim.relay("egress.test", &[]);
    let client = sim.client_with(&["egress.test"], |settings| {
        settings.checked.timeouts.handshake = secs(3);
    });
    sim.host("target.test", 7, true);
    sim.net.set_link(client, relay, Link::DEAD);
    let tunnel = sim.open(client, "target.test:7");
    sim.run_for(ms(2_900));
    assert!(sim.tunnel(client, tunnel).refused.is_none());
    sim.run_for(ms(200));
    assert_eq!(
        sim.tunnel(client, tunnel).refused.as_ref().unwrap().0,
        bauta::error::Refusal::ConnectTimeout
    );
    assert_eq!(sim.hub(client).handshakes_timed_out, 1);
    sim.run_for(secs(10));
    assert_eq!(sim.connections(client), 0);
}
