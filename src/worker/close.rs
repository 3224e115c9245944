//! How a tunnel ends: refused before it opened, or ended after. Both legs are told, each in its own way.

use std::time::Instant;

use ::http::HeaderMap;
use quinn_proto::StreamId;

use super::leg::{Leg, State, Tunnel};
use super::machine::{LocalEvent, Machine, Outside};
use crate::error::{Abort, Ending, Refusal};
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::transport::quic::ConnectionId;
use crate::tunnel::TunnelId;
use crate::wire::carrier::Carrier;

impl Machine {
    /// Refuses a tunnel that is not open yet. `response` is what the next hop said, if it was the next hop.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: TunnelId,
        refusal: Refusal,
        response: Option<Box<ResponseHead>>,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.take(now, id, Code::H3_REQUEST_CANCELLED, out) else {
            return;
        };
        match tunnel.downstream {
            Leg::Stream { connection, stream } => {
                let received = response.as_deref().map(|head| &head.headers);
                self.hub.unbind(connection, stream);
                self.answer_refused(connection, stream, refusal, received);
            }
            Leg::Local => self
                .local
                .push_back(LocalEvent::Refused(id, refusal, response)),
            Leg::None | Leg::Socket(_) | Leg::Nested(_) => {
                if let Some(hop) = tunnel.nests {
                    self.pool.handle_unreachable(now, hop, refusal);
                }
            }
        }
    }

    /// Answers a request as the table of refusals says. `received` are the fields of the next hop's answer, if it gave
    /// one.
    pub(super) fn answer_refused(
        &mut self,
        connection: ConnectionId,
        stream: StreamId,
        refusal: Refusal,
        received: Option<&HeaderMap>,
    ) {
        self.stats.requests_refused += 1;
        match refusal.reset() {
            Some(code) => self.hub.reset(connection, stream, Code(code.h3)),
            None => {
                let head = self.server.refusal(refusal, received, Carrier::H3);
                self.hub.respond(connection, stream, &head, true);
            }
        }
    }

    /// Ends a tunnel, whatever its state.
    pub(super) fn abort(
        &mut self,
        now: Instant,
        id: TunnelId,
        abort: Abort,
        out: &mut impl Outside,
    ) {
        self.say_goodbye(now, id, out);
        let upstream_code = match abort.ending() {
            Ending::Finish => None,
            Ending::Reset(_) => Some(Code::H3_REQUEST_CANCELLED),
        };
        // A tunnel that is not open has nothing that could end in an orderly way.
        let open = self
            .tunnels
            .get(id)
            .is_some_and(|tunnel| matches!(tunnel.state, State::Open));
        let taken = match upstream_code {
            None if open => self.take_finishing(now, id, out),
            None | Some(_) => self.take(now, id, Code::H3_REQUEST_CANCELLED, out),
        };
        let Some(tunnel) = taken else {
            return;
        };
        match tunnel.downstream {
            Leg::Stream { connection, stream } => {
                self.hub.unbind(connection, stream);
                match abort.ending() {
                    Ending::Finish if open => {
                        self.hub.finish(connection, stream);
                        self.hub.stop(connection, stream, Code::H3_NO_ERROR);
                    }
                    Ending::Finish => {
                        self.hub
                            .reset(connection, stream, Code::H3_REQUEST_CANCELLED)
                    }
                    Ending::Reset(code) => self.hub.reset(connection, stream, Code(code)),
                }
            }
            Leg::Local => self.local.push_back(LocalEvent::Closed(id)),
            Leg::Nested(inner) => {
                self.nested.remove(&inner);
            }
            Leg::None => {
                if let Some(hop) = tunnel.nests {
                    let refusal = Refusal::DestinationUnavailable;
                    self.pool.handle_unreachable(now, hop, refusal);
                }
            }
            Leg::Socket(_) => {}
        }
    }

    /// Closes the connection that a tunnel carries, as long as its last packet still finds the way out.
    fn say_goodbye(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        if let Some(tunnel) = self.tunnels.get(id)
            && let Leg::Nested(inner) = tunnel.downstream
        {
            self.hub.close(now, inner, Code::H3_NO_ERROR);
            self.hub.flush(now, out);
        }
    }

    /// Ends the tunnel of a local user in an orderly way.
    pub fn close_local(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        self.abort(now, id, Abort::ClientClosed, out);
    }

    /// Takes a tunnel out of the table and resets its upstream leg.
    fn take(
        &mut self,
        now: Instant,
        id: TunnelId,
        code: Code,
        out: &mut impl Outside,
    ) -> Option<Tunnel> {
        self.take_with(now, id, out, |machine, connection, stream| {
            machine.hub.reset(connection, stream, code);
        })
    }

    /// Takes a tunnel out of the table and finishes its upstream leg.
    fn take_finishing(
        &mut self,
        now: Instant,
        id: TunnelId,
        out: &mut impl Outside,
    ) -> Option<Tunnel> {
        self.take_with(now, id, out, |machine, connection, stream| {
            machine.hub.finish(connection, stream);
            machine.hub.stop(connection, stream, Code::H3_NO_ERROR);
        })
    }

    fn take_with(
        &mut self,
        now: Instant,
        id: TunnelId,
        out: &mut impl Outside,
        end: impl FnOnce(&mut Self, ConnectionId, StreamId),
    ) -> Option<Tunnel> {
        let tunnel = self.tunnels.remove(id)?;
        self.disarm(id, &tunnel);
        self.stats.tunnels_ended += 1;
        self.resolves -= usize::from(tunnel.is_resolving());
        match tunnel.upstream {
            Leg::Socket(socket) => {
                self.target_sockets -= 1;
                self.batches.finish(tunnel.batch, out);
                out.remove(socket);
            }
            Leg::Stream { connection, stream } => {
                self.hub.unbind(connection, stream);
                end(self, connection, stream);
                self.pool.release(now, connection, &mut self.hub);
            }
            Leg::None => {
                if let Some(ticket) = tunnel.ticket {
                    self.pool.cancel(ticket);
                }
            }
            Leg::Nested(_) | Leg::Local => {}
        }
        Some(tunnel)
    }

    /// The peer reads no more of a request stream.
    pub(super) fn handle_stopped(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        code: Code,
        out: &mut impl Outside,
    ) {
        let owner = self.hub.owner(connection, stream).map(TunnelId::from_bits);
        let requested = owner
            .and_then(|id| self.tunnels.get(id))
            .is_some_and(|tunnel| {
                matches!(tunnel.state, State::Requested { .. })
                    && tunnel.upstream == Leg::Stream { connection, stream }
            });
        // A refusal asks us to stop sending, and the response may be right behind (RFC 9114 §4.1).
        if !requested {
            self.handle_reset(now, connection, stream, code, out);
        }
    }

    /// A request stream was reset by its peer, or is as good as reset.
    pub(super) fn handle_reset(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        code: Code,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.hub.owner(connection, stream).map(TunnelId::from_bits) else {
            return;
        };
        self.stream_failed(now, id, (connection, stream), Some(code), out);
    }

    /// HTTP/3 ended a request stream by itself.
    pub(super) fn handle_aborted(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        reason: &h3::Abort,
        out: &mut impl Outside,
    ) {
        // Nobody processed it: as if the next hop had said so.
        let code = match reason {
            h3::Abort::NotProcessed => Code::H3_REQUEST_REJECTED,
            h3::Abort::Malformed(_)
            | h3::Abort::Incomplete
            | h3::Abort::TooLarge(_)
            | h3::Abort::DatagramUnexpected => Code::H3_MESSAGE_ERROR,
        };
        self.handle_reset(now, connection, stream, code, out);
    }

    /// The connection of a request stream is gone.
    pub(super) fn handle_stream_lost(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        id: TunnelId,
        out: &mut impl Outside,
    ) {
        self.stream_failed(now, id, (connection, stream), None, out);
    }

    fn stream_failed(
        &mut self,
        now: Instant,
        id: TunnelId,
        (connection, stream): (ConnectionId, StreamId),
        code: Option<Code>,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        if tunnel.downstream == (Leg::Stream { connection, stream }) {
            // An orderly end asks us to stop sending, and the FIN may be right behind.
            let abort = match code {
                Some(Code::H3_NO_ERROR) => Abort::ClientClosed,
                Some(_) | None => Abort::ClientCancelled,
            };
            return self.abort(now, id, abort, out);
        }
        let State::Requested { request } = &tunnel.state else {
            let abort = match code {
                Some(Code::H3_NO_ERROR) => Abort::UpstreamClosed,
                Some(_) | None => Abort::UpstreamReset,
            };
            return self.abort(now, id, abort, out);
        };
        // Not processed at all: another connection may do it (RFC 9114 §4.1.1).
        let rejected = code == Some(Code::H3_REQUEST_REJECTED);
        match tunnel.ticket {
            Some(ticket) if rejected && !tunnel.retried => {
                let request = request.clone();
                tunnel.retried = true;
                tunnel.upstream = Leg::None;
                tunnel.state = State::Pooled {
                    request: request.clone(),
                };
                self.hub.unbind(connection, stream);
                self.pool.release(now, connection, &mut self.hub);
                let ticket = self.pool.open(now, ticket.hop, id, *request, &mut self.hub);
                if let Some(tunnel) = self.tunnels.get_mut(id) {
                    tunnel.ticket = Some(ticket);
                }
            }
            Some(_) | None => {
                let refusal = match code {
                    Some(_) => Refusal::NextHopProtocol,
                    None => Refusal::DestinationUnavailable,
                };
                self.refuse(now, id, refusal, None, out);
            }
        }
    }
}
