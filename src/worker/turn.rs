//! The order of a turn: what came in, what is due, what followed from it, and what goes out.
//!
//! ```text
//!   handle_received*  handle_resolved*  ─► turn: expire ─ advance ─ relay ─► poll_local ─► flush
//! ```

use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::StreamId;

use super::drain::Drain;
use super::leg::{State, Tunnel};
use super::machine::{LocalEvent, Machine, Outside, Resolve, Tag};
use crate::client::PoolEvent;
use crate::error::{Abort, Refusal};
use crate::http::h3;
use crate::net::{Received, SocketId, Train, ends_socket};
use crate::policy::resolve::Resolution;
use crate::transport::quic::{CloseReason, ConnectionId, Event, Link};
use crate::tunnel::TunnelId;

impl Machine {
    /// Takes in what one socket received. Packets of another worker's connection are forwarded.
    pub fn handle_received(
        &mut self,
        now: Instant,
        socket: SocketId,
        tag: Tag,
        received: Received,
        out: &mut impl Outside,
    ) {
        match (tag, received) {
            (Tag::Listener(number), Received::Train(train)) => {
                if self.is_own(&train) {
                    self.handle_stray(now, number, socket, train, out);
                } else {
                    self.sort_out(now, number, socket, train, out);
                }
            }
            (Tag::Dialler, Received::Train(train)) => {
                self.hub
                    .handle_train(now, self.dialler.0, socket, train, out);
            }
            (Tag::Target(tunnel), Received::Train(train)) => {
                self.relay_from_target(now, tunnel, train, out);
            }
            (Tag::Target(tunnel), Received::Error(error)) => {
                tracing::debug!(%error, "an error of a target socket");
                // Any other error costs a datagram and no more.
                if ends_socket(&error) {
                    self.stats.target_errors += 1;
                    self.abort(now, tunnel, Abort::TargetUnreachable, out);
                }
            }
            // Shared sockets report errors of single peers; QUIC finds out by itself.
            (Tag::Listener(_) | Tag::Dialler, Received::Error(_)) | (Tag::App(_), _) => {}
        }
    }

    /// Takes in a train of one listener that belongs to this worker, wherever it arrived.
    pub fn handle_stray(
        &mut self,
        now: Instant,
        listener: u32,
        socket: SocketId,
        train: Train,
        out: &mut impl Outside,
    ) {
        if let Some(&endpoint) = self.listeners.get(listener as usize) {
            self.hub.handle_train(now, endpoint, socket, train, out);
        }
    }

    /// Whether every packet belongs to this worker. Network cards may join packets of several connections of one
    /// client into a train, so each is looked at.
    fn is_own(&self, train: &Train) -> bool {
        let (steer, this) = &self.steer;
        let mut packets = train.data.chunks(train.segment_size.max(1));
        steer.workers() == 1 || packets.all(|packet| steer.worker_of_packet(packet) == *this)
    }

    /// Keeps our packets of a train and forwards the others.
    fn sort_out(
        &mut self,
        now: Instant,
        listener: u32,
        socket: SocketId,
        train: Train,
        out: &mut impl Outside,
    ) {
        let (peer, local_ip, ecn) = (train.peer, train.local_ip, train.ecn);
        for data in train.segments() {
            let worker = self.steer.0.worker_of_packet(&data);
            let single = |data: BytesMut| Train {
                peer,
                local_ip,
                ecn,
                segment_size: data.len(),
                data,
            };
            if worker == self.steer.1 {
                self.handle_stray(now, listener, socket, single(data), out);
            } else {
                // A copy: what waits in a mailbox must not pin a receive buffer.
                let stray = single(BytesMut::from(&data[..]));
                match out.forward(worker, listener, stray) {
                    None => self.stats.strays_forwarded += 1,
                    // It has drained and left its clients to those that still drain: they are refused, not ignored.
                    Some(orphan) => self.handle_stray(now, listener, socket, orphan, out),
                }
            }
        }
    }

    /// The answer to [`Outside::resolve`].
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        asker: Resolve,
        resolution: Resolution,
        out: &mut impl Outside,
    ) {
        match asker {
            Resolve::Tunnel(tunnel) => self.handle_target_resolved(now, tunnel, resolution, out),
            Resolve::Hop(hop) => {
                let link = Link::Socket(self.dialler.1);
                self.pool
                    .handle_resolved(now, hop, resolution, link, &mut self.hub);
                self.handle_pool_events(now, out);
            }
        }
    }

    /// Does everything that is due and can be done without new input. Ends with nothing left but to poll local
    /// events and to flush.
    pub fn turn(&mut self, now: Instant, out: &mut impl Outside) {
        self.hub.expire(now);
        self.expire_tunnels(now, out);
        self.pool.expire(now, &mut self.hub);
        self.settle(now, out);
        self.progress_drain(now, out);
    }

    /// Takes connections one by one until none has anything new, and nothing follows from what they had.
    fn settle(&mut self, now: Instant, out: &mut impl Outside) {
        loop {
            self.handle_events(now, out);
            if let Some(id) = self.hub.next_touched() {
                self.hub.advance(now, id);
                // A connection that ends ends its tunnels, so the datagrams that came along go first.
                if !self.hub.is_open(id) {
                    self.relay_datagrams(now, id, out);
                }
                self.handle_events(now, out);
                self.relay_datagrams(now, id, out);
            }
            // The same goes for a stream.
            while let Some((id, stream)) = self.readable.pop_front() {
                self.relay_data(now, id, stream, out);
            }
            while let Some((id, stream, code)) = self.stopped.pop_front() {
                self.handle_stopped(now, id, stream, code, out);
            }
            if !self.has_news() {
                return;
            }
        }
    }

    fn has_news(&self) -> bool {
        self.hub.has_touched() || self.pool.has_events()
    }

    /// The next thing that a local user has to know.
    pub fn poll_local(&mut self) -> Option<LocalEvent> {
        self.local.pop_front()
    }

    /// Sends everything that the turn produced.
    pub fn flush(&mut self, now: Instant, out: &mut impl Outside) {
        let mut dead = Vec::new();
        self.batches.flush(out, |tunnel| dead.push(tunnel));
        for tunnel in dead {
            self.stats.target_errors += 1;
            self.abort(now, tunnel, Abort::TargetUnreachable, out);
        }
        self.hub.flush(now, out);
    }

    /// Whether a turn has work left that waits for no deadline.
    pub fn is_busy(&self) -> bool {
        self.has_news() || !self.local.is_empty()
    }

    /// When [`Machine::turn`] has work at the earliest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let tunnels = self.timers.first().map(|(due, _)| *due);
        let drain = match self.drain {
            Drain::Announced { settle, .. } => Some(settle),
            Drain::Refusing { deadline } => Some(deadline),
            Drain::No | Drain::Done => None,
        };
        let pool = self.pool.next_timeout();
        [self.hub.next_timeout(), tunnels, pool, drain]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_events(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some((id, event)) = self.hub.poll_event() {
            match event {
                Event::Connected => {}
                Event::Closed { reason, bound } => {
                    self.handle_connection_closed(now, id, &reason, bound, out);
                }
                Event::Http(event) => self.handle_http(now, id, event, out),
            }
        }
        self.handle_pool_events(now, out);
    }

    fn handle_http(
        &mut self,
        now: Instant,
        id: ConnectionId,
        event: h3::Event,
        out: &mut impl Outside,
    ) {
        match event {
            h3::Event::Settings(_) => self.pool.handle_settings(now, id, &mut self.hub),
            // What came in the same packet as a head is not announced again.
            h3::Event::Request { id: stream, head } => {
                self.handle_request(now, id, stream, &head, out);
                self.readable.push_back((id, stream));
            }
            h3::Event::Response { id: stream, head } => {
                self.handle_response(now, id, stream, head, out);
                self.readable.push_back((id, stream));
            }
            h3::Event::Readable { id: stream } => self.readable.push_back((id, stream)),
            h3::Event::Reset { id: stream, code } => self.handle_reset(now, id, stream, code, out),
            h3::Event::Stopped { id: stream, code } => {
                self.stopped.push_back((id, stream, code));
            }
            h3::Event::Aborted { id: stream, reason } => {
                match reason {
                    h3::Abort::NotProcessed => {}
                    h3::Abort::TooLarge(_) => self.stats.field_sections_refused += 1,
                    h3::Abort::Malformed(_)
                    | h3::Abort::Incomplete
                    | h3::Abort::DatagramUnexpected => self.stats.requests_malformed += 1,
                }
                tracing::debug!(%reason, "a request stream was aborted");
                self.handle_aborted(now, id, stream, &reason, out);
            }
            h3::Event::Writable { .. } => {}
            h3::Event::StreamsAvailable => self.pool.handle_streams(now, id, &mut self.hub),
            h3::Event::GoAway { .. } => self.pool.handle_goaway(now, id, &mut self.hub),
        }
    }

    pub(super) fn handle_pool_events(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some(event) = self.pool.poll() {
            match event {
                PoolEvent::Opened {
                    tunnel,
                    connection,
                    stream,
                } => {
                    self.handle_pooled(now, tunnel, connection, stream);
                }
                PoolEvent::Failed { tunnel, refusal } => {
                    self.refuse(now, tunnel, refusal, None, out);
                }
                PoolEvent::Resolve { hop, name } => match name.parse() {
                    Ok(address) => {
                        let link = Link::Socket(self.dialler.1);
                        self.pool
                            .handle_resolved(now, hop, Ok(vec![address]), link, &mut self.hub);
                    }
                    Err(_) => {
                        if !out.resolve(&name, Resolve::Hop(hop)) {
                            self.stats.resolves_refused += 1;
                            self.pool.handle_unreachable(now, hop, Refusal::Overloaded);
                        }
                    }
                },
                PoolEvent::Nest { hop, via, target } => self.nest(now, hop, via, target),
            }
        }
    }

    fn handle_connection_closed(
        &mut self,
        now: Instant,
        id: ConnectionId,
        reason: &CloseReason,
        bound: Vec<(StreamId, u64)>,
        out: &mut impl Outside,
    ) {
        tracing::debug!(?reason, "a connection is over");
        let link = Link::Socket(self.dialler.1);
        self.pool
            .handle_closed(now, id, reason, link, &mut self.hub);
        if let Some(carrier) = self.nested.remove(&id) {
            self.abort(now, carrier, Abort::ClientClosed, out);
        }
        for (stream, owner) in bound {
            self.handle_stream_lost(now, id, stream, TunnelId::from_bits(owner), out);
        }
    }

    /// Sets the one deadline of a tunnel.
    pub(super) fn arm(&mut self, id: TunnelId, due: Instant) {
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            self.timers.remove(&(tunnel.due, id));
            tunnel.due = due;
            self.timers.insert((due, id));
        }
    }

    /// Forgets the deadline of a tunnel that has ended.
    pub(super) fn disarm(&mut self, id: TunnelId, tunnel: &Tunnel) {
        self.timers.remove(&(tunnel.due, id));
    }

    fn expire_tunnels(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some(&(due, id)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            let Some(tunnel) = self.tunnels.get(id) else {
                continue;
            };
            match tunnel.state {
                State::Open => {
                    let due = tunnel.last_active + self.limits.tunnel_idle;
                    if due > now {
                        self.arm(id, due);
                    } else {
                        self.stats.tunnels_idle += 1;
                        self.abort(now, id, Abort::Idle, out);
                    }
                }
                State::Resolving { .. } => self.refuse(now, id, Refusal::DnsTimeout, None, out),
                State::Pooled { .. } => self.refuse(now, id, Refusal::ConnectTimeout, None, out),
                State::Requested { .. } => self.refuse(now, id, Refusal::NextHopTimeout, None, out),
            }
        }
    }
}
