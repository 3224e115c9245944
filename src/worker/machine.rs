//! What a worker owns, and the order in which a turn touches it.
//!
//! ```text
//!   handle_received*  handle_resolved*  ─► turn: expire ─ advance ─ relay ─► poll_local ─► flush
//! ```
//!
//! A tunnel has two legs. Downstream: the request stream of a client, or a local user. Upstream: a connected
//! socket to the target, or a request stream at the next hop. Nesting makes a leg of its own: the tunnel to the
//! next relay ends in a QUIC connection of ours instead of in a local user.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::StreamId;
use rustc_hash::FxHashMap;

use super::batch::{BatchSlot, Batches};
use super::stats::Stats;
use crate::client::{Hop, HopId, Pool, PoolEvent, Request};
use crate::error::{Abort, Refusal};
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::net::steer::Steer;
use crate::net::{Network, Received, SocketId, Train};
use crate::policy::resolve::Resolution;
use crate::server::Server;
use crate::transport::quic::{CloseReason, ConnectionId, EndpointId, Event, Hub, Link};
use crate::tunnel::{Early, EarlyLimits, Inbound, Table, TunnelId};
use crate::wire::target::Target;

/// What a socket of a worker is for; the driver hands it back with what the socket received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A listener, by its number in the configuration.
    Listener(u32),
    /// The socket that dials next hops.
    Dialler,
    /// The socket of one tunnel towards its target.
    Target(TunnelId),
    /// A socket of the program that uses the machine, not of the machine.
    App(u32),
}

impl Tag {
    /// As the integer that a driver keeps.
    pub fn to_bits(self) -> u64 {
        match self {
            Self::Target(tunnel) => tunnel.to_bits(),
            Self::Listener(number) => 1 << 62 | u64::from(number),
            Self::Dialler => 2 << 62,
            Self::App(number) => 3 << 62 | u64::from(number),
        }
    }

    /// The reverse of [`Tag::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        match bits >> 62 {
            0 => Self::Target(TunnelId::from_bits(bits)),
            1 => Self::Listener(bits as u32),
            2 => Self::Dialler,
            _ => Self::App(bits as u32),
        }
    }
}

/// Who wants a name resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// A tunnel, for its target.
    Tunnel(TunnelId),
    /// The pool, for a next hop.
    Hop(HopId),
}

/// The world outside a machine.
pub trait Outside: Network {
    /// Opens a UDP socket that is connected to `target`.
    ///
    /// # Errors
    /// What the system says: no route, no descriptor left.
    fn connect(&mut self, target: SocketAddr, tag: Tag) -> io::Result<SocketId>;

    /// Closes a socket.
    fn remove(&mut self, socket: SocketId);

    /// Starts to resolve a name; the answer goes to [`Machine::handle_resolved`].
    fn resolve(&mut self, name: &str, asker: Resolve);

    /// Hands packets to the worker that owns their connection.
    fn forward(&mut self, worker: u32, listener: u32, train: Train);
}

/// What a tunnel's local user has to know.
#[derive(Debug)]
pub enum LocalEvent {
    /// The tunnel is open: the target can be reached.
    Opened(TunnelId),
    /// The tunnel was refused. The response is there when a relay sent one.
    Refused(TunnelId, Refusal, Option<Box<ResponseHead>>),
    /// A UDP payload from the target.
    Payload(TunnelId, Bytes),
    /// The tunnel is over.
    Closed(TunnelId),
}

/// Bounds of a [`Machine`] beyond those of its parts.
#[derive(Clone, Copy, Debug)]
pub struct MachineLimits {
    /// Most tunnels.
    pub tunnels_max: usize,
    /// What a tunnel keeps before it is open.
    pub early: EarlyLimits,
    /// A tunnel without a datagram for this long is ended (RFC 9298 §3.1: not below two minutes).
    pub tunnel_idle: Duration,
    /// How long opening may take, resolving and dialling included.
    pub open_timeout: Duration,
    /// How long a drain waits for tunnels to end.
    pub drain: Duration,
}

/// What a machine is made of.
pub struct Setup {
    /// QUIC.
    pub hub: Hub,
    /// The endpoint of each listener.
    pub listeners: Vec<EndpointId>,
    /// The endpoint that dials, and its socket.
    pub dialler: (EndpointId, SocketId),
    /// Next hops.
    pub pool: Pool,
    /// The last hop of the route that chained tunnels take, if tunnels are chained.
    pub route: Option<HopId>,
    /// Who may open what.
    pub server: Server,
    /// Which worker owns which connection ID, and which worker this is.
    pub steer: (Steer, u32),
    /// Bounds.
    pub limits: MachineLimits,
}

/// Everything that one worker owns, without its sockets and its clock.
pub struct Machine {
    pub(super) hub: Hub,
    pub(super) pool: Pool,
    pub(super) route: Option<HopId>,
    pub(super) server: Server,
    pub(super) limits: MachineLimits,
    pub(super) tunnels: Table<Tunnel>,
    /// The tunnels that carry nested connections.
    pub(super) nested: FxHashMap<ConnectionId, TunnelId>,
    pub(super) batches: Batches,
    pub(super) local: VecDeque<LocalEvent>,
    /// Request streams with data to read.
    readable: VecDeque<(ConnectionId, StreamId)>,
    /// One deadline per tunnel.
    timers: BTreeSet<(Instant, TunnelId)>,
    listeners: Vec<EndpointId>,
    dialler: (EndpointId, SocketId),
    steer: (Steer, u32),
    pool_due: Option<Instant>,
    drain: Drain,
    /// What happened so far.
    pub stats: Stats,
}

#[derive(Clone, Copy, Debug)]
enum Drain {
    No,
    /// GOAWAY that names no stream was sent; the final one follows.
    Announced {
        settle: Instant,
        deadline: Instant,
    },
    Refusing {
        deadline: Instant,
    },
    Done,
}

/// How long the first GOAWAY has to reach clients before requests are refused: generous round trips.
const GOAWAY_SETTLES: Duration = Duration::from_millis(300);

/// One end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// Not there yet.
    None,
    /// A request stream.
    Stream {
        connection: ConnectionId,
        stream: StreamId,
    },
    /// A connected socket.
    Socket(SocketId),
    /// A QUIC connection of ours that lives inside the tunnel.
    Nested(ConnectionId),
    /// Whoever polls [`Machine::poll_local`].
    Local,
}

/// How far a tunnel is.
///
/// ```text
///   Resolving ─► (socket) ───────────────┐
///   Pooled ─► Requested ─► (2xx) ────────┴─► Open
/// ```
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The target's name is being resolved.
    Resolving { target: Target },
    /// The pool looks for a stream.
    Pooled { request: Box<Request> },
    /// The request went to the next hop.
    Requested { request: Box<Request> },
    /// Datagrams flow.
    Open,
}

pub(super) struct Tunnel {
    pub(super) downstream: Leg,
    pub(super) upstream: Leg,
    pub(super) state: State,
    /// The hop whose pool the upstream leg comes from.
    pub(super) hop: Option<HopId>,
    /// The hop that is dialled through this tunnel.
    pub(super) nests: Option<HopId>,
    pub(super) early: Early,
    pub(super) from_downstream: Inbound,
    pub(super) from_upstream: Inbound,
    pub(super) batch: BatchSlot,
    pub(super) last_active: Instant,
    /// When to look at it again.
    pub(super) due: Instant,
    pub(super) retried: bool,
}

impl Machine {
    /// Puts the parts together.
    pub fn new(setup: Setup) -> Self {
        Self {
            hub: setup.hub,
            pool: setup.pool,
            route: setup.route,
            server: setup.server,
            limits: setup.limits,
            tunnels: Table::default(),
            nested: FxHashMap::default(),
            batches: Batches::default(),
            local: VecDeque::new(),
            readable: VecDeque::new(),
            timers: BTreeSet::new(),
            listeners: setup.listeners,
            dialler: setup.dialler,
            steer: setup.steer,
            pool_due: None,
            drain: Drain::No,
            stats: Stats::default(),
        }
    }

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
                self.stats.target_errors += 1;
                tracing::debug!(%error, "a target socket failed");
                self.abort(now, tunnel, Abort::TargetUnreachable, out);
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
            let single = Train {
                peer,
                local_ip,
                ecn,
                segment_size: data.len(),
                data,
            };
            if worker == self.steer.1 {
                self.handle_stray(now, listener, socket, single, out);
            } else {
                self.stats.strays_forwarded += 1;
                out.forward(worker, listener, single);
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
        if self.pool_due.is_none_or(|due| due <= now) {
            self.pool_due = self.pool.expire(now, &mut self.hub);
        }
        while let Some(id) = self.hub.next_touched() {
            self.hub.advance(now, id);
            self.handle_events(now, out);
            while let Some((stream, owner, datagram)) = self.hub.recv_datagram(now, id) {
                let tunnel = TunnelId::from_bits(owner);
                self.relay_datagram(now, tunnel, (id, stream), datagram, out);
            }
            // A stream that ends ends its tunnel, so the datagrams that came along go first.
            while let Some((id, stream)) = self.readable.pop_front() {
                self.relay_data(now, id, stream, out);
            }
            self.handle_events(now, out);
        }
        debug_assert!(self.readable.is_empty(), "only advance finds data to read");
        self.progress_drain(now, out);
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
        self.hub.has_touched() || !self.local.is_empty()
    }

    /// When [`Machine::turn`] has work at the earliest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let tunnels = self.timers.first().map(|(due, _)| *due);
        let drain = match self.drain {
            Drain::Announced { settle, .. } => Some(settle),
            Drain::Refusing { deadline } => Some(deadline),
            Drain::No | Drain::Done => None,
        };
        [self.hub.next_timeout(), tunnels, self.pool_due, drain]
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
            h3::Event::Settings(_) => {
                self.pool.handle_settings(now, id, &mut self.hub);
                self.pool_due = Some(now);
            }
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
                self.handle_stopped(now, id, stream, code, out);
            }
            h3::Event::Aborted { id: stream, reason } => {
                self.stats.requests_malformed += 1;
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
                    Err(_) => out.resolve(&name, Resolve::Hop(hop)),
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
        self.pool_due = Some(now);
        if let Some(carrier) = self.nested.remove(&id) {
            self.abort(now, carrier, Abort::ClientCancelled, out);
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

    /// Starts a graceful end: no new connections, no new requests, tunnels may finish (RFC 9114 §5.2).
    pub fn drain(&mut self, now: Instant) {
        if !matches!(self.drain, Drain::No) {
            return;
        }
        self.drain = Drain::Announced {
            settle: now + GOAWAY_SETTLES,
            deadline: now + self.limits.drain,
        };
        self.hub.drain();
        self.goaway(now, h3::GoAway::Soft);
    }

    fn goaway(&mut self, now: Instant, kind: h3::GoAway) {
        let downstream: Vec<_> = self
            .hub
            .connections()
            .filter(|id| self.hub.is_downstream(*id))
            .collect();
        for id in downstream {
            self.hub.goaway(now, id, kind);
        }
    }

    fn progress_drain(&mut self, now: Instant, out: &mut impl Outside) {
        match self.drain {
            Drain::Announced { settle, deadline } if settle <= now => {
                self.goaway(now, h3::GoAway::Final);
                self.drain = Drain::Refusing { deadline };
                self.progress_drain(now, out);
            }
            Drain::Refusing { deadline } if self.tunnels.is_empty() || deadline <= now => {
                let left: Vec<_> = self.tunnels.iter().map(|(id, _)| id).collect();
                for tunnel in left {
                    self.abort(now, tunnel, Abort::Drain, out);
                }
                self.stop(now);
            }
            Drain::No | Drain::Announced { .. } | Drain::Refusing { .. } | Drain::Done => {}
        }
    }

    /// Closes every connection; the flush that follows tells the peers.
    pub fn stop(&mut self, now: Instant) {
        self.drain = Drain::Done;
        let open: Vec<_> = self.hub.connections().collect();
        for id in open {
            self.hub.close(now, id, Code::H3_NO_ERROR, "");
        }
    }

    /// Whether a drain has come to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.drain, Drain::Done)
    }

    /// Makes another route known. See [`Pool::add_route`].
    pub fn add_route(&mut self, hops: impl IntoIterator<Item = Hop>) -> HopId {
        self.pool.add_route(hops)
    }

    /// How many tunnels there are.
    pub fn tunnel_count(&self) -> usize {
        self.tunnels.len()
    }

    /// The QUIC connections, for their counters.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}
