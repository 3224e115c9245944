//! Requests to the kernel about routes (rtnetlink).
//!
//! ```text
//!   a prefix ─► the tunnel's interface      Lead::Into      gone with the interface, if that goes
//!            └► nowhere: unreachable        Lead::Nowhere   stays
//!   a relay  ─► as before the tunnel        HostRoute       stays
//! ```
//!
//! All of ours carry a protocol number of our own, and have the metric that the kernel gives where none is asked for
//! (0 in IPv4, 1024 in IPv6). So there is one of ours for a prefix, and one takes the place of another in a single
//! step: `NLM_F_REPLACE` finds the first route of the same prefix and metric (and TOS, in IPv4), whoever it belongs
//! to. In IPv6 it prefers one that has a gateway if the new one has, and takes all routers of it away. Which is why
//! nothing is replaced unless a route of ours was added there before, and adding fails where somebody else has one.

use std::cmp::Reverse;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol,
    RouteScope, RouteType,
};
use serde::{Deserialize, Serialize};

use super::error::LinkError;
use super::netlink::{Links, failure, unless_gone, unless_there};
use super::prefixes::host;

/// What our routes are marked with (`ip route` shows `proto 98`), so that nobody else's is ever removed. Free in
/// `rt_protos` of iproute2.
const OURS: RouteProtocol = RouteProtocol::Other(98);
/// The index of `lo` in every network namespace, which IPv6 puts into routes that lead nowhere.
const LOOPBACK: u32 = 1;

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Into an interface.
    Into {
        /// Its index.
        interface: u32,
        /// The address that this machine then sends from.
        source: Option<IpAddr>,
    },
    /// Nowhere: whoever sends there learns at once that it is out of reach.
    Nowhere,
}

/// How the system reaches an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayTo {
    /// It is this machine's own.
    Local,
    /// Out of an interface.
    Via {
        /// The next router; `None` when the address is on the link.
        gateway: Option<IpAddr>,
        /// Index of the interface.
        interface: u32,
    },
    /// Not at all.
    None,
}

/// A route to a single address, which keeps it outside a tunnel that covers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// The address.
    pub destination: IpAddr,
    /// The next router; `None` when the address is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
}

impl Links {
    /// Leads packets to `prefix`.
    ///
    /// # Errors
    /// What the kernel says; EEXIST when somebody else has a route to exactly this prefix.
    pub async fn add_route(&self, prefix: IpNet, lead: Lead) -> Result<(), LinkError> {
        let outcome = self.handle.route().add(lead.message(prefix)).execute();
        let doing = || format!("adding a route to {prefix}");
        outcome.await.map_err(|error| failure(doing(), error))
    }

    /// Leads packets to `prefix` by this in place of a route that [`Links::add_route`] made, in one step: no packet
    /// finds neither of them. Adds the route where there is none.
    ///
    /// # Errors
    /// What the kernel says. The former route is still there then.
    pub async fn replace_route(&self, prefix: IpNet, lead: Lead) -> Result<(), LinkError> {
        let request = self.handle.route().add(lead.message(prefix)).replace();
        let doing = || format!("replacing the route to {prefix}");
        let outcome = request.execute().await;
        outcome.map_err(|error| failure(doing(), error))
    }

    /// Takes such a route away. One that is not there is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_route(&self, prefix: IpNet, lead: Lead) -> Result<(), LinkError> {
        let mut message = lead.message(prefix);
        if lead == Lead::Nowhere && prefix.addr().is_ipv6() {
            // IPv6 does not look at the type of what it removes.
            message.attributes.push(RouteAttribute::Oif(LOOPBACK));
        }
        let outcome = self.handle.route().del(message).execute().await;
        unless_gone(format!("removing the route to {prefix}"), outcome)
    }

    /// Takes away all routes of ours that lead into an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn remove_routes_into(&self, interface: u32) -> Result<(), LinkError> {
        let lead = Lead::Into {
            interface,
            source: None,
        };
        for unspecified in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            let routes = self.routes(unspecified).await?;
            let ours = routes.iter().filter(|route| {
                let mut hops = hops(route).into_iter();
                route.header.protocol == OURS && hops.any(|hop| hop.interface == interface)
            });
            for prefix in ours.filter_map(|route| prefix(route, unspecified)) {
                self.remove_route(prefix, lead).await?;
            }
        }
        Ok(())
    }

    /// The ways to `address` by the best route of the main table that does not lead into the interface `avoid`, more
    /// than one where equal routes or several routers are there. Our own route to just this address is not looked at,
    /// nor one of ours that leads nowhere.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn ways_beside(
        &self,
        address: IpAddr,
        avoid: u32,
    ) -> Result<Vec<WayTo>, LinkError> {
        let mut candidates = Vec::new();
        for route in self.routes(address).await? {
            let Some(prefix) = prefix(&route, address).filter(|p| p.contains(&address)) else {
                continue;
            };
            let is_ours = route.header.protocol == OURS
                && (prefix == host(address) || route.header.kind == RouteType::Unreachable);
            let ways = ways(&route);
            if !is_ours && !ways.iter().any(|way| way.leads_into(avoid)) {
                let rank = (prefix.prefix_len(), Reverse(priority(&route)));
                candidates.extend(ways.into_iter().map(|way| (rank, way)));
            }
        }
        let best = candidates.iter().map(|(rank, _)| *rank).max();
        let equal = candidates.into_iter();
        let equal = equal.filter(|(rank, _)| Some(*rank) == best);
        Ok(equal.map(|(_, way)| way).collect())
    }

    /// What the kernel would do with a packet to `address`.
    ///
    /// # Errors
    /// What the kernel says, except that nothing leads to the address.
    pub async fn way_to(&self, address: IpAddr) -> Result<WayTo, LinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(address);
        question.header.destination_prefix_length = host(address).prefix_len();
        let destination = RouteAttribute::Destination(address.into());
        question.attributes.push(destination);
        let mut answers = Box::pin(self.handle.route().get(question).execute());
        match answers.try_next().await {
            Ok(answer) => {
                let way = answer.and_then(|answer| ways(&answer).into_iter().next());
                Ok(way.unwrap_or(WayTo::None))
            }
            Err(error) => {
                let error = failure(format!("looking up the route to {address}"), error);
                match error.errno() {
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Ok(WayTo::None),
                    Some(_) | None => Err(error),
                }
            }
        }
    }

    /// The routes of the main table, of the IP version of `address`.
    async fn routes(&self, address: IpAddr) -> Result<Vec<RouteMessage>, LinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(address);
        let routes = self.handle.route().get(question).execute();
        let is_main = |route: &RouteMessage| route.header.table == RouteHeader::RT_TABLE_MAIN;
        let routes = routes.try_filter(|route| std::future::ready(is_main(route)));
        let routes: Result<Vec<_>, _> = routes.try_collect().await;
        routes.map_err(|error| failure("listing routes".to_owned(), error))
    }

    /// Adds a route to a single address; `false` when somebody else has one, which is left alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_host_route(&self, host: &HostRoute) -> Result<bool, LinkError> {
        let outcome = self.handle.route().add(host.message()).execute().await;
        unless_there(outcome.map_err(|error| failure(host.doing("adding"), error)))
    }

    /// The same in place of the one that is there, in one step.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn replace_host_route(&self, host: &HostRoute) -> Result<(), LinkError> {
        let request = self.handle.route().add(host.message()).replace();
        let outcome = request.execute().await;
        outcome.map_err(|error| failure(host.doing("replacing"), error))
    }

    /// Takes it away. One that is not there, or not ours, is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn remove_host_route(&self, host: &HostRoute) -> Result<(), LinkError> {
        let outcome = self.handle.route().del(host.message()).execute().await;
        unless_gone(host.doing("removing"), outcome)
    }
}

impl Lead {
    fn message(self, prefix: IpNet) -> RouteMessage {
        match self {
            Self::Into { interface, source } => route(prefix, None, interface, source),
            Self::Nowhere => {
                let mut message = plain_route(prefix);
                message.header.kind = RouteType::Unreachable;
                message
            }
        }
    }
}

impl HostRoute {
    pub(super) const fn way(&self) -> WayTo {
        WayTo::Via {
            gateway: self.gateway,
            interface: self.interface,
        }
    }

    fn message(&self) -> RouteMessage {
        let prefix = host(self.destination);
        route(prefix, self.gateway, self.interface, None)
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the route to {}", self.destination)
    }
}

impl WayTo {
    pub(super) fn leads_into(&self, interface: u32) -> bool {
        match self {
            Self::Via { interface: out, .. } => *out == interface,
            Self::Local | Self::None => false,
        }
    }
}

fn plain_route(prefix: IpNet) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new().protocol(OURS);
    let message = builder.get_mut();
    message.header.address_family = family(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    let destination = RouteAttribute::Destination(prefix.network().into());
    message.attributes.push(destination);
    builder.build()
}

fn route(
    prefix: IpNet,
    gateway: Option<IpAddr>,
    interface: u32,
    source: Option<IpAddr>,
) -> RouteMessage {
    let mut message = plain_route(prefix);
    // IPv4 wants to know that there is nobody to ask; IPv6 has no scopes of routes.
    if gateway.is_none() && prefix.addr().is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(interface));
    attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// A next hop of a route.
struct Hop {
    gateway: Option<IpAddr>,
    interface: u32,
}

/// What packets may do that take a route: more than one thing where there are several routers.
fn ways(message: &RouteMessage) -> Vec<WayTo> {
    if message.header.kind == RouteType::Local {
        return vec![WayTo::Local];
    }
    let hops = match message.header.kind == RouteType::Unicast {
        true => hops(message),
        false => Vec::new(),
    };
    if hops.is_empty() {
        return vec![WayTo::None];
    }
    let via = |hop: Hop| WayTo::Via {
        gateway: hop.gateway,
        interface: hop.interface,
    };
    hops.into_iter().map(via).collect()
}

fn hops(message: &RouteMessage) -> Vec<Hop> {
    let mut hops = Vec::new();
    let interface = find(&message.attributes, |attribute| {
        if let RouteAttribute::Oif(index) = attribute {
            Some(*index)
        } else {
            None
        }
    });
    hops.extend(interface.map(|interface| Hop {
        gateway: gateway(&message.attributes),
        interface,
    }));
    let several = find(&message.attributes, |attribute| {
        if let RouteAttribute::MultiPath(hops) = attribute {
            Some(hops)
        } else {
            None
        }
    });
    let hop = |hop: &RouteNextHop| Hop {
        gateway: gateway(&hop.attributes),
        interface: hop.interface_index,
    };
    hops.extend(several.into_iter().flatten().map(hop));
    hops
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    find(attributes, |attribute| {
        if let RouteAttribute::Gateway(address) = attribute {
            ip(address)
        } else {
            None
        }
    })
}

fn priority(message: &RouteMessage) -> u32 {
    let priority = find(&message.attributes, |attribute| {
        if let RouteAttribute::Priority(priority) = attribute {
            Some(*priority)
        } else {
            None
        }
    });
    priority.unwrap_or_default()
}

/// What a route leads to. The default route has no destination; it gets that of the version of `address`.
fn prefix(message: &RouteMessage, address: IpAddr) -> Option<IpNet> {
    let destination = find(&message.attributes, |attribute| {
        if let RouteAttribute::Destination(destination) = attribute {
            ip(destination)
        } else {
            None
        }
    });
    let len = message.header.destination_prefix_length;
    match destination {
        Some(network) => IpNet::new(network, len).ok(),
        None if len == 0 => IpNet::new(address, 0).ok().map(|prefix| prefix.trunc()),
        None => None,
    }
}

/// Attributes are an open list of the kernel: what is looked for, or nothing.
fn find<'a, T>(
    attributes: &'a [RouteAttribute],
    wanted: impl Fn(&'a RouteAttribute) -> Option<T>,
) -> Option<T> {
    attributes.iter().find_map(wanted)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some((*address).into())
    } else if let RouteAddress::Inet6(address) = address {
        Some((*address).into())
    } else {
        None
    }
}
