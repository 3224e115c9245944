//! The packets that two clients exchange: UDP in IP, with the header of the generator's datagrams, then filler.
//!
//! ```text
//!   IPv4 (20) or IPv6 (40) | UDP (8) | kind, flow, sequence number, due (21) | filler
//! ```
//!
//! Every checksum is right, and looked at on arrival: what was damaged on its way is not taken for one of ours.

use std::net::IpAddr;

use bauta::wire::datagram::UDP_PAYLOAD_MAX;
use bauta::wire::ip::checksum::Sum;
use bauta::wire::ip::packet::protocol;
use bauta::wire::ip::{IpVersion, Packet};
use bytes::{BufMut, BytesMut};

use crate::engine::{Header, SIZE_MIN};

/// Longest packet, in bytes: what any tunnel carries at all.
pub(super) const PACKET_MAX: usize = UDP_PAYLOAD_MAX;
/// Bytes of a UDP header.
const UDP_BYTES: usize = 8;
/// Ports for benchmarks: nothing else is known to use them.
const PORTS: [u16; 2] = [40_000, 40_001];
const HOP_LIMIT: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

static FILLER: [u8; PACKET_MAX] = [0xb5; PACKET_MAX];

/// Shortest packet, in bytes: the headers.
pub(super) const fn size_min(version: IpVersion) -> usize {
    version.header_bytes() + UDP_BYTES + SIZE_MIN
}

/// Packets of one size from one client to another: what does not change from one to the next.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    /// The headers of IP and UDP, the checksum of UDP left out.
    head: Vec<u8>,
    /// The sum of everything but the generator's header.
    sum: Sum,
    size: usize,
}

impl Envelope {
    /// Addresses are of one version; `size` is between [`size_min`] and [`PACKET_MAX`].
    pub(super) fn new(source: IpAddr, destination: IpAddr, size: usize) -> Self {
        let version = IpVersion::of(source);
        let size = size.clamp(size_min(version), PACKET_MAX);
        let upper = size - version.header_bytes();
        let mut head = Vec::with_capacity(version.header_bytes() + UDP_BYTES);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                head.put_u16(0x4500);
                head.put_u16(size as u16);
                head.put_u16(0);
                head.put_u16(DONT_FRAGMENT);
                head.put_slice(&[HOP_LIMIT, protocol::UDP, 0, 0]);
                head.put_slice(&source.octets());
                head.put_slice(&destination.octets());
                let checksum = Sum::of(&head).checksum().to_be_bytes();
                head[10..12].copy_from_slice(&checksum);
            }
            (source, destination) => {
                head.put_u32(0x6000_0000);
                head.put_u16(upper as u16);
                head.put_slice(&[protocol::UDP, HOP_LIMIT]);
                for address in [source, destination] {
                    let address = match address {
                        IpAddr::V4(address) => address.to_ipv6_mapped(),
                        IpAddr::V6(address) => address,
                    };
                    head.put_slice(&address.octets());
                }
            }
        }
        let [from, to] = PORTS;
        let udp = [from, to, upper as u16];
        let sum = Sum::pseudo_header(source, destination, protocol::UDP, upper);
        let sum = udp.iter().fold(sum, |sum, word| sum.word(*word));
        udp.iter().for_each(|word| head.put_u16(*word));
        // The last byte of the generator's header shares a word with the first of the filler.
        let filler = &FILLER[..upper - UDP_BYTES - SIZE_MIN];
        let sum = match filler.split_first() {
            Some((first, rest)) => sum.word(u16::from(*first)).bytes(rest),
            None => sum,
        };
        Self { head, sum, size }
    }

    /// Bytes of a packet.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Appends a packet.
    pub(super) fn write(&self, header: Header, out: &mut BytesMut) {
        out.reserve(self.size);
        out.put_slice(&self.head);
        let checksum_at = out.len();
        out.put_u16(0);
        header.write(SIZE_MIN, out);
        let checksum = self.sum.bytes(&out[checksum_at + 2..]).checksum();
        // Zero stands for none (RFC 768), which IPv6 does not allow (RFC 8200 section 8.1).
        let checksum = if checksum == 0 { u16::MAX } else { checksum };
        out[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        let left = self.size - self.head.len() - 2 - SIZE_MIN;
        out.put_slice(&FILLER[..left]);
    }
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A packet of a client, whole.
    Ours {
        source: IpAddr,
        destination: IpAddr,
        header: Header,
    },
    /// An error about one of our packets.
    Icmp(Icmp),
    /// Neither.
    Damaged,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icmp {
    /// Fragmentation Needed, or Packet Too Big (RFC 1191, RFC 4443).
    TooBig { mtu: u32 },
    /// A rule forbids the packet (RFC 1812, RFC 4443).
    Prohibited,
    /// Anything else.
    Other,
}

impl Arrival {
    /// Reads a packet and looks at its checksums.
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self::parse(bytes).unwrap_or(Self::Damaged)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = Packet::parse(bytes).ok()?;
        let upper = bytes.get(packet.transport..)?;
        let is_whole = packet.len == bytes.len();
        let is_header_right = match packet.version {
            IpVersion::V4 => Sum::of(bytes.get(..packet.transport)?).is_right(),
            IpVersion::V6 => true,
        };
        if !(is_whole && is_header_right) {
            return None;
        }
        if packet.protocol != protocol::UDP {
            return Icmp::parse(packet.protocol, upper).map(Self::Icmp);
        }
        let (udp, payload) = upper.split_first_chunk::<UDP_BYTES>()?;
        let [_, _, _, _, high, low, a, b] = *udp;
        let is_sized = usize::from(u16::from_be_bytes([high, low])) == upper.len();
        let len = upper.len();
        let sum = Sum::pseudo_header(packet.source, packet.destination, packet.protocol, len);
        if !is_sized || [a, b] == [0, 0] || !sum.bytes(upper).is_right() {
            return None;
        }
        Some(Self::Ours {
            source: packet.source,
            destination: packet.destination,
            header: Header::parse(payload)?,
        })
    }
}

impl Icmp {
    fn parse(protocol: u8, upper: &[u8]) -> Option<Self> {
        let (&[kind, code, _, _, a, b, c, d], _) = upper.split_first_chunk::<8>()?;
        Some(match (protocol, kind, code) {
            (protocol::ICMP, 3, 4) => Self::TooBig {
                mtu: u16::from_be_bytes([c, d]).into(),
            },
            (protocol::ICMPV6, 2, _) => Self::TooBig {
                mtu: u32::from_be_bytes([a, b, c, d]),
            },
            (protocol::ICMP, 3, 9 | 10 | 13) | (protocol::ICMPV6, 1, 1) => Self::Prohibited,
            (protocol::ICMP | protocol::ICMPV6, _, _) => Self::Other,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use bauta::wire::ip::icmp::{self, IcmpError};
    use bauta::wire::ip::packet::decrement_hop_limit;

    use super::*;
    use crate::engine::Kind;

    const HEADER: Header = Header {
        kind: Kind::Data,
        measured: true,
        flow: 0x0102_0304,
        sequence: 77,
        due_ns: 1 << 50,
    };

    fn ends(version: IpVersion) -> (IpAddr, IpAddr) {
        let (a, b) = match version {
            IpVersion::V4 => ("198.18.0.2", "198.19.255.254"),
            IpVersion::V6 => ("2001:2::7", "2001:2::ffff:1"),
        };
        (a.parse().unwrap(), b.parse().unwrap())
    }

    fn packet(version: IpVersion, size: usize) -> BytesMut {
        let (source, destination) = ends(version);
        let mut bytes = BytesMut::new();
        Envelope::new(source, destination, size).write(HEADER, &mut bytes);
        bytes
    }

    #[test]
    fn reads_what_it_writes() {
        for version in [IpVersion::V4, IpVersion::V6] {
            let least = size_min(version);
            for size in [least, least + 1, least + 2, 576, 1_400, 1_401, PACKET_MAX] {
                let mut bytes = packet(version, size);
                assert_eq!(bytes.len(), size);
                let (source, destination) = ends(version);
                let header = HEADER;
                let ours = Arrival::Ours {
                    source,
                    destination,
                    header,
                };
                assert_eq!(Arrival::read(&bytes), ours, "{size}");
                // What a router does leaves it whole.
                assert!(decrement_hop_limit(&mut bytes));
                assert_eq!(Arrival::read(&bytes), ours, "{size}");
            }
        }
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        for version in [IpVersion::V4, IpVersion::V6] {
            let whole = packet(version, size_min(version) + 9);
            // Traffic Class, Flow Label and Hop Limit of IPv6 are under no checksum.
            let open: &[usize] = match version {
                IpVersion::V4 => &[],
                IpVersion::V6 => &[0, 1, 2, 3, 7],
            };
            for at in (0..whole.len()).filter(|at| !open.contains(at)) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                let is_ours = matches!(Arrival::read(&bytes), Arrival::Ours { .. });
                assert!(!is_ours, "{version:?}, byte {at}");
            }
            for len in 0..whole.len() {
                assert_eq!(Arrival::read(&whole[..len]), Arrival::Damaged);
            }
        }
    }

    #[test]
    fn errors_are_understood() {
        for version in [IpVersion::V4, IpVersion::V6] {
            let (source, destination) = ends(version);
            let about = packet(version, 1_400);
            for (error, expected) in [
                (
                    IcmpError::TooBig { mtu: 1_280 },
                    Icmp::TooBig { mtu: 1_280 },
                ),
                (IcmpError::Prohibited, Icmp::Prohibited),
            ] {
                let answer = icmp::error(error, &about, destination).unwrap();
                assert_eq!(Arrival::read(&answer), Arrival::Icmp(expected), "{source}");
            }
        }
    }
}
