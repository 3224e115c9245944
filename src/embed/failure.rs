//! From what a worker says about a tunnel to what its user reads.

use std::time::Duration;

use ::http::StatusCode;

use super::tunnel::{CloseReason, Protocol};
use crate::client::Failure;
use crate::error::{
    Abort, Attempt, CertificateFault, Error, ErrorKind, Refusal, Side, TlsFault, Unreachable,
};
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::worker::Refused;

/// Why a tunnel was refused.
pub(super) fn refused(refused: Refused) -> Error {
    let Refused {
        refusal,
        response,
        relay,
        target,
        pause,
        attempts,
    } = refused;
    // A carrier that was not even tried may be the one that works.
    let pauses = attempts.iter().any(|(_, failure)| failure.pause.is_some());
    let attempt = |(carrier, failure)| Attempt::new(carrier, failed(failure));
    let error = failed(Failure {
        refusal,
        response,
        relay,
        target,
        pause,
    });
    let retryable = error.is_retryable() || pauses;
    error
        .retryable(retryable)
        .with_attempts(attempts.into_iter().map(attempt).collect())
}

/// Why one carrier came to nothing.
fn failed(failure: Failure) -> Error {
    let Failure {
        refusal,
        response,
        relay,
        target,
        pause,
    } = failure;
    let error = reason(refusal, response, pause).with_hint(hint(refusal));
    error.with_place(relay.as_ref(), target.as_ref())
}

/// What to do about it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most reasons speak for themselves"
)]
const fn hint(refusal: Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::NextHopTls {
            fault: TlsFault::Certificate(CertificateFault::UnknownIssuer),
        } => Some("ClientBuilder::trust says whom to believe"),
        _ => None,
    }
}

fn reason(refusal: Refusal, response: Option<Box<ResponseHead>>, pause: Option<Duration>) -> Error {
    let reason = Unreachable(refusal);
    let row = refusal.row();
    if let Some(pause) = pause {
        return Error::new(reason.kind(), row.side)
            .retryable(true)
            .with_pause(pause)
            .with_source(reason);
    }
    match response {
        Some(response) => Error::new(ErrorKind::Refused, Side::Upstream)
            .retryable(is_retryable(response.status))
            .with_status(response.status)
            .with_headers(response.headers)
            .with_source(format!("the relay answered {}", response.status)),
        None => Error::new(reason.kind(), row.side)
            .retryable(row.retryable)
            .with_source(reason),
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
    if protocol != Protocol::Tcp && is_orderly {
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
        let retries = |refusal: Refusal| failed(refusal.into()).is_retryable();
        assert!(retries(Refusal::Draining));
        assert!(retries(Refusal::Overloaded));
        assert!(!retries(Refusal::DeniedByRule));
        let closed = |abort| aborted(Protocol::Tcp, abort, None);
        let retryable = |abort| closed(abort).error().is_some_and(Error::is_retryable);
        assert!(retryable(Abort::Drain));
        assert!(!retryable(Abort::CapsuleError));
    }
}
