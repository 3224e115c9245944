use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::capsule::CapsuleType;
use crate::wire::capsule::{CapsuleError, encode_capsule, encode_datagram_head};
use crate::wire::ip::{AssignedAddress, IpCapsuleError};

fn read(bytes: &[u8]) -> Result<Vec<Delivery>, IpError> {
    read_pieces(None, [bytes]).1
}

/// What was delivered, and the same if the stream has ended well.
fn read_pieces<'a>(
    keep: Option<usize>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Delivery>, Result<Vec<Delivery>, IpError>) {
    let mut inbound = Inbound::default();
    if let Some(bytes_max) = keep {
        inbound.keep_unknown(bytes_max);
    }
    let mut seen = Vec::new();
    for piece in pieces {
        let data = Bytes::copy_from_slice(piece);
        if let Err(error) = inbound.handle_data(data, |delivery| seen.push(delivery)) {
            return (seen, Err(error));
        }
        let held = inbound.reader().buffered();
        assert!(held <= IP_PACKET_MAX + varint::SIZE_MAX + keep.unwrap_or(0));
    }
    let end = inbound.handle_finished();
    (seen.clone(), end.map(|()| seen))
}

fn packet(bytes: &'static [u8]) -> Delivery {
    Delivery::Packet(Bytes::from_static(bytes))
}

fn assign(prefix: &str) -> Delivery {
    let entry = AssignedAddress {
        request_id: 0,
        prefix: prefix.parse().unwrap(),
    };
    Delivery::Ip(IpCapsule::AddressAssign(vec![entry]))
}

// spec: 9484-5-a, 9484-6-a, 9484-6-b, 9484-6-c
#[test]
fn datagrams() {
    let read = |bytes| arrival(Bytes::from_static(bytes));
    let payload = Bytes::from_static(b"E...");
    assert_eq!(read(b"\0E..."), Arrival::Packet(payload.clone()));
    assert_eq!(read(b"\x80\0\0\0E..."), Arrival::Packet(payload.clone()));
    assert_eq!(read(b"\0"), Arrival::Packet(Bytes::new()));
    assert_eq!(read(b"\x02E..."), Arrival::Context { id: 2, payload });
    assert_eq!(read(b""), Arrival::Dropped);
    assert_eq!(read(b"\x40"), Arrival::Dropped);
}

// Vectors aa-v4 and aa-nonminimal of section 8 of the RFC 9484 digest.
// spec: 9484-4.7-a, 9297-3.2-a
#[test]
fn packets_and_capsules_in_order() {
    let wire = [
        &b"\0\x06\0hello"[..],
        b"\x01\x07\0\x04\xc0\0\x02\x0b\x20",
        b"\x17\x03abc",
        b"\x40\x01\x40\x08\x40\0\x04\xc0\0\x02\x0b\x20",
        b"\0\x04\x02abc",
        b"\0\x01\0",
    ]
    .concat();
    let context = Delivery::Context {
        id: 2,
        payload: Bytes::from_static(b"abc"),
    };
    let mut expected = vec![
        packet(b"hello"),
        assign("192.0.2.11/32"),
        assign("192.0.2.11/32"),
        context,
        packet(b""),
    ];
    for cut in 1..=wire.len() {
        let (_, read) = read_pieces(None, wire.chunks(cut));
        assert_eq!(read, Ok(expected.clone()));
    }
    let value = Bytes::from_static(b"abc");
    expected.insert(2, Delivery::Capsule { kind: 0x17, value });
    for cut in 1..=wire.len() {
        let (_, read) = read_pieces(Some(3), wire.chunks(cut));
        assert_eq!(read, Ok(expected.clone()));
    }
}

// Whether unknown capsules are kept, and how much of them, is nothing to the ones that are known.
// spec: 9484-4.7.1-a
#[test]
fn known_capsules_are_never_skipped() {
    let mut wire = vec![0x01, 0x80, 0x01, 0x00, 0x00];
    for n in 0..9362u32 {
        let [_, a, b, c] = n.to_be_bytes();
        wire.extend([0, 4, 10, a, b, c, 32]);
    }
    wire.extend([0, 4]);
    assert_eq!(wire.len(), 5 + IP_VALUE_MAX);
    let truncated = Err(IpError::Capsule(IpCapsuleError::Truncated));
    for keep in [None, Some(0), Some(IP_VALUE_MAX)] {
        for cut in [1, 1000, wire.len()] {
            assert_eq!(read_pieces(keep, wire.chunks(cut)).1, truncated);
        }
    }
    let whole = [&[0x01, 0x80, 0x00, 0xff, 0xfe], &wire[5..5 + 65_534]].concat();
    assert_eq!(read(&whole).unwrap().len(), 1);
}

// spec: 9484-4.7-b
#[test]
fn known_capsules_that_are_too_long_end_the_tunnel() {
    let len = IP_VALUE_MAX as u64 + 1;
    for kind in [
        CapsuleType::ADDRESS_ASSIGN,
        CapsuleType::ADDRESS_REQUEST,
        CapsuleType::ROUTE_ADVERTISEMENT,
        CapsuleType::DNS_ASSIGN,
        CapsuleType::PREF64,
    ] {
        let mut head = Vec::new();
        crate::wire::capsule::encode_head(kind, len, &mut head);
        let too_long = Err(IpError::CapsuleTooLong { kind, len });
        for keep in [None, Some(2 * IP_VALUE_MAX)] {
            assert_eq!(read_pieces(keep, head.chunks(1)).1, too_long);
        }
    }
    // Others of that length are skipped.
    let mut other = Vec::new();
    encode_capsule(CapsuleType(0x04), &vec![0; IP_VALUE_MAX + 1], &mut other);
    for keep in [None, Some(IP_VALUE_MAX)] {
        assert_eq!(read_pieces(keep, [&other[..]]).1, Ok(vec![]));
    }
}

// spec: 9297-3.3-a, 9297-3.3-b, 9297-3.3-c, 9484-4.7-b, 9484-4.7.2-h
#[test]
fn streams_that_end_the_tunnel() {
    assert_eq!(read(&[0, 0]), Err(IpError::NoContextId));
    assert_eq!(read(&[0, 1, 0x40]), Err(IpError::NoContextId));
    let missing = CapsuleError::EndInValue { missing: 3 };
    assert_eq!(
        read(b"\x01\x07\0\x04\xc0\0"),
        Err(IpError::CapsuleCut(missing))
    );
    assert_eq!(
        read(b"\x01"),
        Err(IpError::CapsuleCut(CapsuleError::EndInHead))
    );
    assert_eq!(
        read(b"\x02\0"),
        Err(IpError::Capsule(IpCapsuleError::NoRequest))
    );
    // What came before the mistake has come.
    let (seen, end) = read_pieces(None, [&b"\0\x02\0E\x01\x01\0\0\x02\0E"[..]]);
    assert_eq!(seen, [packet(b"E")]);
    assert_eq!(end, Err(IpError::Capsule(IpCapsuleError::Truncated)));
    assert_eq!(read(&[]), Ok(vec![]));
}

// spec: 9484-6-c
#[test]
fn oversize_datagrams_are_dropped() {
    for context in [0, 1] {
        for (len, is_packet) in [(IP_PACKET_MAX, true), (IP_PACKET_MAX + 9, false)] {
            let mut wire = Vec::new();
            encode_datagram_head(ContextId(context), len, &mut wire);
            wire.resize(wire.len() + len, 0x45);
            wire.extend(b"\0\x01\0");
            for cut in [1200, wire.len()] {
                let read = read_pieces(None, wire.chunks(cut)).1.unwrap();
                assert_eq!(read[0] != Delivery::Dropped, is_packet);
                assert_eq!(read[1], packet(b""));
            }
        }
    }
}

fn capsule() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![0u64..5, Just(0x1ace_79ec), Just(0x274c_0fbc), 0u64..1 << 62];
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        Just(b"\0\x04\xc0\0\x02\x0b\x20".to_vec()),
        Just(b"\x04\xc0\0\x02\0\xc0\0\x02\xff\0".to_vec()),
    ];
    (kind, value).prop_map(|(kind, value)| {
        let mut wire = Vec::new();
        encode_capsule(CapsuleType(kind), &value, &mut wire);
        wire
    })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        capsules in vec(capsule(), 0..12),
        cut in 1usize..20,
        lacking in 0usize..4,
        keep in prop::option::of(0usize..50),
    ) {
        let wire = capsules.concat();
        let wire = &wire[..wire.len().saturating_sub(lacking)];
        let (mut seen, end) = read_pieces(keep, [wire]);
        let (seen_in_pieces, end_in_pieces) = read_pieces(keep, wire.chunks(cut));
        prop_assert_eq!(&seen_in_pieces, &seen);
        prop_assert_eq!(&end_in_pieces, &end);
        // What is not kept changes nothing about the rest.
        seen.retain(|delivery| !matches!(delivery, Delivery::Capsule { .. }));
        let (skipping, skipping_end) = read_pieces(None, [wire]);
        prop_assert_eq!(skipping, seen);
        prop_assert_eq!(skipping_end.err(), end.err());
    }
}
