//! TUN: whole IP packets from and to the kernel, with its offloads.
//!
//! ```text
//!   kernel ─ read ─► | virtio_net_hdr | headers | 64 KiB of payload |  ─ split ─► packets, in one pooled buffer
//!   kernel ◄ writev ─ | virtio_net_hdr | headers | payload │ payload │ … |  ◄ merge ─ packets, where they lie
//! ```
//!
//! A read or a write costs the same for one packet as for a super-packet of forty, and so does most of what the kernel
//! does behind it. With offloads it hands out TCP and UDP as it would hand them to a network card that cuts them up
//! itself, and takes what such a card would have put together (GRO).
//!
//! Invariants:
//! - What leaves here towards the layers above is a packet as on a wire: it fits the MTU, and its checksums are there.
//! - Merging never reorders a flow, and cutting what was merged gives the packets that went in.
//! - The kernel is trusted to mean well and not to be right: a super-packet that makes no sense is dropped.
//!
//! RFC 9484 §10 asks for no bursts beyond what offloads need: packets are merged within one call, and none is held
//! back. Addresses, routes and the state of the interface are set elsewhere.

mod device;
mod header;
mod layout;
mod merge;
mod split;
#[cfg(test)]
mod tests;

use std::io;

use bytes::BytesMut;

use super::train::Segments;

pub use device::{Tun, TunQueue};
pub(super) use header::{HEADER_BYTES, Header};
pub(super) use merge::{Merger, Write};
pub(super) use split::{Malformed, SUPER_PACKET_BYTES_MAX, split};

/// What a [`Tun`] shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunOptions {
    /// The name of the interface, at most 15 bytes; the first `%d` in it becomes a free number. `None` is `tun%d`.
    /// An interface of that name that waits for a program (`ip tuntap add`) is taken over.
    pub name: Option<String>,
    /// How many queues, one per worker; at least one. The kernel spreads flows over them.
    pub queues: usize,
    /// Whether packets may come and go as super-packets. Without, or where the kernel has no such thing, each packet
    /// costs a system call.
    pub offload: bool,
    /// Bytes of the largest packet; `None` leaves what the interface has.
    pub mtu: Option<u16>,
}

impl Default for TunOptions {
    fn default() -> Self {
        Self {
            name: None,
            queues: 1,
            offload: true,
            mtu: None,
        }
    }
}

/// Which super-packets come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunOffloads {
    /// TCP over either version of IP (`TUN_F_TSO4`, `TUN_F_TSO6`).
    pub tcp: bool,
    /// UDP over either version of IP (`TUN_F_USO4`, `TUN_F_USO6`), which kernels have since 6.2.
    pub udp: bool,
}

/// Why there is no TUN.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel, or the container, has no `/dev/net/tun`.
    #[error(
        "/dev/net/tun cannot be opened (is the module tun loaded, is the device in the container?): {0}"
    )]
    Unavailable(#[source] io::Error),
    /// The process may not make an interface.
    #[error(
        "interface {name} needs the capability CAP_NET_ADMIN (run as root, or `setcap cap_net_admin+ep` the program), \
         or an owner that was set with `ip tuntap`: {source}"
    )]
    NotPermitted {
        /// The interface.
        name: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Another program holds the interface.
    #[error("interface {name} is in use: {source}")]
    Busy {
        /// The interface.
        name: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The name is empty, longer than 15 bytes, or holds a zero or a slash.
    #[error("{name:?} is not a name for an interface")]
    Name {
        /// The name.
        name: String,
    },
    /// The interface does not take this MTU.
    #[error("interface {name} does not take an MTU of {mtu} bytes: {source}")]
    Mtu {
        /// The interface.
        name: String,
        /// What it does not take.
        mtu: u16,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The process may open the interface, whose owner it is, and not change it.
    #[error(
        "setting the MTU of interface {name} to {mtu} needs the capability CAP_NET_ADMIN (run as root, or \
         `setcap cap_net_admin+ep` the program): {source}"
    )]
    MtuNotPermitted {
        /// The interface.
        name: String,
        /// What it shall have.
        mtu: u16,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// There is an interface of that name, of another kind or with fewer queues.
    #[error(
        "interface {name} is there and does not fit: it has to be one of `ip tuntap add mode tun`, with `multi_queue` \
         where there is more than one worker: {source}"
    )]
    Unfit {
        /// The interface.
        name: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses for another reason.
    #[error("interface {name} cannot be had: {source}")]
    Refused {
        /// The interface.
        name: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Whole packets that one read brought, in order: one, or those of one flow. They lie in one pooled buffer, as the
/// datagrams of a [`Train`](super::Train) do: copy what has to wait longer than a turn.
#[derive(Debug)]
pub struct Packets(Segments);

impl Packets {
    /// Packets that lie one behind the other, each of `size` bytes but the last, which may be shorter.
    #[must_use]
    pub fn new(data: BytesMut, size: usize) -> Self {
        Self(Segments::new(data, size))
    }

    /// Bytes of those that are left.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl From<BytesMut> for Packets {
    /// One packet.
    fn from(packet: BytesMut) -> Self {
        let size = packet.len();
        Self::new(packet, size)
    }
}

impl Iterator for Packets {
    type Item = BytesMut;

    fn next(&mut self) -> Option<BytesMut> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Packets {}
