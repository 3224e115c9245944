//! The load: both clients of every pair in one thread, an app on a worker of the library.
//!
//! ```text
//!            ┌───────────────────── engine ─────────────────────┐
//!   relay ◄──┤ near: an IP tunnel                far: another    ├──► relay
//!            └── schedule ── write ── check ── record, one clock ┘
//! ```
//!
//! A flow greets from near to far and back, in packets of its full size, until one gets through: by then addresses are
//! assigned, and every path on the way has found its MTU. Near and far have connections of their own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bauta::client::{Hop, Request, RouteId, TunnelKind};
use bauta::program::forward::explain;
use bauta::transport::quic::SendOutcome;
use bauta::tunnel::TunnelId;
use bauta::tunnel::ip::IpEvent;
use bauta::wire::ip::{AssignedAddress, IpVersion, Scope};
use bauta::worker::run::{App, World};
use bauta::worker::{End, LocalEvent, Machine};
use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;

use super::packet::{Arrival, Envelope, Icmp};
use crate::engine::{
    BURST, CHUNK_BYTES, Course, Direction, Flow, GREET_AGAIN, Generator, Group, GroupState, Header,
    Kind, News, OPENING_MAX, Path, Phase, Seat,
};

/// How long paths may take to find an MTU that is large enough.
const MTU_WITHIN: Duration = Duration::from_secs(3);

/// What all engines of a run have in common.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) hops: Vec<Hop>,
    /// Connections of each side to the first relay.
    pub(super) connections: u32,
    pub(super) groups: Vec<Group>,
    pub(super) version: IpVersion,
    pub(super) spin: bool,
}

/// An end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Near,
    Far,
}

/// A tunnel of a pair.
#[derive(Clone, Copy, Debug)]
struct Client {
    tunnel: TunnelId,
    address: Option<IpAddr>,
}

/// Two clients.
#[derive(Clone, Copy, Debug)]
struct Pair {
    near: Client,
    far: Client,
}

/// A flow of packets between the clients of a pair.
struct PacketFlow {
    flow: Flow,
    pair: u32,
    /// Bytes of a packet.
    size: usize,
    /// How packets look from near to far, and back.
    envelopes: Option<[Envelope; 2]>,
}

/// One engine.
pub(super) struct Packets {
    spec: Arc<Spec>,
    course: Course,
    place: (u32, u32),
    /// Of the near side, and of the far side.
    routes: [Vec<RouteId>; 2],
    pairs: Vec<Pair>,
    pairs_wanted: u32,
    by_tunnel: FxHashMap<TunnelId, (u32, Side)>,
    flows: Vec<PacketFlow>,
    /// Tunnels that have no address yet.
    opening: usize,
    /// Flows whose greeting is under way, by the time it left.
    greeting: VecDeque<(Instant, u32)>,
    greeted: usize,
    /// When the first greeting left that has not come back.
    waiting_since: Option<Instant>,
    /// What a relay has told about its paths.
    too_big: Option<u32>,
    /// Packets that were not what was sent.
    damaged: u64,
    /// The least MTU of all tunnels when the run ended.
    mtu: Option<usize>,
    chunk: BytesMut,
}

impl Packets {
    pub(super) fn new(spec: &Arc<Spec>, seat: Seat) -> Self {
        let (number, engines) = seat.place;
        let mut packets = Self {
            spec: Arc::clone(spec),
            course: Course::new(seat.orders, seat.news, seat.live, spec.spin),
            place: seat.place,
            routes: [Vec::new(), Vec::new()],
            pairs: Vec::new(),
            pairs_wanted: 0,
            by_tunnel: FxHashMap::default(),
            flows: Vec::new(),
            opening: 0,
            greeting: VecDeque::new(),
            greeted: 0,
            waiting_since: None,
            too_big: None,
            damaged: 0,
            mtu: None,
            chunk: BytesMut::new(),
        };
        for (index, group) in spec.groups.iter().enumerate() {
            let share = group.share(number, engines);
            let first = packets.flows.len() as u32;
            // Both directions of a load share its pairs; a probe has its own.
            let pair = match group.direction {
                Direction::Down if index > 0 => 0,
                Direction::Up | Direction::Down | Direction::Echo => packets.pairs_wanted,
            };
            packets.pairs_wanted = packets.pairs_wanted.max(pair + share.flows);
            for number in 0..share.flows {
                packets.flows.push(PacketFlow {
                    flow: Flow::new(index, Path::None),
                    pair: pair + number,
                    size: group.payload.mean_bytes() as usize,
                    envelopes: None,
                });
            }
            packets.course.groups.push(GroupState::new(share, first));
        }
        packets
    }

    /// Packets that arrived and were not what was sent.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The least MTU of all tunnels, in bytes.
    pub(super) fn mtu(&self) -> Option<usize> {
        self.mtu
    }

    fn client(&mut self, pair: u32, side: Side) -> Option<&mut Client> {
        let pair = self.pairs.get_mut(pair as usize)?;
        Some(match side {
            Side::Near => &mut pair.near,
            Side::Far => &mut pair.far,
        })
    }

    fn add_routes(&mut self, machine: &mut Machine) {
        let (number, engines) = self.place;
        let connections = self.spec.connections;
        let share = connections / engines + u32::from(number < connections % engines);
        for (side, routes) in (0..).zip(&mut self.routes) {
            for connection in 0..share.max(1) {
                // Hops that differ in what stands for their trust never share a connection.
                let apart = self.spec.hops.iter().cloned().map(|mut hop| {
                    let connection = u64::from(connection) << 1 | side;
                    let apart = u64::from(number) << 32 | connection;
                    hop.tls_hash = hop.tls_hash.wrapping_add(apart);
                    hop
                });
                routes.push(machine.add_route(apart));
            }
        }
    }

    /// Opens what is left to open, and greets again where nothing came back.
    fn open(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) {
        if self.routes.iter().all(Vec::is_empty) {
            self.add_routes(machine);
        }
        while self.opening < OPENING_MAX && self.pairs.len() < self.pairs_wanted as usize {
            let number = self.pairs.len();
            let [near, far] = &self.routes;
            let [near, far] = [near, far].map(|routes| {
                let request = Request::new(Scope::default(), TunnelKind::Ip);
                let route = routes[number % routes.len()];
                Client {
                    tunnel: machine.open_local_request(now, route, request, out),
                    address: None,
                }
            });
            self.by_tunnel
                .insert(near.tunnel, (number as u32, Side::Near));
            self.by_tunnel
                .insert(far.tunnel, (number as u32, Side::Far));
            self.pairs.push(Pair { near, far });
            self.opening += 2;
        }
        while let Some(&(sent, number)) = self.greeting.front()
            && (self.flows[number as usize].flow.greeted || now >= sent + GREET_AGAIN)
        {
            self.greeting.pop_front();
            if self.flows[number as usize].flow.greeted {
                continue;
            }
            if self.waits_too_long(now, number, machine) {
                return;
            }
            self.greet(now, number, machine, out);
        }
        if self.greeted == self.flows.len() {
            self.course.ready();
        }
    }

    /// Whether packets of this size will not get through, which is said.
    fn waits_too_long(&mut self, now: Instant, number: u32, machine: &mut Machine) -> bool {
        if self
            .waiting_since
            .is_none_or(|since| now < since + MTU_WITHIN)
        {
            return false;
        }
        let PacketFlow { size, pair, .. } = self.flows[number as usize];
        let Pair { near, far } = self.pairs[pair as usize];
        let own = least_mtu([near.tunnel, far.tunnel], machine);
        let told = self.too_big.map(|mtu| mtu as usize);
        let mtu = own.into_iter().chain(told).min();
        match mtu.filter(|mtu| *mtu < size) {
            Some(mtu) => {
                let text = format!(
                    "--size {size}: the tunnel carries packets of at most {mtu} bytes; quic.mtu_upper_bound, in --set \
                     and --client-set, is what limits HTTP/3"
                );
                self.course.fail(News::Wrong(text));
                true
            }
            None => false,
        }
    }

    /// A tunnel is open: asks for an address of the version that is wanted. What it has by then, it keeps.
    fn ask(&mut self, now: Instant, id: TunnelId, machine: &mut Machine, out: &mut World<'_>) {
        let any: IpAddr = match self.spec.version {
            IpVersion::V4 => [0; 4].into(),
            IpVersion::V6 => [0_u16; 8].into(),
        };
        let end = (id, End::Downstream);
        if let Err(error) = machine.ip_request_addresses(now, end, &[any.into()], out) {
            let text = format!("no address can be asked for: {error}");
            self.course.fail(News::Failed(text));
        }
    }

    fn assigned(
        &mut self,
        now: Instant,
        id: TunnelId,
        assigned: &[AssignedAddress],
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let version = self.spec.version;
        let Some(&(pair, side)) = self.by_tunnel.get(&id) else {
            return;
        };
        let of_version = |it: &&AssignedAddress| IpVersion::of(it.prefix.addr()) == version;
        let is_refused = assigned.iter().filter(of_version).any(|it| it.is_refusal());
        let mut prefixes = assigned
            .iter()
            .filter(of_version)
            .filter(|it| !it.is_refusal());
        let address = prefixes.next().map(|it| it.prefix.addr());
        let Some(client) = self.client(pair, side) else {
            return;
        };
        match address {
            None if is_refused && client.address.is_none() => {
                let family = match version {
                    IpVersion::V4 => 4,
                    IpVersion::V6 => 6,
                };
                let text =
                    format!("--family {family}: the relay assigns no address of IPv{family}");
                self.course.fail(News::Failed(text));
            }
            Some(address) if client.address.is_none() => {
                client.address = Some(address);
                self.opening -= 1;
                self.begin_greeting(now, pair, machine, out);
            }
            Some(_) | None => {}
        }
    }

    /// Greets on all flows of a pair, if both clients have addresses.
    fn begin_greeting(
        &mut self,
        now: Instant,
        pair: u32,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let clients = self.pairs[pair as usize];
        let (Some(near), Some(far)) = (clients.near.address, clients.far.address) else {
            return;
        };
        for number in 0..self.flows.len() as u32 {
            let flow = &mut self.flows[number as usize];
            if flow.pair == pair {
                let size = flow.size;
                flow.envelopes = Some([
                    Envelope::new(near, far, size),
                    Envelope::new(far, near, size),
                ]);
                self.greet(now, number, machine, out);
            }
        }
    }

    fn greet(&mut self, now: Instant, number: u32, machine: &mut Machine, out: &mut World<'_>) {
        let header = Header {
            kind: Kind::Hello,
            measured: false,
            flow: number,
            sequence: 0,
            due_ns: self.course.nanoseconds(now),
        };
        self.waiting_since.get_or_insert(now);
        self.send_from(now, Side::Near, header, machine, out);
        self.greeting.push_back((now, number));
    }

    /// Sends a packet of a flow; whether the way takes more.
    fn send_from(
        &mut self,
        now: Instant,
        side: Side,
        header: Header,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        let flow = &self.flows[header.flow as usize];
        let (Some([forth, back]), Some(pair)) =
            (&flow.envelopes, self.pairs.get(flow.pair as usize))
        else {
            return false;
        };
        let (envelope, tunnel) = match side {
            Side::Near => (forth, pair.near.tunnel),
            Side::Far => (back, pair.far.tunnel),
        };
        if self.chunk.capacity() < envelope.size() {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(envelope.size()));
        }
        envelope.write(header, &mut self.chunk);
        let packet = self.chunk.split().freeze();
        machine.send_local(now, tunnel, packet, out) == SendOutcome::Sent
    }

    /// A packet came out of a tunnel.
    fn handle_packet(
        &mut self,
        now: Instant,
        id: TunnelId,
        packet: &Bytes,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let (source, destination, header) = match Arrival::read(packet) {
            Arrival::Ours {
                source,
                destination,
                header,
            } => (source, destination, header),
            Arrival::Icmp(icmp) => return self.handle_icmp(icmp),
            Arrival::Damaged => {
                self.damaged += 1;
                return;
            }
        };
        let place = self.by_tunnel.get(&id).copied();
        let flow = self.flows.get_mut(header.flow as usize);
        let (Some((pair, side)), Some(flow)) = (place, flow) else {
            self.damaged += 1;
            return;
        };
        let clients = self.pairs[pair as usize];
        let (own, other) = match side {
            Side::Near => (clients.near, clients.far),
            Side::Far => (clients.far, clients.near),
        };
        let is_whole = packet.len() == flow.size && flow.pair == pair;
        let ends = (Some(source), Some(destination));
        if !is_whole || ends != (other.address, own.address) {
            self.damaged += 1;
            return;
        }
        match (header.kind, side) {
            (Kind::Hello | Kind::Echo, Side::Far) => {
                self.send_from(now, Side::Far, header, machine, out);
            }
            (Kind::Hello, Side::Near) if flow.flow.greeted => {}
            (Kind::Hello, Side::Near) => {
                flow.flow.greeted = true;
                self.greeted += 1;
                self.waiting_since = None;
                self.course.reached();
            }
            (Kind::Echo, Side::Near) | (Kind::Data, Side::Near | Side::Far) => {
                let bytes = packet.len();
                self.course.arrived(now, &mut flow.flow, header, bytes);
            }
        }
    }

    fn handle_icmp(&mut self, icmp: Icmp) {
        match icmp {
            Icmp::TooBig { mtu } => self.too_big = Some(mtu),
            Icmp::Prohibited => {
                let text = "the relay does not pass packets between its clients: ip.client_to_client allows it";
                self.course.fail(News::Failed(text.to_owned()));
            }
            // The other client may not be there yet, or any more.
            Icmp::Other => {}
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
            let (kind, side) = match self.course.groups[index].group.direction {
                Direction::Up => (Kind::Data, Side::Near),
                Direction::Down => (Kind::Data, Side::Far),
                Direction::Echo => (Kind::Echo, Side::Near),
            };
            let allowed = self.course.allowed(index, now);
            more |= allowed > BURST;
            for _ in 0..allowed.min(BURST) {
                let (number, due_ns, _) = self.course.take(index, now, measured);
                let flow = &mut self.flows[number as usize].flow;
                let sequence = flow.sent;
                flow.sent += 1;
                let header = Header {
                    kind,
                    measured,
                    flow: number,
                    sequence,
                    due_ns,
                };
                if !self.send_from(now, side, header, machine, out) {
                    break;
                }
            }
        }
        more
    }
}

/// What all of these tunnels carry.
fn least_mtu(tunnels: impl IntoIterator<Item = TunnelId>, machine: &mut Machine) -> Option<usize> {
    let tunnels = tunnels.into_iter();
    let infos = tunnels.filter_map(|tunnel| machine.ip_info(tunnel, End::Downstream));
    infos.map(|info| info.mtu).min()
}

impl Generator for Packets {
    const UNREACHED: &'static str = "do clients of the relay reach each other (ip.client_to_client), and are its \
                                     limits high enough?";

    fn course(&self) -> &Course {
        &self.course
    }
}

impl App for Packets {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.course.active = true;
        match event {
            LocalEvent::Payload(id, packet) => self.handle_packet(now, id, &packet, machine, out),
            LocalEvent::Opened(id) => self.ask(now, id, machine, out),
            LocalEvent::Ip(id, IpEvent::Assigned(list)) => {
                self.assigned(now, id, &list, machine, out);
            }
            LocalEvent::Refused(_, refused) => self.course.fail(News::Failed(explain(&refused))),
            LocalEvent::Closed(..) if self.course.is_ending() => {}
            LocalEvent::Closed(..) => {
                let text = "a relay ended a tunnel in the middle of the run".to_owned();
                self.course.fail(News::Failed(text));
            }
            LocalEvent::Ip(..)
            | LocalEvent::Readable(_)
            | LocalEvent::Writable(_)
            | LocalEvent::Context(..)
            | LocalEvent::Capsule(..) => {}
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        match self.course.begin_turn(now) {
            Phase::Opening => {
                self.open(now, machine, out);
                false
            }
            Phase::Ready | Phase::Over => false,
            Phase::Sending { measured } => {
                let more = self.send(now, measured, machine, out);
                self.course.sent(more)
            }
            Phase::Grace { .. } => {
                if self.course.is_over() {
                    self.mtu = least_mtu(self.by_tunnel.keys().copied(), machine);
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
