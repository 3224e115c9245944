//! The framing of a TCP tunnel: what the data stream of its request looks like, one direction at a time.
//!
//! ```text
//!             data stream                                        TCP
//!   Raw       "abc"  FIN                                    ◄─►  "abc" FIN    classic CONNECT (RFC 9110 §9.3.6)
//!   Capsules  DATA "a"  FINAL_DATA "bc"  …  FIN             ◄─►  "abc" FIN    connect-tcp draft §3
//! ```
//!
//! Invariants: payload goes through without a copy and is never held back; what a direction keeps is a dozen words,
//! whatever lengths the peer declares, and the beginning of one unknown capsule where a user wants those. With capsules
//! the FIN of TCP is FINAL_DATA, and the end of the data stream means nothing by itself: without FINAL_DATA it is a
//! truncation, which must not look like a FIN to the other side.
//!
//! No socket, no carrier, no flow control: the caller moves what it is told, and maps a [`TcpError`] to resets.

use bytes::{BufMut, Bytes};
use thiserror::Error;

use crate::wire::capsule::{
    CapsuleType, HEAD_MAX, StreamError, StreamEvent, StreamReader, Work, encode_head,
};
use crate::wire::codepoints::Revision;

/// How the bytes of TCP lie in a data stream. Both directions of a tunnel have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As they are. The end of the data stream is the FIN.
    Raw,
    /// In DATA and FINAL_DATA capsules of that revision.
    Capsules(&'static Revision),
}

impl Framing {
    /// Whether messages of the tunnel announce `Capsule-Protocol: ?1`.
    #[must_use]
    pub const fn has_capsules(self) -> bool {
        match self {
            Self::Raw => false,
            Self::Capsules(_) => true,
        }
    }

    /// The capsule types that belong to the byte stream, if there are capsules.
    #[must_use]
    pub const fn revision(self) -> Option<&'static Revision> {
        match self {
            Self::Raw => None,
            Self::Capsules(revision) => Some(revision),
        }
    }
}

/// Why what a peer sent is not the stream of a TCP connection: the tunnel is aborted, TCP is reset.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TcpError {
    /// The capsules are wrong, or end too early.
    #[error(transparent)]
    Capsules(#[from] StreamError),
}

/// Where the byte stream of one direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// More may come.
    Open,
    /// All bytes were delivered: the FIN of TCP is due. The data stream ends later, on its own.
    Ended,
}

/// What an [`Inbound`] found in a data stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of TCP, at least one. They share the allocation of the input.
    Data(Bytes),
    /// A capsule that is no part of the byte stream, whole. Comes only after [`Inbound::keep_unknown`].
    Capsule {
        /// The type of the capsule, up to 2^62−1. DATAGRAM (0) is one of them: a tunnel for TCP has no datagrams.
        kind: u64,
        /// Its value, possibly empty.
        value: Bytes,
    },
}

/// The direction that arrives.
#[derive(Debug)]
pub struct Inbound {
    /// None where the bytes are raw.
    reader: Option<StreamReader>,
}

impl Inbound {
    /// The beginning of a data stream.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let reader = match framing {
            Framing::Raw => None,
            Framing::Capsules(revision) => Some(StreamReader::new(revision)),
        };
        Self { reader }
    }

    /// From the next capsule on, delivers those of unknown type with a value of up to `bytes_max` bytes (usually
    /// [`UNKNOWN_VALUE_MAX`](crate::wire::capsule::UNKNOWN_VALUE_MAX)), and buffers as much. Longer ones are skipped,
    /// and counted in [`work`](Self::work). Raw bytes have no capsules: nothing changes.
    pub fn keep_unknown(&mut self, bytes_max: usize) {
        if let Some(reader) = &mut self.reader {
            reader.keep_unknown(bytes_max);
        }
    }

    /// Reads on; what is found goes to `deliver`, in order.
    ///
    /// [`Progress::Ended`] stays: capsules that are no payload may follow, and are delivered like those before.
    ///
    /// # Errors
    /// The peer's mistake that aborts the tunnel. What was delivered before it was right.
    pub fn handle_data(
        &mut self,
        mut data: Bytes,
        deliver: &mut impl FnMut(Piece),
    ) -> Result<Progress, TcpError> {
        let Some(reader) = &mut self.reader else {
            if !data.is_empty() {
                deliver(Piece::Data(data));
            }
            return Ok(Progress::Open);
        };
        while let Some(event) = reader.read(&mut data)? {
            match event {
                StreamEvent::Data(payload) => deliver(Piece::Data(payload)),
                StreamEvent::Unknown {
                    capsule_type: CapsuleType(kind),
                    value,
                } => deliver(Piece::Capsule { kind, value }),
                // The reader knows, and says so below.
                StreamEvent::Ended => {}
            }
        }
        Ok(if reader.is_ended() {
            Progress::Ended
        } else {
            Progress::Open
        })
    }

    /// The data stream ended in an orderly way. If this is fine, so has TCP.
    ///
    /// # Errors
    /// A truncation: it ended inside a capsule or without FINAL_DATA.
    pub fn handle_finished(&self) -> Result<(), TcpError> {
        match &self.reader {
            None => Ok(()),
            Some(reader) => Ok(reader.finish()?),
        }
    }

    /// What the capsules have cost so far, for a budget against peers that send heads instead of bytes.
    #[must_use]
    pub fn work(&self) -> Work {
        (self.reader.as_ref()).map_or_else(Work::default, StreamReader::work)
    }
}

/// The direction that leaves. It has no state: a capsule holds what is written at once.
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    framing: Framing,
}

impl Outbound {
    /// A data stream to write.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self { framing }
    }

    /// How the bytes are framed.
    #[must_use]
    pub const fn framing(self) -> Framing {
        self.framing
    }

    /// The most that [`frame`](Self::frame) and [`final_capsule`](Self::final_capsule) write, in bytes.
    #[must_use]
    pub const fn head_len_max(self) -> usize {
        match self.framing {
            Framing::Raw => 0,
            Framing::Capsules(_) => HEAD_MAX,
        }
    }

    /// How many bytes of TCP are safe to write where the data stream has room for `room` bytes.
    #[must_use]
    pub const fn payload_max(self, room: usize) -> usize {
        room.saturating_sub(self.head_len_max())
    }

    /// Writes what goes before `payload_len` bytes of TCP.
    pub fn frame(self, payload_len: usize, out: &mut impl BufMut) {
        match self.framing {
            Framing::Raw => {}
            Framing::Capsules(revision) => encode_head(revision.data, payload_len as u64, out),
        }
    }

    /// Writes what says that TCP has ended: an empty FINAL_DATA. The data stream is finished behind it.
    pub fn final_capsule(self, out: &mut impl BufMut) {
        match self.framing {
            Framing::Raw => {}
            Framing::Capsules(revision) => encode_head(revision.final_data, 0, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::codepoints::CONNECT_TCP;

    fn capsules() -> Framing {
        Framing::Capsules(Revision::newest())
    }

    /// What is expected where nobody asked for capsules.
    fn payload(piece: Piece) -> Bytes {
        match piece {
            Piece::Data(payload) => payload,
            Piece::Capsule { kind, .. } => panic!("a capsule of type {kind:#x}"),
        }
    }

    fn read<'a>(
        framing: Framing,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<u8>, Result<Progress, TcpError>, Result<(), TcpError>) {
        let mut inbound = Inbound::new(framing);
        let mut bytes = Vec::new();
        let mut progress = Ok(Progress::Open);
        for piece in pieces {
            let data = Bytes::copy_from_slice(piece);
            progress = inbound.handle_data(data, &mut |piece| {
                let payload = payload(piece);
                assert!(!payload.is_empty());
                bytes.extend_from_slice(&payload);
            });
            if progress.is_err() {
                break;
            }
        }
        (bytes, progress, inbound.handle_finished())
    }

    fn write<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (outbound, mut wire) = (Outbound::new(framing), Vec::new());
        for piece in pieces {
            let before = wire.len();
            outbound.frame(piece.len(), &mut wire);
            assert!(wire.len() - before <= outbound.head_len_max());
            wire.extend_from_slice(piece);
        }
        outbound.final_capsule(&mut wire);
        wire
    }

    // spec: ctcp-3-d, ctcp-3.4-a, ctcp-3.4-b; the vectors of section 6 of the CONNECT-TCP digest
    #[test]
    fn capsules_are_written_as_the_draft_says() {
        let wire = write(capsules(), [&b"abc"[..]]);
        assert_eq!(wire, b"\xa0\x28\xd7\xf2\x03abc\xa0\x28\xd7\xf3\0");
        let old = Framing::Capsules(Revision::of_token("connect-tcp-07").unwrap());
        let wire = write(old, [&b"abc"[..]]);
        assert_eq!(wire, b"\xa0\x28\xd7\xf0\x03abc\xa0\x28\xd7\xf1\0");
        assert_eq!(
            read(old, [&wire[..]]),
            (b"abc".to_vec(), Ok(Progress::Ended), Ok(()))
        );
        assert_eq!(write(Framing::Raw, [&b"abc"[..]]), b"abc");
        let revision = |framing| Outbound::new(framing).framing().revision();
        assert_eq!(revision(capsules()), Some(Revision::newest()));
        assert_eq!(revision(old).unwrap().token, "connect-tcp-07");
        assert_eq!(revision(Framing::Raw), None);
    }

    // spec: ctcp-3.4-e
    #[test]
    fn only_capsules_can_tell_a_truncation() {
        let (bytes, progress, end) = read(capsules(), [&b"\xa0\x28\xd7\xf2\x03abc"[..]]);
        assert_eq!((&bytes[..], progress), (&b"abc"[..], Ok(Progress::Open)));
        assert_eq!(end, Err(TcpError::Capsules(StreamError::NoFinal)));
        let (bytes, progress, end) = read(Framing::Raw, [&b"abc"[..]]);
        assert_eq!((&bytes[..], progress), (&b"abc"[..], Ok(Progress::Open)));
        assert_eq!(end, Ok(()));
    }

    // spec: ctcp-3-d, ctcp-3-g
    #[test]
    fn behind_the_end_unknown_capsules_pass_and_payload_does_not() {
        let mut inbound = Inbound::new(capsules());
        let mut none = |piece| panic!("{piece:?}");
        for wire in [&b"\xa0\x28\xd7\xf3\0"[..], b"\x17\x01a"] {
            let progress = inbound.handle_data(Bytes::from_static(wire), &mut none);
            assert_eq!(progress, Ok(Progress::Ended));
        }
        assert_eq!(inbound.work().capsules_skipped, 1);
        let late = Bytes::from_static(b"\xa0\x28\xd7\xf2\0");
        let error = inbound.handle_data(late, &mut none).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a capsule of type 0x2028d7f2 after FINAL_DATA"
        );
    }

    // spec: 9297-3.2-a, ctcp-3-g
    #[test]
    fn capsules_are_kept_for_those_who_ask() {
        // A datagram, which means nothing here, before the bytes; one that is too long; one behind the end.
        let wire =
            b"\0\x02\0z\xa0\x28\xd7\xf2\x02ab\x17\x04long\xa0\x28\xd7\xf3\x01c\x40\x40\x03def";
        for cut in 1..=wire.len() {
            let mut inbound = Inbound::new(capsules());
            inbound.keep_unknown(3);
            let (mut bytes, mut kept) = (Vec::new(), Vec::new());
            for data in wire.chunks(cut) {
                let data = Bytes::copy_from_slice(data);
                let progress = inbound.handle_data(data, &mut |piece| match piece {
                    Piece::Data(payload) => bytes.extend_from_slice(&payload),
                    Piece::Capsule { kind, value } => kept.push((bytes.len(), kind, value)),
                });
                assert!(progress.is_ok());
            }
            assert_eq!(bytes, b"abc");
            let datagram = (0, 0, Bytes::from_static(b"\0z"));
            let last = (3, 0x40, Bytes::from_static(b"def"));
            assert_eq!(kept, [datagram, last]);
            assert_eq!(inbound.work().capsules_skipped, 1);
            assert_eq!(inbound.handle_finished(), Ok(()));
        }
    }

    #[test]
    fn raw_bytes_have_no_capsules() {
        let mut inbound = Inbound::new(Framing::Raw);
        inbound.keep_unknown(64);
        let mut bytes = Vec::new();
        let data = Bytes::from_static(b"\x17\x03abc");
        let progress = inbound.handle_data(data, &mut |piece| bytes.push(payload(piece)));
        assert_eq!(progress, Ok(Progress::Open));
        assert_eq!(bytes, [&b"\x17\x03abc"[..]]);
    }

    fn framings() -> impl Strategy<Value = Framing> {
        let revisions = CONNECT_TCP.iter().map(Framing::Capsules);
        prop::sample::select(revisions.chain([Framing::Raw]).collect::<Vec<_>>())
    }

    proptest! {
        // spec: ctcp-3-f
        #[test]
        fn two_relays_in_a_row_keep_the_bytes(
            (first, second) in (framings(), framings()),
            bytes in vec(any::<u8>(), 0..400),
            cuts in (1_usize..50, 1_usize..50, 1_usize..50),
        ) {
            let wire = write(first, bytes.chunks(cuts.0));
            let mut inbound = Inbound::new(first);
            let (outbound, mut onward) = (Outbound::new(second), Vec::new());
            for piece in wire.chunks(cuts.1) {
                let read = inbound.handle_data(Bytes::copy_from_slice(piece), &mut |piece| {
                    let payload = payload(piece);
                    outbound.frame(payload.len(), &mut onward);
                    onward.extend_from_slice(&payload);
                });
                prop_assert!(read.is_ok());
            }
            inbound.handle_finished().unwrap();
            outbound.final_capsule(&mut onward);
            let (arrived, _, end) = read(second, onward.chunks(cuts.2));
            prop_assert_eq!(arrived, bytes);
            prop_assert_eq!(end, Ok(()));
        }

        #[test]
        fn garbage_is_harmless(
            framing in framings(),
            wire in vec(any::<u8>(), 0..300),
            cut in 1_usize..40,
        ) {
            let whole = read(framing, [&wire[..]]);
            prop_assert_eq!(whole, read(framing, wire.chunks(cut)));
        }
    }
}
