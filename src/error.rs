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

use std::{error, fmt};

pub use abort::{Abort, Ending, H3_NO_ERROR};
pub use refusal::{
    NEXT_HOP_FIELDS, PROXY_STATUS, Rcode, Refusal, Row, StreamCode, TlsFault, proxy_status,
};

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
    /// An established tunnel ended.
    Aborted,
    /// Nothing came in time.
    Timeout,
    /// The peer broke a protocol.
    Protocol,
    /// A limit is reached.
    Limit,
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
            Self::Timeout => "timed out",
            Self::Protocol => "protocol error",
            Self::Limit => "limit reached",
            Self::Io => "system error",
            Self::Internal => "internal error",
        }
    }
}

/// Where the cause of an error lies, seen from the party that reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
/// [`source`](error::Error::source) for the cause. `Display` prints this level only.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    side: Side,
    retryable: bool,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause, not retryable.
    pub fn new(kind: ErrorKind, side: Side) -> Self {
        Self(Box::new(Inner {
            kind,
            side,
            retryable: false,
            source: None,
        }))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that the same request can succeed when it is sent again.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where the cause lies.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Whether the same request, sent again on a fresh connection or after a delay, can succeed without anybody
    /// repairing anything. A target that cannot be reached is not retryable.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.as_str())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("side", &self.0.side)
            .field("retryable", &self.0.retryable)
            .field("source", &self.0.source)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let row = refusal.row();
        Self::new(ErrorKind::Refused, row.side)
            .retryable(row.retryable)
            .with_source(refusal)
    }
}

impl From<Abort> for Error {
    fn from(abort: Abort) -> Self {
        Self::new(ErrorKind::Aborted, abort.side())
            .retryable(abort.is_retryable())
            .with_source(abort)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn display_prints_its_own_level_only() {
        let error = Error::from(Refusal::DnsTimeout);
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
    fn retries_follow_the_row() {
        assert!(Error::from(Refusal::Draining).is_retryable());
        assert!(Error::from(Refusal::Overloaded).is_retryable());
        assert!(!Error::from(Refusal::DeniedByRule).is_retryable());
        assert!(Error::from(Abort::Drain).is_retryable());
        assert!(!Error::from(Abort::CapsuleError).is_retryable());
    }
}
