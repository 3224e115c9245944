//! What has arrived and was not read yet, and the end of it.

use bytes::BytesMut;

use crate::http::h3::RecvData;
use crate::http::h3::code::Code;

/// How the peer ended its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With a closure alert of TLS, or the end of a tunnel in order.
    Orderly,
    /// Without one: what came before may be incomplete (RFC 9112 section 9.8).
    Cut,
    /// The owner knows of the end.
    Told,
}

/// The receiving side of a connection.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) buffer: BytesMut,
    end: Option<End>,
    /// `recv_data` said blocked, or was never called.
    is_blocked: bool,
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            end: None,
            is_blocked: true,
        }
    }

    /// Takes up to `room` bytes off `input`, without a copy when nothing else waits.
    pub(super) fn take(&mut self, input: &mut BytesMut, room: usize) {
        if self.end.is_some() {
            input.clear();
            return;
        }
        let taken = input.split_to(room.min(input.len()));
        if self.buffer.is_empty() {
            self.buffer = taken;
        } else {
            self.buffer.extend_from_slice(&taken);
        }
    }

    pub(super) fn handle_end(&mut self, is_orderly: bool) {
        if self.end.is_none() {
            self.end = Some(if is_orderly { End::Orderly } else { End::Cut });
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// True when the peer is gone, although what it sent before may wait here.
    pub(super) fn is_cut(&self) -> bool {
        self.end == Some(End::Cut)
    }

    /// Forgets what waits and whatever comes; the owner is told of an end in order.
    pub(super) fn discard(&mut self) {
        self.buffer = BytesMut::new();
        self.end = Some(End::Orderly);
    }

    /// Forgets what waits and whatever comes; there is nothing to tell.
    pub(super) fn shut(&mut self) {
        self.buffer = BytesMut::new();
        self.end = Some(End::Told);
    }

    /// The bytes of the tunnel, then its end, once.
    pub(super) fn recv_data(&mut self, bytes_max: usize) -> RecvData {
        if !self.buffer.is_empty() {
            let len = self.buffer.len().min(bytes_max.max(1));
            return RecvData::Data(self.buffer.split_to(len).freeze());
        }
        self.recv_end()
    }

    /// The end; bytes that wait before it are dropped.
    pub(super) fn recv_end(&mut self) -> RecvData {
        if self.end.is_some() {
            self.buffer.clear();
        }
        match self.end {
            None => {
                self.is_blocked = true;
                RecvData::Blocked
            }
            Some(End::Orderly) => {
                self.end = Some(End::Told);
                RecvData::Finished
            }
            Some(End::Cut) => {
                self.end = Some(End::Told);
                RecvData::Reset(Code::H3_REQUEST_CANCELLED)
            }
            Some(End::Told) => RecvData::Gone,
        }
    }

    /// Nothing can be read at the moment, and the owner wants to know when that changes.
    pub(super) fn block(&mut self) -> RecvData {
        self.is_blocked = true;
        RecvData::Blocked
    }

    /// True once for each time that something came after a read was blocked.
    pub(super) fn poll_readable(&mut self) -> bool {
        let has_end = self.end.is_some_and(|end| end != End::Told);
        let is_readable = self.is_blocked && (!self.buffer.is_empty() || has_end);
        if is_readable {
            self.is_blocked = false;
        }
        is_readable
    }
}
