//! Messages that break the rules, one by one: each has its code, and concerns its stream or its connection.

use bauta::http::h3::code::Code;
use bauta::http::h3::{frame, qpack};
use bauta::wire::capsule::{CapsuleType, encode_head};
use bauta::wire::varint;
use quinn_proto::StreamId;

use super::Stage;
use crate::raw::{Ended, RawConnection, connect_udp, frame_of, head_frame};

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

// spec: 9114-4.1.2-a, 9114-4.3-a, 9114-4.3.1-a, 9114-4.4-a, 9297-3.2-f, map-4
#[test]
fn malformed_requests_are_reset() {
    type Lines = Vec<(&'static [u8], &'static [u8])>;
    let good: Lines = vec![
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
    let with_user = {
        let mut lines = good.clone();
        lines[3].1 = b"me@egress.test";
        lines
    };
    let acts = [
        ("nothing", Vec::new()),
        ("no path", good[..4].to_vec()),
        ("a path twice", with(b":path", b"/")),
        ("a pseudo-header that is none", with(b":status", b"200")),
        ("upper case", with(b"Capsule-Protocol", b"?1")),
        ("a line break", with(b"x", b"a\r\nb")),
        ("connection", with(b"connection", b"upgrade")),
        ("two hosts", with(b"host", b"other.test")),
        ("user information", with_user),
    ];
    let mut stage = Stage::new(34);
    let index = stage.greet();
    for (act, lines) in acts {
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
