//! IP tunnels (RFC 9484): packets, and what is said about them.
//!
//! ```text
//!   client's stream ─► ip_from_downstream ─┬─► Leg::Stream    the next hop, unseen
//!                                          ├─► Leg::Local     a handler's session
//!                                          └─► Leg::Gateway   the relay's own exit, see `gateway`
//!
//!   next hop, gateway ─► ip_from_upstream ─┬─► Leg::Stream    the client
//!                                          └─► Leg::Local     a user
//! ```
//!
//! Addresses and routes are told in capsules on the same streams; what follows from one is in `events`. Which packets
//! may pass is decided where a tunnel ends: an ingress that chains passes them on as they are (RFC 9297 §3.3). A client
//! whose stream is somebody else's is a peer too, behind `Leg::Local`: see `carried`.

mod carried;
mod errors;
mod events;
mod forward;
mod gateway;
mod users;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use self::carried::Reach;
pub(super) use self::errors::IcmpBudget;
pub use self::gateway::{DropReason, Exit, Gateway, GatewayEvent, GatewaySettings, Site};
pub use self::users::{IpInfo, IpRequestError};
use super::leg::{Flow, Leg, Tunnel};
use super::machine::{End, LocalEvent, Machine, Outside};
use super::pipe::Direction;
use crate::error::Abort;
use crate::http::h3::{RecvData, SendData};
use crate::transport::carriers::RequestStream;
use crate::transport::quic::SendOutcome;
use crate::tunnel::ip::{Delivery, IdMap, Inbound, IpError, PacketFacts, Peer};
use crate::tunnel::{Early, TunnelId};
use crate::wire::capsule::{DATAGRAM_HEAD_MAX, encode_datagram_head};
use crate::wire::carrier::Carrier;
use crate::wire::datagram::{ContextId, UDP_PAYLOAD_MAX};
use crate::wire::ip::icmp::IcmpError;
use crate::wire::ip::packet::Packet;
use crate::wire::ip::{IpCapsule, Scope};

/// What every IP tunnel carries, whatever the path (RFC 9484 §7.2).
pub const MTU_MIN: usize = 1_280;

/// Capsules of our own that wait for room on one stream. Whoever takes none of so many wants no tunnel.
const UNSENT_MAX: usize = 64;

/// Their bytes, before another one is refused.
const UNSENT_BYTES_MAX: usize = 128 * 1024;

/// One IP tunnel.
pub(super) struct IpFlow {
    /// Packets that came before the tunnel was open.
    pub(super) early: Early,
    /// What the client asked for.
    pub(super) scope: Scope,
    /// The HTTP version of the client's stream, if somebody else carries it.
    carried: Option<Carrier>,
    /// Who the client is, if it said.
    pub(super) user: Option<Box<str>>,
    /// What the gateway has given away here, if this tunnel leads there.
    pub(super) stay: gateway::Stay,
    /// The peers downstream and upstream, where there are streams.
    sides: [Side; 2],
    /// Requests of the two peers of a tunnel between relays, under their names at the other.
    ids: [IdMap; 2],
    /// ICMP errors that may be sent now.
    errors: IcmpBudget,
}

/// The other end of one stream.
#[derive(Default)]
struct Side {
    inbound: Inbound,
    peer: Peer,
    unsent: VecDeque<Bytes>,
    /// What the user of this end knows of the MTU.
    mtu: usize,
}

impl IpFlow {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            early: Early::default(),
            scope,
            carried: None,
            user: None,
            stay: gateway::Stay::default(),
            sides: Default::default(),
            ids: Default::default(),
            errors: IcmpBudget::default(),
        }
    }

    fn side(&mut self, end: End) -> &mut Side {
        of_end(&mut self.sides, end)
    }

    pub(super) fn keep_unknown(&mut self, end: End, bytes_max: usize) {
        self.side(end).inbound.keep_unknown(bytes_max);
    }
}

impl std::fmt::Debug for IpFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpFlow").finish_non_exhaustive()
    }
}

/// Packets.
impl Machine {
    pub(super) fn ip_flow(&mut self, id: TunnelId) -> Option<&mut IpFlow> {
        match &mut self.tunnels.get_mut(id)?.flow {
            Flow::Ip(flow) => Some(flow),
            Flow::Udp(_) | Flow::Tcp(_) => None,
        }
    }

    /// A packet from the client.
    pub(super) fn ip_from_downstream(
        &mut self,
        now: Instant,
        id: TunnelId,
        packet: Bytes,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        let Flow::Ip(flow) = &mut tunnel.flow else {
            return;
        };
        if !matches!(tunnel.state, super::leg::State::Open) {
            let kept = flow.early.push(&packet, self.limits.early);
            self.stats.dropped_early += u64::from(!kept);
            return;
        }
        tunnel.last_active = now;
        self.stats.upstream_datagrams += 1;
        self.stats.upstream_bytes += packet.len() as u64;
        match tunnel.upstream {
            Leg::Stream(stream) => self.pass_packet(now, (id, Direction::Up), stream, packet, out),
            Leg::Local => self.ip_to_local(id, End::Upstream, packet),
            Leg::Gateway => self.gateway_from_client(now, id, packet, out),
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_) => {}
        }
    }

    /// A packet for the client.
    pub(super) fn ip_from_upstream(
        &mut self,
        now: Instant,
        id: TunnelId,
        packet: Bytes,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|it| it.is_open()) else {
            return;
        };
        tunnel.last_active = now;
        self.stats.downstream_datagrams += 1;
        self.stats.downstream_bytes += packet.len() as u64;
        match tunnel.downstream {
            Leg::Stream(stream) => {
                self.pass_packet(now, (id, Direction::Down), stream, packet, out);
            }
            Leg::Local => self.ip_to_local(id, End::Downstream, packet),
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_) | Leg::Gateway => {}
        }
    }

    /// A packet for a user of this process, if its sender may send it.
    fn ip_to_local(&mut self, id: TunnelId, end: End, packet: Bytes) {
        let sender = end.other();
        let Some(parsed) = self.parse_packet(&packet) else {
            return;
        };
        // An ingress passes packets as they are, also where the client's stream is somebody else's.
        let is_judge = self.carrier_elsewhere(id, end).is_none();
        if is_judge
            && self.reach_of(id, sender).is_some()
            && let Some(flow) = self.ip_flow(id)
            && let Err(violation) = flow.side(sender).peer.check_from_peer(&parsed.facts())
            // What is about a packet of ours is for the address that we used.
            && !(end == End::Downstream && parsed.facts().is_icmp())
        {
            return self.stats.count_violation(violation);
        }
        self.tell(end, LocalEvent::Payload(id, packet));
    }

    /// What has to be known of a packet to forward it; malformed ones are counted (RFC 9484 §7.2: a forwarding error).
    fn parse_packet(&mut self, packet: &[u8]) -> Option<Packet> {
        match Packet::parse(packet) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                tracing::trace!(%error, "a packet is dropped");
                self.stats.ip_dropped_malformed += 1;
                None
            }
        }
    }

    /// Sends a packet on a stream of the tunnel, in the direction of the tunnel.
    fn pass_packet(
        &mut self,
        now: Instant,
        (id, direction): (TunnelId, Direction),
        stream: RequestStream,
        packet: Bytes,
        out: &mut impl Outside,
    ) {
        match self.carriers.send_datagram(stream, &packet) {
            SendOutcome::TooLarge => {
                self.packet_too_large(now, (id, direction), stream, packet, out)
            }
            SendOutcome::Sent | SendOutcome::Queued | SendOutcome::Blocked | SendOutcome::Gone => {}
        }
    }

    /// A packet is larger than a QUIC datagram now. What every path carries, and what may be fragmented but would not
    /// be here, goes on the stream; of all else the sender is told (RFC 9484 §10.1).
    fn packet_too_large(
        &mut self,
        now: Instant,
        (id, direction): (TunnelId, Direction),
        stream: RequestStream,
        packet: Bytes,
        out: &mut impl Outside,
    ) {
        if self.send_in_capsule(stream, &packet) {
            return;
        }
        let mtu = self.tunnel_mtu(stream);
        self.stats.ip_dropped_too_big += 1;
        self.send_icmp_error(now, (id, direction), icmp_too_big(mtu), &packet, out);
    }

    /// Sends a packet that no QUIC datagram takes in a DATAGRAM capsule, if it is one of those that have to pass;
    /// whether it was.
    fn send_in_capsule(&mut self, stream: RequestStream, packet: &[u8]) -> bool {
        let passes = packet.len() <= MTU_MIN
            || Packet::parse(packet).is_ok_and(|parsed| !parsed.dont_fragment);
        if passes {
            let mut capsule = BytesMut::with_capacity(DATAGRAM_HEAD_MAX + packet.len());
            encode_datagram_head(ContextId::UDP_PAYLOAD, packet.len(), &mut capsule);
            capsule.extend_from_slice(packet);
            match self.carriers.send_data(stream, capsule.freeze()) {
                SendData::Written => self.stats.ip_sent_in_capsules += 1,
                SendData::Blocked | SendData::Gone => self.stats.ip_dropped_blocked += 1,
            }
        }
        passes
    }

    /// The largest packet that goes over a stream without being told off.
    fn tunnel_mtu(&mut self, stream: RequestStream) -> usize {
        let room = self.carriers.payload_size_max(stream);
        // A capsule on TCP holds what any datagram does, which is a little less than the longest packet.
        room.unwrap_or(UDP_PAYLOAD_MAX).max(MTU_MIN)
    }

    /// What arrived before the tunnel was open, now that it is.
    pub(super) fn relay_early_packets(
        &mut self,
        now: Instant,
        id: TunnelId,
        out: &mut impl Outside,
    ) {
        let early = self.ip_flow(id).map(|flow| flow.early.take());
        for packet in early.unwrap_or_default() {
            self.ip_from_downstream(now, id, packet, out);
        }
    }
}

/// Capsules.
impl Machine {
    /// The data stream of a CONNECT-IP request has something. Before the tunnel is open it waits there.
    pub(super) fn relay_ip_capsules(
        &mut self,
        now: Instant,
        id: TunnelId,
        stream: RequestStream,
        out: &mut impl Outside,
    ) {
        let mut found = Vec::new();
        loop {
            let Some(tunnel) = self.tunnels.get_mut(id).filter(|it| it.is_open()) else {
                return;
            };
            let sender = match tunnel.downstream == Leg::Stream(stream) {
                true => End::Downstream,
                false => End::Upstream,
            };
            let read = self.carriers.recv_data(now, stream, usize::MAX);
            let Some(flow) = self.ip_flow(id) else {
                return;
            };
            let inbound = &mut flow.side(sender).inbound;
            let outcome = match read {
                RecvData::Data(data) => inbound.handle_data(data, |delivery| found.push(delivery)),
                RecvData::Blocked | RecvData::Gone => return,
                RecvData::Finished => match inbound.handle_finished() {
                    Ok(()) => {
                        let abort = match sender {
                            End::Downstream => Abort::ClientClosed,
                            End::Upstream => Abort::UpstreamClosed,
                        };
                        return self.abort(now, id, abort, out);
                    }
                    Err(error) => Err(error),
                },
                RecvData::Reset(code) => return self.handle_reset(now, stream, code, out),
            };
            for delivery in found.drain(..) {
                if let Err(error) = self.ip_delivery(now, id, sender, delivery, out) {
                    return self.ip_misbehaved(now, id, &error, out);
                }
            }
            if let Err(error) = outcome {
                return self.ip_misbehaved(now, id, &error, out);
            }
        }
    }

    fn ip_delivery(
        &mut self,
        now: Instant,
        id: TunnelId,
        sender: End,
        delivery: Delivery,
        out: &mut impl Outside,
    ) -> Result<(), IpError> {
        let receiver = sender.other();
        match delivery {
            Delivery::Packet(packet) => match sender {
                End::Downstream => self.ip_from_downstream(now, id, packet, out),
                End::Upstream => self.ip_from_upstream(now, id, packet, out),
            },
            Delivery::Context {
                id: context,
                payload,
            } => self.pass_context(id, receiver, context, payload),
            Delivery::Capsule { kind, value } => self.pass_capsule(id, receiver, kind, value),
            Delivery::Dropped => self.stats.dropped_context += 1,
            Delivery::Ip(capsule) => {
                let Some(flow) = self.ip_flow(id) else {
                    return Ok(());
                };
                let event = flow.side(sender).peer.handle_capsule(capsule)?;
                return self.ip_event(now, id, receiver, event, out);
            }
        }
        Ok(())
    }

    fn ip_misbehaved(
        &mut self,
        now: Instant,
        id: TunnelId,
        error: &IpError,
        out: &mut impl Outside,
    ) {
        self.stats.tunnels_misbehaved += 1;
        tracing::debug!(%error, "a tunnel ends");
        self.abort(now, id, Abort::CapsuleError, out);
    }

    /// Sends a capsule about addresses or routes, or keeps it until there is room. Order is kept.
    fn send_ip_capsule(
        &mut self,
        now: Instant,
        id: TunnelId,
        receiver: End,
        capsule: &IpCapsule,
        out: &mut impl Outside,
    ) {
        let stream = match self.reach_of(id, receiver) {
            Some(Reach::Stream(stream)) => stream,
            Some(Reach::Carried(_)) => {
                let event = LocalEvent::Capsule(id, capsule.capsule_type().0, capsule.value());
                return self.tell(receiver, event);
            }
            None => return,
        };
        let mut encoded = BytesMut::new();
        capsule.encode(&mut encoded);
        let Some(flow) = self.ip_flow(id) else {
            return;
        };
        let unsent = &mut flow.side(receiver).unsent;
        let waiting: usize = unsent.iter().map(Bytes::len).sum();
        let is_full = unsent.len() >= UNSENT_MAX || waiting > UNSENT_BYTES_MAX;
        if is_full {
            self.stats.ip_capsules_refused += 1;
            return self.abort(now, id, Abort::CapsuleError, out);
        }
        unsent.push_back(encoded.freeze());
        self.send_unsent(id, receiver, stream);
    }

    /// A stream has room again.
    pub(super) fn resume_ip_capsules(&mut self, id: TunnelId, stream: RequestStream) {
        for end in [End::Downstream, End::Upstream] {
            if self.leg(id, end) == Some(Leg::Stream(stream)) {
                self.send_unsent(id, end, stream);
            }
        }
    }

    fn send_unsent(&mut self, id: TunnelId, receiver: End, stream: RequestStream) {
        while let Some(Flow::Ip(flow)) = self.tunnels.get_mut(id).map(|tunnel| &mut tunnel.flow)
            && let Some(capsule) = flow.side(receiver).unsent.front()
        {
            match self.carriers.send_data(stream, capsule.clone()) {
                SendData::Written => {
                    flow.side(receiver).unsent.pop_front();
                }
                SendData::Blocked | SendData::Gone => return,
            }
        }
    }
}

fn icmp_too_big(mtu: usize) -> IcmpError {
    IcmpError::TooBig {
        mtu: u32::try_from(mtu).unwrap_or(u32::MAX),
    }
}

fn of_end<T>(both: &mut [T; 2], end: End) -> &mut T {
    let [downstream, upstream] = both;
    match end {
        End::Downstream => downstream,
        End::Upstream => upstream,
    }
}

/// Whether a tunnel carries IP packets.
pub(super) fn is_ip(tunnel: &Tunnel) -> bool {
    matches!(tunnel.flow, Flow::Ip(_))
}

impl Packet {
    /// What the checks of a tunnel want to know.
    pub(super) fn facts(&self) -> PacketFacts {
        PacketFacts {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
        }
    }
}
