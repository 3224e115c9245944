//! `bauta udp`: a local UDP port whose datagrams come out of a relay.
//!
//! ```text
//!   local programs ─► one socket ─► a flow per source address ─► a tunnel each ─► relay(s) ─► target
//! ```

use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Instant;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use super::forward::{Client, First, Outbox, explain};
use super::threads::StartError;
use crate::client::RouteId;
use crate::config::Checked;
use crate::net::listen::{Sharing, bind_group};
use crate::net::{Driver, Received, SocketId, SocketKind};
use crate::tunnel::TunnelId;
use crate::wire::target::Target;
use crate::worker::build::RouteOptions;
use crate::worker::run::{App, World};
use crate::worker::{LocalEvent, Machine, Tag};

/// Most local programs that are served at once.
const FLOWS_MAX: usize = 4_096;

/// What to forward, and through whom.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The way to the target.
    pub route: RouteOptions,
    /// The local address.
    pub listen: SocketAddr,
    /// Where the datagrams shall go.
    pub target: Target,
}

/// Forwards until a signal, or until the first tunnel is refused. Prints `listening on ADDRESS` to `out` when the first
/// tunnel is open.
///
/// # Errors
/// What keeps the forwarder from starting; the refusal, if the relay refuses the target.
pub fn run(forward: Forward, checked: Checked, out: &mut dyn Write) -> Result<(), StartError> {
    let socket = bind_group(forward.listen, 1, Sharing::default())?
        .into_iter()
        .next();
    let socket = socket.expect("one was asked for");
    let address = socket.local_addr()?;
    let (probe, probed) = mpsc::channel(1);
    let client = Client {
        title: "udp",
        route: forward.route,
        address,
        first: First::Probe(probed),
    };
    let target = forward.target;
    client.run(checked, out, move |hop, driver| {
        let socket = socket.try_clone()?;
        Forwarder::new(hop, target.clone(), socket, probe.clone(), driver)
    })
}

/// One local program.
#[derive(Debug)]
struct Flow {
    peer: SocketAddr,
    /// Payloads on their way back.
    outbox: Outbox,
}

/// The app: flows by address, and by tunnel.
struct Forwarder {
    hop: RouteId,
    target: Target,
    socket: SocketId,
    /// The tunnel that was opened before anybody asked, to see whether it works.
    spare: Option<TunnelId>,
    started: bool,
    /// The first tunnel was open.
    announced: bool,
    opened: mpsc::Sender<Result<(), String>>,
    tunnels: FxHashMap<SocketAddr, TunnelId>,
    flows: FxHashMap<TunnelId, Flow>,
    /// Flows whose outbox has something in it.
    filled: Vec<TunnelId>,
}

impl Forwarder {
    fn new(
        hop: RouteId,
        target: Target,
        socket: std::net::UdpSocket,
        opened: mpsc::Sender<Result<(), String>>,
        driver: &mut Driver,
    ) -> io::Result<Self> {
        let socket = driver.add(socket, SocketKind::Shared, Tag::App(0).to_bits())?;
        Ok(Self {
            hop,
            target,
            socket,
            spare: None,
            started: false,
            announced: false,
            opened,
            tunnels: FxHashMap::default(),
            flows: FxHashMap::default(),
            filled: Vec::new(),
        })
    }

    fn tunnel_of(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> Option<TunnelId> {
        let full = self.tunnels.len() >= FLOWS_MAX;
        match self.tunnels.entry(peer) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if full => None,
            Entry::Vacant(new) => {
                let open = || machine.open_local(now, self.hop, self.target.clone(), out);
                let tunnel = self.spare.take().unwrap_or_else(open);
                new.insert(tunnel);
                self.flows.insert(
                    tunnel,
                    Flow {
                        peer,
                        outbox: Outbox::default(),
                    },
                );
                Some(tunnel)
            }
        }
    }

    fn forget(&mut self, tunnel: TunnelId) {
        if let Some(flow) = self.flows.remove(&tunnel) {
            self.tunnels.remove(&flow.peer);
        }
        self.spare = self.spare.filter(|spare| *spare != tunnel);
    }
}

impl App for Forwarder {
    fn handle(&mut self, _: Instant, event: LocalEvent, _: &mut Machine, out: &mut World<'_>) {
        match event {
            LocalEvent::Opened(_) if self.announced => {}
            LocalEvent::Opened(_) => {
                self.announced = true;
                drop(self.opened.try_send(Ok(())));
            }
            LocalEvent::Payload(tunnel, payload) => {
                let Some(flow) = self.flows.get_mut(&tunnel) else {
                    return;
                };
                let to = (self.socket, flow.peer);
                if flow.outbox.push(to, &[], &payload, out) {
                    self.filled.push(tunnel);
                }
            }
            LocalEvent::Refused(tunnel, refused) => {
                let text = explain(&refused);
                if self.spare == Some(tunnel) {
                    drop(self.opened.try_send(Err(text)));
                } else {
                    tracing::warn!("{text}");
                }
                self.forget(tunnel);
            }
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
            LocalEvent::Closed(tunnel, _) => self.forget(tunnel),
        }
    }

    fn handle_received(
        &mut self,
        now: Instant,
        _: (SocketId, u32),
        received: Received,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        // An error of a shared socket concerns a peer that is gone.
        let Received::Train(train) = received else {
            return;
        };
        let Some(tunnel) = self.tunnel_of(now, train.peer, machine, out) else {
            return;
        };
        for payload in train.segments() {
            machine.send_local(now, tunnel, payload.freeze(), out);
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        if !self.started {
            self.started = true;
            self.spare = Some(machine.open_local(now, self.hop, self.target.clone(), out));
        }
        for tunnel in self.filled.drain(..) {
            if let Some(flow) = self.flows.get_mut(&tunnel) {
                flow.outbox.flush((self.socket, flow.peer), out);
            }
        }
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_finished(&self) -> bool {
        false
    }
}
