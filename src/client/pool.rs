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
//! tunnel, so as many are dialled as tunnels wait, within a bound. The addresses of a name race (RFC 8305): the next
//! starts when the one before failed, or was silent for a while. GOAWAY takes a connection out of service without
//! touching its tunnels. After a failure the hop backs off, and tunnels that ask meanwhile are refused at once.
//!
//! A *route* is the way to the last of several relays, with the hops to choose from. Which carrier worked is remembered
//! by network, so that a network without QUIC costs a head start only once.
//!
//! Does not read responses: a request that went out is the caller's, from the stream id on. Does not race carriers:
//! that is the tunnel's part, since only an answer tells whether a carrier works.

mod dial;
mod memory;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use self::dial::Dial;
use self::memory::Memory;
use super::hop::{Hop, HopKey, Request, TunnelKind};
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
    /// Most connections to one hop on HTTP/1.1, where each carries one tunnel.
    pub h1_connections_per_hop_max: usize,
    /// Most tunnels that wait for a connection to one hop.
    pub waiting_per_hop_max: usize,
    /// A connection without tunnels is closed after this long.
    pub idle: Duration,
    /// The first pause after a failed dial; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

/// How long the answer of a name server may take before it counts as lost.
const RESOLVE_WITHIN: Duration = Duration::from_secs(30);

/// How many handshakes a hop on HTTP/1.1 has under way at once.
const H1_DIALS_MAX: usize = 16;

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
        refusal: Refusal,
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
    /// Where the last connection went.
    address: Option<SocketAddr>,
}

struct Route {
    /// In the order of preference.
    hops: Vec<(Carrier, HopId)>,
    memory: Memory,
}

/// The hops of one worker and their connections.
pub struct Pool {
    limits: PoolLimits,
    dialler: (EndpointId, SocketId),
    options: Options,
    entries: Vec<Entry>,
    routes: Vec<Route>,
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
            entries: Vec::new(),
            routes: Vec::new(),
            events: VecDeque::new(),
            numbers: 0,
            due: None,
        }
    }

    /// Makes a route known: relays in the order of travel, each reached through the one before. Routes that begin
    /// alike share connections.
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
            let known = self.routes.iter().position(|route| route.hops == hops);
            let index = known.unwrap_or_else(|| {
                let memory = Memory::default();
                self.routes.push(Route { hops, memory });
                self.routes.len() - 1
            });
            via = Some(RouteId(index as u32));
        }
        via.expect("a route has at least one relay")
    }

    fn hop_for(&mut self, relay: &Hop, carrier: Carrier, via: Option<RouteId>) -> HopId {
        let key = (relay.key(), carrier, via);
        let known = self
            .entries
            .iter()
            .position(|entry| entry.key == key && entry.hop.asks_like(relay));
        let index = known.unwrap_or_else(|| {
            self.entries.push(Entry {
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
                address: None,
            });
            self.entries.len() - 1
        });
        HopId(index as u32)
    }

    /// The hops of a route in the order in which a tunnel should try them, now and in this network.
    pub fn choices(
        &self,
        now: Instant,
        route: RouteId,
        network: Option<IpAddr>,
    ) -> Vec<(Carrier, HopId)> {
        let Route { hops, memory } = &self.routes[route.0 as usize];
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
        let Route { hops, memory } = &mut self.routes[route.0 as usize];
        match hops.first() {
            Some((preferred, _)) if *preferred == carrier => memory.forget(network),
            Some(_) | None => memory.keep(now, network, carrier),
        }
    }

    /// An address of the first relay on the way, as far as one is known.
    pub fn first_address(&self, route: RouteId) -> Option<SocketAddr> {
        let hops = &self.routes[route.0 as usize].hops;
        let mut entries = hops.iter().map(|(_, hop)| &self.entries[hop.0 as usize]);
        entries.find_map(|entry| match entry.via {
            Some(via) => self.first_address(via),
            None => entry.address,
        })
    }

    /// How a hop is asked.
    pub fn hop(&self, hop: HopId) -> &Hop {
        &self.entries[hop.0 as usize].hop
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
        let waiting = self.entries.iter().map(|entry| entry.waiting.len()).sum();
        let ready = self.entries.iter().flat_map(|entry| &entry.ready);
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
        let entry = &mut self.entries[hop.0 as usize];
        let backs_off = entry.not_before.is_some_and(|instant| now < instant);
        let refusal = if backs_off && entry.ready.iter().all(|pooled| pooled.going_away) {
            Some(Refusal::DestinationUnavailable)
        } else if entry.waiting.len() >= limits.waiting_per_hop_max {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        match refusal {
            Some(refusal) => self.events.push_back(PoolEvent::Failed {
                tunnel,
                ticket,
                refusal,
            }),
            None => {
                entry.waiting.insert(number, (tunnel, request));
                self.pump(now, hop, carriers);
            }
        }
        ticket
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A tunnel does not want its stream any more. One that is open already is released by [`Pool::release`].
    pub fn cancel(&mut self, ticket: Ticket) {
        self.entries[ticket.hop.0 as usize]
            .waiting
            .remove(&ticket.number);
    }

    /// A stream that the pool opened has ended.
    pub fn release(&mut self, now: Instant, connection: ConnectionId, carriers: &mut Carriers) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0 as usize];
        let is_h1 = entry.carrier == Carrier::H1;
        let mut pooled = entry.ready.iter_mut();
        if let Some(pooled) = pooled.find(|pooled| pooled.id == connection) {
            pooled.streams = pooled.streams.saturating_sub(1);
            pooled.idle_since = now;
            // On HTTP/1.1 the connection ends with its tunnel, in the way in which that ended.
            if pooled.going_away && pooled.streams == 0 && !is_h1 {
                carriers.close(now, connection, Code::H3_NO_ERROR);
            }
            self.wake_at(now + self.limits.idle);
        }
        self.pump(now, hop, carriers);
    }

    /// Which hop a connection belongs to.
    fn hop_of(&self, connection: ConnectionId) -> Option<HopId> {
        let index = self.entries.iter().position(|entry| {
            entry.dials.iter().any(|dial| dial.has(connection))
                || entry.ready.iter().any(|pooled| pooled.id == connection)
        })?;
        Some(HopId(index as u32))
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
        let entry = &mut self.entries[hop.0 as usize];
        if let Some(index) = entry.dials.iter().position(|dial| dial.has(connection)) {
            let dial = entry.dials.swap_remove(index);
            entry.failures = 0;
            entry.not_before = None;
            entry.ready.push(Pooled {
                id: connection,
                streams: 0,
                idle_since: now,
                going_away: false,
            });
            for loser in dial.others(connection) {
                carriers.close(now, loser, Code::H3_NO_ERROR);
            }
            self.wake_at(now + self.limits.idle);
        }
        self.pump(now, hop, carriers);
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
        let entry = &mut self.entries[hop.0 as usize];
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
        let ready = &mut self.entries[hop.0 as usize].ready;
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
        for index in 0..self.entries.len() {
            let hop = HopId(index as u32);
            let entry = &self.entries[index];
            let idle = entry.ready.iter().filter(|pooled| pooled.streams == 0);
            let idle: Vec<_> = idle
                .map(|pooled| (pooled.id, pooled.idle_since + self.limits.idle))
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
        let entry = &mut self.entries[hop.0 as usize];
        while let Some((&number, (tunnel, request))) = entry.waiting.first_key_value() {
            let (tunnel, ticket) = (*tunnel, Ticket { hop, number });
            let head = entry.hop.request(request);
            let event = match entry.request(&head, carriers) {
                Ok(Some(stream)) => PoolEvent::Opened {
                    tunnel,
                    ticket,
                    stream,
                },
                Ok(None) => break,
                Err(refusal) => PoolEvent::Failed {
                    tunnel,
                    ticket,
                    refusal,
                },
            };
            self.events.push_back(event);
            entry.waiting.pop_first();
        }
        let (dials_max, connections_max) = match entry.carrier {
            Carrier::H3 | Carrier::H2 => (1, self.limits.connections_per_hop_max),
            Carrier::H1 => (H1_DIALS_MAX, self.limits.h1_connections_per_hop_max),
        };
        let dials_max = dials_max.min(entry.waiting.len());
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
    /// Sends a request on the first connection with room for it; `None` if there is none.
    ///
    /// # Errors
    /// No connection to this hop will ever take the request.
    fn request(
        &mut self,
        head: &RequestHead,
        carriers: &mut Carriers,
    ) -> Result<Option<RequestStream>, Refusal> {
        for pooled in self.ready.iter_mut().filter(|pooled| !pooled.going_away) {
            match carriers.request(pooled.id, head) {
                Ok(stream) => {
                    pooled.streams += 1;
                    pooled.going_away = self.carrier == Carrier::H1;
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
