//! The bodies of the fuzz targets: each takes any bytes and panics when a law of a codec is broken.
//!
//! The targets in `fuzz/` call them with what the fuzzer invents, `tests/corpus.rs` with the files of `fuzz/corpus/`.
//! That test has the list of all targets.

mod ip;
mod ip_stream;
mod relay;
mod text;

use ::http::HeaderMap;
use ::http::header::{HeaderValue, VIA};
use bytes::Bytes;

pub use self::ip::{ip_capsule, scope};
pub use self::ip_stream::ip_stream;
pub use self::relay::{packet, relay};
pub use self::text::{config, rule, target, template};
pub use crate::http::h1::fuzz_entry::{h1_client, h1_server};
pub use crate::http::h3::fuzz_entry::{fields, frame, qpack, settings};
pub use crate::http::h3::fuzz_ops::h3_ops;
use crate::tunnel::tcp::{self, Piece};
use crate::tunnel::{Delivery, Framing, Inbound, TcpError, UdpError};
use crate::wire::capsule::{
    CapsuleEvent, CapsuleReader, CapsuleType, DATAGRAM_VALUE_MAX, UNKNOWN_VALUE_MAX, encode_capsule,
};
use crate::wire::codepoints::Revision;
use crate::wire::datagram::{
    QuarterStreamId, UDP_PAYLOAD_MAX, split_context_id, split_quarter_stream_id,
};
use crate::wire::proxy_status::{self, Member, PROXY_STATUS, ProxyStatus};
use crate::wire::{field, varint, via};

/// A stream, whole and in pieces: `data` starts with the lengths of `cuts` (modulo 16) pieces.
fn cut(cuts: u8, data: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (lengths, stream) = data.split_at(data.len().min(usize::from(cuts % 16)));
    let mut pieces = Vec::new();
    let mut left = stream;
    for len in lengths {
        let (piece, tail) = left.split_at(left.len().min((*len).into()));
        pieces.push(piece);
        left = tail;
    }
    pieces.push(left);
    (stream, pieces)
}

/// A capsule stream gives the same events and the same end, cut or whole, and is buffered within the limit. Whether
/// unknown capsules are kept changes nothing about the others, and what is reported can be written and read again. The
/// same goes for a byte stream in capsules.
///
/// Input: one byte that selects the limit (0: the default), one byte for the number of cuts (modulo 16), one byte per
/// cut for the length of a piece, then the stream.
///
/// # Panics
/// When the law is broken.
pub fn capsule(data: &[u8]) {
    let [limit, cuts, rest @ ..] = data else {
        return;
    };
    let limit = match usize::from(*limit) {
        0 => DATAGRAM_VALUE_MAX,
        limit => limit,
    };
    let (stream, pieces) = cut(*cuts, rest);
    byte_stream(limit, stream, &pieces);
    let [skipping, keeping] = [None, Some(limit)].map(|keep| {
        let (whole_events, whole) = read_capsules(limit, keep, &[stream]);
        let (events, reader) = read_capsules(limit, keep, &pieces);
        assert_eq!(whole_events, events);
        assert_eq!(whole.finish(), reader.finish());
        assert_eq!(whole.work(), reader.work());
        events
    });
    let is_known = |event: &&CapsuleEvent| !matches!(event, CapsuleEvent::Unknown { .. });
    assert!(skipping.iter().eq(keeping.iter().filter(is_known)));

    let mut again = Vec::new();
    for event in &keeping {
        match event {
            CapsuleEvent::Datagram(value) => {
                encode_capsule(CapsuleType::DATAGRAM, value, &mut again)
            }
            CapsuleEvent::Unknown {
                capsule_type,
                value,
            } => encode_capsule(*capsule_type, value, &mut again),
            // Its payload was not held.
            CapsuleEvent::Oversize { .. } | CapsuleEvent::TooLong { .. } => return,
        }
    }
    assert_eq!(read_capsules(limit, Some(limit), &[&again]).0, keeping);
}

/// The laws of [`capsule`] for a stream of TCP.
fn byte_stream(limit: usize, stream: &[u8], pieces: &[&[u8]]) {
    let keeping = read_byte_stream(Some(limit), &[stream]);
    assert_eq!(keeping, read_byte_stream(Some(limit), pieces));
    let skipping = read_byte_stream(None, pieces);
    assert!(skipping.capsules.is_empty());
    assert_eq!(skipping.bytes, keeping.bytes);
    assert_eq!(skipping.end, keeping.end);
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ByteStream {
    bytes: Vec<u8>,
    /// With the offset in the bytes at which each came.
    capsules: Vec<(usize, u64, Bytes)>,
    /// None until all was read.
    end: Option<Result<(), TcpError>>,
}

fn read_byte_stream(keep: Option<usize>, pieces: &[&[u8]]) -> ByteStream {
    let mut inbound = tcp::Inbound::new(Framing::Capsules(Revision::newest()));
    if let Some(bytes_max) = keep {
        inbound.keep_unknown(bytes_max);
    }
    let mut found = ByteStream::default();
    for data in pieces {
        let data = Bytes::copy_from_slice(data);
        let result = inbound.handle_data(data, &mut |piece| match piece {
            Piece::Data(payload) => found.bytes.extend_from_slice(&payload),
            Piece::Capsule { kind, value } => {
                assert!(keep.is_some_and(|max| value.len() <= max));
                found.capsules.push((found.bytes.len(), kind, value));
            }
        });
        if let Err(error) = result {
            found.end = Some(Err(error));
            return found;
        }
    }
    found.end = Some(inbound.handle_finished());
    found
}

fn read_capsules(
    limit: usize,
    keep: Option<usize>,
    pieces: &[&[u8]],
) -> (Vec<CapsuleEvent>, CapsuleReader) {
    let mut reader = CapsuleReader::new(limit);
    if let Some(bytes_max) = keep {
        reader.keep_unknown(bytes_max);
    }
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(event) = reader.read(&mut input) {
            match &event {
                CapsuleEvent::Datagram(value) => {
                    assert!(value.len() <= limit.max(varint::SIZE_MAX))
                }
                CapsuleEvent::Oversize { payload_len, .. } => assert!(*payload_len <= varint::MAX),
                CapsuleEvent::Unknown { value, .. } => {
                    assert!(keep.is_some_and(|max| value.len() <= max));
                }
                CapsuleEvent::TooLong { .. } => unreachable!("no type is wanted"),
            }
            events.push(event);
        }
        assert!(input.is_empty());
        assert!(reader.buffered() <= limit.max(varint::SIZE_MAX));
    }
    (events, reader)
}

/// The data stream of a tunnel gives the same UDP payloads and the same end, cut or whole, and whether or not the
/// capsules between are wanted.
///
/// Input: one byte for the number of cuts (modulo 16), one byte per cut for the length of a piece, then the stream.
///
/// # Panics
/// When the law is broken.
pub fn udp(data: &[u8]) {
    let [cuts, rest @ ..] = data else {
        return;
    };
    let (stream, pieces) = cut(*cuts, rest);
    let (mut kept, end) = read_udp(true, &[stream]);
    assert_eq!((kept.clone(), end.clone()), read_udp(true, &pieces));
    kept.retain(|delivery| !matches!(delivery, Delivery::Capsule { .. }));
    assert_eq!((kept, end), read_udp(false, &pieces));
}

fn read_udp(keep: bool, pieces: &[&[u8]]) -> (Vec<Delivery>, Result<(), UdpError>) {
    let mut inbound = Inbound::default();
    if keep {
        inbound.keep_unknown(UNKNOWN_VALUE_MAX);
    }
    let mut found = Vec::new();
    for piece in pieces {
        let piece = Bytes::copy_from_slice(piece);
        let result = inbound.handle_data(piece, |delivery| found.push(delivery));
        if result.is_err() {
            return (found, result);
        }
    }
    for delivery in &found {
        match delivery {
            Delivery::Payload(payload) => assert!(payload.len() <= UDP_PAYLOAD_MAX),
            Delivery::Context { id, .. } => assert!((1..=varint::MAX).contains(id)),
            Delivery::Capsule { kind, value } => {
                assert!((1..=varint::MAX).contains(kind));
                assert!(keep && value.len() <= UNKNOWN_VALUE_MAX);
            }
            Delivery::Dropped => {}
        }
    }
    (found, inbound.handle_finished())
}

/// The head of a datagram that parses can be encoded, and parses to the same again.
///
/// Input: the payload of a QUIC DATAGRAM frame.
///
/// # Panics
/// When the law is broken.
pub fn datagram(data: &[u8]) {
    let Ok((quarter, used)) = split_quarter_stream_id(data) else {
        return;
    };
    assert!(quarter <= QuarterStreamId::MAX && quarter.stream_id().is_multiple_of(4));
    let (_, payload) = data.split_at(used);
    let mut head = Vec::new();
    quarter.encode(&mut head);
    assert_eq!(
        split_quarter_stream_id(&head),
        Ok((quarter, quarter.size()))
    );

    if let Some((context, used)) = split_context_id(payload) {
        assert!(used <= payload.len());
        let mut head = Vec::new();
        context.encode(&mut head);
        assert_eq!(split_context_id(&head), Some((context, context.size())));
    }
}

/// Fields of any content are read without harm, and members survive being written and forwarded.
///
/// Input: one field line per line.
///
/// # Panics
/// When the law is broken.
pub fn proxy_status(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(PROXY_STATUS, value.clone());
            headers.append(VIA, value.clone());
            headers.append(field::CAPSULE_PROTOCOL, value);
        }
    }

    let mut status = ProxyStatus::parse(&headers);
    if let Some(line) = status.serialize() {
        let line = HeaderValue::try_from(line).expect("a field value");
        let again = HeaderMap::from_iter([(PROXY_STATUS, line)]);
        assert_eq!(ProxyStatus::parse(&again), status);
    }
    let own = Member::new("relay.example");
    proxy_status::append(&mut headers, &own).expect("room for a field");
    status.members.push(own);
    assert_eq!(ProxyStatus::parse(&headers), status);

    via::append(&mut headers, "3", "relay-7f3a").expect("room for a field");
    assert!(via::contains(&headers, "relay-7f3a"));
    let single = headers.get_all(field::CAPSULE_PROTOCOL).iter().count() == 1;
    assert!(single || !field::capsule_protocol(&headers));
}

/// An integer that parses is within bounds, and its shortest form is no longer than what was read.
///
/// Input: any bytes.
///
/// # Panics
/// When the law is broken.
pub fn varint(data: &[u8]) {
    let Some((value, used)) = varint::decode(data) else {
        assert!(data.len() < varint::SIZE_MAX);
        return;
    };
    assert!(value <= varint::MAX && used <= data.len());
    let mut encoded = Vec::new();
    varint::encode(value, &mut encoded);
    assert_eq!(encoded.len(), varint::size(value));
    assert!(encoded.len() <= used);
    assert_eq!(varint::decode(&encoded), Some((value, encoded.len())));
}
