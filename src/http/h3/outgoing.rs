//! Octets on their way into one stream: what the transport does not take at once waits here.
//!
//! Holds no buffer while nothing waits, which is the normal state of a tunnel.

use bytes::{Buf, BytesMut};
use quinn_proto::StreamId;

use super::transport::{Transport, WriteError};

/// The unsent rest of what was written to one stream.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    unsent: BytesMut,
}

/// The sending side of the stream is gone: stopped by the peer or closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SendGone;

impl Outgoing {
    /// How many octets wait.
    pub(super) fn len(&self) -> usize {
        self.unsent.len()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.unsent = BytesMut::new();
    }

    /// Keeps `bytes` until [`Outgoing::flush`]; for a stream that is not open yet.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Sends the pieces in order behind what waits; the rest that the transport does not take waits as well.
    pub(super) fn send(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
        pieces: &[&[u8]],
    ) -> Result<(), SendGone> {
        for piece in pieces {
            let mut rest = *piece;
            if self.unsent.is_empty() {
                write(t, id, &mut rest)?;
            }
            self.unsent.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Sends what waits; true when nothing is left.
    pub(super) fn flush(&mut self, t: &mut impl Transport, id: StreamId) -> Result<bool, SendGone> {
        if self.unsent.is_empty() {
            return Ok(true);
        }
        write(t, id, &mut self.unsent)?;
        if !self.unsent.is_empty() {
            return Ok(false);
        }
        self.clear();
        Ok(true)
    }
}

/// Writes until nothing is left or the transport says blocked. Stopping after a short write would not do: QUIC tells
/// that a stream is writable again only after it said blocked.
fn write(t: &mut impl Transport, id: StreamId, bytes: &mut impl Buf) -> Result<(), SendGone> {
    while bytes.has_remaining() {
        match t.write(id, bytes.chunk()) {
            Ok(count) => bytes.advance(count),
            Err(WriteError::Blocked) => break,
            Err(WriteError::Stopped(_) | WriteError::Closed) => return Err(SendGone),
        }
    }
    Ok(())
}
