//! Super-packets from the kernel, cut into what fits a wire.
//!
//! ```text
//!   | headers  | payload 0 │ payload 1 │ … │ the rest |
//!   | headers' | payload 0 | headers' | payload 1 | … | headers' | the rest |      one pooled buffer
//! ```
//!
//! Every packet gets the headers with its own lengths, IPv4 identification and TCP sequence number. FIN and PSH stay
//! with the last one, CWR with the first (RFC 3168 §6.1.2). The payload is copied once, and summed while it is warm.

use bytes::BytesMut;

use super::Packets;
use super::header::{Gso, Header};
use super::layout::{ipv4, ipv6, put_u16, put_u32, tcp, u16_at, u32_at, udp};
use crate::net::buffer::Pool;
use crate::wire::ip::checksum::Sum;
use crate::wire::ip::packet::{IPV6_HEADER_BYTES, IpVersion, Packet, protocol};

/// The largest that the kernel hands out: what IPv6's length field has room for, and its header.
pub(in crate::net) const SUPER_PACKET_BYTES_MAX: usize = IPV6_HEADER_BYTES + u16::MAX as usize;

/// A super-packet makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) struct Malformed;

/// Hands the packets that `bytes` stands for to `f`, in order, in as few runs as buffers of `pool` allow.
pub(in crate::net) fn split(
    header: &Header,
    bytes: &mut [u8],
    pool: &mut Pool,
    f: &mut impl FnMut(Packets),
) -> Result<(), Malformed> {
    let headers = Packet::parse(bytes).map_err(|_| Malformed)?;
    let packet = bytes.get_mut(..headers.len).ok_or(Malformed)?;
    if let Some((gso, size)) = header.gso {
        return Template::new(gso, size, packet, &headers)?.cut(pool, f);
    }
    if let Some((start, offset)) = header.checksum {
        complete_checksum(packet, start.into(), offset.into()).ok_or(Malformed)?;
    }
    let buffer = pool.buffer();
    if packet.len() > buffer.capacity() {
        return Err(Malformed);
    }
    buffer.extend_from_slice(packet);
    f(buffer.split().into());
    Ok(())
}

/// Completes a checksum whose field holds the sum of the pseudo-header.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let summed = packet.get_mut(start..)?;
    let checksum = Sum::of(summed).checksum();
    let field = summed.get_mut(offset..)?.first_chunk_mut()?;
    *field = never_zero(checksum).to_be_bytes();
    Some(())
}

/// Zero says in UDP that there is no checksum (RFC 768). Its other form is as good everywhere.
const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// What the packets of a super-packet have in common.
struct Template<'a> {
    version: IpVersion,
    is_tcp: bool,
    /// All headers, which are complete, and where the upper one begins.
    headers: &'a [u8],
    transport: usize,
    payload: &'a [u8],
    /// Bytes of payload of every packet but the last; not zero.
    size: usize,
    /// The pseudo-header with a length of zero.
    pseudo_header: Sum,
}

impl<'a> Template<'a> {
    fn new(gso: Gso, size: u16, packet: &'a [u8], parsed: &Packet) -> Result<Self, Malformed> {
        let segment = packet.get(parsed.transport..).ok_or(Malformed)?;
        let expected = match gso {
            Gso::TcpV4 => (IpVersion::V4, protocol::TCP),
            Gso::TcpV6 => (IpVersion::V6, protocol::TCP),
            Gso::Udp => (parsed.version, protocol::UDP),
        };
        if (parsed.version, parsed.protocol) != expected || parsed.later_fragment || size == 0 {
            return Err(Malformed);
        }
        let is_tcp = parsed.protocol == protocol::TCP;
        let header_len = if is_tcp {
            tcp::header_len(segment).ok_or(Malformed)?
        } else {
            udp::HEADER_BYTES
        };
        let (headers, payload) = packet
            .split_at_checked(parsed.transport + header_len)
            .ok_or(Malformed)?;
        let (source, destination) = (parsed.source, parsed.destination);
        Ok(Self {
            version: parsed.version,
            is_tcp,
            headers,
            transport: parsed.transport,
            payload,
            size: size.into(),
            pseudo_header: Sum::pseudo_header(source, destination, parsed.protocol, 0),
        })
    }

    fn cut(&self, pool: &mut Pool, f: &mut impl FnMut(Packets)) -> Result<(), Malformed> {
        let count = self.payload.len().div_ceil(self.size).max(1);
        let size = self.headers.len() + self.size.min(self.payload.len());
        let mut next = 0;
        while next < count {
            let buffer = pool.buffer();
            let end = count.min(next + buffer.capacity() / size);
            if end == next {
                return Err(Malformed);
            }
            for index in next..end {
                self.write(index, index + 1 == count, buffer);
            }
            next = end;
            f(Packets::new(buffer.split(), size));
        }
        Ok(())
    }

    /// Appends packet number `index`.
    fn write(&self, index: usize, is_last: bool, out: &mut BytesMut) {
        let payload_offset = index * self.size;
        let payload = self.payload.get(payload_offset..).unwrap_or_default();
        let payload = payload.get(..self.size).unwrap_or(payload);
        let start = out.len();
        out.extend_from_slice(self.headers);
        out.extend_from_slice(payload);
        // `new` has seen that the headers are there, so none of what follows is out of bounds.
        let (network, segment) = out[start..].split_at_mut(self.transport);
        // A part of a packet whose length has 16 bits.
        let segment_len = segment.len() as u16;

        match self.version {
            IpVersion::V4 => {
                let identification = u16_at(network, ipv4::IDENTIFICATION);
                let len = network.len() as u16 + segment_len;
                put_u16(network, ipv4::TOTAL_LENGTH, len);
                let identification = identification.wrapping_add(index as u16);
                put_u16(network, ipv4::IDENTIFICATION, identification);
                put_u16(network, ipv4::CHECKSUM, 0);
                let checksum = Sum::of(network).checksum();
                put_u16(network, ipv4::CHECKSUM, checksum);
            }
            IpVersion::V6 => {
                let len = (network.len() - IPV6_HEADER_BYTES) as u16 + segment_len;
                put_u16(network, ipv6::PAYLOAD_LENGTH, len);
            }
        }
        if self.is_tcp {
            let sequence = u32_at(segment, tcp::SEQUENCE).wrapping_add(payload_offset as u32);
            put_u32(segment, tcp::SEQUENCE, sequence);
            if index > 0 {
                segment[tcp::FLAGS] &= !tcp::CWR;
            }
            if !is_last {
                segment[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
            }
            put_u16(segment, tcp::CHECKSUM, 0);
            let sum = self.pseudo_header.word(segment_len).bytes(segment);
            put_u16(segment, tcp::CHECKSUM, sum.checksum());
        } else {
            put_u16(segment, udp::LENGTH, segment_len);
            put_u16(segment, udp::CHECKSUM, 0);
            let sum = self.pseudo_header.word(segment_len).bytes(segment);
            put_u16(segment, udp::CHECKSUM, never_zero(sum.checksum()));
        }
    }
}
