//! Request streams of connections: who owns them, their datagrams, their data, and how they end.

use std::time::Instant;

use bytes::Bytes;

use super::connection::End;
use super::{ConnectionId, StreamId, TcpHub, live, open};
use crate::http::h3::code::Code;
use crate::http::h3::{RecvData, RequestError, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::transport::quic::SendOutcome;
use crate::wire::capsule;
use crate::wire::datagram::{ContextId, UDP_PAYLOAD_MAX};

impl TcpHub {
    /// Names the owner of a request stream; the end of the connection is reported with it.
    pub fn bind(&mut self, id: ConnectionId, stream: StreamId, owner: u64) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.bound.insert(stream.0, owner);
        }
    }

    /// Forgets the owner of a request stream.
    pub fn unbind(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.bound.remove(&stream.0);
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
        self.get(id)?.bound.get(&stream.0).copied()
    }

    /// Opens a request stream.
    ///
    /// # Errors
    /// As [`h3::Connection::request`](crate::http::h3::Connection::request); a connection that is gone counts as going
    /// away.
    pub fn request(
        &mut self,
        id: ConnectionId,
        head: &RequestHead,
    ) -> Result<StreamId, RequestError> {
        let connection = open(&mut self.connections, id).ok_or(RequestError::GoingAway)?;
        let stream = connection.http.request(head);
        self.mark_dirty(id.index);
        stream
    }

    /// Answers a request; with `fin` the answer is all there will be, and the stream is over. Returns whether the
    /// answer went out: a client may have stopped listening.
    pub fn respond(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        head: &ResponseHead,
        fin: bool,
    ) -> bool {
        let Some(connection) = open(&mut self.connections, id) else {
            return false;
        };
        let answered = connection.http.respond(stream, head, fin);
        self.mark_dirty(id.index);
        answered
    }

    /// Answers a request that asked for no tunnel. `content_bytes` bytes of content follow with
    /// [`TcpHub::send_data`], which is what Content-Length in `head` has to say on HTTP/1.1, and [`TcpHub::finish`]
    /// behind them; without any the stream is over. Returns whether the answer went out.
    pub fn respond_content(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        head: &ResponseHead,
        content_bytes: usize,
    ) -> bool {
        let Some(connection) = open(&mut self.connections, id) else {
            return false;
        };
        let answered = connection.http.respond_content(stream, head, content_bytes);
        self.mark_dirty(id.index);
        answered
    }

    /// Reads the data stream of a request, at most `bytes_max` bytes. Every byte returned gives credit to the peer;
    /// [`Event::Readable`](super::Event::Readable) follows only after `Blocked`.
    pub fn recv_data(
        &mut self,
        _now: Instant,
        id: ConnectionId,
        stream: StreamId,
        bytes_max: usize,
    ) -> RecvData {
        // Also behind the end, until its event is polled: what came before it is not lost.
        let Some(connection) = live(&mut self.connections, id) else {
            return RecvData::Gone;
        };
        if connection.end == End::Polled {
            return RecvData::Gone;
        }
        let read = connection.http.recv_data(stream, bytes_max);
        self.stats.tcp_streams_stalled += connection.http.take_stalled();
        self.mark_dirty(id.index);
        read
    }

    /// Bytes that [`TcpHub::send_data`] takes now. When it is 0, [`Event::Writable`](super::Event::Writable) follows as
    /// soon as there is room, unless the stream is over.
    pub fn send_room(&mut self, id: ConnectionId, stream: StreamId) -> usize {
        open(&mut self.connections, id).map_or(0, |connection| connection.http.send_room(stream))
    }

    /// Sends data, all of it or nothing: no more than [`TcpHub::send_room`] says.
    pub fn send_data(&mut self, id: ConnectionId, stream: StreamId, data: Bytes) -> SendData {
        let Some(connection) = open(&mut self.connections, id) else {
            return SendData::Gone;
        };
        let sent = connection.http.send_data(stream, data);
        self.mark_dirty(id.index);
        sent
    }

    /// Sends one datagram as a capsule, or queues it (RFC 9297 section 3.5); `payload` is what follows Context ID 0.
    pub fn send_datagram(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        payload: &[u8],
    ) -> SendOutcome {
        if payload.len() > UDP_PAYLOAD_MAX {
            self.stats.tcp_dropped_too_large += 1;
            return SendOutcome::TooLarge;
        }
        let Some(connection) = open(&mut self.connections, id) else {
            return SendOutcome::Gone;
        };
        let key = u64::from(stream.0);
        let sent = if connection.outbox.waiting(key) > 0 {
            SendData::Blocked
        } else {
            send_capsule(&mut connection.http, stream, payload)
        };
        let outcome = match sent {
            SendData::Written => {
                self.stats.tcp_capsules_sent += 1;
                SendOutcome::Sent
            }
            SendData::Blocked => {
                self.stats.tcp_datagrams_queued += 1;
                let waiting = Bytes::copy_from_slice(payload);
                let dropped = connection.outbox.push(key, waiting, self.limits.outbox);
                self.stats.tcp_dropped_queue_full += dropped as u64;
                SendOutcome::Queued
            }
            SendData::Gone => SendOutcome::Gone,
        };
        self.mark_dirty(id.index);
        outcome
    }

    /// Sends the payload of a datagram with any Context ID as a capsule, or drops it where there is no room.
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
        let len = capsule::DATAGRAM_HEAD_MAX + payload.len();
        let sent = connection.http.send_capsule(stream, len, |out| {
            capsule::encode_datagram_head(context, payload.len(), out);
            out.extend_from_slice(payload);
        });
        self.mark_dirty(id.index);
        match sent {
            SendData::Written => {
                self.stats.tcp_capsules_sent += 1;
                SendOutcome::Sent
            }
            SendData::Blocked => {
                self.stats.tcp_dropped_queue_full += 1;
                SendOutcome::Blocked
            }
            SendData::Gone => SendOutcome::Gone,
        }
    }

    /// Whether datagrams of `stream` wait for room.
    pub fn is_waiting(&self, id: ConnectionId, stream: StreamId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.outbox.waiting(u64::from(stream.0)) > 0)
    }

    /// Ends our direction of a request stream in an orderly way, and drops the datagrams that still waited for it.
    pub fn finish(&mut self, id: ConnectionId, stream: StreamId) {
        self.forget_waiting(id, stream);
        if let Some(connection) = open(&mut self.connections, id) {
            connection.http.finish(stream);
            self.mark_dirty(id.index);
        }
    }

    /// Ends both directions of a request stream with an error code.
    pub fn reset(&mut self, id: ConnectionId, stream: StreamId, code: Code) {
        self.forget_waiting(id, stream);
        if let Some(connection) = open(&mut self.connections, id) {
            connection.http.reset(stream, code);
            self.mark_dirty(id.index);
        }
    }

    /// Reads nothing more of a request stream. HTTP/2 has no way to say so before our direction has ended as well;
    /// until then what comes is thrown away.
    pub fn stop(&mut self, id: ConnectionId, stream: StreamId, _code: Code) {
        if let Some(connection) = open(&mut self.connections, id) {
            connection.http.stop(stream);
            self.mark_dirty(id.index);
        }
    }

    /// Reads nothing more of a request stream whose other direction has ended, and leaves it to the peer to end it:
    /// HTTP/2 could only reset it, and lose what is still on its way.
    pub fn leave(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(connection) = open(&mut self.connections, id) {
            connection.http.leave(stream);
            self.mark_dirty(id.index);
        }
    }

    fn forget_waiting(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(connection) = open(&mut self.connections, id) {
            let dropped = connection.outbox.remove(u64::from(stream.0));
            self.stats.tcp_dropped_closed += dropped as u64;
        }
    }
}

/// A DATAGRAM capsule with Context ID 0, all or nothing.
pub(super) fn send_capsule(
    http: &mut super::http::Http,
    stream: StreamId,
    payload: &[u8],
) -> SendData {
    let len = capsule::DATAGRAM_HEAD_MAX + payload.len();
    http.send_capsule(stream, len, |out| {
        capsule::encode_datagram_head(ContextId::UDP_PAYLOAD, payload.len(), out);
        out.extend_from_slice(payload);
    })
}
