//! CONNECT-IP on every carrier, directly, through a chain, and nested: addresses, routes, packets, errors.
//!
//! ```text
//!   client's user ─► ingress ─► egress ─► gateway, whose exit is the test
//! ```

mod duties;
mod hostile;
mod path;
mod shares;
mod told;

use std::net::IpAddr;
use std::sync::Arc;

use bauta::client::{Request, TunnelKind};
use bauta::error::{Abort, Refusal};
use bauta::policy::Policy;
use bauta::transport::quic::SendOutcome;
use bauta::tunnel::TunnelId;
use bauta::tunnel::ip::{IpEvent, PoolConfig, Pools};
use bauta::wire::capsule::CapsuleType;
use bauta::wire::carrier::Carrier;
use bauta::wire::ip::{AddressRange, AssignedAddress, Packet, Scope, ScopeTarget};
use bauta::worker::{CapsuleSent, Closed, End, GatewayEvent, GatewaySettings, Site};
use bytes::{Bytes, BytesMut};
use ipnet::IpNet;

use crate::net::NodeId;
use crate::node::{Settings, hop_on};
use crate::packets::{UDP, packet};
use crate::sim::{Sim, secs};

/// What the relay gives away.
const POOLS: [&str; 2] = ["10.89.0.0/24", "fd89::/64"];
/// A destination in the world.
const WORLD: &str = "203.0.113.9";
const WORLD_V6: &str = "2001:db8::9";

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn everything() -> Vec<AddressRange> {
    ["0.0.0.0/0", "::/0"]
        .map(|text| AddressRange {
            start: net(text).network(),
            end: net(text).broadcast(),
            protocol: 0,
        })
        .to_vec()
}

fn gateway_settings() -> GatewaySettings {
    GatewaySettings {
        inside: POOLS.map(net).to_vec(),
        routes: everything(),
        dns: Vec::new(),
        pref64: Vec::new(),
        unprompted: true,
        client_to_client: false,
        sites: Vec::new(),
        policy: Arc::new(Policy {
            public_only: false,
            ..Policy::default()
        }),
        mtu: 1_500,
    }
}

fn pools() -> Pools {
    let prefixes = POOLS.map(net).to_vec();
    let config = PoolConfig {
        prefixes,
        ..PoolConfig::default()
    };
    Pools::new(&config).expect("pools")
}

fn with_gateway(change: impl FnOnce(&mut GatewaySettings)) -> impl FnOnce(&mut Settings) {
    let mut gateway = gateway_settings();
    change(&mut gateway);
    move |settings: &mut Settings| settings.gateway = Some((Arc::new(gateway), pools()))
}

#[derive(Clone, Copy, Debug)]
enum Topology {
    Direct,
    Chained(Carrier),
    Nested(Carrier),
}

/// A client, its egress, and an open tunnel.
struct Scene {
    sim: Sim,
    client: NodeId,
    egress: NodeId,
    tunnel: TunnelId,
}

fn open(sim: &mut Sim, client: NodeId, scope: Scope) -> TunnelId {
    sim.act(client, |node, net| {
        let route = node.hop.expect("a client has a route");
        let request = Request::new(scope, TunnelKind::Ip);
        let now = net.now;
        let world = &mut net.world(client);
        let tunnel = node.machine.open_local_request(now, route, request, world);
        node.tunnels.entry(tunnel).or_default();
        tunnel
    })
}

/// A client and its way to an egress, whose first relay may be the egress itself.
struct Parties {
    sim: Sim,
    client: NodeId,
    first: NodeId,
    egress: NodeId,
}

fn parties(
    carrier: Carrier,
    topology: Topology,
    change: impl FnOnce(&mut GatewaySettings),
) -> Parties {
    let mut sim = Sim::new(9);
    let egress = sim.relay_with("egress.test", &[], with_gateway(change));
    let (first, hops) = match topology {
        Topology::Direct => (egress, vec![hop_on("egress.test", &[carrier])]),
        Topology::Chained(second) => {
            let next = vec![hop_on("egress.test", &[second])];
            let ingress = sim.relay_with_hops("ingress.test", next, |_| {});
            (ingress, vec![hop_on("ingress.test", &[carrier])])
        }
        Topology::Nested(second) => {
            let hops = vec![
                hop_on("ingress.test", &[carrier]),
                hop_on("egress.test", &[second]),
            ];
            (sim.relay("ingress.test", &[]), hops)
        }
    };
    let client = sim.client_with_hops(hops, |settings| settings.checked.quic.initial_mtu = 1_400);
    Parties {
        sim,
        client,
        first,
        egress,
    }
}

/// Every carrier, and every way to the egress.
fn every_way() -> impl Iterator<Item = (Carrier, Topology)> {
    let ways = |carrier| {
        let chained = Carrier::ALL.map(Topology::Chained);
        let nested = Carrier::ALL.map(Topology::Nested);
        let all = [Topology::Direct].into_iter().chain(chained).chain(nested);
        all.map(move |topology| (carrier, topology))
    };
    Carrier::ALL.into_iter().flat_map(ways)
}

fn scene(
    carrier: Carrier,
    topology: Topology,
    scope: Scope,
    change: impl FnOnce(&mut GatewaySettings),
) -> Scene {
    Scene::open(parties(carrier, topology, change), scope)
}

impl Scene {
    fn open(parties: Parties, scope: Scope) -> Self {
        let Parties {
            mut sim,
            client,
            egress,
            ..
        } = parties;
        let tunnel = open(&mut sim, client, scope);
        Self {
            sim,
            client,
            egress,
            tunnel,
        }
    }

    fn direct(carrier: Carrier) -> Self {
        Self::with(carrier, Scope::default(), |_| {})
    }

    fn with(carrier: Carrier, scope: Scope, change: impl FnOnce(&mut GatewaySettings)) -> Self {
        let mut scene = scene(carrier, Topology::Direct, scope, change);
        scene.opened("direct");
        scene
    }

    /// Waits until addresses and routes are there.
    #[track_caller]
    fn opened(&mut self, what: &str) {
        let (client, tunnel) = (self.client, self.tunnel);
        let ready = self.sim.run_until(secs(10), |sim| {
            let heard = &sim.tunnel(client, tunnel).ip;
            heard.iter().any(|it| matches!(it, IpEvent::Assigned(_)))
                && heard.iter().any(|it| matches!(it, IpEvent::Routes(_)))
        });
        assert!(ready, "{what}: {:?}", self.sim.tunnel(client, tunnel));
    }

    /// What the client was last told about its addresses.
    fn assigned(&self) -> Vec<AssignedAddress> {
        let heard = self.sim.tunnel(self.client, self.tunnel).ip.iter().rev();
        let mut lists = heard.filter_map(|event| {
            let IpEvent::Assigned(list) = event else {
                return None;
            };
            Some(list.clone())
        });
        lists.next().unwrap_or_default()
    }

    fn routes(&self) -> Vec<AddressRange> {
        let heard = self.sim.tunnel(self.client, self.tunnel).ip.iter().rev();
        let mut lists = heard.filter_map(|event| {
            let IpEvent::Routes(list) = event else {
                return None;
            };
            Some(list.clone())
        });
        lists.next().unwrap_or_default()
    }

    /// The client's address of IPv4.
    fn address(&self) -> IpAddr {
        let assigned = self.assigned();
        let mut v4 = assigned.iter().filter(|it| it.prefix.addr().is_ipv4());
        v4.next().expect("an address").prefix.addr()
    }

    fn send(&mut self, packet: Bytes) -> SendOutcome {
        let (client, tunnel) = (self.client, self.tunnel);
        let outcome = self.sim.act(client, |node, net| {
            let now = net.now;
            let world = &mut net.world(client);
            node.machine.send_local(now, tunnel, packet, world)
        });
        self.sim.run_for(secs(1));
        outcome
    }

    /// A packet from the world.
    fn inject(&mut self, packet: &[u8]) {
        let egress = self.egress;
        self.sim.act(egress, |node, net| {
            let now = net.now;
            let world = &mut net.world(egress);
            node.machine
                .handle_packet(now, BytesMut::from(packet), world);
        });
        self.sim.run_for(secs(1));
    }

    /// The packets that left for the world.
    fn left(&self) -> Vec<Bytes> {
        let events = self.sim.node(self.egress).gateway.iter();
        let packets = events.filter_map(|event| {
            let GatewayEvent::Packet(_, packet) = event else {
                return None;
            };
            Some(packet.clone())
        });
        packets.collect()
    }

    fn received(&self) -> &[Bytes] {
        &self.sim.tunnel(self.client, self.tunnel).payloads
    }

    fn request(&mut self, prefixes: &[&str]) -> Vec<u64> {
        let (client, tunnel) = (self.client, self.tunnel);
        let prefixes: Vec<_> = prefixes.iter().map(|text| net(text)).collect();
        let ids = self.sim.act(client, |node, net| {
            let now = net.now;
            let end = (tunnel, End::Downstream);
            let world = &mut net.world(client);
            node.machine
                .ip_request_addresses(now, end, &prefixes, world)
        });
        self.sim.run_for(secs(1));
        ids.expect("an open tunnel")
    }

    fn capsule(&mut self, kind: u64, value: &[u8]) {
        let (client, tunnel) = (self.client, self.tunnel);
        self.sim.act(client, |node, net| {
            let now = net.now;
            let kind = CapsuleType(kind);
            let sent = node
                .machine
                .send_capsule(now, tunnel, End::Downstream, kind, value);
            let _ = (sent, &net);
        });
        self.sim.run_for(secs(1));
    }
}

/// Addresses and routes come by themselves, packets pass both ways, whatever is below and in between.
// spec: 9484-4.4-a, 9484-4.2-a, 9484-4.5-a, 9484-4.3-a, 9484-4.7.1-h, 9484-6-b, 9484-3-d
#[test]
fn packets_pass_on_every_carrier_and_every_way() {
    for (carrier, topology) in every_way() {
        let what = format!("{carrier} {topology:?}");
        let mut scene = scene(carrier, topology, Scope::default(), |_| {});
        scene.opened(&what);
        assert_eq!(scene.routes(), everything(), "{what}");
        let assigned = scene.assigned();
        assert_eq!(assigned.len(), 2, "{what}: {assigned:?}");
        for (own, world) in assigned.iter().zip([ip(WORLD), ip(WORLD_V6)]) {
            assert_eq!(own.request_id, 0, "{what}");
            let own = own.prefix.addr();
            assert!(
                POOLS.iter().any(|pool| net(pool).contains(&own)),
                "{what}: {own}"
            );
            let out = packet(own, world, UDP, 1_280);
            scene.send(out.clone());
            assert_eq!(scene.left().last(), Some(&out), "{what}");
            let back = packet(world, own, UDP, 1_280);
            scene.inject(&back);
            assert_eq!(scene.received().last(), Some(&back), "{what}");
        }
    }
}

/// A request is answered under its id, through an ingress too; what was given without one is claimed.
// spec: 9484-4.7.2-a, 9484-4.7.2-c, 9484-4.7.2-d, 9484-4.7.2-e, 9484-4.7.1-b, 9484-4.7.1-g
#[test]
fn requests_are_answered_under_their_ids() {
    for topology in [Topology::Direct, Topology::Chained(Carrier::H3)] {
        let mut scene = scene(Carrier::H3, topology, Scope::default(), |_| {});
        scene.opened("requests");
        let first = scene.address();
        let ids = scene.request(&["0.0.0.0/32"]);
        assert_eq!(ids.len(), 1);
        assert_ne!(ids[0], 0);
        let claimed = scene.assigned();
        assert!(
            claimed
                .iter()
                .any(|it| it.request_id == ids[0] && it.prefix.addr() == first)
        );
        assert_eq!(claimed.len(), 2);
        let more = scene.request(&["0.0.0.0/32", "::/128", "10.89.0.77/32"]);
        let assigned = scene.assigned();
        for id in &more {
            assert!(
                assigned.iter().any(|it| it.request_id == *id),
                "{assigned:?}"
            );
        }
        assert!(assigned.iter().any(|it| it.prefix == net("10.89.0.77/32")));
        assert_eq!(assigned.len(), 4);
    }
}

/// What cannot be had is refused under its id, and the refusal is not repeated.
// spec: 9484-4.7.2-f, 9484-4.7.2-g
#[test]
fn exhaustion_is_answered_with_a_refusal() {
    let mut scene = Scene::direct(Carrier::H3);
    let ids = scene.request(&["0.0.0.0/32"; 10]);
    let assigned = scene.assigned();
    let refused: Vec<_> = assigned
        .iter()
        .filter(|it| it.prefix == net("0.0.0.0/32"))
        .collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|it| ids.contains(&it.request_id)));
    let again = scene.request(&["::/128", "::/128"]);
    let assigned = scene.assigned();
    let refused: Vec<_> = assigned
        .iter()
        .filter(|it| it.prefix.addr().is_unspecified())
        .collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(
        refused[0].request_id, again[1],
        "the first claims what was given"
    );
    assert_eq!(refused[0].prefix, net("::/128"));
    assert!(scene.sim.stats(scene.egress).ip_assignments_refused > 0);
}

/// Nobody sends from an address that is not theirs (BCP 38); the sender is told.
// spec: 9484-11-c, 9484-7.2.1-a, 9484-7.2.1-b, 9484-7.2-a
#[test]
fn spoofed_sources_are_dropped_and_answered() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::direct(carrier);
        scene.send(packet(ip("10.89.0.200"), ip(WORLD), UDP, 100));
        scene.send(packet(ip("192.0.2.77"), ip(WORLD), UDP, 100));
        assert_eq!(scene.left(), Vec::<Bytes>::new());
        assert_eq!(scene.sim.stats(scene.egress).ip_dropped_source, 2);
        let answers = scene.received();
        let errors: Vec<_> = answers
            .iter()
            .map(|it| Packet::parse(it).unwrap())
            .collect();
        assert!(
            errors
                .iter()
                .all(|it| it.protocol == 1 && it.source == ip("10.89.0.1"))
        );
        assert_eq!(errors.len(), 2, "the tunnel stays, and says so");
    }
}

/// The scope bounds destinations and protocols; ICMP passes whatever the protocol is.
// spec: 9484-4.6-a, 9484-4.6-e, 9484-4.7.3-c, 9484-4.6-d
#[test]
fn scopes_are_enforced() {
    for carrier in Carrier::ALL {
        let scope = Scope {
            target: ScopeTarget::Prefix(net("203.0.113.0/24")),
            protocol: Some(UDP),
        };
        let mut scene = Scene::with(carrier, scope, |_| {});
        let route = AddressRange {
            start: ip("203.0.113.0"),
            end: ip("203.0.113.255"),
            protocol: UDP,
        };
        assert_eq!(scene.routes(), [route]);
        assert_eq!(scene.assigned().len(), 1, "one version of IP");
        let own = scene.address();
        let allowed = packet(own, ip(WORLD), UDP, 100);
        scene.send(allowed.clone());
        let icmp = packet(own, ip(WORLD), 1, 100);
        scene.send(icmp.clone());
        scene.send(packet(own, ip(WORLD), 6, 100));
        scene.send(packet(own, ip("198.51.100.1"), UDP, 100));
        assert_eq!(scene.left(), [allowed, icmp]);
        let stats = scene.sim.stats(scene.egress);
        assert_eq!(
            (stats.ip_dropped_protocol, stats.ip_dropped_destination),
            (1, 1)
        );
        // What comes back is bound too.
        scene.inject(&packet(ip(WORLD), own, 6, 100));
        scene.inject(&packet(ip(WORLD), own, UDP, 100));
        let back: Vec<_> = scene.received().iter().map(|it| it[9]).collect();
        assert_eq!(back, [1, 1, UDP], "two errors, and what may come");
    }
}

/// A name is resolved before the answer, and its addresses are the routes.
// spec: 9484-4.1-b, 9484-4.6-f, 9484-4.1-c
#[test]
fn names_are_resolved_before_the_answer() {
    let scope = |name: &str| Scope {
        target: ScopeTarget::Name(name.into()),
        protocol: None,
    };
    let mut scene = scene(Carrier::H3, Topology::Direct, scope("world.test"), |_| {});
    let addresses = vec![ip(WORLD), ip(WORLD_V6)];
    scene.sim.net.set_name("world.test", Ok(addresses.clone()));
    scene.opened("a name");
    let routes: Vec<_> = scene.routes().iter().map(|it| (it.start, it.end)).collect();
    assert_eq!(
        routes,
        addresses.iter().map(|it| (*it, *it)).collect::<Vec<_>>()
    );

    let unknown = open(&mut scene.sim, scene.client, scope("nowhere.test"));
    let client = scene.client;
    scene
        .sim
        .run_until(secs(5), |sim| sim.tunnel(client, unknown).refused.is_some());
    assert_eq!(scene.sim.tunnel(client, unknown).status(), Some(502));
}

/// Only what policy allows leaves, packet by packet.
// spec: 9484-7.2-i, 9484-4.6-g
#[test]
fn policy_judges_every_packet() {
    let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
        settings.policy = Arc::new(Policy::default());
    });
    let own = scene.address();
    let public = packet(own, ip("8.8.8.8"), UDP, 100);
    scene.send(public.clone());
    for private in ["192.168.1.1", "127.0.0.1", "169.254.169.254", "224.0.0.1"] {
        scene.send(packet(own, ip(private), UDP, 100));
    }
    assert_eq!(scene.left(), [public]);
    assert_eq!(scene.sim.stats(scene.egress).ip_dropped_prohibited, 4);
}

/// A packet that no datagram takes is answered with what fits; what every path has to carry goes on the stream.
// spec: 9484-10.1-a, 9484-7.2-f
#[test]
fn packets_that_do_not_fit() {
    let mut scene = Scene::direct(Carrier::H3);
    let own = scene.address();
    let outcome = scene.send(packet(own, ip(WORLD), UDP, 5_000));
    assert_eq!(outcome, SendOutcome::TooLarge, "the user is told");
    scene.inject(&packet(ip(WORLD), own, UDP, 5_000));
    assert_eq!(scene.sim.stats(scene.egress).ip_dropped_too_big, 1);
    // Don't Fragment is not set: it goes on the stream.
    let mut free = BytesMut::from(&packet(ip(WORLD), own, UDP, 5_000)[..]);
    free[6] = 0;
    scene.inject(&free);
    assert_eq!(scene.received().last().map(Bytes::len), Some(5_000));
    assert_eq!(scene.sim.stats(scene.egress).ip_sent_in_capsules, 1);
}

/// The MTU that a user is told is the longest packet that passes, and one byte more does not, on every carrier.
// spec: 9484-10.1-a
#[test]
fn the_mtu_is_what_passes() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::direct(carrier);
        let (client, tunnel, own) = (scene.client, scene.tunnel, scene.address());
        // Until QUIC knows the path.
        scene.sim.run_for(secs(2));
        let info = scene.sim.act(client, |node, _| {
            node.machine.ip_info(tunnel, End::Downstream)
        });
        let mtu = info.expect("an open tunnel").mtu;
        let longest = packet(own, ip(WORLD), UDP, mtu);
        assert_eq!(scene.send(longest.clone()), SendOutcome::Sent, "{carrier}");
        assert_eq!(scene.left(), [longest], "{carrier}");
        let longer = packet(own, ip(WORLD), UDP, mtu + 1);
        assert_eq!(scene.send(longer), SendOutcome::TooLarge, "{carrier}");
    }
}

/// A peer that wants to know whether 1,280 bytes pass asks all nodes on the link.
// spec: 9484-7.2-e
#[test]
fn the_link_itself_can_be_asked() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::direct(carrier);
        let assigned = scene.assigned();
        let own = assigned.iter().find(|it| it.prefix.addr().is_ipv6());
        let own = own.expect("an address").prefix.addr();
        let mut probe = BytesMut::from(&packet(own, ip("ff02::1"), 58, 1_280)[..]);
        probe[40..48].copy_from_slice(&[128, 0, 0, 0, 0, 1, 0, 2]);
        scene.send(probe.freeze());
        let reply = scene.received().last().expect("a reply");
        let parsed = Packet::parse(reply).unwrap();
        assert_eq!((parsed.source, parsed.destination), (ip("fd89::1"), own));
        assert_eq!((reply.len(), &reply[44..48]), (1_280, &[0, 1, 0, 2][..]));
        // What is for a link stays on it, whatever policy says.
        for local in ["fe80::1", "ff02::1"] {
            scene.send(packet(own, ip(local), UDP, 100));
        }
        assert_eq!(scene.left(), Vec::<Bytes>::new());
    }
}

/// A path that cannot carry 1,280 bytes refuses the tunnel and says why.
// spec: 9484-7.2-h
#[test]
fn a_path_that_is_too_small_is_refused() {
    let mut sim = Sim::new(9);
    sim.relay_with("egress.test", &[], with_gateway(|_| {}));
    let hops = vec![hop_on("egress.test", &[Carrier::H3])];
    let client = sim.client_with_hops(hops, |settings| {
        settings.checked.quic.initial_mtu = 1_200;
        settings.checked.quic.mtu_upper_bound = 1_200;
    });
    let tunnel = open(&mut sim, client, Scope::default());
    sim.run_until(secs(5), |sim| sim.tunnel(client, tunnel).refused.is_some());
    let local = sim.tunnel(client, tunnel);
    let refusal = local.refused.as_ref().map(|(refusal, _)| *refusal);
    assert_eq!(refusal, Some(Refusal::PathTooSmall), "{local:?}");
}

/// Packets that are none, and capsules that nobody knows, cost a packet or nothing.
// spec: 9484-6-c, 9484-7.2-a
#[test]
fn malformed_packets_end_nothing() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::direct(carrier);
        for garbage in [&[][..], &[0x45], &[0x10; 40], &[0x60; 39]] {
            scene.send(Bytes::copy_from_slice(garbage));
        }
        assert_eq!(scene.sim.stats(scene.egress).ip_dropped_malformed, 4);
        assert!(scene.sim.tunnel(scene.client, scene.tunnel).is_open());
        scene.capsule(0x2a, b"unknown");
        assert!(scene.sim.tunnel(scene.client, scene.tunnel).is_open());
    }
}

/// What a client had is free again when it leaves.
// spec: 9484-4.1-d
#[test]
fn addresses_are_given_back() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::direct(carrier);
        let (client, tunnel) = (scene.client, scene.tunnel);
        scene.sim.act(client, |node, net| {
            let now = net.now;
            node.machine
                .close_local(now, tunnel, &mut net.world(client));
        });
        scene.sim.run_for(secs(1));
        let events = &scene.sim.node(scene.egress).gateway;
        let released = events
            .iter()
            .filter(|it| matches!(it, GatewayEvent::Released(..)))
            .count();
        assert_eq!(released, 2);
        let reason = scene.sim.tunnel(client, tunnel).reason;
        assert!(matches!(
            reason,
            Some(Closed::Aborted {
                abort: Abort::ClientClosed,
                ..
            })
        ));
    }
}

/// Two clients of one relay: nothing between them unless it is allowed, and the hop limit goes down by one then.
// spec: 9484-7.2-b, 9484-7.2-c, 9484-7.2-d
#[test]
fn clients_reach_each_other_if_allowed() {
    for allowed in [false, true] {
        let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
            settings.client_to_client = allowed;
        });
        let hops = vec![hop_on("egress.test", &[Carrier::H2])];
        let other = scene.sim.client_with_hops(hops, |_| {});
        let tunnel = open(&mut scene.sim, other, Scope::default());
        scene.sim.run_for(secs(2));
        let heard = scene.sim.tunnel(other, tunnel).ip.clone();
        let theirs = heard.iter().find_map(|event| {
            let IpEvent::Assigned(list) = event else {
                return None;
            };
            Some(list[0].prefix.addr())
        });
        let (own, theirs) = (scene.address(), theirs.expect("an address"));
        let sent = packet(own, theirs, UDP, 100);
        scene.send(sent.clone());
        let arrived = scene.sim.tunnel(other, tunnel).payloads.clone();
        if !allowed {
            assert_eq!(arrived, Vec::<Bytes>::new());
            continue;
        }
        let parsed = Packet::parse(&arrived[0]).unwrap();
        assert_eq!((arrived.len(), parsed.hop_limit), (1, 63));
        let mut last = BytesMut::from(&sent[..]);
        last[8] = 1;
        scene.send(last.freeze());
        assert_eq!(scene.sim.stats(scene.egress).ip_dropped_hop_limit, 1);
        let answer = scene.received().last().unwrap();
        assert_eq!(answer[20..22], [11, 0], "Time Exceeded");
    }
}

/// Networks behind clients: only those that a client may have, and their packets pass then.
// spec: 9484-4.7.3-a, 9484-4.7.3-h, 9484-4.7-a
#[test]
fn sites_are_reached_by_advertised_routes() {
    let site = "172.20.0.0/16";
    let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
        settings.inside.push(net(site));
        settings.sites = vec![Site {
            user: None,
            prefixes: vec![net(site)],
        }];
    });
    let (client, tunnel) = (scene.client, scene.tunnel);
    let range = |text: &str| AddressRange {
        start: net(text).network(),
        end: net(text).broadcast(),
        protocol: 0,
    };
    let routes = vec![range("172.20.1.0/24"), range("198.51.100.0/24")];
    let advertised = scene.sim.act(client, |node, net| {
        let now = net.now;
        let end = (tunnel, End::Downstream);
        let world = &mut net.world(client);
        node.machine.ip_advertise_routes(now, end, routes, world)
    });
    assert_eq!(advertised, Ok(()));
    scene.sim.run_for(secs(1));
    assert_eq!(scene.sim.stats(scene.egress).ip_routes_refused, 1);
    let behind = ip("172.20.1.5");
    scene.inject(&packet(ip(WORLD), behind, UDP, 100));
    assert_eq!(scene.received().len(), 1);
    scene.inject(&packet(ip(WORLD), ip("172.20.9.9"), UDP, 100));
    assert_eq!(scene.received().len(), 1, "not advertised");
    let out = packet(behind, ip(WORLD), UDP, 100);
    scene.send(out.clone());
    assert_eq!(scene.left(), [out]);
}
