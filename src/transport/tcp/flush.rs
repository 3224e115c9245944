//! The end of a turn: every connection that has something to say writes it to its link.

use std::io::{self, IoSlice, Write};
use std::time::Instant;

use bytes::Bytes;

use super::connection::{Connection, End, Phase};
use super::streams::send_capsule;
use super::{ByteLink, CloseReason, ConnectionId, StreamId, TcpHub, TcpHubStats, live};
use crate::http::h3::SendData;
use crate::net::{Network, TcpClose, TcpId};

/// What a nested connection wants of the tunnel that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// To be sent in the tunnel.
    Bytes(Bytes),
    /// Nothing now.
    Blocked,
    /// Nothing more: end the tunnel in an orderly way.
    Finished,
    /// Nothing more: the tunnel is to be reset.
    Aborted,
}

impl TcpHub {
    /// Writes what the dirty connections have to write. What a nested connection has to write waits for
    /// [`TcpHub::poll_output`], see [`TcpHub::next_output`].
    pub fn flush(&mut self, now: Instant, net: &mut impl Network) {
        while let Some(index) = self.dirty.pop_front() {
            self.flush_connection(now, index, net);
        }
        for index in std::mem::take(&mut self.later) {
            if let Some(connection) = self.connections.get_mut(index as usize) {
                connection.later = false;
                self.touch(index);
            }
        }
    }

    fn flush_connection(&mut self, now: Instant, index: u32, net: &mut impl Network) {
        let Some(connection) = self.connections.get_mut(index as usize) else {
            return;
        };
        connection.dirty = false;
        let id = ConnectionId {
            index,
            generation: connection.generation,
        };
        let outcome = match connection.link {
            ByteLink::Socket(socket, _) => {
                let mut wire = Wire { net, socket };
                self.flush_link(now, id, &mut wire)
            }
            ByteLink::Tunnel => self.flush_link(now, id, &mut Held),
        };
        self.take_http_events(id);
        if let Err(reason) = outcome {
            self.end_because(now, id, reason);
        }
        self.tear_down(now, index, net);
        self.settle(index);
    }

    /// Moves datagrams into HTTP, HTTP into TLS, TLS into the link, until one of them takes no more.
    fn flush_link(
        &mut self,
        now: Instant,
        id: ConnectionId,
        sink: &mut impl Write,
    ) -> Result<(), CloseReason> {
        let Some(connection) = live(&mut self.connections, id) else {
            return Ok(());
        };
        let mut written = 0;
        loop {
            let mut moved = false;
            if connection.end == End::Open {
                moved |= feed_datagrams(connection, &mut self.stats);
                let unblocked = std::mem::take(&mut connection.session.borrow_mut().write_blocked);
                if connection.http.wants_poll() || unblocked {
                    connection.http.poll(&mut self.http_events)?;
                }
            }
            let drained = connection.session.borrow_mut().drain(sink);
            let drained = drained.map_err(|error| CloseReason::Lost(error.kind()))?;
            written += drained;
            moved |= drained > 0;
            let wants_more =
                connection.http.wants_poll() || connection.session.borrow().write_blocked;
            if !moved || (!wants_more && connection.outbox.is_empty()) {
                break;
            }
        }
        self.stats.tcp_bytes_sent += written as u64;
        if connection.session.borrow().write_blocked {
            self.stats.tcp_writes_blocked += 1;
        }
        connection.note_written(now, written);
        if connection.end == End::Open {
            connection.note_activity(now);
            if !connection.inbound.is_empty() && connection.session.borrow().has_room() {
                self.touch(id.index);
            }
        }
        Ok(())
    }

    /// Takes a connection that is over from its link.
    fn tear_down(&mut self, now: Instant, index: u32, net: &mut impl Network) {
        let Some(connection) = self.connections.get_mut(index as usize) else {
            return;
        };
        let (wants_write, is_ended) = {
            let session = connection.session.borrow();
            (session.wants_write(), session.is_ended())
        };
        let ByteLink::Socket(socket, _) = connection.link else {
            // A tunnel that was reset takes no last words.
            if connection.link_end == Some(false) && connection.phase != Phase::Up {
                connection.phase = Phase::Gone;
            }
            let has_news = wants_write || connection.phase != Phase::Up;
            if has_news && connection.phase != Phase::Gone && !self.outputs.contains(&index) {
                self.outputs.push_back(index);
            }
            return;
        };
        let is_closing = connection.session.borrow().is_closing();
        if is_closing && !wants_write && !connection.shut && connection.phase != Phase::Gone {
            connection.shut = true;
            net.shutdown(socket);
        }
        match connection.phase {
            Phase::Closing if !wants_write => {
                connection.phase = Phase::Lingering;
                connection.linger_deadline = Some(now + self.limits.linger);
            }
            Phase::Aborted => {
                net.close(socket, TcpClose::Abort);
                connection.phase = Phase::Gone;
            }
            Phase::Up | Phase::Closing | Phase::Lingering | Phase::Gone => {}
        }
        if connection.phase == Phase::Lingering && is_ended {
            net.close(socket, TcpClose::Orderly);
            connection.phase = Phase::Gone;
        }
    }

    /// Re-arms the connection's timer, or removes the connection when nobody needs it any more.
    fn settle(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(index as usize) else {
            return;
        };
        if connection.phase == Phase::Gone {
            if connection.end == End::Polled {
                self.remove(index);
            }
            return;
        }
        if let Some(due) = connection.due(&self.limits)
            && connection.timer.is_none_or(|armed| due < armed)
        {
            // A deadline that moves later is noticed when the earlier one fires: most only move later.
            if let Some(armed) = connection.timer.replace(due) {
                self.timers.remove(&(armed, index));
            }
            self.timers.insert((due, index));
        }
    }

    fn remove(&mut self, index: u32) {
        let connection = self.connections.remove(index as usize);
        self.stats.tcp_connections_closed += 1;
        if let Some(client) = connection.client {
            self.served -= 1;
            if let Some(count) = self.clients.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    self.clients.remove(&client);
                }
            }
        }
        if let Some(armed) = connection.timer {
            self.timers.remove(&(armed, index));
        }
    }

    /// The next nested connection that has something for [`TcpHub::poll_output`]; ask after [`TcpHub::flush`].
    pub fn next_output(&mut self) -> Option<ConnectionId> {
        while let Some(index) = self.outputs.pop_front() {
            if let Some(connection) = self.connections.get(index as usize) {
                return Some(ConnectionId {
                    index,
                    generation: connection.generation,
                });
            }
        }
        None
    }

    /// What a nested connection wants of its tunnel, at most `bytes_max` bytes at a time; until it says blocked, or the
    /// tunnel has no room. In the latter case the owner asks again when the tunnel is writable.
    pub fn poll_output(&mut self, now: Instant, id: ConnectionId, bytes_max: usize) -> LinkOutput {
        let Some(connection) = live(&mut self.connections, id) else {
            return LinkOutput::Aborted;
        };
        if connection.phase == Phase::Aborted {
            connection.phase = Phase::Gone;
        }
        if connection.phase == Phase::Gone {
            self.mark_dirty(id.index);
            return LinkOutput::Aborted;
        }
        let mut taken = Taken {
            bytes: Vec::new(),
            bytes_max,
        };
        // Never fails: it is memory.
        let written = connection
            .session
            .borrow_mut()
            .drain(&mut taken)
            .unwrap_or(0);
        self.stats.tcp_bytes_sent += written as u64;
        connection.note_written(now, written);
        if written > 0 {
            self.mark_dirty(id.index);
            return LinkOutput::Bytes(taken.bytes.into());
        }
        let wants_write = connection.session.borrow().wants_write();
        if connection.phase == Phase::Closing && !wants_write {
            connection.phase = Phase::Gone;
            self.mark_dirty(id.index);
            return LinkOutput::Finished;
        }
        LinkOutput::Blocked
    }
}

/// Moves waiting datagrams on while there is room; whether any moved.
fn feed_datagrams(connection: &mut Connection, stats: &mut TcpHubStats) -> bool {
    let mut fed = false;
    // Once around the ring without room for anybody ends it.
    let mut blocked = 0;
    while blocked < connection.outbox.streams()
        && let Some((key, payload)) = connection.outbox.pop()
    {
        let stream = StreamId(u32::try_from(key).unwrap_or_default());
        match send_capsule(&mut connection.http, stream, &payload) {
            SendData::Written => {
                stats.tcp_capsules_sent += 1;
                fed = true;
                blocked = 0;
            }
            SendData::Blocked => {
                connection.outbox.unpop(key, payload);
                connection.outbox.rotate();
                blocked += 1;
            }
            SendData::Gone => {
                stats.tcp_dropped_closed += 1 + connection.outbox.remove(key) as u64;
            }
        }
    }
    fed
}

impl Connection {
    /// Keeps since when the link takes nothing.
    fn note_written(&mut self, now: Instant, written: usize) {
        if !self.session.borrow().wants_write() {
            self.blocked_since = None;
        } else if written > 0 || self.blocked_since.is_none() {
            self.blocked_since = Some(now);
        }
    }
}

/// A TCP socket to write to.
struct Wire<'a, N> {
    net: &'a mut N,
    socket: TcpId,
}

impl<N: Network> Write for Wire<'_, N> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(data)])
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.net.write(self.socket, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The link of a nested connection during a flush: everything waits for [`TcpHub::poll_output`].
struct Held;

impl Write for Held {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory with a bound.
struct Taken {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for Taken {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = self.bytes_max.saturating_sub(self.bytes.len());
        let len = room.min(data.len());
        self.bytes.extend(data.iter().take(len));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
