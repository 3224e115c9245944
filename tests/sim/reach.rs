//! What a route asks for by itself: connections of one's own, times, and to be forgotten.

use std::sync::Arc;

use bauta::client::{Hop, Pooling, RouteId, TcpForm, TunnelKind};
use bauta::config::HeadStarts;
use bauta::error::Refusal;
use bauta::net::SocketOptions;
use bauta::policy::Policy;
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;
use bauta::worker::{Direct, Family};

use crate::host::Behaviour;
use crate::net::{Link, NodeId, UdpCut};
use crate::node::{Local, hop_on};
use crate::sim::{Sim, ms, payload, secs};

const UDP: &str = "target.test:7";
const TCP: &str = "tcp.test:80";

/// A relay that reaches everything, and a client that knows a way to it.
struct Scene {
    sim: Sim,
    client: NodeId,
    relay: NodeId,
}

impl Scene {
    fn new(seed: u64, hop: Hop) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay("egress.test", &[]);
        let client = sim.client_with_hops(vec![hop], |_| {});
        sim.host("target.test", 7, true);
        Self { sim, client, relay }
    }

    fn open(&mut self, count: usize) -> Vec<TunnelId> {
        let open = |_| self.sim.open(self.client, UDP);
        (0..count).map(open).collect()
    }

    fn add_route(&mut self, hops: Vec<Hop>) -> RouteId {
        let add = |node: &mut crate::node::MachineNode, _: &mut _| node.machine.add_route(hops);
        self.sim.act(self.client, add)
    }

    fn remove_route(&mut self, route: RouteId) {
        self.sim.act(self.client, |node, net| {
            node.machine.remove_route(net.now, route);
        });
    }

    fn open_on(&mut self, route: RouteId) -> TunnelId {
        let (client, target) = (self.client, UDP.parse().expect("host:port"));
        self.sim.act(client, |node, net| {
            let now = net.now;
            let world = &mut net.world(client);
            let tunnel = node.machine.open_local(now, route, target, world);
            node.tunnels.entry(tunnel).or_default();
            tunnel
        })
    }

    fn tunnel(&self, tunnel: TunnelId) -> &Local {
        self.sim.tunnel(self.client, tunnel)
    }

    fn are_open(&self, tunnels: &[TunnelId]) -> bool {
        tunnels.iter().all(|tunnel| self.tunnel(*tunnel).is_open())
    }

    fn connections(&self) -> usize {
        connections(&self.sim, self.client)
    }

    fn routes(&self) -> usize {
        self.sim.node(self.client).machine.route_count()
    }
}

fn connections(sim: &Sim, node: NodeId) -> usize {
    sim.connections(node) + sim.tcp_connections(node)
}

fn pooled(name: &str, carrier: Carrier, pooling: Pooling) -> Hop {
    Hop {
        pooling,
        ..hop_on(name, &[carrier])
    }
}

const SEPARATE: Pooling = Pooling {
    separate: true,
    ..Pooling::SHARED
};

#[test]
fn separate_tunnels_have_connections_of_their_own() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(601, pooled("egress.test", carrier, SEPARATE));
        let tunnels = scene.open(40);
        scene.sim.run_for(secs(2));
        assert!(scene.are_open(&tunnels), "{carrier:?}");
        assert_eq!(scene.connections(), 40, "{carrier:?}");
        assert_eq!(connections(&scene.sim, scene.relay), 40, "{carrier:?}");

        let (ended, staying) = tunnels.split_at(15);
        for tunnel in ended {
            scene.sim.close(scene.client, *tunnel);
        }
        scene.sim.run_for(secs(10));
        assert_eq!(scene.connections(), 25, "{carrier:?}");
        assert_eq!(connections(&scene.sim, scene.relay), 25, "{carrier:?}");
        for tunnel in staying {
            scene.sim.send(scene.client, *tunnel, payload(1, 100));
        }
        scene.sim.run_for(secs(1));
        let echoed = |tunnel: &TunnelId| scene.tunnel(*tunnel).payloads.len() == 1;
        assert!(staying.iter().all(echoed), "{carrier:?}");
    }
}

#[test]
fn separate_tunnels_are_separate_at_every_relay() {
    for carrier in [Carrier::H3, Carrier::H2] {
        let mut sim = Sim::new(602);
        let ingress = sim.relay("ingress.test", &[]);
        let egress = sim.relay("egress.test", &[]);
        sim.host("target.test", 7, true);
        let hops = ["ingress.test", "egress.test"].map(|name| pooled(name, carrier, SEPARATE));
        let client = sim.client_with_hops(hops.to_vec(), |_| {});
        let tunnels: Vec<_> = (0..10).map(|_| sim.open(client, UDP)).collect();
        sim.run_for(secs(3));
        assert!(tunnels.iter().all(|it| sim.tunnel(client, *it).is_open()));
        let found = [client, ingress, egress].map(|node| connections(&sim, node));
        assert_eq!(found, [20, 10, 10], "{carrier:?}");
        for tunnel in tunnels {
            sim.close(client, tunnel);
        }
        sim.run_for(secs(20));
        let left = [client, ingress, egress].map(|node| connections(&sim, node));
        assert_eq!(left, [0, 0, 0], "{carrier:?}");
    }
}

/// A connection of its own does not end before what was written into its tunnel has arrived.
#[test]
fn the_last_bytes_of_a_separate_tunnel_arrive() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(603, pooled("egress.test", carrier, SEPARATE));
        let target = scene
            .sim
            .tcp_host("tcp.test", 80, Behaviour::Source { bytes: 10 });
        let (client, relay) = (scene.client, scene.relay);
        let slow = Link {
            delay: ms(200),
            loss: 0.05,
            ..Link::default()
        };
        scene.sim.net.set_link(client, relay, slow);
        let tunnel = scene.sim.open_tcp_now(client, TCP, Some(TcpForm::Raw));
        let ended = scene
            .sim
            .run_until(secs(10), |sim| sim.tunnel(client, tunnel).ended);
        assert!(ended, "{carrier:?}");
        let data = payload(3, 20_000);
        scene.sim.write(client, tunnel, data.clone(), true);
        scene.sim.run_for(secs(10));
        let received = &scene.sim.conversation(target, 0).received;
        assert_eq!(received.len(), data.len(), "{carrier:?}");
        scene.sim.run_for(secs(10));
        assert_eq!(scene.connections(), 0, "{carrier:?}");
    }
}

#[test]
fn idle_connections_are_kept_as_long_as_the_hop_says() {
    let idle = |time| Pooling {
        idle: time,
        ..Pooling::SHARED
    };
    for carrier in [Carrier::H3, Carrier::H2] {
        let mut scene = Scene::new(604, pooled("egress.test", carrier, idle(secs(5))));
        let other = scene.add_route(vec![pooled("egress.test", carrier, idle(secs(20)))]);
        let tunnel = scene.sim.open_now(scene.client, UDP);
        let patient = scene.open_on(other);
        scene.sim.run_for(secs(30));
        assert!(scene.are_open(&[tunnel, patient]));
        assert_eq!(scene.connections(), 2, "{carrier:?}");
        for tunnel in [tunnel, patient] {
            scene.sim.close(scene.client, tunnel);
        }
        for (time, left) in [(ms(4900), 2), (secs(5), 1), (secs(9), 1), (secs(5), 0)] {
            scene.sim.run_for(time);
            assert_eq!(scene.connections(), left, "{carrier:?} {time:?}");
        }
    }
}

#[test]
fn a_connection_carries_as_many_tunnels_as_the_hop_allows() {
    for carrier in [Carrier::H3, Carrier::H2] {
        let few = Pooling {
            streams_max: Some(4),
            ..Pooling::SHARED
        };
        let mut scene = Scene::new(605, pooled("egress.test", carrier, few));
        let tunnels = scene.open(10);
        scene.sim.run_for(secs(2));
        assert!(scene.are_open(&tunnels), "{carrier:?}");
        assert_eq!(scene.connections(), 3, "{carrier:?}");
        // What became free is used again.
        for tunnel in &tunnels[..3] {
            scene.sim.close(scene.client, *tunnel);
        }
        scene.sim.run_for(secs(1));
        let more = scene.open(5);
        scene.sim.run_for(secs(2));
        assert!(scene.are_open(&more), "{carrier:?}");
        assert_eq!(scene.connections(), 3, "{carrier:?}");
    }
}

#[test]
fn a_route_has_head_starts_of_its_own() {
    let hurried = |first| Hop {
        head_starts: Some(HeadStarts {
            first,
            second: secs(1),
        }),
        ..hop_on("egress.test", &[Carrier::H3, Carrier::H2])
    };
    let mut scene = Scene::new(606, hurried(ms(40)));
    let patient = scene.add_route(vec![hurried(ms(900))]);
    let cut = Some(UdpCut::AfterPackets(0));
    scene.sim.net.cut_udp(scene.client, scene.relay, cut);
    let began = scene.sim.net.now;
    let (hasty, patient) = (scene.open(1)[0], scene.open_on(patient));
    scene.sim.run_for(secs(3));
    let took = |tunnel| scene.tunnel(tunnel).opened.unwrap() - began;
    assert!(took(hasty) > ms(40) && took(hasty) < ms(200));
    assert!(took(patient) > ms(900) && took(patient) < ms(1100));
}

#[test]
fn a_route_says_how_long_opening_may_take() {
    let hop = Hop {
        open_timeout: Some(ms(700)),
        ..hop_on("egress.test", &[Carrier::H3])
    };
    let mut scene = Scene::new(607, hop);
    scene
        .sim
        .net
        .set_link(scene.client, scene.relay, Link::DEAD);
    let tunnel = scene.open(1)[0];
    scene.sim.run_for(ms(690));
    assert!(scene.tunnel(tunnel).refused.is_none());
    scene.sim.run_for(ms(20));
    let (refusal, _) = scene.tunnel(tunnel).refused.as_ref().unwrap();
    assert_eq!(*refusal, Refusal::ConnectTimeout);
}

#[test]
fn a_hop_says_how_long_a_handshake_may_take() {
    for carrier in Carrier::ALL {
        let hop = Hop {
            handshake_timeout: Some(ms(700)),
            ..hop_on("egress.test", &[carrier])
        };
        let mut scene = Scene::new(608, hop);
        scene
            .sim
            .net
            .set_link(scene.client, scene.relay, Link::DEAD);
        let tunnel = scene.open(1)[0];
        scene.sim.run_for(ms(690));
        assert!(scene.tunnel(tunnel).refused.is_none(), "{carrier:?}");
        // Resolving takes ten.
        scene.sim.run_for(ms(40));
        let (refusal, _) = scene.tunnel(tunnel).refused.as_ref().unwrap();
        assert_eq!(*refusal, Refusal::ConnectTimeout, "{carrier:?}");
    }
}

#[test]
fn a_route_that_is_removed_ends_with_its_last_tunnel() {
    for carrier in Carrier::ALL {
        let hop = |name| hop_on(name, &[carrier]);
        let mut scene = Scene::new(609, hop("egress.test"));
        scene.sim.relay("ingress.test", &[]);
        scene.sim.relay("other.test", &[]);
        let long = || vec![hop("ingress.test"), hop("egress.test")];
        let nested = scene.add_route(long());
        assert_eq!(scene.add_route(long()), nested, "the same relays");
        let other = scene.add_route(vec![hop("other.test")]);
        assert_eq!(scene.routes(), 4);
        let tunnel = scene.open_on(nested);
        let stays = scene.open_on(other);
        scene.sim.run_for(secs(1));
        assert!(scene.are_open(&[tunnel, stays]), "{carrier:?}");
        assert_eq!(scene.connections(), 3);

        // Somebody else counts on it still.
        scene.remove_route(nested);
        scene.sim.run_for(secs(1));
        assert_eq!(scene.routes(), 4);
        scene.remove_route(nested);
        scene.sim.run_for(secs(1));
        scene.sim.send(scene.client, tunnel, payload(1, 100));
        scene.sim.run_for(secs(1));
        assert_eq!(scene.tunnel(tunnel).payloads.len(), 1, "{carrier:?}");

        scene.sim.close(scene.client, tunnel);
        scene.sim.run_for(secs(10));
        assert_eq!((scene.routes(), scene.connections()), (2, 1), "{carrier:?}");
        assert!(scene.are_open(&[stays]));

        // The others are what they were; what is gone leads nowhere, and may come back under another name.
        let fresh = [scene.open_on(other), scene.open(1)[0]];
        let lost = scene.open_on(nested);
        let again = scene.add_route(long());
        assert_ne!(again, nested);
        let back = scene.open_on(again);
        scene.sim.run_for(secs(1));
        assert!(scene.are_open(&fresh) && scene.are_open(&[back]));
        assert!(scene.tunnel(lost).refused.is_some());
    }
}

#[test]
fn a_route_that_is_removed_while_it_is_dialled_is_dialled_to_the_end() {
    for carrier in Carrier::ALL {
        for dead in [false, true] {
            let mut scene = Scene::new(610, hop_on("egress.test", &[carrier]));
            scene.sim.relay("other.test", &[]);
            let other = scene.add_route(vec![hop_on("other.test", &[carrier])]);
            if dead {
                scene.sim.net.set_name("other.test", Ok(Vec::new()));
            }
            let tunnel = scene.open_on(other);
            scene.remove_route(other);
            scene.sim.run_for(secs(1));
            assert_eq!(scene.tunnel(tunnel).is_open(), !dead, "{carrier:?}");
            assert_eq!(scene.routes(), 1 + usize::from(!dead), "{carrier:?}");
            if !dead {
                scene.sim.close(scene.client, tunnel);
            }
            scene.sim.run_for(secs(5));
            assert_eq!((scene.routes(), scene.connections()), (1, 0), "{carrier:?}");
        }
    }
}

#[test]
fn sockets_towards_targets_have_the_options_that_were_asked_for() {
    let mut scene = Scene::new(611, hop_on("egress.test", &[Carrier::H3]));
    let target = scene.sim.tcp_host("tcp.test", 80, Behaviour::Echo);
    let options = SocketOptions {
        ttl: Some(7),
        nagle: true,
        ..SocketOptions::default()
    };
    let policy = Arc::new(Policy {
        public_only: false,
        ..Policy::default()
    });
    let direct = Direct {
        addresses: None,
        policy,
        family: Family::Any,
        socket: options,
        timeout: None,
    };
    let client = scene.client;
    for (to, kind) in [(UDP, TunnelKind::Udp), (TCP, TunnelKind::TCP)] {
        let to = to.parse().unwrap();
        let direct = direct.clone();
        scene.sim.act(client, |node, net| {
            let now = net.now;
            let world = &mut net.world(client);
            let tunnel = node.machine.open_local_direct(now, to, kind, direct, world);
            node.tunnels.entry(tunnel).or_default();
        });
    }
    scene.sim.run_for(secs(1));
    assert_eq!(scene.sim.net.log(client).options, [options, options]);
    assert_eq!(scene.sim.tcp_target(target).conversations.len(), 1);
}
