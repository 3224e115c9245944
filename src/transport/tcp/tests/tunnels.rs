//! Requests and tunnels over HTTP/2, between two hubs.

use ::http::{HeaderValue, StatusCode, header};
use bytes::{Bytes, BytesMut};

use super::world::{GOOD, World, extended, frame, section};
use crate::http::h3::code::Code;
use crate::http::h3::{GoAway, RecvData, RequestError, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::transport::quic::SendOutcome;
use crate::transport::tcp::{ByteLink, CloseReason, Event, LinkOutput, TcpHubLimits, TlsFailure};
use crate::transport::tls::{ClientTls, Trust, tcp_client_config};
use crate::wire::capsule::{CapsuleEvent, CapsuleReader};
use crate::wire::carrier::Carrier;

// spec: 8441-3-d, 8441-3-e, 8441-4-b, 9113-8.5-a, 9113-8.5-d
#[test]
fn a_tunnel_carries_data_both_ways_and_ends_in_each_direction() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let (stream, server_id, server_stream) = world.tunnel(id);
    let sent = world
        .client
        .hub
        .send_data(id, stream, Bytes::from_static(b"to the target"));
    assert_eq!(sent, SendData::Written);
    world.client.hub.finish(id, stream);
    world.run();
    assert!(matches!(world.server.event(), Event::Readable { stream } if stream == server_stream));
    let (data, end) = world.server.read_all(world.now, server_id, server_stream);
    assert_eq!(
        (&data[..], end),
        (&b"to the target"[..], RecvData::Finished)
    );
    let sent = world
        .server
        .hub
        .send_data(server_id, server_stream, Bytes::from_static(b"back"));
    assert_eq!(sent, SendData::Written);
    world.server.hub.finish(server_id, server_stream);
    world.run();
    let (data, end) = world.client.read_all(world.now, id, stream);
    assert_eq!((&data[..], end), (&b"back"[..], RecvData::Finished));
    let again = world.client.hub.recv_data(world.now, id, stream, 1);
    assert_eq!(again, RecvData::Gone);
}

// spec: 9113-8.5-a
#[test]
fn classic_connect_has_an_authority_only() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let mut head = RequestHead::classic_connect("target.example:443");
    let secret = HeaderValue::from_static("Basic eDp5");
    head.headers.insert(header::PROXY_AUTHORIZATION, secret);
    world.ask(id, &head);
}

#[test]
fn datagrams_travel_as_capsules_and_never_in_parts() {
    let mut world = World::new();
    world.net.capacity = 8 * 1024;
    let id = world.connect(Carrier::H2);
    let (stream, server_id, server_stream) = world.tunnel(id);
    world.client.hub.bind(id, stream, 7);
    let mut reader = CapsuleReader::new(70_000);
    let mut received = Vec::new();
    let mut outcomes = Vec::new();
    for round in 0..200u8 {
        for size in [1, 1200, 60_000] {
            let payload = vec![round; size];
            outcomes.push(world.client.hub.send_datagram(id, stream, &payload));
        }
    }
    assert!(outcomes.contains(&SendOutcome::Sent) && outcomes.contains(&SendOutcome::Queued));
    assert!(world.client.hub.is_waiting(id, stream));
    assert!(world.client.hub.stats.tcp_dropped_queue_full > 0);
    for _ in 0..2000 {
        world.run();
        let (data, end) = world.server.read_all(world.now, server_id, server_stream);
        assert_eq!(end, RecvData::Blocked);
        if data.is_empty() {
            break;
        }
        let mut data = Bytes::from(data);
        while let Some(event) = reader.read(&mut data) {
            match event {
                CapsuleEvent::Datagram(payload) => {
                    assert_eq!(payload[0], 0);
                    assert!(payload[1..].iter().all(|&byte| byte == payload[1]));
                    received.push(payload.len() - 1);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(!world.client.hub.is_waiting(id, stream));
    let stats = &world.client.hub.stats;
    assert_eq!(received.len() as u64, stats.tcp_capsules_sent);
    assert_eq!(
        stats.tcp_capsules_sent + stats.tcp_dropped_queue_full,
        600,
        "{stats:?}"
    );
    let too_large = vec![0; 65_528];
    let outcome = world.client.hub.send_datagram(id, stream, &too_large);
    assert_eq!(outcome, SendOutcome::TooLarge);
}

#[test]
fn who_does_not_read_stops_the_sender_and_only_that_stream() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let (slow, server_id, slow_there) = world.tunnel(id);
    let (fast, _, fast_there) = world.tunnel(id);
    let mut sent = 0;
    for _ in 0..1000 {
        let room = world.client.hub.send_room(id, slow);
        if room == 0 {
            break;
        }
        let data = Bytes::from(vec![7; room]);
        assert_eq!(
            world.client.hub.send_data(id, slow, data),
            SendData::Written
        );
        sent += room;
        world.run();
        world.client.events.clear();
    }
    // One window of the stream, and one queue of the sender.
    assert!((1 << 20..2 << 20).contains(&sent), "{sent}");
    let blocked = world
        .client
        .hub
        .send_data(id, slow, Bytes::from_static(b"x"));
    assert_eq!(blocked, SendData::Blocked);
    let data = Bytes::from_static(b"in time");
    assert_eq!(
        world.client.hub.send_data(id, fast, data),
        SendData::Written
    );
    world.run();
    let (data, _) = world.server.read_all(world.now, server_id, fast_there);
    assert_eq!(data, b"in time");
    let mut read = 0;
    while read < sent {
        let (data, end) = world.server.read_all(world.now, server_id, slow_there);
        assert!(!data.is_empty() && end == RecvData::Blocked);
        read += data.len();
        world.run();
    }
    assert_eq!(read, sent);
    assert!(world.server.hub.stats.tcp_streams_stalled > 0);
    let writable = world
        .client
        .events
        .iter()
        .any(|(_, event)| matches!(event, Event::Writable { stream } if *stream == slow));
    assert!(writable);
    assert!(world.client.hub.send_room(id, slow) > 0);
}

// spec: 9113-8.5-f
#[test]
fn resets_carry_their_code() {
    for code in [
        Code::H3_CONNECT_ERROR,
        Code::H3_REQUEST_CANCELLED,
        Code::H3_REQUEST_REJECTED,
        Code::H3_NO_ERROR,
    ] {
        let mut world = World::new();
        let id = world.connect(Carrier::H2);
        let (stream, server_id, server_stream) = world.tunnel(id);
        world.server.hub.reset(server_id, server_stream, code);
        world.run();
        match world.client.event() {
            Event::Reset {
                stream: of,
                code: seen,
            } => assert_eq!((of, seen), (stream, code)),
            other => panic!("{other:?}"),
        }
        let sent = world
            .client
            .hub
            .send_data(id, stream, Bytes::from_static(b"x"));
        assert_eq!(sent, SendData::Gone);
        let (stream, _, server_stream) = world.ask(id, &extended());
        world.client.hub.reset(id, stream, code);
        world.run();
        match world.server.event() {
            Event::Reset { stream, code: seen } => {
                assert_eq!((stream, seen), (server_stream, code));
            }
            other => panic!("{other:?}"),
        }
    }
}

// spec: 9113-8.1.1-a
#[test]
fn a_refusal_is_the_end_of_a_stream() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let (stream, server_id, server_stream) = world.ask(id, &extended());
    let answer = ResponseHead::new(StatusCode::FORBIDDEN);
    assert!(
        world
            .server
            .hub
            .respond(server_id, server_stream, &answer, true)
    );
    assert!(
        !world
            .server
            .hub
            .respond(server_id, server_stream, &answer, true)
    );
    world.run();
    match world.client.event() {
        Event::Response { stream: of, head } => {
            assert_eq!((of, head.status), (stream, StatusCode::FORBIDDEN));
        }
        other => panic!("{other:?}"),
    }
    // No RST_STREAM behind it, which some clients take for a failure.
    let reset = |(_, event): &(_, Event)| matches!(event, Event::Reset { .. });
    assert!(!world.client.events.iter().any(reset));
}

#[test]
fn stopping_discards_and_gives_the_credit_back() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let (stream, server_id, server_stream) = world.tunnel(id);
    world
        .server
        .hub
        .stop(server_id, server_stream, Code::H3_NO_ERROR);
    let mut sent = 0;
    while sent < 5 << 20 {
        let room = world.client.hub.send_room(id, stream);
        assert!(room > 0, "{sent}");
        let data = Bytes::from(vec![7; room]);
        world.client.hub.send_data(id, stream, data);
        sent += room;
        world.run();
    }
    world.server.hub.finish(server_id, server_stream);
    world.run();
    let (_, end) = world.client.read_all(world.now, id, stream);
    assert!(
        matches!(end, RecvData::Finished | RecvData::Gone),
        "{end:?}"
    );
}

#[test]
fn requests_beyond_the_peers_bound_wait_for_a_stream() {
    let mut world = World::with(TcpHubLimits {
        streams_max: 2,
        ..TcpHubLimits::default()
    });
    let id = world.connect(Carrier::H2);
    let (first, ..) = world.tunnel(id);
    world.tunnel(id);
    let refused = world.client.hub.request(id, &extended());
    assert_eq!(refused, Err(RequestError::StreamsExhausted));
    world
        .client
        .hub
        .reset(id, first, Code::H3_REQUEST_CANCELLED);
    world.run();
    assert!(matches!(world.client.event(), Event::StreamsAvailable));
    world.server.events.clear();
    world.tunnel(id);
}

// spec: 9113-6.8-a, 9113-6.8-b
#[test]
fn a_server_that_goes_away_lets_open_tunnels_end() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let (stream, server_id, server_stream) = world.tunnel(id);
    world.server.hub.goaway(world.now, server_id, GoAway::Soft);
    world.run();
    assert!(matches!(world.client.event(), Event::GoAway));
    let refused = world.client.hub.request(id, &extended());
    assert_eq!(refused, Err(RequestError::GoingAway));
    let data = Bytes::from_static(b"still open");
    world.client.hub.send_data(id, stream, data);
    world.client.hub.finish(id, stream);
    world.run();
    let (data, end) = world.server.read_all(world.now, server_id, server_stream);
    assert_eq!((&data[..], end), (&b"still open"[..], RecvData::Finished));
    let data = Bytes::from_static(b"and the answer");
    world.server.hub.send_data(server_id, server_stream, data);
    world.server.hub.finish(server_id, server_stream);
    world.client.reads = Some((Vec::new(), RecvData::Blocked));
    world.run();
    // The end of the connection came in the same turn.
    let (data, end) = world.client.reads.take().unwrap();
    assert_eq!(
        (&data[..], end),
        (&b"and the answer"[..], RecvData::Finished)
    );
    assert_eq!(world.server.closed(), CloseReason::Peer(Code::H3_NO_ERROR));
    world.run();
    assert_eq!(world.server.hub.connection_count(), 0);
}

// spec: 9113-8.5-d
#[test]
fn an_orderly_end_waits_for_slow_readers() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let (stream, server_id, server_stream) = world.tunnel(id);
    world.client.hub.finish(id, stream);
    world.run();
    let (_, end) = world.server.read_all(world.now, server_id, server_stream);
    assert_eq!(end, RecvData::Finished);
    world.server.hub.goaway(world.now, server_id, GoAway::Soft);
    let data = Bytes::from(vec![5; 100_000]);
    world.server.hub.send_data(server_id, server_stream, data);
    world.server.hub.finish(server_id, server_stream);
    world.run();
    assert_eq!(world.server.closed(), CloseReason::Peer(Code::H3_NO_ERROR));
    assert!(world.client.hub.is_open(id));
    let mut read = 0;
    while let RecvData::Data(data) = world.client.hub.recv_data(world.now, id, stream, 10_000) {
        read += data.len();
        assert!(world.client.hub.is_open(id));
        world.run();
    }
    assert_eq!(read, 100_000);
    world.run();
    assert_eq!(world.client.closed(), CloseReason::Peer(Code::H3_NO_ERROR));
    world.run();
    assert_eq!(world.client.hub.connection_count(), 0);
}

// spec: 9113-6.8-a, 9113-8.7-a
#[test]
fn requests_that_a_server_did_not_process_may_be_retried() {
    let mut world = World::new();
    let id = world.connect(Carrier::H2);
    let server_id = world.server.hub.connections().next().unwrap();
    // The request crosses the GOAWAY.
    let stream = world.client.hub.request(id, &extended()).unwrap();
    world
        .server
        .hub
        .close(world.now, server_id, Code::H3_NO_ERROR);
    world.run();
    let reset = world
        .client
        .events
        .iter()
        .find_map(|(_, event)| match event {
            Event::Reset { stream, code } => Some((*stream, *code)),
            _ => None,
        });
    assert_eq!(reset, Some((stream, Code::H3_REQUEST_REJECTED)));
    assert_eq!(world.client.closed(), CloseReason::Peer(Code::H3_NO_ERROR));
}

#[test]
fn a_close_tells_the_peer_and_leaves_nothing() {
    for by_server in [true, false] {
        let mut world = World::new();
        let id = world.connect(Carrier::H2);
        let (stream, server_id, server_stream) = world.tunnel(id);
        world.client.hub.bind(id, stream, 11);
        world.server.hub.bind(server_id, server_stream, 12);
        let now = world.now;
        if by_server {
            world.server.hub.close(now, server_id, Code::H3_NO_ERROR);
        } else {
            world.client.hub.close(now, id, Code::H3_NO_ERROR);
        }
        world.run();
        for side in [&mut world.server, &mut world.client] {
            let closed = side.events.iter().rev().find_map(|(_, event)| match event {
                Event::Closed { bound, .. } => Some(bound.len()),
                _ => None,
            });
            assert_eq!(closed, Some(1));
        }
        world.run();
        assert_eq!(world.server.hub.connection_count(), 0);
        assert_eq!(world.client.hub.connection_count(), 0);
        assert!(world.net.ends.iter().all(|end| end.closed.is_some()));
    }
}

// spec: 9113-8.3.1-a
#[test]
fn malformed_requests_are_reset_and_nobody_hears_of_them() {
    let without = |name: &str| -> Vec<(&str, &str)> {
        GOOD.iter().copied().filter(|line| line.0 != name).collect()
    };
    let with = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        GOOD.iter().copied().chain([(name, value)]).collect()
    };
    let cases = [
        without(":authority"),
        without(":path"),
        without(":scheme"),
        with("content-length", "5"),
        with("connection", "upgrade"),
        with("host", "other.example"),
        vec![(":method", "CONNECT"), (":authority", "no-port.example")],
        vec![(":method", "CONNECT"), (":authority", "u@host.example:443")],
        vec![
            (":method", "CONNECT"),
            (":authority", "host.example:443"),
            (":path", "/"),
        ],
    ];
    let mut world = World::new();
    let mut raw = world.raw_h2();
    for (n, case) in cases.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        raw.send(&mut world, &frame(1, 4, stream, &section(case)));
        assert_eq!(raw.reset_of(stream), Some(1), "{case:?}");
    }
    assert!(
        world
            .server
            .events
            .iter()
            .all(|(_, event)| matches!(event, Event::Malformed))
    );
    assert!(world.server.hub.stats.tcp_malformed > 0);
    let stream = 2 * cases.len() as u32 + 1;
    world.server.events.clear();
    raw.send(&mut world, &frame(1, 4, stream, &section(GOOD)));
    let (_, _, head) = world.server.request();
    assert_eq!(*head, extended());
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_apart() {
    let mut world = World::new();
    let other = World::new();
    let id = world.dial(other.client_tls(Carrier::H2));
    world.run();
    assert!(!world.client.hub.is_open(id));
    let fault = CloseReason::Tls(TlsFailure::Certificate(
        crate::error::CertificateFault::UnknownIssuer,
    ));
    assert_eq!(world.client.closed(), fault);
    assert!(matches!(
        world.server.closed(),
        CloseReason::Tls(TlsFailure::Alert { .. })
    ));
    assert_eq!(world.server.hub.stats.tcp_handshakes_failed, 1);
}

#[test]
fn a_server_without_the_protocol_is_told_apart() {
    let mut world = World::new();
    let trust = ClientTls::new(Trust::DangerousAnybody);
    let mut tls = rustls::ClientConfig::clone(&tcp_client_config(&trust, Carrier::H2).unwrap());
    tls.alpn_protocols = vec![b"nothing".to_vec()];
    world.dial(tls.into());
    world.run();
    // no_application_protocol
    assert_eq!(
        world.client.closed(),
        CloseReason::Tls(TlsFailure::Alert { id: 120 })
    );
}

#[test]
fn a_link_that_is_a_tunnel_carries_the_same() {
    let mut world = World::new();
    let (near, far) = world.net.pair();
    world.accept(far, "192.0.2.1:5000").expect("accepted");
    let tls = world.client_tls(Carrier::H2);
    let id = world
        .client
        .hub
        .connect(world.now, ByteLink::Tunnel, tls, "localhost")
        .unwrap();
    let carry = |world: &mut World| {
        let mut finished = None;
        for _ in 0..50 {
            world.run();
            while let Some(id) = world.client.hub.next_output() {
                loop {
                    match world.client.hub.poll_output(world.now, id, 1000) {
                        LinkOutput::Bytes(bytes) => {
                            assert!(bytes.len() <= 1000);
                            use crate::net::Network;
                            let slice = std::io::IoSlice::new(&bytes);
                            world.net.write(near, &[slice]).unwrap();
                        }
                        LinkOutput::Blocked => break,
                        end @ (LinkOutput::Finished | LinkOutput::Aborted) => {
                            finished = Some(end);
                            break;
                        }
                    }
                }
            }
            let mut input = BytesMut::new();
            let room = world.client.hub.receive_room(id);
            use crate::net::{Network, TcpRead};
            if let Ok(TcpRead::Bytes(_)) = world.net.read(near, &mut input, room) {
                world.client.hub.handle_bytes(id, &input.freeze());
            }
        }
        finished
    };
    assert_eq!(carry(&mut world), None);
    assert!(matches!(
        world.client.event(),
        Event::Connected(Carrier::H2)
    ));
    let stream = world.client.hub.request(id, &extended()).unwrap();
    assert_eq!(carry(&mut world), None);
    let (server_id, server_stream, _) = world.server.request();
    let answer = ResponseHead::new(StatusCode::OK);
    world
        .server
        .hub
        .respond(server_id, server_stream, &answer, false);
    assert_eq!(carry(&mut world), None);
    assert!(matches!(world.client.event(), Event::Response { stream: of, .. } if of == stream));
    world.client.hub.close(world.now, id, Code::H3_NO_ERROR);
    assert_eq!(carry(&mut world), Some(LinkOutput::Finished));
    assert_eq!(world.client.hub.connection_count(), 0);
    let id = world
        .client
        .hub
        .connect(
            world.now,
            ByteLink::Tunnel,
            world.client_tls(Carrier::H2),
            "localhost",
        )
        .unwrap();
    world.client.hub.handle_end(id, false);
    world.client.events.clear();
    world.run();
    assert!(matches!(world.client.closed(), CloseReason::Lost(_)));
}
