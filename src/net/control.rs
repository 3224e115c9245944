//! Control messages of UDP sockets, both ways: segment size, ECN and the local address.
//!
//! ```text
//!   struct cmsghdr, native byte order, each message aligned to the machine word
//!   ┌──────────────┬───────────┬──────────┬──────────────┬─────────┐
//!   │ length usize │ level i32 │ type i32 │ data …       │ padding │
//!   └──────────────┴───────────┴──────────┴──────────────┴─────────┘
//!     length counts header and data, not the padding (cmsg(3))
//! ```
//!
//! Encoding and parsing are plain byte work, so they need no unsafe code. What the kernel hands over is parsed as if a
//! stranger had written it: a short or unknown message is skipped.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 2 * size_of::<c_int>();

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(WORD)
}

/// Room for everything a socket can report at once: segment size, traffic class of both families (a dual-stack socket
/// reports both), packet information of both families.
const RECEIVE_SPACE: usize = 192;

/// Initialised, aligned space for the kernel to write control messages to.
#[repr(align(8))]
pub(super) struct Space(pub(super) [MaybeUninit<u8>; RECEIVE_SPACE]);

impl Space {
    pub(super) fn new() -> Self {
        Self([const { MaybeUninit::new(0) }; RECEIVE_SPACE])
    }
}

/// What the control messages of a received train say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Size of every datagram of the train but the last; `None` for a single datagram.
    pub(super) segment_size: Option<usize>,
    /// The two ECN bits.
    pub(super) ecn: Option<u8>,
    /// The address the peer sent to.
    pub(super) local_ip: Option<IpAddr>,
}

impl Received {
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut received = Self::default();
        while let Some((level, kind, data, rest)) = split_message(bytes) {
            received.absorb(level, kind, data);
            bytes = rest;
        }
        received
    }

    fn absorb(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment_size = int(data).and_then(|size| usize::try_from(size).ok());
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                self.ecn = data.first().map(|tos| tos & 0b11);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.ecn = int(data).map(|class| (class & 0b11) as u8);
            }
            // struct in_pktinfo: interface, address to answer from, address in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let Some(address) = data.get(4..).and_then(<[u8]>::first_chunk::<4>) {
                    self.local_ip = Some(Ipv4Addr::from(*address).into());
                }
            }
            // struct in6_pktinfo: address in the header, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(address) = data.first_chunk::<16>() {
                    self.local_ip = Some(Ipv6Addr::from(*address).into());
                }
            }
            _ => {}
        }
    }
}

fn int(data: &[u8]) -> Option<c_int> {
    data.first_chunk().copied().map(c_int::from_ne_bytes)
}

/// Splits the first message off: level, type, data, and the bytes behind it.
fn split_message(bytes: &[u8]) -> Option<(c_int, c_int, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(*bytes.first_chunk()?);
    let level = int(bytes.get(WORD..)?)?;
    let kind = int(bytes.get(WORD + size_of::<c_int>()..)?)?;
    let data = bytes.get(aligned(HEADER)..length)?;
    let rest = bytes.get(aligned(length)..).unwrap_or_default();
    Some((level, kind, data, rest))
}

/// Segment size, traffic class and packet information of the larger family.
const SEND_SPACE: usize = 3 * aligned(HEADER) + aligned(2) + aligned(4) + aligned(20);

/// The control messages of one send call.
#[repr(align(8))]
pub(super) struct Outgoing {
    bytes: [u8; SEND_SPACE],
    length: usize,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; SEND_SPACE],
            length: 0,
        }
    }

    /// Asks the kernel to cut the payload into datagrams of `size` bytes.
    pub(super) fn segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Sets the two ECN bits (and a DSCP of zero), for IPv4 or for IPv6 on the wire.
    pub(super) fn ecn(&mut self, ecn: u8, ipv4: bool) {
        let value = c_int::from(ecn & 0b11).to_ne_bytes();
        if ipv4 {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, &value);
        } else {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
        }
    }

    /// Sends from this address. The interface stays the routing table's choice.
    pub(super) fn local_ip(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let mut value = [0; 12];
                value[4..8].copy_from_slice(&address.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &value);
            }
            IpAddr::V6(address) => {
                let mut value = [0; 20];
                value[..16].copy_from_slice(&address.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
            }
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let length = aligned(HEADER) + data.len();
        let message = &mut self.bytes[self.length..][..aligned(length)];
        message[..WORD].copy_from_slice(&length.to_ne_bytes());
        message[WORD..][..4].copy_from_slice(&level.to_ne_bytes());
        message[WORD + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[aligned(HEADER)..length].copy_from_slice(data);
        self.length += aligned(length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_encoded_is_parsed() {
        let mut outgoing = Outgoing::new();
        outgoing.segment_size(1200);
        outgoing.ecn(0b10, false);
        outgoing.local_ip(IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(
            Received::parse(outgoing.as_bytes()),
            Received {
                // The kernel takes the segment size under another type than it reports it.
                segment_size: None,
                ecn: Some(0b10),
                local_ip: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            }
        );
        let mut outgoing = Outgoing::new();
        outgoing.push(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
        outgoing.ecn(0b11, true);
        outgoing.local_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(
            Received::parse(outgoing.as_bytes()),
            Received {
                segment_size: Some(1200),
                ecn: Some(0b11),
                local_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            }
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..RECEIVE_SPACE)) {
            Received::parse(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(at in 0usize..64, byte in any::<u8>()) {
            let mut outgoing = Outgoing::new();
            outgoing.ecn(1, true);
            outgoing.local_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let mut bytes = outgoing.as_bytes().to_vec();
            if let Some(damaged) = bytes.get_mut(at) {
                *damaged = byte;
            }
            Received::parse(&bytes);
        }
    }
}
