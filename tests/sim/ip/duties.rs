//! What holds on every carrier and every way to the egress: the size that IPv6 promises, no waiting for more packets,
//! an end for tunnels that nobody uses.

use crate::net::Link;
use crate::sim::ms;

use super::*;

/// The packets of IPv6's smallest MTU between the client and the world, there and back, for each of its addresses.
/// Whether all have arrived after a while of trying.
fn full_packets_pass(scene: &mut Scene) -> bool {
    let owns = scene.assigned();
    owns.iter().zip([WORLD, WORLD_V6]).all(|(own, world)| {
        let (own, world) = (own.prefix.addr(), ip(world));
        let there = packet(own, world, UDP, 1_280);
        let back = packet(world, own, UDP, 1_280);
        // QUIC needs some losses to notice that a path carries less than it did.
        (0..60).any(|_| {
            scene.send(there.clone());
            scene.inject(&back);
            scene.left().contains(&there) && scene.received().contains(&back)
        })
    })
}

/// A link that is too narrow for a QUIC datagram of 1,280 bytes, next to the client or behind the first relay: they
/// pass all the same, so nobody has to ask with an echo whether they do. QUIC's smallest packets pass in a tunnel.
// spec: 9484-7.2-f, 9484-7.2-g
#[test]
fn the_smallest_mtu_of_ipv6_passes_on_narrow_paths() {
    let narrow = Link {
        mtu: 1_260,
        ..Link::default()
    };
    for (carrier, topology) in every_way() {
        for is_first in [true, false] {
            let mut parties = parties(carrier, topology, |_| {});
            let (client, first, egress) = (parties.client, parties.first, parties.egress);
            let (from, to) = if is_first {
                (client, first)
            } else {
                (first, egress)
            };
            if from == to {
                continue;
            }
            parties.sim.net.set_link(from, to, narrow);
            let mut scene = Scene::open(parties, Scope::default());
            let what = format!("{carrier} {topology:?}, first {is_first}");
            scene.opened(&what);
            assert!(full_packets_pass(&mut scene), "{what}");
        }
    }
}

/// A packet leaves as soon as it has come: nothing waits for company, and those of one turn arrive together.
// spec: 9484-10-a
#[test]
fn packets_do_not_wait_for_each_other() {
    for (carrier, topology) in every_way() {
        let what = format!("{carrier} {topology:?}");
        let mut scene = scene(carrier, topology, Scope::default(), |_| {});
        scene.opened(&what);
        let (client, tunnel) = (scene.client, scene.tunnel);
        let own = scene.address();
        let links = match topology {
            Topology::Direct => 1,
            Topology::Chained(_) | Topology::Nested(_) => 2,
        };
        // What the links take, and next to nothing in the machines.
        let limit = scene.sim.net.link.delay * links + ms(1);
        for turn in 0..20 {
            let lens = if turn % 2 == 0 { 200..=200 } else { 200..=201 };
            let out: Vec<_> = lens.map(|len| packet(own, ip(WORLD), UDP, len)).collect();
            let before = scene.left().len();
            scene.sim.act(client, |node, net| {
                let now = net.now;
                let world = &mut net.world(client);
                for packet in &out {
                    node.machine.send_local(now, tunnel, packet.clone(), world);
                }
            });
            scene.sim.run_for(limit);
            assert_eq!(scene.left()[before..], out, "{what}, turn {turn}");
            scene.sim.run_for(ms(7));
        }
    }
}

/// A tunnel that nobody uses ends in order at last, and its addresses are free again.
// spec: 9484-4.1-e
#[test]
fn an_idle_tunnel_ends_in_order() {
    let idle = secs(60);
    for carrier in Carrier::ALL {
        let mut sim = Sim::new(9);
        let egress = sim.relay_with("egress.test", &[], |settings| {
            with_gateway(|_| {})(settings);
            settings.checked.timeouts.tcp_idle = idle;
        });
        let client = sim.client_with_hops(vec![hop_on("egress.test", &[carrier])], |_| {});
        let tunnel = open(&mut sim, client, Scope::default());
        let mut scene = Scene {
            sim,
            client,
            egress,
            tunnel,
        };
        scene.opened("idle");
        scene.sim.run_for(idle / 2);
        scene.send(packet(scene.address(), ip(WORLD), UDP, 100));
        scene.sim.run_for(idle - secs(2));
        assert!(scene.sim.tunnel(client, tunnel).is_open(), "{carrier}");
        scene.sim.run_for(secs(3));
        let reason = scene.sim.tunnel(client, tunnel).reason;
        let ended = Closed::Aborted {
            abort: Abort::UpstreamClosed,
            code: None,
        };
        assert_eq!(reason, Some(ended), "{carrier}");
        assert_eq!(scene.sim.stats(scene.egress).tunnels_idle, 1, "{carrier}");
        let events = scene.sim.node(scene.egress).gateway.iter();
        let released = events.filter(|it| matches!(it, GatewayEvent::Released(..)));
        assert_eq!(released.count(), 2, "{carrier}");
    }
}
