//! One tunnel that floods, and others on the same connection that must not notice.

use bauta::tunnel::TunnelId;

use crate::net::NodeId;
use crate::sim::{Sim, assert_same, ms, numbers, payload, secs};

const SLOW: usize = 20;
const MILLIS: u64 = 1500;

/// A connection with a long round trip, so that its window is the bottleneck for a while.
struct Shared {
    sim: Sim,
    client: NodeId,
    relays: Vec<NodeId>,
    flooding: TunnelId,
    slow: Vec<TunnelId>,
    flooded: NodeId,
    target: NodeId,
}

impl Shared {
    fn new(seed: u64, chain: bool) -> Self {
        let mut sim = Sim::new(seed);
        sim.net.link.delay = ms(60);
        let mut relays = vec![sim.relay("egress.test", &[])];
        let mut route = "egress.test";
        if chain {
            relays.push(sim.relay("ingress.test", &["egress.test"]));
            route = "ingress.test";
        }
        let client = sim.client(&[route]);
        let flooded = sim.host("flooded.test", 9, false);
        let target = sim.host("target.test", 7, true);
        let flooding = sim.open_now(client, "flooded.test:9");
        let slow = (0..SLOW)
            .map(|_| sim.open_now(client, "target.test:7"))
            .collect();
        Self {
            sim,
            client,
            relays,
            flooding,
            slow,
            flooded,
            target,
        }
    }

    /// Each slow tunnel sends a datagram every twenty milliseconds.
    fn talk(&mut self, millis: u64) {
        let (tunnel, number) = ((millis % SLOW as u64) as usize, millis / SLOW as u64);
        self.sim
            .send(self.client, self.slow[tunnel], payload(number, 200));
        self.sim.run_for(ms(1));
    }

    /// Nothing of the slow tunnels was lost, there and back.
    fn check(mut self) {
        self.sim.run_for(secs(8));
        for &tunnel in &self.slow {
            let expected: Vec<_> = (0..MILLIS / SLOW as u64).collect();
            let back = &self.sim.tunnel(self.client, tunnel).payloads;
            assert_same(&numbers(back), &expected, "a slow tunnel");
        }
        let talked = MILLIS as usize / SLOW * SLOW;
        assert_eq!(self.sim.target(self.target).received.len(), talked);
    }

    fn displaced(&self) -> u64 {
        let nodes = self.relays.iter().chain([&self.client]);
        nodes
            .map(|node| self.sim.hub(*node).dropped_queue_full)
            .sum()
    }
}

// spec: 9221-5.3-a, 9221-5.4-a, 9221-5.4-b
#[test]
fn a_flood_towards_the_target_displaces_only_itself() {
    for (seed, chain) in [(121, false), (122, true)] {
        let mut shared = Shared::new(seed, chain);
        for millis in 0..MILLIS {
            for number in 0..12 {
                shared
                    .sim
                    .send(shared.client, shared.flooding, payload(number, 1200));
            }
            shared.talk(millis);
        }
        assert!(shared.displaced() > 1000, "{}", shared.displaced());
        let received = shared.sim.target(shared.flooded).received.len();
        assert!(received > 1000, "the flood gets what is left: {received}");
        shared.check();
    }
}

// spec: 9221-5.3-a, 9221-5.4-a, 9221-5.4-b
#[test]
fn a_flood_from_the_target_displaces_only_itself() {
    for (seed, chain) in [(123, false), (124, true)] {
        let mut shared = Shared::new(seed, chain);
        shared
            .sim
            .send(shared.client, shared.flooding, payload(0, 100));
        shared.sim.run_for(secs(1));
        let socket = shared.sim.target(shared.flooded).first_peer().unwrap();
        for millis in 0..MILLIS {
            for number in 0..12 {
                shared
                    .sim
                    .reply(shared.flooded, socket, payload(number, 1200));
            }
            shared.talk(millis);
        }
        assert!(shared.displaced() > 1000, "{}", shared.displaced());
        shared.check();
    }
}
