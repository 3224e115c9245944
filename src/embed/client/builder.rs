//! What a client is made of.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;

use super::options::Problems;
use super::trust::Trust;
use super::worker::{OPEN_TIMEOUT_MAX, Worker};
use super::{Client, Inner, Route};
use crate::client::{Credentials, Pooling, TcpForm};
use crate::config::HeadStarts;
use crate::embed::Identity;
use crate::error::{Error, ErrorKind, Side};
use crate::transport::tls;
use crate::wire::carrier::Carrier;
use crate::wire::template::{RelayTemplates, Template, TemplateError};
use crate::worker::build::{RelayOptions, RouteOptions, hops};

/// Relays in a row at most: each costs a round trip and some forty bytes of every packet, and behind four of them the
/// default MTU leaves less than the 1200 bytes that a further QUIC connection needs.
const RELAYS_MAX: usize = 4;
/// How long opening may take.
pub(super) const OPEN_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=OPEN_TIMEOUT_MAX;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// How long a connection without tunnels is kept.
const POOL_IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
/// Tunnels at once on one connection.
const STREAMS_PER_CONNECTION: RangeInclusive<usize> = 1..=65_536;
/// Datagrams that wait for the user.
const RECEIVE_QUEUE: RangeInclusive<usize> = 1..=1_000_000;

/// The options of a [`Client`]. What is wrong with them is told by [`build`](Self::build), all of it at once.
///
/// ```no_run
/// use bauta::{Carrier, Client, Credentials};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("https://first.example")
///     .credentials(Credentials::bearer("of the first")?)
///     .hop("https://second.example:4433/udp{?target_host,target_port}")
///     .header("x-account", "of the second")
///     .carriers([Carrier::H3, Carrier::H2])
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// # After a failure
///
/// A relay that could not be reached on a carrier is not tried again on that carrier for 250 ms, and twice as long
/// after each further failure, up to 10 s; a connection ends the count. Tunnels that are asked for meanwhile fail at
/// once, with the last failure as the cause and how long nothing is tried; such an error is
/// [retryable](crate::Error::is_retryable). No answer of a relay starts a pause, except that the next relay cannot be
/// reached from there.
#[derive(Clone)]
#[must_use = "it makes a client when it is built"]
pub struct ClientBuilder {
    relays: Vec<Relay>,
    carriers: Vec<Carrier>,
    head_starts: HeadStarts,
    handshake_timeout: Duration,
    open_timeout: Duration,
    trust: Trust,
    tcp_form: TcpForm,
    require_capsule_protocol: bool,
    pooling: Pooling,
    receive_queue: usize,
    worker: Option<Worker>,
    problems: Problems,
}

/// A way through relays.
pub(in crate::embed) struct Prepared {
    pub(in crate::embed) route: Arc<Route>,
    relays: Arc<[String]>,
    templated_tcp: bool,
}

/// One relay, as it was described.
#[derive(Clone, Debug)]
struct Relay {
    url: String,
    udp: Option<String>,
    tcp: Option<String>,
    ip: Option<String>,
    headers: HeaderMap,
    credentials: Option<Credentials>,
    identity: Option<Identity>,
    trust: Option<Trust>,
}

impl ClientBuilder {
    pub(super) fn new(relay_url: String) -> Self {
        Self {
            relays: vec![Relay::new(relay_url)],
            carriers: Carrier::ALL.to_vec(),
            head_starts: HeadStarts::default(),
            handshake_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(30),
            trust: Trust::system(),
            tcp_form: TcpForm::default(),
            require_capsule_protocol: false,
            pooling: Pooling {
                idle: Duration::from_secs(30),
                ..Pooling::SHARED
            },
            receive_queue: 1_000,
            worker: None,
            problems: Problems::default(),
        }
    }

    /// Adds a relay behind the ones named so far, reached through them: no relay knows both ends. Four at most, the
    /// first one included. The form is that of [`Client::builder`].
    ///
    /// Templates, fields, credentials, identities and [`hop_trust`](Self::hop_trust) are for the relay that was named
    /// last; everything else is for all.
    pub fn hop(mut self, relay_url: impl Into<String>) -> Self {
        self.relays.push(Relay::new(relay_url.into()));
        self
    }

    /// The relay that was named last.
    fn last(&mut self) -> &mut Relay {
        self.relays
            .last_mut()
            .expect("the first one comes with the builder")
    }

    /// The URI template of UDP tunnels at the relay that was named last, in place of the one that its URL stands for
    /// (RFC 9298 §2).
    pub fn udp_template(mut self, template: impl Into<String>) -> Self {
        self.last().udp = Some(template.into());
        self
    }

    /// The URI template of TCP tunnels at the relay that was named last (draft-ietf-httpbis-connect-tcp §5). Where the
    /// relay's URL is a template of UDP and there is none of TCP, TCP tunnels are asked for by classic CONNECT.
    pub fn tcp_template(mut self, template: impl Into<String>) -> Self {
        self.last().tcp = Some(template.into());
        self
    }

    /// The URI template of IP tunnels at the relay that was named last, with `target` and `ipproto` or without
    /// (RFC 9484 §4). Where the relay's URL is a template of UDP and there is none of IP, there are no IP tunnels.
    pub fn ip_template(mut self, template: impl Into<String>) -> Self {
        self.last().ip = Some(template.into());
        self
    }

    /// The HTTP versions to try, the preferred one first. All three by default, HTTP/3 first.
    pub fn carriers(mut self, carriers: impl IntoIterator<Item = Carrier>) -> Self {
        self.carriers = carriers.into_iter().collect();
        self
    }

    /// How much earlier the first carrier starts than the second, and that one than the third: 250 ms and 500 ms by
    /// default, at most ten seconds. A carrier that fails lets the next one start at once.
    pub fn head_starts(mut self, first: Duration, second: Duration) -> Self {
        let range = Duration::ZERO..=HeadStarts::MAX;
        self.problems
            .duration("head_starts.first", first, range.clone());
        self.problems.duration("head_starts.second", second, range);
        self.head_starts = HeadStarts { first, second };
        self
    }

    /// How long the handshake of a connection may take, 10 ms to a minute: 5 s by default. A carrier that takes longer
    /// has failed. With HTTP/3 among the carriers, this is how long it takes to learn that there is no relay.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.problems
            .duration("handshake_timeout", timeout, HANDSHAKE_TIMEOUT);
        self.handshake_timeout = timeout;
        self
    }

    /// How long opening a tunnel may take, connecting included, 1 ms to 5 minutes: 30 s by default.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.problems
            .duration("open_timeout", timeout, OPEN_TIMEOUT);
        self.open_timeout = timeout;
        self
    }

    /// Whom to believe to be a relay: the authorities of the system by default. It holds for every relay without a
    /// [`hop_trust`](Self::hop_trust) of its own.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Whom to believe to be the relay that was named last, and nobody that [`trust`](Self::trust) says.
    pub fn hop_trust(mut self, trust: Trust) -> Self {
        self.last().trust = Some(trust);
        self
    }

    /// Adds a field to every request to the relay that was named last; it is sent as sensitive, never indexed.
    ///
    /// Reserved, and refused by [`build`](Self::build): pseudo-header fields, `host`, fields of the connection, `via`,
    /// `capsule-protocol`, `content-*` and others that frame or route a message. So are values with CR, LF or NUL.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let mut headers = std::mem::take(&mut self.last().headers);
        self.problems.header(&mut headers, name, value);
        self.last().headers = headers;
        self
    }

    /// What the relay that was named last is shown, with the first request and in the field that the form of the
    /// request asks for.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.last().credentials = Some(credentials);
        self
    }

    /// The certificate to show to the relay that was named last, if it asks for one in TLS.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.last().identity = Some(identity);
        self
    }

    /// How TCP tunnels are asked for: templated and in capsules by default.
    pub const fn tcp_form(mut self, form: TcpForm) -> Self {
        self.tcp_form = form;
        self
    }

    /// Whether it is an error when a relay answers a request with `Capsule-Protocol: ?1` without that field. It is none
    /// by default: RFC 9298 §3.5 does not ask it of relays, and some leave it out.
    pub const fn require_capsule_protocol(mut self, required: bool) -> Self {
        self.require_capsule_protocol = required;
        self
    }

    /// Whether tunnels share connections, as they do by default. Separate ones cost a handshake each, and nobody can
    /// tell from a connection which tunnels belong together. On HTTP/1.1 tunnels never share.
    pub const fn pooled(mut self, pooled: bool) -> Self {
        self.pooling.separate = !pooled;
        self
    }

    /// How long a connection without tunnels is kept, at most an hour: 30 s by default.
    pub fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
        self.problems
            .duration("pool_idle_timeout", timeout, POOL_IDLE_TIMEOUT);
        self.pooling.idle = timeout;
        self
    }

    /// How many tunnels share one connection at most, 1 to 65,536: as many as the relay allows by default. Further
    /// tunnels get further connections.
    pub fn streams_per_connection(mut self, streams_max: usize) -> Self {
        self.problems.number(
            "streams_per_connection",
            streams_max,
            STREAMS_PER_CONNECTION,
        );
        self.pooling.streams_max = u32::try_from(streams_max).ok();
        self
    }

    /// How many datagrams of a tunnel wait for the user at most, 1 to 1,000,000: 1,000 by default. Those that find the
    /// queue full displace the oldest ones, which are counted.
    pub fn receive_queue(mut self, datagrams_max: usize) -> Self {
        self.problems
            .number("receive_queue", datagrams_max, RECEIVE_QUEUE);
        self.receive_queue = datagrams_max;
        self
    }

    /// Has the client share the threads of others.
    pub fn worker(mut self, worker: &Worker) -> Self {
        self.worker = Some(worker.clone());
        self
    }

    /// Makes the client, and starts its threads unless it shares those of others. Nothing is connected before the first
    /// tunnel.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] names every option that is wrong, with its value and what is allowed; other kinds
    /// say what the system refuses.
    pub fn build(self) -> Result<Client, Error> {
        let (tcp_form, open_timeout) = (self.tcp_form, self.open_timeout);
        let (receive_queue, worker) = (self.receive_queue, self.worker.clone());
        let Prepared {
            route,
            relays,
            templated_tcp,
        } = self.prepare()?;
        let worker = match worker {
            Some(worker) => worker,
            None => Worker::new()?,
        };
        Ok(Client(Arc::new(Inner {
            running: worker.0,
            route,
            relays,
            templated_tcp,
            tcp_form,
            open_timeout,
            receive_queue,
        })))
    }

    /// The way through the relays alone.
    pub(in crate::embed) fn prepare(self) -> Result<Prepared, Error> {
        let mut problems = self.problems;
        let relays: Vec<_> = self
            .relays
            .iter()
            .filter_map(|relay| relay.templates(&mut problems))
            .collect();
        problems.number("hop", self.relays.len(), 1..=RELAYS_MAX);
        check_carriers(&self.carriers, &mut problems);
        let trust = checked("trust", self.trust, &mut problems);
        let told: Vec<_> = self
            .relays
            .into_iter()
            .map(|relay| RelayOptions {
                headers: flatten(relay.headers),
                credentials: relay.credentials,
                identity: relay.identity.map(|identity| identity.0),
                trust: match relay.trust {
                    Some(own) => checked("hop_trust", own, &mut problems),
                    None => trust.clone(),
                },
            })
            .collect();
        problems.into_result()?;
        let (Some(last), Some(trust)) = (relays.last(), trust) else {
            return Err(Error::new(ErrorKind::Internal, Side::Local));
        };
        let (templated_tcp, names) = (last.tcp.is_some(), relays.iter());
        let names: Arc<[_]> = names
            .map(|relay| format!("https://{}", relay.udp.authority()))
            .collect();
        let mut told = told.into_iter();
        let first = told.next().unwrap_or_default();
        let hops = hops(RouteOptions {
            carriers: self.carriers,
            tcp_form: self.tcp_form,
            headers: first.headers,
            credentials: first.credentials,
            identity: first.identity,
            further: told.collect(),
            pooling: self.pooling,
            handshake_timeout: Some(self.handshake_timeout),
            head_starts: Some(self.head_starts),
            strict_capsule_protocol: self.require_capsule_protocol,
            ..RouteOptions::new(relays, first.trust.unwrap_or(trust))
        });
        let hops = hops.map_err(|error| {
            Error::new(ErrorKind::Configuration, Side::Local).with_source(error)
        })?;
        Ok(Prepared {
            route: Arc::new(Route::new(hops)),
            relays: names,
            templated_tcp,
        })
    }
}

impl Relay {
    fn new(url: String) -> Self {
        Self {
            url,
            udp: None,
            tcp: None,
            ip: None,
            headers: HeaderMap::new(),
            credentials: None,
            identity: None,
            trust: None,
        }
    }

    fn templates(&self, problems: &mut Problems) -> Option<RelayTemplates> {
        let url = RelayTemplates::from_relay_url(&self.url);
        // Who forgets the scheme has not thought of templates.
        let url = url.map_err(|error| {
            match matches!(error, TemplateError::NotAbsolute | TemplateError::Scheme) {
                true => "must be https://HOST[:PORT], or a URI template that begins so".to_owned(),
                false => error.to_string(),
            }
        });
        let mut templates = problems.text("relay", &self.url, url)?;
        if let Some(text) = &self.udp {
            templates.udp = problems.text("udp_template", text, Template::parse(text))?;
        }
        if let Some(text) = &self.tcp {
            templates.tcp = Some(problems.text("tcp_template", text, Template::parse(text))?);
        }
        if let Some(text) = &self.ip {
            templates.ip = Some(problems.text("ip_template", text, Template::parse_ip(text))?);
        }
        Some(templates)
    }
}

/// Whom to believe, if the user has said that in a way that makes sense.
fn checked(option: &'static str, trust: Trust, problems: &mut Problems) -> Option<tls::Trust> {
    let Trust(trust) = trust;
    trust.map_err(|error| problems.secret(option, error)).ok()
}

fn check_carriers(carriers: &[Carrier], problems: &mut Problems) {
    if carriers.is_empty() {
        problems.value("carriers", "none", "at least one of h3, h2 and h1");
    }
    for (index, carrier) in carriers.iter().enumerate() {
        if carriers[..index].contains(carrier) {
            problems.value("carriers", carrier, "must not be named twice");
        }
    }
}

fn flatten(headers: HeaderMap) -> Vec<(::http::HeaderName, ::http::HeaderValue)> {
    let fields = headers.iter();
    fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("relays", &self.relays)
            .field("carriers", &self.carriers)
            .finish_non_exhaustive()
    }
}
