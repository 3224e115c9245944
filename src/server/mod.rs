//! The server half of a relay: what a request must look like, and what the answer looks like.
//!
//! ```text
//!   authorize ─► Access │ Refusal
//!
//!   CONNECT host:port ──────────────────────────────────────────┐
//!   path ─► template ─► method ─► :protocol ─► :authority ──────┴─► Via ─► handler ─► Plan │ Refusal
//! ```
//!
//! Every HTTP version asks in the same form: an upgrade of HTTP/1.1 arrives as the extended CONNECT that it stands for.
//! Sans-IO. The same request always gets the same plan; only passwords that were right are remembered.

use std::time::Instant;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::error::{PROXY_STATUS, Refusal, proxy_status};
use crate::handler::{Decision, Handler};
use crate::http::request::{RequestHead, ResponseHead};
use crate::policy::auth::{Auth, Check, CheckKey, Job, User, Verdict};
use crate::tunnel::Framing;
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::{CONNECT_IP, CONNECT_UDP, Revision};
use crate::wire::field::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, capsule_protocol};
use crate::wire::ip::{Destination, Scope};
use crate::wire::proxy_status::ProxyError;
use crate::wire::template::{Match, PathTemplate, ScopeMatch};
use crate::wire::via;

/// How long clients may remember that HTTP/3 is served, in seconds: a day.
const ALT_SVC_MAX_AGE: u32 = 86_400;

/// What a tunnel carries, and how its data stream looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams (RFC 9298); the data stream has capsules.
    Udp,
    /// A byte stream: classic CONNECT, or the connect-tcp draft.
    Tcp(Framing),
    /// IP packets (RFC 9484); the data stream has capsules.
    Ip,
}

impl Protocol {
    /// Whether messages of the tunnel announce `Capsule-Protocol: ?1`.
    pub const fn has_capsules(self) -> bool {
        match self {
            Self::Udp | Self::Ip => true,
            Self::Tcp(framing) => framing.has_capsules(),
        }
    }
}

/// How to open a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it carries.
    pub protocol: Protocol,
    /// What it shall reach: a scope for IP, a target for all else.
    pub destination: Destination,
    /// Which way.
    pub route: Route,
}

/// Which way a tunnel goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// Resolve the target and connect a socket to it.
    Direct,
    /// Ask the handler of this process.
    Handler {
        /// As with a chain, should the handler send it on to a next hop.
        via: Option<HeaderValue>,
    },
    /// Send a request for the target to the next hop.
    Chain {
        /// The Via field of the request, with us in it.
        via: Option<HeaderValue>,
    },
}

/// Whether a request may be looked at.
#[derive(Debug)]
pub enum Access {
    /// Yes; who it is, if credentials are asked for.
    Granted(Option<User>),
    /// Run the job elsewhere and wait for the verdict with this key, which others may wait for too. Without a job it is
    /// under way already.
    Verify {
        /// Names the verdict.
        key: CheckKey,
        /// What makes it.
        job: Option<Job>,
    },
    /// Nobody knows: too many passwords are being checked.
    Busy,
}

/// What a relay serves, and under which paths.
#[derive(Clone, Debug)]
pub struct Services {
    /// Paths of CONNECT-UDP.
    pub udp: Vec<PathTemplate>,
    /// Paths of CONNECT-TCP. One path may serve both: the token of the request tells them apart.
    pub tcp: Vec<PathTemplate>,
    /// Paths of CONNECT-IP.
    pub ip: Vec<PathTemplate>,
    /// Whether classic CONNECT is served, which has no path.
    pub classic: bool,
}

impl Default for Services {
    /// All that need nothing but sockets, at the well-known paths.
    fn default() -> Self {
        Self {
            udp: vec![PathTemplate::well_known()],
            tcp: vec![PathTemplate::well_known_tcp()],
            ip: Vec::new(),
            classic: true,
        }
    }
}

/// Who may open what.
#[derive(Clone, Debug)]
pub struct Server {
    pseudonym: Box<str>,
    services: Services,
    origins: Vec<Box<str>>,
    handler: Handler,
    alt_svc: Option<HeaderValue>,
    auth: Option<Auth>,
}

impl Server {
    /// A relay of that pseudonym (Via, Proxy-Status).
    ///
    /// `origins` are the values of `:authority` that templated requests may have, any if empty.
    pub fn new(
        pseudonym: &str,
        services: Services,
        origins: Vec<Box<str>>,
        handler: Handler,
    ) -> Self {
        Self {
            pseudonym: pseudonym.into(),
            services,
            origins,
            handler,
            alt_svc: None,
            auth: None,
        }
    }

    /// Tells clients of HTTP/2 and HTTP/1.1 that HTTP/3 is served on UDP port `port` (RFC 7838 §3).
    #[must_use]
    pub fn with_h3_port(mut self, port: u16) -> Self {
        let value = format!("h3=\":{port}\"; ma={ALT_SVC_MAX_AGE}");
        self.alt_svc = HeaderValue::try_from(value).ok();
        self
    }

    /// Lets nobody in but those who have credentials.
    #[must_use]
    pub fn with_auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// The name of this relay in Via and Proxy-Status.
    pub fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// The handler's judgement of resolved addresses. See [`Handler::allowed`].
    ///
    /// # Errors
    /// As there.
    pub fn allowed(
        &self,
        addresses: &[std::net::IpAddr],
        port: u16,
        name: Option<&str>,
    ) -> Result<Vec<std::net::SocketAddr>, Refusal> {
        self.handler.allowed(addresses, port, name)
    }

    /// The handler's judgement of the addresses of a scope. See [`Handler::allowed_in_scope`].
    ///
    /// # Errors
    /// As there.
    pub fn allowed_in_scope(
        &self,
        scope: &Scope,
        addresses: &[std::net::IpAddr],
    ) -> Result<Vec<std::net::IpAddr>, Refusal> {
        self.handler.allowed_in_scope(scope, addresses)
    }

    /// The answer to a request that is refused; `received` are the fields of the next hop's answer, if it gave one.
    pub fn refusal(
        &self,
        refusal: Refusal,
        received: Option<&HeaderMap>,
        carrier: Carrier,
    ) -> ResponseHead {
        let (status, headers) = match received {
            Some(received) => refusal.head_with(received, &self.pseudonym),
            None => refusal.head(&self.pseudonym),
        };
        let mut head = ResponseHead { status, headers };
        let challenge = match status {
            StatusCode::UNAUTHORIZED => Some(header::WWW_AUTHENTICATE),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Some(header::PROXY_AUTHENTICATE),
            _ => None,
        };
        // What a next hop asks for is passed on as it is.
        let is_ours = !matches!(refusal, Refusal::NextHopStatus { .. });
        if let (Some(name), Some(auth), true) = (challenge, &self.auth, is_ours) {
            head.headers.remove(&name);
            for value in auth.challenge_values() {
                head.headers.append(name.clone(), value);
            }
        }
        // 407 speaks for a proxy, which has no origin that the field could be about.
        if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            self.advertise(&mut head, carrier);
        }
        head
    }

    /// Adds our member of `Proxy-Status` to a refusal of the handler of this process.
    pub fn add_proxy_status(
        &self,
        head: &mut ResponseHead,
        error: ProxyError,
        details: Option<&str>,
    ) {
        if let Some(member) = proxy_status(&self.pseudonym, error, details) {
            head.headers.append(PROXY_STATUS, member);
        }
    }

    /// The answer that opens a tunnel: always 200 and never another 2xx, which some clients take for a failure.
    ///
    /// HTTP/1.1 turns the 200 of an upgrade into its 101.
    pub fn accepted(&self, protocol: Protocol, carrier: Carrier) -> ResponseHead {
        let mut head = ResponseHead::new(StatusCode::OK);
        if protocol.has_capsules() {
            head.headers.insert(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE);
            // Only here is it certain that the answer is one of our own origin, not of a target's.
            self.advertise(&mut head, carrier);
        }
        head
    }

    fn advertise(&self, head: &mut ResponseHead, carrier: Carrier) {
        match (&self.alt_svc, carrier) {
            (Some(value), Carrier::H2 | Carrier::H1) => {
                head.headers.insert(header::ALT_SVC, value.clone());
            }
            (Some(_), Carrier::H3) | (None, _) => {}
        }
    }

    /// Whether a request may be looked at: to be asked before [`plan`](Self::plan), so that a stranger learns nothing
    /// about policy and costs neither a lookup nor a socket.
    ///
    /// A request that asks for no tunnel needs no credentials: its refusal says nothing.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn authorize(&mut self, now: Instant, head: &RequestHead) -> Result<Access, Refusal> {
        let Some(auth) = self.auth.as_mut().filter(|_| head.is_connect()) else {
            return Ok(Access::Granted(None));
        };
        match auth.check(now, &head.headers) {
            Check::Granted(user) => Ok(Access::Granted(Some(user))),
            Check::Verify { key, job } => Ok(Access::Verify { key, job }),
            Check::Busy => Ok(Access::Busy),
            Check::Denied | Check::Missing => Err(self.unauthorized(head)),
        }
    }

    /// A password was checked: `None` refuses all requests that wait for it, as [`unauthorized`](Self::unauthorized).
    pub fn handle_verdict(&mut self, now: Instant, verdict: Verdict) -> Option<User> {
        self.auth.as_mut()?.handle_verdict(now, verdict)
    }

    /// How many passwords were forgotten before their time, as [`Auth::evicted`].
    pub fn passwords_evicted(&self) -> u64 {
        self.auth.as_ref().map_or(0, Auth::evicted)
    }

    /// A password could not be checked. Requests that wait for it are refused as overload.
    pub fn handle_check_dropped(&mut self, key: CheckKey) {
        if let Some(auth) = &mut self.auth {
            auth.handle_dropped(key);
        }
    }

    /// The refusal of a request with wrong credentials: 407 where the relay is asked as a proxy, 401 where it is asked
    /// for a resource of its own.
    pub fn unauthorized(&self, head: &RequestHead) -> Refusal {
        let challenges = self.auth.as_ref().is_none_or(Auth::challenges);
        match (challenges, head.is_extended_connect()) {
            (false, _) => Refusal::Forbidden,
            (true, true) => Refusal::Unauthorized,
            (true, false) => Refusal::ProxyUnauthorized,
        }
    }

    /// What to do with a request that came over `carrier`.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn plan(&self, head: &RequestHead, carrier: Carrier) -> Result<Plan, Refusal> {
        let (protocol, destination) = match head.path.as_deref() {
            None => self.classic(head)?,
            Some(path) => self.templated(head, path, carrier)?,
        };
        let route = match self.handler.decide(&destination) {
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Direct => Route::Direct,
            Decision::Ask => Route::Handler {
                via: self.via(&head.headers, carrier),
            },
            Decision::Chain => Route::Chain {
                via: self.via(&head.headers, carrier),
            },
        };
        Ok(Plan {
            protocol,
            destination,
            route,
        })
    }

    /// A classic CONNECT names its target as the authority. The origins of the relay do not matter: it is addressed
    /// as a proxy, which never answers 421 (RFC 9110 §15.5.20).
    fn classic(&self, head: &RequestHead) -> Result<(Protocol, Destination), Refusal> {
        if !head.is_connect() || head.is_extended_connect() {
            return Err(Refusal::MalformedRequest);
        }
        if !self.services.classic {
            return Err(Refusal::UnknownProtocol);
        }
        self.check_loop(head)?;
        let authority = head.authority.as_deref().unwrap_or_default();
        let target = authority.parse().map_err(|_| Refusal::MalformedTarget)?;
        Ok((Protocol::Tcp(Framing::Raw), Destination::Target(target)))
    }

    fn templated(
        &self,
        head: &RequestHead,
        path: &str,
        carrier: Carrier,
    ) -> Result<(Protocol, Destination), Refusal> {
        // The absolute form of an `http` URI asks a forward proxy to fetch something, which this is not.
        if !head.is_connect() && head.scheme.as_deref() == Some("http") {
            return Err(Refusal::MethodNotAllowed);
        }
        let udp = best_match(&self.services.udp, path);
        let tcp = best_match(&self.services.tcp, path);
        let ip = best_scope(&self.services.ip, path);
        if (&udp, &tcp, &ip) == (&Match::NoMatch, &Match::NoMatch, &ScopeMatch::NoMatch) {
            return Err(Refusal::NoTemplateMatch);
        }
        let Some(token) = head.protocol.as_deref().filter(|_| head.is_connect()) else {
            let token = match (udp, tcp) {
                (Match::Malformed(_) | Match::Target(_), _) => CONNECT_UDP,
                (_, Match::Malformed(_) | Match::Target(_)) => Revision::newest().token,
                (Match::NoMatch, Match::NoMatch) => CONNECT_IP,
            };
            return Err(match carrier {
                Carrier::H3 | Carrier::H2 => Refusal::MethodNotAllowed,
                Carrier::H1 => Refusal::UpgradeRequired { token },
            });
        };
        let (protocol, matched) = if token.eq_ignore_ascii_case(CONNECT_UDP) {
            (Protocol::Udp, udp.into())
        } else if token.eq_ignore_ascii_case(CONNECT_IP) {
            (Protocol::Ip, ip.into())
        } else if let Some(revision) = Revision::of_token(token) {
            // Drafts before the capsules sent the bytes as they are, under the same token.
            let framing = match capsule_protocol(&head.headers) {
                true => Framing::Capsules(revision),
                false => Framing::Raw,
            };
            (Protocol::Tcp(framing), tcp.into())
        } else {
            return Err(Refusal::UnknownProtocol);
        };
        if matched == Asked::Nothing {
            return Err(Refusal::UnknownProtocol);
        }
        let authority = without_default_port(head.authority.as_deref().unwrap_or_default());
        let known = |origin| without_default_port(origin).eq_ignore_ascii_case(authority);
        if !self.origins.is_empty() && !self.origins.iter().any(|origin| known(origin)) {
            return Err(Refusal::UnknownOrigin);
        }
        self.check_loop(head)?;
        match matched {
            Asked::For(destination) => Ok((protocol, destination)),
            Asked::Malformed | Asked::Nothing => Err(Refusal::MalformedTarget),
        }
    }

    fn check_loop(&self, head: &RequestHead) -> Result<(), Refusal> {
        match via::contains(&head.headers, &self.pseudonym) {
            true => Err(Refusal::LoopDetected),
            false => Ok(()),
        }
    }

    /// The Via field of a request that we pass on. Nothing else of the client's request travels: what it told us
    /// about itself is not for the next hop.
    fn via(&self, received: &HeaderMap, carrier: Carrier) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        for value in received.get_all(header::VIA) {
            headers.append(header::VIA, value.clone());
        }
        via::append(&mut headers, carrier.via_version(), &self.pseudonym).ok()?;
        let lines: Vec<_> = headers
            .get_all(header::VIA)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
    }
}

/// What the templates make of a path: a target, or else why there is none.
fn best_match(templates: &[PathTemplate], path: &str) -> Match {
    let matched = templates.iter().map(|template| template.match_path(path));
    matched.fold(Match::NoMatch, |best, next| match (&best, &next) {
        (Match::NoMatch, _) | (Match::Malformed(_), Match::Target(_)) => next,
        (Match::Malformed(_) | Match::Target(_), _) => best,
    })
}

/// The same for CONNECT-IP.
fn best_scope(templates: &[PathTemplate], path: &str) -> ScopeMatch {
    let matched = templates.iter().map(|template| template.match_scope(path));
    matched.fold(ScopeMatch::NoMatch, |best, next| match (&best, &next) {
        (ScopeMatch::NoMatch, _) | (ScopeMatch::Malformed(_), ScopeMatch::Scope(_)) => next,
        (ScopeMatch::Malformed(_) | ScopeMatch::Scope(_), _) => best,
    })
}

/// What a path asks for, whatever the service.
#[derive(Debug, PartialEq)]
enum Asked {
    Nothing,
    Malformed,
    For(Destination),
}

impl From<Match> for Asked {
    fn from(matched: Match) -> Self {
        match matched {
            Match::NoMatch => Self::Nothing,
            Match::Malformed(_) => Self::Malformed,
            Match::Target(target) => Self::For(target.into()),
        }
    }
}

impl From<ScopeMatch> for Asked {
    fn from(matched: ScopeMatch) -> Self {
        match matched {
            ScopeMatch::NoMatch => Self::Nothing,
            ScopeMatch::Malformed(_) => Self::Malformed,
            ScopeMatch::Scope(scope) => Self::For(scope.into()),
        }
    }
}

/// `example.org:443` and `example.org` are one origin (RFC 9110 §4.2.3).
fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":443").unwrap_or(authority)
}

/// Whether a response opens the tunnel that was asked for, and how its data stream looks then.
///
/// A missing Capsule-Protocol does not matter for UDP (RFC 9298 §3.5, RFC 9297 §3.2). For TCP it means that the relay
/// sends and takes the bytes as they are, even if capsules were offered; so nothing can be sent before the answer.
/// Fields about content mean nothing on an answer to classic CONNECT (RFC 9110 §9.3.6).
///
/// # Errors
/// Why not.
pub fn check_accepted(head: &ResponseHead, asked: Protocol) -> Result<Protocol, Refusal> {
    const NO_CAPSULES: [StatusCode; 3] = [
        StatusCode::NO_CONTENT,
        StatusCode::RESET_CONTENT,
        StatusCode::PARTIAL_CONTENT,
    ];
    const CONTENT: [header::HeaderName; 3] = [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
    ];
    if !head.status.is_success() {
        return Err(Refusal::NextHopStatus {
            status: head.status,
        });
    }
    let malformed = NO_CAPSULES.contains(&head.status)
        || CONTENT.iter().any(|name| head.headers.contains_key(name));
    if malformed && asked.has_capsules() {
        return Err(Refusal::NextHopProtocol);
    }
    Ok(match asked {
        Protocol::Tcp(Framing::Capsules(_)) if !capsule_protocol(&head.headers) => {
            Protocol::Tcp(Framing::Raw)
        }
        Protocol::Udp | Protocol::Ip | Protocol::Tcp(_) => asked,
    })
}

#[cfg(test)]
mod tests;
