//! DNS_ASSIGN and PREF64 (draft-ietf-masque-connect-ip-dns §3, §4).
//!
//! ```text
//!   DNS_ASSIGN   { Count (i)  Nameserver ...   Count (i)  Internal Domain ...   Count (i)  Search Domain ... } ...
//!   Nameserver   Priority (16)  Count (i)  IPv4 (32) ...  Count (i)  IPv6 (128) ...
//!                Authentication Domain  Length (i)  Service Parameters
//!   Domain       Length (i)  Name (..)
//!   PREF64       { Prefix Length (8)  Prefix (96) } ...
//! ```
//!
//! Names follow the rules of host names in requests: lower case, no trailing dot, nothing that reads as an address.
//! The root is the empty name. Service parameters stay in the form of the wire; this looks for those with a rule.
//!
//! The draft contradicts itself where a server has no address: a MUST of §3.2 refuses it unless `no-default-alpn` is
//! there, and the first example of §3 has `alpn` only. Here such a server needs one of the two.

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::Ipv6Net;

use super::IpCapsuleError;
use super::value::Value;
use crate::wire::capsule::CapsuleType;
use crate::wire::target::{Host, TargetError};
use crate::wire::varint;

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

/// A service parameter, by its number in the registry of RFC 9460 §14.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey(pub u16);

impl ServiceKey {
    /// The encrypted transports that the server speaks.
    pub const ALPN: Self = Self(1);
    /// The server does not speak plain DNS on port 53.
    pub const NO_DEFAULT_ALPN: Self = Self(2);
    /// Not allowed here: addresses have fields of their own.
    pub const IPV4_HINT: Self = Self(4);
    /// Not allowed here: addresses have fields of their own.
    pub const IPV6_HINT: Self = Self(6);
}

/// Why an entry of DNS_ASSIGN or PREF64 is refused. The ids are those of the specification digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The priority of an alias (cidns-3.2-a).
    #[error("nameserver with priority 0")]
    Priority,
    /// Plain DNS is all that the server offers, at no address (cidns-3.2-b).
    #[error("nameserver for plain DNS without an address")]
    NoAddress,
    /// Encrypted transports without a name to authenticate (cidns-3.2-c).
    #[error("nameserver with service parameter {} but without a name", key.0)]
    NoName {
        /// `alpn` or `no-default-alpn`.
        key: ServiceKey,
    },
    /// Addresses in the service parameters (cidns-3.2-d).
    #[error("nameserver with service parameter {}, an address hint", key.0)]
    Hint {
        /// `ipv4hint` or `ipv6hint`.
        key: ServiceKey,
    },
    /// Service parameters that are cut off or not in strictly ascending order (RFC 9460 §2.2).
    #[error("malformed service parameters")]
    Parameters,
    /// A name that is none; an address is [`TargetError::Numeric`].
    #[error("domain: {0}")]
    Domain(TargetError),
    /// A length that RFC 6052 §2.2 does not have (cidns-4.1-a, cidns-4.2-a).
    #[error("NAT64 prefix length {len} is none of 32, 40, 48, 56, 64 and 96")]
    Pref64Length {
        /// As received.
        len: u8,
    },
}

impl DnsConfig {
    pub(super) fn read(value: &mut Value<'_>) -> Result<Self, IpCapsuleError> {
        Ok(Self {
            nameservers: value.counted(Nameserver::read)?,
            internal_domains: value.counted(read_domain)?,
            search_domains: value.counted(read_domain)?,
        })
    }

    pub(super) fn check(&self) -> Result<(), DnsError> {
        self.nameservers.iter().try_for_each(Nameserver::check)?;
        let mut domains = self.internal_domains.iter().chain(&self.search_domains);
        domains.try_for_each(|domain| parse_domain(domain).map(drop))
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        varint::encode(self.nameservers.len() as u64, out);
        self.nameservers.iter().for_each(|server| server.put(out));
        for domains in [&self.internal_domains, &self.search_domains] {
            varint::encode(domains.len() as u64, out);
            domains.iter().for_each(|domain| put_domain(domain, out));
        }
    }
}

impl Nameserver {
    /// The value of a service parameter, if it is there.
    #[must_use]
    pub fn parameter(&self, key: ServiceKey) -> Option<&[u8]> {
        let mut parameters = Parameters(&self.service_parameters);
        parameters.find_map(|parameter| match parameter {
            Ok((found, value)) if found == key => Some(value),
            Ok(_) | Err(_) => None,
        })
    }

    /// Whether the server answers plain DNS on port 53 at one of its addresses.
    #[must_use]
    pub fn speaks_plain_dns(&self) -> bool {
        self.has_address() && self.parameter(ServiceKey::NO_DEFAULT_ALPN).is_none()
    }

    const fn has_address(&self) -> bool {
        !self.ipv4.is_empty() || !self.ipv6.is_empty()
    }

    fn read(value: &mut Value<'_>) -> Result<Self, IpCapsuleError> {
        Ok(Self {
            priority: value.array().map(u16::from_be_bytes)?,
            ipv4: value.counted(|value| value.array::<4>().map(Ipv4Addr::from))?,
            ipv6: value.counted(|value| value.array::<16>().map(Ipv6Addr::from))?,
            authentication_name: read_domain(value)?,
            service_parameters: {
                let len = value.varint()?;
                Bytes::copy_from_slice(value.take(len)?)
            },
        })
    }

    fn check(&self) -> Result<(), DnsError> {
        if self.priority == 0 {
            return Err(DnsError::Priority);
        }
        parse_domain(&self.authentication_name)?;
        let mut last = None;
        let mut is_encrypted = false;
        for parameter in Parameters(&self.service_parameters) {
            let (key, _) = parameter?;
            if last.replace(key) >= Some(key) {
                return Err(DnsError::Parameters);
            }
            match key {
                ServiceKey::ALPN | ServiceKey::NO_DEFAULT_ALPN => {
                    if self.authentication_name.is_empty() {
                        return Err(DnsError::NoName { key });
                    }
                    is_encrypted = true;
                }
                ServiceKey::IPV4_HINT | ServiceKey::IPV6_HINT => {
                    return Err(DnsError::Hint { key });
                }
                _ => {}
            }
        }
        match self.has_address() || is_encrypted {
            true => Ok(()),
            false => Err(DnsError::NoAddress),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u16(self.priority);
        varint::encode(self.ipv4.len() as u64, out);
        (self.ipv4.iter()).for_each(|address| out.put_slice(&address.octets()));
        varint::encode(self.ipv6.len() as u64, out);
        (self.ipv6.iter()).for_each(|address| out.put_slice(&address.octets()));
        put_domain(&self.authentication_name, out);
        varint::encode(self.service_parameters.len() as u64, out);
        out.put_slice(&self.service_parameters);
    }
}

/// Reads service parameters one by one, and ends with an error if something is left.
struct Parameters<'a>(&'a [u8]);

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(ServiceKey, &'a [u8]), DnsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut value = Value::new(std::mem::take(&mut self.0));
        let mut read = || {
            let key = value.array().map(u16::from_be_bytes)?;
            let len = value.array().map(u16::from_be_bytes)?;
            Ok((ServiceKey(key), value.take(len.into())?))
        };
        let parameter = read().map_err(|_: IpCapsuleError| DnsError::Parameters);
        if parameter.is_ok() {
            self.0 = value.rest();
        }
        Some(parameter)
    }
}

fn read_domain(value: &mut Value<'_>) -> Result<Box<str>, IpCapsuleError> {
    let len = value.varint()?;
    let name = value.take(len)?;
    let name = str::from_utf8(name).map_err(|error| {
        let byte = name.get(error.valid_up_to()).copied().unwrap_or_default();
        DnsError::Domain(TargetError::Byte { byte })
    })?;
    Ok(parse_domain(name)?)
}

/// A name in lower case without trailing dot; empty for the root.
fn parse_domain(name: &str) -> Result<Box<str>, DnsError> {
    match name {
        "" | "." => Ok("".into()),
        name => match Host::parse(name).map_err(DnsError::Domain)? {
            Host::Name(name) => Ok(name),
            Host::Ip(_) => Err(DnsError::Domain(TargetError::Numeric)),
        },
    }
}

fn put_domain(name: &str, out: &mut BytesMut) {
    varint::encode(name.len() as u64, out);
    out.put_slice(name.as_bytes());
}

/// Reads an entry of PREF64. Bits of the address behind the prefix length are its suffix (RFC 6052 §2.2), and kept.
pub(super) fn read_pref64(value: &mut Value<'_>) -> Result<Ipv6Net, IpCapsuleError> {
    let (len, high) = (value.byte()?, value.array::<12>()?);
    let mut octets = [0; 16];
    octets
        .iter_mut()
        .zip(high)
        .for_each(|(octet, byte)| *octet = byte);
    let prefix = Ipv6Net::new(octets.into(), len).map_err(|_| DnsError::Pref64Length { len })?;
    Ok(prefix)
}

pub(super) fn check_pref64(prefix: &Ipv6Net) -> Result<(), DnsError> {
    match prefix.prefix_len() {
        32 | 40 | 48 | 56 | 64 | 96 => Ok(()),
        len => Err(DnsError::Pref64Length { len }),
    }
}

/// Appends an entry of PREF64: the length, and the first 96 bits of the address.
pub(super) fn put_pref64(prefix: &Ipv6Net, out: &mut BytesMut) {
    out.put_u8(prefix.prefix_len());
    let octets = prefix.addr().octets();
    let (high, _) = octets.split_at(12);
    out.put_slice(high);
}
