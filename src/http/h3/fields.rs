//! Field lines to heads and back, with every rule that makes a message malformed
//! (RFC 9114 sections 4.2 to 4.4, RFC 8441 section 4, RFC 9297 section 3.2).
//!
//! A malformed message is a stream error `H3_MESSAGE_ERROR`. Requests other than CONNECT are read
//! too, so that a server can answer them. What a good request then means, whether the peer was
//! offered extended CONNECT, and the order of messages on a stream are decided elsewhere.

use bytes::Bytes;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, StatusCode};

use crate::http::request::{HeadError, RequestHead, ResponseHead};

use super::qpack::{self, FieldLine};

const METHOD: &str = ":method";
const PROTOCOL: &str = ":protocol";
const SCHEME: &str = ":scheme";
const AUTHORITY: &str = ":authority";
const PATH: &str = ":path";
const STATUS: &str = ":status";

/// Fields that mean something to one HTTP/1.1 connection only (RFC 9114 section 4.2).
const CONNECTION_SPECIFIC: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Reads a request from the field lines of its HEADERS frame, in their order.
///
/// # Errors
///
/// Why the request is malformed; on the wire that is the stream error `H3_MESSAGE_ERROR`.
pub fn request_from_lines(lines: Vec<FieldLine>) -> Result<RequestHead, HeadError> {
    let mut method = None;
    let mut protocol = None;
    let mut scheme = None;
    let mut authority = None;
    let mut path = None;
    let headers = read_lines(lines, |name, value| {
        let (name, slot, is_valid): (_, _, fn(&[u8]) -> bool) = match name {
            b":method" => (METHOD, &mut method, is_token),
            b":protocol" => (PROTOCOL, &mut protocol, is_protocol),
            b":scheme" => (SCHEME, &mut scheme, is_scheme),
            b":authority" => (AUTHORITY, &mut authority, is_authority),
            b":path" => (PATH, &mut path, is_path),
            _ => return Err(HeadError::UnknownPseudo { name: shown(name) }),
        };
        set_once(name, slot, value, is_valid)
    })?;

    let method = method.ok_or(HeadError::MissingPseudo { name: METHOD })?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadError::InvalidPseudo { name: METHOD })?;
    let mut head = RequestHead {
        method,
        protocol,
        scheme,
        authority,
        path,
        headers,
    };
    check_form(&head)?;
    check_authority(&mut head)?;
    check_content(&head)?;
    Ok(head)
}

/// Checks a request whose field lines another codec has read, as HTTP/2 does: what each method needs and forbids, the
/// authority, which `Host` stands in for, and fields that describe content.
///
/// # Errors
///
/// Why the request is malformed.
pub fn check_request(head: &mut RequestHead) -> Result<(), HeadError> {
    if let Some(authority) = head.authority.take() {
        set_once(
            AUTHORITY,
            &mut head.authority,
            authority.as_bytes(),
            is_authority,
        )?;
    }
    check_content_length(&head.headers)?;
    check_form(head)?;
    check_authority(head)?;
    check_content(head)
}

/// Reads a response, interim ones included, from the field lines of its HEADERS frame.
///
/// # Errors
///
/// Why the response is malformed; on the wire that is the stream error `H3_MESSAGE_ERROR`. A
/// response that opens a capsule stream needs [`check_capsule_fields`] in addition.
pub fn response_from_lines(lines: Vec<FieldLine>) -> Result<ResponseHead, HeadError> {
    let mut status = None;
    let headers = read_lines(lines, |name, value| match name {
        b":status" => set_once(STATUS, &mut status, value, |value| value.len() == 3),
        _ => Err(HeadError::UnknownPseudo { name: shown(name) }),
    })?;
    let status = status.ok_or(HeadError::MissingPseudo { name: STATUS })?;
    let status = StatusCode::from_bytes(status.as_bytes())
        .map_err(|_| HeadError::InvalidPseudo { name: STATUS })?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeadError::SwitchingProtocols);
    }
    Ok(ResponseHead { status, headers })
}

/// Reads the fields of trailers, where every pseudo-header field is malformed.
///
/// # Errors
///
/// Why the message is malformed.
pub fn trailers_from_lines(lines: Vec<FieldLine>) -> Result<HeaderMap, HeadError> {
    read_lines(lines, |name, _| {
        Err(HeadError::MisplacedPseudo { name: shown(name) })
    })
}

/// Checks that a message on a capsule stream does not describe content: neither `Content-Length`
/// nor `Content-Type` (`Transfer-Encoding` never passes). For requests this is done already; for
/// a 2xx to extended CONNECT the caller does it, as it knows the request.
///
/// # Errors
///
/// The field that makes the message malformed (RFC 9297 section 3.2).
pub fn check_capsule_fields(headers: &HeaderMap) -> Result<(), HeadError> {
    for name in ["content-length", "content-type"] {
        if headers.contains_key(name) {
            return Err(HeadError::ContentField { name });
        }
    }
    Ok(())
}

/// Appends the QPACK field section of a request.
///
/// `Authorization`, `Proxy-Authorization` and values marked sensitive are never indexed.
pub fn encode_request(head: &RequestHead, out: &mut Vec<u8>) {
    qpack::encode(request_lines(head), out);
}

/// Appends the QPACK field section of a response; sensitive fields as in [`encode_request`].
pub fn encode_response(head: &ResponseHead, out: &mut Vec<u8>) {
    qpack::encode(response_lines(head), out);
}

/// Octets of the request's field section, uncompressed, to be compared with the peer's
/// MAX_FIELD_SECTION_SIZE (RFC 9114 section 4.2.2).
pub fn section_size(head: &RequestHead) -> u64 {
    request_lines(head)
        .map(|(name, value, _)| qpack::line_size(name, value))
        .sum()
}

/// As [`section_size`], for a response.
pub fn response_section_size(head: &ResponseHead) -> u64 {
    response_lines(head)
        .map(|(name, value, _)| qpack::line_size(name, value))
        .sum()
}

type Line<'a> = (&'a [u8], &'a [u8], bool);

fn request_lines(head: &RequestHead) -> impl Iterator<Item = Line<'_>> {
    let pseudo = [
        (METHOD, Some(head.method.as_str())),
        (PROTOCOL, head.protocol.as_deref()),
        (SCHEME, head.scheme.as_deref()),
        (AUTHORITY, head.authority.as_deref()),
        (PATH, head.path.as_deref()),
    ];
    pseudo
        .into_iter()
        .filter_map(|(name, value)| Some((name.as_bytes(), value?.as_bytes(), false)))
        .chain(header_lines(&head.headers))
}

fn response_lines(head: &ResponseHead) -> impl Iterator<Item = Line<'_>> {
    let status = (STATUS.as_bytes(), head.status.as_str().as_bytes(), false);
    std::iter::once(status).chain(header_lines(&head.headers))
}

fn header_lines(headers: &HeaderMap) -> impl Iterator<Item = Line<'_>> {
    headers.iter().map(|(name, value)| {
        let never_indexed = value.is_sensitive() || is_secret(name);
        (name.as_str().as_bytes(), value.as_bytes(), never_indexed)
    })
}

/// Hands pseudo-header fields to `pseudo` and gathers the ordinary fields behind them.
fn read_lines(
    lines: Vec<FieldLine>,
    mut pseudo: impl FnMut(&[u8], &[u8]) -> Result<(), HeadError>,
) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::new();
    for line in lines {
        if line.name.starts_with(b":") {
            if !headers.is_empty() {
                return Err(HeadError::MisplacedPseudo {
                    name: shown(&line.name),
                });
            }
            pseudo(&line.name, &line.value)?;
            continue;
        }
        let (name, value) = read_field(line)?;
        headers
            .try_append(name, value)
            .map_err(|_| HeadError::TooManyFields)?;
    }
    check_content_length(&headers)?;
    Ok(headers)
}

fn read_field(line: FieldLine) -> Result<(HeaderName, HeaderValue), HeadError> {
    let FieldLine {
        name,
        value,
        never_indexed,
    } = line;
    if name.iter().any(u8::is_ascii_uppercase) {
        return Err(HeadError::UpperCaseName { name: shown(&name) });
    }
    if !is_token(&name) {
        return Err(HeadError::InvalidName { name: shown(&name) });
    }
    if let Some(&name) = CONNECTION_SPECIFIC
        .iter()
        .find(|known| known.as_bytes() == name)
    {
        return Err(HeadError::ConnectionSpecific { name });
    }
    let value = trim(&value);
    if name == "te" && !value.eq_ignore_ascii_case(b"trailers") {
        return Err(HeadError::InvalidTe);
    }
    let mut value = HeaderValue::from_maybe_shared(value)
        .map_err(|_| HeadError::InvalidValue { name: shown(&name) })?;
    let name = HeaderName::from_lowercase(&name)
        .map_err(|_| HeadError::InvalidName { name: shown(&name) })?;
    // Also keeps credentials out of what a head prints for debugging.
    value.set_sensitive(never_indexed || is_secret(&name));
    Ok((name, value))
}

/// Fields whose values no table may hold, whatever their sender said (RFC 9204 section 7.1.3).
fn is_secret(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || *name == header::PROXY_AUTHORIZATION
}

/// Stores a pseudo-header field that is not empty, valid, and there only once.
fn set_once(
    name: &'static str,
    slot: &mut Option<Box<str>>,
    value: &[u8],
    is_valid: impl Fn(&[u8]) -> bool,
) -> Result<(), HeadError> {
    if slot.is_some() {
        return Err(HeadError::DuplicatePseudo { name });
    }
    let text = std::str::from_utf8(value).map_err(|_| HeadError::InvalidPseudo { name })?;
    if name == AUTHORITY && text.contains('@') {
        return Err(HeadError::Userinfo);
    }
    if text.is_empty() || !is_valid(value) {
        return Err(HeadError::InvalidPseudo { name });
    }
    *slot = Some(text.into());
    Ok(())
}

/// Which pseudo-header fields the method needs and forbids (RFC 9114 sections 4.3.1 and 4.4,
/// RFC 8441 section 4).
fn check_form(head: &RequestHead) -> Result<(), HeadError> {
    if head.is_connect() && !head.is_extended_connect() {
        for (name, value) in [(SCHEME, &head.scheme), (PATH, &head.path)] {
            if value.is_some() {
                return Err(HeadError::ForbiddenPseudo { name });
            }
        }
        let authority = head.authority.as_deref();
        let authority = authority.ok_or(HeadError::MissingPseudo { name: AUTHORITY })?;
        return if has_port(authority) {
            Ok(())
        } else {
            Err(HeadError::InvalidPseudo { name: AUTHORITY })
        };
    }
    if head.protocol.is_some() && !head.is_connect() {
        return Err(HeadError::ForbiddenPseudo { name: PROTOCOL });
    }
    let scheme = head
        .scheme
        .as_deref()
        .ok_or(HeadError::MissingPseudo { name: SCHEME })?;
    let path = head
        .path
        .as_deref()
        .ok_or(HeadError::MissingPseudo { name: PATH })?;
    let asterisk = path == "*" && head.method == Method::OPTIONS;
    if is_http(scheme) && !path.starts_with('/') && !asterisk {
        return Err(HeadError::InvalidPseudo { name: PATH });
    }
    Ok(())
}

/// Compares `Host` with `:authority` and lets it stand in for it (RFC 9114 section 4.3.1).
fn check_authority(head: &mut RequestHead) -> Result<(), HeadError> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::HostMismatch);
    }
    match (head.authority.as_deref(), host) {
        (Some(authority), Some(host)) if host != authority => Err(HeadError::HostMismatch),
        (Some(_), _) => Ok(()),
        (None, Some(host)) => {
            let mut authority = None;
            set_once(AUTHORITY, &mut authority, host.as_bytes(), is_authority)?;
            head.authority = authority;
            Ok(())
        }
        (None, None) if head.is_connect() || head.scheme.as_deref().is_some_and(is_http) => {
            Err(HeadError::MissingPseudo { name: AUTHORITY })
        }
        (None, None) => Ok(()),
    }
}

/// No CONNECT has content: extended ones carry capsules, classic ones a TCP stream.
fn check_content(head: &RequestHead) -> Result<(), HeadError> {
    if head.is_extended_connect() {
        return check_capsule_fields(&head.headers);
    }
    let length = head.headers.get(header::CONTENT_LENGTH);
    if head.is_connect() && length.is_some_and(|length| length != "0") {
        return Err(HeadError::ContentField {
            name: "content-length",
        });
    }
    Ok(())
}

/// All `Content-Length` lines hold the same number (RFC 9110 section 8.6).
fn check_content_length(headers: &HeaderMap) -> Result<(), HeadError> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(());
    };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    if is_number && lengths.all(|length| length == first) {
        Ok(())
    } else {
        Err(HeadError::InvalidContentLength)
    }
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

/// `host:port`, with whatever host and port; `wire::target` reads them.
fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    })
}

/// RFC 9110 section 5.6.2.
fn is_token(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&b| is_token_octet(b))
}

fn is_token_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// An upgrade token, which may have a version behind a slash (RFC 9110 section 7.8).
fn is_protocol(value: &[u8]) -> bool {
    let mut parts = value.splitn(2, |&b| b == b'/');
    parts.all(is_token)
}

/// RFC 3986 section 3.1.
fn is_scheme(value: &[u8]) -> bool {
    value.first().is_some_and(u8::is_ascii_alphabetic)
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
}

/// Octets that can stand in the host and port of a URI (RFC 3986 section 3.2).
fn is_authority(value: &[u8]) -> bool {
    value
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b))
}

/// Visible ASCII without a fragment; finer rules are those of the template that is matched.
fn is_path(value: &[u8]) -> bool {
    value.iter().all(|b| b.is_ascii_graphic() && *b != b'#')
}

/// The value without the white space around it, which is not part of it (RFC 9110 section 5.5).
fn trim(value: &Bytes) -> Bytes {
    let is_text = |b: &u8| !matches!(b, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    value.slice(start..end)
}

/// A name of the peer's choosing, fit for a log line.
fn shown(name: &[u8]) -> Box<str> {
    let name = name.get(..HeadError::NAME_LEN_MAX).unwrap_or(name);
    name.escape_ascii().to_string().into()
}

#[cfg(test)]
mod tests;
