//! From what a worker says about a tunnel to what its user reads.

use ::http::StatusCode;

use super::tunnel::{CloseReason, Protocol};
use crate::error::{Abort, Attempt, Error, ErrorKind, Refusal, Side, Unreachable};
use crate::http::h3::code::Code;
use crate::worker::Refused;

/// Why a tunnel was refused.
pub(super) fn refused(refused: Refused) -> Error {
    let Refused {
        refusal,
        response,
        attempts,
    } = refused;
    let error = match response {
        Some(response) => Error::new(ErrorKind::Refused, Side::Upstream)
            .retryable(is_retryable(response.status))
            .with_status(response.status)
            .with_headers(response.headers)
            .with_source(format!("the relay answered {}", response.status)),
        None => unreachable(refusal),
    };
    let attempt = |(carrier, refusal)| Attempt::new(carrier, unreachable(refusal));
    error.with_attempts(attempts.into_iter().map(attempt).collect())
}

/// Why no relay answered.
fn unreachable(refusal: Refusal) -> Error {
    let reason = Unreachable(refusal);
    let row = refusal.row();
    let error = Error::new(reason.kind(), row.side)
        .retryable(row.retryable)
        .with_source(reason);
    match refused_with(refusal) {
        Some(status) => error.retryable(is_retryable(status)).with_status(status),
        None => error,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "one refusal carries what a relay said"
)]
const fn refused_with(refusal: Refusal) -> Option<StatusCode> {
    match refusal {
        Refusal::NextHopStatus { status } => Some(status),
        _ => None,
    }
}

/// Statuses that speak of a moment, not of the request (RFC 9110 §15, RFC 6585 §4, RFC 8470 §5.2).
const fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 421 | 425 | 429 | 503)
}

/// The relay took longer than the user waits.
pub(super) fn open_timeout() -> Error {
    Error::new(ErrorKind::Timeout, Side::Upstream)
        .retryable(true)
        .with_source("the tunnel did not open in time")
}

/// How a tunnel ended that was open.
pub(super) fn aborted(protocol: Protocol, abort: Abort, code: Option<Code>) -> CloseReason {
    // Datagrams have no other end than that one of the two has had enough; bytes do.
    let is_orderly = matches!(abort, Abort::UpstreamClosed | Abort::ClientClosed);
    if protocol == Protocol::Udp && is_orderly {
        return CloseReason::Finished;
    }
    let error = Error::new(ErrorKind::Aborted, abort.side())
        .retryable(abort.is_retryable())
        .with_code(code.map(|code| code.0))
        .with_source(abort);
    CloseReason::Aborted(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_follow_the_row() {
        assert!(unreachable(Refusal::Draining).is_retryable());
        assert!(unreachable(Refusal::Overloaded).is_retryable());
        assert!(!unreachable(Refusal::DeniedByRule).is_retryable());
        let closed = |abort| aborted(Protocol::Tcp, abort, None);
        let retryable = |abort| closed(abort).error().is_some_and(Error::is_retryable);
        assert!(retryable(Abort::Drain));
        assert!(!retryable(Abort::CapsuleError));
    }
}
