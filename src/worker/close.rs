//! How a tunnel ends: refused before it opened, or ended after. Both legs are told, each in its own way.
//!
//! A TCP tunnel whose directions have both ended is none of this: see [`Machine::complete`](super::Machine).

use std::time::Instant;

use ::http::HeaderMap;

use super::leg::{Flow, Leg, State, Tunnel};
use super::machine::{Closed, End, LocalEvent, Machine, Outside, Refused};
use super::pipe::Stage;
use crate::client::Failure;
use crate::error::{Abort, Ending, Refusal};
use crate::http::h3;
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::net::{TcpClose, TcpId};
use crate::transport::carriers::{ConnectionId, RequestStream};
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
        let failure = Failure {
            response,
            ..refusal.into()
        };
        self.refuse_because(now, id, failure, out);
    }

    /// Refuses a tunnel that is not open yet because of a relay on its way.
    pub(super) fn refuse_because(
        &mut self,
        now: Instant,
        id: TunnelId,
        failure: Failure,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.take(now, id, Ending::Reset(Code::H3_REQUEST_CANCELLED.0), out)
        else {
            return;
        };
        if tunnel.has_handler() {
            let closed = Closed::Aborted {
                abort: Abort::Undecided,
                code: None,
            };
            self.tell(End::Upstream, LocalEvent::Closed(id, closed));
        }
        match tunnel.downstream {
            Leg::Stream(stream) => {
                let received = failure.response.as_deref().map(|head| &head.headers);
                // Others are told that the next hop is known to be down; why is our business.
                let refusal = match failure.pause {
                    Some(_) => Refusal::DestinationUnavailable,
                    None => failure.refusal,
                };
                self.carriers.unbind(stream);
                self.answer_refused(stream, refusal, received);
            }
            Leg::Local => {
                let attempts = match tunnel.state {
                    State::Racing(race) => race.failures(),
                    State::Verifying { .. }
                    | State::Deciding(_)
                    | State::Resolving { .. }
                    | State::Connecting(_)
                    | State::Open => Vec::new(),
                };
                let Failure {
                    refusal,
                    response,
                    relay,
                    target,
                    pause,
                } = failure;
                let refused = Refused {
                    refusal,
                    response,
                    relay,
                    target,
                    pause,
                    attempts,
                };
                self.tell(End::Downstream, LocalEvent::Refused(id, Box::new(refused)));
            }
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_) | Leg::Gateway => {
                if let Some(dial) = tunnel.nests {
                    self.pool
                        .handle_unreachable(now, dial, failure, &mut self.carriers);
                }
            }
        }
    }

    /// Answers a request as the table of refusals says. `received` are the fields of the next hop's answer, if it gave
    /// one.
    pub(super) fn answer_refused(
        &mut self,
        stream: RequestStream,
        refusal: Refusal,
        received: Option<&HeaderMap>,
    ) {
        self.stats.requests_refused += 1;
        let carrier = self.carrier_of(stream);
        // HTTP/1.1 has no code to say that nothing was processed, so there the status says it.
        match refusal.reset().filter(|_| carrier != Carrier::H1) {
            Some(code) => self.carriers.reset(stream, Code(code.h3)),
            None => {
                let head = self.server.refusal(refusal, received, carrier);
                self.carriers.respond(stream, &head, true);
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
        self.abort_coded(now, id, abort, None, out);
    }

    /// Ends a tunnel because of a peer, that gave a code or not.
    fn abort_coded(
        &mut self,
        now: Instant,
        id: TunnelId,
        abort: Abort,
        code: Option<Code>,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get(id) else {
            return;
        };
        // A stream of bytes that has not come to its end must not look as if it had, and a tunnel that is not open has
        // nothing that could end in an orderly way.
        let orderly = tunnel.is_open() && !matches!(tunnel.flow, Flow::Tcp(_)) || self.is_done(id);
        let ending = match abort.ending() {
            Ending::Finish if !orderly => Ending::Reset(Code::H3_REQUEST_CANCELLED.0),
            other @ (Ending::Finish | Ending::Reset(_)) => other,
        };
        self.say_goodbye(now, id, out);
        let upstream = match (ending, abort) {
            (Ending::Finish, _) => Ending::Finish,
            (ending @ Ending::Reset(_), Abort::Closed { .. }) => ending,
            (Ending::Reset(_), _) => Ending::Reset(Code::H3_REQUEST_CANCELLED.0),
        };
        let Some(tunnel) = self.take(now, id, upstream, out) else {
            return;
        };
        match tunnel.downstream {
            Leg::Stream(stream) => {
                self.carriers.unbind(stream);
                self.end_stream(stream, ending);
            }
            Leg::Local => {}
            Leg::Tcp(socket) => out.close(socket, close_as(ending)),
            Leg::Nested(inner) => {
                self.nested.remove(&inner);
                if let ConnectionId::Tcp(inner) = inner {
                    self.carriers.tcp.handle_end(inner, false);
                }
            }
            Leg::None => {
                if let Some(dial) = tunnel.nests {
                    let failure = Refusal::DestinationUnavailable.into();
                    self.pool
                        .handle_unreachable(now, dial, failure, &mut self.carriers);
                }
            }
            Leg::Socket(_) | Leg::Gateway => {}
        }
        self.tell_closed(id, &tunnel, Closed::Aborted { abort, code });
    }

    fn end_stream(&mut self, stream: RequestStream, ending: Ending) {
        match ending {
            Ending::Finish => {
                self.carriers.finish(stream);
                self.carriers.stop(stream, Code::H3_NO_ERROR);
            }
            Ending::Reset(code) => self.carriers.reset(stream, Code(code)),
        }
    }

    /// Closes the connection that a tunnel carries, as long as its last packet still finds the way out.
    fn say_goodbye(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        if let Some(tunnel) = self.tunnels.get(id)
            && let Leg::Nested(inner) = tunnel.downstream
        {
            self.carriers.close(now, inner, Code::H3_NO_ERROR);
            self.carriers.flush(now, out);
        }
    }

    /// Ends the tunnel of a local user, one of datagrams in an orderly way.
    pub fn close_local(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        self.abort(now, id, Abort::ClientClosed, out);
    }

    /// Takes a tunnel out of the table and ends its upstream leg.
    fn take(
        &mut self,
        now: Instant,
        id: TunnelId,
        ending: Ending,
        out: &mut impl Outside,
    ) -> Option<Tunnel> {
        let mut tunnel = self.remove_tunnel(id)?;
        if let Flow::Ip(flow) = &mut tunnel.flow {
            self.leave_gateway(now, id, &mut flow.stay);
        }
        match tunnel.upstream {
            Leg::Socket(socket) => {
                if let Flow::Udp(flow) = &tunnel.flow {
                    self.batches.finish(flow.batch, out);
                }
                out.remove(socket);
            }
            Leg::Tcp(socket) => out.close(socket, close_as(ending)),
            Leg::Stream(stream) => {
                self.carriers.unbind(stream);
                match ending {
                    // HTTP/2 can only reset what it does not want to read, and a reset overtakes the end.
                    Ending::Finish => {
                        self.carriers.finish(stream);
                        self.carriers.leave(stream);
                    }
                    Ending::Reset(code) => self.carriers.reset(stream, Code(code)),
                }
                self.pool
                    .release(now, stream.connection(), &mut self.carriers);
            }
            Leg::None | Leg::Nested(_) | Leg::Local | Leg::Gateway => {}
        }
        match &mut tunnel.state {
            State::Racing(race) => self.cancel_race(now, race),
            State::Connecting(connecting) => {
                for socket in connecting.eyeballs.attempts() {
                    self.target_sockets -= 1;
                    out.close(*socket, TcpClose::Abort);
                }
            }
            State::Verifying { .. }
            | State::Deciding(_)
            | State::Resolving { .. }
            | State::Open => {}
        }
        Some(tunnel)
    }

    /// Takes a tunnel out of the table, and leaves its legs as they are.
    pub(super) fn remove_tunnel(&mut self, id: TunnelId) -> Option<Tunnel> {
        let tunnel = self.tunnels.remove(id)?;
        self.disarm(id, &tunnel);
        self.stats.tunnels_ended += 1;
        self.resolves -= usize::from(tunnel.is_resolving());
        self.target_sockets -= usize::from(matches!(tunnel.upstream, Leg::Socket(_) | Leg::Tcp(_)));
        Some(tunnel)
    }

    /// The peer reads no more of a request stream.
    pub(super) fn handle_stopped(
        &mut self,
        now: Instant,
        stream: RequestStream,
        code: Code,
        out: &mut impl Outside,
    ) {
        let owner = self.carriers.owner(stream).map(TunnelId::from_bits);
        let asked = owner
            .and_then(|id| self.tunnels.get(id))
            .is_some_and(|tunnel| match &tunnel.state {
                State::Racing(race) => race.is_asked(stream),
                State::Verifying { .. }
                | State::Deciding(_)
                | State::Resolving { .. }
                | State::Connecting(_)
                | State::Open => false,
            });
        // What was said to the end cannot be cut short, and what the peer still has to say may be on its way.
        let told = owner.is_some_and(|id| self.has_been_told(id, Leg::Stream(stream)));
        // A refusal asks us to stop sending, and the response may be right behind (RFC 9114 §4.1).
        if !asked && !told {
            self.handle_reset(now, stream, code, out);
        }
    }

    /// A request stream was reset by its peer, or is as good as reset.
    pub(super) fn handle_reset(
        &mut self,
        now: Instant,
        stream: RequestStream,
        code: Code,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.carriers.owner(stream).map(TunnelId::from_bits) else {
            return;
        };
        self.stream_failed(now, id, stream, Some(code), out);
    }

    /// The peer of a request stream has said everything and takes nothing more. What it has not taken yet is lost, and
    /// nothing else.
    pub(super) fn handle_left(
        &mut self,
        now: Instant,
        stream: RequestStream,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.carriers.owner(stream).map(TunnelId::from_bits) else {
            return;
        };
        let told = self.has_been_told(id, Leg::Stream(stream));
        if !told {
            let code = Some(Code::H3_REQUEST_CANCELLED);
            self.stream_failed(now, id, stream, code, out);
        }
    }

    /// A TCP socket of a tunnel broke behind its end. What it has not taken yet is lost.
    pub(super) fn handle_target_broken(
        &mut self,
        now: Instant,
        id: TunnelId,
        socket: TcpId,
        error: &std::io::Error,
        out: &mut impl Outside,
    ) {
        tracing::debug!(%error, "a TCP connection broke behind its end");
        if self.has_been_told(id, Leg::Tcp(socket)) {
            return;
        }
        let upstream = self.tunnels.get(id).map(|tunnel| tunnel.upstream);
        let abort = match upstream == Some(Leg::Tcp(socket)) {
            true => Abort::UpstreamReset,
            false => Abort::ClientCancelled,
        };
        self.abort(now, id, abort, out);
    }

    /// Whether a leg of a TCP tunnel has been told everything, the end included.
    fn has_been_told(&self, id: TunnelId, leg: Leg) -> bool {
        let Some(tunnel) = self.tunnels.get(id) else {
            return false;
        };
        match &tunnel.flow {
            Flow::Tcp(splice) if tunnel.downstream == leg => splice.down.stage == Stage::Done,
            Flow::Tcp(splice) => splice.up.stage == Stage::Done,
            Flow::Udp(_) | Flow::Ip(_) => false,
        }
    }

    /// HTTP/3 ended a request stream by itself.
    pub(super) fn handle_aborted(
        &mut self,
        now: Instant,
        stream: RequestStream,
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
        self.handle_reset(now, stream, code, out);
    }

    /// A stream of a tunnel failed: with a code if the peer gave one, without if its connection is gone.
    pub(super) fn stream_failed(
        &mut self,
        now: Instant,
        id: TunnelId,
        stream: RequestStream,
        code: Option<Code>,
        out: &mut impl Outside,
    ) {
        if self.fallback.has(id) {
            return self.reset_plain(id);
        }
        // Both have said everything: what happens to the streams now is nobody's loss.
        if self.is_done(id) {
            return self.complete(now, id, out);
        }
        let orderly = code == Some(Code::H3_NO_ERROR);
        if self.leave_leg(now, id, stream, orderly, out) {
            return;
        }
        let Some(tunnel) = self.tunnels.get(id) else {
            return;
        };
        // Bytes that have not come to their end broke off, whatever the code says.
        let orderly = orderly && !matches!(tunnel.flow, Flow::Tcp(_));
        if tunnel.downstream == Leg::Stream(stream) {
            // An orderly end asks us to stop sending, and the FIN may be right behind.
            let abort = if orderly {
                Abort::ClientClosed
            } else {
                Abort::ClientCancelled
            };
            return self.abort_coded(now, id, abort, code, out);
        }
        match tunnel.state {
            State::Racing(_) => self.attempt_lost(now, id, stream, code, out),
            State::Verifying { .. }
            | State::Deciding(_)
            | State::Resolving { .. }
            | State::Connecting(_)
            | State::Open => {
                let abort = if orderly {
                    Abort::UpstreamClosed
                } else {
                    Abort::UpstreamReset
                };
                self.abort_coded(now, id, abort, code, out);
            }
        }
    }
}

/// How a TCP connection is closed that ends so.
fn close_as(ending: Ending) -> TcpClose {
    match ending {
        Ending::Finish => TcpClose::Orderly,
        Ending::Reset(_) => TcpClose::Abort,
    }
}
