#![expect(
    clippy::indexing_slicing,
    reason = "a test that is wrong about a length fails"
)]

use proptest::prelude::*;

use super::super::packet::tests::{UDP4_TTL64, hex, ipv6};
use super::*;

const TOO_BIG: IcmpError = IcmpError::TooBig { mtu: 1280 };

const ALL: [IcmpError; 6] = [
    IcmpError::TimeExceeded,
    TOO_BIG,
    IcmpError::NoRoute,
    IcmpError::Prohibited,
    IcmpError::SourceProhibited,
    IcmpError::AddressUnreachable,
];

fn v4() -> IpAddr {
    [192, 0, 2, 1].into()
}

fn v6() -> IpAddr {
    "2001:db8::ffff".parse().unwrap()
}

/// Whether all checksums of an error are right.
fn is_right(packet: &[u8]) -> bool {
    let headers = Packet::parse(packet).unwrap();
    let message = &packet[headers.transport..];
    match headers.version {
        IpVersion::V4 => Sum::of(&packet[..20]).is_right() && Sum::of(message).is_right(),
        IpVersion::V6 => {
            let (source, destination) = (headers.source, headers.destination);
            Sum::pseudo_header(source, destination, protocol::ICMPV6, message.len())
                .bytes(message)
                .is_right()
        }
    }
}

// spec: 9484-7.2.1-d
#[test]
fn fragmentation_needed() {
    let packet = hex(UDP4_TTL64);
    let expected = hex("45000038000000004001f6b8c0000201c000020b 0304285000000500");
    // The vector quotes the least that RFC 792 asks for; what is sent quotes more.
    let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 11));
    let short = write_v4(TOO_BIG.message(IpVersion::V4), &packet[..28], from, to);
    assert_eq!(short, [&expected, &packet[..28]].concat());

    let sent = error(TOO_BIG, &packet, v4()).unwrap();
    assert_eq!(sent.len(), 28 + packet.len());
    assert_eq!(sent[4..10], expected[4..10]);
    assert_eq!(sent[12..22], expected[12..22]);
    assert_eq!(sent[24..28], expected[24..28]);
    assert_eq!(sent[28..], packet);
    assert!(is_right(&sent));
}

// spec: 9484-7.2.1-b
#[test]
fn packet_too_big() {
    let vector = hex(
        "60000000003a3a40 20010db8000100000000000000000001 20010db8000100000000000000000002 02002be500000500 \
         60000000000a1140 20010db8000100000000000000000002 20010db8000200000000000000000009 9c4001bb000a9df56869",
    );
    let from: IpAddr = "2001:db8:1::1".parse().unwrap();
    assert_eq!(error(TOO_BIG, &vector[48..], from).unwrap(), vector);
}

// spec: 9484-7.2.1-b, 9484-7.2.1-d, 9484-7.2-c
#[test]
fn types_and_codes() {
    let numbers = |packet: &[u8], from| {
        ALL.map(|reason| {
            let sent = error(reason, packet, from).unwrap();
            assert!(is_right(&sent));
            let headers = Packet::parse(&sent).unwrap();
            assert_eq!((headers.source, headers.len), (from, sent.len()));
            assert_eq!(headers.destination, Packet::parse(packet).unwrap().source);
            [sent[headers.transport], sent[headers.transport + 1]]
        })
    };
    let expected = [[11, 0], [3, 4], [3, 0], [3, 13], [3, 13], [3, 1]];
    assert_eq!(numbers(&hex(UDP4_TTL64), v4()), expected);
    let expected = [[3, 0], [2, 0], [1, 0], [1, 1], [1, 5], [1, 3]];
    assert_eq!(numbers(&ipv6(protocol::UDP, &[7; 9]), v6()), expected);
}

#[test]
fn long_packets_are_quoted_in_part() {
    let mut packet = hex(UDP4_TTL64);
    packet.resize(1400, 3);
    packet[2..4].copy_from_slice(&1400u16.to_be_bytes());
    let sent = error(TOO_BIG, &packet, v4()).unwrap();
    assert_eq!(sent.len(), 576);
    assert_eq!(sent[28..], packet[..548]);
    assert!(is_right(&sent));

    let packet = ipv6(protocol::TCP, &[3; 1401]);
    let sent = error(TOO_BIG, &packet, v6()).unwrap();
    assert_eq!(sent.len(), 1280);
    assert_eq!(sent[48..], packet[..1232]);
    assert!(is_right(&sent));

    // What follows the packet is not quoted.
    let mut packet = hex(UDP4_TTL64);
    packet.extend([9; 30]);
    assert_eq!(error(TOO_BIG, &packet, v4()).unwrap().len(), 28 + 34);
}

#[test]
fn an_mtu_has_its_bounds() {
    let huge = IcmpError::TooBig { mtu: 70_000 };
    let sent = error(huge, &hex(UDP4_TTL64), v4()).unwrap();
    assert_eq!(sent[24..28], [0, 0, 0xff, 0xff]);
    let sent = error(huge, &ipv6(17, &[]), v6()).unwrap();
    assert_eq!(sent[44..48], 70_000u32.to_be_bytes());
}

// spec: 9484-7.2.1-d
#[test]
fn errors_are_not_answered() {
    for icmp_type in 0..=255 {
        let mut packet = hex(UDP4_TTL64);
        packet[9] = protocol::ICMP;
        packet[20] = icmp_type;
        let is_error = [3, 4, 5, 11, 12].contains(&icmp_type);
        assert_eq!(error(TOO_BIG, &packet, v4()).is_none(), is_error);
        // Behind an extension header too.
        let packet = ipv6(
            60,
            &[protocol::ICMPV6, 0, 0, 0, 0, 0, 0, 0, icmp_type, 0, 0, 0],
        );
        let is_error = icmp_type < 128 || icmp_type == 137;
        assert_eq!(error(TOO_BIG, &packet, v6()).is_none(), is_error);
    }
    // The type is missing.
    assert_eq!(error(TOO_BIG, &ipv6(protocol::ICMPV6, &[]), v6()), None);
}

// spec: 9484-7.2.1-d
#[test]
fn multicast_broadcast_and_fragments_are_not_answered() {
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = hex(UDP4_TTL64);
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        ALL.iter()
            .any(|reason| error(*reason, &packet, v4()).is_some())
    };
    assert!(with(12, &[192, 0, 2, 11]));
    for source in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255; 4],
    ] {
        assert!(!with(12, &source), "from {source:?}");
    }
    for destination in [[224, 0, 0, 251], [255; 4]] {
        assert!(!with(16, &destination), "to {destination:?}");
    }
    assert!(!with(6, &[0, 1]), "later fragment");
    assert!(with(6, &[0x20, 0]), "first fragment");

    let with = |at: usize, address: &str| {
        let mut packet = ipv6(protocol::UDP, &[0; 8]);
        packet[at..at + 16].copy_from_slice(&address.parse::<Ipv6Addr>().unwrap().octets());
        ALL.iter()
            .any(|reason| error(*reason, &packet, v6()).is_some())
    };
    assert!(with(8, "2001:db8::9"));
    for source in ["::", "::1", "ff02::1"] {
        assert!(!with(8, source), "from {source}");
    }
    assert!(!with(24, "ff02::1"));
    let later = ipv6(44, &[17, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3]);
    assert_eq!(error(TOO_BIG, &later, v6()), None);
}

#[test]
fn the_sender_has_the_version_of_the_packet() {
    assert_eq!(error(TOO_BIG, &hex(UDP4_TTL64), v6()), None);
    assert_eq!(error(TOO_BIG, &ipv6(17, &[]), v4()), None);
    assert_eq!(error(TOO_BIG, &[0x45], v4()), None);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_makes_a_wrong_error(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        version in prop::sample::select(vec![0x45u8, 0x46, 0x60]),
    ) {
        if bytes.len() >= 40 {
            let len = u16::try_from(bytes.len()).unwrap();
            bytes[0] = version;
            match version {
                0x60 => bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
                _ => bytes[2..4].copy_from_slice(&len.to_be_bytes()),
            }
        }
        for (from, max) in [(v4(), 576), (v6(), 1280)] {
            if let Some(sent) = error(TOO_BIG, &bytes, from) {
                prop_assert!(sent.len() <= max);
                prop_assert!(is_right(&sent));
                prop_assert!(error(TOO_BIG, &sent, from).is_none());
            }
        }
    }
}
