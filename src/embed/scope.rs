//! Scopes, addresses and routes of IP tunnels, in the forms in which users have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, ErrorKind, Side};
use crate::tunnel::ip::refusal;
use crate::wire::ip::{
    AddressRange, AssignedAddress, DnsConfig, Nameserver, RequestedAddress, Scope, ScopeError,
    ScopeTarget,
};

impl Scope {
    /// Everything that the relay lets its clients reach: the variables are `*` (RFC 9484 §4.6).
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// The hosts of a name; the relay resolves it and advertises their addresses.
    ///
    /// # Errors
    /// [`ScopeError`]: it is no host name. Text that reads as an address, a prefix or `*` is taken as that.
    pub fn name(name: &str) -> Result<Self, ScopeError> {
        name.parse().map(|target| Self {
            target,
            protocol: None,
        })
    }

    /// The same for one upper-layer protocol alone, by its IANA number: 6 is TCP, 17 is UDP. ICMP passes as well.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// The same scope, if it is one that text can say: its fields are open, and what they hold goes into requests.
    pub(super) fn checked(self) -> Result<Self, ScopeError> {
        let (target, protocol) = self.variables();
        Self::from_variables(Some(&target), Some(&protocol))
    }
}

impl From<IpNet> for Scope {
    fn from(prefix: IpNet) -> Self {
        Self {
            target: ScopeTarget::Prefix(prefix),
            protocol: None,
        }
    }
}

impl From<Ipv4Net> for Scope {
    fn from(prefix: Ipv4Net) -> Self {
        IpNet::V4(prefix).into()
    }
}

impl From<Ipv6Net> for Scope {
    fn from(prefix: Ipv6Net) -> Self {
        IpNet::V6(prefix).into()
    }
}

impl From<IpAddr> for Scope {
    fn from(address: IpAddr) -> Self {
        IpNet::from(address).into()
    }
}

impl From<Ipv4Addr> for Scope {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<Ipv6Addr> for Scope {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::V6(address).into()
    }
}

impl From<&Self> for Scope {
    fn from(scope: &Self) -> Self {
        scope.clone()
    }
}

impl TryFrom<&str> for Scope {
    type Error = Error;

    /// From `*`, an address without brackets, a prefix or a host name; any protocol.
    fn try_from(text: &str) -> Result<Self, Error> {
        Self::name(text).map_err(|error| {
            let text = format!("scope {text:?}: {error}");
            Error::new(ErrorKind::Configuration, Side::Local).with_source(text)
        })
    }
}

impl TryFrom<String> for Scope {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.as_str().try_into()
    }
}

impl TryFrom<&String> for Scope {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.as_str().try_into()
    }
}

impl From<ScopeError> for Error {
    fn from(error: ScopeError) -> Self {
        Self::new(ErrorKind::Configuration, Side::Local).with_source(error)
    }
}

impl AssignedAddress {
    /// A prefix that nobody has asked for.
    #[must_use]
    pub const fn unprompted(prefix: IpNet) -> Self {
        Self {
            request_id: 0,
            prefix,
        }
    }
}

impl RequestedAddress {
    /// The answer to this request: `prefix`, whether or not it is what was wished for.
    #[must_use]
    pub const fn answer(&self, prefix: IpNet) -> AssignedAddress {
        AssignedAddress {
            request_id: self.request_id,
            prefix,
        }
    }

    /// The answer that there is no address for it (RFC 9484 §4.7.2).
    #[must_use]
    pub fn refusal(&self) -> AssignedAddress {
        refusal(*self)
    }

    /// Whether any address will do.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.prefix.addr().is_unspecified()
    }
}

impl AddressRange {
    /// All addresses from the first to the last, for all protocols.
    #[must_use]
    pub const fn new(start: IpAddr, end: IpAddr) -> Self {
        Self {
            start,
            end,
            protocol: 0,
        }
    }

    /// The same for one upper-layer protocol alone, by its IANA number.
    #[must_use]
    pub const fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// Whether it has an address in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && (self.start..=self.end).contains(&address)
    }
}

impl DnsConfig {
    /// Servers of plain DNS on port 53, for all names.
    #[must_use]
    pub fn plain(servers: &[IpAddr]) -> Self {
        Self {
            nameservers: vec![Nameserver::plain(servers)],
            internal_domains: vec!["".into()],
            search_domains: Vec::new(),
        }
    }
}

impl From<IpNet> for AddressRange {
    fn from(prefix: IpNet) -> Self {
        Self::new(prefix.network(), prefix.broadcast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_the_same_scope() {
        let expected = Scope::try_from("192.0.2.1").unwrap();
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(Scope::from(address), expected);
        assert_eq!(Scope::from(IpAddr::from(address)), expected);
        assert_eq!(Scope::from(IpNet::from(IpAddr::from(address))), expected);
        assert_eq!(Scope::try_from("*").unwrap(), Scope::any());
        let name = Scope::name("Host.example").unwrap().protocol(6);
        assert_eq!(name.to_string(), "host.example (protocol 6)");
    }

    #[test]
    fn what_is_no_scope_is_shown() {
        let error = Scope::try_from("10.0.0.1/8").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "invalid configuration: scope \"10.0.0.1/8\": address has bits behind its prefix length of 8"
        );
        let open = Scope {
            target: ScopeTarget::Prefix("10.0.0.1/8".parse().unwrap()),
            protocol: None,
        };
        assert_eq!(open.checked(), Err(ScopeError::HostBits { len: 8 }));
    }

    #[test]
    fn a_range_knows_its_version() {
        let range = AddressRange::from("0.0.0.0/0".parse::<IpNet>().unwrap());
        assert!(range.contains("192.0.2.1".parse().unwrap()));
        assert!(!range.contains("2001:db8::1".parse().unwrap()));
    }
}
