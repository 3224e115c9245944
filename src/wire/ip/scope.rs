//! The scope of an IP tunnel: which part of the network a request asks for (RFC 9484 §4.6).
//!
//! ```text
//!   target   *    192.0.2.0/24    2001:db8::42    target.example
//!   ipproto  *    17
//! ```
//!
//! This is the text after percent-decoding, as it stands on command lines too. A variable that is absent means `*`,
//! one that is present has a value. Names follow the rules of [`Host::parse`]: nothing that a resolver could read as
//! an address is a name. Whether a scope may be asked for is policy; names are not resolved here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::wire::target::{Host, Target, TargetError};

/// What stands for no preference in both variables.
const WILDCARD: &str = "*";

/// What a client wants to reach: the variables `target` and `ipproto` of the template (RFC 9484 §3, §4.6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Where to.
    pub target: ScopeTarget,
    /// The only upper-layer protocol, by its number; any if `None`. ICMP passes whatever it says.
    pub protocol: Option<u8>,
}

/// The variable `target`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ScopeTarget {
    /// `*`: no preference.
    #[default]
    Any,
    /// An address (/32, /128) or a prefix, whose bits behind the prefix length are zero.
    Prefix(IpNet),
    /// A host name, in lower case without trailing dot.
    Name(Box<str>),
}

/// Why text is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// A variable is present without a value.
    #[error("variable {name} is empty")]
    Empty {
        /// The variable.
        name: &'static str,
    },
    /// The target is neither `*`, an address, a prefix nor a name.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A host name with a prefix length.
    #[error("a host name has no prefix length")]
    NamePrefix,
    /// The prefix length is no decimal number up to 32 or 128.
    #[error("prefix length is not a decimal number up to {max}")]
    PrefixLength {
        /// The most for this version of IP.
        max: u8,
    },
    /// Bits of the address behind the prefix length are not zero.
    #[error("address has bits behind its prefix length of {len}")]
    HostBits {
        /// The prefix length.
        len: u8,
    },
    /// The protocol is no decimal number from 0 to 255 and not `*`.
    #[error("ipproto is neither * nor a decimal number from 0 to 255")]
    Protocol,
}

impl Scope {
    /// The name of the variable for [`target`](Self::target).
    pub const TARGET: &'static str = "target";
    /// The name of the variable for [`protocol`](Self::protocol).
    pub const PROTOCOL: &'static str = "ipproto";

    /// Makes a scope of the percent-decoded template variables `target` and `ipproto` (RFC 9484 §4.6). `None` stands
    /// for a variable that the template or the request does not have.
    ///
    /// # Errors
    /// [`ScopeError`] says which of the two is wrong and why.
    pub fn from_variables(target: Option<&str>, ipproto: Option<&str>) -> Result<Self, ScopeError> {
        Ok(Self {
            target: target.map_or(Ok(ScopeTarget::Any), str::parse)?,
            protocol: ipproto.map_or(Ok(None), parse_protocol)?,
        })
    }

    /// The values of the variables `target` and `ipproto`, for expansion to percent-encode. Neither is empty.
    #[must_use]
    pub fn variables(&self) -> (String, String) {
        let protocol = self.protocol.map(|protocol| protocol.to_string());
        (
            self.target.to_string(),
            protocol.unwrap_or_else(|| WILDCARD.into()),
        )
    }
}

fn parse_protocol(text: &str) -> Result<Option<u8>, ScopeError> {
    match text {
        "" => Err(ScopeError::Empty {
            name: Scope::PROTOCOL,
        }),
        WILDCARD => Ok(None),
        text => decimal(text, 3).map(Some).ok_or(ScopeError::Protocol),
    }
}

/// A number of up to `digits_max` decimal digits and nothing else, leading zeros allowed.
fn decimal(text: &str, digits_max: usize) -> Option<u8> {
    // `u8::from_str` takes a leading plus sign.
    let legal = text.len() <= digits_max && text.bytes().all(|b| b.is_ascii_digit());
    legal.then(|| text.parse().ok()).flatten()
}

impl FromStr for ScopeTarget {
    type Err = ScopeError;

    /// Parses `*`, an address without brackets, a prefix or a host name.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text {
            "" => {
                return Err(ScopeError::Empty {
                    name: Scope::TARGET,
                });
            }
            WILDCARD => return Ok(Self::Any),
            _ => {}
        }
        let Some((address, len)) = text.split_once('/') else {
            return Ok(match Host::parse(text)? {
                Host::Ip(address) => Self::Prefix(address.into()),
                Host::Name(name) => Self::Name(name),
            });
        };
        let Host::Ip(address) = Host::parse(address)? else {
            return Err(ScopeError::NamePrefix);
        };
        let (max, digits_max) = match address {
            IpAddr::V4(_) => (32, 2),
            IpAddr::V6(_) => (128, 3),
        };
        let len = decimal(len, digits_max).ok_or(ScopeError::PrefixLength { max })?;
        let prefix = IpNet::new(address, len).map_err(|_| ScopeError::PrefixLength { max })?;
        match prefix.addr() == prefix.network() {
            true => Ok(Self::Prefix(prefix)),
            false => Err(ScopeError::HostBits { len }),
        }
    }
}

impl fmt::Display for ScopeTarget {
    /// Writes what parses to the same: an address for a prefix of full length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(WILDCARD),
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                prefix.addr().fmt(f)
            }
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Scope {
    /// Writes the target and, if there is one, the protocol in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)?;
        match self.protocol {
            Some(protocol) => write!(f, " (protocol {protocol})"),
            None => Ok(()),
        }
    }
}

/// What a tunnel of any kind shall reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// One endpoint: UDP and TCP.
    Target(Target),
    /// A part of the network: IP.
    Scope(Scope),
}

impl Destination {
    /// The endpoint, if it is one.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::Target(target) => Some(target),
            Self::Scope(_) => None,
        }
    }

    /// The scope, if it is one.
    #[must_use]
    pub const fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Scope(scope) => Some(scope),
            Self::Target(_) => None,
        }
    }
}

impl From<Target> for Destination {
    fn from(target: Target) -> Self {
        Self::Target(target)
    }
}

impl From<Scope> for Destination {
    fn from(scope: Scope) -> Self {
        Self::Scope(scope)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(target) => target.fmt(f),
            Self::Scope(scope) => scope.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
