//! HTTP/1.1 over a TLS session: one request at a time, then a tunnel, the next request, or the end.
//!
//! The machines of [`crate::http::h1`] read heads and say whose turn it is; here are the bytes between them and TLS,
//! and how a stream that is the whole connection ends. An end in order is a closure alert in each direction, as
//! END_STREAM on HTTP/2; anything else takes the link down without one (RFC 9112 section 9.8).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};

use super::tls::{Plaintext, Session};
use super::{CloseReason, Event, SEND_ROOM_MIN, StreamId};
use crate::http::h1::{
    ClientConn, ClientError, ClientEvent, Limits, RequestError as HeadRefused, Responded,
    ServerConn, ServerEvent,
};
use crate::http::h3::code::Code;
use crate::http::h3::{ConnectionError, RecvData, RequestError, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::wire::carrier::Carrier;

/// The only stream of a connection.
const STREAM: StreamId = StreamId(0);
/// Bytes that wait to be encrypted. The largest datagram fits in an empty queue.
const QUEUE_BYTES_MAX: usize = 128 * 1024;
/// Bytes read from TLS at once: one record.
const READ_BYTES: usize = 16 * 1024;

enum Role {
    Server(ServerConn),
    Client(ClientConn),
}

/// One HTTP/1.1 connection.
pub(super) struct H1 {
    role: Role,
    session: Rc<RefCell<Session>>,
    /// To be encrypted.
    out: BytesMut,
    told_connected: bool,
    /// A request is at hand whose owner knows of it.
    open: bool,
    /// The owner waits for room.
    hungry: bool,
    /// Our direction has ended.
    finished: bool,
    /// The owner was told the end of the other direction, or wants nothing of it.
    read_over: bool,
    stopped: bool,
    /// No next request.
    going_away: bool,
    /// How the connection ends as soon as it is polled.
    aborted: Option<CloseReason>,
    /// A poll has something to do.
    kicked: bool,
}

impl H1 {
    /// Serves the client at the other end of the session.
    pub(super) fn server(head_bytes_max: usize, session: Rc<RefCell<Session>>) -> Self {
        Self::new(
            Role::Server(ServerConn::new(limits(head_bytes_max))),
            session,
        )
    }

    /// Asks the server at the other end of the session.
    pub(super) fn client(head_bytes_max: usize, session: Rc<RefCell<Session>>) -> Self {
        Self::new(
            Role::Client(ClientConn::new(limits(head_bytes_max))),
            session,
        )
    }

    fn new(role: Role, session: Rc<RefCell<Session>>) -> Self {
        Self {
            role,
            session,
            out: BytesMut::new(),
            told_connected: false,
            open: false,
            hungry: false,
            finished: false,
            read_over: false,
            stopped: false,
            going_away: false,
            aborted: None,
            kicked: true,
        }
    }

    pub(super) fn open_streams(&self) -> usize {
        usize::from(self.open)
    }

    /// Whether a part of a request has come, and not all of its head.
    pub(super) fn is_mid_head(&self) -> bool {
        match &self.role {
            Role::Server(server) => {
                !self.open && server.buffered_bytes() > 0 && !server.is_tunnel()
            }
            Role::Client(_) => false,
        }
    }

    pub(super) fn wants_poll(&self) -> bool {
        self.kicked
    }

    /// Moves everything on that can be moved on.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn poll(&mut self, events: &mut VecDeque<Event>) -> Result<(), CloseReason> {
        self.kicked = false;
        if !self.told_connected {
            self.told_connected = true;
            events.push_back(Event::Connected(Carrier::H1));
        }
        if let Some(reason) = self.aborted.take() {
            return Err(reason);
        }
        loop {
            let received = self.receive();
            self.poll_events(events)?;
            if self.stopped {
                self.discard();
            }
            if !received {
                break;
            }
        }
        self.drain();
        if self.hungry && self.out.len() <= QUEUE_BYTES_MAX / 2 {
            self.hungry = false;
            if self.open {
                events.push_back(Event::Writable { stream: STREAM });
            }
        }
        self.check_end()
    }

    /// Takes one record from TLS, if there is one and room for it.
    fn receive(&mut self) -> bool {
        let room = match &self.role {
            Role::Server(server) => server.receive_room(),
            Role::Client(client) => client.receive_room(),
        };
        if room == 0 {
            return false;
        }
        let mut input = BytesMut::new();
        let read = self
            .session
            .borrow_mut()
            .read(room.min(READ_BYTES), |part| input.extend_from_slice(part));
        match (read, &mut self.role) {
            (Plaintext::Bytes(_), Role::Server(server)) => server.handle_bytes(&mut input),
            (Plaintext::Bytes(_), Role::Client(client)) => client.handle_bytes(&mut input),
            (Plaintext::End, Role::Server(server)) => server.handle_end(true),
            (Plaintext::End, Role::Client(client)) => client.handle_end(true),
            (Plaintext::Truncated, Role::Server(server)) => server.handle_end(false),
            (Plaintext::Truncated, Role::Client(client)) => client.handle_end(false),
            (Plaintext::Blocked, _) => {}
        }
        matches!(read, Plaintext::Bytes(_))
    }

    fn poll_events(&mut self, events: &mut VecDeque<Event>) -> Result<(), CloseReason> {
        match &mut self.role {
            Role::Server(server) => {
                while let Some(event) = server.poll_event(&mut self.out) {
                    match event {
                        ServerEvent::Request(head) => {
                            self.open = true;
                            self.finished = false;
                            self.read_over = false;
                            self.stopped = false;
                            events.push_back(Event::Request {
                                stream: STREAM,
                                head,
                            });
                        }
                        ServerEvent::Refused(fault) => {
                            tracing::debug!(%fault, "a request is malformed");
                            events.push_back(Event::Malformed);
                        }
                        ServerEvent::Readable => push_readable(events),
                    }
                }
            }
            Role::Client(client) => {
                while let Some(event) = client.poll_event() {
                    match event {
                        ClientEvent::Response(head) => events.push_back(Event::Response {
                            stream: STREAM,
                            head,
                        }),
                        ClientEvent::Failed(error) => {
                            tracing::debug!(%error, "there is no response");
                            if std::mem::take(&mut self.open) {
                                events.push_back(Event::Reset {
                                    stream: STREAM,
                                    code: Code::H3_MESSAGE_ERROR,
                                });
                            }
                            return Err(failed(&error));
                        }
                        ClientEvent::Readable => push_readable(events),
                    }
                }
            }
        }
        Ok(())
    }

    /// Encrypts what waits, as far as there is room.
    fn drain(&mut self) {
        let mut session = self.session.borrow_mut();
        while !self.out.is_empty() {
            match session.write(&[IoSlice::new(&self.out)]) {
                0 => return,
                written => self.out.advance(written),
            }
        }
        if self.finished {
            session.close();
        }
    }

    /// Whether anything is left to be done here.
    fn check_end(&self) -> Result<(), CloseReason> {
        if !self.out.is_empty() || (self.open && !(self.finished && self.read_over)) {
            return Ok(());
        }
        let peer_ended = self.session.borrow().is_ended();
        let is_over = match &self.role {
            Role::Server(server) => {
                server.is_closed() || self.finished || (self.going_away && server.is_idle())
            }
            Role::Client(client) => client.is_closed() || self.finished || peer_ended,
        };
        if !is_over {
            Ok(())
        } else if self.session.borrow().is_truncated() {
            Err(CloseReason::Truncated)
        } else if peer_ended {
            Err(CloseReason::Peer(Code::H3_NO_ERROR))
        } else {
            Err(CloseReason::Local)
        }
    }

    pub(super) fn request(&mut self, head: &RequestHead) -> Result<StreamId, RequestError> {
        let Role::Client(client) = &mut self.role else {
            return Err(RequestError::GoingAway);
        };
        if self.open {
            return Err(RequestError::StreamsExhausted);
        }
        if self.going_away {
            return Err(RequestError::GoingAway);
        }
        match client.request(head, &mut self.out) {
            Ok(()) => {
                self.open = true;
                self.kicked = true;
                Ok(STREAM)
            }
            Err(HeadRefused::Protocol) => Err(RequestError::ExtendedConnectUnsupported),
            Err(error) => {
                tracing::debug!(%error, "a request was not written");
                Err(RequestError::GoingAway)
            }
        }
    }

    pub(super) fn respond(&mut self, head: &ResponseHead, fin: bool) -> bool {
        let Role::Server(server) = &mut self.role else {
            return false;
        };
        if !self.open {
            return false;
        }
        self.kicked = true;
        match server.respond(head, &mut self.out) {
            Ok(Responded::Interim | Responded::Content) => true,
            Ok(Responded::Tunnel) => {
                if fin {
                    self.finish();
                    self.stop();
                }
                true
            }
            Ok(Responded::NextRequest | Responded::Close) => {
                self.open = false;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "a response was not sent");
                self.reset(Code::H3_INTERNAL_ERROR);
                false
            }
        }
    }

    /// Answers a request with `content_bytes` bytes of content that `send_data` takes.
    pub(super) fn respond_content(&mut self, head: &ResponseHead, content_bytes: usize) -> bool {
        let Role::Server(server) = &mut self.role else {
            return false;
        };
        if !self.open {
            return false;
        }
        self.kicked = true;
        match server.respond_content(head, content_bytes, &mut self.out) {
            Ok(Responded::NextRequest | Responded::Close) => {
                self.open = false;
                true
            }
            Ok(Responded::Content | Responded::Interim | Responded::Tunnel) => true,
            Err(error) => {
                tracing::debug!(%error, "a response was not sent");
                self.reset(Code::H3_INTERNAL_ERROR);
                false
            }
        }
    }

    pub(super) fn recv_data(&mut self, bytes_max: usize) -> RecvData {
        if !self.open || self.read_over {
            return RecvData::Gone;
        }
        let read = match &mut self.role {
            Role::Server(server) => server.recv_data(bytes_max),
            Role::Client(client) => client.recv_data(bytes_max),
        };
        match read {
            // There may be room for what waits in TLS.
            RecvData::Data(_) => self.kicked = true,
            RecvData::Finished | RecvData::Gone => {
                self.read_over = true;
                self.kicked = true;
            }
            RecvData::Reset(_) => {
                self.open = false;
                self.kicked = true;
                self.aborted = Some(CloseReason::Truncated);
            }
            RecvData::Blocked => {}
        }
        read
    }

    /// Bytes that `send_data` takes now; `None` if it never takes any again.
    fn room(&self) -> Option<usize> {
        let is_tunnel = match &self.role {
            Role::Server(server) => server.is_tunnel() || server.content_left().is_some(),
            // Nothing may be sent behind a request before its answer (RFC 9931 section 8).
            Role::Client(client) => client.is_tunnel(),
        };
        if !self.open || self.finished {
            None
        } else if is_tunnel {
            Some(QUEUE_BYTES_MAX.saturating_sub(self.out.len()))
        } else {
            Some(0)
        }
    }

    pub(super) fn send_room(&mut self) -> usize {
        let room = self.room().unwrap_or(0);
        if room < SEND_ROOM_MIN {
            self.hungry = true;
            return 0;
        }
        self.content_left().map_or(room, |left| room.min(left))
    }

    pub(super) fn send_data(&mut self, data: &Bytes) -> SendData {
        // More than was announced would be taken for the next response.
        if self.content_left().is_some_and(|left| left < data.len()) {
            debug_assert!(false, "content beyond its length");
            return SendData::Gone;
        }
        let sent = self.append(data.len().max(1), |out| out.extend_from_slice(data));
        if sent == SendData::Written
            && let Role::Server(server) = &mut self.role
            && server.content_sent(data.len()).is_some()
        {
            self.open = false;
        }
        sent
    }

    /// Content of a response that is still to be sent.
    fn content_left(&self) -> Option<usize> {
        match &self.role {
            Role::Server(server) => server.content_left(),
            Role::Client(_) => None,
        }
    }

    /// Appends up to `len` bytes, all or nothing.
    pub(super) fn append(&mut self, len: usize, encode: impl FnOnce(&mut BytesMut)) -> SendData {
        match self.room() {
            None => SendData::Gone,
            Some(room) if room < len => {
                self.hungry = true;
                SendData::Blocked
            }
            Some(_) => {
                encode(&mut self.out);
                self.kicked = true;
                SendData::Written
            }
        }
    }

    pub(super) fn finish(&mut self) {
        if !self.open {
            return;
        }
        let is_answered = match &self.role {
            Role::Server(server) => server.is_tunnel(),
            Role::Client(client) => client.is_tunnel() || client.is_closed(),
        };
        if !is_answered {
            self.reset(Code::H3_REQUEST_CANCELLED);
        } else {
            self.finished = true;
            self.kicked = true;
        }
    }

    pub(super) fn reset(&mut self, code: Code) {
        if std::mem::take(&mut self.open) {
            self.aborted = Some(CloseReason::Aborted(code));
            self.kicked = true;
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.kicked = true;
    }

    fn discard(&mut self) {
        while !self.read_over && self.open {
            match self.recv_data(usize::MAX) {
                RecvData::Data(_) => {}
                RecvData::Blocked => {
                    // Once we are done the peer need not be.
                    self.read_over = self.finished;
                    return;
                }
                RecvData::Finished | RecvData::Reset(_) | RecvData::Gone => return,
            }
        }
    }

    pub(super) fn goaway(&mut self) {
        self.going_away = true;
        self.kicked = true;
        if let Role::Server(server) = &mut self.role {
            server.drain();
        }
    }

    /// Encrypts what still fits, before the connection ends.
    pub(super) fn close(&mut self) {
        self.drain();
    }
}

fn push_readable(events: &mut VecDeque<Event>) {
    events.push_back(Event::Readable { stream: STREAM });
}

fn limits(head_bytes_max: usize) -> Limits {
    Limits {
        head_bytes_max,
        ..Limits::default()
    }
}

fn failed(error: &ClientError) -> CloseReason {
    match error {
        ClientError::Incomplete => CloseReason::Truncated,
        ClientError::Head(_)
        | ClientError::Unasked
        | ClientError::TooManyInterim
        | ClientError::WrongProtocol
        | ClientError::NotSwitched { .. } => CloseReason::Misbehaved(ConnectionError {
            code: Code::H3_MESSAGE_ERROR,
            reason: "a response that HTTP/1.1 does not allow",
        }),
    }
}
