//! CONNECT-IP: which addresses clients get, what is advertised to them, and what the relay does to its own system.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::{Checker, DAY, count, quoted};
use crate::config::checked::{AuthFiles, Ip, IpSite, Upstream};
use crate::config::limits;
use crate::config::relay::{self, Service};
use crate::wire::ip::overlap;
use crate::wire::target::Host;

/// Prefixes of each list. A ROUTE_ADVERTISEMENT with so many fits into a packet, and people can read the lists.
const PREFIXES_MAX: usize = 32;
/// Tables `[[ip.site]]`.
const SITES_MAX: usize = 256;
/// Name servers and domains that a client is told of.
const DNS_ENTRIES_MAX: usize = 16;
/// Characters of an interface's name (IFNAMSIZ less the zero at its end).
const INTERFACE_CHARS_MAX: usize = 15;
/// The least MTU of IPv6 (RFC 8200 section 5), which a tunnel carries in any case (RFC 9484 section 7.2).
const MTU_MIN: i64 = 1_280;
/// The largest packet.
const MTU_MAX: i64 = 65_535;
/// The smallest pools that leave something to assign beside the relay's own address.
const POOL_LEN_MAX_V4: u8 = 30;
const POOL_LEN_MAX_V6: u8 = 126;
/// The largest block of IPv4 that a client may ask for.
const DELEGATED_LEN_MIN_V4: i64 = 8;
/// The largest block of IPv6 that a client may ask for: what a site gets at most (RFC 6177).
const DELEGATED_LEN_MIN_V6: i64 = 48;
/// Prefix lengths of a NAT64 prefix (RFC 6052 section 2.2).
const PREF64_LENS: [u8; 6] = [32, 40, 48, 56, 64, 96];

impl Checker<'_> {
    /// `None` without pools: the relay assigns no addresses.
    pub(super) fn ip(
        &mut self,
        file: relay::Ip,
        services: Option<&[Service]>,
        upstream: &Upstream,
        auth: Option<&AuthFiles>,
    ) -> Option<Ip> {
        let relay::Ip {
            pools,
            prefix_len_min_v4,
            prefix_len_min_v6,
            assignments_max,
            assignments_per_user_max,
            grace,
            tun,
            offload,
            mtu,
            nat,
            forwarding,
            routes,
            client_to_client,
            dns,
            search,
            internal_domains,
            pref64,
            unprompted,
            site,
        } = file;
        let pools = self.pools(&pools);
        self.ip_service(!pools.is_empty(), services, upstream);
        let routes = self.prefixes("ip.routes", &routes);
        let families = |prefix: &IpNet| pools.iter().any(|pool| same_family(pool, prefix));
        if !pools.is_empty() && !routes.iter().all(families) {
            let message = "must be of an IP version that ip.pools has";
            self.problems.key("ip.routes", message);
        }
        let sites = self.sites(site, &pools, auth);
        let servers = self.ip_dns(&dns);
        let ip = Ip {
            prefix_len_min_v4: self.prefix_len(
                "ip.prefix_len_min_v4",
                prefix_len_min_v4,
                DELEGATED_LEN_MIN_V4..=32,
            ),
            prefix_len_min_v6: self.prefix_len(
                "ip.prefix_len_min_v6",
                prefix_len_min_v6,
                DELEGATED_LEN_MIN_V6..=128,
            ),
            assignments_max: count(self.limit(&limits::IP_ASSIGNMENTS, assignments_max)),
            assignments_per_user_max: count(
                self.limit(&limits::IP_ASSIGNMENTS_PER_USER, assignments_per_user_max),
            ),
            grace: self.duration("ip.grace", grace, Duration::ZERO..=DAY),
            tun: self.interface(tun),
            offload,
            mtu: u16::try_from(self.integer("ip.mtu", mtu, MTU_MIN..=MTU_MAX)).unwrap_or(u16::MAX),
            nat,
            forwarding,
            routes: if routes.is_empty() {
                everything(&pools)
            } else {
                routes
            },
            client_to_client,
            search: self.domains("ip.search", &search, servers.is_empty()),
            internal_domains: self.domains(
                "ip.internal_domains",
                &internal_domains,
                servers.is_empty(),
            ),
            dns: servers,
            pref64: self.pref64(&pref64),
            unprompted,
            sites,
            pools,
        };
        self.whole_pools(&ip);
        (!ip.pools.is_empty()).then_some(ip)
    }

    /// Somebody who wants IP tunnels gets them, or learns why not.
    fn ip_service(&mut self, has_pools: bool, services: Option<&[Service]>, upstream: &Upstream) {
        let has_hops = !upstream.hops.is_empty();
        let wanted = services.map(|services| services.contains(&Service::ConnectIp));
        if has_pools && has_hops {
            let message = "has no effect with upstream.urls: the last relay assigns the addresses";
            self.problems.key("ip.pools", message);
        }
        match wanted {
            Some(true) if !has_pools && !has_hops => {
                let message = "\"connect-ip\" assigns addresses: ip.pools must name some";
                self.problems.key("policy.services", message);
            }
            Some(false) if has_pools => self.warnings.push(
                "ip.pools: has no effect, \"connect-ip\" is not among policy.services".to_owned(),
            ),
            Some(true | false) | None => {}
        }
    }

    /// A packet has addresses: whoever forbids a name has not forbidden them.
    pub(super) fn names_and_packets(
        &mut self,
        has_pools: bool,
        services: &[Service],
        names: &[String],
    ) {
        if has_pools && services.contains(&Service::ConnectIp) {
            let warnings = names.iter().map(|rule| {
                format!(
                    "{rule}: holds for tunnels that ask for the name; packets of other IP tunnels show addresses alone"
                )
            });
            self.warnings.extend(warnings);
        }
    }

    fn pools(&mut self, texts: &[String]) -> Vec<IpNet> {
        let mut pools: Vec<IpNet> = Vec::with_capacity(texts.len());
        for (index, text) in self.at_most("ip.pools", texts).iter().enumerate() {
            let key = format!("ip.pools[{index}]");
            let Some(pool) = self.prefix(&key, text) else {
                continue;
            };
            let len_max = match pool {
                IpNet::V4(_) => POOL_LEN_MAX_V4,
                IpNet::V6(_) => POOL_LEN_MAX_V6,
            };
            if !is_unicast(pool) {
                let message = "must be unicast addresses that are neither loopback nor link-local";
                self.problems.value(key, quoted(text), message);
            } else if pool.prefix_len() > len_max {
                let message = format!("prefix length must be at most {len_max}");
                self.problems.value(key, quoted(text), message);
            } else if let Some(other) = pools.iter().find(|other| overlap(other, &pool)) {
                let message = format!("overlaps {other}, which is named before it");
                self.problems.value(key, quoted(text), message);
            } else {
                pools.push(pool);
            }
        }
        pools
    }

    fn sites(
        &mut self,
        tables: Vec<relay::IpSite>,
        pools: &[IpNet],
        auth: Option<&AuthFiles>,
    ) -> Vec<IpSite> {
        if tables.len() > SITES_MAX {
            let message = format!("{} tables, must be at most {SITES_MAX}", tables.len());
            self.problems.key("ip.site", message);
        }
        let mut sites: Vec<IpSite> = Vec::with_capacity(tables.len().min(SITES_MAX));
        for (index, table) in tables.into_iter().take(SITES_MAX).enumerate() {
            let at = format!("ip.site[{index}]");
            let prefixes = self.prefixes(&format!("{at}.prefixes"), &table.prefixes);
            if table.prefixes.is_empty() {
                let message = "missing: the networks behind the client";
                self.problems.key(format!("{at}.prefixes"), message);
            }
            if let Some(user) = &table.user
                && auth.is_none()
            {
                let message = "names a user, and [auth] knows none";
                self.problems
                    .value(format!("{at}.user"), quoted(user), message);
            }
            for prefix in &prefixes {
                let owned = sites.iter().filter(|site| site.user != table.user);
                let mut taken = pools
                    .iter()
                    .chain(owned.flat_map(|site| &site.prefixes))
                    .filter(|other| overlap(other, prefix));
                if let Some(other) = taken.next() {
                    let message = format!("overlaps {other}, which belongs to somebody else");
                    let key = format!("{at}.prefixes");
                    self.problems.value(key, quoted(prefix), message);
                }
            }
            sites.push(IpSite {
                user: table.user,
                prefixes,
            });
        }
        sites
    }

    fn prefixes(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let texts = self.at_most(key, texts).iter().enumerate();
        texts
            .filter_map(|(index, text)| self.prefix(&format!("{key}[{index}]"), text))
            .collect()
    }

    /// A prefix whose bits behind its length are zero: anything else is a slip.
    fn prefix(&mut self, key: &str, text: &str) -> Option<IpNet> {
        let message = match text.parse::<IpNet>() {
            Ok(prefix) if prefix.trunc() == prefix => return Some(prefix),
            Ok(prefix) => format!(
                "has bits behind its prefix length, {} has none",
                prefix.trunc()
            ),
            Err(_) => "not a prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\"".to_owned(),
        };
        self.problems.value(key, quoted(text), message);
        None
    }

    fn at_most<'t>(&mut self, key: &str, texts: &'t [String]) -> &'t [String] {
        if texts.len() > PREFIXES_MAX {
            let message = format!("{} prefixes, must be at most {PREFIXES_MAX}", texts.len());
            self.problems.key(key, message);
        }
        texts.get(..PREFIXES_MAX).unwrap_or(texts)
    }

    fn prefix_len(&mut self, key: &str, value: i64, range: std::ops::RangeInclusive<i64>) -> u8 {
        u8::try_from(self.integer(key, value, range)).unwrap_or(u8::MAX)
    }

    /// A name, or a pattern from which the kernel makes one.
    fn interface(&mut self, name: Option<String>) -> String {
        let name = name.unwrap_or_else(|| "bauta0".to_owned());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let rest = name.replacen("%d", "", 1);
        let fits = (1..=INTERFACE_CHARS_MAX).contains(&name.len()) && !matches!(&*name, "." | "..");
        if !fits || !rest.bytes().all(plain) {
            let message = format!(
                "must be 1 to {INTERFACE_CHARS_MAX} letters, digits, \".\", \"_\" and \"-\", with one \"%d\" at most"
            );
            self.problems.value("ip.tun", quoted(&name), message);
        }
        name
    }

    fn ip_dns(&mut self, texts: &[String]) -> Vec<IpAddr> {
        self.dns_entries("ip.dns", texts.len());
        let mut servers = Vec::new();
        for (index, text) in texts.iter().take(DNS_ENTRIES_MAX).enumerate() {
            match text.parse::<IpAddr>() {
                Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                    servers.push(address);
                }
                Ok(_) | Err(_) => {
                    let message = "not an address such as \"192.0.2.53\"";
                    self.problems
                        .value(format!("ip.dns[{index}]"), quoted(text), message);
                }
            }
        }
        servers
    }

    fn domains(&mut self, key: &str, texts: &[String], no_servers: bool) -> Vec<Box<str>> {
        self.dns_entries(key, texts.len());
        if no_servers && !texts.is_empty() {
            let message = "has no effect without ip.dns, which must name a server";
            self.problems.key(key, message);
        }
        let mut domains = Vec::new();
        for (index, text) in texts.iter().take(DNS_ENTRIES_MAX).enumerate() {
            match Host::parse(text) {
                Ok(Host::Name(name)) => domains.push(name),
                Ok(Host::Ip(_)) | Err(_) => {
                    let message = "not a domain such as \"corp.example\"";
                    self.problems
                        .value(format!("{key}[{index}]"), quoted(text), message);
                }
            }
        }
        domains
    }

    fn dns_entries(&mut self, key: &str, len: usize) {
        if len > DNS_ENTRIES_MAX {
            let message = format!("{len} entries, must be at most {DNS_ENTRIES_MAX}");
            self.problems.key(key, message);
        }
    }

    fn pref64(&mut self, texts: &[String]) -> Vec<Ipv6Net> {
        let mut list = Vec::new();
        for (index, prefix) in self.prefixes("ip.pref64", texts).into_iter().enumerate() {
            match prefix {
                IpNet::V6(prefix) if PREF64_LENS.contains(&prefix.prefix_len()) => {
                    list.push(prefix);
                }
                IpNet::V4(_) | IpNet::V6(_) => {
                    let message = "must be IPv6 with a prefix length of 32, 40, 48, 56, 64 or 96";
                    self.problems
                        .value(format!("ip.pref64[{index}]"), quoted(prefix), message);
                }
            }
        }
        list
    }

    /// The first client that asks for the largest block would leave nothing to the others.
    fn whole_pools(&mut self, ip: &Ip) {
        for pool in &ip.pools {
            let (key, len_min) = match pool {
                IpNet::V4(_) => ("ip.prefix_len_min_v4", ip.prefix_len_min_v4),
                IpNet::V6(_) => ("ip.prefix_len_min_v6", ip.prefix_len_min_v6),
            };
            if len_min <= pool.prefix_len() {
                self.warnings.push(format!(
                    "{key}: {len_min}: one client may take everything of {pool}"
                ));
            }
        }
    }
}

/// Everything of the IP versions of the pools, which is what clients are told that they reach.
fn everything(pools: &[IpNet]) -> Vec<IpNet> {
    let any = [
        IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(Ipv6Net::default()),
    ];
    let wanted = |any: &IpNet| pools.iter().any(|pool| same_family(pool, any));
    any.into_iter().filter(wanted).collect()
}

fn same_family(one: &IpNet, other: &IpNet) -> bool {
    one.addr().is_ipv4() == other.addr().is_ipv4()
}

fn is_unicast(prefix: IpNet) -> bool {
    let special: &[&str] = match prefix {
        IpNet::V4(_) => &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"],
        IpNet::V6(_) => &["::/16", "fe80::/10", "ff00::/8"],
    };
    let mut special = special.iter().filter_map(|text| text.parse().ok());
    !special.any(|special| overlap(&special, &prefix))
}
