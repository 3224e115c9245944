//! The relay's own exit for IP packets: what clients are given, and which of their packets leave.
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
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use super::super::leg::Leg;
use super::super::machine::{End, HandlerEvent, Machine, Outside};
use super::super::pipe::Direction;
use super::errors::IcmpBudget;
use crate::error::Refusal;
use crate::net::SocketId;
use crate::policy::Policy;
use crate::server::Protocol;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{
    IpError, IpEvent, Owner, PacketFacts, Peer, Pools, PrefixMap, SITE_PREFIXES_MAX, Violation,
    refusal,
};
use crate::wire::ip::icmp::{self, IcmpError};
use crate::wire::ip::packet::{self, Packet, protocol};
use crate::wire::ip::{
    AddressRange, AssignedAddress, DnsConfig, IpCapsule, RequestedAddress, ScopeTarget,
};

/// What is the same for the gateways of all workers.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The pools, and what may be behind clients: nothing there is in the world outside.
    pub inside: Vec<IpNet>,
    /// What a client without a scope is told it can reach.
    pub routes: Vec<AddressRange>,
    /// The name servers that clients are told.
    pub dns: Vec<DnsConfig>,
    /// The prefixes of NAT64 that clients are told.
    pub pref64: Vec<Ipv6Net>,
    /// Whether clients get an address of each family without asking.
    pub unprompted: bool,
    /// Whether clients reach each other.
    pub client_to_client: bool,
    /// Networks behind clients.
    pub sites: Vec<Site>,
    /// Which destinations are allowed.
    pub policy: Arc<Policy>,
    /// The largest packet that the exit takes, in bytes.
    pub mtu: usize,
}

/// Networks behind a client, which it may advertise and send from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Who the client has to be; anybody if `None`.
    pub user: Option<Box<str>>,
    /// The networks.
    pub prefixes: Vec<IpNet>,
}

/// Something that happened at a gateway, for those who watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayEvent {
    /// A prefix was given to a tunnel.
    Assigned(TunnelId, IpNet),
    /// A tunnel gave a prefix back.
    Released(TunnelId, IpNet),
    /// The networks behind a client changed to these.
    Routes(TunnelId, Vec<IpNet>),
    /// A packet of a tunnel was dropped, for the reason that a counter is named after.
    Dropped(TunnelId, &'static str),
    /// A packet that leaves through the handler of this process.
    Packet(TunnelId, Bytes),
}

/// Where packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A queue of a TUN interface.
    Tun(SocketId),
    /// The handler of this process hears [`GatewayEvent`]s.
    Handler,
    /// Nowhere: clients reach each other, and the networks behind them.
    Nowhere,
}

/// The part of one worker in a relay's exit for IP packets.
#[derive(Debug)]
pub struct Gateway {
    settings: Arc<GatewaySettings>,
    pools: Pools,
    worker: u32,
    exit: Exit,
    /// Our own addresses in the pools.
    addresses: Vec<IpAddr>,
    /// Whose tunnel an address is at, on this worker.
    own: PrefixMap<TunnelId>,
    /// What leaves by TUN at the end of the turn.
    outgoing: Vec<Bytes>,
    errors: IcmpBudget,
}

impl Gateway {
    /// A gateway of worker `worker`.
    pub fn new(settings: Arc<GatewaySettings>, pools: Pools, worker: u32, exit: Exit) -> Self {
        Self {
            settings,
            worker,
            exit,
            addresses: pools.gateway_addresses().to_vec(),
            pools,
            own: PrefixMap::default(),
            outgoing: Vec::new(),
            errors: IcmpBudget::default(),
        }
    }

    /// A tunnel has a prefix no more, unless another has taken it over.
    fn forget(&mut self, prefix: IpNet, id: TunnelId) {
        if self.own.get_exact(prefix) == Some(&id) {
            self.own.remove(prefix);
        }
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        let mut inside = self.settings.inside.iter();
        inside.any(|prefix| prefix.contains(&address))
    }

    /// Our address of the same version.
    pub(super) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses.iter().copied();
        own.find(|own| own.is_ipv4() == other.is_ipv4())
    }

    fn owner(&self, id: TunnelId) -> Owner {
        Owner {
            worker: self.worker,
            tunnel: id.to_bits(),
        }
    }

    /// What a scope makes of the routes; `addresses` are those of its name.
    fn routes(
        &self,
        target: &ScopeTarget,
        protocol: u8,
        addresses: &[IpAddr],
    ) -> Vec<AddressRange> {
        let single = |prefix: &IpNet| AddressRange {
            start: prefix.network(),
            end: prefix.broadcast(),
            protocol,
        };
        let mut routes: Vec<_> = match target {
            ScopeTarget::Any => {
                let all = self.settings.routes.iter();
                all.map(|range| AddressRange { protocol, ..*range })
                    .collect()
            }
            ScopeTarget::Prefix(prefix) => vec![single(prefix)],
            ScopeTarget::Name(_) => {
                let hosts = addresses.iter().map(|it| single(&IpNet::from(*it)));
                hosts.collect()
            }
        };
        routes.retain(|range| self.address_like(range.start).is_some());
        routes.sort_by_key(|range| (range.start.is_ipv6(), range.start));
        routes.dedup();
        routes
    }

    /// The networks that may be behind a client.
    fn site_prefixes(&self, user: Option<&str>) -> impl Iterator<Item = IpNet> {
        let sites = self.settings.sites.iter();
        let of_user = sites.filter(move |site| site.user.is_none() || site.user.as_deref() == user);
        of_user.flat_map(|site| site.prefixes.iter().copied())
    }
}

/// What a tunnel has at the gateway.
#[derive(Debug, Default)]
pub(in crate::worker) struct Stay {
    leases: Vec<AssignedAddress>,
    /// Networks behind the client.
    sites: Vec<IpNet>,
    /// The last destination that policy allowed.
    allowed: Option<(IpAddr, Option<u16>)>,
}

/// Opening and closing.
impl Machine {
    /// Sends a tunnel out by the gateway, if there is something for it: `addresses` are those that the name of its
    /// scope has.
    pub(in crate::worker) fn open_gateway(
        &mut self,
        now: Instant,
        id: TunnelId,
        addresses: &[IpAddr],
        out: &mut impl Outside,
    ) {
        let (Some(gateway), Some(flow)) = (&self.gateway, self.tunnels.get(id)) else {
            return self.refuse(now, id, Refusal::Misconfigured, None, out);
        };
        let super::Flow::Ip(flow) = &flow.flow else {
            return;
        };
        let protocol = flow.scope.protocol.unwrap_or(0);
        let routes = gateway.routes(&flow.scope.target, protocol, addresses);
        if routes.is_empty() {
            return self.refuse(now, id, Refusal::Unroutable, None, out);
        }
        let is_flow = flow.scope.target != ScopeTarget::Any;
        if let Some(Leg::Stream(stream)) = self.leg(id, End::Downstream)
            && !self.carries_ip(stream)
        {
            return self.refuse(now, id, Refusal::PathTooSmall, None, out);
        }
        let wants = is_flow
            || self
                .gateway
                .as_ref()
                .is_some_and(|it| it.settings.unprompted);
        if wants {
            let mut given = false;
            let wishes = self
                .gateway
                .as_ref()
                .map(|it| it.pools.default_wishes().to_vec());
            for wish in wishes.unwrap_or_default() {
                let like = |range: &AddressRange| range.start.is_ipv4() == wish.addr().is_ipv4();
                given |= routes.iter().any(like) && self.lease(now, id, 0, wish).is_some();
            }
            if !given {
                return self.refuse(now, id, Refusal::NoAddressLeft, None, out);
            }
        }
        self.opened(now, id, Leg::Gateway, Protocol::Ip, out);
        if wants {
            self.tell_leases(now, id, &[], out);
        }
        self.tell_client(now, id, |peer| peer.advertise_routes(routes), out);
        self.tell_dns(now, id, out);
    }

    /// Name servers are told behind the routes that lead to them (draft-ietf-masque-connect-ip-dns §5).
    fn tell_dns(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        let Some(gateway) = &self.gateway else {
            return;
        };
        let settings = Arc::clone(&gateway.settings);
        if !settings.dns.is_empty() {
            let dns = settings.dns.clone();
            self.tell_client(now, id, |peer| peer.assign_dns(dns), out);
        }
        if !settings.pref64.is_empty() {
            let prefixes = settings.pref64.clone();
            self.tell_client(now, id, |peer| peer.assign_pref64(prefixes), out);
        }
    }

    fn tell_client(
        &mut self,
        now: Instant,
        id: TunnelId,
        say: impl FnOnce(&mut Peer) -> Result<IpCapsule, IpError>,
        out: &mut impl Outside,
    ) {
        let said = self.tell_peer(now, id, End::Downstream, |peer| Ok(((), say(peer)?)), out);
        // Whoever made the settings has let something through that no peer would take.
        if let Some(Err(error)) = said {
            tracing::warn!(%error, "a client was not told");
        }
    }

    /// Gives a tunnel a prefix.
    fn lease(&mut self, now: Instant, id: TunnelId, request_id: u64, wish: IpNet) -> Option<IpNet> {
        let gateway = self.gateway.as_mut()?;
        let super::Flow::Ip(flow) = &mut self.tunnels.get_mut(id)?.flow else {
            return None;
        };
        let owner = gateway.owner(id);
        let given = gateway.pools.assign(now, owner, wish, flow.user.as_deref());
        match given {
            Ok(prefix) => {
                gateway.own.insert(prefix, id);
                flow.stay
                    .leases
                    .push(AssignedAddress { request_id, prefix });
                self.stats.ip_addresses_assigned += 1;
                self.watch_gateway(GatewayEvent::Assigned(id, prefix));
                Some(prefix)
            }
            Err(error) => {
                tracing::debug!(%error, "no address for a client");
                self.stats.ip_assignments_refused += 1;
                None
            }
        }
    }

    fn tell_leases(
        &mut self,
        now: Instant,
        id: TunnelId,
        refusals: &[AssignedAddress],
        out: &mut impl Outside,
    ) {
        let Some(flow) = self.ip_flow(id) else {
            return;
        };
        let assigned = [&flow.stay.leases, refusals].concat();
        self.tell_client(now, id, |peer| peer.assign_addresses(assigned), out);
    }

    /// Takes back everything that a tunnel had.
    pub(in crate::worker) fn leave_gateway(&mut self, now: Instant, id: TunnelId, stay: &mut Stay) {
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        if stay.leases.is_empty() && stay.sites.is_empty() {
            return;
        }
        gateway.pools.release(now, gateway.owner(id));
        let Stay { leases, sites, .. } = std::mem::take(stay);
        let leases: Vec<_> = leases.into_iter().map(|lease| lease.prefix).collect();
        for prefix in leases.iter().chain(&sites) {
            gateway.forget(*prefix, id);
        }
        for prefix in leases {
            self.watch_gateway(GatewayEvent::Released(id, prefix));
        }
    }

    fn watch_gateway(&mut self, event: GatewayEvent) {
        if self
            .gateway
            .as_ref()
            .is_some_and(|gateway| gateway.exit == Exit::Handler)
        {
            self.handler.push_back(HandlerEvent::Gateway(event));
        }
    }

    /// What a client says about addresses and routes.
    pub(super) fn gateway_event(
        &mut self,
        now: Instant,
        id: TunnelId,
        event: IpEvent,
        out: &mut impl Outside,
    ) {
        match event {
            IpEvent::Requested(requested) => {
                let mut refusals = Vec::new();
                for request in requested {
                    if !self.claim(id, request)
                        && self
                            .lease(now, id, request.request_id, request.prefix)
                            .is_none()
                    {
                        refusals.push(refusal(request));
                    }
                }
                self.tell_leases(now, id, &refusals, out);
            }
            IpEvent::Routes(routes) => self.set_sites(id, &routes),
            // We need no address of a client's, and ask nobody that a client names.
            IpEvent::Assigned(_) | IpEvent::Dns(_) | IpEvent::Pref64(_) => {}
        }
    }

    /// Answers a request with a prefix that was given without one; whether there was one that fits.
    fn claim(&mut self, id: TunnelId, request: RequestedAddress) -> bool {
        let Some(flow) = self.ip_flow(id) else {
            return false;
        };
        let wish = request.prefix;
        let fits = |lease: &&mut AssignedAddress| {
            let like = lease.prefix.addr().is_ipv4() == wish.addr().is_ipv4();
            let any = wish.addr().is_unspecified();
            lease.request_id == 0
                && like
                && lease.prefix.prefix_len() == wish.prefix_len()
                && (any || lease.prefix == wish)
        };
        match flow.stay.leases.iter_mut().find(fits) {
            Some(lease) => {
                lease.request_id = request.request_id;
                true
            }
            None => false,
        }
    }

    /// The networks behind a client are those of its routes that it may have.
    fn set_sites(&mut self, id: TunnelId, routes: &[AddressRange]) {
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        let Some(super::Flow::Ip(flow)) = self.tunnels.get_mut(id).map(|tunnel| &mut tunnel.flow)
        else {
            return;
        };
        let permitted: Vec<_> = gateway.site_prefixes(flow.user.as_deref()).collect();
        let (mut sites, mut refused) = (Vec::new(), 0);
        for prefix in routes.iter().flat_map(prefixes_of) {
            if sites.len() >= SITE_PREFIXES_MAX {
                // A range of many pieces is not counted to its end.
                refused += 1;
                break;
            }
            match permitted.iter().any(|site| site.contains(&prefix)) {
                true => sites.push(prefix),
                false => refused += 1,
            }
        }
        self.stats.ip_routes_refused += refused;
        for prefix in &flow.stay.sites {
            gateway.forget(*prefix, id);
        }
        for prefix in &sites {
            gateway.own.insert(*prefix, id);
        }
        gateway.pools.advertise(gateway.owner(id), &sites);
        let [side, _] = &mut flow.sides;
        side.peer.allow_sources(sites.iter().copied());
        flow.stay.sites.clone_from(&sites);
        self.watch_gateway(GatewayEvent::Routes(id, sites));
    }
}

/// Packets.
impl Machine {
    fn drop_packet(&mut self, id: TunnelId, reason: &'static str) {
        *match reason {
            SOURCE => &mut self.stats.ip_dropped_source,
            DESTINATION => &mut self.stats.ip_dropped_destination,
            PROTOCOL => &mut self.stats.ip_dropped_protocol,
            PROHIBITED => &mut self.stats.ip_dropped_prohibited,
            HOP_LIMIT => &mut self.stats.ip_dropped_hop_limit,
            _ => &mut self.stats.ip_dropped_unassigned,
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
        if let Err((reason, error)) = self.judge_from_client(id, &parsed, &packet) {
            self.drop_packet(id, reason);
            return self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
        }
        if parsed.is_tcp_syn(&packet)
            && let Some(Leg::Stream(stream)) = self.leg(id, End::Downstream)
        {
            let mtu = self.tunnel_mtu(stream).min(self.exit_mtu());
            let mut clamped = BytesMut::from(&packet[..]);
            packet::clamp_mss(&mut clamped, &parsed, mtu);
            packet = clamped.freeze();
        }
        match self.client_at(parsed.destination) {
            Some(owner) => self.pass_to_client(now, id, owner, packet, out),
            // The kernel may have another way to a network behind clients, which is out into the world.
            None if self.is_nobodys(parsed.destination) => {
                self.drop_packet(id, UNASSIGNED);
                let error = IcmpError::AddressUnreachable;
                self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
            }
            None => self.leave_by_exit(now, id, packet, out),
        }
    }

    /// Whether an address that no client has would be one of a client.
    fn is_nobodys(&self, address: IpAddr) -> bool {
        (self.gateway.as_ref())
            .is_some_and(|it| it.is_inside(address) && !it.addresses.contains(&address))
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
    ) -> Result<(), (&'static str, IcmpError)> {
        let (Some(gateway), Some(super::Flow::Ip(flow))) = (
            &self.gateway,
            self.tunnels.get_mut(id).map(|tunnel| &mut tunnel.flow),
        ) else {
            return Err((DESTINATION, IcmpError::NoRoute));
        };
        let [side, _] = &flow.sides;
        let is_gateway = gateway.addresses.contains(&parsed.destination);
        match side.peer.check_from_peer(&parsed.facts()) {
            Err(Violation::Source) => return Err((SOURCE, IcmpError::SourceProhibited)),
            Ok(()) if !is_gateway => {}
            // Whoever is on the link may be spoken to.
            _ if is_gateway => return Ok(()),
            Err(Violation::Protocol) => return Err((PROTOCOL, IcmpError::Prohibited)),
            Ok(()) | Err(Violation::Destination) => return Err((DESTINATION, IcmpError::NoRoute)),
        }
        // What belongs to a link stays there (RFC 9484 §7.2).
        if is_link_local(parsed.destination) {
            return Err((PROHIBITED, IcmpError::Prohibited));
        }
        if gateway.is_inside(parsed.destination) {
            return match gateway.settings.client_to_client {
                true => Ok(()),
                false => Err((PROHIBITED, IcmpError::Prohibited)),
            };
        }
        let port = match parsed.protocol {
            protocol::TCP | protocol::UDP => parsed.destination_port(packet),
            _ => None,
        };
        if flow.stay.allowed == Some((parsed.destination, port)) {
            return Ok(());
        }
        match gateway
            .settings
            .policy
            .check_packet(parsed.destination, port)
        {
            Ok(()) => {
                flow.stay.allowed = Some((parsed.destination, port));
                Ok(())
            }
            Err(_) => Err((PROHIBITED, IcmpError::Prohibited)),
        }
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
            self.drop_packet(id, HOP_LIMIT);
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
                self.drop_packet(id, UNASSIGNED);
                let error = IcmpError::NoRoute;
                self.send_icmp_error(now, (id, Direction::Up), error, &packet, out);
            }
        }
    }

    /// A packet of our own, for the world or another client.
    pub(super) fn gateway_out(&mut self, now: Instant, packet: Bytes, out: &mut impl Outside) {
        let destination = Packet::parse(&packet).map(|parsed| parsed.destination);
        if destination.is_ok_and(|address| self.client_at(address).is_some()) {
            self.handle_packet(now, BytesMut::from(&packet[..]), out);
        } else if let Some(gateway) = &mut self.gateway
            && let Exit::Tun(_) = gateway.exit
        {
            gateway.outgoing.push(packet);
        }
    }

    /// Sends what the turn has brought for TUN.
    pub(in crate::worker) fn flush_gateway(&mut self, out: &mut impl Outside) {
        if let Some(gateway) = &mut self.gateway
            && let Exit::Tun(tun) = gateway.exit
            && !gateway.outgoing.is_empty()
        {
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
        let Some(Leg::Stream(stream)) = self.leg(id, End::Downstream) else {
            return;
        };
        let Some(flow) = self.ip_flow(id) else {
            return;
        };
        let peer = &flow.side(End::Downstream).peer;
        if let Err(violation) = peer.check_to_peer(&parsed.facts()) {
            return self.stats.count_violation(violation);
        }
        if parsed.is_tcp_syn(&packet) {
            let mtu = self.tunnel_mtu(stream);
            packet::clamp_mss(&mut packet, &parsed, mtu);
        }
        self.ip_from_upstream(now, id, packet.freeze(), out);
    }
}

const SOURCE: &str = "source";
const DESTINATION: &str = "destination";
const PROTOCOL: &str = "protocol";
const PROHIBITED: &str = "prohibited";
const HOP_LIMIT: &str = "hop_limit";
const UNASSIGNED: &str = "unassigned";

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The fewest prefixes that make up a range.
fn prefixes_of(range: &AddressRange) -> IpSubnets {
    match (range.start, range.end) {
        (IpAddr::V6(start), IpAddr::V6(end)) => Ipv6Subnets::new(start, end, 0).into(),
        (IpAddr::V4(start), IpAddr::V4(end)) => Ipv4Subnets::new(start, end, 0).into(),
        // The codec knows no such range.
        (IpAddr::V4(start), IpAddr::V6(_)) => Ipv4Subnets::new(start, start, 32).into(),
        (IpAddr::V6(start), IpAddr::V4(_)) => Ipv6Subnets::new(start, start, 128).into(),
    }
}
