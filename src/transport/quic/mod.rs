//! QUIC and HTTP/3 of one worker: endpoints, a slab of connections, timers, and one flush per turn.
//!
//! ```text
//!   handle_train ─► Endpoint::handle ─► Connection::handle_event ─► touched ─► advance ─► poll_event
//!   expire ───────────────────────────► Connection::handle_timeout ──┘          └──────► recv_datagram
//!
//!   send_datagram / request / respond / … ─► dirty ─► flush ─► trains to a socket, or into an outer tunnel
//! ```
//!
//! The owner calls, once per turn and in this order: [`Hub::handle_train`] for everything received,
//! [`Hub::expire`], then for each id from [`Hub::next_touched`] [`Hub::advance`] and a full drain of
//! [`Hub::poll_event`] and [`Hub::recv_datagram`]; at the end [`Hub::flush`].
//!
//! **Invariants.** No clock and no socket in here: time is an argument, sending is [`Network::send`]. A train
//! never mixes connections. A connection whose link is a tunnel (nesting) sends its packets as datagrams of
//! that tunnel and is otherwise like any other. Peers' mistakes close their own connection only.
//!
//! Does not know: tunnels, policy, pools, configuration files.

mod accept;
mod arena;
pub mod cid;
mod connection;
mod flush;
pub mod options;
mod outbox;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionError, ConnectionHandle, DatagramEvent, EcnCodepoint,
    PathStats, StreamId, VarInt,
};
use slab::Slab;

use self::arena::Arena;
use self::connection::Connection;
pub use self::connection::{CloseReason, Event, SendOutcome};
pub use self::outbox::OutboxLimits;
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::{Network, Outgoing, SocketId, Train};

/// Names one connection of a [`Hub`]; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

/// Names one endpoint of a [`Hub`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId(usize);

/// Where the packets of a connection go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A UDP socket of the worker.
    Socket(SocketId),
    /// The datagrams of a CONNECT-UDP request on another connection of the same hub (nesting).
    Tunnel {
        /// The connection that carries the tunnel.
        connection: ConnectionId,
        /// The request stream of the tunnel.
        stream: StreamId,
    },
}

/// Bounds of a [`Hub`].
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Most connections that are open at once; more are refused with CONNECTION_REFUSED.
    pub connections_max: usize,
    /// Unfinished handshakes of clients from which on addresses are validated by Retry first.
    pub retry_handshakes: usize,
    /// Most unfinished handshakes of clients; more are refused.
    pub handshakes_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// The waiting room of each tunnel's datagrams towards its stream.
    pub outbox: OutboxLimits,
}

/// What a hub counts. Plain integers: a worker owns them.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubStats {
    /// Connections whose handshake finished.
    pub connections_opened: u64,
    /// Connections that ended, for whatever reason.
    pub connections_closed: u64,
    /// Connections that we closed because the peer broke HTTP/3.
    pub connections_misbehaved: u64,
    /// Handshakes answered with Retry.
    pub retries_sent: u64,
    /// Handshakes refused because a limit was reached or the hub drains.
    pub handshakes_refused: u64,
    /// Handshakes given up after [`HubLimits::handshake_timeout`].
    pub handshakes_timed_out: u64,
    /// UDP datagrams that belong to no connection, or are not QUIC.
    pub packets_ignored: u64,
    /// Tunnel datagrams received.
    pub datagrams_received: u64,
    /// Tunnel datagrams given to QUIC.
    pub datagrams_sent: u64,
    /// Tunnel datagrams sent as capsules because the peer takes no QUIC datagrams.
    pub capsules_sent: u64,
    /// Received datagrams dropped: their stream is gone, or not yet known and the hold is full.
    pub dropped_unroutable: u64,
    /// Dropped because the tunnel's queue was full, oldest first.
    pub dropped_queue_full: u64,
    /// Dropped because they do not fit the path (RFC 9298 §6.1).
    pub dropped_too_large: u64,
    /// Dropped because the stream that carries capsules was blocked.
    pub dropped_stream_blocked: u64,
    /// Dropped because the tunnel ended while they waited.
    pub dropped_closed: u64,
}

struct Endpoint {
    quinn: quinn_proto::Endpoint,
    /// Connection handle → slot in [`Hub::connections`].
    slots: Vec<Option<u32>>,
}

/// All QUIC connections of one worker.
pub struct Hub {
    limits: HubLimits,
    h3_config: h3::Config,
    endpoints: Vec<Endpoint>,
    connections: Slab<Box<Connection>>,
    generation: u32,
    /// Client-initiated handshakes that are not finished.
    handshakes: usize,
    draining: bool,
    touched: VecDeque<u32>,
    dirty: VecDeque<u32>,
    timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    events: VecDeque<(ConnectionId, Event)>,
    arena: Arena,
    transmit: Vec<u8>,
    response: Vec<u8>,
    nested_count: u32,
    /// What happened so far.
    pub stats: HubStats,
}

impl Hub {
    /// An empty hub.
    pub fn new(limits: HubLimits, h3_config: h3::Config) -> Self {
        Self {
            limits,
            h3_config,
            endpoints: Vec::new(),
            connections: Slab::new(),
            generation: 0,
            handshakes: 0,
            draining: false,
            touched: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            arena: Arena::default(),
            transmit: Vec::with_capacity(flush::TRAIN_BYTES_MAX),
            response: Vec::new(),
            nested_count: 0,
            stats: HubStats::default(),
        }
    }

    /// Adds an endpoint: a listener when its server configuration is set, and a dialler in any case.
    pub fn add_endpoint(&mut self, quinn: quinn_proto::Endpoint) -> EndpointId {
        self.endpoints.push(Endpoint {
            quinn,
            slots: Vec::new(),
        });
        EndpointId(self.endpoints.len() - 1)
    }

    /// Dials `remote`; the outcome arrives as [`Event::Connected`] or [`Event::Closed`].
    ///
    /// # Errors
    /// The configuration or the server name cannot be used; nothing was sent.
    pub fn connect(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        config: ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        link: Link,
    ) -> Result<ConnectionId, ConnectError> {
        let (handle, quic) =
            self.endpoints[endpoint.0]
                .quinn
                .connect(now, config, remote, server_name)?;
        Ok(self.insert(now, endpoint, handle, quic, link, h3::Role::Client))
    }

    /// An address that stands for the far end of a tunnel, unique among the nested connections of this hub.
    ///
    /// QUIC wants a peer address for each path; a nested connection has none of its own, since the relay in
    /// between resolves the name. The discard prefix 100::/64 (RFC 6666) never meets a real peer.
    pub fn nested_address(&mut self) -> SocketAddr {
        self.nested_count = self.nested_count.wrapping_add(1);
        let [a, b] = [(self.nested_count >> 16) as u16, self.nested_count as u16];
        SocketAddr::new(IpAddr::from([0x100, 0, 0, 0, 0, 0, a, b]), 443)
    }

    fn insert(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        link: Link,
        role: h3::Role,
    ) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1);
        let deadline = now + self.limits.handshake_timeout;
        let h3 = h3::Connection::new(role, self.h3_config.clone());
        let connection =
            Connection::new(quic, h3, endpoint, handle, link, self.generation, deadline);
        let index = self.connections.insert(Box::new(connection)) as u32;
        let slots = &mut self.endpoints[endpoint.0].slots;
        if slots.len() <= handle.0 {
            slots.resize(handle.0 + 1, None);
        }
        slots[handle.0] = Some(index);
        self.touch(index);
        self.mark_dirty(index);
        ConnectionId {
            index,
            generation: self.generation,
        }
    }

    /// Takes in everything that one receive call returned for `endpoint`.
    pub fn handle_train(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        socket: SocketId,
        train: Train,
        net: &mut impl Network,
    ) {
        let (peer, local_ip) = (train.peer, train.local_ip);
        let ecn = train.ecn.and_then(EcnCodepoint::from_bits);
        let link = Link::Socket(socket);
        for segment in train.segments() {
            self.handle_packet(now, endpoint, link, (peer, local_ip, ecn), segment, net);
        }
    }

    /// Takes in a packet of a nested connection: the payload of a datagram on `stream` of `outer`.
    pub fn handle_nested(
        &mut self,
        now: Instant,
        inner: ConnectionId,
        payload: Bytes,
        net: &mut impl Network,
    ) {
        let Some(connection) = self.get(inner) else {
            return;
        };
        let (endpoint, link) = (connection.endpoint, connection.link);
        let peer = connection.quic.remote_address();
        let packet = BytesMut::from(payload);
        self.handle_packet(now, endpoint, link, (peer, None, None), packet, net);
    }

    fn handle_packet(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        link: Link,
        (peer, local_ip, ecn): (SocketAddr, Option<IpAddr>, Option<EcnCodepoint>),
        packet: BytesMut,
        net: &mut impl Network,
    ) {
        let Some(Endpoint { quinn, slots }) = self.endpoints.get_mut(endpoint.0) else {
            return;
        };
        self.response.clear();
        match quinn.handle(now, peer, local_ip, ecn, packet, &mut self.response) {
            None => self.stats.packets_ignored += 1,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(index) = slots.get(handle.0).copied().flatten() {
                    self.connections[index as usize].quic.handle_event(event);
                    self.touch(index);
                    self.mark_dirty(index);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.handle_incoming(now, endpoint, link, incoming, net);
            }
            Some(DatagramEvent::Response(transmit)) => {
                respond(net, link, &transmit, &self.response);
            }
        }
    }

    /// Fires every timer that is due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((deadline, index, generation))) = self.timers.peek() {
            if deadline > now {
                break;
            }
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(index as usize) else {
                continue;
            };
            if connection.generation != generation || connection.timer != Some(deadline) {
                continue;
            }
            connection.timer = None;
            if connection.handshake_overdue(now) {
                self.stats.handshakes_timed_out += 1;
                let id = ConnectionId { index, generation };
                self.abandon(
                    now,
                    id,
                    Code::H3_NO_ERROR,
                    "",
                    CloseReason::HandshakeTimeout,
                );
            } else if connection.quic.poll_timeout().is_some_and(|due| due <= now) {
                connection.quic.handle_timeout(now);
            }
            self.touch(index);
            self.mark_dirty(index);
        }
    }

    /// When [`Hub::expire`] has work at the earliest. May be early, never late.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((deadline, ..))| *deadline)
    }

    /// Whether a connection waits for [`Hub::advance`].
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty() || !self.events.is_empty()
    }

    /// The next connection that received something or whose timer fired.
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

    /// Turns what a connection received into events.
    pub fn advance(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = live(&mut self.connections, id) else {
            return;
        };
        let was_handshaking = connection.handshake_deadline.is_some();
        let mut failure = None;
        while let Some(event) = connection.quic.poll() {
            match connection.handle_quic_event(event) {
                Ok(Some(event)) => self.events.push_back((id, event)),
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        while let Some(event) = connection.h3.poll() {
            connection.note(&event);
            self.events.push_back((id, Event::Http(event)));
        }
        let settled = was_handshaking && connection.handshake_deadline.is_none();
        let is_server = connection.quic.side().is_server();
        let established = connection.established;
        if settled {
            self.handshakes -= usize::from(is_server);
            self.stats.connections_opened += u64::from(established);
        }
        if let Some(error) = failure {
            self.fail(now, id, error);
        }
        self.mark_dirty(id.index);
    }

    /// The next event, in the order in which they happened.
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Event)> {
        self.events.pop_front()
    }

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
        let Some(connection) = live(&mut self.connections, id) else {
            return SendOutcome::Gone;
        };
        let framed = self.arena.frame(stream.index(), payload);
        let outcome = connection.send_datagram(stream, framed, self.limits.outbox, &mut self.stats);
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
        live(&mut self.connections, id)?.payload_size_max(stream)
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
        let connection = live(&mut self.connections, id).ok_or(h3::RequestError::GoingAway)?;
        let stream = connection.h3.request(&mut connection.quic, head);
        self.mark_dirty(id.index);
        stream
    }

    /// Answers a request; with `fin` the answer is all there will be.
    pub fn respond(&mut self, id: ConnectionId, stream: StreamId, head: &ResponseHead, fin: bool) {
        self.with(id, |h3, quic| {
            if let Err(error) = h3.respond(quic, stream, head, fin) {
                // A stream that is gone needs no answer.
                tracing::debug!(%error, "a response was not sent");
            }
        });
    }

    /// Reads the data stream of a request: what DATA frames carry.
    pub fn recv_data(&mut self, now: Instant, id: ConnectionId, stream: StreamId) -> h3::RecvData {
        let Some(connection) = live(&mut self.connections, id) else {
            return h3::RecvData::Blocked;
        };
        let read = connection
            .h3
            .recv_data(&mut connection.quic, stream, usize::MAX);
        self.mark_dirty(id.index);
        read.unwrap_or_else(|error| {
            self.fail(now, id, error);
            h3::RecvData::Blocked
        })
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

    /// Announces that the connection accepts no more requests.
    pub fn goaway(&mut self, now: Instant, id: ConnectionId, kind: h3::GoAway) {
        let Some(connection) = live(&mut self.connections, id) else {
            return;
        };
        let sent = connection.h3.goaway(&mut connection.quic, kind);
        self.mark_dirty(id.index);
        if let Err(error) = sent {
            self.fail(now, id, error);
        }
    }

    /// Closes a connection at once. It ends with [`Event::Closed`], like one that the peer closed.
    pub fn close(&mut self, now: Instant, id: ConnectionId, code: Code, phrase: &'static str) {
        if self.is_open(id) {
            let reason = CloseReason::Lost(ConnectionError::LocallyClosed);
            self.abandon(now, id, code, phrase, reason);
        }
    }

    /// Refuses new connections from here on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The connections that are open, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections
            .iter()
            .map(|(index, connection)| ConnectionId {
                index: index as u32,
                generation: connection.generation,
            })
    }

    /// What QUIC knows of a connection's path: round trip, window, MTU, losses.
    pub fn path(&self, id: ConnectionId) -> Option<PathStats> {
        Some(self.get(id)?.quic.stats().path)
    }

    /// How many connections exist, closing ones included.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether the connection exists and has not been closed by either side.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| !connection.quic.is_closed())
    }

    /// Whether clients opened this connection to us.
    pub fn is_downstream(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.quic.side().is_server())
    }

    fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.connections.get(id.index as usize)?;
        (connection.generation == id.generation).then_some(connection)
    }

    fn with(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut h3::Connection, &mut quinn_proto::Connection),
    ) {
        if let Some(connection) = live(&mut self.connections, id) {
            act(&mut connection.h3, &mut connection.quic);
            self.touch(id.index);
            self.mark_dirty(id.index);
        }
    }

    fn forget_waiting(&mut self, id: ConnectionId, stream: StreamId) {
        if let Some(connection) = live(&mut self.connections, id) {
            self.stats.dropped_closed += connection.outbox.remove(stream.index()) as u64;
        }
    }

    fn fail(&mut self, now: Instant, id: ConnectionId, error: h3::ConnectionError) {
        self.stats.connections_misbehaved += 1;
        tracing::debug!(code = %error.code, reason = error.reason, "closing a connection");
        self.abandon(now, id, error.code, "", CloseReason::Misbehaved(error));
    }

    fn abandon(
        &mut self,
        now: Instant,
        id: ConnectionId,
        code: Code,
        phrase: &'static str,
        reason: CloseReason,
    ) {
        let Some(connection) = live(&mut self.connections, id) else {
            return;
        };
        if connection.handshake_deadline.take().is_some() && connection.quic.side().is_server() {
            self.handshakes -= 1;
        }
        let phrase = Bytes::from_static(phrase.as_bytes());
        connection.quic.close(now, varint(code), phrase);
        let event = connection.closed(reason);
        self.events.push_back((id, event));
        self.touch(id.index);
        self.mark_dirty(id.index);
    }

    fn touch(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !connection.touched {
            connection.touched = true;
            self.touched.push_back(index);
        }
    }

    fn mark_dirty(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push_back(index);
        }
    }
}

fn live(connections: &mut Slab<Box<Connection>>, id: ConnectionId) -> Option<&mut Connection> {
    let connection = connections.get_mut(id.index as usize)?;
    (connection.generation == id.generation).then_some(connection)
}

fn varint(code: Code) -> VarInt {
    VarInt::from_u64(code.0).unwrap_or(VarInt::MAX)
}

fn respond(net: &mut impl Network, link: Link, transmit: &quinn_proto::Transmit, contents: &[u8]) {
    if let Link::Socket(socket) = link {
        net.send(socket, &outgoing(transmit, contents));
    }
}

fn outgoing<'a>(transmit: &quinn_proto::Transmit, contents: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        peer: Some(transmit.destination),
        local_ip: transmit.src_ip,
        ecn: transmit.ecn.map(|ecn| ecn as u8),
        segment_size: transmit.segment_size,
        contents: &contents[..transmit.size],
    }
}
