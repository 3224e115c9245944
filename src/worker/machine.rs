//! What a worker owns, and what it sees of the world outside.
//!
//! The turn is in `turn`, the life of a tunnel in `open`, `race`, `relay` (datagrams), `splice` (bytes) and `close`,
//! the end of everything in `drain`.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;

use super::batch::Batches;
use super::decide::Incoming;
use super::drain::Drain;
use super::fallback::{Fallback, PlainRequest};
use super::ip::{Gateway, GatewayEvent};
use super::leg::Tunnel;
use super::pipe::Direction;
use super::rest::Rests;
use super::stats::Stats;
use crate::client::{Failure, Hop, HopId, Pool, RouteId};
use crate::config::HeadStarts;
use crate::error::{Abort, Refusal};
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::net::steer::Steer;
use crate::net::{Network, SocketId, SocketOptions, TcpId, Train};
use crate::policy::auth::Job;
use crate::server::Server;
use crate::transport::carriers::{Carriers, ConnectionId, RequestStream};
use crate::transport::quic::{EndpointId, Hub};
use crate::transport::tcp;
use crate::transport::tcp::TcpHub;
use crate::tunnel::ip::IpEvent;
use crate::tunnel::{EarlyLimits, Table, TunnelId};
use crate::wire::carrier::Carrier;
use crate::wire::ip::Destination;
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
    /// A queue of the TUN interface that packets of clients leave by.
    Tun,
    /// A socket of the program that uses the machine, not of the machine.
    App(u32),
}

impl Tag {
    const TUN: u64 = 3 << 62 | 1 << 32;

    /// As the integer that a driver keeps.
    pub fn to_bits(self) -> u64 {
        match self {
            Self::Target(tunnel) => tunnel.to_bits(),
            Self::Listener(number) => 1 << 62 | u64::from(number),
            Self::Dialler => 2 << 62,
            Self::Tun => Self::TUN,
            Self::App(number) => 3 << 62 | u64::from(number),
        }
    }

    /// The reverse of [`Tag::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        match bits >> 62 {
            0 => Self::Target(TunnelId::from_bits(bits)),
            1 => Self::Listener(bits as u32),
            2 => Self::Dialler,
            _ if bits == Self::TUN => Self::Tun,
            _ => Self::App(bits as u32),
        }
    }
}

/// What a TCP socket of a worker is for; the driver hands it back with what happened to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpTag {
    /// The target of a tunnel, or one of the addresses that are tried for it.
    Target(TunnelId),
    /// A listener, by its number in the configuration.
    Listener(u32),
    /// A connection that carries HTTP/2 or HTTP/1.1.
    Carrier(tcp::ConnectionId),
    /// A socket of the program that uses the machine, not of the machine.
    App(u32),
}

impl TcpTag {
    /// As the integer that a driver keeps.
    pub fn to_bits(self) -> u64 {
        match self {
            Self::Target(tunnel) => tunnel.to_bits(),
            Self::Listener(number) => 1 << 62 | u64::from(number),
            Self::Carrier(connection) => 2 << 62 | connection.to_bits(),
            Self::App(number) => 3 << 62 | u64::from(number),
        }
    }

    /// The reverse of [`TcpTag::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        match bits >> 62 {
            0 => Self::Target(TunnelId::from_bits(bits)),
            1 => Self::Listener(bits as u32),
            2 => Self::Carrier(tcp::ConnectionId::from_bits(bits)),
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
    fn connect(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: Tag,
    ) -> io::Result<SocketId>;

    /// Closes a socket.
    fn remove(&mut self, socket: SocketId);

    /// Starts a TCP connection to `target`; `Connected` or `Failed` follows.
    ///
    /// # Errors
    /// What the system says at once: no route, no descriptor left.
    fn connect_tcp(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: TcpTag,
    ) -> io::Result<TcpId>;

    /// Gives a TCP socket another tag, an accepted one its first of its own.
    fn set_tcp_tag(&mut self, socket: TcpId, tag: TcpTag);

    /// Starts to check a password; the answer goes to [`Machine::handle_verdict`]. Returns `false` when there is no
    /// room for another check; then no answer comes.
    fn verify(&mut self, job: Job) -> bool;

    /// Our own address on the way to `peer`, which tells networks apart; `None` where nothing leads there.
    fn local_ip_towards(&mut self, peer: SocketAddr) -> Option<IpAddr>;

    /// Starts to resolve a name; the answer goes to [`Machine::handle_resolved`]. Returns `false` when there is no room
    /// for another question; then no answer comes.
    fn resolve(&mut self, name: &str, asker: Resolve) -> bool;

    /// Hands packets to the worker that owns their connection; they come back if that worker has ended.
    fn forward(&mut self, worker: u32, listener: u32, train: Train) -> Option<Train>;

    /// Hands an IP packet to the worker whose client it is for; what cannot be handed over is lost and counted.
    fn forward_packet(&mut self, worker: u32, packet: Bytes);
}

/// Which end of a tunnel a user in this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client's: it reads what the target says.
    Downstream,
    /// The target's: it reads what the client says.
    Upstream,
}

impl End {
    /// The one across the tunnel.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// What the user of an end has to know.
#[derive(Debug)]
pub enum LocalEvent {
    /// The tunnel is open: the target can be reached.
    Opened(TunnelId),
    /// The tunnel was refused.
    Refused(TunnelId, Box<Refused>),
    /// A UDP payload, or an IP packet, from the other end.
    Payload(TunnelId, Bytes),
    /// An HTTP Datagram with a Context ID other than 0.
    Context(TunnelId, u64, Bytes),
    /// A capsule of a type that the tunnel itself has no use for, and its value.
    Capsule(TunnelId, u64, Bytes),
    /// The other end of an IP tunnel said something about addresses or routes.
    Ip(TunnelId, IpEvent),
    /// A TCP tunnel has bytes, or its end: [`Machine::read_end`].
    Readable(TunnelId),
    /// A TCP tunnel takes bytes again, [`Machine::write_end`]; or any tunnel capsules, [`Machine::send_capsule`].
    Writable(TunnelId),
    /// The tunnel is over. Until the next event is polled [`Machine::read_end`] gives the bytes that came before.
    Closed(TunnelId, Closed),
}

impl LocalEvent {
    /// The tunnel that it is about.
    pub const fn tunnel(&self) -> TunnelId {
        let (Self::Opened(tunnel)
        | Self::Refused(tunnel, _)
        | Self::Payload(tunnel, _)
        | Self::Context(tunnel, ..)
        | Self::Capsule(tunnel, ..)
        | Self::Ip(tunnel, _)
        | Self::Readable(tunnel)
        | Self::Writable(tunnel)
        | Self::Closed(tunnel, _)) = self;
        *tunnel
    }
}

/// How a tunnel ended that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both directions of a TCP tunnel came to their end.
    Finished,
    /// Something ended it.
    Aborted {
        /// What.
        abort: Abort,
        /// The code with which a peer ended its stream, if one did.
        code: Option<Code>,
    },
}

/// What a handler in this process has to know.
#[derive(Debug)]
pub enum HandlerEvent {
    /// Somebody wants a tunnel. The answer is one of [`Machine::accept_request`], [`Machine::proceed_direct`],
    /// [`Machine::proceed_chain`] and [`Machine::reject`].
    Request(TunnelId, Box<Incoming>),
    /// Somebody asks for something else than a tunnel, see [`Machine::set_fallback`]. The answer is
    /// [`Machine::respond`]; when it comes to none, [`LocalEvent::Closed`] follows.
    Fallback(TunnelId, Box<PlainRequest>),
    /// Something about the upstream end of a tunnel that the handler has, or was asked for.
    End(LocalEvent),
    /// Something that happened at the gateway of IP tunnels, if the handler is its exit.
    Gateway(GatewayEvent),
}

/// Why a tunnel of a local user was refused.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub refusal: Refusal,
    /// What the relay answered, if one did.
    pub response: Option<Box<ResponseHead>>,
    /// Which relay refused or could not be reached, if it is about one.
    pub relay: Option<Target>,
    /// What that relay was asked for, if it was asked: the target, or the next relay on the way.
    pub target: Option<Destination>,
    /// Nobody was asked now: `refusal` is why the last attempt failed, and this long none is made.
    pub pause: Option<Duration>,
    /// The carriers that were tried, and why each failed, in the order of the failures.
    pub attempts: Vec<(Carrier, Failure)>,
}

/// Bounds of a [`Machine`] beyond those of its parts.
#[derive(Clone, Copy, Debug)]
pub struct MachineLimits {
    /// Most tunnels, and requests that a fallback answers; clients that ask for more are refused.
    pub tunnels_max: usize,
    /// Most sockets towards targets.
    pub target_sockets_max: usize,
    /// Most tunnels that wait for the addresses of their target.
    pub resolves_max: usize,
    /// What a tunnel keeps before it is open.
    pub early: EarlyLimits,
    /// A tunnel without a datagram for this long is ended (RFC 9298 §3.1: not below two minutes).
    pub tunnel_idle: Duration,
    /// A TCP tunnel on which nothing moves for this long is ended.
    pub tcp_idle: Duration,
    /// What a TCP tunnel keeps per direction while the far end takes nothing.
    pub tcp_buffer_bytes: usize,
    /// How carriers race.
    pub head_starts: HeadStarts,
    /// How long opening may take, resolving and dialling included.
    pub open_timeout: Duration,
    /// How long a drain waits for tunnels to end.
    pub drain: Duration,
}

/// What a machine is made of.
pub struct Setup {
    /// Connections.
    pub carriers: Carriers,
    /// TLS of each listener on TCP, if it listens there.
    pub tcp_listeners: Vec<Option<Arc<rustls::ServerConfig>>>,
    /// The endpoint of each listener, if it listens on UDP.
    pub listeners: Vec<Option<EndpointId>>,
    /// The endpoint that dials, and its socket.
    pub dialler: (EndpointId, SocketId),
    /// Next hops.
    pub pool: Pool,
    /// The last hop of the route that chained tunnels take, if tunnels are chained.
    pub route: Option<RouteId>,
    /// Who may open what.
    pub server: Server,
    /// Where IP packets of clients leave, if they do.
    pub gateway: Option<Gateway>,
    /// Which worker owns which connection ID, and which worker this is.
    pub steer: (Steer, u32),
    /// Bounds.
    pub limits: MachineLimits,
}

/// Everything that one worker owns, without its sockets and its clock.
pub struct Machine {
    pub(super) carriers: Carriers,
    pub(super) tcp_listeners: Vec<Option<Arc<rustls::ServerConfig>>>,
    pub(super) pool: Pool,
    pub(super) route: Option<RouteId>,
    pub(super) server: Server,
    pub(super) gateway: Option<Gateway>,
    pub(super) limits: MachineLimits,
    pub(super) tunnels: Table<Tunnel>,
    /// The tunnels that carry nested connections.
    pub(super) nested: FxHashMap<ConnectionId, TunnelId>,
    pub(super) batches: Batches,
    pub(super) local: VecDeque<LocalEvent>,
    pub(super) handler: VecDeque<HandlerEvent>,
    /// What broken tunnels left for users downstream, and for the handler.
    pub(super) rests: [Rests; 2],
    /// Request streams with data to read.
    pub(super) readable: VecDeque<RequestStream>,
    /// Request streams whose peer reads no more.
    pub(super) stopped: VecDeque<(RequestStream, Code)>,
    /// Directions of TCP tunnels that gave way to others.
    pub(super) resume: VecDeque<(TunnelId, Direction)>,
    /// What reads of TCP sockets share.
    pub(super) read_buffer: BytesMut,
    /// One deadline per tunnel.
    pub(super) timers: BTreeSet<(Instant, TunnelId)>,
    pub(super) listeners: Vec<Option<EndpointId>>,
    pub(super) dialler: (EndpointId, SocketId),
    pub(super) steer: (Steer, u32),
    /// Sockets towards targets that are open.
    pub(super) target_sockets: usize,
    /// Tunnels that wait for the addresses of their target.
    pub(super) resolves: usize,
    pub(super) drain: Drain,
    /// Requests that ask for no tunnel.
    pub(super) fallback: Fallback,
    /// What happened so far.
    pub stats: Stats,
}

impl Machine {
    /// Puts the parts together.
    pub fn new(setup: Setup) -> Self {
        Self {
            carriers: setup.carriers,
            tcp_listeners: setup.tcp_listeners,
            pool: setup.pool,
            route: setup.route,
            server: setup.server,
            gateway: setup.gateway,
            limits: setup.limits,
            tunnels: Table::default(),
            nested: FxHashMap::default(),
            batches: Batches::default(),
            local: VecDeque::new(),
            handler: VecDeque::new(),
            rests: Default::default(),
            readable: VecDeque::new(),
            stopped: VecDeque::new(),
            resume: VecDeque::new(),
            read_buffer: BytesMut::new(),
            timers: BTreeSet::new(),
            listeners: setup.listeners,
            dialler: setup.dialler,
            steer: setup.steer,
            target_sockets: 0,
            resolves: 0,
            drain: Drain::No,
            fallback: Fallback::default(),
            stats: Stats::default(),
        }
    }

    /// Makes another route known. See [`Pool::add_route`].
    pub fn add_route(&mut self, hops: impl IntoIterator<Item = Hop>) -> RouteId {
        self.pool.add_route(hops)
    }

    /// How many tunnels there are.
    pub fn tunnel_count(&self) -> usize {
        self.tunnels.len()
    }

    /// The QUIC connections, for their counters.
    pub fn hub(&self) -> &Hub {
        &self.carriers.quic
    }

    /// The TCP connections, for their counters.
    pub fn tcp_hub(&self) -> &TcpHub {
        &self.carriers.tcp
    }
}
