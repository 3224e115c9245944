//! How a tunnel comes to be: a request, a decision, an upstream leg, an answer.
//!
//! The answer goes out when the leg is there, never before (RFC 9298 §3.1): a 2xx means that datagrams flow.

use std::net::IpAddr;
use std::time::Instant;

use quinn_proto::StreamId;

use super::leg::{Leg, State, Tunnel};
use super::machine::{LocalEvent, Machine, Outside, Resolve, Tag};
use crate::client::{HopId, Request};
use crate::error::{Abort, Refusal};
use crate::http::h3::code::Code;
use crate::http::request::{RequestHead, ResponseHead};
use crate::policy::resolve::Resolution;
use crate::server::{Access, Plan, Protocol, Route, check_accepted};
use crate::transport::quic::{ConnectionId, Link};
use crate::tunnel::{Early, Inbound, TunnelId};
use crate::wire::carrier::Carrier;
use crate::wire::target::{Host, Target};

impl Machine {
    /// A request from a client.
    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        head: &RequestHead,
        out: &mut impl Outside,
    ) {
        self.stats.requests += 1;
        let opening = if self.tunnels.len() >= self.limits.tunnels_max {
            self.stats.tunnels_refused += 1;
            Err(Refusal::Overloaded)
        } else {
            self.open(now, connection, stream, head, out)
        };
        if let Err(refusal) = opening {
            self.answer_refused(connection, stream, refusal, None);
        }
    }

    /// Opens a tunnel for a request. What comes later of it reaches the client by itself.
    ///
    /// # Errors
    /// The refusal, if it is known at once.
    fn open(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        head: &RequestHead,
        out: &mut impl Outside,
    ) -> Result<(), Refusal> {
        match self.server.authorize(now, head)? {
            Access::Granted(_) => {}
            // Passwords need a thread that checks them, which a worker does not have.
            Access::Verify { key, job } => {
                drop(job);
                self.server.handle_check_dropped(key);
                return Err(Refusal::Overloaded);
            }
        }
        let plan = self.server.plan(head, Carrier::H3)?;
        let downstream = Leg::Stream { connection, stream };
        let Plan {
            protocol: Protocol::Udp,
            target,
            route,
        } = plan
        else {
            return Err(Refusal::UnknownProtocol);
        };
        match route {
            Route::Direct => {
                let host = target.host.clone();
                if matches!(host, Host::Name(_)) && self.resolves >= self.limits.resolves_max {
                    self.stats.resolves_refused += 1;
                    return Err(Refusal::Overloaded);
                }
                let port = target.port;
                let id = self.insert(now, downstream, State::Resolving { target });
                self.hub.bind(connection, stream, id.to_bits());
                match host {
                    Host::Ip(address) => self.connect(now, id, &[address], port, None, out),
                    Host::Name(name) => self.resolve(now, id, &name, out),
                }
            }
            Route::Chain { via } => {
                let hop = self.route.ok_or(Refusal::Misconfigured)?;
                let id = self.open_chained(now, downstream, hop, Request { target, via });
                self.hub.bind(connection, stream, id.to_bits());
                self.handle_pool_events(now, out);
            }
        }
        Ok(())
    }

    fn resolve(&mut self, now: Instant, id: TunnelId, name: &str, out: &mut impl Outside) {
        self.resolves += 1;
        if !out.resolve(name, Resolve::Tunnel(id)) {
            self.stats.resolves_refused += 1;
            self.refuse(now, id, Refusal::Overloaded, None, out);
        }
    }

    fn open_chained(
        &mut self,
        now: Instant,
        downstream: Leg,
        hop: HopId,
        request: Request,
    ) -> TunnelId {
        let state = State::Pooled {
            request: Box::new(request.clone()),
        };
        let id = self.insert(now, downstream, state);
        let ticket = self.pool.open(now, hop, id, request, &mut self.hub);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.ticket = Some(ticket);
        }
        id
    }

    /// Opens a tunnel for a local user through `hop`; what becomes of it arrives as [`LocalEvent`]s.
    pub fn open_local(
        &mut self,
        now: Instant,
        hop: HopId,
        target: Target,
        out: &mut impl Outside,
    ) -> TunnelId {
        let request = Request { target, via: None };
        let id = self.open_chained(now, Leg::Local, hop, request);
        self.handle_pool_events(now, out);
        id
    }

    /// Opens the tunnel through `via` in which the connection to `hop` will live.
    pub(super) fn nest(&mut self, now: Instant, hop: HopId, via: HopId, target: Target) {
        let request = Request { target, via: None };
        let id = self.open_chained(now, Leg::None, via, request);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.nests = Some(hop);
        }
    }

    fn insert(&mut self, now: Instant, downstream: Leg, state: State) -> TunnelId {
        let id = self.tunnels.insert(Tunnel {
            downstream,
            upstream: Leg::None,
            state,
            ticket: None,
            nests: None,
            early: Early::default(),
            from_downstream: Inbound::default(),
            from_upstream: Inbound::default(),
            batch: Default::default(),
            last_active: now,
            due: now,
            retried: false,
        });
        self.arm(id, now + self.limits.open_timeout);
        id
    }

    pub(super) fn handle_target_resolved(
        &mut self,
        now: Instant,
        id: TunnelId,
        resolution: Resolution,
        out: &mut impl Outside,
    ) {
        let Some(State::Resolving { target }) = self.tunnels.get(id).map(|t| t.state.clone())
        else {
            return;
        };
        let name = match &target.host {
            Host::Name(name) => Some(&**name),
            Host::Ip(_) => None,
        };
        match resolution {
            Ok(addresses) => self.connect(now, id, &addresses, target.port, name, out),
            Err(error) => self.refuse(now, id, error.into(), None, out),
        }
    }

    /// Connects to the first address that policy and routing allow, and answers.
    fn connect(
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
        let allowed = self.server.allowed(addresses, port, name);
        let mut outcome = Err(allowed
            .as_ref()
            .err()
            .cloned()
            .unwrap_or(Refusal::Unroutable));
        for address in allowed.unwrap_or_default() {
            match out.connect(address, Tag::Target(id)) {
                Ok(socket) => {
                    outcome = Ok(socket);
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot open a target socket");
                    outcome = Err(socket_refusal(&error));
                }
            }
        }
        match outcome {
            Ok(socket) => {
                self.target_sockets += 1;
                self.opened(now, id, Leg::Socket(socket), out);
            }
            Err(refusal) => self.refuse(now, id, refusal, None, out),
        }
    }

    /// The upstream leg is there: answer, and send on what came early.
    fn opened(&mut self, now: Instant, id: TunnelId, upstream: Leg, out: &mut impl Outside) {
        let Some(tunnel) = self.tunnels.get_mut(id) else {
            return;
        };
        self.resolves -= usize::from(tunnel.is_resolving());
        tunnel.upstream = upstream;
        tunnel.state = State::Open;
        tunnel.last_active = now;
        self.stats.tunnels_opened += 1;
        let (downstream, nests) = (tunnel.downstream, tunnel.nests);
        self.arm(id, now + self.limits.tunnel_idle);
        match downstream {
            Leg::Stream { connection, stream } => {
                let head = self.server.accepted(Protocol::Udp, Carrier::H3);
                if !self.hub.respond(connection, stream, &head, false) {
                    return self.abort(now, id, Abort::ClientCancelled, out);
                }
            }
            Leg::Local => self.local.push_back(LocalEvent::Opened(id)),
            Leg::None | Leg::Socket(_) | Leg::Nested(_) => {}
        }
        if let (Some(hop), Leg::Stream { connection, stream }) = (nests, upstream) {
            let link = Link::Tunnel { connection, stream };
            let Some(inner) = self.pool.handle_link(now, hop, link, &mut self.hub) else {
                return self.abort(now, id, Abort::ClientClosed, out);
            };
            self.nested.insert(inner, id);
            if let Some(tunnel) = self.tunnels.get_mut(id) {
                tunnel.downstream = Leg::Nested(inner);
            }
        }
        self.relay_early(now, id, out);
    }

    /// The pool found a stream; the request is on its way.
    pub(super) fn handle_pooled(
        &mut self,
        now: Instant,
        id: TunnelId,
        connection: ConnectionId,
        stream: StreamId,
    ) {
        self.hub.bind(connection, stream, id.to_bits());
        match self.tunnels.get_mut(id) {
            Some(Tunnel {
                state: state @ State::Pooled { .. },
                upstream,
                ..
            }) => {
                *upstream = Leg::Stream { connection, stream };
                if let State::Pooled { request } = std::mem::replace(state, State::Open) {
                    *state = State::Requested { request };
                }
            }
            // Nobody waits any more.
            Some(_) | None => {
                self.hub.unbind(connection, stream);
                self.hub
                    .reset(connection, stream, Code::H3_REQUEST_CANCELLED);
                self.pool.release(now, connection, &mut self.hub);
            }
        }
    }

    /// The next hop answered.
    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        stream: StreamId,
        head: Box<ResponseHead>,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.hub.owner(connection, stream).map(TunnelId::from_bits) else {
            return;
        };
        match check_accepted(&head, Protocol::Udp) {
            Ok(_) => self.opened(now, id, Leg::Stream { connection, stream }, out),
            Err(refusal) => self.refuse(now, id, refusal, Some(head), out),
        }
    }
}

/// What a target socket that could not be opened means for the client.
fn socket_refusal(error: &std::io::Error) -> Refusal {
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
        ErrorKind::ConnectionRefused => Refusal::ConnectionRefused,
        _ => Refusal::Overloaded,
    }
}
