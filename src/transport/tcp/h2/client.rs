//! The client side of HTTP/2: settings, requests, responses.

use std::future::Future;
use std::pin::Pin;

use ::http::{Method, Request, Uri, Version, header, uri};
use h2::client::{Builder, Connection, SendRequest};

use super::super::io::Io;
use super::stream::Chunk;
use super::{FRAME_BYTES_MAX, Options};
use crate::http::request::RequestHead;

/// A handshake that is under way.
pub(super) type Handshake =
    Pin<Box<dyn Future<Output = Result<(SendRequest<Chunk>, Connection<Io, Chunk>), h2::Error>>>>;

/// Starts HTTP/2 on a TLS session.
pub(super) fn handshake(options: &Options, io: Io) -> Handshake {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        // Until SETTINGS come.
        .initial_max_send_streams(0)
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(options.field_section_bytes);
    Box::pin(async move { builder.handshake(io).await })
}

/// The request as h2 wants it; `None` if the head cannot be written as one, which only a wrong head of ours can cause.
pub(super) fn request(head: &RequestHead) -> Option<Request<()>> {
    let mut target = uri::Parts::default();
    target.authority = Some(head.authority.as_deref()?.parse().ok()?);
    if head.method != Method::CONNECT || head.protocol.is_some() {
        target.scheme = Some(head.scheme.as_deref()?.parse().ok()?);
        target.path_and_query = Some(head.path.as_deref()?.parse().ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    // No table may hold credentials (RFC 7541 section 7.1.3).
    for name in [header::AUTHORIZATION, header::PROXY_AUTHORIZATION] {
        if let Some(value) = request.headers_mut().get_mut(name) {
            value.set_sensitive(true);
        }
    }
    if let Some(protocol) = head.protocol.as_deref() {
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from(protocol));
    }
    Some(request)
}
