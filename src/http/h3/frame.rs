//! Frames of control and request streams, read from any split of the stream (RFC 9114 section 7).
//!
//! ```text
//!   Type (varint)  Length (varint)  Payload (Length octets)
//!   ├──── Header ────────────────┤  ├─ Collect ─┤  HEADERS, SETTINGS and ids: whole, bounded
//!                                   ├─ Stream ──┤  DATA: in the pieces in which it arrives
//!                                   ├─ Skip ────┤  everything else: dropped as it arrives
//! ```
//!
//! Only layout and size are checked here. Which frame may come where and when, the number of
//! frames to skip before a peer becomes a nuisance, and the content are the connection's affair.
//! PRIORITY_UPDATE (RFC 9218) is one of the unknown types.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::wire::varint;

use super::code::Code;
use super::settings;

/// DATA.
pub const DATA: u64 = 0x00;
/// HEADERS.
pub const HEADERS: u64 = 0x01;
/// CANCEL_PUSH.
pub const CANCEL_PUSH: u64 = 0x03;
/// SETTINGS.
pub const SETTINGS: u64 = 0x04;
/// PUSH_PROMISE.
pub const PUSH_PROMISE: u64 = 0x05;
/// GOAWAY.
pub const GOAWAY: u64 = 0x07;
/// MAX_PUSH_ID.
pub const MAX_PUSH_ID: u64 = 0x0d;

/// The longest payload of a frame that is one varint.
const ID_LEN_MAX: u64 = 8;

/// What the stream says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// A HEADERS frame: its whole field section, still compressed.
    Headers(Bytes),
    /// Octets of a DATA frame, as many as were there. Empty only for a DATA frame of length 0.
    Data(Bytes),
    /// A SETTINGS frame: its whole payload, for [`Settings::decode`](settings::Settings::decode).
    Settings(Bytes),
    /// A GOAWAY frame: a stream id from a server, a push id from a client.
    GoAway(u64),
    /// A MAX_PUSH_ID frame.
    MaxPushId(u64),
    /// A CANCEL_PUSH frame.
    CancelPush(u64),
    /// A PUSH_PROMISE frame starts; its payload is skipped.
    PushPromise,
    /// A frame of unknown or reserved type starts; its payload is skipped.
    Skipped {
        /// The type.
        ty: u64,
        /// Octets of payload, most of which may not have arrived yet.
        len: u64,
    },
}

/// Cuts the octets of one stream into [`FrameEvent`]s.
#[derive(Debug)]
pub struct FrameReader {
    state: State,
    headers_len_max: u64,
    skipped_frames: u64,
    skipped_bytes: u64,
}

#[derive(Debug)]
enum State {
    /// Between frames or in the type.
    Type(VarintReader),
    Length {
        ty: u64,
        reader: VarintReader,
    },
    Collect {
        kind: Collected,
        missing: u64,
        payload: BytesMut,
    },
    Stream {
        missing: u64,
    },
    Skip {
        missing: u64,
    },
}

impl State {
    const BETWEEN_FRAMES: Self = Self::Type(VarintReader {
        value: 0,
        missing: None,
    });
}

/// Frames that make one event once their payload is complete.
#[derive(Clone, Copy, Debug)]
enum Collected {
    Headers,
    Settings,
    GoAway,
    MaxPushId,
    CancelPush,
}

impl FrameReader {
    /// A reader at the start of a frame that accepts field sections up to `headers_len_max` octets
    /// (compressed). This is the most that it ever buffers, besides
    /// [`settings::PAYLOAD_LEN_MAX`] on a control stream.
    pub fn new(headers_len_max: u64) -> Self {
        Self {
            state: State::BETWEEN_FRAMES,
            headers_len_max,
            skipped_frames: 0,
            skipped_bytes: 0,
        }
    }

    /// Takes octets from the front of `input` until an event is complete; `None` wants more input
    /// and leaves `input` empty. Call it until it returns `None`.
    ///
    /// # Errors
    ///
    /// All are connection errors, after which the reader is of no more use:
    /// - `H3_FRAME_UNEXPECTED` for the frame types of HTTP/2 (RFC 9114 section 7.2.8).
    /// - `H3_FRAME_ERROR` when a payload is not exactly its one varint (section 7.1).
    /// - `H3_EXCESSIVE_LOAD` for HEADERS or SETTINGS above their limit.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<FrameEvent>, Code> {
        loop {
            match &mut self.state {
                State::Type(reader) => {
                    let Some(ty) = reader.read(input) else {
                        return Ok(None);
                    };
                    let reader = VarintReader::default();
                    self.state = State::Length { ty, reader };
                }
                State::Length { ty, reader } => {
                    let Some(len) = reader.read(input) else {
                        return Ok(None);
                    };
                    let ty = *ty;
                    if let Some(event) = self.start(ty, len)? {
                        return Ok(Some(event));
                    }
                }
                State::Collect {
                    kind,
                    missing,
                    payload,
                } => {
                    let piece = take(input, missing);
                    if *missing > 0 {
                        payload.extend_from_slice(&piece);
                        return Ok(None);
                    }
                    let whole = if payload.is_empty() {
                        piece
                    } else {
                        payload.extend_from_slice(&piece);
                        payload.split().freeze()
                    };
                    let kind = *kind;
                    self.state = State::BETWEEN_FRAMES;
                    return kind.event(whole).map(Some);
                }
                State::Stream { missing } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let piece = take(input, missing);
                    if *missing == 0 {
                        self.state = State::BETWEEN_FRAMES;
                    }
                    return Ok(Some(FrameEvent::Data(piece)));
                }
                State::Skip { missing } => {
                    let piece = take(input, missing);
                    self.skipped_bytes += piece.len() as u64;
                    if *missing > 0 {
                        return Ok(None);
                    }
                    self.state = State::BETWEEN_FRAMES;
                }
            }
        }
    }

    /// True when the octets so far end inside a frame: a stream that ends cleanly now is a
    /// connection error `H3_FRAME_ERROR`, one that is reset is not (RFC 9114 section 7.1).
    pub fn is_mid_frame(&self) -> bool {
        match &self.state {
            State::Type(reader) => reader.is_started(),
            State::Skip { missing } => *missing > 0,
            State::Length { .. } | State::Collect { .. } | State::Stream { .. } => true,
        }
    }

    /// How many frames of unknown or reserved type have started.
    pub fn skipped_frames(&self) -> u64 {
        self.skipped_frames
    }

    /// How many octets of payload were dropped.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    /// Chooses the state for the payload after a frame header.
    fn start(&mut self, ty: u64, len: u64) -> Result<Option<FrameEvent>, Code> {
        let kind = match ty {
            DATA if len == 0 => {
                self.state = State::BETWEEN_FRAMES;
                return Ok(Some(FrameEvent::Data(Bytes::new())));
            }
            DATA => {
                self.state = State::Stream { missing: len };
                return Ok(None);
            }
            HEADERS => Collected::Headers,
            SETTINGS => Collected::Settings,
            GOAWAY => Collected::GoAway,
            MAX_PUSH_ID => Collected::MaxPushId,
            CANCEL_PUSH => Collected::CancelPush,
            // HTTP/2's PRIORITY, PING, WINDOW_UPDATE and CONTINUATION.
            0x02 | 0x06 | 0x08 | 0x09 => return Err(Code::H3_FRAME_UNEXPECTED),
            PUSH_PROMISE => {
                self.state = State::Skip { missing: len };
                return Ok(Some(FrameEvent::PushPromise));
            }
            _ => {
                self.state = State::Skip { missing: len };
                self.skipped_frames += 1;
                return Ok(Some(FrameEvent::Skipped { ty, len }));
            }
        };
        kind.check_len(len, self.headers_len_max)?;
        // The buffer grows with what arrives, not with what the length promises.
        self.state = State::Collect {
            kind,
            missing: len,
            payload: BytesMut::new(),
        };
        Ok(None)
    }
}

impl Collected {
    fn check_len(self, len: u64, headers_len_max: u64) -> Result<(), Code> {
        match self {
            Self::Headers if len > headers_len_max => Err(Code::H3_EXCESSIVE_LOAD),
            Self::Settings if len > settings::PAYLOAD_LEN_MAX as u64 => {
                Err(Code::H3_EXCESSIVE_LOAD)
            }
            Self::GoAway | Self::MaxPushId | Self::CancelPush
                if !(1..=ID_LEN_MAX).contains(&len) =>
            {
                Err(Code::H3_FRAME_ERROR)
            }
            Self::Headers | Self::Settings | Self::GoAway | Self::MaxPushId | Self::CancelPush => {
                Ok(())
            }
        }
    }

    fn event(self, payload: Bytes) -> Result<FrameEvent, Code> {
        Ok(match self {
            Self::Headers => FrameEvent::Headers(payload),
            Self::Settings => FrameEvent::Settings(payload),
            Self::GoAway => FrameEvent::GoAway(only_varint(&payload)?),
            Self::MaxPushId => FrameEvent::MaxPushId(only_varint(&payload)?),
            Self::CancelPush => FrameEvent::CancelPush(only_varint(&payload)?),
        })
    }
}

/// A varint that arrives in pieces; longer forms than needed are accepted.
///
/// Also reads the type at the start of a unidirectional stream.
#[derive(Clone, Debug, Default)]
pub struct VarintReader {
    value: u64,
    missing: Option<u8>,
}

impl VarintReader {
    /// Takes octets from the front of `input` until the varint is complete; `None` wants more.
    pub fn read(&mut self, input: &mut Bytes) -> Option<u64> {
        while self.missing != Some(0) {
            let octet = input.try_get_u8().ok()?;
            match &mut self.missing {
                None => {
                    self.value = (octet & 0x3f).into();
                    self.missing = Some((1 << (octet >> 6)) - 1);
                }
                Some(missing) => {
                    self.value = (self.value << 8) | u64::from(octet);
                    *missing -= 1;
                }
            }
        }
        Some(self.value)
    }

    /// True once an octet was read.
    pub fn is_started(&self) -> bool {
        self.missing.is_some()
    }
}

/// Appends a frame header; `len` octets of payload are to follow.
pub fn encode_header(ty: u64, len: u64, out: &mut impl BufMut) {
    varint::encode(ty, out);
    varint::encode(len, out);
}

/// Appends a GOAWAY frame: a server names a request stream id, a client a push id.
pub fn encode_goaway(id: u64, out: &mut impl BufMut) {
    encode_header(GOAWAY, varint::size(id) as u64, out);
    varint::encode(id, out);
}

/// Takes up to `missing` octets from the front of `input`.
fn take(input: &mut Bytes, missing: &mut u64) -> Bytes {
    let len = usize::try_from(*missing).map_or(input.len(), |missing| missing.min(input.len()));
    *missing -= len as u64;
    input.split_to(len)
}

fn only_varint(payload: &[u8]) -> Result<u64, Code> {
    match varint::decode(payload) {
        Some((value, used)) if used == payload.len() => Ok(value),
        Some(_) | None => Err(Code::H3_FRAME_ERROR),
    }
}

#[cfg(test)]
mod tests;
