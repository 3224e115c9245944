#![expect(
    clippy::indexing_slicing,
    reason = "a test that is wrong about a length fails"
)]

use proptest::prelude::*;

use super::super::checksum::Sum;
use super::*;

pub(in crate::wire::ip) const UDP4_TTL64: &str =
    "45000022123440004011 3c56c000020bc6336402 9c4001bb000e31a268656c6c6f21";
const UDP4_TTL63: &str = "4500002212344000 3f113d56c000020bc6336402 9c4001bb000e31a268656c6c6f21";
const OPT4_TTL64: &str =
    "4600002612344000 40113950c000020bc6336402 01010101 9c4001bb000e31a268656c6c6f21";
const OPT4_TTL63: &str =
    "4600002612344000 3f113a50c000020bc6336402 01010101 9c4001bb000e31a268656c6c6f21";

pub(in crate::wire::ip) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// An IPv6 packet whose payload is `payload`, from 2001:db8::1 to 2001:db8::2.
pub(in crate::wire::ip) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = hex(
        "60000000 0000 00 40 20010db8000000000000000000000001 20010db8000000000000000000000002",
    );
    packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet[6] = next_header;
    packet.extend_from_slice(payload);
    packet
}

#[test]
fn ipv4_headers() {
    let packet = Packet::parse(&hex(UDP4_TTL64)).unwrap();
    let expected = Packet {
        version: IpVersion::V4,
        source: [192, 0, 2, 11].into(),
        destination: [198, 51, 100, 2].into(),
        protocol: protocol::UDP,
        hop_limit: 64,
        len: 34,
        transport: 20,
        dont_fragment: true,
        later_fragment: false,
    };
    assert_eq!(packet, expected);
    let packet = Packet::parse(&hex(OPT4_TTL64)).unwrap();
    assert_eq!((packet.len, packet.transport), (38, 24));

    let mut bytes = hex(UDP4_TTL64);
    bytes[6] = 0x20;
    let packet = Packet::parse(&bytes).unwrap();
    assert!(
        !packet.dont_fragment && !packet.later_fragment,
        "the first fragment"
    );
    bytes[6..8].copy_from_slice(&[0, 1]);
    assert!(Packet::parse(&bytes).unwrap().later_fragment);
    bytes[6..8].copy_from_slice(&[0x10, 0]);
    assert!(Packet::parse(&bytes).unwrap().later_fragment);
}

#[test]
fn what_follows_a_packet_does_not_belong_to_it() {
    let mut bytes = hex(UDP4_TTL64);
    bytes.extend([1, 2, 3]);
    assert_eq!(Packet::parse(&bytes).unwrap().len, 34);
    let mut bytes = ipv6(protocol::UDP, &[0; 8]);
    bytes.push(1);
    assert_eq!(Packet::parse(&bytes).unwrap().len, 48);
}

// spec: 9484-6-c
#[test]
fn what_is_no_packet() {
    assert_eq!(Packet::parse(&[]), Err(PacketError::Empty));
    for version in [0, 1, 5, 7, 15] {
        let mut bytes = hex(UDP4_TTL64);
        bytes[0] = version << 4 | 5;
        assert_eq!(Packet::parse(&bytes), Err(PacketError::Version { version }));
    }
    for packet in [hex(UDP4_TTL64), hex(OPT4_TTL64), ipv6(17, &[0; 8])] {
        for cut in 1..packet.len() {
            let error = Packet::parse(&packet[..cut]).unwrap_err();
            assert!(
                matches!(error, PacketError::Truncated { present, len } if present == cut && len > cut),
                "{error}"
            );
        }
    }
    // Below 20 bytes of header, and a header that is longer than the packet.
    for (header_len, len) in [(16, 34), (0, 34), (24, 23), (20, 0), (60, 34)] {
        let mut bytes = hex(UDP4_TTL64);
        bytes[0] = 0x40 | u8::try_from(header_len / 4).unwrap();
        bytes[3] = u8::try_from(len).unwrap();
        let expected = PacketError::HeaderLength { header_len, len };
        assert_eq!(Packet::parse(&bytes), Err(expected));
    }
}

// spec: 9484-4.8-b
#[test]
fn the_upper_layer_is_behind_all_extension_headers() {
    // Every kind once; AH counts in units of four bytes, and its length leaves out two of them.
    let chain = [
        &[ROUTING, 0, 0, 0, 0, 0, 0, 0][..],
        &[AUTHENTICATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[DESTINATION_OPTIONS, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[MOBILITY, 0, 0, 0, 0, 0, 0, 0],
        &[HIP, 0, 0, 0, 0, 0, 0, 0],
        &[SHIM6, 0, 0, 0, 0, 0, 0, 0],
        &[FRAGMENT, 0, 0, 0, 0, 0, 0, 0],
        &[protocol::TCP, 0xff, 0, 1, 0, 0, 0, 7],
        b"segment",
    ]
    .concat();
    let packet = Packet::parse(&ipv6(HOP_BY_HOP, &chain)).unwrap();
    assert_eq!(packet.protocol, protocol::TCP);
    assert_eq!(packet.transport, packet.len - b"segment".len());
    assert!(!packet.later_fragment && packet.dont_fragment);
    assert_eq!(packet.destination, "2001:db8::2".parse::<IpAddr>().unwrap());

    // ESP hides what follows, and 59 is the end: both are their own upper layer.
    for header in [50, 59, 253] {
        let packet = Packet::parse(&ipv6(header, &[])).unwrap();
        assert_eq!((packet.protocol, packet.transport), (header, 40));
    }
}

#[test]
fn a_later_fragment_ends_the_walk() {
    let fragment = |offset: u16, next| {
        let mut payload = vec![next, 0];
        payload.extend((offset << 3 | 1).to_be_bytes());
        payload.extend([0, 0, 0, 7]);
        payload.extend([0xff; 8]);
        Packet::parse(&ipv6(FRAGMENT, &payload))
    };
    let later = fragment(185, DESTINATION_OPTIONS).unwrap();
    assert!(later.later_fragment);
    assert_eq!((later.protocol, later.transport), (DESTINATION_OPTIONS, 48));
    assert!(!fragment(0, protocol::UDP).unwrap().later_fragment);
    // The first fragment holds the whole chain (RFC 8200 section 4.5).
    let cut = fragment(0, DESTINATION_OPTIONS);
    let header = DESTINATION_OPTIONS;
    assert_eq!(
        cut,
        Err(PacketError::ExtensionTruncated { header, len: 56 })
    );
}

#[test]
fn a_chain_ends_within_the_packet_and_soon() {
    for header in [
        HOP_BY_HOP,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        DESTINATION_OPTIONS,
        MOBILITY,
        HIP,
        SHIM6,
    ] {
        for len in 0..8 {
            let mut bytes = ipv6(header, &[0; 7][..len.min(7)]);
            // Bytes behind the packet are none of its own.
            bytes.extend([0; 20]);
            let len = 40 + len.min(7);
            assert_eq!(
                Packet::parse(&bytes),
                Err(PacketError::ExtensionTruncated { header, len }),
            );
        }
    }
    let chain = |headers: usize| {
        let mut chain = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(headers);
        let last = chain.len() - 8;
        chain[last] = protocol::UDP;
        Packet::parse(&ipv6(DESTINATION_OPTIONS, &chain))
    };
    assert_eq!(
        chain(EXTENSION_HEADERS_MAX).unwrap().protocol,
        protocol::UDP
    );
    let max = EXTENSION_HEADERS_MAX;
    assert_eq!(chain(max + 1), Err(PacketError::ExtensionCount { max }));
}

// spec: 9484-7.2-b, 9484-7.2-d
#[test]
fn the_hop_limit_falls_by_one() {
    for (before, after) in [(UDP4_TTL64, UDP4_TTL63), (OPT4_TTL64, OPT4_TTL63)] {
        let mut packet = hex(before);
        assert!(decrement_hop_limit(&mut packet));
        assert_eq!(packet, hex(after));
    }
    let mut packet = ipv6(protocol::UDP, &[]);
    assert!(decrement_hop_limit(&mut packet));
    assert_eq!(packet[7], 63);
}

// spec: 9484-7.2-c
#[test]
fn a_packet_at_its_last_hop_stays_as_it_is() {
    for ttl in [0, 1] {
        let mut packet = hex(UDP4_TTL64);
        packet[8] = ttl;
        let before = packet.clone();
        assert!(!decrement_hop_limit(&mut packet));
        assert_eq!(packet, before);
        let mut packet = ipv6(protocol::UDP, &[]);
        packet[7] = ttl;
        assert!(!decrement_hop_limit(&mut packet));
        assert_eq!(packet[7], ttl);
    }
    assert!(!decrement_hop_limit(&mut []));
    assert!(!decrement_hop_limit(&mut [0x45; 11]));
    assert!(!decrement_hop_limit(&mut [0x95; 60]));
}

/// A TCP segment with these options and a right checksum.
fn syn(version: IpVersion, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = hex("0400 01bb 00000001 00000000 0000 ffff 0000 0000");
    segment[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
    segment[13] = flags;
    segment.extend_from_slice(options);
    let mut packet = match version {
        IpVersion::V4 => hex("45000000 00004000 40060000 c000020b c6336402"),
        IpVersion::V6 => ipv6(protocol::TCP, &segment)[..40].to_vec(),
    };
    let transport = packet.len();
    packet.extend(segment);
    if version == IpVersion::V4 {
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    }
    let checksum = tcp_sum(&packet).checksum();
    packet[transport + 16..transport + 18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn tcp_sum(packet: &[u8]) -> Sum {
    let headers = Packet::parse(packet).unwrap();
    let segment = &packet[headers.transport..headers.len];
    let (source, destination) = (headers.source, headers.destination);
    Sum::pseudo_header(source, destination, protocol::TCP, segment.len()).bytes(segment)
}

fn clamp(packet: &[u8], mtu: usize) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let headers = Packet::parse(&packet).unwrap();
    clamp_mss(&mut packet, &headers, mtu);
    packet
}

#[test]
fn the_segment_size_of_a_syn_is_lowered() {
    for (version, overhead) in [(IpVersion::V4, 40), (IpVersion::V6, 60)] {
        // At an even and at an odd place, and in the answer to a SYN.
        for (flags, options) in [
            (0x02, &[2, 4, 5, 0xb4][..]),
            (0x12, &[1, 2, 4, 5, 0xb4, 3, 3, 7]),
            (
                0x02,
                &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 4, 0xff, 0xff, 0],
            ),
        ] {
            let packet = syn(version, flags, options);
            let clamped = clamp(&packet, 1280);
            assert!(tcp_sum(&clamped).is_right());
            let value = u16::try_from(1280 - overhead).unwrap().to_be_bytes();
            let at = options.windows(2).position(|pair| pair == [2, 4]).unwrap();
            let mut expected = options.to_vec();
            expected[at + 2..at + 4].copy_from_slice(&value);
            assert_eq!(clamped[clamped.len() - options.len()..], expected);
            // It fits already.
            assert_eq!(clamp(&clamped, 1280), clamped);
            assert_eq!(clamp(&packet, 70_000), packet);
        }
    }
}

#[test]
fn nothing_but_a_syn_is_touched() {
    let mss = [2, 4, 0xff, 0xff];
    let ack = syn(IpVersion::V4, 0x10, &mss);
    assert_eq!(clamp(&ack, 1280), ack);
    let mut udp = syn(IpVersion::V4, 0x02, &mss);
    udp[9] = protocol::UDP;
    assert_eq!(clamp(&udp, 1280), udp);
    let mut fragment = syn(IpVersion::V4, 0x02, &mss);
    fragment[7] = 1;
    assert_eq!(clamp(&fragment, 1280), fragment);
    // Options that lead nowhere: cut, of no length, behind the end.
    for options in [
        &[2, 4, 0xff, 0xff][..3],
        &[9, 0, 2, 4],
        &[9, 1, 2, 4],
        &[0, 2, 4, 0xff],
        &[9, 200, 2, 4],
    ] {
        let mut options = options.to_vec();
        options.resize(4, 0);
        let end = options.len();
        if options[..2] == [2, 4] {
            options[1] = 3;
        }
        let packet = syn(IpVersion::V6, 0x02, &options[..end]);
        assert_eq!(clamp(&packet, 1280), packet, "{options:?}");
    }
    // A header that says to be longer than the segment.
    let mut long = syn(IpVersion::V4, 0x02, &mss);
    long[32] = 0xf0;
    assert_eq!(clamp(&long, 1280), long);
}

proptest! {
    #[test]
    fn garbage_never_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60]),
        like in any::<bool>(),
        mtu in 0usize..70_000,
    ) {
        if like && bytes.len() > 7 {
            let len = u16::try_from(bytes.len()).unwrap();
            bytes[0] = version;
            if version == 0x60 {
                bytes[4..6].copy_from_slice(&len.saturating_sub(40).to_be_bytes());
                bytes[6] = [0, 43, 44, 51, 60][usize::from(bytes[7]) % 5];
            } else {
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
        }
        if let Ok(headers) = Packet::parse(&bytes) {
            prop_assert!(headers.transport <= headers.len && headers.len <= bytes.len());
            prop_assert_eq!(IpVersion::of(headers.source), headers.version);
            let before = bytes.clone();
            clamp_mss(&mut bytes, &headers, mtu);
            prop_assert_eq!(&bytes[..headers.transport], &before[..headers.transport]);
            prop_assert_eq!(decrement_hop_limit(&mut bytes), headers.hop_limit > 1);
        }
        let decremented = decrement_hop_limit(&mut bytes);
        prop_assert!(!decremented || !bytes.is_empty());
    }

    // spec: 9484-7.2-d
    #[test]
    fn the_header_checksum_stays_right(mut header: [u8; 60], words in 5u8..=15) {
        let len = usize::from(words) * 4;
        header[0] = 0x40 | words;
        header[10..12].fill(0);
        let checksum = Sum::of(&header[..len]).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        if decrement_hop_limit(&mut header[..len]) {
            prop_assert!(Sum::of(&header[..len]).is_right());
        }
    }
}
