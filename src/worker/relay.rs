//! The hot loop: one datagram, client to target and back. Two functions, [`Machine::relay_upstream`] and
//! [`Machine::relay_downstream`]; everything else here brings datagrams to them.
//!
//! ```text
//!   QUIC DATAGRAM ─► relay_datagram ─┐            ┌─► Batches ─► target socket
//!   capsules ──────► relay_capsules ─┼─ upstream ─┼─► Carriers::send_datagram ─► next hop
//!   local user ────► send_local ─────┘            └─► (not open yet: Early)
//!
//!   target socket ─► relay_from_target ─┐              ┌─► Carriers::send_datagram ─► client
//!   next hop ──────► relay_datagram ────┼─ downstream ─┼─► a nested connection's packet
//!                                       ┘              └─► LocalEvent::Payload
//! ```
//!
//! Per datagram, over QUIC: no await, no lock, no dynamic dispatch, no allocation of our own (framing towards a stream
//! shares a chunk), one copy of the payload at most.

use std::time::Instant;

use bytes::Bytes;

use super::ip::is_ip;
use super::leg::{Flow, Leg, State, Tunnel};
use super::machine::{End, LocalEvent, Machine, Outside};
use super::pipe::Direction;
use crate::error::Abort;
use crate::http::h3::RecvData;
use crate::net::Train;
use crate::transport::carriers::{ConnectionId, RequestStream};
use crate::transport::quic;
use crate::tunnel::{Arrival, Delivery, TunnelId, UdpError, arrival};

impl Machine {
    /// Client to target: a UDP payload that came from downstream.
    pub(super) fn relay_upstream(
        &mut self,
        now: Instant,
        id: TunnelId,
        payload: Bytes,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        let Flow::Udp(flow) = &mut tunnel.flow else {
            return self.ip_from_downstream(now, id, payload, out);
        };
        if !matches!(tunnel.state, State::Open) {
            let kept = flow.early.push(&payload, self.limits.early);
            self.stats.dropped_early += u64::from(!kept);
            return;
        }
        tunnel.last_active = now;
        self.stats.upstream_datagrams += 1;
        self.stats.upstream_bytes += payload.len() as u64;
        match tunnel.upstream {
            Leg::Socket(socket) => {
                self.batches.push(&mut flow.batch, id, socket, payload, out);
            }
            Leg::Stream(stream) => {
                self.carriers.send_datagram(stream, &payload);
            }
            Leg::Local => self.tell(End::Upstream, LocalEvent::Payload(id, payload)),
            Leg::None | Leg::Tcp(_) | Leg::Nested(_) | Leg::Gateway => {}
        }
    }

    /// Target to client: a UDP payload that came from upstream.
    pub(super) fn relay_downstream(
        &mut self,
        now: Instant,
        id: TunnelId,
        payload: Bytes,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        if is_ip(tunnel) {
            return self.ip_from_upstream(now, id, payload, out);
        }
        tunnel.last_active = now;
        self.stats.downstream_datagrams += 1;
        self.stats.downstream_bytes += payload.len() as u64;
        match tunnel.downstream {
            Leg::Stream(stream) => {
                self.carriers.send_datagram(stream, &payload);
            }
            Leg::Nested(ConnectionId::Quic(inner)) => {
                self.carriers.quic.handle_nested(now, inner, payload, out);
            }
            Leg::Local => self.local.push_back(LocalEvent::Payload(id, payload)),
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Gateway => {}
            Leg::Nested(ConnectionId::Tcp(_)) => {}
        }
    }

    /// The datagrams that a connection has received.
    pub(super) fn relay_datagrams(
        &mut self,
        now: Instant,
        id: quic::ConnectionId,
        out: &mut impl Outside,
    ) {
        while let Some((stream, owner, datagram)) = self.carriers.quic.recv_datagram(now, id) {
            let tunnel = TunnelId::from_bits(owner);
            let stream = RequestStream::Quic(id, stream);
            self.relay_datagram(now, tunnel, stream, datagram, out);
        }
    }

    /// An HTTP Datagram on a request stream, from either side.
    fn relay_datagram(
        &mut self,
        now: Instant,
        id: TunnelId,
        stream: RequestStream,
        datagram: Bytes,
        out: &mut impl Outside,
    ) {
        match arrival(datagram) {
            Ok(Arrival::Payload(payload)) => {
                if self.is_downstream_leg(id, stream) {
                    self.relay_upstream(now, id, payload, out);
                } else {
                    self.relay_downstream(now, id, payload, out);
                }
            }
            Ok(Arrival::Context {
                id: context,
                payload,
            }) => {
                let end = self.end_behind(id, stream);
                self.pass_context(id, end, context, payload);
            }
            Ok(Arrival::Dropped) => self.stats.dropped_context += 1,
            Err(error) => self.misbehaved(now, id, &error, out),
        }
    }

    /// The end that what arrives on a stream is for.
    fn end_behind(&self, id: TunnelId, stream: RequestStream) -> End {
        match self.is_downstream_leg(id, stream) {
            true => End::Upstream,
            false => End::Downstream,
        }
    }

    fn is_downstream_leg(&self, id: TunnelId, stream: RequestStream) -> bool {
        self.tunnels
            .get(id)
            .is_some_and(|tunnel| tunnel.downstream == Leg::Stream(stream))
    }

    /// Everything that one receive call took from a target socket.
    pub(super) fn relay_from_target(
        &mut self,
        now: Instant,
        id: TunnelId,
        train: Train,
        out: &mut impl Outside,
    ) {
        for payload in train.segments() {
            self.relay_downstream(now, id, payload.freeze(), out);
        }
    }

    /// The data stream of a request has something: bytes, capsules, or its end.
    pub(super) fn handle_readable(
        &mut self,
        now: Instant,
        stream: RequestStream,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.carriers.owner(stream).map(TunnelId::from_bits) else {
            return;
        };
        match self.tunnels.get(id).map(|tunnel| &tunnel.flow) {
            Some(Flow::Udp(_)) => self.relay_capsules(now, id, stream, out),
            Some(Flow::Ip(_)) => self.relay_ip_capsules(now, id, stream, out),
            Some(Flow::Tcp(_)) => {
                let direction = match self.is_downstream_leg(id, stream) {
                    true => Direction::Up,
                    false => Direction::Down,
                };
                self.pump(now, id, direction, out);
            }
            None => self.discard_content(now, id),
        }
    }

    /// A data stream has room again.
    pub(super) fn handle_writable(
        &mut self,
        now: Instant,
        stream: RequestStream,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.carriers.owner(stream).map(TunnelId::from_bits) else {
            return;
        };
        if self.fallback.has(id) {
            return self.send_body(now, id);
        }
        let direction = match self.is_downstream_leg(id, stream) {
            true => Direction::Down,
            false => Direction::Up,
        };
        self.pump(now, id, direction, out);
        self.resume_ip_capsules(id, stream);
        self.resume_capsules(id, direction.source());
    }

    /// Capsules of a UDP tunnel.
    fn relay_capsules(
        &mut self,
        now: Instant,
        id: TunnelId,
        stream: RequestStream,
        out: &mut impl Outside,
    ) {
        let from_downstream = self.is_downstream_leg(id, stream);
        let end = self.end_behind(id, stream);
        let mut found = Vec::new();
        loop {
            let read = self.carriers.recv_data(now, stream, usize::MAX);
            let Some(Tunnel {
                flow: Flow::Udp(flow),
                ..
            }) = self.tunnels.get_mut(id)
            else {
                return;
            };
            let inbound = if from_downstream {
                &mut flow.from_downstream
            } else {
                &mut flow.from_upstream
            };
            let outcome = match read {
                RecvData::Data(data) => inbound.handle_data(data, |delivery| found.push(delivery)),
                RecvData::Blocked | RecvData::Gone => break,
                RecvData::Finished => match inbound.handle_finished() {
                    Ok(()) => {
                        let abort = if from_downstream {
                            Abort::ClientClosed
                        } else {
                            Abort::UpstreamClosed
                        };
                        return self.abort(now, id, abort, out);
                    }
                    Err(error) => Err(error),
                },
                RecvData::Reset(code) => {
                    return self.handle_reset(now, stream, code, out);
                }
            };
            for delivery in found.drain(..) {
                match delivery {
                    Delivery::Payload(payload) if from_downstream => {
                        self.relay_upstream(now, id, payload, out);
                    }
                    Delivery::Payload(payload) => self.relay_downstream(now, id, payload, out),
                    Delivery::Context {
                        id: context,
                        payload,
                    } => self.pass_context(id, end, context, payload),
                    Delivery::Capsule { kind, value } => self.pass_capsule(id, end, kind, value),
                    Delivery::Dropped => self.stats.dropped_context += 1,
                }
            }
            if let Err(error) = outcome {
                return self.misbehaved(now, id, &error, out);
            }
        }
    }

    fn misbehaved(&mut self, now: Instant, id: TunnelId, error: &UdpError, out: &mut impl Outside) {
        self.stats.tunnels_misbehaved += 1;
        tracing::debug!(%error, "a tunnel ends");
        let abort = match error {
            UdpError::PayloadTooLong { .. } => Abort::PayloadTooLong,
            UdpError::NoContextId | UdpError::CapsuleCut(_) => Abort::CapsuleError,
        };
        self.abort(now, id, abort, out);
    }

    /// What arrived before the tunnel was open, now that it is.
    pub(super) fn relay_early(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        let early = match self.tunnels.get_mut(id).map(|tunnel| &mut tunnel.flow) {
            Some(Flow::Udp(flow)) => flow.early.take(),
            Some(Flow::Tcp(_) | Flow::Ip(_)) | None => Vec::new(),
        };
        for payload in early {
            self.relay_upstream(now, id, payload, out);
        }
    }
}
