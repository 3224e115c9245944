//! Stands in for what handles of clients bring.

use crate::error::Error;

/// Why a tunnel is over.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    Local,
    /// It has come to its end in order.
    Finished,
    /// It broke.
    Aborted(Error),
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// UDP payloads (RFC 9298).
    Udp,
    /// The bytes of a TCP connection (RFC 9110 §9.3.6, draft-ietf-httpbis-connect-tcp).
    Tcp,
}
