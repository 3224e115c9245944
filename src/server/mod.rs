//! The server half of a relay: what a request must look like, and what the answer looks like.
//!
//! ```text
//!   head ─► method, :protocol ─► template ─► :authority ─► Via ─► handler ─► Plan │ Refusal
//! ```
//!
//! Sans-IO and without state: the same request always gets the same plan.

use ::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::error::Refusal;
use crate::handler::{Decision, Handler};
use crate::http::request::{RequestHead, ResponseHead};
use crate::wire::field::CAPSULE_PROTOCOL;
use crate::wire::target::Target;
use crate::wire::template::{Match, PathTemplate};
use crate::wire::via;

/// The only upgrade token served so far (RFC 9298 §3.4).
const CONNECT_UDP: &str = "connect-udp";

/// How to open a tunnel.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Resolve the target and connect a socket to it.
    Direct(Target),
    /// Send a request for the target to the next hop.
    Chain {
        /// What the tunnel shall reach.
        target: Target,
        /// The Via field of the request, with us in it.
        via: Option<HeaderValue>,
    },
}

/// Who may open what.
#[derive(Clone, Debug)]
pub struct Server {
    pseudonym: Box<str>,
    templates: Vec<PathTemplate>,
    origins: Vec<Box<str>>,
    handler: Handler,
}

impl Server {
    /// A relay of that pseudonym (Via, Proxy-Status), for requests whose path matches one of `templates`.
    ///
    /// `origins` are the values of `:authority` to accept, any if empty.
    pub fn new(
        pseudonym: &str,
        templates: Vec<PathTemplate>,
        origins: Vec<Box<str>>,
        handler: Handler,
    ) -> Self {
        Self {
            pseudonym: pseudonym.into(),
            templates,
            origins,
            handler,
        }
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

    /// The answer to a request that is refused; `received` are the fields of the next hop's answer, if it gave one.
    pub fn refusal(&self, refusal: Refusal, received: Option<&HeaderMap>) -> ResponseHead {
        let (status, headers) = match received {
            Some(received) => refusal.head_with(received, &self.pseudonym),
            None => refusal.head(&self.pseudonym),
        };
        ResponseHead { status, headers }
    }

    /// What to do with a request.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn plan(&self, head: &RequestHead) -> Result<Plan, Refusal> {
        let target = self.target(head)?;
        match self.handler.decide(&target) {
            Decision::Refuse(refusal) => Err(refusal),
            Decision::Direct => Ok(Plan::Direct(target)),
            Decision::Chain => Ok(Plan::Chain {
                target,
                via: self.via(&head.headers),
            }),
        }
    }

    fn target(&self, head: &RequestHead) -> Result<Target, Refusal> {
        // Classic CONNECT has neither path nor :protocol; it is not served on this carrier.
        let Some(path) = head.path.as_deref() else {
            return Err(Refusal::UnknownProtocol);
        };
        let matched = self
            .templates
            .iter()
            .map(|template| template.match_path(path));
        let matched = matched.fold(Match::NoMatch, |best, next| match (&best, &next) {
            (Match::NoMatch, _) | (Match::Malformed(_), Match::Target(_)) => next,
            (Match::Malformed(_) | Match::Target(_), _) => best,
        });
        if matches!(matched, Match::NoMatch) {
            return Err(Refusal::NoTemplateMatch);
        }
        if !head.is_connect() {
            return Err(Refusal::MethodNotAllowed);
        }
        if head.protocol.as_deref() != Some(CONNECT_UDP) {
            return Err(Refusal::UnknownProtocol);
        }
        let authority = without_default_port(head.authority.as_deref().unwrap_or_default());
        let known = |origin| without_default_port(origin).eq_ignore_ascii_case(authority);
        if !self.origins.is_empty() && !self.origins.iter().any(|origin| known(origin)) {
            return Err(Refusal::UnknownOrigin);
        }
        if via::contains(&head.headers, &self.pseudonym) {
            return Err(Refusal::LoopDetected);
        }
        match matched {
            Match::Target(target) => Ok(target),
            Match::Malformed(_) | Match::NoMatch => Err(Refusal::MalformedTarget),
        }
    }

    /// The Via field of a request that we pass on. Nothing else of the client's request travels: what it told us
    /// about itself is not for the next hop.
    fn via(&self, received: &HeaderMap) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        for value in received.get_all(header::VIA) {
            headers.append(header::VIA, value.clone());
        }
        via::append(&mut headers, "3", &self.pseudonym).ok()?;
        let lines: Vec<_> = headers
            .get_all(header::VIA)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
    }
}

/// `example.org:443` and `example.org` are one origin (RFC 9110 §4.2.3).
fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":443").unwrap_or(authority)
}

/// The answer that opens a tunnel: always 200 and never another 2xx, which some clients take for a failure.
pub fn accepted() -> ResponseHead {
    let mut headers = HeaderMap::new();
    headers.insert(CAPSULE_PROTOCOL, HeaderValue::from_static("?1"));
    ResponseHead {
        status: StatusCode::OK,
        headers,
    }
}

/// Whether a response opens the tunnel (RFC 9298 §3.5, RFC 9297 §3.2). A missing Capsule-Protocol does not matter.
///
/// # Errors
/// Why not.
pub fn check_accepted(head: &ResponseHead) -> Result<(), Refusal> {
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
    if malformed {
        Err(Refusal::NextHopProtocol)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
