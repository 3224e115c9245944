//! What ends of an IP tunnel tell each other, through an ingress too; and what workers tell each other.

use bauta::client::Credentials;
use bauta::net::clock;
use bauta::wire::ip::{DnsConfig, Nameserver};
use ipnet::Ipv6Net;

use super::*;

fn dns() -> DnsConfig {
    DnsConfig {
        nameservers: vec![Nameserver::plain(&[ip("9.9.9.9"), ip("2620:fe::fe")])],
        internal_domains: vec!["corp.test".into()],
        search_domains: vec!["corp.test".into()],
    }
}

fn pref64() -> Ipv6Net {
    "64:ff9b::/96".parse().expect("a prefix")
}

/// The relay tells name servers and NAT64 behind the routes that lead there; clients may do the same.
// spec: cidns-3.4-a, cidns-3.5-a, cidns-4.1-a, cidns-5-b
#[test]
fn name_servers_and_nat64_are_told_both_ways() {
    for topology in [Topology::Direct, Topology::Chained(Carrier::H2)] {
        let mut scene = scene(Carrier::H3, topology, Scope::default(), |settings| {
            settings.dns = vec![dns()];
            settings.pref64 = vec![pref64()];
        });
        scene.opened("dns");
        scene.sim.run_for(secs(1));
        let heard = &scene.sim.tunnel(scene.client, scene.tunnel).ip;
        let at = |wanted: &IpEvent| heard.iter().position(|event| event == wanted);
        let routes = at(&IpEvent::Routes(everything())).expect("routes");
        let servers = at(&IpEvent::Dns(vec![dns()])).expect("name servers");
        assert!(routes < servers, "{heard:?}");
        assert!(at(&IpEvent::Pref64(vec![pref64()])).is_some());
        // The other way nobody believes it, and nobody minds.
        let (client, tunnel) = (scene.client, scene.tunnel);
        scene.sim.act(client, |node, net| {
            let (now, end) = (net.now, (tunnel, End::Downstream));
            let world = &mut net.world(client);
            let told = node.machine.ip_assign_dns(now, end, vec![dns()], world);
            assert_eq!(told, Ok(()));
            let told = node
                .machine
                .ip_assign_pref64(now, end, vec![pref64()], world);
            assert_eq!(told, Ok(()));
        });
        scene.sim.run_for(secs(1));
        assert!(scene.sim.tunnel(client, tunnel).is_open());
    }
}

/// A user cannot send in the tunnel's name what the tunnel says by itself.
#[test]
fn the_capsules_of_the_tunnel_are_its_own() {
    let mut scene = Scene::direct(Carrier::H2);
    let (client, tunnel) = (scene.client, scene.tunnel);
    for kind in [0, 1, 2, 3, 0x1ace_79ec, 0x274c_0fbc] {
        let sent = scene.sim.act(client, |node, _| {
            let (now, kind) = (clock::now(), CapsuleType(kind));
            node.machine
                .send_capsule(now, tunnel, End::Downstream, kind, b"")
        });
        assert!(matches!(sent, CapsuleSent::Reserved(_)), "{kind}: {sent:?}");
    }
}

/// Whoever shows the same credentials gets the same address again, and nobody else does.
#[test]
fn an_address_is_kept_for_a_user() {
    for is_known in [true, false] {
        let addresses = addresses_of_two_visits(is_known);
        assert!(!addresses[0].is_empty());
        assert_eq!(addresses[0] == addresses[1], is_known, "{addresses:?}");
    }
}

fn addresses_of_two_visits(is_known: bool) -> Vec<Vec<AssignedAddress>> {
    let mut sim = Sim::new(21);
    let gateway = with_gateway(|_| {});
    sim.relay_with("egress.test", &[], |settings| {
        gateway(settings);
        settings.auth = is_known.then(crate::auth::auth);
    });
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let mut hop = hop_on("egress.test", &[Carrier::H3]);
        hop.credentials =
            Some(Credentials::parse("bearer:sesame", |_| unreachable!()).expect("credentials"));
        let client = sim.client_with_hops(vec![hop], |_| {});
        let tunnel = open(&mut sim, client, Scope::default());
        sim.run_for(secs(2));
        let heard = &sim.tunnel(client, tunnel).ip;
        let assigned = heard.iter().find_map(|event| {
            let IpEvent::Assigned(list) = event else {
                return None;
            };
            Some(list.clone())
        });
        addresses.push(assigned.unwrap_or_default());
        sim.act(client, |node, net| {
            let now = net.now;
            node.machine
                .close_local(now, tunnel, &mut net.world(client));
        });
        sim.run_for(secs(2));
    }
    addresses
}

/// TCP is told at once what fits, in both directions.
#[test]
fn segment_sizes_are_clamped() {
    let mut scene = Scene::direct(Carrier::H3);
    let own = scene.address();
    let syn = |from, to| {
        let mut syn = BytesMut::from(&packet(from, to, 6, 44)[..]);
        // Data offset 6, SYN, and the option Maximum Segment Size of 1,460.
        syn[32] = 0x60;
        syn[33] = 0x02;
        syn[40..44].copy_from_slice(&[2, 4, 0x05, 0xb4]);
        syn.freeze()
    };
    let mss = |packet: &[u8]| u16::from_be_bytes([packet[42], packet[43]]);
    scene.send(syn(own, ip(WORLD)));
    let out = mss(scene.left().last().expect("a packet"));
    scene.inject(&syn(ip(WORLD), own));
    let back = mss(scene.received().last().expect("a packet"));
    assert!((1_240..1_460).contains(&out), "{out}");
    assert!((1_240..1_460).contains(&back), "{back}");
}

/// Packets find the worker that has the tunnel, whichever they come to.
#[test]
fn packets_cross_workers() {
    let mut sim = Sim::new(22);
    let gateway = (Arc::new(gateway_settings()), pools());
    let workers = sim.workers_with("egress.test", 4, |settings| {
        settings.gateway = Some(gateway.clone());
    });
    for round in 0..4 {
        let client = sim.client(&["egress.test"]);
        let tunnel = open(&mut sim, client, Scope::default());
        sim.run_for(secs(2));
        let heard = &sim.tunnel(client, tunnel).ip;
        let own = heard.iter().find_map(|event| {
            let IpEvent::Assigned(list) = event else {
                return None;
            };
            Some(list[0].prefix.addr())
        });
        let own = own.expect("an address");
        for worker in &workers {
            let bytes = packet(ip(WORLD), own, UDP, 100);
            sim.act(*worker, |node, net| {
                let now = net.now;
                let bytes = BytesMut::from(&bytes[..]);
                node.machine
                    .handle_packet(now, bytes, &mut net.world(*worker));
            });
        }
        sim.run_for(secs(1));
        assert_eq!(
            sim.tunnel(client, tunnel).payloads.len(),
            4,
            "client {round}"
        );
    }
    let forwarded: u64 = workers
        .iter()
        .map(|it| sim.stats(*it).strays_forwarded)
        .sum();
    assert!(forwarded >= 12, "{forwarded}");
}
