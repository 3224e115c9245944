//! HTTP/2 and HTTP/1.1 of one worker: TLS over a byte link, and the streams above it.

/// Names one connection of a `TcpHub`; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

impl ConnectionId {
    /// The name as one integer that fits beside a two-bit tag: 31 bits of slot, 31 bits of generation.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 31 | u64::from(self.index)
    }

    /// The reverse of [`ConnectionId::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            index: (bits & 0x7fff_ffff) as u32,
            generation: (bits >> 31 & 0x7fff_ffff) as u32,
        }
    }
}

/// Names one request stream of a connection: the stream identifier of HTTP/2, or 0 on HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::quic::SendOutcome;
use crate::http::h3::code::Code;
use crate::http::h3::{GoAway, RecvData, RequestError, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::{Network, TcpId};
use crate::wire::carrier::Carrier;

/// Where the bytes of a connection go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteLink {
    /// A TCP socket.
    Socket(TcpId),
    /// A CONNECT-TCP tunnel.
    Tunnel,
}

/// What a nested connection wants of the tunnel that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// To be sent in the tunnel.
    Bytes(Bytes),
    /// Nothing now.
    Blocked,
    /// Nothing more: end the tunnel in an orderly way.
    Finished,
    /// Nothing more: the tunnel is to be reset.
    Aborted,
}
/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The peer's certificate is not acceptable.
    Certificate,
    /// The peer sent a fatal alert.
    Alert {
        /// The AlertDescription of RFC 8446 section 6.
        id: u8,
    },
    /// Anything else.
    Protocol,
}
/// Why a connection is over.
#[derive(Debug)]
pub enum CloseReason {
    /// The peer ended it in order: with GOAWAY and this code, or with a closure alert.
    Peer(Code),
    /// The link broke.
    Lost(std::io::ErrorKind),
    /// The link ended without a closure alert: what came last may be cut short (RFC 8446 section 6.1).
    Truncated,
    /// TLS failed, in most cases during the handshake.
    Tls(TlsFailure),
    /// We closed it, because the peer broke HTTP or a bound.
    Misbehaved(crate::http::h3::ConnectionError),
    /// The handshake took too long.
    HandshakeTimeout,
    /// The head of a request took too long.
    HeadTimeout,
    /// There was no stream for too long.
    IdleTimeout,
    /// The peer took nothing of what waits for it for too long.
    WriteTimeout,
    /// We closed it, see [`super::TcpHub::close`].
    Local,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Usable.
    Connected(Carrier),
    /// A request.
    Request {
        /// Stream.
        stream: StreamId,
        /// Head.
        head: Box<RequestHead>,
    },
    /// A response.
    Response {
        /// Stream.
        stream: StreamId,
        /// Head.
        head: Box<ResponseHead>,
    },
    /// Data.
    Readable {
        /// Stream.
        stream: StreamId,
    },
    /// Room.
    Writable {
        /// Stream.
        stream: StreamId,
    },
    /// Reset.
    Reset {
        /// Stream.
        stream: StreamId,
        /// Code.
        code: Code,
    },
    /// Bad.
    Malformed,
    /// More streams.
    StreamsAvailable,
    /// No more requests.
    GoAway,
    /// Over.
    Closed {
        /// Why.
        reason: CloseReason,
        /// Streams.
        bound: Vec<(StreamId, u64)>,
    },
}

/// Hub.
#[derive(Default)]
pub struct TcpHub {}
#[allow(missing_docs, unused, clippy::all, reason = "stub")]
impl TcpHub {
    pub fn accept(
        &mut self,
        now: Instant,
        socket: TcpId,
        peer: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        net: &mut impl Network,
    ) -> Option<ConnectionId> {
        None
    }
    pub fn connect(
        &mut self,
        now: Instant,
        link: ByteLink,
        tls: Arc<rustls::ClientConfig>,
        server_name: &str,
    ) -> Result<ConnectionId, std::io::Error> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    pub fn handle_ready(&mut self, id: ConnectionId) {}
    pub fn handle_failed(&mut self, id: ConnectionId, error: std::io::Error) {}
    pub fn expire(&mut self, now: Instant) {}
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn has_touched(&self) -> bool {
        false
    }
    pub fn next_touched(&mut self) -> Option<ConnectionId> {
        None
    }
    pub fn advance(&mut self, now: Instant, id: ConnectionId, net: &mut impl Network) {}
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Event)> {
        None
    }
    pub fn flush(&mut self, now: Instant, net: &mut impl Network) {}
    pub fn request(
        &mut self,
        id: ConnectionId,
        head: &RequestHead,
    ) -> Result<StreamId, RequestError> {
        Err(RequestError::GoingAway)
    }
    pub fn respond(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        head: &ResponseHead,
        fin: bool,
    ) -> bool {
        false
    }
    pub fn recv_data(
        &mut self,
        now: Instant,
        id: ConnectionId,
        stream: StreamId,
        bytes_max: usize,
    ) -> RecvData {
        RecvData::Gone
    }
    pub fn send_room(&mut self, id: ConnectionId, stream: StreamId) -> usize {
        0
    }
    pub fn send_data(&mut self, id: ConnectionId, stream: StreamId, data: Bytes) -> SendData {
        SendData::Gone
    }
    pub fn send_datagram(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        payload: &[u8],
    ) -> SendOutcome {
        SendOutcome::Gone
    }
    pub fn is_waiting(&self, id: ConnectionId, stream: StreamId) -> bool {
        false
    }
    pub fn finish(&mut self, id: ConnectionId, stream: StreamId) {}
    pub fn reset(&mut self, id: ConnectionId, stream: StreamId, code: Code) {}
    pub fn stop(&mut self, id: ConnectionId, stream: StreamId, code: Code) {}
    pub fn bind(&mut self, id: ConnectionId, stream: StreamId, owner: u64) {}
    pub fn unbind(&mut self, id: ConnectionId, stream: StreamId) {}
    pub fn owner(&self, id: ConnectionId, stream: StreamId) -> Option<u64> {
        None
    }
    pub fn goaway(&mut self, now: Instant, id: ConnectionId, kind: GoAway) {}
    pub fn close(&mut self, now: Instant, id: ConnectionId, code: Code) {}
    pub fn close_all(&mut self, now: Instant, net: &mut impl Network) {}
    pub fn drain(&mut self) {}
    pub fn last_heard(&self, id: ConnectionId) -> Option<Instant> {
        None
    }
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        std::iter::empty()
    }
    pub fn is_downstream(&self, id: ConnectionId) -> bool {
        false
    }
    pub fn is_open(&self, id: ConnectionId) -> bool {
        false
    }
    pub fn carrier(&self, id: ConnectionId) -> Option<Carrier> {
        None
    }
    pub fn handle_bytes(&mut self, id: ConnectionId, data: &Bytes) {}
    pub fn handle_end(&mut self, id: ConnectionId, orderly: bool) {}
    pub fn receive_room(&self, id: ConnectionId) -> usize {
        0
    }
    pub fn poll_output(&mut self, now: Instant, id: ConnectionId, bytes_max: usize) -> LinkOutput {
        LinkOutput::Blocked
    }
    pub fn next_output(&mut self) -> Option<ConnectionId> {
        None
    }
}
