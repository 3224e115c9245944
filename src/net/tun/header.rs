//! The header in front of every packet of a TUN with offloads (`struct virtio_net_hdr`, virtio 1.2 §5.1.6).
//!
//! ```text
//!   | flags 1 | gso_type 1 | hdr_len 2 | gso_size 2 | csum_start 2 | csum_offset 2 |   in the machine's byte order
//! ```

/// Bytes of the header.
pub(in crate::net) const HEADER_BYTES: usize = 10;

/// The checksum is left to whoever gets the packet; the field holds the sum of the pseudo-header.
const NEEDS_CHECKSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
/// A flag beside the type: the first segment carries CWR.
const GSO_ECN: u8 = 0x80;

/// How a super-packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Gso {
    TcpV4,
    TcpV6,
    Udp,
}

/// What the header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::net) struct Header {
    /// Where the checksum has to be completed: where its bytes begin, and how far behind that the field is.
    pub(in crate::net) checksum: Option<(u16, u16)>,
    /// Into which packets it is to be cut, and the bytes of payload of each.
    pub(in crate::net) gso: Option<(Gso, u16)>,
    /// Bytes of all headers of a super-packet: a hint.
    pub(in crate::net) headers_len: u16,
}

impl Header {
    /// `None` for a kind of super-packet that was never asked for.
    pub(in crate::net) fn parse(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        let gso_size = u16::from_ne_bytes([g0, g1]);
        let gso = match gso_type & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCP_V4 => Some((Gso::TcpV4, gso_size)),
            GSO_TCP_V6 => Some((Gso::TcpV6, gso_size)),
            GSO_UDP => Some((Gso::Udp, gso_size)),
            _ => return None,
        };
        let checksum = (u16::from_ne_bytes([s0, s1]), u16::from_ne_bytes([o0, o1]));
        Some(Self {
            checksum: (flags & NEEDS_CHECKSUM != 0).then_some(checksum),
            gso,
            headers_len: u16::from_ne_bytes([h0, h1]),
        })
    }

    pub(in crate::net) fn encode(&self) -> [u8; HEADER_BYTES] {
        let (flags, (start, offset)) = match self.checksum {
            Some(checksum) => (NEEDS_CHECKSUM, checksum),
            None => (0, (0, 0)),
        };
        let (gso_type, gso_size) = match self.gso {
            None => (GSO_NONE, 0),
            Some((Gso::TcpV4, size)) => (GSO_TCP_V4, size),
            Some((Gso::TcpV6, size)) => (GSO_TCP_V6, size),
            Some((Gso::Udp, size)) => (GSO_UDP, size),
        };
        let [h0, h1] = self.headers_len.to_ne_bytes();
        let [g0, g1] = gso_size.to_ne_bytes();
        let [s0, s1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}
