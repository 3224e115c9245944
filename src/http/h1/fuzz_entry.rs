//! The laws of this folder as functions of arbitrary octets, for fuzz targets and property tests.
//!
//! Each function panics when a law is broken, and on nothing else.

use ::http::StatusCode;
use bytes::BytesMut;

use super::{ClientConn, ClientEvent, Limits, ServerConn, ServerEvent};
use crate::http::h3::RecvData;
use crate::http::request::{RequestHead, ResponseHead};

/// More field lines than this leave no room for those that a forwarded request gets.
const FORWARDED_FIELDS_MAX: usize = 100;

/// Limits small enough to be reached.
fn limits() -> Limits {
    Limits {
        head_bytes_max: 512,
        target_bytes_max: 128,
        receive_bytes_max: 1024,
        ..Limits::default()
    }
}

/// Octets behind one for options and one for the number of pieces (modulo 16), then one for the length of each piece.
struct Input<'a> {
    options: u8,
    is_orderly: bool,
    stream: &'a [u8],
    pieces: Vec<&'a [u8]>,
}

impl<'a> Input<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        let (&[options, cuts], rest) = data.split_first_chunk()?;
        let (lengths, stream) = rest.split_at_checked(usize::from(cuts % 16))?;
        let mut pieces = Vec::new();
        let mut left = stream;
        for length in lengths {
            let (piece, tail) = left.split_at(left.len().min(usize::from(*length)));
            pieces.push(piece);
            left = tail;
        }
        pieces.push(left);
        Some(Self {
            options,
            is_orderly: cuts < 0x80,
            stream,
            pieces,
        })
    }
}

/// All that an owner sees, with the data put together.
#[derive(Debug, PartialEq)]
struct Trace<E> {
    events: Vec<E>,
    data: Vec<u8>,
    end: RecvData,
    is_tunnel: bool,
    is_closed: bool,
    sent: BytesMut,
}

impl<E> Trace<E> {
    const fn new(sent: BytesMut) -> Self {
        Self {
            events: Vec::new(),
            data: Vec::new(),
            end: RecvData::Blocked,
            is_tunnel: false,
            is_closed: false,
            sent,
        }
    }

    fn read(&mut self, mut recv: impl FnMut() -> RecvData) {
        loop {
            match recv() {
                RecvData::Data(data) => self.data.extend_from_slice(&data),
                RecvData::Blocked | RecvData::Gone => return,
                end @ (RecvData::Finished | RecvData::Reset(_)) => {
                    assert_eq!(self.end, RecvData::Blocked, "the end came twice");
                    self.end = end;
                }
            }
        }
    }
}

/// A server sees the same requests, data and end however the stream is cut, buffers within its limits, and each CONNECT
/// that it accepts is the same again when a client sends it on.
///
/// Input: a bit for each request whether it is accepted, the cuts (from 0x80 on the stream ends without a closure
/// alert), then the stream.
///
/// # Panics
/// When the law is broken.
pub fn h1_server(data: &[u8]) {
    let Some(input) = Input::new(data) else {
        return;
    };
    let whole = serve(&[input.stream], input.options, input.is_orderly);
    let pieces = serve(&input.pieces, input.options, input.is_orderly);
    assert_eq!(whole, pieces);
    let octets: Vec<&[u8]> = input.stream.chunks(1).collect();
    assert_eq!(whole, serve(&octets, input.options, input.is_orderly));
    for event in &whole.events {
        if let ServerEvent::Request(head) = event {
            forward(head);
        }
    }
}

/// Delivers as much as is taken before a request is answered: what waits behind it is part of the input.
fn serve(pieces: &[&[u8]], accepts: u8, is_orderly: bool) -> Trace<ServerEvent> {
    let mut conn = ServerConn::new(limits());
    let mut trace = Trace::new(BytesMut::new());
    let mut count = 0;
    for piece in pieces {
        let mut input = BytesMut::from(*piece);
        while !input.is_empty() {
            let before = input.len();
            conn.handle_bytes(&mut input);
            assert!(conn.buffered_bytes() <= limits().receive_bytes_max);
            let is_stuck = input.len() == before;
            listen(&mut conn, &mut trace);
            if is_stuck {
                answer(&mut conn, &mut trace, accepts, &mut count);
            }
        }
    }
    listen(&mut conn, &mut trace);
    while answer(&mut conn, &mut trace, accepts, &mut count) {}
    conn.handle_end(is_orderly);
    listen(&mut conn, &mut trace);
    trace.is_tunnel = conn.is_tunnel();
    trace.is_closed = conn.is_closed();
    assert!(trace.is_tunnel || trace.is_closed);
    trace
}

fn listen(conn: &mut ServerConn, trace: &mut Trace<ServerEvent>) {
    while let Some(event) = conn.poll_event(&mut trace.sent) {
        if event != ServerEvent::Readable {
            trace.events.push(event);
        }
    }
    trace.read(|| conn.recv_data(7));
}

fn answer(
    conn: &mut ServerConn,
    trace: &mut Trace<ServerEvent>,
    accepts: u8,
    count: &mut u32,
) -> bool {
    let is_accepted = accepts.rotate_right(*count) & 1 == 1;
    let status = if is_accepted {
        StatusCode::OK
    } else {
        StatusCode::FORBIDDEN
    };
    let is_answered = conn
        .respond(&ResponseHead::new(status), &mut trace.sent)
        .is_ok();
    *count += u32::from(is_answered);
    listen(conn, trace);
    is_answered
}

fn forward(head: &RequestHead) {
    let mut client = ClientConn::new(Limits::default());
    let mut bytes = BytesMut::new();
    if !head.is_connect() || head.headers.len() > FORWARDED_FIELDS_MAX {
        return;
    }
    if client.request(head, &mut bytes).is_err() {
        assert!(bytes.is_empty());
        return;
    }
    let mut server = ServerConn::new(Limits::default());
    server.handle_bytes(&mut bytes);
    let event = server.poll_event(&mut BytesMut::new());
    assert_eq!(event, Some(ServerEvent::Request(Box::new(head.clone()))));
}

/// A client sees the same response, data and end however the stream is cut, and buffers within its limits.
///
/// Input: 0 for a CONNECT or 1 for an upgrade in the lowest bit, the cuts (from 0x80 on the stream ends without a
/// closure alert), then the stream.
///
/// # Panics
/// When the law is broken.
pub fn h1_client(data: &[u8]) {
    let Some(input) = Input::new(data) else {
        return;
    };
    let head = if input.options & 1 == 0 {
        RequestHead::classic_connect("target.example:443")
    } else {
        RequestHead::extended_connect("connect-udp", "https", "relay.example", "/masque")
    };
    let whole = ask(&head, &[input.stream], input.is_orderly);
    assert_eq!(whole, ask(&head, &input.pieces, input.is_orderly));
    let octets: Vec<&[u8]> = input.stream.chunks(1).collect();
    assert_eq!(whole, ask(&head, &octets, input.is_orderly));
}

fn ask(head: &RequestHead, pieces: &[&[u8]], is_orderly: bool) -> Trace<ClientEvent> {
    let mut conn = ClientConn::new(limits());
    let mut trace = Trace::new(BytesMut::new());
    let sent = conn.request(head, &mut trace.sent);
    assert_eq!(sent, Ok(()));
    for piece in pieces {
        let mut input = BytesMut::from(*piece);
        while !input.is_empty() {
            conn.handle_bytes(&mut input);
            assert!(conn.buffered_bytes() <= limits().receive_bytes_max);
            hear(&mut conn, &mut trace);
        }
    }
    conn.handle_end(is_orderly);
    hear(&mut conn, &mut trace);
    trace.is_tunnel = conn.is_tunnel();
    trace.is_closed = conn.is_closed();
    assert!(trace.is_tunnel || trace.is_closed);
    trace
}

fn hear(conn: &mut ClientConn, trace: &mut Trace<ClientEvent>) {
    while let Some(event) = conn.poll_event() {
        if event != ClientEvent::Readable {
            trace.events.push(event);
        }
    }
    trace.read(|| conn.recv_data(7));
}
