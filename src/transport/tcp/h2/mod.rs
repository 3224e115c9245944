//! HTTP/2 (RFC 9113, RFC 8441) over a TLS session: the h2 package, polled by hand.
//!
//! ```text
//!   fed session ─► poll ─► h2 ─► events        notes: which stream h2 woke
//!   send_data, respond, … ─► h2 ─► poll ─► session that wants to be drained
//! ```
//!
//! **Invariants.** Nothing is spawned and nothing waits: [`H2::poll`] goes on until h2 has woken nobody. The peer gets
//! credit for what the owner has read, never before. For each stream a bounded queue of data waits in h2.
//!
//! Does not know: sockets, time.

mod client;
mod server;
mod stream;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ::http::Response;
use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::client::SendRequest;
use rustc_hash::FxHashMap;

use self::stream::{Answer, Chunk, Roomy, Stream};
use super::code::{code_of, reason_of};
use super::io::Io;
use super::tls::Session;
use super::wake::{Noted, Notes};
use super::{CloseReason, Event, SEND_ROOM_MIN, StreamId};
use crate::http::h3::code::Code;
use crate::http::h3::{ConnectionError, RecvData, RequestError, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::wire::carrier::Carrier;

/// Largest DATA frame that we take (RFC 9113 section 4.2).
const FRAME_BYTES_MAX: u32 = 64 * 1024;

/// Settings of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Requests that the peer may have open at once.
    pub(super) streams_max: u32,
    /// Unread bytes that the peer may have in flight on one stream.
    pub(super) stream_window: u32,
    /// The same on all streams.
    pub(super) connection_window: u32,
    /// Size of a field section, decoded.
    pub(super) field_section_bytes: u32,
    /// Requests that the peer may reset before we have looked at them.
    pub(super) pending_resets_max: usize,
}

/// Who is at the other end, and how far we are with it.
enum Peer {
    Accepting(Box<h2::server::Handshake<Io, Chunk>>),
    Connecting(client::Handshake),
    Client(Box<h2::server::Connection<Io, Chunk>>),
    Server {
        requests: SendRequest<Chunk>,
        connection: Box<h2::client::Connection<Io, Chunk>>,
        /// SETTINGS arrived.
        ready: bool,
        /// A request found no stream.
        starved: bool,
        /// GOAWAY arrived, or we have shut down.
        going_away: bool,
    },
    /// A handshake failed.
    Gone,
}

/// One HTTP/2 connection.
pub(super) struct H2 {
    peer: Peer,
    session: Rc<RefCell<Session>>,
    streams: FxHashMap<u32, Stream>,
    notes: Arc<Notes>,
    waker: Waker,
    roomy: Roomy,
    /// Streams with capsules of this turn.
    staged: BTreeSet<u32>,
    goaway_told: bool,
    /// The peer has ended in order, and owners have not read everything that came before.
    is_lame: bool,
    /// An owner has read something of that.
    read_lame: bool,
    /// Windows of streams that were full when their owner came to read.
    stalled: u64,
}

impl H2 {
    /// Serves the client at the other end of the session.
    pub(super) fn server(options: &Options, session: Rc<RefCell<Session>>) -> Self {
        let handshake = server::handshake(options, Io(Rc::clone(&session)));
        Self::new(Peer::Accepting(Box::new(handshake)), session)
    }

    /// Asks the server at the other end of the session.
    pub(super) fn client(options: &Options, session: Rc<RefCell<Session>>) -> Self {
        let handshake = client::handshake(options, Io(Rc::clone(&session)));
        Self::new(Peer::Connecting(handshake), session)
    }

    fn new(peer: Peer, session: Rc<RefCell<Session>>) -> Self {
        let notes = Arc::new(Notes::default());
        Self {
            peer,
            session,
            streams: FxHashMap::default(),
            waker: notes.connection_waker(),
            notes,
            roomy: Roomy::default(),
            staged: BTreeSet::new(),
            goaway_told: false,
            is_lame: false,
            read_lame: false,
            stalled: 0,
        }
    }

    /// Streams that are not over, those not counted that only wait for their peer's end.
    pub(super) fn open_streams(&self) -> usize {
        let streams = self.streams.values();
        streams.filter(|stream| !stream.is_left()).count()
    }

    /// Whether the peer has ended in order while owners still read.
    pub(super) const fn is_lame(&self) -> bool {
        self.is_lame
    }

    /// Windows of streams that were full, since this was asked last.
    pub(super) fn take_stalled(&mut self) -> u64 {
        std::mem::take(&mut self.stalled)
    }

    /// Whether a poll has something to do besides what the session got.
    pub(super) fn wants_poll(&self) -> bool {
        !self.notes.is_empty()
            || !self.staged.is_empty()
            || !self.roomy.borrow().is_empty()
            || self.read_lame
    }

    /// Moves everything on that can be moved on.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn poll(&mut self, events: &mut VecDeque<Event>) -> Result<(), CloseReason> {
        self.flush_staged();
        self.read_lame = false;
        loop {
            self.notes.take_connection();
            let polled = self.poll_connection(events);
            if polled
                .as_ref()
                .is_err_and(|end| !matches!(end, CloseReason::Peer(_)))
            {
                return polled;
            }
            // What came before an end in order is told before it.
            while let Some(noted) = self.notes.pop() {
                self.look_at(noted, events);
            }
            loop {
                let Some(id) = self.roomy.borrow_mut().pop_front() else {
                    break;
                };
                if self.streams.contains_key(&id) {
                    events.push_back(Event::Writable {
                        stream: StreamId(id),
                    });
                }
            }
            self.note_peer(events);
            if polled.is_err() {
                self.is_lame = self.streams.values_mut().any(Stream::has_unread);
                return if self.is_lame { Ok(()) } else { polled };
            }
            if self.notes.is_empty() {
                return Ok(());
            }
        }
    }

    fn flush_staged(&mut self) {
        while let Some(id) = self.staged.pop_first() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.flush_staged();
            }
        }
    }

    fn poll_connection(&mut self, events: &mut VecDeque<Event>) -> Result<(), CloseReason> {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        loop {
            match &mut self.peer {
                Peer::Accepting(handshake) => match Pin::new(&mut **handshake).poll(&mut cx) {
                    Poll::Ready(Ok(connection)) => {
                        self.peer = Peer::Client(Box::new(connection));
                        events.push_back(Event::Connected(Carrier::H2));
                    }
                    Poll::Ready(Err(error)) => {
                        self.peer = Peer::Gone;
                        return Err(self.reason_of_end(&error));
                    }
                    Poll::Pending => return Ok(()),
                },
                Peer::Connecting(handshake) => match handshake.as_mut().poll(&mut cx) {
                    Poll::Ready(Ok((requests, connection))) => {
                        self.peer = Peer::Server {
                            requests,
                            connection: Box::new(connection),
                            ready: false,
                            starved: false,
                            going_away: false,
                        };
                    }
                    Poll::Ready(Err(error)) => {
                        self.peer = Peer::Gone;
                        return Err(self.reason_of_end(&error));
                    }
                    Poll::Pending => return Ok(()),
                },
                Peer::Client(connection) => match connection.poll_accept(&mut cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.accept(request, respond, events);
                    }
                    Poll::Ready(Some(Err(error))) => return Err(self.reason_of_end(&error)),
                    Poll::Ready(None) => return Err(self.orderly_end()),
                    Poll::Pending => return Ok(()),
                },
                Peer::Server { connection, .. } => {
                    match Pin::new(&mut **connection).poll(&mut cx) {
                        Poll::Ready(Ok(())) => return Err(self.orderly_end()),
                        Poll::Ready(Err(error)) => return Err(self.reason_of_end(&error)),
                        Poll::Pending => return Ok(()),
                    }
                }
                Peer::Gone => return Err(CloseReason::Local),
            }
        }
    }

    fn orderly_end(&self) -> CloseReason {
        if self.session.borrow().is_truncated() {
            CloseReason::Truncated
        } else {
            CloseReason::Peer(Code::H3_NO_ERROR)
        }
    }

    fn reason_of_end(&self, error: &h2::Error) -> CloseReason {
        tracing::debug!(%error, "an HTTP/2 connection ends");
        let code = error.reason().map_or(Code::H3_NO_ERROR, code_of);
        if error.is_io() {
            self.orderly_end()
        } else if error.is_remote() {
            CloseReason::Peer(code)
        } else {
            let reason = if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                "too many resets, refusals or empty frames"
            } else {
                "HTTP/2 was broken"
            };
            CloseReason::Misbehaved(ConnectionError { code, reason })
        }
    }

    fn accept(
        &mut self,
        request: ::http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Chunk>,
        events: &mut VecDeque<Event>,
    ) {
        let (parts, recv) = request.into_parts();
        let head = match server::request_head(parts) {
            Ok(head) => Box::new(head),
            Err(error) => {
                tracing::debug!(%error, "a request is malformed");
                respond.send_reset(Reason::PROTOCOL_ERROR);
                events.push_back(Event::Malformed);
                return;
            }
        };
        let id = u32::from(recv.stream_id());
        let mut stream = Stream::new(id, &self.notes, &self.roomy, Answer::Owed(respond));
        stream.recv = Some(recv);
        if !head.is_connect() {
            stream.set_plain();
        }
        let stream_id = StreamId(id);
        let reset = stream.poll_reset();
        self.streams.insert(id, stream);
        events.push_back(Event::Request {
            stream: stream_id,
            head,
        });
        if let Some(code) = reset {
            self.end_stream(id, code, events);
        }
    }

    fn look_at(&mut self, noted: Noted, events: &mut VecDeque<Event>) {
        let id = match noted {
            Noted::Receive(id) | Noted::Send(id) => id,
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let stream_id = StreamId(id);
        match stream.poll_response() {
            Poll::Ready(Ok(parts)) => {
                let head = ResponseHead {
                    status: parts.status,
                    headers: parts.headers,
                };
                events.push_back(Event::Response {
                    stream: stream_id,
                    head: Box::new(head),
                });
                stream.poll_reset();
                return;
            }
            Poll::Ready(Err(code)) => {
                let code = code.unwrap_or(Code::H3_NO_ERROR);
                self.end_stream(id, code, events);
                return;
            }
            Poll::Pending => {}
        }
        if let Some(code) = stream.poll_reset() {
            // A server that needs no more of us may say so behind its whole response, which is not to be lost
            // (RFC 9113 section 8.1): the owner reads it first.
            if code == Code::H3_NO_ERROR && stream.has_unread() {
                if stream.take_read_blocked() {
                    events.push_back(Event::Readable { stream: stream_id });
                }
                return;
            }
            self.end_stream(id, code, events);
            return;
        }
        match noted {
            Noted::Receive(_) if stream.is_stopped() => stream.discard(),
            Noted::Receive(_) => {
                if stream.take_read_blocked() {
                    events.push_back(Event::Readable { stream: stream_id });
                }
            }
            Noted::Send(_) => {}
        }
        self.forget_if_over(id);
    }

    /// The peer, or h2, has reset a stream: it is over in both directions.
    fn end_stream(&mut self, id: u32, code: Code, events: &mut VecDeque<Event>) {
        self.streams.remove(&id);
        let last = self
            .session
            .borrow()
            .gauge
            .as_ref()
            .and_then(|gauge| gauge.goaway_last);
        let is_client = matches!(self.peer, Peer::Server { .. });
        // Beyond the last stream of a GOAWAY nothing was processed (RFC 9113 section 6.8).
        let code = match last {
            Some(last) if is_client && id > last => Code::H3_REQUEST_REJECTED,
            Some(_) | None => code,
        };
        events.push_back(Event::Reset {
            stream: StreamId(id),
            code,
        });
    }

    /// Tells what is new of the peer as a server.
    fn note_peer(&mut self, events: &mut VecDeque<Event>) {
        let open = self.streams.len();
        let (settings_seen, goaway) = match &self.session.borrow().gauge {
            Some(gauge) => (gauge.settings_seen, gauge.goaway_last.is_some()),
            None => (false, false),
        };
        if goaway && !self.goaway_told {
            self.goaway_told = true;
            events.push_back(Event::GoAway);
        }
        let Peer::Server {
            requests,
            ready,
            starved,
            going_away,
            ..
        } = &mut self.peer
        else {
            return;
        };
        *going_away |= goaway;
        if settings_seen && !*ready {
            *ready = true;
            events.push_back(Event::Connected(Carrier::H2));
        }
        if *starved && open < requests.current_max_send_streams() {
            *starved = false;
            events.push_back(Event::StreamsAvailable);
        }
    }

    /// Opens a request stream.
    pub(super) fn request(&mut self, head: &RequestHead) -> Result<StreamId, RequestError> {
        let Peer::Server {
            requests,
            ready,
            starved,
            going_away,
            ..
        } = &mut self.peer
        else {
            return Err(RequestError::GoingAway);
        };
        if *going_away {
            return Err(RequestError::GoingAway);
        }
        if !*ready {
            return Err(RequestError::NoSettingsYet);
        }
        if head.is_extended_connect() && !requests.is_extended_connect_protocol_enabled() {
            return Err(RequestError::ExtendedConnectUnsupported);
        }
        let mut cx = Context::from_waker(&self.waker);
        if self.streams.len() >= requests.current_max_send_streams() {
            *starved = true;
            return Err(RequestError::StreamsExhausted);
        }
        match requests.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(RequestError::GoingAway),
            Poll::Pending => {
                *starved = true;
                return Err(RequestError::StreamsExhausted);
            }
        }
        let Some(request) = client::request(head) else {
            tracing::debug!("a request cannot be written in HTTP/2");
            return Err(RequestError::GoingAway);
        };
        let (response, send) = requests
            .send_request(request, false)
            .map_err(|_| RequestError::GoingAway)?;
        let id = u32::from(send.stream_id());
        let mut stream = Stream::new(id, &self.notes, &self.roomy, Answer::Awaited(response));
        stream.send = Some(send);
        // Registers for the answer and for a reset.
        if stream.poll_response().is_pending() {
            stream.poll_reset();
        }
        self.streams.insert(id, stream);
        Ok(StreamId(id))
    }

    /// Answers a request; whether the answer went out.
    pub(super) fn respond(&mut self, id: StreamId, head: &ResponseHead, fin: bool) -> bool {
        let Some(stream) = self.streams.get_mut(&id.0) else {
            return false;
        };
        let Answer::Owed(respond) = &mut stream.answer else {
            return false;
        };
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers.clone();
        if head.is_interim() {
            return respond.send_informational(response).is_ok();
        }
        match respond.send_response(response, fin) {
            Ok(send) => {
                stream.answer = Answer::Done;
                stream.send = Some(send);
                if fin {
                    stream.set_send_over();
                    // Without RST_STREAM, which h2 sends for a stream that is forgotten: curl takes it for a failure
                    // even behind the end of the response.
                    stream.leave();
                } else {
                    stream.poll_reset();
                    stream.want_room();
                }
                self.forget_if_over(id.0);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "a response was not sent");
                self.reset(id, Code::H3_REQUEST_CANCELLED);
                false
            }
        }
    }

    pub(super) fn recv_data(&mut self, id: StreamId, bytes_max: usize) -> RecvData {
        let Some(stream) = self.streams.get_mut(&id.0) else {
            return RecvData::Gone;
        };
        let read = stream.recv_data(bytes_max);
        self.read_lame = self.is_lame;
        self.stalled += u64::from(stream.take_stalled());
        match read {
            RecvData::Reset(Code::H3_MESSAGE_ERROR) => self.reset(id, Code::H3_MESSAGE_ERROR),
            RecvData::Reset(_) => {
                self.streams.remove(&id.0);
            }
            RecvData::Finished => {
                stream.look_again();
                self.forget_if_over(id.0);
            }
            RecvData::Data(_) | RecvData::Blocked | RecvData::Gone => {}
        }
        read
    }

    /// Bytes that `send_data` takes now; zero asks for [`Event::Writable`].
    pub(super) fn send_room(&self, id: StreamId) -> usize {
        let Some(stream) = self.streams.get(&id.0) else {
            return 0;
        };
        let room = stream.send_room().unwrap_or(0);
        if room < SEND_ROOM_MIN {
            stream.want_room();
            return 0;
        }
        room
    }

    pub(super) fn send_data(&mut self, id: StreamId, data: Bytes) -> SendData {
        match self.streams.get_mut(&id.0) {
            Some(stream) => stream.send_data(data),
            None => SendData::Gone,
        }
    }

    /// Appends a capsule of `len` bytes, all or nothing.
    pub(super) fn send_capsule(
        &mut self,
        id: StreamId,
        len: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> SendData {
        let Some(stream) = self.streams.get_mut(&id.0) else {
            return SendData::Gone;
        };
        let sent = stream.stage(len, encode);
        if stream.has_staged() {
            self.staged.insert(id.0);
        }
        sent
    }

    pub(super) fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            if matches!(stream.answer, Answer::Owed(_)) {
                self.reset(id, Code::H3_REQUEST_CANCELLED);
                return;
            }
            stream.finish();
            self.forget_if_over(id.0);
        }
    }

    pub(super) fn reset(&mut self, id: StreamId, code: Code) {
        self.read_lame = self.is_lame;
        if let Some(mut stream) = self.streams.remove(&id.0) {
            stream.reset(reason_of(code));
        }
    }

    /// Reads nothing more. When our direction has ended too, the peer gets RST_STREAM with NO_ERROR from a server and
    /// CANCEL from a client; h2 sends it when the last name of a stream is gone.
    pub(super) fn stop(&mut self, id: StreamId) {
        self.read_lame = self.is_lame;
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.stop();
            self.forget_if_over(id.0);
        }
    }

    pub(super) fn leave(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.leave();
            self.forget_if_over(id.0);
        }
    }

    fn forget_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
        }
    }

    /// Announces the end: a server sends GOAWAY twice (RFC 9113 section 6.8), a client only sends no more requests.
    pub(super) fn goaway(&mut self) {
        match &mut self.peer {
            Peer::Client(connection) => {
                connection.graceful_shutdown();
                // h2 wakes nobody for that.
                self.waker.wake_by_ref();
            }
            Peer::Server { going_away, .. } => *going_away = true,
            Peer::Accepting(_) | Peer::Connecting(_) | Peer::Gone => {}
        }
    }

    /// Ends the connection at once, as far as the session has room for what tells the peer. What the peer sent before
    /// can still be read.
    pub(super) fn close(&mut self, code: Code) {
        let mut cx = Context::from_waker(&self.waker);
        match std::mem::replace(&mut self.peer, Peer::Gone) {
            Peer::Client(mut connection) => {
                connection.abrupt_shutdown(reason_of(code));
                // What it says is of no interest: the connection is over.
                while let Poll::Ready(Some(Ok(_))) = connection.poll_accept(&mut cx) {}
            }
            Peer::Server {
                requests,
                mut connection,
                ..
            } => {
                // Without requests and streams h2 says goodbye by itself, resets first.
                drop(requests);
                if !self.session.borrow().is_ended() {
                    for stream in self.streams.values_mut() {
                        stream.reset(reason_of(code));
                    }
                    self.streams.clear();
                }
                for _ in 0..2 {
                    if Pin::new(&mut *connection).poll(&mut cx).is_ready() {
                        break;
                    }
                }
            }
            Peer::Accepting(_) | Peer::Connecting(_) | Peer::Gone => {}
        }
    }
}
