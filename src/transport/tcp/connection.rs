//! One connection: a byte link below, TLS in the middle, HTTP above.
//!
//! ```text
//!   Up ──► Closing: what tells the peer goes out ──► Lingering: until the peer has ended too ──► Gone
//!    └────────────── aborted: RST, or no closure alert ───────────────────────────────────────────┘
//! ```

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use super::http::Http;
use super::tls::Session;
use super::{ByteLink, StreamId, TcpHubLimits};
use crate::error::CertificateFault;
use crate::http::h3::code::Code;
use crate::http::h3::{ConnectionError, Role};
use crate::http::request::{RequestHead, ResponseHead};
use crate::transport::outbox::Outbox;
use crate::wire::carrier::Carrier;

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The handshakes are complete. On an HTTP/2 connection of ours the server's SETTINGS have arrived.
    Connected(Carrier),
    /// Server: a complete and well-formed request. Data may follow at once, so read once now.
    Request {
        /// The stream, to be answered with `respond`.
        stream: StreamId,
        /// The head.
        head: Box<RequestHead>,
    },
    /// Client: the final response. Data may follow at once, so read once now.
    Response {
        /// The stream of the request.
        stream: StreamId,
        /// The head.
        head: Box<ResponseHead>,
    },
    /// Data, the end or both wait on this stream: `recv_data` until it says blocked.
    Readable {
        /// The stream.
        stream: StreamId,
    },
    /// A stream without room for sending has room again.
    Writable {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is over in both directions, ended by the peer or by the machine; forget it.
    Reset {
        /// The stream.
        stream: StreamId,
        /// H3_REQUEST_REJECTED says that nobody processed the request: a retry is safe.
        code: Code,
    },
    /// The peer has ended its direction, and takes nothing more on this stream. What it had said before is still there.
    Stopped {
        /// The stream.
        stream: StreamId,
    },
    /// A request was malformed and its stream reset; nobody else hears of it.
    Malformed,
    /// Client: a stream is available after [`RequestError::StreamsExhausted`](crate::http::h3::RequestError).
    StreamsAvailable,
    /// The peer shuts down: no more requests.
    GoAway,
    /// The connection is over. The last event of every connection, whoever ended it.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The owners of its request streams, see [`super::TcpHub::bind`], in the order of the streams.
        bound: Vec<(StreamId, u64)>,
    },
}

/// What went wrong in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The peer's certificate is not acceptable.
    Certificate(CertificateFault),
    /// The peer sent a fatal alert.
    Alert {
        /// The AlertDescription of RFC 8446 section 6.
        id: u8,
    },
    /// Anything else.
    Protocol,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq)]
pub enum CloseReason {
    /// The peer ended it in order: with GOAWAY and this code, or with a closure alert.
    Peer(Code),
    /// The link broke.
    Lost(io::ErrorKind),
    /// The link ended without a closure alert: what came last may be cut short (RFC 8446 section 6.1).
    Truncated,
    /// TLS failed, in most cases during the handshake.
    Tls(TlsFailure),
    /// We closed it, because the peer broke HTTP or a bound.
    Misbehaved(ConnectionError),
    /// The handshake took too long.
    HandshakeTimeout,
    /// The head of a request took too long.
    HeadTimeout,
    /// There was no stream for too long.
    IdleTimeout,
    /// The peer took nothing of what waits for it for too long.
    WriteTimeout,
    /// We reset the request of an HTTP/1.1 connection, which is the connection.
    Aborted(Code),
    /// We closed it, see [`super::TcpHub::close`], or because no request may follow on it.
    Local,
}

impl CloseReason {
    /// Whether nothing more can or shall be said to the peer.
    pub(super) const fn is_abrupt(&self) -> bool {
        match self {
            Self::Lost(_)
            | Self::Truncated
            | Self::Aborted(_)
            | Self::WriteTimeout
            | Self::HandshakeTimeout => true,
            Self::Peer(_)
            | Self::Tls(_)
            | Self::Misbehaved(_)
            | Self::HeadTimeout
            | Self::IdleTimeout
            | Self::Local => false,
        }
    }
}

/// How far the end of a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// [`Event::Closed`] is the last of its events that wait to be polled.
    Announced,
    /// [`Event::Closed`] was polled.
    Polled,
}

/// How far the link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In use.
    Up,
    /// HTTP is over; what is encrypted still goes out.
    Closing,
    /// Our direction has ended; the peer's has not.
    Lingering,
    /// To be torn down at once.
    Aborted,
    /// Nothing is left of it.
    Gone,
}

/// Whose share of the connections one counts against: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientNet(u128);

impl ClientNet {
    pub(super) fn of(peer: SocketAddr) -> Self {
        match peer.ip().to_canonical() {
            // In the shape of an address that IPv6 reserves (::ffff:0:0/96), so that the two never meet.
            IpAddr::V4(ip) => Self(u128::from(ip.to_ipv6_mapped())),
            IpAddr::V6(ip) => Self(u128::from(ip) >> 64 << 64),
        }
    }
}

pub(super) struct Connection {
    pub(super) link: ByteLink,
    pub(super) role: Role,
    /// The client, on connections that we accepted.
    pub(super) client: Option<ClientNet>,
    pub(super) generation: u32,
    pub(super) session: Rc<RefCell<Session>>,
    pub(super) http: Http,
    /// On connections that we opened: the only carrier that ALPN offered, if it was one.
    pub(super) only: Option<Carrier>,
    pub(super) carrier: Option<Carrier>,
    /// Encrypted bytes that came and found no room.
    pub(super) inbound: BytesMut,
    /// The link may have more to read.
    pub(super) readable: bool,
    /// How the link of a nested connection ended; whether in order.
    pub(super) link_end: Option<bool>,
    /// The socket could not be connected.
    pub(super) link_error: Option<io::ErrorKind>,
    /// When the peer was last heard.
    pub(super) heard: Option<Instant>,
    pub(super) end: End,
    pub(super) phase: Phase,
    /// Set until the handshake ended, one way or the other.
    pub(super) handshake_deadline: Option<Instant>,
    /// Since when there is no stream.
    pub(super) idle_since: Option<Instant>,
    /// Since when a head is not complete.
    pub(super) head_since: Option<Instant>,
    /// Since when the link takes nothing.
    pub(super) blocked_since: Option<Instant>,
    pub(super) linger_deadline: Option<Instant>,
    /// FIN was sent.
    pub(super) shut: bool,
    /// The deadline that the hub's timers hold for us.
    pub(super) timer: Option<Instant>,
    pub(super) touched: bool,
    pub(super) dirty: bool,
    /// Waits for its next turn, see [`super::TcpHub::advance`].
    pub(super) later: bool,
    pub(super) outbox: Outbox,
    /// Request streams to their owners.
    pub(super) bound: FxHashMap<u32, u64>,
}

impl Connection {
    pub(super) fn new(
        link: ByteLink,
        role: Role,
        session: Session,
        generation: u32,
        handshake_deadline: Instant,
    ) -> Self {
        Self {
            link,
            role,
            client: None,
            generation,
            session: Rc::new(RefCell::new(session)),
            http: Http::Handshaking,
            only: None,
            carrier: None,
            inbound: BytesMut::new(),
            readable: true,
            link_end: None,
            end: End::Open,
            phase: Phase::Up,
            handshake_deadline: Some(handshake_deadline),
            link_error: None,
            heard: None,
            idle_since: None,
            head_since: None,
            blocked_since: None,
            linger_deadline: None,
            shut: false,
            timer: None,
            touched: false,
            dirty: false,
            later: false,
            outbox: Outbox::default(),
            bound: FxHashMap::default(),
        }
    }

    /// The bound that is exceeded, if one is.
    pub(super) fn overdue(&self, now: Instant, limits: &TcpHubLimits) -> Option<CloseReason> {
        let since = |since: Option<Instant>, max| since.is_some_and(|since| since + max <= now);
        if self.handshake_deadline.is_some_and(|due| due <= now) {
            Some(CloseReason::HandshakeTimeout)
        } else if self.is_impatient() && since(self.blocked_since, limits.write_timeout) {
            Some(CloseReason::WriteTimeout)
        } else if since(self.head_since, limits.head_timeout) {
            Some(CloseReason::HeadTimeout)
        } else if since(self.idle_since, limits.idle_timeout) {
            Some(CloseReason::IdleTimeout)
        } else {
            None
        }
    }

    /// Whether a peer that takes nothing is sent away. On HTTP/1.1 a tunnel is the connection: its reader may pause for
    /// as long as the tunnel may be idle.
    fn is_impatient(&self) -> bool {
        self.carrier != Some(Carrier::H1) || self.http.open_streams() == 0
    }

    /// When [`Connection::overdue`], or the end of lingering, has something to say at the earliest.
    pub(super) fn due(&self, limits: &TcpHubLimits) -> Option<Instant> {
        if self.end != End::Open {
            return self.linger_deadline;
        }
        [
            self.handshake_deadline,
            self.blocked_since
                .filter(|_| self.is_impatient())
                .map(|since| since + limits.write_timeout),
            self.head_since.map(|since| since + limits.head_timeout),
            self.idle_since.map(|since| since + limits.idle_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Keeps since when a head is incomplete and since when there is no stream.
    pub(super) fn note_activity(&mut self, now: Instant) {
        let is_mid_head = self.http.is_mid_head(&self.session.borrow());
        let is_idle = self.handshake_deadline.is_none() && self.http.open_streams() == 0;
        keep_since(&mut self.head_since, is_mid_head, now);
        keep_since(&mut self.idle_since, is_idle, now);
    }

    /// The owners of all request streams, who are forgotten here.
    pub(super) fn take_bound(&mut self) -> Vec<(StreamId, u64)> {
        let mut bound: Vec<_> = self
            .bound
            .drain()
            .map(|(stream, owner)| (StreamId(stream), owner))
            .collect();
        bound.sort_unstable();
        bound
    }
}

fn keep_since(since: &mut Option<Instant>, holds: bool, now: Instant) {
    if !holds {
        *since = None;
    } else if since.is_none() {
        *since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_by_address_or_network() {
        let net = |text: &str| ClientNet::of(SocketAddr::new(text.parse().unwrap(), 1));
        assert_ne!(net("192.0.2.1"), net("192.0.2.2"));
        assert_eq!(net("192.0.2.1"), net("::ffff:192.0.2.1"));
        assert_eq!(net("2001:db8::1"), net("2001:db8::ffff:1"));
        assert_ne!(net("2001:db8::1"), net("2001:db8:0:1::1"));
        assert_ne!(net("0.0.0.0"), net("::"));
    }
}
