//! The client's side of a connection: one request, its response, then a tunnel or the end.
//!
//! ```text
//!   ┌──────┐ request ┌──────────┐ ─ 2xx to CONNECT, 101 ─► Tunnel ── end ──► (owner closes)
//!   │ Idle │ ──────► │ Awaiting │ ─ other final response ─► Refused
//!   └──────┘         └──────────┘ ─ fault, early end ─────► Failed
//! ```
//!
//! The tunnel is open, and its first byte may be sent, only when the response came up as a success (RFC 9931
//! section 8): a connection that was refused is not used again.

use ::http::StatusCode;
use ::http::header::{self, HeaderMap};
use bytes::BytesMut;

use super::inbound::Inbound;
use super::scan::HeadScanner;
use super::{Form, HeadFault, Limits, fields, request, response};
use crate::http::h3::RecvData;
use crate::http::request::{RequestHead, ResponseHead};

/// Interim responses before the final one; a relay sends at most one.
const INTERIM_MAX: u32 = 8;

/// Something that happened on the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// The final response. A success opened the tunnel; an upgrade shows as 200.
    Response(Box<ResponseHead>),
    /// There will be no response, and no tunnel: close.
    Failed(ClientError),
    /// [`ClientConn::recv_data`] has something after it said blocked, or for the first time.
    Readable,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The head is malformed or too large.
    #[error("malformed response: {0}")]
    Head(HeadFault),
    /// Bytes that no request asked for.
    #[error("a response without a request")]
    Unasked,
    /// The connection ended before the head did (RFC 9112 section 8).
    #[error("the connection ended before the response")]
    Incomplete,
    /// Too many interim responses.
    #[error("more than {INTERIM_MAX} interim responses")]
    TooManyInterim,
    /// 101 to a request that is no upgrade, with another token, without the option in Connection, or in HTTP/1.0
    /// (RFC 9110 section 7.8).
    #[error("101 to something else than the offered protocol")]
    WrongProtocol,
    /// A success that does not switch protocols.
    #[error("{status} to an upgrade")]
    NotSwitched {
        /// The status.
        status: StatusCode,
    },
}

/// Why a request was not written. A head may come from another version, so all of it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The connection had its request, or has ended.
    #[error("the connection takes no request")]
    Used,
    /// Only CONNECT in its two forms is sent.
    #[error("the method is not CONNECT")]
    Method,
    /// No authority, an invalid one, or one without port for a classic CONNECT (RFC 9112 section 3.2.3).
    #[error("the authority is invalid")]
    Authority,
    /// Another scheme than https, which only the absolute form could express.
    #[error("the scheme is not https")]
    Scheme,
    /// No path, an invalid one, or one on a classic CONNECT.
    #[error("the path is invalid")]
    Path,
    /// The protocol is no upgrade token.
    #[error("the protocol is invalid")]
    Protocol,
}

#[derive(Debug)]
enum State {
    Idle,
    Awaiting {
        form: Form,
        scanner: HeadScanner,
        interim_count: u32,
    },
    Tunnel,
    Refused,
    Failed,
}

/// The client's side of one connection.
///
/// Feed it with [`handle_bytes`](Self::handle_bytes) and [`handle_end`](Self::handle_end), and after each call
/// [`poll_event`](Self::poll_event) until there is none.
#[derive(Debug)]
pub struct ClientConn {
    limits: Limits,
    state: State,
    inbound: Inbound,
}

impl ClientConn {
    /// A connection without a request yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Idle,
            inbound: Inbound::new(),
        }
    }

    /// Appends the request to `out`: a classic CONNECT as it is, an extended one as GET with Upgrade. Fields of another
    /// connection and of content are left out.
    ///
    /// # Errors
    ///
    /// Nothing was written: the connection is used, or the head cannot be said in HTTP/1.1.
    pub fn request(&mut self, head: &RequestHead, out: &mut BytesMut) -> Result<(), RequestError> {
        if !self.is_idle() {
            return Err(RequestError::Used);
        }
        let form = request::write(head, out)?;
        self.state = State::Awaiting {
            form,
            scanner: HeadScanner::response(&self.limits),
            interim_count: 0,
        };
        Ok(())
    }

    /// How many bytes are taken at the moment. While it is 0, read nothing from the peer.
    pub fn receive_room(&self) -> usize {
        let max = match self.state {
            State::Idle | State::Awaiting { .. } => self.limits.head_bytes_max,
            State::Tunnel => self.limits.receive_bytes_max,
            State::Refused | State::Failed => return usize::MAX,
        };
        max.saturating_sub(self.inbound.buffer.len())
    }

    /// Bytes that wait here, in a head that is not complete or for `recv_data`.
    pub fn buffered_bytes(&self) -> usize {
        self.inbound.buffer.len()
    }

    /// Takes bytes of the peer off `input`, as many as [`receive_room`](Self::receive_room) says. Without a tunnel to
    /// come they are dropped.
    pub fn handle_bytes(&mut self, input: &mut BytesMut) {
        let room = self.receive_room();
        self.inbound.take(input, room);
    }

    /// The peer sends no more. `is_orderly`: with a closure alert of TLS (RFC 9112 section 9.8).
    pub fn handle_end(&mut self, is_orderly: bool) {
        self.inbound.handle_end(is_orderly);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        match &self.state {
            State::Idle if self.inbound.buffer.is_empty() => None,
            State::Idle => Some(self.fail(ClientError::Unasked)),
            State::Awaiting { .. } => match self.read_response() {
                Ok(head) => head.map(|head| ClientEvent::Response(Box::new(head))),
                Err(error) => Some(self.fail(error)),
            },
            State::Tunnel | State::Refused => {
                let is_readable = self.inbound.poll_readable();
                is_readable.then_some(ClientEvent::Readable)
            }
            State::Failed => None,
        }
    }

    fn fail(&mut self, error: ClientError) -> ClientEvent {
        self.state = State::Failed;
        self.inbound.shut();
        ClientEvent::Failed(error)
    }

    /// The final response once it is complete, interim ones skipped.
    fn read_response(&mut self) -> Result<Option<ResponseHead>, ClientError> {
        let State::Awaiting {
            form,
            scanner,
            interim_count,
        } = &mut self.state
        else {
            return Ok(None);
        };
        loop {
            let Some(len) = scanner
                .scan(&self.inbound.buffer)
                .map_err(ClientError::Head)?
            else {
                let is_ended = self.inbound.is_ended();
                return if is_ended {
                    Err(ClientError::Incomplete)
                } else {
                    Ok(None)
                };
            };
            let bytes = self.inbound.buffer.split_to(len);
            let (mut head, is_http_1_0) = response::parse(&bytes).map_err(ClientError::Head)?;
            let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
            if head.is_interim() && !is_switch {
                *interim_count += 1;
                if *interim_count > INTERIM_MAX {
                    return Err(ClientError::TooManyInterim);
                }
                *scanner = HeadScanner::response(&self.limits);
                continue;
            }
            let opens = match form {
                Form::Upgrade(token) if is_switch => {
                    if is_http_1_0 || !switches_to(token, &head.headers) {
                        return Err(ClientError::WrongProtocol);
                    }
                    head.status = StatusCode::OK;
                    true
                }
                Form::Connect | Form::Plain if is_switch => return Err(ClientError::WrongProtocol),
                Form::Upgrade(_) if head.status.is_success() => {
                    return Err(ClientError::NotSwitched {
                        status: head.status,
                    });
                }
                Form::Connect | Form::Upgrade(_) | Form::Plain => head.status.is_success(),
            };
            fields::remove_hop_by_hop(&mut head.headers);
            if opens {
                head.headers.remove(header::CONTENT_LENGTH);
                self.state = State::Tunnel;
            } else {
                self.state = State::Refused;
                self.inbound.discard();
            }
            return Ok(Some(head));
        }
    }

    /// Bytes of the tunnel, at most `bytes_max` at once, then its end, once. The content of a refusal is not delivered:
    /// it shows as an end in order.
    pub fn recv_data(&mut self, bytes_max: usize) -> RecvData {
        match self.state {
            State::Idle | State::Awaiting { .. } => self.inbound.block(),
            State::Tunnel | State::Refused => self.inbound.recv_data(bytes_max),
            State::Failed => RecvData::Gone,
        }
    }

    /// True while a request can be sent.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
            && self.inbound.buffer.is_empty()
            && !self.inbound.is_ended()
    }

    /// True while bytes are those of a tunnel, also when it ended. Before, nothing may be sent behind the request.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    /// True when the connection has no further use: close it.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Refused | State::Failed)
    }
}

/// Whether a 101 names exactly the protocol that was offered.
fn switches_to(token: &str, headers: &HeaderMap) -> bool {
    let mut upgrades = fields::members(headers, &header::UPGRADE);
    let is_offered = upgrades
        .next()
        .is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(token));
    is_offered && upgrades.next().is_none() && fields::has_option(headers, "upgrade")
}
