//! Rules on names, addresses and ports, and the decision they lead to.
//!
//! ```text
//!  rule    = host [ ":" ports ]
//!  host    = "*"                     any host
//!          | "192.0.2.0/24"          an IPv4 network, or a single address without "/"
//!          | "[2001:db8::/32]"       an IPv6 network or address; brackets only matter before ":" ports
//!          | "example.com"           this name
//!          | ".example.com"          this name and every name below it
//!  ports   = "443" | "443-500"       without ports: every port
//! ```
//!
//! Names compare label by label, without case; a trailing dot is ignored. A name rule matches the name that the client
//! asked for, a network rule the address it resolved to.
//!
//! **Order of decision.** The relay's own addresses are refused, whatever the rules say. A matching `deny` rule
//! refuses. If there is any `allow` rule, one of them has to match. Then, with `public_only`, the address has to be
//! public, or an `allow` rule with a network has to hold it: who names `10.0.0.0/8` opens it, `*` and names open
//! nothing, and neither does a network of prefix length 0. Unspecified, multicast and broadcast addresses never open.
//!
//! An address that carries an IPv4 address (see [`super::address`]) is denied if a rule denies either, and each of
//! them has to be public or opened. Allow rules match the address that is connected to.

mod packets;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::IpNet;

use super::address::{self, Special};
use crate::{
    error::{Rcode, Refusal},
    wire::target::{Host, Target},
};

/// Longest name of a rule in bytes (RFC 1035 section 2.3.4, without the trailing dot).
const NAME_BYTES_MAX: usize = 253;
/// Longest label of a name in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// What tunnels may reach. The default allows every public address and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// If not empty, a target has to match one of these. Networks in it open ranges that are not public.
    pub allow: Vec<Rule>,
    /// A target that matches one of these is refused.
    pub deny: Vec<Rule>,
    /// Whether addresses have to be public unless an `allow` network holds them.
    pub public_only: bool,
    /// The relay's own listening addresses, see [`own_addresses`]. A wildcard stands for loopback.
    pub own: Vec<SocketAddr>,
    /// What the clients of IP tunnels reach behind the relay's own gateway, public or not: each other, and the networks
    /// behind each other. Empty if they do not.
    pub inside: Vec<IpNet>,
    /// The gateway's own addresses, which a scope may name.
    pub gateways: Vec<IpAddr>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            public_only: true,
            own: Vec::new(),
            inside: Vec::new(),
            gateways: Vec::new(),
        }
    }
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A deny rule matches, or there are allow rules and none matches.
    #[error("a rule forbids the target")]
    ByRule,
    /// The address is not public.
    #[error(transparent)]
    Special(#[from] Special),
    /// The address is one that the relay listens on.
    #[error("the target is the relay itself")]
    OwnAddress,
    /// Port 0 names no service.
    #[error("port 0 cannot be a target")]
    PortZero,
    /// The name ends in a number, so that a resolver may read it as an address.
    #[error("a name cannot end in a number")]
    NumericName,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::ByRule => Self::DeniedByRule,
            Denied::Special(Special { range, .. }) => Self::AddressProhibited { range },
            Denied::OwnAddress => Self::LoopDetected,
            Denied::PortZero | Denied::NumericName => Self::MalformedTarget,
        }
    }
}

impl Policy {
    /// Judges a target before resolution: a literal address for good, a name as far as name and port decide.
    ///
    /// # Errors
    /// The reason, if no address could make the target acceptable.
    pub fn check_target(&self, target: &Target) -> Result<(), Denied> {
        if target.port == 0 {
            return Err(Denied::PortZero);
        }
        let name = match &target.host {
            Host::Ip(ip) => return self.check_address(SocketAddr::new(*ip, target.port), None),
            Host::Name(name) => normal(name),
        };
        if ends_in_number(name) {
            return Err(Denied::NumericName);
        }
        let denied = |rule: &Rule| rule.hosts.matches_name(name) && rule.matches_port(target.port);
        if self.deny.iter().any(denied) {
            return Err(Denied::ByRule);
        }
        // A network rule can still match what the name resolves to.
        let possible = |rule: &Rule| {
            rule.matches_port(target.port)
                && (matches!(rule.hosts, Hosts::Net(_)) || rule.hosts.matches_name(name))
        };
        if !self.allow.is_empty() && !self.allow.iter().any(possible) {
            return Err(Denied::ByRule);
        }
        Ok(())
    }

    /// Those of the resolved `addresses` that may be connected to, in order and in their plain form.
    ///
    /// # Errors
    /// Why the first one is refused, when none is left.
    pub fn allowed(
        &self,
        addresses: &[IpAddr],
        port: u16,
        name: Option<&str>,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let mut denied = None;
        let mut allowed = Vec::new();
        for address in addresses {
            let address = SocketAddr::new(address.to_canonical(), port);
            match self.check_address(address, name) {
                Ok(()) => allowed.push(address),
                Err(reason) => denied = denied.or(Some(reason)),
            }
        }
        match denied {
            Some(reason) if allowed.is_empty() => Err(reason.into()),
            Some(_) | None => Ok(allowed),
        }
    }

    /// Judges an address to connect to; `name` is the name it was resolved from.
    ///
    /// # Errors
    /// The first reason in the order of decision given above.
    pub fn check_address(&self, address: SocketAddr, name: Option<&str>) -> Result<(), Denied> {
        let port = address.port();
        if port == 0 {
            return Err(Denied::PortZero);
        }
        let name = name.map(normal);
        let any = |rules: &[Rule], ip| rules.iter().any(|rule| rule.matches(ip, name, port));
        let mut ends = address::unmap(address.ip());
        let connected = address.ip().to_canonical();

        if ends.clone().any(|ip| self.is_own(ip, port)) {
            return Err(Denied::OwnAddress);
        }
        if ends.clone().any(|ip| any(&self.deny, ip)) {
            return Err(Denied::ByRule);
        }
        if !self.allow.is_empty() && !any(&self.allow, connected) {
            return Err(Denied::ByRule);
        }
        ends.try_for_each(|ip| match address::judge(ip) {
            Err(special) if !special.can_open => Err(special.into()),
            Err(special) if self.public_only && !self.opens(ip, port) => Err(special.into()),
            Ok(()) | Err(_) => Ok(()),
        })
    }

    /// The address to connect to: the first of `addresses` that passes, in the resolver's order, an IPv4-mapped one in
    /// its IPv4 form. For a literal target `addresses` is that literal.
    ///
    /// # Errors
    /// The first denial if none passes; [`Refusal::DnsError`] if there is no address at all.
    pub fn choose(&self, target: &Target, addresses: &[IpAddr]) -> Result<SocketAddr, Refusal> {
        let name = match &target.host {
            Host::Ip(_) => None,
            Host::Name(name) => Some(&**name),
        };
        let mut first_denial = None;
        for ip in addresses {
            let address = SocketAddr::new(ip.to_canonical(), target.port);
            match self.check_address(address, name) {
                Ok(()) => return Ok(address),
                Err(denied) => first_denial = first_denial.or(Some(denied)),
            }
        }
        Err(first_denial.map_or(
            Refusal::DnsError {
                rcode: Some(Rcode::NoError),
            },
            Refusal::from,
        ))
    }

    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let this_machine = ip.is_loopback() || ip.is_unspecified();
        let reaches = |listener: IpAddr| {
            if listener.is_unspecified() {
                this_machine && (listener.is_ipv6() || ip.is_ipv4())
            } else {
                listener == ip
            }
        };
        (self.own.iter()).any(|own| own.port() == port && reaches(own.ip().to_canonical()))
    }

    /// Whether an allow rule names a network around the address.
    fn opens(&self, ip: IpAddr, port: u16) -> bool {
        (self.allow.iter()).any(|rule| rule.opens(ip) && rule.matches_port(port))
    }
}

/// The addresses that reach `listeners`, for [`Policy::own`]: each wildcard once per local interface address, and
/// itself, which stands for loopback.
///
/// Addresses that others translate to this machine (a NAT in front, an elastic address) are unknown here; deny them.
pub fn own_addresses(listeners: &[SocketAddr], interfaces: &[IpAddr]) -> Vec<SocketAddr> {
    let mut own = Vec::new();
    for listener in listeners {
        own.push(*listener);
        if listener.ip().is_unspecified() {
            // A wildcard IPv6 listener takes IPv4 as well unless told otherwise.
            let reached = interfaces
                .iter()
                .filter(|ip| ip.is_ipv4() || listener.is_ipv6());
            own.extend(reached.map(|ip| SocketAddr::new(ip.to_canonical(), listener.port())));
        }
    }
    own
}

/// One rule; see the module for the text form, which `FromStr` reads and `Display` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    hosts: Hosts,
    ports: RangeInclusive<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    Net(IpNet),
    /// Without trailing dot.
    Name(Box<str>),
    /// Without leading and trailing dot.
    Below(Box<str>),
}

impl Hosts {
    /// Whether the name alone makes the rule match.
    fn matches_name(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Net(_) => false,
            Self::Name(own) => name.eq_ignore_ascii_case(own),
            Self::Below(suffix) => {
                let mut labels = name.rsplit('.');
                let mut wanted = suffix.rsplit('.');
                wanted.all(|label| {
                    labels
                        .next()
                        .is_some_and(|own| own.eq_ignore_ascii_case(label))
                })
            }
        }
    }
}

impl Rule {
    /// Whether the rule is about addresses, and not about names.
    #[must_use]
    pub const fn is_about_addresses(&self) -> bool {
        match self.hosts {
            Hosts::Any | Hosts::Net(_) => true,
            Hosts::Name(_) | Hosts::Below(_) => false,
        }
    }

    /// The network that the rule names.
    const fn net(&self) -> Option<IpNet> {
        match self.hosts {
            Hosts::Net(net) => Some(net),
            Hosts::Any | Hosts::Name(_) | Hosts::Below(_) => None,
        }
    }

    fn matches_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    fn has_all_ports(&self) -> bool {
        *self.ports.start() <= 1 && *self.ports.end() == u16::MAX
    }

    fn matches_any_port(&self, port: Option<u16>) -> bool {
        port.map_or_else(
            || self.has_all_ports(),
            |port| self.matches_port(port) || self.has_all_ports(),
        )
    }

    /// Whether the rule names a network around the address.
    fn opens(&self, ip: IpAddr) -> bool {
        match self.hosts {
            Hosts::Net(net) => net.prefix_len() > 0 && net.contains(&ip),
            Hosts::Any | Hosts::Name(_) | Hosts::Below(_) => false,
        }
    }

    fn matches(&self, ip: IpAddr, name: Option<&str>, port: u16) -> bool {
        self.matches_host(ip, name) && self.matches_port(port)
    }

    fn matches_host(&self, ip: IpAddr, name: Option<&str>) -> bool {
        match &self.hosts {
            Hosts::Net(net) => net.contains(&ip),
            Hosts::Any => true,
            hosts @ (Hosts::Name(_) | Hosts::Below(_)) => {
                name.is_some_and(|name| hosts.matches_name(name))
            }
        }
    }
}

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {text:?}: {problem}")]
pub struct RuleError {
    /// The rule as it was written.
    pub text: String,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    /// Nothing before the ports.
    #[error("the host is missing; write * for any")]
    NoHost,
    /// A bracket without its partner, or something else than ports behind it.
    #[error("brackets hold one IPv6 network, optionally followed by \":\" and ports")]
    Brackets,
    /// Neither an address nor a network.
    #[error("{0:?} is not an IP network")]
    Network(String),
    /// Bits are set outside the prefix.
    #[error("the network has bits set behind its prefix; write {0}")]
    HostBits(IpNet),
    /// An IPv4-mapped network would never match: such addresses are judged in their IPv4 form.
    #[error("write IPv4-mapped networks in their IPv4 form")]
    Mapped,
    /// A port is not a number from 1 to 65535.
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    /// The range is empty.
    #[error("the port range ends before it starts")]
    PortOrder,
    /// Not a name that DNS can carry.
    #[error("{0:?} is not a DNS name of letters, digits, \"-\" and \"_\"")]
    Name(String),
    /// The name ends in a number, as addresses do.
    #[error("{0:?} ends in a number but is not an address")]
    NumericName(String),
    /// A star that is not the whole host.
    #[error("* stands alone; write .example.com for a name and all names below it")]
    Star,
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse(text).map_err(|problem| RuleError {
            text: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_ports = self.ports == ALL_PORTS;
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Below(name) => write!(f, ".{name}")?,
            Hosts::Net(net @ IpNet::V6(_)) if !all_ports => write!(f, "[{}]", Network(net))?,
            Hosts::Net(net) => write!(f, "{}", Network(net))?,
        }
        match (self.ports.start(), self.ports.end()) {
            _ if all_ports => Ok(()),
            (start, end) if start == end => write!(f, ":{start}"),
            (start, end) => write!(f, ":{start}-{end}"),
        }
    }
}

/// Prints a network of one address as that address.
struct Network<'a>(&'a IpNet);

impl fmt::Display for Network<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

const ALL_PORTS: RangeInclusive<u16> = 1..=u16::MAX;

fn parse(text: &str) -> Result<Rule, RuleProblem> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (net, rest) = bracketed.split_once(']').ok_or(RuleProblem::Brackets)?;
        let ports = match rest.strip_prefix(':') {
            Some(ports) => parse_ports(ports)?,
            None if rest.is_empty() => ALL_PORTS,
            None => return Err(RuleProblem::Brackets),
        };
        let hosts = Hosts::Net(parse_net(net)?);
        return if net.contains(':') {
            Ok(Rule { hosts, ports })
        } else {
            Err(RuleProblem::Brackets)
        };
    }
    let (host, ports) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => (text, ALL_PORTS),
        Some((host, ports)) => (host, parse_ports(ports)?),
        None => (text, ALL_PORTS),
    };
    Ok(Rule {
        hosts: parse_hosts(host)?,
        ports,
    })
}

fn parse_hosts(host: &str) -> Result<Hosts, RuleProblem> {
    match host {
        "" => Err(RuleProblem::NoHost),
        "*" => Ok(Hosts::Any),
        _ if host.contains(['/', ':']) || host.parse::<IpAddr>().is_ok() => {
            parse_net(host).map(Hosts::Net)
        }
        _ => match host.strip_prefix('.') {
            Some(suffix) => parse_name(suffix).map(Hosts::Below),
            None => parse_name(host).map(Hosts::Name),
        },
    }
}

fn parse_net(text: &str) -> Result<IpNet, RuleProblem> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let net = single
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| RuleProblem::Network(text.to_owned()))?;
    if net.trunc() != net {
        return Err(RuleProblem::HostBits(net.trunc()));
    }
    let mapped = match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.prefix_len() >= 96 && net.addr().to_ipv4_mapped().is_some(),
    };
    if mapped {
        Err(RuleProblem::Mapped)
    } else {
        Ok(net)
    }
}

fn parse_name(text: &str) -> Result<Box<str>, RuleProblem> {
    if text.contains('*') {
        return Err(RuleProblem::Star);
    }
    let name = normal(text);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(RuleProblem::Name(text.to_owned()));
    }
    if ends_in_number(name) {
        return Err(RuleProblem::NumericName(text.to_owned()));
    }
    Ok(name.into())
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, RuleProblem> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (parse_port(start)?, parse_port(end)?);
    if start > end {
        Err(RuleProblem::PortOrder)
    } else {
        Ok(start..=end)
    }
}

fn parse_port(text: &str) -> Result<u16, RuleProblem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(RuleProblem::Port(text.to_owned())),
    }
}

/// A name without its trailing dot.
fn normal(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a resolver may read the name as an IPv4 address: its last label is a decimal or hexadecimal number.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests;
