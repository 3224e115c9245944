//! Limits and forms of heads.

use super::*;
use crate::http::h1::{FIELDS_MAX, METHOD_BYTES_MAX};
use crate::http::request::HeadError;

/// The answer to a fault: its status, no content, and the end.
#[track_caller]
fn assert_answer(mut server: Server, fault: &HeadFault, start_line: &str) {
    assert_eq!(server.fault(), *fault);
    let expected =
        format!("HTTP/1.1 {start_line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(server.sent(), expected);
    assert!(server.conn.is_closed());
}

// spec: 9112-3-a
#[test]
fn a_request_line_of_8000_octets() {
    let path = format!("/{}", "a".repeat(8000));
    let head = Server::with(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).request();
    assert_eq!(head.path.as_deref(), Some(&*path));
}

// spec: 9112-3-a, 9112-3.2-a
#[test]
fn an_unknown_long_method() {
    let longest = "M".repeat(METHOD_BYTES_MAX);
    let head = Server::with(get("").replace("GET", &longest)).request();
    assert_eq!(head.method.as_str(), longest);
    assert_answer(
        Server::with("M".repeat(METHOD_BYTES_MAX + 1)),
        &HeadFault::MethodTooLong,
        "501 Not Implemented",
    );
}

// spec: 9112-3-b, map-22
#[test]
fn a_target_that_is_too_long() {
    let max = Limits::TARGET_BYTES_MAX;
    let longest = format!("/{}", "a".repeat(max - 1));
    Server::with(format!("GET {longest} HTTP/1.1\r\nHost: a\r\n\r\n")).request();
    assert_answer(
        Server::with(format!("GET {longest}a")),
        &HeadFault::TargetTooLong { max },
        "414 URI Too Long",
    );
}

// spec: 9110-5.4-a, map-22
#[test]
fn heads_that_are_too_large() {
    let max = Limits::HEAD_BYTES_MAX;
    let padded = |len: usize| {
        let rest = get("A: \r\n").len();
        get(&format!("A: {}\r\n", "a".repeat(len - rest)))
    };
    assert_eq!(padded(max).len(), max);
    Server::with(padded(max)).request();
    let too_large = "431 Request Header Fields Too Large";
    let mut server = Server::with("");
    let mut input = BytesMut::from(&*padded(max + 1));
    server.conn.handle_bytes(&mut input);
    assert_eq!((input.len(), server.conn.receive_room()), (1, 0));
    assert_answer(server, &HeadFault::TooLong { max }, too_large);

    // Behind a request more than one head fits.
    let mut server = Server::with(get(""));
    server.request();
    server.receive(padded(max + 1));
    server.respond(&status(404));
    server.sent();
    assert_answer(server, &HeadFault::TooLong { max }, too_large);

    Server::with(get(&"A: b\r\n".repeat(FIELDS_MAX - 1))).request();
    let many = get(&"A: b\r\n".repeat(FIELDS_MAX));
    assert_answer(Server::with(many), &HeadFault::TooManyFields, too_large);
}

// spec: 9112-2.2-c
#[test]
fn garbage_and_empty_lines() {
    Server::with("\r\n".to_owned() + &get("")).request();
    let bad = "400 Bad Request";
    assert_answer(Server::with("\r\n\r\n"), &HeadFault::StartLine, bad);
    // No more than the first octets of TLS and HTTP/0.9 are waited for.
    let octet = 0x16;
    assert_answer(
        Server::with("\x16\x03\x01"),
        &HeadFault::Octet { octet },
        bad,
    );
    assert_answer(Server::with("GET /\r\n"), &HeadFault::StartLine, bad);
    assert_answer(Server::with("GET / HTTP/1.1x"), &HeadFault::StartLine, bad);
    let preface = Server::with("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_answer(preface, &HeadFault::Syntax(httparse::Error::Version), bad);
}

#[test]
fn targets() {
    let invalid = |name| HeadFault::Invalid(HeadError::InvalidPseudo { name });
    for (line, fault) in [
        ("GET *", invalid("path")),
        ("GET a", invalid("path")),
        ("GET /#a", invalid("path")),
        ("GET /\u{e4}", invalid("path")),
        ("GET a:443", invalid("path")),
        ("GET 1a://b/", invalid("scheme")),
        ("GET https:///a", invalid("authority")),
        ("GET https://a\\b/", invalid("authority")),
        ("GET https://a@b/", HeadFault::Invalid(HeadError::Userinfo)),
        ("CONNECT /a", invalid("authority")),
        ("CONNECT https://a:443/", invalid("authority")),
        ("CONNECT a@b:443", invalid("authority")),
    ] {
        let mut server = Server::with(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(server.fault(), fault, "{line}");
    }
    for (line, path) in [
        ("OPTIONS *", "*"),
        ("GET https://a", "/"),
        ("GET https://a?b", "/?b"),
        ("GET /a%20b?c=d", "/a%20b?c=d"),
        ("GET //a/b", "//a/b"),
    ] {
        let head = Server::with(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).request();
        assert_eq!(head.path.as_deref(), Some(path), "{line}");
        assert_eq!(head.authority.as_deref(), Some("a"));
        assert_eq!(head.scheme.as_deref(), Some("https"));
    }
}

// spec: 9110-9.3.6-b
#[test]
fn the_authority_of_a_connect_stays_as_it_is() {
    for authority in ["a", "a:", "a:x", "[2001:db8::1]:443", "A.Example:443"] {
        let head =
            Server::with(format!("CONNECT {authority} HTTP/1.1\r\nHost: b\r\n\r\n")).request();
        assert_eq!(head, RequestHead::classic_connect(authority));
    }
    // Host says nothing beside it.
    let head = Server::with("CONNECT a:443 HTTP/1.1\r\nHost:\r\n\r\n").request();
    assert_eq!(head, RequestHead::classic_connect("a:443"));
}

// spec: 9110-7.6.1-a, rc-curl-d
#[test]
fn fields_of_one_connection_are_removed() {
    let lines = "Keep-Alive: 5\r\nProxy-Connection: Keep-Alive\r\nTE: trailers\r\n\
        HTTP2-Settings: AA\r\nTrailer: a\r\nConnection: X-Hop, proxy-authorization\r\nx-hop: 1\r\n\
        Proxy-Authorization: Basic YTpi\r\nCapsule-Protocol: ?1\r\nx-end: 1\r\nX-End: 2\r\n";
    let kept = map(&[
        ("proxy-authorization", "Basic YTpi"),
        ("capsule-protocol", "?1"),
        ("x-end", "1"),
        ("x-end", "2"),
    ]);
    for head in [upgrade(lines), connect(lines), get(lines)] {
        let head = Server::with(head).request();
        assert_eq!(head.headers, kept);
        let credentials = head.headers.get("proxy-authorization");
        assert!(credentials.is_some_and(HeaderValue::is_sensitive));
    }
}

#[test]
fn what_the_machine_says_itself_is_given() {
    let limits = Limits {
        refusal_fields: std::sync::Arc::new(map(&[(
            "proxy-status",
            "r; error=http_request_error",
        )])),
        ..Limits::default()
    };
    let mut server = Server::with("");
    server.conn = ServerConn::new(limits);
    server.receive("\0");
    server.fault();
    assert_eq!(
        server.sent(),
        "HTTP/1.1 400 Bad Request\r\nproxy-status: r; error=http_request_error\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    );
}
