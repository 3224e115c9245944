//! Datagrams that come before the tunnel is open: kept in order within bounds, or dropped and counted.

use bauta::wire::capsule::{CapsuleType, encode_head};
use bytes::Bytes;
use quinn_proto::StreamId;

use crate::net::NodeId;
use crate::raw::{RawConnection, connect_udp, frame_of, head_frame};
use crate::sim::{Sim, assert_same, ms, payload, secs};

/// A relay whose name server takes its time, and a client that does not wait for it.
struct Hasty {
    sim: Sim,
    relay: NodeId,
    target: NodeId,
    client: NodeId,
}

impl Hasty {
    fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay("egress.test", &[]);
        Self::towards(sim, relay)
    }

    fn towards(mut sim: Sim, relay: NodeId) -> Self {
        let target = sim.host("target.test", 7, false);
        sim.net.dns_delay = ms(500);
        let client = sim.raw_client();
        let (now, to) = (sim.net.now, sim.address(relay));
        sim.raw(client).connect(now, to, "egress.test");
        sim.run_for(ms(100));
        let mut hasty = Self {
            sim,
            relay,
            target,
            client,
        };
        hasty.connection().open_control();
        hasty
    }

    fn connection(&mut self) -> &mut RawConnection {
        &mut self.sim.raw(self.client).connections[0]
    }

    fn datagram(&mut self, stream: StreamId, payload: &[u8]) {
        let mut datagram = vec![stream.index() as u8, 0];
        datagram.extend_from_slice(payload);
        self.connection().datagram(datagram);
    }

    fn expect(&self, expected: &[Bytes]) {
        assert_same(
            &self.sim.target(self.target).payloads(),
            expected,
            "at the target",
        );
    }
}

fn payloads(count: u64, len: usize) -> Vec<Bytes> {
    (0..count).map(|number| payload(number, len)).collect()
}

// spec: 9298-5-j, 9298-5-i, 9298-3.1-n
#[test]
fn early_datagrams_come_first_and_in_order() {
    let mut hasty = Hasty::new(91);
    let stream = hasty.connection().request("target.test:7");
    let sent = payloads(200, 100);
    for (number, datagram) in sent.iter().enumerate() {
        hasty.datagram(stream, datagram);
        // Ten before the name is known, the rest around and after it.
        hasty.sim.run_for(if number < 10 {
            ms(1)
        } else if number == 10 {
            ms(489)
        } else {
            ms(2)
        });
        if number == 9 {
            assert_eq!(hasty.connection().status(stream), None);
            hasty.expect(&[]);
        }
    }
    hasty.sim.run_for(ms(100));
    assert_eq!(hasty.connection().status(stream), Some(200));
    hasty.expect(&sent);
    assert_eq!(hasty.sim.stats(hasty.relay).dropped_early, 0);
}

// spec: 9298-5-h, 9298-5-j
#[test]
fn what_exceeds_the_bounds_is_dropped_and_counted() {
    // Sixteen datagrams are kept.
    let mut hasty = Hasty::new(92);
    let stream = hasty.connection().request("target.test:7");
    let sent = payloads(20, 100);
    sent.iter()
        .for_each(|datagram| hasty.datagram(stream, datagram));
    hasty.sim.run_for(secs(1));
    hasty.expect(&sent[..16]);
    assert_eq!(hasty.sim.stats(hasty.relay).dropped_early, 4);

    // Or as many as 32 KiB hold; smaller ones still find room.
    let mut sim = Sim::new(93);
    let relay = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.limits.early_datagrams = 1000;
    });
    let mut hasty = Hasty::towards(sim, relay);
    let stream = hasty.connection().request("target.test:7");
    let mut sent = payloads(30, 1200);
    sent.push(payload(30, 68));
    sent.push(payload(31, 300));
    sent.push(payload(32, 300));
    sent.iter()
        .for_each(|datagram| hasty.datagram(stream, datagram));
    hasty.sim.run_for(secs(1));
    let kept = [&sent[..27], &sent[30..32]].concat();
    assert_eq!(kept.iter().map(Bytes::len).sum::<usize>(), (32 << 10));
    hasty.expect(&kept);
    assert_eq!(hasty.sim.stats(hasty.relay).dropped_early, 4);
}

// spec: 9298-5-j, map-13
#[test]
fn a_refusal_drops_them() {
    let mut hasty = Hasty::new(94);
    let stream = hasty.connection().request("nowhere.test:7");
    let other = hasty.connection().request("target.test:7");
    for datagram in payloads(10, 100) {
        hasty.datagram(stream, &datagram);
    }
    hasty.datagram(other, b"mine");
    hasty.sim.run_for(secs(1));
    assert_eq!(hasty.connection().status(stream), Some(502));
    hasty.expect(&[Bytes::from_static(b"mine")]);
    assert_eq!(hasty.sim.node(hasty.relay).machine.tunnel_count(), 1);
}

// spec: 9298-5-g, 9297-2.1-g
#[test]
fn a_datagram_may_overtake_its_request() {
    let mut hasty = Hasty::new(95);
    let sent = payloads(8, 100);
    let stream = StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, 0);
    for datagram in &sent[..5] {
        hasty.datagram(stream, datagram);
    }
    hasty.sim.run_for(ms(100));
    // The head itself comes in two pieces, with more datagrams in between.
    let head = head_frame(&connect_udp("target.test:7"));
    let opened = hasty.connection().open_bi(&head[..10]);
    assert_eq!(opened, stream);
    hasty.sim.run_for(ms(50));
    for datagram in &sent[5..] {
        hasty.datagram(stream, datagram);
    }
    hasty.sim.run_for(ms(50));
    hasty.connection().write(stream, &head[10..]);
    hasty.sim.run_for(secs(1));
    hasty.expect(&sent);
    assert_eq!(hasty.sim.hub(hasty.relay).dropped_unroutable, 0);
}

// spec: 9297-3.1-a, 9297-3.5-a, 9298-5-j
#[test]
fn early_capsules_count_like_early_datagrams() {
    let mut hasty = Hasty::new(96);
    let sent = payloads(10, 100);
    let mut bytes = head_frame(&connect_udp("target.test:7"));
    for datagram in &sent {
        let mut capsule = Vec::new();
        encode_head(
            CapsuleType::DATAGRAM,
            1 + datagram.len() as u64,
            &mut capsule,
        );
        capsule.push(0);
        capsule.extend_from_slice(datagram);
        // The borders of frames mean nothing to capsules.
        let (front, back) = capsule.split_at(40);
        bytes.extend(frame_of(0, front));
        bytes.extend(frame_of(0, back));
    }
    hasty.connection().open_bi(&bytes);
    hasty.sim.run_for(secs(1));
    hasty.expect(&sent);
}

// spec: 9298-5-j
#[test]
fn an_ingress_keeps_them_while_it_dials() {
    let mut sim = Sim::new(97);
    sim.relay("egress.test", &[]);
    let ingress = sim.relay("ingress.test", &["egress.test"]);
    let mut hasty = Hasty::towards(sim, ingress);
    let stream = hasty.connection().request("target.test:7");
    let sent = payloads(150, 100);
    for (number, datagram) in sent.iter().enumerate() {
        hasty.datagram(stream, datagram);
        // Two names have to be looked up, one after the other.
        hasty
            .sim
            .run_for(if number == 15 { ms(1100) } else { ms(2) });
    }
    hasty.sim.run_for(ms(100));
    hasty.expect(&sent);
}

#[test]
fn a_local_user_need_not_wait_either() {
    for route in [&["egress.test"][..], &["ingress.test", "egress.test"]] {
        let mut sim = Sim::new(98);
        sim.relay("ingress.test", &[]);
        sim.relay("egress.test", &[]);
        let target = sim.host("target.test", 7, false);
        let client = sim.client(route);
        let tunnel = sim.open(client, "target.test:7");
        let sent = payloads(20, 1000);
        for datagram in &sent {
            sim.send(client, tunnel, datagram.clone());
        }
        sim.run_for(secs(1));
        assert_same(
            &sim.target(target).payloads(),
            &sent[..16],
            "the first sixteen",
        );
        assert_eq!(sim.stats(client).dropped_early, 4);
    }
}
