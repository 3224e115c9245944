//! How a connection to a hop comes to be, or does not: resolve or nest, shake hands, back off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::ClientConfig;

use super::super::failure::refusal_of;
use super::{Dial, HopId, Pool, PoolEvent, RESOLVE_WITHIN};
use crate::error::Refusal;
use crate::policy::resolve::{Resolution, ResolveError};
use crate::transport::quic::{CloseReason, ConnectionId, Hub, Link};

impl Pool {
    pub(super) fn dial(&mut self, now: Instant, hop: HopId) {
        let until = now + RESOLVE_WITHIN;
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
                entry.dial = Dial::Resolving { until };
                let name = entry.hop.server_name();
                self.wake_at(until);
                PoolEvent::Resolve { hop, name }
            }
        };
        self.events.push_back(event);
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
        if !matches!(entry.dial, Dial::Resolving { .. }) {
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

    /// The answer to [`PoolEvent::Nest`]: the tunnel to the relay is open. Returns the connection that is dialled
    /// inside of it, or `None` if the tunnel is of no use.
    pub fn handle_link(
        &mut self,
        now: Instant,
        hop: HopId,
        link: Link,
        hub: &mut Hub,
    ) -> Option<ConnectionId> {
        if self.entries[hop.0 as usize].dial != Dial::Tunnelling {
            return None;
        }
        let address = hub.nested_address();
        self.connect(now, hop, address, link, hub);
        match self.entries[hop.0 as usize].dial {
            Dial::Handshaking(id) => Some(id),
            Dial::Idle | Dial::Resolving { .. } | Dial::Tunnelling => None,
        }
    }

    /// The answer to [`PoolEvent::Resolve`] and [`PoolEvent::Nest`] when there is no way to the hop.
    pub fn handle_unreachable(&mut self, now: Instant, hop: HopId, refusal: Refusal) {
        match self.entries[hop.0 as usize].dial {
            Dial::Resolving { .. } | Dial::Tunnelling => self.fail(now, hop, refusal),
            Dial::Idle | Dial::Handshaking(_) => {}
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

    pub(super) fn fail(&mut self, now: Instant, hop: HopId, refusal: Refusal) {
        let limits = self.limits;
        let entry = &mut self.entries[hop.0 as usize];
        let pause = limits
            .backoff_min
            .saturating_mul(1 << entry.failures.min(16));
        entry.failures += 1;
        entry.not_before = Some(now + pause.min(limits.backoff_max));
        entry.dial = Dial::Idle;
        let waiting = std::mem::take(&mut entry.waiting).into_values();
        let failed = waiting.map(|(tunnel, _)| PoolEvent::Failed { tunnel, refusal });
        self.events.extend(failed);
    }
}
