//! A server of a user's: addresses, certificates, limits, and a handler.
//!
//! ```text
//!   Listener::all(address) ─► ListenerBuilder ─ identity, handler, limits ─► start ─► Listener
//!                                                                                     drain, undrain, stop
//! ```

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::handler::Handler;
use super::host::sessions::{Counters, Fallback, Serve, SessionsSetup};
use super::listener_identity::Identity;
use super::listener_stats::ListenerStats;
use super::proxy::{Hook, Later};
use super::request::Request;
use super::running::Running;
use super::serving::{Serving, misuse};
use crate::error::{Error, ErrorKind, Side};
use crate::net::{own_interfaces, raise_file_limit};
use crate::policy::own_addresses;
use crate::transport::tls::{ClientAuth, ListenerTls};
use crate::wire::carrier::Carrier;
use crate::worker::build::{BuildError, Plan};

/// A shutdown ends after this long, whatever it was told.
const DRAIN_MAX: Duration = Duration::from_secs(86_400);

/// What a listener will be. From [`Listener::all`] and its siblings; every option has a default but
/// [`identity`](Self::identity) and [`handler`](Self::handler).
///
/// Values are checked by [`start`](Self::start), which names every key that is out of bounds, with the bound. The keys
/// are those of the configuration of `bauta relay`, which describes them at length.
#[must_use]
pub struct ListenerBuilder {
    address: SocketAddr,
    carriers: Vec<Carrier>,
    identities: Vec<Identity>,
    client_auth: ClientAuth,
    handler: Option<Arc<dyn Handler>>,
    fallback: Option<Fallback>,
    serving: Serving,
    reuseport: bool,
}

impl ListenerBuilder {
    fn new(address: SocketAddr, carriers: &[Carrier]) -> Self {
        Self {
            address,
            carriers: carriers.to_vec(),
            identities: Vec::new(),
            client_auth: ClientAuth::None,
            handler: None,
            fallback: None,
            serving: Serving::default(),
            reuseport: false,
        }
    }

    /// Adds a certificate chain with its key. A client that names the server (SNI, RFC 6066 §3) gets the first whose
    /// certificate is for that name, all others get the first of all.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Whether clients have to show certificates, and who must have signed them. Default: they are not asked.
    /// [`Request::certificate`](super::Request::certificate) has what was shown.
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// Who decides what becomes of requests for tunnels.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Answers requests that are no tunnels, such as a GET for a page, with ordinary responses. It runs on the worker
    /// thread and must not block. Without a fallback they get the error that says what the path takes.
    ///
    /// It never sees a request in absolute form, `GET http://origin.example/`, by which a client takes the relay for a
    /// proxy that fetches pages, as curl does without `--proxytunnel`: the answer is 405.
    ///
    /// The worker completes the response: `content-length`, no content for HEAD. Up to a megabyte of the request's
    /// content is read and thrown away. A panic answers 500.
    pub fn fallback(
        mut self,
        fallback: impl Fn(&Request) -> ::http::Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.fallback = Some(Hook::Now(Arc::new(fallback)));
        self
    }

    /// The same with a future, which runs as that of [`Accept::init`](super::Accept::init) does. It is bounded by
    /// [`open_timeout`](Self::open_timeout); then the client is answered with 503.
    pub fn fallback_async<F>(
        mut self,
        fallback: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ::http::Response<Bytes>> + Send + 'static,
    {
        let fallback = move |request: &Request| -> Later<::http::Response<Bytes>> {
            Box::pin(fallback(request.clone()))
        };
        self.fallback = Some(Hook::Later(Arc::new(fallback)));
        self
    }

    /// Adds a template for the paths of UDP tunnels, such as `/proxy/{target_host}/{target_port}` (RFC 9298 §2). The
    /// well-known one, `/.well-known/masque/udp/{target_host}/{target_port}/`, is always there.
    pub fn udp_template(mut self, template: impl Into<String>) -> Self {
        self.serving.udp_templates.push(template.into());
        self
    }

    /// Adds a template for the paths of TCP tunnels (draft-ietf-httpbis-connect-tcp §2). The well-known one is
    /// always there, and so is classic CONNECT, which has no path.
    pub fn tcp_template(mut self, template: impl Into<String>) -> Self {
        self.serving.tcp_templates.push(template.into());
        self
    }

    /// Adds a template for the paths of IP tunnels, with `target` and `ipproto` or without (RFC 9484 §4). The
    /// well-known one, `/.well-known/masque/ip/{target}/{ipproto}/`, is always there.
    pub fn ip_template(mut self, template: impl Into<String>) -> Self {
        self.serving.ip_templates.push(template.into());
        self
    }

    /// Adds an accepted value of `:authority`, such as `relay.example` or `relay.example:8443`; templated requests for
    /// others are answered with 421. Default: all are accepted.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.serving.origins.push(origin.into());
        self
    }

    /// The name of this relay in Via and Proxy-Status: a token of up to 64 characters. Default: `bauta-` and a random
    /// number, so that two relays of a chain differ.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.serving.name = Some(name.into());
        self
    }

    /// Worker threads, 1 to 1,024. Default: one per core. Each accepts by itself, on a socket of its own: there are as
    /// many acceptors as workers. A connection stays with its worker.
    pub fn workers(mut self, workers: usize) -> Self {
        self.serving.workers = Some(workers);
        self
    }

    /// Whether other listeners of the same user that say so too may have the address, in this process or another; the
    /// kernel spreads new clients over all (`SO_REUSEPORT`). Default: no, an address that is taken is an error.
    ///
    /// Connections over TCP stay where they were accepted. Those over QUIC are told apart by the client's address alone
    /// then: they do not survive its change, nor that a listener joins or leaves. And no listener tells the clients of
    /// one that has ended so (see [`Identity`]): they may be another's.
    pub fn reuseport(mut self, reuseport: bool) -> Self {
        self.reuseport = reuseport;
        self
    }

    /// Whether each worker is pinned to a core. Default: no.
    pub fn pin(mut self, pin: bool) -> Self {
        self.serving.pin = pin;
        self
    }

    /// Open requests per connection (`limits.tunnels_per_connection`).
    pub fn max_tunnels_per_connection(self, tunnels: u32) -> Self {
        self.limit("tunnels_per_connection", tunnels as usize)
    }

    /// Open tunnels per worker (`limits.tunnels`). Who asks for more is answered with 503.
    pub fn max_tunnels(self, tunnels: usize) -> Self {
        self.limit("tunnels", tunnels)
    }

    /// Connections over QUIC per worker (`limits.connections`).
    pub fn max_connections(self, connections: usize) -> Self {
        self.limit("connections", connections)
    }

    /// Sockets towards targets per worker (`limits.target_sockets`).
    pub fn max_target_sockets(self, sockets: usize) -> Self {
        self.limit("target_sockets", sockets)
    }

    /// Bytes held per TCP tunnel and direction while the far end takes nothing (`limits.tcp_buffer_bytes`).
    pub fn max_tcp_buffer_bytes(self, bytes: usize) -> Self {
        self.limit("tcp_buffer_bytes", bytes)
    }

    /// Bytes of the fields of a request (`limits.field_section_bytes`).
    pub fn max_field_section_bytes(self, bytes: usize) -> Self {
        self.limit("field_section_bytes", bytes)
    }

    /// How long opening a tunnel may take: what [`Accept::init`](super::Accept::init) does, resolving, connecting
    /// (`timeouts.open`). Default: 10 s. Then the client is answered with 504 or 503.
    pub fn open_timeout(self, timeout: Duration) -> Self {
        self.timeout("open", timeout)
    }

    /// How long resolving a name may take (`timeouts.resolve`). Default: 5 s.
    pub fn resolve_timeout(self, timeout: Duration) -> Self {
        self.timeout("resolve", timeout)
    }

    /// A UDP tunnel without a datagram for this long is ended (`timeouts.tunnel_idle`). Default: 180 s; RFC 9298 §3.1
    /// wants two minutes or more.
    pub fn udp_idle_timeout(self, timeout: Duration) -> Self {
        self.timeout("tunnel_idle", timeout)
    }

    /// A TCP tunnel on which nothing moves for this long is ended (`timeouts.tcp_idle`). Default: 7,440 s (RFC 5382
    /// §5).
    pub fn tcp_idle_timeout(self, timeout: Duration) -> Self {
        self.timeout("tcp_idle", timeout)
    }

    /// How long a handshake may take (`timeouts.handshake`). Default: 10 s.
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        self.timeout("handshake", timeout)
    }

    fn limit(mut self, key: &str, value: usize) -> Self {
        self.serving.limit(key, value);
        self
    }

    fn timeout(mut self, key: &str, value: Duration) -> Self {
        self.serving.timeout(key, value);
        self
    }

    /// Starts the workers. When this returns, clients can connect.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for values out of bounds, each named with its bound, and for a missing identity or
    /// handler; [`ErrorKind::Io`] when the system refuses the address or a thread.
    pub fn start(self) -> Result<Listener, Error> {
        let mut checked = (self.serving).checked(self.address, &self.carriers, cores())?;
        // How long a shutdown may take is said when it begins.
        checked.timeouts.drain = DRAIN_MAX;
        for listener in &mut checked.listen {
            listener.reuseport = self.reuseport;
        }
        let Some(handler) = self.handler else {
            return Err(misuse("no handler: call ListenerBuilder::handler"));
        };
        if self.identities.is_empty() {
            return Err(misuse("no certificate: call ListenerBuilder::identity"));
        }
        let tls = ListenerTls {
            identities: self.identities.into_iter().map(|it| it.0).collect(),
            client_auth: self.client_auth,
        };
        // Without more descriptors there are fewer tunnels, which is for the system to say when it comes to that.
        drop(raise_file_limit());
        let pin = (checked.pin && checked.workers.get() > 1).then_some(0);
        let mut plan = Plan::with_identities(checked, vec![tls]).map_err(not_built)?;
        plan.set_embedded();
        let interfaces = own_interfaces().map_err(system)?;
        let own: Arc<[SocketAddr]> = own_addresses(&plan.addresses, &interfaces).into();
        let counters = Arc::new(Counters::default());
        let (counted, fallback) = (Arc::clone(&counters), self.fallback);
        let running = Running::start(plan, "bauta", pin, move |sender, control| SessionsSetup {
            serve: Some(Serve {
                handler: Arc::clone(&handler),
                fallback: fallback.clone(),
                control: control.clone(),
                sender: sender.clone(),
                own: Arc::clone(&own),
                counters: Arc::clone(&counted),
            }),
        })?;
        Ok(Listener {
            running: Arc::new(running),
            counters,
            draining: AtomicBool::new(false),
        })
    }
}

impl fmt::Debug for ListenerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerBuilder")
            .field("address", &self.address)
            .field("carriers", &self.carriers)
            .field("serving", &self.serving)
            .finish_non_exhaustive()
    }
}

/// A running server. It runs on threads of its own, and ends when this is dropped.
///
/// ```
/// use bauta::{Identity, Listener, Proxies};
///
/// # fn main() -> Result<(), bauta::Error> {
/// // In earnest: Identity::load("chain.pem", "key.pem")?
/// let (identity, ca_pem) = Identity::development(&[])?;
/// let relay = Listener::all(([127, 0, 0, 1], 0))
///     .identity(identity)
///     .handler(Proxies::new())
///     .start()?;
/// println!("listening on {}; trust {ca_pem}", relay.local_addr());
/// relay.stop_blocking();
/// # Ok(())
/// # }
/// ```
pub struct Listener {
    running: Arc<Running>,
    counters: Arc<Counters>,
    draining: AtomicBool,
}

impl Listener {
    /// A listener for HTTP/3, on a UDP address; port 0 takes a free one.
    pub fn h3(address: impl Into<SocketAddr>) -> ListenerBuilder {
        ListenerBuilder::new(address.into(), &[Carrier::H3])
    }

    /// A listener for HTTP/2, on a TCP address; port 0 takes a free one.
    pub fn h2(address: impl Into<SocketAddr>) -> ListenerBuilder {
        ListenerBuilder::new(address.into(), &[Carrier::H2])
    }

    /// A listener for HTTP/1.1, on a TCP address; port 0 takes a free one.
    pub fn h1(address: impl Into<SocketAddr>) -> ListenerBuilder {
        ListenerBuilder::new(address.into(), &[Carrier::H1])
    }

    /// A listener for all of them, on UDP and TCP ports of the same number; port 0 takes one that is free for both.
    pub fn all(address: impl Into<SocketAddr>) -> ListenerBuilder {
        ListenerBuilder::new(address.into(), &Carrier::ALL)
    }

    /// The address that is listened on, with the port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    /// What happened so far, on all workers. Waits for a turn of each, but not for longer than a second: a worker that
    /// says nothing within that time, because a callback blocks it, is left out. A callback that asks for it does not
    /// hear of its own worker, which it keeps from answering.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        let panics = self.counters.panics.load(Ordering::Relaxed);
        ListenerStats::new(&self.running.reports(), panics)
    }

    /// Accepts nothing new: clients are told by GOAWAY (RFC 9114 §5.2, RFC 9113 §6.8), and refused after a moment. Open
    /// tunnels go on, and [`undrain`](Self::undrain) takes it back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.running.set_accepting(false);
    }

    /// Accepts again, on new connections: those that were told of the end stay with it.
    pub fn undrain(&self) {
        self.draining.store(false, Ordering::Release);
        self.running.set_accepting(true);
    }

    /// Whether nothing new is accepted.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Ends at once: every tunnel is closed, and every thread is waited for. Dropping does the same without waiting.
    pub async fn stop(self) {
        self.running.stop();
        self.running.ended().await;
    }

    /// As [`stop`](Self::stop), on a plain thread. In a callback, whose thread would wait for itself, it does not wait.
    pub fn stop_blocking(self) {
        self.running.stop_and_join();
    }

    /// Ends gracefully: accepts nothing new, as [`drain`](Self::drain), lets open tunnels go on for `grace` at most,
    /// and then does as [`stop`](Self::stop). Ends earlier when the last tunnel does.
    pub async fn shutdown(self, grace: Duration) {
        self.begin_shutdown(grace);
        self.running.ended().await;
    }

    /// As [`shutdown`](Self::shutdown), on a plain thread. In a callback it does not wait.
    pub fn shutdown_blocking(self, grace: Duration) {
        self.begin_shutdown(grace);
        self.running.join();
    }

    fn begin_shutdown(&self, grace: Duration) {
        self.running.drain();
        self.running.stop_after(grace);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", &self.local_addr())
            .field("is_draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}

pub(super) fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A name for `Via` and `Proxy-Status` that says nothing about the machine and differs between two relays.
pub(super) fn pseudonym() -> String {
    // The standard library seeds its hash maps from the system's random numbers.
    let number = RandomState::new().build_hasher().finish() >> 32;
    format!("bauta-{number:08x}")
}

fn system(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, Side::Local).with_source(error)
}

pub(super) fn not_built(error: BuildError) -> Error {
    let kind = match &error {
        BuildError::Identities { .. }
        | BuildError::Exit(_)
        | BuildError::Listen(_)
        | BuildError::Steering(_)
        | BuildError::System(_) => ErrorKind::Io,
        BuildError::Tls(_)
        | BuildError::Template(_)
        | BuildError::Secrets(_)
        | BuildError::Rule(_) => ErrorKind::Configuration,
    };
    Error::new(kind, Side::Local).with_source(error)
}
