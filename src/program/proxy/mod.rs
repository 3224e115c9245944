//! `bauta proxy`: one local port that serves SOCKS 5 (RFC 1928) and HTTP CONNECT (RFC 9110 section 9.3.6).
//!
//! ```text
//!   browser, curl ─► listener ─► handshake ─┬─► a TCP tunnel per connection ─┬─► relay(s) ─► targets
//!                                           └─► associate: UDP tunnels ──────┘
//! ```
//!
//! Names are not resolved here: they go to the relay as they are. Before its tunnel is open a connection costs a
//! bounded buffer and a bounded time; afterwards the machine moves its bytes, and this module only counts it.
//!
//! There is no authentication: whoever reaches the port may use the relays.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::cast_possible_truncation)
)]

mod associate;
mod handshake;
mod socks;

use std::collections::BTreeSet;
use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use self::associate::Associations;
use self::handshake::{Asked, Handshake, Step, associated};
use self::socks::Destination;
use super::forward::{CONNECTIONS_MAX, Client, First, explain};
use super::threads::StartError;
use crate::client::RouteId;
use crate::config::Checked;
use crate::net::listen::{Sharing, bind_tcp_group};
use crate::net::{Driver, Network, Received, SocketId, TcpClose, TcpEvent, TcpId, TcpRead};
use crate::tunnel::TunnelId;
use crate::wire::target::Target;
use crate::worker::build::RouteOptions;
use crate::worker::run::{App, World};
use crate::worker::{LocalEvent, Machine, Outside, Refused, TcpTag};

/// How long a client may take to say what it wants.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read why it is refused, and to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a client that are thrown away where it has nothing to say; more end the connection.
const DISCARD_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are thrown away at once.
const DISCARD_PIECE_BYTES: usize = 4 * 1024;

/// Where to serve, and through whom.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The way to all targets.
    pub route: RouteOptions,
    /// The local address.
    pub listen: SocketAddr,
}

/// Serves until a signal. Prints `listening on ADDRESS` to `out` at once: whether a relay can be reached shows with
/// each connection.
///
/// # Errors
/// What keeps the proxy from starting.
pub fn run(proxy: Proxy, checked: Checked, out: &mut dyn Write) -> Result<(), StartError> {
    let listener = bind_tcp_group(proxy.listen, 1, Sharing::default())?
        .into_iter()
        .next();
    let listener = listener.expect("one was asked for");
    let address = listener.local_addr()?;
    let client = Client {
        title: "proxy",
        route: proxy.route,
        address,
        first: First::Nothing,
    };
    client.run(checked, out, move |hop, driver| {
        Front::new(hop, address.ip(), listener.try_clone()?, driver)
    })
}

/// The app: local connections and their tunnels.
struct Front {
    hop: RouteId,
    listen_ip: IpAddr,
    connections: FxHashMap<TcpId, Connection>,
    tunnels: FxHashMap<TunnelId, TcpId>,
    /// When the patience with connections ends that have no tunnel.
    deadlines: BTreeSet<(Instant, TcpId)>,
    associations: Associations,
}

struct Connection {
    peer: SocketAddr,
    state: State,
    deadline: Option<Instant>,
}

enum State {
    Handshake(Handshake),
    /// Nothing more is read until the tunnel is there.
    Opening(Asked),
    /// The machine has the socket.
    Spliced,
    /// The connection only shows that the client is still there.
    Associated {
        socket: SocketId,
        discarded: usize,
    },
    /// The client was told why there is no tunnel; what it sent too early must not make the kernel take that back.
    Leaving {
        discarded: usize,
    },
}

impl Front {
    fn new(
        hop: RouteId,
        listen_ip: IpAddr,
        listener: TcpListener,
        driver: &mut Driver,
    ) -> io::Result<Self> {
        driver.add_tcp_listener(listener, TcpTag::App(0).to_bits())?;
        Ok(Self {
            hop,
            listen_ip,
            connections: FxHashMap::default(),
            tunnels: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            associations: Associations::new(hop),
        })
    }

    /// A new connection. Where there is no room, it takes the place of the one that hesitates longest.
    fn accept(
        &mut self,
        now: Instant,
        socket: TcpId,
        peer: SocketAddr,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        if self.connections.len() >= CONNECTIONS_MAX {
            let Some(&(_, slowest)) = self.deadlines.first() else {
                tracing::warn!("connection refused: there are {CONNECTIONS_MAX} already");
                return out.close(socket, TcpClose::Abort);
            };
            self.end(now, slowest, TcpClose::Abort, machine, out);
        }
        let connection = Connection {
            peer,
            state: State::Handshake(Handshake::First),
            deadline: None,
        };
        self.connections.insert(socket, connection);
        self.arm(socket, Some(now + HANDSHAKE_TIMEOUT));
    }

    fn arm(&mut self, socket: TcpId, deadline: Option<Instant>) {
        let Some(connection) = self.connections.get_mut(&socket) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut connection.deadline, deadline) {
            self.deadlines.remove(&(old, socket));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, socket));
        }
    }

    /// Closes a connection that the machine does not have.
    fn end(
        &mut self,
        now: Instant,
        socket: TcpId,
        how: TcpClose,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.arm(socket, None);
        let Some(connection) = self.connections.remove(&socket) else {
            return;
        };
        out.close(socket, how);
        if let State::Associated { socket, .. } = connection.state {
            self.associations.close(now, socket, machine, out);
        }
    }

    fn handle_readable(
        &mut self,
        now: Instant,
        socket: TcpId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        while let Some(connection) = self.connections.get_mut(&socket) {
            let goes_on = match &mut connection.state {
                State::Handshake(_) => self.read_handshake(now, socket, machine, out),
                State::Associated { .. } | State::Leaving { .. } => {
                    self.discard(now, socket, machine, out)
                }
                State::Opening(_) | State::Spliced => false,
            };
            if !goes_on {
                break;
            }
        }
    }

    /// Reads once. Whether there may be more to read.
    fn read_handshake(
        &mut self,
        now: Instant,
        socket: TcpId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        let Some(Connection {
            state: State::Handshake(handshake),
            peer,
            ..
        }) = self.connections.get_mut(&socket)
        else {
            return false;
        };
        let peer = *peer;
        let mut input = BytesMut::new();
        match out.read(socket, &mut input, handshake.room()) {
            Ok(TcpRead::Bytes(_)) => {}
            Ok(TcpRead::Blocked) => return false,
            Ok(TcpRead::End) | Err(_) => {
                self.end(now, socket, TcpClose::Orderly, machine, out);
                return false;
            }
        }
        let mut reply = BytesMut::new();
        let step = handshake.handle_bytes(input, &mut reply);
        let is_silent = reply.is_empty();
        let step = match step {
            Step::Associate(announced) => self.associate(socket, peer, &announced, &mut reply, out),
            step @ (Step::More | Step::Connect(..) | Step::End) => step,
        };
        if !send(socket, &reply, out) {
            self.end(now, socket, TcpClose::Abort, machine, out);
            return false;
        }
        match step {
            Step::More => true,
            Step::Connect(target, asked) => {
                self.open(now, socket, target, asked, machine, out);
                false
            }
            Step::Associate(_) => {
                self.arm(socket, None);
                true
            }
            // To a stranger there is nothing to say, and nothing to wait for.
            Step::End if is_silent => {
                self.end(now, socket, TcpClose::Orderly, machine, out);
                false
            }
            Step::End => self.leave(now, socket, out),
        }
    }

    fn open(
        &mut self,
        now: Instant,
        socket: TcpId,
        target: Target,
        asked: Asked,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.arm(socket, None);
        let tunnel = machine.open_local_tcp(now, self.hop, target, None, out);
        self.tunnels.insert(tunnel, socket);
        if let Some(connection) = self.connections.get_mut(&socket) {
            connection.state = State::Opening(asked);
        }
    }

    /// Opens an association and writes the reply.
    fn associate(
        &mut self,
        control: TcpId,
        peer: SocketAddr,
        announced: &Destination,
        reply: &mut BytesMut,
        out: &mut World<'_>,
    ) -> Step {
        let opened = self
            .associations
            .open(self.listen_ip, peer.ip(), announced, out);
        match opened {
            Ok((socket, mut bound)) => {
                // Told 0.0.0.0, not every client thinks of the address that it is connected to.
                if bound.ip().is_unspecified()
                    && let Some(ip) = out.local_ip_towards(peer)
                {
                    bound.set_ip(ip);
                }
                associated(Some(bound), reply);
                if let Some(connection) = self.connections.get_mut(&control) {
                    connection.state = State::Associated {
                        socket,
                        discarded: 0,
                    };
                }
                Step::Associate(announced.clone())
            }
            Err(error) => {
                tracing::warn!("no UDP association: {error}");
                associated(None, reply);
                Step::End
            }
        }
    }

    /// Our direction ends behind what was written, and the client is given time to read it.
    fn leave(&mut self, now: Instant, socket: TcpId, out: &mut World<'_>) -> bool {
        out.shutdown(socket);
        if let Some(connection) = self.connections.get_mut(&socket) {
            connection.state = State::Leaving { discarded: 0 };
        }
        self.arm(socket, Some(now + LEAVE_TIMEOUT));
        true
    }

    /// Reads once from a client that has nothing to say. Whether there may be more to read.
    fn discard(
        &mut self,
        now: Instant,
        socket: TcpId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        let Some(Connection {
            state: State::Associated { discarded, .. } | State::Leaving { discarded },
            ..
        }) = self.connections.get_mut(&socket)
        else {
            return false;
        };
        let mut input = BytesMut::new();
        let how = match out.read(socket, &mut input, DISCARD_PIECE_BYTES) {
            Ok(TcpRead::Blocked) => return false,
            Ok(TcpRead::Bytes(count)) => {
                *discarded += count;
                if *discarded <= DISCARD_BYTES_MAX {
                    return true;
                }
                TcpClose::Abort
            }
            Ok(TcpRead::End) | Err(_) => TcpClose::Orderly,
        };
        self.end(now, socket, how, machine, out);
        false
    }

    fn handle_opened(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Some(&socket) = self.tunnels.get(&tunnel) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&socket) else {
            return;
        };
        let State::Opening(asked) = std::mem::replace(&mut connection.state, State::Spliced) else {
            return;
        };
        let mut reply = BytesMut::new();
        let early = asked.accept(&mut reply);
        let is_told = send(socket, &reply, out);
        if !(is_told && machine.splice_local(now, tunnel, socket, early, out)) {
            // The tunnel goes first, so that its end finds nobody.
            self.tunnels.remove(&tunnel);
            machine.reset_local(now, tunnel, out);
            self.end(now, socket, TcpClose::Abort, machine, out);
        }
    }

    fn handle_refused(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        refused: &Refused,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        // What a target is refused for is its client's business, a relay that is not there ours.
        match &refused.response {
            Some(_) => tracing::info!("{}", explain(refused)),
            None => tracing::warn!("{}", explain(refused)),
        }
        let Some(socket) = self.tunnels.remove(&tunnel) else {
            return self.associations.forget(tunnel);
        };
        let Some(connection) = self.connections.get_mut(&socket) else {
            return;
        };
        let State::Opening(asked) = std::mem::replace(&mut connection.state, State::Spliced) else {
            return;
        };
        let mut reply = BytesMut::new();
        asked.refuse(refused, &mut reply);
        if send(socket, &reply, out) {
            self.leave(now, socket, out);
            self.handle_readable(now, socket, machine, out);
        } else {
            self.end(now, socket, TcpClose::Abort, machine, out);
        }
    }

    fn handle_closed(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Some(socket) = self.tunnels.remove(&tunnel) else {
            return self.associations.forget(tunnel);
        };
        // The socket of a spliced connection is closed already, and closing it again does nothing.
        self.end(now, socket, TcpClose::Abort, machine, out);
    }
}

/// Sends a reply. There is always room for it: all replies on a connection are smaller than the smallest buffer of a
/// socket.
fn send(socket: TcpId, reply: &[u8], out: &mut World<'_>) -> bool {
    reply.is_empty()
        || out
            .write(socket, &[IoSlice::new(reply)])
            .is_ok_and(|written| written == reply.len())
}

impl App for Front {
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
                self.handle_refused(now, tunnel, &refused, machine, out);
            }
            LocalEvent::Payload(tunnel, payload) => {
                self.associations.handle_payload(tunnel, &payload, out);
            }
            LocalEvent::Closed(tunnel, _) => self.handle_closed(now, tunnel, machine, out),
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
        }
    }

    fn handle_received(
        &mut self,
        now: Instant,
        (socket, _): (SocketId, u32),
        received: Received,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        // An error of a shared socket concerns a peer that is gone.
        if let Received::Train(train) = received {
            self.associations
                .handle_train(now, socket, train, machine, out);
        }
    }

    fn handle_tcp(
        &mut self,
        now: Instant,
        (socket, _): (TcpId, u32),
        event: TcpEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            TcpEvent::Accepted { socket, peer } => self.accept(now, socket, peer, machine, out),
            TcpEvent::Ready { readable: true, .. } => {
                self.handle_readable(now, socket, machine, out);
            }
            TcpEvent::Ready { .. } | TcpEvent::Connected => {}
            TcpEvent::Failed(_) | TcpEvent::Broken(_) => {}
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        while let Some(&(due, socket)) = self.deadlines.first()
            && due <= now
        {
            self.end(now, socket, TcpClose::Abort, machine, out);
        }
        self.associations.flush(out);
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    fn is_finished(&self) -> bool {
        false
    }
}
