//! From what the relay said to what the system shall have: addresses, routes, name servers, MTU.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Client;
use crate::net::link::{LinkDns, covers, host, prefixes_of};
use crate::worker::IpInfo;

/// Most routes that are set. A relay that offers more is a mistake.
const ROUTES_MAX: usize = 4_096;
/// The least MTU of a tunnel (RFC 9484 §7.2).
const MTU_MIN: u16 = 1_280;

/// What the system shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Single addresses of the interface.
    pub(super) addresses: Vec<IpNet>,
    /// Where the interface leads, with the address to send from.
    pub(super) routes: Vec<(IpNet, IpAddr)>,
    /// Name servers; none if empty.
    pub(super) dns: LinkDns,
    pub(super) mtu: u16,
    /// What was asked for by the arguments and is not to be had.
    pub(super) missing: Vec<IpNet>,
    /// Routes above [`ROUTES_MAX`].
    pub(super) left_out: usize,
}

impl Wanted {
    pub(super) fn new(client: &Client, info: &IpInfo) -> Self {
        let assigned = info.assigned.iter().map(|assigned| assigned.prefix);
        let mut addresses: Vec<IpNet> = assigned
            .filter(|prefix| !prefix.addr().is_unspecified())
            .map(own_address)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();

        let offered: Vec<_> = info
            .routes
            .iter()
            .map(|range| (range.start, range.end))
            .collect();
        let (mut prefixes, mut missing) = (Vec::new(), Vec::new());
        if client.routes.is_empty() {
            prefixes = prefixes_of(&offered);
        } else {
            for route in &client.routes {
                match covers(&offered, route) {
                    true => prefixes.extend(halves(*route)),
                    false => missing.push(*route),
                }
            }
        }
        // Until the list has come, nothing is missing.
        if info.routes.is_empty() {
            missing.clear();
        }
        let dns = if client.dns {
            servers(info)
        } else {
            LinkDns::default()
        };
        for server in &dns.servers {
            let is_led_there = prefixes.iter().any(|prefix| prefix.contains(server));
            if !is_led_there && covers(&offered, &host(*server)) {
                prefixes.push(host(*server));
            }
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        let source = |prefix: &IpNet| {
            let mut own = addresses.iter().map(IpNet::addr);
            own.find(|own| own.is_ipv4() == prefix.addr().is_ipv4())
        };
        // An IP version that we have no address of leads nowhere.
        let routes = prefixes
            .iter()
            .filter_map(|prefix| Some((*prefix, source(prefix)?)));
        let mut routes: Vec<_> = routes.collect();
        let left_out = routes.len().saturating_sub(ROUTES_MAX);
        routes.truncate(ROUTES_MAX);
        let mtu = u16::try_from(info.mtu).unwrap_or(u16::MAX);
        Self {
            routes,
            dns,
            mtu: mtu.clamp(MTU_MIN, client.mtu.max(MTU_MIN)),
            missing,
            left_out,
            addresses,
        }
    }

    /// Whether an address would go through the tunnel.
    pub(super) fn leads(&self, address: IpAddr) -> bool {
        self.routes
            .iter()
            .any(|(prefix, _)| prefix.contains(&address))
    }
}

/// The address of ours in what was assigned: the only one, or the first that is not the network's own.
fn own_address(prefix: IpNet) -> IpNet {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        return prefix;
    }
    host(match prefix.network() {
        IpAddr::V4(network) => IpAddr::V4(network.to_bits().saturating_add(1).into()),
        IpAddr::V6(network) => IpAddr::V6(network.to_bits().saturating_add(1).into()),
    })
}

/// A default route would take the place of the system's own: two halves do not.
fn halves(prefix: IpNet) -> Vec<IpNet> {
    match prefix.prefix_len() {
        0 => prefixes_of(&[(prefix.network(), prefix.broadcast())]),
        _ => vec![prefix],
    }
}

/// The servers of plain DNS, the first in priority first.
fn servers(info: &IpInfo) -> LinkDns {
    let mut dns = LinkDns::default();
    let mut for_all = false;
    for config in &info.dns {
        let plain = config.nameservers.iter();
        let mut plain: Vec<_> = plain
            .filter(|server| server.authentication_name.is_empty())
            .collect();
        plain.sort_by_key(|server| server.priority);
        for server in &plain {
            let v4 = server.ipv4.iter().copied().map(IpAddr::V4);
            dns.servers.extend(v4);
            let v6 = server.ipv6.iter().copied().map(IpAddr::V6);
            dns.servers.extend(v6);
        }
        if plain.is_empty() {
            continue;
        }
        let mut internal = config.internal_domains.iter().map(AsRef::<str>::as_ref);
        let is_any = |domain: &str| domain.is_empty() || domain == ".";
        for_all |= config.internal_domains.is_empty() || internal.any(is_any);
        let internal = config.internal_domains.iter().map(ToString::to_string);
        dns.internal.extend(internal);
        let search = config.search_domains.iter().map(ToString::to_string);
        dns.search.extend(search);
    }
    // What ends up in a file must be a name and nothing else.
    let is_name = |name: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !name.is_empty() && name.bytes().all(plain) && !name.starts_with('-')
    };
    dns.internal.retain(is_name);
    dns.search.retain(is_name);
    if for_all {
        dns.internal.clear();
    }
    let usable = |server: &IpAddr| !server.is_unspecified() && !server.is_multicast();
    dns.servers.retain(usable);
    if dns.servers.is_empty() {
        return LinkDns::default();
    }
    dns
}
