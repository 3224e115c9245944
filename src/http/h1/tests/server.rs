//! The connection of a server from request to request and into a tunnel.

use super::*;
use crate::http::h1::RespondError;
use crate::http::h3::code::Code;

const CANCELLED: RecvData = RecvData::Reset(Code::H3_REQUEST_CANCELLED);

// spec: 9110-9.3.6-c, 9110-9.3.6-d, 9112-6.1-b, conn-9110-b
#[test]
fn a_connect_becomes_a_tunnel() {
    let mut server = Server::with(connect("") + "first");
    assert_eq!(
        server.request(),
        RequestHead::classic_connect("target.example:443")
    );
    assert_eq!(server.read(), (vec![], RecvData::Blocked));
    let mut answer = status(200);
    answer.headers = map(&[
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("proxy-status", "r; next-hop=\"192.0.2.1\""),
    ]);
    assert_eq!(server.respond(&answer), Responded::Tunnel);
    assert_eq!(
        server.sent(),
        "HTTP/1.1 200 OK\r\nproxy-status: r; next-hop=\"192.0.2.1\"\r\n\r\n"
    );
    assert!(server.conn.is_tunnel());
    assert_eq!(server.poll(), Some(ServerEvent::Readable));
    assert_eq!(server.poll(), None);
    assert_eq!(server.read(), (b"first".to_vec(), RecvData::Blocked));
    server.receive("GET / HTTP/1.1\r\n\r\n\0");
    assert_eq!(server.poll(), Some(ServerEvent::Readable));
    server.conn.handle_end(true);
    assert_eq!(server.poll(), None, "not read since");
    assert_eq!(
        server.read(),
        (b"GET / HTTP/1.1\r\n\r\n\0".to_vec(), RecvData::Finished)
    );
    assert_eq!(server.read(), (vec![], RecvData::Gone));
}

// spec: 9110-7.8-c, 9110-7.8-j, 9112-6.3-c, ctcp-3.1-d
#[test]
fn an_upgrade_becomes_a_tunnel() {
    let mut server = Server::with(
        upgrade("Capsule-Protocol: ?1\r\n").replace("Upgrade: connect-udp", "Upgrade: Connect-UDP"),
    );
    let mut head = connect_udp();
    head.headers = map(&[("capsule-protocol", "?1")]);
    assert_eq!(server.request(), head);
    server.receive(get(""));
    assert_eq!(server.poll(), None, "nobody's before the answer");
    let mut answer = status(200);
    answer.headers = map(&[("capsule-protocol", "?1"), ("upgrade", "x")]);
    assert_eq!(server.respond(&answer), Responded::Tunnel);
    assert_eq!(
        server.sent(),
        "HTTP/1.1 101 Switching Protocols\r\ncapsule-protocol: ?1\r\n\
         connection: Upgrade\r\nupgrade: Connect-UDP\r\n\r\n"
    );
    assert_eq!(server.read(), (get("").into_bytes(), RecvData::Blocked));
}

// spec: 9110-7.8-g
#[test]
fn a_100_comes_before_the_101() {
    let mut server = Server::with(upgrade("Expect: 100-continue\r\n"));
    assert_eq!(server.request().headers, map(&[("expect", "100-continue")]));
    assert_eq!(server.respond(&status(100)), Responded::Interim);
    assert_eq!(server.sent(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(server.respond(&status(204)), Responded::Tunnel);
    assert!(server.sent().starts_with("HTTP/1.1 101 "));
}

// spec: ctcp-3.1-f
#[test]
fn a_refused_upgrade_leaves_the_connection() {
    let mut server = Server::with(upgrade(""));
    server.request();
    let mut answer = status(401);
    answer.headers = map(&[("www-authenticate", "Basic"), ("content-length", "7")]);
    assert_eq!(server.respond(&answer), Responded::NextRequest);
    assert_eq!(
        server.sent(),
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 0\r\n\r\n"
    );
    assert!(server.conn.is_idle());
    server.receive(upgrade("Authorization: Basic YTpi\r\n"));
    assert!(server.request().headers.contains_key("authorization"));
    assert_eq!(server.respond(&status(200)), Responded::Tunnel);
}

// spec: 9110-7.8-j, 9931-6.3-a, 9484-11-e
#[test]
fn bytes_behind_a_refused_upgrade_end_the_connection() {
    // Also when the token is not one of ours: the client may have sent its protocol all the same.
    for head in [
        upgrade(""),
        get("Upgrade: websocket\r\nConnection: upgrade\r\n"),
    ] {
        let mut server = Server::with(head + &get(""));
        server.request();
        assert_eq!(server.respond(&status(403)), Responded::Close);
        assert!(server.sent().ends_with("connection: close\r\n\r\n"));
        assert_eq!(server.poll(), None);
        assert!(server.conn.is_closed());
    }
}

// spec: 9110-7.8-k
#[test]
fn pipelined_requests_are_answered_in_order() {
    let bytes = get("X: 1\r\n") + &get("X: 2\r\n") + &connect("") + &get("X: 3\r\n");
    let mut server = Server::with(bytes);
    for index in ["1", "2"] {
        assert_eq!(server.request().headers, map(&[("x", index)]));
        assert_eq!(server.poll(), None, "one at a time");
        assert_eq!(server.respond(&status(404)), Responded::NextRequest);
    }
    assert!(server.request().is_connect());
    assert_eq!(server.respond(&status(502)), Responded::Close);
    assert_eq!(server.poll(), None);
    assert_eq!(server.sent().matches("HTTP/1.1 404 Not Found").count(), 2);
}

// spec: 9112-9.6-a, 9112-6.1-a
#[test]
fn answers_after_which_nothing_is_read() {
    for head in [
        get("Connection: Close\r\n"),
        get("Connection: foo, close\r\n"),
        get("Content-Length: 5\r\n"),
        get("Transfer-Encoding: gzip, chunked\r\n"),
        upgrade("Connection: close\r\n"),
    ] {
        let mut server = Server::with(&head);
        server.request();
        assert_eq!(server.respond(&status(405)), Responded::Close, "{head}");
        assert!(server.sent().ends_with("\r\nconnection: close\r\n\r\n"));
        server.receive(get(""));
        assert_eq!(server.poll(), None);
    }
    let mut server = Server::with(get("Content-Length: 00\r\n"));
    server.request();
    assert_eq!(server.respond(&status(405)), Responded::NextRequest);
}

// spec: map-25, map-51
#[test]
fn draining_closes_after_the_answer() {
    let mut server = Server::with(upgrade(""));
    server.conn.drain();
    server.request();
    assert_eq!(server.respond(&status(503)), Responded::Close);
    assert!(server.sent().ends_with("\r\nconnection: close\r\n\r\n"));

    let mut server = Server::with(get(""));
    server.conn.drain();
    server.request();
    let mut answer = status(426);
    answer.headers = map(&[("upgrade", "connect-udp")]);
    assert_eq!(server.respond(&answer), Responded::Close);
    let fields = "\r\nupgrade: connect-udp\r\nconnection: Upgrade, close\r\n\r\n";
    assert!(server.sent().ends_with(fields));

    let mut server = Server::with(upgrade(""));
    server.request();
    server.conn.drain();
    assert_eq!(server.respond(&status(200)), Responded::Tunnel);
}

#[test]
fn answers_that_cannot_be_written() {
    let mut server = Server::with("");
    let no_request = Err(RespondError::NoRequest);
    assert_eq!(
        server.conn.respond(&status(200), &mut server.out),
        no_request
    );
    server.receive(upgrade(""));
    server.request();
    for code in [101, 102, 103, 199] {
        let answer = status(code);
        let expected = Err(RespondError::Status {
            status: answer.status,
        });
        assert_eq!(server.conn.respond(&answer, &mut server.out), expected);
    }
    assert!(server.out.is_empty());
    server.respond(&status(200));
    assert_eq!(
        server.conn.respond(&status(200), &mut server.out),
        no_request
    );
}

// spec: 9112-9.8-a
#[test]
fn an_end_without_closure_alert_is_a_reset() {
    let mut server = Server::with(connect(""));
    server.request();
    server.respond(&status(200));
    server.receive("tail");
    server.conn.handle_end(false);
    server.receive("late");
    assert_eq!(server.poll(), Some(ServerEvent::Readable));
    assert_eq!(server.read(), (b"tail".to_vec(), CANCELLED));
    assert_eq!(server.read(), (vec![], RecvData::Gone));
}

#[test]
fn a_peer_that_leaves_before_the_answer() {
    let mut server = Server::with(connect("") + "early");
    server.request();
    server.conn.handle_end(false);
    assert_eq!(server.poll(), Some(ServerEvent::Readable));
    assert_eq!(server.read(), (vec![], CANCELLED));

    // In order it may only have ended its own side.
    let mut server = Server::with(connect("") + "early");
    server.request();
    server.conn.handle_end(true);
    assert_eq!(server.poll(), None);
    assert_eq!(server.read(), (vec![], RecvData::Blocked));
    server.respond(&status(200));
    assert_eq!(server.read(), (b"early".to_vec(), RecvData::Finished));

    let mut server = Server::with(get(""));
    server.conn.handle_end(true);
    server.request();
    assert_eq!(server.respond(&status(404)), Responded::Close);

    let mut server = Server::with("GET / HTT");
    server.conn.handle_end(true);
    assert_eq!(server.poll(), None);
    assert!(server.conn.is_closed() && server.out.is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let mut server = Server::with(connect(""));
    server.request();
    let mut input = BytesMut::zeroed(Limits::RECEIVE_BYTES_MAX + 9);
    server.conn.handle_bytes(&mut input);
    assert_eq!((input.len(), server.conn.receive_room()), (9, 0));
    server.respond(&status(200));
    server.conn.handle_bytes(&mut input);
    assert_eq!(input.len(), 9);
    assert!(matches!(server.conn.recv_data(4), RecvData::Data(data) if data.len() == 4));
    server.conn.handle_bytes(&mut input);
    assert_eq!(input.len(), 5);
}
