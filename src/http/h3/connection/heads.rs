//! Heads of requests and responses, and trailers: read eagerly, checked, handed to the owner as events
//! (RFC 9114 sections 4.1 to 4.4).

use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::StreamId;

use super::super::code::Code;
use super::super::event::{Abort, ConnectionError, Event, Role};
use super::super::frame::FrameEvent;
use super::super::stream::{Kind, Recv, Send};
use super::super::transport::{Read, Transport};
use super::super::{fields, qpack};
use super::requests::AFTER_TRAILERS;
use super::{Connection, READ_BYTES_MAX};
use crate::http::request::{HeadError, RequestHead, ResponseHead};

impl Connection {
    /// Reads until the head is complete; what follows it stays for `recv_data`.
    pub(super) fn read_head(
        &mut self,
        t: &mut impl Transport,
        id: StreamId,
    ) -> Result<(), ConnectionError> {
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
                None => {}
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
                // It stays charged: endless interim responses are a load.
                Ok(head) if head.is_interim() => return Ok(()),
                Ok(head) => self.handle_response(id, head),
                Err(error) => Err(error),
            },
        };
        match handled {
            Ok(()) => {
                if let Some(stream) = self.requests.get_mut(&id.index()) {
                    stream.relieve(section.len(), &mut self.undelivered);
                }
            }
            Err(error) => self.abort(t, id, Abort::Malformed(error)),
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
    pub(super) fn handle_trailers(
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

    /// A server answers, usually with 431; a client gives up on the response (RFC 9114 section 4.2.2).
    fn refuse_too_large(&mut self, t: &mut impl Transport, id: StreamId, error: qpack::Error) {
        let reason = Abort::TooLarge(error);
        match self.role {
            Role::Client => self.abort(t, id, reason),
            Role::Server => {
                let head = Arc::clone(&self.config.too_large);
                match self.respond(t, id, &head, true) {
                    Ok(()) => self.events.push_back(Event::Aborted { id, reason }),
                    Err(_) => self.abort(t, id, reason),
                }
            }
        }
    }
}
