//! HTTP/1.1 for an endpoint that serves CONNECT and Upgrade and refuses the rest (RFC 9112, RFC 9110 sections 7.8 and
//! 9.3.6, RFC 9298 section 3.2), without I/O and without time.
//!
//! ```text
//!   bytes ─► inbound ─► scan ─────────► request / response ─► server / client ─► Event
//!            bounded    end of head,    httparse, fields,     whose turn it is   RequestHead,
//!            buffer     limits          target, framing                          ResponseHead
//! ```
//!
//! An upgrade comes up as the extended CONNECT that it is on HTTP/2 and HTTP/3 (RFC 8441), and goes out as GET with
//! Upgrade again; so the layers above know one form only. A connection carries one request at a time: bytes behind a
//! request stay unparsed until its answer has decided whether they are a tunnel, the next request, or nothing.
//!
//! Invariants: nothing after a refused CONNECT, an error or a request with content is ever parsed (RFC 9931 section 8);
//! a result does not depend on how the bytes were split; what is buffered stays within [`Limits`].
//!
//! Content goes out with a length that is known before; that of requests is never read, only thrown away.
//!
//! Not here: content that means something, chunked coding, TLS and its closure alerts, timeouts, and the
//! bytes that we send into a tunnel, which go to the byte stream as they are.

mod client;
mod fields;
#[doc(hidden)]
pub mod fuzz_entry;
mod inbound;
mod request;
mod response;
mod scan;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::http::{HeaderMap, StatusCode};

pub use self::client::{ClientConn, ClientError, ClientEvent, RequestError};
pub use self::server::{RespondError, Responded, ServerConn, ServerEvent};
use crate::http::request::HeadError;

/// Bounds of one connection, and what a server needs to know for it. All sizes are in bytes.
///
/// A connection buffers no more than the larger of `head_bytes_max` and `receive_bytes_max`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest head, from the first octet of the start line to the empty line.
    pub head_bytes_max: usize,
    /// Longest request target. RFC 9112 section 3 wants request lines of 8000 octets to work.
    pub target_bytes_max: usize,
    /// How much of a tunnel, or behind a request that waits for its answer, is buffered.
    pub receive_bytes_max: usize,
    /// Server: how much of a request's content is thrown away while its answer is sent; beyond that nothing is read.
    pub discard_bytes_max: usize,
    /// Server: the upgrade tokens that are served, in lower case. Of several offered ones the client's first counts.
    pub upgrades: &'static [&'static str],
    /// Server: what a refusal says that the machine writes by itself, beside its status and framing.
    pub refusal_fields: Arc<HeaderMap>,
}

impl Limits {
    /// As large as a field section on the other versions.
    pub const HEAD_BYTES_MAX: usize = 16 * 1024;
    /// Room for a template whose variables are as long as names get.
    pub const TARGET_BYTES_MAX: usize = 8 * 1024;
    /// Two TLS records.
    pub const RECEIVE_BYTES_MAX: usize = 32 * 1024;
    /// A form with a picture; what is longer is not wanted here.
    pub const DISCARD_BYTES_MAX: usize = 1024 * 1024;
    /// All protocols that the relay knows.
    pub const UPGRADES: &'static [&'static str] = &[
        "connect-udp",
        "connect-ip",
        "connect-tcp",
        "connect-tcp-07",
        "connect-tcp-12",
    ];
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: Self::HEAD_BYTES_MAX,
            target_bytes_max: Self::TARGET_BYTES_MAX,
            receive_bytes_max: Self::RECEIVE_BYTES_MAX,
            discard_bytes_max: Self::DISCARD_BYTES_MAX,
            upgrades: Self::UPGRADES,
            refusal_fields: Arc::default(),
        }
    }
}

/// Field lines of one head; RFC 9110 sets no number, clients of this relay send about ten.
pub const FIELDS_MAX: usize = 128;

/// Longest method. The longest registered one has 17 octets (RFC 9110 section 16.1.3).
pub const METHOD_BYTES_MAX: usize = 32;

/// Why a head was not accepted. A server answers with [`HeadFault::status`] and closes, a client closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// A control character, or CR or LF without the other (RFC 9112 section 2.2, RFC 9110 section 5.5).
    #[error("octet {octet:#04x} where it must not be")]
    Octet {
        /// The octet.
        octet: u8,
    },
    /// A line that is not the start line of a message, or more than one empty line before it.
    #[error("no start line")]
    StartLine,
    /// The parts of the head are not where they belong.
    #[error("{0}")]
    Syntax(httparse::Error),
    /// A field or the request target is invalid.
    #[error("{0}")]
    Invalid(HeadError),
    /// Transfer-Encoding that ends in something else than chunked, comes with Content-Length, or in HTTP/1.0
    /// (RFC 9112 section 6).
    #[error("the length of the content is ambiguous")]
    Framing,
    /// A request for a tunnel that has content (RFC 9110 section 9.3.6).
    #[error("a request for a tunnel has content")]
    Content,
    /// The head is longer than [`Limits::head_bytes_max`].
    #[error("head of more than {max} bytes")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// More than [`FIELDS_MAX`] field lines.
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// The request target is longer than [`Limits::target_bytes_max`].
    #[error("request target of more than {max} bytes")]
    TargetTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// The method is longer than [`METHOD_BYTES_MAX`].
    #[error("method of more than {METHOD_BYTES_MAX} bytes")]
    MethodTooLong,
}

impl HeadFault {
    /// What a server answers (RFC 9112 section 3, RFC 6585 section 5).
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Octet { .. }
            | Self::StartLine
            | Self::Syntax(_)
            | Self::Invalid(_)
            | Self::Framing
            | Self::Content => StatusCode::BAD_REQUEST,
            Self::TooLong { .. } | Self::TooManyFields => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::MethodTooLong => StatusCode::NOT_IMPLEMENTED,
        }
    }
}

/// What a request asks for, as it stood on the wire; `Upgrade` holds the token as it was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Connect,
    Upgrade(Box<str>),
    Plain,
}
