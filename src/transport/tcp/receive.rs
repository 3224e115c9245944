//! The first half of a turn: bytes and deadlines in, events out.

use std::io;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::connection::{Connection, End, Phase};
use super::gauge::Gauge;
use super::h2::Options;
use super::http::Http;
use super::tls::failure_of;
use super::{
    ByteLink, CloseReason, ConnectionId, Event, INBOUND_BYTES_MAX, READ_BYTES_PER_TURN, StreamId,
    TcpHub, TcpHubStats, TlsFailure, live, open,
};
use crate::http::h3::code::Code;
use crate::http::h3::{ConnectionError, Role};
use crate::net::{Network, TcpRead};
use crate::wire::carrier::Carrier;

impl TcpHub {
    /// The socket of a connection may be read or written again.
    pub fn handle_ready(&mut self, id: ConnectionId) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.readable = true;
            self.touch(id.index);
            self.mark_dirty(id.index);
        }
    }

    /// The socket of a connection could not be connected, and is gone.
    pub fn handle_failed(&mut self, id: ConnectionId, error: &io::Error) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.link_error = Some(error.kind());
        }
        self.handle_ready(id);
    }

    /// The socket of a connection broke behind its end. Only HTTP/1.1 has anything left to say then.
    pub fn handle_broken(&mut self, id: ConnectionId) {
        let Some(connection) = open(&mut self.connections, id) else {
            return;
        };
        if connection.carrier == Some(Carrier::H1) {
            let streams = connection.bound.keys();
            let stopped = streams.map(|stream| Event::Stopped {
                stream: StreamId(*stream),
            });
            self.events.extend(stopped.map(|event| (id, event)));
        }
    }

    /// Takes in bytes of a tunnel that carries the connection; no more than [`TcpHub::receive_room`] says.
    pub fn handle_bytes(&mut self, id: ConnectionId, bytes: &Bytes) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.inbound.extend_from_slice(bytes);
            self.touch(id.index);
        }
    }

    /// The tunnel that carries the connection sends no more, after an orderly end or a reset.
    pub fn handle_end(&mut self, id: ConnectionId, orderly: bool) {
        if let Some(connection) = live(&mut self.connections, id) {
            connection.link_end = Some(orderly);
            self.touch(id.index);
            self.mark_dirty(id.index);
        }
    }

    /// Bytes that [`TcpHub::handle_bytes`] takes now.
    pub fn receive_room(&self, id: ConnectionId) -> usize {
        self.get(id).map_or(0, |connection| {
            INBOUND_BYTES_MAX.saturating_sub(connection.inbound.len())
        })
    }

    /// Fires every timer that is due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, index)) = self.timers.first() {
            if deadline > now {
                break;
            }
            self.timers.pop_first();
            let Some(connection) = self.connections.get_mut(index as usize) else {
                continue;
            };
            connection.timer = None;
            let id = ConnectionId {
                index,
                generation: connection.generation,
            };
            if connection.end == End::Open {
                if let Some(reason) = connection.overdue(now, &self.limits) {
                    self.end(now, id, Code::H3_NO_ERROR, reason);
                }
            } else if connection.linger_deadline.is_some_and(|due| due <= now) {
                connection.phase = Phase::Aborted;
            }
            self.mark_dirty(index);
        }
    }

    /// When [`TcpHub::expire`] has work at the earliest. May be early, never late.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Whether a connection waits for [`TcpHub::advance`], or an event to be polled. Those that have used up their
    /// budget count from [`TcpHub::flush`] on: until then nothing can be done for them.
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty() || !self.events.is_empty()
    }

    /// The next connection that may have received something.
    pub fn next_touched(&mut self) -> Option<ConnectionId> {
        while let Some(index) = self.touched.pop_front() {
            if let Some(connection) = self.connections.get_mut(index as usize) {
                connection.touched = false;
                return Some(ConnectionId {
                    index,
                    generation: connection.generation,
                });
            }
        }
        None
    }

    /// Reads what the link has, within the budget of a turn, and turns it into events. What is left is touched again
    /// by [`TcpHub::flush`].
    pub fn advance(&mut self, now: Instant, id: ConnectionId, net: &mut impl Network) {
        let Some(connection) = live(&mut self.connections, id) else {
            return;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = match connection.phase {
            Phase::Up => {
                let limits = &self.limits;
                let options = Options {
                    streams_max: limits.streams_max,
                    stream_window: limits.stream_window,
                    connection_window: limits.connection_window,
                    field_section_bytes: limits.field_section_bytes,
                    pending_resets_max: limits.pending_resets_max,
                };
                let mut receiver = Receiver {
                    now,
                    connection,
                    options,
                    control_frames_max: limits.control_frames_max,
                    stats: &mut self.stats,
                    events: &mut self.http_events,
                };
                receiver.receive(&mut scratch, net)
            }
            Phase::Closing | Phase::Lingering => {
                discard(connection, &mut scratch, net);
                Ok(())
            }
            Phase::Aborted | Phase::Gone => Ok(()),
        };
        scratch.clear();
        self.scratch = scratch;
        self.take_http_events(id);
        if let Some(connection) = open(&mut self.connections, id) {
            connection.note_activity(now);
            // What HTTP has no room for waits until it has, see `flush`.
            let is_left = connection.readable && connection.inbound.is_empty();
            if is_left && outcome.is_ok() && !connection.later {
                connection.later = true;
                self.later.push(id.index);
            }
        }
        self.mark_dirty(id.index);
        if let Err(reason) = outcome {
            self.end_because(now, id, reason);
        }
    }

    /// Passes on what HTTP had to say.
    pub(super) fn take_http_events(&mut self, id: ConnectionId) {
        while let Some(event) = self.http_events.pop_front() {
            match &event {
                Event::Connected(carrier) => {
                    if let Some(connection) = live(&mut self.connections, id) {
                        connection.handshake_deadline = None;
                        connection.carrier = Some(*carrier);
                    }
                    self.stats.tcp_connections_opened += 1;
                }
                Event::Malformed => self.stats.tcp_malformed += 1,
                Event::Reset { stream, .. } => {
                    if let Some(connection) = live(&mut self.connections, id) {
                        let dropped = connection.outbox.remove(u64::from(stream.0));
                        self.stats.tcp_dropped_closed += dropped as u64;
                    }
                }
                Event::Request { .. }
                | Event::Response { .. }
                | Event::Readable { .. }
                | Event::Writable { .. }
                | Event::StreamsAvailable
                | Event::GoAway
                | Event::Stopped { .. }
                | Event::Closed { .. } => {}
            }
            self.events.push_back((id, event));
        }
    }

    /// The next event, in the order in which they happened.
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Event)> {
        let (id, mut event) = self.events.pop_front()?;
        if let Event::Closed { bound, .. } = &mut event
            && let Some(connection) = live(&mut self.connections, id)
        {
            // Only now: the owner may have bound streams because of events that came before this one.
            *bound = connection.take_bound();
            connection.end = End::Polled;
            self.mark_dirty(id.index);
        }
        Some((id, event))
    }
}

/// Throws away what a peer sends after the end, so that it does not answer our last words with a reset.
fn discard(connection: &mut Connection, scratch: &mut BytesMut, net: &mut impl Network) {
    connection.inbound.clear();
    let ended = match connection.link {
        ByteLink::Socket(socket, _) => loop {
            scratch.clear();
            match net.read(socket, scratch, READ_BYTES_PER_TURN) {
                Ok(TcpRead::Bytes(_)) => {}
                Ok(TcpRead::Blocked) => break false,
                Ok(TcpRead::End) | Err(_) => break true,
            }
        },
        ByteLink::Tunnel => connection.link_end.is_some(),
    };
    connection.readable = false;
    if ended {
        connection.session.borrow_mut().end();
    }
}

/// One connection with everything that reading it needs.
struct Receiver<'a> {
    now: Instant,
    connection: &'a mut Connection,
    options: Options,
    control_frames_max: u32,
    stats: &'a mut TcpHubStats,
    events: &'a mut std::collections::VecDeque<Event>,
}

impl Receiver<'_> {
    /// Reads until the link or the budget is exhausted, or HTTP takes no more.
    fn receive(
        &mut self,
        scratch: &mut BytesMut,
        net: &mut impl Network,
    ) -> Result<(), CloseReason> {
        if let Some(gauge) = &mut self.connection.session.borrow_mut().gauge {
            gauge.refill(self.now);
        }
        let mut budget = READ_BYTES_PER_TURN;
        let mut input = std::mem::take(&mut self.connection.inbound);
        loop {
            if !input.is_empty() {
                self.connection.heard = Some(self.now);
            }
            let fed = self.feed(&mut input);
            if !input.is_empty() {
                self.connection.inbound = input;
            } else {
                self.connection.inbound = BytesMut::new();
            }
            fed?;
            if !self.connection.inbound.is_empty() || budget == 0 {
                return Ok(());
            }
            scratch.clear();
            match self.read(scratch, budget, net)? {
                0 => return self.end_of_link(),
                read => budget -= read.min(budget),
            }
            input = scratch.split();
        }
    }

    /// Reads once; zero if there is nothing now.
    fn read(
        &mut self,
        scratch: &mut BytesMut,
        bytes_max: usize,
        net: &mut impl Network,
    ) -> Result<usize, CloseReason> {
        let connection = &mut *self.connection;
        let ByteLink::Socket(socket, _) = connection.link else {
            connection.readable = false;
            match connection.link_end {
                Some(true) => connection.session.borrow_mut().end(),
                Some(false) => return Err(CloseReason::Lost(io::ErrorKind::ConnectionReset)),
                None => {}
            }
            return Ok(0);
        };
        if !connection.readable {
            return Ok(0);
        }
        if let Some(kind) = connection.link_error {
            return Err(CloseReason::Lost(kind));
        }
        match net.read(socket, scratch, bytes_max) {
            Ok(TcpRead::Bytes(read)) => {
                self.stats.tcp_bytes_received += read as u64;
                return Ok(read);
            }
            Ok(TcpRead::Blocked) => connection.readable = false,
            Ok(TcpRead::End) => {
                connection.readable = false;
                connection.session.borrow_mut().end();
            }
            Err(error) => return Err(CloseReason::Lost(error.kind())),
        }
        Ok(0)
    }

    /// Decrypts and hands on until everything is taken, or HTTP takes no more.
    fn feed(&mut self, input: &mut BytesMut) -> Result<(), CloseReason> {
        loop {
            let before = input.len();
            let fed = self.connection.session.borrow_mut().feed(input);
            if let Err(error) = fed {
                tracing::debug!(%error, "TLS failed");
                return Err(CloseReason::Tls(failure_of(&error)));
            }
            self.start_http()?;
            self.poll_http()?;
            if input.is_empty() || input.len() == before {
                return Ok(());
            }
        }
    }

    fn start_http(&mut self) -> Result<(), CloseReason> {
        let connection = &mut *self.connection;
        if !matches!(connection.http, Http::Handshaking)
            || connection.session.borrow().is_handshaking()
        {
            return Ok(());
        }
        let chosen = connection.session.borrow().carrier();
        let carrier = chosen.filter(|chosen| connection.only.is_none_or(|only| only == *chosen));
        let http = carrier.and_then(|carrier| {
            let session = &connection.session;
            if carrier == Carrier::H2 {
                let is_server = connection.role == Role::Server;
                let gauge = Gauge::new(is_server, u64::from(self.control_frames_max));
                session.borrow_mut().gauge = Some(gauge);
            }
            Http::start(carrier, connection.role, &self.options, session)
        });
        connection.http = http.ok_or(CloseReason::Tls(TlsFailure::Protocol))?;
        Ok(())
    }

    fn poll_http(&mut self) -> Result<(), CloseReason> {
        self.connection.http.poll(self.events)?;
        let session = self.connection.session.borrow();
        match &session.gauge {
            Some(gauge) if gauge.is_flooded() => {
                self.stats.tcp_floods += 1;
                Err(CloseReason::Misbehaved(ConnectionError {
                    code: Code::H3_EXCESSIVE_LOAD,
                    reason: "too many control frames",
                }))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the end of the link means, if it has come.
    fn end_of_link(&mut self) -> Result<(), CloseReason> {
        if !self.connection.session.borrow().is_ended() {
            return Ok(());
        }
        self.connection.readable = false;
        self.poll_http()?;
        let session = self.connection.session.borrow();
        if session.has_plaintext() || !self.connection.http.ends_with_peer() {
            Ok(())
        } else if session.is_truncated() {
            Err(CloseReason::Truncated)
        } else {
            Err(CloseReason::Peer(Code::H3_NO_ERROR))
        }
    }
}
