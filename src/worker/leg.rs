//! One tunnel of a machine: its legs and how far it is.
//!
//! A tunnel has two legs. Downstream: the request stream of a client, or a local user. Upstream: a connected
//! socket to the target, or a request stream at the next hop. Nesting makes a leg of its own: the tunnel to the
//! next relay ends in a QUIC connection of ours instead of in a local user.

use std::time::Instant;

use quinn_proto::StreamId;

use super::batch::BatchSlot;
use crate::client::{HopId, Request, Ticket};
use crate::net::SocketId;
use crate::transport::quic::ConnectionId;
use crate::tunnel::{Early, Inbound};
use crate::wire::target::{Host, Target};

/// One end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// Not there yet.
    None,
    /// A request stream.
    Stream {
        connection: ConnectionId,
        stream: StreamId,
    },
    /// A connected socket.
    Socket(SocketId),
    /// A QUIC connection of ours that lives inside the tunnel.
    Nested(ConnectionId),
    /// Whoever polls [`Machine::poll_local`].
    Local,
}

/// How far a tunnel is.
///
/// ```text
///   Resolving ─► (socket) ───────────────┐
///   Pooled ─► Requested ─► (2xx) ────────┴─► Open
/// ```
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The target's name is being resolved.
    Resolving { target: Target },
    /// The pool looks for a stream.
    Pooled { request: Box<Request> },
    /// The request went to the next hop.
    Requested { request: Box<Request> },
    /// Datagrams flow.
    Open,
}

pub(super) struct Tunnel {
    pub(super) downstream: Leg,
    pub(super) upstream: Leg,
    pub(super) state: State,
    /// Where the upstream leg comes from, if it comes from the pool.
    pub(super) ticket: Option<Ticket>,
    /// The hop that is dialled through this tunnel.
    pub(super) nests: Option<HopId>,
    pub(super) early: Early,
    pub(super) from_downstream: Inbound,
    pub(super) from_upstream: Inbound,
    pub(super) batch: BatchSlot,
    pub(super) last_active: Instant,
    /// When to look at it again.
    pub(super) due: Instant,
    pub(super) retried: bool,
}

impl Tunnel {
    /// Whether a name server was asked for this tunnel, and nothing has come of it yet.
    pub(super) fn is_resolving(&self) -> bool {
        match &self.state {
            State::Resolving { target } => matches!(target.host, Host::Name(_)),
            State::Pooled { .. } | State::Requested { .. } | State::Open => false,
        }
    }
}
