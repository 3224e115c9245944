//! The order of a turn: what came in, what is due, what followed from it, and what goes out.
//!
//! ```text
//!   handle_received*  handle_resolved*  ─► turn: expire ─ advance ─ relay ─► poll_local ─► flush
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use super::drain::Drain;
use super::leg::{Flow, State, Tunnel};
use super::machine::{Machine, Outside, Resolve, Tag, TcpTag};
use super::pipe::Direction;
use super::splice::LINGER;
use crate::client::{DialId, Failed, PoolEvent};
use crate::error::{Abort, Refusal};
use crate::http::h3;
use crate::net::{
    Received, SocketId, SocketOptions, TcpClose, TcpEvent, TcpId, Train, ends_socket,
};
use crate::policy::resolve::Resolution;
use crate::transport::carriers::{ConnectionId, RequestStream};
use crate::transport::quic::{self, Event};
use crate::transport::tcp::{self, ByteLink, LinkOutput};
use crate::tunnel::TunnelId;

impl Machine {
    /// Takes in what one socket received. Packets of another worker's connection are forwarded.
    pub fn handle_received(
        &mut self,
        now: Instant,
        socket: SocketId,
        tag: Tag,
        received: Received,
        out: &mut impl Outside,
    ) {
        match (tag, received) {
            (Tag::Listener(number), Received::Train(train)) => {
                if self.is_own(&train) {
                    self.handle_stray(now, number, socket, train, out);
                } else {
                    self.sort_out(now, number, socket, train, out);
                }
            }
            (Tag::Dialler, Received::Train(train)) => {
                self.carriers
                    .quic
                    .handle_train(now, self.dialler.0, socket, train, out);
            }
            (Tag::Target(tunnel), Received::Train(train)) => {
                self.relay_from_target(now, tunnel, train, out);
            }
            (Tag::Target(tunnel), Received::Error(error)) => {
                tracing::debug!(%error, "an error of a target socket");
                // Any other error costs a datagram and no more.
                if ends_socket(&error) {
                    self.stats.target_errors += 1;
                    self.abort(now, tunnel, Abort::TargetUnreachable, out);
                }
            }
            (Tag::Tun, Received::Packets(packets)) => {
                for packet in packets {
                    self.handle_packet(now, packet, out);
                }
            }
            // Shared sockets report errors of single peers; QUIC finds out by itself.
            (Tag::Listener(_) | Tag::Dialler, Received::Error(_)) | (Tag::App(_), _) => {}
            // Somebody has removed the interface. What clients send is dropped and counted from here on.
            (Tag::Tun, Received::Error(error)) => {
                tracing::error!(%error, "the TUN interface is gone")
            }
            // Packets come from a TUN, and from nothing else.
            (Tag::Listener(_) | Tag::Dialler | Tag::Target(_), Received::Packets(_))
            | (Tag::Tun, Received::Train(_)) => {}
        }
    }

    /// Takes in a train of one listener that belongs to this worker, wherever it arrived.
    pub fn handle_stray(
        &mut self,
        now: Instant,
        listener: u32,
        socket: SocketId,
        train: Train,
        out: &mut impl Outside,
    ) {
        if let Some(&Some(endpoint)) = self.listeners.get(listener as usize) {
            self.carriers
                .quic
                .handle_train(now, endpoint, socket, train, out);
        }
    }

    /// Whether every packet belongs to this worker. Network cards may join packets of several connections of one
    /// client into a train, so each is looked at.
    fn is_own(&self, train: &Train) -> bool {
        let (steer, this) = &self.steer;
        let mut packets = train.data.chunks(train.segment_size.max(1));
        steer.workers() == 1 || packets.all(|packet| steer.worker_of_packet(packet) == *this)
    }

    /// Keeps our packets of a train and forwards the others.
    fn sort_out(
        &mut self,
        now: Instant,
        listener: u32,
        socket: SocketId,
        train: Train,
        out: &mut impl Outside,
    ) {
        let (peer, local_ip, ecn) = (train.peer, train.local_ip, train.ecn);
        for data in train.segments() {
            let worker = self.steer.0.worker_of_packet(&data);
            let single = |data: BytesMut| Train {
                peer,
                local_ip,
                ecn,
                segment_size: data.len(),
                data,
            };
            if worker == self.steer.1 {
                self.handle_stray(now, listener, socket, single(data), out);
            } else {
                // A copy: what waits in a mailbox must not pin a receive buffer.
                let stray = single(BytesMut::from(&data[..]));
                match out.forward(worker, listener, stray) {
                    None => self.stats.strays_forwarded += 1,
                    // It has drained and left its clients to those that still drain: they are refused, not ignored.
                    Some(orphan) => self.handle_stray(now, listener, socket, orphan, out),
                }
            }
        }
    }

    /// The answer to [`Outside::resolve`].
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        asker: Resolve,
        resolution: Resolution,
        out: &mut impl Outside,
    ) {
        match asker {
            Resolve::Tunnel(tunnel) => self.handle_target_resolved(now, tunnel, resolution, out),
            Resolve::Hop(hop) => {
                self.pool
                    .handle_resolved(now, hop, resolution, &mut self.carriers);
                self.handle_pool_events(now, out);
            }
        }
    }

    /// Does everything that is due and can be done without new input. Ends with nothing left but to poll local
    /// events and to flush.
    pub fn turn(&mut self, now: Instant, out: &mut impl Outside) {
        self.carriers.expire(now);
        self.expire_tunnels(now, out);
        self.expire_plain(now);
        self.pool.expire(now, &mut self.carriers);
        self.resume_pumps(now, out);
        self.settle(now, out);
        self.progress_drain(now, out);
    }

    /// Takes connections one by one until none has anything new, and nothing follows from what they had.
    fn settle(&mut self, now: Instant, out: &mut impl Outside) {
        loop {
            self.handle_events(now, out);
            if let Some(id) = self.carriers.quic.next_touched() {
                self.carriers.quic.advance(now, id);
                // A connection that ends ends its tunnels, so the datagrams that came along go first.
                if !self.carriers.quic.is_open(id) {
                    self.relay_datagrams(now, id, out);
                }
                self.handle_events(now, out);
                self.relay_datagrams(now, id, out);
            }
            if let Some(id) = self.carriers.tcp.next_touched() {
                self.carriers.tcp.advance(now, id, out);
                self.handle_events(now, out);
                // It has taken what its tunnel brought, and may take more.
                if let Some(tunnel) = self.carrier_tunnel(ConnectionId::Tcp(id)) {
                    self.pump(now, tunnel, Direction::Down, out);
                }
            }
            // The same goes for a stream.
            while let Some(stream) = self.readable.pop_front() {
                self.handle_readable(now, stream, out);
            }
            while let Some((stream, code)) = self.stopped.pop_front() {
                self.handle_stopped(now, stream, code, out);
            }
            if !self.has_news() {
                return;
            }
        }
    }

    fn has_news(&self) -> bool {
        self.carriers.has_touched() || self.pool.has_events()
    }

    /// Sends everything that the turn produced.
    pub fn flush(&mut self, now: Instant, out: &mut impl Outside) {
        let mut dead = Vec::new();
        self.batches.flush(out, |tunnel| dead.push(tunnel));
        for tunnel in dead {
            self.stats.target_errors += 1;
            self.abort(now, tunnel, Abort::TargetUnreachable, out);
        }
        self.flush_gateway(out);
        self.carriers.flush(now, out);
        self.pass_nested_output(now, out);
    }

    /// What nested connections on HTTP/2 and HTTP/1.1 have written leaves through the tunnels that they live in, outer
    /// ones behind inner ones.
    fn pass_nested_output(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some(inner) = self.carriers.tcp.next_output() {
            match self.carrier_tunnel(ConnectionId::Tcp(inner)) {
                Some(tunnel) => self.pump(now, tunnel, Direction::Up, out),
                // Its tunnel is gone: what it says is said to nobody, and then it is gone too.
                None => {
                    while let LinkOutput::Bytes(_) =
                        self.carriers.tcp.poll_output(now, inner, usize::MAX)
                    {}
                }
            }
            self.carriers.flush(now, out);
        }
    }

    /// Whether a turn has work left that waits for no deadline.
    pub fn is_busy(&self) -> bool {
        self.has_news()
            || !self.local.is_empty()
            || !self.handler.is_empty()
            || !self.resume.is_empty()
    }

    /// When [`Machine::turn`] has work at the earliest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let tunnels = self.timers.first().map(|(due, _)| *due);
        let drain = match self.drain {
            Drain::Announced { settle, .. } => Some(settle),
            Drain::Refusing { deadline } => deadline,
            Drain::No | Drain::Done => None,
        };
        let pool = self.pool.next_timeout();
        let plain = self.fallback.next_timeout();
        [self.carriers.next_timeout(), tunnels, pool, plain, drain]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_events(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some((id, event)) = self.carriers.quic.poll_event() {
            match event {
                Event::Connected => {}
                Event::Closed { reason, bound } => {
                    let streams = bound.into_iter();
                    let bound =
                        streams.map(|(stream, owner)| (RequestStream::Quic(id, stream), owner));
                    let failed = Failed::Quic(&reason);
                    self.handle_connection_closed(now, ConnectionId::Quic(id), failed, bound, out);
                }
                Event::Http(event) => self.handle_http(now, id, event, out),
                Event::Mtu { bound } => {
                    for (_, owner) in bound {
                        self.tell_mtu(TunnelId::from_bits(owner));
                    }
                }
            }
        }
        while let Some((id, event)) = self.carriers.tcp.poll_event() {
            self.handle_tcp_carrier(now, id, event, out);
        }
        self.handle_pool_events(now, out);
    }

    /// What happened on HTTP/3.
    fn handle_http(
        &mut self,
        now: Instant,
        id: quic::ConnectionId,
        event: h3::Event,
        out: &mut impl Outside,
    ) {
        let on = |stream| RequestStream::Quic(id, stream);
        let connection = ConnectionId::Quic(id);
        match event {
            h3::Event::Settings(_) => self.pool.handle_ready(now, connection, &mut self.carriers),
            // What came in the same packet as a head is not announced again.
            h3::Event::Request { id: stream, head } => {
                self.handle_request(now, on(stream), &head, out);
                self.readable.push_back(on(stream));
            }
            h3::Event::Response { id: stream, head } => {
                self.handle_response(now, on(stream), head, out);
                self.readable.push_back(on(stream));
            }
            h3::Event::Readable { id: stream } => self.readable.push_back(on(stream)),
            h3::Event::Writable { id: stream } => self.handle_writable(now, on(stream), out),
            h3::Event::Reset { id: stream, code } => self.handle_reset(now, on(stream), code, out),
            h3::Event::Stopped { id: stream, code } => self.stopped.push_back((on(stream), code)),
            h3::Event::Aborted { id: stream, reason } => {
                match reason {
                    h3::Abort::NotProcessed => {}
                    h3::Abort::TooLarge(_) => self.stats.field_sections_refused += 1,
                    h3::Abort::Malformed(_)
                    | h3::Abort::Incomplete
                    | h3::Abort::DatagramUnexpected => self.stats.requests_malformed += 1,
                }
                tracing::debug!(%reason, "a request stream was aborted");
                self.handle_aborted(now, on(stream), &reason, out);
            }
            h3::Event::StreamsAvailable => {
                self.pool
                    .handle_streams(now, connection, &mut self.carriers);
            }
            h3::Event::GoAway { .. } => {
                self.pool.handle_goaway(now, connection, &mut self.carriers)
            }
        }
    }

    /// What happened on HTTP/2 or HTTP/1.1.
    fn handle_tcp_carrier(
        &mut self,
        now: Instant,
        id: tcp::ConnectionId,
        event: tcp::Event,
        out: &mut impl Outside,
    ) {
        let on = |stream| RequestStream::Tcp(id, stream);
        let connection = ConnectionId::Tcp(id);
        match event {
            tcp::Event::Connected(_) => self.pool.handle_ready(now, connection, &mut self.carriers),
            tcp::Event::Request { stream, head } => {
                self.handle_request(now, on(stream), &head, out);
                self.readable.push_back(on(stream));
            }
            tcp::Event::Response { stream, head } => {
                self.handle_response(now, on(stream), head, out);
                self.readable.push_back(on(stream));
            }
            tcp::Event::Readable { stream } => self.readable.push_back(on(stream)),
            tcp::Event::Writable { stream } => self.handle_writable(now, on(stream), out),
            tcp::Event::Reset { stream, code } => self.handle_reset(now, on(stream), code, out),
            tcp::Event::Stopped { stream } => self.handle_left(now, on(stream), out),
            tcp::Event::Malformed => self.stats.requests_malformed += 1,
            tcp::Event::StreamsAvailable => {
                self.pool
                    .handle_streams(now, connection, &mut self.carriers);
            }
            tcp::Event::GoAway => self.pool.handle_goaway(now, connection, &mut self.carriers),
            tcp::Event::Closed { reason, bound } => {
                let streams = bound.into_iter();
                let bound = streams.map(|(stream, owner)| (on(stream), owner));
                let failed = Failed::Tcp(&reason);
                self.handle_connection_closed(now, connection, failed, bound, out);
            }
        }
    }

    /// Something happened to a TCP socket.
    pub fn handle_tcp(
        &mut self,
        now: Instant,
        socket: TcpId,
        tag: TcpTag,
        event: TcpEvent,
        out: &mut impl Outside,
    ) {
        match (tag, event) {
            (TcpTag::Listener(number), TcpEvent::Accepted { socket, peer }) => {
                self.accept(now, number, socket, peer, out);
            }
            (TcpTag::Carrier(id), TcpEvent::Broken(_)) => self.carriers.tcp.handle_broken(id),
            (TcpTag::Carrier(id), TcpEvent::Failed(error)) => {
                self.carriers.tcp.handle_failed(id, &error);
            }
            (TcpTag::Carrier(id), TcpEvent::Connected | TcpEvent::Ready { .. }) => {
                self.carriers.tcp.handle_ready(id);
            }
            (TcpTag::Target(id), TcpEvent::Connected) => {
                self.handle_target_connected(now, id, socket, out);
            }
            (TcpTag::Target(id), TcpEvent::Failed(error)) => {
                self.handle_target_failed(now, id, socket, &error, out);
            }
            (TcpTag::Target(id), TcpEvent::Broken(error)) => {
                self.handle_target_broken(now, id, socket, &error, out);
            }
            (TcpTag::Target(id), TcpEvent::Ready { .. }) => {
                // Either direction may go on: the socket is the source of one and the sink of the other.
                for direction in Direction::BOTH {
                    self.pump(now, id, direction, out);
                }
            }
            (TcpTag::App(_), _)
            | (TcpTag::Listener(_), _)
            | (TcpTag::Target(_) | TcpTag::Carrier(_), TcpEvent::Accepted { .. }) => {}
        }
    }

    /// A client connected.
    fn accept(
        &mut self,
        now: Instant,
        number: u32,
        socket: TcpId,
        peer: SocketAddr,
        out: &mut impl Outside,
    ) {
        let Some(tls) = self
            .tcp_listeners
            .get(number as usize)
            .and_then(Option::as_ref)
        else {
            return out.close(socket, TcpClose::Abort);
        };
        // A connection that a limit refuses is closed and counted by the hub.
        if let Some(id) = self
            .carriers
            .tcp
            .accept(now, socket, peer, Arc::clone(tls), out)
        {
            out.set_tcp_tag(socket, TcpTag::Carrier(id));
            self.carriers.tcp.handle_ready(id);
        }
    }

    pub(super) fn handle_pool_events(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some(event) = self.pool.poll() {
            match event {
                PoolEvent::Opened {
                    tunnel,
                    ticket,
                    stream,
                } => self.handle_pooled(now, tunnel, ticket, stream),
                PoolEvent::Failed {
                    tunnel,
                    ticket,
                    failure,
                } => self.handle_pool_failed(now, tunnel, ticket, *failure, out),
                PoolEvent::Resolve { hop, name } => match name.parse() {
                    Ok(address) => {
                        self.pool
                            .handle_resolved(now, hop, Ok(vec![address]), &mut self.carriers);
                    }
                    Err(_) => {
                        if !out.resolve(&name, Resolve::Hop(hop)) {
                            self.stats.resolves_refused += 1;
                            self.pool.handle_unresolved(now, hop, Refusal::Overloaded);
                        }
                    }
                },
                PoolEvent::Connect { dial, address } => self.dial_tcp(now, dial, address, out),
                PoolEvent::Nest {
                    dial,
                    via,
                    target,
                    kind,
                } => self.nest(now, dial, via, target, kind, out),
            }
        }
    }

    /// Starts a TCP connection to a next hop, and TLS behind it.
    fn dial_tcp(
        &mut self,
        now: Instant,
        dial: DialId,
        address: SocketAddr,
        out: &mut impl Outside,
    ) {
        let refusal = match out.connect_tcp(address, &SocketOptions::default(), TcpTag::App(0)) {
            Ok(socket) => {
                let link = ByteLink::Socket(socket, address);
                match self
                    .pool
                    .connect_tcp(now, dial.hop, link, &mut self.carriers)
                {
                    Ok(connection) => {
                        if let ConnectionId::Tcp(id) = connection {
                            out.set_tcp_tag(socket, TcpTag::Carrier(id));
                        }
                        return self.pool.handle_connecting(dial, connection);
                    }
                    Err(refusal) => {
                        out.close(socket, TcpClose::Abort);
                        refusal
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot open a socket to the next hop");
                Refusal::Unroutable
            }
        };
        self.pool
            .handle_unreachable(now, dial, refusal.into(), &mut self.carriers);
    }

    fn handle_connection_closed(
        &mut self,
        now: Instant,
        id: ConnectionId,
        failed: Failed<'_>,
        bound: impl Iterator<Item = (RequestStream, u64)>,
        out: &mut impl Outside,
    ) {
        tracing::debug!(reason = ?failed, "a connection is over");
        self.pool
            .handle_closed(now, id, &failed, &mut self.carriers);
        match (id, self.carrier_tunnel(id)) {
            (ConnectionId::Quic(_), Some(carrier)) => {
                self.nested.remove(&id);
                self.abort(now, carrier, Abort::ClientClosed, out);
            }
            // Its last words still have to leave; the tunnel ends behind them.
            (ConnectionId::Tcp(_), Some(carrier)) => {
                self.pump(now, carrier, Direction::Up, out);
                self.arm(carrier, now + LINGER);
            }
            (_, None) => {}
        }
        for (stream, owner) in bound {
            self.stream_failed(now, TunnelId::from_bits(owner), stream, None, out);
        }
    }

    /// Sets the one deadline of a tunnel.
    pub(super) fn arm(&mut self, id: TunnelId, due: Instant) {
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            self.timers.remove(&(tunnel.due, id));
            tunnel.due = due;
            self.timers.insert((due, id));
        }
    }

    /// Forgets the deadline of a tunnel that has ended.
    pub(super) fn disarm(&mut self, id: TunnelId, tunnel: &Tunnel) {
        self.timers.remove(&(tunnel.due, id));
    }

    fn expire_tunnels(&mut self, now: Instant, out: &mut impl Outside) {
        while let Some(&(due, id)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            let Some(tunnel) = self.tunnels.get(id) else {
                continue;
            };
            let overdue = tunnel.open_until <= now;
            match &tunnel.state {
                State::Open if self.is_done(id) => self.complete(now, id, out),
                State::Open if self.is_deserted(id) => {
                    self.abort(now, id, Abort::ClientClosed, out);
                }
                State::Open => {
                    let idle = match tunnel.flow {
                        Flow::Udp(_) => self.limits.tunnel_idle,
                        // Who is silent for long may still be called.
                        Flow::Tcp(_) | Flow::Ip(_) => self.limits.tcp_idle,
                    };
                    let due = tunnel.last_active + idle;
                    if due > now {
                        self.arm(id, due);
                    } else {
                        self.stats.tunnels_idle += 1;
                        self.abort(now, id, Abort::Idle, out);
                    }
                }
                // The verdict may be lost; nobody must wait for it for ever.
                State::Verifying { key, .. } => {
                    let key = *key;
                    self.server.handle_check_dropped(key);
                    self.refuse(now, id, Refusal::Overloaded, None, out);
                }
                State::Deciding(_) => self.refuse(now, id, Refusal::Overloaded, None, out),
                State::Resolving { .. } => self.refuse(now, id, Refusal::DnsTimeout, None, out),
                State::Connecting(_) if overdue => {
                    self.refuse(now, id, Refusal::ConnectTimeout, None, out);
                }
                State::Connecting(_) => self.try_addresses(now, id, out),
                State::Racing(_) if overdue => self.race_timed_out(now, id, out),
                State::Racing(_) => self.handle_head_start_over(now, id, out),
            }
        }
    }
}
