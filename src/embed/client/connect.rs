//! One tunnel's options, and its opening.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;

use super::builder::OPEN_TIMEOUT;
use super::options::Problems;
use super::{Client, Inner};
use crate::client::TcpForm;
use crate::embed::host::Command;
use crate::embed::host::users::{Open, Way};
use crate::embed::tunnel::{
    Handle, Held, IpTunnel, Mode, Protocol, Shared, TcpTunnel, Terms, UdpTunnel,
};
use crate::error::{Error, ErrorKind, Side};
use crate::net::clock;
use crate::wire::ip::{Destination, Scope};
use crate::wire::target::Target;

/// The options of one tunnel. [`udp`](Self::udp) or [`tcp`](Self::tcp) opens it, for a scope [`ip`](Self::ip).
///
/// After a failure to connect, nothing is tried for a moment: see
/// [After a failure](crate::ClientBuilder#after-a-failure).
///
/// ```no_run
/// use std::time::Duration;
///
/// use bauta::TcpForm;
///
/// # async fn example(client: bauta::Client) -> Result<(), bauta::Error> {
/// let tunnel = client
///     .connect("origin.example:443")
///     .header("x-purpose", "updates")
///     .tcp_form(TcpForm::Raw)
///     .timeout(Duration::from_secs(3))
///     .tcp()
///     .await?;
/// # drop(tunnel);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it opens a tunnel when it is told which"]
pub struct Connect {
    client: Client,
    destination: Result<Destination, Error>,
    problems: Problems,
    headers: HeaderMap,
    tcp_form: Option<TcpForm>,
    timeout: Duration,
    mode: Mode,
}

impl Connect {
    pub(super) fn to_target(client: &Client, target: Result<Target, Error>) -> Self {
        let checked = target.and_then(|target| target.checked().map_err(Error::from));
        Self::new(client, checked.map(Destination::Target))
    }

    pub(super) fn to_scope(client: &Client, scope: Result<Scope, Error>) -> Self {
        let checked = scope.and_then(|scope| scope.checked().map_err(Error::from));
        Self::new(client, checked.map(Destination::Scope))
    }

    fn new(client: &Client, destination: Result<Destination, Error>) -> Self {
        Self {
            client: client.clone(),
            destination,
            problems: Problems::default(),
            headers: HeaderMap::new(),
            tcp_form: None,
            timeout: client.0.open_timeout,
            mode: Mode::Pull,
        }
    }

    /// Adds a field to the request of this tunnel, in place of those of the same name that the client sends. Reserved
    /// are the same ones as in [`ClientBuilder::header`](crate::ClientBuilder::header).
    ///
    /// With several relays it goes to the last one, which connects to the target. The ones before see requests for
    /// tunnels to the next relay, which many tunnels share: their fields and credentials belong to the client, by
    /// [`ClientBuilder::header`](crate::ClientBuilder::header) before [`hop`](crate::ClientBuilder::hop).
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.problems.header(&mut self.headers, name, value);
        self
    }

    /// How a TCP tunnel is asked for, in place of the client's form.
    pub const fn tcp_form(mut self, form: TcpForm) -> Self {
        self.tcp_form = Some(form);
        self
    }

    /// How long opening may take, connecting included, in place of the client's time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.problems.duration("timeout", timeout, OPEN_TIMEOUT);
        self.timeout = timeout;
        self
    }

    /// Has the tunnel report to [`Events`](crate::Events) from its first event on.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Opens a UDP tunnel and waits until it is open. Dropping the future gives the tunnel up.
    ///
    /// # Errors
    /// Why there is no tunnel: options that are wrong, what the relay answered, or what became of each carrier that was
    /// tried.
    pub async fn udp(self) -> Result<UdpTunnel, Error> {
        let tunnel = self.start_udp()?;
        tunnel.opened().await?;
        Ok(tunnel)
    }

    /// As [`udp`](Self::udp), on a plain thread.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub fn udp_blocking(self) -> Result<UdpTunnel, Error> {
        let tunnel = self.start_udp()?;
        tunnel.opened_blocking()?;
        Ok(tunnel)
    }

    /// Starts to open a UDP tunnel and does not wait: what is sent meanwhile follows when it is open. Whether it opened
    /// is told by [`UdpTunnel::opened`], and by [`Events`](crate::Events).
    ///
    /// # Errors
    /// Options that are wrong.
    pub fn start_udp(self) -> Result<UdpTunnel, Error> {
        self.start(Protocol::Udp).map(UdpTunnel::new)
    }

    /// Opens a TCP tunnel and waits until it is open. Dropping the future gives the tunnel up.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub async fn tcp(self) -> Result<TcpTunnel, Error> {
        let tunnel = self.start_tcp()?;
        tunnel.opened().await?;
        Ok(tunnel)
    }

    /// As [`tcp`](Self::tcp), on a plain thread.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub fn tcp_blocking(self) -> Result<TcpTunnel, Error> {
        let tunnel = self.start_tcp()?;
        tunnel.opened_blocking()?;
        Ok(tunnel)
    }

    /// Starts to open a TCP tunnel and does not wait: what is written meanwhile follows when it is open.
    ///
    /// # Errors
    /// Options that are wrong.
    pub fn start_tcp(self) -> Result<TcpTunnel, Error> {
        self.start(Protocol::Tcp).map(TcpTunnel::new)
    }

    /// Opens an IP tunnel and waits until it is open. Dropping the future gives the tunnel up.
    ///
    /// # Errors
    /// As [`udp`](Self::udp). Over HTTP/3, a path that does not carry packets of 1,280 bytes is refused
    /// (RFC 9484 §7.2).
    pub async fn ip(self) -> Result<IpTunnel, Error> {
        let tunnel = self.start_ip()?;
        tunnel.opened().await?;
        Ok(tunnel)
    }

    /// As [`ip`](Self::ip), on a plain thread.
    ///
    /// # Errors
    /// As [`ip`](Self::ip).
    pub fn ip_blocking(self) -> Result<IpTunnel, Error> {
        let tunnel = self.start_ip()?;
        tunnel.opened_blocking()?;
        Ok(tunnel)
    }

    /// Starts to open an IP tunnel and does not wait. Whether it opened is told by [`IpTunnel::opened`], and by
    /// [`Events`](crate::Events).
    ///
    /// # Errors
    /// Options that are wrong.
    pub fn start_ip(self) -> Result<IpTunnel, Error> {
        self.start(Protocol::Ip).map(IpTunnel::new)
    }

    fn start(self, protocol: Protocol) -> Result<Handle, Error> {
        self.problems.into_result()?;
        let Inner {
            running,
            route,
            relays,
            templated_tcp,
            tcp_form,
            receive_queue,
            ..
        } = &*self.client.0;
        let destination = self.destination?;
        let is_ip = protocol == Protocol::Ip;
        if destination.scope().is_some() != is_ip {
            let text = match is_ip {
                true => "a target is for UDP and TCP: Client::connect_ip takes a scope",
                false => "a scope is for IP: Client::connect takes a target",
            };
            return Err(Error::new(ErrorKind::Configuration, Side::Local).with_source(text));
        }
        let form = match templated_tcp {
            true => self.tcp_form.unwrap_or(*tcp_form),
            false => TcpForm::Classic,
        };
        let terms = Terms {
            protocol,
            destination,
            relays: Arc::clone(relays),
            capsules: protocol != Protocol::Tcp || form == TcpForm::Capsules,
            receive_queue: *receive_queue,
            carried: None,
        };
        let Some(worker) = running.senders().first() else {
            return Err(Error::new(ErrorKind::Internal, Side::Local));
        };
        route.known_to(worker);
        let shared = Arc::new(Shared::new(terms, worker.clone()));
        shared.set_mode(self.mode);
        let open = Open {
            held: Held(Arc::clone(&shared)),
            way: Way::Route {
                route: Arc::clone(route),
                form: self.tcp_form,
                headers: self.headers,
            },
            until: clock::now() + self.timeout,
        };
        worker.send(Command::Open(Box::new(open)));
        Ok(Handle::new(shared, Arc::clone(running)))
    }
}
