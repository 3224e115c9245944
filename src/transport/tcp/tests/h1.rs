//! HTTP/1.1 in the hub: what the machines of `http::h1` do not see.

use std::time::Duration;

use ::http::{Method, StatusCode};
use bytes::Bytes;

use super::world::{World, extended};
use crate::http::h3::code::Code;
use crate::http::h3::{RecvData, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::transport::quic::SendOutcome;
use crate::transport::tcp::tls::Plaintext;
use crate::transport::tcp::{CloseReason, Event};
use crate::wire::carrier::Carrier;

// spec: 9110-7.8-c
#[test]
fn an_upgrade_is_a_tunnel_that_ends_in_each_direction() {
    let mut world = World::new();
    let id = world.connect(Carrier::H1);
    let (stream, server_id, server_stream) = world.tunnel(id);
    let sent = world.client.hub.send_datagram(id, stream, b"ping");
    assert_eq!(sent, SendOutcome::Sent);
    world.run();
    let (data, end) = world.server.read_all(world.now, server_id, server_stream);
    assert_eq!((&data[..], end), (&b"\0\x05\0ping"[..], RecvData::Blocked));
    world.client.hub.finish(id, stream);
    world.run();
    let (_, end) = world.server.read_all(world.now, server_id, server_stream);
    assert_eq!(end, RecvData::Finished);
    let data = Bytes::from_static(b"after the half close");
    let sent = world.server.hub.send_data(server_id, server_stream, data);
    assert_eq!(sent, SendData::Written);
    world.server.hub.finish(server_id, server_stream);
    world.run();
    let (data, end) = world.client.read_all(world.now, id, stream);
    assert_eq!(
        (&data[..], end),
        (&b"after the half close"[..], RecvData::Finished)
    );
    world.run();
    assert_eq!(world.server.closed(), CloseReason::Peer(Code::H3_NO_ERROR));
    assert_eq!(world.client.closed(), CloseReason::Peer(Code::H3_NO_ERROR));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.server.hub.connection_count(), 0);
    assert_eq!(world.client.hub.connection_count(), 0);
}

#[test]
fn who_does_not_read_stops_the_sender() {
    let mut world = World::new();
    let id = world.connect(Carrier::H1);
    let (stream, server_id, server_stream) = world.tunnel(id);
    let mut sent = 0;
    for _ in 0..100 {
        let room = world.client.hub.send_room(id, stream);
        if room == 0 {
            break;
        }
        let data = Bytes::from(vec![7; room]);
        assert_eq!(
            world.client.hub.send_data(id, stream, data),
            SendData::Written
        );
        sent += room;
        world.run();
    }
    assert!((200 << 10..1 << 20).contains(&sent), "{sent}");
    world.client.events.clear();
    let mut read = 0;
    while read < sent {
        let (data, end) = world.server.read_all(world.now, server_id, server_stream);
        assert!(
            !data.is_empty() && end == RecvData::Blocked,
            "{read} of {sent}"
        );
        read += data.len();
        world.run();
    }
    assert!(matches!(world.client.event(), Event::Writable { .. }));
}

// spec: 9112-9.8-a
#[test]
fn a_reset_is_an_end_without_closure_alert() {
    let mut world = World::new();
    let id = world.connect(Carrier::H1);
    let (stream, server_id, server_stream) = world.tunnel(id);
    world
        .server
        .hub
        .reset(server_id, server_stream, Code::H3_CONNECT_ERROR);
    world.run();
    assert_eq!(
        world.server.closed(),
        CloseReason::Aborted(Code::H3_CONNECT_ERROR)
    );
    world.client.hub.bind(id, stream, 3);
    assert!(matches!(world.client.closed(), CloseReason::Lost(_)));
    world.run();
    assert_eq!(world.client.hub.connection_count(), 0);
}

// spec: 9931-8-b
#[test]
fn a_refused_connect_is_the_last_request() {
    let mut world = World::new();
    let mut raw = world.raw(Carrier::H1);
    raw.send(
        &mut world,
        b"CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n\r\nPOST /x HTTP/1.1\r\n\r\n",
    );
    let (id, stream, head) = world.server.request();
    assert_eq!(*head, {
        let mut wanted = RequestHead::classic_connect("target.example:443");
        wanted.headers = head.headers.clone();
        wanted
    });
    let answer = ResponseHead::new(StatusCode::FORBIDDEN);
    assert!(world.server.hub.respond(id, stream, &answer, true));
    raw.turn(&mut world);
    assert!(raw.received.starts_with(b"HTTP/1.1 403 "));
    assert_eq!(raw.ended, Some(Plaintext::End));
    assert_eq!(world.server.closed(), CloseReason::Local);
    assert!(world.server.events.is_empty());
}

#[test]
fn plain_requests_follow_one_another() {
    let mut world = World::new();
    let mut raw = world.raw(Carrier::H1);
    let request = b"GET /none HTTP/1.1\r\nHost: relay.example\r\n\r\n";
    raw.send(&mut world, &request.repeat(2));
    for _ in 0..2 {
        let (id, stream, head) = world.server.request();
        assert_eq!((&head.method, &head.protocol), (&Method::GET, &None));
        let answer = ResponseHead::new(StatusCode::NOT_FOUND);
        assert!(world.server.hub.respond(id, stream, &answer, true));
        raw.turn(&mut world);
    }
    let text = String::from_utf8(raw.received.clone()).unwrap();
    assert_eq!(text.matches("HTTP/1.1 404 ").count(), 2);
    assert!(raw.ended.is_none());
    world.pass(Duration::from_secs(120));
    assert_eq!(world.server.closed(), CloseReason::IdleTimeout);
}

#[test]
fn garbage_is_answered_and_closed() {
    let mut world = World::new();
    let mut raw = world.raw(Carrier::H1);
    raw.send(&mut world, b"\x16\x03\x01 nonsense\r\n\r\n");
    assert!(raw.received.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(raw.ended, Some(Plaintext::End));
    assert_eq!(world.server.hub.stats.tcp_malformed, 1);
}

#[test]
fn a_refusal_reaches_the_client_and_ends_its_connection() {
    let mut world = World::new();
    let id = world.connect(Carrier::H1);
    let (stream, server_id, server_stream) = world.ask_any(id, &extended());
    let answer = ResponseHead::new(StatusCode::BAD_GATEWAY);
    world
        .server
        .hub
        .respond(server_id, server_stream, &answer, true);
    world.run();
    match world.client.event() {
        Event::Response { head, .. } => assert_eq!(head.status, StatusCode::BAD_GATEWAY),
        other => panic!("{other:?}"),
    }
    let (data, end) = world.client.read_all(world.now, id, stream);
    assert_eq!((data.len(), end), (0, RecvData::Finished));
    world.client.hub.finish(id, stream);
    world.run();
    assert!(matches!(world.client.closed(), CloseReason::Local));
}
