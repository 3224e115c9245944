//! The way through relays as people describe it, made into hops that a pool can dial.

use std::sync::Arc;

use ::http::{HeaderName, HeaderValue};
use quinn_proto::crypto;

use super::build::BuildError;
use crate::client::{Credentials, Hop, HopTls, TcpForm};
use crate::transport::tls::{ClientTls, Trust, client_config, quic_client, tcp_client_config};
use crate::wire::carrier::Carrier;
use crate::wire::template::RelayTemplates;

/// Relays in the order of travel, and how they are spoken to.
///
/// All are trusted alike. Fields and credentials go to the first one only, who is the one we have an account with.
#[derive(Clone, Debug)]
pub struct RouteOptions {
    /// Where requests go; the second relay is reached through the first.
    pub relays: Vec<RelayTemplates>,
    /// Whom to believe.
    pub trust: Trust,
    /// HTTP versions to try, in the order of preference.
    pub carriers: Vec<Carrier>,
    /// How TCP tunnels are asked for.
    pub tcp_form: TcpForm,
    /// Fields for every request to the first relay.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the first relay is shown when it wants to know who asks.
    pub credentials: Option<Credentials>,
}

impl RouteOptions {
    /// Through `relays` by whatever carrier works, without fields of our own.
    pub fn new<R: Into<RelayTemplates>>(relays: impl IntoIterator<Item = R>, trust: Trust) -> Self {
        Self {
            relays: relays.into_iter().map(Into::into).collect(),
            trust,
            carriers: Carrier::ALL.to_vec(),
            tcp_form: TcpForm::default(),
            headers: Vec::new(),
            credentials: None,
        }
    }
}

/// The hops of a route. A relay whose template for TCP nobody knows is asked at the default one.
///
/// # Errors
/// When the authorities to trust cannot be read.
pub fn hops(route: &RouteOptions) -> Result<Vec<Hop>, BuildError> {
    let options = ClientTls::new(route.trust.clone());
    let quic: Arc<dyn crypto::ClientConfig> = quic_client(client_config(&options)?)?;
    let tls = HopTls {
        quic,
        h2: tcp_client_config(&options, Carrier::H2)?,
        h1: tcp_client_config(&options, Carrier::H1)?,
    };
    let hop = |(index, relay): (usize, &RelayTemplates)| {
        let is_first = index == 0;
        let headers = route.headers.iter().filter(|_| is_first).cloned();
        Hop {
            udp: relay.udp.clone(),
            tcp: relay.tcp_or_default(),
            tcp_form: route.tcp_form,
            carriers: route.carriers.clone(),
            tls: tls.clone(),
            tls_hash: options.client_hash(),
            headers: headers.collect(),
            credentials: route.credentials.clone().filter(|_| is_first),
        }
    };
    Ok(route.relays.iter().enumerate().map(hop).collect())
}
