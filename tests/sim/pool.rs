//! Connections to next hops: dialled once, shared, given up, and what tunnels hear when there is none.

use std::time::Duration;

use bauta::error::{CertificateFault, Rcode, Refusal, TlsFault};
use bauta::policy::resolve::ResolveError;
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;

use crate::net::{Link, NodeId};
use crate::node::{STRANGER, hop_on};
use crate::sim::{Sim, ms, payload, secs};

fn open_many(sim: &mut Sim, client: NodeId, count: usize) -> Vec<TunnelId> {
    (0..count)
        .map(|_| sim.open(client, "target.test:7"))
        .collect()
}

fn count_open(sim: &Sim, client: NodeId, tunnels: &[TunnelId]) -> usize {
    tunnels
        .iter()
        .filter(|tunnel| sim.tunnel(client, **tunnel).is_open())
        .count()
}

fn refusal(sim: &Sim, client: NodeId, tunnel: TunnelId) -> Refusal {
    sim.tunnel(client, tunnel)
        .refused
        .as_ref()
        .expect("a refusal")
        .0
}

/// Client, ingress, egress and target; the client waits longer than the relays.
fn chain(seed: u64) -> (Sim, NodeId, NodeId, NodeId) {
    let mut sim = Sim::new(seed);
    let egress = sim.relay("egress.test", &[]);
    let ingress = sim.relay("ingress.test", &["egress.test"]);
    let client = sim.client_with(&["ingress.test"], |settings| {
        settings.checked.timeouts.open = secs(60);
    });
    sim.host("target.test", 7, true);
    (sim, client, ingress, egress)
}

#[test]
fn a_hundred_tunnels_dial_once() {
    let (mut sim, client, ingress, egress) = chain(71);
    let tunnels = open_many(&mut sim, client, 100);
    sim.run_for(secs(1));
    assert_eq!(count_open(&sim, client, &tunnels), 100);
    assert_eq!(
        [client, ingress, egress].map(|node| sim.connections(node)),
        [1, 2, 1]
    );
    assert_eq!(sim.net.log(client).resolved, ["ingress.test"]);
    assert_eq!(sim.net.log(ingress).resolved, ["egress.test"]);

    // Nested hops too.
    let mut sim = Sim::new(71);
    sim.relay("ingress.test", &[]);
    sim.relay("egress.test", &[]);
    sim.host("target.test", 7, true);
    let nested = sim.client(&["ingress.test", "egress.test"]);
    let tunnels = open_many(&mut sim, nested, 100);
    sim.run_for(secs(1));
    assert_eq!(count_open(&sim, nested, &tunnels), 100);
    assert_eq!(sim.connections(nested), 2);
}

// spec: 9114-6.1-a, 9000-4.6-a
#[test]
fn a_full_connection_gets_a_neighbour() {
    let mut sim = Sim::new(72);
    let egress = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.limits.tunnels_per_connection = 10;
    });
    sim.host("target.test", 7, true);
    let client = sim.client_with(&["egress.test"], |settings| {
        settings.pool.connections_per_hop_max = 3;
        settings.pool.waiting_per_hop_max = 20;
        settings.checked.timeouts.open = secs(20);
    });
    let mut tunnels = open_many(&mut sim, client, 15);
    sim.run_for(ms(200));
    assert_eq!(count_open(&sim, client, &tunnels), 15);
    assert_eq!(sim.connections(egress), 2);

    // Three connections are the limit; then tunnels wait for others to end, in order.
    tunnels.extend(open_many(&mut sim, client, 19));
    sim.run_for(ms(500));
    assert_eq!(count_open(&sim, client, &tunnels), 30);
    assert_eq!(sim.connections(egress), 3);
    // QUIC grants an eighth of the streams at a time.
    for closing in [0, 2] {
        sim.close(client, tunnels[closing]);
        sim.close(client, tunnels[closing + 1]);
        sim.run_for(ms(200));
        let next = &tunnels[30 + closing..];
        assert_eq!(count_open(&sim, client, next), 2, "{closing}");
        assert_eq!(count_open(&sim, client, &next[..2]), 2, "{closing}");
    }
    assert_eq!(sim.connections(egress), 3);
}

#[test]
fn more_than_may_wait_are_refused_at_once() {
    let (mut sim, _, _, _) = chain(73);
    let client = sim.client_with(&["ingress.test"], |settings| {
        settings.pool.waiting_per_hop_max = 5;
    });
    let tunnels = open_many(&mut sim, client, 8);
    for tunnel in &tunnels[5..] {
        sim.run_for(Duration::ZERO);
        assert_eq!(refusal(&sim, client, *tunnel), Refusal::Overloaded);
    }
    sim.run_for(secs(1));
    assert_eq!(count_open(&sim, client, &tunnels), 5);
}

// spec: 9114-5.2-a, 9114-5.2-c, 9114-5.2-f, map-51
#[test]
fn a_draining_relay_lets_tunnels_end() {
    for deadline in [false, true] {
        let mut sim = Sim::new(74);
        let egress = sim.relay("egress.test", &[]);
        let client = sim.client(&["egress.test"]);
        let target = sim.host("target.test", 7, true);
        let staying = sim.open_now(client, "target.test:7");
        let leaving = sim.open_now(client, "target.test:7");
        sim.drain(egress);
        sim.run_for(ms(100));

        // What asks now is told that this relay takes nobody.
        let late = sim.open(client, "target.test:7");
        sim.run_for(secs(1));
        assert_eq!(refusal(&sim, client, late), Refusal::ConnectionRefused);
        assert_eq!(sim.hub(egress).connections_refused_draining, 1);

        sim.close(client, leaving);
        for number in 0..100 {
            sim.send(client, staying, payload(number, 100));
            sim.run_for(ms(50));
        }
        assert_eq!(sim.target(target).received.len(), 100);
        assert!(!sim.node(egress).machine.is_finished());
        assert_eq!(sim.connections(client), 1);
        if deadline {
            // Thirty seconds since the drain began.
            sim.run_for(secs(20));
            assert!(sim.tunnel(client, staying).is_open());
            sim.run_for(secs(5));
        } else {
            sim.close(client, staying);
            sim.run_for(secs(1));
        }
        assert!(sim.tunnel(client, staying).closed.is_some());
        assert!(sim.node(egress).machine.is_finished());
        sim.run_for(secs(1));
        assert_eq!([egress, client].map(|node| sim.connections(node)), [0, 0]);
    }
}

/// Two machines behind one name, as a restart or a second instance has it.
// spec: 9114-5.2-c, 9114-5.2-g, map-50
#[test]
fn tunnels_move_to_another_address_of_a_draining_relay() {
    let mut sim = Sim::new(75);
    let old = sim.relay("egress.test", &[]);
    let new = sim.relay("egress.test", &[]);
    let addresses = [old, new].map(|node| sim.net.ip(node));
    sim.net.set_name("egress.test", Ok(addresses.to_vec()));
    let client = sim.client(&["egress.test"]);
    sim.host("target.test", 7, true);
    let first = sim.open_now(client, "target.test:7");
    assert_eq!([old, new].map(|node| sim.connections(node)), [1, 0]);
    sim.drain(old);
    sim.run_for(ms(100));
    let second = sim.open_now(client, "target.test:7");
    assert_eq!(
        [old, new].map(|node| sim.stats(node).tunnels_opened),
        [1, 1]
    );
    assert_eq!(count_open(&sim, client, &[first, second]), 2);

    // A request that crosses the last GOAWAY was not processed, and goes elsewhere as well.
    let far = sim.client(&["egress.test"]);
    let slow = Link {
        delay: ms(400),
        ..Link::default()
    };
    let newest = sim.relay("egress.test", &[]);
    let [new_ip, newest_ip] = [new, newest].map(|node| sim.net.ip(node));
    sim.net.set_name("egress.test", Ok(vec![new_ip]));
    sim.net.set_link(far, new, slow);
    let first = sim.open_now(far, "target.test:7");
    sim.net.set_name("egress.test", Ok(vec![newest_ip]));
    sim.drain(new);
    sim.run_for(ms(100));
    let crossing = sim.open_now(far, "target.test:7");
    assert_eq!(count_open(&sim, far, &[first, crossing]), 2);
    assert_eq!(sim.stats(newest).tunnels_opened, 1);
    // The stream that was rejected never was a request.
    assert_eq!(sim.stats(new).requests, 2);
}

#[test]
fn a_draining_ingress_ends_like_any_other() {
    let (mut sim, client, ingress, egress) = chain(76);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.drain(ingress);
    sim.run_for(secs(2));
    sim.send(client, tunnel, payload(1, 100));
    sim.run_for(secs(1));
    assert_eq!(sim.tunnel(client, tunnel).payloads.len(), 1);
    sim.close(client, tunnel);
    sim.run_for(secs(3));
    assert!(sim.node(ingress).machine.is_finished());
    assert_eq!(
        [client, ingress, egress].map(|node| sim.connections(node)),
        [0, 0, 0]
    );
}

// spec: map-13, map-17, map-18, map-26, map-28
#[test]
fn a_next_hop_that_cannot_be_reached_is_reported() {
    // The name has no address.
    let (mut sim, client, ingress, _) = chain(77);
    sim.net.set_name("egress.test", Err(ResolveError::NxDomain));
    let tunnels = open_many(&mut sim, client, 3);
    sim.run_for(secs(1));
    for tunnel in &tunnels {
        assert_eq!(sim.tunnel(client, *tunnel).status(), Some(502));
    }
    assert_eq!(sim.net.log(ingress).resolved.len(), 1);

    // Nobody answers; tunnels that ask meanwhile wait for the same dial.
    let (mut sim, client, ingress, egress) = chain(78);
    sim.net.set_link(ingress, egress, Link::DEAD);
    let mut tunnels = open_many(&mut sim, client, 3);
    sim.run_for(secs(5));
    tunnels.extend(open_many(&mut sim, client, 3));
    sim.run_for(ms(5_100));
    for tunnel in &tunnels {
        assert_eq!(sim.tunnel(client, *tunnel).status(), Some(504));
    }
    assert_eq!(sim.net.log(ingress).resolved.len(), 1);
    // While the hop is known to be down, the answer comes at once.
    let late = sim.open(client, "target.test:7");
    sim.run_for(ms(50));
    assert_eq!(sim.tunnel(client, late).status(), Some(503));

    // It is there, and shows a certificate that nobody signed.
    let mut sim = Sim::new(79);
    sim.relay_with("egress.test", &[], |settings| settings.identity = &STRANGER);
    sim.relay("ingress.test", &["egress.test"]);
    let client = sim.client(&["ingress.test"]);
    let tunnel = sim.open(client, "target.test:7");
    sim.run_for(secs(1));
    let (_, response) = sim.tunnel(client, tunnel).refused.as_ref().unwrap();
    let response = response.as_ref().unwrap();
    assert_eq!(response.status, 502);
    let status = response.headers["proxy-status"].to_str().unwrap();
    assert!(status.contains("tls_certificate_error"), "{status}");

    // The same without a relay in between.
    let client = sim.client(&["egress.test"]);
    let tunnel = sim.open(client, "target.test:7");
    sim.run_for(secs(1));
    let fault = TlsFault::Certificate(CertificateFault::UnknownIssuer);
    assert_eq!(refusal(&sim, client, tunnel), Refusal::NextHopTls { fault });
}

#[test]
fn a_certificate_for_other_names_is_told_apart() {
    for carrier in Carrier::ALL {
        let mut sim = Sim::new(791);
        let relay = sim.relay("egress.test", &[]);
        let address = sim.net.ip(relay);
        sim.net.set_name("elsewhere.test", Ok(vec![address]));
        let client = sim.client_with_hops(vec![hop_on("elsewhere.test", &[carrier])], |_| {});
        let tunnel = sim.open(client, "target.test:7");
        sim.run_for(secs(1));
        let fault = TlsFault::Certificate(CertificateFault::WrongName);
        let expected = Refusal::NextHopTls { fault };
        assert_eq!(refusal(&sim, client, tunnel), expected, "{carrier}");
    }
}

#[test]
fn the_second_address_is_tried_when_the_first_is_silent() {
    let (mut sim, client, ingress, egress) = chain(80);
    let gone = "192.0.2.250".parse().unwrap();
    sim.net
        .set_name("egress.test", Ok(vec![gone, sim.net.ip(egress)]));
    let began = sim.net.now;
    let tunnel = sim.open(client, "target.test:7");
    sim.run_for(secs(1));
    // The silent address costs its head start and no more (RFC 8305 §5).
    let opened = sim.tunnel(client, tunnel).opened.unwrap() - began;
    assert!(opened >= ms(250) && opened < ms(500), "{opened:?}");
    assert_eq!(sim.net.log(ingress).resolved.len(), 1);
}

/// Who asks while a hop backs off is told why, and for how long.
#[test]
fn a_pause_says_why_and_how_long() {
    let mut sim = Sim::new(811);
    sim.net.set_name("egress.test", Err(ResolveError::ServFail));
    let client = sim.client(&["egress.test"]);
    let reason = Refusal::DnsError {
        rcode: Some(Rcode::ServFail),
    };
    let first = sim.open(client, "target.test:7");
    sim.run_for(ms(50));
    assert_eq!(refusal(&sim, client, first), reason);
    assert_eq!(sim.tunnel(client, first).pause, None, "it was tried");
    let second = sim.open(client, "target.test:7");
    sim.run_for(ms(1));
    assert_eq!(refusal(&sim, client, second), reason);
    let pause = sim.tunnel(client, second).pause.expect("a pause");
    assert!(pause > ms(150) && pause <= ms(250), "{pause:?}");
}

/// Times at which a client that never gives up dials a hop that is down.
#[test]
fn failures_back_off() {
    let mut sim = Sim::new(81);
    sim.net.set_name("egress.test", Err(ResolveError::ServFail));
    let client = sim.client(&["egress.test"]);
    let (mut dials, mut known) = (Vec::new(), 0);
    for _ in 0..6_000 {
        sim.open(client, "target.test:7");
        sim.run_for(ms(10));
        let dialled = sim.net.log(client).resolved.len();
        if dialled > known {
            dials.push(sim.net.elapsed().as_millis() as u64);
            known = dialled;
        }
    }
    let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 250 ms, doubled each time, up to 10 s; the look-up itself takes ten more.
    let expected = [
        250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000,
    ];
    assert_eq!(pauses.len(), expected.len(), "{pauses:?}");
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!((expected..expected + 40).contains(pause), "{pauses:?}");
    }

    // The hop comes back.
    let egress = sim.relay("egress.test", &[]);
    sim.host("target.test", 7, true);
    sim.run_for(secs(10));
    sim.open_now(client, "target.test:7");
    assert_eq!(sim.connections(egress), 1);
}

// spec: map-14, map-29
#[test]
fn a_silent_next_hop_means_504() {
    let (mut sim, client, ingress, egress) = chain(82);
    sim.open_now(client, "target.test:7");
    // The egress never hears from its name server.
    sim.net.dns_delay = secs(100);
    let start = sim.net.now;
    let tunnel = sim.open(client, "slow.test:7");
    sim.run_until(secs(30), |sim| sim.tunnel(client, tunnel).refused.is_some());
    assert_eq!(sim.tunnel(client, tunnel).status(), Some(504));
    let took = sim.net.now - start;
    assert!((secs(10)..ms(10_100)).contains(&took), "{took:?}");
    for relay in [ingress, egress] {
        assert_eq!(sim.node(relay).machine.tunnel_count(), 1);
    }
    // The answer that comes much too late meets nobody.
    sim.run_for(secs(100));
    assert_eq!(sim.node(egress).machine.tunnel_count(), 1);

    // The egress itself falls silent.
    let tunnel = sim.open(client, "target.test:7");
    sim.pause(egress, secs(20));
    sim.run_for(ms(10_100));
    assert_eq!(sim.tunnel(client, tunnel).status(), Some(504));
}

// spec: map-23
#[test]
fn a_chain_that_bites_its_tail_is_refused() {
    let mut sim = Sim::new(83);
    let ring = [
        ("loop.test", "loop.test"),
        ("ingress.test", "other.test"),
        ("other.test", "ingress.test"),
    ];
    for (name, next) in ring {
        sim.relay(name, &[next]);
    }
    for first in ["loop.test", "ingress.test"] {
        let client = sim.client(&[first]);
        let tunnel = sim.open(client, "target.test:7");
        sim.run_for(secs(1));
        assert_eq!(sim.tunnel(client, tunnel).status(), Some(508), "{first}");
    }
}

#[test]
fn a_nested_dial_that_fails_leaves_nothing_behind() {
    // The second relay shows the wrong certificate, does not exist, or does not answer.
    for case in 0..3 {
        let mut sim = Sim::new(84);
        let ingress = sim.relay("ingress.test", &[]);
        let client = sim.client(&["ingress.test", "egress.test"]);
        sim.host("target.test", 7, true);
        let expected: &[Refusal] = match case {
            0 => {
                sim.relay_with("egress.test", &[], |settings| settings.identity = &STRANGER);
                &[Refusal::NextHopTls {
                    fault: TlsFault::Certificate(CertificateFault::UnknownIssuer),
                }]
            }
            1 => &[Refusal::NextHopStatus {
                status: http::StatusCode::BAD_GATEWAY,
            }],
            _ => {
                let egress = sim.relay("egress.test", &[]);
                sim.net.set_link(ingress, egress, Link::DEAD);
                &[Refusal::ConnectTimeout]
            }
        };
        let tunnels = open_many(&mut sim, client, 2);
        sim.run_for(secs(20));
        for tunnel in tunnels {
            assert!(expected.contains(&refusal(&sim, client, tunnel)), "{case}");
        }
        assert_eq!(sim.node(ingress).machine.tunnel_count(), 0, "{case}");
        assert_eq!(sim.node(client).machine.tunnel_count(), 0, "{case}");
        assert_eq!(sim.connections(client), 1, "{case}: the one to the ingress");
    }
}

#[test]
fn a_nested_connection_ends_with_the_one_that_carries_it() {
    let mut sim = Sim::new(85);
    let ingress = sim.relay("ingress.test", &[]);
    let egress = sim.relay("egress.test", &[]);
    let client = sim.client(&["ingress.test", "egress.test"]);
    sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.drain(ingress);
    sim.run_for(secs(31));
    assert!(sim.tunnel(client, tunnel).closed.is_some());
    assert_eq!(sim.node(client).machine.tunnel_count(), 0);
    sim.run_for(secs(2));
    assert_eq!(sim.connections(client), 0);
    // The egress was not told, and finds out by itself: the tunnel is idle, and then the connection.
    sim.run_for(secs(180 + 180));
    assert_eq!(sim.connections(egress), 0);
}

/// The relay is gone without a word, as after a crash, and a new one stands at its address.
// spec: 9000-10.1-a, 9000-10.1-b
#[test]
fn a_relay_that_was_replaced_is_dialled_again() {
    let mut sim = Sim::new(86);
    let old = sim.relay("egress.test", &[]);
    let client = sim.client(&["egress.test"]);
    sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.net.set_link(client, old, Link::DEAD);
    let new = sim.relay("egress.test", &[]);
    // The first keep-alive that goes unanswered starts the idle timeout over, the others do not.
    sim.run_for(secs(25 + 180));
    assert!(sim.tunnel(client, tunnel).closed.is_some());
    assert_eq!(sim.connections(client), 0);
    sim.open_now(client, "target.test:7");
    assert_eq!(sim.connections(new), 1);
}

// spec: tp-2, 9000-14.1-a
#[test]
fn a_small_path_is_found_out_by_the_first_handshake() {
    let mut sim = Sim::new(82);
    sim.relay("egress.test", &[]);
    let client = sim.client(&["egress.test"]);
    sim.host("target.test", 7, true);
    // Packets of QUIC's smallest size pass, and hardly more.
    sim.net.link.mtu = 1_220;
    let first = sim.open(client, "target.test:7");
    sim.run_for(secs(11));
    assert!(sim.tunnel(client, first).refused.is_some());
    sim.open_now(client, "target.test:7");
}

#[test]
fn every_relay_of_a_nested_route_learns_that_the_client_leaves() {
    let mut sim = Sim::new(83);
    let route = ["ingress.test", "middle.test", "egress.test"];
    let relays = route.map(|name| sim.relay(name, &[]));
    let client = sim.client(&route);
    sim.host("target.test", 7, true);
    sim.open_now(client, "target.test:7");
    sim.stop(client);
    sim.run_for(ms(500));
    let left = relays.map(|relay| sim.node(relay).machine.tunnel_count());
    assert_eq!(left, [0; 3]);
}

#[test]
fn an_answer_that_is_lost_does_not_close_the_way_to_a_hop() {
    let mut sim = Sim::new(104);
    sim.relay("egress.test", &[]);
    sim.host("target.test", 7, true);
    let client = sim.client(&["egress.test"]);
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
