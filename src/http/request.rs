//! The heads of requests and responses, as every HTTP version hands them to the rest.
//!
//! A head holds what was checked by the codec of its version; [`HeadError`] says why a codec
//! refused one. Reaching a target, policy and answers are not decided here.

use ::http::{HeaderMap, Method, StatusCode};

/// A request: the pseudo-header fields of HTTP/2 and HTTP/3 and the ordinary fields.
///
/// Host, port and path are kept as they were sent; `wire` gives them their meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHead {
    /// `:method`.
    pub method: Method,
    /// `:protocol`, present only on extended CONNECT (RFC 8441 section 4).
    pub protocol: Option<Box<str>>,
    /// `:scheme`, absent on classic CONNECT.
    pub scheme: Option<Box<str>>,
    /// `:authority`, or `Host` where a request that is no classic CONNECT has only that.
    /// The target of a classic CONNECT, the proxy itself on extended CONNECT.
    pub authority: Option<Box<str>>,
    /// `:path` with its query, absent on classic CONNECT.
    pub path: Option<Box<str>>,
    /// All other fields.
    pub headers: HeaderMap,
}

impl RequestHead {
    /// A classic CONNECT to `authority`, a `host:port` (RFC 9114 section 4.4).
    pub fn classic_connect(authority: impl Into<Box<str>>) -> Self {
        Self {
            method: Method::CONNECT,
            protocol: None,
            scheme: None,
            authority: Some(authority.into()),
            path: None,
            headers: HeaderMap::new(),
        }
    }

    /// An extended CONNECT for `protocol`, an upgrade token such as `connect-udp`, to the proxy
    /// resource that the other three name (RFC 8441 section 4).
    pub fn extended_connect(
        protocol: impl Into<Box<str>>,
        scheme: impl Into<Box<str>>,
        authority: impl Into<Box<str>>,
        path: impl Into<Box<str>>,
    ) -> Self {
        Self {
            method: Method::CONNECT,
            protocol: Some(protocol.into()),
            scheme: Some(scheme.into()),
            authority: Some(authority.into()),
            path: Some(path.into()),
            headers: HeaderMap::new(),
        }
    }

    /// True for CONNECT in either form.
    pub fn is_connect(&self) -> bool {
        self.method == Method::CONNECT
    }

    /// True for CONNECT with `:protocol`. Its authority is never the target of a TCP tunnel.
    pub fn is_extended_connect(&self) -> bool {
        self.is_connect() && self.protocol.is_some()
    }
}

/// A response, interim or final.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseHead {
    /// `:status`.
    pub status: StatusCode,
    /// All other fields.
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// A response with this status and no fields.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
        }
    }

    /// True for 1xx: the final response is still to come.
    pub fn is_interim(&self) -> bool {
        self.status.is_informational()
    }
}

/// Why a request or response is malformed (RFC 9114 section 4.1.2, RFC 9113 section 8.1.1).
///
/// Names that the peer chose are cut to [`HeadError::NAME_LEN_MAX`] octets and escaped; values are
/// never shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A pseudo-header field that this message needs is absent.
    #[error("{name} is missing")]
    MissingPseudo {
        /// The absent field.
        name: &'static str,
    },
    /// A pseudo-header field appears twice.
    #[error("{name} is repeated")]
    DuplicatePseudo {
        /// The repeated field.
        name: &'static str,
    },
    /// A name with a colon in front that does not exist in this kind of message.
    #[error("{name} is no pseudo-header field of this message")]
    UnknownPseudo {
        /// The unknown field.
        name: Box<str>,
    },
    /// A pseudo-header field after an ordinary one, or in trailers.
    #[error("{name} comes after ordinary fields or in trailers")]
    MisplacedPseudo {
        /// The misplaced field.
        name: Box<str>,
    },
    /// A pseudo-header field that this method forbids: `:scheme` or `:path` on classic CONNECT,
    /// `:protocol` on anything but CONNECT.
    #[error("{name} is not allowed with this method")]
    ForbiddenPseudo {
        /// The forbidden field.
        name: &'static str,
    },
    /// A pseudo-header field is empty, has characters it must not have, or the wrong form.
    #[error("the value of {name} is invalid")]
    InvalidPseudo {
        /// The invalid field.
        name: &'static str,
    },
    /// The authority holds user information.
    #[error("the authority holds user information")]
    Userinfo,
    /// `Host` and `:authority` are both there and differ, or `Host` is repeated.
    #[error("host differs from :authority or is repeated")]
    HostMismatch,
    /// A field name in upper case.
    #[error("the field name {name} is not in lower case")]
    UpperCaseName {
        /// The field.
        name: Box<str>,
    },
    /// A field name that is empty or no token.
    #[error("the field name {name:?} is invalid")]
    InvalidName {
        /// The field.
        name: Box<str>,
    },
    /// A field value with control characters.
    #[error("the value of {name} is invalid")]
    InvalidValue {
        /// The field.
        name: Box<str>,
    },
    /// A field that belongs to one HTTP/1.1 connection.
    #[error("{name} is specific to a connection")]
    ConnectionSpecific {
        /// The field.
        name: &'static str,
    },
    /// `TE` with anything but `trailers`.
    #[error("te is not \"trailers\"")]
    InvalidTe,
    /// `Content-Length` is no number, or repeated with different numbers.
    #[error("content-length is invalid")]
    InvalidContentLength,
    /// A field that describes content, on a message that cannot have any (RFC 9297 section 3.2).
    #[error("{name} on a message without content")]
    ContentField {
        /// The field.
        name: &'static str,
    },
    /// `:status` is 101, which exists only in HTTP/1.1.
    #[error("status 101 does not exist in this version")]
    SwitchingProtocols,
    /// More fields than a header map holds.
    #[error("too many fields")]
    TooManyFields,
}

impl HeadError {
    /// How many octets of a name from the peer an error keeps.
    pub const NAME_LEN_MAX: usize = 64;
}
