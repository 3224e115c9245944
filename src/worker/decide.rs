//! Requests that a handler of this process decides about, and tunnels that users of it open without a relay.
//!
//! ```text
//!   HandlerEvent::Request ─┬─ accept_request ──► the handler is the upstream leg
//!                          ├─ proceed_direct ──► a socket, as a relay that connects
//!                          ├─ proceed_chain ───► a next hop, as a relay that chains
//!                          └─ reject ──────────► a response of the handler's making
//! ```
//!
//! A request that is not decided in time is refused; the handler hears of its end either way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, StatusCode};
use rustls::pki_types::CertificateDer;

use super::leg::{Deciding, Flow, Leg, State, UdpFlow, name_of};
use super::machine::{End, HandlerEvent, Machine, Outside};
use super::pipe::Splice;
use crate::client::{Request, RouteId, TunnelKind};
use crate::error::Refusal;
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::SocketOptions;
use crate::policy::Policy;
use crate::server::Protocol;
use crate::transport::carriers::RequestStream;
use crate::tunnel::{Framing, TunnelId};
use crate::wire::carrier::Carrier;
use crate::wire::ip::{Destination, Scope};
use crate::wire::proxy_status::ProxyError;
use crate::wire::target::Target;

/// A request as a handler sees it.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Everything that the client sent.
    pub head: RequestHead,
    /// What the tunnel carries.
    pub protocol: Protocol,
    /// What it shall reach: a scope for IP, a target for all else.
    pub destination: Destination,
    /// The HTTP version that the request came over.
    pub carrier: Carrier,
    /// Where the client is, unless its connection is gone already.
    pub client: Option<SocketAddr>,
    /// The client's own certificate, if the listener asks for one and it showed one.
    pub certificate: Option<CertificateDer<'static>>,
}

/// How to connect to a target without a next hop.
#[derive(Clone, Debug)]
pub struct Direct {
    /// Addresses of the target, if somebody else has resolved it. They are judged like ours.
    pub addresses: Option<Vec<IpAddr>>,
    /// Which targets are allowed.
    pub policy: Arc<Policy>,
    /// Which addresses are tried.
    pub family: Family,
    /// What the socket towards the target has.
    pub socket: SocketOptions,
    /// How long it may take, resolving included; as long as any tunnel if `None`.
    pub timeout: Option<Duration>,
}

/// Versions of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Both, in the order of the resolver.
    #[default]
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.to_canonical().is_ipv4(),
            Self::V6 => address.to_canonical().is_ipv6(),
        }
    }
}

/// The response that refuses a request.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// 3xx, 4xx or 5xx.
    pub status: StatusCode,
    /// All fields of the response but `Proxy-Status`.
    pub headers: HeaderMap,
    /// The `error` of our `Proxy-Status` member.
    pub error: ProxyError,
    /// Its `details`: printable ASCII.
    pub details: Option<Box<str>>,
}

impl Machine {
    /// Asks the handler of this process.
    pub(super) fn ask_handler(
        &mut self,
        now: Instant,
        stream: RequestStream,
        deciding: Deciding,
        (protocol, head): (Protocol, &RequestHead),
        flow: Flow,
    ) {
        let incoming = Incoming {
            head: head.clone(),
            protocol,
            destination: deciding.destination.clone(),
            carrier: self.carrier_of(stream),
            client: self.carriers.peer_address(stream.connection()),
            certificate: self.carriers.peer_certificate(stream.connection()),
        };
        let state = State::Deciding(Box::new(deciding));
        let id = self.insert(now, Leg::Stream(stream), state, flow);
        self.carriers.bind(stream, id.to_bits());
        self.keep_unknown(id);
        let event = HandlerEvent::Request(id, Box::new(incoming));
        self.handler.push_back(event);
    }

    fn deciding(&self, id: TunnelId) -> Option<&Deciding> {
        match &self.tunnels.get(id)?.state {
            State::Deciding(deciding) => Some(deciding),
            State::Verifying { .. }
            | State::Resolving { .. }
            | State::Connecting(_)
            | State::Racing(_)
            | State::Open => None,
        }
    }

    /// Adds fields to the 2xx of a request that waits for a decision.
    pub fn set_answer(&mut self, id: TunnelId, headers: HeaderMap) {
        if self.deciding(id).is_some()
            && let Some(tunnel) = self.tunnels.get_mut(id)
            && !headers.is_empty()
        {
            tunnel.answer = Some(Box::new(headers));
        }
    }

    /// The handler takes the tunnel: its 2xx goes out, and [`LocalEvent::Opened`](super::LocalEvent::Opened) follows.
    pub fn accept_request(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        if self.deciding(id).is_some() {
            if let Some(Leg::Stream(stream)) = self.leg(id, End::Downstream)
                && self.ip_flow(id).is_some()
                && !self.carries_ip(stream)
            {
                return self.refuse(now, id, Refusal::PathTooSmall, None, out);
            }
            self.opened(now, id, Leg::Local, Protocol::Tcp(Framing::Raw), out);
        }
    }

    /// The handler sends the request on to its target.
    pub fn proceed_direct(
        &mut self,
        now: Instant,
        id: TunnelId,
        direct: Direct,
        out: &mut impl Outside,
    ) {
        let Some(destination) = self.deciding(id).map(|it| it.destination.clone()) else {
            return;
        };
        self.set_open_timeout(now, id, direct.timeout);
        self.go_direct(now, id, destination, direct, out);
    }

    /// The handler sends the request on to a next hop; `timeout` is how long that may take.
    pub fn proceed_chain(
        &mut self,
        now: Instant,
        id: TunnelId,
        route: RouteId,
        timeout: Option<Duration>,
        out: &mut impl Outside,
    ) {
        let Some(Deciding { destination, via }) = self.deciding(id) else {
            return;
        };
        let (destination, via) = (destination.clone(), via.clone());
        let timeout = timeout.or_else(|| self.pool.open_timeout(route));
        self.set_open_timeout(now, id, timeout);
        let kind = match self.tunnels.get(id).map(|tunnel| &tunnel.flow) {
            Some(Flow::Udp(_)) => TunnelKind::Udp,
            Some(Flow::Tcp(_)) => TunnelKind::TCP,
            Some(Flow::Ip(_)) => TunnelKind::Ip,
            None => return,
        };
        let request = Request {
            via,
            ..Request::new(destination, kind)
        };
        let state = self.race(now, route, request, out);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.state = state;
        }
        self.start_attempt(now, id);
        self.handle_pool_events(now, out);
    }

    /// The handler refuses the request.
    pub fn reject(
        &mut self,
        _now: Instant,
        id: TunnelId,
        rejection: Rejection,
        _out: &mut impl Outside,
    ) {
        if self.deciding(id).is_none() {
            return;
        }
        let Some(tunnel) = self.remove_tunnel(id) else {
            return;
        };
        self.stats.requests_refused += 1;
        if let Leg::Stream(stream) = tunnel.downstream {
            self.carriers.unbind(stream);
            let Rejection {
                status,
                headers,
                error,
                details,
            } = rejection;
            let mut head = ResponseHead { status, headers };
            (self.server).add_proxy_status(&mut head, error, details.as_deref());
            self.carriers.respond(stream, &head, true);
        }
    }

    pub(super) fn set_open_timeout(
        &mut self,
        now: Instant,
        id: TunnelId,
        timeout: Option<Duration>,
    ) {
        if let (Some(timeout), Some(tunnel)) = (timeout, self.tunnels.get_mut(id)) {
            let open_until = now + timeout;
            tunnel.open_until = open_until;
            self.arm(id, open_until);
        }
    }

    /// Resolves and connects as `direct` says.
    fn go_direct(
        &mut self,
        now: Instant,
        id: TunnelId,
        destination: Destination,
        mut direct: Direct,
        out: &mut impl Outside,
    ) {
        let checked = match &destination {
            Destination::Target(target) => direct.policy.check_target(target),
            Destination::Scope(scope) => direct.policy.check_scope(scope),
        };
        let name = name_of(&destination).map(str::to_owned);
        // What was resolved elsewhere, or is not yet asked for, is not among our questions.
        let addresses = direct.addresses.replace(Vec::new());
        let asks = addresses.is_none() && name.is_some();
        let direct = Some(Box::new(direct));
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            let destination = destination.clone();
            tunnel.state = State::Resolving {
                destination,
                direct,
            };
        }
        if let Err(denied) = checked {
            return self.refuse(now, id, denied.into(), None, out);
        }
        if asks && self.resolves >= self.limits.resolves_max {
            self.stats.resolves_refused += 1;
            return self.refuse(now, id, Refusal::Overloaded, None, out);
        }
        match (addresses, name) {
            (Some(addresses), _) => self.reach_at(now, id, &destination, &addresses, out),
            (None, None) => self.reach(now, id, out),
            (None, Some(name)) => {
                if let Some(State::Resolving {
                    direct: Some(direct),
                    ..
                }) = self.tunnels.get_mut(id).map(|tunnel| &mut tunnel.state)
                {
                    direct.addresses = None;
                }
                self.resolve(now, id, &name, out);
            }
        }
    }

    /// What a tunnel's own way of connecting says about the addresses of its target.
    pub(super) fn allowed_addresses(
        &self,
        id: TunnelId,
        addresses: &[IpAddr],
        port: u16,
        name: Option<&str>,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let Some(direct) = self.own_way(id) else {
            return self.server.allowed(addresses, port, name);
        };
        let of_family = of_family(direct, addresses)?;
        direct.policy.allowed(&of_family, port, name)
    }

    /// The same about the addresses of the name of a scope.
    pub(super) fn allowed_in_scope(
        &self,
        id: TunnelId,
        scope: &Scope,
        addresses: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Refusal> {
        let Some(direct) = self.own_way(id) else {
            return self.server.allowed_in_scope(scope, addresses);
        };
        let of_family = of_family(direct, addresses)?;
        direct.policy.allowed_in_scope(scope, &of_family)
    }

    fn own_way(&self, id: TunnelId) -> Option<&Direct> {
        match self.tunnels.get(id).map(|tunnel| &tunnel.state) {
            Some(State::Resolving { direct, .. }) => direct.as_deref(),
            Some(
                State::Verifying { .. }
                | State::Deciding(_)
                | State::Connecting(_)
                | State::Racing(_)
                | State::Open,
            )
            | None => None,
        }
    }

    /// What the socket of a tunnel that is about to connect has.
    pub(super) fn socket_options(&self, id: TunnelId) -> SocketOptions {
        self.own_way(id)
            .map(|direct| direct.socket)
            .unwrap_or_default()
    }

    /// Opens a tunnel from a user of this process to a target, without a relay.
    pub fn open_local_direct(
        &mut self,
        now: Instant,
        target: Target,
        kind: TunnelKind,
        direct: Direct,
        out: &mut impl Outside,
    ) -> TunnelId {
        let deciding = Deciding {
            destination: target.clone().into(),
            via: None,
        };
        let id = self.insert_local(now, State::Deciding(Box::new(deciding)), kind);
        self.set_open_timeout(now, id, direct.timeout);
        self.go_direct(now, id, target.into(), direct, out);
        id
    }

    /// Opens a tunnel from a user of this process to its handler, at once.
    pub fn open_local_handler(
        &mut self,
        now: Instant,
        target: Target,
        kind: TunnelKind,
        out: &mut impl Outside,
    ) -> TunnelId {
        let state = State::Deciding(Box::new(Deciding {
            destination: target.into(),
            via: None,
        }));
        let id = self.insert_local(now, state, kind);
        self.accept_request(now, id, out);
        id
    }

    fn insert_local(&mut self, now: Instant, state: State, kind: TunnelKind) -> TunnelId {
        let flow = match kind {
            TunnelKind::Udp | TunnelKind::Ip => Flow::Udp(UdpFlow::default()),
            TunnelKind::Tcp(_) => Flow::Tcp(Box::new(Splice::new(Framing::Raw))),
        };
        let id = self.insert(now, Leg::Local, state, flow);
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.local = true;
        }
        id
    }
}

fn of_family(direct: &Direct, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
    let addresses = addresses.iter().copied();
    let of_family: Vec<_> = addresses.filter(|it| direct.family.has(*it)).collect();
    match of_family.is_empty() {
        true => Err(Refusal::Unroutable),
        false => Ok(of_family),
    }
}
