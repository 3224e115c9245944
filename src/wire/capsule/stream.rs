//! A byte stream in capsules: DATA and FINAL_DATA of draft-ietf-httpbis-connect-tcp §3.
//!
//! ```text
//!   DATA "ab"  DATA "c"  (unknown)  FINAL_DATA "d"   ─►   "ab" "c" "d" Ended
//!
//!   Type ─► Length ─┬─ DATA, FINAL_DATA ─► Payload ── pieces as they arrive ──► event ──► Type
//!                   ├─ other type, kept, fits ─► Unknown ── whole value ─────► event ──► Type
//!                   └─ other type ───────────────────────────────────────────► Skip ───► Type
//! ```
//!
//! Invariants: no byte of a payload is copied, and none is held back. At most eight bytes of an integer are kept, and
//! of an unknown capsule what the owner asked for. The concatenation of the pieces, the end, and the unknown capsules
//! between depend on the bytes only, not on how they are cut: the borders of DATA carry no meaning. Every length up to
//! 2^62−1 is legal.
//!
//! A DATAGRAM capsule is an unknown one here: this data stream has no datagrams.

use bytes::{Buf, Bytes};

use super::cut::{self, CutValue, CutVarint};
use super::{CapsuleError, CapsuleType, Work};
use crate::wire::codepoints::Revision;

/// What a [`StreamReader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The next bytes of the stream, at least one. They share the allocation of the input.
    Data(Bytes),
    /// FINAL_DATA has arrived with all of its payload: the stream has ended.
    Ended,
    /// A capsule of another type, whole. Only a reader told to [keep](StreamReader::keep_unknown) these reports them.
    Unknown {
        /// Any type but DATA and FINAL_DATA of the revision; DATAGRAM is one of them.
        capsule_type: CapsuleType,
        /// The value, possibly empty. The bytes may share the allocation of the input.
        value: Bytes,
    },
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
    Length {
        capsule_type: CapsuleType,
    },
    Payload {
        left: u64,
        is_final: bool,
    },
    Unknown {
        capsule_type: CapsuleType,
        len: usize,
    },
    Skip {
        left: u64,
    },
}

/// Reads a byte stream out of a data stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct StreamReader {
    revision: &'static Revision,
    state: State,
    /// The beginning of a variable-length integer that the input so far has cut.
    cut: CutVarint,
    /// The beginning of an unknown capsule's value that the input so far has cut.
    value: CutValue,
    /// None where unknown capsules are skipped.
    unknown_value_max: Option<usize>,
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
            value: CutValue::default(),
            unknown_value_max: None,
            is_ended: false,
            work: Work::default(),
        }
    }

    /// From the next capsule on, reports those of unknown type with a value of up to `bytes_max` bytes (usually
    /// [`UNKNOWN_VALUE_MAX`](super::UNKNOWN_VALUE_MAX)) as [`StreamEvent::Unknown`], in their place between the bytes
    /// of the stream and behind its end. Longer ones are skipped, and counted in [`Work`].
    ///
    /// The reader then buffers up to `bytes_max`.
    pub fn keep_unknown(&mut self, bytes_max: usize) {
        self.unknown_value_max = Some(bytes_max);
    }

    /// Takes bytes from the front of `input` until there is something to report.
    ///
    /// `None` means that `input` is used up. After an event, call again with the rest: capsules of unknown type may
    /// follow the end, and are skipped or kept like those before it (RFC 9297 §3.2).
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
                State::Unknown { capsule_type, len } => {
                    let Some(value) = self.value.take(len, input) else {
                        return Ok(None);
                    };
                    self.state = State::Type;
                    return Ok(Some(StreamEvent::Unknown {
                        capsule_type,
                        value,
                    }));
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
            State::Unknown { len, .. } => {
                let missing = (len - self.value.len()) as u64;
                Err(CapsuleError::EndInValue { missing }.into())
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

    /// Bytes held at the moment, at most the limit given to [`keep_unknown`](Self::keep_unknown), or eight.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        self.value.len() + self.cut.len()
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
            match self.unknown_value_max.and_then(|max| cut::within(len, max)) {
                Some(len) => State::Unknown { capsule_type, len },
                None => {
                    self.work.capsules_skipped += 1;
                    State::Skip { left: len }
                }
            }
        };
    }
}

/// How many of `left` bytes the input has, and how many are missing then.
fn reach(left: u64, input: &Bytes) -> (usize, u64) {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    (len, left - len as u64)
}

#[cfg(test)]
mod tests;
