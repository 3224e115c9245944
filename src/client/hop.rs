//! One relay as its client sees it: where it is, how it is trusted, what every request to it carries.

use ::http::{HeaderMap, HeaderValue, header};
use quinn_proto::crypto;
use std::sync::Arc;

use crate::http::request::RequestHead;
use crate::wire::field::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE};
use crate::wire::target::{Host, Target};
use crate::wire::template::Template;

/// A relay to reach by HTTP/3.
#[derive(Clone)]
pub struct Hop {
    /// Where requests go and how targets are written into their path.
    pub template: Template,
    /// TLS as it is used towards this relay.
    pub crypto: Arc<dyn crypto::ClientConfig>,
    /// Stands for every option of `crypto`: two hops with different trust never share a connection.
    pub crypto_hash: u64,
    /// Fields added to every request, credentials for example.
    pub headers: HeaderMap,
}

/// What makes two hops the same connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HopKey {
    host: Host,
    port: u16,
    carrier: &'static str,
    crypto_hash: u64,
}

impl Hop {
    /// The key that pools connections to this relay.
    pub fn key(&self) -> HopKey {
        HopKey {
            host: self.template.host().clone(),
            port: self.template.port(),
            carrier: "h3",
            crypto_hash: self.crypto_hash,
        }
    }

    /// The relay itself as a target, for the hop before it.
    pub fn target(&self) -> Target {
        Target {
            host: self.template.host().clone(),
            port: self.template.port(),
        }
    }

    /// The name or address that the relay's certificate must carry, and that is dialled.
    pub fn server_name(&self) -> Box<str> {
        match self.template.host() {
            Host::Name(name) => name.clone(),
            Host::Ip(address) => address.to_string().into(),
        }
    }

    /// The head of a CONNECT-UDP request for `target` (RFC 9298 §3.4).
    pub fn request(&self, target: &Target, via: Option<&HeaderValue>) -> RequestHead {
        let path = self.template.expand_path(target);
        let authority = self.template.authority();
        let mut head = RequestHead::extended_connect("connect-udp", "https", authority, path);
        head.headers = self.headers.clone();
        head.headers.insert(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE);
        if let Some(via) = via {
            head.headers.insert(header::VIA, via.clone());
        }
        head
    }
}
