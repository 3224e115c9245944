//! The threads behind clients.

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Environment};
use crate::embed::host::sessions::SessionsSetup;
use crate::embed::running::Running;
use crate::error::{Error, ErrorKind, Side};
use crate::worker::build::Plan;

/// How long a tunnel may take to open at most, whatever its client says.
pub(super) const OPEN_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A worker thread for the tunnels of clients, and a control thread that resolves names.
///
/// A client has one of its own unless it is given a shared one by
/// [`ClientBuilder::worker`](crate::ClientBuilder::worker). Cheap to clone. The threads end when the last clone,
/// client and tunnel is dropped.
#[derive(Clone, Debug)]
pub struct Worker(pub(super) Arc<Running>);

impl Worker {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the system refuses: threads, sockets, its list of name servers.
    pub fn new() -> Result<Self, Error> {
        let mut environment = Environment::new("", NonZeroUsize::MIN, "bauta");
        // A configuration has a listener; this one is not kept.
        environment.dev_listen = Some((Ipv4Addr::LOCALHOST, 0).into());
        let mut checked = config::parse("", &environment).map_err(internal)?;
        checked.listen.clear();
        // The deadline of each tunnel is kept beside its queues.
        checked.timeouts.open = OPEN_TIMEOUT_MAX + Duration::from_secs(1);
        let plan = Plan::new(checked, None).map_err(internal)?;
        let make = |_: &_, _: &_| SessionsSetup::default();
        Running::start(plan, "bauta", None, make).map(|running| Self(Arc::new(running)))
    }

    /// Closes all tunnels, ends the threads and waits for it: about as long as
    /// [`UdpTunnel::close`](crate::UdpTunnel::close) takes. Clients that have this worker cannot open tunnels any more.
    pub fn stop_blocking(&self) {
        self.0.stop_and_join();
    }
}

fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Internal, Side::Local).with_source(error)
}
