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
mod credit;
mod flush;
pub mod options;

mod receive;
mod stats;
mod streams;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ClientConfig, ConnectError, ConnectionHandle, PathStats, VarInt};
use rustls::pki_types::CertificateDer;
use slab::Slab;

use self::arena::Arena;
pub use self::connection::{CloseReason, Event, SendOutcome};
use self::connection::{Connection, End};
pub use self::stats::HubStats;
use super::carriers::RequestStream;
pub use super::outbox::OutboxLimits;
use super::tcp;
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::net::{Network, Outgoing, SocketId, TRAIN_BYTES_MAX};

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
    /// The datagrams of a CONNECT-UDP request on another connection of the same worker (nesting).
    Tunnel(RequestStream),
}

/// Bounds of a [`Hub`].
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Most connections of clients; more are refused with CONNECTION_REFUSED. Connections that we dial are not
    /// counted: their owner has a limit of its own.
    pub connections_max: usize,
    /// Most requests that a client may have open on one connection. Fewer are granted at first, see
    /// [`Options::server_transport`](options::Options::server_transport).
    pub streams_max: u32,
    /// Unfinished handshakes of clients from which on addresses are validated by Retry first.
    pub retry_handshakes: usize,
    /// Most unfinished handshakes of clients; more are refused.
    pub handshakes_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// The waiting room of each tunnel's datagrams towards its stream.
    pub outbox: OutboxLimits,
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
    /// Connections that clients opened to us.
    served: usize,
    /// Their handshakes that are not finished.
    handshakes: usize,
    draining: bool,
    touched: VecDeque<u32>,
    dirty: VecDeque<u32>,
    /// One deadline per connection, by slot.
    timers: BTreeSet<(Instant, u32)>,
    events: VecDeque<(ConnectionId, Event)>,
    arena: Arena,
    transmit: Vec<u8>,
    response: Vec<u8>,
    nested_count: u32,
    /// Packets of connections whose tunnels are on HTTP/2 or HTTP/1.1; empty again before the turn ends.
    pub(super) detours: Vec<(tcp::ConnectionId, tcp::StreamId, Bytes)>,
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
            served: 0,
            handshakes: 0,
            draining: false,
            touched: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            arena: Arena::default(),
            transmit: Vec::with_capacity(TRAIN_BYTES_MAX),
            response: Vec::new(),
            nested_count: 0,
            detours: Vec::new(),
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

    /// Gives a handshake that has just begun another time than the limit says.
    pub fn set_handshake_timeout(&mut self, now: Instant, id: ConnectionId, timeout: Duration) {
        if let Some(connection) = open(&mut self.connections, id)
            && let Some(deadline) = &mut connection.handshake_deadline
        {
            *deadline = now + timeout;
            self.mark_dirty(id.index);
        }
    }

    /// Announces that the connection accepts no more requests.
    pub fn goaway(&mut self, now: Instant, id: ConnectionId, kind: h3::GoAway) {
        let Some(connection) = open(&mut self.connections, id) else {
            return;
        };
        let sent = connection.h3.goaway(&mut connection.quic, kind);
        self.mark_dirty(id.index);
        if let Err(error) = sent {
            self.fail(now, id, error);
        }
    }

    /// Asks the peer for a sign of life, which [`Hub::last_heard`] shows.
    pub fn ping(&mut self, id: ConnectionId) {
        if let Some(connection) = open(&mut self.connections, id) {
            connection.quic.ping();
            self.mark_dirty(id.index);
        }
    }

    /// Closes a connection at once; [`Event::Closed`] tells of it, unless it was over before.
    pub fn close(&mut self, now: Instant, id: ConnectionId, code: Code) {
        self.end(now, id, code, CloseReason::Local);
    }

    /// Closes every connection and sends what tells the peers.
    pub fn close_all(&mut self, now: Instant, net: &mut impl Network) {
        let mut open: Vec<_> = self.connections().collect();
        // A nested connection says goodbye through its carrier, which is always older.
        open.sort_unstable_by_key(|id| Reverse(id.generation));
        for id in open {
            self.close(now, id, Code::H3_NO_ERROR);
            self.flush(now, net);
        }
    }

    /// Refuses new connections from here on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Accepts new connections again.
    pub fn undrain(&mut self) {
        self.draining = false;
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

    /// Everything counted so far; [`Hub::stats`] lacks what QUIC counts of connections that still exist. Walks over all
    /// of them, so it is for reports.
    pub fn counters(&self) -> HubStats {
        let mut counters = self.stats;
        for (_, connection) in &self.connections {
            connection.add_quic_counters(&mut counters);
        }
        counters
    }

    /// How many connections exist, closing ones included.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether the connection exists and has not been closed by either side.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.end == End::Open)
    }

    /// When the peer of a connection was last heard.
    pub fn last_heard(&self, id: ConnectionId) -> Option<Instant> {
        self.get(id)?.heard
    }

    /// The other end of the path, which may move; `None` for a connection inside a tunnel.
    pub fn peer_address(&self, id: ConnectionId) -> Option<SocketAddr> {
        let connection = self.get(id)?;
        match connection.link {
            Link::Socket(_) => Some(connection.quic.remote_address()),
            Link::Tunnel(_) => None,
        }
    }

    /// The peer's own certificate, once the handshake is complete, if it showed one.
    pub fn peer_certificate(&self, id: ConnectionId) -> Option<CertificateDer<'static>> {
        let shown = self.get(id)?.quic.crypto_session().peer_identity()?;
        let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.first().cloned()
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

    fn fail(&mut self, now: Instant, id: ConnectionId, error: h3::ConnectionError) {
        self.stats.connections_misbehaved += 1;
        tracing::debug!(code = %error.code, reason = error.reason, "closing a connection");
        self.end(now, id, error.code, CloseReason::Misbehaved(error));
    }

    /// Ends a connection for its owner, and for QUIC if that does not know yet.
    fn end(&mut self, now: Instant, id: ConnectionId, code: Code, reason: CloseReason) {
        let Some(connection) = open(&mut self.connections, id) else {
            return;
        };
        connection.end = End::Announced;
        if connection.handshake_deadline.take().is_some() && connection.quic.side().is_server() {
            self.handshakes -= 1;
        }
        connection.quic.close(now, varint(code), Bytes::new());
        let is_reset = matches!(
            reason,
            CloseReason::Lost(quinn_proto::ConnectionError::Reset)
        );
        self.stats.connections_reset += u64::from(is_reset);
        self.stats.dropped_closed += connection.outbox.clear() as u64;
        let bound = Vec::new();
        self.events.push_back((id, Event::Closed { reason, bound }));
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

/// A connection that is not over.
fn open(connections: &mut Slab<Box<Connection>>, id: ConnectionId) -> Option<&mut Connection> {
    live(connections, id).filter(|connection| connection.end == End::Open)
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
