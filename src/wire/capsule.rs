//! The Capsule Protocol (RFC 9297 §3.2): a reader that takes the data stream in any pieces, and heads to write.
//!
//! ```text
//!   Capsule  = Type (i)  Length (i)  Value (..)
//!
//!   Type ─► Length ─┬─ type 0, fits ─────► Datagram ── whole value ──► event ──────────► Type
//!                   ├─ type 0, too long ─► Oversize ── Context ID ───► event ─► Skip ──► Type
//!                   ├─ kept or wanted ───► Unknown ─── whole value ──► event ──────────► Type
//!                   ├─ wanted, too long ─────────────────────────────► event ─► Skip ──► Type
//!                   └─ other type ────────────────────────────────────────────► Skip ──► Type
//! ```
//!
//! Invariants: the events depend on the bytes only, not on how they are cut. At most one value, up to the limit for its
//! type, and eight bytes of an integer are buffered; nothing is allocated for bytes that have not arrived, except that
//! a buffer grows by doubling up to the declared length. A value that lies in one piece is not copied. Every length up
//! to 2^62−1 is legal and can be skipped; [`Work`] tells the owner what that has cost.
//!
//! An unknown capsule is skipped unless the owner asks for it: a relay has no use for one, the user of a tunnel's end
//! may have ([`CapsuleReader::keep_unknown`]). What is longer than the user's bound is still skipped, and counted.
//! Types that a kind of tunnel gives a meaning are [wanted](CapsuleReader::want): one of those that is too long is
//! told, too.
//!
//! The reader does not interpret the HTTP Datagram Payload of a capsule that fits, and it does not end a tunnel: that
//! an oversize UDP payload aborts the stream (RFC 9298 §5) is for the tunnel to say. Capsules that carry a byte stream
//! are read by `stream`, without the buffer.

mod cut;
mod stream;

use bytes::{Buf, BufMut, Bytes};

use self::cut::{CutValue, CutVarint};
pub use self::stream::{StreamError, StreamEvent, StreamReader};

use super::codepoints::Revision;
use super::datagram::{ContextId, UDP_PAYLOAD_MAX};
use super::varint;

/// The longest head of a capsule, in bytes: type and length.
pub const HEAD_MAX: usize = 2 * varint::SIZE_MAX;

/// The longest head that [`encode_datagram_head`] writes, in bytes: type, length and Context ID.
pub const DATAGRAM_HEAD_MAX: usize = 1 + 2 * varint::SIZE_MAX;

/// The default limit for the value of a DATAGRAM capsule, in bytes: the largest UDP payload behind the longest Context
/// ID.
pub const DATAGRAM_VALUE_MAX: usize = UDP_PAYLOAD_MAX + varint::SIZE_MAX;

/// The default limit for the value of an unknown capsule that is kept, in bytes.
pub const UNKNOWN_VALUE_MAX: usize = 64 * 1024;

/// The type of a capsule, at most [`varint::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapsuleType(pub u64);

impl CapsuleType {
    /// The value is an HTTP Datagram Payload (RFC 9297 §3.5).
    pub const DATAGRAM: Self = Self(0x00);

    /// The type of a capsule that the user of a tunnel wants to send.
    ///
    /// DATAGRAM is the tunnel's on every tunnel. `revision` is the one in use on a tunnel for TCP in capsules, whose
    /// DATA and FINAL_DATA are the tunnel's too; elsewhere those are numbers like others.
    ///
    /// # Errors
    /// [`UserTypeError`]: the tunnel sends these itself, or no capsule can have the type.
    pub fn of_user(kind: u64, revision: Option<&Revision>) -> Result<Self, UserTypeError> {
        let capsule_type = Self(kind);
        if kind > varint::MAX {
            return Err(UserTypeError::TooLarge(kind));
        }
        if capsule_type == Self::DATAGRAM {
            return Err(UserTypeError::Datagram);
        }
        match revision {
            Some(revision) if capsule_type == revision.data => {
                Err(UserTypeError::Data(capsule_type))
            }
            Some(revision) if capsule_type == revision.final_data => {
                Err(UserTypeError::FinalData(capsule_type))
            }
            Some(_) | None => Ok(capsule_type),
        }
    }
}

/// Why the user of a tunnel may not send a capsule of some type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserTypeError {
    /// No capsule can have this type.
    #[error("capsule type {0:#x} is above 2^62-1")]
    TooLarge(u64),
    /// HTTP Datagrams are sent as such (RFC 9297 §3.5).
    #[error("capsules of type 0x0 (DATAGRAM) are sent by the tunnel")]
    Datagram,
    /// Addresses and routes are told as such (RFC 9484 §4.7).
    #[error("capsules of type {:#x} are sent by the tunnel", .0.0)]
    Ip(CapsuleType),
    /// The bytes of TCP are sent as such (connect-tcp draft §3).
    #[error("capsules of type {:#x} (DATA) are sent by the tunnel", .0.0)]
    Data(CapsuleType),
    /// The end of TCP is sent as such (connect-tcp draft §3).
    #[error("capsules of type {:#x} (FINAL_DATA) are sent by the tunnel", .0.0)]
    FinalData(CapsuleType),
}

/// Appends type and length of a capsule whose value of `value_len` bytes follows.
pub fn encode_head(capsule_type: CapsuleType, value_len: u64, out: &mut impl BufMut) {
    varint::encode(capsule_type.0, out);
    varint::encode(value_len, out);
}

/// Appends a whole capsule: type, length, value. At most [`HEAD_MAX`] bytes go before the value, in shortest form.
pub fn encode_capsule(capsule_type: CapsuleType, value: &[u8], out: &mut impl BufMut) {
    encode_head(capsule_type, value.len() as u64, out);
    out.put_slice(value);
}

/// Appends the head of a DATAGRAM capsule and the Context ID; `payload_len` bytes of payload follow.
///
/// The capsule length covers the Context ID. At most [`DATAGRAM_HEAD_MAX`] bytes are written, all in shortest form.
pub fn encode_datagram_head(context_id: ContextId, payload_len: usize, out: &mut impl BufMut) {
    let value_len = context_id.size() as u64 + payload_len as u64;
    encode_head(CapsuleType::DATAGRAM, value_len, out);
    context_id.encode(out);
}

/// What a [`CapsuleReader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapsuleEvent {
    /// A DATAGRAM capsule: its value, the HTTP Datagram Payload, Context ID included. It can be empty.
    ///
    /// The bytes may share the allocation of the input.
    Datagram(Bytes),
    /// A DATAGRAM capsule with a value above the limit of the reader. It is reported as soon as its Context ID is known
    /// and skipped without buffering (RFC 9297 §3.5, RFC 9298 §5).
    Oversize {
        /// What the payload would have been.
        context_id: ContextId,
        /// Length of the payload after the Context ID, in bytes, as declared.
        payload_len: u64,
    },
    /// A capsule of a type that the reader does not understand, whole. Only a reader told to
    /// [keep](CapsuleReader::keep_unknown) these, or to [want](CapsuleReader::want) some, reports them.
    Unknown {
        /// Any type but DATAGRAM, also one of those that are sent to keep readers honest (RFC 9297 §5.4).
        capsule_type: CapsuleType,
        /// The value, possibly empty. The bytes may share the allocation of the input.
        value: Bytes,
    },
    /// A capsule of a type that is [wanted](CapsuleReader::want), with a value above the limit. It is reported as soon
    /// as its length is known, and skipped.
    TooLong {
        /// The type.
        capsule_type: CapsuleType,
        /// Length of the value in bytes, as declared.
        len: u64,
    },
}

/// The data stream ended cleanly inside a capsule, which makes the message malformed (RFC 9297 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// The type or the length of a capsule is incomplete.
    #[error("stream ended inside a capsule head")]
    EndInHead,
    /// The value of a capsule is incomplete.
    #[error("stream ended {missing} bytes before the end of a capsule")]
    EndInValue {
        /// Bytes that did not arrive.
        missing: u64,
    },
}

/// What a reader has done so far, for the owner's budget against peers that send work instead of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Capsule heads read, of all types.
    pub capsules: u64,
    /// Capsules skipped, because of an unknown type that is not kept or because they were too long.
    pub capsules_skipped: u64,
    /// Bytes of values skipped so far.
    pub bytes_skipped: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Type,
    Length {
        capsule_type: CapsuleType,
    },
    Datagram {
        len: usize,
    },
    Oversize {
        len: u64,
    },
    Unknown {
        capsule_type: CapsuleType,
        len: usize,
    },
    Skip {
        left: u64,
    },
}

/// Reads capsules out of a data stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct CapsuleReader {
    state: State,
    /// The beginning of a variable-length integer that the input so far has cut.
    cut: CutVarint,
    /// The beginning of a value that the input so far has cut.
    value: CutValue,
    datagram_value_max: usize,
    /// None where unknown capsules are skipped.
    unknown_value_max: Option<usize>,
    wanted: Option<Wanted>,
    work: Work,
}

/// The types that are reported whatever becomes of other unknown ones.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    has: fn(CapsuleType) -> bool,
    value_max: usize,
}

impl Default for CapsuleReader {
    fn default() -> Self {
        Self::new(DATAGRAM_VALUE_MAX)
    }
}

impl CapsuleReader {
    /// A reader that hands out DATAGRAM values of up to `datagram_value_max` bytes, Context ID included.
    ///
    /// The limit is also the most that it buffers, as long as it skips unknown capsules. It is raised to eight bytes,
    /// so that each longer value holds a whole Context ID.
    #[must_use]
    pub fn new(datagram_value_max: usize) -> Self {
        Self {
            state: State::Type,
            cut: CutVarint::default(),
            value: CutValue::default(),
            datagram_value_max: datagram_value_max.max(varint::SIZE_MAX),
            unknown_value_max: None,
            wanted: None,
            work: Work::default(),
        }
    }

    /// From the next capsule on, reports those of unknown type with a value of up to `bytes_max` bytes (usually
    /// [`UNKNOWN_VALUE_MAX`]) as [`CapsuleEvent::Unknown`]. Longer ones are skipped, and counted in [`Work`].
    ///
    /// The reader then buffers up to `bytes_max`, if that is more than its limit for DATAGRAM values.
    pub fn keep_unknown(&mut self, bytes_max: usize) {
        self.unknown_value_max = Some(bytes_max);
    }

    /// From the next capsule on, reports those of a type that `has` says yes to, with a value of up to `bytes_max`
    /// bytes, as [`CapsuleEvent::Unknown`]; that a longer one came is told by [`CapsuleEvent::TooLong`]. Other types,
    /// and DATAGRAM, are read as before.
    ///
    /// The reader then buffers up to `bytes_max`, if that is more than its other limits.
    pub fn want(&mut self, has: fn(CapsuleType) -> bool, bytes_max: usize) {
        let value_max = bytes_max;
        self.wanted = Some(Wanted { has, value_max });
    }

    /// Takes bytes from the front of `input` until there is something to report.
    ///
    /// `None` means that `input` is used up. After an event, call again with the rest. Capsules that are
    /// not kept are skipped silently (RFC 9297 §3.2) within one call, whose work is linear in the length of `input`.
    pub fn read(&mut self, input: &mut Bytes) -> Option<CapsuleEvent> {
        loop {
            match self.state {
                State::Type => {
                    let (value, _) = self.cut.take(input)?;
                    let capsule_type = CapsuleType(value);
                    self.state = State::Length { capsule_type };
                }
                State::Length { capsule_type } => {
                    let (len, _) = self.cut.take(input)?;
                    if self.begin_value(capsule_type, len) {
                        return Some(CapsuleEvent::TooLong { capsule_type, len });
                    }
                }
                State::Datagram { len } => {
                    let payload = self.value.take(len, input)?;
                    self.state = State::Type;
                    return Some(CapsuleEvent::Datagram(payload));
                }
                State::Oversize { len } => {
                    let (value, used) = self.cut.take(input)?;
                    let payload_len = len - used as u64;
                    self.state = State::Skip { left: payload_len };
                    self.work.bytes_skipped = self.work.bytes_skipped.saturating_add(used as u64);
                    return Some(CapsuleEvent::Oversize {
                        context_id: ContextId(value),
                        payload_len,
                    });
                }
                State::Unknown { capsule_type, len } => {
                    let value = self.value.take(len, input)?;
                    self.state = State::Type;
                    return Some(CapsuleEvent::Unknown {
                        capsule_type,
                        value,
                    });
                }
                State::Skip { left } => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    input.advance(skipped);
                    self.work.bytes_skipped =
                        self.work.bytes_skipped.saturating_add(skipped as u64);
                    let left = left - skipped as u64;
                    if left > 0 {
                        self.state = State::Skip { left };
                        return None;
                    }
                    self.state = State::Type;
                }
            }
        }
    }

    /// Tells whether the data stream may end here; call it on a clean end (FIN, END_STREAM), not on a reset.
    ///
    /// # Errors
    /// [`CapsuleError`] when the end falls inside a capsule (RFC 9297 §3.3).
    pub fn finish(&self) -> Result<(), CapsuleError> {
        let missing = match self.state {
            State::Type if self.cut.is_empty() => return Ok(()),
            State::Type | State::Length { .. } => return Err(CapsuleError::EndInHead),
            State::Datagram { len } | State::Unknown { len, .. } => (len - self.value.len()) as u64,
            State::Oversize { len } => len - self.cut.len() as u64,
            State::Skip { left } => left,
        };
        Err(CapsuleError::EndInValue { missing })
    }

    /// What has been read and skipped since the reader was made.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.work
    }

    /// Bytes held at the moment, at most the greatest of the limits given to [`new`](Self::new),
    /// [`keep_unknown`](Self::keep_unknown) and [`want`](Self::want).
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.value.len() + self.cut.len()
    }

    /// The one place that knows capsule types: further ones get their limit and their state here. Whether a wanted
    /// capsule is too long.
    fn begin_value(&mut self, capsule_type: CapsuleType, len: u64) -> bool {
        self.work.capsules += 1;
        let wanted = self.wanted.filter(|wanted| (wanted.has)(capsule_type));
        let value_max = wanted.map_or(self.unknown_value_max, |wanted| Some(wanted.value_max));
        self.state = match capsule_type {
            CapsuleType::DATAGRAM => match cut::within(len, self.datagram_value_max) {
                Some(len) => State::Datagram { len },
                None => State::Oversize { len },
            },
            _ => match value_max.and_then(|max| cut::within(len, max)) {
                Some(len) => State::Unknown { capsule_type, len },
                None => State::Skip { left: len },
            },
        };
        let skips = matches!(self.state, State::Oversize { .. } | State::Skip { .. });
        self.work.capsules_skipped += u64::from(skips);
        wanted.is_some() && matches!(self.state, State::Skip { .. })
    }
}

#[cfg(test)]
mod tests;
