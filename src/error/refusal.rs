//! Why a request is refused before its 2xx, and the one row that says how.
//!
//! The rows follow RFC 9209 section 2.3 except where clients tell failures apart better otherwise: a prohibited
//! address is 403 (not 502) and a loop is 508 (not 502).
//!
//! Our `Proxy-Status` member names the relay by its pseudonym and carries `error`, `rcode`, `details` and
//! `received-status`, in that order; never `next-hop`, which would tell strangers about the network behind the relay.

use std::time::Duration;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, PROXY_AUTHENTICATE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE},
};
use sfv::{
    List, ListSerializer, Parser, RefBareItem, StringRef, TokenRef, key_ref, string_ref, token_ref,
};

use super::{
    Side,
    abort::{H3_MESSAGE_ERROR, H3_REQUEST_REJECTED, PROTOCOL_ERROR, REFUSED_STREAM},
};
use crate::wire::proxy_status::ProxyError;

/// The field that says which relay refused a request, and why (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Fields of a next hop's refusal that are passed on next to its `Proxy-Status`: without them its status would not be
/// valid (401, 405, 407) or of less use (429, 503).
pub const NEXT_HOP_FIELDS: [HeaderName; 4] =
    [ALLOW, PROXY_AUTHENTICATE, RETRY_AFTER, WWW_AUTHENTICATE];

/// How long a client of a busy relay waits: long enough to drain a burst.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(2);
/// How long a client over its quota waits: quotas refill slower than bursts drain.
const RETRY_AFTER_QUOTA: Duration = Duration::from_secs(10);

/// Reason why a request is refused before a 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.row().details)]
pub enum Refusal {
    /// The path matches no template, or an origin outside the templates is asked for something else.
    NoTemplateMatch,
    /// A variable of the template is empty or malformed.
    MalformedTarget,
    /// The pseudo-header fields are malformed (RFC 9114 section 4.1.2).
    MalformedRequest,
    /// The `:protocol` is not served (RFC 9220 section 3).
    UnknownProtocol,
    /// A method other than CONNECT on a template path, HTTP/2 and HTTP/3.
    MethodNotAllowed,
    /// A request without usable Upgrade on a template path, HTTP/1.1.
    UpgradeRequired {
        /// The upgrade token that the path takes.
        token: &'static str,
    },
    /// A templated request for an origin that is not ours.
    UnknownOrigin,
    /// No or wrong credentials on a templated request.
    Unauthorized,
    /// No or wrong credentials on a classic CONNECT.
    ProxyUnauthorized,
    /// No or wrong credentials, where the relay does not say which ones it takes.
    Forbidden,
    /// A rule forbids the target.
    DeniedByRule,
    /// The target's address is in a range that is not public.
    AddressProhibited {
        /// The name of the range, for logs; never sent.
        range: &'static str,
    },
    /// The name does not resolve.
    DnsError {
        /// The response code, if there was a response.
        rcode: Option<Rcode>,
    },
    /// No answer from a name server in time.
    DnsTimeout,
    /// No route to the target.
    Unroutable,
    /// The target refused the connection.
    ConnectionRefused,
    /// The target did not accept the connection in time.
    ConnectTimeout,
    /// The target is known to be down.
    DestinationUnavailable,
    /// The limit on connections to this target is reached.
    ConnectionLimit,
    /// The relay is out of memory, sockets or ports.
    Overloaded,
    /// The client is over its rate or its number of tunnels.
    QuotaExceeded,
    /// The request head exceeds the limit.
    HeadTooLarge,
    /// The path exceeds the limit.
    TargetTooLong,
    /// The request would reach the relay itself, or already passed it.
    LoopDetected,
    /// The request came in early data and could be a replay.
    EarlyData,
    /// The relay is draining; the request was not looked at.
    Draining,
    /// TLS towards the next hop failed.
    NextHopTls {
        /// What failed.
        fault: TlsFault,
    },
    /// The next hop broke HTTP, or does not offer extended CONNECT.
    NextHopProtocol,
    /// The next hop refused the HTTP/1.1 upgrade.
    NextHopUpgrade,
    /// The next hop answered with a status that is not 2xx.
    NextHopStatus {
        /// The status as received.
        status: StatusCode,
    },
    /// The next hop did not answer in time.
    NextHopTimeout,
    /// No address left to assign (connect-ip).
    NoAddressLeft,
    /// The path carries no IP packet of 1,280 bytes (RFC 9484 section 7.2).
    PathTooSmall,
    /// A fault of the relay.
    Internal,
    /// The configuration of the relay does not fit the request.
    Misconfigured,
}

/// What went wrong in a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The handshake itself.
    Protocol,
    /// The peer's certificate is not acceptable.
    Certificate(CertificateFault),
    /// The peer sent a fatal alert.
    Alert {
        /// The AlertDescription of RFC 8446 section 6.
        id: u8,
    },
}

/// Why a peer's certificate is not acceptable: for its user here, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateFault {
    /// It was signed by nobody who is trusted.
    UnknownIssuer,
    /// It is for other names.
    WrongName,
    /// Its time is over, or has not come.
    Expired,
    /// Its key is none of those that are pinned.
    NotPinned,
    /// Anything else.
    Other,
}

/// DNS response codes that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rcode {
    /// The name exists, without an address record.
    NoError,
    /// The server failed.
    ServFail,
    /// The name does not exist.
    NxDomain,
    /// The server refused.
    Refused,
}

impl Rcode {
    /// The mnemonic of the IANA registry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::Refused => "REFUSED",
        }
    }
}

/// The code that ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCode {
    /// For RESET_STREAM and STOP_SENDING on HTTP/3 (RFC 9114 section 8.1).
    pub h3: u64,
    /// For RST_STREAM on HTTP/2 (RFC 9113 section 7).
    pub h2: u32,
}

/// How a refusal is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Status of the response.
    pub status: StatusCode,
    /// The `error` parameter of our `Proxy-Status` member.
    pub error: Option<ProxyError>,
    /// The `details` parameter: printable ASCII, without facts about the request.
    pub details: &'static str,
    /// Further fields, without which the status would be invalid (RFC 9110 sections 11.7.1, 15.5.2, 15.5.6, 15.5.22).
    pub fields: &'static [(&'static str, &'static str)],
    /// Value of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Where the carrier has streams, this code ends the request instead of a response.
    pub reset: Option<StreamCode>,
    /// Whether the client can simply send the request again.
    pub retryable: bool,
    /// Where the cause lies.
    pub side: Side,
    /// Value of the `reason` label of metrics.
    pub label: &'static str,
}

impl Row {
    const fn new(
        status: StatusCode,
        error: Option<ProxyError>,
        side: Side,
        label: &'static str,
        details: &'static str,
    ) -> Self {
        Self {
            status,
            error,
            details,
            fields: &[],
            retry_after: None,
            reset: None,
            retryable: false,
            side,
            label,
        }
    }

    const fn fields(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.fields = fields;
        self
    }

    const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.retryable = true;
        self
    }

    const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    const fn reset(mut self, h3: u64, h2: u32) -> Self {
        self.reset = Some(StreamCode { h3, h2 });
        self
    }
}

impl Refusal {
    /// The row of this refusal.
    #[rustfmt::skip]
    pub const fn row(&self) -> Row {
        use ProxyError as P;
        use Side::{Downstream, Local, Upstream};
        use StatusCode as S;

        const REQUEST_ERROR: Option<P> = Some(P::HttpRequestError);
        const INTERNAL_RESPONSE: Option<P> = Some(P::ProxyInternalResponse);

        match self {
            Self::NoTemplateMatch => Row::new(S::NOT_FOUND, REQUEST_ERROR, Downstream,
                "no_template_match", "no template matches the path"),
            Self::MalformedTarget => Row::new(S::BAD_REQUEST, REQUEST_ERROR, Downstream,
                "malformed_target", "the target is malformed"),
            Self::MalformedRequest => Row::new(S::BAD_REQUEST, None, Downstream,
                "malformed_request", "the request is malformed")
                .reset(H3_MESSAGE_ERROR, PROTOCOL_ERROR),
            Self::UnknownProtocol => Row::new(S::NOT_IMPLEMENTED, INTERNAL_RESPONSE, Downstream,
                "unknown_protocol", "the protocol is not supported"),
            Self::MethodNotAllowed => Row::new(S::METHOD_NOT_ALLOWED, REQUEST_ERROR, Downstream,
                "method_not_allowed", "the method is not allowed here")
                .fields(&[("allow", "CONNECT")]),
            Self::UpgradeRequired { .. } => Row::new(S::UPGRADE_REQUIRED, REQUEST_ERROR, Downstream,
                "upgrade_required", "an upgrade is required here")
                .fields(&[("connection", "Upgrade")]),
            Self::UnknownOrigin => Row::new(S::MISDIRECTED_REQUEST, REQUEST_ERROR, Downstream,
                "unknown_origin", "the origin is not served here")
                .retryable(),
            Self::Unauthorized => Row::new(S::UNAUTHORIZED, REQUEST_ERROR, Downstream,
                "unauthorized", "credentials are required")
                .fields(&[("www-authenticate", "Bearer")]),
            Self::ProxyUnauthorized => Row::new(S::PROXY_AUTHENTICATION_REQUIRED, REQUEST_ERROR, Downstream,
                "proxy_unauthorized", "proxy credentials are required")
                .fields(&[("proxy-authenticate", "Bearer")]),
            Self::Forbidden => Row::new(S::FORBIDDEN, REQUEST_ERROR, Downstream,
                "forbidden", "the request is not allowed"),
            Self::DeniedByRule => Row::new(S::FORBIDDEN, Some(P::HttpRequestDenied), Downstream,
                "denied_by_rule", "a rule forbids the target"),
            Self::AddressProhibited { .. } => Row::new(S::FORBIDDEN, Some(P::DestinationIpProhibited), Downstream,
                "address_prohibited", "the address of the target is prohibited"),
            Self::DnsError { .. } => Row::new(S::BAD_GATEWAY, Some(P::DnsError), Upstream,
                "dns_error", "the name does not resolve"),
            Self::DnsTimeout => Row::new(S::GATEWAY_TIMEOUT, Some(P::DnsTimeout), Upstream,
                "dns_timeout", "no answer from a name server in time"),
            Self::Unroutable => Row::new(S::BAD_GATEWAY, Some(P::DestinationIpUnroutable), Upstream,
                "unroutable", "no route to the target"),
            Self::ConnectionRefused => Row::new(S::BAD_GATEWAY, Some(P::ConnectionRefused), Upstream,
                "connection_refused", "the target refused the connection"),
            Self::ConnectTimeout => Row::new(S::GATEWAY_TIMEOUT, Some(P::ConnectionTimeout), Upstream,
                "connect_timeout", "the target did not answer in time"),
            Self::DestinationUnavailable => Row::new(S::SERVICE_UNAVAILABLE, Some(P::DestinationUnavailable), Upstream,
                "destination_unavailable", "the target is down"),
            Self::ConnectionLimit => Row::new(S::SERVICE_UNAVAILABLE, Some(P::ConnectionLimitReached), Local,
                "connection_limit", "too many connections to the target"),
            Self::Overloaded => Row::new(S::SERVICE_UNAVAILABLE, INTERNAL_RESPONSE, Local,
                "overloaded", "the relay is overloaded")
                .retry_after(RETRY_AFTER_OVERLOAD),
            Self::QuotaExceeded => Row::new(S::TOO_MANY_REQUESTS, REQUEST_ERROR, Downstream,
                "quota_exceeded", "the quota is used up")
                .retry_after(RETRY_AFTER_QUOTA),
            Self::HeadTooLarge => Row::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, REQUEST_ERROR, Downstream,
                "head_too_large", "the request head is too large"),
            Self::TargetTooLong => Row::new(S::URI_TOO_LONG, REQUEST_ERROR, Downstream,
                "target_too_long", "the path is too long"),
            Self::LoopDetected => Row::new(S::LOOP_DETECTED, Some(P::ProxyLoopDetected), Downstream,
                "loop_detected", "the request came back to this relay"),
            Self::EarlyData => Row::new(S::TOO_EARLY, REQUEST_ERROR, Downstream,
                "early_data", "not accepted in early data")
                .retryable(),
            Self::Draining => Row::new(S::SERVICE_UNAVAILABLE, INTERNAL_RESPONSE, Local,
                "draining", "the relay is draining")
                .retryable()
                .reset(H3_REQUEST_REJECTED, REFUSED_STREAM),
            Self::NextHopTls { fault: TlsFault::Protocol } => Row::new(
                S::BAD_GATEWAY, Some(P::TlsProtocolError), Upstream,
                "next_hop_tls", "TLS with the next hop failed"),
            Self::NextHopTls { fault: TlsFault::Certificate(_) } => Row::new(
                S::BAD_GATEWAY, Some(P::TlsCertificateError), Upstream,
                "next_hop_certificate", "the certificate of the next hop is not acceptable"),
            Self::NextHopTls { fault: TlsFault::Alert { .. } } => Row::new(
                S::BAD_GATEWAY, Some(P::TlsAlertReceived), Upstream,
                "next_hop_alert", "the next hop ended the TLS handshake"),
            Self::NextHopProtocol => Row::new(S::BAD_GATEWAY, Some(P::HttpProtocolError), Upstream,
                "next_hop_protocol", "the next hop cannot carry the request"),
            Self::NextHopUpgrade => Row::new(S::BAD_GATEWAY, Some(P::HttpUpgradeFailed), Upstream,
                "next_hop_upgrade", "the next hop refused the upgrade"),
            Self::NextHopStatus { status } => Row::new(passed_on(*status), None, Upstream,
                "next_hop_status", "the next hop refused the request"),
            Self::NextHopTimeout => Row::new(S::GATEWAY_TIMEOUT, Some(P::HttpResponseTimeout), Upstream,
                "next_hop_timeout", "the next hop did not answer in time"),
            Self::NoAddressLeft => Row::new(S::SERVICE_UNAVAILABLE, INTERNAL_RESPONSE, Local,
                "no_address_left", "no address is left to assign"),
            Self::PathTooSmall => Row::new(S::BAD_GATEWAY, Some(P::DestinationIpUnroutable), Local,
                "path_too_small", "the path carries no packet of 1280 bytes"),
            Self::Internal => Row::new(S::INTERNAL_SERVER_ERROR, Some(P::ProxyInternalError), Local,
                "internal", "internal fault"),
            Self::Misconfigured => Row::new(S::INTERNAL_SERVER_ERROR, Some(P::ProxyConfigurationError), Local,
                "misconfigured", "the relay is not configured for this"),
        }
    }

    /// The code that ends the request without a response on HTTP/3 and HTTP/2. HTTP/1.1 sends [`head`](Self::head).
    pub const fn reset(&self) -> Option<StreamCode> {
        self.row().reset
    }

    /// Value of the `reason` label of metrics.
    pub const fn label(&self) -> &'static str {
        self.row().label
    }

    /// The head of the response: status, `Proxy-Status`, and the fields that the status requires. It never carries
    /// `Capsule-Protocol` (RFC 9297 section 3.4). 401 and 407 carry the challenge `Bearer`; a relay that takes other
    /// schemes appends their challenges.
    ///
    /// `pseudonym` names this deployment; bytes outside printable ASCII are left out.
    pub fn head(&self, pseudonym: &str) -> (StatusCode, HeaderMap) {
        self.head_with(&HeaderMap::new(), pseudonym)
    }

    /// Like [`head`](Self::head), and for [`Refusal::NextHopStatus`] with what is passed on of the next hop's fields
    /// `existing`: its `Proxy-Status` lines before our member (RFC 9209 section 2), unless they do not parse, which
    /// would make the client ignore the whole field; and [`NEXT_HOP_FIELDS`].
    pub fn head_with(&self, existing: &HeaderMap, pseudonym: &str) -> (StatusCode, HeaderMap) {
        let row = self.row();
        let mut headers = HeaderMap::new();
        if let Self::NextHopStatus { .. } = self {
            for name in &NEXT_HOP_FIELDS {
                for value in existing.get_all(name) {
                    headers.append(name, value.clone());
                }
            }
            if is_list(existing) {
                for value in existing.get_all(PROXY_STATUS) {
                    headers.append(PROXY_STATUS, value.clone());
                }
            }
        }
        for &(name, value) in row.fields {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        if let Self::UpgradeRequired { token } = self {
            headers.insert(UPGRADE, HeaderValue::from_static(token));
        }
        if let Some(delay) = row.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        if let Some(member) = self.member(&row, pseudonym) {
            headers.append(PROXY_STATUS, member);
        }
        (row.status, headers)
    }

    /// Our member of `Proxy-Status`; none where the request was malformed, which is the client's business alone.
    fn member(&self, row: &Row, pseudonym: &str) -> Option<HeaderValue> {
        if matches!(self, Self::MalformedRequest) {
            return None;
        }
        let mut list = ListSerializer::new();
        let name: String = pseudonym
            .chars()
            .filter(|c| matches!(c, ' '..='~'))
            .collect();
        let mut member = list.bare_item(token_or_string(&name)?);
        if let Some(error) = row.error {
            member = member.parameter(key_ref("error"), token_ref(error.as_str()));
        }
        if let Self::DnsError { rcode: Some(rcode) } = self {
            member = member.parameter(key_ref("rcode"), string_ref(rcode.as_str()));
        }
        if let Self::NextHopTls {
            fault: TlsFault::Alert { id },
        } = self
        {
            member = member.parameter(key_ref("alert-id"), *id);
        }
        member = member.parameter(key_ref("details"), string_ref(row.details));
        if let Self::NextHopStatus { status } = self {
            member.parameter(key_ref("received-status"), status.as_u16());
        }
        HeaderValue::try_from(list.finish()?).ok()
    }
}

/// Our member of `Proxy-Status` for a request that a handler refused, with its own words for it; characters that the
/// field cannot hold are left out.
pub fn proxy_status(
    pseudonym: &str,
    error: ProxyError,
    details: Option<&str>,
) -> Option<HeaderValue> {
    let printable = |text: &str| -> String { text.replace(|c| !matches!(c, ' '..='~'), "") };
    let name = printable(pseudonym);
    let mut list = ListSerializer::new();
    let member = list
        .bare_item(token_or_string(&name)?)
        .parameter(key_ref("error"), token_ref(error.as_str()));
    if let Some(details) = details.map(printable) {
        member.parameter(key_ref("details"), StringRef::from_str(&details).ok()?);
    }
    HeaderValue::try_from(list.finish()?).ok()
}

/// A pseudonym as a member of the field: a Token if it can be one, as host names can, otherwise a String.
fn token_or_string(name: &str) -> Option<RefBareItem<'_>> {
    match TokenRef::from_str(name) {
        Ok(token) => Some(RefBareItem::Token(token)),
        Err(_) => StringRef::from_str(name).ok().map(RefBareItem::String),
    }
}

/// Whether the lines of `Proxy-Status` make up a List that can be appended to (RFC 9651 section 4.2); an empty line is
/// a List too, but not in front of another member.
fn is_list(headers: &HeaderMap) -> bool {
    let lines: Vec<_> = headers
        .get_all(PROXY_STATUS)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let list = Parser::new(&lines.join(&b","[..])).parse::<List>();
    list.is_ok_and(|list| !list.is_empty())
}

/// The status to answer with when the next hop answered `status`: only 3xx to 5xx can be the end of a refusal.
const fn passed_on(status: StatusCode) -> StatusCode {
    match status.as_u16() {
        300..=599 => status,
        _ => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests;
