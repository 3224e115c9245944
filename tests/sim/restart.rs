//! A relay that is killed and started again: whoever had a connection is told by a stateless reset.
//!
//! ```text
//!   client ── a packet of the old connection ──► relay, which knows nothing of it
//!   client ◄── the token that the old one announced ──
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use bauta::tunnel::TunnelId;

use crate::net::NodeId;
use crate::sim::{Sim, ms, payload, secs};

/// How long the relay is gone: the clients try for a while, and nobody gives up yet.
const GONE_FOR: Duration = secs(5);

/// Kills a relay and starts it again.
fn restart(sim: &mut Sim, relay: &[NodeId]) {
    sim.kill(relay);
    sim.run_for(GONE_FOR);
    sim.start_again(relay, "egress.test", |_| {});
}

/// How long a tunnel goes on for somebody who sends all the time, if it does not go on for ever.
fn goes_on_for(sim: &mut Sim, client: NodeId, tunnel: TunnelId) -> Option<Duration> {
    let start = sim.net.now;
    for number in 0..1_000 {
        sim.send(client, tunnel, payload(number, 100));
        if sim.run_until(ms(20), |sim| !sim.tunnel(client, tunnel).is_open()) {
            return Some(sim.net.now - start);
        }
    }
    None
}

/// Whoever speaks is told at once, directly, through an ingress, and in a tunnel, and is back at once.
// spec: 9000-10.3-a, 9000-10.3-d
#[test]
fn clients_are_back_at_once() {
    for route in [
        &["egress.test"][..],
        &["ingress.test"],
        &["other.test", "egress.test"],
    ] {
        let mut sim = Sim::new(141);
        let egress = sim.relay("egress.test", &[]);
        sim.relay("ingress.test", &["egress.test"]);
        sim.relay("other.test", &[]);
        let target = sim.host("target.test", 7, true);
        let client = sim.client(route);
        let tunnel = sim.open_now(client, "target.test:7");
        restart(&mut sim, &[egress]);
        assert!(sim.tunnel(client, tunnel).is_open(), "{route:?}");

        let start = sim.net.now;
        let told = goes_on_for(&mut sim, client, tunnel);
        assert!(
            told.is_some_and(|told| told < ms(500)),
            "{route:?}: {told:?}"
        );
        let again = sim.open_now(client, "target.test:7");
        sim.send(client, again, payload(1, 100));
        let is_answered = |sim: &Sim| !sim.tunnel(client, again).payloads.is_empty();
        assert!(sim.run_until(secs(1), is_answered), "{route:?}");
        let took = sim.net.now - start;
        assert!(took < secs(2), "{route:?}: {took:?}");
        assert_eq!(sim.target(target).received.len(), 1);
        assert!(sim.hub(egress).resets_sent >= 1, "{route:?}");
    }
}

/// Whoever has nothing to say is told when it makes sure that the relay is there.
// spec: 9000-10.3-d
#[test]
fn silent_clients_are_told_by_their_keep_alive() {
    let mut sim = Sim::new(142);
    let egress = sim.relay("egress.test", &[]);
    let client = sim.client(&["egress.test"]);
    sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    sim.run_for(secs(10));
    restart(&mut sim, &[egress]);
    let start = sim.net.now;
    sim.run_until(secs(180), |sim| !sim.tunnel(client, tunnel).is_open());
    let took = sim.net.now - start;
    assert!(took < secs(26), "{took:?}");
    assert_eq!(sim.hub(client).connections_reset, 1);
}

/// The packets of a client reach any worker, and the one that may answer for their connection does, though the new
/// process tells connections apart in another way and has fewer workers.
// spec: 9000-10.3-d, 9000-21.11-a
#[test]
fn one_of_the_workers_answers() {
    let mut sim = Sim::new(143);
    let workers = sim.workers("egress.test", 4);
    sim.host("target.test", 7, true);
    let clients: Vec<_> = (0..12).map(|_| sim.client(&["egress.test"])).collect();
    let opened = clients
        .iter()
        .map(|&client| sim.open_now(client, "target.test:7"));
    let tunnels: Vec<_> = opened.collect();
    sim.kill(&workers);
    sim.run_for(GONE_FOR);
    let left = &workers[..3];
    sim.start_again(left, "egress.test", |_| {});
    for (&client, &tunnel) in clients.iter().zip(&tunnels) {
        let told = goes_on_for(&mut sim, client, tunnel);
        assert!(told.is_some_and(|told| told < ms(500)), "{told:?}");
    }
    let resets: Vec<_> = left
        .iter()
        .map(|&worker| sim.hub(worker).resets_sent)
        .collect();
    assert!(resets.iter().all(|resets| *resets > 0), "{resets:?}");
}

/// A relay with the same certificate has no say in it, though for a while it gets the packets of the connection and its
/// answers look like those of their true receiver.
// spec: 9000-21.11-a
#[test]
fn nobody_else_resets_a_connection() {
    let mut sim = Sim::new(144);
    let egress = sim.relay("egress.test", &[]);
    let other = sim.relay("other.test", &[]);
    let client = sim.client(&["egress.test"]);
    let target = sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    let address = sim.address(egress);
    let [wrong, right] = [other, egress].map(|node| sim.node(node).listener.expect("a relay"));
    sim.net.rebind(wrong, address);
    for number in 0..20 {
        sim.send(client, tunnel, payload(number, 100));
        sim.run_for(ms(20));
    }
    assert!(sim.hub(other).resets_sent >= 1);
    sim.net.rebind(right, address);
    sim.send(client, tunnel, payload(20, 100));
    sim.run_for(secs(2));
    assert!(sim.tunnel(client, tunnel).is_open());
    assert!(!sim.target(target).received.is_empty());
}

/// A flood of packets that are nobody's is answered at a bounded rate.
// spec: 9000-10.3-d
#[test]
fn resets_come_at_a_bounded_rate() {
    let mut sim = Sim::new(145);
    let relay = sim.relay("egress.test", &[]);
    let to = sim.address(relay);
    for number in 0..1_000u32 {
        let from = SocketAddr::from(([198, 51, 100, 200], 1_000 + number as u16));
        sim.net.inject(from, to, vec![0x40; 60]);
        sim.run_for(Duration::from_micros(50));
    }
    sim.run_for(secs(1));
    let stats = sim.hub(relay);
    // One in a millisecond, and the fifty milliseconds are not full ones.
    assert!(
        (40..=51).contains(&stats.resets_sent),
        "{}",
        stats.resets_sent
    );
    assert_eq!(stats.resets_sent + stats.packets_ignored, 1_000);
}

/// Somebody makes two relays reset each other: each reset is smaller than the one before.
// spec: 9000-10.3-b
#[test]
fn relays_do_not_reset_each_other_for_ever() {
    let mut sim = Sim::new(146);
    let relays = ["egress.test", "other.test"].map(|name| sim.relay(name, &[]));
    let [one, other] = relays.map(|relay| sim.address(relay));
    sim.net.inject(one, other, vec![0x40; 1_400]);
    sim.run_for(secs(10));
    let sent = relays.map(|relay| sim.hub(relay).resets_sent);
    assert!(sent.iter().all(|sent| (1..50).contains(sent)), "{sent:?}");
    let before = sim.net.stats;
    sim.run_for(secs(60));
    assert_eq!(sim.net.stats, before);
}
