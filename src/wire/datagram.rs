//! The head of an HTTP Datagram: Quarter Stream ID and Context ID (RFC 9297 §2.1, RFC 9298 §4, §5).
//!
//! ```text
//!   QUIC DATAGRAM frame payload                 DATAGRAM capsule value
//!   ┌────────────────────┬──────────────┬────────────┐
//!   │ Quarter Stream (i) │ Context (i)  │ payload    │
//!   └────────────────────┴──────────────┴────────────┘
//!                        └── HTTP Datagram Payload ──┘   (the capsule value starts here)
//! ```
//!
//! Whether the stream exists, speaks datagrams or knows the context is not decided here.

use bytes::{Buf, BufMut, Bytes};

use super::varint;

/// The largest UDP payload on Context ID 0, in bytes: 65535 less the UDP header (RFC 9298 §5).
pub const UDP_PAYLOAD_MAX: usize = 65_527;

/// The longest head in front of the payload of a QUIC DATAGRAM frame, in bytes.
pub const HEAD_MAX: usize = 2 * varint::SIZE_MAX;

/// A client-initiated bidirectional stream ID divided by four, at most [`QuarterStreamId::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarterStreamId(pub u64);

impl QuarterStreamId {
    /// The largest legal value, 2^60 − 1: stream IDs end at 2^62 − 1.
    pub const MAX: Self = Self((1 << 60) - 1);

    /// The quarter of `stream_id`, which belongs to a request stream (a multiple of four, below 2^62).
    #[must_use]
    pub fn of_stream(stream_id: u64) -> Self {
        debug_assert!(stream_id.is_multiple_of(4) && stream_id <= varint::MAX);
        Self(stream_id / 4)
    }

    /// The ID of the request stream.
    #[must_use]
    pub const fn stream_id(self) -> u64 {
        self.0 * 4
    }

    /// The encoded length in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        varint::size(self.0)
    }

    /// Appends the shortest form.
    pub fn encode(self, out: &mut impl BufMut) {
        varint::encode(self.0, out);
    }
}

/// What the rest of an HTTP Datagram Payload means, per request (RFC 9298 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(pub u64);

impl ContextId {
    /// The rest is an unmodified UDP payload, possibly empty (RFC 9298 §5).
    pub const UDP_PAYLOAD: Self = Self(0);
    /// The rest is a whole IP packet (RFC 9484 §6).
    pub const IP_PACKET: Self = Self(0);

    /// The encoded length in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        varint::size(self.0)
    }

    /// Appends the shortest form.
    pub fn encode(self, out: &mut impl BufMut) {
        varint::encode(self.0, out);
    }
}

/// A QUIC DATAGRAM frame that HTTP/3 cannot attribute: both are connection errors H3_DATAGRAM_ERROR (RFC 9297 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The frame ends before its Quarter Stream ID does.
    #[error("datagram of {len} bytes ends inside its quarter stream ID")]
    Truncated {
        /// Bytes in the frame.
        len: usize,
    },
    /// No stream can have this number.
    #[error("quarter stream ID {0} is above 2^60-1")]
    QuarterStreamIdTooLarge(u64),
}

/// Splits a QUIC DATAGRAM frame payload: the Quarter Stream ID, and the offset of the HTTP Datagram Payload.
///
/// # Errors
/// [`DatagramError`] when there is no Quarter Stream ID or none that a stream can have; RFC 9297 §2.1 ends the
/// connection for both.
pub fn split_quarter_stream_id(frame: &[u8]) -> Result<(QuarterStreamId, usize), DatagramError> {
    let (value, used) =
        varint::decode(frame).ok_or(DatagramError::Truncated { len: frame.len() })?;
    if value > QuarterStreamId::MAX.0 {
        return Err(DatagramError::QuarterStreamIdTooLarge(value));
    }
    Ok((QuarterStreamId(value), used))
}

/// Splits an HTTP Datagram Payload: the Context ID, and the offset of what it labels (which may be empty).
///
/// `None` when the payload is too short for a Context ID, the empty one included (RFC 9298 §5).
#[must_use]
pub fn split_context_id(payload: &[u8]) -> Option<(ContextId, usize)> {
    varint::decode(payload).map(|(value, used)| (ContextId(value), used))
}

/// Takes the Context ID off an HTTP Datagram Payload; what it labels is left, in the same allocation.
///
/// `None` as for [`split_context_id`]: the payload is as it was.
#[must_use]
pub fn take_context_id(payload: &mut Bytes) -> Option<ContextId> {
    // All but a few datagrams start with the one-byte form of Context ID 0.
    let (context_id, len) = match payload.first() {
        Some(0) => (ContextId(0), 1),
        _ => split_context_id(payload)?,
    };
    payload.advance(len);
    Some(context_id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // spec: 9297-2.1-a, 9298-4-a; the h3-dg vectors of RFC 9297 section 7 of the digest
    #[test]
    fn streams_and_contexts() {
        for (head, stream_id) in [
            (&[0x00][..], 0),
            (&[0x01], 4),
            (&[0x0b], 44),
            (&[0x3f], 252),
            (&[0x40, 0x40], 256),
            (&[0x7f, 0xff], 65_532),
            (&[0x80, 0x00, 0x40, 0x00], 65_536),
        ] {
            let frame = [head, b"\0hello"].concat();
            let (quarter, used) = split_quarter_stream_id(&frame).unwrap();
            assert_eq!(quarter.stream_id(), stream_id);
            assert_eq!(quarter, QuarterStreamId::of_stream(stream_id));
            let payload = frame.get(used..).unwrap();
            assert_eq!(split_context_id(payload), Some((ContextId::UDP_PAYLOAD, 1)));

            let mut encoded = Vec::new();
            quarter.encode(&mut encoded);
            ContextId::UDP_PAYLOAD.encode(&mut encoded);
            assert_eq!(
                encoded.len(),
                quarter.size() + ContextId::UDP_PAYLOAD.size()
            );
            assert_eq!([&encoded, &b"hello"[..]].concat(), frame);
        }
    }

    // spec: 9297-2.1-b
    #[test]
    fn largest_quarter_stream_id() {
        let max = [0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];
        assert_eq!(split_quarter_stream_id(&max), Ok((QuarterStreamId::MAX, 8)));
        let over = [0xd0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            split_quarter_stream_id(&over),
            Err(DatagramError::QuarterStreamIdTooLarge(1 << 60))
        );
    }

    // spec: 9297-2.1-c
    #[test]
    fn no_quarter_stream_id() {
        for frame in [&[][..], &[0x40], &[0xc0, 0, 0, 0, 0, 0, 0]] {
            let len = frame.len();
            assert_eq!(
                split_quarter_stream_id(frame),
                Err(DatagramError::Truncated { len })
            );
        }
    }

    // spec: 9297-2.1-d, 9298-5-k
    #[test]
    fn no_context_id() {
        assert_eq!(
            split_quarter_stream_id(&[0x0b]),
            Ok((QuarterStreamId(11), 1))
        );
        assert_eq!(split_context_id(&[]), None);
        assert_eq!(split_context_id(&[0x80, 0, 0]), None);
    }

    // spec: 9298-5-b, 9297-1.1-a
    #[test]
    fn context_id_forms() {
        assert_eq!(split_context_id(&[0x00]), Some((ContextId::UDP_PAYLOAD, 1)));
        assert_eq!(
            split_context_id(b"\x80\0\0\0hello"),
            Some((ContextId::UDP_PAYLOAD, 4))
        );
        assert_eq!(split_context_id(b"\x02hello"), Some((ContextId(2), 1)));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok((quarter, used)) = split_quarter_stream_id(&bytes) {
                prop_assert!(quarter <= QuarterStreamId::MAX && used <= bytes.len());
                prop_assert_eq!(QuarterStreamId::of_stream(quarter.stream_id()), quarter);
            }
        }
    }
}
