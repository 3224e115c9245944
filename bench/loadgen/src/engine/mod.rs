//! The load: client and target of every flow in one thread, an app on a worker of the library.
//!
//! ```text
//!              ┌──────────────────────── engine ────────────────────────┐
//!   relay ◄────┤ flows: a tunnel or a socket each     one target socket ├────► relay
//!              └── schedule ── send ── receive ── record, one clock ────┘
//! ```
//!
//! Several engines run side by side, a thread and a target socket each, sharing nothing.

mod course;
mod flow;
mod packet;
mod record;
mod schedule;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bauta::client::{Hop, RouteId};
use bauta::net::{Driver, Received, SocketId, SocketKind, listen};
use bauta::transport::quic::SendOutcome;
use bauta::tunnel::TunnelId;
use bauta::worker::run::{App, World};
use bauta::worker::{LocalEvent, Machine, Tag};
use bytes::BytesMut;
use rustc_hash::FxHashMap;

pub(crate) use self::course::{Course, Effort, Generator, Live, News, Order, Phase, Seat};
pub(crate) use self::flow::{Direction, Flow, Group, GroupState, Path, Payload};
pub(crate) use self::packet::{Header, Kind, SIZE_MAX, SIZE_MIN};
pub(crate) use self::record::Record;
pub(crate) use self::schedule::Pace;
use self::wire::Runs;

/// Tunnels that are being opened, and greetings under way, at the same time.
pub(crate) const OPENING_MAX: usize = 64;
/// A greeting that found no echo for this long is sent again.
pub(crate) const GREET_AGAIN: Duration = Duration::from_millis(200);
/// Datagrams sent per turn and group.
pub(crate) const BURST: u64 = 128;
/// Bytes of a chunk of payloads.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
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
    course: Course,
    /// Which of how many engines this is.
    place: (u32, u32),
    routes: Vec<RouteId>,
    target: SocketId,
    target_address: SocketAddr,
    flows: Vec<Flow>,
    by_tunnel: FxHashMap<TunnelId, u32>,
    /// Flows to open, from here on.
    next_flow: u32,
    opening: usize,
    /// Flows whose greeting is under way, by the time it left.
    greeting: VecDeque<(Instant, u32)>,
    greeted: usize,
    ends: Ends,
    runs: Runs,
    chunk: BytesMut,
}

impl Engine {
    /// One of the engines among which the groups are split; its flows end at the socket of its seat.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn new(spec: &Arc<Spec>, seat: Seat, driver: &mut Driver) -> io::Result<Self> {
        let target_address = seat.target.local_addr()?;
        let tag = Tag::App(TARGET).to_bits();
        let (number, engines) = seat.place;
        let mut engine = Self {
            spec: Arc::clone(spec),
            course: Course::new(seat.orders, seat.news, seat.live, spec.spin),
            place: seat.place,
            routes: Vec::new(),
            target: driver.add(seat.target, SocketKind::Shared, tag)?,
            target_address,
            flows: Vec::new(),
            by_tunnel: FxHashMap::default(),
            next_flow: 0,
            opening: 0,
            greeting: VecDeque::new(),
            greeted: 0,
            ends: Ends::default(),
            runs: Runs::default(),
            chunk: BytesMut::new(),
        };
        for (index, group) in spec.groups.iter().enumerate() {
            let share = group.share(number, engines);
            let first = engine.flows.len() as u32;
            for _ in 0..share.flows {
                let path = engine.plain_path(driver)?;
                engine.flows.push(Flow::new(index, path));
            }
            engine.course.groups.push(GroupState::new(share, first));
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

    /// What both ends sent and received.
    pub(crate) fn ends(&self) -> Ends {
        self.ends
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
            self.course.ready();
        }
    }

    fn greet(&mut self, now: Instant, flow: u32, machine: &mut Machine, out: &mut World<'_>) {
        let header = Header {
            kind: Kind::Hello,
            measured: false,
            flow,
            sequence: 0,
            due_ns: self.course.nanoseconds(now),
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
            self.course.reached();
        }
    }

    /// The end of a datagram's way.
    fn handle_arrival(&mut self, now: Instant, payload: &[u8]) {
        let Some(header) = Header::parse(payload) else {
            return;
        };
        if let Some(flow) = self.flows.get_mut(header.flow as usize) {
            self.course.arrived(now, flow, header, payload.len());
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
        for index in 0..self.course.groups.len() {
            let direction = self.course.groups[index].group.direction;
            let kind = match direction {
                Direction::Up | Direction::Down => Kind::Data,
                Direction::Echo => Kind::Echo,
            };
            let allowed = self.course.allowed(index, now);
            more |= allowed > BURST;
            for _ in 0..allowed.min(BURST) {
                let (number, due_ns, size) = self.course.take(index, now, measured);
                let flow = &mut self.flows[number as usize];
                let sequence = flow.sent;
                flow.sent += 1;
                let header = Header {
                    kind,
                    measured,
                    flow: number,
                    sequence,
                    due_ns,
                };
                match direction {
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
}

impl Generator for Engine {
    const UNREACHED: &'static str =
        "is it allowed by the relay's policy, and are its limits high enough?";

    fn course(&self) -> &Course {
        &self.course
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
        self.course.active = true;
        match event {
            LocalEvent::Payload(_, payload) => self.handle_at_client(now, &payload),
            LocalEvent::Opened(tunnel) => {
                self.opening -= 1;
                if let Some(&flow) = self.by_tunnel.get(&tunnel) {
                    self.greet(now, flow, machine, out);
                }
            }
            LocalEvent::Refused(_, refused) => {
                let why = bauta::program::forward::explain(&refused);
                self.course.fail(News::Failed(why));
            }
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
            LocalEvent::Closed(_, _) if self.course.is_ending() => {}
            LocalEvent::Closed(_, _) => {
                let text = "a relay ended a tunnel in the middle of the run".to_owned();
                self.course.fail(News::Failed(text));
            }
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
        self.course.active = true;
        if number == TARGET {
            self.handle_at_target(now, received, out);
        } else if let Received::Train(train) = received {
            for datagram in train.data.chunks(train.segment_size.max(1)) {
                self.handle_at_client(now, datagram);
            }
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        match self.course.begin_turn(now) {
            Phase::Opening => {
                self.open(now, machine, out);
                self.runs.flush(out);
                false
            }
            Phase::Ready | Phase::Over => false,
            Phase::Sending { measured } => {
                let more = self.send(now, measured, machine, out);
                self.course.sent(more)
            }
            Phase::Grace { .. } => {
                if self.course.is_over() {
                    // A relay that runs on must not keep tunnels of a run that is over.
                    machine.stop(now, out);
                }
                false
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let greeting = self.greeting.front().map(|(sent, _)| *sent + GREET_AGAIN);
        self.course.next_timeout(greeting)
    }

    fn is_finished(&self) -> bool {
        self.course.is_over()
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
