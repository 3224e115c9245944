use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Feeds `pieces` in turn; gives the events and the reader at the end.
fn read_pieces<'a>(
    max: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<CapsuleEvent>, CapsuleReader) {
    read_with(CapsuleReader::new(max), max, pieces)
}

/// As [`read_pieces`], with unknown capsules of up to `keep` bytes.
fn read_keeping<'a>(
    max: usize,
    keep: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<CapsuleEvent>, CapsuleReader) {
    let mut reader = CapsuleReader::new(max);
    reader.keep_unknown(keep);
    read_with(reader, max.max(keep), pieces)
}

/// Holds the reader to the most that it may buffer.
fn read_with<'a>(
    mut reader: CapsuleReader,
    max: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<CapsuleEvent>, CapsuleReader) {
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

fn unknown(capsule_type: u64, value: &[u8]) -> CapsuleEvent {
    CapsuleEvent::Unknown {
        capsule_type: CapsuleType(capsule_type),
        value: Bytes::copy_from_slice(value),
    }
}

// spec: 9297-3.2-a
#[test]
fn unknown_capsules_are_kept_for_those_who_ask() {
    let stream = b"\x17\x03\xaa\xbb\xcc\x00\x06\0hello\x40\x40\0\x80\0\xa0\x3f\x01\x01";
    for cut in 1..=stream.len() {
        let (events, reader) = read_keeping(9, 3, stream.chunks(cut));
        let expected = [
            unknown(0x17, b"\xaa\xbb\xcc"),
            datagram(b"\0hello"),
            unknown(0x40, b""),
            unknown(0xa03f, b"\x01"),
        ];
        assert_eq!(events, expected);
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.work().capsules_skipped, 0);
    }
}

#[test]
fn an_unknown_capsule_above_the_bound_is_skipped_and_counted() {
    let stream = b"\x17\x03abc\x17\x04abcd\x17\0";
    for cut in 1..=stream.len() {
        let (events, reader) = read_keeping(8, 3, stream.chunks(cut));
        assert_eq!(events, [unknown(0x17, b"abc"), unknown(0x17, b"")]);
        let work = Work {
            capsules: 3,
            capsules_skipped: 1,
            bytes_skipped: 4,
        };
        assert_eq!(reader.work(), work);
    }

    // The longest that is kept by default, and no allocation ahead of it.
    let head = b"\x17\x80\x01\x00\x00";
    let (_, reader) = read_keeping(8, UNKNOWN_VALUE_MAX, [&head[..], b"a"]);
    assert_eq!(reader.buffered(), 1);
    assert!(reader.value.capacity() < 64);
    let stream = [&head[..], &[7; UNKNOWN_VALUE_MAX]].concat();
    let (events, _) = read_keeping(8, UNKNOWN_VALUE_MAX, stream.chunks(1200));
    assert_eq!(events, [unknown(0x17, &[7; UNKNOWN_VALUE_MAX])]);
}

// spec: 9297-3.3-c
#[test]
fn end_inside_a_kept_capsule() {
    let (events, reader) = read_keeping(8, 3, [&b"\x17\x03\xaa"[..]]);
    assert!(events.is_empty());
    let missing = 2;
    assert_eq!(reader.finish(), Err(CapsuleError::EndInValue { missing }));
}

#[test]
fn keeping_begins_with_the_next_capsule() {
    let mut reader = CapsuleReader::default();
    let mut input = Bytes::from_static(b"\x17\x03a");
    assert_eq!(reader.read(&mut input), None);
    reader.keep_unknown(3);
    let mut input = Bytes::from_static(b"bc\x19\x01d");
    assert_eq!(reader.read(&mut input), Some(unknown(0x19, b"d")));
    assert_eq!(reader.read(&mut input), None);
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

#[test]
fn users_leave_the_capsules_of_the_tunnel_alone() {
    use UserTypeError::*;
    let (newest, old) = (
        Revision::newest(),
        Revision::of_token("connect-tcp-07").unwrap(),
    );
    for revision in [None, Some(newest), Some(old)] {
        let of_user = |kind| CapsuleType::of_user(kind, revision);
        assert_eq!(of_user(0), Err(Datagram));
        assert_eq!(of_user(0x17), Ok(CapsuleType(0x17)));
        assert_eq!(of_user(varint::MAX), Ok(CapsuleType(varint::MAX)));
        assert_eq!(of_user(varint::MAX + 1), Err(TooLarge(varint::MAX + 1)));
        for capsule_type in [newest.data, old.data] {
            let expected = match revision {
                Some(revision) if revision.data == capsule_type => Err(Data(capsule_type)),
                Some(_) | None => Ok(capsule_type),
            };
            assert_eq!(of_user(capsule_type.0), expected);
        }
        for capsule_type in [newest.final_data, old.final_data] {
            let expected = match revision {
                Some(revision) if revision.final_data == capsule_type => {
                    Err(FinalData(capsule_type))
                }
                Some(_) | None => Ok(capsule_type),
            };
            assert_eq!(of_user(capsule_type.0), expected);
        }
    }
    assert_eq!(
        FinalData(newest.final_data).to_string(),
        "capsules of type 0x2028d7f3 (FINAL_DATA) are sent by the tunnel"
    );
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
    fn round_trip(capsules in capsules(), lengths in vec(0usize..80, 0..40), keep in 0usize..300) {
        let (mut stream, mut expected, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (known, id, payload) in &capsules {
            if *known {
                encode_datagram_head(ContextId(*id), payload.len(), &mut stream);
                let mut value = Vec::new();
                ContextId(*id).encode(&mut value);
                value.extend_from_slice(payload);
                expected.push(datagram(&value));
                kept.push(datagram(&value));
                stream.extend_from_slice(payload);
            } else {
                let capsule_type = CapsuleType((*id).max(1));
                encode_capsule(capsule_type, payload, &mut stream);
                if payload.len() <= keep {
                    kept.push(unknown(capsule_type.0, payload));
                }
            }
        }
        let (events, reader) = read_pieces(DATAGRAM_VALUE_MAX, cut(&stream, &lengths));
        prop_assert_eq!(events, expected);
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(reader.work().capsules, capsules.len() as u64);

        let (events, reader) = read_keeping(DATAGRAM_VALUE_MAX, keep, cut(&stream, &lengths));
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(reader.work().capsules_skipped, (capsules.len() - kept.len()) as u64);
        prop_assert_eq!(events, kept);
    }

    #[test]
    fn any_split_of_any_bytes(
        stream in vec(prop_oneof![Just(0u8), 0u8..20, any::<u8>()], 0..200),
        lengths in vec(0usize..20, 0..40),
        max in 0usize..40,
        keep in 0usize..40,
    ) {
        let (whole, one) = read_pieces(max, [&stream[..]]);
        let (pieces, other) = read_pieces(max, cut(&stream, &lengths));
        prop_assert_eq!(&whole, &pieces);
        prop_assert_eq!(one.finish(), other.finish());
        prop_assert_eq!(one.work(), other.work());

        let (mut kept, one) = read_keeping(max, keep, [&stream[..]]);
        let (pieces, other) = read_keeping(max, keep, cut(&stream, &lengths));
        prop_assert_eq!(&kept, &pieces);
        prop_assert_eq!(one.finish(), other.finish());
        prop_assert_eq!(one.work(), other.work());
        kept.retain(|event| !matches!(event, CapsuleEvent::Unknown { .. }));
        prop_assert_eq!(kept, whole);
    }
}

/// Whether a type ends in 7: some that fit into a byte, and some that do not.
const fn ends_in_seven(capsule_type: CapsuleType) -> bool {
    capsule_type.0 % 10 == 7
}

fn too_long(capsule_type: u64, len: u64) -> CapsuleEvent {
    CapsuleEvent::TooLong {
        capsule_type: CapsuleType(capsule_type),
        len,
    }
}

// spec: 9297-3.2-a
#[test]
fn wanted_types_are_never_skipped_in_silence() {
    let stream = b"\x07\x03abc\x08\x03abc\x07\x04abcd\x00\x02\0x\x40\x45\x00\x07\x80\x01\x00\x01";
    let unknown = |kind, value: &'static [u8]| CapsuleEvent::Unknown {
        capsule_type: CapsuleType(kind),
        value: Bytes::from_static(value),
    };
    let all = [
        unknown(7, b"abc"),
        unknown(8, b"abc"),
        too_long(7, 4),
        datagram(b"\0x"),
        unknown(0x45, b""),
        too_long(7, 0x1_0001),
    ];
    let [first, _, second, third, _, fourth] = all.clone();
    let wanted = [first, second, third, fourth];
    for cut in 1..=stream.len() {
        for (keep, expected) in [(None, &wanted[..]), (Some(10), &all[..])] {
            let mut reader = CapsuleReader::default();
            reader.want(|capsule_type| capsule_type.0 == 7, 3);
            if let Some(bytes_max) = keep {
                reader.keep_unknown(bytes_max);
            }
            let (events, reader) = read_with(reader, DATAGRAM_VALUE_MAX, stream.chunks(cut));
            assert_eq!(events, expected);
            let missing = 0x1_0001;
            assert_eq!(reader.finish(), Err(CapsuleError::EndInValue { missing }));
        }
    }
}

proptest! {
    // Wanting some types changes nothing about the others, and each of the wanted is told in some way.
    #[test]
    fn wanted_types_come_between_the_others(
        capsules in vec((0u64..30, vec(any::<u8>(), 0..12)), 0..20),
        keep in prop::option::of(0usize..12),
        max in 0usize..12,
        cut in 1usize..9,
    ) {
        let mut stream = Vec::new();
        for (kind, value) in &capsules {
            encode_capsule(CapsuleType(*kind), value, &mut stream);
        }
        let [plain, wanting] = [false, true].map(|wants| {
            let mut reader = CapsuleReader::new(20);
            if let Some(bytes_max) = keep {
                reader.keep_unknown(bytes_max);
            }
            if wants {
                reader.want(ends_in_seven, max);
            }
            let (events, reader) = read_with(reader, 20, stream.chunks(cut));
            assert_eq!(reader.finish(), Ok(()));
            events
        });
        let type_of = |event: &CapsuleEvent| match event {
            CapsuleEvent::Unknown { capsule_type, .. } => Some(*capsule_type),
            CapsuleEvent::TooLong { capsule_type, .. } => Some(*capsule_type),
            CapsuleEvent::Datagram(_) | CapsuleEvent::Oversize { .. } => None,
        };
        let is_wanted = |event: &&CapsuleEvent| type_of(event).is_some_and(ends_in_seven);
        let others = |events: &[CapsuleEvent]| -> Vec<_> {
            events.iter().filter(|event| !is_wanted(event)).cloned().collect()
        };
        prop_assert_eq!(others(&plain), others(&wanting));
        let wanted: Vec<_> = wanting.iter().filter(is_wanted).cloned().collect();
        let sent = capsules.into_iter().filter(|(kind, _)| ends_in_seven(CapsuleType(*kind)));
        let expected: Vec<_> = sent
            .map(|(kind, value)| match value.len() {
                len if len > max => too_long(kind, len as u64),
                _ => CapsuleEvent::Unknown {
                    capsule_type: CapsuleType(kind),
                    value: value.into(),
                },
            })
            .collect();
        prop_assert_eq!(wanted, expected);
    }
}
