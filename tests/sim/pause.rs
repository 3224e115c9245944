//! Pauses and black holes: a relay that stands still under load, a path that carries less than before.
//!
//! What is lost in a burst may look to QUIC like a path that lost its MTU. A tunnel must come back at full size: an
//! inner QUIC connection never starts with less than 1200 bytes.

use std::time::Duration;

use bauta::tunnel::TunnelId;

use crate::net::{Link, NodeId, Rng};
use crate::sim::{Sim, ms, number, numbers, payload, secs};

/// What an inner QUIC connection needs at least.
const FULL: usize = 1200;

/// How a test makes its parties: a seed, and the delay of every link.
type Make = fn(u64, Duration) -> Load;

const ROUTES: [(&str, Make); 3] = [
    ("one hop", Load::one_hop),
    ("chain", Load::chain),
    ("nested", Load::nested),
];

/// A client in the middle of its work.
struct Load {
    sim: Sim,
    client: NodeId,
    relays: Vec<NodeId>,
    target: NodeId,
    tunnel: TunnelId,
    sent: u64,
}

impl Load {
    fn start(mut sim: Sim, relays: Vec<NodeId>, route: &[&str]) -> Self {
        let client = sim.client(route);
        let target = sim.host("target.test", 7, true);
        let tunnel = sim.open_now(client, "target.test:7");
        Self {
            sim,
            client,
            relays,
            target,
            tunnel,
            sent: 0,
        }
    }

    fn one_hop(seed: u64, delay: Duration) -> Self {
        let mut sim = Sim::new(seed);
        sim.net.link.delay = delay;
        let egress = sim.relay("egress.test", &[]);
        Self::start(sim, vec![egress], &["egress.test"])
    }

    fn chain(seed: u64, delay: Duration) -> Self {
        let mut sim = Sim::new(seed);
        sim.net.link.delay = delay;
        let egress = sim.relay("egress.test", &[]);
        let ingress = sim.relay("ingress.test", &["egress.test"]);
        Self::start(sim, vec![ingress, egress], &["ingress.test"])
    }

    fn nested(seed: u64, delay: Duration) -> Self {
        let mut sim = Sim::new(seed);
        sim.net.link.delay = delay;
        let relays = vec![
            sim.relay("ingress.test", &[]),
            sim.relay("egress.test", &[]),
        ];
        Self::start(sim, relays, &["ingress.test", "egress.test"])
    }

    fn send(&mut self, len: usize) {
        self.sim
            .send(self.client, self.tunnel, payload(self.sent, len));
        self.sent += 1;
    }

    /// Full-size payloads for that long, so many per millisecond.
    fn run(&mut self, duration: Duration, rate: u64) {
        let end = self.sim.net.now + duration;
        while self.sim.net.now < end {
            (0..rate).for_each(|_| self.send(FULL));
            self.sim.run_for(ms(1));
        }
    }

    /// Payloads of many sizes for that long, one per millisecond.
    fn run_mixed(&mut self, duration: Duration, rng: &mut Rng) {
        const LENS: [usize; 8] = [30, 30, 100, 600, 1000, 1200, 1300, 1380];
        let end = self.sim.net.now + duration;
        while self.sim.net.now < end {
            self.send(LENS[rng.below(8) as usize]);
            self.sim.run_for(ms(1));
        }
    }

    fn arrived(&self) -> [usize; 2] {
        let there = self.sim.target(self.target).received.len();
        [
            there,
            self.sim.tunnel(self.client, self.tunnel).payloads.len(),
        ]
    }

    /// Waits until a hundred full-size payloads in a row arrive, there and back. They come slowly: what is looked at is
    /// their size, not how fast a congestion window grows.
    fn recover(&mut self, within: Duration) {
        let start = self.sim.net.now;
        loop {
            let asked = self.sim.net.now - start;
            let expected: Vec<_> = (self.sent..self.sent + 100).collect();
            for _ in 0..100 {
                self.send(FULL);
                self.sim.run_for(ms(5));
            }
            self.sim.run_for(ms(500));
            let there = &self.sim.target(self.target).received;
            let there: Vec<_> = last(there)
                .iter()
                .map(|(_, _, payload)| number(payload))
                .collect();
            let back = &self.sim.tunnel(self.client, self.tunnel).payloads;
            if there == expected && numbers(last(back)) == expected {
                return;
            }
            assert!(asked < within, "still not at full size after {asked:?}");
        }
    }

    fn black_holes(&self) -> u64 {
        let nodes = self.relays.iter().chain([&self.client]);
        let hubs = nodes.map(|node| self.sim.node(*node).machine.hub());
        let paths = hubs.flat_map(|hub| hub.connections().filter_map(|id| hub.path(id)));
        paths.map(|path| path.black_holes_detected).sum()
    }
}

/// The last hundred, or all.
fn last<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(100)..]
}

// spec: tp-1, 9000-14.2-a
#[test]
fn two_seconds_of_standstill_at_full_load() {
    let mut load = Load::chain(51, ms(80));
    let ingress = load.relays[0];
    load.run(ms(1500), 7);
    load.sim.net.set_receive_buffers(ingress, 1 << 20);
    load.sim.pause(ingress, secs(2));
    load.run(secs(2), 7);
    assert!(
        load.sim.net.stats.no_room > 100,
        "the standstill costs packets"
    );
    // A window that fell to its minimum needs some round trips; then everything arrives.
    load.run(ms(1500), 7);
    let before = load.arrived();
    load.run(ms(500), 7);
    let after = load.arrived();
    for way in [0, 1] {
        let share = (after[way] - before[way]) * 100 / (500 * 7);
        assert!(share > 95, "{share} % arrive");
    }
    load.recover(ms(500));
}

#[test]
fn standstills_of_any_relay() {
    for (name, make) in ROUTES {
        for relay in 0..make(0, ms(20)).relays.len() {
            for (pauses, pause, pace) in [(1, secs(2), secs(2)), (8, ms(120), ms(270))] {
                let mut load = make(52, ms(20));
                let relay = load.relays[relay];
                load.run(secs(1), 1);
                load.sim.net.set_receive_buffers(relay, 24 << 10);
                for _ in 0..pauses {
                    load.sim.pause(relay, pause);
                    load.run(pace, 1);
                }
                assert!(load.sim.net.stats.no_room > 20, "{name} {relay:?} {pauses}");
                load.recover(secs(3));
            }
        }
    }
}

/// Payloads of many sizes, of which the long ones happen to be lost: that does look like a black hole.
// spec: tp-1, 9000-14.2-a
#[test]
fn what_is_taken_for_a_black_hole_does_not_last() {
    let mut black_holes = 0;
    for (_, make) in ROUTES {
        for seed in 0..3 {
            let mut load = make(seed, ms(20));
            let mut rng = Rng::new(seed);
            let relay = load.relays[seed as usize % load.relays.len()];
            load.run(secs(1), 1);
            load.sim.net.set_receive_buffers(relay, 24 << 10);
            for _ in 0..8 {
                load.sim.pause(relay, ms(60 + rng.below(120)));
                let pace = ms(130 + rng.below(400));
                load.run_mixed(pace, &mut rng);
            }
            black_holes += load.black_holes();
            load.recover(secs(5));
        }
    }
    assert!(black_holes > 0, "otherwise nothing was tried");
}

// spec: tp-1, 9000-14.2-a, 9000-9-f, 9298-5-e
#[test]
fn a_path_that_really_shrinks_carries_what_still_fits() {
    for (name, make) in ROUTES {
        let mut load = make(53, ms(20));
        load.run(secs(1), 1);
        let ingress = load.relays[0];
        let narrow = Link {
            mtu: 1330,
            ..load.sim.net.link
        };
        load.sim.net.set_link(load.client, ingress, narrow);
        for _ in 0..400 {
            load.send(1330);
            load.send(100);
            load.sim.run_for(ms(5));
        }
        assert!(load.black_holes() > 0, "{name}");
        load.recover(secs(8));
    }
}
