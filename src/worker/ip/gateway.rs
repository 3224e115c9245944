//! The relay's own exit for IP packets: who is given which addresses, and told what. Its packets are in `forward`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::Bytes;
use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use super::super::leg::Leg;
use super::super::machine::{End, HandlerEvent, Machine, Outside};
use super::errors::IcmpBudget;
use super::forward::Way;
use crate::error::Refusal;
use crate::net::SocketId;
use crate::policy::{Denied, Policy};
use crate::server::Protocol;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{
    AssignError, Holder, IpError, IpEvent, Owner, Peer, Pools, PrefixMap, SITE_PREFIXES_MAX,
    refusal,
};
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
    /// A packet of or for a tunnel was dropped.
    Dropped(TunnelId, DropReason),
    /// A packet that leaves through the handler of this process.
    Packet(TunnelId, Bytes),
}

/// Why a gateway does not let a packet pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The sender may not use the source: it was not assigned (BCP 38).
    Source,
    /// The destination is on no route.
    Destination,
    /// The route is for another protocol.
    Protocol,
    /// Policy forbids the destination, or that clients reach each other.
    Prohibited,
    /// The hop limit is used up.
    HopLimit,
    /// Nothing leads there: no client has the address, or the packet would leave and there is no way out.
    NoExit,
}

/// Where packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A queue of a TUN interface.
    Tun(SocketId),
    /// The handler of this process is given them as [`GatewayEvent::Packet`].
    Handler,
    /// Nowhere: clients reach each other, and the networks behind them.
    Nowhere,
}

/// The part of one worker in a relay's exit for IP packets.
#[derive(Debug)]
pub struct Gateway {
    pub(super) settings: Arc<GatewaySettings>,
    pub(super) pools: Pools,
    pub(super) worker: u32,
    pub(super) exit: Exit,
    /// Whether the handler of this process is told what happens.
    pub(super) is_watched: bool,
    /// Packets that have left by TUN, of all gateways that share the counter.
    pub(super) left: Arc<AtomicU64>,
    /// Our own addresses in the pools.
    pub(super) addresses: Vec<IpAddr>,
    /// Whose tunnel an address is at, on this worker.
    pub(super) own: PrefixMap<TunnelId>,
    /// What leaves by TUN at the end of the turn.
    pub(super) outgoing: Vec<Bytes>,
    pub(super) errors: IcmpBudget,
}

impl Gateway {
    /// A gateway of worker `worker`. It tells what happens where packets leave through the handler of this process.
    pub fn new(settings: Arc<GatewaySettings>, pools: Pools, worker: u32, exit: Exit) -> Self {
        Self {
            settings,
            worker,
            exit,
            is_watched: exit == Exit::Handler,
            left: Arc::default(),
            addresses: pools.gateway_addresses().to_vec(),
            pools,
            own: PrefixMap::default(),
            outgoing: Vec::new(),
            errors: IcmpBudget::default(),
        }
    }

    /// Tells the handler of this process what happens, wherever packets leave; those that leave by TUN are counted in
    /// `left` alone.
    #[must_use]
    pub fn watched(self, left: Arc<AtomicU64>) -> Self {
        Self {
            is_watched: true,
            left,
            ..self
        }
    }

    /// Whether an address of ours is one of the name servers that clients are told of.
    pub(super) fn serves_dns(&self, address: IpAddr, port: Option<u16>) -> bool {
        let mut servers = self
            .settings
            .dns
            .iter()
            .flat_map(|config| &config.nameservers);
        port == Some(53)
            && servers.any(|server| match address {
                IpAddr::V4(address) => server.ipv4.contains(&address),
                IpAddr::V6(address) => server.ipv6.contains(&address),
            })
    }

    /// The IPv4 address behind one that our NAT64 translates (RFC 6052 §2.2).
    pub(super) fn translated(&self, address: IpAddr) -> Option<Ipv4Addr> {
        let IpAddr::V6(address) = address else {
            return None;
        };
        let mut prefixes = self.settings.pref64.iter();
        let len = prefixes
            .find(|prefix| prefix.contains(&address))?
            .prefix_len();
        let octets = address.octets();
        let mut behind = usize::from(len / 8)..16;
        // Octet 8 stays empty.
        let mut next = || octets.get(behind.find(|at| *at != 8)?).copied();
        Some(Ipv4Addr::new(next()?, next()?, next()?, next()?))
    }

    /// Whether a client may send to a destination; `is_own` if that is our own.
    pub(super) fn judge_destination(
        &self,
        destination: IpAddr,
        port: Option<u16>,
        name: Option<&str>,
    ) -> Result<(), Denied> {
        let policy = &self.settings.policy;
        let is_own = self.addresses.contains(&destination);
        match !is_own && self.is_inside(destination) {
            false => policy.check_packet(destination, port, name),
            true if self.settings.client_to_client => policy.check_inside(destination, port, name),
            true => Err(Denied::ByRule),
        }
    }

    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        let mut inside = self.settings.inside.iter();
        inside.any(|prefix| prefix.contains(&address))
    }

    /// Whether no packet for a client comes from there: clients do not reach each other, and this is one.
    pub(super) fn is_forged(&self, source: IpAddr) -> bool {
        let is_client = self.is_inside(source) && !self.addresses.contains(&source);
        is_client && !self.settings.client_to_client
    }

    /// Our address of the same version.
    pub(super) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses.iter().copied();
        own.find(|own| own.is_ipv4() == other.is_ipv4())
    }

    pub(super) fn owner(&self, id: TunnelId) -> Owner {
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
        let within = |prefix: &IpNet| self.within(prefix, protocol);
        let mut routes: Vec<_> = match target {
            ScopeTarget::Any => {
                let all = self.settings.routes.iter();
                all.map(|range| AddressRange { protocol, ..*range })
                    .collect()
            }
            ScopeTarget::Prefix(prefix) => within(prefix),
            ScopeTarget::Name(_) => {
                let hosts = addresses.iter().copied().map(IpNet::from);
                hosts.flat_map(|host| within(&host)).collect()
            }
        };
        routes.retain(|range| self.address_like(range.start).is_some());
        routes.sort_by_key(|range| (range.start.is_ipv6(), range.start));
        routes.dedup();
        routes
    }

    /// What of a prefix there are routes for.
    fn within(&self, prefix: &IpNet, protocol: u8) -> Vec<AddressRange> {
        let (first, last) = (prefix.network(), prefix.broadcast());
        let alike =
            (self.settings.routes.iter()).filter(|it| it.start.is_ipv4() == first.is_ipv4());
        let cut = alike.map(|it| AddressRange {
            start: it.start.max(first),
            end: it.end.min(last),
            protocol,
        });
        cut.filter(|it| it.start <= it.end).collect()
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
    /// Whose they are: the client may move to another address.
    holder: Option<Holder>,
    /// Networks behind the client.
    sites: Vec<IpNet>,
    /// The last destination that policy allowed, and where that is.
    pub(super) allowed: Option<(IpAddr, Option<u16>, Way)>,
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
        if let Some(flow) = self.ip_flow(id) {
            // From here on nobody sends from what is not theirs, whether they were given something or not.
            flow.side(End::Downstream).peer.allow_sources([]);
        }
        self.opened(now, id, Leg::Gateway, Protocol::Ip, out);
        if wants {
            self.tell_leases(now, id, &[], out);
        }
        self.tell_client(now, id, |peer| peer.advertise_routes(routes), out);
        if !is_flow {
            self.tell_dns(now, id, out);
        }
        // Now it is known where they may come from, and go.
        self.relay_early_packets(now, id, out);
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
        let client = self.client_address(id)?;
        let gateway = self.gateway.as_mut()?;
        let super::Flow::Ip(flow) = &mut self.tunnels.get_mut(id)?.flow else {
            return None;
        };
        let new_holder = || Holder::new(flow.user.as_deref(), client.ip());
        let holder = &*flow.stay.holder.get_or_insert_with(new_holder);
        match gateway.pools.assign(now, gateway.owner(id), wish, holder) {
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
                let is_share = matches!(error, AssignError::TooManyOfUser { .. });
                self.stats.ip_shares_refused += u64::from(is_share);
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
        let leases = std::mem::take(stay).leases;
        let leases: Vec<_> = leases.into_iter().map(|lease| lease.prefix).collect();
        for prefix in &leases {
            gateway.own.remove(*prefix);
        }
        for prefix in leases {
            self.watch_gateway(GatewayEvent::Released(id, prefix));
        }
    }

    pub(super) fn watch_gateway(&mut self, event: GatewayEvent) {
        if self.gateway.as_ref().is_some_and(|it| it.is_watched) {
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
            IpEvent::Assigned(_) | IpEvent::Dns(_) | IpEvent::Pref64(_) => {
                if let Some(flow) = self.ip_flow(id) {
                    flow.side(End::Downstream).peer.decline();
                }
            }
            // Users hear of it, and gateways look when they have a packet.
            IpEvent::Mtu(_) => {}
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
        if permitted.is_empty() {
            self.stats.ip_routes_refused += routes.len() as u64;
            return;
        }
        let (mut sites, mut refused) = (Vec::new(), 0);
        for prefix in routes.iter().flat_map(prefixes_of) {
            // Ranges of many pieces are not counted to their end.
            if sites.len() as u64 + refused >= SITE_PREFIXES_MAX as u64 {
                refused += 1;
                break;
            }
            match permitted.iter().any(|site| site.contains(&prefix)) {
                true => sites.push(prefix),
                false => refused += 1,
            }
        }
        self.stats.ip_routes_refused += refused;
        if sites == flow.stay.sites {
            return;
        }
        gateway.pools.advertise(gateway.owner(id), &sites);
        let [side, _] = &mut flow.sides;
        side.peer.allow_sources(sites.iter().copied());
        flow.stay.sites.clone_from(&sites);
        self.watch_gateway(GatewayEvent::Routes(id, sites));
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
