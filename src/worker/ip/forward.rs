//! The packets of clients at the gateway, both ways. Two functions, [`Machine::gateway_from_client`] and
//! [`Machine::handle_packet`]; what they ask is in `gateway`.
//!
//! ```text
//!   client ─► source, scope, policy, MSS ─┬─► TUN (the kernel routes), or the handler of this process
//!                                         └─► another client, hop limit decremented
//!
//!   TUN, injection ─► whose is the destination? ─┬─► a tunnel of this worker ─► source, MSS ─► client
//!                                                ├─► another worker, by mailbox
//!                                                └─► nobody: ICMP
//! ```
//!
//! Behind TUN the kernel is the router, and has decremented the hop limit; between two clients this is (RFC 9484 §7.2).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::super::machine::{End, Machine, Outside};
use super::super::pipe::Direction;
use super::gateway::{DropReason, Exit, GatewayEvent};
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{Owner, PacketFacts, Violation};
use crate::wire::ip::icmp::{self, IcmpError};
use crate::wire::ip::packet::{self, Packet, protocol};

/// Where a packet that may pass goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Into the world.
    Out,
    /// To a client, or to a network behind one.
    In,
}

impl Machine {
    fn drop_packet(&mut self, id: TunnelId, reason: DropReason) {
        *match reason {
            DropReason::Source => &mut self.stats.ip_dropped_source,
            DropReason::Destination => &mut self.stats.ip_dropped_destination,
            DropReason::Protocol => &mut self.stats.ip_dropped_protocol,
            DropReason::Prohibited => &mut self.stats.ip_dropped_prohibited,
            DropReason::HopLimit => &mut self.stats.ip_dropped_hop_limit,
            DropReason::NoExit => &mut self.stats.ip_dropped_unassigned,
        } += 1;
        self.watch_gateway(GatewayEvent::Dropped(id, reason));
    }

    /// A packet of a client.
    pub(super) fn gateway_from_client(
        &mut self,
        now: Instant,
        id: TunnelId,
        mut packet: Bytes,
        out: &mut impl Outside,
    ) {
        let Some(parsed) = self.parse_packet(&packet) else {
            return;
        };
        packet.truncate(parsed.len);
        if let Some(reply) = self.reply_to_probe(id, &parsed, &packet) {
            return self.ip_from_upstream(now, id, reply, out);
        }
        let way = match self.judge_from_client(id, &parsed, &packet) {
            Ok(way) => way,
            Err((reason, error)) => {
                self.drop_packet(id, reason);
                return self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
            }
        };
        if parsed.is_tcp_syn(&packet)
            && let Some(client) = self.reach_of(id, End::Downstream)
        {
            let mtu = self.mtu_towards(client).min(self.exit_mtu());
            let mut clamped = BytesMut::from(&packet[..]);
            packet::clamp_mss(&mut clamped, &parsed, mtu);
            packet = clamped.freeze();
        }
        if way == Way::Out {
            return self.leave_by_exit(now, id, packet, out);
        }
        match self.client_at(parsed.destination) {
            Some(owner) => self.pass_to_client(now, id, owner, packet, out),
            // The kernel may have another way to a network behind clients, which is out into the world.
            None => {
                self.drop_packet(id, DropReason::NoExit);
                let error = IcmpError::AddressUnreachable;
                self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
            }
        }
    }

    /// The answer to an echo request for all nodes on the link, with which a peer finds out whether 1,280 bytes pass
    /// (RFC 9484 §7.2).
    fn reply_to_probe(&mut self, id: TunnelId, parsed: &Packet, packet: &[u8]) -> Option<Bytes> {
        const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        if parsed.destination != ALL_NODES {
            return None;
        }
        let own = self.gateway.as_ref()?.address_like(parsed.source)?;
        let asked = PacketFacts {
            destination: own,
            ..parsed.facts()
        };
        let peer = &self.ip_flow(id)?.side(End::Downstream).peer;
        match peer.check_from_peer(&asked) {
            Err(Violation::Source) => None,
            Ok(()) | Err(Violation::Destination | Violation::Protocol) => {
                icmp::echo_reply(packet, own).map(BytesMut::freeze)
            }
        }
    }

    fn exit_mtu(&self) -> usize {
        self.gateway
            .as_ref()
            .map_or(usize::MAX, |gateway| gateway.settings.mtu)
    }

    /// Whether a packet of a client may pass, and else why not.
    fn judge_from_client(
        &mut self,
        id: TunnelId,
        parsed: &Packet,
        packet: &[u8],
    ) -> Result<Way, (DropReason, IcmpError)> {
        let (Some(gateway), Some(super::Flow::Ip(flow))) = (
            &self.gateway,
            self.tunnels.get_mut(id).map(|tunnel| &mut tunnel.flow),
        ) else {
            return Err((DropReason::Destination, IcmpError::NoRoute));
        };
        let [side, _] = &flow.sides;
        let is_gateway = gateway.addresses.contains(&parsed.destination);
        let port = match parsed.protocol {
            protocol::TCP | protocol::UDP => parsed.destination_port(packet),
            _ => None,
        };
        // A first fragment that holds back its ports wants to pass for what it is not (RFC 7112).
        if matches!(parsed.protocol, protocol::TCP | protocol::UDP)
            && !parsed.later_fragment
            && port.is_none()
        {
            return Err((DropReason::Prohibited, IcmpError::Prohibited));
        }
        match side.peer.check_from_peer(&parsed.facts()) {
            Err(Violation::Source) => {
                return Err((DropReason::Source, IcmpError::SourceProhibited));
            }
            // The link itself may be asked whether it is there.
            _ if is_gateway && parsed.facts().is_icmp() => return Ok(Way::Out),
            _ if is_gateway && gateway.serves_dns(parsed.destination, port) => {
                return Ok(Way::Out);
            }
            Err(Violation::Protocol) => return Err((DropReason::Protocol, IcmpError::Prohibited)),
            Err(Violation::Destination) => {
                return Err((DropReason::Destination, IcmpError::NoRoute));
            }
            Ok(()) => {}
        }
        match &flow.stay.allowed {
            Some((address, of_port, way)) if (*address, *of_port) == (parsed.destination, port) => {
                return Ok(*way);
            }
            Some(_) | None => {}
        }
        let name = flow.scope.target_name();
        let prohibited = (DropReason::Prohibited, IcmpError::Prohibited);
        // What belongs to a link stays there (RFC 9484 §7.2).
        if is_link_local(parsed.destination) {
            return Err(prohibited);
        }
        let way = match !is_gateway && gateway.is_inside(parsed.destination) {
            true => Way::In,
            false => Way::Out,
        };
        // A translator is a way to clients too.
        let translated = gateway.translated(parsed.destination).map(IpAddr::V4);
        let ends = [Some(parsed.destination), translated];
        for end in ends.into_iter().flatten() {
            gateway
                .judge_destination(end, port, name)
                .map_err(|_| prohibited)?;
        }
        flow.stay.allowed = Some((parsed.destination, port, way));
        Ok(way)
    }

    /// Which client has an address, on any worker.
    fn client_at(&self, address: IpAddr) -> Option<Owner> {
        let gateway = self.gateway.as_ref()?;
        match gateway.own.get(address) {
            Some(id) => Some(gateway.owner(*id)),
            None if gateway.is_inside(address) => gateway.pools.owner_of(address),
            None => None,
        }
    }

    /// From one client to another.
    fn pass_to_client(
        &mut self,
        now: Instant,
        id: TunnelId,
        to: Owner,
        packet: Bytes,
        out: &mut impl Outside,
    ) {
        let mut forwarded = BytesMut::from(&packet[..]);
        if !packet::decrement_hop_limit(&mut forwarded) {
            self.drop_packet(id, DropReason::HopLimit);
            let error = IcmpError::TimeExceeded;
            return self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
        }
        match self
            .gateway
            .as_ref()
            .is_some_and(|it| it.worker == to.worker)
        {
            true => self.packet_to_client(now, TunnelId::from_bits(to.tunnel), forwarded, out),
            false => out.forward_packet(to.worker, forwarded.freeze()),
        }
    }

    fn leave_by_exit(&mut self, now: Instant, id: TunnelId, packet: Bytes, out: &mut impl Outside) {
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        match gateway.exit {
            Exit::Tun(_) => gateway.outgoing.push(packet),
            Exit::Handler => self.watch_gateway(GatewayEvent::Packet(id, packet)),
            Exit::Nowhere => {
                self.drop_packet(id, DropReason::NoExit);
                let error = IcmpError::NoRoute;
                self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
            }
        }
    }

    /// A packet of our own about one of a tunnel's, for the world or another client.
    pub(super) fn gateway_out(
        &mut self,
        now: Instant,
        id: TunnelId,
        packet: Bytes,
        out: &mut impl Outside,
    ) {
        let destination = Packet::parse(&packet).map(|parsed| parsed.destination);
        if destination.is_ok_and(|address| self.client_at(address).is_some()) {
            return self.handle_packet(now, BytesMut::from(&packet[..]), out);
        }
        match self.gateway.as_mut().map(|gateway| (gateway.exit, gateway)) {
            Some((Exit::Tun(_), gateway)) => gateway.outgoing.push(packet),
            Some((Exit::Handler, _)) => self.watch_gateway(GatewayEvent::Packet(id, packet)),
            Some((Exit::Nowhere, _)) | None => {}
        }
    }

    /// Sends what the turn has brought for TUN.
    pub(in crate::worker) fn flush_gateway(&mut self, out: &mut impl Outside) {
        if let Some(gateway) = &mut self.gateway
            && let Exit::Tun(tun) = gateway.exit
            && !gateway.outgoing.is_empty()
        {
            let packets = gateway.outgoing.len() as u64;
            gateway.left.fetch_add(packets, Ordering::Relaxed);
            out.send_packets(tun, &mut gateway.outgoing);
        }
    }

    /// A packet for whoever has its destination: from TUN, from another worker, or made up by the handler of this
    /// process.
    pub fn handle_packet(&mut self, now: Instant, packet: BytesMut, out: &mut impl Outside) {
        let Some(parsed) = self.parse_packet(&packet) else {
            return;
        };
        let Some(owner) = self.client_at(parsed.destination) else {
            self.stats.ip_dropped_unassigned += 1;
            return self.answer_unassigned(now, &parsed, &packet);
        };
        let is_ours = self
            .gateway
            .as_ref()
            .is_some_and(|it| it.worker == owner.worker);
        match is_ours {
            true => self.packet_to_client(now, TunnelId::from_bits(owner.tunnel), packet, out),
            false => {
                self.stats.strays_forwarded += 1;
                // A copy: what waits in a mailbox must not pin a receive buffer.
                out.forward_packet(owner.worker, Bytes::copy_from_slice(&packet));
            }
        }
    }

    /// Nobody has that address of the pools.
    fn answer_unassigned(&mut self, now: Instant, parsed: &Packet, packet: &[u8]) {
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        if !gateway.is_inside(parsed.destination) || !gateway.errors.take(now) {
            return;
        }
        if let Some(answer) = self.icmp_error(IcmpError::AddressUnreachable, packet, true)
            && let Some(gateway) = &mut self.gateway
            && let Exit::Tun(_) = gateway.exit
        {
            gateway.outgoing.push(answer);
        }
    }

    /// A packet for the client of a tunnel.
    fn packet_to_client(
        &mut self,
        now: Instant,
        id: TunnelId,
        mut packet: BytesMut,
        out: &mut impl Outside,
    ) {
        let Ok(parsed) = Packet::parse(&packet) else {
            return;
        };
        let Some(client) = self.reach_of(id, End::Downstream) else {
            return;
        };
        // Nobody outside has the address of a client, so whoever shows one there has made it up (RFC 3704 §2).
        if (self.gateway.as_ref()).is_some_and(|gateway| gateway.is_forged(parsed.source)) {
            return self.drop_packet(id, DropReason::Source);
        }
        let Some(flow) = self.ip_flow(id) else {
            return;
        };
        let peer = &flow.side(End::Downstream).peer;
        if let Err(violation) = peer.check_to_peer(&parsed.facts()) {
            return self.drop_packet(
                id,
                match violation {
                    Violation::Source => DropReason::Source,
                    Violation::Destination => DropReason::Destination,
                    Violation::Protocol => DropReason::Protocol,
                },
            );
        }
        if parsed.is_tcp_syn(&packet) {
            let mtu = self.mtu_towards(client);
            packet::clamp_mss(&mut packet, &parsed, mtu);
        }
        self.ip_from_upstream(now, id, packet.freeze(), out);
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
