//! The simulated network: sockets, links with faults, name servers, and an event heap in virtual time.
//!
//! ```text
//!   Network::send ─► cut into datagrams ─► NAT ─► link: MTU, loss, duplicates, rate, delay ─► heap
//!                                                                                              │ due
//!   Machine ◄─ trains (GRO) ◄─ receive queue of the socket, bounded in bytes ◄─────────────────┘
//! ```
//!
//! Everything random comes from one seed. Several sockets may share an address, as with SO_REUSEPORT; a hash of the
//! sender's address picks one, as a kernel without a steering program does.
//!
//! TCP is in `tcp`; the link delays both, and shares its rate among them. TUNs are in `tun`, and lead to the test only.
//!
//! Does not fragment, does not corrupt: UDP checksums drop what is damaged, and that is loss.

mod link;
mod socket;
mod tcp;
mod tun;
mod world;

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bauta::net::{Received, SocketId, SocketOptions, TcpId, Train};
use bauta::policy::auth::{Job, Verdict};
use bauta::policy::resolve::Resolution;
use bauta::worker::Resolve;
use bytes::Bytes;

pub(crate) use self::link::{Link, Rng, UdpCut};
use self::socket::{Packet, Socket};
use self::tcp::Tcp;
use self::tun::Tuns;
pub(crate) use self::world::World;

/// Names a node of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) usize);

/// Datagrams that all sockets of a node bring per turn, as `DriverConfig` has it.
const TURN_BUDGET: usize = 256;
/// Datagrams that one socket brings per turn.
const SOCKET_BUDGET: usize = 64;
/// Receive buffer of a socket unless told otherwise, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What one node did on the network: what an observer inside that node could know.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Targets of [`Outside::connect`], in order.
    pub(crate) connected: Vec<SocketAddr>,
    /// Targets of [`Outside::connect_tcp`], in order.
    pub(crate) connected_tcp: Vec<SocketAddr>,
    /// The options of both, in order.
    pub(crate) options: Vec<SocketOptions>,
    /// Names of [`Outside::resolve`], in order.
    pub(crate) resolved: Vec<String>,
    /// Addresses that packets came from or went to.
    pub(crate) peers: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Port {
    ip: IpAddr,
    ready: VecDeque<SocketId>,
    tcp_ready: VecDeque<TcpId>,
    letters: VecDeque<Letter>,
    /// The workers of the same process, this one included.
    workers: Vec<NodeId>,
    log: Log,
}

/// What reaches a node beside packets.
#[derive(Debug)]
pub(crate) enum Letter {
    Stray {
        listener: u32,
        train: Train,
    },
    Resolved {
        asker: Resolve,
        resolution: Resolution,
    },
    Verdict(Verdict),
    Packet(Bytes),
}

#[derive(Debug)]
enum Event {
    Arrive(Packet),
    /// The same of TCP, and one that was lost and is sent again.
    Segment(tcp::Segment),
    Resend(tcp::Segment),
    /// An ICMP error about what this socket sent.
    Unreachable(SocketId),
    Resolved {
        node: NodeId,
        asker: Resolve,
        resolution: Resolution,
    },
    Verdict {
        node: NodeId,
        verdict: Verdict,
    },
    Wake(NodeId),
}

#[derive(Debug)]
struct Scheduled {
    due: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest, as [`BinaryHeap`] wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetStats {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) too_large: u64,
    pub(crate) no_room: u64,
    pub(crate) nobody: u64,
    /// Stopped by an [`UdpCut`].
    pub(crate) cut: u64,
    pub(crate) strays: u64,
}

/// The network between all nodes.
pub(crate) struct Net {
    /// The one time.
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) rng: Rng,
    pub(crate) stats: NetStats,
    /// The link between addresses that have none of their own.
    pub(crate) link: Link,
    /// How long a name server takes.
    pub(crate) dns_delay: Duration,
    /// Our own address as everybody sees it who asks, instead of the true one: somewhere else.
    pub(crate) elsewhere: Option<IpAddr>,
    /// How long the check of a password takes, and how many were asked for.
    pub(crate) verify_delay: Duration,
    pub(crate) verified: usize,
    /// A digest of everything sent: in which order, when, from where to where.
    pub(crate) digest: u64,
    /// TCP.
    pub(crate) tcp: Tcp,
    /// Between which addresses UDP stops, in order.
    udp_cuts: HashMap<(IpAddr, IpAddr), UdpCut>,
    /// Packets of each flow, its ends in order.
    flows: HashMap<(SocketAddr, SocketAddr), u64>,
    links: HashMap<(IpAddr, IpAddr), Link>,
    busy_until: HashMap<(IpAddr, IpAddr), Instant>,
    names: HashMap<String, Resolution>,
    /// Addresses as the rest of the world sees them, by what the socket is bound to.
    nat: HashMap<SocketAddr, SocketAddr>,
    sockets: HashMap<SocketId, Socket>,
    tuns: Tuns,
    bound: HashMap<SocketAddr, Vec<SocketId>>,
    refusing: HashSet<SocketAddr>,
    unroutable: HashSet<IpAddr>,
    ports: Vec<Port>,
    heap: BinaryHeap<Scheduled>,
    numbers: u64,
    slots: u32,
}

impl Net {
    pub(crate) fn new(start: Instant, seed: u64) -> Self {
        Self {
            now: start,
            start,
            rng: Rng::new(seed),
            stats: NetStats::default(),
            link: Link::default(),
            dns_delay: Duration::from_millis(10),
            elsewhere: None,
            verify_delay: Duration::ZERO,
            verified: 0,
            digest: 0,
            tcp: Tcp::default(),
            udp_cuts: HashMap::new(),
            flows: HashMap::new(),
            links: HashMap::new(),
            busy_until: HashMap::new(),
            names: HashMap::new(),
            nat: HashMap::new(),
            sockets: HashMap::new(),
            tuns: Tuns::default(),
            bound: HashMap::new(),
            refusing: HashSet::new(),
            unroutable: HashSet::new(),
            ports: Vec::new(),
            heap: BinaryHeap::new(),
            numbers: 0,
            slots: 0,
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn add_node(&mut self, ip: IpAddr) -> NodeId {
        let node = NodeId(self.ports.len());
        self.ports.push(Port {
            ip,
            ready: VecDeque::new(),
            tcp_ready: VecDeque::new(),
            letters: VecDeque::new(),
            workers: vec![node],
            log: Log::default(),
        });
        node
    }

    /// Makes nodes the workers of one process.
    pub(crate) fn join_workers(&mut self, workers: &[NodeId]) {
        for worker in workers {
            self.ports[worker.0].workers = workers.to_vec();
        }
    }

    pub(crate) fn log(&self, node: NodeId) -> &Log {
        &self.ports[node.0].log
    }

    pub(crate) fn ip(&self, node: NodeId) -> IpAddr {
        self.ports[node.0].ip
    }

    /// Opens a socket; without a port it gets a free one.
    pub(crate) fn bind(&mut self, node: NodeId, port: Option<u16>, tag: u64) -> SocketId {
        let ip = self.ip(node);
        let local = match port {
            Some(port) => SocketAddr::new(ip, port),
            // Workers of one process share an address, and with it the ports.
            None => (32_768..)
                .map(|port| SocketAddr::new(ip, port))
                .find(|local| !self.bound.contains_key(local))
                .expect("a free port"),
        };
        self.slots += 1;
        let id = SocketId::from_parts(self.slots, 1);
        let socket = Socket {
            node,
            tag,
            local,
            connected: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_bytes_max: RECEIVE_BUFFER,
            error: None,
            ready: false,
        };
        self.sockets.insert(id, socket);
        self.bound.entry(local).or_default().push(id);
        id
    }

    /// Closes whatever a node has open, as the kernel does for a process that was killed.
    pub(crate) fn close_sockets(&mut self, node: NodeId) {
        self.sockets.retain(|_, socket| socket.node != node);
        let Self { sockets, bound, .. } = self;
        bound.retain(|_, group| {
            group.retain(|id| sockets.contains_key(id));
            !group.is_empty()
        });
        self.close_tcp_sockets(node);
        let port = &mut self.ports[node.0];
        port.ready.clear();
        port.tcp_ready.clear();
        port.letters.clear();
    }

    /// Bounds the receive buffers of the sockets that a node has by now.
    pub(crate) fn set_receive_buffers(&mut self, node: NodeId, bytes: usize) {
        let sockets = self
            .sockets
            .values_mut()
            .filter(|socket| socket.node == node);
        sockets.for_each(|socket| socket.queue_bytes_max = bytes);
    }

    /// Sets both directions between two nodes.
    pub(crate) fn set_link(&mut self, a: NodeId, b: NodeId, link: Link) {
        self.set_one_way(a, b, link);
        self.set_one_way(b, a, link);
    }

    /// Sets one direction.
    pub(crate) fn set_one_way(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.links.insert((self.ip(from), self.ip(to)), link);
    }

    /// Makes the path between two nodes stop carrying UDP, in both directions; `None` undoes it.
    pub(crate) fn cut_udp(&mut self, a: NodeId, b: NodeId, cut: Option<UdpCut>) {
        let path = in_order(self.ip(a), self.ip(b));
        match cut {
            Some(cut) => self.udp_cuts.insert(path, cut),
            None => self.udp_cuts.remove(&path),
        };
    }

    /// UDP sockets of a node beyond those that it had from the start, which are connected to nobody.
    pub(crate) fn udp_targets(&self, node: NodeId) -> usize {
        let own = |socket: &&Socket| socket.node == node && socket.connected.is_some();
        self.sockets.values().filter(own).count()
    }

    /// What the name servers know.
    pub(crate) fn set_name(&mut self, name: &str, resolution: Resolution) {
        self.names.insert(name.to_owned(), resolution);
    }

    /// From now on the world sees this socket at another address. What is under way to the old one is lost.
    pub(crate) fn rebind(&mut self, socket: SocketId, public: SocketAddr) {
        let local = self.sockets[&socket].local;
        let old = self.nat.insert(local, public).unwrap_or(local);
        self.bound.remove(&old);
        self.bound.insert(public, vec![socket]);
    }

    /// An address where nobody listens and ICMP says so.
    pub(crate) fn refuse(&mut self, address: SocketAddr) {
        self.refusing.insert(address);
    }

    /// An address that no socket can be connected to.
    pub(crate) fn set_unroutable(&mut self, ip: IpAddr) {
        self.unroutable.insert(ip);
    }

    /// Puts a datagram of no socket on its way, as an attacker with raw sockets does.
    pub(crate) fn inject(&mut self, from: SocketAddr, to: SocketAddr, data: impl Into<Bytes>) {
        self.transmit(
            None,
            Packet {
                from,
                to,
                ecn: None,
                data: data.into(),
            },
        );
    }

    /// Makes a node take a turn at `due`.
    pub(crate) fn wake_at(&mut self, node: NodeId, due: Instant) {
        self.schedule(due, Event::Wake(node));
    }

    /// When something happens next.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.heap.peek().map(|scheduled| scheduled.due)
    }

    /// Lets everything happen that is due; whose turn it is then goes to `woken`.
    pub(crate) fn advance(&mut self, mut woken: impl FnMut(NodeId)) {
        while self.next_event().is_some_and(|due| due <= self.now) {
            let Some(Scheduled { event, .. }) = self.heap.pop() else {
                break;
            };
            match event {
                Event::Arrive(packet) => {
                    if let Some(node) = self.arrive(packet) {
                        woken(node);
                    }
                }
                Event::Segment(segment) => {
                    if let Some(node) = self.arrive_tcp(segment) {
                        woken(node);
                    }
                }
                Event::Resend(segment) => self.transmit_tcp(segment),
                Event::Unreachable(id) => {
                    if let Some(socket) = self.sockets.get_mut(&id) {
                        socket.error = Some(io::Error::from_raw_os_error(libc::ECONNREFUSED));
                        woken(socket.node);
                        self.make_ready(id);
                    }
                }
                Event::Resolved {
                    node,
                    asker,
                    resolution,
                } => {
                    let letters = &mut self.ports[node.0].letters;
                    letters.push_back(Letter::Resolved { asker, resolution });
                    woken(node);
                }
                Event::Verdict { node, verdict } => {
                    let letters = &mut self.ports[node.0].letters;
                    letters.push_back(Letter::Verdict(verdict));
                    woken(node);
                }
                Event::Wake(node) => woken(node),
            }
        }
    }

    fn schedule(&mut self, due: Instant, event: Event) {
        self.numbers += 1;
        self.heap.push(Scheduled {
            due,
            number: self.numbers,
            event,
        });
    }

    fn make_ready(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut socket.ready, true) {
            self.ports[socket.node.0].ready.push_back(id);
        }
    }

    fn arrive(&mut self, packet: Packet) -> Option<NodeId> {
        let Some(id) = self.socket_for(&packet) else {
            self.stats.nobody += 1;
            return None;
        };
        let socket = self.sockets.get_mut(&id)?;
        if socket.queue_bytes + packet.data.len() > socket.queue_bytes_max {
            self.stats.no_room += 1;
            return None;
        }
        self.stats.delivered += 1;
        socket.queue_bytes += packet.data.len();
        let node = socket.node;
        self.ports[node.0].log.peers.insert(packet.from.ip());
        socket.queue.push_back(packet);
        self.make_ready(id);
        Some(node)
    }

    fn socket_for(&self, packet: &Packet) -> Option<SocketId> {
        let group = self.bound.get(&packet.to)?;
        let flow = Rng::new(u64::from(packet.from.port())).next() as usize;
        let id = *group.get(flow % group.len().max(1))?;
        // The kernel drops what a connected socket gets from anybody else.
        let connected = self.sockets.get(&id)?.connected;
        connected
            .is_none_or(|peer| peer == packet.from)
            .then_some(id)
    }

    fn link_between(&self, from: IpAddr, to: IpAddr) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(self.link)
    }

    /// A random part of the delay.
    fn jitter(&mut self, link: &Link) -> Duration {
        if link.jitter.is_zero() {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.rng.below(link.jitter.as_nanos() as u64))
    }

    /// When the last of `len` bytes leaves, unless more than `queue` of waiting is before them.
    fn take_rate(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        len: usize,
        queue: Duration,
    ) -> Option<Instant> {
        let now = self.now;
        let Some(rate) = self.link_between(from, to).rate else {
            return Some(now);
        };
        let busy_until = self.busy_until.entry((from, to)).or_insert(now);
        let free = now.max(*busy_until);
        if free - now > queue {
            return None;
        }
        *busy_until = free + Duration::from_secs_f64(len as f64 / rate as f64);
        Some(*busy_until)
    }

    fn note_sent(&mut self, from: SocketAddr, to: SocketAddr) {
        let ports = u64::from(from.port()) << 16 | u64::from(to.port());
        let at = self.elapsed().as_nanos() as u64;
        self.digest = Rng::new(self.digest ^ at ^ ports.rotate_left(32)).next();
    }

    fn is_udp_cut(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        match self.udp_cuts.get(&in_order(from.ip(), to.ip())) {
            None => false,
            Some(UdpCut::At(from)) => *from <= self.now,
            Some(UdpCut::AfterPackets(count)) => {
                let sent = self.flows.entry(in_order(from, to)).or_default();
                *sent += 1;
                *sent > *count
            }
        }
    }

    fn transmit(&mut self, sender: Option<SocketId>, packet: Packet) {
        let (from, to, len) = (packet.from.ip(), packet.to.ip(), packet.data.len());
        self.stats.sent += 1;
        self.note_sent(packet.from, packet.to);
        if self.is_udp_cut(packet.from, packet.to) {
            self.stats.cut += 1;
            return;
        }
        let link = self.link_between(from, to);
        if len > link.mtu {
            self.stats.too_large += 1;
            return;
        }
        if self.rng.chance(link.loss) {
            self.stats.lost += 1;
            return;
        }
        let Some(leaves) = self.take_rate(from, to, len, link.queue) else {
            self.stats.lost += 1;
            return;
        };
        if self.refusing.contains(&packet.to)
            && let Some(sender) = sender
        {
            self.schedule(leaves + link.delay * 2, Event::Unreachable(sender));
            return;
        }
        let copies = 1 + usize::from(self.rng.chance(link.duplicate));
        self.stats.duplicated += copies as u64 - 1;
        for _ in 0..copies {
            let mut due = leaves + link.delay + self.jitter(&link);
            if self.rng.chance(link.reorder) {
                due += link.delay;
            }
            let Packet {
                from,
                to,
                ecn,
                ref data,
            } = packet;
            self.schedule(
                due,
                Event::Arrive(Packet {
                    from,
                    to,
                    ecn,
                    data: data.clone(),
                }),
            );
        }
    }

    pub(crate) fn send_from(&mut self, id: SocketId, to: SocketAddr, ecn: Option<u8>, data: Bytes) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        let from = self.nat.get(&socket.local).copied().unwrap_or(socket.local);
        self.ports[socket.node.0].log.peers.insert(to.ip());
        self.transmit(
            Some(id),
            Packet {
                from,
                to,
                ecn,
                data,
            },
        );
    }

    /// What one receive turn of a node brings, in trains; whether there is more.
    pub(crate) fn receive(
        &mut self,
        node: NodeId,
        out: &mut Vec<(SocketId, u64, Received)>,
    ) -> bool {
        let mut budget = TURN_BUDGET;
        let mut again = Vec::new();
        while budget > 0
            && let Some(id) = self.ports[node.0].ready.pop_front()
        {
            let Some(socket) = self.sockets.get_mut(&id) else {
                if let Some(packet) = self.read_packet(id) {
                    out.push(packet);
                    budget -= 1;
                }
                continue;
            };
            socket.ready = false;
            if let Some(error) = socket.error.take() {
                out.push((id, socket.tag, Received::Error(error)));
            }
            let mut left = budget.min(SOCKET_BUDGET);
            budget -= left;
            while left > 0
                && let Some(train) = socket.train()
            {
                left = left.saturating_sub(train.datagram_count());
                out.push((id, socket.tag, Received::Train(train)));
            }
            budget += left;
            if !socket.queue.is_empty() {
                again.push(id);
            }
        }
        again.into_iter().for_each(|id| self.make_ready(id));
        !self.ports[node.0].ready.is_empty()
    }

    /// Checks a password, in no time.
    pub(crate) fn verify(&mut self, node: NodeId, job: Job) {
        let verdict = job.run();
        self.verified += 1;
        let due = self.now + self.verify_delay;
        self.schedule(due, Event::Verdict { node, verdict });
    }

    /// The next letter of a node.
    pub(crate) fn letter(&mut self, node: NodeId) -> Option<Letter> {
        self.ports[node.0].letters.pop_front()
    }

    /// Whether something waits for a node.
    pub(crate) fn has_work(&self, node: NodeId) -> bool {
        let port = &self.ports[node.0];
        !port.ready.is_empty() || !port.tcp_ready.is_empty() || !port.letters.is_empty()
    }

    /// The network as `node` sees it.
    pub(crate) fn world(&mut self, node: NodeId) -> World<'_> {
        World { net: self, node }
    }
}

/// The same path, whichever direction it is asked for.
fn in_order<T: Ord>(a: T, b: T) -> (T, T) {
    if a <= b { (a, b) } else { (b, a) }
}
