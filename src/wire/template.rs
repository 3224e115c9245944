//! URI templates of relays (RFC 9298 §2, RFC 9484 §3): a client expands one, a server matches request paths against it.
//!
//! ```text
//!   https://relay.example:4433/masque{?target_host,target_port}
//!           └── authority ───┘└──────── path template ────────┘
//!
//!   Template      expand_path(target) ─► /masque?target_host=2001%3Adb8%3A%3A42&target_port=443
//!   PathTemplate  match_path(path)    ─► NoMatch | Malformed(why) | Target
//!
//!   https://relay.example:4433/vpn/{target}/{ipproto}/
//!
//!   Template      expand_scope(scope) ─► /vpn/192.0.2.0%2F24/%2A/
//!   PathTemplate  match_scope(path)   ─► NoMatch | Malformed(why) | Scope
//! ```
//!
//! Of RFC 6570 there is what RFC 9298 leaves: literals, `{a,b}`, `{?a,b}` and `{&a,b}`. Everything else is refused when
//! the template is parsed, never when it is used. A template is for one service, which says what two of its variables
//! mean: those for UDP and TCP need `target_host` and `target_port`, those for IP may have `target` and `ipproto`. All
//! other variables are allowed and undefined, so they expand to nothing.
//!
//! No URI normalisation: literals are sent and compared as they are written.

mod part;
mod path;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::path::{Match, PathTemplate, ScopeMatch};

use self::part::{Part, Service};
use super::ip::{Scope, ScopeTarget};
use super::target::{Host, Target, TargetError, international, parse_authority};

/// The path template that a client uses which knows only the authority of a relay (RFC 9298 §2).
pub const DEFAULT_PATH: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";

/// The same for TCP (draft-ietf-httpbis-connect-tcp §5.2).
pub const DEFAULT_TCP_PATH: &str = "/.well-known/masque/tcp/{target_host}/{target_port}/";

/// The same for IP (RFC 9484 §3).
pub const DEFAULT_IP_PATH: &str = "/.well-known/masque/ip/{target}/{ipproto}/";

/// The port of a relay whose authority names none.
pub const DEFAULT_PORT: u16 = 443;

const SCHEME: &str = "https";

/// Why text is no template of a relay. The first violation found is the one reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A byte outside 0x21 to 0x7e, or one that no URI template contains as a literal (RFC 6570 §2.1).
    #[error("byte {byte:#04x} is not allowed in a URI template{}", international(*byte))]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// No scheme and authority.
    #[error("not an absolute URI template")]
    NotAbsolute,
    /// The scheme is not `https`.
    #[error("scheme is not https")]
    Scheme,
    /// A variable in the scheme or in the authority.
    #[error("variable outside path and query")]
    VariableOutsidePath,
    /// The authority is not a host with an optional port; user information is not allowed.
    #[error("{0}")]
    Authority(TargetError),
    /// The path is empty or does not start with a slash.
    #[error("path does not start with a slash")]
    Path,
    /// A literal fragment, which has no place in a request.
    #[error("fragment in a template")]
    Fragment,
    /// A `%` without two hexadecimal digits.
    #[error("malformed percent-encoding")]
    Escape,
    /// An opening brace without closing brace, or the other way round.
    #[error("unbalanced brace")]
    Brace,
    /// An operator that RFC 9298 §2 forbids, or one that RFC 6570 reserves.
    #[error("operator {operator:?} is not allowed")]
    Operator {
        /// The operator.
        operator: char,
    },
    /// A prefix (`:`) or explode (`*`) modifier: level 4 of RFC 6570.
    #[error("modifier {modifier:?} is not allowed")]
    Modifier {
        /// The modifier.
        modifier: char,
    },
    /// A variable name that is empty or holds other characters than letters, digits, `_`, `.` and percent-encodings.
    #[error("malformed variable name")]
    VariableName,
    /// A variable that the service needs does not occur.
    #[error("variable {name} is missing")]
    MissingVariable {
        /// The variable.
        name: &'static str,
    },
    /// A variable that has a value occurs more than once: fine to expand, not supported for matching.
    #[error("variable {name} occurs more than once")]
    RepeatedVariable {
        /// The variable.
        name: &'static str,
    },
    /// A variable whose end cannot be told in a request path: fine to expand, not supported for matching.
    #[error("a variable is not delimited, requests cannot be matched")]
    Undelimited,
}

/// The URI template of a relay, as a client uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    service: Service,
    authority: Box<str>,
    host: Host,
    port: u16,
    path: Box<str>,
    parts: Vec<Part>,
}

impl Template {
    /// Parses an absolute `https` template for UDP or TCP and applies every check of RFC 9298 §2.
    ///
    /// # Errors
    /// [`TemplateError`] names the violation.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (authority, path) = split_authority(text)?;
        Self::new(Service::Endpoint, authority, path)
    }

    /// Parses an absolute `https` template for IP and applies every check of RFC 9484 §3. It may have `target` and
    /// `ipproto`, one of them or none.
    ///
    /// # Errors
    /// [`TemplateError`] names the violation.
    pub fn parse_ip(text: &str) -> Result<Self, TemplateError> {
        let (authority, path) = split_authority(text)?;
        Self::new(Service::Scope, authority, path)
    }

    /// The default template for a relay at `authority`, a host with an optional port.
    ///
    /// # Errors
    /// [`TemplateError::Authority`] when it is not that.
    pub fn default_for(authority: &str) -> Result<Self, TemplateError> {
        Self::new(Service::Endpoint, authority, DEFAULT_PATH)
    }

    /// The default template for TCP of a relay at `authority`, a host with an optional port.
    ///
    /// # Errors
    /// [`TemplateError::Authority`] when it is not that.
    pub fn default_tcp_for(authority: &str) -> Result<Self, TemplateError> {
        Self::new(Service::Endpoint, authority, DEFAULT_TCP_PATH)
    }

    /// The default template for IP of a relay at `authority`, a host with an optional port.
    ///
    /// # Errors
    /// [`TemplateError::Authority`] when it is not that.
    pub fn default_ip_for(authority: &str) -> Result<Self, TemplateError> {
        Self::new(Service::Scope, authority, DEFAULT_IP_PATH)
    }

    /// Parses a relay URL: a template for UDP, or `https://host:port` without path, which stands for the default one.
    ///
    /// # Errors
    /// [`TemplateError`] names the violation.
    pub fn from_authority_or_template(url: &str) -> Result<Self, TemplateError> {
        match split_authority(url)? {
            (authority, "" | "/") => Self::default_for(authority),
            (authority, path) => Self::new(Service::Endpoint, authority, path),
        }
    }

    fn new(service: Service, authority: &str, path: &str) -> Result<Self, TemplateError> {
        let (host, port) = parse_authority(authority).map_err(TemplateError::Authority)?;
        Ok(Self {
            service,
            authority: authority.into(),
            host,
            port: port.unwrap_or(DEFAULT_PORT),
            path: path.into(),
            parts: part::parse(path, service)?,
        })
    }

    /// Host and port of the relay as written: the `:authority` of requests.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host of the relay.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port of the relay, [`DEFAULT_PORT`] if the template names none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path and query of a request for `target`: the `:path` of requests. The template is one for UDP or TCP.
    #[must_use]
    pub fn expand_path(&self, target: &Target) -> String {
        let host = match &target.host {
            // Without brackets; expansion percent-encodes the colons (RFC 9298 §3).
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.to_string(),
        };
        part::expand(&self.parts, [&host, &target.port.to_string()])
    }

    /// The path and query of a request for `scope`: the `:path` of requests. The template is one for IP.
    ///
    /// Both variables get a value, `*` as `%2A` (RFC 9484 §3). What the template has no variable for is not said, see
    /// [`expresses`](Self::expresses).
    #[must_use]
    pub fn expand_scope(&self, scope: &Scope) -> String {
        let (target, protocol) = scope.variables();
        part::expand(&self.parts, [&target, &protocol])
    }

    /// Whether the template has a variable for whatever `scope` restricts. Otherwise a request asks for more.
    #[must_use]
    pub fn expresses(&self, scope: &Scope) -> bool {
        let has = |name| part::has_variable(&self.parts, name);
        (scope.target == ScopeTarget::Any || has(Scope::TARGET))
            && (scope.protocol.is_none() || has(Scope::PROTOCOL))
    }

    /// The path and query of the template, for a server that has to match it.
    ///
    /// # Errors
    /// [`TemplateError::Undelimited`] or [`TemplateError::RepeatedVariable`] for the few templates that can be expanded
    /// but not matched.
    pub fn path_template(&self) -> Result<PathTemplate, TemplateError> {
        PathTemplate::new(&self.parts, self.service)
    }
}

/// The templates of one relay, one for each service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayTemplates {
    /// For CONNECT-UDP.
    pub udp: Template,
    /// For CONNECT-TCP, if it is known.
    pub tcp: Option<Template>,
    /// For CONNECT-IP, if it is known.
    pub ip: Option<Template>,
}

impl RelayTemplates {
    /// Parses a relay URL as [`Template::from_authority_or_template`] does, for all services.
    ///
    /// `https://host:port` and the default template for UDP stand for the defaults of all. Nothing is derived from
    /// another template, whatever its path looks like: those for TCP and IP are told apart.
    ///
    /// # Errors
    /// [`TemplateError`] names the violation.
    pub fn from_relay_url(url: &str) -> Result<Self, TemplateError> {
        let udp = Template::from_authority_or_template(url)?;
        let has_defaults = &*udp.path == DEFAULT_PATH;
        let default = |make: fn(&str) -> Result<Template, TemplateError>| {
            has_defaults.then(|| make(&udp.authority)).transpose()
        };
        Ok(Self {
            tcp: default(Template::default_tcp_for)?,
            ip: default(Template::default_ip_for)?,
            udp,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}://{}{}", self.authority, self.path)
    }
}

/// Splits off scheme and authority; the rest is empty or starts with `/`, `?` or `#`.
fn split_authority(text: &str) -> Result<(&str, &str), TemplateError> {
    check_bytes(text)?;
    let (scheme, rest) = text.split_once("://").ok_or(TemplateError::NotAbsolute)?;
    if scheme.contains('{') {
        return Err(TemplateError::VariableOutsidePath);
    }
    if !is_scheme(scheme) {
        return Err(TemplateError::NotAbsolute);
    }
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(TemplateError::Scheme);
    }
    let end = rest.find(['/', '?', '#', '{']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.starts_with('{') {
        return Err(TemplateError::VariableOutsidePath);
    }
    Ok((authority, path))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && (text.bytes()).all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn check_bytes(text: &str) -> Result<(), TemplateError> {
    match text.bytes().find(|b| !matches!(b, 0x21..=0x7e)) {
        Some(byte) => Err(TemplateError::Byte { byte }),
        None => Ok(()),
    }
}
