//! One relay as its client sees it: where it is, how it is trusted, what every request to it carries.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use quinn_proto::crypto;

use super::credentials::Credentials;
use crate::config::HeadStarts;
use crate::http::request::{RequestHead, ResponseHead};
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::{CONNECT_IP, CONNECT_UDP, Revision};
use crate::wire::field::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE};
use crate::wire::ip::Destination;
use crate::wire::target::{Host, Target};
use crate::wire::template::Template;

/// A relay to reach.
#[derive(Clone)]
pub struct Hop {
    /// Where CONNECT-UDP requests go and how targets are written into their path.
    pub udp: Template,
    /// The same for templated CONNECT-TCP; without, TCP tunnels are asked for by classic CONNECT.
    pub tcp: Option<Template>,
    /// The same for CONNECT-IP; without, there are no IP tunnels.
    pub ip: Option<Template>,
    /// How TCP tunnels are asked for, unless their user says it.
    pub tcp_form: TcpForm,
    /// HTTP versions to try, in the order of preference.
    pub carriers: Vec<Carrier>,
    /// TLS as it is used towards this relay.
    pub tls: HopTls,
    /// Stands for every option of `tls`: two hops with different trust never share a connection.
    pub tls_hash: u64,
    /// Who we are, if the relay asks.
    pub credentials: Option<Credentials>,
    /// Fields added to every request.
    pub headers: HeaderMap,
    /// How tunnels share connections.
    pub pooling: Pooling,
    /// How long a handshake may take, HTTP's included; as long as any of the worker if `None`.
    pub handshake_timeout: Option<Duration>,
    /// How carriers race to this relay; as on any of the worker's routes if `None`.
    pub head_starts: Option<HeadStarts>,
    /// How long opening a tunnel at this relay may take, resolving and dialling included; as long as any of the worker
    /// if `None`.
    pub open_timeout: Option<Duration>,
    /// Whether an answer without `Capsule-Protocol: ?1` to a request with it is an error. RFC 9298 section 3.5 does not
    /// ask relays for it; and templated CONNECT-TCP goes on with the bytes as they are.
    pub strict_capsule_protocol: bool,
    /// The revision of connect-tcp that this relay is spoken to in.
    pub revision: &'static Revision,
}

/// How tunnels share the connections to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pooling {
    /// Every tunnel has a connection of its own, which ends with it, or a few seconds later where bytes of a TCP tunnel
    /// may still be on their way: nobody can tell from the connection which tunnels belong together. On HTTP/1.1 that
    /// is always so.
    pub separate: bool,
    /// A connection without tunnels is closed after this long.
    pub idle: Duration,
    /// Most tunnels at once on one connection, at least 1; as many as the peer allows if `None`. Further tunnels get
    /// further connections.
    pub streams_max: Option<u32>,
}

impl Pooling {
    /// Shared by all tunnels, closed after a minute without any.
    pub const SHARED: Self = Self {
        separate: false,
        idle: Duration::from_secs(60),
        streams_max: None,
    };
}

impl Default for Pooling {
    fn default() -> Self {
        Self::SHARED
    }
}

/// The TLS configurations of the carriers, which differ in ALPN.
#[derive(Clone)]
pub struct HopTls {
    /// For HTTP/3.
    pub quic: Arc<dyn crypto::ClientConfig>,
    /// For HTTP/2.
    pub h2: Arc<rustls::ClientConfig>,
    /// For HTTP/1.1.
    pub h1: Arc<rustls::ClientConfig>,
}

/// What makes two hops the same connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopKey {
    host: Host,
    port: u16,
    tls_hash: u64,
}

/// What a tunnel asks of a next hop.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the tunnel shall reach: a scope for IP, a target for all else.
    pub destination: Destination,
    /// What it carries.
    pub kind: TunnelKind,
    /// The Via field to send, when we relay somebody else's request (RFC 9110 §7.6.3).
    pub via: Option<HeaderValue>,
    /// Fields of this request alone, in place of those of the hop that have the same name.
    pub headers: HeaderMap,
    /// What the relay asked for when it refused the request without.
    pub asked: HeaderMap,
}

impl Request {
    /// A request of our own.
    pub fn new(destination: impl Into<Destination>, kind: TunnelKind) -> Self {
        Self {
            destination: destination.into(),
            kind,
            via: None,
            headers: HeaderMap::new(),
            asked: HeaderMap::new(),
        }
    }
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// UDP payloads (RFC 9298).
    Udp,
    /// The bytes of a TCP connection, asked for in this form; in that of the hop if `None`.
    Tcp(Option<TcpForm>),
    /// IP packets (RFC 9484).
    Ip,
}

/// How a TCP tunnel is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpForm {
    /// CONNECT with the target as authority (RFC 9110 §9.3.6).
    Classic,
    /// Templated, the bytes as they are.
    Raw,
    /// Templated, in DATA and FINAL_DATA capsules.
    #[default]
    Capsules,
}

impl TunnelKind {
    /// A TCP tunnel in the form that suits the relay.
    pub const TCP: Self = Self::Tcp(None);
}

impl Hop {
    /// The key that pools connections to this relay.
    pub fn key(&self) -> HopKey {
        HopKey {
            host: self.udp.host().clone(),
            port: self.udp.port(),
            tls_hash: self.tls_hash,
        }
    }

    /// Whether both relays are spoken to alike: tunnels may share their connections.
    pub fn asks_like(&self, other: &Self) -> bool {
        let form = |hop: &Self| {
            let templates = (hop.udp.clone(), hop.tcp.clone());
            (
                templates,
                hop.tcp_form,
                hop.revision,
                hop.strict_capsule_protocol,
            )
        };
        let times = |hop: &Self| (hop.handshake_timeout, hop.head_starts, hop.open_timeout);
        form(self) == form(other)
            && times(self) == times(other)
            && self.pooling == other.pooling
            && self.headers == other.headers
            && self.credentials == other.credentials
    }

    /// The relay itself as a target, for the hop before it.
    pub fn target(&self) -> Target {
        Target {
            host: self.udp.host().clone(),
            port: self.udp.port(),
        }
    }

    /// The name or address that the relay's certificate must carry, and that is dialled.
    pub fn server_name(&self) -> Box<str> {
        match self.udp.host() {
            Host::Name(name) => name.clone(),
            Host::Ip(address) => address.to_string().into(),
        }
    }

    /// The form in which a tunnel of this kind is asked for; `None` for UDP and IP.
    pub fn form(&self, kind: TunnelKind) -> Option<TcpForm> {
        match kind {
            TunnelKind::Udp | TunnelKind::Ip => None,
            TunnelKind::Tcp(_) if self.tcp.is_none() => Some(TcpForm::Classic),
            TunnelKind::Tcp(form) => Some(form.unwrap_or(self.tcp_form)),
        }
    }

    /// Whether the relay has a template that says what is wanted: without a variable for it, the request would ask for
    /// more than its user does.
    pub fn can_ask(&self, request: &Request) -> bool {
        match &request.destination {
            Destination::Target(_) => true,
            Destination::Scope(scope) => self.ip.as_ref().is_some_and(|ip| ip.expresses(scope)),
        }
    }

    /// The head of a request (RFC 9298 §3.4, RFC 9110 §9.3.6, draft-ietf-httpbis-connect-tcp §3.2).
    pub fn request(&self, request: &Request) -> RequestHead {
        let form = self.form(request.kind);
        let mut head = match (&request.destination, form, &self.tcp) {
            (Destination::Target(target), None, _) => {
                templated(&self.udp, CONNECT_UDP, self.udp.expand_path(target))
            }
            (Destination::Target(target), Some(TcpForm::Raw | TcpForm::Capsules), Some(tcp)) => {
                templated(tcp, self.revision.token, tcp.expand_path(target))
            }
            (Destination::Target(target), Some(_), _) => {
                RequestHead::classic_connect(target.to_string())
            }
            (Destination::Scope(scope), ..) => {
                // Who has no template for it is not asked, see `can_ask`.
                let ip = self.ip.as_ref().unwrap_or(&self.udp);
                templated(ip, CONNECT_IP, ip.expand_scope(scope))
            }
        };
        head.headers = self.headers.clone();
        head.headers.extend(request.headers.clone());
        if matches!(form, None | Some(TcpForm::Capsules)) {
            head.headers.insert(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE);
        }
        if let Some(credentials) = &self.credentials {
            credentials.add_to(&mut head);
        }
        head.headers.extend(request.asked.clone());
        if let Some(via) = &request.via {
            head.headers.insert(header::VIA, via.clone());
        }
        head
    }

    /// Whether a refused request is worth repeating with the credentials that the relay asks for, which it has then.
    pub fn can_answer(&self, request: &mut Request, response: &ResponseHead) -> bool {
        let Some(credentials) = &self.credentials else {
            return false;
        };
        let before = self.request(request);
        let mut after = before.clone();
        let answered = credentials.answer(&mut after, response);
        let added = |name: &&HeaderName| !before.headers.contains_key(*name);
        let names: Vec<_> = after.headers.keys().filter(added).cloned().collect();
        for name in names {
            if let Some(value) = after.headers.remove(&name) {
                request.asked.insert(name, value);
            }
        }
        answered
    }
}

fn templated(template: &Template, token: &str, path: String) -> RequestHead {
    RequestHead::extended_connect(token, "https", template.authority(), path)
}
