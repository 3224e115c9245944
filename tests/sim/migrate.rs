//! Addresses that change under a connection, and packets that reach the wrong worker.

use std::net::{IpAddr, SocketAddr};

use bauta::tunnel::TunnelId;

use crate::net::NodeId;
use crate::sim::{Sim, assert_same, ms, numbers, payload, secs};

/// Sends so many numbered datagrams, one every two milliseconds.
fn talk(sim: &mut Sim, client: NodeId, tunnel: TunnelId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        sim.send(client, tunnel, payload(number, 200));
        sim.run_for(ms(2));
    }
    sim.run_for(ms(200));
}

fn rebind(sim: &mut Sim, node: NodeId, public: SocketAddr) {
    let socket = sim.node(node).dialler;
    sim.net.rebind(socket, public);
}

// spec: 9000-9-b, 9000-9.3-a, 9000-9-f
#[test]
fn a_client_behind_a_new_address_goes_on() {
    for route in [&["egress.test"][..], &["ingress.test", "egress.test"]] {
        let mut sim = Sim::new(101);
        let ingress = sim.relay("ingress.test", &[]);
        let egress = sim.relay("egress.test", &[]);
        let client = sim.client(route);
        let target = sim.host("target.test", 7, true);
        let tunnel = sim.open_now(client, "target.test:7");
        talk(&mut sim, client, tunnel, 0..100);
        // A new port, a new host, and back to where it came from.
        let moves = [
            ([198, 51, 100, 3], 40_001),
            ([198, 51, 100, 77], 40_002),
            ([198, 51, 100, 3], 40_001),
        ];
        for (step, public) in (1..).zip(moves) {
            rebind(&mut sim, client, SocketAddr::from(public));
            let first = step * 1000;
            // What answers take is lost until the relay has heard from the new address.
            talk(&mut sim, client, tunnel, first..first + 100);
            talk(&mut sim, client, tunnel, first + 100..first + 200);
            let expected: Vec<_> = (first + 100..first + 200).collect();
            let there = numbers(&sim.target(target).payloads());
            let back = numbers(&sim.tunnel(client, tunnel).payloads);
            assert_same(&there[there.len() - 100..], &expected, "there");
            assert_same(&back[back.len() - 100..], &expected, "and back");
        }
        // Towards the target nothing was lost: the client's packets carry their connection's name.
        assert_eq!(sim.target(target).received.len(), 100 + 3 * 200);
        assert!(sim.tunnel(client, tunnel).payloads.len() > 100 + 3 * 180);
        assert_eq!(sim.connections(client), route.len());
        assert_eq!(sim.connections(egress), 1);
        assert_eq!(sim.connections(ingress), route.len() - 1);
    }
}

// spec: 9000-9-b
#[test]
fn a_relay_behind_a_new_address_goes_on() {
    let mut sim = Sim::new(102);
    let egress = sim.relay("egress.test", &[]);
    let ingress = sim.relay("ingress.test", &["egress.test"]);
    let client = sim.client(&["ingress.test"]);
    let target = sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    talk(&mut sim, client, tunnel, 0..100);
    rebind(
        &mut sim,
        ingress,
        SocketAddr::from(([192, 0, 2, 90], 40_000)),
    );
    talk(&mut sim, client, tunnel, 100..200);
    talk(&mut sim, client, tunnel, 200..300);
    let expected: Vec<_> = (0..300).collect();
    assert_same(&numbers(&sim.target(target).payloads()), &expected, "there");
    let back = numbers(&sim.tunnel(client, tunnel).payloads);
    assert_same(&back[back.len() - 100..], &expected[200..], "and back");
    assert_eq!(sim.connections(egress), 1);
}

/// Nobody without the connection's keys moves it: packets from elsewhere that do not decrypt change nothing.
// spec: 9000-9.3-a, 9000-10.3-b
#[test]
fn noise_from_elsewhere_moves_nothing() {
    let mut sim = Sim::new(103);
    let egress = sim.relay("egress.test", &[]);
    let client = sim.client(&["egress.test"]);
    let target = sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    let (to, mut rng) = (sim.address(egress), sim.net.rng.clone());
    for number in 0..200 {
        sim.send(client, tunnel, payload(number, 200));
        let noise: Vec<u8> = (0..60).map(|_| rng.next() as u8 & 0x7f | 0x40).collect();
        sim.net
            .inject(SocketAddr::from(([198, 51, 100, 99], 9)), to, noise);
        sim.run_for(ms(2));
    }
    sim.run_for(ms(200));
    let expected: Vec<_> = (0..200).collect();
    assert_same(&numbers(&sim.target(target).payloads()), &expected, "there");
    assert_same(
        &numbers(&sim.tunnel(client, tunnel).payloads),
        &expected,
        "and back",
    );
}

// spec: 9000-5.1-c, 9000-21.11-a
#[test]
fn packets_find_the_worker_that_owns_their_connection() {
    let mut sim = Sim::new(104);
    let workers = sim.workers("egress.test", 4);
    let target = sim.host("target.test", 7, true);
    let clients: Vec<_> = (0..12).map(|_| sim.client(&["egress.test"])).collect();
    let tunnels: Vec<_> = clients
        .iter()
        .map(|&client| sim.open_now(client, "target.test:7"))
        .collect();
    for round in 0..4 {
        for number in round * 50..(round + 1) * 50 {
            for (&client, &tunnel) in clients.iter().zip(&tunnels) {
                sim.send(client, tunnel, payload(number, 200));
            }
            sim.run_for(ms(2));
        }
        sim.run_for(ms(100));
        // New ports: the kernel hands the packets to other workers than before.
        for (index, &client) in clients.iter().enumerate() {
            let ip: IpAddr = sim.net.ip(client);
            rebind(
                &mut sim,
                client,
                SocketAddr::new(ip, 41_000 + round as u16 * 100 + index as u16),
            );
        }
    }
    assert_eq!(sim.target(target).received.len(), 12 * 200);
    for (&client, &tunnel) in clients.iter().zip(&tunnels) {
        assert!(sim.tunnel(client, tunnel).is_open());
        assert!(sim.tunnel(client, tunnel).payloads.len() > 180);
        assert_eq!(sim.connections(client), 1);
    }
    let connections: usize = workers.iter().map(|&worker| sim.connections(worker)).sum();
    assert_eq!(connections, 12);
    let busy = workers
        .iter()
        .filter(|worker| sim.connections(**worker) > 0)
        .count();
    assert!(busy > 1, "connections spread by chance");
    let forwarded: u64 = workers
        .iter()
        .map(|&worker| sim.stats(worker).strays_forwarded)
        .sum();
    assert!(forwarded > 500, "{forwarded}");
    assert_eq!(forwarded, sim.net.stats.strays);
}

/// A train may hold packets of several connections of one client, and of several workers.
#[test]
fn mixed_trains_are_taken_apart() {
    let mut sim = Sim::new(105);
    let workers = sim.workers("egress.test", 2);
    let target = sim.host("target.test", 7, false);
    let client = sim.raw_client();
    let (now, to) = (sim.net.now, sim.address(workers[0]));
    let count = 8;
    for _ in 0..count {
        sim.raw(client).connect(now, to, "egress.test");
    }
    sim.run_for(ms(200));
    let streams: Vec<_> = sim
        .raw(client)
        .connections
        .iter_mut()
        .map(|connection| {
            connection.open_control();
            connection.request("target.test:7")
        })
        .collect();
    sim.run_for(ms(200));
    for number in 0..100u64 {
        for (connection, stream) in sim.raw(client).connections.iter_mut().zip(&streams) {
            assert_eq!(connection.status(*stream), Some(200));
            let mut datagram = vec![0, 0];
            datagram.extend_from_slice(&payload(number, 300));
            connection.datagram(datagram);
        }
        sim.run_for(ms(2));
    }
    sim.run_for(secs(1));
    assert_eq!(sim.target(target).received.len(), 100 * count);
    let forwarded = workers
        .iter()
        .map(|&worker| sim.stats(worker).strays_forwarded);
    assert!(forwarded.sum::<u64>() > 100);
}
