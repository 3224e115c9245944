//! The load: client and target of every flow in one thread, an app on a worker of the library.
//!
//! ```text
//!              ┌──────────────────────── engine ────────────────────────┐
//!   relay ◄────┤ flows: a tunnel or a socket each     one target socket ├────► relay
//!              └── schedule ── send ── receive ── record, one clock ────┘
//! ```
//!
//! Several engines run side by side, a thread and a target socket each, sharing nothing. The thread that watches them
//! says when to begin, to measure and to end ([`Order`]) and hears how it goes ([`News`]).

mod flow;
mod packet;
mod record;
mod schedule;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bauta::client::{Hop, RouteId};
use bauta::net::{Driver, Received, SocketId, SocketKind, clock, listen};
use bauta::transport::quic::SendOutcome;
use bauta::tunnel::TunnelId;
use bauta::worker::run::{App, World};
use bauta::worker::{LocalEvent, Machine, Tag};
use bytes::BytesMut;
use crossbeam::channel::Receiver;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::UnboundedSender;

pub(crate) use self::flow::{Direction, Group, Payload};
use self::flow::{Flow, GroupState, Path};
use self::packet::{Header, Kind};
pub(crate) use self::packet::{SIZE_MAX, SIZE_MIN};
pub(crate) use self::record::Record;
pub(crate) use self::schedule::Pace;
use self::wire::Runs;

/// Tunnels that are being opened, and greetings under way, at the same time.
const OPENING_MAX: usize = 64;
/// A greeting that found no echo for this long is sent again.
const GREET_AGAIN: Duration = Duration::from_millis(200);
/// Datagrams sent per turn and group.
const BURST: u64 = 128;
/// A closed loop without any arrival for this long takes everything under way for lost.
const STALL: Duration = Duration::from_millis(100);
/// How long after the last datagram stragglers are waited for.
const GRACE: Duration = Duration::from_millis(400);
/// An open loop datagram that leaves later than this after it was due is late.
const LATE: Duration = Duration::from_millis(1);
/// Length of a sample.
const SLICE: Duration = Duration::from_secs(1);
/// Bytes of a chunk of payloads.
const CHUNK_BYTES: usize = 64 * 1024;
/// The number of the target socket; flows without a tunnel have the numbers above it.
const TARGET: u32 = 0;

/// How the flows reach the target.
#[derive(Clone)]
pub(crate) enum Way {
    /// Over these relays, the last one nested in those before it. Several connections share nothing.
    Tunnels {
        /// The relays.
        hops: Vec<Hop>,
        /// How many connections to the first.
        connections: u32,
    },
    /// Plain UDP: to the target, or to a forwarder in front of it.
    Plain(Option<SocketAddr>),
}

/// What all engines of a run have in common.
#[derive(Clone)]
pub(crate) struct Spec {
    /// How to get there.
    pub(crate) way: Way,
    /// What to send.
    pub(crate) groups: Vec<Group>,
    /// Never park while sending.
    pub(crate) spin: bool,
}

/// What the watching thread wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Begin to send; nothing is recorded yet.
    Begin,
    /// Record from here on.
    Measure,
    /// Send no more, wait for stragglers, end.
    End,
}

/// What the watching thread hears.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// Every flow of an engine reaches its target and back.
    Ready,
    /// It cannot go on.
    Failed(String),
}

/// Totals of all engines that the watching thread may look at any time.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Datagrams of the first group delivered.
    pub(crate) delivered: AtomicU64,
    /// Flows that reach their target.
    pub(crate) ready: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Ready,
    Sending { measured: bool },
    Grace { until: Instant },
    Over,
}

/// CPU time of the engine while it measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    /// Time in turns that moved something, if it never parked; CPU time of the thread otherwise.
    pub(crate) busy: Duration,
    /// From the first to the last measured turn.
    pub(crate) elapsed: Duration,
    /// The largest share of a core that an engine was busy.
    pub(crate) share: f64,
}

impl Effort {
    /// Adds another engine's.
    pub(crate) fn add(&mut self, other: Self) {
        self.busy += other.busy;
        self.elapsed += other.elapsed;
        let share = other.busy.as_secs_f64() / other.elapsed.as_secs_f64().max(1e-9);
        self.share = self.share.max(share);
    }
}

/// Datagrams of any kind at both ends, from the very beginning: what losses are counted from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) client_sent: u64,
    pub(crate) client_received: u64,
    pub(crate) target_sent: u64,
    pub(crate) target_received: u64,
}

impl std::ops::AddAssign for Ends {
    fn add_assign(&mut self, other: Self) {
        self.client_sent += other.client_sent;
        self.client_received += other.client_received;
        self.target_sent += other.target_sent;
        self.target_received += other.target_received;
    }
}

/// One engine.
pub(crate) struct Engine {
    spec: Arc<Spec>,
    orders: Receiver<Order>,
    news: UnboundedSender<News>,
    live: Arc<Live>,
    /// Which of how many engines this is.
    place: (u32, u32),
    /// Datagrams of the first group that `live` knows of.
    published: u64,
    phase: Phase,
    epoch: Instant,
    routes: Vec<RouteId>,
    target: SocketId,
    target_address: SocketAddr,
    flows: Vec<Flow>,
    by_tunnel: FxHashMap<TunnelId, u32>,
    groups: Vec<GroupState>,
    /// Flows to open, from here on.
    next_flow: u32,
    opening: usize,
    /// Flows whose greeting is under way, by the time it left.
    greeting: VecDeque<(Instant, u32)>,
    greeted: usize,
    ends: Ends,
    runs: Runs,
    chunk: BytesMut,
    active: bool,
    last_turn: Instant,
    measure_began: Option<(Instant, Duration)>,
    effort: Effort,
}

impl Engine {
    /// The `number`th of `engines`, among which the groups are split; its flows end at the socket `target`.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn new(
        spec: &Arc<Spec>,
        (number, engines): (u32, u32),
        target: UdpSocket,
        orders: Receiver<Order>,
        news: UnboundedSender<News>,
        live: Arc<Live>,
        driver: &mut Driver,
    ) -> io::Result<Self> {
        let target_address = target.local_addr()?;
        let target = driver.add(target, SocketKind::Shared, Tag::App(TARGET).to_bits())?;
        let now = clock::now();
        let mut engine = Self {
            spec: Arc::clone(spec),
            orders,
            news,
            live,
            place: (number, engines),
            published: 0,
            phase: Phase::Opening,
            epoch: now,
            routes: Vec::new(),
            target,
            target_address,
            flows: Vec::new(),
            by_tunnel: FxHashMap::default(),
            groups: Vec::new(),
            next_flow: 0,
            opening: 0,
            greeting: VecDeque::new(),
            greeted: 0,
            ends: Ends::default(),
            runs: Runs::default(),
            chunk: BytesMut::new(),
            active: false,
            last_turn: now,
            measure_began: None,
            effort: Effort::default(),
        };
        for (index, group) in spec.groups.iter().enumerate() {
            let share = group.share(number, engines);
            let first = engine.flows.len() as u32;
            for _ in 0..share.flows {
                let path = engine.plain_path(driver)?;
                engine.flows.push(Flow::new(index, path));
            }
            engine.groups.push(GroupState::new(share, first));
        }
        Ok(engine)
    }

    fn plain_path(&self, driver: &mut Driver) -> io::Result<Path> {
        let Way::Plain(forwarder) = &self.spec.way else {
            return Ok(Path::None);
        };
        let number = self.flows.len() as u32 + 1;
        let local = SocketAddr::new(self.target_address.ip(), 0);
        let tag = Tag::App(number).to_bits();
        let socket = driver.add(bind(local)?, SocketKind::Shared, tag)?;
        let peer = forwarder.unwrap_or(self.target_address);
        Ok(Path::Plain { socket, peer })
    }

    /// What each group did.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.groups.iter().map(|group| &group.record)
    }

    /// What both ends sent and received.
    pub(crate) fn ends(&self) -> Ends {
        self.ends
    }

    /// What it cost.
    pub(crate) fn effort(&self) -> Effort {
        self.effort
    }

    fn fail(&mut self, text: String) {
        // Nobody listens any more if the run was given up.
        drop(self.news.send(News::Failed(text)));
        self.phase = Phase::Over;
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Opens what is left to open and greets what is open.
    fn open(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) {
        if self.routes.is_empty()
            && let Way::Tunnels { hops, connections } = &self.spec.way
        {
            let (number, engines) = self.place;
            let share = connections / engines + u32::from(number < connections % engines);
            for connection in 0..share.max(1) {
                // Hops that differ in what stands for their trust never share a connection.
                let apart = hops.iter().cloned().map(|mut hop| {
                    let apart = u64::from(number) << 32 | u64::from(connection);
                    hop.tls_hash = hop.tls_hash.wrapping_add(apart);
                    hop
                });
                self.routes.push(machine.add_route(apart));
            }
        }
        while self.opening + self.greeting.len() < OPENING_MAX
            && (self.next_flow as usize) < self.flows.len()
        {
            let number = self.next_flow;
            self.next_flow += 1;
            match self.flows[number as usize].path {
                Path::Plain { .. } => self.greet(now, number, machine, out),
                Path::None | Path::Tunnel(_) => {
                    let route = self.routes[number as usize % self.routes.len()];
                    let target = self.target_address.into();
                    let tunnel = machine.open_local(now, route, target, out);
                    self.flows[number as usize].path = Path::Tunnel(tunnel);
                    self.by_tunnel.insert(tunnel, number);
                    self.opening += 1;
                }
            }
        }
        while let Some(&(sent, flow)) = self.greeting.front()
            && (self.flows[flow as usize].greeted || now >= sent + GREET_AGAIN)
        {
            self.greeting.pop_front();
            if !self.flows[flow as usize].greeted {
                self.greet(now, flow, machine, out);
            }
        }
        if self.greeted == self.flows.len() {
            self.phase = Phase::Ready;
            drop(self.news.send(News::Ready));
        }
    }

    fn greet(&mut self, now: Instant, flow: u32, machine: &mut Machine, out: &mut World<'_>) {
        let header = Header {
            kind: Kind::Hello,
            measured: false,
            flow,
            sequence: 0,
            due_ns: self.nanoseconds(now),
        };
        self.send_up(now, header, SIZE_MIN, machine, out);
        self.greeting.push_back((now, flow));
    }

    /// Sends from the client; whether the way takes more.
    fn send_up(
        &mut self,
        now: Instant,
        header: Header,
        size: usize,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        self.ends.client_sent += 1;
        match self.flows[header.flow as usize].path {
            Path::Tunnel(tunnel) => {
                if self.chunk.capacity() < size {
                    self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
                }
                header.write(size, &mut self.chunk);
                let payload = self.chunk.split().freeze();
                machine.send_local(now, tunnel, payload, out) == SendOutcome::Sent
            }
            Path::Plain { socket, peer } => {
                self.runs.push(socket, peer, header, size, out);
                true
            }
            Path::None => false,
        }
    }

    /// Takes in what the target received.
    fn handle_at_target(&mut self, now: Instant, received: Received, out: &mut World<'_>) {
        // An error of a shared socket concerns a relay that closed a tunnel.
        let Received::Train(train) = received else {
            return;
        };
        let Some(first) = Header::parse(&train.data) else {
            return;
        };
        if first.kind == Kind::Hello
            && let Some(flow) = self.flows.get_mut(first.flow as usize)
        {
            flow.peer = Some(train.peer);
        }
        let count = train.datagram_count() as u64;
        self.ends.target_received += count;
        if first.kind != Kind::Data {
            self.ends.target_sent += count;
            wire::send_back(self.target, &train, out);
            return;
        }
        for datagram in train.data.chunks(train.segment_size.max(1)) {
            self.handle_arrival(now, datagram);
        }
    }

    /// Takes in what the client received.
    fn handle_at_client(&mut self, now: Instant, payload: &[u8]) {
        self.ends.client_received += 1;
        let Some(header) = Header::parse(payload) else {
            return;
        };
        if header.kind != Kind::Hello {
            return self.handle_arrival(now, payload);
        }
        if let Some(flow) = self.flows.get_mut(header.flow as usize)
            && !flow.greeted
        {
            flow.greeted = true;
            self.greeted += 1;
            self.live.ready.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The end of a datagram's way.
    fn handle_arrival(&mut self, now: Instant, payload: &[u8]) {
        let Some(header) = Header::parse(payload) else {
            return;
        };
        let now_ns = self.nanoseconds(now);
        let Some(flow) = self.flows.get_mut(header.flow as usize) else {
            return;
        };
        let group = &mut self.groups[flow.group];
        group.settle(flow, header.sequence, now);
        if (self.phase == Phase::Sending { measured: true }) {
            group.record.count(payload.len());
        }
        if header.measured {
            group.record.time(now_ns.saturating_sub(header.due_ns));
        }
    }

    /// Sends what is due; whether there is more.
    fn send(
        &mut self,
        now: Instant,
        measured: bool,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        let mut more = false;
        for index in 0..self.groups.len() {
            let group = &mut self.groups[index];
            let allowed = group.allowed(now, STALL);
            more |= allowed > BURST;
            for _ in 0..allowed.min(BURST) {
                let group = &mut self.groups[index];
                let (number, due, size) = group.take(now);
                let flow = &mut self.flows[number as usize];
                let sequence = flow.sent;
                flow.sent += 1;
                let kind = match group.group.direction {
                    Direction::Up | Direction::Down => Kind::Data,
                    Direction::Echo => Kind::Echo,
                };
                if measured {
                    group.record.sent += 1;
                    group.record.late += u64::from(now > due + LATE);
                }
                let header = Header {
                    kind,
                    measured,
                    flow: number,
                    sequence,
                    due_ns: due.saturating_duration_since(self.epoch).as_nanos() as u64,
                };
                self.active = true;
                match group.group.direction {
                    Direction::Up | Direction::Echo => {
                        if !self.send_up(now, header, size, machine, out) {
                            break;
                        }
                    }
                    Direction::Down => {
                        if let Some(peer) = flow.peer {
                            self.ends.target_sent += 1;
                            self.runs.push(self.target, peer, header, size, out);
                        }
                    }
                }
            }
        }
        self.runs.flush(out);
        more
    }

    fn take_orders(&mut self, now: Instant) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Begin => {
                    self.phase = Phase::Sending { measured: false };
                    self.groups.iter_mut().for_each(|group| group.begin(now));
                }
                Order::Measure => {
                    self.phase = Phase::Sending { measured: true };
                    self.measure_began = Some((now, clock::thread_cpu_time()));
                    self.effort = Effort::default();
                }
                Order::End => {
                    self.end_measurement(now);
                    self.phase = Phase::Grace { until: now + GRACE };
                }
            }
        }
    }

    fn end_measurement(&mut self, now: Instant) {
        if let Some((began, cpu)) = self.measure_began.take() {
            self.effort.elapsed = now - began;
            if !self.spec.spin {
                self.effort.busy = clock::thread_cpu_time().saturating_sub(cpu);
            }
            // What the schedule wanted sent and the way did not take is part of the result.
            for group in &mut self.groups {
                group.give_up(began, now);
            }
        }
    }

    fn slice(&mut self, now: Instant) {
        let Some((began, _)) = self.measure_began else {
            return;
        };
        for group in &mut self.groups {
            let record = &mut group.record;
            let next = began + SLICE * record.slices.len() as u32;
            if now >= next {
                record.begin_slice(next);
            }
        }
    }
}

impl App for Engine {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.active = true;
        match event {
            LocalEvent::Payload(_, payload) => self.handle_at_client(now, &payload),
            LocalEvent::Opened(tunnel) => {
                self.opening -= 1;
                if let Some(&flow) = self.by_tunnel.get(&tunnel) {
                    self.greet(now, flow, machine, out);
                }
            }
            LocalEvent::Refused(_, refused) => {
                self.fail(bauta::program::forward::explain(&refused));
            }
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
            LocalEvent::Closed(_, _) => match self.phase {
                Phase::Grace { .. } | Phase::Over => {}
                Phase::Opening | Phase::Ready | Phase::Sending { .. } => {
                    self.fail("a relay ended a tunnel in the middle of the run".to_owned());
                }
            },
        }
    }

    fn handle_received(
        &mut self,
        now: Instant,
        (_, number): (SocketId, u32),
        received: Received,
        _: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.active = true;
        if number == TARGET {
            self.handle_at_target(now, received, out);
        } else if let Received::Train(train) = received {
            for datagram in train.data.chunks(train.segment_size.max(1)) {
                self.handle_at_client(now, datagram);
            }
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        if self.spec.spin && self.active && self.measure_began.is_some() {
            self.effort.busy += now.saturating_duration_since(self.last_turn);
        }
        self.last_turn = now;
        self.active = false;
        self.take_orders(now);
        match self.phase {
            Phase::Opening => {
                self.open(now, machine, out);
                self.runs.flush(out);
                false
            }
            Phase::Ready | Phase::Over => false,
            Phase::Sending { measured } => {
                self.slice(now);
                let more = self.send(now, measured, machine, out);
                if let Some(first) = self.groups.first() {
                    let delivered = first.record.delivered;
                    let news = delivered - self.published;
                    self.live.delivered.fetch_add(news, Ordering::Relaxed);
                    self.published = delivered;
                }
                more || self.spec.spin
            }
            Phase::Grace { until } => {
                if now >= until {
                    self.phase = Phase::Over;
                    // A relay that runs on must not keep tunnels of a run that is over.
                    machine.stop(now, out);
                    self.groups
                        .iter_mut()
                        .for_each(|group| group.record.settle());
                }
                false
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening => self.greeting.front().map(|(sent, _)| *sent + GREET_AGAIN),
            Phase::Sending { .. } => {
                let next = self.groups.iter().filter_map(|group| group.next(STALL));
                next.min()
            }
            Phase::Grace { until } => Some(until),
            Phase::Ready | Phase::Over => None,
        }
    }

    fn is_finished(&self) -> bool {
        self.phase == Phase::Over
    }
}

/// A socket on a port of the kernel's choice, or the one named.
///
/// # Errors
/// What the system refuses.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let group = listen::bind_group(address, 1, listen::Sharing::default())?;
    group
        .into_iter()
        .next()
        .ok_or_else(|| io::ErrorKind::Other.into())
}
