use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Feeds `pieces` in turn; gives the events and the reader at the end.
fn read_pieces<'a>(
    max: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<CapsuleEvent>, CapsuleReader) {
    let mut reader = CapsuleReader::new(max);
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(event) = reader.read(&mut input) {
            events.push(event);
        }
        assert!(input.is_empty());
        assert!(reader.buffered() <= max.max(varint::SIZE_MAX));
        assert!(reader.value.capacity() <= max.max(varint::SIZE_MAX));
    }
    (events, reader)
}

/// Reads `stream` in one piece, checks that single bytes give the same, and returns the outcome.
fn read(stream: &[u8]) -> (Vec<CapsuleEvent>, Result<(), CapsuleError>) {
    let (events, reader) = read_pieces(DATAGRAM_VALUE_MAX, [stream]);
    let (bytewise, other) = read_pieces(DATAGRAM_VALUE_MAX, stream.chunks(1));
    assert_eq!(events, bytewise);
    assert_eq!(reader.finish(), other.finish());
    assert_eq!(reader.work(), other.work());
    (events, reader.finish())
}

fn datagram(value: &[u8]) -> CapsuleEvent {
    CapsuleEvent::Datagram(Bytes::copy_from_slice(value))
}

// spec: 9297-3.5-a, 9297-1.1-a; the vectors of section 7 of the RFC 9297 digest
#[test]
fn datagrams() {
    for (stream, value) in [
        (&b"\x00\x06\0hello"[..], &b"\0hello"[..]),
        (b"\x00\x01\0", b"\0"),
        (b"\x00\x00", b""),
        (b"\x40\x00\x40\x06\0hello", b"\0hello"),
        (b"\xc0\0\0\0\0\0\0\0\xc0\0\0\0\0\0\0\x06\0hello", b"\0hello"),
        (b"\x00\x09\x80\0\0\0hello", b"\x80\0\0\0hello"),
        (b"\x00\x06\x02hello", b"\x02hello"),
    ] {
        assert_eq!(read(stream), (vec![datagram(value)], Ok(())));
    }
}

// spec: 9297-3.2-a
#[test]
fn unknown_types_are_skipped() {
    for stream in [
        &b"\x17\x03\xaa\xbb\xcc"[..],
        b"\x40\x40\0",
        b"\x80\0\xa0\x3f\x01\x01",
    ] {
        assert_eq!(read(stream), (vec![], Ok(())));
        let followed = [stream, b"\x00\x06\0hello"].concat();
        assert_eq!(read(&followed), (vec![datagram(b"\0hello")], Ok(())));
    }
}

// spec: 9297-3.3-c
#[test]
fn end_inside_a_capsule() {
    use CapsuleError::*;
    assert_eq!(read(b""), (vec![], Ok(())));
    assert_eq!(
        read(b"\x00\x06\0he"),
        (vec![], Err(EndInValue { missing: 3 }))
    );
    assert_eq!(read(b"\x00\x40"), (vec![], Err(EndInHead)));
    assert_eq!(read(b"\x00"), (vec![], Err(EndInHead)));
    assert_eq!(read(b"\xc0\x00"), (vec![], Err(EndInHead)));
    assert_eq!(read(b"\x00\x01"), (vec![], Err(EndInValue { missing: 1 })));
    assert_eq!(
        read(b"\x17\x03\xaa"),
        (vec![], Err(EndInValue { missing: 2 }))
    );
    assert_eq!(
        read(b"\x00\x80\x02\x00\x00\x80"),
        (vec![], Err(EndInValue { missing: 0x1_ffff }))
    );
}

// spec: 9297-3.5-e
#[test]
fn the_largest_length_allocates_nothing() {
    let (events, end) = read(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\0");
    let payload_len = varint::MAX - 1;
    let context_id = ContextId::UDP_PAYLOAD;
    assert_eq!(
        events,
        [CapsuleEvent::Oversize {
            context_id,
            payload_len
        }]
    );
    assert_eq!(
        end,
        Err(CapsuleError::EndInValue {
            missing: payload_len
        })
    );

    let (events, end) = read(b"\x17\xff\xff\xff\xff\xff\xff\xff\xff");
    assert!(events.is_empty());
    assert_eq!(
        end,
        Err(CapsuleError::EndInValue {
            missing: varint::MAX
        })
    );
}

// spec: 9298-5-d
#[test]
fn the_udp_limit() {
    let accepted = [&b"\x00\x80\x00\xff\xf8\x00"[..], &[7; UDP_PAYLOAD_MAX]].concat();
    let (events, reader) = read_pieces(DATAGRAM_VALUE_MAX, accepted.chunks(1200));
    assert_eq!(events, [datagram(accepted.get(5..).unwrap())]);
    assert_eq!(reader.finish(), Ok(()));

    // One more fits the default limit because of longer Context IDs; the tunnel measures the payload.
    let (events, _) = read_pieces(
        DATAGRAM_VALUE_MAX,
        [&b"\x00\x80\x00\xff\xf9\x00"[..], &[7; UDP_PAYLOAD_MAX + 1]],
    );
    assert!(
        matches!(&events[..], [CapsuleEvent::Datagram(value)] if value.len() == UDP_PAYLOAD_MAX + 2)
    );

    // A tighter reader reports it before the payload arrives.
    let (events, _) = read_pieces(UDP_PAYLOAD_MAX + 1, [&b"\x00\x80\x00\xff\xf9\x00"[..]]);
    let (context_id, payload_len) = (ContextId::UDP_PAYLOAD, UDP_PAYLOAD_MAX as u64 + 1);
    assert_eq!(
        events,
        [CapsuleEvent::Oversize {
            context_id,
            payload_len
        }]
    );
}

// spec: 9298-5-f
#[test]
fn oversize_is_skipped_and_the_stream_goes_on() {
    let stream = [&b"\x00\x0a\x40\x021234567\x09"[..], b"\x00\x01\x04"].concat();
    let (events, reader) = read_pieces(9, [&stream[..]]);
    let oversize = CapsuleEvent::Oversize {
        context_id: ContextId(2),
        payload_len: 8,
    };
    assert_eq!(events, [oversize, datagram(b"\x04")]);
    let work = Work {
        capsules: 2,
        capsules_skipped: 1,
        bytes_skipped: 10,
    };
    assert_eq!(reader.work(), work);
}

#[test]
fn a_value_in_one_piece_is_not_copied() {
    let stream = Bytes::from_static(b"\x17\x00\x00\x06\0hello");
    let mut input = stream.clone();
    let Some(CapsuleEvent::Datagram(value)) = CapsuleReader::default().read(&mut input) else {
        panic!("no datagram");
    };
    assert_eq!(value.as_ptr(), stream.slice(4..).as_ptr());
}

#[test]
fn a_declared_length_is_not_allocated_ahead() {
    let (_, reader) = read_pieces(DATAGRAM_VALUE_MAX, [&b"\x00\x80\x00\xff\xf8\x00hello"[..]]);
    assert_eq!(reader.buffered(), 6);
    assert!(reader.value.capacity() < 64);
}

// spec: rc-curl-c
#[test]
fn heads_are_minimal() {
    let mut out = Vec::new();
    encode_datagram_head(ContextId::UDP_PAYLOAD, 5, &mut out);
    assert_eq!(out, b"\x00\x06\0");

    out.clear();
    encode_datagram_head(ContextId::UDP_PAYLOAD, UDP_PAYLOAD_MAX, &mut out);
    assert_eq!(out, b"\x00\x80\x00\xff\xf8\x00");

    out.clear();
    encode_head(CapsuleType(0x40), 0, &mut out);
    assert_eq!(out, b"\x40\x40\x00");

    out.clear();
    encode_datagram_head(ContextId(varint::MAX), 1 << 40, &mut out);
    assert_eq!(out.len(), DATAGRAM_HEAD_MAX);
}

/// A capsule to send: unknown type, or datagram with context and payload.
fn capsules() -> impl Strategy<Value = Vec<(bool, u64, Vec<u8>)>> {
    let id = prop_oneof![0u64..200, any::<u64>().prop_map(|v| v & varint::MAX)];
    vec((any::<bool>(), id, vec(any::<u8>(), 0..300)), 0..12)
}

fn cut<'a>(mut stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for len in lengths {
        let (piece, rest) = stream.split_at((*len).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}

proptest! {
    #[test]
    fn round_trip(capsules in capsules(), lengths in vec(0usize..80, 0..40)) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (known, id, payload) in &capsules {
            if *known {
                encode_datagram_head(ContextId(*id), payload.len(), &mut stream);
                let mut value = Vec::new();
                ContextId(*id).encode(&mut value);
                value.extend_from_slice(payload);
                expected.push(datagram(&value));
            } else {
                encode_head(CapsuleType((*id).max(1)), payload.len() as u64, &mut stream);
            }
            stream.extend_from_slice(payload);
        }
        let (events, reader) = read_pieces(DATAGRAM_VALUE_MAX, cut(&stream, &lengths));
        prop_assert_eq!(events, expected);
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(reader.work().capsules, capsules.len() as u64);
    }

    #[test]
    fn any_split_of_any_bytes(
        stream in vec(prop_oneof![Just(0u8), 0u8..20, any::<u8>()], 0..200),
        lengths in vec(0usize..20, 0..40),
        max in 0usize..40,
    ) {
        let (whole, one) = read_pieces(max, [&stream[..]]);
        let (pieces, other) = read_pieces(max, cut(&stream, &lengths));
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(one.finish(), other.finish());
        prop_assert_eq!(one.work(), other.work());
    }
}
