//! What arrives on a CONNECT-IP request, from either end (RFC 9484 §4.7, §6).
//!
//! ```text
//!   QUIC DATAGRAM ── Context ID 0 ──► an IP packet, whatever it is
//!                 ── other ─────────► dropped and counted, or a payload on that context
//!   data stream ─► CapsuleReader ─ DATAGRAM ─► as above
//!                                 ├ addresses, routes, DNS ─► IpCapsule
//!                                 └ unknown ─► skipped, or handed over whole
//! ```
//!
//! A peer's mistake is an [`IpError`]; the caller ends the tunnel with it. Unknown Context IDs and unknown capsules are
//! not mistakes, and neither is what comes as a packet and is none: that is for whoever forwards to drop. A capsule
//! that changes addressing or routing is understood or ends the tunnel: it replaces a list, so it cannot be skipped.

use bytes::Bytes;

use super::error::IpError;
use crate::wire::capsule::{CapsuleEvent, CapsuleReader};
use crate::wire::datagram::{ContextId, take_context_id};
use crate::wire::ip::IpCapsule;
use crate::wire::varint;

/// The longest value of a capsule that changes addressing or routing, in bytes. It holds 1,900 ranges of IPv6.
pub const IP_VALUE_MAX: usize = 64 * 1024;

/// The longest IP packet, in bytes: a header of IPv6 and what its Payload Length can say.
pub const IP_PACKET_MAX: usize = 40 + 65_535;

/// What an HTTP Datagram is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// What should be one IP packet: Context ID 0 (RFC 9484 §6). Not looked at; possibly nothing.
    Packet(Bytes),
    /// A payload on another context, which an extension has given a meaning (RFC 9484 §5).
    Context {
        /// The Context ID, 1 to 2^62−1: even ones are allocated by the client, odd ones by the proxy.
        id: u64,
        /// What follows the Context ID, possibly nothing.
        payload: Bytes,
    },
    /// Too short for a Context ID: drop it.
    Dropped,
}

/// Reads an HTTP Datagram.
///
/// The payload shares the allocation of `http_datagram`.
#[must_use]
pub fn arrival(mut http_datagram: Bytes) -> Arrival {
    match take_context_id(&mut http_datagram) {
        Some(ContextId::IP_PACKET) => Arrival::Packet(http_datagram),
        Some(ContextId(id)) => Arrival::Context {
            id,
            payload: http_datagram,
        },
        None => Arrival::Dropped,
    }
}

/// What an [`Inbound`] found in a data stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As [`Arrival::Packet`].
    Packet(Bytes),
    /// As [`Arrival::Context`].
    Context {
        /// The Context ID, not 0.
        id: u64,
        /// What follows the Context ID, possibly nothing.
        payload: Bytes,
    },
    /// A capsule that changes addressing or routing, for [`Peer::handle_capsule`](super::Peer::handle_capsule).
    Ip(IpCapsule),
    /// A capsule of another type, whole. Comes only after [`Inbound::keep_unknown`].
    Capsule {
        /// The type of the capsule.
        kind: u64,
        /// Its value, possibly empty.
        value: Bytes,
    },
    /// A datagram, on any context, that is too long to be held.
    Dropped,
}

/// The data stream of one CONNECT-IP request, in one direction.
///
/// It is read with no more than the longest packet or [`IP_VALUE_MAX`] in memory, or what
/// [`keep_unknown`](Self::keep_unknown) allows.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Made when the first byte comes.
    reader: Option<Box<CapsuleReader>>,
}

impl Inbound {
    /// From the next capsule on, delivers those of unknown type with a value of up to `bytes_max` bytes (usually
    /// [`UNKNOWN_VALUE_MAX`](crate::wire::capsule::UNKNOWN_VALUE_MAX)). Longer ones are skipped, and counted in
    /// [`work`](Self::work).
    pub fn keep_unknown(&mut self, bytes_max: usize) {
        self.reader().keep_unknown(bytes_max);
    }

    /// Reads on; what is found goes to `deliver`, in order.
    ///
    /// # Errors
    /// The peer's mistake that ends the tunnel.
    pub fn handle_data(
        &mut self,
        mut data: Bytes,
        mut deliver: impl FnMut(Delivery),
    ) -> Result<(), IpError> {
        let reader = self.reader();
        while let Some(event) = reader.read(&mut data) {
            deliver(match event {
                CapsuleEvent::Datagram(http_datagram) => match arrival(http_datagram) {
                    Arrival::Packet(packet) => Delivery::Packet(packet),
                    Arrival::Context { id, payload } => Delivery::Context { id, payload },
                    Arrival::Dropped => return Err(IpError::NoContextId),
                },
                CapsuleEvent::Oversize { .. } => Delivery::Dropped,
                CapsuleEvent::Unknown {
                    capsule_type,
                    value,
                } => match IpCapsule::parse(capsule_type, &value) {
                    Some(capsule) => Delivery::Ip(capsule?),
                    None => Delivery::Capsule {
                        kind: capsule_type.0,
                        value,
                    },
                },
                CapsuleEvent::TooLong { capsule_type, len } => {
                    let kind = capsule_type;
                    return Err(IpError::CapsuleTooLong { kind, len });
                }
            });
        }
        Ok(())
    }

    /// The stream ended in an orderly way.
    ///
    /// # Errors
    /// [`IpError::CapsuleCut`] when it ended inside a capsule.
    pub fn handle_finished(&self) -> Result<(), IpError> {
        (self.reader.as_ref()).map_or(Ok(()), |reader| Ok(reader.finish()?))
    }

    fn reader(&mut self) -> &mut CapsuleReader {
        self.reader.get_or_insert_with(|| {
            let mut reader = CapsuleReader::new(IP_PACKET_MAX + varint::SIZE_MAX);
            reader.want(IpCapsule::has, IP_VALUE_MAX);
            Box::new(reader)
        })
    }
}

#[cfg(test)]
mod tests;
