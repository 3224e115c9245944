//! From the words of a route to hops: one relay or several, each with what it is told and shown.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use quinn_proto::crypto;

use super::build::BuildError;
use crate::client::{Credentials, Hop, HopTls, Pooling, TcpForm};
use crate::config::HeadStarts;
use crate::transport::tls::{
    ClientTls, Identity, TlsError, Trust, client_config, quic_client, tcp_client_config,
};
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::Revision;
use crate::wire::template::RelayTemplates;

/// The way to a relay through others, spoken to alike unless [`RouteOptions::further`] says otherwise.
#[derive(Clone, Debug)]
pub struct RouteOptions {
    /// Relays in the order of travel, each with the templates of its requests.
    pub relays: Vec<RelayTemplates>,
    /// HTTP versions to try, in the order of preference; all if empty.
    pub carriers: Vec<Carrier>,
    /// How TCP tunnels are asked for.
    pub tcp_form: TcpForm,
    /// The revision of connect-tcp for templated TCP tunnels.
    pub revision: &'static Revision,
    /// Whom to believe.
    pub trust: Trust,
    /// Who we are in TLS, if the first relay asks.
    pub identity: Option<Identity>,
    /// Fields for every request to the first relay, who is the one we have an account with.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Credentials for the first relay.
    pub credentials: Option<Credentials>,
    /// The relays after the first, in the order of travel. Those that the list does not reach get the defaults.
    pub further: Vec<RelayOptions>,
    /// How tunnels share connections, at every relay.
    pub pooling: Pooling,
    /// How long a handshake with a relay may take; as long as any of the worker if `None`.
    pub handshake_timeout: Option<Duration>,
    /// How carriers race, at every relay; as on any route of the worker if `None`.
    pub head_starts: Option<HeadStarts>,
    /// How long opening a tunnel may take, resolving and dialling included; as long as any of the worker if `None`.
    pub open_timeout: Option<Duration>,
    /// See [`Hop::strict_capsule_protocol`].
    pub strict_capsule_protocol: bool,
}

/// What one relay is told and shown, and why it is believed.
#[derive(Clone, Debug, Default)]
pub struct RelayOptions {
    /// Fields for every request to it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Credentials, if it asks for any.
    pub credentials: Option<Credentials>,
    /// Who we are in TLS, if it asks.
    pub identity: Option<Identity>,
    /// Whom to believe, in place of what the route says.
    pub trust: Option<Trust>,
}

impl RouteOptions {
    /// A route with the defaults of everything else.
    pub fn new(relays: Vec<RelayTemplates>, trust: Trust) -> Self {
        Self {
            relays,
            carriers: Carrier::ALL.to_vec(),
            tcp_form: TcpForm::default(),
            revision: Revision::newest(),
            trust,
            identity: None,
            headers: Vec::new(),
            credentials: None,
            further: Vec::new(),
            pooling: Pooling::default(),
            handshake_timeout: None,
            head_starts: None,
            open_timeout: None,
            strict_capsule_protocol: false,
        }
    }
}

/// The hops of a route.
///
/// # Errors
/// When the authorities to trust cannot be read.
pub fn hops(route: RouteOptions) -> Result<Vec<Hop>, BuildError> {
    let carriers = match route.carriers.is_empty() {
        true => Carrier::ALL.to_vec(),
        false => route.carriers,
    };
    let first = RelayOptions {
        headers: route.headers,
        credentials: route.credentials,
        identity: route.identity,
        trust: None,
    };
    let mut told = std::iter::once(first).chain(route.further);
    // Relays that are believed alike share what TLS needs; reading authorities takes a while.
    let mut known: Vec<(ClientTls, HopTls)> = Vec::new();
    let mut hops = Vec::new();
    for relay in route.relays {
        let options = told.next().unwrap_or_default();
        let tls = ClientTls {
            identity: options.identity,
            ..ClientTls::new(options.trust.unwrap_or_else(|| route.trust.clone()))
        };
        let hop_tls = match known.iter().find(|(other, _)| *other == tls) {
            Some((_, made)) => made.clone(),
            None => {
                let made = hop_tls(&tls)?;
                known.push((tls.clone(), made.clone()));
                made
            }
        };
        hops.push(Hop {
            udp: relay.udp,
            tcp: relay.tcp,
            ip: relay.ip,
            tcp_form: route.tcp_form,
            carriers: carriers.clone(),
            tls: hop_tls,
            tls_hash: tls.client_hash(),
            credentials: options.credentials,
            headers: options.headers.into_iter().collect(),
            pooling: route.pooling,
            handshake_timeout: route.handshake_timeout,
            head_starts: route.head_starts,
            open_timeout: route.open_timeout,
            strict_capsule_protocol: route.strict_capsule_protocol,
            revision: route.revision,
        });
    }
    Ok(hops)
}

fn hop_tls(tls: &ClientTls) -> Result<HopTls, TlsError> {
    let quic: Arc<dyn crypto::ClientConfig> = quic_client(client_config(tls)?)?;
    Ok(HopTls {
        quic,
        h2: tcp_client_config(tls, Carrier::H2)?,
        h1: tcp_client_config(tls, Carrier::H1)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use ::http::header::{AUTHORIZATION, USER_AGENT};

    use super::*;
    use crate::client::{Request, TunnelKind};
    use crate::transport::tls::DevCa;
    use crate::wire::target::Target;

    fn relays() -> Vec<RelayTemplates> {
        [
            "https://first.test",
            "https://second.test",
            "https://third.test",
        ]
        .map(|url| RelayTemplates::from_relay_url(url).unwrap())
        .to_vec()
    }

    fn options() -> RouteOptions {
        RouteOptions::new(relays(), Trust::DangerousAnybody)
    }

    fn credentials(text: &str) -> Option<Credentials> {
        Some(Credentials::from_file(text).unwrap())
    }

    fn identity() -> Option<Identity> {
        Some(DevCa::new(&[], SystemTime::UNIX_EPOCH).unwrap().identity)
    }

    fn request(kind: TunnelKind) -> Request {
        Request::new("target.test:7".parse::<Target>().unwrap(), kind)
    }

    #[test]
    fn every_relay_is_told_what_is_meant_for_it() {
        let value = HeaderValue::from_static("for the first");
        let made = hops(RouteOptions {
            headers: vec![(USER_AGENT, value)],
            credentials: credentials("bearer:1"),
            identity: identity(),
            further: vec![RelayOptions {
                credentials: credentials("bearer:2"),
                identity: identity(),
                ..RelayOptions::default()
            }],
            ..options()
        })
        .unwrap();
        let told = |hop: &Hop, name: HeaderName| {
            let head = hop.request(&request(TunnelKind::Udp));
            let value = head.headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let told = |name: &HeaderName| -> Vec<_> {
            made.iter().map(|hop| told(hop, name.clone())).collect()
        };
        assert_eq!(
            told(&USER_AGENT),
            [Some("for the first".into()), None, None]
        );
        let tokens = [Some("Bearer 1".into()), Some("Bearer 2".into()), None];
        assert_eq!(told(&AUTHORIZATION), tokens);

        // Each identity is another connection, and none is not any of them.
        let [first, second, third] = &made[..] else {
            panic!("three relays");
        };
        assert_ne!(first.tls_hash, second.tls_hash);
        assert_ne!(second.tls_hash, third.tls_hash);
        let shown = |hop: &Hop| hop.tls.h2.client_auth_cert_resolver.has_certs();
        assert_eq!([first, second, third].map(shown), [true, true, false]);
    }

    #[test]
    fn relays_may_be_believed_for_their_own_reasons() {
        let pin = |byte| Some(Trust::Pinned(vec![[byte; 32]]));
        let further = [pin(1), pin(2)].map(|trust| RelayOptions {
            trust,
            ..RelayOptions::default()
        });
        let made = hops(RouteOptions {
            further: further.to_vec(),
            ..options()
        });
        let hashes: Vec<_> = made.unwrap().iter().map(|hop| hop.tls_hash).collect();
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
        let no_pin = RelayOptions {
            trust: Some(Trust::Pinned(Vec::new())),
            ..RelayOptions::default()
        };
        let error = hops(RouteOptions {
            further: vec![no_pin],
            ..options()
        });
        assert!(matches!(error, Err(BuildError::Tls(TlsError::NoPin))));
    }

    #[test]
    fn a_request_has_fields_of_its_own() {
        let hop = &hops(RouteOptions {
            headers: vec![(USER_AGENT, HeaderValue::from_static("hop"))],
            credentials: credentials("bearer:1"),
            ..options()
        })
        .unwrap()[0];
        let mut request = request(TunnelKind::TCP);
        let fields = [
            (USER_AGENT, "request"),
            (AUTHORIZATION, "PrivateToken token=x"),
            (HeaderName::from_static("priority"), "u=1"),
        ];
        for (name, value) in fields {
            request
                .headers
                .insert(name, HeaderValue::from_static(value));
        }
        let head = hop.request(&request);
        for name in [USER_AGENT, AUTHORIZATION, "priority".parse().unwrap()] {
            let values: Vec<_> = head.headers.get_all(&name).iter().collect();
            assert_eq!(values, [&request.headers[&name]], "{name}");
        }
        assert!(head.headers.contains_key("capsule-protocol"));
    }

    #[test]
    fn the_revision_is_a_choice() {
        for name in ["connect-tcp", "connect-tcp-07"] {
            let made = hops(RouteOptions {
                revision: Revision::of_token(name).unwrap(),
                ..options()
            });
            let head = made.unwrap()[0].request(&request(TunnelKind::TCP));
            assert_eq!(head.protocol.as_deref(), Some(name));
        }
    }

    #[test]
    fn hops_that_are_treated_differently_share_nothing() {
        let usual = || hops(options()).unwrap().remove(0);
        assert!(usual().asks_like(&usual()));
        let changes: [fn(&mut Hop); 6] = [
            |hop| hop.pooling.separate = true,
            |hop| hop.pooling.streams_max = Some(1),
            |hop| hop.handshake_timeout = Some(Duration::ZERO),
            |hop| hop.head_starts = Some(HeadStarts::default()),
            |hop| hop.open_timeout = Some(Duration::ZERO),
            |hop| hop.strict_capsule_protocol = true,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut hop = usual();
            change(&mut hop);
            assert!(!hop.asks_like(&usual()), "{number}");
        }
    }
}
