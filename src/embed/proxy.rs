//! The built-in handlers: what a relay does with tunnels, with hooks for the parts that are the user's to decide.
//!
//! ```text
//!   request ─► rules ─► allow ─► resolver ─► rules on the addresses ─► UdpProxy, TcpProxy: a socket to the target
//!                                        └──────────────────────────► Chain: a tunnel of the next relay
//! ```
//!
//! Without hooks the worker does everything itself and the tunnel costs what it costs in `bauta relay`; its datagrams
//! and bytes never come near code of users. A hook decides before the tunnel opens, and is not heard of again. Rules
//! are judged on the very addresses that are connected to, also on those of a user's resolver.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::client::{Client, ClientBuilder, Route};
use super::handler::{Accept, Handler, Ready, Reject};
use super::ip_proxy::{self, IpProxy};
use super::request::Request;
use super::{Error, Protocol};
use crate::error::{ErrorKind, Refusal, Side};
use crate::net::SocketOptions;
use crate::policy::Policy;
use crate::wire::target::{Host, Target};
use crate::worker::{Direct, Family};

/// A tunnel that the worker moves by itself.
pub(super) enum Way {
    /// To a socket.
    Direct(Direct),
    /// To a next hop.
    Chain(ChainRoute),
    /// To the exit of an IP proxy.
    Gateway(Gate),
}

/// What an IP tunnel needs that leaves by an exit.
pub(super) struct Gate {
    pub(super) exit: Arc<ip_proxy::Exit>,
    pub(super) user: Option<Box<str>>,
    pub(super) direct: Direct,
}

/// A way to a next hop, prepared.
#[derive(Clone)]
pub(super) struct ChainRoute {
    pub(super) route: Arc<Route>,
    pub(super) timeout: Option<Duration>,
}

/// A future of a user's.
pub(super) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A function of a user's.
type Ask<A, T> = Arc<dyn Fn(&A) -> T + Send + Sync>;

/// A question to the user, asked at once or by a future.
pub(super) enum Hook<A: ?Sized, T> {
    Now(Ask<A, T>),
    Later(Ask<A, Later<T>>),
}

impl<A: ?Sized, T> Clone for Hook<A, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Now(hook) => Self::Now(Arc::clone(hook)),
            Self::Later(hook) => Self::Later(Arc::clone(hook)),
        }
    }
}

impl<A: ?Sized, T: Send + 'static> Hook<A, T> {
    /// Asks: the answer, or what will give it.
    pub(super) fn ask(&self, about: &A) -> Result<T, Later<T>> {
        match self {
            Self::Now(hook) => Ok(hook(about)),
            Self::Later(hook) => Err(hook(about)),
        }
    }
}

/// Adds a rule that allows, or denies.
pub(super) fn add_rule(policy: &mut Policy, text: &str, is_allow: bool) -> Result<(), Error> {
    let rule = text.parse().map_err(|error: crate::policy::RuleError| {
        Error::new(ErrorKind::Configuration, Side::Local).with_source(error)
    })?;
    match is_allow {
        true => policy.allow.push(rule),
        false => policy.deny.push(rule),
    }
    Ok(())
}

/// What the built-in handlers have in common.
#[derive(Clone, Default)]
struct Options {
    policy: Arc<Policy>,
    allow: Option<Hook<Target, bool>>,
    resolver: Option<Hook<str, io::Result<Vec<IpAddr>>>>,
    family: Family,
    socket: SocketOptions,
    timeout: Option<Duration>,
}

impl Options {
    fn rule(mut self, text: &str, is_allow: bool) -> Result<Self, Error> {
        add_rule(Arc::make_mut(&mut self.policy), text, is_allow)?;
        Ok(self)
    }

    fn public_only(mut self, public_only: bool) -> Self {
        Arc::make_mut(&mut self.policy).public_only = public_only;
        self
    }

    /// Asks the hooks, and then goes the way that `way` makes of the addresses, if a resolver gave any.
    fn accept<F>(&self, request: &Request, way: F) -> Result<Accept, Reject>
    where
        F: FnOnce(Option<Vec<IpAddr>>) -> Way + Send + 'static,
    {
        let target = request.target().ok_or_else(Reject::not_found)?;
        // A target that no address could make acceptable is not worth a question; without one the worker judges it.
        if self.allow.is_some() || self.resolver.is_some() {
            let judged = self.policy.check_target(target);
            judged.map_err(|denied| Reject::of(Refusal::from(denied)))?;
        }
        let timeout = self.timeout;
        let allowed = match self.allow.as_ref().map(|hook| hook.ask(target)) {
            None => Ok(()),
            Some(Ok(allowed)) => Ok(check_allowed(allowed)?),
            Some(Err(later)) => Err(later),
        };
        let resolver = match &target.host {
            Host::Ip(_) => None,
            Host::Name(name) => self.resolver.clone().map(|hook| (hook, name.clone())),
        };
        match (allowed, resolver) {
            (Ok(()), None) => Ok(Accept::ready(Ready::Way(way(None)))),
            (Ok(()), Some((Hook::Now(hook), name))) => {
                let addresses = check_resolved(hook(&name))?;
                Ok(Accept::ready(Ready::Way(way(Some(addresses)))))
            }
            (allowed, resolver) => Ok(Accept::later(async move {
                if let Err(later) = allowed {
                    check_allowed(later.await)?;
                }
                let addresses = match resolver.map(|(hook, name)| hook.ask(&name)) {
                    None => None,
                    Some(Ok(resolved)) => Some(check_resolved(resolved)?),
                    Some(Err(later)) => Some(check_resolved(within(timeout, later).await)?),
                };
                Ok(Accept::ready(Ready::Way(way(addresses))))
            })),
        }
    }

    /// To a socket.
    fn accept_direct(&self, request: &Request) -> Result<Accept, Reject> {
        let direct = Direct {
            addresses: None,
            policy: Arc::clone(&self.policy),
            family: self.family,
            socket: self.socket,
            timeout: self.timeout,
        };
        self.accept(request, move |addresses| {
            Way::Direct(Direct {
                addresses,
                ..direct
            })
        })
    }
}

/// What a resolver says within the time for reaching the target, if that is bounded.
async fn within(
    timeout: Option<Duration>,
    resolved: Later<io::Result<Vec<IpAddr>>>,
) -> io::Result<Vec<IpAddr>> {
    match timeout {
        Some(timeout) => {
            let resolved = tokio::time::timeout(timeout, resolved).await;
            resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        None => resolved.await,
    }
}

fn check_allowed(allowed: bool) -> Result<(), Reject> {
    match allowed {
        true => Ok(()),
        false => Err(Reject::forbidden().reason("the target is not allowed")),
    }
}

fn check_resolved(resolved: io::Result<Vec<IpAddr>>) -> Result<Vec<IpAddr>, Reject> {
    match resolved {
        Ok(addresses) if addresses.is_empty() => {
            let refusal = Refusal::DnsError { rcode: None };
            Err(Reject::of(refusal).reason("the name has no address"))
        }
        Ok(addresses) => Ok(addresses),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Reject::of(Refusal::DnsTimeout))
        }
        Err(error) => {
            // What it says is for us; a stranger learns that it failed.
            tracing::debug!(%error, "a resolver of the user failed");
            Err(Reject::of(Refusal::DnsError { rcode: None }))
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("policy", &self.policy)
            .field("has_allow", &self.allow.is_some())
            .field("has_resolver", &self.resolver.is_some())
            .field("family", &self.family)
            .field("socket", &self.socket)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// The options of a handler in whose `options` they are.
macro_rules! options {
    ($name:ident) => {
        impl $name {
            /// Allows a target for which `allow` says so. It runs on the worker thread, and must not block.
            pub fn allow(
                mut self,
                allow: impl Fn(&Target) -> bool + Send + Sync + 'static,
            ) -> Self {
                self.options.allow = Some(Hook::Now(Arc::new(allow)));
                self
            }

            /// The same with a future, which runs as that of [`Accept::init`] does.
            pub fn allow_async<F>(
                mut self,
                allow: impl Fn(Target) -> F + Send + Sync + 'static,
            ) -> Self
            where
                F: Future<Output = bool> + Send + 'static,
            {
                let allow =
                    move |target: &Target| -> Later<bool> { Box::pin(allow(target.clone())) };
                self.options.allow = Some(Hook::Later(Arc::new(allow)));
                self
            }

            /// Adds a rule that allows. The first one closes everything that no such rule matches, and a network opens
            /// addresses that are not public:
            ///
            /// | rules that allow | targets |
            /// |---|---|
            /// | none | every public address |
            /// | `*` and `10.0.0.0/8` | every public address, and that network |
            /// | `127.0.0.0/8` | this machine, and nothing else |
            /// | `example.com` | that name alone, where it leads to a public address |
            ///
            /// Names and `*` never open addresses that are not public; a single address does, as a network of one.
            ///
            /// Rules are hosts with optional ports: `*`, `192.0.2.0/24`, `[2001:db8::/32]:443`, `example.com:443-500`,
            /// or `.example.com` for the name and all below.
            ///
            /// # Errors
            /// The rule, and what is wrong with it.
            pub fn allow_rule(mut self, rule: &str) -> Result<Self, Error> {
                self.options = self.options.rule(rule, true)?;
                Ok(self)
            }

            /// Adds a rule that denies, which wins over those that allow.
            ///
            /// # Errors
            /// As [`allow_rule`](Self::allow_rule).
            pub fn deny_rule(mut self, rule: &str) -> Result<Self, Error> {
                self.options = self.options.rule(rule, false)?;
                Ok(self)
            }
        }
    };
}

/// What those that connect have in addition.
macro_rules! connect_options {
    ($name:ident) => {
        options!($name);

        impl $name {
            /// Targets in public address space alone, resolved by the system's name servers.
            pub fn new() -> Self {
                Self::default()
            }

            /// Whether addresses have to be public unless a rule opens their network (RFC 9298 §7). Default: true. With
            /// `false`, clients reach everything that this machine reaches, its own services included.
            pub fn public_only(mut self, public_only: bool) -> Self {
                self.options = self.options.public_only(public_only);
                self
            }

            /// Names are resolved by `resolver`: addresses in the order to try. It runs on the worker thread and must
            /// not block: a table, a cache. The rules apply to what it says. An error, or no address, answers 502;
            /// [`io::ErrorKind::TimedOut`] answers 504.
            pub fn resolver(
                mut self,
                resolver: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
            ) -> Self {
                self.options.resolver = Some(Hook::Now(Arc::new(resolver)));
                self
            }

            /// The same with a future, which runs as that of [`Accept::init`] does.
            pub fn resolver_async<F>(
                mut self,
                resolver: impl Fn(String) -> F + Send + Sync + 'static,
            ) -> Self
            where
                F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
            {
                let resolver = move |name: &str| -> Later<io::Result<Vec<IpAddr>>> {
                    Box::pin(resolver(name.to_owned()))
                };
                self.options.resolver = Some(Hook::Later(Arc::new(resolver)));
                self
            }

            /// Which addresses are tried. Default: both families.
            pub fn family(mut self, family: Family) -> Self {
                self.options.family = family;
                self
            }

            /// What sockets towards targets have beyond the defaults: the address that targets see, buffers, TTL, mark.
            ///
            /// What the system refuses, such as a mark without the capability for it, refuses the tunnel.
            pub fn socket_options(mut self, options: SocketOptions) -> Self {
                self.options.socket = options;
                self
            }

            /// How long reaching the target may take, resolving included. Default:
            /// [`ListenerBuilder::open_timeout`](super::ListenerBuilder::open_timeout).
            pub fn connect_timeout(mut self, timeout: Duration) -> Self {
                self.options.timeout = Some(timeout);
                self
            }
        }
    };
}

/// Opens UDP tunnels to their targets (RFC 9298); rejects others with 501.
///
/// ```
/// use bauta::UdpProxy;
///
/// # fn main() -> Result<(), bauta::Error> {
/// // Name servers, and nothing else.
/// let handler = UdpProxy::new().allow_rule("*:53")?;
/// # let _ = bauta::Listener::h3(([127, 0, 0, 1], 0)).handler(handler);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct UdpProxy {
    options: Options,
}

connect_options!(UdpProxy);

impl Handler for UdpProxy {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        match request.protocol() {
            Some(Protocol::Udp) => self.options.accept_direct(request),
            Some(Protocol::Tcp | Protocol::Ip) | None => Err(Reject::unsupported()),
        }
    }
}

/// Opens TCP tunnels to their targets (RFC 9110 §9.3.6 and draft-ietf-httpbis-connect-tcp); rejects others with 501.
///
/// ```
/// use std::time::Duration;
///
/// use bauta::{Family, TcpProxy};
///
/// # fn main() -> Result<(), bauta::Error> {
/// let handler = TcpProxy::new()
///     .deny_rule("*:25")?
///     .family(Family::V6)
///     .connect_timeout(Duration::from_secs(10));
/// # let _ = bauta::Listener::h2(([127, 0, 0, 1], 0)).handler(handler);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct TcpProxy {
    options: Options,
}

connect_options!(TcpProxy);

impl Handler for TcpProxy {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        match request.protocol() {
            Some(Protocol::Tcp) => self.options.accept_direct(request),
            Some(Protocol::Udp | Protocol::Ip) | None => Err(Reject::unsupported()),
        }
    }
}

/// Opens UDP and TCP tunnels to their targets, and IP tunnels where there is an [`IpProxy`] for them: what
/// `bauta relay` does. Rules and hooks are for UDP and TCP; those for IP are the IP proxy's own.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Proxies {
    options: Options,
    ip: Option<IpProxy>,
}

connect_options!(Proxies);

impl Proxies {
    /// Serves IP tunnels too. Default: they are rejected with 501.
    pub fn ip(mut self, proxy: IpProxy) -> Self {
        self.ip = Some(proxy);
        self
    }
}

impl Handler for Proxies {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        match (request.protocol(), &self.ip) {
            (Some(Protocol::Ip), Some(proxy)) => proxy.accept(request),
            (Some(Protocol::Ip), None) => Err(Reject::unsupported()),
            (Some(Protocol::Udp | Protocol::Tcp) | None, _) => self.options.accept_direct(request),
        }
    }
}

/// Opens tunnels through another relay, which resolves the target and connects.
///
/// Rules and hooks judge the target as the client named it: what a name resolves to is for the relay that connects.
/// Connections to the other relay are shared by the tunnels of a worker.
///
/// ```no_run
/// use bauta::{Chain, Client, Credentials};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let next = Client::builder("https://egress.example").credentials(Credentials::bearer("0a1b2c")?);
/// let handler = Chain::through(next)?.deny_rule("*:25")?;
/// # let _ = bauta::Listener::all(([127, 0, 0, 1], 0)).handler(handler);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Chain {
    options: Options,
    route: ChainRoute,
    ip: bool,
}

options!(Chain);

impl Chain {
    /// Through the relay at `relay_url`, with the defaults of [`Client::builder`], which describes the form.
    ///
    /// # Errors
    /// As [`through`](Self::through).
    pub fn new(relay_url: impl Into<String>) -> Result<Self, Error> {
        Self::through(Client::builder(relay_url))
    }

    /// Through the relays of a client that is described in full: trust, carriers, fields, credentials, further hops,
    /// times. What concerns handles does not matter here: [`ClientBuilder::worker`] and
    /// [`ClientBuilder::receive_queue`].
    ///
    /// Clones share connections. Workers forget the way with the last clone: connections end with their last tunnels.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn through(client: ClientBuilder) -> Result<Self, Error> {
        let mut options = Options::default();
        // What is public for the relay that connects is not ours to know.
        options = options.public_only(false);
        Ok(Self {
            options,
            route: ChainRoute {
                route: client.prepare()?.route,
                timeout: None,
            },
            ip: false,
        })
    }

    /// Whether IP tunnels pass too: addresses, routes and packets are the other relay's business. Rules and hooks say
    /// nothing about them. Default: no, they are rejected with 501.
    pub fn ip(mut self, allowed: bool) -> Self {
        self.ip = allowed;
        self
    }

    /// How long the other relay may take to answer, connecting included. Default: [`ClientBuilder::open_timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.route.timeout = Some(timeout);
        self
    }
}

impl Handler for Chain {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        let route = self.route.clone();
        if request.protocol() == Some(Protocol::Ip) {
            return match self.ip {
                true => Ok(Accept::ready(Ready::Way(Way::Chain(route)))),
                false => Err(Reject::unsupported()),
            };
        }
        self.options.accept(request, move |_| Way::Chain(route))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("options", &self.options)
            .field("timeout", &self.route.timeout)
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}
