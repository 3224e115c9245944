//! Request streams: heads are read and checked here, data streams pass through on demand (RFC 9114 section 4).

use std::mem;

use bytes::Bytes;
use quinn_proto::StreamId;

use super::super::code::Code;
use super::super::event::{
    Abort, ConnectionError, Event, RecvData, RequestError, RespondError, Role, SendData,
};
use super::super::frame::{self, FrameEvent};
use super::super::outgoing::SendGone;
use super::super::stream::{Kind, Recv, Send, Stream};
use super::super::transport::{Read, Transport};
use super::super::{fields, qpack};
use super::{Connection, READ_BYTES_MAX};
use crate::http::request::{HeadError, RequestHead, ResponseHead};

/// The owner's side.
impl Connection {
    /// Client: sends a request and opens its stream. Data may be sent at once; on CONNECT it is wasted if refused.
    ///
    /// # Errors
    /// See [`RequestError`]; nothing was sent then.
    pub fn request(
        &mut self,
        t: &mut impl Transport,
        head: &RequestHead,
    ) -> Result<StreamId, RequestError> {
        debug_assert_eq!(self.role, Role::Client, "servers do not send requests");
        if self.goaway_received.is_some() || self.goaway_sent.is_some() {
            return Err(RequestError::GoingAway);
        }
        if head.protocol.is_some() {
            let settings = self
                .peer_settings
                .as_ref()
                .ok_or(RequestError::NoSettingsYet)?;
            if !settings.extended_connect {
                return Err(RequestError::ExtendedConnectUnsupported);
            }
        }
        let (size, max) = (fields::section_size(head), self.peer_section_size_max());
        if size > max {
            return Err(RequestError::TooLarge { size, max });
        }
        let Some(id) = t.open_bidi() else {
            self.streams_wanted = true;
            return Err(RequestError::StreamsExhausted);
        };
        let mut section = Vec::new();
        fields::encode_request(head, &mut section);
        let mut stream = Stream::new(&self.config, Kind::of(head));
        // A stream that is gone at birth means that QUIC is closing, which the owner learns from QUIC.
        if send_frame(t, id, &mut stream, frame::HEADERS, &section).is_err() {
            stream.close_send();
        }
        self.requests_next = self.requests_next.max(id.index().saturating_add(1));
        self.requests.insert(id.index(), stream);
        Ok(id)
    }

    /// Server: sends a response, interim or final. `fin` ends the stream after it, and asks the peer to stop sending a
    /// request that is still open (RFC 9114 section 4.1). A 2xx to CONNECT comes without `fin`.
    ///
    /// # Errors
    /// See [`RespondError`]; nothing was sent then.
    pub fn respond(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
        head: &ResponseHead,
        fin: bool,
    ) -> Result<(), RespondError> {
        let max = self.peer_section_size_max();
        let stream = self
            .requests
            .get_mut(&id.index())
            .ok_or(RespondError::Gone)?;
        if stream.send != Send::Open {
            return Err(RespondError::Gone);
        }
        if stream.answered {
            return Err(RespondError::Answered);
        }
        let size = fields::response_section_size(head);
        if size > max {
            return Err(RespondError::TooLarge { size, max });
        }
        let mut section = Vec::new();
        fields::encode_response(head, &mut section);
        send_frame(t, id, stream, frame::HEADERS, &section)
            .map_err(|SendGone| RespondError::Gone)?;
        stream.answered = !head.is_interim();
        if fin {
            if stream.recv != Recv::Closed {
                t.stop(id, Code::H3_NO_ERROR);
                stream.close_recv();
            }
            self.finish(t, id);
        }
        Ok(())
    }

    /// Reads the data stream: at most `bytes_max` bytes, cut as they arrived. Call it when there is room, until it says
    /// blocked; every byte returned gives credit to the peer.
    ///
    /// # Errors
    /// Frames that must not be there, or are cut by the end of the stream.
    pub fn recv_data(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
        bytes_max: usize,
    ) -> Result<RecvData, ConnectionError> {
        loop {
            let Some(stream) = self.requests.get_mut(&id.index()) else {
                return Ok(RecvData::Gone);
            };
            match stream.recv {
                Recv::Head => return Ok(RecvData::Blocked),
                Recv::Closed => return Ok(RecvData::Gone),
                Recv::Content | Recv::Tunnel | Recv::Trailers => {}
            }
            if bytes_max == 0 {
                return Ok(RecvData::Blocked);
            }
            if stream.unread.is_empty() {
                match t.read(id, bytes_max) {
                    Read::Data(bytes) => stream.unread = bytes,
                    Read::Blocked => return Ok(RecvData::Blocked),
                    Read::Finished => {
                        stream.check_end()?;
                        self.recv_closed(id);
                        return Ok(RecvData::Finished);
                    }
                    Read::Reset(code) => {
                        self.recv_closed(id);
                        return Ok(RecvData::Reset(code));
                    }
                    Read::Closed => {
                        self.recv_closed(id);
                        return Ok(RecvData::Gone);
                    }
                }
            }
            match stream.next_frame(bytes_max, &mut self.undelivered, &self.config)? {
                None | Some(FrameEvent::Skipped { .. }) => {}
                Some(FrameEvent::Data(_)) if stream.recv == Recv::Trailers => {
                    return Err(AFTER_TRAILERS);
                }
                Some(FrameEvent::Data(data)) if data.is_empty() => {}
                Some(FrameEvent::Data(data)) => return Ok(RecvData::Data(data)),
                Some(FrameEvent::Headers(section)) => self.handle_trailers(t, id, &section)?,
                Some(other) => return Err(self.frame_unexpected(&other)),
            }
        }
    }

    /// Sends `data` as one DATA frame, all or nothing. What credit holds back waits here, up to
    /// [`Config::pending_write_bytes_max`]; beyond that the answer is blocked. A frame above that limit is taken when
    /// nothing waits.
    pub fn send_data(&mut self, t: &mut impl Transport, id: StreamId, data: &[u8]) -> SendData {
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return SendData::Gone;
        };
        if stream.send != Send::Open {
            return SendData::Gone;
        }
        debug_assert!(
            self.role == Role::Client || stream.answered,
            "DATA comes after the response"
        );
        if data.is_empty() {
            return SendData::Written;
        }
        match stream.outgoing.flush(t, id) {
            Err(SendGone) => return SendData::Gone,
            Ok(true) => {}
            Ok(false) => {
                if stream.outgoing.len().saturating_add(data.len())
                    > self.config.pending_write_bytes_max
                {
                    stream.wants_write = true;
                    return SendData::Blocked;
                }
            }
        }
        match send_frame(t, id, stream, frame::DATA, data) {
            Ok(()) => {
                stream.wants_write = false;
                SendData::Written
            }
            Err(SendGone) => SendData::Gone,
        }
    }

    /// Ends our sending side behind everything sent. The receiving side stands.
    pub fn finish(&mut self, t: &mut impl Transport, id: StreamId) {
        if let Some(stream) = self.requests.get_mut(&id.index())
            && stream.send == Send::Open
        {
            stream.send = Send::Finishing;
            self.request_writable(t, id);
        }
    }

    /// Asks the peer to stop sending (STOP_SENDING with `code`). Our sending side stands.
    pub fn stop(&mut self, t: &mut impl Transport, id: StreamId, code: Code) {
        if let Some(stream) = self.requests.get_mut(&id.index())
            && stream.recv != Recv::Closed
        {
            t.stop(id, code);
            self.recv_closed(id);
        }
    }

    /// Abandons the stream in both directions, RESET_STREAM and STOP_SENDING with `code`, and forgets it.
    pub fn reset(&mut self, t: &mut impl Transport, id: StreamId, code: Code) {
        if let Some(stream) = self.requests.remove(&id.index()) {
            // After a FIN this abandons what is not delivered yet.
            t.reset(id, code);
            if stream.recv != Recv::Closed {
                t.stop(id, code);
            }
        }
    }
}

/// The transport's side.
impl Connection {
    pub(super) fn accept_request(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
    ) -> Result<(), ConnectionError> {
        if self.role == Role::Client {
            return Err(ConnectionError::new(
                Code::H3_STREAM_CREATION_ERROR,
                "bidirectional stream from a server",
            ));
        }
        if self
            .goaway_sent
            .is_some_and(|goaway| u64::from(id) >= goaway)
        {
            let reason = Abort::NotProcessed;
            t.reset(id, reason.code(self.role));
            t.stop(id, reason.code(self.role));
            self.events.push_back(Event::Aborted { id, reason });
            return Ok(());
        }
        self.requests_next = self.requests_next.max(id.index().saturating_add(1));
        // Plain until the head says otherwise.
        self.requests
            .insert(id.index(), Stream::new(&self.config, Kind::Plain));
        self.read_head(t, id)
    }

    pub(super) fn request_readable(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
    ) -> Result<(), ConnectionError> {
        let Some(stream) = self.requests.get(&id.index()) else {
            return Ok(());
        };
        match stream.recv {
            Recv::Head => return self.read_head(t, id),
            Recv::Closed => {}
            // A reset must not wait until there is room for data in front of it.
            Recv::Content | Recv::Tunnel | Recv::Trailers => match t.received_reset(id) {
                Some(code) => {
                    self.events.push_back(Event::Reset { id, code });
                    self.recv_closed(id);
                }
                None => self.events.push_back(Event::Readable { id }),
            },
        }
        Ok(())
    }

    pub(super) fn request_writable(&mut self, t: &mut impl Transport, id: StreamId) {
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return;
        };
        match stream.outgoing.flush(t, id) {
            Ok(true) => {}
            Ok(false) => return,
            // The transport reports STOP_SENDING as an event of its own.
            Err(SendGone) => stream.outgoing.clear(),
        }
        if mem::take(&mut stream.wants_write) {
            self.events.push_back(Event::Writable { id });
        }
        if stream.send == Send::Finishing {
            t.finish(id);
            stream.close_send();
            self.forget_if_over(id);
        }
    }

    pub(super) fn request_stopped(&mut self, t: &mut impl Transport, id: StreamId, code: Code) {
        // Even where we are done: what waits in the transport would never be delivered (RFC 9000 section 3.5).
        t.reset(id, code);
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return;
        };
        let owner_knows = self.role == Role::Client || stream.recv != Recv::Head;
        let owner_is_done = stream.recv == Recv::Closed && stream.send != Send::Open;
        stream.close_send();
        if owner_knows && !owner_is_done {
            self.events.push_back(Event::Stopped { id, code });
        }
        self.forget_if_over(id);
    }

    /// Reads until the head is complete; what follows it stays for `recv_data`.
    fn read_head(&mut self, t: &mut impl Transport, id: StreamId) -> Result<(), ConnectionError> {
        while let Some(stream) = self.requests.get_mut(&id.index()) {
            if stream.recv != Recv::Head {
                break;
            }
            if stream.unread.is_empty() {
                match t.read(id, READ_BYTES_MAX) {
                    Read::Data(bytes) => stream.unread = bytes,
                    Read::Blocked => break,
                    Read::Finished => {
                        stream.check_end()?;
                        stream.close_recv();
                        self.abort(t, id, Abort::Incomplete);
                        break;
                    }
                    Read::Reset(code) => {
                        stream.close_recv();
                        self.reset(t, id, Code::H3_REQUEST_CANCELLED);
                        self.events.push_back(Event::Reset { id, code });
                        break;
                    }
                    // Gone without a word, as after 0-RTT was rejected.
                    Read::Closed => {
                        stream.close_recv();
                        let code = Code::H3_REQUEST_CANCELLED;
                        self.reset(t, id, code);
                        self.events.push_back(Event::Reset { id, code });
                        break;
                    }
                }
            }
            match stream.next_frame(READ_BYTES_MAX, &mut self.undelivered, &self.config)? {
                None | Some(FrameEvent::Skipped { .. }) => {}
                Some(FrameEvent::Headers(section)) => self.handle_head(t, id, &section)?,
                Some(other) => return Err(self.frame_unexpected(&other)),
            }
        }
        Ok(())
    }

    fn handle_head(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
        section: &Bytes,
    ) -> Result<(), ConnectionError> {
        let lines = match self.decode(section)? {
            Ok(lines) => lines,
            Err(too_large) => {
                self.refuse_too_large(t, id, too_large);
                return Ok(());
            }
        };
        let handled = match self.role {
            Role::Server => {
                fields::request_from_lines(lines).map(|head| self.handle_request(t, id, head))
            }
            Role::Client => match fields::response_from_lines(lines) {
                Ok(head) if head.is_interim() => return self.charge(id, section.len()),
                Ok(head) => self.handle_response(id, head),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = handled {
            self.abort(t, id, Abort::Malformed(error));
        }
        Ok(())
    }

    fn handle_request(&mut self, t: &mut impl Transport, id: StreamId, head: RequestHead) {
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return;
        };
        if stream.send == Send::Closed {
            // The client reads no answer, so there is none to give.
            self.reset(t, id, Code::H3_REQUEST_CANCELLED);
            return;
        }
        stream.kind = Kind::of(&head);
        stream.recv = if stream.kind.is_connect() {
            Recv::Tunnel
        } else {
            Recv::Content
        };
        self.events.push_back(Event::Request {
            id,
            head: Box::new(head),
        });
    }

    fn handle_response(&mut self, id: StreamId, head: ResponseHead) -> Result<(), HeadError> {
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return Ok(());
        };
        let is_tunnel = stream.kind.is_connect() && head.status.is_success();
        // The field is ignored in an answer to classic CONNECT, but forbidden where capsules may follow.
        if is_tunnel && stream.kind != Kind::ClassicConnect {
            fields::check_capsule_fields(&head.headers)?;
        }
        stream.recv = if is_tunnel {
            Recv::Tunnel
        } else {
            Recv::Content
        };
        self.events.push_back(Event::Response {
            id,
            head: Box::new(head),
        });
        Ok(())
    }

    /// A second HEADERS frame: trailers where they may be.
    fn handle_trailers(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
        section: &Bytes,
    ) -> Result<(), ConnectionError> {
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return Ok(());
        };
        match stream.recv {
            Recv::Content => stream.recv = Recv::Trailers,
            Recv::Trailers => return Err(AFTER_TRAILERS),
            Recv::Tunnel | Recv::Head | Recv::Closed => {
                return Err(ConnectionError::new(
                    Code::H3_FRAME_UNEXPECTED,
                    "HEADERS on a CONNECT stream",
                ));
            }
        }
        // Trailers mean nothing to us; they only have to be well-formed.
        if let Ok(lines) = self.decode(section)?
            && let Err(error) = fields::trailers_from_lines(lines)
        {
            self.abort(t, id, Abort::Malformed(error));
        }
        Ok(())
    }

    /// Decodes a field section; the inner error concerns only its message.
    fn decode(
        &self,
        section: &[u8],
    ) -> Result<Result<Vec<qpack::FieldLine>, qpack::Error>, ConnectionError> {
        let decoded = qpack::decode(section, self.config.field_section_size_max);
        match decoded.as_ref().err().and_then(|error| error.code()) {
            Some(code) => Err(ConnectionError::new(
                code,
                "field section cannot be decoded",
            )),
            None => Ok(decoded),
        }
    }

    /// A server answers 431, a client gives up on the response (RFC 9114 section 4.2.2).
    fn refuse_too_large(&mut self, t: &mut impl Transport, id: StreamId, error: qpack::Error) {
        let reason = Abort::TooLarge(error);
        match self.role {
            Role::Client => self.abort(t, id, reason),
            Role::Server => {
                let head = ResponseHead::new(::http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
                match self.respond(t, id, &head, true) {
                    Ok(()) => self.events.push_back(Event::Aborted { id, reason }),
                    Err(_) => self.abort(t, id, reason),
                }
            }
        }
    }

    /// Ends a stream in both directions and tells the owner.
    pub(super) fn abort(&mut self, t: &mut impl Transport, id: StreamId, reason: Abort) {
        self.reset(t, id, reason.code(self.role));
        self.events.push_back(Event::Aborted { id, reason });
    }

    fn charge(&mut self, id: StreamId, bytes: usize) -> Result<(), ConnectionError> {
        match self.requests.get_mut(&id.index()) {
            Some(stream) => stream.charge(bytes, &mut self.undelivered, &self.config),
            None => Ok(()),
        }
    }

    fn recv_closed(&mut self, id: StreamId) {
        if let Some(stream) = self.requests.get_mut(&id.index()) {
            stream.close_recv();
            self.forget_if_over(id);
        }
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if self.requests.get(&id.index()).is_some_and(Stream::is_over) {
            self.requests.remove(&id.index());
        }
    }

    fn peer_section_size_max(&self) -> u64 {
        self.peer_settings
            .and_then(|settings| settings.max_field_section_size)
            .unwrap_or(u64::MAX)
    }

    /// The error for a frame that has no place on a request stream, or not yet.
    fn frame_unexpected(&self, frame: &FrameEvent) -> ConnectionError {
        match (frame, self.role) {
            (FrameEvent::PushPromise, Role::Client) => {
                ConnectionError::new(Code::H3_ID_ERROR, "PUSH_PROMISE without MAX_PUSH_ID")
            }
            (FrameEvent::Data(_), _) => {
                ConnectionError::new(Code::H3_FRAME_UNEXPECTED, "DATA before HEADERS")
            }
            _ => ConnectionError::new(
                Code::H3_FRAME_UNEXPECTED,
                "frame not allowed on a request stream",
            ),
        }
    }
}

const AFTER_TRAILERS: ConnectionError =
    ConnectionError::new(Code::H3_FRAME_UNEXPECTED, "frame after trailers");

/// Sends one frame behind what waits on the stream.
fn send_frame(
    t: &mut impl Transport,
    id: StreamId,
    stream: &mut Stream,
    ty: u64,
    payload: &[u8],
) -> Result<(), SendGone> {
    let mut header = [0; FRAME_HEADER_LEN_MAX];
    let mut unused = header.as_mut_slice();
    frame::encode_header(ty, payload.len() as u64, &mut unused);
    let unused_len = unused.len();
    let (header, _) = header.split_at(FRAME_HEADER_LEN_MAX.saturating_sub(unused_len));
    stream.outgoing.send(t, id, &[header, payload])
}

/// Two varints, in bytes.
const FRAME_HEADER_LEN_MAX: usize = 16;
