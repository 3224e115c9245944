//! Field lines of HTTP/1.1: into a map and back, lists, the fields of one connection, and the length of content.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::{BufMut, BytesMut};

use super::HeadFault;
use crate::http::request::HeadError;

/// Fields that mean something to one connection only, whether Connection names them or not (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a request says that content follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    None,
    Follows,
}

/// The field lines, checked by httparse before, as a map. Names become lower case.
pub(super) fn read(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadFault> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|_| HeadFault::Syntax(httparse::Error::HeaderName))?;
        let mut value = HeaderValue::from_bytes(line.value)
            .map_err(|_| HeadFault::Syntax(httparse::Error::HeaderValue))?;
        value.set_sensitive(name == header::AUTHORIZATION || name == header::PROXY_AUTHORIZATION);
        headers
            .try_append(name, value)
            .map_err(|_| HeadFault::TooManyFields)?;
    }
    Ok(headers)
}

/// Writes one field line. The types admit no line end in either part.
pub(super) fn write_line(name: &str, value: &[u8], out: &mut BytesMut) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes what goes to any next hop: all but the fields of one connection and those that frame content.
pub(super) fn write(headers: &HeaderMap, out: &mut BytesMut) {
    let nominated = nominated(headers);
    for (name, value) in headers {
        let is_ours = is_hop_by_hop(name)
            || *name == header::HOST
            || *name == header::CONTENT_LENGTH
            || nominated.contains(name);
        if !is_ours {
            write_line(name.as_str(), value.as_bytes(), out);
        }
    }
}

/// Removes the fields of one connection: the known ones and those that Connection names, but not the credentials for
/// a proxy, which is what we are.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    members(headers, &header::CONNECTION)
        .filter_map(|member| HeaderName::from_bytes(member.as_bytes()).ok())
        .filter(|name| *name != header::PROXY_AUTHORIZATION)
        .collect()
}

/// The members of a list field over all its lines, empty ones left out (RFC 9110 section 5.6.1). A line that is not
/// visible ASCII has none.
pub(super) fn members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
}

/// Whether Connection holds this option (RFC 9110 section 7.6.1).
pub(super) fn has_option(headers: &HeaderMap, option: &str) -> bool {
    members(headers, &header::CONNECTION).any(|member| member.eq_ignore_ascii_case(option))
}

/// Whether a request has content; every doubt about its length is an error (RFC 9112 section 6.3).
pub(super) fn content(headers: &HeaderMap, is_http_1_0: bool) -> Result<Content, HeadFault> {
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let last = members(headers, &header::TRANSFER_ENCODING).last();
        let is_chunked = last.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let is_readable = headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .all(|value| value.to_str().is_ok());
        return if has_length || is_http_1_0 || !is_chunked || !is_readable {
            Err(HeadFault::Framing)
        } else {
            Ok(Content::Follows)
        };
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(Content::None),
        (Some(length), None) => {
            let digits = length.as_bytes();
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(HeadFault::Invalid(HeadError::InvalidContentLength));
            }
            let is_zero = digits.iter().all(|digit| *digit == b'0');
            Ok(if is_zero {
                Content::None
            } else {
                Content::Follows
            })
        }
        (Some(_), Some(_)) => Err(HeadFault::Invalid(HeadError::InvalidContentLength)),
    }
}
