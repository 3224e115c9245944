//! What the HTTP/3 machine needs from a QUIC connection: streams, and nothing about packets or time.
//!
//! ```text
//!   Connection (HTTP/3) ──open, accept, read, write, finish, reset, stop──► Transport
//!                       ◄──────────────── quinn_proto::StreamEvent ────────  (fed by the owner)
//! ```
//!
//! [`quinn_proto::Connection`] implements it for production; tests and fuzzing use an in-memory pair.
//! QUIC DATAGRAM frames do not pass through here: the owner moves them itself, the machine only says
//! where they belong.

use bytes::Bytes;
pub use quinn_proto::{Dir, Side, StreamEvent, StreamId};

use super::code::Code;

/// The streams of one QUIC connection.
///
/// Every call is immediate: it queues work inside the transport and never waits. An operation on a stream
/// that the transport has forgotten is answered with `Closed` or ignored; it never panics.
pub trait Transport {
    /// Opens a unidirectional stream, or `None` while the peer grants no more of them.
    fn open_uni(&mut self) -> Option<StreamId>;

    /// Opens a bidirectional stream, or `None` while the peer grants no more of them.
    fn open_bidi(&mut self) -> Option<StreamId>;

    /// The next unidirectional stream that the peer opened.
    fn accept_uni(&mut self) -> Option<StreamId>;

    /// The next bidirectional stream that the peer opened.
    fn accept_bidi(&mut self) -> Option<StreamId>;

    /// Takes as many bytes of `data` as credit and buffers allow, and returns their count.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] when not even one byte fits; a [`StreamEvent::Writable`] follows.
    fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError>;

    /// Reads the next bytes in order, at most `bytes_max`, and returns their credit to the peer.
    fn read(&mut self, id: StreamId, bytes_max: usize) -> Read;

    /// The code of a RESET_STREAM that arrived, without reading the stream up to it.
    ///
    /// A returned code ends the receiving side: later reads give [`Read::Closed`].
    fn received_reset(&mut self, id: StreamId) -> Option<Code>;

    /// Ends the sending side in order (FIN).
    fn finish(&mut self, id: StreamId);

    /// Abandons the sending side (RESET_STREAM).
    fn reset(&mut self, id: StreamId, code: Code);

    /// Stops reading and asks the peer to stop sending (STOP_SENDING).
    fn stop(&mut self, id: StreamId, code: Code);

    /// Largest payload of a QUIC DATAGRAM frame towards the peer in bytes, or `None` when either end lacks
    /// the extension (RFC 9221 section 3).
    fn datagram_size_max(&mut self) -> Option<usize>;
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The next bytes of the stream; never empty.
    Data(Bytes),
    /// Nothing at the moment; a [`StreamEvent::Readable`] follows.
    Blocked,
    /// The peer ended the stream in order and everything was read.
    Finished,
    /// The peer reset the stream.
    Reset(Code),
    /// The receiving side is gone: read to its end earlier, or stopped by us.
    Closed,
}

/// Why a write took nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No credit or no buffer space.
    #[error("blocked")]
    Blocked,
    /// The peer sent STOP_SENDING; a [`StreamEvent::Stopped`] tells the same.
    #[error("stopped by the peer with {0}")]
    Stopped(Code),
    /// The sending side is gone.
    #[error("closed")]
    Closed,
}
