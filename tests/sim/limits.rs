//! Limits of a machine that no other topic reaches: each refuses with a counter of its own, and a tunnel that ends
//! gives its place back.

use std::time::Duration;

use bauta::config::Limits;
use bauta::tunnel::TunnelId;

use crate::net::NodeId;
use crate::sim::Sim;

struct Limited {
    sim: Sim,
    egress: NodeId,
    client: NodeId,
}

impl Limited {
    fn new(seed: u64, limit: impl FnOnce(&mut Limits)) -> Self {
        let mut sim = Sim::new(seed);
        let egress = sim.relay_with("egress.test", &[], |settings| {
            limit(&mut settings.checked.limits);
        });
        let client = sim.client(&["egress.test"]);
        sim.host("target.test", 7, true);
        Self {
            sim,
            egress,
            client,
        }
    }

    fn open(&mut self, target: &str) -> TunnelId {
        let tunnel = self.sim.open(self.client, target);
        self.sim.run_for(Duration::from_secs(1));
        tunnel
    }

    fn status(&self, tunnel: TunnelId) -> Option<u16> {
        self.sim.tunnel(self.client, tunnel).status()
    }

    fn is_open(&self, tunnel: TunnelId) -> bool {
        self.sim.tunnel(self.client, tunnel).is_open()
    }

    fn close(&mut self, tunnel: TunnelId) {
        self.sim.close(self.client, tunnel);
        self.sim.run_for(Duration::from_secs(1));
    }
}

// spec: map-20
#[test]
fn tunnels() {
    let mut net = Limited::new(90, |limits| limits.tunnels = 2);
    let first = net.open("target.test:7");
    let second = net.open("target.test:7");
    let third = net.open("target.test:7");
    assert!(net.is_open(first) && net.is_open(second));
    assert_eq!(net.status(third), Some(503));
    assert_eq!(net.sim.stats(net.egress).tunnels_refused, 1);
    net.close(first);
    let fourth = net.open("target.test:7");
    assert!(net.is_open(fourth));
}

// spec: map-20
#[test]
fn target_sockets() {
    let mut net = Limited::new(91, |limits| limits.target_sockets = 1);
    let first = net.open("target.test:7");
    let second = net.open("target.test:7");
    assert!(net.is_open(first));
    assert_eq!(net.status(second), Some(503));
    assert_eq!(net.sim.stats(net.egress).target_sockets_refused, 1);
    net.close(first);
    let third = net.open("target.test:7");
    assert!(net.is_open(third));
}

// spec: map-20
#[test]
fn names_being_resolved() {
    let mut net = Limited::new(92, |limits| limits.resolves = 1);
    // The client knows its relay already when names become slow.
    net.open("target.test:7");
    net.sim.net.dns_delay = Duration::from_secs(3_600);
    let waits = net.open("target.test:7");
    net.sim.net.dns_delay = Duration::from_millis(10);
    let refused = net.open("target.test:7");
    assert_eq!(net.status(refused), Some(503));
    assert_eq!(net.sim.stats(net.egress).resolves_refused, 1);
    // The time for opening ends the wait.
    net.sim.run_for(Duration::from_secs(10));
    assert!(!net.is_open(waits));
    let third = net.open("target.test:7");
    assert!(net.is_open(third));
}
