//! The connection of a client.

use super::*;
use crate::http::h1::RequestError;
use crate::http::h3::code::Code;
use crate::http::request::HeadError;

const ESTABLISHED: &str = "HTTP/1.1 200 OK\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
    Upgrade: Connect-UDP\r\nCapsule-Protocol: ?1\r\n\r\n";

fn classic() -> RequestHead {
    RequestHead::classic_connect("target.example:443")
}

// spec: 9112-3.2.3-a, 9110-9.3.6-a
#[test]
fn a_connect_is_written_with_its_port() {
    assert_eq!(
        Client::asking(&classic()).request,
        "CONNECT target.example:443 HTTP/1.1\r\nhost: target.example:443\r\n\r\n"
    );
    for authority in [
        "target.example",
        "target.example:",
        ":443",
        "[2001:db8::1]",
        "",
    ] {
        let head = RequestHead::classic_connect(authority);
        let result = ClientConn::new(Limits::default()).request(&head, &mut BytesMut::new());
        assert_eq!(result, Err(RequestError::Authority), "{authority}");
    }
}

// spec: 9110-7.8-a, 9110-7.6.1-a, ctcp-3.1-a
#[test]
fn an_upgrade_is_written_without_fields_of_another_connection() {
    let mut head = connect_udp();
    head.headers = map(&[
        ("capsule-protocol", "?1"),
        ("host", "other"),
        ("content-length", "3"),
        ("te", "trailers"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("upgrade", "h2c"),
    ]);
    assert_eq!(
        Client::asking(&head).request,
        "GET /masque/a/443/ HTTP/1.1\r\nhost: relay.example\r\nconnection: Upgrade\r\n\
         upgrade: connect-udp\r\ncapsule-protocol: ?1\r\n\r\n"
    );
}

#[test]
fn requests_that_are_not_written() {
    let changed = |change: &dyn Fn(&mut RequestHead)| {
        let mut head = connect_udp();
        change(&mut head);
        let mut out = BytesMut::new();
        let result = ClientConn::new(Limits::default()).request(&head, &mut out);
        assert!(out.is_empty());
        result
    };
    let get = ::http::Method::GET;
    assert_eq!(
        changed(&|head| head.method = get.clone()),
        Err(RequestError::Method)
    );
    let http = Some("http".into());
    assert_eq!(
        changed(&|head| head.scheme = http.clone()),
        Err(RequestError::Scheme)
    );
    assert_eq!(changed(&|head| head.path = None), Err(RequestError::Path));
    assert_eq!(
        changed(&|head| head.path = Some("*".into())),
        Err(RequestError::Path)
    );
    assert_eq!(
        changed(&|head| head.protocol = None),
        Err(RequestError::Authority)
    );
    let mut mixed = classic();
    mixed.path = Some("/".into());
    let result = ClientConn::new(Limits::default()).request(&mixed, &mut BytesMut::new());
    assert_eq!(result, Err(RequestError::Path));

    let mut client = Client::asking(&classic());
    let again = client.conn.request(&classic(), &mut BytesMut::new());
    assert_eq!(again, Err(RequestError::Used));
    let mut conn = ClientConn::new(Limits::default());
    conn.handle_end(true);
    let late = conn.request(&classic(), &mut BytesMut::new());
    assert_eq!(late, Err(RequestError::Used));
}

// spec: 9112-6.3-b, 9931-8-a, 9112-6.3-c
#[test]
fn a_success_opens_the_tunnel_of_a_connect() {
    let mut client = Client::asking(&classic());
    assert!(!client.conn.is_tunnel(), "nothing is sent before");
    let head = client.response(
        "HTTP/1.0 200 Connection established\r\nContent-Length: 3\r\n\
         Transfer-Encoding: chunked\r\nVia: 1.1 r\r\n\r\nfirst",
    );
    assert_eq!(
        (head.status.as_u16(), head.headers),
        (200, map(&[("via", "1.1 r")]))
    );
    assert!(client.conn.is_tunnel() && !client.conn.is_closed());
    assert_eq!(client.conn.poll_event(), Some(ClientEvent::Readable));
    assert_eq!(client.read(), (b"first".to_vec(), RecvData::Blocked));
    assert_eq!(client.receive("more"), Some(ClientEvent::Readable));
    client.conn.handle_end(true);
    assert_eq!(client.read(), (b"more".to_vec(), RecvData::Finished));
    assert_eq!(client.read(), (vec![], RecvData::Gone));
}

// spec: 9110-7.8-d, 9110-7.8-f
#[test]
fn a_switch_opens_the_tunnel_of_an_upgrade() {
    let mut client = Client::asking(&connect_udp());
    assert!(!client.conn.is_tunnel());
    let head = client.response(SWITCHED.to_owned() + "\0\x03\0hi");
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.headers, map(&[("capsule-protocol", "?1")]));
    assert!(client.conn.is_tunnel());
    assert_eq!(client.read(), (b"\0\x03\0hi".to_vec(), RecvData::Blocked));
}

#[test]
fn interim_responses_are_skipped_up_to_a_number() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let mut client = Client::asking(&classic());
    assert_eq!(client.receive("HTTP/1.1 100 \r\n\r\n"), None);
    let head = client.response(hint.repeat(7) + ESTABLISHED);
    assert_eq!(head, status(200));
    let error = Client::asking(&classic()).error(hint.repeat(9));
    assert_eq!(error, ClientError::TooManyInterim);
}

// spec: 9931-8-d
#[test]
fn a_refusal_ends_the_connection() {
    for (asked, code) in [(classic(), 407), (classic(), 302), (connect_udp(), 401)] {
        let mut client = Client::asking(&asked);
        let bytes =
            format!("HTTP/1.1 {code} X\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!");
        let head = client.response(bytes);
        assert_eq!(head.status.as_u16(), code);
        assert_eq!(head.headers, map(&[("content-length", "3")]));
        assert!(client.conn.is_closed() && !client.conn.is_tunnel());
        assert_eq!(client.conn.poll_event(), Some(ClientEvent::Readable));
        assert_eq!(client.read(), (vec![], RecvData::Finished));
        assert_eq!(client.receive(ESTABLISHED), None);
        assert_eq!(client.read(), (vec![], RecvData::Gone));
        assert_eq!(client.conn.buffered_bytes(), 0);
        let again = client.conn.request(&asked, &mut BytesMut::new());
        assert_eq!(again, Err(RequestError::Used));
    }
}

// spec: 9112-8-a
#[test]
fn a_response_cut_short_is_a_failure() {
    for (bytes, is_orderly) in [
        ("", true),
        ("HTTP/1.1 200 OK\r\nVia: a\r\n", true),
        ("", false),
    ] {
        let mut client = Client::asking(&classic());
        assert_eq!(client.receive(bytes), None);
        client.conn.handle_end(is_orderly);
        let failed = Some(ClientEvent::Failed(ClientError::Incomplete));
        assert_eq!(client.conn.poll_event(), failed);
        assert_eq!(client.conn.poll_event(), None);
        assert_eq!(client.read(), (vec![], RecvData::Gone));
    }
}

// spec: 9112-9.8-a
#[test]
fn a_tunnel_without_closure_alert_is_cut() {
    let mut client = Client::asking(&classic());
    client.response(ESTABLISHED.to_owned() + "tail");
    client.conn.handle_end(false);
    let reset = RecvData::Reset(Code::H3_REQUEST_CANCELLED);
    assert_eq!(client.read(), (b"tail".to_vec(), reset));
}

// spec: 9112-2.2-a, 9112-5.2-a, 9110-5.5-a
#[test]
fn malformed_responses() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "\x15\x03\x03",
    ] {
        let error = Client::asking(&classic()).error(bytes);
        assert!(matches!(error, ClientError::Head(_)), "{bytes:?}: {error}");
    }
    let max = Limits::HEAD_BYTES_MAX;
    let endless = "HTTP/1.1 200 ".to_owned() + &"a".repeat(max - 13);
    let error = Client::asking(&classic()).error(endless);
    assert_eq!(error, ClientError::Head(HeadFault::TooLong { max }));
}

#[test]
fn a_response_without_a_request() {
    let mut conn = ClientConn::new(Limits::default());
    conn.handle_bytes(&mut BytesMut::from("HTTP/1.1 408 \r\n\r\n"));
    assert!(!conn.is_idle());
    assert_eq!(
        conn.poll_event(),
        Some(ClientEvent::Failed(ClientError::Unasked))
    );
    assert!(conn.is_closed());
}

#[test]
fn errors_say_what_happened() {
    let fault = HeadFault::Invalid(HeadError::Userinfo);
    let text = ClientError::Head(fault).to_string();
    assert_eq!(
        text,
        "malformed response: the authority holds user information"
    );
    assert_eq!(
        HeadFault::Octet { octet: 10 }.to_string(),
        "octet 0x0a where it must not be"
    );
}
