//! UDP for SOCKS 5: a socket per association, a tunnel per target that a client names on it (RFC 1928 section 7).
//!
//! ```text
//!   client ── header, payload ──► socket ─► flow per header ─► a tunnel each ─► relay(s) ─► targets
//!          ◄─ header, payload ──           the same header in front of what comes back
//! ```
//!
//! A flow is known by the bytes of its header, so replies name the target as the client did, and nothing is parsed
//! twice.
//! An association belongs to its TCP connection and ends with it. Fragments are dropped: reassembly is optional.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::socks::{self, Destination};
use crate::client::RouteId;
use crate::net::listen::{Sharing, bind_group};
use crate::net::{SocketId, SocketKind, Train};
use crate::program::forward::Outbox;
use crate::tunnel::TunnelId;
use crate::wire::target::Host;
use crate::worker::run::World;
use crate::worker::{Machine, Outside, Tag};

/// Most associations at once; each is a socket.
pub(super) const ASSOCIATIONS_MAX: usize = 256;
/// Most targets of one association at once; a further one takes the place of the one that was quiet for longest.
pub(super) const TARGETS_MAX: usize = 64;

/// All associations.
pub(super) struct Associations {
    hop: RouteId,
    by_socket: FxHashMap<SocketId, Association>,
    flows: FxHashMap<TunnelId, Flow>,
    /// Flows whose outbox has something in it.
    filled: Vec<TunnelId>,
    /// How often flows were used so far, which tells the quiet ones.
    uses: u64,
}

struct Association {
    client_ip: IpAddr,
    /// The port that the client announced.
    port: Option<u16>,
    /// The first that sent, and the only one since.
    client: Option<SocketAddr>,
    tunnels: FxHashMap<Bytes, TunnelId>,
}

struct Flow {
    socket: SocketId,
    header: Bytes,
    last_used: u64,
    outbox: Outbox,
}

impl Association {
    /// Whether datagrams from there belong to the association.
    fn admits(&mut self, peer: SocketAddr) -> bool {
        if let Some(client) = self.client {
            return client == peer;
        }
        let admitted =
            peer.ip() == self.client_ip && self.port.is_none_or(|port| port == peer.port());
        if admitted {
            self.client = Some(peer);
        }
        admitted
    }
}

impl Associations {
    pub(super) fn new(hop: RouteId) -> Self {
        Self {
            hop,
            by_socket: FxHashMap::default(),
            flows: FxHashMap::default(),
            filled: Vec::new(),
            uses: 0,
        }
    }

    /// Opens a socket on `ip` for a client, who says that it will send from `announced`. Returns where it listens.
    pub(super) fn open(
        &mut self,
        ip: IpAddr,
        client_ip: IpAddr,
        announced: &Destination,
        out: &mut World<'_>,
    ) -> io::Result<(SocketId, SocketAddr)> {
        if self.by_socket.len() >= ASSOCIATIONS_MAX {
            let text = format!("there are {ASSOCIATIONS_MAX} UDP associations already");
            return Err(io::Error::other(text));
        }
        let bound = bind_group(SocketAddr::new(ip, 0), 1, Sharing::default())?;
        let bound = bound.into_iter().next().expect("one was asked for");
        let address = bound.local_addr()?;
        let tag = Tag::App(0).to_bits();
        let socket = out.driver.add(bound, SocketKind::Shared, tag)?;
        // Clients that do not know it yet, or see another address of theirs than we do, announce nothing of use.
        let announces = announced.host == Some(Host::Ip(client_ip)) && announced.port != 0;
        let association = Association {
            client_ip,
            port: announces.then_some(announced.port),
            client: None,
            tunnels: FxHashMap::default(),
        };
        self.by_socket.insert(socket, association);
        Ok((socket, address))
    }

    /// Ends an association and all its tunnels.
    pub(super) fn close(
        &mut self,
        now: Instant,
        socket: SocketId,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Some(association) = self.by_socket.remove(&socket) else {
            return;
        };
        out.remove(socket);
        for tunnel in association.tunnels.into_values() {
            self.flows.remove(&tunnel);
            machine.close_local(now, tunnel, out);
        }
    }

    /// Datagrams of a client.
    pub(super) fn handle_train(
        &mut self,
        now: Instant,
        socket: SocketId,
        train: Train,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let admitted = self
            .by_socket
            .get_mut(&socket)
            .is_some_and(|association| association.admits(train.peer));
        if !admitted {
            return;
        }
        for datagram in train.segments() {
            let mut datagram = datagram.freeze();
            let Some(len) = socks::datagram_header(&datagram) else {
                continue;
            };
            let header = datagram.split_to(len);
            if let Some(tunnel) = self.tunnel_of(now, socket, &header, machine, out) {
                machine.send_local(now, tunnel, datagram, out);
            }
        }
    }

    fn tunnel_of(
        &mut self,
        now: Instant,
        socket: SocketId,
        header: &[u8],
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> Option<TunnelId> {
        self.uses += 1;
        let association = self.by_socket.get_mut(&socket)?;
        if let Some(&tunnel) = association.tunnels.get(header) {
            if let Some(flow) = self.flows.get_mut(&tunnel) {
                flow.last_used = self.uses;
            }
            return Some(tunnel);
        }
        let target = socks::datagram_target(header)?;
        if association.tunnels.len() >= TARGETS_MAX {
            let quiet = association
                .tunnels
                .values()
                .min_by_key(|tunnel| self.flows.get(tunnel).map(|flow| flow.last_used));
            if let Some(&quiet) = quiet {
                self.forget(quiet);
                machine.close_local(now, quiet, out);
            }
        }
        let tunnel = machine.open_local(now, self.hop, target, out);
        // The header would keep the whole train alive.
        let header = Bytes::copy_from_slice(header);
        let association = self.by_socket.get_mut(&socket)?;
        association.tunnels.insert(header.clone(), tunnel);
        let flow = Flow {
            socket,
            header,
            last_used: self.uses,
            outbox: Outbox::default(),
        };
        self.flows.insert(tunnel, flow);
        Some(tunnel)
    }

    /// A datagram of a target.
    pub(super) fn handle_payload(&mut self, tunnel: TunnelId, payload: &[u8], out: &mut World<'_>) {
        self.uses += 1;
        let Some(flow) = self.flows.get_mut(&tunnel) else {
            return;
        };
        flow.last_used = self.uses;
        let association = self.by_socket.get(&flow.socket);
        let Some(client) = association.and_then(|association| association.client) else {
            return;
        };
        let to = (flow.socket, client);
        if flow.outbox.push(to, &flow.header, payload, out) {
            self.filled.push(tunnel);
        }
    }

    /// Sends what the turn has collected.
    pub(super) fn flush(&mut self, out: &mut World<'_>) {
        for tunnel in self.filled.drain(..) {
            if let Some(flow) = self.flows.get_mut(&tunnel)
                && let Some(association) = self.by_socket.get(&flow.socket)
                && let Some(client) = association.client
            {
                flow.outbox.flush((flow.socket, client), out);
            }
        }
    }

    /// A tunnel is over; the next datagram for its target opens another.
    pub(super) fn forget(&mut self, tunnel: TunnelId) {
        if let Some(flow) = self.flows.remove(&tunnel)
            && let Some(association) = self.by_socket.get_mut(&flow.socket)
        {
            association.tunnels.remove(&flow.header);
        }
    }
}
