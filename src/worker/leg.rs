//! One tunnel of a machine: its legs and how far it is.
//!
//! A tunnel has two legs. Downstream: the request stream of a client, a local user, or a local socket. Upstream: a
//! socket connected to the target, or a request stream at the next hop. Nesting makes a leg of its own: the tunnel to
//! the next relay ends in a connection of ours instead of in a local user.

use std::time::Instant;

use ::http::{HeaderMap, HeaderValue};

use super::batch::BatchSlot;
use super::decide::Direct;
use super::ip::IpFlow;
use super::machine::End;
use super::pipe::Splice;
use super::race::Race;
use crate::client::DialId;
use crate::error::Refusal;
use crate::http::request::RequestHead;
use crate::net::{SocketId, SocketOptions, TcpId};
use crate::policy::auth::CheckKey;
use crate::transport::carriers::{ConnectionId, RequestStream};
use crate::tunnel::eyeballs::Eyeballs;
use crate::tunnel::{Early, Inbound};
use crate::wire::ip::{Destination, ScopeTarget};
use crate::wire::target::Host;

/// One end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// Not there yet.
    None,
    /// A request stream.
    Stream(RequestStream),
    /// A connected UDP socket.
    Socket(SocketId),
    /// A TCP socket.
    Tcp(TcpId),
    /// A connection of ours that lives inside the tunnel.
    Nested(ConnectionId),
    /// The relay's own exit for IP packets.
    Gateway,
    /// A user in this process: downstream whoever polls [`Machine::poll_local`](super::Machine::poll_local), upstream
    /// the handler that polls [`Machine::poll_handler`](super::Machine::poll_handler).
    Local,
}

/// How far a tunnel is.
///
/// ```text
///   Verifying ─┬─► Deciding ─► (the handler of this process takes it) ─┐
///              ├─► Resolving ─► Connecting (TCP) ─► (socket) ──────────┤
///              └─► Racing ─► (2xx of the first carrier) ───────────────┴─► Open
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// A password is being checked.
    Verifying {
        key: CheckKey,
        head: Box<RequestHead>,
    },
    /// The handler of this process was asked, which may send it on to one of the next two.
    Deciding(Box<Deciding>),
    /// The target's name is being resolved.
    Resolving {
        destination: Destination,
        direct: Option<Box<Direct>>,
    },
    /// Addresses of the target are tried.
    Connecting(Box<Connecting>),
    /// Requests are under way to the next hop, one per carrier.
    Racing(Box<Race>),
    /// Data flows.
    Open,
}

/// TCP connections that are tried for one tunnel.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) eyeballs: Eyeballs<TcpId>,
    /// What each of them has.
    pub(super) socket: SocketOptions,
    /// What is told if none of them comes to be.
    pub(super) refusal: Refusal,
}

/// A request that waits for a handler's decision.
#[derive(Debug)]
pub(super) struct Deciding {
    pub(super) destination: Destination,
    /// The Via field for a next hop, with us in it.
    pub(super) via: Option<HeaderValue>,
}

/// What a tunnel carries.
#[derive(Debug)]
pub(super) enum Flow {
    Udp(UdpFlow),
    Tcp(Box<Splice>),
    Ip(Box<IpFlow>),
}

/// Datagrams.
#[derive(Debug, Default)]
pub(super) struct UdpFlow {
    /// What came before the tunnel was open.
    pub(super) early: Early,
    pub(super) from_downstream: Inbound,
    pub(super) from_upstream: Inbound,
    pub(super) batch: BatchSlot,
}

pub(super) struct Tunnel {
    pub(super) downstream: Leg,
    pub(super) upstream: Leg,
    pub(super) state: State,
    pub(super) flow: Flow,
    /// Whether a local user opened it.
    pub(super) local: bool,
    /// Fields that a handler adds to the 2xx.
    pub(super) answer: Option<Box<HeaderMap>>,
    /// Whether the user downstream, and the one upstream, has a capsule for which there was no room.
    pub(super) capsule_waits: [bool; 2],
    /// Whose connection is to live in this tunnel.
    pub(super) nests: Option<DialId>,
    pub(super) last_active: Instant,
    /// When opening has taken too long.
    pub(super) open_until: Instant,
    /// When to look at it again.
    pub(super) due: Instant,
}

impl Tunnel {
    /// Whether a name server was asked for this tunnel, and nothing has come of it yet.
    pub(super) fn is_resolving(&self) -> bool {
        match &self.state {
            // A handler that brings addresses along is not resolved here.
            State::Resolving {
                destination,
                direct,
            } => {
                name_of(destination).is_some()
                    && direct.as_ref().is_none_or(|it| it.addresses.is_none())
            }
            State::Verifying { .. }
            | State::Deciding(_)
            | State::Connecting(_)
            | State::Racing(_)
            | State::Open => false,
        }
    }

    /// Whether a handler of this process has to hear of its end.
    pub(super) fn has_handler(&self) -> bool {
        self.upstream == Leg::Local || matches!(self.state, State::Deciding(_))
    }

    /// Whether the user of an end waits for room for a capsule.
    pub(super) fn capsule_waits(&mut self, end: End) -> &mut bool {
        let [downstream, upstream] = &mut self.capsule_waits;
        match end {
            End::Downstream => downstream,
            End::Upstream => upstream,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }
}

/// The name that has to be resolved, if there is one.
pub(super) fn name_of(destination: &Destination) -> Option<&str> {
    let name = match destination {
        Destination::Target(target) => match &target.host {
            Host::Name(name) => name,
            Host::Ip(_) => return None,
        },
        Destination::Scope(scope) => match &scope.target {
            ScopeTarget::Name(name) => name,
            ScopeTarget::Any | ScopeTarget::Prefix(_) => return None,
        },
    };
    Some(name)
}
