//! IP packets, as far as whoever forwards them has to look (RFC 791, RFC 8200).
//!
//! ```text
//!   IPv4   | header, options          | transport …                 | cut by the caller
//!   IPv6   | header | extension │ …   | transport …                 |
//!          0                          transport                     len
//! ```
//!
//! Invariants:
//! - `transport` is not above `len`, and `len` not above the number of bytes given.
//! - The chain of IPv6 extension headers is walked to its end (RFC 9484 §4.8), or the packet is refused. A fragment
//!   other than the first does not hold the rest of its chain: there the walk ends at the fragment header.
//!
//! Checksums are not checked: whoever takes the packet in the end does that, and a wrong one stays wrong here. There
//! are no jumbograms (RFC 2675), no reassembly, and nothing looks into ESP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum;

/// Upper-layer protocols (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
}

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_BYTES: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_HEADER_BYTES: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_HEADER_BYTES: usize = 20;

/// Extension headers of one packet: several times what any use of them needs, and a bound on the walk.
const EXTENSION_HEADERS_MAX: usize = 16;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl IpVersion {
    /// The version that an address belongs to.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of the header without options and extensions.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::V4 => IPV4_HEADER_BYTES,
            Self::V6 => IPV6_HEADER_BYTES,
        }
    }
}

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The version of IP.
    pub version: IpVersion,
    /// Who says to have sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// The upper-layer protocol, behind all extension headers. In a fragment other than the first, what its fragment
    /// header says, which may be a further extension header.
    pub protocol: u8,
    /// TTL or Hop Limit.
    pub hop_limit: u8,
    /// Bytes of the whole packet. Whatever follows in the buffer does not belong to it.
    pub len: usize,
    /// Where the upper layer begins.
    pub transport: usize,
    /// Whether routers may not fragment it; always so with IPv6.
    pub dont_fragment: bool,
    /// Whether it is a fragment other than the first, and so has no upper-layer header.
    pub later_fragment: bool,
}

/// Why bytes are no packet. A packet that is none is dropped like one that gets lost; the tunnel stays
/// (RFC 9484 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// There are no bytes.
    #[error("the packet is empty")]
    Empty,
    /// The first four bits are neither 4 nor 6.
    #[error("version {version} of IP does not exist")]
    Version {
        /// What they are.
        version: u8,
    },
    /// The bytes end before the packet does.
    #[error("the packet has {len} bytes, of which {present} are there")]
    Truncated {
        /// What the packet says to have, or the least that it needs.
        len: usize,
        /// What is there.
        present: usize,
    },
    /// The length of the IPv4 header is below 20 bytes or above that of the packet.
    #[error("an IPv4 header of {header_len} bytes in a packet of {len} bytes")]
    HeaderLength {
        /// What the packet says of its header.
        header_len: usize,
        /// What it says of itself.
        len: usize,
    },
    /// An IPv6 extension header ends outside the packet.
    #[error("extension header {header} ends outside the packet of {len} bytes")]
    ExtensionTruncated {
        /// Its number.
        header: u8,
        /// What the packet says of itself.
        len: usize,
    },
    /// It names the routers to pass, and so hides where it goes (RFC 7126 §4.3, RFC 5095).
    #[error("the packet has a source route")]
    SourceRoute,
    /// There are more IPv6 extension headers than anybody needs.
    #[error("more than {max} extension headers")]
    ExtensionCount {
        /// The most.
        max: usize,
    },
}

impl Packet {
    /// Reads the headers of the packet that `bytes` begins with.
    ///
    /// # Errors
    /// [`PacketError`]: these bytes are no packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        let first = bytes.first().ok_or(PacketError::Empty)?;
        match first >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            version => Err(PacketError::Version { version }),
        }
    }

    /// The destination port of TCP or UDP; `bytes` are those that were parsed.
    #[must_use]
    pub fn destination_port(&self, bytes: &[u8]) -> Option<u16> {
        if self.later_fragment || !matches!(self.protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        match bytes.get(self.transport..self.len)? {
            [_, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// Whether it opens a TCP connection; `bytes` are those that were parsed.
    #[must_use]
    pub fn is_tcp_syn(&self, bytes: &[u8]) -> bool {
        const FLAGS: usize = 13;
        const SYN: u8 = 0x02;
        self.protocol == protocol::TCP
            && !self.later_fragment
            && (bytes.get(self.transport + FLAGS)).is_some_and(|flags| flags & SYN != 0)
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, PacketError> {
        let header: &[u8; IPV4_HEADER_BYTES] = header(bytes)?;
        let [
            version_and_length,
            _tos,
            length_high,
            length_low,
            _,
            _,
            flags,
            offset_low,
            ttl,
            protocol,
            _,
            _,
            addresses @ ..,
        ] = header;
        let addresses: &[u8; 8] = addresses;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = *addresses;
        let header_len = usize::from(version_and_length & 0x0f) * 4;
        let len = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        if header_len < IPV4_HEADER_BYTES || header_len > len {
            return Err(PacketError::HeaderLength { header_len, len });
        }
        check_present(bytes, len)?;
        if has_source_route(bytes.get(IPV4_HEADER_BYTES..header_len).unwrap_or_default()) {
            return Err(PacketError::SourceRoute);
        }
        Ok(Self {
            version: IpVersion::V4,
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol: *protocol,
            hop_limit: *ttl,
            len,
            transport: header_len,
            dont_fragment: flags & 0x40 != 0,
            later_fragment: flags & 0x1f != 0 || *offset_low != 0,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, PacketError> {
        let header: &[u8; IPV6_HEADER_BYTES] = header(bytes)?;
        let [
            _,
            _,
            _,
            _,
            length_high,
            length_low,
            next_header,
            hop_limit,
            addresses @ ..,
        ] = header;
        let addresses: &[u8; 32] = addresses;
        let (addresses, _) = addresses.as_chunks::<16>();
        let [source, destination] = *addresses else {
            unreachable!("32 bytes are two addresses");
        };
        let payload_len = u16::from_be_bytes([*length_high, *length_low]);
        let len = IPV6_HEADER_BYTES + usize::from(payload_len);
        check_present(bytes, len)?;
        let upper = UpperLayer::find(bytes.get(..len).unwrap_or(bytes), *next_header)?;
        Ok(Self {
            version: IpVersion::V6,
            source: Ipv6Addr::from_octets(source).into(),
            destination: Ipv6Addr::from_octets(destination).into(),
            protocol: upper.protocol,
            hop_limit: *hop_limit,
            len,
            transport: upper.offset,
            dont_fragment: true,
            later_fragment: upper.later_fragment,
        })
    }
}

fn header<const LEN: usize>(bytes: &[u8]) -> Result<&[u8; LEN], PacketError> {
    bytes.first_chunk().ok_or(PacketError::Truncated {
        len: LEN,
        present: bytes.len(),
    })
}

fn check_present(bytes: &[u8], len: usize) -> Result<(), PacketError> {
    let present = bytes.len();
    if len > present {
        return Err(PacketError::Truncated { len, present });
    }
    Ok(())
}

/// What stands behind the extension headers of an IPv6 packet (RFC 8200 §4).
struct UpperLayer {
    protocol: u8,
    offset: usize,
    later_fragment: bool,
}

impl UpperLayer {
    fn find(packet: &[u8], next_header: u8) -> Result<Self, PacketError> {
        let mut found = Self {
            protocol: next_header,
            offset: IPV6_HEADER_BYTES,
            later_fragment: false,
        };
        for _ in 0..=EXTENSION_HEADERS_MAX {
            if !is_extension(found.protocol) || found.later_fragment {
                return Ok(found);
            }
            let truncated = PacketError::ExtensionTruncated {
                header: found.protocol,
                len: packet.len(),
            };
            let header = packet.get(found.offset..).unwrap_or_default();
            // All extension headers have at least eight bytes, and begin with the number of the next.
            let [next, units, offset_high, offset_low, ..] = *header else {
                return Err(truncated);
            };
            let header_len = match found.protocol {
                // Segments are left: it goes on elsewhere from where it says to go.
                ROUTING if offset_low != 0 => return Err(PacketError::SourceRoute),
                FRAGMENT => {
                    found.later_fragment = offset_high != 0 || offset_low & 0xf8 != 0;
                    8
                }
                AUTHENTICATION => (usize::from(units) + 2) * 4,
                _ => (usize::from(units) + 1) * 8,
            };
            if header_len > header.len() {
                return Err(truncated);
            }
            found.offset += header_len;
            found.protocol = next;
        }
        Err(PacketError::ExtensionCount {
            max: EXTENSION_HEADERS_MAX,
        })
    }
}

/// Whether options of IPv4 name routers to pass: Loose or Strict Source Route.
fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    loop {
        options = match options {
            [NO_OPERATION, rest @ ..] => rest,
            [131 | 137, ..] => return true,
            [END, ..] | [_] | [] => return false,
            [_, len, ..] => match options.get(usize::from(*len).max(2)..) {
                Some(rest) => rest,
                None => return false,
            },
        }
    }
}

const fn is_extension(header: u8) -> bool {
    matches!(
        header,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HIP
            | SHIM6
    )
}

/// Takes one from TTL or Hop Limit, as everybody does who forwards (RFC 9484 §7.2), and adapts the IPv4 header
/// checksum, options or not. Returns `false`, and changes nothing, if the packet may not go further: it would reach 0,
/// or it is no packet at all.
#[must_use]
pub fn decrement_hop_limit(packet: &mut [u8]) -> bool {
    match packet {
        [first, _, _, _, _, _, _, _, ttl, protocol, high, low, ..] if *first >> 4 == 4 => {
            if *ttl <= 1 {
                return false;
            }
            let old = u16::from_be_bytes([*ttl, *protocol]);
            *ttl -= 1;
            let new = u16::from_be_bytes([*ttl, *protocol]);
            let checksum = u16::from_be_bytes([*high, *low]);
            [*high, *low] = checksum::update(checksum, old, new).to_be_bytes();
            true
        }
        [first, _, _, _, _, _, _, hop_limit, ..] if *first >> 4 == 6 => {
            if *hop_limit <= 1 {
                return false;
            }
            *hop_limit -= 1;
            true
        }
        _ => false,
    }
}

/// Lowers the maximum segment size in a TCP SYN to what `mtu` bytes of IP packet have room for, and adapts the
/// checksum; leaves every other packet as it is. A SYN without that option stays without: its receiver then assumes a
/// size that fits (RFC 9293 §3.7.1).
///
/// `headers` is what [`Packet::parse`] made of `packet`.
pub fn clamp_mss(packet: &mut [u8], headers: &Packet, mtu: usize) {
    const SYN: u8 = 0x02;
    if headers.protocol != protocol::TCP || headers.later_fragment {
        return;
    }
    let Some(segment) = packet.get_mut(headers.transport..headers.len) else {
        return;
    };
    let Some((header, options)) = segment.split_first_chunk_mut::<TCP_HEADER_BYTES>() else {
        return;
    };
    let [.., data_offset, flags, _, _, high, low, _, _] = header;
    if *flags & SYN == 0 {
        return;
    }
    let options_len = (usize::from(*data_offset >> 4) * 4).saturating_sub(TCP_HEADER_BYTES);
    let Some(options) = options.get_mut(..options_len) else {
        return;
    };
    let Some((position, value)) = find_mss(options) else {
        return;
    };
    let room = mtu.saturating_sub(headers.version.header_bytes() + TCP_HEADER_BYTES);
    let room = u16::try_from(room).unwrap_or(u16::MAX);
    let old = u16::from_be_bytes(*value);
    if old <= room {
        return;
    }
    *value = room.to_be_bytes();
    // At an odd place the halves of the value belong to two words, and count with the other weight.
    let turn = |word: u16| {
        if position % 2 == 0 {
            word
        } else {
            word.swap_bytes()
        }
    };
    let checksum = u16::from_be_bytes([*high, *low]);
    [*high, *low] = checksum::update(checksum, turn(old), turn(room)).to_be_bytes();
}

/// The value of the option Maximum Segment Size, and where it is.
fn find_mss(options: &mut [u8]) -> Option<(usize, &mut [u8; 2])> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    let mut position = 0;
    loop {
        match *options.get(position..)? {
            [NO_OPERATION, ..] => position += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, _, _, ..] => {
                let value = options.get_mut(position + 2..)?.first_chunk_mut()?;
                return Some((position + 2, value));
            }
            [END, ..] | [_] | [] => return None,
            [_, len, ..] if len < 2 => return None,
            [_, len, ..] => position += usize::from(len),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
