//! TCP tunnels at their bounds: nothing is left of any of them, however it ended; slow readers cost bounded memory.

use std::net::{IpAddr, SocketAddr};

use bauta::client::TcpForm;
use bauta::policy::resolve::ResolveError;
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;
use bauta::worker::{MachineLimits, Residue};
use bytes::Bytes;

use crate::host::{Behaviour, End, stream_bytes};
use crate::net::{Link, NodeId, Rng};
use crate::node::hop_on;
use crate::sim::{Sim, ms, secs};

const FORMS: [TcpForm; 3] = [TcpForm::Classic, TcpForm::Raw, TcpForm::Capsules];

/// Client, ingress, egress and several targets.
struct Chain {
    sim: Sim,
    client: NodeId,
    ingress: NodeId,
    egress: NodeId,
}

impl Chain {
    fn new(
        seed: u64,
        first: &[Carrier],
        second: &[Carrier],
        limit: fn(&mut MachineLimits),
    ) -> Self {
        let mut sim = Sim::new(seed);
        let egress = sim.relay_with("egress.test", &[], |settings| settings.limit = limit);
        let next = vec![hop_on("egress.test", second)];
        let ingress = sim.relay_with_hops("ingress.test", next, |settings| settings.limit = limit);
        let client = sim.client_with_hops(vec![hop_on("ingress.test", first)], |settings| {
            settings.limit = limit;
        });
        Self {
            sim,
            client,
            ingress,
            egress,
        }
    }

    fn machines(&self) -> [NodeId; 3] {
        [self.client, self.ingress, self.egress]
    }

    /// What every count of the machines and of the network says must agree, at any time.
    #[track_caller]
    fn assert_consistent(&self, what: &str) {
        for node in self.machines() {
            let residue = self.sim.node(node).machine.residue();
            assert_eq!(residue.timers, residue.tunnels, "{what}: {node:?}");
            let sockets = self.sim.target_connections(node) + self.sim.net.udp_targets(node);
            assert_eq!(residue.target_sockets, sockets, "{what}: {node:?}");
            assert!(
                residue.bound <= 3 * residue.tunnels,
                "{what}: {node:?} {residue:?}"
            );
        }
    }

    /// Nothing is left of any tunnel.
    #[track_caller]
    fn assert_nothing_left(&self, what: &str) {
        self.assert_consistent(what);
        for node in self.machines() {
            let residue = self.sim.node(node).machine.residue();
            assert_eq!(residue, Residue::default(), "{what}: {node:?}");
        }
    }
}

/// What a test does to a tunnel.
fn act_at_random(chain: &mut Chain, rng: &mut Rng, tunnel: TunnelId) {
    let client = chain.client;
    let local = chain.sim.tunnel(client, tunnel);
    let (open, idle) = (
        local.is_open(),
        local.unwritten.is_empty() && !local.finishes,
    );
    match rng.below(6) {
        0 => chain.sim.reset(client, tunnel),
        1 => chain.sim.close(client, tunnel),
        2 if open && idle => {
            let bytes = Bytes::from(stream_bytes(rng.below(200_000) as usize + 1));
            chain.sim.write(client, tunnel, bytes, rng.chance(0.5));
        }
        3 if open && idle => chain.sim.write(client, tunnel, Bytes::new(), true),
        4 => chain.sim.pause_tunnel(client, tunnel, rng.chance(0.5)),
        _ => {}
    }
}

/// Whatever happens to tunnels in whatever order, at the end no tunnel, no deadline, no socket, no bound stream and no
/// ticket of a pool is left at any machine; meanwhile every count agrees with what there is.
#[test]
fn nothing_is_left_of_any_tunnel() {
    for seed in 0..60 {
        eprintln!("SEED {seed} {:?}", std::time::Instant::now());
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut pick = |some: &[&'static [Carrier]]| some[rng.below(some.len() as u64) as usize];
        let sets: [&[Carrier]; 5] = [
            &[Carrier::H3],
            &[Carrier::H2],
            &[Carrier::H1],
            &Carrier::ALL,
            &[Carrier::H2, Carrier::H1],
        ];
        let (first, second) = (pick(&sets), pick(&sets));
        let limit: fn(&mut MachineLimits) = |limits| {
            limits.tcp_idle = secs(60);
            limits.target_sockets_max = 12;
        };
        let mut chain = Chain::new(seed, first, second, limit);
        let what = format!("seed {seed}: {first:?}, {second:?}");
        let behaviours = [
            Behaviour::Echo,
            Behaviour::SINK,
            Behaviour::Sink { bytes_max: 1000 },
            Behaviour::Source { bytes: 300_000 },
            Behaviour::HALF_CLOSED,
            Behaviour::ResetAfter { bytes: 10_000 },
        ];
        for (number, behaviour) in behaviours.into_iter().enumerate() {
            let name = format!("t{number}.test");
            chain.sim.tcp_host(&name, 80, behaviour);
        }
        chain.sim.host("udp.test", 7, true);
        chain
            .sim
            .net
            .set_name("broken.test", Err(ResolveError::ServFail));
        let nobody: IpAddr = "203.0.113.250".parse().unwrap();
        chain.sim.net.set_name("silent.test", Ok(vec![nobody]));
        if rng.chance(0.3) {
            chain.sim.net.link.loss = 0.02;
        }
        let mut tunnels = Vec::new();
        for _ in 0..60 {
            match rng.below(10) {
                0..4 => {
                    let target = match rng.below(10) {
                        0 => "broken.test:80".to_owned(),
                        1 => "silent.test:80".to_owned(),
                        // A port where nobody listens.
                        2 => "t0.test:81".to_owned(),
                        number => format!("t{}.test:80", number % 6),
                    };
                    let form = FORMS[rng.below(3) as usize];
                    tunnels.push(chain.sim.open_tcp(chain.client, &target, Some(form)));
                }
                4 => {
                    chain.sim.open(chain.client, "udp.test:7");
                }
                _ if !tunnels.is_empty() => {
                    let tunnel = tunnels[rng.below(tunnels.len() as u64) as usize];
                    act_at_random(&mut chain, &mut rng, tunnel);
                }
                _ => {}
            }
            chain.sim.run_for(ms(rng.below(120)));
            chain.assert_consistent(&what);
        }
        // The end comes in one of several ways.
        match rng.below(4) {
            0 => {
                chain.sim.drain(chain.ingress);
                chain.sim.run_for(secs(40));
            }
            1 => {
                chain.sim.drain(chain.egress);
                chain.sim.run_for(secs(40));
            }
            2 => chain.sim.stop(chain.client),
            _ => {}
        }
        chain.assert_consistent(&what);
        // Idle timeouts of TCP and of UDP, and everything that follows.
        chain.sim.run_for(secs(700));
        chain.assert_nothing_left(&what);
    }
}
