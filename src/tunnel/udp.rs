//! What arrives on a CONNECT-UDP request, from either end (RFC 9298 §5).
//!
//! ```text
//!   QUIC DATAGRAM ── Context ID 0 ──► UDP payload (0..=65527 bytes)
//!                 ── other ─────────► dropped and counted, or a payload on that context
//!   data stream ─► CapsuleReader ─ DATAGRAM ─► as above
//!                                 └ unknown ─► skipped, or handed over whole
//! ```
//!
//! A peer's mistake is an [`UdpError`]; the caller ends the tunnel with it. Unknown Context IDs and unknown
//! capsules are not mistakes: extensions use them. A relay drops the former and skips the latter; where the end of a
//! tunnel belongs to a user, both are handed over, see [`Inbound::keep_unknown`].

use bytes::Bytes;
use thiserror::Error;

use crate::wire::capsule::{CapsuleError, CapsuleEvent, CapsuleReader, CapsuleType, Work};
use crate::wire::datagram::{ContextId, UDP_PAYLOAD_MAX, take_context_id};

/// Why what a peer sent ends the tunnel.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UdpError {
    /// More than 65,527 bytes with Context ID 0 (RFC 9298 §5).
    #[error("a UDP payload of {len} bytes; the most is {UDP_PAYLOAD_MAX}")]
    PayloadTooLong {
        /// Bytes after the Context ID.
        len: u64,
    },
    /// A DATAGRAM capsule too short for its Context ID (RFC 9297 §3.3).
    #[error("a DATAGRAM capsule without a Context ID")]
    NoContextId,
    /// The data stream ended inside a capsule (RFC 9297 §3.3).
    #[error(transparent)]
    CapsuleCut(#[from] CapsuleError),
}

/// What an HTTP Datagram is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A UDP payload: Context ID 0 (RFC 9298 §5). At most [`UDP_PAYLOAD_MAX`] bytes, possibly none.
    Payload(Bytes),
    /// A payload on another context, which an extension has given a meaning (RFC 9298 §4).
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
///
/// # Errors
/// [`UdpError::PayloadTooLong`].
pub fn arrival(mut http_datagram: Bytes) -> Result<Arrival, UdpError> {
    let Some(context_id) = take_context_id(&mut http_datagram) else {
        return Ok(Arrival::Dropped);
    };
    match context_id {
        ContextId::UDP_PAYLOAD if http_datagram.len() > UDP_PAYLOAD_MAX => {
            Err(UdpError::PayloadTooLong {
                len: http_datagram.len() as u64,
            })
        }
        ContextId::UDP_PAYLOAD => Ok(Arrival::Payload(http_datagram)),
        ContextId(id) => Ok(Arrival::Context {
            id,
            payload: http_datagram,
        }),
    }
}

/// What an [`Inbound`] found in a data stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As [`Arrival::Payload`].
    Payload(Bytes),
    /// As [`Arrival::Context`].
    Context {
        /// The Context ID, not 0.
        id: u64,
        /// What follows the Context ID, possibly nothing.
        payload: Bytes,
    },
    /// A capsule of a type other than DATAGRAM, whole. Comes only after [`Inbound::keep_unknown`].
    Capsule {
        /// The type of the capsule, 1 to 2^62−1.
        kind: u64,
        /// Its value, possibly empty.
        value: Bytes,
    },
    /// A datagram on another context that is too long to be held.
    Dropped,
}

/// The data stream of one CONNECT-UDP request, in one direction.
///
/// Most streams never carry a byte after the heads, so the reader is made when the first one comes.
#[derive(Debug, Default)]
pub struct Inbound {
    reader: Option<Box<CapsuleReader>>,
}

impl Inbound {
    /// From the next capsule on, delivers those of unknown type with a value of up to `bytes_max` bytes (usually
    /// [`UNKNOWN_VALUE_MAX`](crate::wire::capsule::UNKNOWN_VALUE_MAX)). Longer ones are skipped, and counted in
    /// [`work`](Self::work).
    ///
    /// Up to `bytes_max` bytes are buffered then, if that is more than a datagram takes.
    pub fn keep_unknown(&mut self, bytes_max: usize) {
        let reader = self.reader.get_or_insert_with(Default::default);
        reader.keep_unknown(bytes_max);
    }

    /// Reads on; what is found goes to `deliver`, in order.
    ///
    /// # Errors
    /// The peer's mistake that ends the tunnel.
    pub fn handle_data(
        &mut self,
        mut data: Bytes,
        mut deliver: impl FnMut(Delivery),
    ) -> Result<(), UdpError> {
        let reader = self.reader.get_or_insert_with(Default::default);
        while let Some(event) = reader.read(&mut data) {
            match event {
                CapsuleEvent::Datagram(http_datagram) => match arrival(http_datagram)? {
                    Arrival::Payload(payload) => deliver(Delivery::Payload(payload)),
                    Arrival::Context { id, payload } => deliver(Delivery::Context { id, payload }),
                    Arrival::Dropped => return Err(UdpError::NoContextId),
                },
                CapsuleEvent::Oversize {
                    context_id: ContextId::UDP_PAYLOAD,
                    payload_len,
                } => {
                    return Err(UdpError::PayloadTooLong { len: payload_len });
                }
                CapsuleEvent::Oversize { .. } => deliver(Delivery::Dropped),
                CapsuleEvent::Unknown {
                    capsule_type: CapsuleType(kind),
                    value,
                } => deliver(Delivery::Capsule { kind, value }),
                // This reader wants no type more than others.
                CapsuleEvent::TooLong { .. } => {}
            }
        }
        Ok(())
    }

    /// The stream ended in an orderly way.
    ///
    /// # Errors
    /// [`UdpError::CapsuleCut`] when it ended inside a capsule.
    pub fn handle_finished(&self) -> Result<(), UdpError> {
        self.reader
            .as_ref()
            .map_or(Ok(()), |reader| Ok(reader.finish()?))
    }

    /// What the capsules have cost so far, and how many were skipped.
    #[must_use]
    pub fn work(&self) -> Work {
        (self.reader.as_ref()).map_or_else(Work::default, |reader| reader.work())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::datagram::split_context_id;

    fn read(bytes: &[u8]) -> Result<Vec<Delivery>, UdpError> {
        read_pieces(None, [bytes])
    }

    fn read_pieces<'a>(
        keep: Option<usize>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Delivery>, UdpError> {
        let mut inbound = Inbound::default();
        if let Some(bytes_max) = keep {
            inbound.keep_unknown(bytes_max);
        }
        let mut seen = Vec::new();
        for piece in pieces {
            let data = Bytes::copy_from_slice(piece);
            inbound.handle_data(data, |delivery| seen.push(delivery))?;
        }
        inbound.handle_finished()?;
        Ok(seen)
    }

    fn payload(bytes: &'static [u8]) -> Delivery {
        Delivery::Payload(Bytes::from_static(bytes))
    }

    fn context(id: u64, payload: &'static [u8]) -> Delivery {
        let payload = Bytes::from_static(payload);
        Delivery::Context { id, payload }
    }

    // spec: 9298-4-a, 9298-5-a, 9298-5-b, 9298-5-k
    #[test]
    fn context_ids_of_any_length_and_unknown_ones() {
        let read = |bytes| arrival(Bytes::from_static(bytes));
        let hello = Bytes::from_static(b"hello");
        assert_eq!(read(b"\0hello"), Ok(Arrival::Payload(hello.clone())));
        assert_eq!(
            read(b"\x80\0\0\0hello"),
            Ok(Arrival::Payload(hello.clone()))
        );
        assert_eq!(read(b"\0"), Ok(Arrival::Payload(Bytes::new())));
        let (id, payload) = (2, hello);
        assert_eq!(read(b"\x02hello"), Ok(Arrival::Context { id, payload }));
        let (id, payload) = (0x1234, Bytes::new());
        assert_eq!(read(b"\x52\x34"), Ok(Arrival::Context { id, payload }));
        assert_eq!(read(b""), Ok(Arrival::Dropped));
        assert_eq!(read(b"\x40"), Ok(Arrival::Dropped));
    }

    // spec: 9298-5-d, 9298-5-l
    #[test]
    fn payloads_end_at_65527_bytes() {
        let longer = Bytes::from(vec![0; 2 + UDP_PAYLOAD_MAX]);
        assert_eq!(
            arrival(longer),
            Err(UdpError::PayloadTooLong { len: 65528 })
        );
        for (len, is_legal) in [(UDP_PAYLOAD_MAX, true), (UDP_PAYLOAD_MAX + 1, false)] {
            assert_eq!(arrival(Bytes::from(vec![0; 1 + len])).is_ok(), is_legal);
            // The limit is the one of UDP, not of other contexts.
            assert!(arrival(Bytes::from(vec![1; 1 + len])).is_ok());
        }

        let mut capsule = vec![0x00, 0x80, 0x00, 0xff, 0xf8];
        capsule.resize(5 + 0xfff8, 0);
        assert_eq!(read(&capsule).unwrap().len(), 1);
        let mut capsule = vec![0x00, 0x80, 0x00, 0xff, 0xf9, 0x00];
        capsule.resize(5 + 0xfff9, 0);
        assert_eq!(read(&capsule), Err(UdpError::PayloadTooLong { len: 65528 }));
    }

    // spec: 9297-3.2-a, 9297-3.3-a, 9297-3.3-b, 9297-3.3-c
    #[test]
    fn capsules_unknown_ones_and_cut_ones() {
        let two = [
            &[0x17, 3, 0xaa, 0xbb, 0xcc][..],
            &[0, 6, 0],
            b"hello",
            &[0, 6, 2],
            b"other",
        ];
        assert_eq!(
            read(&two.concat()),
            Ok(vec![payload(b"hello"), context(2, b"other")])
        );
        assert_eq!(read(&[0, 1, 0]), Ok(vec![payload(b"")]));
        assert_eq!(read(&[0, 0]), Err(UdpError::NoContextId));
        let missing = CapsuleError::EndInValue { missing: 3 };
        assert_eq!(
            read(&[0, 6, 0, b'h', b'e']),
            Err(UdpError::CapsuleCut(missing))
        );
        assert_eq!(read(&[]), Ok(vec![]));
    }

    // spec: 9297-3.2-a
    #[test]
    fn capsules_are_kept_for_those_who_ask() {
        let wire = b"\x17\x03abc\0\x06\0hello\x40\x40\0\x17\x04abcd\0\x01\x05";
        let capsule = |kind, value| Delivery::Capsule {
            kind,
            value: Bytes::from_static(value),
        };
        let expected = [
            capsule(0x17, b"abc"),
            payload(b"hello"),
            capsule(0x40, b""),
            context(5, b""),
        ];
        for cut in 1..=wire.len() {
            assert_eq!(
                read_pieces(Some(3), wire.chunks(cut)),
                Ok(expected.to_vec())
            );
        }
        let mut inbound = Inbound::default();
        inbound.keep_unknown(3);
        inbound
            .handle_data(Bytes::from_static(wire), |_| {})
            .unwrap();
        assert_eq!(inbound.work().capsules_skipped, 1);
    }

    // A datagram on another context that is too long to hold ends nothing.
    // spec: 9298-5-f
    #[test]
    fn an_oversize_context_is_dropped() {
        let mut wire = vec![0x00, 0x80, 0x01, 0x00, 0x00, 0x03];
        wire.resize(5 + 0x1_0000, 0);
        wire.extend_from_slice(b"\0\x01\0");
        let expected = vec![Delivery::Dropped, payload(b"")];
        for cut in [1, 1200, wire.len()] {
            assert_eq!(read_pieces(None, wire.chunks(cut)), Ok(expected.clone()));
        }
    }

    proptest! {
        // A relay and an end of a tunnel agree on what a UDP payload is.
        #[test]
        fn contexts_change_nothing_about_payloads(
            head in prop_oneof![Just(0u8), Just(0x40), any::<u8>()],
            rest in vec(prop_oneof![Just(0u8), any::<u8>()], 0..16),
        ) {
            let mut datagram = vec![head];
            datagram.extend(rest);
            let datagram = Bytes::from(datagram);
            let kept = arrival(datagram.clone()).unwrap();
            // Any form of a Context ID means the same as the shortest.
            let split = split_context_id(&datagram);
            match (kept, split) {
                (Arrival::Payload(payload), Some((ContextId(0), len))) => {
                    prop_assert_eq!(&payload, &datagram[len..]);
                }
                (Arrival::Context { id, payload }, Some((ContextId(same), len))) => {
                    prop_assert!(id > 0 && id == same);
                    prop_assert_eq!(&payload, &datagram[len..]);
                }
                (Arrival::Dropped, None) => {}
                (kept, split) => prop_assert!(false, "{kept:?} {split:?}"),
            }
        }
    }
}
