//! The HTTP version under a tunnel.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The HTTP version that carries a tunnel, named as in ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// HTTP/3 over QUIC.
    H3,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/1.1 over TLS.
    H1,
}

impl Carrier {
    /// All of them, in the order of preference.
    pub const ALL: [Self; 3] = [Self::H3, Self::H2, Self::H1];

    /// The protocol id of ALPN (RFC 7301), which `next-protocol` of Proxy-Status carries too.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::H3 => "h3",
            Self::H2 => "h2",
            Self::H1 => "http/1.1",
        }
    }

    /// The name in configurations and on command lines: `h3`, `h2`, `h1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H3 => "h3",
            Self::H2 => "h2",
            Self::H1 => "h1",
        }
    }

    /// The version as Via wants it (RFC 9110 section 7.6.3).
    pub const fn via_version(self) -> &'static str {
        match self {
            Self::H3 => "3",
            Self::H2 => "2",
            Self::H1 => "1.1",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of a carrier.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no carrier: h3, h2 or h1")]
pub struct UnknownCarrier(String);

impl FromStr for Carrier {
    type Err = UnknownCarrier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL
            .into_iter()
            .find(|carrier| carrier.as_str() == text);
        known.ok_or_else(|| UnknownCarrier(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for carrier in Carrier::ALL {
            assert_eq!(carrier.to_string().parse(), Ok(carrier));
        }
        let error = "http/1.1".parse::<Carrier>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"http/1.1\" is no carrier: h3, h2 or h1"
        );
    }
}
