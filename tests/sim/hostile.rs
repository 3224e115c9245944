//! A hostile client shares a worker with a good tunnel, and the good tunnel loses nothing.
//!
//! Each act ends in the code that the RFCs name and in a counter, and concerns nobody but its author: the stream, or
//! the connection, and never the worker.

use std::net::SocketAddr;

use bauta::http::h3::code::Code;
use bauta::http::h3::{frame, qpack};
use bauta::http::request::RequestHead;
use bauta::tunnel::TunnelId;
use bauta::wire::capsule::{CapsuleType, encode_head};
use bauta::wire::varint;
use quinn_proto::StreamId;

use crate::net::{Link, NodeId};
use crate::raw::{Ended, RawConnection, connect_udp, frame_of, head_frame};
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
            let _ = self.sim.send(self.good, self.tunnel, datagram);
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

const PING: u64 = 0x06;

// spec: 9114-6.2.1-b, 9114-6.2.1-c, 9114-6.2.1-d, 9114-6.2.2-a, 9114-7.2.8-b, 9297-2.1.1-b, 9204-4.3-a, 9204-4.4-a
// spec: 9204-4.2-a, 9204-4.2-b
#[test]
fn broken_unidirectional_streams_end_the_connection() {
    type Act = fn(&mut RawConnection);
    let acts: &[(&str, Code, Act)] = &[
        ("no SETTINGS", Code::H3_MISSING_SETTINGS, |hostile| {
            hostile.open_uni(&[&[0][..], &frame_of(0x21, b"grease")].concat());
        }),
        (
            "two control streams",
            Code::H3_STREAM_CREATION_ERROR,
            |hostile| {
                hostile.open_control();
                hostile.open_control();
            },
        ),
        (
            "a control stream that ends",
            Code::H3_CLOSED_CRITICAL_STREAM,
            |hostile| {
                let control = hostile.open_control();
                hostile.finish(control);
            },
        ),
        (
            "an encoder stream that ends",
            Code::H3_CLOSED_CRITICAL_STREAM,
            |hostile| {
                let encoder = hostile.open_uni(&[2]);
                hostile.finish(encoder);
            },
        ),
        ("a push stream", Code::H3_STREAM_CREATION_ERROR, |hostile| {
            hostile.open_uni(&[1, 0]);
        }),
        ("PING of HTTP/2", Code::H3_FRAME_UNEXPECTED, |hostile| {
            let control = hostile.open_control();
            hostile.write(control, &frame_of(PING, &[0; 8]));
        }),
        ("SETTINGS twice", Code::H3_FRAME_UNEXPECTED, |hostile| {
            let control = hostile.open_control();
            hostile.write(control, &frame_of(frame::SETTINGS, &[]));
        }),
        (
            "DATA on the control stream",
            Code::H3_FRAME_UNEXPECTED,
            |hostile| {
                let control = hostile.open_control();
                hostile.write(control, &frame_of(frame::DATA, b"data"));
            },
        ),
        ("a Boolean of 2", Code::H3_SETTINGS_ERROR, |hostile| {
            hostile.open_uni(&[&[0][..], &frame_of(frame::SETTINGS, &[0x33, 2])].concat());
        }),
        ("SETTINGS that are cut", Code::H3_FRAME_ERROR, |hostile| {
            hostile.open_uni(&[&[0][..], &frame_of(frame::SETTINGS, &[0x33])].concat());
        }),
        ("a push id that shrinks", Code::H3_ID_ERROR, |hostile| {
            let control = hostile.open_control();
            hostile.write(control, &frame_of(frame::MAX_PUSH_ID, &[5]));
            hostile.write(control, &frame_of(frame::MAX_PUSH_ID, &[4]));
        }),
        (
            "a dynamic table",
            Code::QPACK_ENCODER_STREAM_ERROR,
            |hostile| {
                hostile.open_uni(&[2, 0x3f, 0x45]);
            },
        ),
        (
            "an acknowledgement of nothing",
            Code::QPACK_DECODER_STREAM_ERROR,
            |hostile| {
                hostile.open_uni(&[3, 0x01]);
            },
        ),
    ];
    let mut stage = Stage::new(31);
    for (act, code, play) in acts {
        let index = stage.connect();
        play(stage.connection(index));
        stage.expect_closed(act, index, *code);
    }
    stage.finish();
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

// spec: 9114-4.1-b, 9114-4.4-c, 9114-7.2.8-b, 9204-4.5.1-a, 9114-4.2.2-b, 9297-2.1-b, 9297-2.1-c, map-52, map-53
#[test]
fn broken_requests_and_datagrams_end_the_connection() {
    type Act = fn(&mut RawConnection, StreamId);
    let acts: &[(&str, Code, Act)] = &[
        (
            "DATA before HEADERS",
            Code::H3_FRAME_UNEXPECTED,
            |hostile, _| {
                hostile.open_bi(&frame_of(frame::DATA, b"data"));
            },
        ),
        (
            "SETTINGS on a request",
            Code::H3_FRAME_UNEXPECTED,
            |hostile, _| {
                hostile.open_bi(&frame_of(frame::SETTINGS, &[]));
            },
        ),
        (
            "PING of HTTP/2 on a tunnel",
            Code::H3_FRAME_UNEXPECTED,
            |hostile, tunnel| {
                hostile.write(tunnel, &frame_of(PING, &[0; 8]));
            },
        ),
        (
            "HEADERS on a tunnel",
            Code::H3_FRAME_UNEXPECTED,
            |hostile, tunnel| {
                hostile.write(tunnel, &head_frame(&connect_udp("victim.test:9")));
            },
        ),
        (
            "an end inside a frame",
            Code::H3_FRAME_ERROR,
            |hostile, tunnel| {
                hostile.write(tunnel, &[0, 10, 1, 2, 3]);
                hostile.finish(tunnel);
            },
        ),
        (
            "GOAWAY on a request",
            Code::H3_FRAME_UNEXPECTED,
            |hostile, _| {
                hostile.open_bi(&frame_of(frame::GOAWAY, &[0]));
            },
        ),
        (
            "a table that is not there",
            Code::QPACK_DECOMPRESSION_FAILED,
            |hostile, _| {
                hostile.open_bi(&frame_of(frame::HEADERS, &[2, 0, 0x80]));
            },
        ),
        (
            "noise for a field section",
            Code::QPACK_DECOMPRESSION_FAILED,
            |hostile, _| {
                hostile.open_bi(&frame_of(frame::HEADERS, &[0xff; 64]));
            },
        ),
        (
            "a head without end",
            Code::H3_EXCESSIVE_LOAD,
            |hostile, _| {
                let mut bytes = Vec::new();
                frame::encode_header(frame::HEADERS, 1 << 40, &mut bytes);
                hostile.open_bi(&bytes);
            },
        ),
        (
            "unknown frames without end",
            Code::H3_EXCESSIVE_LOAD,
            |hostile, tunnel| {
                let grease = frame_of(0x21, &[0; 998]);
                hostile.write_some(tunnel, &grease.repeat(120));
            },
        ),
        (
            "empty frames without end",
            Code::H3_EXCESSIVE_LOAD,
            |hostile, tunnel| {
                hostile.write_some(tunnel, &[0, 0].repeat(50_000));
            },
        ),
        (
            "an empty datagram",
            Code::H3_DATAGRAM_ERROR,
            |hostile, _| hostile.datagram(&b""[..]),
        ),
        ("half a stream id", Code::H3_DATAGRAM_ERROR, |hostile, _| {
            hostile.datagram(&b"\x80\0"[..])
        }),
        (
            "a stream id beyond all",
            Code::H3_DATAGRAM_ERROR,
            |hostile, _| {
                let mut datagram = Vec::new();
                varint::encode(1 << 60, &mut datagram);
                hostile.datagram(datagram);
            },
        ),
    ];
    let mut stage = Stage::new(32);
    for (act, code, play) in acts {
        let (index, tunnel) = stage.open();
        play(stage.connection(index), tunnel);
        stage.expect_closed(act, index, *code);
    }
    stage.finish();
}

fn capsule(ty: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_head(CapsuleType(ty), value.len() as u64, &mut bytes);
    bytes.extend_from_slice(value);
    bytes
}

fn data(bytes: &[u8]) -> Vec<u8> {
    frame_of(frame::DATA, bytes)
}

// spec: 9297-3.3-a, 9297-3.3-b, 9297-3.3-c, 9298-5-d, 9298-5-k, 9298-5-l, map-44, map-45
#[test]
fn broken_capsules_end_their_tunnel_only() {
    type Act = fn(&mut RawConnection, StreamId);
    let acts: &[(&str, Code, Act)] = &[
        (
            "a DATAGRAM capsule of nothing",
            Code::H3_MESSAGE_ERROR,
            |hostile, tunnel| {
                hostile.write(tunnel, &data(&capsule(0, b"")));
            },
        ),
        (
            "a Context ID that is cut",
            Code::H3_MESSAGE_ERROR,
            |hostile, tunnel| {
                hostile.write(tunnel, &data(&capsule(0, b"\x40")));
            },
        ),
        (
            "an end inside a capsule",
            Code::H3_MESSAGE_ERROR,
            |hostile, tunnel| {
                hostile.write(tunnel, &data(&[0, 100, 0, 1, 2, 3]));
                hostile.finish(tunnel);
            },
        ),
        (
            "an end inside a capsule's type",
            Code::H3_MESSAGE_ERROR,
            |hostile, tunnel| {
                hostile.write(tunnel, &data(&[0x80, 1]));
                hostile.finish(tunnel);
            },
        ),
        (
            "a payload too long by one",
            Code::H3_DATAGRAM_ERROR,
            |hostile, tunnel| {
                hostile.write(tunnel, &data(&capsule(0, &[0; 1 + 65_528])));
            },
        ),
        (
            "a payload too long by far",
            Code::H3_DATAGRAM_ERROR,
            |hostile, tunnel| {
                // The head is enough: what follows never becomes a datagram.
                let mut bytes = Vec::new();
                encode_head(CapsuleType::DATAGRAM, 1 << 40, &mut bytes);
                bytes.push(0);
                hostile.write(tunnel, &data(&bytes));
            },
        ),
    ];
    let mut stage = Stage::new(33);
    let (index, spared) = stage.open();
    for (act, code, play) in acts {
        let before = stage.sim.stats(stage.relay);
        let tunnel = stage.connection(index).request("victim.test:9");
        stage.run(40);
        assert_eq!(stage.connection(index).status(tunnel), Some(200));
        play(stage.connection(index), tunnel);
        stage.run(60);
        let ended = Ended {
            reset: Some(*code),
            stopped: Some(*code),
            finished: false,
        };
        let found = stage.connection(index).ended(tunnel);
        // A stream that has ended cannot be stopped any more.
        let stopped = found.stopped.or(ended.stopped);
        assert_eq!(Ended { stopped, ..found }, ended, "{act}");
        let after = stage.sim.stats(stage.relay);
        assert_eq!(
            after.tunnels_misbehaved,
            before.tunnels_misbehaved + 1,
            "{act}"
        );
        assert_eq!(after.tunnels_ended, before.tunnels_ended + 1, "{act}");
    }
    assert_eq!(stage.connection(index).lost, None);
    assert_eq!(stage.connection(index).ended(spared), Ended::default());
    assert_eq!(stage.sim.node(stage.relay).machine.tunnel_count(), 2);
    stage.finish();
}

/// Name and value of a field line.
type Line = (&'static [u8], &'static [u8]);

// spec: 9114-4.1.2-a, 9114-4.3-a, 9114-4.3.1-a, 9114-4.4-a, 9297-3.2-f, map-4
#[test]
fn malformed_requests_are_reset() {
    let mut lines: Vec<(&str, Vec<Line>)> = Vec::new();
    let good: Vec<Line> = vec![
        (b":method", b"CONNECT"),
        (b":protocol", b"connect-udp"),
        (b":scheme", b"https"),
        (b":authority", b"egress.test"),
        (b":path", b"/.well-known/masque/udp/victim.test/9/"),
    ];
    let with = |name: &'static [u8], value: &'static [u8]| {
        let mut lines = good.clone();
        lines.push((name, value));
        lines
    };
    lines.push(("nothing", Vec::new()));
    lines.push(("no path", good[..4].to_vec()));
    lines.push(("a path twice", with(b":path", b"/")));
    lines.push(("a pseudo-header that is none", with(b":status", b"200")));
    lines.push(("upper case", with(b"Capsule-Protocol", b"?1")));
    lines.push(("a line break", with(b"x", b"a\r\nb")));
    lines.push(("connection", with(b"connection", b"upgrade")));
    lines.push(("two hosts", with(b"host", b"other.test")));
    lines.push(("user information", {
        let mut lines = good.clone();
        lines[3].1 = b"me@egress.test";
        lines
    }));
    let mut stage = Stage::new(34);
    let index = stage.greet();
    for (act, lines) in lines {
        let before = stage.sim.stats(stage.relay);
        let mut section = Vec::new();
        qpack::encode(
            lines.iter().map(|&(name, value)| (name, value, false)),
            &mut section,
        );
        let stream = stage
            .connection(index)
            .open_bi(&frame_of(frame::HEADERS, &section));
        stage.run(30);
        assert_eq!(
            stage.connection(index).ended(stream).reset,
            Some(Code::H3_MESSAGE_ERROR),
            "{act}"
        );
        let after = stage.sim.stats(stage.relay);
        assert_eq!(
            after.requests_malformed,
            before.requests_malformed + 1,
            "{act}"
        );
        assert_eq!(after.requests, before.requests, "{act}");
    }
    assert_eq!(stage.connection(index).lost, None);
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
        (RequestHead::classic_connect("victim.test:9"), 501),
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
    let deaf = Link {
        loss: 1.0,
        ..Link::default()
    };
    stage.sim.net.set_one_way(stage.relay, stage.hostile, deaf);
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
