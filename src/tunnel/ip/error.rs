//! Why what somebody said on an IP tunnel does not hold.

use ipnet::IpNet;
use thiserror::Error;

use super::inbound::IP_VALUE_MAX;
use super::peer::{ADDRESSES_MAX, NAMES_MAX, PENDING_MAX, REQUESTS_MAX, ROUTES_MAX};
use crate::wire::capsule::{CapsuleError, CapsuleType};
use crate::wire::ip::{AddressRange, IpCapsuleError};

/// A mistake on the request stream of an IP tunnel.
///
/// What a `handle_*` returns is the peer's mistake and ends the stream (RFC 9484 §4.7); what another operation returns
/// is the caller's, and nothing has changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IpError {
    /// A capsule that changes addressing or routing, too long to be held. It cannot be skipped: it replaces a list.
    #[error("a capsule of type {:#x} of {len} bytes; the most is {IP_VALUE_MAX}", .kind.0)]
    CapsuleTooLong {
        /// The type.
        kind: CapsuleType,
        /// Length of the value in bytes.
        len: u64,
    },
    /// The value of such a capsule is malformed, or would be (RFC 9484 §4.7).
    #[error(transparent)]
    Capsule(#[from] IpCapsuleError),
    /// A DATAGRAM capsule too short for its Context ID (RFC 9297 §3.3).
    #[error("a DATAGRAM capsule without a Context ID")]
    NoContextId,
    /// The data stream ended inside a capsule (RFC 9297 §3.3).
    #[error(transparent)]
    CapsuleCut(#[from] CapsuleError),
    /// A request under a name that has been used on this stream (RFC 9484 §4.7.2).
    #[error("request id {id} for the second time")]
    RequestIdReused {
        /// The name.
        id: u64,
    },
    /// More requests than one end may wait for at a time.
    #[error("more than {PENDING_MAX} address requests without an answer")]
    TooManyPending,
    /// More requests than a stream may see.
    #[error("more than {REQUESTS_MAX} address requests on a stream")]
    TooManyRequests,
    /// DNS_ASSIGN with more name servers and domains than are kept.
    #[error("{count} name servers and domains; the most is {NAMES_MAX}")]
    TooManyNames {
        /// How many.
        count: usize,
    },
    /// ADDRESS_ASSIGN with more addresses and prefixes than are held.
    #[error("{count} addresses; the most is {ADDRESSES_MAX}")]
    TooManyAddresses {
        /// How many, without refusals.
        count: usize,
    },
    /// ROUTE_ADVERTISEMENT with more ranges than are held.
    #[error("{count} ranges of addresses; the most is {ROUTES_MAX}")]
    TooManyRoutes {
        /// How many.
        count: usize,
    },
    /// An answer to a request that the peer has not made.
    #[error("no request with id {id}")]
    UnknownRequest {
        /// The name that was given.
        id: u64,
    },
    /// Two answers to one request in one list (RFC 9484 §4.7.2).
    #[error("two answers to the request with id {id}")]
    AnsweredTwice {
        /// The name of the request.
        id: u64,
    },
    /// An address that is none, without a request that it could refuse.
    #[error("{prefix} is no address to assign unprompted")]
    NoAddress {
        /// 0.0.0.0/32 or ::/128.
        prefix: IpNet,
    },
    /// Two ranges of a list have an address in common, for one protocol or for all and one (RFC 9484 §4.7.3).
    #[error("ranges overlap: {} and {}", Shown(.first), Shown(.second))]
    RangesOverlap {
        /// One.
        first: AddressRange,
        /// The other.
        second: AddressRange,
    },
}

/// A range as text.
struct Shown<'a>(&'a AddressRange);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(range) = self;
        let AddressRange {
            start,
            end,
            protocol,
        } = range;
        write!(f, "{start} to {end} (protocol {protocol})")
    }
}
