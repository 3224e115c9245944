//! The vectors and the laws of the capsules of CONNECT-IP.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

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

#[test]
fn other_types_are_for_others() {
    for capsule_type in [0x00, 0x04, 0x2028_d7f2, varint::MAX] {
        assert_eq!(IpCapsule::parse(CapsuleType(capsule_type), &[]), None);
    }
}

#[test]
fn ranges_of_two_versions_are_none() {
    let check = |start, end| routes(&[(start, end, 0)]).check().is_ok();
    assert!(check("192.0.2.1", "192.0.2.1"));
    assert!(!check("192.0.2.1", "::1"));
    assert!(!check("::1", "192.0.2.1"));
}

// spec: 9484-4.7.3-d, 9484-4.7.3-f
#[test]
fn order_and_overlap_of_ranges() {
    let valid = routes(&[
        ("192.0.2.0", "192.0.2.9", 0),
        ("192.0.2.20", "192.0.2.29", 0),
        ("192.0.2.10", "192.0.2.19", 6),
        ("192.0.2.30", "192.0.2.255", 6),
        ("192.0.2.10", "192.0.2.10", 17),
        ("::", "::9", 0),
        ("::a", "ffff::", 255),
    ]);
    assert_eq!(valid.check(), Ok(()));
    let IpCapsule::RouteAdvertisement(valid) = valid else {
        panic!("routes");
    };
    for first in 0..valid.len() {
        for second in 0..first {
            let mut ranges = valid.clone();
            ranges.swap(first, second);
            let check = IpCapsule::RouteAdvertisement(ranges).check();
            assert!(matches!(check, Err(IpCapsuleError::RangeOrder { .. })));
        }
    }
    for (start, end) in [
        ("192.0.2.9", "192.0.2.10"),
        ("192.0.2.19", "192.0.2.20"),
        ("192.0.2.25", "192.0.2.25"),
        ("0.0.0.0", "255.255.255.255"),
    ] {
        let mut ranges = valid.clone();
        let [start, end] = [start, end].map(|ip| ip.parse().unwrap());
        let protocol = 50;
        ranges.insert(
            5,
            AddressRange {
                start,
                end,
                protocol,
            },
        );
        let check = IpCapsule::RouteAdvertisement(ranges).check();
        assert_eq!(check, Err(IpCapsuleError::RangeOverlap { start, protocol }));
    }
}

// spec: 9484-4.7.2-f, 9484-4.7.2-j
#[test]
fn refusals() {
    let is_refusal = |request_id, prefix: &str| {
        let prefix = prefix.parse().unwrap();
        AssignedAddress { request_id, prefix }.is_refusal()
    };
    assert!(is_refusal(1, "0.0.0.0/32"));
    assert!(is_refusal(varint::MAX, "::/128"));
    assert!(!is_refusal(0, "0.0.0.0/32"));
    assert!(!is_refusal(1, "0.0.0.0/0"));
    assert!(!is_refusal(1, "::/64"));
    assert!(!is_refusal(1, "::1/128"));
}

fn prefixes() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), any::<u8>()).prop_map(|(address, len)| {
        let max = if address.is_ipv4() { 33 } else { 129 };
        IpNet::new(address, len % max).unwrap().trunc()
    })
}

fn names() -> impl Strategy<Value = Box<str>> {
    "([a-z_][a-z0-9_]{0,9}\\.){0,3}[a-z]{2,9}|".prop_map(Into::into)
}

/// In order, and close enough to each other that some overlap.
fn address_ranges() -> impl Strategy<Value = Vec<AddressRange>> {
    let ip = |is_ipv4, last: u8| match is_ipv4 {
        true => IpAddr::from([192, 0, 2, last]),
        false => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()]),
    };
    let range = (any::<bool>(), any::<u8>(), 0u8..12, 0u8..4);
    let range = range.prop_map(move |(is_ipv4, first, more, protocol)| AddressRange {
        start: ip(is_ipv4, first),
        end: ip(is_ipv4, first.saturating_add(more)),
        protocol,
    });
    prop::collection::vec(range, 0..12).prop_map(|mut ranges| {
        ranges.sort_by_key(|range| (range.start.is_ipv6(), range.protocol, range.start));
        ranges
    })
}

fn nameservers() -> impl Strategy<Value = dns::Nameserver> {
    (
        1..=u16::MAX,
        prop::collection::vec(any::<std::net::Ipv4Addr>(), 1..4),
        prop::collection::vec(any::<std::net::Ipv6Addr>(), 0..4),
        names(),
        prop::collection::btree_map(7u16.., prop::collection::vec(any::<u8>(), 0..8), 0..4),
    )
        .prop_map(|(priority, ipv4, ipv6, authentication_name, parameters)| {
            let mut service_parameters = BytesMut::new();
            for (key, value) in parameters {
                service_parameters.put_u16(key);
                service_parameters.put_u16(value.len().try_into().unwrap());
                service_parameters.put_slice(&value);
            }
            dns::Nameserver {
                priority,
                ipv4,
                ipv6,
                authentication_name,
                service_parameters: service_parameters.freeze(),
            }
        })
}

fn capsules() -> impl Strategy<Value = IpCapsule> {
    let assigned = (0..=varint::MAX, prefixes())
        .prop_map(|(request_id, prefix)| AssignedAddress { request_id, prefix });
    let requested = prop::collection::btree_map(1..=varint::MAX, prefixes(), 1..20);
    let requested = requested.prop_map(|entries| {
        let entry = |(request_id, prefix)| RequestedAddress { request_id, prefix };
        IpCapsule::AddressRequest(entries.into_iter().map(entry).collect())
    });
    let valid_ranges = address_ranges().prop_filter_map("overlap", |ranges| {
        let capsule = IpCapsule::RouteAdvertisement(ranges);
        capsule.check().is_ok().then_some(capsule)
    });
    let config = (
        prop::collection::vec(nameservers(), 0..3),
        prop::collection::vec(names(), 0..4),
        prop::collection::vec(names(), 0..4),
    )
        .prop_map(
            |(nameservers, internal_domains, search_domains)| DnsConfig {
                nameservers,
                internal_domains,
                search_domains,
            },
        );
    let pref64 = (any::<u128>(), 0usize..6).prop_map(|(address, len)| {
        let len = [32, 40, 48, 56, 64, 96][len];
        Ipv6Net::new((address >> 32 << 32).into(), len).unwrap()
    });
    prop_oneof![
        prop::collection::vec(assigned, 0..20).prop_map(IpCapsule::AddressAssign),
        requested,
        valid_ranges,
        prop::collection::vec(config, 0..4).prop_map(IpCapsule::DnsAssign),
        prop::collection::vec(pref64, 0..4).prop_map(IpCapsule::Pref64),
    ]
}

const TYPES: [CapsuleType; 5] = [
    CapsuleType::ADDRESS_ASSIGN,
    CapsuleType::ADDRESS_REQUEST,
    CapsuleType::ROUTE_ADVERTISEMENT,
    CapsuleType::DNS_ASSIGN,
    CapsuleType::PREF64,
];

/// Type and value of an encoding.
fn value_of(capsule: &IpCapsule) -> (CapsuleType, Vec<u8>) {
    let whole = encode(capsule);
    let (capsule_type, head) = varint::decode(&whole).unwrap();
    let (len, used) = varint::decode(&whole[head..]).unwrap();
    let value = whole[head + used..].to_vec();
    assert_eq!(value.len() as u64, len);
    (CapsuleType(capsule_type), value)
}

proptest! {
    #[test]
    fn round_trip(capsule in capsules()) {
        prop_assert_eq!(capsule.check(), Ok(()));
        let (capsule_type, value) = value_of(&capsule);
        prop_assert_eq!(capsule_type, capsule.capsule_type());
        prop_assert_eq!(IpCapsule::parse(capsule_type, &value), Some(Ok(capsule)));
    }

    #[test]
    fn any_bytes(which in 0usize..5, value in prop::collection::vec(any::<u8>(), 0..80)) {
        let parsed = IpCapsule::parse(TYPES[which], &value).unwrap();
        if let Ok(capsule) = parsed {
            let (capsule_type, value) = value_of(&capsule);
            prop_assert_eq!(IpCapsule::parse(capsule_type, &value), Some(Ok(capsule)));
        }
    }

    #[test]
    fn changed_bytes(capsule in capsules(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (capsule_type, mut value) = value_of(&capsule);
        if !value.is_empty() {
            let at = at.index(value.len());
            value[at] = byte;
            value.truncate(cut.index(value.len() * 4).min(value.len()));
        }
        if let Ok(capsule) = IpCapsule::parse(capsule_type, &value).unwrap() {
            prop_assert_eq!(capsule.check(), Ok(()));
            let (_, again) = value_of(&capsule);
            prop_assert!(again.len() <= value.len());
            prop_assert_eq!(IpCapsule::parse(capsule_type, &again), Some(Ok(capsule)));
        }
    }

    // Every pair is compared here, which the check itself does not do.
    // spec: 9484-4.7.3-d, 9484-4.7.3-f
    #[test]
    fn ranges_pass_if_no_two_collide(ranges in address_ranges()) {
        let collide = |a: &AddressRange, b: &AddressRange| {
            a.start <= b.end
                && b.start <= a.end
                && (a.protocol == b.protocol || a.protocol == 0 || b.protocol == 0)
        };
        let free = ranges.iter().enumerate().all(|(index, range)| {
            ranges[..index].iter().all(|other| !collide(range, other))
        });
        prop_assert_eq!(IpCapsule::RouteAdvertisement(ranges).check().is_ok(), free);
    }
}
