//! Datagrams through one hop, a chain and nested hops; how a tunnel opens, fails to open, and ends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bauta::error::Refusal;
use bauta::policy::resolve::ResolveError;
use bauta::tunnel::TunnelId;

use crate::net::NodeId;
use crate::node::is_client;
use crate::sim::{Sim, assert_same, ms, numbers, payload, secs};

/// A way from a client to a target, in the order of travel; the relays that a test looks at come along.
struct Route {
    sim: Sim,
    client: NodeId,
    relays: Vec<NodeId>,
    target: NodeId,
}

impl Route {
    fn one_hop(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let relays = vec![sim.relay("egress.test", &[])];
        Self::to_target(sim, &["egress.test"], relays)
    }

    fn chain(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let egress = sim.relay("egress.test", &[]);
        let ingress = sim.relay("ingress.test", &["egress.test"]);
        Self::to_target(sim, &["ingress.test"], vec![ingress, egress])
    }

    fn nested(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let relays = vec![
            sim.relay("ingress.test", &[]),
            sim.relay("egress.test", &[]),
        ];
        Self::to_target(sim, &["ingress.test", "egress.test"], relays)
    }

    fn nested_twice(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let route = ["ingress.test", "middle.test", "egress.test"];
        let relays = route.iter().map(|name| sim.relay(name, &[])).collect();
        Self::to_target(sim, &route, relays)
    }

    /// The client nests into the second relay of a chain: it trusts two relays, and a third carries for them.
    fn nested_in_chain(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let middle = sim.relay("middle.test", &[]);
        let ingress = sim.relay("ingress.test", &["middle.test"]);
        let egress = sim.relay("egress.test", &[]);
        Self::to_target(
            sim,
            &["ingress.test", "egress.test"],
            vec![ingress, middle, egress],
        )
    }

    fn to_target(mut sim: Sim, hops: &[&str], relays: Vec<NodeId>) -> Self {
        let client = sim.client(hops);
        let target = sim.host("target.test", 7, true);
        Self {
            sim,
            client,
            relays,
            target,
        }
    }

    fn open(&mut self) -> TunnelId {
        self.sim.open_now(self.client, "target.test:7")
    }

    fn all() -> [(&'static str, Self); 5] {
        [
            ("one hop", Self::one_hop(11)),
            ("chain", Self::chain(12)),
            ("nested", Self::nested(13)),
            ("nested twice", Self::nested_twice(14)),
            ("nested in chain", Self::nested_in_chain(15)),
        ]
    }
}

// spec: 9298-3-e, 9298-5-b, 9298-4-a, 9298-5-i, tp-2
#[test]
fn every_size_travels_both_ways_in_order() {
    for (name, mut route) in Route::all() {
        let tunnel = route.open();
        // Every route carries the smallest packets that QUIC starts with, from the first moment on.
        let sent: Vec<_> = (0..=1200).map(|len| payload(len as u64, len)).collect();
        for some in sent.chunks(10) {
            for datagram in some {
                route.sim.send(route.client, tunnel, datagram.clone());
            }
            route.sim.run_for(ms(2));
        }
        route.sim.run_for(secs(1));
        assert_same(&route.sim.target(route.target).payloads(), &sent, name);
        assert_same(
            &route.sim.tunnel(route.client, tunnel).payloads,
            &sent,
            name,
        );
    }
}

// spec: 9298-5-e, 9298-6.1-a, tp-1, tp-4, map-56
#[test]
fn payloads_beyond_the_path_are_dropped_and_counted_and_harm_nobody() {
    let mut route = Route::one_hop(2);
    let tunnel = route.open();
    // Discovery is over: 1452 bytes of QUIC leave 1412 for a payload.
    route.sim.run_for(secs(2));
    for len in 1400..=1500 {
        route.sim.send(route.client, tunnel, payload(1, len));
    }
    route.sim.run_for(secs(1));
    let lens: Vec<_> = route
        .sim
        .target(route.target)
        .payloads()
        .iter()
        .map(|p| p.len())
        .collect();
    assert_eq!(lens, (1400..=1412).collect::<Vec<_>>());
    assert_eq!(route.sim.hub(route.client).dropped_too_large, 88);
    assert!(route.sim.tunnel(route.client, tunnel).is_open());

    // The same from the other side: what the target sends and the tunnel cannot carry.
    let relay = route.sim.target(route.target).first_peer().unwrap();
    for len in 1400..=1472 {
        route.sim.reply(route.target, relay, payload(2, len));
    }
    route.sim.run_for(secs(1));
    let lens: Vec<_> = route
        .sim
        .tunnel(route.client, tunnel)
        .payloads
        .iter()
        .map(bytes::Bytes::len)
        .collect();
    assert_eq!(lens, (1400..=1412).chain(1400..=1412).collect::<Vec<_>>());
    assert_eq!(route.sim.hub(route.relays[0]).dropped_too_large, 60);
}

// spec: 9298-3-e, 9298-3.1-a
#[test]
fn thousands_of_datagrams_are_counted_alike_everywhere() {
    for (name, mut route) in Route::all() {
        let tunnel = route.open();
        let (sim, client) = (&mut route.sim, route.client);
        let count = 4000;
        for number in 0..count {
            sim.send(
                client,
                tunnel,
                payload(number, 8 + (number * 37 % 1193) as usize),
            );
            // Three megabytes per second: the windows of nested connections need a moment to grow.
            if number % 10 == 9 {
                sim.run_for(ms(2));
            }
        }
        sim.run_for(secs(1));
        let expected: Vec<_> = (0..count).collect();
        assert_same(
            &numbers(&sim.target(route.target).payloads()),
            &expected,
            name,
        );
        assert_same(
            &numbers(&sim.tunnel(client, tunnel).payloads),
            &expected,
            name,
        );
        let egress = *route.relays.last().unwrap();
        let stats = sim.stats(egress);
        assert_eq!(
            (stats.upstream_datagrams, stats.downstream_datagrams),
            (count, count),
            "{name}"
        );
        assert_eq!(stats.upstream_bytes, stats.downstream_bytes, "{name}");
        for &node in route.relays.iter().chain([&client]) {
            let hub = sim.hub(node);
            // Not `dropped_too_large`: the probes of an egress behind another relay end there.
            let drops = [
                hub.dropped_queue_full,
                hub.dropped_unroutable,
                hub.dropped_closed,
                sim.stats(node).dropped_context,
                sim.stats(node).dropped_early,
            ];
            assert_eq!(drops, [0; 5], "{name} {node:?}");
        }
    }
}

fn ips<const N: usize>(sim: &Sim, nodes: [NodeId; N]) -> BTreeSet<IpAddr> {
    nodes.into_iter().map(|node| sim.net.ip(node)).collect()
}

#[test]
fn in_a_chain_the_ingress_connects_to_nobody_but_the_egress() {
    let mut route = Route::chain(3);
    route.open();
    let sim = &route.sim;
    let (ingress, egress) = (route.relays[0], route.relays[1]);
    assert_eq!(sim.net.log(ingress).resolved, ["egress.test"]);
    assert_eq!(sim.net.log(ingress).connected, []);
    assert_eq!(sim.net.log(ingress).peers, ips(sim, [route.client, egress]));
    assert_eq!(sim.net.log(egress).resolved, ["target.test"]);
    assert_eq!(
        sim.net.log(egress).connected,
        [sim.target(route.target).address]
    );
}

#[test]
fn nested_hops_know_only_their_neighbours() {
    let mut route = Route::nested(4);
    let tunnel = route.open();
    let (client, target) = (route.client, route.target);
    let (ingress, egress) = (route.relays[0], route.relays[1]);
    for number in 0..100 {
        route.sim.send(client, tunnel, payload(number, 1200));
        route.sim.run_for(ms(1));
    }
    route.sim.run_for(secs(1));
    let sim = &route.sim;
    assert_eq!(sim.tunnel(client, tunnel).payloads.len(), 100);

    // The ingress was asked for the egress, and for nothing else.
    assert_eq!(sim.net.log(ingress).resolved, ["egress.test"]);
    assert_eq!(sim.net.log(ingress).connected, [sim.address(egress)]);
    assert_eq!(sim.net.log(ingress).peers, ips(sim, [client, egress]));
    // The egress was asked for the target, by the ingress.
    assert_eq!(sim.net.log(egress).resolved, ["target.test"]);
    assert_eq!(sim.net.log(egress).connected, [sim.target(target).address]);
    assert_eq!(sim.net.log(egress).peers, ips(sim, [ingress, target]));
    assert!(!sim.net.log(egress).peers.iter().any(|ip| is_client(*ip)));
    assert_eq!(sim.net.log(target).peers, ips(sim, [egress]));
    // The client itself looked up nothing but the ingress.
    assert_eq!(sim.net.log(client).resolved, ["ingress.test"]);
    assert_eq!(sim.net.log(client).peers, ips(sim, [ingress]));
    assert_eq!(sim.connections(client), 2);
}

#[test]
fn tunnels_share_the_connections_of_every_hop() {
    let mut route = Route::nested(5);
    let first = route.open();
    let second = route.open();
    for tunnel in [first, second] {
        route.sim.send(route.client, tunnel, payload(1, 100));
    }
    route.sim.run_for(secs(1));
    for tunnel in [first, second] {
        assert_eq!(route.sim.tunnel(route.client, tunnel).payloads.len(), 1);
    }
    assert_eq!(route.sim.connections(route.client), 2);
    let opened = route
        .relays
        .iter()
        .map(|&relay| route.sim.stats(relay).tunnels_opened);
    assert_eq!(opened.collect::<Vec<_>>(), [1, 2]);
}

// spec: 9298-3.1-j, 9298-3.1-t, 9298-3.1-s, 9297-2.1-e
#[test]
fn closing_ends_the_tunnel_everywhere_and_nothing_else() {
    for (name, mut route) in Route::all() {
        let (closing, staying) = (route.open(), route.open());
        route.sim.send(route.client, closing, payload(1, 50));
        route.sim.run_for(ms(500));
        let socket = route.sim.target(route.target).first_peer().unwrap();
        route.sim.close(route.client, closing);
        route.sim.run_for(ms(500));
        let egress = *route.relays.last().unwrap();
        assert_eq!(route.sim.node(egress).machine.tunnel_count(), 1, "{name}");

        // The socket is gone: what the target still sends reaches nobody.
        let nobody = route.sim.net.stats.nobody;
        route.sim.reply(route.target, socket, payload(2, 50));
        route.sim.send(route.client, staying, payload(3, 50));
        route.sim.run_for(ms(500));
        assert_eq!(route.sim.net.stats.nobody, nobody + 1, "{name}");
        assert!(
            route.sim.tunnel(route.client, closing).closed.is_some(),
            "{name}"
        );
        assert_eq!(
            route.sim.tunnel(route.client, closing).payloads.len(),
            1,
            "{name}"
        );
        assert_eq!(
            route.sim.tunnel(route.client, staying).payloads,
            [payload(3, 50)],
            "{name}"
        );
    }
}

// spec: 9298-3.1-t
#[test]
fn what_was_sent_before_the_end_arrives() {
    for (name, mut route) in Route::all() {
        let tunnel = route.open();
        let sent: Vec<_> = (0..8).map(|number| payload(number, 1000)).collect();
        for datagram in &sent {
            route.sim.send(route.client, tunnel, datagram.clone());
        }
        route.sim.close(route.client, tunnel);
        route.sim.run_for(secs(1));
        assert_same(&route.sim.target(route.target).payloads(), &sent, name);
    }
}

// spec: 9298-3.1-g, 9298-3.1-i
#[test]
fn nobody_but_the_target_gets_into_a_tunnel() {
    let mut route = Route::one_hop(6);
    let tunnel = route.open();
    route.sim.send(route.client, tunnel, payload(1, 50));
    route.sim.run_for(ms(500));
    let target = route.sim.target(route.target);
    let (socket, address) = (target.first_peer().unwrap(), target.address);
    let other_port = SocketAddr::new(address.ip(), address.port() + 1);
    let other_host = SocketAddr::new("203.0.113.99".parse().unwrap(), address.port());
    for from in [other_port, other_host] {
        route.sim.net.inject(from, socket, payload(2, 50));
    }
    route.sim.run_for(ms(500));
    assert_eq!(
        route.sim.tunnel(route.client, tunnel).payloads,
        [payload(1, 50)]
    );
}

// spec: 9298-3.1-k, 9298-3.1-r, 9298-3.1-s, map-42
#[test]
fn an_unreachable_target_ends_the_tunnel() {
    for (name, mut route) in Route::all() {
        let address = route.sim.target(route.target).address;
        let closed_port = SocketAddr::new(address.ip(), 9);
        route.sim.net.refuse(closed_port);
        let staying = route.open();
        let tunnel = route.sim.open_now(route.client, &closed_port.to_string());
        route.sim.send(route.client, tunnel, payload(1, 50));
        route.sim.run_for(secs(1));
        assert!(
            route.sim.tunnel(route.client, tunnel).closed.is_some(),
            "{name}"
        );
        assert!(route.sim.tunnel(route.client, staying).is_open(), "{name}");
        let egress = *route.relays.last().unwrap();
        assert_eq!(route.sim.stats(egress).target_errors, 1, "{name}");
        assert_eq!(route.sim.node(egress).machine.tunnel_count(), 1, "{name}");
    }
}

// spec: 9298-3.1-c, 9298-3.1-d, 9298-3.1-o, map-2, map-12, map-13, map-14, map-15, map-28
#[test]
fn every_failure_to_open_is_told_to_the_client() {
    for (name, mut route) in Route::all() {
        let sim = &mut route.sim;
        sim.net
            .set_name("servfail.test", Err(ResolveError::ServFail));
        sim.net.set_name("slow.test", Err(ResolveError::Timeout));
        sim.net.set_unroutable("203.0.113.200".parse().unwrap());
        let egress = *route.relays.last().unwrap();
        let own = sim.address(egress).to_string();
        let cases = [
            ("nowhere.test:7", 502),
            ("servfail.test:7", 502),
            ("slow.test:7", 504),
            ("203.0.113.200:7", 502),
            (&own, 508),
        ];
        for (target, status) in cases {
            let tunnel = sim.open(route.client, target);
            sim.run_for(secs(1));
            let local = sim.tunnel(route.client, tunnel);
            assert_eq!(local.status(), Some(status), "{name} {target} {local:?}");
            assert!(
                matches!(local.refused, Some((Refusal::NextHopStatus { .. }, _))),
                "{local:?}"
            );
        }
        assert_eq!(sim.stats(egress).requests_refused, 5, "{name}");
        assert_eq!(sim.node(egress).machine.tunnel_count(), 0, "{name}");
        route.open();
    }
}

/// What a failing test names is enough to see it again.
#[test]
fn a_seed_repeats_the_run() {
    let run = |seed| {
        let mut route = Route::nested(seed);
        route.sim.net.link.jitter = ms(2);
        route.sim.net.link.loss = 0.02;
        let tunnel = route.open();
        for number in 0..500 {
            route.sim.send(route.client, tunnel, payload(number, 1000));
            route.sim.run_for(ms(1));
        }
        (route.sim.net.stats, route.sim.net.digest)
    };
    let first = run(77);
    assert_eq!(first, run(77));
    assert_ne!(first, run(78));
}
