use proptest::prelude::*;

use super::*;
use crate::wire::target::Host;

const CONNECT: &[u8] = b"CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n\r\n";
const SOCKS: &[u8] = b"\x05\x01\x00\x05\x01\x00\x03\x09a.example\x01\xbb";

/// What became of a client that sends `pieces`: the outcome, and what it was told.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<u8>) {
    let (mut handshake, mut out) = (Handshake::First, BytesMut::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let room = handshake.room();
            assert!((1..=HEAD_BYTES_MAX).contains(&room), "{room}");
            let (now, later) = piece.split_at(room.min(piece.len()));
            match handshake.handle_bytes(BytesMut::from(now), &mut out) {
                Step::More => piece = later,
                Step::Connect(target, asked) => {
                    let early = asked.accept(&mut out);
                    assert!(early.is_empty() && later.is_empty());
                    return (format!("connect {target}"), out.to_vec());
                }
                Step::Associate(from) => {
                    return (
                        format!("associate {:?} {}", from.host, from.port),
                        out.to_vec(),
                    );
                }
                Step::End => return ("end".to_owned(), out.to_vec()),
            }
        }
    }
    ("more".to_owned(), out.to_vec())
}

fn refused(status: u16, proxy_status: Option<&'static str>) -> Refused {
    let mut response = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    if let Some(value) = proxy_status {
        let value = HeaderValue::from_static(value);
        response.headers.append(PROXY_STATUS, value);
    }
    Refused {
        refusal: crate::error::Refusal::NextHopStatus {
            status: response.status,
        },
        response: Some(Box::new(response)),
        relay: None,
        target: None,
        pause: None,
        attempts: Vec::new(),
    }
}

/// What a client is told whose tunnel is refused.
fn told(request: &[u8], refused: &Refused) -> Vec<u8> {
    let (mut handshake, mut out) = (Handshake::First, BytesMut::new());
    let Step::Connect(_, asked) = handshake.handle_bytes(request.into(), &mut out) else {
        panic!("no request")
    };
    out.clear();
    asked.refuse(refused, &mut out);
    out.to_vec()
}

#[test]
fn both_protocols_on_one_port() {
    let (what, reply) = outcome([SOCKS]);
    assert_eq!(what, "connect a.example:443");
    assert_eq!(reply, b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00");
    let (what, reply) = outcome([CONNECT]);
    assert_eq!(what, "connect a.example:443");
    assert_eq!(reply, b"HTTP/1.1 200 OK\r\n\r\n");
    let associate = b"\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00";
    let nowhere = Some(Host::Ip([0, 0, 0, 0].into()));
    let (what, reply) = outcome([&associate[..]]);
    assert_eq!(
        (what, reply),
        (format!("associate {nowhere:?} 0"), vec![5, 0])
    );
}

#[test]
fn strangers_are_told_nothing() {
    for bytes in [
        &b"\x04\x01\x00\x50"[..],
        b"\x16\x03\x01",
        b"\0",
        b"\r\n",
        b"\xff",
    ] {
        assert_eq!(
            outcome([bytes]),
            ("end".to_owned(), Vec::new()),
            "{bytes:?}"
        );
    }
}

#[test]
fn what_is_not_served() {
    let reply = |code| [&[5, 0, 5, code][..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for (bytes, expected) in [
        (&b"\x05\x01\x02"[..], vec![5, 0xff]),
        (
            b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
            reply(7),
        ),
        (b"\x05\x01\x00\x05\x01\x00\x02", reply(8)),
        (
            b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00",
            reply(4),
        ),
        (b"\x05\x01\x00\x05\x01\x00\x03\x03a b\x00\x50", reply(4)),
        (b"\x05\x01\x00\x04", reply(1)),
    ] {
        assert_eq!(outcome([bytes]), ("end".to_owned(), expected), "{bytes:?}");
    }
    for (head, status) in [
        (
            "GET http://a.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n",
            "405 Method Not Allowed",
        ),
        (
            "CONNECT a.example:0 HTTP/1.1\r\nhost: a.example:0\r\n\r\n",
            "400 Bad Request",
        ),
        ("hello\r\n\r\n", "400 Bad Request"),
    ] {
        let (what, reply) = outcome([head.as_bytes()]);
        let reply = String::from_utf8(reply).unwrap();
        assert_eq!(what, "end");
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}: {reply}"
        );
    }
}

#[test]
fn heads_are_bounded() {
    let head = format!("CONNECT a:1 HTTP/1.1\r\nx: {}", "a".repeat(HEAD_BYTES_MAX));
    let (what, reply) = outcome([head.as_bytes()]);
    assert_eq!(what, "end");
    assert!(reply.starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn refusals_reach_the_client() {
    for (status, proxy_status, code, http) in [
        (502, Some("r; error=connection_refused"), 5, 502),
        (502, Some("r; error=dns_error"), 4, 502),
        (502, Some("r; error=destination_ip_unroutable"), 3, 502),
        (
            403,
            Some("e; error=destination_ip_prohibited, i; received-status=403"),
            2,
            403,
        ),
        (504, Some("r; error=connection_timeout"), 6, 504),
        (504, None, 6, 504),
        (403, None, 2, 403),
        (407, None, 2, 502),
        (302, None, 1, 502),
        (500, None, 1, 500),
    ] {
        let refused = refused(status, proxy_status);
        let socks = told(SOCKS, &refused);
        assert_eq!(
            socks,
            [5, code, 0, 1, 0, 0, 0, 0, 0, 0],
            "{status} {proxy_status:?}"
        );
        let answer = String::from_utf8(told(CONNECT, &refused)).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {http} ")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let field = proxy_status.map(|value| format!("\r\nproxy-status: {value}\r\n"));
        assert_eq!(
            field.is_some_and(|field| head.contains(&field)),
            proxy_status.is_some()
        );
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{answer}"
        );
        assert!(body.starts_with("tunnel refused by the relay: "), "{body}");
    }
    let nobody = Refused {
        refusal: crate::error::Refusal::ConnectTimeout,
        response: None,
        relay: None,
        target: None,
        pause: None,
        attempts: Vec::new(),
    };
    assert_eq!(told(SOCKS, &nobody)[1], 1);
    assert!(told(CONNECT, &nobody).starts_with(b"HTTP/1.1 504 Gateway Timeout\r\n"));
}

#[test]
fn what_comes_too_early_is_kept() {
    for request in [SOCKS, CONNECT] {
        let bytes = [request, b"early"].concat();
        let (mut handshake, mut out) = (Handshake::First, BytesMut::new());
        let Step::Connect(_, asked) = handshake.handle_bytes(bytes[..].into(), &mut out) else {
            panic!("no request")
        };
        assert_eq!(asked.accept(&mut out), "early");
    }
}

proptest! {
    /// Any split comes to the same.
    #[test]
    fn splits(message in 0..6usize, cuts in proptest::collection::vec(0usize..80, 0..6)) {
        let message = [
            SOCKS,
            CONNECT,
            b"\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
            b"\x05\x02\x01\x00\x05\x02\x00\x03\x01a\x00\x50",
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"\x05\x01\x00\x05\x01\x00\x09",
        ][message];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(message.len())).collect();
        cuts.extend([0, message.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &message[pair[0]..pair[1]]);
        prop_assert_eq!(outcome(pieces), outcome([message]));
    }

    /// Whatever comes, it is answered or waits for more, and never for more than a message.
    #[test]
    fn garbage(
        start in proptest::sample::select(vec![&b"\x05"[..], b"\x05\x01\x00\x05", b"CONNECT ", b""]),
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let (mut handshake, mut out) = (Handshake::First, BytesMut::new());
        let bytes = [start, &bytes].concat();
        for piece in bytes.chunks(7) {
            let room = handshake.room();
            prop_assert!(room > 0);
            let piece = &piece[..piece.len().min(room)];
            if !matches!(handshake.handle_bytes(piece.into(), &mut out), Step::More) {
                break;
            }
            if let Handshake::Socks { buffer, .. } = &handshake {
                prop_assert!(buffer.len() < socks::MESSAGE_BYTES_MAX);
            }
        }
    }
}
