//! Peers that want more than their share.

use std::time::Duration;

use bytes::Bytes;

use super::world::{GOOD, World, frame, section};
use crate::http::h3::SendData;
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::net::TcpClose;
use crate::transport::tcp::tls::Plaintext;
use crate::transport::tcp::{CloseReason, Event, TcpHubLimits};
use crate::wire::carrier::Carrier;

/// ENHANCE_YOUR_CALM.
const CALM: Option<u32> = Some(0xb);

#[test]
fn connections_are_bounded_in_all_and_for_each_client() {
    let mut world = World::with(TcpHubLimits {
        connections_max: 5,
        connections_per_address_max: 2,
        ..TcpHubLimits::default()
    });
    let mut accepted = Vec::new();
    for peer in [
        "192.0.2.1:1",
        "192.0.2.1:2",
        "192.0.2.1:3",
        "[2001:db8::1]:1",
        "[2001:db8::2]:1",
        "[2001:db8::3]:1",
        "192.0.2.2:1",
        "192.0.2.3:1",
    ] {
        let (_, far) = world.net.pair();
        accepted.push(world.accept(far, peer).is_some());
        let is_closed = world.net.end(far).closed == Some(TcpClose::Abort);
        assert_eq!(accepted.last(), Some(&!is_closed));
    }
    assert_eq!(
        accepted,
        [true, true, false, true, true, false, true, false]
    );
    let stats = &world.server.hub.stats;
    assert_eq!(stats.tcp_connections_refused, 1);
    assert_eq!(stats.tcp_connections_refused_address, 2);
    // Their places are free again when they are gone.
    let (now, id) = (world.now, world.server.hub.connections().next().unwrap());
    world.server.hub.close(now, id, Code::H3_NO_ERROR);
    world.run();
    world.pass(Duration::from_secs(2));
    let (_, far) = world.net.pair();
    assert!(world.accept(far, "192.0.2.3:1").is_some());
    world.server.hub.drain();
    let (_, far) = world.net.pair();
    assert!(world.accept(far, "192.0.2.4:1").is_none());
}

#[test]
fn a_handshake_has_to_come_to_an_end() {
    // Neither TLS nor the preface of HTTP/2 may be waited for without end.
    let mut world = World::new();
    let (_, far) = world.net.pair();
    world.accept(far, "192.0.2.1:1").unwrap();
    world.raw(Carrier::H2);
    world.run();
    world.pass(Duration::from_millis(9_999));
    assert!(world.server.events.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.server.closed(), CloseReason::HandshakeTimeout);
    assert_eq!(world.server.closed(), CloseReason::HandshakeTimeout);
    assert_eq!(world.server.hub.stats.tcp_handshakes_timed_out, 2);
    assert_eq!(world.server.hub.connection_count(), 0);
    assert_eq!(world.net.end(far).closed, Some(TcpClose::Abort));
}

#[test]
fn a_head_has_to_come_to_an_end() {
    let mut world = World::new();
    let mut raw = world.raw_h2();
    raw.send(&mut world, &frame(1, 0, 1, &section(&GOOD[..2])));
    for _ in 0..3 {
        world.pass(Duration::from_secs(3));
        raw.send(&mut world, &frame(9, 0, 1, &section(&[("a", "b")])));
    }
    assert!(world.server.events.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.server.closed(), CloseReason::HeadTimeout);
    assert_eq!(world.server.hub.stats.tcp_heads_timed_out, 1);

    let mut raw = world.raw(Carrier::H1);
    world.server.events.clear();
    raw.send(&mut world, b"GET / HTTP/1.1\r\nHos");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.server.closed(), CloseReason::HeadTimeout);
}

#[test]
fn a_connection_without_streams_is_closed() {
    let mut world = World::new();
    let mut raw = world.raw_h2();
    world.pass(Duration::from_secs(100));
    raw.send(&mut world, &frame(1, 4, 1, &section(GOOD)));
    world.server.events.clear();
    // An open stream keeps it, however quiet.
    world.pass(Duration::from_secs(1000));
    assert!(world.server.events.is_empty());
    raw.send(&mut world, &frame(3, 0, 1, &[0, 0, 0, 8]));
    assert!(matches!(
        world.server.event(),
        Event::Reset {
            code: Code::H3_REQUEST_CANCELLED,
            ..
        }
    ));
    world.pass(Duration::from_secs(119));
    assert!(world.server.events.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.server.closed(), CloseReason::IdleTimeout);
    raw.turn(&mut world);
    assert_eq!(raw.ended, Some(Plaintext::End));
    assert_eq!(raw.goaway(), Some(0));
    assert_eq!(world.server.hub.stats.tcp_idle_timed_out, 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.server.hub.connection_count(), 0);
}

// spec: 9113-10.5-a
#[test]
fn floods_of_control_frames_end_a_connection() {
    let floods: [(&str, Vec<u8>); 5] = [
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", frame(4, 0, 0, &[])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 9])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("empty DATA", frame(0, 0, 1, &[])),
    ];
    for (name, flood) in floods {
        let mut world = World::with(TcpHubLimits {
            control_frames_max: 100,
            ..TcpHubLimits::default()
        });
        let mut raw = world.raw_h2();
        raw.send(&mut world, &frame(1, 4, 1, &section(GOOD)));
        for _ in 0..20 {
            if raw.ended.is_none() {
                raw.send(&mut world, &flood.repeat(10));
            }
        }
        assert_eq!(raw.goaway(), CALM, "{name}");
        assert!(
            matches!(world.server.closed(), CloseReason::Misbehaved(error)
                if error.code == Code::H3_EXCESSIVE_LOAD),
            "{name}"
        );
        assert_eq!(world.server.hub.stats.tcp_calmed, 1, "{name}");
    }
}

// spec: 9113-10.5-a
#[test]
fn rapid_resets_end_a_connection() {
    for batch in [1, 50] {
        let mut world = World::with(TcpHubLimits {
            control_frames_max: 100,
            ..TcpHubLimits::default()
        });
        let mut raw = world.raw_h2();
        let mut stream = 1;
        for _ in 0..200 {
            let mut flood = Vec::new();
            for _ in 0..batch {
                flood.extend(frame(1, 4, stream, &section(GOOD)));
                flood.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
                stream += 2;
            }
            if raw.ended.is_none() {
                raw.send(&mut world, &flood);
            }
        }
        assert_eq!(raw.goaway(), CALM, "{batch}");
        assert_eq!(world.server.hub.stats.tcp_calmed, 1, "{batch}");
    }
}

#[test]
fn continuations_without_end_end_a_connection() {
    let mut world = World::new();
    let mut raw = world.raw_h2();
    raw.send(&mut world, &frame(1, 0, 1, &section(&GOOD[..2])));
    for _ in 0..100 {
        if raw.ended.is_none() {
            raw.send(
                &mut world,
                &frame(9, 0, 1, &section(&[("a", "b")])).repeat(100),
            );
        }
    }
    assert!(raw.ended.is_some());
    assert!(matches!(world.server.closed(), CloseReason::Misbehaved(_)));
}

#[test]
fn field_sections_beyond_their_bound_are_refused() {
    let mut world = World::with(TcpHubLimits {
        field_section_bytes: 1024,
        ..TcpHubLimits::default()
    });
    let mut raw = world.raw_h2();
    let mut lines = GOOD.to_vec();
    let value = "v".repeat(100);
    lines.extend([("x-name", &value[..]); 20]);
    raw.send(&mut world, &frame(1, 4, 1, &section(&lines)));
    assert!(world.server.events.is_empty());
    // 431 by the h2 package, or a reset.
    let answered = raw
        .frames()
        .iter()
        .any(|frame| frame.0 == 1 && frame.2 == 1);
    assert!(answered || raw.reset_of(1).is_some());
}

#[test]
fn streams_beyond_their_bound_are_refused() {
    let mut world = World::with(TcpHubLimits {
        streams_max: 2,
        ..TcpHubLimits::default()
    });
    let mut raw = world.raw_h2();
    for stream in [1, 3, 5] {
        raw.send(&mut world, &frame(1, 4, stream, &section(GOOD)));
    }
    // REFUSED_STREAM
    assert_eq!(raw.reset_of(5), Some(7));
    assert_eq!((raw.reset_of(1), raw.reset_of(3)), (None, None));
    assert_eq!(world.server.events.len(), 2);
}

#[test]
fn a_peer_that_takes_nothing_is_closed_and_costs_little_until_then() {
    let mut world = World::new();
    let mut raw = world.raw_h2();
    // A window that could take everything.
    let window = (1u32 << 30).to_be_bytes();
    raw.send(&mut world, &frame(8, 0, 0, &window));
    raw.send(&mut world, &frame(1, 4, 1, &section(GOOD)));
    raw.send(&mut world, &frame(8, 0, 1, &window));
    let (id, stream, _) = world.server.request();
    let answer = ResponseHead::new(::http::StatusCode::OK);
    assert!(world.server.hub.respond(id, stream, &answer, false));
    let mut sent = 0;
    for _ in 0..100 {
        let room = world.server.hub.send_room(id, stream);
        if room > 0 {
            let data = Bytes::from(vec![1; room]);
            let outcome = world.server.hub.send_data(id, stream, data);
            assert_eq!(outcome, SendData::Written);
            sent += room;
        }
        // The raw client reads nothing.
        world.run();
    }
    assert!(sent < 600 * 1024, "{sent}");
    assert!(world.server.hub.stats.tcp_writes_blocked > 0);
    world.server.events.clear();
    world.pass(Duration::from_secs(29));
    assert!(world.server.events.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.server.closed(), CloseReason::WriteTimeout);
    assert_eq!(world.server.hub.stats.tcp_writes_timed_out, 1);
    assert_eq!(world.server.hub.connection_count(), 0);
}

#[test]
fn a_flood_with_answers_that_nobody_takes_stays_in_tcp() {
    // PINGs want answers; without room for them nothing more is read.
    let mut world = World::with(TcpHubLimits {
        control_frames_max: 1_000_000,
        ..TcpHubLimits::default()
    });
    let mut raw = world.raw_h2();
    let flood = frame(6, 0, 0, &[0; 8]).repeat(3000);
    for _ in 0..100 {
        raw.session.write(&[std::io::IoSlice::new(&flood)]);
        raw.push(&mut world);
        world.run();
    }
    let far = crate::net::TcpId::from_parts(raw.socket.parts().0 ^ 1, 0);
    assert_eq!(world.net.end(far).inbox.len(), world.net.capacity);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.server.closed(), CloseReason::WriteTimeout);
}

// spec: 9112-9.8-a
#[test]
fn an_end_without_closure_alert_is_told_apart() {
    let mut world = World::new();
    let raw = world.raw_h2();
    use crate::net::Network;
    world.net.shutdown(raw.socket);
    world.run();
    assert_eq!(world.server.closed(), CloseReason::Truncated);
    assert_eq!(world.server.hub.stats.tcp_truncated, 1);

    let mut raw = world.raw_h2();
    raw.session.close();
    raw.turn(&mut world);
    assert_eq!(world.server.closed(), CloseReason::Peer(Code::H3_NO_ERROR));

    let raw = world.raw_h2();
    world.net.close(raw.socket, TcpClose::Abort);
    world.run();
    assert_eq!(
        world.server.closed(),
        CloseReason::Lost(std::io::ErrorKind::ConnectionReset)
    );
    world.run();
    assert_eq!(world.server.hub.connection_count(), 0);
}

#[test]
fn garbage_instead_of_a_preface_ends_a_connection() {
    let mut world = World::new();
    let mut raw = world.raw(Carrier::H2);
    raw.send(&mut world, &[b'x'; 100]);
    assert!(matches!(world.server.closed(), CloseReason::Misbehaved(_)));
}
