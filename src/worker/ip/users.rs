//! What users of an end of an IP tunnel do with it, besides packets.

use std::time::Instant;

use bytes::Bytes;
use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

use super::super::leg::{Flow, Leg};
use super::super::machine::{End, Machine, Outside};
use super::MTU_MIN;
use super::carried::Reach;
use super::gateway::Gateway;
use crate::transport::quic::SendOutcome;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{IpError, Peer};
use crate::wire::carrier::Carrier;
use crate::wire::ip::{AddressRange, AssignedAddress, DnsConfig, IpCapsule, RequestedAddress};

/// Why something was not said to the other end of an IP tunnel.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IpRequestError {
    /// The tunnel is not open yet, over, or carries something else.
    #[error("the IP tunnel is not open")]
    NotOpen,
    /// The rules of RFC 9484 forbid it.
    #[error(transparent)]
    Rules(#[from] IpError),
}

/// What is known at one end of an IP tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IpInfo {
    /// What may be used as source here (RFC 9484 §4.7.1).
    pub assigned: Vec<AssignedAddress>,
    /// What the other end may use as source.
    pub assigned_to_peer: Vec<AssignedAddress>,
    /// What can be reached through the other end (RFC 9484 §4.7.3), in the order of the RFC.
    pub routes: Vec<AddressRange>,
    /// What the other end has asked for and not been answered (RFC 9484 §4.7.2); 64 at most.
    pub requested: Vec<RequestedAddress>,
    /// The name servers that the other end has told.
    pub dns: Vec<DnsConfig>,
    /// The prefixes of NAT64 that the other end has told.
    pub pref64: Vec<Ipv6Net>,
    /// The largest packet that passes now, in bytes: what QUIC has found out about the path, never below 1,280
    /// (RFC 9484 §7.2), and 65,527 where packets travel on a stream. [`IpEvent::Mtu`](crate::IpEvent::Mtu) tells of
    /// changes.
    pub mtu: usize,
    /// The HTTP version of the stream.
    pub carrier: Carrier,
}

impl Machine {
    /// Asks the other end for addresses; all-zero ones stand for any, with the prefix length that is wished for.
    /// Returns the ids of the requests, in order.
    ///
    /// # Errors
    /// [`IpRequestError`].
    pub fn ip_request_addresses(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        prefixes: &[IpNet],
        out: &mut impl Outside,
    ) -> Result<Vec<u64>, IpRequestError> {
        self.tell_far(now, (id, end), |peer| peer.request_addresses(prefixes), out)
    }

    /// Tells the other end all the addresses that it may use. A request id other than 0 answers that request.
    ///
    /// # Errors
    /// [`IpRequestError`].
    pub fn ip_assign_addresses(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        assigned: Vec<AssignedAddress>,
        out: &mut impl Outside,
    ) -> Result<(), IpRequestError> {
        let assign = |peer: &mut Peer| Ok(((), peer.assign_addresses(assigned)?));
        self.tell_far(now, (id, end), assign, out)
    }

    /// Tells the other end everything that it can reach here.
    ///
    /// # Errors
    /// [`IpRequestError`].
    pub fn ip_advertise_routes(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        routes: Vec<AddressRange>,
        out: &mut impl Outside,
    ) -> Result<(), IpRequestError> {
        let advertise = |peer: &mut Peer| Ok(((), peer.advertise_routes(routes)?));
        self.tell_far(now, (id, end), advertise, out)
    }

    /// Tells the other end the name servers for what it can reach here.
    ///
    /// # Errors
    /// [`IpRequestError`].
    pub fn ip_assign_dns(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        configs: Vec<DnsConfig>,
        out: &mut impl Outside,
    ) -> Result<(), IpRequestError> {
        let assign = |peer: &mut Peer| Ok(((), peer.assign_dns(configs)?));
        self.tell_far(now, (id, end), assign, out)
    }

    /// Tells the other end the prefixes of NAT64.
    ///
    /// # Errors
    /// [`IpRequestError`].
    pub fn ip_assign_pref64(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        prefixes: Vec<Ipv6Net>,
        out: &mut impl Outside,
    ) -> Result<(), IpRequestError> {
        let assign = |peer: &mut Peer| Ok(((), peer.assign_pref64(prefixes)?));
        self.tell_far(now, (id, end), assign, out)
    }

    fn tell_far<T>(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        say: impl FnOnce(&mut Peer) -> Result<(T, IpCapsule), IpError>,
        out: &mut impl Outside,
    ) -> Result<T, IpRequestError> {
        let far = end.other();
        let is_open = self.tunnels.get(id).is_some_and(|it| it.is_open());
        let is_users = self.leg(id, end) == Some(Leg::Local);
        let has_peer = self.reach_of(id, far).is_some();
        if !(is_open && is_users && has_peer) {
            return Err(IpRequestError::NotOpen);
        }
        match self.tell_peer(now, id, far, say, out) {
            Some(said) => Ok(said?),
            None => Err(IpRequestError::NotOpen),
        }
    }

    /// What is known at the end of a user.
    pub fn ip_info(&mut self, id: TunnelId, end: End) -> Option<IpInfo> {
        let far = end.other();
        let reach = self.reach_of(id, far)?;
        let carrier = match reach {
            Reach::Stream(stream) => self.carrier_of(stream),
            Reach::Carried(carrier) => carrier,
        };
        let mtu = self.mtu_towards(reach);
        let peer = &self.ip_flow(id)?.side(far).peer;
        Some(IpInfo {
            assigned: peer.assigned().to_vec(),
            assigned_to_peer: peer.assigned_to_peer().to_vec(),
            routes: peer.routes().to_vec(),
            requested: peer.pending_of_peer().to_vec(),
            dns: peer.dns().to_vec(),
            pref64: peer.pref64().to_vec(),
            mtu,
            carrier,
        })
    }

    /// Sends a packet for the user of an end. [`SendOutcome::TooLarge`]: it was not sent, and [`IpInfo::mtu`] says how
    /// large it may be.
    pub(in crate::worker) fn send_packet(
        &mut self,
        now: Instant,
        (id, end): (TunnelId, End),
        packet: Bytes,
        out: &mut impl Outside,
    ) -> SendOutcome {
        // What somebody else's stream brings is judged, and answered, as what ours do.
        let is_carried = self.carrier_elsewhere(id, end).is_some();
        let Some(stream) = self.far_stream(id, end).filter(|_| !is_carried) else {
            match end {
                End::Downstream => self.ip_from_downstream(now, id, packet, out),
                End::Upstream => self.ip_from_upstream(now, id, packet, out),
            }
            return SendOutcome::Queued;
        };
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|it| it.is_open()) else {
            return SendOutcome::Blocked;
        };
        debug_assert!(matches!(tunnel.flow, Flow::Ip(_)));
        tunnel.last_active = now;
        let (datagrams, bytes) = match end {
            End::Downstream => (
                &mut self.stats.upstream_datagrams,
                &mut self.stats.upstream_bytes,
            ),
            End::Upstream => (
                &mut self.stats.downstream_datagrams,
                &mut self.stats.downstream_bytes,
            ),
        };
        *datagrams += 1;
        *bytes += packet.len() as u64;
        match self.carriers.send_datagram(stream, &packet) {
            SendOutcome::TooLarge if self.send_in_capsule(stream, &packet) => SendOutcome::Sent,
            outcome @ (SendOutcome::Sent
            | SendOutcome::Queued
            | SendOutcome::TooLarge
            | SendOutcome::Blocked
            | SendOutcome::Gone) => outcome,
        }
    }

    /// Whether a path carries what every IP tunnel has to (RFC 9484 §7.2).
    pub(in crate::worker) fn carries_ip(
        &mut self,
        stream: crate::transport::carriers::RequestStream,
    ) -> bool {
        let room = self.carriers.payload_size_max(stream);
        room.is_none_or(|room| room >= MTU_MIN)
    }
}

/// The exit of a relay as the handler of this process wants it.
impl Machine {
    /// Gives this worker its part of an exit of the handler's. There is one at most, for the life of the machine.
    pub fn set_gateway(&mut self, gateway: Gateway) {
        debug_assert!(self.gateway.is_none(), "addresses were given away");
        self.gateway = Some(gateway);
    }

    /// Which worker this is.
    pub const fn worker(&self) -> u32 {
        self.steer.1
    }

    /// Says who the client of an IP tunnel is, before it is open: for its site, and for the addresses that are kept.
    pub fn set_user(&mut self, id: TunnelId, user: Option<Box<str>>) {
        if let Some(flow) = self.ip_flow(id) {
            flow.user = user;
        }
    }
}
