//! The UDP or TCP endpoint a client asks for (RFC 9298 §3), and hosts and ports of authorities in general.
//!
//! ```text
//!   authority form     target.example:443    192.0.2.6:443    [2001:db8::42]:443     Target::from_str, Display
//!   template variables target.example 443    192.0.2.6 443    2001:db8::42 443       Target::from_parts
//! ```
//!
//! A parsed [`Host`] is an address or a name that no resolver mistakes for one: spellings such as `127.1` or `0x7f.1`,
//! which some read as an IPv4 address, are refused, because filters and resolvers must not disagree on what was asked.
//! Whether the target may be reached is policy; names are not resolved here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest host name in bytes, without the trailing dot (RFC 1035 §2.3.4, in presentation form).
pub const NAME_MAX: usize = 253;

/// The longest label of a host name in bytes.
pub const LABEL_MAX: usize = 63;

/// An address, or a host name in lower case without trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IPv4 or IPv6 address without zone.
    Ip(IpAddr),
    /// Labels of letters, digits, hyphens and underscores, as [`Host::parse`] accepts and normalises them.
    Name(Box<str>),
}

/// A host and a port, 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Address or name.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// Why text is no target. Display speaks to whoever wrote the text and repeats nothing but single bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The host is empty (RFC 9298 §3).
    #[error("host is empty")]
    EmptyHost,
    /// The port is empty or absent (RFC 9298 §3).
    #[error("port is missing")]
    EmptyPort,
    /// The port is not a decimal integer from 1 to 65535.
    #[error("port is not a decimal number from 1 to 65535")]
    Port,
    /// An IPv6 address in brackets where it has to stand without.
    #[error("address must not be in brackets here")]
    Brackets,
    /// An IPv6 address without brackets in an authority.
    #[error("IPv6 address must be in brackets here")]
    NoBrackets,
    /// An IPv6 address with a zone identifier, which RFC 9298 §3 does not support.
    #[error("IPv6 zone identifiers are not supported")]
    Zone,
    /// A user or a password before the host.
    #[error("user and password do not belong here: credentials are an option of their own")]
    UserInfo,
    /// Colons or brackets, but no IPv6 address.
    #[error("not an IPv6 address")]
    Ipv6,
    /// The name is longer than 253 bytes (RFC 1035 §2.3.4).
    #[error("host name of {len} bytes is longer than {NAME_MAX}")]
    NameTooLong {
        /// Length in bytes.
        len: usize,
    },
    /// A label is empty or longer than 63 bytes.
    #[error("label of {len} bytes is not within 1 to {LABEL_MAX}")]
    Label {
        /// Length in bytes.
        len: usize,
    },
    /// A label starts or ends with a hyphen.
    #[error("label starts or ends with a hyphen")]
    Hyphen,
    /// A byte that is neither letter, digit, hyphen nor underscore.
    #[error("byte {byte:#04x} is not allowed in a host name{}", international(*byte))]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// The last label is a number, so that resolvers may read the name as an IPv4 address.
    #[error("host name looks like an IPv4 address")]
    Numeric,
    /// A `%` without two hexadecimal digits (template variables only).
    #[error("malformed percent-encoding")]
    Escape,
    /// The variable occurs more than once (template variables only).
    #[error("variable is given twice")]
    Twice,
}

/// What to do about a byte that is not ASCII.
pub(super) const fn international(byte: u8) -> &'static str {
    match byte.is_ascii() {
        true => "",
        false => ": international names are written in ASCII, as xn--…",
    }
}

impl Host {
    /// Parses a host without brackets, as it stands in a template variable after percent-decoding.
    ///
    /// Names become lower case, and one trailing dot is removed. An address is an address only in its canonical
    /// notation (dotted quad, RFC 4291 text).
    ///
    /// # Errors
    /// [`TargetError`] says what is wrong with the host.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::EmptyHost);
        }
        if text.contains(['[', ']']) {
            return Err(TargetError::Brackets);
        }
        if text.contains(':') {
            return parse_ipv6(text).map(|ip| Self::Ip(ip.into()));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        parse_name(text).map(Self::Name)
    }
}

fn parse_ipv6(text: &str) -> Result<Ipv6Addr, TargetError> {
    if text.contains('%') {
        return Err(TargetError::Zone);
    }
    text.parse().map_err(|_| TargetError::Ipv6)
}

fn parse_name(text: &str) -> Result<Box<str>, TargetError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_MAX {
        return Err(TargetError::NameTooLong { len: name.len() });
    }
    for label in name.split('.') {
        if let Some(byte) =
            (label.bytes()).find(|b| !matches!(b, b'-' | b'_') && !b.is_ascii_alphanumeric())
        {
            return Err(TargetError::Byte { byte });
        }
        if label.is_empty() || label.len() > LABEL_MAX {
            return Err(TargetError::Label { len: label.len() });
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(TargetError::Hyphen);
        }
    }
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(TargetError::Numeric);
    }
    Ok(name.to_ascii_lowercase().into())
}

/// Whether an IPv4 parser of the lenient kind (`inet_aton`, the URL standard) takes the label for a number.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    hex.map_or_else(
        || label.bytes().all(|b| b.is_ascii_digit()),
        |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()),
    )
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    if text.is_empty() {
        return Err(TargetError::EmptyPort);
    }
    // `u16::from_str` takes a leading plus sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TargetError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(TargetError::Port),
        Ok(port) => Ok(port),
    }
}

/// Splits an authority without user information into host and, after a colon, port.
pub(super) fn parse_authority(text: &str) -> Result<(Host, Option<u16>), TargetError> {
    if text.contains('@') {
        return Err(TargetError::UserInfo);
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or(TargetError::Ipv6)?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(TargetError::Ipv6),
            port => port,
        };
        (Host::Ip(parse_ipv6(ip)?.into()), port)
    } else {
        let (host, port) = text
            .split_once(':')
            .map_or((text, None), |(h, p)| (h, Some(p)));
        if port.is_some_and(|port| port.contains(':')) {
            return Err(TargetError::NoBrackets);
        }
        (Host::parse(host)?, port)
    };
    Ok((host, port.map(parse_port).transpose()?))
}

impl From<std::net::SocketAddr> for Target {
    fn from(address: std::net::SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }
}

impl Target {
    /// Makes a target of the percent-decoded template variables `target_host` and `target_port` (RFC 9298 §3).
    ///
    /// # Errors
    /// [`TargetError`] says which of the two is wrong and why.
    pub fn from_parts(host: &str, port: &str) -> Result<Self, TargetError> {
        Ok(Self {
            host: Host::parse(host)?,
            port: parse_port(port)?,
        })
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// Parses the authority form `host:port`, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = parse_authority(text)?;
        let port = port.ok_or(TargetError::EmptyPort)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Host {
    /// Writes the host as it stands in an authority: an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    /// Writes the authority form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Host {
        Host::Name(text.into())
    }

    #[test]
    fn hosts() {
        assert_eq!(
            Host::parse("192.0.2.6"),
            Ok(Host::Ip([192, 0, 2, 6].into()))
        );
        assert_eq!(
            Host::parse("2001:db8::42"),
            Ok(Host::Ip("2001:db8::42".parse().unwrap()))
        );
        assert_eq!(Host::parse("Target.Example."), Ok(name("target.example")));
        assert_eq!(Host::parse("_dns.r3---sn.x1"), Ok(name("_dns.r3---sn.x1")));
        assert_eq!(Host::parse("localhost"), Ok(name("localhost")));
        assert_eq!(Host::parse("1and1.0xg"), Ok(name("1and1.0xg")));
    }

    // spec: 9298-3-a, 9298-3-b, 9298-3-g
    #[test]
    fn refused_hosts() {
        use TargetError::*;
        for (text, error) in [
            ("", EmptyHost),
            (".", Label { len: 0 }),
            ("a..b", Label { len: 0 }),
            ("a.example..", Label { len: 0 }),
            ("[::1]", Brackets),
            ("fe80::1%eth0", Zone),
            ("::1::", Ipv6),
            ("a:b", Ipv6),
            ("-a.example", Hyphen),
            ("a-.example", Hyphen),
            ("a\0b", Byte { byte: 0 }),
            ("a\r\nb", Byte { byte: b'\r' }),
            ("a b", Byte { byte: b' ' }),
            ("a%2Eb", Byte { byte: b'%' }),
            ("a/b", Byte { byte: b'/' }),
            ("user@a", Byte { byte: b'@' }),
            ("bücher.example", Byte { byte: 0xc3 }),
        ] {
            assert_eq!(Host::parse(text), Err(error), "{text:?}");
        }
    }

    // spec: 9298-3-g
    #[test]
    fn numeric_names_are_refused() {
        for text in [
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0x7F.0x1",
            "1.2.3.4.5",
            "256.0.0.1",
            "a.0x",
            "127.0.0.1.",
            "a.42",
            "010.0.0.1",
        ] {
            assert_eq!(Host::parse(text), Err(TargetError::Numeric), "{text:?}");
        }
    }

    #[test]
    fn name_lengths() {
        let label = "a".repeat(LABEL_MAX);
        assert!(Host::parse(&label).is_ok());
        assert_eq!(
            Host::parse(&format!("{label}a")),
            Err(TargetError::Label { len: 64 })
        );

        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), NAME_MAX);
        assert!(Host::parse(&longest).is_ok());
        assert!(Host::parse(&format!("{longest}.")).is_ok());
        assert_eq!(
            Host::parse(&format!("{longest}a")),
            Err(TargetError::NameTooLong { len: 254 })
        );
    }

    // spec: 9298-3-c, 9298-3-g
    #[test]
    fn ports() {
        let port = |text| Target::from_parts("a", text).map(|target| target.port);
        assert_eq!(port("1"), Ok(1));
        assert_eq!(port("65535"), Ok(65_535));
        assert_eq!(port(""), Err(TargetError::EmptyPort));
        for text in [
            "0",
            "65536",
            "+443",
            "-1",
            " 443",
            "443 ",
            "4 3",
            "0x1bb",
            "443a",
            "99999999999999999999",
        ] {
            assert_eq!(port(text), Err(TargetError::Port), "{text:?}");
        }
    }

    #[test]
    fn authorities() {
        for text in [
            "192.0.2.6:443",
            "[2001:db8::42]:443",
            "target.example:1",
            "[::1]:65535",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        use TargetError::*;
        for (text, error) in [
            ("", EmptyHost),
            (":443", EmptyHost),
            ("a", EmptyPort),
            ("a:", EmptyPort),
            ("[::1]", EmptyPort),
            ("[::1]443", Ipv6),
            ("[::1", Ipv6),
            ("[192.0.2.6]:443", Ipv6),
            ("[a]:443", Ipv6),
            ("[fe80::1%25eth0]:443", Zone),
            ("::1:443", NoBrackets),
            ("a]:443", Brackets),
            ("a:b:443", NoBrackets),
        ] {
            assert_eq!(text.parse::<Target>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in ".{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert!(host.to_string().len() <= NAME_MAX);
                let target = Target { host, port: 443 };
                prop_assert_eq!(target.to_string().parse(), Ok(target));
            }
        }

        #[test]
        fn plausible_text(text in "[a-z0-9.:x\\[\\]%-]{0,24}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse(), Ok(target));
            }
        }
    }
}
