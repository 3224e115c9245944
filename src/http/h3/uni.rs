//! Unidirectional streams: control and QPACK in both directions (RFC 9114 section 6.2, RFC 9204 section 4.2).
//!
//! ```text
//!   ours     open ──► type, then SETTINGS on control; kept for the life of the connection
//!   peer's   untyped ──type──► control | QPACK encoder | QPACK decoder      one of each, never closed
//!                         └──► push: an error        any other: stopped and forgotten
//! ```

use bytes::Bytes;
use quinn_proto::StreamId;

use super::code::Code;
use super::config::Config;
use super::event::{ConnectionError, Role};
use super::frame::{FrameReader, VarintReader};
use super::outgoing::Outgoing;
use super::qpack;
use super::transport::Transport;
use crate::wire::varint;

/// Stream types (RFC 9114 section 6.2, RFC 9204 section 4.2).
const CONTROL: u64 = 0x00;
const PUSH: u64 = 0x01;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// One of our streams. What is written before it could be opened waits in `outgoing`.
#[derive(Debug)]
struct LocalStream {
    id: Option<StreamId>,
    outgoing: Outgoing,
}

impl LocalStream {
    fn new(ty: u64) -> Self {
        let mut head = Vec::new();
        varint::encode(ty, &mut head);
        let mut outgoing = Outgoing::default();
        outgoing.hold(&head);
        Self { id: None, outgoing }
    }

    fn open(&mut self, t: &mut impl Transport) -> Result<(), ConnectionError> {
        if self.id.is_none() {
            self.id = t.open_uni();
        }
        self.flush(t)
    }

    fn flush(&mut self, t: &mut impl Transport) -> Result<(), ConnectionError> {
        if let Some(id) = self.id {
            self.outgoing.flush(t, id).map_err(|_| STOPPED)?;
        }
        Ok(())
    }
}

const STOPPED: ConnectionError = ConnectionError::new(
    Code::H3_CLOSED_CRITICAL_STREAM,
    "our control or QPACK stream was stopped",
);

/// Our three streams.
#[derive(Debug)]
pub(super) struct LocalStreams {
    control: LocalStream,
    encoder: LocalStream,
    decoder: LocalStream,
}

impl LocalStreams {
    pub(super) fn new() -> Self {
        Self {
            control: LocalStream::new(CONTROL),
            encoder: LocalStream::new(QPACK_ENCODER),
            decoder: LocalStream::new(QPACK_DECODER),
        }
    }

    /// Keeps frames for the control stream, behind its type.
    pub(super) fn hold_control(&mut self, frames: &[u8]) {
        self.control.outgoing.hold(frames);
    }

    /// Opens what the peer allows, control first, and sends what waits.
    pub(super) fn open(&mut self, t: &mut impl Transport) -> Result<(), ConnectionError> {
        self.control.open(t)?;
        self.encoder.open(t)?;
        self.decoder.open(t)
    }

    /// Sends frames on the control stream, or keeps them until it is open.
    pub(super) fn send_control(
        &mut self,
        t: &mut impl Transport,
        frames: &[u8],
    ) -> Result<(), ConnectionError> {
        self.hold_control(frames);
        self.control.flush(t)
    }

    /// Goes on with a stream that takes octets again.
    pub(super) fn writable(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
    ) -> Result<(), ConnectionError> {
        for stream in [&mut self.control, &mut self.encoder, &mut self.decoder] {
            if stream.id == Some(id) {
                stream.flush(t)?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// H3_CLOSED_CRITICAL_STREAM: a peer must not ask us to close one of them.
    pub(super) fn stopped(&self, id: StreamId) -> Result<(), ConnectionError> {
        if [&self.control, &self.encoder, &self.decoder]
            .iter()
            .any(|stream| stream.id == Some(id))
        {
            return Err(STOPPED);
        }
        Ok(())
    }
}

/// What a unidirectional stream of the peer is, with what its octets need.
#[derive(Debug)]
pub(super) enum PeerStream {
    /// Its type has not arrived.
    Untyped(VarintReader),
    Control(Box<FrameReader>),
    Encoder(qpack::EncoderStream),
    Decoder(qpack::DecoderStream),
}

/// What to do with the octets behind the type.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// The type is incomplete.
    NotYet,
    /// The stream is read on.
    Known,
    /// Nobody knows the type: stop the stream.
    Unknown,
}

/// The peer's streams that we read. Few: QUIC bounds the untyped ones, the others are three.
#[derive(Debug, Default)]
pub(super) struct PeerStreams {
    streams: Vec<(StreamId, PeerStream)>,
    unknown_count: u32,
}

impl PeerStreams {
    pub(super) fn accept(&mut self, id: StreamId) {
        self.streams
            .push((id, PeerStream::Untyped(VarintReader::default())));
    }

    pub(super) fn stream(&mut self, id: StreamId) -> Option<&mut PeerStream> {
        self.streams
            .iter_mut()
            .find(|(known, _)| *known == id)
            .map(|(_, stream)| stream)
    }

    /// Reads the type of an untyped stream from the front of `bytes`.
    ///
    /// # Errors
    /// A second control or QPACK stream, a push stream, or more unknown ones than the limit.
    pub(super) fn read_type(
        &mut self,
        id: StreamId,
        bytes: &mut Bytes,
        role: Role,
        config: &Config,
    ) -> Result<Typed, ConnectionError> {
        let ty = match self.stream(id) {
            Some(PeerStream::Untyped(reader)) => match reader.read(bytes) {
                Some(ty) => ty,
                None => return Ok(Typed::NotYet),
            },
            Some(PeerStream::Control(_) | PeerStream::Encoder(_) | PeerStream::Decoder(_)) => {
                return Ok(Typed::Known);
            }
            None => return Ok(Typed::Unknown),
        };
        let (stream, is_second) = match ty {
            CONTROL => (
                PeerStream::Control(Box::new(FrameReader::new(config.headers_len_max))),
                self.any(|stream| matches!(stream, PeerStream::Control(_))),
            ),
            QPACK_ENCODER => (
                PeerStream::Encoder(qpack::EncoderStream::default()),
                self.any(|stream| matches!(stream, PeerStream::Encoder(_))),
            ),
            QPACK_DECODER => (
                PeerStream::Decoder(qpack::DecoderStream::default()),
                self.any(|stream| matches!(stream, PeerStream::Decoder(_))),
            ),
            PUSH => {
                return Err(match role {
                    Role::Server => ConnectionError::new(
                        Code::H3_STREAM_CREATION_ERROR,
                        "push stream from a client",
                    ),
                    Role::Client => {
                        ConnectionError::new(Code::H3_ID_ERROR, "push stream without MAX_PUSH_ID")
                    }
                });
            }
            _ => {
                self.forget(id);
                self.unknown_count = self.unknown_count.saturating_add(1);
                if self.unknown_count > config.unknown_streams_max {
                    return Err(ConnectionError::new(
                        Code::H3_EXCESSIVE_LOAD,
                        "too many unknown streams",
                    ));
                }
                return Ok(Typed::Unknown);
            }
        };
        if is_second {
            return Err(ConnectionError::new(
                Code::H3_STREAM_CREATION_ERROR,
                "second control or QPACK stream",
            ));
        }
        if let Some(slot) = self.stream(id) {
            *slot = stream;
        }
        Ok(Typed::Known)
    }

    /// The peer ended or reset the stream.
    ///
    /// # Errors
    /// H3_CLOSED_CRITICAL_STREAM for control and QPACK streams; before its type a stream may end as it likes.
    pub(super) fn closed(&mut self, id: StreamId) -> Result<(), ConnectionError> {
        match self.stream(id) {
            Some(PeerStream::Untyped(_)) | None => {
                self.forget(id);
                Ok(())
            }
            Some(PeerStream::Control(_) | PeerStream::Encoder(_) | PeerStream::Decoder(_)) => {
                Err(ConnectionError::new(
                    Code::H3_CLOSED_CRITICAL_STREAM,
                    "control or QPACK stream closed",
                ))
            }
        }
    }

    fn forget(&mut self, id: StreamId) {
        self.streams.retain(|(known, _)| *known != id);
    }

    fn any(&self, is: impl Fn(&PeerStream) -> bool) -> bool {
        self.streams.iter().any(|(_, stream)| is(stream))
    }
}
