//! What can be said about a tunnel, and what it carries beside bytes.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Side};
use crate::wire::carrier::Carrier;
use crate::wire::ip::Scope;
use crate::wire::target::Target;

/// How long a tunnel that is being closed may take to send what is left; then it is reset.
pub(in crate::embed) const CLOSE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Which tunnel: unique within the process, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub(super) u64);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// UDP payloads (RFC 9298).
    Udp,
    /// The bytes of a TCP connection (RFC 9110 §9.3.6, draft-ietf-httpbis-connect-tcp).
    Tcp,
    /// IP packets (RFC 9484).
    Ip,
}

/// How far a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The relay has not answered yet.
    Opening,
    /// Data flows.
    Open,
    /// This side has closed the tunnel, and what is left is being sent.
    Closing,
    /// It is over.
    Closed,
}

/// A UDP payload with its context (RFC 9298 §5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// The context: 0 for UDP payloads as they are, others as an extension has agreed.
    pub context: u64,
    /// What it carries.
    pub payload: Bytes,
}

impl Datagram {
    /// A payload in a context.
    pub fn new(context: u64, payload: impl Into<Bytes>) -> Self {
        Self {
            context,
            payload: payload.into(),
        }
    }
}

impl From<Bytes> for Datagram {
    fn from(payload: Bytes) -> Self {
        Self::new(0, payload)
    }
}

/// A capsule of the tunnel's own stream (RFC 9297 §3.2) that bauta itself has no use for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capsule {
    /// The Capsule Type.
    pub kind: u64,
    /// The Capsule Value.
    pub value: Bytes,
}

impl Capsule {
    /// A capsule.
    pub fn new(kind: u64, value: impl Into<Bytes>) -> Self {
        Self {
            kind,
            value: value.into(),
        }
    }
}

/// Why a tunnel is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it, or dropped its handle.
    Local,
    /// It has come to its end in order: both directions of a TCP tunnel have ended, or the relay ended a UDP tunnel.
    Finished,
    /// It never opened.
    Refused(Error),
    /// It broke: a reset, a lost connection, a worker that ended.
    Aborted(Error),
}

impl CloseReason {
    /// The error behind it, if the tunnel was refused or broke.
    #[must_use]
    pub const fn error(&self) -> Option<&Error> {
        match self {
            Self::Local | Self::Finished => None,
            Self::Refused(error) | Self::Aborted(error) => Some(error),
        }
    }

    /// What an operation says that finds the tunnel closed.
    pub(super) fn to_error(&self) -> Error {
        match self {
            Self::Local => Error::new(ErrorKind::Closed, Side::Local),
            Self::Finished => Error::new(ErrorKind::Closed, Side::Upstream),
            Self::Refused(error) | Self::Aborted(error) => error.clone(),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "closed by this side",
            Self::Finished => "finished",
            Self::Refused(_) => "refused",
            Self::Aborted(_) => "aborted",
        })
    }
}

/// Why the writing direction of a tunnel could not be ended.
///
/// TCP has half-closes on every carrier and in every form. Datagrams have none, so that the question does not come up:
///
/// ```compile_fail
/// fn half_close(tunnel: &bauta::UdpTunnel) {
///     tunnel.shutdown_write();
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The tunnel is not open yet: wait for [`opened`](crate::TcpTunnel::opened) or
    /// [`Event::Opened`](crate::Event::Opened). What was written waits by itself.
    #[error("the tunnel is not open yet")]
    NotReady,
    /// The direction has ended before.
    #[error("the direction has ended before")]
    AlreadyShut,
    /// The tunnel as a whole is closing, or closed.
    #[error("the tunnel is closing")]
    Closing,
}

/// A tunnel at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Which tunnel.
    pub id: TunnelId,
    /// How far it is.
    pub state: State,
    /// What it carries.
    pub protocol: Protocol,
    /// The HTTP version towards the last relay, once it is open.
    pub carrier: Option<Carrier>,
    /// The relays in the order of travel, each as `https://HOST[:PORT]`.
    pub relays: Vec<String>,
    /// Where a UDP or TCP tunnel leads; `None` for IP.
    pub target: Option<Target>,
    /// What part of the network an IP tunnel reaches; `None` for all else.
    pub scope: Option<Scope>,
    /// The far end of the connection that carries the tunnel, once it is open: the relay, or with several the address
    /// at which the relay before reaches the last one, if that is known.
    pub peer: Option<SocketAddr>,
    /// Datagrams handed to the worker.
    pub datagrams_sent: u64,
    /// Datagrams that arrived.
    pub datagrams_received: u64,
    /// Payload bytes handed to the worker.
    pub bytes_sent: u64,
    /// Payload bytes that arrived.
    pub bytes_received: u64,
    /// Datagrams that were displaced in the send queue, or were too large for a path that had become smaller meanwhile
    /// (IP).
    pub send_dropped: u64,
    /// Datagrams that were displaced in the receive queue, or were no packets but something of a context that nobody
    /// has agreed on (IP).
    pub receive_dropped: u64,
    /// Capsules that arrived and found the queue for them full.
    pub capsules_dropped: u64,
    /// The largest UDP payload that the tunnel takes now, in bytes: what fits the path on HTTP/3, 65,527 on the
    /// others; for IP the largest packet, as [`IpInfo::mtu`](crate::IpInfo::mtu). `None` while it is not open, and for
    /// TCP.
    pub datagram_size_max: Option<usize>,
}
