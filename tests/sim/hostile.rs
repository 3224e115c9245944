//! A hostile client shares a worker with a good tunnel, and the good tunnel loses nothing.
//!
//! Each act ends in the code that the RFCs name and in a counter, and concerns nobody but its author: the stream, or
//! the connection, and never the worker.

mod broken;

use std::net::SocketAddr;

use bauta::http::h3::code::Code;
use bauta::http::h3::frame;
use bauta::http::request::RequestHead;
use bauta::tunnel::TunnelId;
use quinn_proto::StreamId;

use crate::net::{Link, NodeId};
use crate::raw::{RawConnection, connect_udp, frame_of, head_frame};
use crate::sim::{Sim, assert_same, ms, numbers, payload, secs};

/// A relay, a good client in the middle of its work, and a hostile one.
struct Stage {
    sim: Sim,
    relay: NodeId,
    good: NodeId,
    tunnel: TunnelId,
    target: NodeId,
    hostile: NodeId,
    sent: u64,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay("egress.test", &[]);
        let good = sim.client(&["egress.test"]);
        let target = sim.host("target.test", 7, true);
        sim.host("victim.test", 9, false);
        let hostile = sim.raw_client();
        let tunnel = sim.open_now(good, "target.test:7");
        let mut stage = Self {
            sim,
            relay,
            good,
            tunnel,
            target,
            hostile,
            sent: 0,
        };
        stage.run(50);
        stage
    }

    /// Time passes, and the good tunnel is busy.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            let datagram = payload(self.sent, 300);
            self.sim.send(self.good, self.tunnel, datagram);
            self.sent += 1;
            self.sim.run_for(ms(1));
        }
    }

    /// The good tunnel's datagrams all arrived, there and back.
    fn finish(mut self) {
        self.sim.run_for(secs(1));
        let expected: Vec<_> = (0..self.sent).collect();
        let there = self.sim.target(self.target).payloads();
        assert_same(&numbers(&there), &expected, "the good tunnel, there");
        let back = &self.sim.tunnel(self.good, self.tunnel).payloads;
        assert_same(&numbers(back), &expected, "the good tunnel, and back");
    }

    fn connection(&mut self, index: usize) -> &mut RawConnection {
        &mut self.sim.raw(self.hostile).connections[index]
    }

    /// A hostile connection that has done nothing wrong yet, not even SETTINGS.
    fn connect(&mut self) -> usize {
        let (now, to) = (self.sim.net.now, self.sim.address(self.relay));
        let index = self.sim.raw(self.hostile).connect(now, to, "egress.test");
        self.run(30);
        assert!(self.connection(index).connected);
        index
    }

    /// One that has a control stream.
    fn greet(&mut self) -> usize {
        let index = self.connect();
        self.connection(index).open_control();
        index
    }

    /// One that has a tunnel.
    fn open(&mut self) -> (usize, StreamId) {
        let index = self.greet();
        let stream = self.connection(index).request("victim.test:9");
        self.run(40);
        assert_eq!(self.connection(index).status(stream), Some(200));
        (index, stream)
    }

    /// The connection is closed with that code, and counted.
    fn expect_closed(&mut self, act: &str, index: usize, code: Code) {
        let before = self.sim.hub(self.relay).connections_misbehaved;
        self.run(60);
        let connection = self.connection(index);
        assert_eq!(
            connection.close_code(),
            Some(code),
            "{act}: {:?}",
            connection.lost
        );
        assert_eq!(
            self.sim.hub(self.relay).connections_misbehaved,
            before + 1,
            "{act}"
        );
        assert_eq!(
            self.sim.node(self.relay).machine.tunnel_count(),
            1,
            "{act}: the good one"
        );
    }
}

// spec: 9114-10.5-a, 9114-6.2-d, map-52
#[test]
fn grease_has_an_end() {
    let mut stage = Stage::new(42);
    let index = stage.connect();
    let control = stage.connection(index).open_control();
    let before = stage.sim.hub(stage.relay).connections_misbehaved;
    let grease = frame_of(0x21, &[0; 998]).repeat(32);
    let (mut unsent, mut written) = (Vec::new(), 0);
    // As fast as the relay gives credit.
    while stage.connection(index).lost.is_none() {
        if unsent.is_empty() {
            unsent = grease.clone();
        }
        let taken = stage.connection(index).write_some(control, &unsent);
        unsent.drain(..taken);
        written += taken;
        stage.run(1);
        assert!(written < 2 << 20, "nobody needs that much GREASE");
    }
    assert_eq!(
        stage.connection(index).close_code(),
        Some(Code::H3_EXCESSIVE_LOAD)
    );
    assert_eq!(
        stage.sim.hub(stage.relay).connections_misbehaved,
        before + 1
    );

    // Unknown streams come one after the other, each stopped.
    let index = stage.greet();
    for _ in 0..40 {
        for _ in 0..7 {
            if let Some(stream) = stage
                .connection(index)
                .quic
                .streams()
                .open(quinn_proto::Dir::Uni)
            {
                stage.connection(index).write(stream, &[0x21, 0]);
                stage.connection(index).finish(stream);
            }
        }
        stage.run(30);
    }
    assert_eq!(
        stage.connection(index).close_code(),
        Some(Code::H3_EXCESSIVE_LOAD)
    );
    stage.finish();
}

// spec: 9114-4.1-b, 9114-4.2.2-a, 9220-3-a, map-1, map-2, map-5, map-6, map-12, map-22
#[test]
fn requests_that_ask_for_too_much_are_answered() {
    let mut stage = Stage::new(35);
    let index = stage.greet();
    let mut too_large = connect_udp("victim.test:9");
    too_large
        .headers
        .insert("x-large", "x".repeat(20_000).parse().unwrap());
    let mut websocket = connect_udp("victim.test:9");
    websocket.protocol = Some("websocket".into());
    let mut elsewhere = connect_udp("victim.test:9");
    elsewhere.path = Some("/elsewhere".into());
    let mut get = connect_udp("victim.test:9");
    (get.method, get.protocol) = (http::Method::GET, None);
    let relay = stage.sim.address(stage.relay).to_string();
    let cases = [
        (too_large, 431),
        (websocket, 501),
        (elsewhere, 404),
        (get, 405),
        (connect_udp("victim.test:0"), 400),
        (connect_udp("victim.test:99999"), 400),
        (connect_udp(&relay), 508),
        (RequestHead::classic_connect("victim.test:0"), 400),
    ];
    for (head, status) in cases {
        let stream = stage.connection(index).open_bi(&head_frame(&head));
        stage.run(40);
        let hostile = stage.connection(index);
        assert_eq!(hostile.status(stream), Some(status), "{head:?}");
        assert!(hostile.ended(stream).finished, "{head:?}");
        assert_eq!(
            hostile.ended(stream).stopped,
            Some(Code::H3_NO_ERROR),
            "{head:?}"
        );
    }
    let stats = stage.sim.stats(stage.relay);
    assert_eq!(
        (stats.requests_refused, stats.field_sections_refused),
        (7, 1)
    );

    let cut = &head_frame(&connect_udp("victim.test:9"))[..20];
    let stream = stage.connection(index).open_bi(&cut[..1]);
    stage.connection(index).finish(stream);
    stage.run(40);
    assert_eq!(
        stage.connection(index).close_code(),
        Some(Code::H3_FRAME_ERROR)
    );
    stage.finish();
}

// spec: 9297-2.1-f, 9297-2.1-g, 9297-2.1-i, 9298-5-a, 9298-5-g
#[test]
fn datagrams_for_nobody_are_dropped_and_counted() {
    let mut stage = Stage::new(36);
    let (index, tunnel) = stage.open();
    let before = stage.sim.hub(stage.relay).dropped_unroutable;
    // Streams that may still come: some are held for a while, the rest goes at once.
    for _ in 0..200 {
        stage.connection(index).datagram(&b"\x32\0early"[..]);
    }
    stage.run(600);
    // What is held is looked at when something comes.
    stage.connection(index).datagram(&b"\x32\0early"[..]);
    stage.run(50);
    let dropped = stage.sim.hub(stage.relay).dropped_unroutable - before;
    assert_eq!(dropped, 200, "and the last one is held");

    // Unknown contexts, and none.
    for _ in 0..100 {
        stage.connection(index).datagram(&b"\0\x02unknown"[..]);
        stage.connection(index).datagram(&b"\0"[..]);
    }
    stage.run(50);
    assert_eq!(stage.sim.stats(stage.relay).dropped_context, 200);

    // A tunnel that is over.
    stage.connection(index).finish(tunnel);
    stage.run(50);
    let before = stage.sim.hub(stage.relay).dropped_unroutable;
    for _ in 0..100 {
        stage.connection(index).datagram(&b"\0\0late"[..]);
    }
    stage.run(50);
    assert_eq!(stage.sim.hub(stage.relay).dropped_unroutable, before + 100);
    assert_eq!(stage.connection(index).lost, None);
    stage.finish();
}

#[test]
fn a_flood_of_datagrams_harms_nobody_else() {
    let mut stage = Stage::new(37);
    let (index, _) = stage.open();
    for _ in 0..300 {
        for _ in 0..30 {
            stage.connection(index).datagram(&[0; 1200][..]);
        }
        stage.run(1);
    }
    stage.run(200);
    assert!(stage.sim.stats(stage.relay).upstream_datagrams > 9_000);
    stage.finish();
}

// spec: 9298-3.1-j, 9000-4.6-b, map-49
#[test]
fn tunnels_that_are_reset_at_once_leave_nothing_behind() {
    let mut stage = Stage::new(38);
    let index = stage.greet();
    for round in 0..60 {
        for number in 0..10 {
            let target = if number % 2 == 0 {
                "victim.test:9"
            } else {
                "203.0.113.9:9"
            };
            let hostile = stage.connection(index);
            let stream = hostile.request(target);
            match (round + number) % 3 {
                0 => hostile.reset(stream, Code::H3_REQUEST_CANCELLED),
                1 => hostile.stop(stream, Code::H3_REQUEST_CANCELLED),
                _ => hostile.finish(stream),
            }
        }
        stage.run(5);
    }
    stage.run(100);
    assert_eq!(stage.connection(index).lost, None);
    assert_eq!(stage.sim.node(stage.relay).machine.tunnel_count(), 1);
    let stats = stage.sim.stats(stage.relay);
    assert_eq!(
        stats.tunnels_ended,
        stats.requests - stats.requests_refused - 1
    );
    stage.finish();
}

// spec: 9114-6.1-a, 9000-4.6-a
#[test]
fn a_client_cannot_have_more_tunnels_than_the_limit() {
    let mut stage = Stage::new(39);
    let index = stage.greet();
    let request = head_frame(&connect_udp("203.0.113.9:9"));
    let mut opened = 0;
    while let Some(stream) = stage
        .connection(index)
        .quic
        .streams()
        .open(quinn_proto::Dir::Bi)
    {
        stage.connection(index).write(stream, &request);
        opened += 1;
        if opened % 50 == 0 {
            stage.run(5);
        }
    }
    stage.run(100);
    assert_eq!(opened, 1024);
    assert_eq!(stage.sim.node(stage.relay).machine.tunnel_count(), 1025);
    stage.finish();
}

// spec: 9000-14.1-a, 9000-8-a, 9000-5.2.2-a, 9000-10.3-b
#[test]
fn noise_at_the_listener_is_ignored() {
    let mut stage = Stage::new(40);
    let to = stage.sim.address(stage.relay);
    let mut noise = stage.sim.net.rng.clone();
    let before = stage.sim.net.stats.nobody;
    let mut injected = 0;
    for _ in 0..400 {
        for _ in 0..10 {
            let len = noise.below(1400) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8).collect();
            // Half of it looks like a first packet of version 1.
            if noise.chance(0.5) && len > 30 {
                bytes[0] = 0xc0 | bytes[0] & 0x0f;
                bytes[1..5].copy_from_slice(&1u32.to_be_bytes());
                bytes[5] = 8;
                bytes[14] = 8;
            }
            let from = SocketAddr::from(([198, 51, 100, 200], noise.below(60_000) as u16 + 1));
            stage.sim.net.inject(from, to, bytes);
            injected += 1;
        }
        stage.run(1);
    }
    stage.run(50);
    let ignored = stage.sim.hub(stage.relay).packets_ignored;
    assert!(ignored > injected / 2, "{ignored} of {injected}");
    // Answers (version negotiation, resets) are rarer than what provokes them.
    let answers = stage.sim.net.stats.nobody - before;
    assert!(answers < injected / 2, "{answers} answers to {injected}");
    assert_eq!(stage.sim.connections(stage.relay), 1);
    stage.finish();
}

// spec: 9000-8.1-b, 9000-5.2.2-b
#[test]
fn handshakes_that_never_end_are_given_up() {
    let mut stage = Stage::new(41);
    // Nothing of what the relay says reaches the hostile client.
    stage
        .sim
        .net
        .set_one_way(stage.relay, stage.hostile, Link::DEAD);
    let to = stage.sim.address(stage.relay);
    for _ in 0..200 {
        let now = stage.sim.net.now;
        stage.sim.raw(stage.hostile).connect(now, to, "egress.test");
        stage.run(1);
    }
    stage.run(100);
    let hub = stage.sim.hub(stage.relay);
    assert!(
        hub.retries_sent >= 72,
        "from the 128th on: {}",
        hub.retries_sent
    );
    assert_eq!(stage.sim.connections(stage.relay), 129);
    stage.run(11_000);
    assert_eq!(stage.sim.hub(stage.relay).handshakes_timed_out, 128);
    stage.run(2_000);
    assert!(stage.sim.connections(stage.relay) <= 129);
    stage.finish();
}

// spec: 9114-4.2.2-b
#[test]
fn a_client_that_accepts_no_answer_gets_no_tunnel() {
    let mut sim = Sim::new(107);
    let egress = sim.relay("egress.test", &[]);
    sim.host("target.test", 7, true);
    let hostile = sim.raw_client();
    let (now, to) = (sim.net.now, sim.address(egress));
    let index = sim.raw(hostile).connect(now, to, "egress.test");
    sim.run_for(ms(100));
    let connection = &mut sim.raw(hostile).connections[index];
    // A control stream: MAX_FIELD_SECTION_SIZE 1, H3_DATAGRAM 1.
    let settings = frame_of(frame::SETTINGS, &[0x06, 0x01, 0x33, 0x01]);
    connection.open_uni(&[&[0x00], &settings[..]].concat());
    let stream = connection.request("target.test:7");
    sim.run_for(secs(1));
    let connection = &sim.raw(hostile).connections[index];
    assert_eq!(connection.status(stream), None);
    let reset = connection.ended(stream).reset;
    assert_eq!(reset, Some(Code::H3_REQUEST_CANCELLED));
    assert_eq!(sim.node(egress).machine.tunnel_count(), 0);
}
