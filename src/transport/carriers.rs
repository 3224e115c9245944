//! Both kinds of carriers behind one face: what a tunnel does with its request stream, whatever HTTP version it is on.
//!
//! ```text
//!   worker ─► Carriers ─┬─ RequestStream::Quic ─► quic::Hub     h3
//!                       └─ RequestStream::Tcp ──► tcp::TcpHub   h2, h1
//! ```
//!
//! Nothing is decided here. Errors of streams have the codes of HTTP/3 on either side; `tcp` translates
//! (RFC 9114 appendix A.4).

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::StreamId;
use rustls::pki_types::CertificateDer;

use super::quic::{self, Hub, SendOutcome};
use super::tcp::{self, TcpHub};
use crate::http::h3::code::Code;
use crate::http::h3::{GoAway, RecvData, RequestError, SendData};
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::Network;
use crate::wire::carrier::Carrier;
use crate::wire::datagram::ContextId;

/// Names a connection of a worker; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionId {
    /// One that carries HTTP/3.
    Quic(quic::ConnectionId),
    /// One that carries HTTP/2 or HTTP/1.1.
    Tcp(tcp::ConnectionId),
}

/// Names a request stream; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestStream {
    /// On HTTP/3.
    Quic(quic::ConnectionId, StreamId),
    /// On HTTP/2 or HTTP/1.1.
    Tcp(tcp::ConnectionId, tcp::StreamId),
}

impl RequestStream {
    /// The connection that the stream is on.
    pub const fn connection(self) -> ConnectionId {
        match self {
            Self::Quic(connection, _) => ConnectionId::Quic(connection),
            Self::Tcp(connection, _) => ConnectionId::Tcp(connection),
        }
    }
}

/// All connections of a worker.
pub struct Carriers {
    /// Those that carry HTTP/3.
    pub quic: Hub,
    /// Those that carry HTTP/2 and HTTP/1.1.
    pub tcp: TcpHub,
}

impl Carriers {
    /// The HTTP version of a connection; `None` if it is gone.
    pub fn carrier(&self, connection: ConnectionId) -> Option<Carrier> {
        match connection {
            ConnectionId::Quic(_) => Some(Carrier::H3),
            ConnectionId::Tcp(id) => self.tcp.carrier(id),
        }
    }

    /// The other end of a connection, as its packets say; `None` if it is gone or goes through a tunnel.
    pub fn peer_address(&self, connection: ConnectionId) -> Option<SocketAddr> {
        let address = match connection {
            ConnectionId::Quic(id) => self.quic.peer_address(id),
            ConnectionId::Tcp(id) => self.tcp.peer_address(id),
        }?;
        // A socket of both families names IPv4 addresses in their IPv6 form.
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// The peer's own certificate, once the handshake is complete. Clients show one only to listeners that ask, see
    /// [`ClientAuth`](super::tls::ClientAuth).
    pub fn peer_certificate(&self, connection: ConnectionId) -> Option<CertificateDer<'static>> {
        match connection {
            ConnectionId::Quic(id) => self.quic.peer_certificate(id),
            ConnectionId::Tcp(id) => self.tcp.peer_certificate(id),
        }
    }

    /// Asks a peer for a sign of life; whether one will come of it if the path is alive. TCP looks after its path
    /// by itself.
    pub fn ping(&mut self, connection: ConnectionId) -> bool {
        match connection {
            ConnectionId::Quic(id) => {
                self.quic.ping(id);
                true
            }
            ConnectionId::Tcp(_) => false,
        }
    }

    /// Whether the peer of a connection was heard after `since`.
    pub fn heard_since(&self, connection: ConnectionId, since: Instant) -> bool {
        let heard = match connection {
            ConnectionId::Quic(id) => self.quic.last_heard(id),
            ConnectionId::Tcp(id) => self.tcp.last_heard(id),
        };
        heard.is_some_and(|heard| heard > since)
    }

    /// Opens a request stream.
    ///
    /// # Errors
    /// See [`RequestError`]; a connection that is gone counts as going away.
    pub fn request(
        &mut self,
        connection: ConnectionId,
        head: &RequestHead,
    ) -> Result<RequestStream, RequestError> {
        Ok(match connection {
            ConnectionId::Quic(id) => RequestStream::Quic(id, self.quic.request(id, head)?),
            ConnectionId::Tcp(id) => RequestStream::Tcp(id, self.tcp.request(id, head)?),
        })
    }

    /// Answers a request; with `fin` the answer is all there will be. Returns whether the answer went out.
    pub fn respond(&mut self, stream: RequestStream, head: &ResponseHead, fin: bool) -> bool {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.respond(id, stream, head, fin),
            RequestStream::Tcp(id, stream) => self.tcp.respond(id, stream, head, fin),
        }
    }

    /// Answers a request that asked for no tunnel. `content_bytes` bytes of content follow with
    /// [`Carriers::send_data`], then [`Carriers::finish`]; without any the answer is complete. Content-Length in `head`
    /// must be right. Returns whether the answer went out.
    pub fn respond_content(
        &mut self,
        stream: RequestStream,
        head: &ResponseHead,
        content_bytes: usize,
    ) -> bool {
        match stream {
            RequestStream::Quic(id, stream) => {
                self.quic.respond(id, stream, head, content_bytes == 0)
            }
            RequestStream::Tcp(id, stream) => {
                self.tcp.respond_content(id, stream, head, content_bytes)
            }
        }
    }

    /// Reads at most `bytes_max` bytes of a data stream; what was read gives credit to the peer.
    pub fn recv_data(&mut self, now: Instant, stream: RequestStream, bytes_max: usize) -> RecvData {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.recv_data(now, id, stream, bytes_max),
            RequestStream::Tcp(id, stream) => self.tcp.recv_data(now, id, stream, bytes_max),
        }
    }

    /// How many bytes [`Carriers::send_data`] takes now; at 0 the stream says when it is writable again.
    pub fn send_room(&mut self, stream: RequestStream) -> usize {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.send_room(id, stream),
            RequestStream::Tcp(id, stream) => self.tcp.send_room(id, stream),
        }
    }

    /// Sends bytes on a data stream, all or nothing.
    pub fn send_data(&mut self, stream: RequestStream, data: Bytes) -> SendData {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.send_data(id, stream, &data),
            RequestStream::Tcp(id, stream) => self.tcp.send_data(id, stream, data),
        }
    }

    /// Sends one UDP payload, or queues it.
    pub fn send_datagram(&mut self, stream: RequestStream, payload: &[u8]) -> SendOutcome {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.send_datagram(id, stream, payload),
            RequestStream::Tcp(id, stream) => self.tcp.send_datagram(id, stream, payload),
        }
    }

    /// Sends the payload of an HTTP Datagram with a Context ID other than 0, or drops it.
    pub fn send_context(
        &mut self,
        stream: RequestStream,
        context: ContextId,
        payload: &[u8],
    ) -> SendOutcome {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.send_context(id, stream, context, payload),
            RequestStream::Tcp(id, stream) => self.tcp.send_context(id, stream, context, payload),
        }
    }

    /// Whether datagrams of the stream wait for room.
    pub fn is_waiting(&self, stream: RequestStream) -> bool {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.is_waiting(id, stream),
            RequestStream::Tcp(id, stream) => self.tcp.is_waiting(id, stream),
        }
    }

    /// Largest UDP payload that the stream carries now, if that is known.
    pub fn payload_size_max(&mut self, stream: RequestStream) -> Option<usize> {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.payload_size_max(id, stream),
            // A stream carries any; what fits is the next path's to find out.
            RequestStream::Tcp(..) => None,
        }
    }

    /// Ends our direction in an orderly way, and drops what still waited for it.
    pub fn finish(&mut self, stream: RequestStream) {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.finish(id, stream),
            RequestStream::Tcp(id, stream) => self.tcp.finish(id, stream),
        }
    }

    /// Ends both directions with an error code.
    pub fn reset(&mut self, stream: RequestStream, code: Code) {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.reset(id, stream, code),
            RequestStream::Tcp(id, stream) => self.tcp.reset(id, stream, code),
        }
    }

    /// Asks the peer to stop sending.
    pub fn stop(&mut self, stream: RequestStream, code: Code) {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.stop(id, stream, code),
            RequestStream::Tcp(id, stream) => self.tcp.stop(id, stream, code),
        }
    }

    /// Reads nothing more of a stream whose other direction has ended, whatever is still on its way there.
    pub fn leave(&mut self, stream: RequestStream) {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.stop(id, stream, Code::H3_NO_ERROR),
            RequestStream::Tcp(id, stream) => self.tcp.leave(id, stream),
        }
    }

    /// Names the owner of a stream; its events and the end of its connection are reported with it.
    pub fn bind(&mut self, stream: RequestStream, owner: u64) {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.bind(id, stream, owner),
            RequestStream::Tcp(id, stream) => self.tcp.bind(id, stream, owner),
        }
    }

    /// Forgets the owner of a stream.
    pub fn unbind(&mut self, stream: RequestStream) {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.unbind(id, stream),
            RequestStream::Tcp(id, stream) => self.tcp.unbind(id, stream),
        }
    }

    /// The owner of a stream.
    pub fn owner(&self, stream: RequestStream) -> Option<u64> {
        match stream {
            RequestStream::Quic(id, stream) => self.quic.owner(id, stream),
            RequestStream::Tcp(id, stream) => self.tcp.owner(id, stream),
        }
    }

    /// Closes a connection at once.
    pub fn close(&mut self, now: Instant, connection: ConnectionId, code: Code) {
        match connection {
            ConnectionId::Quic(id) => self.quic.close(now, id, code),
            ConnectionId::Tcp(id) => self.tcp.close(now, id, code),
        }
    }

    /// Closes every connection and sends what tells the peers.
    pub fn close_all(&mut self, now: Instant, net: &mut impl Network) {
        self.quic.close_all(now, net);
        self.pass_detours();
        self.tcp.close_all(now, net);
    }

    /// Refuses new connections from here on.
    pub fn drain(&mut self) {
        self.quic.drain();
        self.tcp.drain();
    }

    /// Accepts new connections again.
    pub fn undrain(&mut self) {
        self.quic.undrain();
        self.tcp.undrain();
    }

    /// Tells every client that no more requests are accepted.
    pub fn goaway(&mut self, now: Instant, kind: GoAway) {
        let quic = self.quic.connections();
        let quic = quic.filter(|id| self.quic.is_downstream(*id));
        let tcp = self.tcp.connections();
        let tcp = tcp.filter(|id| self.tcp.is_downstream(*id));
        let quic = quic.map(ConnectionId::Quic);
        let downstream: Vec<_> = quic.chain(tcp.map(ConnectionId::Tcp)).collect();
        for id in downstream {
            self.goaway_on(now, id, kind);
        }
    }

    /// Tells one peer that no more requests are accepted.
    pub fn goaway_on(&mut self, now: Instant, connection: ConnectionId, kind: GoAway) {
        match connection {
            ConnectionId::Quic(id) => self.quic.goaway(now, id, kind),
            ConnectionId::Tcp(id) => self.tcp.goaway(now, id, kind),
        }
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Instant) {
        self.quic.expire(now);
        self.tcp.expire(now);
    }

    /// When [`Carriers::expire`] has work at the earliest. May be early, never late.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.quic
            .next_timeout()
            .into_iter()
            .chain(self.tcp.next_timeout())
            .min()
    }

    /// Whether a connection has something new.
    pub fn has_touched(&self) -> bool {
        self.quic.has_touched() || self.tcp.has_touched()
    }

    /// Sends everything that there is to send. A nested QUIC connection goes first, since its packets leave in a stream
    /// of another one.
    pub fn flush(&mut self, now: Instant, net: &mut impl Network) {
        self.quic.flush(now, net);
        self.pass_detours();
        self.tcp.flush(now, net);
    }

    /// Hands over the packets of QUIC connections that live inside tunnels on HTTP/2 and HTTP/1.1.
    fn pass_detours(&mut self) {
        for (id, stream, packet) in self.quic.detours.drain(..) {
            // QUIC finds out by itself what was lost.
            self.tcp.send_datagram(id, stream, &packet);
        }
    }
}
