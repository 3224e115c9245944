use proptest::prelude::*;

use super::*;
use crate::wire::capsule::{CapsuleEvent, CapsuleReader, UNKNOWN_VALUE_MAX};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Reads a whole capsule, type and length included.
fn parse(hex: &str) -> Result<IpCapsule, IpCapsuleError> {
    let mut reader = CapsuleReader::default();
    reader.keep_unknown(UNKNOWN_VALUE_MAX);
    let mut input = bytes(hex).into();
    let Some(CapsuleEvent::Unknown {
        capsule_type,
        value,
    }) = reader.read(&mut input)
    else {
        panic!("no capsule: {hex}");
    };
    assert!(input.is_empty(), "more than a capsule: {hex}");
    IpCapsule::parse(capsule_type, &value).expect("a type of CONNECT-IP")
}

fn encode(capsule: &IpCapsule) -> Vec<u8> {
    let mut out = BytesMut::new();
    capsule.encode(&mut out);
    out.into()
}

fn assigned(entries: &[(u64, &str)]) -> IpCapsule {
    let entry = |&(request_id, prefix): &(u64, &str)| AssignedAddress {
        request_id,
        prefix: prefix.parse().unwrap(),
    };
    IpCapsule::AddressAssign(entries.iter().map(entry).collect())
}

fn requested(entries: &[(u64, &str)]) -> IpCapsule {
    let entry = |&(request_id, prefix): &(u64, &str)| RequestedAddress {
        request_id,
        prefix: prefix.parse().unwrap(),
    };
    IpCapsule::AddressRequest(entries.iter().map(entry).collect())
}

fn routes(entries: &[(&str, &str, u8)]) -> IpCapsule {
    let entry = |&(start, end, protocol): &(&str, &str, u8)| AddressRange {
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
        protocol,
    };
    IpCapsule::RouteAdvertisement(entries.iter().map(entry).collect())
}

// Section 8 of the RFC 9484 digest
// spec: 9484-4.7.1-a, 9484-4.7.2-c, 9484-4.7.3-a, 9484-4.7.3-c
#[test]
fn valid_capsules() {
    for (hex, capsule) in [
        (
            "01 07 00 04 c0 00 02 0b 20",
            assigned(&[(0, "192.0.2.11/32")]),
        ),
        (
            "01 07 00 04 c0 00 02 00 18",
            assigned(&[(0, "192.0.2.0/24")]),
        ),
        ("01 07 00 04 00 00 00 00 00", assigned(&[(0, "0.0.0.0/0")])),
        (
            "01 1a 01 04 c0 00 02 0b 20 02 06 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 00 40",
            assigned(&[(1, "192.0.2.11/32"), (2, "2001:db8:1::/64")]),
        ),
        ("01 00", assigned(&[])),
        ("01 07 01 04 00 00 00 00 20", assigned(&[(1, "0.0.0.0/32")])),
        (
            "01 13 02 06 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80",
            assigned(&[(2, "::/128")]),
        ),
        (
            "01 08 40 40 04 c0 00 02 0b 20",
            assigned(&[(64, "192.0.2.11/32")]),
        ),
        (
            "02 07 01 04 00 00 00 00 20",
            requested(&[(1, "0.0.0.0/32")]),
        ),
        (
            "02 1a 01 04 00 00 00 00 20 02 06 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80",
            requested(&[(1, "0.0.0.0/32"), (2, "::/128")]),
        ),
        (
            "02 13 03 06 20 01 0d b8 00 aa 00 00 00 00 00 00 00 00 00 00 40",
            requested(&[(3, "2001:db8:aa::/64")]),
        ),
        (
            "03 0a 04 00 00 00 00 ff ff ff ff 00",
            routes(&[("0.0.0.0", "255.255.255.255", 0)]),
        ),
        (
            "03 14 04 c0 00 02 00 c0 00 02 29 00 04 c0 00 02 2b c0 00 02 ff 00",
            routes(&[
                ("192.0.2.0", "192.0.2.41", 0),
                ("192.0.2.43", "192.0.2.255", 0),
            ]),
        ),
        (
            "03 22 06 20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b
             20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b 84",
            routes(&[("2001:db8:3456::b", "2001:db8:3456::b", 132)]),
        ),
        (
            "03 2c 04 c6 33 64 02 c6 33 64 02 11 06 20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b
             20 01 0d b8 34 56 00 00 00 00 00 00 00 00 00 0b 11",
            routes(&[
                ("198.51.100.2", "198.51.100.2", 17),
                ("2001:db8:3456::b", "2001:db8:3456::b", 17),
            ]),
        ),
        (
            "03 14 04 c6 33 64 02 c6 33 64 02 06 04 c6 33 64 02 c6 33 64 02 11",
            routes(&[
                ("198.51.100.2", "198.51.100.2", 6),
                ("198.51.100.2", "198.51.100.2", 17),
            ]),
        ),
        (
            "03 14 04 c0 00 02 00 c0 00 02 7f 00 04 c0 00 02 80 c0 00 02 ff 00",
            routes(&[
                ("192.0.2.0", "192.0.2.127", 0),
                ("192.0.2.128", "192.0.2.255", 0),
            ]),
        ),
        ("03 00", routes(&[])),
    ] {
        assert_eq!(parse(hex).as_ref(), Ok(&capsule), "{hex}");
        assert_eq!(encode(&capsule), bytes(hex), "{hex}");
    }
}

// spec: 9297-1.1-a
#[test]
fn longer_integers_mean_the_same() {
    let capsule = parse("40 01 40 08 40 00 04 c0 00 02 0b 20").unwrap();
    assert_eq!(capsule, assigned(&[(0, "192.0.2.11/32")]));
    assert_eq!(encode(&capsule), bytes("01 07 00 04 c0 00 02 0b 20"));
}

// Section 9 of the RFC 9484 digest; a capsule that its stream cuts (bad-fin) is the capsule reader's.
// spec: 9484-4.7-b, 9484-4.7.1-c, 9484-4.7.1-d, 9484-4.7.1-e, 9484-4.7.2-a, 9484-4.7.2-b, 9484-4.7.2-h, 9484-4.7.2-j
// spec: 9484-4.7.3-b, 9484-4.7.3-d, 9484-4.7.3-e, 9484-4.7.3-f, 9484-4.7.3-g, 9297-3.3-b
#[test]
fn malformed_capsules() {
    use IpCapsuleError::*;
    let host_bits = |prefix: &str| HostBits {
        prefix: prefix.parse().unwrap(),
    };
    let order = |start: &str| RangeOrder {
        start: start.parse().unwrap(),
    };
    for (hex, error) in [
        ("01 07 00 05 c0 00 02 0b 20", Version { version: 5 }),
        (
            "01 07 00 04 c0 00 02 0b 21",
            PrefixLength { len: 33, max: 32 },
        ),
        (
            "01 13 00 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 81",
            PrefixLength { len: 129, max: 128 },
        ),
        ("01 07 00 04 c0 00 02 0b 18", host_bits("192.0.2.11/24")),
        (
            "01 13 00 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 40",
            host_bits("2001:db8::1/64"),
        ),
        ("01 06 00 04 c0 00 02 0b", Truncated),
        ("01 08 00 04 c0 00 02 0b 20 00", Truncated),
        ("02 00", NoRequest),
        ("02 07 00 04 00 00 00 00 20", RequestIdZero),
        (
            "02 1a 01 04 00 00 00 00 20 01 06 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80",
            RequestIdTwice { request_id: 1 },
        ),
        ("02 07 01 05 00 00 00 00 20", Version { version: 5 }),
        (
            "02 07 01 04 00 00 00 00 21",
            PrefixLength { len: 33, max: 32 },
        ),
        ("02 07 01 04 c0 00 02 0b 18", host_bits("192.0.2.11/24")),
        (
            "03 0a 04 c0 00 02 09 c0 00 02 01 00",
            Range {
                start: [192, 0, 2, 9].into(),
                end: [192, 0, 2, 1].into(),
            },
        ),
        (
            "03 0a 01 c0 00 02 00 c0 00 02 01 00",
            Version { version: 1 },
        ),
        (
            "03 2c 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
             20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 04 c0 00 02 01 c0 00 02 01 00",
            order("192.0.2.1"),
        ),
        (
            "03 14 04 c0 00 02 01 c0 00 02 01 11 04 c0 00 02 02 c0 00 02 02 06",
            order("192.0.2.2"),
        ),
        (
            "03 14 04 c0 00 02 00 c0 00 02 7f 00 04 c0 00 02 7f c0 00 02 ff 00",
            order("192.0.2.127"),
        ),
        (
            "03 14 04 c0 00 02 00 c0 00 02 ff 00 04 c0 00 02 01 c0 00 02 01 11",
            RangeOverlap {
                start: [192, 0, 2, 1].into(),
                protocol: 17,
            },
        ),
        ("03 09 04 c0 00 02 00 c0 00 02 01", Truncated),
        ("03 0b 04 c0 00 02 00 c0 00 02 01 00 06", Truncated),
    ] {
        assert_eq!(parse(hex), Err(error), "{hex}");
    }
}
