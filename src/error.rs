//! The one table from failure to wire, and the error that users of the library see.
//!
//! ```text
//!  before the 2xx    Refusal ──► Row ──► status + Proxy-Status, or a stream code   (refusal)
//!  after the 2xx     Abort   ──► FIN or a stream code                              (abort)
//!  at the face       Error   ──► kind, side, retryable, source                     (here)
//! ```
//!
//! **Invariants.** Every refusal and every abort is one row, so that one failure is answered in one way by every
//! handler and on every carrier. Texts come from a fixed catalogue: no target, address, or system message reaches a
//! peer or a metric label (RFC 9209 section 4).
//!
//! Not here: connection errors of HTTP/3 and QUIC (their layers name them) and the reading of a peer's `Proxy-Status`.

mod abort;
mod refusal;
mod unreachable;

use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt};

use ::http::{HeaderMap, StatusCode};

use crate::wire::carrier::Carrier;
use crate::wire::ip::Destination;
use crate::wire::proxy_status::ProxyStatus;
use crate::wire::target::{Target, TargetError};
use crate::wire::template::DEFAULT_PORT;

pub use abort::{Abort, Ending, H3_NO_ERROR};
pub use refusal::{
    CertificateFault, NEXT_HOP_FIELDS, PROXY_STATUS, Rcode, Refusal, Row, StreamCode, TlsFault,
    proxy_status,
};
pub use unreachable::Unreachable;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration or an argument is invalid.
    Configuration,
    /// No connection to the relay could be made.
    Connect,
    /// TLS failed: handshake, certificate or alert.
    Tls,
    /// A tunnel was refused before it was established.
    Refused,
    /// An established tunnel broke.
    Aborted,
    /// The tunnel is over: this side closed it, or both sides have said everything.
    Closed,
    /// Nothing came in time.
    Timeout,
    /// The peer broke a protocol.
    Protocol,
    /// A limit is reached.
    Limit,
    /// The tunnel has no such operation.
    Unsupported,
    /// An operation of the system failed.
    Io,
    /// A fault of this program.
    Internal,
}

impl ErrorKind {
    /// A short description, the same for every error of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "invalid configuration",
            Self::Connect => "cannot connect",
            Self::Tls => "TLS failed",
            Self::Refused => "tunnel refused",
            Self::Aborted => "tunnel ended",
            Self::Closed => "tunnel closed",
            Self::Timeout => "timed out",
            Self::Protocol => "protocol error",
            Self::Limit => "limit reached",
            Self::Unsupported => "not supported",
            Self::Io => "system error",
            Self::Internal => "internal error",
        }
    }
}

/// Where the cause of an error lies, seen from the party that reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// Towards the client, or the client itself.
    Downstream,
    /// Towards the target: a next hop, name servers, or the target itself.
    Upstream,
    /// This process and its machine.
    Local,
}

/// The error of the public interface.
///
/// Opaque: match on [`kind`](Self::kind), ask [`is_retryable`](Self::is_retryable), and follow
/// [`source`](error::Error::source) for the cause. Print it with `{:#}`: everything on one line, the relay and the
/// target, each cause once, what the relay answered, and each carrier that failed in another way. Plain `{}` prints
/// this level only, for reports that walk the chain.
///
/// ```no_run
/// # fn example(client: bauta::Client) {
/// match client.udp_blocking("192.0.2.53:53") {
///     Ok(tunnel) => println!("open over {:?}", tunnel.info().carrier),
///     Err(error) if error.is_retryable() => println!("perhaps later: {error:#}"),
///     Err(error) => println!("{error:#}"),
/// }
/// # }
/// ```
///
/// Where a relay answered, its [`status`](Self::status), [`headers`](Self::headers) and
/// [`proxy_status`](Self::proxy_status) are there; where several carriers were tried, [`attempts`](Self::attempts) has
/// the error of each.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    side: Side,
    retryable: bool,
    status: Option<StatusCode>,
    headers: Option<HeaderMap>,
    code: Option<u64>,
    /// The origin of the relay that it is about.
    relay: Option<Box<str>>,
    /// What that relay was asked for.
    target: Option<Box<str>>,
    hint: Option<&'static str>,
    pause: Option<Duration>,
    attempts: Vec<Attempt>,
    source: Option<Arc<dyn error::Error + Send + Sync>>,
}

/// A carrier that was tried, and why it failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The HTTP version.
    pub carrier: Carrier,
    /// Why nothing came of it.
    pub error: Error,
}

impl Attempt {
    /// One attempt.
    pub(crate) const fn new(carrier: Carrier, error: Error) -> Self {
        Self { carrier, error }
    }
}

impl Error {
    /// An error without a cause, not retryable.
    pub(crate) fn new(kind: ErrorKind, side: Side) -> Self {
        Self(Box::new(Inner {
            kind,
            side,
            retryable: false,
            status: None,
            headers: None,
            code: None,
            relay: None,
            target: None,
            hint: None,
            pause: None,
            attempts: Vec::new(),
            source: None,
        }))
    }

    /// Adds the cause.
    #[must_use]
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Says that the same request can succeed when it is sent again.
    #[must_use]
    pub(crate) fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Adds the status that a relay answered with.
    #[must_use]
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Adds the fields of a relay's answer.
    #[must_use]
    pub(crate) fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers = Some(headers);
        self
    }

    /// Adds the code of the peer that ended the stream.
    #[must_use]
    pub(crate) fn with_code(mut self, code: Option<u64>) -> Self {
        self.0.code = code;
        self
    }

    /// Says that nothing was tried, and for how long nothing will be.
    #[must_use]
    pub(crate) fn with_pause(mut self, pause: Duration) -> Self {
        self.0.pause = Some(pause);
        self
    }

    /// Says which relay it is about, and what that was asked for.
    #[must_use]
    pub(crate) fn with_place(
        mut self,
        relay: Option<&Target>,
        target: Option<&Destination>,
    ) -> Self {
        self.0.relay = relay.map(|relay| match relay.port {
            DEFAULT_PORT => format!("https://{}", relay.host).into(),
            _ => format!("https://{relay}").into(),
        });
        self.0.target = target.map(|target| target.to_string().into());
        self
    }

    /// Says what can be done about it.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: Option<&'static str>) -> Self {
        self.0.hint = hint;
        self
    }

    /// Adds the carriers that were tried.
    #[must_use]
    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where the cause lies.
    #[must_use]
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Whether the same request, sent again on a fresh connection or after a delay, can succeed without anybody
    /// repairing anything. A target that cannot be reached is not retryable.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The relay that refused or could not be reached, as `https://host:port`: with several on the way, the one that
    /// it is about.
    #[must_use]
    pub fn relay(&self) -> Option<&str> {
        self.0.relay.as_deref()
    }

    /// The status of the answer, if a relay gave one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The fields of the answer, if a relay gave one: a challenge in `www-authenticate`, a delay in `retry-after`.
    #[must_use]
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.0.headers.as_ref()
    }

    /// What the relays say about the answer (RFC 9209): all members of `Proxy-Status` as they were received, the one
    /// nearest to the target first. A claim of the peers, for people to read.
    #[must_use]
    pub fn proxy_status(&self) -> Option<String> {
        let members: Vec<_> = self
            .headers()?
            .get_all(PROXY_STATUS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        (!members.is_empty()).then(|| members.join(", "))
    }

    /// The error type that the relay nearest to the target names (RFC 9209 §2.3), such as `dns_error`.
    #[must_use]
    pub fn proxy_error(&self) -> Option<&'static str> {
        let status = ProxyStatus::parse(self.headers()?);
        let error = status.members.iter().find_map(|member| member.error)?;
        Some(error.as_str())
    }

    /// The code with which the peer ended the stream (RFC 9114 §8.1; those of HTTP/2 are mapped), if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        self.0.code
    }

    /// The carriers that were tried, in the order of their failures. Empty where there was nothing to try.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }
}

/// What `{:#}` is made of.
impl Error {
    /// What failed, and where.
    fn headline(&self) -> String {
        let kind = self.0.kind.as_str();
        let Some(relay) = &self.0.relay else {
            return kind.to_owned();
        };
        match (self.0.kind, &self.0.target) {
            (ErrorKind::Refused, Some(target)) => format!("tunnel to {target} refused by {relay}"),
            (ErrorKind::Refused, None) => format!("{kind} by {relay}"),
            (ErrorKind::Connect, _) => format!("{kind} to {relay}"),
            (ErrorKind::Tls, _) => format!("TLS with {relay} failed"),
            (_, Some(target)) => format!("tunnel to {target} by {relay}: {kind}"),
            (_, None) => format!("{kind} at {relay}"),
        }
    }

    /// The headline, each cause once, and what the relay said.
    fn line(&self) -> String {
        let mut line = self.headline();
        let mut cause = error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their cause, and some causes begin with what they are the cause of.
            if !line.contains(&text) {
                let last = line.rsplit(": ").next().unwrap_or_default();
                let rest = text.strip_prefix(last);
                let rest = rest.and_then(|rest| rest.strip_prefix(": "));
                line.push_str(": ");
                line.push_str(rest.unwrap_or(&text));
            }
            cause = error.source();
        }
        if let Some(status) = self.0.status {
            let said = format!("the relay answered {}", status.as_u16());
            if !line.contains(&said) {
                line = format!("{line}: {said}");
            }
        }
        match self.said() {
            Some(said) => format!("{line}: {said}"),
            None => line,
        }
    }

    /// What the relays say in `Proxy-Status`, without their names.
    fn said(&self) -> Option<String> {
        let mut said: Vec<String> = Vec::new();
        for member in ProxyStatus::parse(self.headers()?).members {
            let error = member.error.map(|error| match &member.rcode {
                Some(rcode) => format!("{} ({rcode})", error.as_str()),
                None => error.as_str().to_owned(),
            });
            let details = member.details.map(|details| format!("\"{details}\""));
            let text: Vec<_> = error.into_iter().chain(details).collect();
            let text = text.join(", ");
            if !text.is_empty() && !said.contains(&text) {
                said.push(text);
            }
        }
        (!said.is_empty()).then(|| said.join(", then "))
    }

    /// How the carriers failed that have something else to say than the error as a whole.
    fn others(&self, line: &str) -> Vec<(String, String)> {
        let same_place = format!("{}: ", self.headline());
        let mut others: Vec<(String, String)> = Vec::new();
        for Attempt { carrier, error } in &self.0.attempts {
            let text = error.line();
            if text == line {
                continue;
            }
            let text = text.strip_prefix(&same_place).unwrap_or(&text).to_owned();
            match others.iter_mut().find(|(_, other)| *other == text) {
                Some((carriers, _)) => carriers.push_str(&format!(", {carrier}")),
                None => others.push((carrier.to_string(), text)),
            }
        }
        others
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return f.write_str(self.0.kind.as_str());
        }
        let line = self.line();
        f.write_str(&line)?;
        if let Some(pause) = self.0.pause {
            write!(f, "; not tried again for {} ms", pause.as_millis().max(1))?;
        }
        for (carriers, text) in self.others(&line) {
            write!(f, "; {carriers}: {text}")?;
        }
        match self.0.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("side", &self.0.side)
            .field("retryable", &self.0.retryable);
        if let Some(relay) = &self.0.relay {
            debug.field("relay", relay);
        }
        if let Some(pause) = &self.0.pause {
            debug.field("pause", pause);
        }
        if let Some(status) = self.0.status {
            debug.field("status", &status);
        }
        if let Some(text) = self.proxy_status() {
            debug.field("proxy_status", &text);
        }
        if let Some(code) = self.0.code {
            debug.field("code", &code);
        }
        if !self.0.attempts.is_empty() {
            debug.field("attempts", &self.0.attempts);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        Self::new(ErrorKind::Configuration, Side::Local).with_source(error)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refused(refusal: Refusal) -> Error {
        Error::new(ErrorKind::Refused, refusal.row().side).with_source(refusal)
    }

    #[test]
    fn display_prints_its_own_level_only() {
        let error = refused(Refusal::DnsTimeout);
        assert_eq!(error.to_string(), "tunnel refused");
        assert_eq!(
            error.source().unwrap().to_string(),
            "no answer from a name server in time"
        );
        assert_eq!(
            error.source().unwrap().downcast_ref(),
            Some(&Refusal::DnsTimeout)
        );
        assert_eq!(
            (error.kind(), error.side()),
            (ErrorKind::Refused, Side::Upstream)
        );
        assert!(!error.is_retryable());
        assert!(Error::new(ErrorKind::Io, Side::Local).source().is_none());
    }

    #[test]
    fn the_alternate_form_prints_everything() {
        let tried = |carrier, refusal| Attempt::new(carrier, refused(refusal));
        let attempts = vec![
            tried(Carrier::H3, Refusal::ConnectTimeout),
            tried(Carrier::H2, Refusal::ConnectionRefused),
        ];
        let headers = HeaderMap::from_iter([(PROXY_STATUS, "r; error=dns_error".parse().unwrap())]);
        let error = refused(Refusal::DnsTimeout)
            .with_status(StatusCode::BAD_GATEWAY)
            .with_headers(headers)
            .with_attempts(attempts);
        assert_eq!(
            format!("{error:#}"),
            "tunnel refused: no answer from a name server in time: the relay answered 502: dns_error; \
             h3: the target did not answer in time; h2: the target refused the connection"
        );
    }

    #[test]
    fn the_alternate_form_says_everything_once() {
        let relay: Target = "relay.test:443".parse().unwrap();
        let target: Target = "192.0.2.1:9".parse().unwrap();
        let said = "r; error=connection_refused; details=\"the target refused the connection\"";
        let headers = HeaderMap::from_iter([(PROXY_STATUS, said.parse().unwrap())]);
        let status = StatusCode::BAD_GATEWAY;
        let answered = Error::new(ErrorKind::Refused, Side::Upstream)
            .with_source(format!("the relay answered {status}"))
            .with_status(status)
            .with_headers(headers)
            .with_place(Some(&relay), Some(&target.into()));
        let tried = vec![Attempt::new(Carrier::H3, answered.clone())];
        assert_eq!(
            format!("{:#}", answered.with_attempts(tried)),
            "tunnel to 192.0.2.1:9 refused by https://relay.test: the relay answered 502 Bad Gateway: \
             connection_refused, \"the target refused the connection\""
        );

        let relay: Target = "[::1]:4433".parse().unwrap();
        let failed = |kind, refusal| {
            Error::new(kind, Side::Upstream)
                .with_source(Unreachable(refusal))
                .with_place(Some(&relay), None)
        };
        let refused = failed(ErrorKind::Connect, Refusal::ConnectionRefused);
        let silent = failed(ErrorKind::Timeout, Refusal::ConnectTimeout);
        let attempts = vec![
            Attempt::new(Carrier::H2, refused.clone()),
            Attempt::new(Carrier::H1, refused.clone()),
            Attempt::new(Carrier::H3, silent),
        ];
        let error = refused
            .with_pause(Duration::from_millis(250))
            .with_attempts(attempts);
        assert_eq!(
            format!("{error:#}"),
            "cannot connect to https://[::1]:4433: the relay refused the connection; not tried again for 250 ms; \
             h3: timed out at https://[::1]:4433: the relay did not answer in time"
        );
        assert_eq!(error.relay(), Some("https://[::1]:4433"));

        // A source that repeats its own.
        let inner = std::io::Error::other("listen on a: address in use");
        let error = Error::new(ErrorKind::Io, Side::Local).with_source(inner);
        let error = Error::new(ErrorKind::Io, Side::Local).with_source(error);
        assert_eq!(
            format!("{error:#}"),
            "system error: listen on a: address in use"
        );
    }
}
