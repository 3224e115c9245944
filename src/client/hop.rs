//! One relay as its client sees it: where it is, how it is trusted, what every request to it carries.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, header};
use quinn_proto::crypto;

use super::credentials::Credentials;
use crate::http::request::RequestHead;
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::Revision;
use crate::wire::field::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE};
use crate::wire::target::{Host, Target};
use crate::wire::template::Template;

/// A relay to reach.
#[derive(Clone)]
pub struct Hop {
    /// Where CONNECT-UDP requests go and how targets are written into their path.
    pub udp: Template,
    /// The same for templated CONNECT-TCP.
    pub tcp: Template,
    /// How TCP tunnels are asked for, unless their user says it.
    pub tcp_form: TcpForm,
    /// HTTP versions to try, in the order of preference.
    pub carriers: Vec<Carrier>,
    /// TLS as it is used towards this relay.
    pub tls: HopTls,
    /// Stands for every option of `tls`: two hops with different trust never share a connection.
    pub tls_hash: u64,
    /// Fields added to every request.
    pub headers: HeaderMap,
    /// What is shown to a relay that wants to know who asks.
    pub credentials: Option<Credentials>,
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
    /// What the tunnel shall reach.
    pub target: Target,
    /// What it carries.
    pub kind: TunnelKind,
    /// The Via field to send, when we relay somebody else's request (RFC 9110 §7.6.3).
    pub via: Option<HeaderValue>,
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// UDP payloads (RFC 9298).
    Udp,
    /// The bytes of a TCP connection, asked for in this form; in that of the hop if `None`.
    Tcp(Option<TcpForm>),
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

    /// Whether requests to both relays look the same.
    pub fn asks_like(&self, other: &Self) -> bool {
        let form = |hop: &Self| (hop.udp.clone(), hop.tcp.clone(), hop.tcp_form);
        form(self) == form(other)
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

    /// The form in which a tunnel of this kind is asked for; `None` for UDP.
    pub fn form(&self, kind: TunnelKind) -> Option<TcpForm> {
        match kind {
            TunnelKind::Udp => None,
            TunnelKind::Tcp(form) => Some(form.unwrap_or(self.tcp_form)),
        }
    }

    /// The head of a request (RFC 9298 §3.4, RFC 9110 §9.3.6, draft-ietf-httpbis-connect-tcp §3.2).
    pub fn request(&self, request: &Request) -> RequestHead {
        let target = &request.target;
        let templated = |template: &Template, token| {
            let (authority, path) = (template.authority(), template.expand_path(target));
            RequestHead::extended_connect(token, "https", authority, path)
        };
        let form = self.form(request.kind);
        let mut head = match form {
            None => templated(&self.udp, "connect-udp"),
            Some(TcpForm::Raw | TcpForm::Capsules) => templated(&self.tcp, self.revision().token),
            Some(TcpForm::Classic) => RequestHead::classic_connect(target.to_string()),
        };
        head.headers = self.headers.clone();
        if matches!(form, None | Some(TcpForm::Capsules)) {
            head.headers.insert(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE);
        }
        if let Some(via) = &request.via {
            head.headers.insert(header::VIA, via.clone());
        }
        if let Some(credentials) = &self.credentials {
            credentials.add_to(&mut head);
        }
        head
    }

    /// The revision of connect-tcp that this relay is spoken to in.
    pub fn revision(&self) -> &'static Revision {
        Revision::newest()
    }
}
