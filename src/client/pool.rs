//! Connections to next hops, shared by the tunnels of one worker.
//!
//! ```text
//!          ┌────────────── backing off ◄──────── failed ◄───────┐
//!          ▼                                                     │
//!   idle ──► resolving ──┐                                       │
//!     │                  ├──► handshaking ──► SETTINGS ──► ready │
//!     └──► tunnelling ───┘         └─────────────────────────────┘
//! ```
//!
//! A hop dials one connection at a time, however many tunnels wait for it. Another one is dialled only when the
//! peer's own stream limit says that the ready ones are full. GOAWAY takes a connection out of service without
//! touching its tunnels. After a failure the hop backs off, and tunnels that ask meanwhile are refused at once.
//!
//! Does not read responses: a request that went out is the caller's, from the stream id on.

mod dial;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::http::HeaderValue;
use quinn_proto::StreamId;

use super::hop::{Hop, HopKey};
use crate::error::Refusal;
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::RequestHead;
use crate::transport::quic::options::Options;
use crate::transport::quic::{ConnectionId, EndpointId, Hub};
use crate::tunnel::TunnelId;
use crate::wire::target::Target;

/// Names one hop of a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopId(u32);

/// Bounds of a [`Pool`].
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Most connections to one hop.
    pub connections_per_hop_max: usize,
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

/// What a tunnel asks of a next hop.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the tunnel shall reach.
    pub target: Target,
    /// The Via field to send, when we relay somebody else's request (RFC 9110 §7.6.3).
    pub via: Option<HeaderValue>,
}

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
        /// On which connection.
        connection: ConnectionId,
        /// On which stream.
        stream: StreamId,
    },
    /// There will be no stream for `tunnel`.
    Failed {
        /// Who asked.
        tunnel: TunnelId,
        /// Why not.
        refusal: Refusal,
    },
    /// The hop's name has to be resolved: answer with [`Pool::handle_resolved`] or [`Pool::handle_unreachable`].
    Resolve {
        /// The hop that is dialled.
        hop: HopId,
        /// Its host name.
        name: Box<str>,
    },
    /// The hop is reached through `via`: answer with [`Pool::handle_link`] or [`Pool::handle_unreachable`].
    Nest {
        /// The hop that is dialled.
        hop: HopId,
        /// The hop before it.
        via: HopId,
        /// The relay itself, as a target of the hop before.
        target: Target,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Idle,
    Resolving { until: Instant },
    Tunnelling,
    Handshaking(ConnectionId),
}

#[derive(Debug)]
struct Pooled {
    id: ConnectionId,
    streams: u32,
    idle_since: Instant,
    going_away: bool,
}

struct Entry {
    key: (HopKey, Option<HopId>),
    hop: Hop,
    via: Option<HopId>,
    addresses: VecDeque<SocketAddr>,
    dial: Dial,
    ready: Vec<Pooled>,
    /// By ticket number, which is the order of arrival.
    waiting: BTreeMap<u64, (TunnelId, Request)>,
    /// A handshake found no answer: the next one starts with smaller packets.
    small_path: bool,
    failures: u32,
    not_before: Option<Instant>,
}

/// The hops of one worker and their connections.
pub struct Pool {
    limits: PoolLimits,
    endpoint: EndpointId,
    options: Options,
    entries: Vec<Entry>,
    events: VecDeque<PoolEvent>,
    tickets: u64,
    /// When [`Pool::expire`] has work at the earliest. May be early, never late.
    due: Option<Instant>,
}

impl Pool {
    /// An empty pool that dials from `endpoint`.
    pub fn new(limits: PoolLimits, endpoint: EndpointId, options: Options) -> Self {
        Self {
            limits,
            endpoint,
            options,
            entries: Vec::new(),
            events: VecDeque::new(),
            tickets: 0,
            due: None,
        }
    }

    /// Makes a route known: hops in the order of travel, each reached through the one before. Routes that begin
    /// alike share connections.
    ///
    /// # Panics
    /// If `hops` is empty.
    pub fn add_route(&mut self, hops: impl IntoIterator<Item = Hop>) -> HopId {
        let mut via = None;
        for hop in hops {
            let key = (hop.key(), via);
            let known = self.entries.iter().position(|entry| entry.key == key);
            let index = known.unwrap_or_else(|| {
                self.entries.push(Entry {
                    key,
                    hop,
                    via,
                    addresses: VecDeque::new(),
                    dial: Dial::Idle,
                    ready: Vec::new(),
                    waiting: BTreeMap::new(),
                    small_path: false,
                    failures: 0,
                    not_before: None,
                });
                self.entries.len() - 1
            });
            via = Some(HopId(index as u32));
        }
        via.expect("a route has at least one hop")
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<PoolEvent> {
        self.events.pop_front()
    }

    /// Whether [`Pool::poll`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Asks for a stream to `request.target` on the far side of `hop`.
    pub fn open(
        &mut self,
        now: Instant,
        hop: HopId,
        tunnel: TunnelId,
        request: Request,
        hub: &mut Hub,
    ) -> Ticket {
        let limits = self.limits;
        let entry = &mut self.entries[hop.0 as usize];
        let number = self.tickets;
        self.tickets += 1;
        let backs_off = entry.not_before.is_some_and(|instant| now < instant);
        let refusal = if backs_off && entry.ready.iter().all(|pooled| pooled.going_away) {
            Some(Refusal::DestinationUnavailable)
        } else if entry.waiting.len() >= limits.waiting_per_hop_max {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        match refusal {
            Some(refusal) => self.events.push_back(PoolEvent::Failed { tunnel, refusal }),
            None => {
                entry.waiting.insert(number, (tunnel, request));
                self.pump(now, hop, hub);
            }
        }
        Ticket { hop, number }
    }

    /// A tunnel does not want its stream any more. One that is open already is released by [`Pool::release`].
    pub fn cancel(&mut self, ticket: Ticket) {
        self.entries[ticket.hop.0 as usize]
            .waiting
            .remove(&ticket.number);
    }

    /// A stream that the pool opened has ended.
    pub fn release(&mut self, now: Instant, connection: ConnectionId, hub: &mut Hub) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0 as usize];
        let mut pooled = entry.ready.iter_mut();
        if let Some(pooled) = pooled.find(|pooled| pooled.id == connection) {
            pooled.streams = pooled.streams.saturating_sub(1);
            pooled.idle_since = now;
            if pooled.going_away && pooled.streams == 0 {
                hub.close(now, connection, Code::H3_NO_ERROR);
            }
            self.wake_at(now + self.limits.idle);
        }
        self.pump(now, hop, hub);
    }

    /// Which hop a connection belongs to.
    fn hop_of(&self, connection: ConnectionId) -> Option<HopId> {
        let index = self.entries.iter().position(|entry| {
            entry.dial == Dial::Handshaking(connection)
                || entry.ready.iter().any(|pooled| pooled.id == connection)
        })?;
        Some(HopId(index as u32))
    }

    /// The peer's SETTINGS arrived: the connection can carry tunnels.
    pub fn handle_settings(&mut self, now: Instant, connection: ConnectionId, hub: &mut Hub) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0 as usize];
        if entry.dial == Dial::Handshaking(connection) {
            entry.dial = Dial::Idle;
            entry.failures = 0;
            entry.not_before = None;
            entry.ready.push(Pooled {
                id: connection,
                streams: 0,
                idle_since: now,
                going_away: false,
            });
            self.wake_at(now + self.limits.idle);
        }
        self.pump(now, hop, hub);
    }

    /// The peer grants more streams.
    pub fn handle_streams(&mut self, now: Instant, connection: ConnectionId, hub: &mut Hub) {
        if let Some(hop) = self.hop_of(connection) {
            self.pump(now, hop, hub);
        }
    }

    /// The peer accepts no more requests on this connection (RFC 9114 §5.2).
    pub fn handle_goaway(&mut self, now: Instant, connection: ConnectionId, hub: &mut Hub) {
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
                hub.close(now, connection, Code::H3_NO_ERROR);
            }
        }
    }

    /// Does what is due: closes connections that carried nothing for a while, gives up on lost answers, dials again
    /// after a pause.
    pub fn expire(&mut self, now: Instant, hub: &mut Hub) {
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
                    hub.close(now, connection, Code::H3_NO_ERROR);
                } else {
                    self.wake_at(due);
                }
            }
            match self.entries[index].dial {
                Dial::Resolving { until } if until <= now => {
                    self.fail(now, hop, Refusal::DnsTimeout);
                }
                Dial::Resolving { until } => self.wake_at(until),
                Dial::Idle => self.pump(now, hop, hub),
                Dial::Tunnelling | Dial::Handshaking(_) => {}
            }
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
    fn pump(&mut self, now: Instant, hop: HopId, hub: &mut Hub) {
        let entry = &mut self.entries[hop.0 as usize];
        while let Some((tunnel, request)) = entry.waiting.values().next() {
            let tunnel = *tunnel;
            let head = entry.hop.request(&request.target, request.via.as_ref());
            let event = match entry.request(&head, hub) {
                Ok(Some((connection, stream))) => PoolEvent::Opened {
                    tunnel,
                    connection,
                    stream,
                },
                Ok(None) => break,
                Err(refusal) => PoolEvent::Failed { tunnel, refusal },
            };
            self.events.push_back(event);
            entry.waiting.pop_first();
        }
        let full = entry.ready.len() >= self.limits.connections_per_hop_max;
        if entry.waiting.is_empty() || entry.dial != Dial::Idle || full {
            return;
        }
        match entry.not_before {
            Some(instant) if now < instant => self.wake_at(instant),
            Some(_) | None => self.dial(now, hop),
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
        hub: &mut Hub,
    ) -> Result<Option<(ConnectionId, StreamId)>, Refusal> {
        for pooled in self.ready.iter_mut().filter(|pooled| !pooled.going_away) {
            match hub.request(pooled.id, head) {
                Ok(stream) => {
                    pooled.streams += 1;
                    return Ok(Some((pooled.id, stream)));
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
