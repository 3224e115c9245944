//! Requests that ask for no tunnel, which a fallback in this process answers.
//!
//! ```text
//!   GET, HEAD, POST … ─► HandlerEvent ─► respond: head ─► body as the stream has room ─► the end of the stream
//!                  └─ not answered in time: refused          └─ nobody reads it for too long: reset
//! ```
//!
//! A request takes a place among the tunnels until its response has left for the connection. Its content is thrown away
//! within a bound: what answers here looks at heads only.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use ::http::Method;
use bytes::{Buf, Bytes};
use rustls::pki_types::CertificateDer;

use super::machine::{Closed, End, HandlerEvent, LocalEvent, Machine};
use crate::error::{Abort, Refusal};
use crate::http::content;
use crate::http::h3::code::Code;
use crate::http::h3::{RecvData, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::transport::carriers::RequestStream;
use crate::tunnel::{Table, TunnelId};
use crate::wire::carrier::Carrier;

/// How much of a request's content is read: a form with a picture. A client with more gets no credit for it.
const CONTENT_BYTES_MAX: usize = 1024 * 1024;

/// A request as a fallback sees it.
#[derive(Clone, Debug)]
pub struct PlainRequest {
    /// Everything that the client sent, without the content.
    pub head: RequestHead,
    /// The HTTP version that the request came over.
    pub carrier: Carrier,
    /// Where the client is, unless its connection is gone already.
    pub client: Option<SocketAddr>,
    /// The client's own certificate, if the listener asks for one and it showed one.
    pub certificate: Option<CertificateDer<'static>>,
}

/// The requests that are not done, and whether there are any at all.
#[derive(Debug)]
pub(super) struct Fallback {
    enabled: bool,
    requests: Table<Plain>,
    timers: BTreeSet<(Instant, TunnelId)>,
}

#[derive(Debug)]
struct Plain {
    stream: RequestStream,
    method: Method,
    /// What is left of the body, once there is a response.
    body: Option<Bytes>,
    /// How much of the content was thrown away.
    discarded_bytes: usize,
    due: Instant,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            enabled: false,
            requests: Table::of_others(),
            timers: BTreeSet::new(),
        }
    }
}

impl Fallback {
    /// How many requests wait for an answer, or for somebody to read it.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the request is one of these, and not done.
    pub(super) fn has(&self, id: TunnelId) -> bool {
        self.requests.get(id).is_some()
    }

    /// When [`Machine::expire_plain`] has work.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn arm(&mut self, id: TunnelId, due: Instant) {
        if let Some(plain) = self.requests.get_mut(id) {
            self.timers.remove(&(plain.due, id));
            plain.due = due;
            self.timers.insert((due, id));
        }
    }

    fn remove(&mut self, id: TunnelId) -> Option<Plain> {
        let plain = self.requests.remove(id)?;
        self.timers.remove(&(plain.due, id));
        Some(plain)
    }
}

impl Machine {
    /// Whether requests that ask for no tunnel go to a fallback, as [`HandlerEvent::Fallback`]; they are refused
    /// otherwise.
    pub fn set_fallback(&mut self, enabled: bool) {
        self.fallback.enabled = enabled;
    }

    /// Whether a request is for the fallback. One of an `http` resource asks a forward proxy to fetch it, which nobody
    /// here does.
    pub(super) fn falls_back(&self, head: &RequestHead) -> bool {
        let is_ours = head.path.is_some() && head.scheme.as_deref() != Some("http");
        self.fallback.enabled && !head.is_connect() && is_ours
    }

    pub(super) fn ask_fallback(&mut self, now: Instant, stream: RequestStream, head: &RequestHead) {
        let request = PlainRequest {
            head: head.clone(),
            carrier: self.carrier_of(stream),
            client: self.carriers.peer_address(stream.connection()),
            certificate: self.carriers.peer_certificate(stream.connection()),
        };
        let due = now + self.limits.open_timeout;
        let id = self.fallback.requests.insert(Plain {
            stream,
            method: head.method.clone(),
            body: None,
            discarded_bytes: 0,
            due,
        });
        self.fallback.timers.insert((due, id));
        self.carriers.bind(stream, id.to_bits());
        let event = HandlerEvent::Fallback(id, Box::new(request));
        self.handler.push_back(event);
    }

    /// Answers a request that asks for no tunnel. The head is made fit for the connection, see [`content::fit`]; an
    /// answer to a request that is gone, or was answered, is dropped.
    pub fn respond(&mut self, now: Instant, id: TunnelId, mut head: ResponseHead, body: Bytes) {
        let waits = |plain: &&mut Plain| plain.body.is_none();
        let Some(plain) = self.fallback.requests.get_mut(id).filter(waits) else {
            return;
        };
        let stream = plain.stream;
        let body = content::fit(&mut head, &plain.method, body);
        let is_complete = body.is_empty();
        let sent = self.carriers.respond_content(stream, &head, body.len());
        plain.body = Some(body);
        if sent {
            self.stats.requests_answered += 1;
        }
        if is_complete || !sent {
            self.forget_plain(id);
        } else {
            self.fallback.arm(id, now + self.limits.tunnel_idle);
            self.send_body(now, id);
        }
    }

    /// Sends as much of a body as there is room for, and the end of the stream behind it.
    pub(super) fn send_body(&mut self, now: Instant, id: TunnelId) {
        let Some(plain) = self.fallback.requests.get_mut(id) else {
            return;
        };
        let Some(body) = &mut plain.body else {
            return;
        };
        let stream = plain.stream;
        let before = body.len();
        while !body.is_empty() {
            let len = self.carriers.send_room(stream).min(body.len());
            if len == 0 {
                break;
            }
            match self.carriers.send_data(stream, body.slice(..len)) {
                SendData::Written => body.advance(len),
                SendData::Blocked => break,
                SendData::Gone => return self.reset_plain(id),
            }
        }
        let left = body.len();
        if left == 0 {
            // On HTTP/1.1 the next request is on the same stream, so this one is forgotten first.
            self.forget_plain(id);
            self.carriers.finish(stream);
            self.carriers.leave(stream);
        } else if left < before {
            self.fallback.arm(id, now + self.limits.tunnel_idle);
        }
    }

    /// Content of a request, or its end.
    pub(super) fn discard_content(&mut self, now: Instant, id: TunnelId) {
        while let Some(plain) = self.fallback.requests.get_mut(id) {
            let room = CONTENT_BYTES_MAX.saturating_sub(plain.discarded_bytes);
            if room == 0 {
                return;
            }
            match self.carriers.recv_data(now, plain.stream, room) {
                RecvData::Data(data) => plain.discarded_bytes += data.len(),
                RecvData::Blocked | RecvData::Finished | RecvData::Gone => return,
                RecvData::Reset(_) => return self.reset_plain(id),
            }
        }
    }

    /// Nobody waits for the response any more, or takes it.
    pub(super) fn reset_plain(&mut self, id: TunnelId) {
        if let Some(stream) = self.forget_plain(id) {
            self.carriers.reset(stream, Code::H3_REQUEST_CANCELLED);
        }
    }

    fn forget_plain(&mut self, id: TunnelId) -> Option<RequestStream> {
        let plain = self.fallback.remove(id)?;
        self.carriers.unbind(plain.stream);
        if plain.body.is_none() {
            let closed = Closed::Aborted {
                abort: Abort::Undecided,
                code: None,
            };
            self.tell(End::Upstream, LocalEvent::Closed(id, closed));
        }
        Some(plain.stream)
    }

    pub(super) fn expire_plain(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.fallback.timers.first() {
            if due > now {
                return;
            }
            let is_answered = |plain: &Plain| plain.body.is_some();
            if self.fallback.requests.get(id).is_some_and(is_answered) {
                self.stats.bodies_unread += 1;
                self.reset_plain(id);
            } else if let Some(stream) = self.forget_plain(id) {
                self.answer_refused(stream, Refusal::Overloaded, None);
            }
        }
    }
}
