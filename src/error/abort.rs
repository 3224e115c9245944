//! Why an established tunnel ends, and how its stream shows it.
//!
//! A tunnel that did its work ends with FIN, both ways; one that broke ends with a reset. Where FIN is sent while the
//! peer's direction is still open, STOP_SENDING with H3_NO_ERROR (RST_STREAM with NO_ERROR) follows it.
//! On HTTP/1.1 every row closes the connection.

use super::Side;

/// H3_NO_ERROR (RFC 9114 section 8.1): what STOP_SENDING carries after a FIN.
pub const H3_NO_ERROR: u64 = 0x0100;
pub(super) const H3_INTERNAL_ERROR: u64 = 0x0102;
pub(super) const H3_REQUEST_REJECTED: u64 = 0x010b;
pub(super) const H3_REQUEST_CANCELLED: u64 = 0x010c;
pub(super) const H3_MESSAGE_ERROR: u64 = 0x010e;
pub(super) const H3_CONNECT_ERROR: u64 = 0x010f;
/// RFC 9297 section 5.2.
pub(super) const H3_DATAGRAM_ERROR: u64 = 0x33;

/// NO_ERROR (RFC 9113 section 7).
pub(super) const NO_ERROR: u32 = 0x0;
pub(super) const PROTOCOL_ERROR: u32 = 0x1;
pub(super) const INTERNAL_ERROR: u32 = 0x2;
pub(super) const REFUSED_STREAM: u32 = 0x7;
pub(super) const CANCEL: u32 = 0x8;
pub(super) const CONNECT_ERROR: u32 = 0xa;

/// Reason why a tunnel ends after its 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.row().details)]
pub enum Abort {
    /// The system reports that the target cannot be reached (RFC 9298 section 3.1).
    TargetUnreachable,
    /// Nothing passed for the idle time (RFC 9298 section 3.1).
    Idle,
    /// The client sent a malformed or truncated capsule (RFC 9297 section 3.3).
    CapsuleError,
    /// More than 65527 bytes of UDP payload (RFC 9298 section 5).
    PayloadTooLong,
    /// The client closed its direction.
    ClientClosed,
    /// The client reset its direction or stopped ours.
    ClientCancelled,
    /// The relay drains and the time it gave is over.
    Drain,
    /// A fault of the relay.
    Internal,
    /// A TCP target or the next hop broke the connection or stream.
    UpstreamReset,
    /// A TCP target or the next hop closed in order.
    UpstreamClosed,
    /// The client's quota is used up, or its credentials expired.
    QuotaExceeded,
    /// A datagram on a request that has no use for datagrams (RFC 9297 section 2).
    DatagramWithoutSemantics,
    /// The user of an end closed it with a code of its own.
    Closed {
        /// The code on HTTP/3; others are sent the nearest they have.
        code: u64,
    },
    /// The request was over before the handler had decided.
    Undecided,
}

/// How a request stream ends on HTTP/3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN; with STOP_SENDING and [`H3_NO_ERROR`] if the client's direction is still open.
    Finish,
    /// RESET_STREAM and STOP_SENDING with this code.
    Reset(u64),
}

struct Row {
    ending: Ending,
    h2_code: u32,
    side: Side,
    label: &'static str,
    details: &'static str,
}

impl Abort {
    const fn row(self) -> Row {
        use Side::{Downstream, Local, Upstream};

        const fn finish(side: Side, label: &'static str, details: &'static str) -> Row {
            Row {
                ending: Ending::Finish,
                h2_code: NO_ERROR,
                side,
                label,
                details,
            }
        }
        const fn reset(
            (h3, h2_code): (u64, u32),
            side: Side,
            label: &'static str,
            details: &'static str,
        ) -> Row {
            Row {
                ending: Ending::Reset(h3),
                h2_code,
                side,
                label,
                details,
            }
        }
        const UPSTREAM_BROKE: (u64, u32) = (H3_CONNECT_ERROR, CONNECT_ERROR);
        const MALFORMED: (u64, u32) = (H3_MESSAGE_ERROR, PROTOCOL_ERROR);
        const BAD_DATAGRAM: (u64, u32) = (H3_DATAGRAM_ERROR, PROTOCOL_ERROR);
        const CANCELLED: (u64, u32) = (H3_REQUEST_CANCELLED, CANCEL);
        const FAULT: (u64, u32) = (H3_INTERNAL_ERROR, INTERNAL_ERROR);

        match self {
            Self::TargetUnreachable => reset(
                UPSTREAM_BROKE,
                Upstream,
                "target_unreachable",
                "the target is unreachable",
            ),
            Self::Idle => finish(Local, "idle", "the tunnel was idle"),
            Self::CapsuleError => reset(
                MALFORMED,
                Downstream,
                "capsule_error",
                "a capsule was malformed",
            ),
            Self::PayloadTooLong => reset(
                BAD_DATAGRAM,
                Downstream,
                "payload_too_long",
                "a UDP payload was too long",
            ),
            Self::ClientClosed => {
                finish(Downstream, "client_closed", "the client closed the tunnel")
            }
            Self::ClientCancelled => reset(
                CANCELLED,
                Downstream,
                "client_cancelled",
                "the client cancelled the tunnel",
            ),
            Self::Closed { code } => reset(
                (code, CANCEL),
                Local,
                "closed",
                "the tunnel was closed with a code",
            ),
            Self::Undecided => reset(
                CANCELLED,
                Downstream,
                "undecided",
                "the request was over before it was decided",
            ),
            Self::Drain => finish(Local, "drain", "the relay drained"),
            Self::Internal => reset(FAULT, Local, "internal", "internal fault"),
            Self::UpstreamReset => reset(
                UPSTREAM_BROKE,
                Upstream,
                "upstream_reset",
                "the upstream leg broke",
            ),
            Self::UpstreamClosed => finish(Upstream, "upstream_closed", "the upstream leg closed"),
            Self::QuotaExceeded => reset(
                CANCELLED,
                Downstream,
                "quota_exceeded",
                "the quota is used up",
            ),
            Self::DatagramWithoutSemantics => reset(
                BAD_DATAGRAM,
                Downstream,
                "datagram_without_semantics",
                "a datagram on a request without datagrams",
            ),
        }
    }

    /// How the stream ends on HTTP/3.
    pub const fn ending(self) -> Ending {
        self.row().ending
    }

    /// The RST_STREAM code on HTTP/2. With [`Ending::Finish`] it is NO_ERROR, sent after END_STREAM and only if the
    /// client's direction is still open. In reply to a RST_STREAM nothing is sent.
    pub const fn h2_code(self) -> u32 {
        self.row().h2_code
    }

    /// Where the cause lies.
    pub const fn side(self) -> Side {
        self.row().side
    }

    /// Value of the `reason` label of metrics.
    pub const fn label(self) -> &'static str {
        self.row().label
    }

    /// Whether opening the tunnel again, on another connection, can simply succeed.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Drain)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    use Ending::{Finish, Reset};

    /// The row of the specification; a new variant has to name its own.
    fn spec(abort: Abort) -> (&'static str, Ending, u32) {
        match abort {
            Abort::UpstreamReset => ("map-40", Reset(0x010f), 0xa),
            Abort::UpstreamClosed => ("map-41", Finish, 0),
            Abort::TargetUnreachable => ("map-42", Reset(0x010f), 0xa),
            Abort::Idle => ("map-43", Finish, 0),
            Abort::CapsuleError => ("map-44", Reset(0x010e), 0x1),
            Abort::PayloadTooLong => ("map-45", Reset(0x33), 0x1),
            Abort::QuotaExceeded => ("map-48", Reset(0x010c), 0x8),
            Abort::ClientCancelled => ("map-49", Reset(0x010c), 0x8),
            Abort::Drain => ("map-51", Finish, 0),
            Abort::DatagramWithoutSemantics => ("map-54", Reset(0x33), 0x1),
            Abort::Internal => ("map-55", Reset(0x0102), 0x2),
            Abort::ClientClosed => ("9298-3.1-t", Finish, 0),
            Abort::Closed { code } => ("of the user's", Reset(code), 0x8),
            Abort::Undecided => ("of the machine", Reset(0x010c), 0x8),
        }
    }

    const ALL: [Abort; 14] = [
        Abort::TargetUnreachable,
        Abort::Idle,
        Abort::CapsuleError,
        Abort::PayloadTooLong,
        Abort::ClientClosed,
        Abort::ClientCancelled,
        Abort::Drain,
        Abort::Internal,
        Abort::UpstreamReset,
        Abort::UpstreamClosed,
        Abort::QuotaExceeded,
        Abort::DatagramWithoutSemantics,
        Abort::Closed { code: 0x10f },
        Abort::Undecided,
    ];

    // spec: map-40, map-41, map-42, map-43, map-44, map-45, map-48, map-49, map-51, map-54, map-55, 9298-3.1-s
    #[test]
    fn every_row_follows_the_map() {
        for abort in ALL {
            let (id, ending, h2_code) = spec(abort);
            assert_eq!(
                (abort.ending(), abort.h2_code()),
                (ending, h2_code),
                "{id} {abort:?}"
            );
        }
        let ids: HashSet<_> = ALL.iter().map(|abort| spec(*abort).0).collect();
        assert_eq!(ids.len(), ALL.len());
    }

    #[test]
    fn labels_are_distinct_words() {
        let labels: HashSet<_> = ALL.iter().map(|abort| abort.label()).collect();
        assert_eq!(labels.len(), ALL.len());
        assert!(
            labels
                .iter()
                .all(|l| l.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
        );
    }
}
