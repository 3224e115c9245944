//! Every row of the smuggling guard list, in its order.

use super::*;
use crate::http::h1::RequestError;
use crate::http::request::HeadError;

const CLOSED_400: &str =
    "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The machine refuses these bytes with a 400, and sees nothing of what follows.
#[track_caller]
fn assert_refused(bytes: &str) -> HeadFault {
    let mut server = Server::with(format!("{bytes}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
    let fault = server.fault();
    assert_eq!(server.sent(), CLOSED_400);
    assert_nothing_follows(&mut server);
    fault
}

#[track_caller]
fn assert_nothing_follows(server: &mut Server) {
    server.receive(get(""));
    assert!(server.conn.is_closed());
    assert_eq!(server.poll(), None);
    assert_eq!(server.conn.buffered_bytes(), 0);
    assert_eq!(server.read(), (vec![], RecvData::Gone));
}

// spec: 9931-8-b, 9112-9.6-a
#[test]
fn a_refused_connect_with_a_request_behind_it() {
    let bytes = connect("") + "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let mut server = Server::with(bytes);
    assert!(server.request().is_connect());
    assert_eq!(server.poll(), None);
    assert_eq!(server.respond(&status(403)), Responded::Close);
    assert_eq!(
        server.sent(),
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    assert_nothing_follows(&mut server);
}

// spec: 9931-8-b, 9931-8-c
#[test]
fn a_refused_connect_closes_with_nothing_behind_it_too() {
    let mut server = Server::with(connect("Connection: keep-alive\r\nUser-Agent: waits\r\n"));
    server.request();
    assert_eq!(server.respond(&status(407)), Responded::Close);
    assert!(server.sent().ends_with("\r\nconnection: close\r\n\r\n"));
    assert_nothing_follows(&mut server);
}

// spec: 9110-9.3.6-g
#[test]
fn a_connect_with_content() {
    for line in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert_eq!(assert_refused(&connect(line)), HeadFault::Content);
    }
    let mut server = Server::with(connect("Content-Length: 0\r\n"));
    assert!(server.request().headers.is_empty());
}

// spec: 9110-7.8-i
#[test]
fn an_upgrade_with_content() {
    for line in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert_eq!(assert_refused(&upgrade(line)), HeadFault::Content);
    }
}

// spec: 9112-6.1-a
#[test]
fn both_lengths() {
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n";
    for head in [upgrade(both), get(both), connect(both)] {
        assert_eq!(assert_refused(&head), HeadFault::Framing);
    }
}

// spec: 9112-5.1-a
#[test]
fn a_blank_before_the_colon() {
    for line in [
        "Transfer-Encoding : chunked\r\n",
        "Host : a\r\n",
        "A\t: b\r\n",
    ] {
        let fault = assert_refused(&get(line));
        assert_eq!(fault, HeadFault::Syntax(httparse::Error::HeaderName));
    }
}

// spec: 9112-6.3-a
#[test]
fn lengths_that_are_none() {
    for coding in [
        "chunked, identity",
        "xchunked",
        "identity",
        "",
        "\u{b}chunked",
        "chunked\r\nTransfer-Encoding: gzip",
    ] {
        let fault = assert_refused(&get(&format!("Transfer-Encoding: {coding}\r\n")));
        assert!(
            matches!(fault, HeadFault::Framing | HeadFault::Octet { .. }),
            "{coding}: {fault}"
        );
    }
    for length in [
        "5, 5",
        "+5",
        "-1",
        "0x5",
        "",
        "5\r\nContent-Length: 5",
        "5 5",
    ] {
        let fault = assert_refused(&get(&format!("Content-Length: {length}\r\n")));
        let expected = HeadFault::Invalid(HeadError::InvalidContentLength);
        assert_eq!(fault, expected, "{length}");
    }
}

// spec: 9112-3.2-a
#[test]
fn hosts() {
    let twice = assert_refused(&get("Host: relay.example\r\n"));
    assert_eq!(twice, HeadFault::Invalid(HeadError::HostMismatch));
    let none = assert_refused("GET / HTTP/1.1\r\nA: b\r\n\r\n");
    let missing = HeadError::MissingPseudo { name: "host" };
    assert_eq!(none, HeadFault::Invalid(missing));
    for host in ["a b", "user@a", "a/b", "\u{e4}", ""] {
        let fault = assert_refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let invalid = HeadError::InvalidPseudo { name: "host" };
        assert_eq!(fault, HeadFault::Invalid(invalid), "{host}");
    }
}

// spec: 9112-3.2.2-a
#[test]
fn the_absolute_form_overrides_host() {
    let mut server =
        Server::with("GET HTTP://target.example:81/a?b HTTP/1.1\r\nHost: other\r\n\r\n");
    let head = server.request();
    assert_eq!(head.method, ::http::Method::GET);
    assert_eq!(head.protocol, None);
    assert_eq!(head.scheme.as_deref(), Some("http"));
    assert_eq!(head.authority.as_deref(), Some("target.example:81"));
    assert_eq!(head.path.as_deref(), Some("/a?b"));
    assert!(head.headers.is_empty());

    let bytes = upgrade("").replace("GET /", "GET https://other.example/");
    let head = Server::with(bytes).request();
    assert_eq!(head.protocol.as_deref(), Some("connect-udp"));
    assert_eq!(head.authority.as_deref(), Some("other.example"));
}

// spec: 9110-7.8-a, 9110-7.8-e
#[test]
fn upgrade_without_its_option() {
    for connection in ["", "Connection: keep-alive\r\n", "Connection: xupgrade\r\n"] {
        let mut server = Server::with(get(&format!("Upgrade: connect-udp\r\n{connection}")));
        let head = server.request();
        assert_eq!((head.method, head.protocol), (::http::Method::GET, None));
        let mut answer = status(426);
        answer.headers = map(&[("upgrade", "connect-udp")]);
        assert_eq!(server.respond(&answer), Responded::NextRequest);
        assert_eq!(
            server.sent(),
            "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nupgrade: connect-udp\r\nconnection: Upgrade\r\n\r\n"
        );
    }
}

// spec: 9110-7.8-d, ctcp-3.1-a
#[test]
fn upgrade_in_any_case_and_company() {
    for (connection, offer, protocol) in [
        ("upgrade", "Connect-UDP", "connect-udp"),
        ("keep-alive, UPGRADE", "connect-udp, foo", "connect-udp"),
        ("foo,,\tUpgrade", "foo/2 , connect-tcp", "connect-tcp"),
        ("Upgrade", "connect-ip,connect-udp", "connect-ip"),
        (
            "x\r\nConnection: upgrade",
            "x\r\nUpgrade: connect-tcp-07",
            "connect-tcp-07",
        ),
    ] {
        let lines = format!("Connection: {connection}\r\nUpgrade: {offer}\r\n");
        let head = Server::with(get(&lines)).request();
        assert!(head.is_extended_connect());
        assert_eq!(head.protocol.as_deref(), Some(protocol));
        assert!(head.headers.is_empty(), "{:?}", head.headers);
    }
}

// spec: 9112-2.2-a, 9112-2.2-b, 9112-5.2-a, 9110-5.5-a
#[test]
fn octets_and_lines_that_are_not_clean() {
    for bytes in [
        get("A: b\rc\r\n"),
        get("A: b\0c\r\n"),
        get("A: b\u{7f}c\r\n"),
        get("A: b\r\n c\r\n"),
        get("A: b\r\n\tc\r\n"),
        get("A: b\nC: d\r\n"),
        get(": b\r\n"),
        get("A\r\n"),
        get("").replace("\r\n", "\n"),
        get("").replace("\r\n\r\n", "\r\n\n"),
        get("").replace("\r\nHost", "\r\n Host"),
        get("").replace("\r\nHost", "\r\r\nHost"),
        get("").replace(" HTTP", "  HTTP"),
        get("").replace(" HTTP", "\tHTTP"),
    ] {
        assert_refused(&bytes);
    }
}

// The row about requests from HTTP/2 and HTTP/3: what a field cannot hold by its type is not in this list.
// spec: 9110-5.5-a
#[test]
fn line_ends_from_other_versions_are_not_forwarded() {
    let evil = "a\r\nHost: b";
    let with = |change: &dyn Fn(&mut RequestHead)| {
        let mut head = connect_udp();
        change(&mut head);
        head
    };
    let cases = [
        (
            with(&|head| head.path = Some("/\r\nA: b".into())),
            RequestError::Path,
        ),
        (
            with(&|head| head.path = Some("/ HTTP/1.1".into())),
            RequestError::Path,
        ),
        (
            with(&|head| head.authority = Some(evil.into())),
            RequestError::Authority,
        ),
        (
            with(&|head| head.protocol = Some(evil.into())),
            RequestError::Protocol,
        ),
        (
            with(&|head| head.protocol = Some("a, b".into())),
            RequestError::Protocol,
        ),
        (
            with(&|head| head.scheme = Some(evil.into())),
            RequestError::Scheme,
        ),
        (
            RequestHead::classic_connect("a:443\r\nA: b:1"),
            RequestError::Authority,
        ),
        (
            RequestHead::classic_connect("a b:443"),
            RequestError::Authority,
        ),
    ];
    for (head, expected) in cases {
        let mut out = BytesMut::new();
        let mut conn = ClientConn::new(Limits::default());
        assert_eq!(conn.request(&head, &mut out), Err(expected), "{head:?}");
        assert!(out.is_empty() && conn.is_idle());
    }
    assert!(HeaderValue::from_bytes(evil.as_bytes()).is_err());
    assert!(HeaderName::from_bytes(evil.as_bytes()).is_err());
}

// spec: 9110-7.8-c
#[test]
fn a_switch_that_was_not_asked_for() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\n";
    for lines in [
        "Connection: Upgrade\r\nUpgrade: connect-tcp\r\n",
        "Connection: Upgrade\r\nUpgrade: connect-udp, connect-tcp\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: connect-udp\r\n",
        "Connection: close\r\nUpgrade: connect-udp\r\n",
    ] {
        let error = Client::asking(&connect_udp()).error(format!("{switch}{lines}\r\n"));
        assert_eq!(error, ClientError::WrongProtocol, "{lines}");
    }
    let right = "Connection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n";
    let error = Client::asking(&connect_udp()).error(format!("HTTP/1.0 101 \r\n{right}"));
    assert_eq!(error, ClientError::WrongProtocol);
    let classic = RequestHead::classic_connect("a:443");
    let error = Client::asking(&classic).error(format!("{switch}{right}"));
    assert_eq!(error, ClientError::WrongProtocol);

    let error = Client::asking(&connect_udp()).error(format!("HTTP/1.1 200 OK\r\n{right}"));
    let status = StatusCode::OK;
    assert_eq!(error, ClientError::NotSwitched { status });
}

// spec: 9110-7.8-b
#[test]
fn http_1_0() {
    let old = |text: String| text.replace("HTTP/1.1", "HTTP/1.0");
    let mut server = Server::with(old(upgrade("Connection: keep-alive\r\n")) + &get(""));
    let head = server.request();
    assert_eq!((head.method, head.protocol), (::http::Method::GET, None));
    assert_eq!(server.respond(&status(100)), Responded::Interim);
    assert_eq!(server.sent(), "");
    assert_eq!(server.respond(&status(426)), Responded::Close);
    assert_nothing_follows(&mut server);

    let mut server = Server::with("CONNECT 192.0.2.1:443 HTTP/1.0\r\n\r\nraw");
    assert_eq!(
        server.request(),
        RequestHead::classic_connect("192.0.2.1:443")
    );
    assert_eq!(server.respond(&status(200)), Responded::Tunnel);
    assert_eq!(server.sent(), "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(server.read(), (b"raw".to_vec(), RecvData::Blocked));

    let chunked = old(get("Transfer-Encoding: chunked\r\n"));
    assert_eq!(assert_refused(&chunked), HeadFault::Framing);
}
