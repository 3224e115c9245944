//! Splitting and merging, against each other.

use std::io::IoSlice;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::header::Gso;
use super::*;
use crate::net::buffer::Pool;
use crate::wire::ip::checksum::Sum;
use crate::wire::ip::packet::{IpVersion, Packet, protocol};

const ALL: TunOffloads = TunOffloads {
    tcp: true,
    udp: true,
};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A packet of a test.
#[derive(Clone, Debug)]
struct Spec {
    version: IpVersion,
    protocol: u8,
    source_port: u16,
    sequence: u32,
    flags: u8,
    options: Vec<u8>,
    payload: Vec<u8>,
    identification: u16,
    dont_fragment: bool,
    hop_limit: u8,
}

impl Spec {
    fn new(version: IpVersion, protocol: u8, payload: usize) -> Self {
        Self {
            version,
            protocol,
            source_port: 1000,
            sequence: 7,
            flags: ACK,
            // Timestamps, padded.
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: (0..payload).map(|byte| byte as u8).collect(),
            identification: 1,
            dont_fragment: true,
            hop_limit: 64,
        }
    }

    /// The packet that follows: in sequence, with the next identification.
    fn next(&self) -> Self {
        Self {
            sequence: self.sequence.wrapping_add(self.payload.len() as u32),
            identification: self.identification.wrapping_add(1),
            ..self.clone()
        }
    }

    fn addresses(&self) -> (IpAddr, IpAddr) {
        match self.version {
            IpVersion::V4 => ([192, 0, 2, 11].into(), [198, 51, 100, 2].into()),
            IpVersion::V6 => (
                "2001:db8::1".parse().unwrap(),
                "2001:db8::2".parse().unwrap(),
            ),
        }
    }

    fn build(&self) -> Bytes {
        let mut segment = [self.source_port.to_be_bytes(), [1, 187]].concat();
        let checksum_at = if self.protocol == protocol::TCP {
            segment.extend(self.sequence.to_be_bytes());
            let offset = ((20 + self.options.len()) as u8 / 4) << 4;
            segment.extend([0, 0, 0, 9, offset, self.flags, 1, 0, 0, 0, 0, 0]);
            segment.extend(&self.options);
            16
        } else {
            segment.extend((8 + self.payload.len() as u16).to_be_bytes());
            segment.extend([0, 0]);
            6
        };
        segment.extend(&self.payload);
        let (source, destination) = self.addresses();
        let sum = Sum::pseudo_header(source, destination, self.protocol, segment.len());
        let checksum = match sum.bytes(&segment).checksum() {
            0 if self.protocol == protocol::UDP => 0xffff,
            checksum => checksum,
        };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        let len = segment.len() as u16;
        let mut packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + len).to_be_bytes());
                header.extend(self.identification.to_be_bytes());
                header.extend([u8::from(self.dont_fragment) << 6, 0]);
                header.extend([self.hop_limit, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = Sum::of(&header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(len.to_be_bytes());
                header.extend([self.protocol, self.hop_limit]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => unreachable!("both are of one version"),
        };
        packet.extend(segment);
        packet.into()
    }
}

/// `count` packets in sequence.
fn sequence(first: &Spec, count: usize) -> Vec<Bytes> {
    let specs = std::iter::successors(Some(first.clone()), |spec| Some(spec.next()));
    specs.take(count).map(|spec| spec.build()).collect()
}

/// What the kernel would be given: header, packet, and how many it stands for.
fn merge(packets: &[Bytes], offloads: TunOffloads) -> Vec<(Header, Vec<u8>, usize)> {
    let mut writes = Vec::new();
    Merger::default().merge(packets, offloads, &mut |write: &Write<'_>| {
        let (header, rest) = write.slices.split_first().unwrap();
        let header = Header::parse((**header).try_into().unwrap()).unwrap();
        let packet = rest.iter().flat_map(|slice: &IoSlice<'_>| slice.to_vec());
        writes.push((header, packet.collect(), write.packets));
    });
    assert_eq!(
        writes.iter().map(|(_, _, count)| count).sum::<usize>(),
        packets.len()
    );
    writes
}

fn split_all(header: &Header, packet: &[u8]) -> Result<Vec<Bytes>, Malformed> {
    let mut out = Vec::new();
    split(
        header,
        &mut packet.to_vec(),
        &mut Pool::new(),
        &mut |packets| {
            let count = packets.len();
            out.extend(packets.map(BytesMut::freeze));
            assert!(out.len() >= count);
        },
    )?;
    Ok(out)
}

/// Whether all checksums of a TCP or UDP packet are right.
fn is_intact(packet: &[u8]) -> bool {
    let parsed = Packet::parse(packet).unwrap();
    let (header, segment) = packet[..parsed.len].split_at(parsed.transport);
    let (source, destination) = (parsed.source, parsed.destination);
    let sum = Sum::pseudo_header(source, destination, parsed.protocol, segment.len());
    (parsed.version == IpVersion::V6 || Sum::of(header).is_right()) && sum.bytes(segment).is_right()
}

fn kinds() -> impl Iterator<Item = Spec> {
    [
        (IpVersion::V4, protocol::TCP),
        (IpVersion::V4, protocol::UDP),
        (IpVersion::V6, protocol::TCP),
        (IpVersion::V6, protocol::UDP),
    ]
    .into_iter()
    .map(|(version, protocol)| Spec::new(version, protocol, 1000))
}

#[test]
fn a_run_of_one_flow_is_one_write_and_comes_apart_again() {
    for first in kinds() {
        let mut packets = sequence(&first, 20);
        let mut last = first.clone();
        last.sequence = first.sequence + 20_000;
        last.identification += 20;
        last.payload.truncate(1);
        last.flags |= PSH;
        packets.push(last.build());
        assert!(packets.iter().all(|packet| is_intact(packet)));

        let writes = merge(&packets, ALL);
        let [(header, packet, 21)] = &writes[..] else {
            panic!("{} writes", writes.len());
        };
        let (network, transport) = match first.version {
            IpVersion::V4 => (20, Gso::TcpV4),
            IpVersion::V6 => (40, Gso::TcpV6),
        };
        let (gso, header_len, field) = match first.protocol {
            protocol::TCP => (transport, 32, 16),
            _ => (Gso::Udp, 8, 6),
        };
        let expected = Header {
            checksum: Some((network, field)),
            gso: Some((gso, 1000)),
            headers_len: network + header_len,
        };
        assert_eq!(*header, expected);
        assert_eq!(packet.len(), usize::from(network + header_len) + 20_001);
        let parsed = Packet::parse(packet).unwrap();
        assert_eq!(parsed.len, packet.len());

        // With its checksum completed the super-packet is as good as a packet.
        let whole = Header {
            gso: None,
            ..*header
        };
        assert!(is_intact(&split_all(&whole, packet).unwrap()[0]));
        assert_eq!(split_all(header, packet).unwrap(), packets);
    }
}

#[test]
fn without_offloads_everything_leaves_alone() {
    for first in kinds() {
        let packets = sequence(&first, 5);
        let writes = merge(&packets, TunOffloads::default());
        assert_eq!(writes.len(), 5);
        for ((header, written, _), packet) in writes.iter().zip(&packets) {
            assert_eq!((*header, &written[..]), (Header::default(), &packet[..]));
        }
        let only_tcp = TunOffloads {
            tcp: true,
            udp: false,
        };
        let is_tcp = first.protocol == protocol::TCP;
        assert_eq!(merge(&packets, only_tcp).len(), if is_tcp { 1 } else { 5 });
    }
}

#[test]
fn flows_that_alternate_merge_all_the_same() {
    let flows: Vec<Vec<Bytes>> = kinds()
        .chain(kinds().map(|spec| Spec {
            source_port: 2000,
            ..spec
        }))
        .map(|first| sequence(&first, 10))
        .collect();
    let packets: Vec<Bytes> = (0..10)
        .flat_map(|at| flows.iter().map(move |flow| flow[at].clone()))
        .collect();
    let writes = merge(&packets, ALL);
    assert_eq!(writes.len(), 8);
    for ((header, packet, count), flow) in writes.iter().zip(&flows) {
        assert_eq!(*count, 10);
        assert_eq!(&split_all(header, packet).unwrap(), flow);
    }
}

#[test]
fn more_flows_than_are_remembered_leave_in_order() {
    let flows: Vec<Vec<Bytes>> = (0..50)
        .map(|port| {
            let mut first = Spec::new(IpVersion::V4, protocol::TCP, 100);
            first.source_port = 100 + port;
            sequence(&first, 4)
        })
        .collect();
    let packets: Vec<Bytes> = (0..4)
        .flat_map(|at| flows.iter().map(move |flow| flow[at].clone()))
        .collect();
    let writes = merge(&packets, ALL);
    assert!((50..200).contains(&writes.len()));
    for flow in &flows {
        let of_flow = |packet: &Bytes| packet[20..22] == flow[0][20..22];
        let sent = writes
            .iter()
            .flat_map(|(header, packet, _)| split_all(header, packet).unwrap())
            .filter(of_flow);
        assert!(sent.eq(flow.iter().cloned()));
    }
}

/// How many packets leave in each write, if the third of five is changed.
fn with_third(first: &Spec, change: impl Fn(&mut Spec)) -> Vec<usize> {
    let specs = std::iter::successors(Some(first.clone()), |spec| Some(spec.next()));
    let packets: Vec<Bytes> = specs
        .take(5)
        .enumerate()
        .map(|(at, mut spec)| {
            if at == 2 {
                change(&mut spec);
            }
            spec.build()
        })
        .collect();
    counts(&packets)
}

fn counts(packets: &[Bytes]) -> Vec<usize> {
    let writes = merge(packets, ALL);
    let sent: Vec<Bytes> = writes
        .iter()
        .flat_map(|(header, packet, _)| split_all(header, packet).unwrap())
        .collect();
    assert_eq!(sent, packets, "all of one flow, in order");
    writes.iter().map(|(_, _, count)| *count).collect()
}

#[test]
fn what_differs_does_not_merge() {
    for first in kinds() {
        assert_eq!(with_third(&first, |_| ()), [5]);
        assert_eq!(with_third(&first, |spec| spec.hop_limit = 9), [2, 1, 2]);
        // A shorter one ends a run, a longer one begins another.
        assert_eq!(with_third(&first, |spec| spec.payload.truncate(9)), [3, 2]);
        assert_eq!(
            with_third(&first, |spec| spec.payload.push(1)),
            // The following ones are shorter than the one that began the run, so only one joins.
            if first.protocol == protocol::TCP {
                vec![2, 1, 2]
            } else {
                vec![2, 2, 1]
            }
        );
    }
    for first in kinds().filter(|spec| spec.protocol == protocol::TCP) {
        assert_eq!(with_third(&first, |spec| spec.flags |= PSH), [3, 2]);
        // FIN, SYN, RST, URG, ECE, CWR.
        for flag in [0x01, 0x02, 0x04, 0x20, 0x40, 0x80] {
            assert_eq!(with_third(&first, |spec| spec.flags |= flag), [2, 1, 2]);
        }
        assert_eq!(with_third(&first, |spec| spec.sequence += 1), [2, 1, 2]);
        assert_eq!(with_third(&first, |spec| spec.options[11] += 1), [2, 1, 2]);
        assert_eq!(
            with_third(&first, |spec| spec.options.truncate(4)),
            [2, 1, 2]
        );
        // An acknowledgement without data.
        assert_eq!(with_third(&first, |spec| spec.payload.clear()), [2, 1, 2]);
    }
}

#[test]
fn identifications_matter_where_routers_may_fragment() {
    for mut first in kinds().filter(|spec| spec.version == IpVersion::V4) {
        first.identification = 0xfffe;
        assert_eq!(
            with_third(&first, |spec| spec.dont_fragment = false),
            [2, 1, 2]
        );
        first.dont_fragment = false;
        assert_eq!(with_third(&first, |_| ()), [5]);
        assert_eq!(
            with_third(&first, |spec| spec.identification += 1),
            [2, 1, 2]
        );
        // Where they may not, it means nothing and need not come back.
        first.dont_fragment = true;
        let mut packets = sequence(&first, 3);
        first.identification = 77;
        first.sequence += 3000;
        packets.push(first.build());
        assert_eq!(merge(&packets, ALL).len(), 1);
    }
}

#[test]
fn a_wrong_checksum_leaves_as_it_is() {
    for first in kinds() {
        for at in 0..5 {
            let mut packets = sequence(&first, 5);
            let mut broken = packets[at].to_vec();
            *broken.last_mut().unwrap() ^= 1;
            packets[at] = broken.into();
            let expected = match at {
                0 => vec![1, 4],
                1 => vec![1, 1, 3],
                2 => vec![2, 1, 2],
                3 => vec![3, 1, 1],
                _ => vec![4, 1],
            };
            assert_eq!(counts(&packets), expected);
        }
    }
}

#[test]
fn fragments_options_and_extension_headers_leave_alone() {
    let first = Spec::new(IpVersion::V4, protocol::UDP, 100);
    for flags in [[0x20, 0], [0, 1]] {
        let mut packets = sequence(&first, 5);
        let mut fragment = packets[2].to_vec();
        fragment[6..8].copy_from_slice(&flags);
        packets[2] = fragment.into();
        assert_eq!(counts(&packets), [2, 1, 2]);
    }
    let mut packets = sequence(&first, 5);
    let mut with_options = packets[2].to_vec();
    with_options.splice(20..20, [1, 1, 1, 1]);
    with_options[0] = 0x46;
    with_options[3] += 4;
    packets[2] = with_options.into();
    assert_eq!(counts(&packets), [2, 1, 2]);

    let first = Spec::new(IpVersion::V6, protocol::UDP, 100);
    let mut packets = sequence(&first, 5);
    let mut extended = packets[2].to_vec();
    extended.splice(40..40, [protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
    extended[5] += 8;
    extended[6] = 60;
    packets[2] = extended.into();
    assert_eq!(counts(&packets), [2, 1, 2]);
}

#[test]
fn udp_without_checksum_leaves_alone() {
    let first = Spec::new(IpVersion::V4, protocol::UDP, 100);
    let mut packets = sequence(&first, 5);
    let mut plain = packets[2].to_vec();
    plain[26..28].fill(0);
    packets[2] = plain.into();
    assert_eq!(counts(&packets), [2, 1, 2]);
}

#[test]
fn a_super_packet_has_its_bounds() {
    for first in kinds() {
        let packets = sequence(&first, 300);
        for (_, packet, count) in merge(&packets, ALL) {
            assert!(packet.len() <= 65_535);
            assert!(count <= 65);
        }
        let small = Spec {
            payload: vec![1; 2],
            ..first
        };
        let counts = counts(&sequence(&small, 300));
        assert_eq!(counts, [128, 128, 44]);
    }
}

#[test]
fn flags_are_where_they_belong() {
    const CWR: u8 = 0x80;
    let mut first = Spec::new(IpVersion::V4, protocol::TCP, 300);
    // PSH, FIN and CWR on a super-packet.
    first.flags = ACK | PSH | 0x01 | CWR;
    first.identification = 0xffff;
    first.sequence = u32::MAX - 50;
    let header = Header {
        checksum: Some((20, 16)),
        gso: Some((Gso::TcpV4, 100)),
        headers_len: 52,
    };
    let packets = split_all(&header, &first.build()).unwrap();
    let flags: Vec<u8> = packets.iter().map(|packet| packet[33]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | PSH | 0x01]);
    let ids: Vec<&[u8]> = packets.iter().map(|packet| &packet[4..6]).collect();
    assert_eq!(ids, [[0xff, 0xff], [0, 0], [0, 1]]);
    let sequences = packets.iter().map(|packet| packet[24..28].to_vec());
    let expected = [0, 100, 200].map(|at| (u32::MAX - 50).wrapping_add(at).to_be_bytes());
    assert!(sequences.eq(expected));
    assert!(packets.iter().all(|packet| is_intact(packet)));
}

#[test]
fn checksums_are_completed() {
    for spec in kinds() {
        let packet = spec.build();
        let (network, field) = match (spec.version, spec.protocol) {
            (IpVersion::V4, protocol::TCP) => (20, 16),
            (IpVersion::V4, _) => (20, 6),
            (IpVersion::V6, protocol::TCP) => (40, 16),
            (IpVersion::V6, _) => (40, 6),
        };
        let (source, destination) = spec.addresses();
        let len = packet.len() - network;
        let partial = Sum::pseudo_header(source, destination, spec.protocol, len).fold();
        let mut unfinished = packet.to_vec();
        unfinished[network + field..][..2].copy_from_slice(&partial.to_be_bytes());
        let header = Header {
            checksum: Some((network as u16, field as u16)),
            ..Header::default()
        };
        let finished = split_all(&header, &unfinished).unwrap();
        assert_eq!(finished, std::slice::from_ref(&packet));
        // A field outside the packet.
        for checksum in [
            (len as u16 + 40, 0),
            (0, len as u16 + 39),
            (u16::MAX, u16::MAX),
        ] {
            let header = Header {
                checksum: Some(checksum),
                ..Header::default()
            };
            assert_eq!(split_all(&header, &packet), Err(Malformed));
        }
    }
}

#[test]
fn super_packets_that_make_no_sense() {
    let cut = |gso, size, packet: &[u8]| {
        let header = Header {
            gso: Some((gso, size)),
            ..Header::default()
        };
        split_all(&header, packet).map(|packets| packets.len())
    };
    let tcp = Spec::new(IpVersion::V4, protocol::TCP, 1000).build();
    let udp = Spec::new(IpVersion::V6, protocol::UDP, 1000).build();
    assert_eq!(cut(Gso::TcpV4, 100, &tcp), Ok(10));
    assert_eq!(cut(Gso::TcpV4, 1001, &tcp), Ok(1));
    assert_eq!(cut(Gso::Udp, 999, &udp), Ok(2));
    assert_eq!(cut(Gso::TcpV4, 0, &tcp), Err(Malformed));
    assert_eq!(cut(Gso::TcpV6, 100, &tcp), Err(Malformed));
    assert_eq!(cut(Gso::Udp, 100, &tcp), Err(Malformed));
    assert_eq!(cut(Gso::TcpV6, 100, &udp), Err(Malformed));
    assert_eq!(cut(Gso::TcpV4, 100, &tcp[..900]), Err(Malformed));
    let mut fragment = tcp.to_vec();
    fragment[7] = 1;
    assert_eq!(cut(Gso::TcpV4, 100, &fragment), Err(Malformed));
    // A TCP header that is longer than the segment, and one that is too short.
    let bare = Spec::new(IpVersion::V4, protocol::TCP, 0).build();
    assert_eq!(cut(Gso::TcpV4, 100, &bare), Ok(1));
    for offset in [0xf0, 0x40] {
        let mut wrong = bare.to_vec();
        wrong[32] = offset;
        assert_eq!(cut(Gso::TcpV4, 100, &wrong), Err(Malformed));
    }
    // An unknown kind: UFO.
    assert_eq!(Header::parse([0, 3, 0, 0, 1, 0, 0, 0, 0, 0]), None);
}

#[test]
fn tiny_segments_take_several_buffers() {
    let mut spec = Spec::new(IpVersion::V4, protocol::TCP, 0);
    spec.payload = vec![5; 60_000];
    let header = Header {
        gso: Some((Gso::TcpV4, 1)),
        ..Header::default()
    };
    let packets = split_all(&header, &spec.build()).unwrap();
    assert_eq!(packets.len(), 60_000);
    assert!(packets.iter().all(|packet| packet.len() == 53));
    assert!(is_intact(&packets[59_999]));
}

/// One packet of a random call.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    payload: usize,
    flags: u8,
    gap: bool,
    broken: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (
        0usize..8,
        prop::sample::select(vec![0, 1, 100, 100, 100, 100, 101, 700]),
        prop::sample::select(vec![ACK, ACK, ACK, ACK | PSH, ACK | 1, 2]),
        prop::sample::select(vec![false, false, false, false, true]),
        prop::sample::select(vec![false, false, false, false, false, true]),
    )
        .prop_map(|(flow, payload, flags, gap, broken)| Step {
            flow,
            payload,
            flags,
            gap,
            broken,
        })
}

proptest! {
    #[test]
    fn splitting_undoes_merging_and_no_flow_is_reordered(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut flows: Vec<Spec> = kinds().chain(kinds()).collect();
        for (flow, spec) in flows.iter_mut().enumerate() {
            spec.source_port = flow as u16;
            spec.dont_fragment = flow < 4;
        }
        let packets: Vec<Bytes> = steps
            .iter()
            .map(|step| {
                let spec = &mut flows[step.flow];
                spec.payload = vec![step.flow as u8; step.payload];
                spec.flags = step.flags;
                let mut packet = spec.build().to_vec();
                if step.broken {
                    *packet.last_mut().unwrap() ^= 0x40;
                }
                *spec = spec.next();
                if step.gap {
                    *spec = spec.next();
                }
                packet.into()
            })
            .collect();
        let sent: Vec<Bytes> = merge(&packets, ALL)
            .iter()
            .flat_map(|(header, packet, _)| split_all(header, packet).unwrap())
            .collect();
        // Identifications mean nothing where routers may not fragment.
        let comparable = |packet: &Bytes| {
            let mut packet = packet.to_vec();
            if packet[0] == 0x45 && packet[6] == 0x40 {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            packet
        };
        for flow in 0..flows.len() {
            let of_flow = |packet: &&Bytes| {
                let at = if packet[0] == 0x45 { 20 } else { 40 };
                packet[at..at + 2] == (flow as u16).to_be_bytes()
            };
            let before: Vec<_> = packets.iter().filter(of_flow).map(comparable).collect();
            let after: Vec<_> = sent.iter().filter(of_flow).map(comparable).collect();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn garbage_never_panics(
        header in any::<[u8; HEADER_BYTES]>(),
        mut packet in proptest::collection::vec(any::<u8>(), 0..400),
        like in prop::sample::select(vec![0usize, 1, 2, 3, 4]),
        known in any::<bool>(),
        offset in prop::sample::select(vec![0x50u8, 0x80, 0xf0, 0x10]),
    ) {
        if let Some(spec) = kinds().nth(like) && packet.len() > 60 {
            let headers = spec.build();
            packet[..40].copy_from_slice(&headers[..40]);
            let len = packet.len() as u16;
            match spec.version {
                IpVersion::V4 => packet[2..4].copy_from_slice(&len.to_be_bytes()),
                IpVersion::V6 => packet[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
            }
            packet[if spec.version == IpVersion::V4 { 32 } else { 52 }] = offset;
        }
        let mut header = header;
        if known {
            header[1] = [0, 1, 4, 5, 0x81][usize::from(header[1]) % 5];
            header[5] = 0;
        }
        if let Some(header) = Header::parse(header)
            && let Ok(packets) = split_all(&header, &packet)
        {
            prop_assert!(header.gso.is_some() || packets.len() == 1);
            for packet in &packets {
                prop_assert_eq!(Packet::parse(packet).unwrap().len, packet.len());
                prop_assert!(header.gso.is_none() || is_intact(packet) || packet[0] & 0x0f > 5);
            }
            let total: usize = merge(&packets, ALL).iter().map(|(_, _, count)| count).sum();
            prop_assert_eq!(total, packets.len());
        }
        let pieces: Vec<Bytes> = packet.chunks(50).map(Bytes::copy_from_slice).collect();
        merge(&pieces, ALL);
    }

    #[test]
    fn headers_round_trip(bytes in any::<[u8; HEADER_BYTES]>()) {
        if let Some(header) = Header::parse(bytes) {
            prop_assert_eq!(Header::parse(header.encode()), Some(header));
        }
    }
}
