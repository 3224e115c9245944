//! The simulation: nodes, the order of their turns, and what tests say to them.
//!
//! Time jumps from event to event. At each moment every node that has something to do takes turns until nobody has,
//! exactly as `worker::run` would; a machine that never comes to rest fails the test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bauta::client::{Hop, TcpForm};
use bauta::net::clock;
use bauta::net::steer::Steer;
use bauta::transport::quic::{HubStats, SendOutcome};
use bauta::tunnel::TunnelId;
use bauta::worker::TcpTag;
use bauta::worker::stats::Stats;
use bytes::Bytes;

use crate::browser::Browser;
use crate::host::{Behaviour, Conversation, TcpHost};
use crate::net::{Net, NodeId};
use crate::node::{self, Host, Local, MachineNode, RELAY_PORT, Role, Settings};
use crate::raw::Raw;

/// More turns than this at one moment are a machine that spins.
const TURNS_AT_ONCE_MAX: usize = 20_000;

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(1 << 32);

enum Kind {
    Machine(Box<MachineNode>),
    Host(Host),
    TcpHost(TcpHost),
    Raw(Box<Raw>),
    Browser(Box<Browser>),
}

struct Node {
    kind: Kind,
    busy: bool,
    paused_until: Option<Instant>,
}

/// Everything.
pub(crate) struct Sim {
    pub(crate) net: Net,
    nodes: Vec<Node>,
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A payload that can be told from every other one: its number, and bytes that depend on it.
pub(crate) fn payload(number: u64, len: usize) -> Bytes {
    let mut bytes: Vec<u8> = (0..len)
        .map(|at| (at as u64 * 31 + number * 7) as u8)
        .collect();
    let head = len.min(8);
    bytes[..head].copy_from_slice(&number.to_be_bytes()[8 - head..]);
    bytes.into()
}

/// The number of a payload of at least eight bytes, checked to be intact.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_be_bytes(*bytes.first_chunk().expect("a payload with a number"));
    assert_eq!(bytes, payload(number, bytes.len()), "a payload was damaged");
    number
}

/// Fails unless both are the same, and says where they part instead of printing thousands.
#[track_caller]
pub(crate) fn assert_same<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) {
    let parted = found
        .iter()
        .zip(expected)
        .position(|(found, expected)| found != expected);
    let at = parted.unwrap_or_else(|| found.len().min(expected.len()));
    assert!(
        parted.is_none() && found.len() == expected.len(),
        "{what}: {} instead of {}, parting at {at}: {:?} instead of {:?}",
        found.len(),
        expected.len(),
        found.get(at),
        expected.get(at),
    );
}

/// The numbers of payloads, each checked to be intact.
pub(crate) fn numbers(payloads: &[Bytes]) -> Vec<u64> {
    payloads.iter().map(|payload| number(payload)).collect()
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            net: Net::new(clock::now(), seed),
            nodes: Vec::new(),
        }
    }

    fn place(&mut self, network: [u8; 3]) -> NodeId {
        let [a, b, c] = network;
        let last = self.nodes.len() as u8 + 1;
        self.net.add_node(IpAddr::V4(Ipv4Addr::new(a, b, c, last)))
    }

    fn push(&mut self, id: NodeId, kind: Kind) -> NodeId {
        assert_eq!(id.0, self.nodes.len());
        self.nodes.push(Node {
            kind,
            busy: true,
            paused_until: None,
        });
        id
    }

    /// A relay: an egress without hops, an ingress with them. Its name is in the DNS.
    pub(crate) fn relay(&mut self, name: &str, hops: &[&str]) -> NodeId {
        self.relay_with(name, hops, |_| {})
    }

    pub(crate) fn relay_with(
        &mut self,
        name: &str,
        hops: &[&str],
        change: impl FnOnce(&mut Settings),
    ) -> NodeId {
        let hops = hops.iter().map(|name| node::hop(name)).collect();
        self.relay_with_hops(name, hops, change)
    }

    pub(crate) fn relay_with_hops(
        &mut self,
        name: &str,
        hops: Vec<Hop>,
        change: impl FnOnce(&mut Settings),
    ) -> NodeId {
        let mut settings = Settings::new(name);
        change(&mut settings);
        let id = self.place([192, 0, 2]);
        self.net.set_name(name, Ok(vec![self.net.ip(id)]));
        let role = Role::relay(hops);
        let machine = MachineNode::new(&mut self.net, id, settings, role);
        self.push(id, Kind::Machine(Box::new(machine)))
    }

    /// Kills the process of these workers: their sockets close, and nobody is told more than that.
    pub(crate) fn kill(&mut self, ids: &[NodeId]) {
        for id in ids {
            self.net.close_sockets(*id);
            self.nodes[id.0].paused_until = Some(self.net.now + FOREVER);
        }
    }

    /// Starts an egress that was killed again, with as many workers. What it knew is gone.
    pub(crate) fn start_again(
        &mut self,
        ids: &[NodeId],
        name: &str,
        change: impl Fn(&mut Settings),
    ) {
        for (id, kind) in ids.iter().zip(self.process(ids, name, change)) {
            self.nodes[id.0] = Node {
                kind,
                busy: true,
                paused_until: None,
            };
        }
    }

    /// An egress of several workers that listen on one address.
    pub(crate) fn workers(&mut self, name: &str, count: u32) -> Vec<NodeId> {
        self.workers_with(name, count, |_| {})
    }

    pub(crate) fn workers_with(
        &mut self,
        name: &str,
        count: u32,
        change: impl Fn(&mut Settings),
    ) -> Vec<NodeId> {
        let first = self.place([192, 0, 2]);
        let ip = self.net.ip(first);
        self.net.set_name(name, Ok(vec![ip]));
        let others = (1..count).map(|_| self.net.add_node(ip));
        let ids: Vec<_> = [first].into_iter().chain(others).collect();
        for (&id, machine) in ids.iter().zip(self.process(&ids, name, change)) {
            self.push(id, machine);
        }
        ids
    }

    /// The workers of a new process on these nodes.
    fn process(&mut self, ids: &[NodeId], name: &str, change: impl Fn(&mut Settings)) -> Vec<Kind> {
        let key = [(); 4].map(|()| self.net.rng.next() as u32);
        let steer = Steer::new(key, ids.len() as u32);
        self.net.join_workers(ids);
        let machine = |(worker, &id): (usize, &NodeId)| {
            let role = Role {
                steer: (steer, worker as u32),
                ..Role::relay(Vec::new())
            };
            let mut settings = Settings::new(name);
            change(&mut settings);
            let machine = MachineNode::new(&mut self.net, id, settings, role);
            Kind::Machine(Box::new(machine))
        };
        ids.iter().enumerate().map(machine).collect()
    }

    /// A client whose route goes through these relays, nested if there are several.
    pub(crate) fn client(&mut self, hops: &[&str]) -> NodeId {
        self.client_with(hops, |_| {})
    }

    pub(crate) fn client_with(
        &mut self,
        hops: &[&str],
        change: impl FnOnce(&mut Settings),
    ) -> NodeId {
        let hops = hops.iter().map(|name| node::hop(name)).collect();
        self.client_with_hops(hops, change)
    }

    pub(crate) fn client_with_hops(
        &mut self,
        hops: Vec<Hop>,
        change: impl FnOnce(&mut Settings),
    ) -> NodeId {
        let mut settings = Settings::new("client");
        change(&mut settings);
        let id = self.place([198, 51, 100]);
        let machine = MachineNode::new(&mut self.net, id, settings, Role::client(hops));
        self.push(id, Kind::Machine(Box::new(machine)))
    }

    /// A target. Its name is in the DNS.
    pub(crate) fn host(&mut self, name: &str, port: u16, echo: bool) -> NodeId {
        let id = self.place([203, 0, 113]);
        self.net.set_name(name, Ok(vec![self.net.ip(id)]));
        let host = Host::new(&mut self.net, id, port, echo);
        self.push(id, Kind::Host(host))
    }

    /// A target for TCP. Its name is in the DNS.
    pub(crate) fn tcp_host(&mut self, name: &str, port: u16, behaviour: Behaviour) -> NodeId {
        let id = self.place([203, 0, 113]);
        self.net.set_name(name, Ok(vec![self.net.ip(id)]));
        let host = TcpHost::new(&mut self.net, id, port, behaviour);
        self.push(id, Kind::TcpHost(host))
    }

    /// A QUIC client in the hands of the test.
    pub(crate) fn raw_client(&mut self) -> NodeId {
        let id = self.place([198, 51, 100]);
        let raw = Raw::new(&mut self.net, id);
        self.push(id, Kind::Raw(Box::new(raw)))
    }

    /// A client that asks for pages.
    pub(crate) fn browser(&mut self) -> NodeId {
        let id = self.place([198, 51, 100]);
        let browser = Browser::new(&mut self.net, id);
        self.push(id, Kind::Browser(Box::new(browser)))
    }

    pub(crate) fn browses(&self, id: NodeId) -> &Browser {
        match &self.nodes[id.0].kind {
            Kind::Browser(browser) => browser,
            Kind::Machine(_) | Kind::Host(_) | Kind::TcpHost(_) | Kind::Raw(_) => {
                panic!("{id:?} is no browser")
            }
        }
    }

    /// Lets the test act on a browser between turns.
    pub(crate) fn browse<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Browser, &mut Net) -> T,
    ) -> T {
        let node = &mut self.nodes[id.0];
        node.busy = true;
        match &mut node.kind {
            Kind::Browser(browser) => act(browser, &mut self.net),
            Kind::Machine(_) | Kind::Host(_) | Kind::TcpHost(_) | Kind::Raw(_) => {
                panic!("{id:?} is no browser")
            }
        }
    }

    pub(crate) fn address(&self, relay: NodeId) -> SocketAddr {
        SocketAddr::new(self.net.ip(relay), RELAY_PORT)
    }

    pub(crate) fn node(&self, id: NodeId) -> &MachineNode {
        match &self.nodes[id.0].kind {
            Kind::Machine(machine) => machine,
            Kind::Host(_) | Kind::TcpHost(_) | Kind::Raw(_) | Kind::Browser(_) => {
                panic!("{id:?} is no machine")
            }
        }
    }

    pub(crate) fn stats(&self, id: NodeId) -> Stats {
        self.node(id).machine.stats
    }

    pub(crate) fn hub(&self, id: NodeId) -> HubStats {
        self.node(id).machine.hub().stats
    }

    pub(crate) fn tcp_connections(&self, id: NodeId) -> usize {
        self.node(id).machine.tcp_hub().connection_count()
    }

    /// Connections to targets that a relay has, or tries to have.
    pub(crate) fn target_connections(&self, id: NodeId) -> usize {
        let is_target = |bits| matches!(TcpTag::from_bits(bits), TcpTag::Target(_));
        self.net.tcp_sockets(id, is_target)
    }

    pub(crate) fn connections(&self, id: NodeId) -> usize {
        self.node(id).machine.hub().connection_count()
    }

    pub(crate) fn target(&self, id: NodeId) -> &Host {
        match &self.nodes[id.0].kind {
            Kind::Host(host) => host,
            Kind::Machine(_) | Kind::TcpHost(_) | Kind::Raw(_) | Kind::Browser(_) => {
                panic!("{id:?} is no host")
            }
        }
    }

    pub(crate) fn tcp_target(&self, id: NodeId) -> &TcpHost {
        match &self.nodes[id.0].kind {
            Kind::TcpHost(host) => host,
            Kind::Machine(_) | Kind::Host(_) | Kind::Raw(_) | Kind::Browser(_) => {
                panic!("{id:?} is no TCP host")
            }
        }
    }

    /// A connection of a TCP host, by its number.
    pub(crate) fn conversation(&self, id: NodeId, number: usize) -> &Conversation {
        &self.tcp_target(id).conversations[number]
    }

    /// Lets the test act on a TCP host between turns.
    pub(crate) fn act_on_tcp<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut TcpHost, &mut Net) -> T,
    ) -> T {
        let node = &mut self.nodes[id.0];
        node.busy = true;
        match &mut node.kind {
            Kind::TcpHost(host) => act(host, &mut self.net),
            Kind::Machine(_) | Kind::Host(_) | Kind::Raw(_) | Kind::Browser(_) => {
                panic!("{id:?} is no TCP host")
            }
        }
    }

    pub(crate) fn raw(&mut self, id: NodeId) -> &mut Raw {
        self.nodes[id.0].busy = true;
        match &mut self.nodes[id.0].kind {
            Kind::Raw(raw) => raw,
            Kind::Machine(_) | Kind::Host(_) | Kind::TcpHost(_) | Kind::Browser(_) => {
                panic!("{id:?} is no raw client")
            }
        }
    }

    /// Lets the test act on a machine between turns.
    pub(crate) fn act<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut MachineNode, &mut Net) -> T,
    ) -> T {
        let node = &mut self.nodes[id.0];
        node.busy = true;
        match &mut node.kind {
            Kind::Machine(machine) => act(machine, &mut self.net),
            Kind::Host(_) | Kind::TcpHost(_) | Kind::Raw(_) | Kind::Browser(_) => {
                panic!("{id:?} is no machine")
            }
        }
    }

    /// Opens a tunnel along the client's route.
    pub(crate) fn open(&mut self, client: NodeId, target: &str) -> TunnelId {
        let target = target.parse().expect("host:port");
        self.act(client, |node, net| {
            let hop = node.hop.expect("a client has a route");
            let tunnel = node
                .machine
                .open_local(net.now, hop, target, &mut net.world(client));
            node.tunnels.entry(tunnel).or_default();
            tunnel
        })
    }

    /// Opens a TCP tunnel along the client's route.
    pub(crate) fn open_tcp(
        &mut self,
        client: NodeId,
        target: &str,
        form: Option<TcpForm>,
    ) -> TunnelId {
        let target = target.parse().expect("host:port");
        self.act(client, |node, net| {
            let hop = node.hop.expect("a client has a route");
            let now = net.now;
            let world = &mut net.world(client);
            let tunnel = node.machine.open_local_tcp(now, hop, target, form, world);
            node.tunnels.entry(tunnel).or_default();
            tunnel
        })
    }

    /// Opens a TCP tunnel and waits until it is open.
    pub(crate) fn open_tcp_now(
        &mut self,
        client: NodeId,
        target: &str,
        form: Option<TcpForm>,
    ) -> TunnelId {
        let tunnel = self.open_tcp(client, target, form);
        let opened = self.run_until(secs(5), |sim| sim.tunnel(client, tunnel).is_open());
        assert!(opened, "{:?}", self.tunnel(client, tunnel));
        tunnel
    }

    /// Writes bytes into a TCP tunnel as it takes them, and ends the direction behind them if told to.
    pub(crate) fn write(&mut self, client: NodeId, tunnel: TunnelId, data: Bytes, finishes: bool) {
        self.act(client, |node, net| {
            let local = node.tunnels.entry(tunnel).or_default();
            assert!(local.unwritten.is_empty(), "one thing after the other");
            local.unwritten = data;
            local.finishes = finishes;
            node.write(net, client, tunnel);
        });
    }

    /// Stops reading a TCP tunnel, or goes on.
    pub(crate) fn pause_tunnel(&mut self, client: NodeId, tunnel: TunnelId, paused: bool) {
        self.act(client, |node, net| {
            node.tunnels.entry(tunnel).or_default().paused = paused;
            node.read(net, client, tunnel);
        });
    }

    /// Resets a TCP tunnel.
    pub(crate) fn reset(&mut self, client: NodeId, tunnel: TunnelId) {
        self.act(client, |node, net| {
            let now = net.now;
            node.machine
                .reset_local(now, tunnel, &mut net.world(client));
        });
    }

    /// Opens a tunnel and waits until it is open.
    pub(crate) fn open_now(&mut self, client: NodeId, target: &str) -> TunnelId {
        let tunnel = self.open(client, target);
        let opened = self.run_until(secs(5), |sim| sim.tunnel(client, tunnel).is_open());
        assert!(opened, "{:?}", self.tunnel(client, tunnel));
        tunnel
    }

    pub(crate) fn send(&mut self, client: NodeId, tunnel: TunnelId, data: Bytes) -> SendOutcome {
        self.act(client, |node, net| {
            node.machine
                .send_local(net.now, tunnel, data, &mut net.world(client))
        })
    }

    pub(crate) fn close(&mut self, client: NodeId, tunnel: TunnelId) {
        self.act(client, |node, net| {
            node.machine
                .close_local(net.now, tunnel, &mut net.world(client));
        });
    }

    /// Starts the graceful end of a machine.
    pub(crate) fn drain(&mut self, id: NodeId) {
        self.act(id, |node, net| node.machine.drain(net.now));
    }

    /// Ends a machine at once.
    pub(crate) fn stop(&mut self, id: NodeId) {
        self.act(id, |node, net| {
            node.machine.stop(net.now, &mut net.world(id));
        });
    }

    pub(crate) fn tunnel(&self, client: NodeId, tunnel: TunnelId) -> &Local {
        &self.node(client).tunnels[&tunnel]
    }

    /// Sends from a host.
    pub(crate) fn reply(&mut self, host: NodeId, peer: SocketAddr, data: Bytes) {
        let socket = self.target(host).socket;
        node::send(&mut self.net, host, socket, peer, data);
    }

    /// Stops a node: it takes no turns, and what arrives waits in its sockets or finds no room.
    pub(crate) fn pause(&mut self, id: NodeId, duration: Duration) {
        let until = self.net.now + duration;
        self.nodes[id.0].paused_until = Some(until);
        self.net.wake_at(id, until);
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until `done`, or for as long as `limit`; whether `done` came first.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.net.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            match self.next_due() {
                Some(due) if due <= end => self.net.now = due.max(self.net.now),
                Some(_) | None => {
                    self.net.now = end;
                    return false;
                }
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let now = self.net.now;
        let timers = self
            .nodes
            .iter()
            .filter(|node| node.runs(now))
            .filter_map(Node::next_timeout);
        timers.chain(self.net.next_event()).min()
    }

    /// Turns at this moment, until everybody rests.
    fn settle(&mut self) {
        for _ in 0..TURNS_AT_ONCE_MAX {
            let nodes = &mut self.nodes;
            self.net.advance(|id| nodes[id.0].busy = true);
            let now = self.net.now;
            let mut rested = true;
            for index in 0..self.nodes.len() {
                let node = &mut self.nodes[index];
                let due = node.next_timeout().is_some_and(|due| due <= now);
                if node.runs(now) && (node.busy || due) {
                    rested = false;
                    node.turn(&mut self.net, NodeId(index));
                }
            }
            if rested {
                return;
            }
        }
        panic!("a machine spins at {:?}", self.net.elapsed());
    }
}

impl Node {
    fn runs(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    fn next_timeout(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Machine(machine) => machine.machine.next_timeout(),
            Kind::Raw(raw) => raw.next_timeout(),
            Kind::Browser(browser) => browser.next_timeout(),
            Kind::Host(_) | Kind::TcpHost(_) => None,
        }
    }

    fn turn(&mut self, net: &mut Net, id: NodeId) {
        let more = match &mut self.kind {
            Kind::Machine(machine) => machine.turn(net, id),
            Kind::Host(host) => host.turn(net, id),
            Kind::TcpHost(host) => host.turn(net, id),
            Kind::Raw(raw) => raw.turn(net, id),
            Kind::Browser(browser) => browser.turn(net, id),
        };
        self.busy = more || net.has_work(id);
    }
}
