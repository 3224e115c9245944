//! Requests to the kernel about interfaces, addresses and routes (rtnetlink).

use std::net::IpAddr;
use std::path::PathBuf;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

use super::error::LinkError;
use super::prefixes::host;

/// What our routes are marked with (`ip route` shows `proto 98`), so that nobody else's is ever removed. Free in
/// `rt_protos` of iproute2.
const OURS: RouteProtocol = RouteProtocol::Other(98);
/// No link-local address: nobody on the other side answers to it.
const ADDR_GEN_NONE: &str = "1";

/// A connection to the kernel.
#[derive(Clone, Debug)]
pub struct Links {
    handle: Handle,
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
        /// The address that packets are sent from, if the route names one.
        source: Option<IpAddr>,
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
    /// Connects. The task that drives the connection runs on the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| LinkError::refused("opening a netlink socket", source))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// [`LinkError::NoInterface`], or what the kernel says.
    pub async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            Ok(None) => Err(LinkError::NoInterface {
                name: name.to_owned(),
            }),
            Err(error) => match failure(format!("finding interface {name}"), error) {
                error if error.errno() == Some(libc::ENODEV) => Err(LinkError::NoInterface {
                    name: name.to_owned(),
                }),
                error => Err(error),
            },
        }
    }

    /// Sets the MTU of an interface, where one is given, and switches it on. It gets no link-local address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_up(&self, index: u32, name: &str, mtu: Option<u16>) -> Result<(), LinkError> {
        // A kernel without IPv6 does not have the setting, and needs none.
        drop(std::fs::write(
            setting(name, "addr_gen_mode"),
            ADDR_GEN_NONE,
        ));
        let mut link = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            link = link.mtu(mtu.into());
        }
        let request = self.handle.link().set(link.build());
        let doing = || format!("setting up {name}");
        request.execute().await.map_err(|e| failure(doing(), e))
    }

    /// Changes the MTU of an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_mtu(&self, index: u32, mtu: u16) -> Result<(), LinkError> {
        let link = LinkUnspec::new_with_index(index).mtu(mtu.into());
        let request = self.handle.link().set(link.build());
        let doing = || format!("setting the MTU to {mtu}");
        request.execute().await.map_err(|e| failure(doing(), e))
    }

    /// Gives an interface an address; the prefix length makes the route that comes with it. One that it has is fine.
    /// IPv6 is switched on for the interface where the system has it off by default.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_address(
        &self,
        index: u32,
        name: &str,
        address: IpNet,
    ) -> Result<(), LinkError> {
        match self.try_add_address(index, address).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            Err(error) if error.errno() == Some(libc::EACCES) && address.addr().is_ipv6() => {
                let path = setting(name, "disable_ipv6");
                std::fs::write(&path, "0").map_err(LinkError::file(path))?;
                self.try_add_address(index, address).await
            }
            outcome => outcome,
        }
    }

    async fn try_add_address(&self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let addresses = self.handle.address();
        let mut request = addresses.add(index, address.addr(), address.prefix_len());
        // The relay has seen to it that nobody else has the address, and nobody on the link could answer.
        let flags = &mut request.message_mut().header.flags;
        *flags |= AddressHeaderFlags::Nodad;
        let doing = || format!("adding address {address}");
        request.execute().await.map_err(|e| failure(doing(), e))
    }

    /// Takes an address away. One that is not there is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let addresses = self.handle.address();
        let mut request = addresses.add(index, address.addr(), address.prefix_len());
        let message = request.message_mut().clone();
        let outcome = addresses.del(message).execute().await;
        unless_gone(format!("removing address {address}"), outcome)
    }

    /// Leads `prefix` into an interface. `source` is the address that this machine then sends from.
    ///
    /// # Errors
    /// What the kernel says; EEXIST when somebody else has a route to exactly this prefix.
    pub async fn add_route(
        &self,
        index: u32,
        prefix: IpNet,
        source: Option<IpAddr>,
    ) -> Result<(), LinkError> {
        let message = route(prefix, None, index, source);
        let outcome = self.handle.route().add(message).execute().await;
        outcome.map_err(|error| failure(format!("adding a route to {prefix}"), error))
    }

    /// Takes such a route away. One that is not there is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_route(&self, index: u32, prefix: IpNet) -> Result<(), LinkError> {
        let message = route(prefix, None, index, None);
        let outcome = self.handle.route().del(message).execute().await;
        unless_gone(format!("removing the route to {prefix}"), outcome)
    }

    /// How the system reaches `address` without the interface `avoid`: what the kernel would do, unless that leads
    /// there, else the best route of the main table that does not.
    ///
    /// # Errors
    /// What the kernel says, except that nothing leads to the address.
    pub async fn way_to(&self, address: IpAddr, avoid: Option<u32>) -> Result<WayTo, LinkError> {
        let doing = || format!("looking up the route to {address}");
        let request = self.handle.route().get(query(Some(address), address));
        let mut answers = Box::pin(request.execute());
        match answers.try_next().await {
            Ok(Some(answer)) => {
                let way = way(&answer);
                if !leads_to(&way, avoid) {
                    return Ok(way);
                }
            }
            Ok(None) => return Ok(WayTo::None),
            Err(error) => {
                let error = failure(doing(), error);
                return match error.errno() {
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Ok(WayTo::None),
                    Some(_) | None => Err(error),
                };
            }
        }
        let request = self.handle.route().get(query(None, address));
        let mut routes = Box::pin(request.execute());
        let mut best = None;
        while let Some(route) = routes.try_next().await.map_err(|e| failure(doing(), e))? {
            let len = route.header.destination_prefix_length;
            let rank = (len, std::cmp::Reverse(priority(&route)));
            let way = way(&route);
            let is_wanted = route.header.table == RouteHeader::RT_TABLE_MAIN
                && matches!(way, WayTo::Via { .. })
                && !leads_to(&way, avoid)
                && covers_address(&route, address);
            if is_wanted && best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, way));
            }
        }
        Ok(best.map_or(WayTo::None, |(_, way)| way))
    }

    /// Adds a route to a single address; `false` when somebody else has one, which is left alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn add_host_route(&self, host: &HostRoute) -> Result<bool, LinkError> {
        let outcome = self.handle.route().add(host.message()).execute().await;
        match outcome.map_err(|error| failure(host.doing("adding"), error)) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
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

impl HostRoute {
    fn message(&self) -> RouteMessage {
        let prefix = host(self.destination);
        route(prefix, self.gateway, self.interface, None)
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the route to {}", self.destination)
    }
}

/// A setting of IPv6 for one interface.
fn setting(name: &str, key: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv6/conf/{name}/{key}"))
}

fn route(
    prefix: IpNet,
    gateway: Option<IpAddr>,
    interface: u32,
    source: Option<IpAddr>,
) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .protocol(OURS)
        .output_interface(interface);
    // IPv4 wants to know that there is nobody to ask; IPv6 has no scopes of routes.
    if gateway.is_none() && prefix.addr().is_ipv4() {
        builder = builder.scope(RouteScope::Link);
    }
    let message = builder.get_mut();
    message.header.address_family = family(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(prefix.network().into()));
    attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    builder.build()
}

/// A question for the route to one address, or for all routes of an IP version.
fn query(address: Option<IpAddr>, version: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(version);
    if let Some(address) = address {
        message.header.destination_prefix_length = host(address).prefix_len();
        let destination = RouteAttribute::Destination(address.into());
        message.attributes.push(destination);
    }
    message
}

fn family(address: IpAddr) -> rtnetlink::packet_route::AddressFamily {
    match address {
        IpAddr::V4(_) => rtnetlink::packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => rtnetlink::packet_route::AddressFamily::Inet6,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "types of routes and attributes are an open list of the kernel"
)]
fn way(message: &RouteMessage) -> WayTo {
    let (mut gateway, mut interface, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    match (message.header.kind, interface) {
        (RouteType::Local, _) => WayTo::Local,
        (RouteType::Unicast, Some(interface)) => WayTo::Via {
            gateway,
            interface,
            source,
        },
        _ => WayTo::None,
    }
}

fn leads_to(way: &WayTo, avoid: Option<u32>) -> bool {
    match way {
        WayTo::Via { interface, .. } => Some(*interface) == avoid,
        WayTo::Local | WayTo::None => false,
    }
}

fn priority(message: &RouteMessage) -> u32 {
    let mut priorities = message.attributes.iter().filter_map(|attribute| {
        if let RouteAttribute::Priority(priority) = attribute {
            Some(*priority)
        } else {
            None
        }
    });
    priorities.next().unwrap_or_default()
}

fn covers_address(message: &RouteMessage, address: IpAddr) -> bool {
    let len = message.header.destination_prefix_length;
    let mut destinations = message.attributes.iter().filter_map(|attribute| {
        if let RouteAttribute::Destination(destination) = attribute {
            ip(destination)
        } else {
            None
        }
    });
    match destinations.next() {
        Some(network) => IpNet::new(network, len).is_ok_and(|prefix| prefix.contains(&address)),
        // The default route has no destination.
        None => len == 0,
    }
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

fn unless_gone(doing: String, outcome: Result<(), rtnetlink::Error>) -> Result<(), LinkError> {
    let gone = [
        Some(libc::ESRCH),
        Some(libc::ENODEV),
        Some(libc::EADDRNOTAVAIL),
        Some(libc::ENOENT),
    ];
    match outcome.map_err(|error| failure(doing, error)) {
        Err(error) if gone.contains(&error.errno()) => Ok(()),
        outcome => outcome,
    }
}

fn failure(doing: String, error: rtnetlink::Error) -> LinkError {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        return LinkError::refused(doing, message.to_io());
    }
    LinkError::Netlink {
        doing,
        message: error.to_string(),
    }
}
