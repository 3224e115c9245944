//! A byte stream in capsules: DATA and FINAL_DATA of draft-ietf-httpbis-connect-tcp §3.
//!
//! ```text
//!   DATA "ab"  DATA "c"  (unknown)  FINAL_DATA "d"   ─►   "ab" "c" "d" Ended
//!
//!   Type ─► Length ─┬─ DATA, FINAL_DATA ─► Payload ── pieces as they arrive ──► event ──► Type
//!                   └─ other type ───────────────────────────────────────────► Skip ───► Type
//! ```
//!
//! Invariants: no byte of a payload is copied, and none is held back. At most eight bytes of an integer are kept. The
//! concatenation of the pieces and the end depend on the bytes only, not on how they are cut: capsule borders carry no
//! meaning. Every length up to 2^62−1 is legal.

use bytes::{Buf, Bytes};

use super::{CapsuleError, CapsuleType, CutVarint, Work};
use crate::wire::codepoints::Revision;

/// What a [`StreamReader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The next bytes of the stream, at least one. They share the allocation of the input.
    Data(Bytes),
    /// FINAL_DATA has arrived with all of its payload: the stream has ended.
    Ended,
}

/// Why capsules are no byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// DATA or FINAL_DATA behind FINAL_DATA.
    #[error("a capsule of type {:#x} after FINAL_DATA", capsule_type.0)]
    AfterFinal {
        /// Which of the two.
        capsule_type: CapsuleType,
    },
    /// The data stream ended inside a capsule (RFC 9297 §3.3).
    #[error(transparent)]
    Cut(#[from] CapsuleError),
    /// The data stream ended between capsules and without FINAL_DATA: the byte stream is truncated.
    #[error("stream ended without FINAL_DATA")]
    NoFinal,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Type,
    Length { capsule_type: CapsuleType },
    Payload { left: u64, is_final: bool },
    Skip { left: u64 },
}

/// Reads a byte stream out of a data stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct StreamReader {
    revision: &'static Revision,
    state: State,
    /// The beginning of a variable-length integer that the input so far has cut.
    cut: CutVarint,
    is_ended: bool,
    work: Work,
}

impl StreamReader {
    /// A reader for the capsule types of `revision`.
    #[must_use]
    pub fn new(revision: &'static Revision) -> Self {
        Self {
            revision,
            state: State::Type,
            cut: CutVarint::default(),
            is_ended: false,
            work: Work::default(),
        }
    }

    /// Takes bytes from the front of `input` until there is something to report.
    ///
    /// `None` means that `input` is used up. After an event, call again with the rest: capsules of unknown type may
    /// follow the end, and are skipped like those before it (RFC 9297 §3.2).
    ///
    /// # Errors
    /// [`StreamError::AfterFinal`], as soon as the type of the capsule is known.
    pub fn read(&mut self, input: &mut Bytes) -> Result<Option<StreamEvent>, StreamError> {
        loop {
            match self.state {
                State::Type => {
                    let Some((value, _)) = self.cut.take(input) else {
                        return Ok(None);
                    };
                    let capsule_type = CapsuleType(value);
                    if self.is_ended && self.is_payload(capsule_type) {
                        return Err(StreamError::AfterFinal { capsule_type });
                    }
                    self.state = State::Length { capsule_type };
                }
                State::Length { capsule_type } => {
                    let Some((len, _)) = self.cut.take(input) else {
                        return Ok(None);
                    };
                    self.begin_value(capsule_type, len);
                }
                State::Payload { left: 0, is_final } => {
                    self.state = State::Type;
                    if is_final {
                        self.is_ended = true;
                        return Ok(Some(StreamEvent::Ended));
                    }
                }
                State::Payload { left, is_final } => {
                    let (len, left) = reach(left, input);
                    if len == 0 {
                        return Ok(None);
                    }
                    self.state = State::Payload { left, is_final };
                    return Ok(Some(StreamEvent::Data(input.split_to(len))));
                }
                State::Skip { left: 0 } => self.state = State::Type,
                State::Skip { left } => {
                    let (len, left) = reach(left, input);
                    if len == 0 {
                        return Ok(None);
                    }
                    input.advance(len);
                    self.work.bytes_skipped = self.work.bytes_skipped.saturating_add(len as u64);
                    self.state = State::Skip { left };
                }
            }
        }
    }

    /// Tells whether the data stream may end here; call it on a clean end (FIN, END_STREAM), not on a reset.
    ///
    /// # Errors
    /// [`StreamError::Cut`] inside a capsule, [`StreamError::NoFinal`] before FINAL_DATA: the bytes so far are not all
    /// that the peer's TCP connection carried.
    pub fn finish(&self) -> Result<(), StreamError> {
        match self.state {
            State::Payload { left, .. } | State::Skip { left } if left > 0 => {
                Err(CapsuleError::EndInValue { missing: left }.into())
            }
            State::Length { .. } => Err(CapsuleError::EndInHead.into()),
            _ if !self.cut.is_empty() => Err(CapsuleError::EndInHead.into()),
            State::Type | State::Payload { .. } | State::Skip { .. } if self.is_ended => Ok(()),
            State::Type | State::Payload { .. } | State::Skip { .. } => Err(StreamError::NoFinal),
        }
    }

    /// Whether [`StreamEvent::Ended`] was reported.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What has been read and skipped since the reader was made.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.work
    }

    fn is_payload(&self, capsule_type: CapsuleType) -> bool {
        capsule_type == self.revision.data || capsule_type == self.revision.final_data
    }

    fn begin_value(&mut self, capsule_type: CapsuleType, len: u64) {
        self.work.capsules += 1;
        self.state = if self.is_payload(capsule_type) {
            State::Payload {
                left: len,
                is_final: capsule_type == self.revision.final_data,
            }
        } else {
            self.work.capsules_skipped += 1;
            State::Skip { left: len }
        };
    }
}

/// How many of `left` bytes the input has, and how many are missing then.
fn reach(left: u64, input: &Bytes) -> (usize, u64) {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    (len, left - len as u64)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::capsule::encode_head;

    /// What a data stream in pieces says: the bytes, whether they ended, and whether it may end here.
    type Outcome = (Vec<u8>, bool, Result<(), StreamError>);

    fn read_pieces<'a>(token: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Outcome, Work) {
        let mut reader = StreamReader::new(Revision::of_token(token).unwrap());
        let (mut bytes, mut ends) = (Vec::new(), 0);
        let mut feed = |piece: &[u8]| {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(event) = reader.read(&mut input)? {
                match event {
                    StreamEvent::Data(data) => {
                        assert!(!data.is_empty());
                        bytes.extend_from_slice(&data);
                    }
                    StreamEvent::Ended => ends += 1,
                }
            }
            assert!(input.is_empty());
            Ok(())
        };
        let fed = pieces.into_iter().try_for_each(&mut feed);
        assert_eq!(u32::from(reader.is_ended()), ends);
        let end = fed.and_then(|()| reader.finish());
        ((bytes, reader.is_ended(), end), reader.work())
    }

    fn read(stream: &[u8]) -> Outcome {
        let whole = read_pieces("connect-tcp", [stream]);
        assert_eq!(whole, read_pieces("connect-tcp", stream.chunks(1)));
        whole.0
    }

    fn stream(bytes: &[u8], ended: bool, end: Result<(), StreamError>) -> Outcome {
        (bytes.to_vec(), ended, end)
    }

    // spec: ctcp-3-d, ctcp-3-g; the vectors of section 6 of the CONNECT-TCP digest
    #[test]
    fn vectors() {
        let (data, last) = (b"\xa0\x28\xd7\xf2", b"\xa0\x28\xd7\xf3");
        let abc = [&data[..], b"\x03abc"].concat();
        assert_eq!(read(&abc), stream(b"abc", false, Err(StreamError::NoFinal)));
        let empty = [&last[..], b"\0"].concat();
        assert_eq!(read(&empty), stream(b"", true, Ok(())));
        let last_abc = [&last[..], b"\x03abc"].concat();
        assert_eq!(read(&last_abc), stream(b"abc", true, Ok(())));
        let longer = [&data[..], b"\x40\x05hello", last, b"\0"].concat();
        assert_eq!(read(&longer), stream(b"hello", true, Ok(())));
        let split = [&data[..], b"\x01a", last, b"\x02bc"].concat();
        assert_eq!(read(&split), read(&last_abc));
        let wide = [&b"\xc0\0\0\0\x20\x28\xd7\xf2\x01a"[..], last, b"\0"].concat();
        assert_eq!(read(&wide), stream(b"a", true, Ok(())));
        let other = b"\x17\x03\xaa\xbb\xcc";
        let between = [
            &data[..],
            b"\x01a",
            other,
            data,
            b"\x01b",
            last,
            b"\0",
            other,
        ]
        .concat();
        assert_eq!(read(&between), stream(b"ab", true, Ok(())));
        assert_eq!(read(b""), stream(b"", false, Err(StreamError::NoFinal)));

        let old = b"\xa0\x28\xd7\xf0\x03abc\xa0\x28\xd7\xf1\0";
        let (outcome, work) = read_pieces("connect-tcp-07", [&old[..]]);
        assert_eq!(outcome, stream(b"abc", true, Ok(())));
        assert_eq!((work.capsules, work.capsules_skipped), (2, 0));
        let skipped = stream(b"", false, Err(StreamError::NoFinal));
        assert_eq!(read(old), skipped);
    }

    // spec: ctcp-3-d
    #[test]
    fn nothing_of_the_stream_follows_its_end() {
        for (capsule_type, number) in [(0x2028_d7f2, b"\xf2"), (0x2028_d7f3, b"\xf3")] {
            let stream = [b"\xa0\x28\xd7\xf3\x01z\xa0\x28\xd7", &number[..], b"\0"].concat();
            let capsule_type = CapsuleType(capsule_type);
            let error = StreamError::AfterFinal { capsule_type };
            assert_eq!(read(&stream), (b"z".to_vec(), true, Err(error)));
        }
    }

    // spec: 9297-3.3-c
    #[test]
    fn ends_inside_a_capsule() {
        let head = Err(CapsuleError::EndInHead.into());
        let value = |missing| Err(CapsuleError::EndInValue { missing }.into());
        assert_eq!(read(b"\xa0\x28"), stream(b"", false, head));
        assert_eq!(read(b"\xa0\x28\xd7\xf2"), stream(b"", false, head));
        assert_eq!(read(b"\xa0\x28\xd7\xf2\x40"), stream(b"", false, head));
        let cut = b"\xa0\x28\xd7\xf3\x03ab";
        assert_eq!(read(cut), stream(b"ab", false, value(1)));
        assert_eq!(read(b"\x17\x05ab"), stream(b"", false, value(3)));
        let behind = b"\xa0\x28\xd7\xf3\0\x17";
        assert_eq!(read(behind), stream(b"", true, head));
    }

    // spec: ctcp-3-e
    #[test]
    fn payload_does_not_wait_for_its_capsule() {
        let mut input = BytesMut::new();
        encode_head(
            Revision::newest().data,
            crate::wire::varint::MAX,
            &mut input,
        );
        input.extend_from_slice(b"first");
        let mut reader = StreamReader::new(Revision::newest());
        let mut input = input.freeze();
        let first = StreamEvent::Data(Bytes::from_static(b"first"));
        assert_eq!(reader.read(&mut input), Ok(Some(first)));
        assert_eq!(reader.read(&mut input), Ok(None));
        let missing = crate::wire::varint::MAX - 5;
        assert_eq!(
            reader.finish(),
            Err(CapsuleError::EndInValue { missing }.into())
        );
    }

    proptest! {
        // spec: ctcp-3-f
        #[test]
        fn any_capsules_in_any_split_carry_the_same_bytes(
            chunks in vec((vec(any::<u8>(), 0..20), any::<bool>()), 0..12),
            last in vec(any::<u8>(), 0..20),
            cut in 1_usize..40,
        ) {
            let revision = Revision::newest();
            let (mut wire, mut sent) = (BytesMut::new(), Vec::new());
            for (chunk, is_data) in &chunks {
                let other = CapsuleType(0x17);
                let capsule_type = if *is_data { revision.data } else { other };
                encode_head(capsule_type, chunk.len() as u64, &mut wire);
                wire.extend_from_slice(chunk);
                if *is_data {
                    sent.extend_from_slice(chunk);
                }
            }
            encode_head(revision.final_data, last.len() as u64, &mut wire);
            wire.extend_from_slice(&last);
            sent.extend_from_slice(&last);
            let (outcome, work) = read_pieces(revision.token, wire.chunks(cut));
            prop_assert_eq!(outcome, (sent, true, Ok(())));
            prop_assert_eq!(work.capsules, chunks.len() as u64 + 1);
        }

        #[test]
        fn garbage_is_harmless(wire in vec(any::<u8>(), 0..300), cut in 1_usize..40) {
            let whole = read_pieces("connect-tcp", [&wire[..]]);
            prop_assert_eq!(whole, read_pieces("connect-tcp", wire.chunks(cut)));
        }
    }
}
