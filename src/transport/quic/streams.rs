//! Request streams of connections: who owns them, their datagrams, their data, and how they end.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::StreamId;

use super::{ConnectionId, Hub, SendOutcome, live, open};
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::{RequestHead, ResponseHead};
use crate::wire::datagram::ContextId;
use crate::wire::varint;

impl Hub {
    /// The next tunnel datagram of a connection: its request stream, the owner of that stream, and the HTTP
    /// Datagram payload, which starts with the Context ID.
    pub fn recv_datagram(
        &mut self,
        now: Instant,
        id: ConnectionId,
    ) -> Option<(StreamId, u64, Bytes)> {
        let connection = live(&mut self.connections, id)?;
        loop {
            match connection.recv_datagram(now, &mut self.stats) {
                Ok(None) => return None,
                Ok(Some((stream, datagram))) => match connection.bound.get(&stream.index()) {
                    Some(&owner) => return Some((stream, owner, datagram)),
                    None => self.stats.dropped_unroutable += 1,
                },
                Err(error) => {
                    self.fail(now, id, error);
                    return None;
                }
            }
        }
    }

    /// Names the owner of a request stream; its datagrams and the end of the connection are reported with it.
    pub fn bind(&mut self, id: ConnectionId, stream: StreamId, owner: u64) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.bound.insert(stream.index(), owner);
        }
    }

    /// Forgets the owner of a request stream.
    pub fn unbind(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.bound.remove(&stream.index());
        }
    }

    /// How many streams have an owner, of all connections.
    pub fn bound_count(&self) -> usize {
        let connections = self.connections.iter();
        connections
            .map(|(_, connection)| connection.bound.len())
            .sum()
    }

    /// The owner of a request stream.
    pub fn owner(&self, id: ConnectionId, stream: StreamId) -> Option<u64> {
        self.get(id)?.bound.get(&stream.index()).copied()
    }

    /// Sends one datagram on a request stream, or queues it; `payload` is what follows the Context ID 0.
    pub fn send_datagram(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        payload: &[u8],
    ) -> SendOutcome {
        let Some(connection) = open(&mut self.connections, id) else {
            return SendOutcome::Gone;
        };
        let framed = self.arena.frame(stream.index(), payload);
        let outcome = connection.send_datagram(stream, framed, self.limits.outbox, &mut self.stats);
        self.mark_dirty(id.index);
        outcome
    }

    /// Sends the payload of a datagram with any Context ID, or queues it.
    pub fn send_context(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        context: ContextId,
        payload: &[u8],
    ) -> SendOutcome {
        let Some(connection) = open(&mut self.connections, id) else {
            return SendOutcome::Gone;
        };
        let mut framed = BytesMut::with_capacity(2 * varint::SIZE_MAX + payload.len());
        varint::encode(stream.index(), &mut framed);
        context.encode(&mut framed);
        framed.extend_from_slice(payload);
        let (limits, stats) = (self.limits.outbox, &mut self.stats);
        let outcome = connection.send_datagram(stream, framed.freeze(), limits, stats);
        self.mark_dirty(id.index);
        outcome
    }

    /// Whether datagrams of `stream` wait for room.
    pub fn is_waiting(&self, id: ConnectionId, stream: StreamId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.outbox.waiting(stream.index()) > 0)
    }

    /// Largest UDP payload that a tunnel on `stream` can send now, as long as the peer takes QUIC datagrams.
    pub fn payload_size_max(&mut self, id: ConnectionId, stream: StreamId) -> Option<usize> {
        open(&mut self.connections, id)?.payload_size_max(stream)
    }

    /// Opens a request stream. See [`h3::Connection::request`].
    ///
    /// # Errors
    /// As there; a connection that is gone counts as going away.
    pub fn request(
        &mut self,
        id: ConnectionId,
        head: &RequestHead,
    ) -> Result<StreamId, h3::RequestError> {
        let connection = open(&mut self.connections, id).ok_or(h3::RequestError::GoingAway)?;
        let stream = connection.h3.request(&mut connection.quic, head);
        self.mark_dirty(id.index);
        stream
    }

    /// Answers a request; with `fin` the answer is all there will be. Returns whether the answer went out: a client
    /// may have stopped listening, or accept no answer of this size. Then the stream is reset.
    pub fn respond(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        head: &ResponseHead,
        fin: bool,
    ) -> bool {
        let mut answered = false;
        self.with(id, |h3, quic| match h3.respond(quic, stream, head, fin) {
            Ok(()) => answered = true,
            Err(error) => {
                tracing::debug!(%error, "a response was not sent");
                h3.reset(quic, stream, Code::H3_REQUEST_CANCELLED);
            }
        });
        answered
    }

    /// Reads the data stream of a request: what DATA frames carry, at most `bytes_max` bytes at once.
    pub fn recv_data(
        &mut self,
        now: Instant,
        id: ConnectionId,
        stream: StreamId,
        bytes_max: usize,
    ) -> h3::RecvData {
        let Some(connection) = open(&mut self.connections, id) else {
            return h3::RecvData::Blocked;
        };
        let read = connection
            .h3
            .recv_data(&mut connection.quic, stream, bytes_max);
        self.touch(id.index);
        self.mark_dirty(id.index);
        read.unwrap_or_else(|error| {
            self.fail(now, id, error);
            h3::RecvData::Blocked
        })
    }

    /// How many bytes of data the stream takes now. See [`h3::Connection::send_room`].
    pub fn send_room(&mut self, id: ConnectionId, stream: StreamId) -> usize {
        let Some(connection) = open(&mut self.connections, id) else {
            return 0;
        };
        connection.h3.send_room(&mut connection.quic, stream)
    }

    /// Sends bytes on the data stream of a request. See [`h3::Connection::send_data`].
    pub fn send_data(&mut self, id: ConnectionId, stream: StreamId, data: &[u8]) -> h3::SendData {
        let Some(connection) = open(&mut self.connections, id) else {
            return h3::SendData::Gone;
        };
        let sent = connection.h3.send_data(&mut connection.quic, stream, data);
        self.mark_dirty(id.index);
        sent
    }

    /// Ends our direction of a request stream in an orderly way, and drops what still waited for it.
    pub fn finish(&mut self, id: ConnectionId, stream: StreamId) {
        self.forget_waiting(id, stream);
        self.with(id, |h3, quic| h3.finish(quic, stream));
    }

    /// Ends both directions of a request stream with an error code.
    pub fn reset(&mut self, id: ConnectionId, stream: StreamId, code: Code) {
        self.forget_waiting(id, stream);
        self.with(id, |h3, quic| h3.reset(quic, stream, code));
    }

    /// Asks the peer to stop sending on a request stream.
    pub fn stop(&mut self, id: ConnectionId, stream: StreamId, code: Code) {
        self.with(id, |h3, quic| h3.stop(quic, stream, code));
    }

    fn with(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut h3::Connection, &mut quinn_proto::Connection),
    ) {
        if let Some(connection) = open(&mut self.connections, id) {
            act(&mut connection.h3, &mut connection.quic);
            self.touch(id.index);
            self.mark_dirty(id.index);
        }
    }

    fn forget_waiting(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(connection) = open(&mut self.connections, id) {
            self.stats.dropped_closed += connection.outbox.remove(stream.index()) as u64;
        }
    }
}
