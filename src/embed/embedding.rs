//! Tunnels of a server that is the user's own.
//!
//! ```text
//!   the user's hyper, h2, h3 ─ head ─► Embedding::accept ─► Handler ─► EmbeddedTunnel ─┬─ head of the answer
//!                            ◄────────────── bytes of the request stream ◄─────────────┘  AsyncRead + AsyncWrite
//! ```
//!
//! The same judgement of requests and the same handlers as in a [`Listener`](super::Listener), on workers without
//! listeners. Connections, TLS and streams stay with the user's server, which copies bytes.

use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::header::{CONNECTION, HOST, UPGRADE};
use ::http::{HeaderValue, Method, Response, StatusCode, Version};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::embedding_stream::EmbeddedTunnel;
use super::handler::{Handler, Ready, Reject, Served};
use super::handler_guard::{Panicked, guarded, guarded_future};
use super::host::Command;
use super::host::sessions::{Counters, Serve, SessionsSetup};
use super::host::users::{self, Attached, Open};
use super::listener::not_built;
use super::proxy::{Later, Way};
use super::request::Request;
use super::running::Running;
use super::serving::Serving;
use super::tunnel::{Handle, Held, Protocol, Shared, Terms};
use crate::error::{Error, ErrorKind, Refusal, Side, Unreachable};
use crate::handler;
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::clock;
use crate::server::{Server, Services};
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::{CONNECT_IP, CONNECT_UDP, Revision};
use crate::worker::Incoming;
use crate::worker::build::Plan;

/// Datagrams and packets of a tunnel that wait for the user's server to take them; the oldest give way.
const QUEUE_DATAGRAMS: usize = 1_000;

/// Runs the tunnels of an HTTP server that is the user's own: on hyper, h2, h3, with any executor.
///
/// Cheap to clone. Its threads end with the last clone and the last tunnel.
///
/// ```no_run
/// # async fn example(
/// #     embedding: bauta::Embedding,
/// #     mut request: hyper::Request<hyper::body::Incoming>,
/// #     client: std::net::SocketAddr,
/// # ) -> hyper::Response<()> {
/// // In a service of hyper, over HTTP/1.1:
/// let mut tunnel = match embedding.accept(&request, client).await {
///     Ok(tunnel) => tunnel,
///     Err(response) => return response,
/// };
/// let response = tunnel.response();
/// tokio::spawn(async move {
///     if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
///         let mut upgraded = hyper_util::rt::TokioIo::new(upgraded);
///         tokio::io::copy_bidirectional(&mut upgraded, &mut tunnel).await.ok();
///     }
/// });
/// response
/// # }
/// ```
#[derive(Clone)]
pub struct Embedding(Arc<Inner>);

struct Inner {
    running: Arc<Running>,
    handler: Arc<dyn Handler>,
    server: Server,
    open_timeout: Duration,
    /// One for each tunnel that may be open.
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
    next: AtomicUsize,
}

impl Embedding {
    /// Starts a worker for the tunnels that `handler` accepts, under the well-known templates and by classic CONNECT:
    /// [`builder`](Self::builder) with nothing but defaults.
    ///
    /// # Errors
    /// What the system refuses: threads, sockets, its list of name servers.
    pub fn new(handler: impl Handler) -> Result<Self, Error> {
        Self::builder(handler).start()
    }

    /// The same with options.
    pub fn builder(handler: impl Handler) -> EmbeddingBuilder {
        EmbeddingBuilder {
            handler: Arc::new(handler),
            serving: Serving::default(),
        }
    }

    /// Whether a request asks for a tunnel, and so is for [`accept`](Self::accept) and not for the user's own pages:
    /// CONNECT, or an upgrade of HTTP/1.1 to `connect-udp`, `connect-tcp` or `connect-ip`. Templates, targets and
    /// handlers are not asked.
    ///
    /// An extended CONNECT counts by the `h2::ext::Protocol` in the request. One without it counts whatever its
    /// `:protocol` is: a server that offers others too, such as `websocket`, looks at that first.
    #[must_use]
    pub fn is_tunnel<B>(request: &::http::Request<B>) -> bool {
        let protocol = request.extensions().get::<h2::ext::Protocol>();
        let (head, _) = head_of(request, protocol.map(h2::ext::Protocol::as_str));
        let is_known = |token: &str| {
            [CONNECT_UDP, CONNECT_IP]
                .iter()
                .any(|known| token.eq_ignore_ascii_case(known))
                || Revision::of_token(token).is_some()
        };
        head.method == Method::CONNECT && head.protocol.as_deref().is_none_or(is_known)
    }

    /// Judges a request, asks the handler, and opens the tunnel.
    ///
    /// Understands classic CONNECT of every version, upgrades of HTTP/1.1, and extended CONNECT where the `h2` package
    /// left its `h2::ext::Protocol` in the request; for others there is [`accept_extended`](Self::accept_extended).
    ///
    /// # Errors
    /// The response to give instead, without content.
    pub fn accept<B>(
        &self,
        request: &::http::Request<B>,
        client: SocketAddr,
    ) -> impl Future<Output = Result<EmbeddedTunnel, Response<()>>> + Send {
        let protocol = request.extensions().get::<h2::ext::Protocol>();
        // The future does not hold the request, whose content need not be `Sync`.
        let (head, carrier) = head_of(request, protocol.map(h2::ext::Protocol::as_str));
        self.open(head, carrier, client)
    }

    /// The same for an extended CONNECT (RFC 8441 §4, RFC 9220 §3) whose `:protocol` the user's server knows: hyper has
    /// it in `hyper::ext::Protocol`, h3 in `h3::ext::Protocol`, both among the extensions of the request.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_extended<B>(
        &self,
        request: &::http::Request<B>,
        protocol: &str,
        client: SocketAddr,
    ) -> impl Future<Output = Result<EmbeddedTunnel, Response<()>>> + Send {
        let (head, carrier) = head_of(request, Some(protocol));
        self.open(head, carrier, client)
    }

    /// Calls into code of the user that panicked.
    #[must_use]
    pub fn handler_panics(&self) -> u64 {
        self.0.counters.panics.load(Ordering::Relaxed)
    }

    /// Closes all tunnels, ends the threads and waits for it.
    pub async fn stop(&self) {
        self.0.running.stop();
        self.0.running.ended().await;
    }

    /// As [`stop`](Self::stop), on a plain thread.
    pub fn stop_blocking(&self) {
        self.0.running.stop_and_join();
    }

    async fn open(
        &self,
        head: RequestHead,
        carrier: Carrier,
        client: SocketAddr,
    ) -> Result<EmbeddedTunnel, Response<()>> {
        let Inner {
            running, server, ..
        } = &*self.0;
        let refuse = |refusal| response(server.refusal(refusal, None, carrier));
        // What was an upgrade is answered as one.
        let upgrade = match (carrier, &head.path) {
            (Carrier::H1, Some(_)) => head.protocol.clone(),
            _ => None,
        };
        let plan = server.plan(&head, carrier).map_err(refuse)?;
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else {
            return Err(refuse(Refusal::Overloaded));
        };
        let incoming = Incoming {
            head,
            protocol: plan.protocol,
            destination: plan.destination.clone(),
            carrier,
            client: Some(client),
            certificate: None,
        };
        let decided = self.decide(Request::of_tunnel(incoming)).await;
        let (ready, fields) = decided.map_err(|reject| self.rejection(reject))?;
        let terms = Terms {
            protocol: Protocol::of(plan.protocol),
            destination: plan.destination,
            relays: Arc::from([]),
            capsules: true,
            receive_queue: QUEUE_DATAGRAMS,
            carried: Some(carrier),
        };
        let workers = running.senders();
        let next = self.0.next.fetch_add(1, Ordering::Relaxed);
        let Some(worker) = workers.get(next % workers.len().max(1)) else {
            return Err(refuse(Refusal::Internal));
        };
        if let Ready::Way(Way::Chain(chain)) = &ready {
            chain.route.known_to(worker);
        }
        let shared = Arc::new(Shared::new(terms, worker.clone()));
        worker.send(Command::Open(Box::new(Open {
            held: Held(Arc::clone(&shared)),
            way: way_of(ready),
            until: clock::now() + self.0.open_timeout,
        })));
        let handle = Handle::new(Arc::clone(&shared), Arc::clone(running));
        let mut answer = server.accepted(plan.protocol, carrier);
        answer.headers.extend(fields);
        if let Some(token) = upgrade.and_then(|token| HeaderValue::try_from(&*token).ok()) {
            answer.status = StatusCode::SWITCHING_PROTOCOLS;
            answer
                .headers
                .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            answer.headers.insert(UPGRADE, token);
        }
        let tunnel = EmbeddedTunnel::new(handle, shared, plan.protocol, answer, place);
        match tunnel.opened().await {
            Ok(()) => Ok(tunnel),
            Err(error) => Err(self.failure(&error, carrier)),
        }
    }

    /// Asks the handler, and waits for its future if it has one.
    async fn decide(&self, request: Request) -> Result<Served, Reject> {
        let Inner {
            handler, counters, ..
        } = &*self.0;
        let accepted = guarded("accept", &counters.panics, || handler.accept(&request));
        let accept = accepted.map_err(|Panicked| Reject::panicked())??;
        match accept.served() {
            Ok(served) => Ok(served),
            Err(later) => self.wait(later).await,
        }
    }

    /// Runs a future of the handler where its kind runs.
    async fn wait(&self, future: Later<Result<Served, Reject>>) -> Result<Served, Reject> {
        let (counters, timeout) = (Arc::clone(&self.0.counters), self.0.open_timeout);
        let mut task = AbortOnDrop(self.0.running.control().spawn(async move {
            let guarded = guarded_future("init", &counters.panics, future);
            tokio::time::timeout(timeout, guarded).await
        }));
        match (&mut task.0).await {
            Ok(Ok(Ok(outcome))) => outcome,
            Ok(Ok(Err(Panicked))) => Err(Reject::panicked()),
            Ok(Err(_)) => Err(Reject::new(StatusCode::GATEWAY_TIMEOUT)),
            // The threads end.
            Err(_) => Err(Reject::unavailable()),
        }
    }

    fn rejection(&self, reject: Reject) -> Response<()> {
        let rejection = reject.into_rejection();
        let mut head = ResponseHead {
            status: rejection.status,
            headers: rejection.headers,
        };
        let details = rejection.details.as_deref();
        (self.0.server).add_proxy_status(&mut head, rejection.error, details);
        response(head)
    }

    /// The answer to a request whose tunnel did not open.
    fn failure(&self, error: &Error, carrier: Carrier) -> Response<()> {
        use std::error::Error as _;
        let server = &self.0.server;
        let source = error.source().and_then(|source| source.downcast_ref());
        let refusal = match (error.status(), source) {
            (Some(status), _) => Refusal::NextHopStatus { status },
            (None, Some(Unreachable(refusal))) => *refusal,
            (None, None) if error.kind() == ErrorKind::Timeout => Refusal::ConnectTimeout,
            (None, None) => Refusal::Internal,
        };
        response(server.refusal(refusal, error.headers(), carrier))
    }
}

/// What an embedding will be. From [`Embedding::builder`]; every option has a default.
///
/// Values are checked by [`start`](Self::start), which names every key that is out of bounds, with the bound. The keys
/// are those of the configuration of `bauta relay`, which describes them at length.
#[must_use]
pub struct EmbeddingBuilder {
    handler: Arc<dyn Handler>,
    serving: Serving,
}

impl EmbeddingBuilder {
    /// Adds a template for the paths of UDP tunnels, as
    /// [`ListenerBuilder::udp_template`](super::ListenerBuilder::udp_template).
    pub fn udp_template(mut self, template: impl Into<String>) -> Self {
        self.serving.udp_templates.push(template.into());
        self
    }

    /// Adds a template for the paths of TCP tunnels, as
    /// [`ListenerBuilder::tcp_template`](super::ListenerBuilder::tcp_template).
    pub fn tcp_template(mut self, template: impl Into<String>) -> Self {
        self.serving.tcp_templates.push(template.into());
        self
    }

    /// Adds a template for the paths of IP tunnels, as
    /// [`ListenerBuilder::ip_template`](super::ListenerBuilder::ip_template).
    pub fn ip_template(mut self, template: impl Into<String>) -> Self {
        self.serving.ip_templates.push(template.into());
        self
    }

    /// Adds an accepted value of `:authority`; templated requests for others are answered with 421. Default: all are
    /// accepted.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.serving.origins.push(origin.into());
        self
    }

    /// Worker threads, 1 to 1,024. Default: one. Tunnels take turns among them.
    pub fn workers(mut self, workers: usize) -> Self {
        self.serving.workers = Some(workers);
        self
    }

    /// Open tunnels per worker (`limits.tunnels`), those that are being opened included. Who asks for more is answered
    /// with 503.
    pub fn max_tunnels(mut self, tunnels: usize) -> Self {
        self.serving.limit("tunnels", tunnels);
        self
    }

    /// How long opening a tunnel may take (`timeouts.open`): first what [`Accept::init`](super::Accept::init) does, and
    /// then resolving and connecting, each for so long. Default: 10 s. Then the client is answered with 504.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.serving.timeout("open", timeout);
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for values out of bounds, each named with its bound; [`ErrorKind::Io`] for what the
    /// system refuses: threads, sockets, its list of name servers.
    pub fn start(self) -> Result<Embedding, Error> {
        // A configuration has a listener; of this one nothing but its services is kept.
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut checked = (self.serving).checked(address, &Carrier::ALL, NonZeroUsize::MIN)?;
        let listeners = std::mem::take(&mut checked.listen);
        let Some(listener) = listeners.into_iter().next() else {
            return Err(Error::new(ErrorKind::Internal, Side::Local));
        };
        let services = Services {
            udp: listener.templates,
            tcp: listener.tcp_templates,
            ip: listener.ip_templates,
            classic: true,
        };
        let origins = listener.origins.into_iter().map(String::into_boxed_str);
        let handling = handler::Handler::Embedded;
        let server = Server::new(&checked.name, services, origins.collect(), handling);
        let open_timeout = checked.timeouts.open;
        let tunnels = (checked.limits.tunnels).saturating_mul(checked.workers.get());
        let places = Arc::new(Semaphore::new(tunnels.min(Semaphore::MAX_PERMITS)));
        let mut plan = Plan::new(checked, None).map_err(not_built)?;
        plan.set_embedded();
        let handler = self.handler;
        let counters = Arc::new(Counters::default());
        let (served, counted) = (Arc::clone(&handler), Arc::clone(&counters));
        let running = Running::start(plan, "bauta", None, move |sender, control| SessionsSetup {
            serve: Some(Serve {
                handler: Arc::clone(&served),
                fallback: None,
                control: control.clone(),
                sender: sender.clone(),
                own: Arc::from([]),
                counters: Arc::clone(&counted),
            }),
        })?;
        Ok(Embedding(Arc::new(Inner {
            running: Arc::new(running),
            handler,
            server,
            open_timeout,
            places,
            counters,
            next: AtomicUsize::new(0),
        })))
    }
}

impl fmt::Debug for EmbeddingBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingBuilder")
            .field("serving", &self.serving)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedding")
            .field("running", &self.0.running)
            .finish_non_exhaustive()
    }
}

/// A future of a handler, which goes with whoever waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn way_of(ready: Ready) -> users::Way {
    match ready {
        Ready::Session(session) => users::Way::Session(Attached(session)),
        Ready::Way(Way::Direct(direct)) => users::Way::Direct(Box::new(direct)),
        Ready::Way(Way::Gateway(gate)) => users::Way::Gateway(Box::new(gate)),
        Ready::Way(Way::Chain(chain)) => users::Way::Route {
            route: chain.route,
            form: None,
            headers: ::http::HeaderMap::new(),
        },
    }
}

/// The request in our own words, in the form that all HTTP versions share.
fn head_of<B>(request: &::http::Request<B>, protocol: Option<&str>) -> (RequestHead, Carrier) {
    let uri = request.uri();
    let is_h1 = request.version() <= Version::HTTP_11;
    let headers = request.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let upgrades = is_h1 && request.method() != Method::CONNECT;
    let protocol = match upgrades {
        true => text(UPGRADE).filter(|_| asks_for_upgrade(headers)),
        false => protocol,
    };
    let authority = uri.authority().map(|authority| authority.as_str());
    let is_classic = request.method() == Method::CONNECT && protocol.is_none();
    let path = match is_classic {
        true => None,
        false => Some(uri.path_and_query().map_or("/", |path| path.as_str())),
    };
    let head = RequestHead {
        method: match (upgrades, protocol) {
            (true, Some(_)) => Method::CONNECT,
            _ => request.method().clone(),
        },
        protocol: protocol.map(Box::from),
        scheme: path.map(|_| Box::from("https")),
        authority: authority.or_else(|| text(HOST)).map(Box::from),
        path: path.map(Box::from),
        headers: headers.clone(),
    };
    let carrier = match request.version() {
        Version::HTTP_3 => Carrier::H3,
        Version::HTTP_2 => Carrier::H2,
        _ => Carrier::H1,
    };
    (head, carrier)
}

/// Whether `Connection` names `Upgrade` (RFC 9110 §7.8).
fn asks_for_upgrade(headers: &::http::HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    let mut options = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|it| it.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

fn response(head: ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}
