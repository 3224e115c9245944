//! Packets of one flow, merged into super-packets for the kernel: what a network card does on receiving (GRO).
//!
//! ```text
//!   packets of one call   A1  B1  A2  B2  A3  C  B3
//!   runs                  A1 ─ A2 ─ A3     B1 ─ B2 ─ B3     C       in the order of their first packets
//!   one write each        | header | A's headers, adapted | A1's payload | A2's | A3's |
//! ```
//!
//! A packet joins the run of its flow if cutting the super-packet gives it back, byte for byte, but for the IPv4
//! identification of packets that may not be fragmented, which means nothing (RFC 6864 §4.1). So all of a run have the
//! same headers, apart from lengths, sequence numbers and checksums, and payloads of one size; the last may be shorter,
//! and is the only one that may carry PSH. Checksums are verified before packets merge, because the kernel takes the
//! sum of a super-packet on trust.
//!
//! Invariants:
//! - Packets of a flow leave in the order in which they came: one that cannot join ends the run before it.
//! - Nothing is copied but headers, and nothing outlives the call.

use std::io::IoSlice;
use std::net::IpAddr;

use bytes::Bytes;

use super::TunOffloads;
use super::header::{Gso, HEADER_BYTES, Header};
use super::layout::{ipv4, ipv6, put_u16, tcp, u16_at, u32_at, udp};
use crate::wire::ip::checksum::Sum;
use crate::wire::ip::packet::{IPV6_HEADER_BYTES, IpVersion, Packet, protocol};

/// Packets of a run: more than 64 KiB of any that are worth merging.
const RUN_PACKETS_MAX: usize = 128;
/// Bytes of a super-packet: what the length field of either version of IP has room for.
const RUN_BYTES_MAX: usize = u16::MAX as usize;
/// Runs that packets may still join. For one more another is closed, and its flow then needs one more write.
const OPEN_MAX: usize = 32;
/// Bytes of the longest headers that merge: IPv6, and TCP with all the options there is room for.
const HEADERS_BYTES_MAX: usize = IPV6_HEADER_BYTES + 60;

/// Ends a list of packets.
const NONE: u32 = u32::MAX;

/// Two addresses, two ports and a protocol. The first field is the one that differs most.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    ports: [u8; 4],
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
}

/// What merging has to know of a packet.
#[derive(Clone, Copy)]
struct Segment {
    version: IpVersion,
    is_tcp: bool,
    transport: usize,
    /// Bytes of all headers, and of what follows them.
    headers: usize,
    payload: usize,
    sequence: u32,
    /// Nothing may follow it in a run.
    ends_run: bool,
}

/// How a packet stands to the runs.
enum Kind {
    /// It may be part of a run of its flow.
    Mergeable(Flow, Segment),
    /// It leaves alone, and its flow goes on in a new run.
    OfFlow(Flow),
    /// It leaves alone, and whatever goes between the same hosts may be of its flow.
    OfHosts(IpAddr, IpAddr),
    /// It is no packet, and of no flow.
    Garbage,
}

/// Packets that leave in one write, as a list through `Merger::next`.
#[derive(Clone, Copy)]
struct Run {
    first: u32,
    last: u32,
    count: u32,
    /// Of the first packet; `None` for one that leaves alone.
    segment: Option<Segment>,
    /// Bytes of payload of all packets.
    payload: usize,
}

/// A run that packets may join.
struct Open {
    flow: Flow,
    run: usize,
    /// Where the next packet has to begin.
    sequence: u32,
    /// The checksums of the first packet are known to be right.
    verified: bool,
}

/// Merges the packets of one call after the other; keeps no packets in between, only the room for its lists.
#[derive(Default)]
pub(in crate::net) struct Merger {
    runs: Vec<Run>,
    open: Vec<Open>,
    /// Which of `open` gave way last, because they were as many as there may be.
    evicted: usize,
    /// For each packet the one behind it in its run.
    next: Vec<u32>,
}

/// What one write carries. Far below the 1024 slices that one call may have.
pub(in crate::net) struct Write<'a> {
    /// The header, and the packet or super-packet behind it.
    pub(in crate::net) slices: &'a [IoSlice<'a>],
    pub(in crate::net) packets: usize,
}

impl Merger {
    /// Hands the packets to `f`, merged as far as `offloads` allows.
    pub(in crate::net) fn merge(
        &mut self,
        packets: &[Bytes],
        offloads: TunOffloads,
        f: &mut impl FnMut(&Write<'_>),
    ) {
        if let [packet] = packets {
            return write_alone(packet, f);
        }
        self.next.resize(packets.len(), NONE);
        for (index, packet) in packets.iter().enumerate() {
            self.sort_in(index, packet, packets, offloads);
        }
        for run in &self.runs {
            self.write(run, packets, f);
        }
        self.runs.clear();
        self.open.clear();
        self.next.clear();
    }

    fn sort_in(&mut self, index: usize, packet: &Bytes, packets: &[Bytes], offloads: TunOffloads) {
        match classify(packet, offloads) {
            Kind::Mergeable(flow, segment) => {
                let at = self.open.iter().position(|open| open.flow == flow);
                if let Some(at) = at {
                    if self.join(at, index, &segment, packets) {
                        return;
                    }
                    self.close(at);
                }
                let run = self.start(index, Some(segment));
                if !segment.ends_run {
                    self.open(Open {
                        flow,
                        run,
                        sequence: segment.sequence.wrapping_add(segment.payload as u32),
                        verified: false,
                    });
                }
            }
            Kind::OfFlow(flow) => {
                if let Some(at) = self.open.iter().position(|open| open.flow == flow) {
                    self.close(at);
                }
                self.start(index, None);
            }
            Kind::OfHosts(source, destination) => {
                self.open.retain(|open| {
                    (open.flow.source, open.flow.destination) != (source, destination)
                });
                self.start(index, None);
            }
            Kind::Garbage => {
                self.start(index, None);
            }
        }
    }

    fn start(&mut self, index: usize, segment: Option<Segment>) -> usize {
        self.runs.push(Run {
            first: index as u32,
            last: index as u32,
            count: 1,
            segment,
            payload: segment.map_or(0, |segment| segment.payload),
        });
        self.runs.len() - 1
    }

    fn open(&mut self, open: Open) {
        if self.open.len() < OPEN_MAX {
            self.open.push(open);
        } else {
            self.evicted = (self.evicted + 1) % OPEN_MAX;
            self.open[self.evicted] = open;
        }
    }

    fn close(&mut self, at: usize) {
        self.open.swap_remove(at);
    }

    /// Lets a packet join an open run, if it goes on where the run ends.
    fn join(&mut self, at: usize, index: usize, segment: &Segment, packets: &[Bytes]) -> bool {
        let open = &mut self.open[at];
        let run = &mut self.runs[open.run];
        let (first, packet) = (&packets[run.first as usize], &packets[index]);
        let Some(of_first) = &run.segment else {
            return false;
        };
        let fits = segment.headers == of_first.headers
            && segment.payload <= of_first.payload
            && (!segment.is_tcp || segment.sequence == open.sequence)
            && (run.count as usize) < RUN_PACKETS_MAX
            && segment.headers + run.payload + segment.payload <= RUN_BYTES_MAX
            && same_headers(first, packet, of_first, run.count);
        if !fits || !is_intact(packet, &open.flow, segment) {
            return false;
        }
        if !open.verified && !is_intact(first, &open.flow, of_first) {
            return false;
        }
        open.verified = true;
        open.sequence = open.sequence.wrapping_add(segment.payload as u32);
        self.next[run.last as usize] = index as u32;
        run.last = index as u32;
        run.count += 1;
        run.payload += segment.payload;
        if segment.ends_run || segment.payload < of_first.payload {
            self.close(at);
        }
        true
    }

    fn write(&self, run: &Run, packets: &[Bytes], f: &mut impl FnMut(&Write<'_>)) {
        let first = &packets[run.first as usize];
        let Some(segment) = run.segment.filter(|_| run.count > 1) else {
            return write_alone(first, f);
        };
        let mut headers = [0; HEADERS_BYTES_MAX];
        let headers = &mut headers[..segment.headers];
        headers.copy_from_slice(&first[..segment.headers]);
        let header = segment.adapt(headers, run.payload, &packets[run.last as usize]);
        let header = header.encode();

        let count = run.count as usize;
        let mut slices = [IoSlice::new(&[]); 2 + RUN_PACKETS_MAX];
        slices[0] = IoSlice::new(&header);
        slices[1] = IoSlice::new(headers);
        let mut index = run.first;
        for slice in &mut slices[2..2 + count] {
            *slice = IoSlice::new(&packets[index as usize][segment.headers..]);
            index = self.next[index as usize];
        }
        f(&Write {
            slices: &slices[..2 + count],
            packets: count,
        });
    }
}

fn write_alone(packet: &[u8], f: &mut impl FnMut(&Write<'_>)) {
    f(&Write {
        slices: &[IoSlice::new(&[0; HEADER_BYTES]), IoSlice::new(packet)],
        packets: 1,
    });
}

impl Segment {
    /// Turns the headers of the first packet of a run into those of the super-packet.
    fn adapt(&self, headers: &mut [u8], payload: usize, last: &[u8]) -> Header {
        let len = self.headers + payload;
        let segment_len = len - self.transport;
        let (network, transport) = headers.split_at_mut(self.transport);
        // `RUN_BYTES_MAX` bounds all lengths.
        match self.version {
            IpVersion::V4 => {
                put_u16(network, ipv4::TOTAL_LENGTH, len as u16);
                put_u16(network, ipv4::CHECKSUM, 0);
                let checksum = Sum::of(network).checksum();
                put_u16(network, ipv4::CHECKSUM, checksum);
            }
            IpVersion::V6 => put_u16(network, ipv6::PAYLOAD_LENGTH, segment_len as u16),
        }
        // Addresses are the last that both versions have in their headers.
        let addresses = match self.version {
            IpVersion::V4 => &network[network.len() - 8..],
            IpVersion::V6 => &network[network.len() - 32..],
        };
        let pseudo_header = Sum::of(addresses).word(segment_len as u16);
        let (gso, checksum_at) = if self.is_tcp {
            transport[tcp::FLAGS] |= last[self.transport + tcp::FLAGS] & tcp::PSH;
            let sum = pseudo_header.word(protocol::TCP.into()).fold();
            put_u16(transport, tcp::CHECKSUM, sum);
            let gso = match self.version {
                IpVersion::V4 => Gso::TcpV4,
                IpVersion::V6 => Gso::TcpV6,
            };
            (gso, tcp::CHECKSUM)
        } else {
            put_u16(transport, udp::LENGTH, segment_len as u16);
            let sum = pseudo_header.word(protocol::UDP.into()).fold();
            put_u16(transport, udp::CHECKSUM, sum);
            (Gso::Udp, udp::CHECKSUM)
        };
        Header {
            checksum: Some((self.transport as u16, checksum_at as u16)),
            gso: Some((gso, self.payload as u16)),
            headers_len: self.headers as u16,
        }
    }
}

/// Reads what decides whether a packet may merge.
fn classify(packet: &[u8], offloads: TunOffloads) -> Kind {
    let Ok(parsed) = Packet::parse(packet) else {
        return Kind::Garbage;
    };
    let of_hosts = Kind::OfHosts(parsed.source, parsed.destination);
    let is_tcp = parsed.protocol == protocol::TCP;
    // Options and extension headers are rare; fragments have no ports, or share them with some that have none.
    let is_plain = parsed.transport == parsed.version.header_bytes()
        && !parsed.later_fragment
        && !has_more_fragments(packet, parsed.version)
        && (is_tcp || parsed.protocol == protocol::UDP);
    let segment = packet.get(parsed.transport..parsed.len);
    let Some(segment) = segment.filter(|_| is_plain && parsed.len == packet.len()) else {
        return of_hosts;
    };
    let Some(ports) = segment.first_chunk() else {
        return of_hosts;
    };
    let flow = Flow {
        ports: *ports,
        protocol: parsed.protocol,
        source: parsed.source,
        destination: parsed.destination,
    };
    let segment = if is_tcp {
        tcp_segment(segment, &parsed).filter(|_| offloads.tcp)
    } else {
        udp_segment(segment, &parsed).filter(|_| offloads.udp)
    };
    match segment {
        Some(segment) => Kind::Mergeable(flow, segment),
        None => Kind::OfFlow(flow),
    }
}

fn has_more_fragments(packet: &[u8], version: IpVersion) -> bool {
    let flags = packet.get(ipv4::FLAGS).copied().unwrap_or(0);
    version == IpVersion::V4 && flags & ipv4::MORE_FRAGMENTS != 0
}

/// A segment with data and nothing else to say.
fn tcp_segment(segment: &[u8], parsed: &Packet) -> Option<Segment> {
    let header_len = tcp::header_len(segment)?;
    let payload = segment.len() - header_len;
    let flags = segment[tcp::FLAGS];
    let is_data = flags & !tcp::PSH == tcp::ACK && segment[tcp::DATA_OFFSET] & 0x0f == 0;
    (is_data && payload > 0).then(|| Segment {
        version: parsed.version,
        is_tcp: true,
        transport: parsed.transport,
        headers: parsed.transport + header_len,
        payload,
        sequence: u32_at(segment, tcp::SEQUENCE),
        ends_run: flags & tcp::PSH != 0,
    })
}

/// A datagram with data and a checksum.
fn udp_segment(segment: &[u8], parsed: &Packet) -> Option<Segment> {
    let (header, payload) = segment.split_at_checked(udp::HEADER_BYTES)?;
    let is_whole = usize::from(u16_at(header, udp::LENGTH)) == segment.len();
    let has_checksum = u16_at(header, udp::CHECKSUM) != 0;
    (is_whole && has_checksum && !payload.is_empty()).then(|| Segment {
        version: parsed.version,
        is_tcp: false,
        transport: parsed.transport,
        headers: parsed.transport + udp::HEADER_BYTES,
        payload: payload.len(),
        sequence: 0,
        ends_run: false,
    })
}

/// Whether two packets of a flow, both as `segment` says, have the same headers but for what cutting restores.
/// `distance` is how many packets after the first the other one comes.
fn same_headers(first: &[u8], packet: &[u8], segment: &Segment, distance: u32) -> bool {
    let same = |from: usize, to: usize| first[from..to] == packet[from..to];
    let network = match segment.version {
        IpVersion::V4 => {
            let [a, b] = [first, packet].map(|packet| u16_at(packet, ipv4::IDENTIFICATION));
            // Whether it may be fragmented is the same for both, as are service, time to live and protocol.
            let may_fragment = first[ipv4::FLAGS] & 0x40 == 0;
            same(0, ipv4::TOTAL_LENGTH)
                && same(ipv4::FLAGS, ipv4::CHECKSUM)
                && (!may_fragment || a.wrapping_add(distance as u16) == b)
        }
        IpVersion::V6 => same(0, ipv6::PAYLOAD_LENGTH) && same(ipv6::PAYLOAD_LENGTH + 2, 8),
    };
    let at = segment.transport;
    let transport = !segment.is_tcp
        || (same(at + tcp::ACKNOWLEDGMENT, at + tcp::FLAGS)
            && same(at + tcp::WINDOW, at + tcp::CHECKSUM)
            && same(at + tcp::URGENT, segment.headers));
    network && transport
}

/// Whether the checksums of a packet are right.
fn is_intact(packet: &[u8], flow: &Flow, segment: &Segment) -> bool {
    let (network, transport) = packet.split_at(segment.transport);
    let header = match segment.version {
        IpVersion::V4 => Sum::of(network).is_right(),
        IpVersion::V6 => true,
    };
    let sum = Sum::pseudo_header(
        flow.source,
        flow.destination,
        flow.protocol,
        transport.len(),
    );
    header && sum.bytes(transport).is_right()
}
