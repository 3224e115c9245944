//! What arrives on a CONNECT-UDP request, from either end (RFC 9298 §5).
//!
//! ```text
//!   QUIC DATAGRAM ── Context ID 0 ──► UDP payload (0..=65527 bytes)
//!                 ── other ─────────► dropped, counted
//!   data stream ─► CapsuleReader ─ DATAGRAM ─► as above
//!                                 └ unknown ─► skipped
//! ```
//!
//! A peer's mistake is an [`UdpError`]; the caller ends the tunnel with it. Unknown Context IDs and unknown
//! capsules are not mistakes: extensions use them.

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::wire::capsule::{CapsuleError, CapsuleEvent, CapsuleReader};
use crate::wire::datagram::{ContextId, UDP_PAYLOAD_MAX, split_context_id};

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

/// The UDP payload of an HTTP Datagram, or `None` for one to drop: an unknown Context ID, or none at all.
///
/// # Errors
/// [`UdpError::PayloadTooLong`].
pub fn udp_payload(mut http_datagram: Bytes) -> Result<Option<Bytes>, UdpError> {
    // All but a few datagrams start with the one-byte form of Context ID 0.
    let header_len = match http_datagram.first() {
        Some(0) => 1,
        _ => match split_context_id(&http_datagram) {
            Some((ContextId::UDP_PAYLOAD, len)) => len,
            Some(_) | None => return Ok(None),
        },
    };
    http_datagram.advance(header_len);
    if http_datagram.len() > UDP_PAYLOAD_MAX {
        return Err(UdpError::PayloadTooLong {
            len: http_datagram.len() as u64,
        });
    }
    Ok(Some(http_datagram))
}

/// The data stream of one CONNECT-UDP request, in one direction.
///
/// Most streams never carry a byte after the heads, so the reader is made when the first one comes.
#[derive(Debug, Default)]
pub struct Inbound {
    reader: Option<Box<CapsuleReader>>,
}

impl Inbound {
    /// Reads on; each UDP payload goes to `deliver`, and what is dropped goes to `dropped`.
    ///
    /// # Errors
    /// The peer's mistake that ends the tunnel.
    pub fn handle_data(
        &mut self,
        mut data: Bytes,
        mut deliver: impl FnMut(Option<Bytes>),
    ) -> Result<(), UdpError> {
        let reader = self.reader.get_or_insert_with(Default::default);
        while let Some(event) = reader.read(&mut data) {
            match event {
                CapsuleEvent::Datagram(payload) => {
                    if split_context_id(&payload).is_none() {
                        return Err(UdpError::NoContextId);
                    }
                    deliver(udp_payload(payload)?);
                }
                CapsuleEvent::Oversize {
                    context_id: ContextId::UDP_PAYLOAD,
                    payload_len,
                } => {
                    return Err(UdpError::PayloadTooLong { len: payload_len });
                }
                CapsuleEvent::Oversize { .. } => deliver(None),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Option<Bytes>>, UdpError> {
        let mut inbound = Inbound::default();
        let mut seen = Vec::new();
        inbound.handle_data(Bytes::copy_from_slice(bytes), |payload| seen.push(payload))?;
        inbound.handle_finished()?;
        Ok(seen)
    }

    // spec: 9298-4-a, 9298-5-a, 9298-5-b, 9298-5-k
    #[test]
    fn context_ids_of_any_length_and_unknown_ones() {
        let hello = Some(Bytes::from_static(b"hello"));
        assert_eq!(
            udp_payload(Bytes::from_static(b"\0hello")),
            Ok(hello.clone())
        );
        assert_eq!(
            udp_payload(Bytes::from_static(b"\x80\0\0\0hello")),
            Ok(hello)
        );
        assert_eq!(
            udp_payload(Bytes::from_static(b"\0")),
            Ok(Some(Bytes::new()))
        );
        assert_eq!(udp_payload(Bytes::from_static(b"\x02hello")), Ok(None));
        assert_eq!(udp_payload(Bytes::new()), Ok(None));
        assert_eq!(udp_payload(Bytes::from_static(b"\x40")), Ok(None));
    }

    // spec: 9298-5-d, 9298-5-l
    #[test]
    fn payloads_end_at_65527_bytes() {
        let longest = Bytes::from(vec![0; 1 + UDP_PAYLOAD_MAX]);
        assert_eq!(
            udp_payload(longest).unwrap().unwrap().len(),
            UDP_PAYLOAD_MAX
        );
        let longer = Bytes::from(vec![0; 2 + UDP_PAYLOAD_MAX]);
        assert_eq!(
            udp_payload(longer),
            Err(UdpError::PayloadTooLong { len: 65528 })
        );

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
        let payload = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        let two = [
            &[0x17, 3, 0xaa, 0xbb, 0xcc][..],
            &[0, 6, 0],
            b"hello",
            &[0, 6, 2],
            b"other",
        ];
        assert_eq!(read(&two.concat()), Ok(vec![payload(b"hello"), None]));
        assert_eq!(read(&[0, 1, 0]), Ok(vec![payload(b"")]));
        assert_eq!(read(&[0, 0]), Err(UdpError::NoContextId));
        let missing = CapsuleError::EndInValue { missing: 3 };
        assert_eq!(
            read(&[0, 6, 0, b'h', b'e']),
            Err(UdpError::CapsuleCut(missing))
        );
        assert_eq!(read(&[]), Ok(vec![]));
    }
}
