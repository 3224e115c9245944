//! Request streams: what the owner does with them, and what the transport says of them (RFC 9114 section 4).
//!
//! Data streams pass through on demand; heads are in `heads`.

use std::mem;

use quinn_proto::StreamId;

use super::super::code::Code;
use super::super::event::{
    Abort, ConnectionError, Event, RecvData, RequestError, RespondError, Role, SendData,
};
use super::super::fields;
use super::super::frame::{self, FrameEvent};
use super::super::outgoing::SendGone;
use super::super::stream::{Kind, Recv, Send, Stream};
use super::super::transport::{Read, Transport};
use super::Connection;
use crate::http::request::{RequestHead, ResponseHead};

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
                None => {}
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

    /// How many bytes the next [`Connection::send_data`] takes whole; at 0 [`Event::Writable`] follows. 0 as well for a
    /// stream that takes nothing any more.
    pub fn send_room(&mut self, t: &mut impl Transport, id: StreamId) -> usize {
        let Some(stream) = self.requests.get_mut(&id.index()) else {
            return 0;
        };
        if stream.send != Send::Open {
            return 0;
        }
        match stream.outgoing.flush(t, id) {
            Ok(true) => self.config.pending_write_bytes_max,
            Ok(false) => {
                stream.wants_write = true;
                0
            }
            Err(SendGone) => 0,
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

    /// Ends a stream in both directions and tells the owner.
    pub(super) fn abort(&mut self, t: &mut impl Transport, id: StreamId, reason: Abort) {
        self.reset(t, id, reason.code(self.role));
        self.events.push_back(Event::Aborted { id, reason });
    }

    pub(super) fn recv_closed(&mut self, id: StreamId) {
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
    pub(super) fn frame_unexpected(&self, frame: &FrameEvent) -> ConnectionError {
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

pub(super) const AFTER_TRAILERS: ConnectionError =
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
