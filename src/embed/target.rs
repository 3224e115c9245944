//! Where a tunnel leads, in the forms in which users have it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Error, ErrorKind, Side};
use crate::wire::target::{Host, Target, TargetError};

impl Target {
    /// A host, by name or address (IPv6 without brackets), and a port from 1 to 65535.
    ///
    /// # Errors
    /// [`TargetError`] says what is wrong.
    pub fn new(host: &str, port: u16) -> Result<Self, TargetError> {
        checked(Host::parse(host)?, port)
    }

    fn from_text(text: &str) -> Result<Self, Error> {
        text.parse().map_err(|error| no_target(text, &error))
    }

    fn from_pair(host: &str, port: u16) -> Result<Self, Error> {
        Self::new(host, port).map_err(|error| no_target(&format!("{host} port {port}"), &error))
    }

    /// The same target, if it is one that [`Target::new`] makes: its fields are open, and what they hold goes into
    /// requests.
    pub(super) fn checked(self) -> Result<Self, TargetError> {
        match &self.host {
            Host::Ip(_) => checked(self.host, self.port),
            Host::Name(name) => Self::new(name, self.port),
        }
    }
}

fn no_target(given: &str, error: &TargetError) -> Error {
    let text = format!("target {given:?}: {error}");
    Error::new(ErrorKind::Configuration, Side::Local).with_source(text)
}

fn checked(host: Host, port: u16) -> Result<Target, TargetError> {
    match port {
        0 => Err(TargetError::Port),
        port => Ok(Target { host, port }),
    }
}

impl TryFrom<&str> for Target {
    type Error = Error;

    /// From `host:port`, an IPv6 address in brackets.
    fn try_from(text: &str) -> Result<Self, Error> {
        Self::from_text(text)
    }
}

impl TryFrom<String> for Target {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::from_text(&text)
    }
}

impl TryFrom<&String> for Target {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        Self::from_text(text)
    }
}

impl TryFrom<(&str, u16)> for Target {
    type Error = Error;

    fn try_from((host, port): (&str, u16)) -> Result<Self, Error> {
        Self::from_pair(host, port)
    }
}

impl TryFrom<(String, u16)> for Target {
    type Error = Error;

    fn try_from((host, port): (String, u16)) -> Result<Self, Error> {
        Self::from_pair(&host, port)
    }
}

impl TryFrom<(IpAddr, u16)> for Target {
    type Error = Error;

    fn try_from((address, port): (IpAddr, u16)) -> Result<Self, Error> {
        let checked = checked(Host::Ip(address), port);
        checked.map_err(|error| no_target(&format!("{address} port {port}"), &error))
    }
}

impl TryFrom<(Ipv4Addr, u16)> for Target {
    type Error = Error;

    fn try_from((address, port): (Ipv4Addr, u16)) -> Result<Self, Error> {
        Self::try_from((IpAddr::V4(address), port))
    }
}

impl TryFrom<(Ipv6Addr, u16)> for Target {
    type Error = Error;

    fn try_from((address, port): (Ipv6Addr, u16)) -> Result<Self, Error> {
        Self::try_from((IpAddr::V6(address), port))
    }
}

impl From<&SocketAddr> for Target {
    fn from(address: &SocketAddr) -> Self {
        Self::from(*address)
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_the_same_target() {
        let expected: Target = "192.0.2.6:443".parse().unwrap();
        let address: SocketAddr = "192.0.2.6:443".parse().unwrap();
        assert_eq!(Target::try_from("192.0.2.6:443").unwrap(), expected);
        assert_eq!(Target::try_from(("192.0.2.6", 443)).unwrap(), expected);
        assert_eq!(Target::try_from((address.ip(), 443)).unwrap(), expected);
        assert_eq!(Target::from(address), expected);
        assert_eq!(Target::from(&address), expected);
        assert_eq!(Target::from(&expected), expected);
        let v4 = Ipv4Addr::new(192, 0, 2, 6);
        assert_eq!(Target::try_from((v4, 443)).unwrap(), expected);
        let v6 = Target::try_from((Ipv6Addr::LOCALHOST, 443)).unwrap();
        assert_eq!(v6.to_string(), "[::1]:443");
        assert!(Target::try_from((v4, 0)).is_err());
        assert_eq!(
            Target::try_from(("2001:db8::42", 443)).unwrap(),
            "[2001:db8::42]:443".parse().unwrap()
        );
    }

    #[test]
    fn what_is_no_target_is_shown() {
        let text = |error: Error| format!("{error:#}");
        assert_eq!(
            text(Target::try_from("192.0.2.1").unwrap_err()),
            "invalid configuration: target \"192.0.2.1\": port is missing"
        );
        assert_eq!(
            text(Target::try_from(("a", 0)).unwrap_err()),
            "invalid configuration: target \"a port 0\": port is not a decimal number from 1 to 65535"
        );
    }

    #[test]
    fn open_fields_are_checked() {
        let target = |name: &str, port| Target {
            host: Host::Name(name.into()),
            port,
        };
        assert_eq!(
            target("A.example", 1).checked(),
            Target::new("a.example", 1)
        );
        assert!(target("a\r\nvia: x", 1).checked().is_err());
        assert_eq!(target("a", 0).checked(), Err(TargetError::Port));
    }
}
