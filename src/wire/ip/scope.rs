//! The scope of an IP tunnel: which part of the network a request asks for (RFC 9484 §4.6).

use std::fmt;

use ipnet::IpNet;

use crate::wire::target::{Target, TargetError};

/// What a client wants to reach: the variables `target` and `ipproto` of the template.
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

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            ScopeTarget::Any => f.write_str("*")?,
            ScopeTarget::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                write!(f, "{}", prefix.addr())?;
            }
            ScopeTarget::Prefix(prefix) => write!(f, "{prefix}")?,
            ScopeTarget::Name(name) => f.write_str(name)?,
        }
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
