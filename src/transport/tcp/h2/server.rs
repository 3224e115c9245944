//! The server side of HTTP/2: settings, requests, answers.

use h2::server::{Builder, Handshake};

use super::super::io::Io;
use super::stream::Chunk;
use super::{FRAME_BYTES_MAX, Options};
use crate::http::h3::fields;
use crate::http::request::{HeadError, RequestHead};

/// Starts HTTP/2 on a TLS session.
pub(super) fn handshake(options: &Options, io: Io) -> Handshake<Io, Chunk> {
    Builder::new()
        .enable_connect_protocol()
        .max_concurrent_streams(options.streams_max)
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(options.field_section_bytes)
        .max_pending_accept_reset_streams(options.pending_resets_max)
        .handshake(io)
}

/// The head of a request, with the checks that h2 does not make (RFC 9113 section 8.3.1).
///
/// # Errors
/// Why the request is malformed.
pub(super) fn request_head(parts: ::http::request::Parts) -> Result<RequestHead, HeadError> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let protocol = protocol.map(|protocol| Box::from(protocol.as_str()));
    let is_classic = parts.method == ::http::Method::CONNECT && protocol.is_none();
    let uri = parts.uri.into_parts();
    // h2 forgets the scheme of a request that names its authority in Host only. All of ours come over TLS.
    let scheme = uri
        .scheme
        .as_ref()
        .map_or("https", |scheme| scheme.as_str());
    let mut head = RequestHead {
        method: parts.method,
        protocol,
        scheme: (!is_classic).then(|| scheme.into()),
        authority: uri.authority.map(|authority| authority.as_str().into()),
        path: match uri.path_and_query {
            Some(path) if !is_classic => Some(path.as_str().into()),
            Some(_) | None => None,
        },
        headers: parts.headers,
    };
    fields::check_request(&mut head)?;
    Ok(head)
}
