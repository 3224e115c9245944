//! HTTP/2 and HTTP/1.1 of one worker: TLS over byte links, and the streams above it.
//!
//! ```text
//!   handle_ready, handle_bytes ─► touched ─► advance: link ─► TLS ─► HTTP ─► poll_event
//!   expire ──────────────────────────────────► Closed ─┘
//!
//!   send_datagram / send_data / request / … ─► dirty ─► flush: HTTP ─► TLS ─► a socket, or poll_output for a tunnel
//! ```
//!
//! The owner calls, once per turn and in this order: [`TcpHub::handle_ready`] and [`TcpHub::handle_bytes`] for
//! everything that came, [`TcpHub::expire`], then for each id from [`TcpHub::next_touched`] [`TcpHub::advance`] and a
//! full drain of [`TcpHub::poll_event`]; at the end [`TcpHub::flush`], and for each id from [`TcpHub::next_output`]
//! [`TcpHub::poll_output`].
//!
//! **Invariants.** No clock, no socket and no executor in here: time is an argument, bytes come and go through
//! [`Network`], and the h2 package is polled by hand. What waits is bounded in every direction: encrypted bytes by
//! [`TcpHubLimits::pending_bytes_max`], data of a stream by a queue, datagrams by the outbox, what the peer sends by
//! the credit it gets as the owner reads. Peers' mistakes close their own connection only.
//!
//! Does not know: tunnels, policy, pools, configuration files.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::cast_possible_truncation)
)]

mod code;
mod connection;
mod flush;
mod gauge;
mod h1;
mod h2;
mod http;
mod io;
mod options;
mod receive;
mod stats;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod wake;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;
use slab::Slab;
use thiserror::Error;

use self::connection::{ClientNet, Connection, End, Phase};
pub use self::connection::{CloseReason, Event, TlsFailure};
pub use self::flush::LinkOutput;
pub use self::options::TcpHubLimits;
pub use self::stats::TcpHubStats;
use self::tls::Session;
use crate::http::h3::code::Code;
use crate::http::h3::{GoAway, Role};
use crate::net::{Network, TcpClose, TcpId};
use crate::wire::carrier::Carrier;

/// Room for less than this counts as none: a frame of the owner, its head at least, must fit into what is said to be
/// free, or the owner would wait for room that nobody announces.
const SEND_ROOM_MIN: usize = 4 * 1024;
/// Most bytes that one connection reads in one turn, so that a loud one does not hold up the others.
const READ_BYTES_PER_TURN: usize = 256 * 1024;
/// Most bytes of a tunnel that wait to be decrypted.
const INBOUND_BYTES_MAX: usize = 64 * 1024;

/// Names one connection of a [`TcpHub`]; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

impl ConnectionId {
    /// The name as one integer that fits beside a two-bit tag: 31 bits of slot, 31 bits of generation.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 31 | u64::from(self.index)
    }

    /// The reverse of [`ConnectionId::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            index: (bits & 0x7fff_ffff) as u32,
            generation: (bits >> 31 & 0x7fff_ffff) as u32,
        }
    }
}

/// Names one request stream of a connection: the stream identifier of HTTP/2, or 0 on HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// What carries the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteLink {
    /// A TCP socket of the worker, connected to this peer.
    Socket(TcpId, SocketAddr),
    /// A CONNECT-TCP tunnel (nesting), whose bytes the owner moves: [`TcpHub::handle_bytes`],
    /// [`TcpHub::poll_output`].
    Tunnel,
}

/// Why a connection was not even begun.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name of the server can stand in no certificate.
    #[error("the name of the server is not valid in TLS")]
    ServerName,
    /// The configuration cannot be used.
    #[error("TLS refuses: {0}")]
    Tls(#[from] rustls::Error),
}

/// All TCP connections with HTTP of one worker.
pub struct TcpHub {
    limits: TcpHubLimits,
    connections: Slab<Box<Connection>>,
    generation: u32,
    /// Connections that clients opened to us.
    served: usize,
    /// The same by client.
    clients: FxHashMap<ClientNet, usize>,
    draining: bool,
    touched: VecDeque<u32>,
    /// Touched again when the turn is over.
    later: Vec<u32>,
    dirty: VecDeque<u32>,
    /// Nested connections with something for their tunnel.
    outputs: VecDeque<u32>,
    /// One deadline per connection, by slot.
    timers: BTreeSet<(Instant, u32)>,
    events: VecDeque<(ConnectionId, Event)>,
    /// Events of the connection that is being worked on.
    http_events: VecDeque<Event>,
    /// Where sockets are read into.
    scratch: BytesMut,
    /// What happened so far.
    pub stats: TcpHubStats,
}

impl TcpHub {
    /// An empty hub.
    pub fn new(limits: TcpHubLimits) -> Self {
        Self {
            limits,
            connections: Slab::new(),
            generation: 0,
            served: 0,
            clients: FxHashMap::default(),
            draining: false,
            touched: VecDeque::new(),
            later: Vec::new(),
            dirty: VecDeque::new(),
            outputs: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            http_events: VecDeque::new(),
            scratch: BytesMut::new(),
            stats: TcpHubStats::default(),
        }
    }

    /// Takes over a socket that a listener accepted. `None` if a bound refuses it: then the socket is closed.
    pub fn accept(
        &mut self,
        now: Instant,
        socket: TcpId,
        peer: SocketAddr,
        config: Arc<rustls::ServerConfig>,
        net: &mut impl Network,
    ) -> Option<ConnectionId> {
        let client = ClientNet::of(peer);
        let of_client = self.clients.get(&client).copied().unwrap_or(0);
        let refused = if self.draining {
            Some(&mut self.stats.tcp_connections_refused_draining)
        } else if self.served >= self.limits.connections_max {
            Some(&mut self.stats.tcp_connections_refused)
        } else if of_client >= self.limits.connections_per_address_max {
            Some(&mut self.stats.tcp_connections_refused_address)
        } else {
            None
        };
        if let Some(counter) = refused {
            *counter += 1;
            net.close(socket, TcpClose::Abort);
            return None;
        }
        let session = match Session::server(config, self.limits.pending_bytes_max) {
            Ok(session) => session,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be served");
                self.stats.tcp_handshakes_failed += 1;
                net.close(socket, TcpClose::Abort);
                return None;
            }
        };
        self.served += 1;
        *self.clients.entry(client).or_default() += 1;
        let link = ByteLink::Socket(socket, peer);
        let id = self.insert(now, link, Role::Server, session);
        if let Some(connection) = live(&mut self.connections, id) {
            connection.client = Some(client);
        }
        Some(id)
    }

    /// Starts TLS as a client on a link that stands; the outcome arrives as [`Event::Connected`] or
    /// [`Event::Closed`]. ALPN in the configuration says what is offered: HTTP/2, HTTP/1.1, or both.
    ///
    /// # Errors
    /// The configuration or the server name cannot be used; nothing was sent, and the link is still the caller's.
    pub fn connect(
        &mut self,
        now: Instant,
        link: ByteLink,
        config: Arc<rustls::ClientConfig>,
        server_name: &str,
    ) -> Result<ConnectionId, ConnectError> {
        let only = match &config.alpn_protocols[..] {
            [one] => [Carrier::H2, Carrier::H1]
                .into_iter()
                .find(|carrier| carrier.alpn().as_bytes() == one),
            _ => None,
        };
        let session = Session::client(config, server_name, self.limits.pending_bytes_max)?;
        let id = self.insert(now, link, Role::Client, session);
        if let Some(connection) = live(&mut self.connections, id) {
            connection.only = only;
        }
        Ok(id)
    }

    fn insert(
        &mut self,
        now: Instant,
        link: ByteLink,
        role: Role,
        session: Session,
    ) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let generation = self.generation;
        let deadline = now + self.limits.handshake_timeout;
        let connection = Connection::new(link, role, session, generation, deadline);
        let slot = self.connections.insert(Box::new(connection));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "limits keep slots below 2^31"
        )]
        let index = slot as u32;
        self.touch(index);
        self.mark_dirty(index);
        ConnectionId { index, generation }
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

    /// Announces that the connection accepts no more requests, or sends none. Open requests go on; the connection ends
    /// with the last of them. HTTP/2 announces twice by itself (RFC 9113 section 6.8), so both kinds mean the same.
    pub fn goaway(&mut self, _now: Instant, id: ConnectionId, _kind: GoAway) {
        if let Some(connection) = open(&mut self.connections, id) {
            connection.http.goaway();
            self.mark_dirty(id.index);
        }
    }

    /// Closes a connection at once; [`Event::Closed`] tells of it, unless it was over before.
    pub fn close(&mut self, now: Instant, id: ConnectionId, code: Code) {
        self.end(now, id, code, CloseReason::Local);
    }

    /// Closes every connection and sends what tells the peers.
    pub fn close_all(&mut self, now: Instant, net: &mut impl Network) {
        let open: Vec<_> = self.connections().collect();
        for id in open {
            self.close(now, id, Code::H3_NO_ERROR);
        }
        self.flush(now, net);
    }

    /// Refuses new connections from here on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Accepts new connections again.
    pub fn undrain(&mut self) {
        self.draining = false;
    }

    /// The connections that exist, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.iter().map(|(slot, connection)| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "limits keep slots below 2^31"
            )]
            let index = slot as u32;
            ConnectionId {
                index,
                generation: connection.generation,
            }
        })
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

    /// The other end of the socket; `None` for a connection inside a tunnel.
    pub fn peer_address(&self, id: ConnectionId) -> Option<SocketAddr> {
        match self.get(id)?.link {
            ByteLink::Socket(_, peer) => Some(peer),
            ByteLink::Tunnel => None,
        }
    }

    /// The peer's own certificate, from [`Event::Connected`] on, if it showed one.
    pub fn peer_certificate(&self, id: ConnectionId) -> Option<CertificateDer<'static>> {
        self.get(id)?.session.borrow().peer_certificate()
    }

    /// Whether a client opened this connection to us.
    pub fn is_downstream(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.role == Role::Server)
    }

    /// The HTTP version of a connection, from [`Event::Connected`] on.
    pub fn carrier(&self, id: ConnectionId) -> Option<Carrier> {
        self.get(id)?.carrier
    }

    fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.connections.get(id.index as usize)?;
        (connection.generation == id.generation).then_some(connection)
    }

    /// Ends a connection for a reason that did not come from our user.
    fn end_because(&mut self, now: Instant, id: ConnectionId, reason: CloseReason) {
        let code = match &reason {
            CloseReason::Misbehaved(error) => error.code,
            CloseReason::Peer(_)
            | CloseReason::Lost(_)
            | CloseReason::Truncated
            | CloseReason::Tls(_)
            | CloseReason::Aborted(_)
            | CloseReason::HandshakeTimeout
            | CloseReason::HeadTimeout
            | CloseReason::IdleTimeout
            | CloseReason::WriteTimeout
            | CloseReason::Local => Code::H3_NO_ERROR,
        };
        self.end(now, id, code, reason);
    }

    /// Ends a connection for its owner, and tells the peer as far as it can be told.
    fn end(&mut self, now: Instant, id: ConnectionId, code: Code, reason: CloseReason) {
        let Some(connection) = open(&mut self.connections, id) else {
            return;
        };
        tracing::debug!(?reason, "a TCP connection ends");
        self.stats
            .count_end(&reason, connection.handshake_deadline.is_some());
        connection.end = End::Announced;
        connection.handshake_deadline = None;
        if reason.is_abrupt() {
            connection.phase = Phase::Aborted;
        } else {
            connection.http.close(code);
            connection.session.borrow_mut().close();
            connection.phase = Phase::Closing;
            // For what is still to be written; lingering begins behind it.
            connection.linger_deadline = Some(now + self.limits.write_timeout);
        }
        self.stats.tcp_dropped_closed += connection.outbox.clear() as u64;
        let bound = Vec::new();
        self.events.push_back((id, Event::Closed { reason, bound }));
        self.touch(id.index);
        self.mark_dirty(id.index);
    }

    fn touch(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index as usize)
            && !connection.touched
        {
            connection.touched = true;
            self.touched.push_back(index);
        }
    }

    fn mark_dirty(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index as usize)
            && !connection.dirty
        {
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
