//! The HTTP version that ALPN chose for a connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::h1::H1;
use super::h2::{H2, Options};
use super::tls::Session;
use super::{CloseReason, Event, StreamId};
use crate::http::h3::code::Code;
use crate::http::h3::{RecvData, RequestError, Role, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::wire::carrier::Carrier;

/// What speaks HTTP on a connection.
pub(super) enum Http {
    /// TLS is not done.
    Handshaking,
    /// HTTP/2 in either role.
    H2(Box<H2>),
    /// HTTP/1.1 in either role.
    H1(Box<H1>),
}

impl Http {
    /// Starts what ALPN chose; `None` if nobody here speaks it.
    pub(super) fn start(
        carrier: Carrier,
        role: Role,
        options: &Options,
        session: &Rc<RefCell<Session>>,
    ) -> Option<Self> {
        let session = Rc::clone(session);
        let head_bytes_max = usize::try_from(options.field_section_bytes).unwrap_or(usize::MAX);
        match (carrier, role) {
            (Carrier::H2, Role::Server) => Some(Self::H2(Box::new(H2::server(options, session)))),
            (Carrier::H2, Role::Client) => Some(Self::H2(Box::new(H2::client(options, session)))),
            (Carrier::H1, Role::Server) => {
                Some(Self::H1(Box::new(H1::server(head_bytes_max, session))))
            }
            (Carrier::H1, Role::Client) => {
                Some(Self::H1(Box::new(H1::client(head_bytes_max, session))))
            }
            (Carrier::H3, _) => None,
        }
    }

    /// Streams that are not over.
    pub(super) fn open_streams(&self) -> usize {
        match self {
            Self::Handshaking => 0,
            Self::H2(h2) => h2.open_streams(),
            Self::H1(h1) => h1.open_streams(),
        }
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn is_mid_head(&self, session: &Session) -> bool {
        match self {
            Self::Handshaking => false,
            Self::H1(h1) => h1.is_mid_head(),
            Self::H2(_) => session
                .gauge
                .as_ref()
                .is_some_and(|gauge| gauge.is_mid_head),
        }
    }

    /// Windows of streams that were full when their owner came to read, since this was asked last.
    pub(super) fn take_stalled(&mut self) -> u64 {
        match self {
            Self::Handshaking | Self::H1(_) => 0,
            Self::H2(h2) => h2.take_stalled(),
        }
    }

    /// Whether [`Http::poll`] has something to do besides what the session got.
    pub(super) fn wants_poll(&self) -> bool {
        match self {
            Self::Handshaking => false,
            Self::H2(h2) => h2.wants_poll(),
            Self::H1(h1) => h1.wants_poll(),
        }
    }

    /// Whether the end of what the peer sends ends the connection.
    pub(super) fn ends_with_peer(&self) -> bool {
        match self {
            Self::Handshaking => true,
            Self::H2(h2) => !h2.is_lame(),
            // A tunnel ends in each direction by itself.
            Self::H1(_) => false,
        }
    }

    /// Moves everything on that can be moved on.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn poll(&mut self, events: &mut VecDeque<Event>) -> Result<(), CloseReason> {
        match self {
            Self::Handshaking => Ok(()),
            Self::H2(h2) => h2.poll(events),
            Self::H1(h1) => h1.poll(events),
        }
    }

    pub(super) fn request(&mut self, head: &RequestHead) -> Result<StreamId, RequestError> {
        match self {
            Self::Handshaking => Err(RequestError::NoSettingsYet),
            Self::H2(h2) => h2.request(head),
            Self::H1(h1) => h1.request(head),
        }
    }

    pub(super) fn respond(&mut self, stream: StreamId, head: &ResponseHead, fin: bool) -> bool {
        match self {
            Self::Handshaking => false,
            Self::H2(h2) => h2.respond(stream, head, fin),
            Self::H1(h1) => h1.respond(head, fin),
        }
    }

    pub(super) fn respond_content(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        content_bytes: usize,
    ) -> bool {
        match self {
            Self::Handshaking => false,
            Self::H2(h2) => h2.respond(stream, head, content_bytes == 0),
            Self::H1(h1) => h1.respond_content(head, content_bytes),
        }
    }

    pub(super) fn recv_data(&mut self, stream: StreamId, bytes_max: usize) -> RecvData {
        match self {
            Self::Handshaking => RecvData::Gone,
            Self::H2(h2) => h2.recv_data(stream, bytes_max),
            Self::H1(h1) => h1.recv_data(bytes_max),
        }
    }

    pub(super) fn send_room(&mut self, stream: StreamId) -> usize {
        match self {
            Self::Handshaking => 0,
            Self::H2(h2) => h2.send_room(stream),
            Self::H1(h1) => h1.send_room(),
        }
    }

    pub(super) fn send_data(&mut self, stream: StreamId, data: Bytes) -> SendData {
        match self {
            Self::Handshaking => SendData::Gone,
            Self::H2(h2) => h2.send_data(stream, data),
            Self::H1(h1) => h1.send_data(&data),
        }
    }

    /// Appends a capsule of `len` bytes, all or nothing.
    pub(super) fn send_capsule(
        &mut self,
        stream: StreamId,
        len: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> SendData {
        match self {
            Self::Handshaking => SendData::Gone,
            Self::H2(h2) => h2.send_capsule(stream, len, encode),
            Self::H1(h1) => h1.append(len, encode),
        }
    }

    pub(super) fn finish(&mut self, stream: StreamId) {
        match self {
            Self::Handshaking => {}
            Self::H2(h2) => h2.finish(stream),
            Self::H1(h1) => h1.finish(),
        }
    }

    pub(super) fn reset(&mut self, stream: StreamId, code: Code) {
        match self {
            Self::Handshaking => {}
            Self::H2(h2) => h2.reset(stream, code),
            Self::H1(h1) => h1.reset(code),
        }
    }

    pub(super) fn stop(&mut self, stream: StreamId) {
        match self {
            Self::Handshaking => {}
            Self::H2(h2) => h2.stop(stream),
            Self::H1(h1) => h1.stop(),
        }
    }

    pub(super) fn leave(&mut self, stream: StreamId) {
        match self {
            Self::Handshaking => {}
            Self::H2(h2) => h2.leave(stream),
            // What is on its way leaves before the connection ends.
            Self::H1(h1) => h1.stop(),
        }
    }

    pub(super) fn goaway(&mut self) {
        match self {
            Self::Handshaking => {}
            Self::H2(h2) => h2.goaway(),
            Self::H1(h1) => h1.goaway(),
        }
    }

    /// Ends the connection at once, as far as there is room for what tells the peer.
    pub(super) fn close(&mut self, code: Code) {
        match self {
            Self::Handshaking => {}
            Self::H2(h2) => h2.close(code),
            Self::H1(h1) => h1.close(),
        }
    }
}
