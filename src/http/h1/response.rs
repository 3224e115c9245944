//! The head of a response, from and to its bytes (RFC 9112 section 4).

use ::http::StatusCode;
use ::http::header::{self, HeaderMap};
use bytes::{BufMut, BytesMut};

use super::request::syntax;
use super::{FIELDS_MAX, HeadFault, fields};
use crate::http::request::ResponseHead;

/// What follows a response on the connection, which decides about the fields that we add.
#[derive(Debug, Clone, Copy)]
pub(super) enum Follows<'a> {
    /// The final response.
    Response,
    /// The tunnel of a CONNECT.
    Tunnel,
    /// The protocol of this token.
    Protocol(&'a str),
    /// The next request, or the end of the connection.
    Request { closes: bool },
    /// Content as long as the head says, then the same.
    Content { closes: bool },
}

/// Writes a head.
pub(super) fn write(
    status: StatusCode,
    headers: &HeaderMap,
    follows: Follows<'_>,
    out: &mut BytesMut,
) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    fields::write(headers, out);
    match follows {
        Follows::Response | Follows::Tunnel => {}
        Follows::Protocol(token) => {
            fields::write_line("connection", b"Upgrade", out);
            fields::write_line("upgrade", token.as_bytes(), out);
        }
        Follows::Request { closes } => write_framing(status, headers, closes, out),
        Follows::Content { closes } => {
            for value in headers.get_all(header::CONTENT_LENGTH) {
                fields::write_line("content-length", value.as_bytes(), out);
            }
            if closes {
                fields::write_line("connection", b"close", out);
            }
        }
    }
    out.put_slice(b"\r\n");
}

/// A 426 says what to upgrade to, which Connection has to name like every Upgrade (RFC 9110 sections 7.8, 15.5.22).
fn write_framing(status: StatusCode, headers: &HeaderMap, closes: bool, out: &mut BytesMut) {
    if status != StatusCode::NO_CONTENT {
        fields::write_line("content-length", b"0", out);
    }
    let mut has_upgrade = false;
    for value in headers.get_all(header::UPGRADE) {
        fields::write_line("upgrade", value.as_bytes(), out);
        has_upgrade = true;
    }
    let options: &[u8] = match (has_upgrade, closes) {
        (false, false) => return,
        (false, true) => b"close",
        (true, false) => b"Upgrade",
        (true, true) => b"Upgrade, close",
    };
    fields::write_line("connection", options, out);
}

/// Reads a complete head, of which the scanner saw the end. The fields of the connection are still in it. True for
/// HTTP/1.0.
pub(super) fn parse(bytes: &[u8]) -> Result<(ResponseHead, bool), HeadFault> {
    let mut lines = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut lines);
    let parsed = response.parse(bytes).map_err(syntax)?;
    let (httparse::Status::Complete(_), Some(code), Some(minor)) =
        (parsed, response.code, response.version)
    else {
        return Err(HeadFault::StartLine);
    };
    let status = StatusCode::from_u16(code).map_err(|_| HeadFault::StartLine)?;
    let headers = fields::read(response.headers)?;
    Ok((ResponseHead { status, headers }, minor == 0))
}
