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
use crate::embed::tunnel::{Handle, Held, Mode, Protocol, Shared, TcpTunnel, Terms, UdpTunnel};
use crate::error::{Error, ErrorKind, Side};
use crate::net::clock;
use crate::wire::target::Target;

/// The options of one tunnel. [`udp`](Self::udp) or [`tcp`](Self::tcp) opens it.
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
    target: Result<Target, Error>,
    problems: Problems,
    headers: HeaderMap,
    tcp_form: Option<TcpForm>,
    timeout: Duration,
    mode: Mode,
}

impl Connect {
    pub(super) fn new(client: &Client, target: Result<Target, Error>) -> Self {
        Self {
            client: client.clone(),
            target: target.and_then(|target| target.checked().map_err(Error::from)),
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
        let form = match templated_tcp {
            true => self.tcp_form.unwrap_or(*tcp_form),
            false => TcpForm::Classic,
        };
        let terms = Terms {
            protocol,
            target: self.target?,
            relays: Arc::clone(relays),
            capsules: protocol == Protocol::Udp || form == TcpForm::Capsules,
            receive_queue: *receive_queue,
            is_carried: false,
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
