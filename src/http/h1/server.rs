//! The server's side of a connection: one request at a time, then a tunnel, the next request, or the end.
//!
//! ```text
//!            head complete               refused, may go on
//!   ┌──────┐ ─────────────► ┌───────────┐ ─────────────────► Head ◄─────────────┐
//!   │ Head │                │ Answering │ ── 2xx ──────────► Tunnel ── end ──►  │   (owner closes)
//!   └──────┘ ── fault ─┐    └───────────┘ ── content ──────► Content ── sent ──┤
//!                      │          └──────── refused ──┐                         │
//!                      └──────────────────────────────┴────► Closed ◄───────────┘   all further bytes are dropped
//! ```
//!
//! The answer decides what the bytes behind the head are, so they wait unparsed. Only a refusal behind which nothing
//! can be mistaken for a request lets the connection go on: never that of a CONNECT (RFC 9931 section 8).

use ::http::StatusCode;
use bytes::BytesMut;

use super::inbound::Inbound;
use super::response::{self, Follows};
use super::scan::HeadScanner;
use super::{Form, HeadFault, Limits, request};
use crate::http::h3::RecvData;
use crate::http::request::{RequestHead, ResponseHead};

/// Something that happened on the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// A request, to be answered with [`ServerConn::respond`] before the next one comes up.
    Request(Box<RequestHead>),
    /// A head was refused and answered by the machine; close once the answer is sent. For counters and logs.
    Refused(HeadFault),
    /// [`ServerConn::recv_data`] has something after it said blocked, or for the first time.
    Readable,
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responded {
    /// The final response, which is still to come.
    Interim,
    /// The bytes of the tunnel in both directions.
    Tunnel,
    /// The content, to be told of with [`ServerConn::content_sent`].
    Content,
    /// The next request, which may wait already: poll for events.
    NextRequest,
    /// The end: send what was written, then close (RFC 9112 section 9.6).
    Close,
}

/// Why a response was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RespondError {
    /// No request waits for an answer.
    #[error("no request waits for an answer")]
    NoRequest,
    /// Of interim responses only 100 exists here, and 101 is written for a 200.
    #[error("{status} is not for a response here")]
    Status {
        /// The status that was refused.
        status: StatusCode,
    },
}

/// What is known of a request that waits for its answer.
#[derive(Debug)]
struct Asked {
    form: Form,
    is_http_1_0: bool,
    closes: bool,
    offers_upgrade: bool,
}

#[derive(Debug)]
enum State {
    Head(HeadScanner),
    Answering(Asked),
    Content(Content),
    Tunnel,
    Closed,
}

/// An answer whose content is on its way.
#[derive(Debug)]
struct Content {
    /// Bytes that are still to be sent.
    left: usize,
    /// It is the last answer: whatever the peer sends meanwhile is thrown away.
    closes: bool,
    /// How much of that there was.
    discarded: usize,
}

/// The server's side of one connection.
///
/// Feed it with [`handle_bytes`](Self::handle_bytes) and [`handle_end`](Self::handle_end), and after each, and after
/// each answer, call [`poll_event`](Self::poll_event) until there is none.
#[derive(Debug)]
pub struct ServerConn {
    limits: Limits,
    state: State,
    inbound: Inbound,
    is_draining: bool,
}

impl ServerConn {
    /// A connection on which nothing has arrived.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Head(HeadScanner::request(&limits)),
            inbound: Inbound::new(),
            is_draining: false,
            limits,
        }
    }

    /// How many bytes are taken at the moment. While it is 0, read nothing from the peer.
    pub fn receive_room(&self) -> usize {
        let max = match self.state {
            State::Head(_) => self.limits.head_bytes_max,
            State::Content(Content {
                closes: true,
                discarded,
                ..
            }) => return self.limits.discard_bytes_max.saturating_sub(discarded),
            State::Answering(_) | State::Content(_) | State::Tunnel => {
                self.limits.receive_bytes_max
            }
            State::Closed => return usize::MAX,
        };
        max.saturating_sub(self.inbound.buffer.len())
    }

    /// Bytes that wait here, in a head that is not complete or for `recv_data`.
    pub fn buffered_bytes(&self) -> usize {
        self.inbound.buffer.len()
    }

    /// Takes bytes of the peer off `input`, as many as [`receive_room`](Self::receive_room) says. A closed connection
    /// drops them, so that the peer can be read until it closes (RFC 9112 section 9.6).
    pub fn handle_bytes(&mut self, input: &mut BytesMut) {
        let room = self.receive_room();
        self.inbound.take(input, room);
        self.discard();
    }

    /// The peer sends no more. `is_orderly`: with a closure alert of TLS (RFC 9112 section 9.8).
    pub fn handle_end(&mut self, is_orderly: bool) {
        self.inbound.handle_end(is_orderly);
    }

    /// The next event. The answer to a head that is refused is appended to `out`.
    pub fn poll_event(&mut self, out: &mut BytesMut) -> Option<ServerEvent> {
        match &mut self.state {
            State::Head(scanner) => match scanner.scan(&self.inbound.buffer) {
                Ok(Some(len)) => Some(self.read_head(len, out)),
                Ok(None) => {
                    if self.inbound.is_ended() {
                        self.close();
                    }
                    None
                }
                Err(fault) => Some(self.refuse(fault, out)),
            },
            // What waits before the answer is nobody's yet, but a peer that is gone needs none.
            State::Answering(_) | State::Content(_) if !self.inbound.is_cut() => None,
            State::Answering(_) | State::Content(_) | State::Tunnel => {
                let is_readable = self.inbound.poll_readable();
                is_readable.then_some(ServerEvent::Readable)
            }
            State::Closed => None,
        }
    }

    fn read_head(&mut self, len: usize, out: &mut BytesMut) -> ServerEvent {
        let bytes = self.inbound.buffer.split_to(len);
        match request::parse(&bytes, self.limits.upgrades) {
            Ok(parsed) => {
                self.state = State::Answering(Asked {
                    form: parsed.form,
                    is_http_1_0: parsed.is_http_1_0,
                    closes: parsed.closes,
                    offers_upgrade: parsed.offers_upgrade,
                });
                ServerEvent::Request(Box::new(parsed.head))
            }
            Err(fault) => self.refuse(fault, out),
        }
    }

    fn refuse(&mut self, fault: HeadFault, out: &mut BytesMut) -> ServerEvent {
        let follows = Follows::Request { closes: true };
        response::write(fault.status(), &self.limits.refusal_fields, follows, out);
        self.close();
        ServerEvent::Refused(fault)
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.inbound.shut();
    }

    /// Appends the answer to the request that came up last to `out`.
    ///
    /// A 2xx opens the tunnel of a CONNECT, and is written as 101 for an upgrade. Any other final response has no
    /// content; its length, Connection and Upgrade are ours to write, except the Upgrade of a 426. A 100 is left out
    /// for HTTP/1.0, which has none (RFC 9110 section 15.2).
    ///
    /// # Errors
    ///
    /// Nothing was written: no request waits, or the status is none for a request.
    pub fn respond(
        &mut self,
        head: &ResponseHead,
        out: &mut BytesMut,
    ) -> Result<Responded, RespondError> {
        let State::Answering(asked) = &self.state else {
            return Err(RespondError::NoRequest);
        };
        let ResponseHead { status, headers } = head;
        if head.is_interim() {
            if *status != StatusCode::CONTINUE {
                return Err(RespondError::Status { status: *status });
            }
            if !asked.is_http_1_0 {
                response::write(*status, headers, Follows::Response, out);
            }
            return Ok(Responded::Interim);
        }
        match &asked.form {
            Form::Connect if status.is_success() => {
                response::write(*status, headers, Follows::Tunnel, out);
            }
            Form::Upgrade(token) if status.is_success() => {
                let follows = Follows::Protocol(token);
                response::write(StatusCode::SWITCHING_PROTOCOLS, headers, follows, out);
            }
            Form::Connect | Form::Upgrade(_) | Form::Plain => {
                let closes = self.closes_after(asked);
                response::write(*status, headers, Follows::Request { closes }, out);
                return Ok(self.answered(closes));
            }
        }
        self.state = State::Tunnel;
        Ok(Responded::Tunnel)
    }

    /// Appends the head of a final response to `out`, behind which the owner sends `content_bytes` bytes of content:
    /// they go to the byte stream as they are, and [`content_sent`](Self::content_sent) hears of them.
    ///
    /// Content-Length is written as it stands in `head`, so it must be right; a response without content has none
    /// only if its status or the request's method says so (RFC 9112 section 6.3). Connection is ours to write.
    ///
    /// # Errors
    ///
    /// Nothing was written: no request waits, or the response would open a tunnel or is not final.
    pub fn respond_content(
        &mut self,
        head: &ResponseHead,
        content_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<Responded, RespondError> {
        let State::Answering(asked) = &self.state else {
            return Err(RespondError::NoRequest);
        };
        let ResponseHead { status, headers } = head;
        if head.is_interim() || (asked.form != Form::Plain && status.is_success()) {
            return Err(RespondError::Status { status: *status });
        }
        let closes = self.closes_after(asked);
        response::write(*status, headers, Follows::Content { closes }, out);
        if content_bytes == 0 {
            return Ok(self.answered(closes));
        }
        self.state = State::Content(Content {
            left: content_bytes,
            closes,
            discarded: 0,
        });
        self.discard();
        Ok(Responded::Content)
    }

    /// How many bytes of content are still to be sent, while there are any.
    pub fn content_left(&self) -> Option<usize> {
        match &self.state {
            State::Content(content) => Some(content.left),
            State::Head(_) | State::Answering(_) | State::Tunnel | State::Closed => None,
        }
    }

    /// `bytes` more of the content were sent, no more than [`content_left`](Self::content_left). What follows it, once
    /// it is complete.
    pub fn content_sent(&mut self, bytes: usize) -> Option<Responded> {
        let State::Content(content) = &mut self.state else {
            return None;
        };
        content.left = content.left.saturating_sub(bytes);
        let (is_complete, closes) = (content.left == 0, content.closes);
        is_complete.then(|| self.answered(closes))
    }

    /// An answer is complete, and there is no tunnel.
    fn answered(&mut self, closes: bool) -> Responded {
        if closes {
            self.close();
            return Responded::Close;
        }
        self.state = State::Head(HeadScanner::request(&self.limits));
        Responded::NextRequest
    }

    /// Throws away what comes behind the last request.
    fn discard(&mut self) {
        if let State::Content(content) = &mut self.state
            && content.closes
        {
            content.discarded = content.discarded.saturating_add(self.inbound.buffer.len());
            self.inbound.buffer.clear();
        }
    }

    /// Whether the answer to this request is the last word on the connection.
    fn closes_after(&self, asked: &Asked) -> bool {
        let has_more = !self.inbound.buffer.is_empty();
        asked.form == Form::Connect
            || asked.closes
            || (asked.offers_upgrade && has_more)
            || self.is_draining
            || (self.inbound.is_ended() && !has_more)
    }

    /// Bytes of the tunnel, at most `bytes_max` at once, then its end, once. While a request waits for its answer there
    /// are none, except that a peer which is gone shows as a reset.
    pub fn recv_data(&mut self, bytes_max: usize) -> RecvData {
        match self.state {
            State::Answering(_) | State::Content(_) if self.inbound.is_cut() => {
                self.inbound.recv_end()
            }
            State::Head(_) | State::Answering(_) | State::Content(_) => self.inbound.block(),
            State::Tunnel => self.inbound.recv_data(bytes_max),
            State::Closed => RecvData::Gone,
        }
    }

    /// No request after the one at hand: refusals say so and close. An idle connection can be closed at once.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// True between requests, with not one octet of the next one here.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head(_)) && self.inbound.buffer.is_empty()
    }

    /// True while bytes are those of a tunnel, also when it ended.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    /// True when nothing more is processed: send what was written, then close.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
