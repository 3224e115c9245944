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
//! Does not fragment, does not corrupt: UDP checksums drop what is damaged, and that is loss.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bauta::net::{
    Network, Outgoing, Received, SocketId, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, Train, TrainOutcome,
};
use bauta::policy::resolve::{Resolution, ResolveError};
use bauta::worker::{Outside, Resolve, Tag};
use bytes::{Bytes, BytesMut};

/// Names a node of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) usize);

/// Datagrams that all sockets of a node bring per turn, as `DriverConfig` has it.
const TURN_BUDGET: usize = 256;
/// Datagrams that one socket brings per turn.
const SOCKET_BUDGET: usize = 64;
/// Receive buffer of a socket unless told otherwise, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// SplitMix64: small, and good enough to lose packets with.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True with that probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Thirty-two bytes, for what takes a seed of its own.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()));
        seed
    }
}

/// One direction between two addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// From one end to the other.
    pub(crate) delay: Duration,
    /// Added to the delay at random, up to this much.
    pub(crate) jitter: Duration,
    /// Probability that a datagram is lost.
    pub(crate) loss: f64,
    /// Probability that a datagram arrives twice.
    pub(crate) duplicate: f64,
    /// Probability that a datagram takes one delay more and is overtaken.
    pub(crate) reorder: f64,
    /// Longest UDP payload that passes, in bytes.
    pub(crate) mtu: usize,
    /// Bytes per second, without bound if `None`; what waits longer than `queue` is dropped.
    pub(crate) rate: Option<u64>,
    /// Longest queue in front of a limited rate.
    pub(crate) queue: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            mtu: 1472,
            rate: None,
            queue: Duration::from_millis(50),
        }
    }
}

#[derive(Debug)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Option<u8>,
    data: Bytes,
}

#[derive(Debug)]
struct Socket {
    node: NodeId,
    tag: u64,
    local: SocketAddr,
    /// The peer of a connected socket.
    connected: Option<SocketAddr>,
    queue: VecDeque<Packet>,
    queue_bytes: usize,
    queue_bytes_max: usize,
    error: Option<io::Error>,
    /// The node has it on its list.
    ready: bool,
}

/// What one node did on the network: what an observer inside that node could know.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Targets of [`Outside::connect`], in order.
    pub(crate) connected: Vec<SocketAddr>,
    /// Names of [`Outside::resolve`], in order.
    pub(crate) resolved: Vec<String>,
    /// Addresses that packets came from or went to.
    pub(crate) peers: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Port {
    ip: IpAddr,
    ready: VecDeque<SocketId>,
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
}

#[derive(Debug)]
enum Event {
    Arrive(Packet),
    /// An ICMP error about what this socket sent.
    Unreachable(SocketId),
    Resolved {
        node: NodeId,
        asker: Resolve,
        resolution: Resolution,
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
    /// A digest of every datagram sent: in which order, when, from where to where.
    pub(crate) digest: u64,
    links: HashMap<(IpAddr, IpAddr), Link>,
    busy_until: HashMap<(IpAddr, IpAddr), Instant>,
    names: HashMap<String, Resolution>,
    /// Addresses as the rest of the world sees them, by what the socket is bound to.
    nat: HashMap<SocketAddr, SocketAddr>,
    sockets: HashMap<SocketId, Socket>,
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
            digest: 0,
            links: HashMap::new(),
            busy_until: HashMap::new(),
            names: HashMap::new(),
            nat: HashMap::new(),
            sockets: HashMap::new(),
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

    fn transmit(&mut self, sender: Option<SocketId>, packet: Packet) {
        let (from, to, len) = (packet.from.ip(), packet.to.ip(), packet.data.len());
        self.stats.sent += 1;
        let ports = u64::from(packet.from.port()) << 16 | u64::from(packet.to.port());
        let at = self.elapsed().as_nanos() as u64;
        self.digest = Rng::new(self.digest ^ at ^ ports.rotate_left(32)).next();
        let link = self.links.get(&(from, to)).copied().unwrap_or(self.link);
        if len > link.mtu {
            self.stats.too_large += 1;
            return;
        }
        if self.rng.chance(link.loss) {
            self.stats.lost += 1;
            return;
        }
        let mut leaves = self.now;
        if let Some(rate) = link.rate {
            let free = self
                .busy_until
                .get(&(from, to))
                .copied()
                .unwrap_or(self.now)
                .max(self.now);
            if free - self.now > link.queue {
                self.stats.lost += 1;
                return;
            }
            leaves = free + Duration::from_secs_f64(len as f64 / rate as f64);
            self.busy_until.insert((from, to), leaves);
        }
        if self.refusing.contains(&packet.to)
            && let Some(sender) = sender
        {
            self.schedule(leaves + link.delay * 2, Event::Unreachable(sender));
            return;
        }
        let copies = 1 + usize::from(self.rng.chance(link.duplicate));
        self.stats.duplicated += copies as u64 - 1;
        for _ in 0..copies {
            let mut due = leaves + link.delay;
            if !link.jitter.is_zero() {
                due += Duration::from_nanos(self.rng.below(link.jitter.as_nanos() as u64));
            }
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

    /// The next letter of a node.
    pub(crate) fn letter(&mut self, node: NodeId) -> Option<Letter> {
        self.ports[node.0].letters.pop_front()
    }

    /// Whether something waits for a node.
    pub(crate) fn has_work(&self, node: NodeId) -> bool {
        let port = &self.ports[node.0];
        !port.ready.is_empty() || !port.letters.is_empty()
    }

    /// The network as `node` sees it.
    pub(crate) fn world(&mut self, node: NodeId) -> World<'_> {
        World { net: self, node }
    }
}

impl Socket {
    /// Datagrams of one sender and one size, and at most one shorter one behind them.
    fn train(&mut self) -> Option<Train> {
        let first = self.queue.pop_front()?;
        let segment_size = first.data.len();
        let (mut data, mut count) = (BytesMut::from(&first.data[..]), 1);
        while let Some(next) = self.queue.front() {
            let same = (next.from, next.ecn) == (first.from, first.ecn);
            let fits = (1..=segment_size).contains(&next.data.len())
                && data.len() % segment_size.max(1) == 0
                && data.len() + next.data.len() <= TRAIN_BYTES_MAX
                && count < TRAIN_SEGMENTS_MAX;
            if !same || !fits {
                break;
            }
            data.extend_from_slice(&next.data);
            count += 1;
            self.queue.pop_front();
        }
        self.queue_bytes -= data.len();
        let local_ip = self.connected.is_none().then_some(self.local.ip());
        Some(Train {
            peer: first.from,
            local_ip,
            ecn: first.ecn,
            segment_size,
            data,
        })
    }
}

/// What one node sees of the network.
pub(crate) struct World<'a> {
    pub(crate) net: &'a mut Net,
    node: NodeId,
}

impl Network for World<'_> {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        let peer = outgoing.peer.expect("a shared socket needs a destination");
        let size = outgoing
            .segment_size
            .unwrap_or(outgoing.contents.len())
            .max(1);
        assert!(
            outgoing.contents.len() <= TRAIN_BYTES_MAX,
            "a train that no call can carry"
        );
        assert!(
            outgoing.contents.len().div_ceil(size) <= TRAIN_SEGMENTS_MAX,
            "too many segments"
        );
        assert!(
            !outgoing.contents.is_empty(),
            "QUIC sends no empty datagrams"
        );
        for datagram in outgoing.contents.chunks(size) {
            self.net
                .send_from(socket, peer, outgoing.ecn, Bytes::copy_from_slice(datagram));
        }
    }

    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome {
        let Some(peer) = self
            .net
            .sockets
            .get(&socket)
            .and_then(|socket| socket.connected)
        else {
            return TrainOutcome::Dead;
        };
        for datagram in datagrams {
            self.net.send_from(socket, peer, None, datagram.clone());
        }
        TrainOutcome::Done
    }
}

impl Outside for World<'_> {
    fn connect(&mut self, target: SocketAddr, tag: Tag) -> io::Result<SocketId> {
        self.net.ports[self.node.0].log.connected.push(target);
        if self.net.unroutable.contains(&target.ip()) {
            return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        }
        let id = self.net.bind(self.node, None, tag.to_bits());
        self.net.sockets.get_mut(&id).expect("just bound").connected = Some(target);
        Ok(id)
    }

    fn remove(&mut self, socket: SocketId) {
        if let Some(gone) = self.net.sockets.remove(&socket) {
            self.net.bound.remove(&gone.local);
        }
    }

    fn resolve(&mut self, name: &str, asker: Resolve) {
        self.net.ports[self.node.0]
            .log
            .resolved
            .push(name.to_owned());
        let known = self.net.names.get(name).cloned();
        let resolution = known.unwrap_or(Err(ResolveError::NxDomain));
        let due = self.net.now + self.net.dns_delay;
        self.net.schedule(
            due,
            Event::Resolved {
                node: self.node,
                asker,
                resolution,
            },
        );
    }

    fn forward(&mut self, worker: u32, listener: u32, train: Train) -> Option<Train> {
        self.net.stats.strays += 1;
        let node = self.net.ports[self.node.0].workers[worker as usize];
        self.net.ports[node.0]
            .letters
            .push_back(Letter::Stray { listener, train });
        let now = self.net.now;
        self.net.wake_at(node, now);
        None
    }
}
