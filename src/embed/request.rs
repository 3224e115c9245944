//! What a client asked for, as handlers and fallbacks see it.

use std::fmt;
use std::net::SocketAddr;

use ::http::{HeaderMap, Method};
use rustls::pki_types::CertificateDer;

use super::Protocol;
use crate::http::request::RequestHead;
use crate::server;
use crate::wire::carrier::Carrier;
use crate::wire::ip::{Destination, Scope};
use crate::wire::target::Target;
use crate::worker::{Incoming, PlainRequest};

impl Protocol {
    /// What a tunnel of the relay's own kinds carries.
    pub(super) const fn of(protocol: server::Protocol) -> Self {
        match protocol {
            server::Protocol::Udp => Self::Udp,
            server::Protocol::Tcp(_) => Self::Tcp,
            server::Protocol::Ip => Self::Ip,
        }
    }
}

/// A request, the same on every carrier: an upgrade of HTTP/1.1 looks like the extended CONNECT that it stands for
/// (method CONNECT, [`token`](Self::token), scheme `https`).
///
/// What is in it was sent by a stranger, and is well-formed but nothing else. Only [`client`](Self::client) and
/// [`certificate`](Self::certificate) are known to be true.
#[derive(Clone)]
pub struct Request {
    pub(super) head: RequestHead,
    pub(super) protocol: Option<Protocol>,
    pub(super) destination: Option<Destination>,
    pub(super) carrier: Carrier,
    pub(super) client: Option<SocketAddr>,
    pub(super) certificate: Option<CertificateDer<'static>>,
}

impl fmt::Debug for Request {
    /// What kind of request it is, and nothing by which somebody could tell who asked for what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.head.method)
            .field("token", &self.head.protocol)
            .field("protocol", &self.protocol)
            .field("carrier", &self.carrier)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// A request for a tunnel.
    pub(super) fn of_tunnel(incoming: Incoming) -> Self {
        Self {
            protocol: Some(Protocol::of(incoming.protocol)),
            destination: Some(incoming.destination),
            carrier: incoming.carrier,
            client: incoming.client,
            certificate: incoming.certificate,
            head: incoming.head,
        }
    }

    /// A request that is no tunnel.
    pub(super) fn of_nothing(plain: PlainRequest) -> Self {
        Self {
            head: plain.head,
            protocol: None,
            destination: None,
            carrier: plain.carrier,
            client: plain.client,
            certificate: plain.certificate,
        }
    }

    /// The method: CONNECT for every tunnel.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// What the tunnel carries; `None` for a request that is no tunnel, which only a fallback gets to see.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The upgrade token (RFC 8441 §4): `connect-udp`, `connect-tcp` or a draft's variant of it. `None` on a classic
    /// CONNECT (RFC 9110 §9.3.6).
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.head.protocol.as_deref()
    }

    /// Where a UDP or TCP tunnel shall lead; `None` for an IP tunnel, which has a [`scope`](Self::scope), and for a
    /// request that is no tunnel, which only a fallback gets to see.
    ///
    /// A name is not resolved yet.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.destination.as_ref().and_then(Destination::target)
    }

    /// What part of the network an IP tunnel shall reach (RFC 9484 §4.6); `None` for all else.
    ///
    /// A name is not resolved yet.
    #[must_use]
    pub fn scope(&self) -> Option<&Scope> {
        self.destination.as_ref().and_then(Destination::scope)
    }

    /// The path with its query; `None` on a classic CONNECT.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.head.path.as_deref()
    }

    /// The authority: whom the client took us for, or the target on a classic CONNECT.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.head.authority.as_deref()
    }

    /// The scheme; `None` on a classic CONNECT.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.head.scheme.as_deref()
    }

    /// All other fields.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The HTTP version that it came over.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Address and port of the client's end of the connection, if the client is still there. On HTTP/3 it may move to
    /// another later.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// The certificate that the client has shown, verified as
    /// [`ClientAuth`](super::ClientAuth) asks; `None` if it was not asked for, or had none.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }
}
