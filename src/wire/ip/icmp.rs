//! ICMP errors about packets that could not be forwarded (RFC 792, RFC 1812 §4.3; RFC 4443).
//!
//! ```text
//!   | IP header: from us to the source | type, code, checksum, parameter | the packet, as much as fits |
//! ```
//!
//! An error never answers what could make answers multiply: another error, a packet to or from many, a fragment other
//! than the first (RFC 1812 §4.3.2.7, RFC 4443 §2.4). How often errors are sent at all is the caller's business, and so
//! is whether an IPv4 packet that is too big may be fragmented.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use super::checksum::Sum;
use super::packet::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, IpVersion, Packet, protocol};

/// Bytes in front of the quoted packet.
const ICMP_HEADER_BYTES: usize = 8;
/// The longest error over IPv4 (RFC 1812 §4.3.2.3).
const V4_BYTES_MAX: usize = 576;
/// The longest error over IPv6: the least MTU (RFC 4443 §2.4).
const V6_BYTES_MAX: usize = 1280;
/// TTL and Hop Limit of errors.
const HOP_LIMIT: u8 = 64;

/// Why a packet was not forwarded (RFC 9484 §7.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Its TTL or Hop Limit was used up: 11/0, 3/0.
    TimeExceeded,
    /// It is larger than `mtu`, and may not be fragmented: 3/4, 2/0.
    TooBig {
        /// Bytes of the largest packet that would have passed.
        mtu: u32,
    },
    /// There is no way to the destination: 3/0, 1/0.
    NoRoute,
    /// The destination or the protocol is not allowed: 3/13, 1/1.
    Prohibited,
    /// The source address is not the sender's: 3/13, 1/5.
    SourceProhibited,
    /// The destination does not exist: 3/1, 1/3.
    AddressUnreachable,
}

/// Type, code and parameter.
#[derive(Clone, Copy)]
struct Message(u8, u8, u32);

impl IcmpError {
    const fn message(self, version: IpVersion) -> Message {
        match (version, self) {
            (IpVersion::V4, Self::TimeExceeded) => Message(11, 0, 0),
            (IpVersion::V4, Self::TooBig { mtu }) => {
                // The upper half is unused (RFC 1191 §4).
                Message(3, 4, if mtu > 0xffff { 0xffff } else { mtu })
            }
            (IpVersion::V4, Self::NoRoute) => Message(3, 0, 0),
            (IpVersion::V4, Self::Prohibited | Self::SourceProhibited) => Message(3, 13, 0),
            (IpVersion::V4, Self::AddressUnreachable) => Message(3, 1, 0),
            (IpVersion::V6, Self::TimeExceeded) => Message(3, 0, 0),
            (IpVersion::V6, Self::TooBig { mtu }) => Message(2, 0, mtu),
            (IpVersion::V6, Self::NoRoute) => Message(1, 0, 0),
            (IpVersion::V6, Self::Prohibited) => Message(1, 1, 0),
            (IpVersion::V6, Self::SourceProhibited) => Message(1, 5, 0),
            (IpVersion::V6, Self::AddressUnreachable) => Message(1, 3, 0),
        }
    }
}

/// A whole packet from `from` to the source of `packet` that says why `packet` was not forwarded, and quotes it: up to
/// 576 bytes over IPv4, 1280 over IPv6. `None` where none may be sent, and if `from` is of the other version of IP.
#[must_use]
pub fn error(error: IcmpError, packet: &[u8], from: IpAddr) -> Option<BytesMut> {
    let headers = Packet::parse(packet).ok()?;
    if headers.later_fragment || is_error(packet, &headers) || is_for_many(headers.destination) {
        return None;
    }
    let quote = packet.get(..headers.len)?;
    match (from, headers.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) if is_one_host_v4(to) => {
            let quote_max = V4_BYTES_MAX - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;
            let quote = quote.get(..quote_max).unwrap_or(quote);
            Some(write_v4(error.message(IpVersion::V4), quote, from, to))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) if is_one_host_v6(to) => {
            let quote_max = V6_BYTES_MAX - IPV6_HEADER_BYTES - ICMP_HEADER_BYTES;
            let quote = quote.get(..quote_max).unwrap_or(quote);
            Some(write_v6(error.message(IpVersion::V6), quote, from, to))
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}

/// The answer of `from` to an ICMPv6 echo request (RFC 4443 §4.2), whomever it was for; `None` if `packet` is none that
/// one host sent.
#[must_use]
pub fn echo_reply(packet: &[u8], from: IpAddr) -> Option<BytesMut> {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    let headers = Packet::parse(packet).ok()?;
    if headers.later_fragment || headers.protocol != protocol::ICMPV6 {
        return None;
    }
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, headers.source) else {
        return None;
    };
    match packet.get(headers.transport..headers.len)? {
        [ECHO_REQUEST, 0, _, _, a, b, c, d, data @ ..] if is_one_host_v6(to) => {
            let names = u32::from_be_bytes([*a, *b, *c, *d]);
            Some(write_v6(Message(ECHO_REPLY, 0, names), data, from, to))
        }
        _ => None,
    }
}

/// Whether a packet is an ICMP error itself, or one cannot tell.
fn is_error(packet: &[u8], headers: &Packet) -> bool {
    let icmp_type = packet
        .get(headers.transport..headers.len)
        .and_then(<[u8]>::first);
    match headers.protocol {
        protocol::ICMP if headers.version == IpVersion::V4 => {
            icmp_type.is_none_or(|icmp_type| matches!(icmp_type, 3 | 4 | 5 | 11 | 12))
        }
        // Redirect, which has a number among the informational messages, counts as an error (RFC 4443 §2.4 e.2).
        protocol::ICMPV6 if headers.version == IpVersion::V6 => {
            icmp_type.is_none_or(|icmp_type| matches!(icmp_type, 0..128 | 137))
        }
        _ => false,
    }
}

fn is_for_many(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Whether an address is that of one host somewhere (RFC 1812 §4.3.2.7).
fn is_one_host_v4(address: Ipv4Addr) -> bool {
    let [network, ..] = address.octets();
    // Class E holds the broadcast address.
    network != 0 && network < 224 && !address.is_loopback()
}

fn is_one_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

fn write_v4(message: Message, quote: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> BytesMut {
    let len = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quote.len();
    let mut header = [0; IPV4_HEADER_BYTES];
    let mut rest = &mut header[..];
    rest.put_slice(&[0x45, 0]);
    rest.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
    rest.put_slice(&[0, 0, 0, 0, HOP_LIMIT, protocol::ICMP, 0, 0]);
    rest.put_slice(&from.octets());
    rest.put_slice(&to.octets());
    let checksum = Sum::of(&header).checksum().to_be_bytes();
    let [.., high, low, _, _, _, _, _, _, _, _] = &mut header;
    [*high, *low] = checksum;
    let mut out = BytesMut::with_capacity(len);
    out.put_slice(&header);
    put_message(message, quote, Sum::default(), &mut out);
    out
}

fn write_v6(message: Message, quote: &[u8], from: Ipv6Addr, to: Ipv6Addr) -> BytesMut {
    let payload_len = ICMP_HEADER_BYTES + quote.len();
    let mut out = BytesMut::with_capacity(IPV6_HEADER_BYTES + payload_len);
    out.put_slice(&[0x60, 0, 0, 0]);
    out.put_u16(u16::try_from(payload_len).unwrap_or(u16::MAX));
    out.put_slice(&[protocol::ICMPV6, HOP_LIMIT]);
    out.put_slice(&from.octets());
    out.put_slice(&to.octets());
    let sum = Sum::pseudo_header(from.into(), to.into(), protocol::ICMPV6, payload_len);
    put_message(message, quote, sum, &mut out);
    out
}

fn put_message(message: Message, quote: &[u8], sum: Sum, out: &mut BytesMut) {
    let Message(icmp_type, code, parameter) = message;
    let sum = sum
        .bytes(&[icmp_type, code])
        .bytes(&parameter.to_be_bytes())
        .bytes(quote);
    out.put_slice(&[icmp_type, code]);
    out.put_u16(sum.checksum());
    out.put_u32(parameter);
    out.put_slice(quote);
}

#[cfg(test)]
mod tests;
