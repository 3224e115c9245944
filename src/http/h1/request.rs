//! The head of a request, from and to its bytes (RFC 9112 section 3).
//!
//! ```text
//!   CONNECT host:port               CONNECT, authority                              Form::Connect
//!   GET /path + Upgrade: token      CONNECT, protocol, https, Host, /path           Form::Upgrade
//!   anything else                   method, scheme, Host or absolute-form, path     Form::Plain
//! ```
//!
//! Whether a CONNECT names a port, and which one, is decided by the reader of the authority.

use ::http::Method;
use ::http::header::{self, HeaderMap};
use bytes::{BufMut, BytesMut};

use super::client::RequestError;
use super::fields::{self, Content};
use super::{FIELDS_MAX, Form, HeadFault};
use crate::http::request::{HeadError, RequestHead};

const AUTHORITY: &str = "authority";
const PATH: &str = "path";
const HOST: &str = "host";

/// A request and what its connection has to know about it.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    pub(super) head: RequestHead,
    pub(super) form: Form,
    pub(super) is_http_1_0: bool,
    /// The connection ends with the answer, whatever that is.
    pub(super) closes: bool,
    /// Upgrade was there, wanted or not: bytes behind the head may be meant for another protocol.
    pub(super) offers_upgrade: bool,
}

/// The parts of a request target.
#[derive(Debug, Default)]
struct RequestTarget {
    scheme: Option<Box<str>>,
    authority: Option<Box<str>>,
    path: Option<Box<str>>,
}

/// Reads a complete head, of which the scanner saw the end.
pub(super) fn parse(bytes: &[u8], upgrades: &[&str]) -> Result<Parsed, HeadFault> {
    let mut lines = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let status = request.parse(bytes).map_err(syntax)?;
    let (httparse::Status::Complete(_), Some(method), Some(target), Some(minor)) =
        (status, request.method, request.path, request.version)
    else {
        return Err(HeadFault::StartLine);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadFault::StartLine)?;
    let mut headers = fields::read(request.headers)?;
    let is_http_1_0 = minor == 0;

    let host = host(&headers, is_http_1_0)?;
    let content = fields::content(&headers, is_http_1_0)?;
    let form = form(&method, &headers, is_http_1_0, upgrades);
    if form != Form::Plain && content == Content::Follows {
        return Err(HeadFault::Content);
    }
    let target = read_target(&method, target, host)?;
    if target.authority.is_none() && !is_http_1_0 {
        return Err(invalid(HOST));
    }
    let closes =
        is_http_1_0 || content == Content::Follows || fields::has_option(&headers, "close");
    let offers_upgrade = headers.contains_key(header::UPGRADE);

    fields::remove_hop_by_hop(&mut headers);
    headers.remove(header::HOST);
    let (method, protocol) = match &form {
        Form::Connect | Form::Plain => (method, None),
        Form::Upgrade(token) => (Method::CONNECT, Some(token.to_ascii_lowercase().into())),
    };
    if form != Form::Plain {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Parsed {
        head: RequestHead {
            method,
            protocol,
            scheme: target.scheme,
            authority: target.authority,
            path: target.path,
            headers,
        },
        form,
        is_http_1_0,
        closes,
        offers_upgrade,
    })
}

pub(super) fn syntax(error: httparse::Error) -> HeadFault {
    if error == httparse::Error::TooManyHeaders {
        HeadFault::TooManyFields
    } else {
        HeadFault::Syntax(error)
    }
}

fn invalid(name: &'static str) -> HeadFault {
    HeadFault::Invalid(HeadError::InvalidPseudo { name })
}

/// The value of the one Host line that HTTP/1.1 wants (RFC 9112 section 3.2). It may be empty.
fn host(headers: &HeaderMap, is_http_1_0: bool) -> Result<Option<&str>, HeadFault> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadFault::Invalid(HeadError::HostMismatch));
    }
    let Some(host) = host else {
        return if is_http_1_0 {
            Ok(None)
        } else {
            Err(HeadFault::Invalid(HeadError::MissingPseudo { name: HOST }))
        };
    };
    let host = host.to_str().map_err(|_| invalid(HOST))?;
    if !is_authority(host) {
        return Err(invalid(HOST));
    }
    Ok(Some(host).filter(|host| !host.is_empty()))
}

/// Of the upgrades that are offered and served the first. Without the option in Connection there is no offer, and none
/// in HTTP/1.0 (RFC 9110 section 7.8).
fn form(method: &Method, headers: &HeaderMap, is_http_1_0: bool, upgrades: &[&str]) -> Form {
    if *method == Method::CONNECT {
        return Form::Connect;
    }
    if *method != Method::GET || is_http_1_0 || !fields::has_option(headers, "upgrade") {
        return Form::Plain;
    }
    let is_served = |offer: &&str| {
        upgrades
            .iter()
            .any(|upgrade| offer.eq_ignore_ascii_case(upgrade))
    };
    fields::members(headers, &header::UPGRADE)
        .find(is_served)
        .map_or(Form::Plain, |token| Form::Upgrade(token.into()))
}

/// The four forms of RFC 9112 section 3.2. An authority in the target overrides Host.
fn read_target(
    method: &Method,
    target: &str,
    host: Option<&str>,
) -> Result<RequestTarget, HeadFault> {
    if *method == Method::CONNECT {
        if !is_authority(target) {
            return Err(invalid(AUTHORITY));
        }
        return Ok(RequestTarget {
            authority: Some(target.into()),
            ..RequestTarget::default()
        });
    }
    if target.starts_with('/') || (target == "*" && *method == Method::OPTIONS) {
        if !is_path(target) {
            return Err(invalid(PATH));
        }
        return Ok(RequestTarget {
            scheme: Some("https".into()),
            authority: host.map(Into::into),
            path: Some(target.into()),
        });
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(invalid(PATH));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_scheme(scheme) {
        return Err(invalid("scheme"));
    }
    if authority.contains('@') {
        return Err(HeadFault::Invalid(HeadError::Userinfo));
    }
    if authority.is_empty() || !is_authority(authority) {
        return Err(invalid(AUTHORITY));
    }
    if !is_path(path) {
        return Err(invalid(PATH));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(RequestTarget {
        scheme: Some(scheme.to_ascii_lowercase().into()),
        authority: Some(authority.into()),
        path: Some(format!("{slash}{path}").into()),
    })
}

/// Writes a CONNECT of either form; the other kinds of request are not for a client of this relay. Nothing is written
/// when there is an error.
pub(super) fn write(head: &RequestHead, out: &mut BytesMut) -> Result<Form, RequestError> {
    let authority = head.authority.as_deref().unwrap_or_default();
    if authority.is_empty() || !is_authority(authority) {
        return Err(RequestError::Authority);
    }
    if !head.is_connect() {
        return Err(RequestError::Method);
    }
    let Some(token) = head.protocol.as_deref() else {
        if !has_port(authority) {
            return Err(RequestError::Authority);
        }
        if head.scheme.is_some() || head.path.is_some() {
            return Err(RequestError::Path);
        }
        put(&["CONNECT ", authority, " HTTP/1.1\r\n"], out);
        fields::write_line(HOST, authority.as_bytes(), out);
        fields::write(&head.headers, out);
        out.put_slice(b"\r\n");
        return Ok(Form::Connect);
    };
    let path = head.path.as_deref().unwrap_or_default();
    if !path.starts_with('/') || !is_path(path) {
        return Err(RequestError::Path);
    }
    if head.scheme.as_deref() != Some("https") {
        return Err(RequestError::Scheme);
    }
    if !is_token(token) {
        return Err(RequestError::Protocol);
    }
    put(&["GET ", path, " HTTP/1.1\r\n"], out);
    fields::write_line(HOST, authority.as_bytes(), out);
    fields::write_line("connection", b"Upgrade", out);
    fields::write_line("upgrade", token.as_bytes(), out);
    fields::write(&head.headers, out);
    out.put_slice(b"\r\n");
    Ok(Form::Upgrade(token.into()))
}

fn put(parts: &[&str], out: &mut BytesMut) {
    for part in parts {
        out.put_slice(part.as_bytes());
    }
}

/// `host:port` with whatever host and port that are not empty (RFC 9112 section 3.2.3).
fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    })
}

/// RFC 9110 section 5.6.2, without the slash of a version: no token of ours has one.
fn is_token(text: &str) -> bool {
    let is_octet = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_octet)
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Octets that can stand in the host and port of a URI (RFC 3986 section 3.2); user information has none.
fn is_authority(text: &str) -> bool {
    let is_octet = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&b);
    text.bytes().all(is_octet)
}

/// Visible ASCII without a fragment; finer rules are those of the template that is matched.
fn is_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}
