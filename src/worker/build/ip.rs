//! The exit for IP packets, as the configuration describes it: the interface, the addresses, what clients are told.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use crate::config::{Checked, Ip, Offload, limits};
use crate::net::Driver;
use crate::net::tun::{Tun, TunError, TunOptions, TunQueue};
use crate::policy::Policy;
use crate::tunnel::ip::{
    ADDRESSES_MAX, KEPT_MAX, PoolConfig, PoolError, Pools, SAID_BYTES_MAX, SITE_PREFIXES_MAX,
};
use crate::wire::ip::{AddressRange, DnsConfig, Nameserver};
use crate::worker::machine::Tag;
use crate::worker::{self, Gateway, GatewaySettings, Site};

/// The name of the interface of a relay that has none: its clients reach each other.
const NO_TUN: &str = "off";

// What the memory sum of the configuration counts with is what the tunnels use.
const _: () = assert!(SAID_BYTES_MAX <= limits::IP_SAID_BYTES);
const _: () = assert!(SITE_PREFIXES_MAX == limits::IP_SITE_PREFIXES);
const _: () = assert!(KEPT_MAX == limits::IP_KEPT);
const _: () = assert!(ADDRESSES_MAX as i64 == limits::IP_ASSIGNMENTS.max);

/// Why there is no exit for IP packets.
#[derive(Debug, Error)]
pub enum ExitError {
    /// The interface cannot be had.
    #[error("ip.tun: {0}")]
    Tun(#[from] TunError),
    /// The pools cannot be used.
    #[error("ip.pools: {0}")]
    Pools(#[from] PoolError),
}

/// The interface that packets leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
}

/// What the gateways of all workers have in common, and the queues of the interface.
pub(super) struct Exit {
    settings: Arc<GatewaySettings>,
    pools: Pools,
    queues: Vec<Option<TunQueue>>,
    pub(super) tun: Option<TunInfo>,
}

/// What one worker needs of it.
pub(super) struct ExitSeed {
    settings: Arc<GatewaySettings>,
    pools: Pools,
    queue: Option<TunQueue>,
}

impl Exit {
    /// Opens the interface with a queue for each worker.
    pub(super) fn open(checked: &Checked, ip: &Ip, policy: Policy) -> Result<Self, ExitError> {
        let pools = pools(ip)?;
        let settings = Arc::new(settings(ip, policy));
        if ip.tun == NO_TUN {
            return Ok(Self {
                settings,
                pools,
                queues: Vec::new(),
                tun: None,
            });
        }
        let tun = Tun::open(&TunOptions {
            name: Some(ip.tun.clone()),
            queues: checked.workers.get(),
            offload: ip.offload == Offload::Auto,
            mtu: Some(ip.mtu),
        })?;
        Ok(Self {
            settings,
            pools,
            queues: tun.queues.into_iter().map(Some).collect(),
            tun: Some(TunInfo {
                name: tun.name,
                index: tun.index,
            }),
        })
    }

    pub(super) fn seed(&mut self, worker: u32) -> ExitSeed {
        ExitSeed {
            settings: Arc::clone(&self.settings),
            pools: self.pools.clone(),
            queue: self.queues.get_mut(worker as usize).and_then(Option::take),
        }
    }
}

impl ExitSeed {
    pub(super) fn grow(self, worker: u32, driver: &mut Driver) -> std::io::Result<Gateway> {
        let exit = match self.queue {
            Some(queue) => worker::Exit::Tun(driver.add_tun(queue, Tag::Tun.to_bits())?),
            None => worker::Exit::Nowhere,
        };
        Ok(Gateway::new(self.settings, self.pools, worker, exit))
    }
}

/// The pools that a configuration names.
///
/// # Errors
/// [`PoolError`], which checked configuration does not give.
pub fn pools(ip: &Ip) -> Result<Pools, PoolError> {
    Pools::new(&PoolConfig {
        prefixes: ip.pools.clone(),
        prefix_len_min_v4: ip.prefix_len_min_v4,
        prefix_len_min_v6: ip.prefix_len_min_v6,
        assignments_max: ip.assignments_max,
        assignments_per_user_max: ip.assignments_per_user_max,
        grace: ip.grace,
        ..PoolConfig::default()
    })
}

/// What clients are told, and what they may.
#[must_use]
pub fn settings(ip: &Ip, policy: Policy) -> GatewaySettings {
    let inside = ip.inside();
    GatewaySettings {
        routes: ranges(match ip.tun == NO_TUN {
            true => &inside,
            false => &ip.routes,
        }),
        inside,
        dns: dns(ip).into_iter().collect(),
        pref64: ip.pref64.clone(),
        unprompted: ip.unprompted,
        client_to_client: ip.client_to_client,
        sites: ip
            .sites
            .iter()
            .map(|site| Site {
                user: site.user.as_deref().map(Into::into),
                prefixes: site.prefixes.clone(),
            })
            .collect(),
        policy: Arc::new(policy),
        mtu: usize::from(ip.mtu),
    }
}

fn dns(ip: &Ip) -> Option<DnsConfig> {
    (!ip.dns.is_empty()).then(|| DnsConfig {
        nameservers: vec![Nameserver::plain(&ip.dns)],
        internal_domains: match ip.internal_domains.is_empty() {
            // The root: every name.
            true => vec!["".into()],
            false => ip.internal_domains.clone(),
        },
        search_domains: ip.search.clone(),
    })
}

/// Prefixes as the ranges of ROUTE_ADVERTISEMENT: in order, disjoint (RFC 9484 §4.7.3).
#[must_use]
pub fn ranges(prefixes: &[IpNet]) -> Vec<AddressRange> {
    let mut joined = IpNet::aggregate(&prefixes.to_vec());
    joined.sort_by_key(|prefix| (prefix.addr().is_ipv6(), prefix.network()));
    let mut ranges: Vec<AddressRange> = Vec::new();
    for prefix in joined {
        let range = AddressRange {
            start: prefix.network(),
            end: prefix.broadcast(),
            protocol: 0,
        };
        match ranges.last_mut() {
            Some(last) if follows(last.end, range.start) => last.end = range.end,
            Some(_) | None => ranges.push(range),
        }
    }
    ranges
}

fn follows(end: IpAddr, start: IpAddr) -> bool {
    match (end, start) {
        (IpAddr::V4(end), IpAddr::V4(start)) => {
            end.to_bits().checked_add(1) == Some(start.to_bits())
        }
        (IpAddr::V6(end), IpAddr::V6(start)) => {
            end.to_bits().checked_add(1) == Some(start.to_bits())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: 9484-4.7.3-d
    #[test]
    fn prefixes_become_ranges_in_order() {
        let ranges = |texts: &[&str]| -> Vec<String> {
            let prefixes: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let ranges = ranges(&prefixes);
            ranges
                .iter()
                .map(|it| format!("{}-{}", it.start, it.end))
                .collect()
        };
        assert_eq!(
            ranges(&["::/0", "0.0.0.0/0", "10.0.0.0/8"]),
            [
                "0.0.0.0-255.255.255.255",
                "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
        assert_eq!(
            ranges(&["10.2.0.0/16", "10.0.0.0/15", "192.0.2.1/32"]),
            ["10.0.0.0-10.2.255.255", "192.0.2.1-192.0.2.1"]
        );
    }
}
