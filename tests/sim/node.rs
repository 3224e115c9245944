//! The parties: machines built from the defaults of the configuration, and hosts that are no relays.
//!
//! ```text
//!   client    no listener, a route of hops, tunnels opened by the test
//!   relay     a listener; without hops it is an egress (direct), with hops an ingress (chain)
//!   host      a plain UDP socket: keeps what it gets, and sends it back if told to (one of TCP is in `host`)
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bauta::client::{Hop, HopTls, Pool, PoolLimits, Pooling, RouteId, TcpForm};
use bauta::config::{self, Checked, Environment};
use bauta::error::Refusal;
use bauta::handler::Handler;
use bauta::http::request::ResponseHead;
use bauta::net::steer::Steer;
use bauta::net::{Network, Outgoing, Received, SocketId};
use bauta::policy::Policy;
use bauta::policy::auth::Auth;
use bauta::server::{Server, Services};
use bauta::transport::carriers::Carriers;
use bauta::transport::quic::options::{Options, endpoint_config, shared_endpoint_config};
use bauta::transport::quic::{EndpointId, Hub};
use bauta::transport::tcp::TcpHub;
use bauta::transport::tls::{
    ClientTls, DevCa, Trust, client_config, quic_client, quic_server, server_config,
    tcp_client_config, tcp_server_config,
};
use bauta::tunnel::TunnelId;
use bauta::tunnel::ip::{IpEvent, Pools};
use bauta::wire::carrier::Carrier;
use bauta::wire::codepoints::Revision;
use bauta::wire::template::{PathTemplate, Template};
use bauta::worker::build::{
    h3_config, hub_limits, listener_endpoint, machine_limits, pool_limits, tcp_hub_limits,
};
use bauta::worker::{
    Closed, Exit, Gateway, GatewayEvent, GatewaySettings, HandlerEvent, LocalEvent, LocalRead,
    Machine, MachineLimits, PlainRequest, Setup, Tag, TcpTag,
};
use bytes::{Bytes, BytesMut};
use quinn_proto::{EndpointConfig, ServerConfig, TimeSource, crypto};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::net::{Letter, Net, NodeId, World};

/// The time on every calendar of the simulation, since 1970. Certificates and tokens are judged by it.
const CALENDAR: Duration = Duration::from_secs(1_700_000_000);
/// Port of every relay.
pub(crate) const RELAY_PORT: u16 = 443;
/// Names that certificates are made for.
const NAMES: [&str; 5] = [
    "ingress.test",
    "middle.test",
    "egress.test",
    "other.test",
    "loop.test",
];

/// The authority that everybody trusts, and the certificate of every relay.
pub(crate) static CA: LazyLock<DevCa> = LazyLock::new(authority);
/// An authority that nobody trusts.
pub(crate) static STRANGER: LazyLock<DevCa> = LazyLock::new(authority);

fn authority() -> DevCa {
    DevCa::new(&NAMES, SystemTime::UNIX_EPOCH + CALENDAR).expect("names for a certificate")
}

/// A calendar that stands still.
#[derive(Debug)]
struct Calendar;

impl TimeProvider for Calendar {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(CALENDAR))
    }
}

impl TimeSource for Calendar {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + CALENDAR
    }
}

/// The handler of a process: what it does about an event; chains follow the route.
pub(crate) type HandlerFn =
    fn(Instant, HandlerEvent, &mut Machine, Option<RouteId>, &mut World<'_>);

/// What a test may change before a machine is built.
pub(crate) struct Settings {
    pub(crate) checked: Checked,
    pub(crate) pool: PoolLimits,
    pub(crate) policy: Policy,
    /// Who signed the certificate that a relay shows.
    pub(crate) identity: &'static DevCa,
    /// What a relay listens on.
    pub(crate) serves: Vec<Carrier>,
    /// The authorities that templated requests may name, any if empty.
    pub(crate) origins: Vec<Box<str>>,
    /// Whom a relay lets in.
    pub(crate) auth: Option<Auth>,
    /// Where IP packets leave: to the test, see [`MachineNode::gateway`].
    pub(crate) gateway: Option<(Arc<GatewaySettings>, Pools)>,
    /// Who decides about requests, in place of the policy.
    pub(crate) handler: Option<HandlerFn>,
    /// Bounds of the machine that the configuration has no word for.
    pub(crate) limit: fn(&mut MachineLimits),
}

impl Settings {
    /// The defaults, for a machine whose targets may be anywhere.
    pub(crate) fn new(name: &str) -> Self {
        let mut environment = Environment::new("/", NonZeroUsize::MIN, name);
        environment.dev_listen = Some(SocketAddr::from(([192, 0, 2, 1], RELAY_PORT)));
        let checked = config::parse("", &environment).expect("defaults are valid");
        let pool = pool_limits(&checked);
        let policy = Policy {
            public_only: false,
            ..Policy::default()
        };
        Self {
            checked,
            pool,
            policy,
            identity: &CA,
            serves: Carrier::ALL.to_vec(),
            origins: Vec::new(),
            auth: None,
            gateway: None,
            handler: None,
            limit: |_| {},
        }
    }

    /// The carriers of TCP that a relay listens on.
    fn serves_tcp(&self) -> Vec<Carrier> {
        let serves = self.serves.iter().copied();
        serves.filter(|carrier| *carrier != Carrier::H3).collect()
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(
            self.checked.quic.clone(),
            self.checked.limits.tunnels_per_connection,
        )
    }

    fn hub(&self) -> Hub {
        Hub::new(hub_limits(&self.checked), h3_config(&self.checked))
    }

    fn tcp_server_config(&self) -> Arc<rustls::ServerConfig> {
        let tls = tcp_server_config(&self.identity.identity, &self.serves_tcp(), false)
            .expect("a working provider");
        let mut config = rustls::ServerConfig::clone(&tls);
        config.time_provider = Arc::new(Calendar);
        Arc::new(config)
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let tls = server_config(&self.identity.identity, false).expect("a working provider");
        let crypto: Arc<dyn crypto::ServerConfig> = quic_server(tls).expect("AES-128");
        let mut server = ServerConfig::with_crypto(crypto);
        server.transport_config(self.options().server_transport());
        server.incoming_buffer_size(config::limits::HANDSHAKE_BUFFER_BYTES);
        server.time_source(Arc::new(Calendar));
        Arc::new(server)
    }
}

/// TLS of a client that trusts [`CA`].
pub(crate) fn hop_tls() -> HopTls {
    let tls = ClientTls::new(Trust::Pem(CA.ca_pem.clone()));
    let config = |carrier| {
        let config = match carrier {
            Carrier::H3 => client_config(&tls),
            Carrier::H2 | Carrier::H1 => tcp_client_config(&tls, carrier),
        };
        let mut config = rustls::ClientConfig::clone(&config.expect("an authority"));
        config.time_provider = Arc::new(Calendar);
        Arc::new(config)
    };
    HopTls {
        quic: quic_client(config(Carrier::H3)).expect("AES-128"),
        h2: config(Carrier::H2),
        h1: config(Carrier::H1),
    }
}

/// QUIC for a client, and the endpoint that it dials from.
pub(crate) fn dialler(net: &mut Net, settings: &Settings) -> (Hub, EndpointId) {
    let mut hub = settings.hub();
    let mut shared = shared_endpoint_config();
    shared.rng_seed(Some(net.rng.seed()));
    let config = endpoint_config(&shared, Steer::new([1, 2, 3, 4], 1), 0);
    let endpoint = hub.add_endpoint(quinn_proto::Endpoint::new(config, None, true, None));
    (hub, endpoint)
}

/// QUIC's part of it.
pub(crate) fn client_crypto() -> Arc<dyn crypto::ClientConfig> {
    hop_tls().quic
}

/// A relay as its clients know it, on HTTP/3.
pub(crate) fn hop(name: &str) -> Hop {
    hop_on(name, &[Carrier::H3])
}

/// A relay to be reached on these carriers.
pub(crate) fn hop_on(name: &str, carriers: &[Carrier]) -> Hop {
    Hop {
        udp: Template::default_for(name).expect("a host name"),
        tcp: Some(Template::default_tcp_for(name).expect("a host name")),
        ip: Some(Template::default_ip_for(name).expect("a host name")),
        tcp_form: TcpForm::default(),
        carriers: carriers.to_vec(),
        tls: hop_tls(),
        tls_hash: 1,
        credentials: None,
        headers: Default::default(),
        pooling: Pooling::default(),
        handshake_timeout: None,
        head_starts: None,
        open_timeout: None,
        strict_capsule_protocol: false,
        revision: Revision::newest(),
    }
}

/// What became of a tunnel that a test opened.
#[derive(Debug, Default)]
pub(crate) struct Local {
    pub(crate) opened: Option<Instant>,
    pub(crate) refused: Option<(Refusal, Option<Box<ResponseHead>>)>,
    /// The carriers that were tried in vain, and why, in that order.
    pub(crate) attempts: Vec<(Carrier, Refusal)>,
    /// It was not tried, for this long still.
    pub(crate) pause: Option<Duration>,
    pub(crate) closed: Option<Instant>,
    pub(crate) reason: Option<Closed>,
    pub(crate) payloads: Vec<Bytes>,
    /// Context ID and payload of other datagrams, type and value of capsules.
    pub(crate) contexts: Vec<(u64, Bytes)>,
    pub(crate) capsules: Vec<(u64, Bytes)>,
    /// What the other end of an IP tunnel said about addresses and routes.
    pub(crate) ip: Vec<IpEvent>,
    /// Bytes of a TCP tunnel, and whether they ended in order.
    pub(crate) received: Vec<u8>,
    pub(crate) ended: bool,
    /// Reads nothing.
    pub(crate) paused: bool,
    /// What is still to be written, and whether the end follows.
    pub(crate) unwritten: Bytes,
    pub(crate) finishes: bool,
}

impl Local {
    /// Status of the response that refused the tunnel.
    pub(crate) fn status(&self) -> Option<u16> {
        let (_, response) = self.refused.as_ref()?;
        response.as_ref().map(|head| head.status.as_u16())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.opened.is_some() && self.closed.is_none()
    }
}

/// A machine with its sockets.
pub(crate) struct MachineNode {
    pub(crate) machine: Machine,
    pub(crate) listener: Option<SocketId>,
    pub(crate) dialler: SocketId,
    /// Where the machine's route leads.
    pub(crate) hop: Option<RouteId>,
    pub(crate) tunnels: BTreeMap<TunnelId, Local>,
    /// What its fallback answers; `None` leaves the request unanswered.
    pub(crate) fallback: fn(&PlainRequest) -> Option<(ResponseHead, Bytes)>,
    /// Everything that its fallback was asked.
    pub(crate) asked: Vec<PlainRequest>,
    handler: Option<HandlerFn>,
    /// What happened at its exit for IP packets.
    pub(crate) gateway: Vec<GatewayEvent>,
    /// How tunnels ended of which the handler had to know.
    pub(crate) handled: Vec<Closed>,
    inbox: Vec<(SocketId, u64, Received)>,
}

/// What a machine is to be.
pub(crate) struct Role {
    /// Worker number, and the hash that all workers of the process share.
    pub(crate) steer: (Steer, u32),
    pub(crate) listens: bool,
    pub(crate) hops: Vec<Hop>,
}

impl Role {
    pub(crate) fn client(hops: Vec<Hop>) -> Self {
        Self {
            listens: false,
            ..Self::relay(hops)
        }
    }

    pub(crate) fn relay(hops: Vec<Hop>) -> Self {
        let steer = (Steer::new([1, 2, 3, 4], 1), 0);
        Self {
            steer,
            listens: true,
            hops,
        }
    }
}

impl MachineNode {
    pub(crate) fn new(net: &mut Net, node: NodeId, settings: Settings, role: Role) -> Self {
        let mut hub = settings.hub();
        let endpoint = |net: &mut Net, mut shared: EndpointConfig, server| {
            shared.rng_seed(Some(net.rng.seed()));
            let config = endpoint_config(&shared, role.steer.0, role.steer.1);
            quinn_proto::Endpoint::new(config, server, true, None)
        };
        let mut listeners = Vec::new();
        let listener = role.listens.then(|| {
            let (tls, address) = (settings.identity.identity.clone().into(), net.ip(node));
            let shared =
                listener_endpoint(&tls, Some("sim".as_ref()), (address, RELAY_PORT).into());
            let listening = endpoint(net, shared, Some(settings.server_config()));
            listeners.push(Some(hub.add_endpoint(listening)));
            // One that does not serve HTTP/3 has its socket where nobody looks.
            let port = settings.serves.contains(&Carrier::H3).then_some(RELAY_PORT);
            net.bind(node, port, Tag::Listener(0).to_bits())
        });
        let listens_tcp = role.listens && !settings.serves_tcp().is_empty();
        if listens_tcp {
            net.listen_tcp(node, RELAY_PORT, TcpTag::Listener(0).to_bits());
        }
        let dialler_endpoint = hub.add_endpoint(endpoint(net, shared_endpoint_config(), None));
        let dialler = net.bind(node, None, Tag::Dialler.to_bits());
        let mut pool = Pool::new(
            settings.pool,
            (dialler_endpoint, dialler),
            settings.options(),
        );
        let hop = (!role.hops.is_empty()).then(|| pool.add_route(role.hops));
        let own = listener
            .map(|_| SocketAddr::new(net.ip(node), RELAY_PORT))
            .into_iter()
            .collect();
        let policy = Policy {
            own,
            ..settings.policy.clone()
        };
        let handler = match hop {
            _ if settings.handler.is_some() => Handler::Embedded,
            Some(_) => Handler::Chain(policy),
            None => Handler::Direct(policy),
        };
        let mut server = Server::new(
            &settings.checked.name,
            Services {
                ip: vec![PathTemplate::well_known_ip()],
                ..Services::default()
            },
            settings.origins.clone(),
            handler,
        );
        if let Some(auth) = settings.auth.clone() {
            server = server.with_auth(auth);
        }
        let mut limits = machine_limits(&settings.checked);
        (settings.limit)(&mut limits);
        let machine = Machine::new(Setup {
            carriers: Carriers {
                quic: hub,
                tcp: TcpHub::new(tcp_hub_limits(&settings.checked)),
            },
            tcp_listeners: vec![listens_tcp.then(|| settings.tcp_server_config())],
            listeners,
            dialler: (dialler_endpoint, dialler),
            pool,
            route: hop,
            server,
            gateway: settings.gateway.map(|(settings, pools)| {
                Gateway::new(settings, pools, role.steer.1, Exit::Handler)
            }),
            steer: role.steer,
            limits,
        });
        Self {
            machine,
            listener,
            dialler,
            hop,
            tunnels: BTreeMap::new(),
            fallback: |_| None,
            asked: Vec::new(),
            handler: settings.handler,
            gateway: Vec::new(),
            handled: Vec::new(),
            inbox: Vec::new(),
        }
    }

    /// One turn, in the order of `worker::run`; whether there is more to do at once.
    pub(crate) fn turn(&mut self, net: &mut Net, node: NodeId) -> bool {
        let now = net.now;
        let Self { machine, inbox, .. } = self;
        let more = net.receive(node, inbox);
        for (socket, tag, received) in inbox.drain(..) {
            let tag = Tag::from_bits(tag);
            machine.handle_received(now, socket, tag, received, &mut net.world(node));
        }
        while let Some((socket, tag, event)) = net.poll_tcp(node) {
            let tag = TcpTag::from_bits(tag);
            machine.handle_tcp(now, socket, tag, event, &mut net.world(node));
        }
        while let Some(letter) = net.letter(node) {
            let world = &mut net.world(node);
            match letter {
                Letter::Stray { listener, train } => {
                    let socket = self.listener.expect("strays belong to listeners");
                    machine.handle_stray(now, listener, socket, train, world);
                }
                Letter::Resolved { asker, resolution } => {
                    machine.handle_resolved(now, asker, resolution, world);
                }
                Letter::Verdict(verdict) => machine.handle_verdict(now, verdict, world),
                Letter::Packet(packet) => {
                    machine.handle_packet(now, BytesMut::from(packet), world);
                }
            }
        }
        machine.turn(now, &mut net.world(node));
        while let Some(event) = self.machine.poll_local() {
            match event {
                LocalEvent::Readable(id) => self.read(net, node, id),
                LocalEvent::Writable(id) => self.write(net, node, id),
                LocalEvent::Closed(id, _) => {
                    // What came before the end is read before it, or never.
                    self.tunnels.entry(id).or_default().paused = false;
                    self.read(net, node, id);
                    self.note(now, event);
                }
                other @ (LocalEvent::Opened(_)
                | LocalEvent::Refused(..)
                | LocalEvent::Payload(..)
                | LocalEvent::Context(..)
                | LocalEvent::Capsule(..)
                | LocalEvent::Ip(..)) => self.note(now, other),
            }
        }
        while let Some(event) = self.machine.poll_handler() {
            let event = match event {
                HandlerEvent::Fallback(id, request) => {
                    if let Some((head, body)) = (self.fallback)(&request) {
                        self.machine.respond(now, id, head, body);
                    }
                    self.asked.push(*request);
                    continue;
                }
                HandlerEvent::Gateway(event) => {
                    self.gateway.push(event);
                    continue;
                }
                other @ (HandlerEvent::Request(..) | HandlerEvent::End(_)) => other,
            };
            if let HandlerEvent::End(LocalEvent::Closed(_, closed)) = &event {
                self.handled.push(*closed);
            }
            let Some(handler) = self.handler else {
                // A request that is no tunnel has come to no answer.
                let is_end = matches!(event, HandlerEvent::End(LocalEvent::Closed(..)));
                assert!(is_end, "a handler was asked");
                continue;
            };
            handler(
                now,
                event,
                &mut self.machine,
                self.hop,
                &mut net.world(node),
            );
        }
        self.machine.flush(now, &mut net.world(node));
        more || self.machine.is_busy()
    }

    /// Reads what a TCP tunnel has, unless the test has paused it.
    pub(crate) fn read(&mut self, net: &mut Net, node: NodeId, id: TunnelId) {
        let Some(local) = self.tunnels.get_mut(&id).filter(|local| !local.paused) else {
            return;
        };
        loop {
            let now = net.now;
            let read = self
                .machine
                .read_local(now, id, 16 << 10, &mut net.world(node));
            match read {
                LocalRead::Data(bytes) => {
                    assert!(!local.ended, "bytes behind the end");
                    local.received.extend_from_slice(&bytes);
                }
                LocalRead::Blocked => return,
                LocalRead::End => {
                    local.ended = true;
                    return;
                }
            }
        }
    }

    /// Writes what a TCP tunnel takes of what is to be written, and the end behind it.
    pub(crate) fn write(&mut self, net: &mut Net, node: NodeId, id: TunnelId) {
        let Some(local) = self.tunnels.get_mut(&id) else {
            return;
        };
        let now = net.now;
        while !local.unwritten.is_empty() {
            let room = self.machine.local_room(id).min(local.unwritten.len());
            if room == 0 {
                return;
            }
            let bytes = local.unwritten.split_to(room);
            self.machine
                .write_local(now, id, bytes, &mut net.world(node));
        }
        if std::mem::take(&mut local.finishes) {
            self.machine.finish_local(now, id, &mut net.world(node));
        }
    }

    fn note(&mut self, now: Instant, event: LocalEvent) {
        match event {
            LocalEvent::Opened(id) => {
                let again = self.tunnels.entry(id).or_default().opened.replace(now);
                assert_eq!(again, None, "a tunnel opens once");
            }
            LocalEvent::Refused(id, refused) => {
                let local = self.tunnels.entry(id).or_default();
                let attempts = refused.attempts.into_iter();
                local.attempts = attempts
                    .map(|(carrier, failure)| (carrier, failure.refusal))
                    .collect();
                local.pause = refused.pause;
                let again = self
                    .tunnels
                    .entry(id)
                    .or_default()
                    .refused
                    .replace((refused.refusal, refused.response));
                assert_eq!(again, None, "a tunnel is refused once");
            }
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => unreachable!("handled before"),
            LocalEvent::Payload(id, payload) => {
                let local = self.tunnels.entry(id).or_default();
                assert!(local.is_open(), "payloads come while the tunnel is open");
                local.payloads.push(Bytes::copy_from_slice(&payload));
            }
            LocalEvent::Context(id, context, payload) => {
                let local = self.tunnels.entry(id).or_default();
                local.contexts.push((context, payload));
            }
            LocalEvent::Capsule(id, kind, value) => {
                let local = self.tunnels.entry(id).or_default();
                local.capsules.push((kind, value));
            }
            LocalEvent::Ip(id, event) => self.tunnels.entry(id).or_default().ip.push(event),
            LocalEvent::Closed(id, reason) => {
                self.tunnels.entry(id).or_default().reason = Some(reason);
                let again = self.tunnels.entry(id).or_default().closed.replace(now);
                assert_eq!(again, None, "a tunnel ends once");
            }
        }
    }
}

/// A plain UDP socket.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) socket: SocketId,
    /// Whether it sends back what it gets.
    pub(crate) echo: bool,
    /// Everything it got: when, from whom, what.
    pub(crate) received: Vec<(Instant, SocketAddr, Bytes)>,
    inbox: Vec<(SocketId, u64, Received)>,
}

impl Host {
    pub(crate) fn new(net: &mut Net, node: NodeId, port: u16, echo: bool) -> Self {
        let socket = net.bind(node, Some(port), 0);
        let address = SocketAddr::new(net.ip(node), port);
        Self {
            address,
            socket,
            echo,
            received: Vec::new(),
            inbox: Vec::new(),
        }
    }

    pub(crate) fn turn(&mut self, net: &mut Net, node: NodeId) -> bool {
        let more = net.receive(node, &mut self.inbox);
        for (_, _, received) in self.inbox.drain(..) {
            let Received::Train(train) = received else {
                continue;
            };
            assert_eq!(train.ecn, None, "towards targets everything is Not-ECT");
            let peer = train.peer;
            for datagram in train.segments() {
                let datagram = datagram.freeze();
                self.received.push((net.now, peer, datagram.clone()));
                if self.echo {
                    send(net, node, self.socket, peer, datagram);
                }
            }
        }
        more
    }

    /// The payloads, without the rest.
    pub(crate) fn payloads(&self) -> Vec<Bytes> {
        self.received
            .iter()
            .map(|(_, _, payload)| payload.clone())
            .collect()
    }

    /// Who sent the first datagram: the relay's socket for a tunnel.
    pub(crate) fn first_peer(&self) -> Option<SocketAddr> {
        self.received.first().map(|(_, peer, _)| *peer)
    }
}

/// Sends one datagram of a host, which may be empty.
pub(crate) fn send(net: &mut Net, node: NodeId, socket: SocketId, peer: SocketAddr, data: Bytes) {
    if data.is_empty() {
        return net.send_from(socket, peer, None, data);
    }
    let outgoing = Outgoing {
        peer: Some(peer),
        local_ip: None,
        ecn: None,
        segment_size: None,
        contents: &data,
    };
    net.world(node).send(socket, &outgoing);
}

/// Whether `ip` is one of those of clients.
pub(crate) fn is_client(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [198, 51, 100])
}
