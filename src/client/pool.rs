//! Connections to next hops, shared by the tunnels of one worker.
//!
//! ```text
//!   route ─► relay ─┬─ h3 ─┐   each a hop:  idle ─► resolving ──┐
//!                   ├─ h2 ─┤                 │                  ├─► handshaking ─► ready ─► requests
//!                   └─ h1 ─┘                 └────► tunnelling ─┘        └─ failed ─► backing off
//! ```
//!
//! A *hop* is one relay on one carrier. It dials one connection at a time, however many tunnels wait for it; another
//! one only when the peer's own stream limit says that the ready ones are full. On HTTP/1.1 a connection carries one
//! tunnel, so as many are dialled as tunnels wait, within a bound. A hop's [`Pooling`](super::Pooling) may ask for the
//! same on any carrier, or for a few tunnels on each connection. The addresses of a name race (RFC 8305): the next
//! starts when the one before failed, or was silent for a while. GOAWAY takes a connection out of service without
//! touching its tunnels. After a failure the hop backs off; who asks meanwhile is refused at once, with the
//! reason why the last dial failed. When an earlier relay refuses for good to reach the hop, that is the answer to the
//! tunnels that wait, and no failure of the hop.
//!
//! A *route* is the way to the last of several relays, with the hops to choose from. Which carrier worked is remembered
//! by network, so that a network without QUIC costs a head start only once.
//!
//! Does not read responses: a request that went out is the caller's, from the stream id on. Does not race carriers:
//! that is the tunnel's part, since only an answer tells whether a carrier works.

mod dial;
mod forget;
mod memory;
mod registry;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use self::dial::Dial;
use self::memory::Memory;
use self::registry::Registry;
use super::failure::Failure;
use super::hop::{Hop, HopKey, Request, TunnelKind};
use crate::config::HeadStarts;
use crate::error::Refusal;
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::RequestHead;
use crate::net::SocketId;
use crate::transport::carriers::{Carriers, ConnectionId, RequestStream};
use crate::transport::quic::EndpointId;
use crate::transport::quic::options::Options;
use crate::tunnel::TunnelId;
use crate::wire::carrier::Carrier;
use crate::wire::target::Target;

/// Names one relay on one carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopId(u32);

/// Names the way to a relay, on any of its carriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(u32);

/// Names one dial of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialId {
    /// The hop.
    pub hop: HopId,
    number: u64,
}

/// Bounds of a [`Pool`].
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Most connections to one hop.
    pub connections_per_hop_max: usize,
    /// Most connections to one hop where each carries one tunnel, as on HTTP/1.1.
    pub own_connections_per_hop_max: usize,
    /// Most tunnels that wait for a connection to one hop.
    pub waiting_per_hop_max: usize,
    /// The first pause after a failed dial; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

/// How long the answer of a name server may take before it counts as lost.
const RESOLVE_WITHIN: Duration = Duration::from_secs(30);

/// How many handshakes a hop has under way at once where each tunnel has a connection of its own.
const OWN_DIALS_MAX: usize = 16;

/// How long a connection that nobody needs any more outlives its last UDP tunnel: the last datagrams still go out.
const LINGER_UDP: Duration = Duration::from_millis(100);

/// The same for a TCP tunnel: its last bytes may get lost and be sent again, and the relay has to pass them on.
const LINGER_TCP: Duration = Duration::from_secs(5);

/// Where a tunnel stands in the queue of its hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The hop.
    pub hop: HopId,
    number: u64,
}

/// What the pool wants or has.
#[derive(Debug)]
pub enum PoolEvent {
    /// The request of `tunnel` went out; the response will be an event of that stream.
    Opened {
        /// Who asked.
        tunnel: TunnelId,
        /// With which ticket.
        ticket: Ticket,
        /// On which stream.
        stream: RequestStream,
    },
    /// There will be no stream for `tunnel`.
    Failed {
        /// Who asked.
        tunnel: TunnelId,
        /// With which ticket.
        ticket: Ticket,
        /// Why not.
        failure: Box<Failure>,
    },
    /// The hop's name has to be resolved: answer with [`Pool::handle_resolved`] or [`Pool::handle_unresolved`].
    Resolve {
        /// The hop that is dialled.
        hop: HopId,
        /// Its host name.
        name: Box<str>,
    },
    /// The hop wants a TCP connection: answer with [`Pool::handle_connecting`] or [`Pool::handle_unreachable`].
    Connect {
        /// Who dials.
        dial: DialId,
        /// Where to.
        address: SocketAddr,
    },
    /// The hop is reached through `via`: answer with [`Pool::handle_link`] or [`Pool::handle_unreachable`].
    Nest {
        /// Who dials.
        dial: DialId,
        /// The way to the relay before it.
        via: RouteId,
        /// The relay itself, as a target of the hop before.
        target: Target,
        /// What the tunnel has to carry.
        kind: TunnelKind,
    },
}

#[derive(Debug)]
struct Pooled {
    id: ConnectionId,
    streams: u32,
    idle_since: Instant,
    /// How long it is kept without tunnels.
    idle: Duration,
    /// How long it has to be kept behind the tunnels that it had.
    linger: Duration,
    /// Takes no more requests.
    going_away: bool,
}

struct Entry {
    key: (HopKey, Carrier, Option<RouteId>),
    hop: Hop,
    carrier: Carrier,
    via: Option<RouteId>,
    dials: Vec<Dial>,
    ready: Vec<Pooled>,
    /// By ticket number, which is the order of arrival.
    waiting: BTreeMap<u64, (TunnelId, Request)>,
    /// A handshake found no answer: the next one starts with smaller packets.
    small_path: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// Why the last dial failed.
    failure: Option<Box<Failure>>,
    /// Where the last connection went.
    address: Option<SocketAddr>,
}

struct Route {
    /// How often it was added, and not removed.
    users: u32,
    /// In the order of preference.
    hops: Vec<(Carrier, HopId)>,
    memory: Memory,
}

/// The hops of one worker and their connections.
pub struct Pool {
    limits: PoolLimits,
    dialler: (EndpointId, SocketId),
    options: Options,
    entries: Registry<Entry>,
    routes: Registry<Route>,
    /// Nobody counts on some route any more.
    forgetting: bool,
    events: VecDeque<PoolEvent>,
    /// Tickets and dials so far.
    numbers: u64,
    /// When [`Pool::expire`] has work at the earliest. May be early, never late.
    due: Option<Instant>,
}

impl Pool {
    /// An empty pool whose QUIC connections start at an endpoint and its socket.
    pub fn new(limits: PoolLimits, dialler: (EndpointId, SocketId), options: Options) -> Self {
        Self {
            limits,
            dialler,
            options,
            entries: Registry::new(),
            routes: Registry::new(),
            forgetting: false,
            events: VecDeque::new(),
            numbers: 0,
            due: None,
        }
    }

    /// Makes a route known: relays in the order of travel, each reached through the one before. Routes that begin
    /// alike share connections. [`Pool::remove_route`] takes it back.
    ///
    /// # Panics
    /// If `relays` is empty, or one of them has no carrier.
    pub fn add_route(&mut self, relays: impl IntoIterator<Item = Hop>) -> RouteId {
        let mut via = None;
        for relay in relays {
            assert!(
                !relay.carriers.is_empty(),
                "a relay is reached on some carrier"
            );
            let hops: Vec<_> = relay
                .carriers
                .iter()
                .map(|carrier| (*carrier, self.hop_for(&relay, *carrier, via)))
                .collect();
            let known = self
                .routes
                .iter()
                .find(|(_, route)| route.hops == hops)
                .map(|(number, _)| number);
            let number = known.unwrap_or_else(|| {
                let memory = Memory::default();
                self.routes.insert(Route {
                    users: 0,
                    hops,
                    memory,
                })
            });
            via = Some(RouteId(number));
        }
        let route = via.expect("a route has at least one relay");
        self.routes[route.0].users += 1;
        route
    }

    fn hop_for(&mut self, relay: &Hop, carrier: Carrier, via: Option<RouteId>) -> HopId {
        let key = (relay.key(), carrier, via);
        let known = self
            .entries
            .iter()
            .find(|(_, entry)| entry.key == key && entry.hop.asks_like(relay))
            .map(|(number, _)| number);
        let number = known.unwrap_or_else(|| {
            self.entries.insert(Entry {
                key,
                hop: relay.clone(),
                carrier,
                via,
                dials: Vec::new(),
                ready: Vec::new(),
                waiting: BTreeMap::new(),
                small_path: false,
                failures: 0,
                not_before: None,
                failure: None,
                address: None,
            })
        });
        HopId(number)
    }

    /// The hops of a route in the order in which a tunnel should try them, now and in this network.
    pub fn choices(
        &self,
        now: Instant,
        route: RouteId,
        network: Option<IpAddr>,
    ) -> Vec<(Carrier, HopId)> {
        let Some(Route { hops, memory, .. }) = self.routes.get(route.0) else {
            return Vec::new();
        };
        let mut hops = hops.clone();
        if let Some(carrier) = memory.recall(now, network) {
            // Stable: the others keep their order.
            hops.sort_by_key(|(known, _)| *known != carrier);
        }
        hops
    }

    /// A tunnel opened on this carrier: the next one tries it first.
    pub fn remember(
        &mut self,
        now: Instant,
        route: RouteId,
        network: Option<IpAddr>,
        carrier: Carrier,
    ) {
        let Some(Route { hops, memory, .. }) = self.routes.get_mut(route.0) else {
            return;
        };
        match hops.first() {
            Some((preferred, _)) if *preferred == carrier => memory.forget(network),
            Some(_) | None => memory.keep(now, network, carrier),
        }
    }

    /// An address of the first relay on the way, as far as one is known.
    pub fn first_address(&self, route: RouteId) -> Option<SocketAddr> {
        let hops = &self.routes.get(route.0)?.hops;
        let mut entries = hops.iter().map(|(_, hop)| &self.entries[hop.0]);
        entries.find_map(|entry| match entry.via {
            Some(via) => self.first_address(via),
            None => entry.address,
        })
    }

    /// How carriers race on a route, if it has a say in that.
    pub fn head_starts(&self, route: RouteId) -> Option<HeadStarts> {
        self.last_hop(route)?.head_starts
    }

    /// How long opening a tunnel on a route may take, if it has a say in that.
    pub fn open_timeout(&self, route: RouteId) -> Option<Duration> {
        self.last_hop(route)?.open_timeout
    }

    /// The last relay of a route.
    pub fn relay(&self, route: RouteId) -> Option<Target> {
        self.last_hop(route).map(Hop::target)
    }

    fn last_hop(&self, route: RouteId) -> Option<&Hop> {
        let (_, hop) = self.routes.get(route.0)?.hops.first()?;
        Some(self.hop(*hop))
    }

    /// How a hop is asked.
    pub fn hop(&self, hop: HopId) -> &Hop {
        &self.entries[hop.0].hop
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<PoolEvent> {
        while let Some(event) = self.events.pop_front() {
            // A dial may be over before its wish was heard; nobody would own what comes of it.
            let is_stale = match &event {
                PoolEvent::Connect { dial, .. } | PoolEvent::Nest { dial, .. } => {
                    !self.is_dialling(*dial)
                }
                PoolEvent::Opened { .. } | PoolEvent::Failed { .. } | PoolEvent::Resolve { .. } => {
                    false
                }
            };
            if !is_stale {
                return Some(event);
            }
        }
        None
    }

    /// How many tunnels wait for a stream, and how many streams are in use.
    pub fn in_use(&self) -> (usize, usize) {
        let waiting = self.entries.values().map(|entry| entry.waiting.len()).sum();
        let ready = self.entries.values().flat_map(|entry| &entry.ready);
        (waiting, ready.map(|pooled| pooled.streams as usize).sum())
    }

    /// Whether [`Pool::poll`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Asks for a stream on the far side of `hop`.
    pub fn open(
        &mut self,
        now: Instant,
        hop: HopId,
        tunnel: TunnelId,
        request: Request,
        carriers: &mut Carriers,
    ) -> Ticket {
        let limits = self.limits;
        let number = self.number();
        let ticket = Ticket { hop, number };
        let entry = self.entries.get_mut(hop.0);
        let failure = match entry {
            None => Refusal::DestinationUnavailable.into(),
            Some(entry) => match entry.pause(now) {
                Some(failure) => failure,
                None if entry.waiting.len() >= limits.waiting_per_hop_max => {
                    Failure::at(entry.hop.target(), Refusal::Overloaded)
                }
                None => {
                    entry.waiting.insert(number, (tunnel, request));
                    self.pump(now, hop, carriers);
                    return ticket;
                }
            },
        };
        self.events.push_back(PoolEvent::Failed {
            tunnel,
            ticket,
            failure: failure.into(),
        });
        ticket
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A tunnel does not want its stream any more. One that is open already is released by [`Pool::release`].
    pub fn cancel(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entries.get_mut(ticket.hop.0) {
            entry.waiting.remove(&ticket.number);
        }
    }

    /// A stream that the pool opened has ended.
    pub fn release(&mut self, now: Instant, connection: ConnectionId, carriers: &mut Carriers) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0];
        let mut pooled = entry.ready.iter_mut();
        if let Some(pooled) = pooled.find(|pooled| pooled.id == connection) {
            pooled.streams = pooled.streams.saturating_sub(1);
            pooled.idle_since = now;
            // On HTTP/1.1 the connection ends with its tunnel, in the way in which that ended. Otherwise what is on its
            // way in a connection that takes no further tunnels shall arrive.
            if pooled.going_away && pooled.streams == 0 {
                pooled.idle = pooled.linger.min(pooled.idle);
            }
            let idle = pooled.idle;
            self.wake_at(now + idle);
        }
        self.pump(now, hop, carriers);
        self.forget(now, carriers);
    }

    /// Which hop a connection belongs to.
    fn hop_of(&self, connection: ConnectionId) -> Option<HopId> {
        let (number, _) = self.entries.iter().find(|(_, entry)| {
            entry.dials.iter().any(|dial| dial.has(connection))
                || entry.ready.iter().any(|pooled| pooled.id == connection)
        })?;
        Some(HopId(number))
    }

    /// A connection can carry tunnels: on HTTP/2 and HTTP/3 the peer's SETTINGS have arrived.
    pub fn handle_ready(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        carriers: &mut Carriers,
    ) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0];
        if let Some(index) = entry.dials.iter().position(|dial| dial.has(connection)) {
            let dial = entry.dials.swap_remove(index);
            entry.failures = 0;
            entry.not_before = None;
            entry.failure = None;
            let idle = entry.hop.pooling.idle;
            entry.ready.push(Pooled {
                id: connection,
                streams: 0,
                idle_since: now,
                idle,
                linger: Duration::ZERO,
                going_away: false,
            });
            for loser in dial.others(connection) {
                carriers.close(now, loser, Code::H3_NO_ERROR);
            }
            self.wake_at(now + idle);
        }
        self.pump(now, hop, carriers);
        self.forget(now, carriers);
    }

    /// The peer grants more streams.
    pub fn handle_streams(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        carriers: &mut Carriers,
    ) {
        if let Some(hop) = self.hop_of(connection) {
            self.pump(now, hop, carriers);
        }
    }

    /// The peer accepts no more requests on this connection (RFC 9114 §5.2, RFC 9113 §6.8).
    pub fn handle_goaway(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        carriers: &mut Carriers,
    ) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0];
        if let Some(pooled) = entry
            .ready
            .iter_mut()
            .find(|pooled| pooled.id == connection)
        {
            pooled.going_away = true;
            if pooled.streams == 0 {
                carriers.close(now, connection, Code::H3_NO_ERROR);
            }
        }
    }

    /// A connection swallows what is sent on it: it gets no more requests, and its tunnels end as they may.
    pub fn distrust(&mut self, connection: ConnectionId) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let ready = &mut self.entries[hop.0].ready;
        if let Some(pooled) = ready.iter_mut().find(|pooled| pooled.id == connection) {
            pooled.going_away = true;
        }
    }

    /// Does what is due: closes connections that carried nothing for a while, gives up on lost answers, tries further
    /// addresses, dials again after a pause.
    pub fn expire(&mut self, now: Instant, carriers: &mut Carriers) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        for number in self.entries.numbers() {
            let hop = HopId(number);
            let entry = &self.entries[number];
            let idle = entry.ready.iter().filter(|pooled| pooled.streams == 0);
            let idle: Vec<_> = idle
                .map(|pooled| (pooled.id, pooled.idle_since + pooled.idle))
                .collect();
            for (connection, due) in idle {
                if due <= now {
                    carriers.close(now, connection, Code::H3_NO_ERROR);
                } else {
                    self.wake_at(due);
                }
            }
            self.expire_dials(now, hop, carriers);
            self.pump(now, hop, carriers);
        }
        self.forget(now, carriers);
    }

    /// When [`Pool::expire`] has work at the earliest.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn wake_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Gives streams to those that wait, as far as there are any, and dials if that was not far enough.
    fn pump(&mut self, now: Instant, hop: HopId, carriers: &mut Carriers) {
        let entry = &mut self.entries[hop.0];
        while let Some((&number, (tunnel, request))) = entry.waiting.first_key_value() {
            let (tunnel, ticket) = (*tunnel, Ticket { hop, number });
            let head = entry.hop.request(request);
            let linger = match request.kind {
                TunnelKind::Udp | TunnelKind::Ip => LINGER_UDP,
                TunnelKind::Tcp(_) => LINGER_TCP,
            };
            let event = match entry.request(&head, linger, carriers) {
                Ok(Some(stream)) => PoolEvent::Opened {
                    tunnel,
                    ticket,
                    stream,
                },
                Ok(None) => break,
                Err(refusal) => PoolEvent::Failed {
                    tunnel,
                    ticket,
                    failure: Failure::at(entry.hop.target(), refusal).into(),
                },
            };
            self.events.push_back(event);
            entry.waiting.pop_first();
        }
        let waiting = entry.waiting.len();
        let limits = self.limits;
        let (dials_max, connections_max) = match entry.tunnels_per_connection() {
            None => (1, limits.connections_per_hop_max),
            // As many tunnels as if each had a connection of its own.
            Some(tunnels) => (
                OWN_DIALS_MAX.min(waiting.div_ceil(tunnels)),
                limits.own_connections_per_hop_max.div_ceil(tunnels),
            ),
        };
        let dials_max = dials_max.min(waiting);
        let connections_max = connections_max.saturating_sub(entry.ready.len());
        let wanted = dials_max
            .min(connections_max)
            .saturating_sub(entry.dials.len());
        match entry.not_before {
            _ if wanted == 0 => {}
            Some(instant) if now < instant => self.wake_at(instant),
            Some(_) | None => {
                for _ in 0..wanted {
                    self.dial(now, hop);
                }
            }
        }
    }
}

impl Entry {
    /// Why nobody may ask now, if so: the last dial failed, and no connection is left.
    fn pause(&self, now: Instant) -> Option<Failure> {
        let until = self.not_before.filter(|instant| now < *instant)?;
        if self.ready.iter().any(|pooled| !pooled.going_away) {
            return None;
        }
        let failure = match &self.failure {
            Some(failure) => Failure::clone(failure),
            None => Failure::at(self.hop.target(), Refusal::DestinationUnavailable),
        };
        Some(Failure {
            response: None,
            pause: Some(until - now),
            ..failure
        })
    }

    /// Whether each tunnel has a connection of its own.
    fn is_own(&self) -> bool {
        self.carrier == Carrier::H1 || self.hop.pooling.separate
    }

    /// How many tunnels a connection may carry, where that is not the peer's choice alone.
    fn tunnels_per_connection(&self) -> Option<usize> {
        match self.hop.pooling.streams_max {
            _ if self.is_own() => Some(1),
            max => max.map(|max| max.max(1) as usize),
        }
    }

    /// Sends a request on the first connection with room for it; `None` if there is none. `linger` is how long the
    /// connection shall outlive the tunnel if it takes no further ones.
    ///
    /// # Errors
    /// No connection to this hop will ever take the request.
    fn request(
        &mut self,
        head: &RequestHead,
        linger: Duration,
        carriers: &mut Carriers,
    ) -> Result<Option<RequestStream>, Refusal> {
        let is_own = self.is_own();
        let streams_max = self
            .hop
            .pooling
            .streams_max
            .map_or(u32::MAX, |max| max.max(1));
        let free = |pooled: &&mut Pooled| !pooled.going_away && pooled.streams < streams_max;
        for pooled in self.ready.iter_mut().filter(free) {
            match carriers.request(pooled.id, head) {
                Ok(stream) => {
                    pooled.streams += 1;
                    pooled.linger = linger.max(pooled.linger);
                    pooled.going_away |= is_own;
                    return Ok(Some(stream));
                }
                Err(h3::RequestError::GoingAway) => pooled.going_away = true,
                Err(h3::RequestError::StreamsExhausted | h3::RequestError::NoSettingsYet) => {}
                Err(h3::RequestError::ExtendedConnectUnsupported) => {
                    return Err(Refusal::NextHopProtocol);
                }
                Err(h3::RequestError::TooLarge { .. }) => return Err(Refusal::HeadTooLarge),
            }
        }
        Ok(None)
    }
}
