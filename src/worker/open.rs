//! How a tunnel comes to be: a request, a decision, an upstream leg, an answer.
//!
//! The answer goes out when the leg is there, never before (RFC 9298 §3.1, RFC 9110 §9.3.6): a 2xx means that data
//! flows. What opens towards a next hop is in `race`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ::http::{StatusCode, header};

use super::ip::IpFlow;
use super::leg::{Connecting, Deciding, Flow, Leg, State, Tunnel, UdpFlow, name_of};
use super::machine::{End, LocalEvent, Machine, Outside, Resolve, Tag, TcpTag};
use super::pipe::{Direction, Splice};
use crate::client::{DialId, Request, RouteId, TcpForm, TunnelKind};
use crate::error::{Abort, Refusal};
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::{TcpClose, TcpId};
use crate::policy::auth::{User, Verdict};
use crate::policy::resolve::Resolution;
use crate::server::{Access, Plan, Protocol, Route};
use crate::transport::carriers::{ConnectionId, RequestStream};
use crate::tunnel::eyeballs::Eyeballs;
use crate::tunnel::{Framing, TunnelId};
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::{CONNECT_IP, CONNECT_UDP};
use crate::wire::ip::{Destination, Scope};
use crate::wire::target::{Host, Target};

impl Machine {
    /// A request from a client.
    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        stream: RequestStream,
        head: &RequestHead,
        out: &mut impl Outside,
    ) {
        self.stats.requests += 1;
        let opening = if self.is_refusing() {
            self.refuse_late(now, stream)
        } else if self.tunnels.len() + self.fallback.len() >= self.limits.tunnels_max {
            self.stats.tunnels_refused += 1;
            Err(Refusal::Overloaded)
        } else if self.falls_back(head) {
            self.ask_fallback(now, stream, head);
            Ok(())
        } else {
            self.open(now, stream, head, out)
        };
        if let Err(refusal) = opening {
            self.answer_refused(stream, refusal, None);
        }
    }

    /// Opens a tunnel for a request. What comes later of it reaches the client by itself.
    ///
    /// # Errors
    /// The refusal, if it is known at once.
    fn open(
        &mut self,
        now: Instant,
        stream: RequestStream,
        head: &RequestHead,
        out: &mut impl Outside,
    ) -> Result<(), Refusal> {
        match self.server.authorize(now, head)? {
            Access::Granted(user) => {
                self.follow(now, stream, (head, user), UdpFlow::default(), out)
            }
            Access::Verify { key, job } => {
                let posted = job.is_none_or(|job| out.verify(job));
                if !posted {
                    self.server.handle_check_dropped(key);
                    return self.refuse_check();
                }
                // Datagrams are kept; the bytes of a TCP tunnel stay in their stream.
                let flow = match head.protocol.as_deref() {
                    Some(CONNECT_UDP) => Flow::Udp(UdpFlow::default()),
                    Some(CONNECT_IP) => Flow::Ip(Box::new(IpFlow::new(Scope::default()))),
                    Some(_) | None => Flow::Tcp(Box::new(Splice::new(Framing::Raw))),
                };
                let head = Box::new(head.clone());
                let state = State::Verifying { key, head };
                let id = self.insert(now, Leg::Stream(stream), state, flow);
                self.carriers.bind(stream, id.to_bits());
                Ok(())
            }
            Access::Busy => self.refuse_check(),
        }
    }

    fn refuse_check(&mut self) -> Result<(), Refusal> {
        self.stats.password_checks_refused += 1;
        Err(Refusal::Overloaded)
    }

    /// The password of a request, or of several, was checked.
    pub fn handle_verdict(&mut self, now: Instant, verdict: Verdict, out: &mut impl Outside) {
        let key = verdict.key;
        let granted = self.server.handle_verdict(now, verdict);
        self.stats.verified_passwords_evicted = self.server.passwords_evicted();
        let waits = |tunnel: &Tunnel| match &tunnel.state {
            State::Verifying { key: awaited, .. } => *awaited == key,
            State::Deciding(_)
            | State::Resolving { .. }
            | State::Connecting(_)
            | State::Racing(_)
            | State::Open => false,
        };
        let waiting: Vec<_> = self
            .tunnels
            .iter()
            .filter(|(_, tunnel)| waits(tunnel))
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            self.decided(now, id, granted.clone(), out);
        }
    }

    /// The fate of a request whose password was checked.
    fn decided(
        &mut self,
        now: Instant,
        id: TunnelId,
        granted: Option<User>,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.remove(id) else {
            return;
        };
        self.disarm(id, &tunnel);
        let Tunnel {
            downstream: Leg::Stream(stream),
            state: State::Verifying { head, .. },
            flow,
            ..
        } = tunnel
        else {
            return;
        };
        self.carriers.unbind(stream);
        // What came meanwhile, and half a capsule perhaps.
        let waiting = match flow {
            Flow::Udp(flow) => flow,
            Flow::Tcp(_) | Flow::Ip(_) => UdpFlow::default(),
        };
        let followed = match granted {
            Some(user) => self.follow(now, stream, (&head, Some(user)), waiting, out),
            None => Err(self.server.unauthorized(&head)),
        };
        match followed {
            // What came meanwhile was not announced again.
            Ok(()) => self.readable.push_back(stream),
            Err(refusal) => self.answer_refused(stream, refusal, None),
        }
    }

    /// Does what a request asks for, now that it may ask.
    ///
    /// # Errors
    /// The refusal, if it is known at once.
    fn follow(
        &mut self,
        now: Instant,
        stream: RequestStream,
        (head, user): (&RequestHead, Option<User>),
        waiting: UdpFlow,
        out: &mut impl Outside,
    ) -> Result<(), Refusal> {
        let carrier = self.carrier_of(stream);
        let Plan {
            protocol,
            destination,
            route,
        } = self.server.plan(head, carrier)?;
        let flow = match (protocol, &destination) {
            (Protocol::Ip, Destination::Scope(scope)) => {
                let mut flow = IpFlow::new(scope.clone());
                flow.user = user.map(|user| user.name().into());
                Flow::Ip(Box::new(flow))
            }
            (Protocol::Udp | Protocol::Ip, _) => Flow::Udp(waiting),
            (Protocol::Tcp(framing), _) => Flow::Tcp(Box::new(Splice::new(framing))),
        };
        let downstream = Leg::Stream(stream);
        match route {
            Route::Direct => {
                let name = name_of(&destination).map(str::to_owned);
                if name.is_some() && self.resolves >= self.limits.resolves_max {
                    self.stats.resolves_refused += 1;
                    return Err(Refusal::Overloaded);
                }
                self.continue_expectation(stream, head);
                let state = State::Resolving {
                    destination,
                    direct: None,
                };
                let id = self.insert(now, downstream, state, flow);
                self.carriers.bind(stream, id.to_bits());
                match name {
                    Some(name) => self.resolve(now, id, &name, out),
                    None => self.reach(now, id, out),
                }
            }
            Route::Handler { via } => {
                self.continue_expectation(stream, head);
                let deciding = Deciding { destination, via };
                self.ask_handler(now, stream, deciding, (protocol, head), flow);
            }
            Route::Chain { via } => {
                let route = self.route.ok_or(Refusal::Misconfigured)?;
                self.continue_expectation(stream, head);
                let kind = match protocol {
                    Protocol::Udp => TunnelKind::Udp,
                    Protocol::Tcp(_) => TunnelKind::TCP,
                    Protocol::Ip => TunnelKind::Ip,
                };
                let request = Request {
                    via,
                    ..Request::new(destination, kind)
                };
                let id = self.open_chained(now, downstream, route, request, flow, out);
                self.carriers.bind(stream, id.to_bits());
                self.handle_pool_events(now, out);
            }
        }
        Ok(())
    }

    /// The HTTP version that a stream is on.
    pub(super) fn carrier_of(&self, stream: RequestStream) -> Carrier {
        // A connection that is gone gets no answer, whatever its version.
        self.carriers
            .carrier(stream.connection())
            .unwrap_or(Carrier::H3)
    }

    /// Answers `Expect: 100-continue` (RFC 9110 §10.1.1).
    fn continue_expectation(&mut self, stream: RequestStream, head: &RequestHead) {
        let expected = head.headers.get(header::EXPECT);
        if expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            let interim = ResponseHead::new(StatusCode::CONTINUE);
            self.carriers.respond(stream, &interim, false);
        }
    }

    pub(super) fn resolve(
        &mut self,
        now: Instant,
        id: TunnelId,
        name: &str,
        out: &mut impl Outside,
    ) {
        self.resolves += 1;
        if !out.resolve(name, Resolve::Tunnel(id)) {
            self.stats.resolves_refused += 1;
            self.refuse(now, id, Refusal::Overloaded, None, out);
        }
    }

    pub(super) fn open_chained(
        &mut self,
        now: Instant,
        downstream: Leg,
        route: RouteId,
        request: Request,
        flow: Flow,
        out: &mut impl Outside,
    ) -> TunnelId {
        let state = self.race(now, route, request, out);
        let id = self.insert(now, downstream, state, flow);
        self.set_open_timeout(now, id, self.pool.open_timeout(route));
        self.start_attempt(now, id);
        id
    }

    /// Opens a UDP tunnel for a local user; what becomes of it arrives as [`LocalEvent`]s.
    pub fn open_local(
        &mut self,
        now: Instant,
        route: RouteId,
        target: Target,
        out: &mut impl Outside,
    ) -> TunnelId {
        self.open_local_request(now, route, Request::new(target, TunnelKind::Udp), out)
    }

    /// Opens a TCP tunnel for a local user, asked for in `form` or in the one that the route has; what becomes of it
    /// arrives as [`LocalEvent`]s.
    pub fn open_local_tcp(
        &mut self,
        now: Instant,
        route: RouteId,
        target: Target,
        form: Option<TcpForm>,
        out: &mut impl Outside,
    ) -> TunnelId {
        let request = Request::new(target, TunnelKind::Tcp(form));
        self.open_local_request(now, route, request, out)
    }

    /// Opens a tunnel of any kind for a local user, with all that its request may say.
    pub fn open_local_request(
        &mut self,
        now: Instant,
        route: RouteId,
        request: Request,
        out: &mut impl Outside,
    ) -> TunnelId {
        let flow = flow_of(&request);
        let id = self.open_chained(now, Leg::Local, route, request, flow, out);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.local = true;
        }
        self.handle_pool_events(now, out);
        id
    }

    /// Opens the tunnel through `via` in which the connection that `dial` wants will live.
    pub(super) fn nest(
        &mut self,
        now: Instant,
        dial: DialId,
        via: RouteId,
        target: Target,
        kind: TunnelKind,
        out: &mut impl Outside,
    ) {
        let request = Request::new(target, kind);
        let flow = flow_of(&request);
        let id = self.open_chained(now, Leg::None, via, request, flow, out);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.nests = Some(dial);
        }
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        downstream: Leg,
        state: State,
        flow: Flow,
    ) -> TunnelId {
        let open_until = now + self.limits.open_timeout;
        let id = self.tunnels.insert(Tunnel {
            downstream,
            upstream: Leg::None,
            state,
            flow,
            nests: None,
            local: false,
            answer: None,
            capsule_waits: [false; 2],
            last_active: now,
            open_until,
            due: now,
        });
        self.arm(id, open_until);
        id
    }

    pub(super) fn handle_target_resolved(
        &mut self,
        now: Instant,
        id: TunnelId,
        resolution: Resolution,
        out: &mut impl Outside,
    ) {
        let Some(State::Resolving { destination, .. }) = self.tunnels.get(id).map(|t| &t.state)
        else {
            return;
        };
        let destination = destination.clone();
        match resolution {
            Ok(addresses) => self.reach_at(now, id, &destination, &addresses, out),
            Err(error) => self.refuse(now, id, error.into(), None, out),
        }
    }

    /// Goes on to a destination that has no name.
    pub(super) fn reach(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        let Some(State::Resolving { destination, .. }) = self.tunnels.get(id).map(|t| &t.state)
        else {
            return;
        };
        let destination = destination.clone();
        let address = match &destination {
            Destination::Target(Target {
                host: Host::Ip(address),
                ..
            }) => Some(*address),
            Destination::Target(_) | Destination::Scope(_) => None,
        };
        self.reach_at(now, id, &destination, address.as_slice(), out);
    }

    /// Goes on to the addresses of a destination.
    pub(super) fn reach_at(
        &mut self,
        now: Instant,
        id: TunnelId,
        destination: &Destination,
        addresses: &[IpAddr],
        out: &mut impl Outside,
    ) {
        let name = name_of(destination);
        match destination {
            Destination::Target(target) => {
                self.connect(now, id, addresses, target.port, name, out);
            }
            Destination::Scope(_) if name.is_none() => self.open_gateway(now, id, &[], out),
            // Every packet is judged by its own port; here any will do.
            Destination::Scope(_) => match self.allowed_addresses(id, addresses, 443, name) {
                Ok(allowed) => {
                    let allowed: Vec<_> = allowed.iter().map(SocketAddr::ip).collect();
                    self.open_gateway(now, id, &allowed, out);
                }
                Err(refusal) => self.refuse(now, id, refusal, None, out),
            },
        }
    }

    /// Connects to the addresses that policy allows, and answers when that worked.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        id: TunnelId,
        addresses: &[IpAddr],
        port: u16,
        name: Option<&str>,
        out: &mut impl Outside,
    ) {
        if self.target_sockets >= self.limits.target_sockets_max {
            self.stats.target_sockets_refused += 1;
            return self.refuse(now, id, Refusal::Overloaded, None, out);
        }
        let allowed = match self.allowed_addresses(id, addresses, port, name) {
            Ok(allowed) => allowed,
            Err(refusal) => return self.refuse(now, id, refusal, None, out),
        };
        match self.tunnels.get(id).map(|tunnel| &tunnel.flow) {
            Some(Flow::Udp(_)) => self.connect_udp(now, id, &allowed, out),
            Some(Flow::Tcp(_)) => self.connect_tcp(now, id, &allowed, out),
            Some(Flow::Ip(_)) | None => {}
        }
    }

    /// Opens a socket to the first address that has a route: without an answer there is nothing to race for.
    fn connect_udp(
        &mut self,
        now: Instant,
        id: TunnelId,
        allowed: &[SocketAddr],
        out: &mut impl Outside,
    ) {
        let mut refusal = Refusal::Unroutable;
        let options = self.socket_options(id);
        for address in allowed {
            match out.connect(*address, &options, Tag::Target(id)) {
                Ok(socket) => {
                    self.target_sockets += 1;
                    return self.opened(now, id, Leg::Socket(socket), Protocol::Udp, out);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot open a target socket");
                    refusal = socket_refusal(&error);
                }
            }
        }
        self.refuse(now, id, refusal, None, out);
    }

    fn connect_tcp(
        &mut self,
        now: Instant,
        id: TunnelId,
        allowed: &[SocketAddr],
        out: &mut impl Outside,
    ) {
        let socket = self.socket_options(id);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            self.resolves -= usize::from(tunnel.is_resolving());
            tunnel.state = State::Connecting(Box::new(Connecting {
                eyeballs: Eyeballs::new(allowed),
                socket,
                refusal: Refusal::Unroutable,
            }));
        }
        self.try_addresses(now, id, out);
    }

    fn connecting(&mut self, id: TunnelId) -> Option<&mut Connecting> {
        match &mut self.tunnels.get_mut(id)?.state {
            State::Connecting(connecting) => Some(connecting),
            State::Verifying { .. }
            | State::Deciding(_)
            | State::Resolving { .. }
            | State::Racing(_)
            | State::Open => None,
        }
    }

    /// Starts the connections that are due; refuses when all have failed.
    pub(super) fn try_addresses(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        while let Some((address, options)) = self
            .connecting(id)
            .and_then(|it| Some((it.eyeballs.start(now)?, it.socket)))
        {
            let connected = if self.target_sockets >= self.limits.target_sockets_max {
                self.stats.target_sockets_refused += 1;
                Err(Refusal::Overloaded)
            } else {
                out.connect_tcp(address, &options, TcpTag::Target(id))
                    .map_err(|error| {
                        tracing::debug!(%error, "cannot open a target socket");
                        socket_refusal(&error)
                    })
            };
            let Some(connecting) = self.connecting(id) else {
                return;
            };
            match connected {
                Ok(socket) => {
                    connecting.eyeballs.started(now, socket);
                    self.target_sockets += 1;
                }
                Err(refusal) => connecting.refusal = refusal,
            }
        }
        let Some(connecting) = self.connecting(id) else {
            return;
        };
        let (exhausted, refusal) = (connecting.eyeballs.is_exhausted(), connecting.refusal);
        if exhausted {
            return self.refuse(now, id, refusal, None, out);
        }
        let next = connecting.eyeballs.next_timeout();
        if let Some(open_until) = self.tunnels.get(id).map(|tunnel| tunnel.open_until) {
            self.arm(id, next.unwrap_or(open_until).min(open_until));
        }
    }

    /// A connection to the target is there; the first one wins.
    pub(super) fn handle_target_connected(
        &mut self,
        now: Instant,
        id: TunnelId,
        socket: TcpId,
        out: &mut impl Outside,
    ) {
        let Some(connecting) = self.connecting(id) else {
            return;
        };
        let losers: Vec<_> = connecting.eyeballs.attempts().to_vec();
        for loser in losers.into_iter().filter(|loser| *loser != socket) {
            self.target_sockets -= 1;
            out.close(loser, TcpClose::Abort);
        }
        self.opened(now, id, Leg::Tcp(socket), Protocol::Tcp(Framing::Raw), out);
    }

    /// A connection to the target cannot be had.
    pub(super) fn handle_target_failed(
        &mut self,
        now: Instant,
        id: TunnelId,
        socket: TcpId,
        error: &io::Error,
        out: &mut impl Outside,
    ) {
        let Some(connecting) = self.connecting(id) else {
            return;
        };
        connecting.eyeballs.failed(socket);
        connecting.refusal = socket_refusal(error);
        self.target_sockets -= 1;
        self.try_addresses(now, id, out);
    }

    /// The upstream leg is there: answer, and pass on what came early.
    pub(super) fn opened(
        &mut self,
        now: Instant,
        id: TunnelId,
        upstream: Leg,
        protocol: Protocol,
        out: &mut impl Outside,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        self.resolves -= usize::from(tunnel.is_resolving());
        tunnel.upstream = upstream;
        tunnel.state = State::Open;
        tunnel.last_active = now;
        let (idle, accepted) = match (&mut tunnel.flow, protocol) {
            (Flow::Tcp(splice), Protocol::Tcp(framing)) => {
                splice.set_upstream(framing);
                (self.limits.tcp_idle, Protocol::Tcp(splice.downstream()))
            }
            (Flow::Ip(_), _) => (self.limits.tcp_idle, Protocol::Ip),
            (Flow::Udp(_) | Flow::Tcp(_), _) => (self.limits.tunnel_idle, Protocol::Udp),
        };
        self.stats.tunnels_opened += 1;
        let (downstream, nests) = (tunnel.downstream, tunnel.nests);
        let answer = tunnel.answer.take();
        self.keep_unknown(id);
        self.note_mtu(id);
        self.arm(id, now + idle);
        match downstream {
            Leg::Stream(stream) => {
                let mut head = self.server.accepted(accepted, self.carrier_of(stream));
                head.headers
                    .extend(answer.map(|it| *it).unwrap_or_default());
                if !self.carriers.respond(stream, &head, false) {
                    return self.abort(now, id, Abort::ClientCancelled, out);
                }
            }
            Leg::Local => self.tell(End::Downstream, LocalEvent::Opened(id)),
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_) | Leg::Gateway => {}
        }
        if let (Some(dial), Leg::Stream(stream)) = (nests, upstream) {
            let Some(inner) = self.pool.handle_link(now, dial, stream, &mut self.carriers) else {
                return self.abort(now, id, Abort::ClientClosed, out);
            };
            self.nested.insert(inner, id);
            if let Some(tunnel) = self.tunnels.get_mut(id) {
                tunnel.downstream = Leg::Nested(inner);
            }
        }
        if upstream == Leg::Local {
            self.tell(End::Upstream, LocalEvent::Opened(id));
        }
        match accepted {
            Protocol::Udp => self.relay_early(now, id, out),
            Protocol::Ip => {
                // A gateway has to say first what may come.
                if upstream != Leg::Gateway {
                    self.relay_early_packets(now, id, out);
                }
                // Capsules have waited in their streams.
                for leg in [downstream, upstream] {
                    if let Leg::Stream(stream) = leg {
                        self.readable.push_back(stream);
                    }
                }
            }
            Protocol::Tcp(_) => {
                for direction in Direction::BOTH {
                    self.pump(now, id, direction, out);
                }
            }
        }
    }

    /// Where a nested connection lives.
    pub(super) fn carrier_tunnel(&self, inner: ConnectionId) -> Option<TunnelId> {
        self.nested.get(&inner).copied()
    }
}

/// What the tunnel of a request carries.
pub(super) fn flow_of(request: &Request) -> Flow {
    match (request.kind, &request.destination) {
        (TunnelKind::Ip, Destination::Scope(scope)) => {
            Flow::Ip(Box::new(IpFlow::new(scope.clone())))
        }
        (TunnelKind::Udp | TunnelKind::Ip, _) => Flow::Udp(UdpFlow::default()),
        (TunnelKind::Tcp(_), _) => Flow::Tcp(Box::new(Splice::new(Framing::Raw))),
    }
}

/// What a target socket that could not be opened means for the client.
fn socket_refusal(error: &io::Error) -> Refusal {
    use std::io::ErrorKind;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what else can go wrong is that something ran out"
    )]
    match error.kind() {
        ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::AddrNotAvailable
        | ErrorKind::NetworkDown => Refusal::Unroutable,
        ErrorKind::PermissionDenied => Refusal::DeniedByRule,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Refusal::ConnectionRefused,
        ErrorKind::TimedOut => Refusal::ConnectTimeout,
        _ => Refusal::Overloaded,
    }
}
