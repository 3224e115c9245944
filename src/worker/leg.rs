//! One tunnel of a machine: its legs and how far it is.
//!
//! A tunnel has two legs. Downstream: the request stream of a client, a local user, or a local socket. Upstream: a
//! socket connected to the target, or a request stream at the next hop. Nesting makes a leg of its own: the tunnel to
//! the next relay ends in a connection of ours instead of in a local user.

use std::time::Instant;

use super::batch::BatchSlot;
use super::pipe::Splice;
use super::race::Race;
use crate::client::DialId;
use crate::error::Refusal;
use crate::http::request::RequestHead;
use crate::net::{SocketId, TcpId};
use crate::policy::auth::CheckKey;
use crate::transport::carriers::{ConnectionId, RequestStream};
use crate::tunnel::eyeballs::Eyeballs;
use crate::tunnel::{Early, Inbound};
use crate::wire::target::{Host, Target};

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
    /// Whoever polls [`Machine::poll_local`](super::Machine::poll_local).
    Local,
}

/// How far a tunnel is.
///
/// ```text
///   Verifying ─► Resolving ─► Connecting (TCP) ─► (socket) ─┐
///            └─► Racing ─► (2xx of the first carrier) ──────┴─► Open
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// A password is being checked.
    Verifying {
        key: CheckKey,
        head: Box<RequestHead>,
    },
    /// The target's name is being resolved.
    Resolving { target: Target },
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
    /// What is told if none of them comes to be.
    pub(super) refusal: Refusal,
}

/// What a tunnel carries.
#[derive(Debug)]
pub(super) enum Flow {
    Udp(UdpFlow),
    Tcp(Box<Splice>),
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
            State::Resolving { target } => matches!(target.host, Host::Name(_)),
            State::Verifying { .. } | State::Connecting(_) | State::Racing(_) | State::Open => {
                false
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }
}
