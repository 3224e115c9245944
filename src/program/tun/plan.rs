//! From what the relay said to what the system shall have: addresses, routes, name servers, MTU.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Client;
use crate::net::link::{LinkDns, covers, host, prefixes_of};
use crate::wire::ip::ScopeTarget;
use crate::worker::IpInfo;

/// The first and the last address.
type Range = (IpAddr, IpAddr);

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
    /// What leads nowhere: a whole IP version is wanted in the tunnel, and the tunnel does not have it. Packets would
    /// go on as they did, past the tunnel.
    pub(super) barred: Vec<IpNet>,
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
        let mut dns = if client.dns {
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
        // An IP version that we have no address of does not go through the tunnel: that has to be said.
        let mut routes = Vec::new();
        for prefix in &prefixes {
            match source(prefix) {
                Some(own) => routes.push((*prefix, own)),
                None if addresses.is_empty() => {}
                None => missing.push(*prefix),
            }
        }
        let left_out = routes.len().saturating_sub(ROUTES_MAX);
        routes.truncate(ROUTES_MAX);
        let barred = barred(client, &offered, &routes);
        missing.retain(|prefix| !barred.contains(prefix));
        // Nobody outside the tunnel is to hear what is asked.
        let is_led = |server: &IpAddr| routes.iter().any(|(prefix, _)| prefix.contains(server));
        dns.servers.retain(is_led);
        if dns.servers.is_empty() {
            dns = LinkDns::default();
        }
        let mtu = u16::try_from(info.mtu).unwrap_or(u16::MAX);
        Self {
            routes,
            dns,
            mtu: mtu.clamp(MTU_MIN, client.mtu.max(MTU_MIN)),
            missing,
            left_out,
            addresses,
            barred,
        }
    }

    /// Whether packets to an address would go through the tunnel, or nowhere.
    pub(super) fn leads(&self, address: IpAddr) -> bool {
        let routes = self.routes.iter().map(|(prefix, _)| prefix);
        let mut all = routes.chain(&self.barred);
        all.any(|prefix| prefix.contains(&address))
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

/// The halves of the IP versions that are to go through the tunnel as a whole, as far as `routes` do not lead there.
///
/// Where no routes were asked for, a relay that offers all of one version is taken for the way to everything, and the
/// other version must not go past it; unless it was asked for one version only.
fn barred(client: &Client, offered: &[Range], routes: &[(IpNet, IpAddr)]) -> Vec<IpNet> {
    let everything = [Ipv4Net::default().into(), Ipv6Net::default().into()];
    let is_in_scope = |all: &IpNet| match &client.scope.target {
        ScopeTarget::Prefix(prefix) => prefix.addr().is_ipv4() == all.addr().is_ipv4(),
        ScopeTarget::Any | ScopeTarget::Name(_) => true,
    };
    let asked = ranges(client.routes.iter());
    let is_full = everything.iter().any(|all| covers(offered, all));
    let is_wanted = |all: &IpNet| match client.routes.is_empty() {
        true => is_full && is_in_scope(all),
        // A relay that offers nothing has not been heard yet.
        false => !offered.is_empty() && covers(&asked, all),
    };
    let led = ranges(routes.iter().map(|(prefix, _)| prefix));
    let wanted = everything.into_iter().filter(is_wanted).flat_map(halves);
    wanted.filter(|half| !covers(&led, half)).collect()
}

fn ranges<'a>(prefixes: impl Iterator<Item = &'a IpNet>) -> Vec<Range> {
    let range = |prefix: &IpNet| (prefix.network(), prefix.broadcast());
    prefixes.map(range).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Offload;
    use crate::transport::tls::Trust;
    use crate::wire::carrier::Carrier;
    use crate::wire::ip::{AddressRange, AssignedAddress, DnsConfig, Nameserver, Scope};
    use crate::wire::template::RelayTemplates;
    use crate::worker::build::RouteOptions;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(routes: &[&str]) -> Client {
        let relay = RelayTemplates::from_relay_url("https://relay.example").unwrap();
        Client {
            route: RouteOptions::new(vec![relay], Trust::System),
            scope: Scope::default(),
            name: "tun0".to_owned(),
            mtu: 1_500,
            offload: Offload::Auto,
            routes: routes.iter().map(|route| net(route)).collect(),
            advertise: Vec::new(),
            dns: true,
        }
    }

    fn info(assigned: &[&str], routes: &[&str]) -> IpInfo {
        let assigned = assigned.iter().map(|prefix| AssignedAddress {
            request_id: 0,
            prefix: net(prefix),
        });
        let routes = routes.iter().map(|route| AddressRange {
            start: net(route).network(),
            end: net(route).broadcast(),
            protocol: 0,
        });
        IpInfo {
            assigned: assigned.collect(),
            assigned_to_peer: Vec::new(),
            routes: routes.collect(),
            requested: Vec::new(),
            dns: Vec::new(),
            pref64: Vec::new(),
            mtu: 1_386,
            carrier: Carrier::H3,
        }
    }

    fn routes(wanted: &Wanted) -> Vec<String> {
        let routes = wanted.routes.iter();
        routes
            .map(|(prefix, source)| format!("{prefix} from {source}"))
            .collect()
    }

    #[test]
    fn everything_of_the_versions_that_there_are_addresses_of() {
        let offered = ["0.0.0.0/0", "::/0"];
        let wanted = Wanted::new(&client(&[]), &info(&["10.89.0.2/32"], &offered));
        assert_eq!(
            routes(&wanted),
            ["0.0.0.0/1 from 10.89.0.2", "128.0.0.0/1 from 10.89.0.2"]
        );
        assert!(wanted.leads(ip("198.51.100.1")));
        assert_eq!(wanted.mtu, 1_386);

        // One address of each prefix, not the network's own; refusals are none.
        let assigned = ["fd89:0:0:7::/64", "10.89.0.2/32", "0.0.0.0/32"];
        let wanted = Wanted::new(&client(&[]), &info(&assigned, &offered));
        assert_eq!(
            wanted.addresses,
            [net("10.89.0.2/32"), net("fd89:0:0:7::1/128")]
        );
        assert_eq!(wanted.routes.len(), 4);
    }

    #[test]
    fn only_what_was_asked_for_and_is_offered() {
        let client = client(&["10.0.0.0/8", "192.0.2.0/24", "0.0.0.0/0"]);
        let wanted = Wanted::new(&client, &info(&["10.89.0.2/32"], &["10.0.0.0/7"]));
        assert_eq!(routes(&wanted), ["10.0.0.0/8 from 10.89.0.2"]);
        assert_eq!(wanted.missing, [net("192.0.2.0/24"), net("0.0.0.0/0")]);
        // Before anything was offered nothing is missing.
        let early = Wanted::new(&client, &info(&["10.89.0.2/32"], &[]));
        assert!(early.missing.is_empty() && early.routes.is_empty());
        let whole = Wanted::new(&client, &info(&["10.89.0.2/32"], &["0.0.0.0/0"]));
        assert_eq!(
            whole.routes.iter().map(|route| route.0).collect::<Vec<_>>(),
            [
                net("0.0.0.0/1"),
                net("10.0.0.0/8"),
                net("128.0.0.0/1"),
                net("192.0.2.0/24"),
            ]
        );
    }

    #[test]
    fn what_a_full_tunnel_lacks_leads_nowhere() {
        let v6 = ["::/1", "8000::/1"];
        let v4 = ["0.0.0.0/1", "128.0.0.0/1"];
        let both = ["0.0.0.0/0", "::/0"];
        for (asked, assigned, offered, expected) in [
            // One version has no address, or is not offered, or not all of it.
            (&[][..], &["10.89.0.2/32"][..], &both[..], &v6[..]),
            (&[], &["10.89.0.2/32"], &["0.0.0.0/0"], &v6),
            (&[], &["fd89::2/128"], &both, &v4),
            (
                &[],
                &["10.89.0.2/32", "fd89::2/128"],
                &["0.0.0.0/0", "2001:db8::/32"],
                &v6,
            ),
            (
                &[],
                &["10.89.0.2/32", "fd89::2/128"],
                &["0.0.0.0/0", "8000::/2"],
                &v6,
            ),
            (&[], &["10.89.0.2/32", "fd89::2/128"], &both, &[]),
            (&both, &["10.89.0.2/32"], &both, &v6),
            (&["::/1", "8000::/1"], &["10.89.0.2/32"], &both, &v6),
            // Only a part was asked for, or is offered.
            (&["0.0.0.0/0"], &["10.89.0.2/32"], &both, &[]),
            (&["10.0.0.0/8", "fd00::/8"], &["10.89.0.2/32"], &both, &[]),
            (&[], &["10.89.0.2/32"], &["10.0.0.0/8", "fd00::/8"], &[]),
            // Nobody has said anything yet.
            (&both, &["10.89.0.2/32"], &[], &[]),
        ] {
            let wanted = Wanted::new(&client(asked), &info(assigned, offered));
            let barred: Vec<_> = wanted.barred.iter().map(ToString::to_string).collect();
            assert_eq!(barred, expected, "{asked:?} {assigned:?} {offered:?}");
            // What is said to lead nowhere is not said to be missing as well.
            assert!(!wanted.barred.iter().any(|bar| wanted.missing.contains(bar)));
        }
        // Relays are kept out of it as they are out of the tunnel.
        let wanted = Wanted::new(&client(&[]), &info(&["10.89.0.2/32"], &both));
        assert!(wanted.leads(ip("2001:db8::1")));
        // Whoever asks for one version alone does not speak of the other.
        let mut client = client(&[]);
        client.scope.target = ScopeTarget::Prefix(net("0.0.0.0/0"));
        let wanted = Wanted::new(&client, &info(&["10.89.0.2/32"], &["0.0.0.0/0"]));
        assert!(wanted.barred.is_empty());
    }

    #[test]
    fn name_servers_are_led_to() {
        let mut said = info(&["10.89.0.2/32"], &["0.0.0.0/0"]);
        said.dns = vec![DnsConfig {
            nameservers: vec![
                Nameserver {
                    priority: 2,
                    ..Nameserver::plain(&[ip("192.0.2.54")])
                },
                Nameserver::plain(&[ip("192.0.2.53"), ip("0.0.0.0")]),
                Nameserver {
                    authentication_name: "dns.example".into(),
                    ..Nameserver::plain(&[ip("192.0.2.55")])
                },
            ],
            internal_domains: vec!["corp.example".into()],
            search_domains: vec!["corp.example".into(), "x\noptions inet6".into()],
        }];
        let wanted = Wanted::new(&client(&["10.0.0.0/8"]), &said);
        assert_eq!(wanted.dns.servers, [ip("192.0.2.53"), ip("192.0.2.54")]);
        assert_eq!(wanted.dns.internal, ["corp.example"]);
        // What is no name does not get into a file.
        assert_eq!(wanted.dns.search, ["corp.example"]);
        assert!(wanted.leads(ip("192.0.2.53")) && !wanted.leads(ip("192.0.2.55")));

        said.dns[0].internal_domains = vec!["corp.example".into(), "".into()];
        let wanted = Wanted::new(&client(&[]), &said);
        assert!(wanted.dns.internal.is_empty() && wanted.routes.len() == 2);

        let silent = Client {
            dns: false,
            ..client(&[])
        };
        assert!(Wanted::new(&silent, &said).dns.servers.is_empty());
    }

    #[test]
    fn the_interface_follows_the_tunnel_within_bounds() {
        for (carried, most, expected) in [
            (1_386, 1_500, 1_386),
            (65_535, 1_400, 1_400),
            (900, 1_500, 1_280),
        ] {
            let mut said = info(&["10.89.0.2/32"], &[]);
            said.mtu = carried;
            let client = Client {
                mtu: most,
                ..client(&[])
            };
            assert_eq!(Wanted::new(&client, &said).mtu, expected);
        }
    }
}
