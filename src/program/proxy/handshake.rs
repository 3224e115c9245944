//! What happens on a local connection before its tunnel: one port, two protocols, told apart by the first byte.
//!
//! ```text
//!            5 ─► greeting ─► request ──┐                        ┌─► accept: reply, what was read too early
//!   First ───┤                          ├─► Asked ─► (a tunnel) ─┤
//!            a letter ─► head of HTTP ──┘                        └─► refuse: reply
//! ```
//!
//! Sans-IO. No more than [`Handshake::room`] bytes are taken, so that what a client can make us keep is one message.

use std::net::{Ipv4Addr, SocketAddr};

use ::http::StatusCode;
use ::http::header::{HeaderName, HeaderValue};
use bytes::{BufMut, Bytes, BytesMut};

use super::socks::{self, Bad, Command, Destination, Reply};
use crate::http::h1::{Limits, ServerConn, ServerEvent};
use crate::http::h3::RecvData;
use crate::http::request::{RequestHead, ResponseHead};
use crate::program::forward::explain;
use crate::wire::proxy_status::{PROXY_STATUS, ProxyError, ProxyStatus};
use crate::wire::target::Target;
use crate::worker::Refused;

/// Longest head of an HTTP request.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The address in replies that have none to tell.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A connection whose client has not said everything yet.
#[derive(Debug)]
pub(super) enum Handshake {
    /// Nothing has arrived.
    First,
    /// SOCKS: what has arrived of a message, and whether it is the request.
    Socks { buffer: BytesMut, greeted: bool },
    /// HTTP.
    Http(Box<ServerConn>),
}

/// What has to happen next. Bytes for the client, if any, are to be sent before.
#[derive(Debug)]
pub(super) enum Step {
    /// More has to arrive.
    More,
    /// A tunnel to this target is wanted.
    Connect(Target, Asked),
    /// A place for UDP datagrams is wanted, for those from this address if it is one.
    Associate(Destination),
    /// The connection is over.
    End,
}

/// A request for a TCP tunnel that waits for its answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// By SOCKS; the bytes arrived behind the request.
    Socks(Bytes),
    /// By HTTP.
    Http(Box<ServerConn>),
}

impl Handshake {
    /// How many bytes may arrive now.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::First => socks::MESSAGE_BYTES_MAX,
            Self::Socks { buffer, .. } => socks::MESSAGE_BYTES_MAX.saturating_sub(buffer.len()),
            Self::Http(connection) => connection.receive_room(),
        }
    }

    /// Takes bytes of the client, at most [`Handshake::room`] of them; what it is told at once is appended to `out`.
    pub(super) fn handle_bytes(&mut self, mut input: BytesMut, out: &mut BytesMut) -> Step {
        if let (Self::First, Some(first)) = (&*self, input.first()) {
            *self = match first {
                &socks::VERSION => Self::Socks {
                    buffer: BytesMut::new(),
                    greeted: false,
                },
                byte if byte.is_ascii_alphabetic() => {
                    Self::Http(Box::new(ServerConn::new(limits())))
                }
                // TLS, SOCKS 4, or somebody who tries ports: nothing that we could say would be understood.
                _ => return Step::End,
            };
        }
        match self {
            Self::First => Step::More,
            Self::Socks { buffer, greeted } => {
                buffer.unsplit(input);
                handle_socks(buffer, greeted, out)
            }
            Self::Http(connection) => {
                connection.handle_bytes(&mut input);
                self.handle_http(out)
            }
        }
    }

    fn handle_http(&mut self, out: &mut BytesMut) -> Step {
        let Self::Http(connection) = self else {
            return Step::More;
        };
        let head = match connection.poll_event(out) {
            None | Some(ServerEvent::Readable) => return Step::More,
            Some(ServerEvent::Refused(_)) => return Step::End,
            Some(ServerEvent::Request(head)) => head,
        };
        match connect_target(&head) {
            Ok(target) => match std::mem::replace(self, Self::First) {
                Self::Http(connection) => Step::Connect(target, Asked::Http(connection)),
                Self::First | Self::Socks { .. } => Step::End,
            },
            Err((status, text)) => {
                write_error(status, &[], text, out);
                Step::End
            }
        }
    }
}

fn handle_socks(buffer: &mut BytesMut, greeted: &mut bool, out: &mut BytesMut) -> Step {
    if !*greeted {
        match socks::greeting(buffer) {
            Ok(None) => return Step::More,
            Err(_) => return Step::End,
            Ok(Some((acceptable, len))) => {
                drop(buffer.split_to(len));
                out.put_slice(&socks::choice(acceptable));
                *greeted = true;
                if !acceptable {
                    return Step::End;
                }
            }
        }
    }
    let refuse = |reply, out: &mut BytesMut| {
        out.put_slice(&socks::reply(reply, NOWHERE));
        Step::End
    };
    let (request, len) = match socks::request(buffer) {
        Ok(None) => return Step::More,
        Err(Bad::Version) => return refuse(Reply::GeneralFailure, out),
        Err(Bad::AddressType) => return refuse(Reply::AddressTypeNotSupported, out),
        Ok(Some(parsed)) => parsed,
    };
    drop(buffer.split_to(len));
    match request.command {
        Command::Connect => match request.destination.target() {
            Some(target) => Step::Connect(target, Asked::Socks(buffer.split().freeze())),
            // A name that is none belongs to no host.
            None => refuse(Reply::HostUnreachable, out),
        },
        Command::Associate => Step::Associate(request.destination),
        Command::Unsupported => refuse(Reply::CommandNotSupported, out),
    }
}

impl Asked {
    /// The tunnel is open: tells the client, and returns what it sent too early.
    pub(super) fn accept(self, out: &mut BytesMut) -> Bytes {
        match self {
            Self::Socks(early) => {
                out.put_slice(&socks::reply(Reply::Succeeded, NOWHERE));
                early
            }
            Self::Http(mut connection) => {
                let accepted = connection.respond(&ResponseHead::new(StatusCode::OK), out);
                debug_assert!(accepted.is_ok(), "the request waits");
                match connection.recv_data(usize::MAX) {
                    RecvData::Data(early) => early,
                    RecvData::Blocked
                    | RecvData::Finished
                    | RecvData::Reset(_)
                    | RecvData::Gone => Bytes::new(),
                }
            }
        }
    }

    /// There is no tunnel: tells the client why.
    pub(super) fn refuse(self, refused: &Refused, out: &mut BytesMut) {
        match self {
            Self::Socks(_) => out.put_slice(&socks::reply(reply_code(refused), NOWHERE)),
            Self::Http(_) => {
                let members = refused.response.iter().flat_map(|response| {
                    let members = response.headers.get_all(PROXY_STATUS).into_iter();
                    members.map(|value| (PROXY_STATUS, value.clone()))
                });
                let fields: Vec<_> = members.collect();
                write_error(status(refused), &fields, &explain(refused), out);
            }
        }
    }
}

/// The answer to an association, which listens at `bound`.
pub(super) fn associated(bound: Option<SocketAddr>, out: &mut BytesMut) {
    let reply = match bound {
        Some(bound) => socks::reply(Reply::Succeeded, bound),
        None => socks::reply(Reply::GeneralFailure, NOWHERE),
    };
    out.put_slice(&reply);
}

fn limits() -> Limits {
    Limits {
        head_bytes_max: HEAD_BYTES_MAX,
        receive_bytes_max: HEAD_BYTES_MAX,
        // A request for an upgrade is one for a resource, which we have none of.
        upgrades: &[],
        ..Limits::default()
    }
}

fn connect_target(head: &RequestHead) -> Result<Target, (StatusCode, &'static str)> {
    if !head.is_connect() || head.is_extended_connect() {
        let text = "this proxy serves CONNECT and SOCKS5 only; give https:// addresses, or use it as a SOCKS5 proxy";
        return Err((StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let target = head.authority.as_deref().unwrap_or_default().parse();
    target.map_err(|_| (StatusCode::BAD_REQUEST, "the target must be HOST:PORT"))
}

/// Writes a refusal with a text for people.
fn write_error(
    status: StatusCode,
    fields: &[(HeaderName, HeaderValue)],
    text: &str,
    out: &mut BytesMut,
) {
    let reason = status.canonical_reason().unwrap_or_default();
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        out.put_slice(b"allow: CONNECT\r\n");
    }
    for (name, value) in fields {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    let length = text.len() + 1;
    let framing = format!(
        "content-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}\n"
    );
    out.put_slice(framing.as_bytes());
}

/// The status for a client of ours. A relay that wants credentials wants them from us, not from our client.
fn status(refused: &Refused) -> StatusCode {
    let Some(response) = &refused.response else {
        return refused.refusal.row().status;
    };
    let status = response.status;
    let ours = [
        StatusCode::UNAUTHORIZED,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    ];
    let is_error = status.is_client_error() || status.is_server_error();
    match is_error && !ours.contains(&status) {
        true => status,
        false => StatusCode::BAD_GATEWAY,
    }
}

/// What the relay next to the target says is the reason; without that, its status has to do.
fn reply_code(refused: &Refused) -> Reply {
    let Some(response) = &refused.response else {
        // No relay: that is our failure, and says nothing about the target.
        return Reply::GeneralFailure;
    };
    let members = ProxyStatus::parse(&response.headers).members;
    match members.iter().find_map(|member| member.error) {
        Some(error) => reply_to(error),
        None => match response.status {
            StatusCode::UNAUTHORIZED
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::FORBIDDEN => Reply::NotAllowed,
            StatusCode::GATEWAY_TIMEOUT => Reply::TimedOut,
            _ => Reply::GeneralFailure,
        },
    }
}

const fn reply_to(error: ProxyError) -> Reply {
    match error {
        ProxyError::ConnectionRefused => Reply::ConnectionRefused,
        ProxyError::DnsError
        | ProxyError::DestinationNotFound
        | ProxyError::DestinationUnavailable => Reply::HostUnreachable,
        ProxyError::DestinationIpUnroutable => Reply::NetworkUnreachable,
        ProxyError::DestinationIpProhibited | ProxyError::HttpRequestDenied => Reply::NotAllowed,
        ProxyError::DnsTimeout
        | ProxyError::ConnectionTimeout
        | ProxyError::ConnectionReadTimeout
        | ProxyError::ConnectionWriteTimeout
        | ProxyError::HttpResponseTimeout => Reply::TimedOut,
        ProxyError::ConnectionTerminated
        | ProxyError::ConnectionLimitReached
        | ProxyError::TlsProtocolError
        | ProxyError::TlsCertificateError
        | ProxyError::TlsAlertReceived
        | ProxyError::HttpRequestError
        | ProxyError::HttpResponseIncomplete
        | ProxyError::HttpResponseHeaderSectionSize
        | ProxyError::HttpResponseHeaderSize
        | ProxyError::HttpResponseBodySize
        | ProxyError::HttpResponseTrailerSectionSize
        | ProxyError::HttpResponseTrailerSize
        | ProxyError::HttpResponseTransferCoding
        | ProxyError::HttpResponseContentCoding
        | ProxyError::HttpUpgradeFailed
        | ProxyError::HttpProtocolError
        | ProxyError::ProxyInternalResponse
        | ProxyError::ProxyInternalError
        | ProxyError::ProxyConfigurationError
        | ProxyError::ProxyLoopDetected => Reply::GeneralFailure,
    }
}

#[cfg(test)]
mod tests;
