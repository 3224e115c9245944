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

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::HeaderValue;
use quinn_proto::{ClientConfig, StreamId};

use super::hop::{Hop, HopKey};
use crate::error::{Refusal, TlsFault};
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::policy::resolve::{Resolution, ResolveError};
use crate::transport::quic::options::Options;
use crate::transport::quic::{CloseReason, ConnectionId, EndpointId, Hub, Link};
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

/// A tunnel that wants a stream.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub tunnel: TunnelId,
    /// What the tunnel shall reach.
    pub target: Target,
    /// The Via field to send, when we relay somebody else's request (RFC 9110 §7.6.3).
    pub via: Option<HeaderValue>,
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
    /// The hop's name has to be resolved: answer with [`Pool::handle_resolved`].
    Resolve {
        /// The hop that is dialled.
        hop: HopId,
        /// Its host name.
        name: Box<str>,
    },
    /// The hop is reached through `via`: answer with [`Pool::handle_link`].
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
    Resolving,
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
    waiting: VecDeque<Request>,
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
                    waiting: VecDeque::new(),
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
    pub fn open(&mut self, now: Instant, hop: HopId, request: Request, hub: &mut Hub) {
        let limits = self.limits;
        let entry = &mut self.entries[hop.0 as usize];
        let tunnel = request.tunnel;
        if entry.not_before.is_some_and(|instant| now < instant) && entry.ready.is_empty() {
            self.events.push_back(PoolEvent::Failed {
                tunnel,
                refusal: Refusal::DestinationUnavailable,
            });
        } else if entry.waiting.len() >= limits.waiting_per_hop_max {
            self.events.push_back(PoolEvent::Failed {
                tunnel,
                refusal: Refusal::Overloaded,
            });
        } else {
            entry.waiting.push_back(request);
            self.pump(now, hop, hub);
        }
    }

    /// A tunnel does not want its stream any more. One that is open already is released by [`Pool::release`].
    pub fn cancel(&mut self, hop: HopId, tunnel: TunnelId) {
        self.entries[hop.0 as usize]
            .waiting
            .retain(|request| request.tunnel != tunnel);
    }

    /// A stream that the pool opened has ended.
    pub fn release(&mut self, now: Instant, hop: HopId, connection: ConnectionId, hub: &mut Hub) {
        let entry = &mut self.entries[hop.0 as usize];
        if let Some(pooled) = entry
            .ready
            .iter_mut()
            .find(|pooled| pooled.id == connection)
        {
            pooled.streams = pooled.streams.saturating_sub(1);
            pooled.idle_since = now;
            if pooled.going_away && pooled.streams == 0 {
                hub.close(now, connection, Code::H3_NO_ERROR);
            }
        }
        self.pump(now, hop, hub);
    }

    /// The answer to [`PoolEvent::Resolve`].
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        hop: HopId,
        resolution: Resolution,
        socket: Link,
        hub: &mut Hub,
    ) {
        let entry = &mut self.entries[hop.0 as usize];
        if entry.dial != Dial::Resolving {
            return;
        }
        let port = entry.hop.template.port();
        match resolution {
            Ok(addresses) if !addresses.is_empty() => {
                entry.addresses = addresses
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, port))
                    .collect();
                self.dial_next_address(now, hop, socket, hub);
            }
            Ok(_) => self.fail(now, hop, ResolveError::NoRecords.into()),
            Err(error) => self.fail(now, hop, error.into()),
        }
    }

    fn dial_next_address(&mut self, now: Instant, hop: HopId, link: Link, hub: &mut Hub) {
        let entry = &mut self.entries[hop.0 as usize];
        match entry.addresses.pop_front() {
            Some(address) => self.connect(now, hop, address, link, hub),
            None => self.fail(now, hop, Refusal::DestinationUnavailable),
        }
    }

    /// The answer to [`PoolEvent::Nest`]: the tunnel to the relay is open, or it is not. On success the id of the
    /// connection inside the tunnel is returned.
    pub fn handle_link(
        &mut self,
        now: Instant,
        hop: HopId,
        link: Result<Link, Refusal>,
        hub: &mut Hub,
    ) -> Option<ConnectionId> {
        let entry = &mut self.entries[hop.0 as usize];
        if entry.dial != Dial::Tunnelling {
            return None;
        }
        match link {
            Ok(link) => {
                let address = hub.nested_address();
                self.connect(now, hop, address, link, hub);
            }
            Err(refusal) => self.fail(now, hop, refusal),
        }
        match self.entries[hop.0 as usize].dial {
            Dial::Handshaking(id) => Some(id),
            Dial::Idle | Dial::Resolving | Dial::Tunnelling => None,
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        hop: HopId,
        address: SocketAddr,
        link: Link,
        hub: &mut Hub,
    ) {
        let entry = &mut self.entries[hop.0 as usize];
        let transport = match link {
            Link::Socket(_) => self.options.client_transport(entry.small_path),
            Link::Tunnel { connection, stream } => {
                let room = hub.payload_size_max(connection, stream);
                self.options.nested_transport(room.unwrap_or_default())
            }
        };
        let mut config = ClientConfig::new(Arc::clone(&entry.hop.crypto));
        config.transport_config(transport);
        let name = entry.hop.server_name();
        match hub.connect(now, self.endpoint, config, address, &name, link) {
            Ok(id) => entry.dial = Dial::Handshaking(id),
            Err(error) => {
                tracing::warn!(%error, "cannot dial the next hop");
                self.fail(now, hop, Refusal::Misconfigured);
            }
        }
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

    /// A connection is over. Its tunnels are the caller's to end.
    pub fn handle_closed(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        reason: &CloseReason,
        link: Link,
        hub: &mut Hub,
    ) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0 as usize];
        entry.ready.retain(|pooled| pooled.id != connection);
        if entry.dial == Dial::Handshaking(connection) {
            entry.small_path |= matches!(reason, CloseReason::HandshakeTimeout);
            if entry.via.is_none() && !entry.addresses.is_empty() {
                self.dial_next_address(now, hop, link, hub);
            } else {
                self.fail(now, hop, refusal_of(reason));
            }
        } else {
            self.pump(now, hop, hub);
        }
    }

    /// Closes connections that carried nothing for a while; when to look again.
    pub fn expire(&mut self, now: Instant, hub: &mut Hub) -> Option<Instant> {
        let mut next = None::<Instant>;
        for entry in &mut self.entries {
            for pooled in entry.ready.iter().filter(|pooled| pooled.streams == 0) {
                let due = pooled.idle_since + self.limits.idle;
                if due <= now {
                    hub.close(now, pooled.id, Code::H3_NO_ERROR);
                } else {
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
            }
            entry
                .ready
                .retain(|pooled| pooled.streams > 0 || pooled.idle_since + self.limits.idle > now);
        }
        next
    }

    fn pump(&mut self, now: Instant, hop: HopId, hub: &mut Hub) {
        let entry = &mut self.entries[hop.0 as usize];
        while let Some(request) = entry.waiting.front() {
            let head = entry.hop.request(&request.target, request.via.as_ref());
            let mut outcome = None;
            for pooled in entry.ready.iter_mut().filter(|pooled| !pooled.going_away) {
                match hub.request(pooled.id, &head) {
                    Ok(stream) => {
                        pooled.streams += 1;
                        outcome = Some(Ok((pooled.id, stream)));
                        break;
                    }
                    Err(h3::RequestError::GoingAway) => pooled.going_away = true,
                    Err(h3::RequestError::StreamsExhausted | h3::RequestError::NoSettingsYet) => {}
                    Err(h3::RequestError::ExtendedConnectUnsupported) => {
                        outcome = Some(Err(Refusal::NextHopProtocol));
                    }
                    Err(h3::RequestError::TooLarge { .. }) => {
                        outcome = Some(Err(Refusal::HeadTooLarge))
                    }
                }
            }
            let tunnel = request.tunnel;
            match outcome {
                Some(Ok((connection, stream))) => {
                    self.events.push_back(PoolEvent::Opened {
                        tunnel,
                        connection,
                        stream,
                    });
                }
                Some(Err(refusal)) => {
                    self.events.push_back(PoolEvent::Failed { tunnel, refusal });
                }
                None => break,
            }
            entry.waiting.pop_front();
        }
        let wanted = !entry.waiting.is_empty() && entry.dial == Dial::Idle;
        let full = entry.ready.len() >= self.limits.connections_per_hop_max;
        if wanted && !full && entry.not_before.is_none_or(|instant| now >= instant) {
            self.dial(hop);
        }
    }

    fn dial(&mut self, hop: HopId) {
        let entry = &mut self.entries[hop.0 as usize];
        let event = match entry.via {
            Some(via) => {
                entry.dial = Dial::Tunnelling;
                PoolEvent::Nest {
                    hop,
                    via,
                    target: entry.hop.target(),
                }
            }
            None => {
                entry.dial = Dial::Resolving;
                PoolEvent::Resolve {
                    hop,
                    name: entry.hop.server_name(),
                }
            }
        };
        self.events.push_back(event);
    }

    fn fail(&mut self, now: Instant, hop: HopId, refusal: Refusal) {
        let limits = self.limits;
        let entry = &mut self.entries[hop.0 as usize];
        let pause = limits
            .backoff_min
            .saturating_mul(1 << entry.failures.min(16));
        entry.failures += 1;
        entry.not_before = Some(now + pause.min(limits.backoff_max));
        entry.dial = Dial::Idle;
        let failed = entry
            .waiting
            .drain(..)
            .map(|Request { tunnel, .. }| PoolEvent::Failed { tunnel, refusal });
        self.events.extend(failed);
    }
}

/// What a failed dial means for the tunnels that waited for it.
fn refusal_of(reason: &CloseReason) -> Refusal {
    use quinn_proto::ConnectionError;
    /// QUIC error codes from here on carry a TLS alert in the low byte (RFC 9001 §4.8).
    const CRYPTO_ERROR: u64 = 0x100;
    /// The alerts that say that a certificate was not accepted (RFC 8446 §6.2). rustls sends decrypt_error (51) when
    /// its signature is not that of the authority which it names.
    const CERTIFICATE_ALERTS: [u64; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 113];
    let tls = |code: u64, ours: bool| match code.checked_sub(CRYPTO_ERROR) {
        Some(alert) if ours && CERTIFICATE_ALERTS.contains(&alert) => Some(Refusal::NextHopTls {
            fault: TlsFault::Certificate,
        }),
        Some(alert) if !ours && alert <= 0xff => Some(Refusal::NextHopTls {
            fault: TlsFault::Alert { id: alert as u8 },
        }),
        Some(alert) if alert <= 0xff => Some(Refusal::NextHopTls {
            fault: TlsFault::Protocol,
        }),
        Some(_) | None => None,
    };
    match reason {
        CloseReason::HandshakeTimeout | CloseReason::Lost(ConnectionError::TimedOut) => {
            Refusal::ConnectTimeout
        }
        CloseReason::Misbehaved(_) => Refusal::NextHopProtocol,
        CloseReason::Lost(ConnectionError::TransportError(error)) => {
            tls(error.code.into(), true).unwrap_or(Refusal::NextHopProtocol)
        }
        CloseReason::Lost(ConnectionError::ConnectionClosed(close)) => {
            tls(close.error_code.into(), false).unwrap_or(Refusal::ConnectionRefused)
        }
        CloseReason::Lost(
            ConnectionError::VersionMismatch
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted,
        )
        | CloseReason::Local => Refusal::DestinationUnavailable,
    }
}
