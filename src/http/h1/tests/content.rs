//! Responses with content: what follows them, and what the client may send meanwhile.

use super::*;
use crate::http::h1::RespondError;

fn page(length: &str) -> ResponseHead {
    let mut head = status(200);
    head.headers = map(&[
        ("content-length", length),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
        ("server", "here"),
    ]);
    head
}

fn answer(server: &mut Server, length: &str, content_bytes: usize) -> Responded {
    server
        .conn
        .respond_content(&page(length), content_bytes, &mut server.out)
        .expect("a request waits")
}

#[test]
fn the_next_request_waits_for_the_end_of_the_content() {
    let mut server = Server::with(get("") + &get(""));
    server.request();
    assert_eq!(answer(&mut server, "5", 5), Responded::Content);
    assert_eq!(
        server.sent(),
        "HTTP/1.1 200 OK\r\nserver: here\r\ncontent-length: 5\r\n\r\n"
    );
    assert_eq!((server.conn.content_left(), server.poll()), (Some(5), None));
    assert_eq!(server.conn.content_sent(3), None);
    assert_eq!((server.conn.content_left(), server.poll()), (Some(2), None));
    assert_eq!(server.read(), (vec![], RecvData::Blocked));
    assert_eq!(server.conn.content_sent(2), Some(Responded::NextRequest));
    assert_eq!(server.conn.content_left(), None);
    server.request();
    // As to HEAD: a length, and no content.
    assert_eq!(answer(&mut server, "5", 0), Responded::NextRequest);
    assert!(server.sent().contains("\r\ncontent-length: 5\r\n\r\n"));
    assert!(server.conn.is_idle());
}

#[test]
fn the_last_answer_says_so_and_what_comes_behind_it_is_dropped_within_a_bound() {
    for lines in ["Connection: close\r\n", "Content-Length: 99999999\r\n"] {
        let mut server = Server::with(get(lines) + "some of it");
        server.request();
        assert_eq!(answer(&mut server, "5", 5), Responded::Content);
        assert!(
            server
                .sent()
                .ends_with("\r\ncontent-length: 5\r\nconnection: close\r\n\r\n")
        );
        assert_eq!(server.conn.buffered_bytes(), 0, "{lines:?}");
        let mut taken = "some of it".len();
        while server.conn.receive_room() > 0 {
            let piece = vec![b'G'; 10_000.min(server.conn.receive_room())];
            taken += piece.len();
            server.receive(&piece);
            assert_eq!((server.conn.buffered_bytes(), server.poll()), (0, None));
        }
        assert_eq!(taken, Limits::DISCARD_BYTES_MAX);
        assert_eq!(server.conn.content_sent(5), Some(Responded::Close));
        assert!(server.conn.is_closed());
    }
}

#[test]
fn a_peer_that_is_gone_shows_while_the_content_is_sent() {
    let mut server = Server::with(get(""));
    server.request();
    answer(&mut server, "5", 5);
    server.conn.handle_end(false);
    assert_eq!(server.poll(), Some(ServerEvent::Readable));
    assert!(matches!(server.read().1, RecvData::Reset(_)));
}

#[test]
fn a_tunnel_has_no_content() {
    for request in [connect(""), upgrade("")] {
        let mut server = Server::with(request);
        server.request();
        let refused = server.conn.respond_content(&page("5"), 5, &mut server.out);
        let status = StatusCode::OK;
        assert_eq!(refused, Err(RespondError::Status { status }));
        assert_eq!(server.sent(), "");
        // A refusal may explain itself.
        let mut head = page("5");
        head.status = StatusCode::FORBIDDEN;
        let explained = server.conn.respond_content(&head, 5, &mut server.out);
        assert_eq!(explained, Ok(Responded::Content));
    }
}
