//! The client: a way through relays, and the tunnels on it.
//!
//! ```text
//!   ClientBuilder ─► Client ─┬ connect(target) ─► Connect ─┬─ udp ─► UdpTunnel
//!                      │     │                           └─ tcp ─► TcpTunnel
//!                      │     └ connect_ip(scope) ► Connect ── ip ──► IpTunnel
//!                      └─ Worker: the threads, of this client alone or of several
//! ```

mod builder;
mod connect;
mod options;
mod trust;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use self::builder::ClientBuilder;
pub use self::connect::Connect;
pub use self::trust::Trust;
pub use self::worker::Worker;

use super::host::{Command, HostSender};
use super::lock::Lock;
use super::running::Running;
use super::tunnel::{IpTunnel, TcpTunnel, UdpTunnel};
use crate::client::Hop;
use crate::error::Error;
use crate::wire::ip::Scope;
use crate::wire::target::Target;

/// A client of one relay, or of several in a row.
///
/// Cheap to clone; clones share connections. It lives as long as one of its clones or tunnels does, and its threads
/// with it.
///
/// ```no_run
/// # async fn example() -> Result<(), bauta::Error> {
/// let client = bauta::Client::builder("https://relay.example").build()?;
/// let tunnel = client.udp("192.0.2.6:53").await?;
/// tunnel.send("question")?;
/// let answer = tunnel.recv_timeout(std::time::Duration::from_secs(2)).await?;
/// # drop(answer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    running: Arc<Running>,
    route: Arc<Route>,
    relays: Arc<[String]>,
    /// The last relay has a template for TCP.
    templated_tcp: bool,
    tcp_form: crate::client::TcpForm,
    open_timeout: Duration,
    receive_queue: usize,
}

/// The relays of a client, or of a chain, prepared. Workers get to know it with their first tunnel on it, and forget
/// it with its last owner.
pub(super) struct Route {
    /// Tells the routes of a process apart.
    pub(super) id: u64,
    /// The relays in the order of travel.
    pub(super) hops: Vec<Hop>,
    /// Who has to be told of the end.
    workers: Lock<Vec<HostSender>>,
}

impl Route {
    fn new(hops: Vec<Hop>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            hops,
            workers: Lock::default(),
        }
    }

    /// A worker may get to know it.
    pub(super) fn known_to(&self, worker: &HostSender) {
        let mut workers = self.workers.lock();
        if !workers.iter().any(|known| known.is(worker)) {
            workers.push(worker.clone());
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        for worker in &*self.workers.lock() {
            worker.send(Command::Forget(self.id));
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the relay at `relay_url`: `https://host:port`, or a URI template with `target_host` and
    /// `target_port` (RFC 9298 §2). Everything else has a default.
    pub fn builder(relay_url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(relay_url.into())
    }

    /// Opens a UDP tunnel. A target is `"host:port"`, `("host", port)`, a
    /// [`SocketAddr`](std::net::SocketAddr) or a [`Target`].
    ///
    /// # Errors
    /// Why there is no tunnel: what the relay answered, or what became of each carrier that was tried. Print it with
    /// `{:#}`. Where there is no relay at all, it comes after the
    /// [`handshake_timeout`](ClientBuilder::handshake_timeout) of HTTP/3, 5 s by default, as silence is all that UDP
    /// tells.
    pub async fn udp<T>(&self, target: T) -> Result<UdpTunnel, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<Error>,
    {
        self.connect(target).udp().await
    }

    /// As [`udp`](Self::udp), on a plain thread.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub fn udp_blocking<T>(&self, target: T) -> Result<UdpTunnel, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<Error>,
    {
        self.connect(target).udp_blocking()
    }

    /// Opens a TCP tunnel. Targets are as in [`udp`](Self::udp).
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub async fn tcp<T>(&self, target: T) -> Result<TcpTunnel, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<Error>,
    {
        self.connect(target).tcp().await
    }

    /// As [`tcp`](Self::tcp), on a plain thread.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub fn tcp_blocking<T>(&self, target: T) -> Result<TcpTunnel, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<Error>,
    {
        self.connect(target).tcp_blocking()
    }

    /// Opens an IP tunnel. A scope is `"*"` for everything that the relay offers, an address, a prefix or a name, as
    /// text or as what it is, or a [`Scope`], which may be bound to one protocol.
    ///
    /// # Errors
    /// As [`udp`](Self::udp). Over HTTP/3, a path that does not carry packets of 1,280 bytes is refused
    /// (RFC 9484 §7.2).
    pub async fn ip<S>(&self, scope: S) -> Result<IpTunnel, Error>
    where
        S: TryInto<Scope>,
        S::Error: Into<Error>,
    {
        self.connect_ip(scope).ip().await
    }

    /// As [`ip`](Self::ip), on a plain thread.
    ///
    /// # Errors
    /// As [`ip`](Self::ip).
    pub fn ip_blocking<S>(&self, scope: S) -> Result<IpTunnel, Error>
    where
        S: TryInto<Scope>,
        S::Error: Into<Error>,
    {
        self.connect_ip(scope).ip_blocking()
    }

    /// An IP tunnel with options of its own, to be opened by [`Connect::ip`] and its siblings. What is wrong with the
    /// scope is told when the tunnel is opened.
    pub fn connect_ip<S>(&self, scope: S) -> Connect
    where
        S: TryInto<Scope>,
        S::Error: Into<Error>,
    {
        Connect::to_scope(self, scope.try_into().map_err(Into::into))
    }

    /// A tunnel with options of its own. What is wrong with the target is told when the tunnel is opened.
    pub fn connect<T>(&self, target: T) -> Connect
    where
        T: TryInto<Target>,
        T::Error: Into<Error>,
    {
        Connect::to_target(self, target.try_into().map_err(Into::into))
    }
}
