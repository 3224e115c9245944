//! The user of one end of a tunnel: a client's handle downstream, a handler of this process upstream.
//!
//! ```text
//!                     Direction::Up ─────────────►
//!   End::Downstream ◄──────────── tunnel ────────────► End::Upstream
//!                     ◄───────────── Direction::Down
//! ```
//!
//! Both see the same: datagrams and capsules arrive as events, bytes are read and written at the pace of the far end.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::leg::{Flow, Leg, Tunnel};
use super::machine::{Closed, End, HandlerEvent, LocalEvent, Machine, Outside};
use super::pipe::{Direction, Stage};
use super::rest::Rests;
use crate::error::Abort;
use crate::http::h3::SendData;
use crate::http::h3::code::Code;
use crate::net::TcpId;
use crate::transport::carriers::RequestStream;
use crate::transport::quic::SendOutcome;
use crate::tunnel::{Framing, TunnelId};
use crate::wire::capsule::{CapsuleType, UNKNOWN_VALUE_MAX, UserTypeError, encode_capsule};
use crate::wire::carrier::Carrier;
use crate::wire::datagram::ContextId;
use crate::wire::ip::IpCapsule;

/// What [`Machine::read_end`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum LocalRead {
    /// Bytes from the other end.
    Data(Bytes),
    /// Nothing now; [`LocalEvent::Readable`] follows.
    Blocked,
    /// The other end has ended its direction.
    End,
}

/// What became of a capsule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapsuleSent {
    /// It is on its way.
    Sent,
    /// The stream has no room for it now, and [`LocalEvent::Writable`] follows; or the tunnel is not open yet.
    Blocked,
    /// The tunnel's stream has no capsules.
    Unsupported,
    /// Capsules of this type are the tunnel's own.
    Reserved(UserTypeError),
    /// The tunnel is over, or its direction has ended.
    Gone,
}

/// What is known of a tunnel's far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The HTTP version of the request stream.
    pub carrier: Carrier,
    /// The peer of the stream's connection, if it is not nested in a tunnel.
    pub peer: Option<SocketAddr>,
    /// Largest UDP payload that the stream carries now without being cut into a capsule, if that is known.
    pub payload_size_max: Option<usize>,
}

impl Machine {
    /// Says something to the user of an end.
    pub(super) fn tell(&mut self, end: End, event: LocalEvent) {
        match end {
            End::Downstream => self.local.push_back(event),
            End::Upstream => self.handler.push_back(HandlerEvent::End(event)),
        }
    }

    /// Tells those in this process who have an end of a tunnel, or were asked to take one, that it is over.
    pub(super) fn tell_closed(&mut self, id: TunnelId, tunnel: &Tunnel, closed: Closed) {
        if tunnel.has_handler() {
            self.keep_rest(id, tunnel, End::Upstream);
            self.tell(End::Upstream, LocalEvent::Closed(id, closed));
        }
        if tunnel.local {
            self.keep_rest(id, tunnel, End::Downstream);
            self.tell(End::Downstream, LocalEvent::Closed(id, closed));
        }
    }

    /// Keeps what the user of an end has not read yet.
    fn keep_rest(&mut self, id: TunnelId, tunnel: &Tunnel, end: End) {
        let leg = match end {
            End::Downstream => tunnel.downstream,
            End::Upstream => tunnel.upstream,
        };
        if let (Leg::Local, Flow::Tcp(splice)) = (leg, &tunnel.flow) {
            let pipe = match end {
                End::Downstream => &splice.down,
                End::Upstream => &splice.up,
            };
            self.rests(end).keep(id, &pipe.waiting);
        }
    }

    fn rests(&mut self, end: End) -> &mut Rests {
        let [downstream, upstream] = &mut self.rests;
        match end {
            End::Downstream => downstream,
            End::Upstream => upstream,
        }
    }

    pub(super) fn announce_readable(&mut self, id: TunnelId, end: End) {
        // One announcement is enough, however much arrives before it is heard.
        let last = match end {
            End::Downstream => self.local.back(),
            End::Upstream => match self.handler.back() {
                Some(HandlerEvent::End(event)) => Some(event),
                Some(
                    HandlerEvent::Request(..)
                    | HandlerEvent::Fallback(..)
                    | HandlerEvent::Gateway(_),
                )
                | None => None,
            },
        };
        if !matches!(last, Some(LocalEvent::Readable(last)) if *last == id) {
            self.tell(end, LocalEvent::Readable(id));
        }
    }

    /// The next thing that the user of a downstream end has to know.
    pub fn poll_local(&mut self) -> Option<LocalEvent> {
        let event = self.local.pop_front();
        self.rests(End::Downstream).polled(event.as_ref());
        event
    }

    /// The next thing that the handler of this process has to know.
    pub fn poll_handler(&mut self) -> Option<HandlerEvent> {
        let event = self.handler.pop_front();
        self.rests(End::Upstream).polled(match &event {
            Some(HandlerEvent::End(event)) => Some(event),
            Some(
                HandlerEvent::Request(..) | HandlerEvent::Fallback(..) | HandlerEvent::Gateway(_),
            )
            | None => None,
        });
        event
    }

    /// The leg of an end.
    pub(super) fn leg(&self, id: TunnelId, end: End) -> Option<Leg> {
        let tunnel = self.tunnels.get(id)?;
        Some(match end {
            End::Downstream => tunnel.downstream,
            End::Upstream => tunnel.upstream,
        })
    }

    /// The stream on the other side of the user of an end.
    pub(super) fn far_stream(&self, id: TunnelId, end: End) -> Option<RequestStream> {
        let far = match end {
            End::Downstream => End::Upstream,
            End::Upstream => End::Downstream,
        };
        match self.leg(id, far)? {
            Leg::Stream(stream) => Some(stream),
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_) => None,
            Leg::Local | Leg::Gateway => None,
        }
    }

    /// What is known of the request stream that leads to or from the user of an end; `None` without one.
    pub fn describe(&mut self, id: TunnelId, end: End) -> Option<Description> {
        let stream = self.far_stream(id, end)?;
        Some(Description {
            carrier: self.carrier_of(stream),
            peer: self.carriers.peer_address(stream.connection()),
            payload_size_max: self.carriers.payload_size_max(stream),
        })
    }

    /// Ends the tunnel of a user: with a code as broken, without in an orderly way where the tunnel's kind has one.
    pub fn close_end(
        &mut self,
        now: Instant,
        id: TunnelId,
        end: End,
        code: Option<Code>,
        out: &mut impl Outside,
    ) {
        let abort = match (code, end) {
            (Some(code), _) => Abort::Closed { code: code.0 },
            (None, End::Downstream) => Abort::ClientClosed,
            (None, End::Upstream) => Abort::UpstreamClosed,
        };
        self.abort(now, id, abort, out);
    }
}

/// Datagrams and capsules.
impl Machine {
    /// Sends the payload of an HTTP Datagram; Context ID 0 is UDP, or an IP packet. [`SendOutcome::Queued`] asks for
    /// patience: the tunnel's queue is in use, and what follows may displace what waits. Other contexts are dropped
    /// where they cannot go at once, or where the other end is no stream.
    pub fn send_end(
        &mut self,
        now: Instant,
        id: TunnelId,
        end: End,
        context: ContextId,
        payload: Bytes,
        out: &mut impl Outside,
    ) -> SendOutcome {
        if context == ContextId::UDP_PAYLOAD {
            return self.send_payload(now, id, end, payload, out);
        }
        if self.leg(id, end) != Some(Leg::Local) {
            return SendOutcome::Gone;
        }
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| tunnel.is_open()) else {
            return SendOutcome::Blocked;
        };
        if matches!(tunnel.flow, Flow::Tcp(_)) {
            return SendOutcome::Gone;
        }
        tunnel.last_active = now;
        match self.far_stream(id, end) {
            Some(stream) => self.carriers.send_context(stream, context, &payload),
            None => {
                let far = end.other();
                if self.leg(id, far) == Some(Leg::Local) {
                    self.tell(far, LocalEvent::Context(id, context.0, payload));
                    return SendOutcome::Sent;
                }
                self.stats.dropped_context += 1;
                SendOutcome::Blocked
            }
        }
    }

    fn send_payload(
        &mut self,
        now: Instant,
        id: TunnelId,
        end: End,
        payload: Bytes,
        out: &mut impl Outside,
    ) -> SendOutcome {
        if self.leg(id, end) != Some(Leg::Local) {
            return SendOutcome::Gone;
        }
        if self.ip_flow(id).is_some() {
            return self.send_packet(now, (id, end), payload, out);
        }
        let stream = self.far_stream(id, end);
        let is_open = self.tunnels.get(id).is_some_and(Tunnel::is_open);
        match end {
            End::Downstream => self.relay_upstream(now, id, payload, out),
            End::Upstream => self.relay_downstream(now, id, payload, out),
        }
        match stream {
            Some(stream) if is_open && !self.carriers.is_waiting(stream) => SendOutcome::Sent,
            Some(_) | None => SendOutcome::Queued,
        }
    }

    /// Sends a UDP payload for the user of a downstream end. See [`Machine::send_end`].
    pub fn send_local(
        &mut self,
        now: Instant,
        id: TunnelId,
        payload: Bytes,
        out: &mut impl Outside,
    ) -> SendOutcome {
        self.send_end(
            now,
            id,
            End::Downstream,
            ContextId::UDP_PAYLOAD,
            payload,
            out,
        )
    }

    /// Sends a capsule of a type that the tunnel itself has no use for (RFC 9297 §3.2). Among the bytes of a TCP tunnel
    /// its place is not kept.
    pub fn send_capsule(
        &mut self,
        now: Instant,
        id: TunnelId,
        end: End,
        capsule_type: CapsuleType,
        value: &[u8],
    ) -> CapsuleSent {
        let far = end.other();
        let direction = Direction::from(end);
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return CapsuleSent::Gone;
        };
        if !tunnel.is_open() {
            return CapsuleSent::Blocked;
        }
        let is_ip = matches!(tunnel.flow, Flow::Ip(_));
        let (framing, flows) = match &mut tunnel.flow {
            Flow::Udp(_) | Flow::Ip(_) => (None, true),
            Flow::Tcp(splice) => {
                let pipe = splice.pipe(direction);
                (Some(pipe.writer.framing()), pipe.stage == Stage::Flowing)
            }
        };
        let has_capsules = framing.is_none_or(Framing::has_capsules);
        let revision = framing.and_then(Framing::revision);
        if let Err(error) = CapsuleType::of_user(capsule_type.0, revision) {
            return CapsuleSent::Reserved(error);
        }
        if is_ip && IpCapsule::has(capsule_type) {
            return CapsuleSent::Reserved(UserTypeError::Ip(capsule_type));
        }
        if !flows {
            return CapsuleSent::Gone;
        }
        if self.leg(id, far) == Some(Leg::Local) {
            let value = Bytes::copy_from_slice(value);
            self.tell(far, LocalEvent::Capsule(id, capsule_type.0, value));
            return CapsuleSent::Sent;
        }
        let Some(stream) = self.far_stream(id, end).filter(|_| has_capsules) else {
            return CapsuleSent::Unsupported;
        };
        let mut capsule = BytesMut::new();
        encode_capsule(capsule_type, value, &mut capsule);
        // Whole or not at all; a stream that is asked for more than it has room for says when that changes.
        let sent = self.carriers.send_data(stream, capsule.freeze());
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            *tunnel.capsule_waits(end) = sent == SendData::Blocked;
            if sent == SendData::Written {
                tunnel.last_active = now;
            }
        }
        match sent {
            SendData::Written => CapsuleSent::Sent,
            SendData::Blocked => CapsuleSent::Blocked,
            SendData::Gone => CapsuleSent::Gone,
        }
    }

    /// The stream on the other side of an end has room again.
    pub(super) fn resume_capsules(&mut self, id: TunnelId, end: End) {
        if let Some(tunnel) = self.tunnels.get_mut(id)
            && std::mem::take(tunnel.capsule_waits(end))
        {
            self.tell(end, LocalEvent::Writable(id));
        }
    }
}

/// What arrives for users alone.
impl Machine {
    /// Has the readers of a tunnel keep what only the users of its ends understand.
    pub(super) fn keep_unknown(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        let has_user = tunnel.downstream == Leg::Local;
        let has_handler = tunnel.has_handler();
        match &mut tunnel.flow {
            Flow::Udp(flow) => {
                if has_user {
                    flow.from_upstream.keep_unknown(UNKNOWN_VALUE_MAX);
                }
                if has_handler {
                    flow.from_downstream.keep_unknown(UNKNOWN_VALUE_MAX);
                }
            }
            Flow::Ip(flow) => {
                if has_user {
                    flow.keep_unknown(End::Upstream, UNKNOWN_VALUE_MAX);
                }
                if has_handler {
                    flow.keep_unknown(End::Downstream, UNKNOWN_VALUE_MAX);
                }
            }
            Flow::Tcp(splice) => {
                if has_user {
                    splice.down.reader.keep_unknown(UNKNOWN_VALUE_MAX);
                }
                if has_handler {
                    splice.up.reader.keep_unknown(UNKNOWN_VALUE_MAX);
                }
            }
        }
    }

    /// A datagram on another context than that of UDP, for an end.
    pub(super) fn pass_context(&mut self, id: TunnelId, end: End, context: u64, payload: Bytes) {
        let is_open = self.tunnels.get(id).is_some_and(Tunnel::is_open);
        if is_open && self.leg(id, end) == Some(Leg::Local) {
            self.tell(end, LocalEvent::Context(id, context, payload));
        } else {
            self.stats.dropped_context += 1;
        }
    }

    /// A capsule of a type that the tunnel has no use for, for an end.
    pub(super) fn pass_capsule(&mut self, id: TunnelId, end: End, kind: u64, value: Bytes) {
        let is_open = self.tunnels.get(id).is_some_and(Tunnel::is_open);
        if is_open && self.leg(id, end) == Some(Leg::Local) {
            self.tell(end, LocalEvent::Capsule(id, kind, value));
        }
    }
}

/// Bytes.
impl Machine {
    /// The next bytes from the other end, at most `bytes_max`; what was read gives credit to it.
    pub fn read_end(
        &mut self,
        now: Instant,
        id: TunnelId,
        end: End,
        bytes_max: usize,
        out: &mut impl Outside,
    ) -> LocalRead {
        let direction = Direction::towards(end);
        let Some((_, Leg::Local, pipe)) = self.pipe(id, direction) else {
            let rest = self.rests(end).take(id, bytes_max);
            return rest.map_or(LocalRead::Blocked, LocalRead::Data);
        };
        let Some(first) = pipe.waiting.front_mut() else {
            return match pipe.stage {
                Stage::Flowing => LocalRead::Blocked,
                Stage::Done => LocalRead::End,
                Stage::Ending => {
                    pipe.stage = Stage::Done;
                    self.both_ended(now, id);
                    self.close_if_over(now, id, out);
                    LocalRead::End
                }
            };
        };
        let bytes = first.split_to(first.len().min(bytes_max));
        pipe.advance_taken(bytes.len());
        self.count_moved(now, id, direction, bytes.len());
        self.pump(now, id, direction, out);
        LocalRead::Data(bytes)
    }

    /// How many bytes [`Machine::write_end`] takes now; at 0 [`LocalEvent::Writable`] follows.
    pub fn end_room(&mut self, id: TunnelId, end: End) -> usize {
        let waiting_max = self.limits.tcp_buffer_bytes;
        match self.pipe(id, Direction::from(end)) {
            Some((Leg::Local, _, pipe)) if pipe.stage == Stage::Flowing => {
                let room = waiting_max.saturating_sub(pipe.waiting_bytes);
                pipe.starved = room == 0;
                room
            }
            Some(_) | None => 0,
        }
    }

    /// Sends bytes to the other end. More than [`Machine::end_room`] is a mistake of the caller, and kept all the same.
    pub fn write_end(
        &mut self,
        now: Instant,
        id: TunnelId,
        end: End,
        bytes: Bytes,
        out: &mut impl Outside,
    ) {
        let direction = Direction::from(end);
        if let Some((Leg::Local, _, pipe)) = self.pipe(id, direction)
            && pipe.stage == Stage::Flowing
            && !bytes.is_empty()
        {
            pipe.push(bytes);
            self.pump(now, id, direction, out);
        }
    }

    /// Ends the direction to the other end behind everything written; the other one goes on.
    pub fn finish_end(&mut self, now: Instant, id: TunnelId, end: End, out: &mut impl Outside) {
        let direction = Direction::from(end);
        if let Some((Leg::Local, ..)) = self.pipe(id, direction) {
            self.source_ended(id, direction);
            self.pump(now, id, direction, out);
        }
    }

    /// [`Machine::read_end`] downstream.
    pub fn read_local(
        &mut self,
        now: Instant,
        id: TunnelId,
        bytes_max: usize,
        out: &mut impl Outside,
    ) -> LocalRead {
        self.read_end(now, id, End::Downstream, bytes_max, out)
    }

    /// [`Machine::end_room`] downstream.
    pub fn local_room(&mut self, id: TunnelId) -> usize {
        self.end_room(id, End::Downstream)
    }

    /// [`Machine::write_end`] downstream.
    pub fn write_local(
        &mut self,
        now: Instant,
        id: TunnelId,
        bytes: Bytes,
        out: &mut impl Outside,
    ) {
        self.write_end(now, id, End::Downstream, bytes, out);
    }

    /// [`Machine::finish_end`] downstream.
    pub fn finish_local(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        self.finish_end(now, id, End::Downstream, out);
    }

    /// Breaks a TCP tunnel: the target sees a reset.
    pub fn reset_local(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        self.abort(now, id, Abort::ClientCancelled, out);
    }

    /// Puts a TCP socket in the place of the user downstream, once the tunnel is open: from here on its bytes go to the
    /// target and back without the user, half-closes and resets included. `read` was read from the socket before.
    /// [`LocalEvent::Closed`] tells of the end.
    pub fn splice_local(
        &mut self,
        now: Instant,
        id: TunnelId,
        socket: TcpId,
        read: Bytes,
        out: &mut impl Outside,
    ) -> bool {
        let Some((Leg::Local, _, pipe)) = self.pipe(id, Direction::Up) else {
            return false;
        };
        if !read.is_empty() {
            pipe.push(read);
        }
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.downstream = Leg::Tcp(socket);
        }
        out.set_tcp_tag(socket, super::machine::TcpTag::Target(id));
        for direction in Direction::BOTH {
            self.pump(now, id, direction, out);
        }
        true
    }
}
