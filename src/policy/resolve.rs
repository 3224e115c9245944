//! The hook between name resolution and policy: what a lookup ends with, and how a failure is answered.
//!
//! The lookup itself is I/O and lives in `net::resolve`. There is no cache here: the resolver keeps its own by TTL.

use std::net::IpAddr;

use crate::error::{Rcode, Refusal};

/// The end of a lookup: addresses in the order to try, never an empty list.
pub type Resolution = Result<Vec<IpAddr>, ResolveError>;

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResolveError {
    /// No answer in time.
    #[error("no answer from a name server in time")]
    Timeout,
    /// The name does not exist.
    #[error("the name does not exist")]
    NxDomain,
    /// The name server failed.
    #[error("the name server failed")]
    ServFail,
    /// The name server refused to answer.
    #[error("the name server refused to answer")]
    Refused,
    /// The name exists without an address.
    #[error("the name has no address")]
    NoRecords,
    /// Anything else: no usable name server, a malformed answer, a name that DNS cannot carry.
    #[error("the name could not be looked up")]
    Other,
}

/// RFC 9209 sections 2.3.1 and 2.3.2.
impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Self {
        let rcode = match error {
            ResolveError::Timeout => return Self::DnsTimeout,
            ResolveError::NxDomain => Some(Rcode::NxDomain),
            ResolveError::ServFail => Some(Rcode::ServFail),
            ResolveError::Refused => Some(Rcode::Refused),
            ResolveError::NoRecords => Some(Rcode::NoError),
            ResolveError::Other => None,
        };
        Self::DnsError { rcode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: map-13, map-14
    #[test]
    fn failures_are_answered_with_their_rcode() {
        for (error, rcode) in [
            (ResolveError::NxDomain, Some("NXDOMAIN")),
            (ResolveError::ServFail, Some("SERVFAIL")),
            (ResolveError::Refused, Some("REFUSED")),
            (ResolveError::NoRecords, Some("NOERROR")),
            (ResolveError::Other, None),
        ] {
            let Refusal::DnsError { rcode: found } = Refusal::from(error) else {
                panic!("{error:?}");
            };
            assert_eq!(found.map(Rcode::as_str), rcode);
        }
        assert_eq!(Refusal::from(ResolveError::Timeout), Refusal::DnsTimeout);
    }
}
