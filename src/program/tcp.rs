//! `bauta tcp`: a local TCP port whose connections come out of a relay.
//!
//! ```text
//!   local programs ─► one listener ─► a tunnel per connection ─► relay(s) ─► target
//! ```
//!
//! A connection is not read before its tunnel is open: until then the kernel holds the local program back. A refused
//! tunnel resets the connection, as the target itself would have done.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::forward::{CONNECTIONS_MAX, Client, First, explain};
use super::threads::StartError;
use crate::client::RouteId;
use crate::config::Checked;
use crate::net::listen::{Sharing, bind_tcp_group};
use crate::net::{Driver, Network, TcpClose, TcpEvent, TcpId};
use crate::tunnel::TunnelId;
use crate::wire::target::Target;
use crate::worker::build::RouteOptions;
use crate::worker::run::{App, World};
use crate::worker::{LocalEvent, Machine, TcpTag};

/// What to forward, and through whom.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The way to the target.
    pub route: RouteOptions,
    /// The local address.
    pub listen: SocketAddr,
    /// Where the connections shall go.
    pub target: Target,
}

/// Forwards until a signal. Prints `listening on ADDRESS` to `out` at once: whether the target can be reached shows
/// with each connection, and is logged when it cannot.
///
/// # Errors
/// What keeps the forwarder from starting.
pub fn run(forward: Forward, checked: Checked, out: &mut dyn Write) -> Result<(), StartError> {
    let listener = bind_tcp_group(forward.listen, 1, Sharing::default())?
        .into_iter()
        .next();
    let listener = listener.expect("one was asked for");
    let client = Client {
        title: "tcp",
        route: forward.route,
        address: listener.local_addr()?,
        first: First::Nothing,
    };
    let target = forward.target;
    client.run(checked, out, move |hop, driver| {
        Forwarder::new(hop, target.clone(), listener.try_clone()?, driver)
    })
}

/// The app: what became of each connection.
struct Forwarder {
    hop: RouteId,
    target: Target,
    connections: FxHashMap<TunnelId, Connection>,
}

/// A local connection.
#[derive(Clone, Copy, Debug)]
enum Connection {
    /// It waits for its tunnel.
    Waiting(TcpId),
    /// The machine has it.
    Spliced,
}

impl Forwarder {
    fn new(
        hop: RouteId,
        target: Target,
        listener: TcpListener,
        driver: &mut Driver,
    ) -> io::Result<Self> {
        driver.add_tcp_listener(listener, TcpTag::App(0).to_bits())?;
        Ok(Self {
            hop,
            target,
            connections: FxHashMap::default(),
        })
    }

    fn handle_opened(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        if let Some(connection) = self.connections.get_mut(&tunnel)
            && let Connection::Waiting(socket) = *connection
            && machine.splice_local(now, tunnel, socket, Bytes::new(), out)
        {
            *connection = Connection::Spliced;
        }
    }

    fn forget(&mut self, tunnel: TunnelId, out: &mut World<'_>) {
        if let Some(Connection::Waiting(socket)) = self.connections.remove(&tunnel) {
            out.close(socket, TcpClose::Abort);
        }
    }
}

impl App for Forwarder {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            LocalEvent::Opened(tunnel) => self.handle_opened(now, tunnel, machine, out),
            LocalEvent::Refused(tunnel, refused) => {
                tracing::warn!("{}", explain(&refused));
                self.forget(tunnel, out);
            }
            LocalEvent::Closed(tunnel, _) => self.forget(tunnel, out),
            LocalEvent::Payload(..) | LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
        }
    }

    fn handle_tcp(
        &mut self,
        now: Instant,
        _: (TcpId, u32),
        event: TcpEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            TcpEvent::Accepted { socket, .. } if self.connections.len() >= CONNECTIONS_MAX => {
                tracing::warn!("connection refused: there are {CONNECTIONS_MAX} already");
                out.close(socket, TcpClose::Abort);
            }
            TcpEvent::Accepted { socket, .. } => {
                let tunnel = machine.open_local_tcp(now, self.hop, self.target.clone(), None, out);
                self.connections.insert(tunnel, Connection::Waiting(socket));
            }
            // A connection that waits is left alone, and one that is spliced has another tag.
            TcpEvent::Ready { .. } | TcpEvent::Connected => {}
            TcpEvent::Failed(_) | TcpEvent::Broken(_) => {}
        }
    }

    fn turn(&mut self, _: Instant, _: &mut Machine, _: &mut World<'_>) -> bool {
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_finished(&self) -> bool {
        false
    }
}
