//! DNS_ASSIGN and PREF64 (draft-ietf-masque-connect-ip-dns §3, §4).

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use crate::wire::capsule::CapsuleType;

impl CapsuleType {
    /// draft-ietf-masque-connect-ip-dns §3, provisional.
    pub const DNS_ASSIGN: Self = Self(0x1ace_79ec);
    /// draft-ietf-masque-connect-ip-dns §4, provisional.
    pub const PREF64: Self = Self(0x274c_0fbc);
}

/// One configuration of DNS_ASSIGN: which servers answer for which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// The servers.
    pub nameservers: Vec<Nameserver>,
    /// The names that they answer for, subdomains included; an empty name means all.
    pub internal_domains: Vec<Box<str>>,
    /// What is appended to short names, in this order.
    pub search_domains: Vec<Box<str>>,
}

/// A server of a [`DnsConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nameserver {
    /// The lowest is asked first; not 0.
    pub priority: u16,
    /// Where it is.
    pub ipv4: Vec<Ipv4Addr>,
    /// Where it is.
    pub ipv6: Vec<Ipv6Addr>,
    /// The name that its certificate carries; empty for plain DNS.
    pub authentication_name: Box<str>,
    /// Service parameters in the form of RFC 9460 §2.2.
    pub service_parameters: Bytes,
}

impl Nameserver {
    /// A server of plain DNS on port 53.
    #[must_use]
    pub fn plain(addresses: &[std::net::IpAddr]) -> Self {
        let mut server = Self {
            priority: 1,
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            authentication_name: "".into(),
            service_parameters: Bytes::new(),
        };
        for address in addresses {
            match address {
                std::net::IpAddr::V4(address) => server.ipv4.push(*address),
                std::net::IpAddr::V6(address) => server.ipv6.push(*address),
            }
        }
        server
    }
}
