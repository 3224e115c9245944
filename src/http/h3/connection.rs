//! The HTTP/3 connection machine for CONNECT-only endpoints, both roles, without I/O and without time
//! (RFC 9114, 9204, 9220, 9297).
//!
//! ```text
//!                StreamEvent                     Event
//!   QUIC ──► handle_stream_event ──► Connection ──poll──► owner (tunnels)
//!     ▲            reads heads,          │                  │ request, respond,
//!     └──────── control, QPACK ◄─ writes ┘                  │ recv_data, send_data, finish, reset
//!   datagrams ──────────────────► route_datagram ◄──────────┘
//! ```
//!
//! One input, then drain [`Connection::poll`]. Heads are read eagerly, the data stream only when the owner asks
//! ([`Connection::recv_data`]): no room there, no credit for the peer here. Any [`ConnectionError`] is final: close
//! QUIC with its code and drop the machine.
//!
//! Does not push, keeps no dynamic QPACK table, ignores priorities, does not parse capsules, and knows neither the
//! idle time of a stream nor the age of an unfinished head.
//!
//! Request streams are in `requests`, their heads in `heads`, datagrams in `datagram`.

mod datagram;
mod heads;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use quinn_proto::{Dir, StreamEvent, StreamId};
use rustc_hash::FxHashMap;

use super::budget::Balance;
use super::code::Code;
use super::config::Config;
use super::event::{Abort, ConnectionError, DatagramMode, Event, GoAway, Role};
use super::frame::{self, FrameEvent};
use super::settings::Settings;
use super::stream::{Recv, Stream};
use super::transport::{Read, Transport};
use super::uni::{LocalStreams, PeerStream, PeerStreams, Typed};

/// How much one read takes from the transport while the machine itself consumes, in bytes.
const READ_BYTES_MAX: usize = 16 * 1024;

/// The id of a first GOAWAY: the largest client-initiated bidirectional stream (RFC 9114 section 5.2).
const GOAWAY_SOFT: u64 = (1 << 62) - 4;

/// HTTP/3 on one QUIC connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    events: VecDeque<Event>,
    /// By stream index, which is also the quarter stream id: request streams are client-initiated and bidirectional.
    requests: FxHashMap<u64, Stream>,
    /// Index of the first request stream never seen.
    requests_next: u64,
    /// The owner was told that no stream is available.
    streams_wanted: bool,
    local: LocalStreams,
    peer: PeerStreams,
    peer_settings: Option<Settings>,
    peer_push_id_max: Option<u64>,
    undelivered: Balance,
    goaway_sent: Option<u64>,
    goaway_received: Option<u64>,
}

impl Connection {
    /// A connection that has sent nothing yet.
    pub fn new(role: Role, config: Config) -> Self {
        debug_assert!(
            u64::from(config.undelivered_stream_bytes_max) > config.headers_len_max,
            "a head of legal length would be a load"
        );
        let mut machine = Self {
            role,
            config,
            events: VecDeque::new(),
            requests: FxHashMap::default(),
            requests_next: 0,
            streams_wanted: false,
            local: LocalStreams::new(),
            peer: PeerStreams::default(),
            peer_settings: None,
            peer_push_id_max: None,
            undelivered: Balance::default(),
            goaway_sent: None,
            goaway_received: None,
        };
        let settings = machine.settings_frame();
        machine.local.hold_control(&settings);
        machine
    }

    /// Opens the control stream and both QPACK streams and sends SETTINGS, as early as the transport can send.
    ///
    /// What the peer does not allow yet is done when it does; calling again is harmless.
    ///
    /// # Errors
    /// H3_CLOSED_CRITICAL_STREAM when the peer stopped one of them.
    pub fn start(&mut self, t: &mut impl Transport) -> Result<(), ConnectionError> {
        self.local.open(t)
    }

    /// Takes an event of the QUIC connection.
    ///
    /// # Errors
    /// Whatever the peer did wrong that concerns the whole connection.
    pub fn handle_stream_event(
        &mut self,
        t: &mut impl Transport,
        event: StreamEvent,
    ) -> Result<(), ConnectionError> {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(id) = t.accept_uni() {
                    self.peer.accept(id);
                    self.read_uni(t, id)?;
                }
                Ok(())
            }
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = t.accept_bidi() {
                    self.accept_request(t, id)?;
                }
                Ok(())
            }
            StreamEvent::Readable { id } => match id.dir() {
                Dir::Uni => self.read_uni(t, id),
                Dir::Bi => self.request_readable(t, id),
            },
            StreamEvent::Writable { id } => match id.dir() {
                Dir::Uni => self.local.writable(t, id),
                Dir::Bi => {
                    self.request_writable(t, id);
                    Ok(())
                }
            },
            StreamEvent::Stopped { id, error_code } => match id.dir() {
                Dir::Uni => self.local.stopped(id),
                Dir::Bi => {
                    self.request_stopped(t, id, error_code.into());
                    Ok(())
                }
            },
            StreamEvent::Available { dir: Dir::Uni } => self.local.open(t),
            StreamEvent::Available { dir: Dir::Bi } => {
                if mem::take(&mut self.streams_wanted) {
                    self.events.push_back(Event::StreamsAvailable);
                }
                Ok(())
            }
            // Delivery to the peer changes nothing here.
            StreamEvent::Finished { id: _ } => Ok(()),
        }
    }

    /// The next event; call it until `None` after every input.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Starts or completes a shutdown. Open requests go on; close with H3_NO_ERROR when [`Connection::is_idle`].
    ///
    /// A server calls it with [`GoAway::Soft`], and about a round trip later with [`GoAway::Final`]; later requests are
    /// rejected as not processed (RFC 9114 section 5.2). A client names push id 0 both times and sends no new requests.
    ///
    /// # Errors
    /// H3_CLOSED_CRITICAL_STREAM when the peer stopped our control stream.
    pub fn goaway(
        &mut self,
        t: &mut impl Transport,
        goaway: GoAway,
    ) -> Result<(), ConnectionError> {
        let id = match (self.role, goaway) {
            (Role::Client, GoAway::Soft | GoAway::Final) => 0,
            (Role::Server, GoAway::Soft) => GOAWAY_SOFT,
            (Role::Server, GoAway::Final) => self.requests_next << 2,
        };
        // The id never grows, and saying it twice helps nobody.
        if self.goaway_sent.is_some_and(|sent| id >= sent) {
            return Ok(());
        }
        self.goaway_sent = Some(id);
        let mut frame = Vec::new();
        frame::encode_goaway(id, &mut frame);
        self.local.send_control(t, &frame)
    }

    /// True when no request is open.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many requests are open.
    pub fn request_count(&self) -> usize {
        self.requests.len()
    }

    /// How many bytes the request streams hold: read and not delivered, written and not sent. Walks over all of them,
    /// so it is for tests and for reports.
    pub fn buffered_bytes(&self) -> usize {
        self.requests.values().map(Stream::buffered_bytes).sum()
    }

    /// The peer's SETTINGS, once they arrived.
    pub fn peer_settings(&self) -> Option<&Settings> {
        self.peer_settings.as_ref()
    }

    /// How datagrams travel to the peer. Ask again after [`Event::Settings`]: a request may arrive before the SETTINGS
    /// of its sender (RFC 9297 section 2.1.1).
    pub fn datagram_mode(&self, t: &mut impl Transport) -> DatagramMode {
        match &self.peer_settings {
            None => DatagramMode::Pending,
            Some(settings) if settings.datagrams && t.datagram_size_max().is_some() => {
                DatagramMode::Frames
            }
            Some(_) => DatagramMode::Capsules,
        }
    }

    /// The SETTINGS frame that opens our control stream.
    fn settings_frame(&self) -> Vec<u8> {
        let settings = Settings {
            max_field_section_size: Some(self.config.field_section_size_max),
            // From a client it has no effect.
            extended_connect: self.role == Role::Server,
            datagrams: true,
            ..Settings::default()
        };
        let mut payload = Vec::new();
        settings.encode(self.config.grease, &mut payload);
        let mut out = Vec::new();
        frame::encode_header(frame::SETTINGS, payload.len() as u64, &mut out);
        out.extend_from_slice(&payload);
        out
    }

    fn read_uni(&mut self, t: &mut impl Transport, id: StreamId) -> Result<(), ConnectionError> {
        while self.peer.stream(id).is_some() {
            match t.read(id, READ_BYTES_MAX) {
                Read::Data(bytes) => self.uni_bytes(t, id, bytes)?,
                Read::Blocked => return Ok(()),
                Read::Finished | Read::Reset(_) | Read::Closed => return self.peer.closed(id),
            }
        }
        Ok(())
    }

    fn uni_bytes(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
        mut bytes: Bytes,
    ) -> Result<(), ConnectionError> {
        match self
            .peer
            .read_type(id, &mut bytes, self.role, &self.config)?
        {
            Typed::NotYet => return Ok(()),
            Typed::Known => {}
            Typed::Unknown => {
                t.stop(id, Code::H3_STREAM_CREATION_ERROR);
                return Ok(());
            }
        }
        let charged_max = self.config.undelivered_connection_bytes_max;
        self.undelivered.charge(bytes.len(), charged_max)?;
        loop {
            let frame = match self.peer.stream(id) {
                Some(PeerStream::Control(reader)) => reader.next(&mut bytes).map_err(|code| {
                    ConnectionError::new(code, "bad frame on the control stream")
                })?,
                Some(PeerStream::Encoder(encoder)) => {
                    return encoder.feed(&bytes).map_err(|code| {
                        ConnectionError::new(code, "encoder instruction without dynamic table")
                    });
                }
                Some(PeerStream::Decoder(decoder)) => {
                    return decoder.feed(&bytes).map_err(|code| {
                        ConnectionError::new(code, "decoder instruction without dynamic table")
                    });
                }
                Some(PeerStream::Untyped(_)) | None => return Ok(()),
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            self.handle_control_frame(t, frame)?;
        }
    }

    fn handle_control_frame(
        &mut self,
        t: &mut impl Transport,
        frame: FrameEvent,
    ) -> Result<(), ConnectionError> {
        let is_first = self.peer_settings.is_none();
        match frame {
            FrameEvent::Settings(payload) if is_first => {
                let settings = Settings::decode(&payload)
                    .map_err(|code| ConnectionError::new(code, "bad SETTINGS"))?;
                self.peer_settings = Some(settings);
                self.events.push_back(Event::Settings(settings));
                Ok(())
            }
            _ if is_first => Err(ConnectionError::new(
                Code::H3_MISSING_SETTINGS,
                "control stream does not start with SETTINGS",
            )),
            FrameEvent::Settings(_) => Err(ConnectionError::new(
                Code::H3_FRAME_UNEXPECTED,
                "second SETTINGS",
            )),
            FrameEvent::Headers(_) | FrameEvent::Data(_) | FrameEvent::PushPromise => {
                Err(ConnectionError::new(
                    Code::H3_FRAME_UNEXPECTED,
                    "frame of a request stream on the control stream",
                ))
            }
            FrameEvent::GoAway(id) => self.handle_goaway(t, id),
            FrameEvent::MaxPushId(id) => self.handle_max_push_id(id),
            // Nothing was ever promised, so there is nothing to cancel.
            FrameEvent::CancelPush(_) => Err(ConnectionError::new(
                Code::H3_ID_ERROR,
                "CANCEL_PUSH without push",
            )),
            FrameEvent::Skipped { .. } => Ok(()),
        }
    }

    fn handle_max_push_id(&mut self, id: u64) -> Result<(), ConnectionError> {
        if self.role == Role::Client {
            return Err(ConnectionError::new(
                Code::H3_FRAME_UNEXPECTED,
                "MAX_PUSH_ID from a server",
            ));
        }
        if self.peer_push_id_max.is_some_and(|max| id < max) {
            return Err(ConnectionError::new(
                Code::H3_ID_ERROR,
                "MAX_PUSH_ID shrinks",
            ));
        }
        self.peer_push_id_max = Some(id);
        Ok(())
    }

    fn handle_goaway(&mut self, t: &mut impl Transport, id: u64) -> Result<(), ConnectionError> {
        // A client's GOAWAY names a push id, whose form says nothing.
        if self.role == Role::Client && id & 3 != 0 {
            return Err(ConnectionError::new(
                Code::H3_ID_ERROR,
                "GOAWAY without a request stream id",
            ));
        }
        if self.goaway_received.is_some_and(|received| id > received) {
            return Err(ConnectionError::new(Code::H3_ID_ERROR, "GOAWAY id grows"));
        }
        self.goaway_received = Some(id);
        self.events.push_back(Event::GoAway { id });
        if self.role == Role::Client {
            let mut unprocessed: Vec<u64> = self
                .requests
                .iter()
                .filter(|(index, stream)| **index >= id >> 2 && stream.recv == Recv::Head)
                .map(|(index, _)| *index)
                .collect();
            unprocessed.sort_unstable();
            for index in unprocessed {
                self.abort(t, request_id(index), Abort::NotProcessed);
            }
        }
        Ok(())
    }
}

/// The request stream with this index.
fn request_id(index: u64) -> StreamId {
    StreamId::new(quinn_proto::Side::Client, Dir::Bi, index)
}
