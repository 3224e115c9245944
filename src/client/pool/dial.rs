//! How a connection to a hop comes to be, or does not: resolve or nest, shake hands, back off.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::ClientConfig;

use super::super::failure::{Failed, Failure};
use super::{DialId, Entry, HopId, Pool, PoolEvent, RESOLVE_WITHIN};
use crate::client::TunnelKind;
use crate::error::Refusal;
use crate::policy::resolve::{Resolution, ResolveError};
use crate::transport::carriers::{Carriers, ConnectionId, RequestStream};
use crate::transport::quic::Link;
use crate::transport::tcp::ByteLink;
use crate::tunnel::eyeballs::ATTEMPT_DELAY;
use crate::wire::carrier::Carrier;

/// One attempt to get a connection.
#[derive(Debug)]
pub(super) struct Dial {
    number: u64,
    stage: Stage,
    /// Those that were not tried.
    addresses: VecDeque<SocketAddr>,
    /// Handshakes under way.
    connections: Vec<ConnectionId>,
    /// Why the last one of them failed.
    refusal: Refusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Resolving {
        until: Instant,
    },
    Tunnelling,
    Handshaking {
        /// When the next address gets its turn.
        next: Instant,
    },
}

impl Dial {
    /// Whether a connection is one of its handshakes.
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.connections.contains(&connection)
    }

    /// The handshakes beside the one that won.
    pub(super) fn others(self, winner: ConnectionId) -> impl Iterator<Item = ConnectionId> {
        self.connections
            .into_iter()
            .filter(move |connection| *connection != winner)
    }
}

impl Pool {
    pub(super) fn dial(&mut self, now: Instant, hop: HopId) {
        let until = now + RESOLVE_WITHIN;
        let number = self.number();
        let dial = DialId { hop, number };
        let entry = &mut self.entries[hop.0];
        let asked = entry
            .dials
            .iter()
            .any(|dial| matches!(dial.stage, Stage::Resolving { .. }));
        let stage = match entry.via {
            Some(via) => {
                let kind = match entry.carrier {
                    Carrier::H3 => TunnelKind::Udp,
                    Carrier::H2 | Carrier::H1 => TunnelKind::TCP,
                };
                let target = entry.hop.target();
                self.events.push_back(PoolEvent::Nest {
                    dial,
                    via,
                    target,
                    kind,
                });
                Stage::Tunnelling
            }
            None => {
                // One answer serves every dial that waits for it.
                if !asked {
                    let name = entry.hop.server_name();
                    self.events.push_back(PoolEvent::Resolve { hop, name });
                }
                Stage::Resolving { until }
            }
        };
        entry.dials.push(Dial {
            number,
            stage,
            addresses: VecDeque::new(),
            connections: Vec::new(),
            refusal: Refusal::DestinationUnavailable,
        });
        self.wake_at(until);
    }

    /// The answer to [`PoolEvent::Resolve`].
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        hop: HopId,
        resolution: Resolution,
        carriers: &mut Carriers,
    ) {
        let resolution = match resolution {
            Ok(addresses) if addresses.is_empty() => Err(ResolveError::NoRecords),
            other => other,
        };
        let addresses = match resolution {
            Ok(addresses) => addresses,
            Err(error) => return self.handle_unresolved(now, hop, error.into()),
        };
        let Some(entry) = self.entries.get_mut(hop.0) else {
            return;
        };
        let port = entry.hop.udp.port();
        let mut dials = Vec::new();
        for dial in &mut entry.dials {
            if matches!(dial.stage, Stage::Resolving { .. }) {
                let addresses = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
                dial.addresses = addresses.collect();
                dial.stage = Stage::Handshaking { next: now };
                dials.push(DialId {
                    hop,
                    number: dial.number,
                });
            }
        }
        for dial in dials {
            self.try_next_address(now, dial, carriers);
        }
    }

    /// The answer to [`PoolEvent::Resolve`] when there are no addresses.
    pub fn handle_unresolved(&mut self, now: Instant, hop: HopId, refusal: Refusal) {
        let Some(Entry { dials, .. }) = self.entries.get_mut(hop.0) else {
            return;
        };
        let before = dials.len();
        dials.retain(|dial| !matches!(dial.stage, Stage::Resolving { .. }));
        if dials.len() < before {
            let failure = self.failure_at(hop, refusal);
            self.fail(now, hop, failure);
        }
    }

    fn link(&self) -> Link {
        Link::Socket(self.dialler.1)
    }

    /// Whether a dial is still under way.
    pub(super) fn is_dialling(&self, id: DialId) -> bool {
        let entry = self.entries.get(id.hop.0);
        entry.is_some_and(|entry| entry.dials.iter().any(|dial| dial.number == id.number))
    }

    fn dial_mut(&mut self, id: DialId) -> Option<&mut Dial> {
        let dials = &mut self.entries.get_mut(id.hop.0)?.dials;
        dials.iter_mut().find(|dial| dial.number == id.number)
    }

    /// Tries addresses until one can be dialled, or none is left.
    fn try_next_address(&mut self, now: Instant, id: DialId, carriers: &mut Carriers) {
        let Entry { carrier, hop, .. } = &self.entries[id.hop.0];
        let (carrier, target) = (*carrier, hop.target());
        loop {
            let Some(dial) = self.dial_mut(id) else {
                return;
            };
            dial.stage = Stage::Handshaking {
                next: now + ATTEMPT_DELAY,
            };
            let Some(address) = dial.addresses.pop_front() else {
                if dial.connections.is_empty() {
                    let failure = Failure::at(target, dial.refusal);
                    self.fail_dial(now, id, failure);
                }
                return;
            };
            self.wake_at(now + ATTEMPT_DELAY);
            self.entries[id.hop.0].address = Some(address);
            match carrier {
                Carrier::H3 => match self.connect_quic(now, id.hop, address, self.link(), carriers)
                {
                    Ok(connection) => return self.handle_connecting(id, connection),
                    Err(refusal) => self.note_failure(id, refusal),
                },
                Carrier::H2 | Carrier::H1 => {
                    return self
                        .events
                        .push_back(PoolEvent::Connect { dial: id, address });
                }
            }
        }
    }

    fn note_failure(&mut self, id: DialId, refusal: Refusal) {
        if let Some(dial) = self.dial_mut(id) {
            dial.refusal = refusal;
        }
    }

    /// The answer to [`PoolEvent::Connect`]: the handshake goes on in this connection.
    pub fn handle_connecting(&mut self, id: DialId, connection: ConnectionId) {
        if let Some(dial) = self.dial_mut(id) {
            dial.connections.push(connection);
        }
    }

    /// The answer to [`PoolEvent::Nest`]: the tunnel to the relay is open. Returns the connection that is dialled
    /// inside of it, or `None` if the tunnel is of no use.
    pub fn handle_link(
        &mut self,
        now: Instant,
        id: DialId,
        tunnel: RequestStream,
        carriers: &mut Carriers,
    ) -> Option<ConnectionId> {
        let dial = self.dial_mut(id)?;
        if dial.stage != Stage::Tunnelling {
            return None;
        }
        dial.stage = Stage::Handshaking { next: now };
        let hop = id.hop;
        let connected = match self.entries[hop.0].carrier {
            Carrier::H3 => {
                let address = carriers.quic.nested_address();
                self.connect_quic(now, hop, address, Link::Tunnel(tunnel), carriers)
            }
            Carrier::H2 | Carrier::H1 => self.connect_tcp(now, hop, ByteLink::Tunnel, carriers),
        };
        match connected {
            Ok(connection) => {
                self.handle_connecting(id, connection);
                Some(connection)
            }
            Err(refusal) => {
                self.fail_dial(now, id, self.failure_at(hop, refusal));
                None
            }
        }
    }

    /// The answer to [`PoolEvent::Connect`] and [`PoolEvent::Nest`] when there is no way to the hop.
    pub fn handle_unreachable(
        &mut self,
        now: Instant,
        id: DialId,
        failure: Failure,
        carriers: &mut Carriers,
    ) {
        let Some(dial) = self.dial_mut(id) else {
            return;
        };
        match dial.stage {
            Stage::Handshaking { .. } => {
                dial.refusal = failure.refusal;
                self.try_next_address(now, id, carriers);
            }
            Stage::Tunnelling | Stage::Resolving { .. } => self.fail_dial(now, id, failure),
        }
    }

    /// A failure that is about a hop itself.
    fn failure_at(&self, hop: HopId, refusal: Refusal) -> Failure {
        Failure::at(self.entries[hop.0].hop.target(), refusal)
    }

    /// Starts TLS and HTTP on a byte link to a hop.
    ///
    /// # Errors
    /// What the tunnels that wait are told.
    pub fn connect_tcp(
        &mut self,
        now: Instant,
        hop: HopId,
        link: ByteLink,
        carriers: &mut Carriers,
    ) -> Result<ConnectionId, Refusal> {
        let entry = &self.entries[hop.0];
        let timeout = entry.hop.handshake_timeout;
        let tls = match entry.carrier {
            Carrier::H1 => &entry.hop.tls.h1,
            Carrier::H2 | Carrier::H3 => &entry.hop.tls.h2,
        };
        let name = entry.hop.server_name();
        match carriers.tcp.connect(now, link, Arc::clone(tls), &name) {
            Ok(id) => {
                if let Some(timeout) = timeout {
                    carriers.tcp.set_handshake_timeout(now, id, timeout);
                }
                Ok(ConnectionId::Tcp(id))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot dial the next hop");
                Err(Refusal::Misconfigured)
            }
        }
    }

    fn connect_quic(
        &mut self,
        now: Instant,
        hop: HopId,
        address: SocketAddr,
        link: Link,
        carriers: &mut Carriers,
    ) -> Result<ConnectionId, Refusal> {
        let entry = &self.entries[hop.0];
        let timeout = entry.hop.handshake_timeout;
        let transport = match link {
            Link::Socket(_) => self.options.client_transport(entry.small_path),
            Link::Tunnel(stream) => match carriers.payload_size_max(stream) {
                Some(room) => self.options.nested_transport(room),
                None => self.options.client_transport(entry.small_path),
            },
        };
        let mut config = ClientConfig::new(Arc::clone(&entry.hop.tls.quic));
        config.transport_config(transport);
        let name = entry.hop.server_name();
        match carriers
            .quic
            .connect(now, self.dialler.0, config, address, &name, link)
        {
            Ok(id) => {
                if let Some(timeout) = timeout {
                    carriers.quic.set_handshake_timeout(now, id, timeout);
                }
                Ok(ConnectionId::Quic(id))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot dial the next hop");
                Err(Refusal::Misconfigured)
            }
        }
    }

    /// A connection is over. Its tunnels are the caller's to end.
    pub fn handle_closed(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        reason: &Failed<'_>,
        carriers: &mut Carriers,
    ) {
        let Some(hop) = self.hop_of(connection) else {
            return;
        };
        let entry = &mut self.entries[hop.0];
        entry.ready.retain(|pooled| pooled.id != connection);
        let Some(dial) = entry.dials.iter_mut().find(|dial| dial.has(connection)) else {
            self.pump(now, hop, carriers);
            return self.forget(now, carriers);
        };
        entry.small_path |= reason.is_silence();
        dial.connections.retain(|other| *other != connection);
        dial.refusal = reason.refusal();
        let id = DialId {
            hop,
            number: dial.number,
        };
        self.try_next_address(now, id, carriers);
    }

    /// What is due for the dials of a hop.
    pub(super) fn expire_dials(&mut self, now: Instant, hop: HopId, carriers: &mut Carriers) {
        let mut overdue = Vec::new();
        let mut lost = false;
        let mut wake = None;
        for dial in &self.entries[hop.0].dials {
            let due = match dial.stage {
                Stage::Resolving { until } => {
                    lost |= until <= now;
                    until
                }
                Stage::Handshaking { next } if !dial.addresses.is_empty() => {
                    if next <= now {
                        overdue.push(DialId {
                            hop,
                            number: dial.number,
                        });
                    }
                    next
                }
                Stage::Handshaking { .. } | Stage::Tunnelling => continue,
            };
            wake = Some(wake.map_or(due, |wake: Instant| wake.min(due)));
        }
        if let Some(due) = wake.filter(|due| now < *due) {
            self.wake_at(due);
        }
        if lost {
            self.handle_unresolved(now, hop, Refusal::DnsTimeout);
        }
        for id in overdue {
            self.try_next_address(now, id, carriers);
        }
    }

    fn fail_dial(&mut self, now: Instant, id: DialId, failure: Failure) {
        let dials = &mut self.entries[id.hop.0].dials;
        dials.retain(|dial| dial.number != id.number);
        self.fail(now, id.hop, failure);
    }

    /// A dial came to nothing. Those that wait are told when no other is under way, or when an earlier relay has
    /// decided for all of them: then it is no failure of the hop, which can be asked for at once.
    fn fail(&mut self, now: Instant, hop: HopId, failure: Failure) {
        let limits = self.limits;
        let entry = &mut self.entries[hop.0];
        let is_decided = failure.is_of_another();
        // Dials that failed side by side are one failure.
        if !is_decided && entry.not_before.is_none_or(|instant| instant <= now) {
            let pause = limits
                .backoff_min
                .saturating_mul(1 << entry.failures.min(16));
            entry.failures += 1;
            entry.not_before = Some(now + pause.min(limits.backoff_max));
        }
        let failure = Box::new(failure);
        if !is_decided {
            entry.failure = Some(failure.clone());
        }
        if !entry.dials.is_empty() && !is_decided {
            return;
        }
        let waiting = std::mem::take(&mut entry.waiting);
        let failed = waiting
            .into_iter()
            .map(|(number, (tunnel, _))| PoolEvent::Failed {
                tunnel,
                ticket: super::Ticket { hop, number },
                failure: failure.clone(),
            });
        self.events.extend(failed);
        if self.forgetting {
            self.wake_at(now);
        }
    }
}
