//! From checked configuration to worker threads.
//!
//! [`Plan`] is everything that is the same for all workers of a process: certificates, keys, hops, policy. It is
//! made once, on the control thread, so that whatever is wrong is reported before the first packet. Each worker
//! then builds its own machine and sockets out of it.

pub mod ip;
mod policy;
mod reset;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{EndpointConfig, ServerConfig, crypto};
use thiserror::Error;

use self::ip::{Exit, ExitSeed, TunInfo};
use self::policy::policy;
pub use self::policy::rule_kind;
pub use self::reset::listener_endpoint;
use super::machine::{Machine, MachineLimits, Setup, Tag, TcpTag};
use super::mailbox::{Address, Mailbox, mailbox};
use super::run::{App, Question, Worker};
use super::secrets::{self, SecretsError};
use crate::client::{Hop, Pool, PoolLimits, RouteId};
use crate::config::{self, Checked};
use crate::error::Refusal;
use crate::handler::Handler;
use crate::http::h3;
use crate::http::request::ResponseHead;
use crate::net::listen::{Sharing, bind_both, bind_group, bind_tcp_group};
use crate::net::steer::{self, Steer};
use crate::net::{Driver, DriverConfig, Offload, SocketId, SocketKind, host_name, random};
use crate::policy::auth::Secrets;
use crate::policy::{Policy, RuleError};
use crate::server::{Server, Services};
use crate::transport::carriers::Carriers;
use crate::transport::quic::options::{Options, endpoint_config, shared_endpoint_config};
use crate::transport::quic::{Hub, HubLimits, OutboxLimits};
use crate::transport::tcp::{TcpHub, TcpHubLimits};
use crate::transport::tls::{Identity, ListenerTls, TlsError, Trust, quic_server};
use crate::tunnel::EarlyLimits;
use crate::wire::carrier::Carrier;
use crate::wire::template::TemplateError;

/// The first pause after a dial that failed, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why a process cannot start.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("{0}")]
    Listen(#[source] io::Error),
    /// A URI template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// There are not as many identities as listeners.
    #[error("{listeners} listeners with the identities of {identities}")]
    Identities {
        /// How many listeners there are.
        listeners: usize,
        /// For how many there are identities.
        identities: usize,
    },
    /// Secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// IP packets have no way out.
    #[error(transparent)]
    Exit(#[from] ip::ExitError),
    /// A rule of the policy cannot be used.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The kernel refuses to steer packets and the configuration insists.
    #[error("steering = \"kernel\": the kernel refuses the program: {0}")]
    Steering(#[source] io::Error),
    /// The system refuses something else.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Everything that the workers of a process have in common.
pub struct Plan {
    checked: Arc<Checked>,
    /// What dials.
    dialler: EndpointConfig,
    /// What listens on QUIC, for each listener.
    servers: Vec<Option<Serving>>,
    /// The name of this machine, if it can be had.
    host: Option<OsString>,
    steer: Steer,
    options: Options,
    hops: Vec<Hop>,
    policy: Policy,
    embedded: bool,
    services: Services,
    secrets: Option<Arc<Secrets>>,
    /// Where HTTP/3 is served, for those who come by TCP.
    h3_port: Option<u16>,
    origins: Vec<Box<str>>,
    /// For each listener the sockets of all workers, in order; taken as the workers are built.
    sockets: Vec<Vec<Option<UdpSocket>>>,
    /// The same for TCP, empty where a listener is not on TCP.
    tcp_sockets: Vec<Vec<Option<TcpListener>>>,
    tcp_servers: Vec<Option<Arc<rustls::ServerConfig>>>,
    /// Where IP packets leave.
    exit: Option<Exit>,
    /// The interface that they leave by.
    pub tun: Option<TunInfo>,
    /// The addresses that are listened on, ports filled in.
    pub addresses: Vec<SocketAddr>,
    mailboxes: Vec<Option<Mailbox>>,
    peers: Vec<Address>,
}

/// QUIC's side of a listener, the same for all workers.
#[derive(Clone)]
struct Serving {
    shared: EndpointConfig,
    server: Arc<ServerConfig>,
}

impl Plan {
    /// Loads and binds what `checked` names. `development` stands in for the certificates of listeners without any.
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub fn new(checked: Checked, development: Option<&Identity>) -> Result<Self, BuildError> {
        let identity = |listener: &config::Listener| match (&listener.certificate, development) {
            (Some(paths), _) => Identity::load(&paths.chain, &paths.key),
            (None, Some(identity)) => Ok(identity.clone()),
            (None, None) => unreachable!("check() wants a certificate outside of development"),
        };
        let identities: Result<Vec<_>, _> = checked.listen.iter().map(identity).collect();
        let tls = identities?.into_iter().map(ListenerTls::from).collect();
        Self::with_identities(checked, tls)
    }

    /// Binds what `checked` names. `identities` are those of the listeners, in their order; certificates that
    /// `checked` names are not looked at.
    ///
    /// # Errors
    /// The first thing that cannot be had, or [`BuildError::Identities`].
    pub fn with_identities(
        checked: Checked,
        identities: Vec<ListenerTls>,
    ) -> Result<Self, BuildError> {
        if identities.len() != checked.listen.len() {
            return Err(BuildError::Identities {
                listeners: checked.listen.len(),
                identities: identities.len(),
            });
        }
        let workers = checked.workers.get();
        let options = Options::new(checked.quic.clone(), checked.limits.tunnels_per_connection);
        let mut plan = Self {
            dialler: shared_endpoint_config(),
            servers: Vec::new(),
            host: host_name().ok(),
            steer: Steer::new(random::words()?, workers as u32),
            hops: upstream_hops(&checked)?,
            policy: Policy::default(),
            embedded: false,
            services: Services {
                udp: Vec::new(),
                tcp: Vec::new(),
                ip: Vec::new(),
                classic: false,
            },
            secrets: match &checked.auth {
                Some(files) => Some(Arc::new(secrets::load(files)?)),
                None => None,
            },
            h3_port: None,
            origins: Vec::new(),
            sockets: Vec::new(),
            tcp_sockets: Vec::new(),
            tcp_servers: Vec::new(),
            exit: None,
            tun: None,
            addresses: Vec::new(),
            mailboxes: Vec::new(),
            peers: Vec::new(),
            options,
            checked: Arc::new(checked),
        };
        let checked = Arc::clone(&plan.checked);
        for (listener, tls) in checked.listen.iter().zip(&identities) {
            plan.add_listener(listener, tls)?;
        }
        plan.policy = policy(&checked, &plan.addresses)?;
        if let (Some(ip), true) = (&checked.ip, plan.hops.is_empty()) {
            let exit = Exit::open(&checked, ip, plan.policy.clone())?;
            plan.tun = exit.tun.clone();
            plan.exit = Some(exit);
        }
        for _ in 0..workers {
            let (address, mailbox) = mailbox(checked.limits.mailbox);
            plan.peers.push(address);
            plan.mailboxes.push(Some(mailbox));
        }
        Ok(plan)
    }

    /// Replaces the route to the next hops by one that is already prepared.
    pub fn set_hops(&mut self, hops: Vec<Hop>) {
        self.hops = hops;
    }

    /// Leaves every decision to the handler of the workers' app, see [`App::handle_handler`].
    pub fn set_embedded(&mut self) {
        self.embedded = true;
        // Whether there is a way for packets is the handler's to say.
        let listeners = self.checked.listen.iter();
        let templates = listeners.flat_map(|listener| listener.ip_templates.iter().cloned());
        self.services.ip = templates.collect();
    }

    fn add_listener(
        &mut self,
        listener: &config::Listener,
        tls: &ListenerTls,
    ) -> Result<(), BuildError> {
        let crypto: Arc<dyn crypto::ServerConfig> = quic_server(tls.quic_config(false)?)?;
        let mut server = ServerConfig::with_crypto(crypto);
        server.transport_config(self.options.server_transport());
        server.incoming_buffer_size(config::limits::HANDSHAKE_BUFFER_BYTES);
        let server = Arc::new(server);
        let services = &self.checked.policy.services;
        let serves = |service| services.contains(&service);
        if serves(config::Service::ConnectUdp) {
            self.services.udp.extend(listener.templates.iter().cloned());
        }
        if serves(config::Service::ConnectTcp) {
            self.services
                .tcp
                .extend(listener.tcp_templates.iter().cloned());
        }
        let has_way = self.checked.ip.is_some() || !self.hops.is_empty();
        if serves(config::Service::ConnectIp) && has_way {
            self.services
                .ip
                .extend(listener.ip_templates.iter().cloned());
        }
        self.services.classic = serves(config::Service::Connect);
        self.origins
            .extend(listener.origins.iter().map(|origin| origin.as_str().into()));

        let workers = self.steer.workers() as usize;
        let sharing = Sharing {
            // [::] means everybody, as operators expect of it.
            dual_stack: listener.address.ip().is_unspecified(),
            reuseport: listener.reuseport,
        };
        let on_quic = listener.carriers.contains(&Carrier::H3);
        let tcp_carriers: Vec<_> = listener
            .carriers
            .iter()
            .copied()
            .filter(|carrier| *carrier != Carrier::H3)
            .collect();
        let (datagrams, streams) = match (on_quic, tcp_carriers.is_empty()) {
            (true, false) => bind_both(listener.address, workers, sharing),
            (true, true) => bind_group(listener.address, workers, sharing)
                .map(|datagrams| (datagrams, Vec::new())),
            (false, _) => bind_tcp_group(listener.address, workers, sharing)
                .map(|streams| (Vec::new(), streams)),
        }
        .map_err(BuildError::Listen)?;
        let address = match (datagrams.first(), streams.first()) {
            (Some(first), _) => first.local_addr()?,
            (None, Some(first)) => first.local_addr()?,
            (None, None) => unreachable!("check() wants a carrier for each listener"),
        };
        self.addresses.push(address);
        if let Some(first) = datagrams.first() {
            // A program would be one for all that have the address, and number sockets that are not ours.
            if !listener.reuseport {
                self.steer(first, workers)?;
            }
            self.h3_port = self.h3_port.or_else(|| Some(address.port()));
        }
        // Where others have the address too, connections that we do not know may be theirs.
        let host = self.host.as_deref().filter(|_| !listener.reuseport);
        self.servers.push(on_quic.then(|| Serving {
            shared: listener_endpoint(tls, host, address),
            server,
        }));
        self.sockets.push(datagrams.into_iter().map(Some).collect());
        self.tcp_servers.push(match tcp_carriers.is_empty() {
            true => None,
            false => Some(tls.tcp_config(&tcp_carriers, false)?),
        });
        self.tcp_sockets
            .push(streams.into_iter().map(Some).collect());
        Ok(())
    }

    /// Has the kernel bring packets to the worker of their connection.
    fn steer(&self, first: &UdpSocket, workers: usize) -> Result<(), BuildError> {
        if workers == 1 || self.checked.steering == config::Steering::Mailbox {
            return Ok(());
        }
        match steer::attach(first, &self.steer.program()) {
            Err(error) if self.checked.steering == config::Steering::Kernel => {
                return Err(BuildError::Steering(error));
            }
            Err(error) => {
                tracing::warn!(%error, "no steering by the kernel; strays travel by mailbox");
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// The mailboxes of all workers.
    pub fn peers(&self) -> &[Address] {
        &self.peers
    }

    /// The configuration.
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// What worker `worker` needs, to be finished by [`Seed::grow`] on its own thread.
    ///
    /// # Panics
    /// When the same worker is asked for twice.
    pub fn seed(&mut self, worker: u32) -> Seed {
        let index = worker as usize;
        Seed {
            worker,
            checked: Arc::clone(&self.checked),
            dialler: self.dialler.clone(),
            servers: self.servers.clone(),
            steer: self.steer,
            options: self.options.clone(),
            hops: self.hops.clone(),
            policy: self.policy.clone(),
            embedded: self.embedded,
            services: self.services.clone(),
            secrets: self.secrets.clone(),
            h3_port: self.h3_port,
            origins: self.origins.clone(),
            listeners: self
                .sockets
                .iter_mut()
                .map(|group| group.get_mut(index).and_then(Option::take))
                .collect(),
            tcp_servers: self.tcp_servers.clone(),
            tcp_listeners: self
                .tcp_sockets
                .iter_mut()
                .map(|group| group.get_mut(index).and_then(Option::take))
                .collect(),
            exit: self.exit.as_mut().map(|exit| exit.seed(worker)),
            mailbox: self.mailboxes[index].take().expect("asked once"),
            peers: self.peers.clone(),
        }
    }
}

/// One worker before it has a thread.
pub struct Seed {
    worker: u32,
    checked: Arc<Checked>,
    dialler: EndpointConfig,
    servers: Vec<Option<Serving>>,
    steer: Steer,
    options: Options,
    hops: Vec<Hop>,
    policy: Policy,
    embedded: bool,
    services: Services,
    secrets: Option<Arc<Secrets>>,
    /// Where HTTP/3 is served, for those who come by TCP.
    h3_port: Option<u16>,
    origins: Vec<Box<str>>,
    listeners: Vec<Option<UdpSocket>>,
    tcp_servers: Vec<Option<Arc<rustls::ServerConfig>>>,
    tcp_listeners: Vec<Option<TcpListener>>,
    exit: Option<ExitSeed>,
    mailbox: Mailbox,
    peers: Vec<Address>,
}

impl Seed {
    /// Opens what is left to open, on the worker's own thread. The id of the route to the next hops, if there are
    /// any, comes along.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn grow<A: App>(
        self,
        app: impl FnOnce(Option<RouteId>, &mut Driver) -> io::Result<A>,
        questions: tokio::sync::mpsc::Sender<Question>,
    ) -> io::Result<Worker<A>> {
        let checked = &*self.checked;
        let mut driver = Driver::new(driver_config(checked))?;
        let mut hub = Hub::new(hub_limits(checked), h3_config(checked));

        let mut listeners = Vec::new();
        let mut sockets = Vec::new();
        let endpoint = |shared: &_| endpoint_config(shared, self.steer, self.worker);
        for (number, pair) in self.listeners.into_iter().zip(self.servers).enumerate() {
            let (Some(socket), Some(serving)) = pair else {
                sockets.push(None);
                listeners.push(None);
                continue;
            };
            let tag = Tag::Listener(number as u32);
            sockets.push(Some(driver.add(
                socket,
                SocketKind::Shared,
                tag.to_bits(),
            )?));
            let Serving { shared, server } = serving;
            let listening = quinn_proto::Endpoint::new(endpoint(&shared), Some(server), true, None);
            listeners.push(Some(hub.add_endpoint(listening)));
        }
        for (number, listener) in self.tcp_listeners.into_iter().enumerate() {
            if let Some(listener) = listener {
                driver.add_tcp_listener(listener, TcpTag::Listener(number as u32).to_bits())?;
            }
        }
        let dialler = quinn_proto::Endpoint::new(endpoint(&self.dialler), None, true, None);
        let dialler = hub.add_endpoint(dialler);
        let dialler_socket = dialler_socket(&mut driver)?;

        let mut pool = Pool::new(
            pool_limits(checked),
            (dialler, dialler_socket),
            self.options,
        );
        let hop = (!self.hops.is_empty()).then(|| pool.add_route(self.hops));
        let handler = match hop {
            _ if self.embedded => Handler::Embedded,
            Some(_) => Handler::Chain(self.policy),
            None => Handler::Direct(self.policy),
        };
        let mut server = Server::new(&checked.name, self.services, self.origins, handler);
        if let Some(port) = self.h3_port {
            server = server.with_h3_port(port);
        }
        if let (Some(secrets), Some(files)) = (self.secrets, &checked.auth) {
            server = server.with_auth(secrets::auth(secrets, files, checked));
        }
        let gateway = self
            .exit
            .map(|exit| exit.grow(self.worker, &mut driver))
            .transpose()?;
        let app = app(hop, &mut driver)?;
        let machine = Machine::new(Setup {
            carriers: Carriers {
                quic: hub,
                tcp: TcpHub::new(tcp_hub_limits(checked)),
            },
            tcp_listeners: self.tcp_servers,
            listeners,
            dialler: (dialler, dialler_socket),
            pool,
            route: hop,
            server,
            gateway,
            steer: (self.steer, self.worker),
            limits: machine_limits(checked),
        });
        Ok(Worker {
            worker: self.worker,
            machine,
            driver,
            listeners: sockets,
            app,
            mailbox: self.mailbox,
            peers: self.peers,
            questions,
            spin: checked.spin,
        })
    }
}

/// A socket that dials IPv6 and IPv4, or IPv4 alone where there is no IPv6.
fn dialler_socket(driver: &mut Driver) -> io::Result<SocketId> {
    let any = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 0);
    let bound = bind_group(
        any("::"),
        1,
        Sharing {
            dual_stack: true,
            ..Sharing::default()
        },
    )
    .or_else(|_| bind_group(any("0.0.0.0"), 1, Sharing::default()))?;
    let socket = bound.into_iter().next().expect("one was asked for");
    driver.add(socket, SocketKind::Shared, Tag::Dialler.to_bits())
}

fn upstream_hops(checked: &Checked) -> Result<Vec<Hop>, BuildError> {
    let upstream = &checked.upstream;
    if upstream.hops.is_empty() {
        return Ok(Vec::new());
    }
    let trust = Trust::from_options(upstream.ca.clone(), upstream.dangerous_insecure);
    let credentials = secrets::load_credentials(checked)?;
    hops(RouteOptions {
        carriers: upstream.carriers.clone(),
        headers: upstream.headers.clone(),
        credentials,
        ..RouteOptions::new(upstream.hops.clone(), trust)
    })
}

pub use super::route::{RelayOptions, RouteOptions, hops};

/// Bounds of a worker's hub.
pub fn hub_limits(checked: &Checked) -> HubLimits {
    HubLimits {
        connections_max: checked.limits.connections,
        streams_max: checked.limits.tunnels_per_connection,
        retry_handshakes: checked.quic.retry_handshakes,
        handshakes_max: checked.quic.max_pending_handshakes,
        handshake_timeout: checked.timeouts.handshake,
        outbox: outbox_limits(checked),
    }
}

fn outbox_limits(checked: &Checked) -> OutboxLimits {
    OutboxLimits {
        datagrams_max: checked.limits.queue_datagrams,
        bytes_max: checked.limits.queue_bytes,
    }
}

/// Bounds of the connections over TCP of a worker.
pub fn tcp_hub_limits(checked: &Checked) -> TcpHubLimits {
    let Checked { limits, tcp, .. } = checked;
    TcpHubLimits {
        connections_max: tcp.connections,
        connections_per_address_max: tcp.connections_per_address,
        streams_max: limits.tunnels_per_connection,
        field_section_bytes: u32::try_from(limits.field_section_bytes).unwrap_or(u32::MAX),
        stream_window: tcp.stream_window,
        connection_window: tcp.connection_window,
        pending_bytes_max: tcp.pending_bytes,
        control_frames_max: tcp.control_frames,
        pending_resets_max: tcp.pending_resets,
        handshake_timeout: tcp.handshake_timeout,
        head_timeout: tcp.head_timeout,
        idle_timeout: tcp.idle_timeout,
        write_timeout: tcp.write_timeout,
        outbox: outbox_limits(checked),
        ..TcpHubLimits::default()
    }
}

/// Bounds of each HTTP/3 connection.
pub fn h3_config(checked: &Checked) -> h3::Config {
    let field_section_size_max = checked.limits.field_section_bytes;
    let (status, headers) = Refusal::HeadTooLarge.head(&checked.name);
    // As the defaults relate to each other, so that a head of legal length is never taken for abuse.
    let scaled = |default: u32| {
        let scaled =
            u64::from(default) * field_section_size_max / h3::Config::FIELD_SECTION_SIZE_MAX;
        u32::try_from(scaled).unwrap_or(u32::MAX).max(default)
    };
    h3::Config {
        field_section_size_max,
        too_large: Arc::new(ResponseHead { status, headers }),
        headers_len_max: field_section_size_max * 2,
        pending_write_bytes_max: config::limits::STREAM_WRITE_BYTES,
        undelivered_stream_bytes_max: scaled(h3::Config::UNDELIVERED_STREAM_BYTES_MAX),
        undelivered_connection_bytes_max: scaled(h3::Config::UNDELIVERED_CONNECTION_BYTES_MAX),
        ..h3::Config::default()
    }
}

/// Bounds of a worker's machine.
pub fn machine_limits(checked: &Checked) -> MachineLimits {
    MachineLimits {
        tunnels_max: checked.limits.tunnels,
        target_sockets_max: checked.limits.target_sockets,
        resolves_max: checked.limits.resolves,
        early: EarlyLimits {
            datagrams_max: checked.limits.early_datagrams,
            bytes_max: checked.limits.early_bytes,
        },
        tunnel_idle: checked.timeouts.tunnel_idle,
        tcp_idle: checked.timeouts.tcp_idle,
        tcp_buffer_bytes: checked.limits.tcp_buffer_bytes,
        head_starts: checked.upstream.head_starts,
        open_timeout: checked.timeouts.open,
        drain: checked.timeouts.drain,
    }
}

/// Bounds of a worker's pool.
pub fn pool_limits(checked: &Checked) -> PoolLimits {
    PoolLimits {
        connections_per_hop_max: config::limits::CONNECTIONS_PER_HOP,
        own_connections_per_hop_max: checked.limits.tunnels,
        waiting_per_hop_max: checked.limits.tunnels,
        backoff_min: BACKOFF.0,
        backoff_max: BACKOFF.1,
    }
}

fn driver_config(checked: &Checked) -> DriverConfig {
    let offload = |offload| match offload {
        config::Offload::Auto => Offload::Auto,
        config::Offload::Off => Offload::Off,
    };
    DriverConfig {
        gso: offload(checked.gso),
        gro: offload(checked.gro),
        ..DriverConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config::{Environment, limits, parse};
    use crate::transport::tls::{ClientAuth, DevCa};

    #[test]
    fn the_largest_head_is_never_taken_for_abuse() {
        let mut environment = Environment::new("/", NonZeroUsize::MIN, "relay.test");
        environment.dev_listen = Some(([192, 0, 2, 1], 443).into());
        for bytes in [
            limits::FIELD_SECTION_BYTES.min,
            limits::FIELD_SECTION_BYTES.max,
        ] {
            let text = format!("[limits]\nfield_section_bytes = {bytes}");
            let config = h3_config(&parse(&text, &environment).unwrap());
            assert!(config.headers_len_max > config.field_section_size_max);
            assert!(u64::from(config.undelivered_stream_bytes_max) > config.headers_len_max);
            assert!(config.undelivered_connection_bytes_max > config.undelivered_stream_bytes_max);
        }
    }

    /// What a program gives to [`Plan::with_identities`], workers sharing each address.
    #[test]
    fn listeners_may_have_identities_of_the_programs() {
        let mut environment = Environment::new("/", NonZeroUsize::MIN, "relay.test");
        environment.dev_listen = Some(([127, 0, 0, 1], 0).into());
        let checked = parse("workers = 2", &environment).unwrap();
        let (listeners, workers) = (checked.listen.len(), checked.workers.get());
        assert_eq!(workers, 2);
        let authority = DevCa::new(&[], std::time::SystemTime::UNIX_EPOCH).unwrap();
        let tls = |client_auth| ListenerTls {
            client_auth,
            ..authority.identity.clone().into()
        };
        let required = ClientAuth::Required(authority.ca_pem.clone());
        let identities = vec![tls(required); listeners];
        let mut plan = Plan::with_identities(checked.clone(), identities).unwrap();
        let bound: Vec<_> = (0..2)
            .flat_map(|worker| plan.seed(worker).listeners)
            .map(|socket| socket.unwrap().local_addr().unwrap())
            .collect();
        assert_eq!(bound.len(), 2 * listeners);
        assert!(bound.iter().all(|address| plan.addresses.contains(address)));

        let few = Plan::with_identities(checked.clone(), Vec::new()).err();
        assert!(matches!(few, Some(BuildError::Identities { .. })));
        let broken = vec![tls(ClientAuth::Required(String::new())); listeners];
        let refused = Plan::with_identities(checked, broken).err();
        assert!(matches!(refused, Some(BuildError::Tls(_))));
    }
}
