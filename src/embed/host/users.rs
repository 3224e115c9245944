//! Tunnels that begin at a handle of the user's, on one worker.
//!
//! ```text
//!   Open ─► machine: opening ─► Opened ─► moves queues both ways ─► Closed
//!               │ open timeout               │ the user closes: what is left, an end, at most CLOSE_TIMEOUT
//!               └─► refused                  └─► reset
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ::http::HeaderMap;
use rustc_hash::FxHashMap;

use crate::client::{Request, RouteId, TcpForm, TunnelKind};
use crate::embed::client::Route;
use crate::embed::failure;
use crate::embed::host::sessions::Sessions;
use crate::embed::ip::{Said, Saying};
use crate::embed::proxy::Gate;
use crate::embed::session::{SendError, Session};
use crate::embed::tunnel::{
    CLOSE_TIMEOUT, Capsule, CloseReason, Datagram, Held, Opened, Protocol, Shared, Work,
};
use crate::error::{Error, ErrorKind, Side};
use crate::transport::quic::SendOutcome;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::IpEvent;
use crate::wire::capsule::CapsuleType;
use crate::wire::datagram::ContextId;
use crate::wire::ip::Destination;
use crate::worker::run::World;
use crate::worker::{CapsuleSent, Closed, Direct, End, LocalEvent, LocalRead, Machine};

/// Reads per turn and tunnel, so that one tunnel does not keep the others waiting.
const READS_PER_TURN: usize = 16;

/// A tunnel to open.
pub(in crate::embed) struct Open {
    /// Whose it is.
    pub(in crate::embed) held: Held,
    /// The way.
    pub(in crate::embed) way: Way,
    /// When it has taken too long.
    pub(in crate::embed) until: Instant,
}

/// How a tunnel reaches its target.
pub(in crate::embed) enum Way {
    /// Through relays.
    Route {
        /// Which.
        route: Arc<Route>,
        /// The form of a TCP tunnel, if it is not the route's.
        form: Option<TcpForm>,
        /// Fields of this request alone.
        headers: HeaderMap,
    },
    /// Through a socket of this process.
    Direct(Box<Direct>),
    /// To a session of this process.
    Session(Attached),
    /// To the exit of an IP proxy.
    Gateway(Box<Gate>),
}

/// A session for the other end of a tunnel.
pub(in crate::embed) struct Attached(pub(in crate::embed) Box<dyn Session>);

/// One tunnel.
#[derive(Debug)]
struct User {
    held: Held,
    /// When opening, or closing, has taken too long.
    deadline: Option<Instant>,
    stage: Stage,
    /// The target's end was passed on.
    ended: bool,
    /// It is among the unread ones.
    unread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    /// The user has closed it.
    Closing,
}

/// What a user wants of a tunnel beyond what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    GoOn,
    /// In an orderly way.
    Close,
    /// Whatever is left is lost.
    Break,
}

impl Wish {
    const fn of(work: &Work) -> Self {
        match (work.broken, work.closing) {
            (true, _) => Self::Break,
            (false, true) => Self::Close,
            (false, false) => Self::GoOn,
        }
    }
}

/// The tunnels of handles.
#[derive(Debug, Default)]
pub(in crate::embed) struct Users {
    tunnels: FxHashMap<TunnelId, User>,
    deadlines: BTreeSet<(Instant, TunnelId)>,
    /// Tunnels with more to read in the next turn.
    unread: VecDeque<TunnelId>,
    /// Routes of clients, by the number of the client.
    routes: FxHashMap<u64, RouteId>,
    /// Empty between turns; its memory serves all tunnels.
    spare: VecDeque<Datagram>,
}

/// What users do.
impl Users {
    /// Opens a tunnel.
    pub(in crate::embed) fn open(
        &mut self,
        now: Instant,
        open: Open,
        sessions: &mut Sessions,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Open { held, way, until } = open;
        if held.0.is_given_up() {
            return;
        }
        let shared = Arc::clone(&held.0);
        let terms = shared.terms();
        if let (Some(elsewhere), Destination::Scope(scope)) = (terms.elsewhere, &terms.destination)
        {
            let id = machine.carry_ip(now, scope.clone(), elsewhere);
            self.insert(id, held, until);
            return self.carry(now, id, way, sessions, machine, out);
        }
        let kind = |form| match terms.protocol {
            Protocol::Udp => TunnelKind::Udp,
            Protocol::Tcp => TunnelKind::Tcp(form),
            Protocol::Ip => TunnelKind::Ip,
        };
        let destination = terms.destination.clone();
        let mut attached = None;
        let id = match (way, destination) {
            (
                Way::Route {
                    route,
                    form,
                    headers,
                },
                destination,
            ) => {
                let route = self.route(&route, machine);
                let request = Request {
                    headers,
                    ..Request::new(destination, kind(form))
                };
                machine.open_local_request(now, route, request, out)
            }
            (Way::Direct(mut direct), Destination::Target(target)) => {
                direct.policy = sessions.policy(&direct.policy);
                machine.open_local_direct(now, target, kind(None), *direct, out)
            }
            (Way::Session(Attached(session)), Destination::Target(target)) => {
                attached = Some(session);
                machine.open_local_handler(now, target, kind(None), out)
            }
            // No client of ours has such a way, and no handler one to a single target; whoever waits hears of the end.
            (Way::Direct(_) | Way::Session(_), Destination::Scope(_)) | (Way::Gateway(_), _) => {
                return;
            }
        };
        self.insert(id, held, until);
        if let Some(session) = attached {
            sessions.attach(now, id, terms.protocol, session, machine, out);
        }
    }

    fn insert(&mut self, id: TunnelId, held: Held, until: Instant) {
        held.0.set_machine_id(id);
        let user = User {
            held,
            deadline: None,
            stage: Stage::Opening,
            ended: false,
            unread: false,
        };
        self.tunnels.insert(id, user);
        self.set_deadline(id, Some(until));
    }

    /// Decides about an IP tunnel whose stream somebody else carries, as is done for those of a listener.
    fn carry(
        &mut self,
        now: Instant,
        id: TunnelId,
        way: Way,
        sessions: &mut Sessions,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match way {
            Way::Session(Attached(session)) => {
                sessions.open(now, id, Protocol::Ip, session, machine, out);
            }
            Way::Gateway(gate) => {
                if let Err(error) = sessions.leave(now, id, *gate, machine, out) {
                    tracing::error!("an IP tunnel has no exit: {error}");
                    let error = Error::new(ErrorKind::Internal, Side::Local).with_source(error);
                    self.remove(id, CloseReason::Refused(error));
                    machine.reset_local(now, id, out);
                }
            }
            // There is no such handler.
            Way::Direct(direct) => machine.proceed_direct(now, id, *direct, out),
            Way::Route { route, .. } => {
                let route = self.route(&route, machine);
                machine.proceed_chain(now, id, route, None, out);
            }
        }
    }

    fn route(&mut self, route: &Route, machine: &mut Machine) -> RouteId {
        let add = || machine.add_route(route.hops.iter().cloned());
        *self.routes.entry(route.id).or_insert_with(add)
    }

    /// No tunnel will be opened on a route any more; those that are there stay.
    pub(in crate::embed) fn forget(&mut self, now: Instant, route: u64, machine: &mut Machine) {
        if let Some(route) = self.routes.remove(&route) {
            machine.remove_route(now, route);
        }
    }

    /// The user of a tunnel has done something.
    pub(in crate::embed) fn attend(
        &mut self,
        now: Instant,
        shared: &Arc<Shared>,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Some(id) = shared.machine_id() else {
            return;
        };
        let Some(stage) = self.tunnels.get(&id).map(|user| user.stage) else {
            return;
        };
        let wish = match shared.terms().protocol {
            Protocol::Udp | Protocol::Ip => {
                self.send_datagrams(now, (id, stage), shared, machine, out)
            }
            Protocol::Tcp => send_bytes(now, (id, stage), shared, machine, out),
        };
        match wish {
            Wish::Break => return machine.reset_local(now, id, out),
            Wish::Close if stage != Stage::Closing => self.close(now, id, machine, out),
            Wish::Close | Wish::GoOn => {}
        }
        self.read(now, id, machine, out);
    }

    /// Moves what was sent; what the user wants of the tunnel.
    fn send_datagrams(
        &mut self,
        now: Instant,
        (id, stage): (TunnelId, Stage),
        shared: &Arc<Shared>,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> Wish {
        let mut datagrams = std::mem::take(&mut self.spare);
        let mut work = shared.take_work(&mut datagrams, 0);
        // First, as they may say where packets come from.
        let capsules = std::mem::take(&mut work.capsules);
        match shared.is_carried_ip() {
            // Of a client whose stream somebody else carries.
            true => send_capsules(shared, capsules, |kind, value| {
                machine.carry_capsule(now, id, kind, value, out)
            }),
            false => send_capsules(shared, capsules, |kind, value| {
                machine.send_capsule(now, id, End::Downstream, kind, value)
            }),
        }
        let mut too_large = 0;
        for Datagram { context, payload } in datagrams.drain(..) {
            let context = ContextId(context);
            let sent = machine.send_end(now, id, End::Downstream, context, payload, out);
            too_large += u64::from(sent == SendOutcome::TooLarge);
        }
        self.spare = datagrams;
        if too_large > 0 && shared.terms().protocol == Protocol::Ip {
            shared.handle_send_dropped(too_large);
        }
        if stage == Stage::Open {
            shared.handle_described(describe(id, machine));
        }
        Wish::of(&work)
    }

    /// Says something to the other end of an IP tunnel.
    pub(in crate::embed) fn say(
        &mut self,
        now: Instant,
        shared: &Arc<Shared>,
        saying: Saying,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> Said {
        let id = shared.machine_id().ok_or(SendError::Closed)?;
        let said = saying.say(now, (id, End::Downstream), machine, out);
        if let Some(info) = machine.ip_info(id, End::Downstream) {
            shared.handle_ip_described(Some(info));
        }
        said
    }

    /// Starts to end a tunnel that its user has closed: at once, or when everything written is on its way.
    fn close(&mut self, now: Instant, id: TunnelId, machine: &mut Machine, out: &mut World<'_>) {
        let Some(user) = self.tunnels.get_mut(&id) else {
            return;
        };
        let was = std::mem::replace(&mut user.stage, Stage::Closing);
        match (user.held.0.terms().protocol, was) {
            (Protocol::Tcp, Stage::Opening) => machine.reset_local(now, id, out),
            (Protocol::Tcp, Stage::Open | Stage::Closing) => {
                self.set_deadline(id, Some(now + CLOSE_TIMEOUT));
            }
            (Protocol::Udp | Protocol::Ip, _) => {
                machine.close_end(now, id, End::Downstream, None, out)
            }
        }
    }

    fn read(&mut self, now: Instant, id: TunnelId, machine: &mut Machine, out: &mut World<'_>) {
        let Some(user) = self.tunnels.get_mut(&id) else {
            return;
        };
        let shared = &user.held.0;
        if user.ended || shared.terms().protocol != Protocol::Tcp {
            return;
        }
        for _ in 0..READS_PER_TURN {
            let Some(room) = shared.read_room() else {
                return;
            };
            match machine.read_local(now, id, room, out) {
                LocalRead::Data(bytes) => shared.handle_bytes(bytes),
                LocalRead::Blocked => return,
                LocalRead::End => {
                    user.ended = true;
                    shared.handle_end();
                    return;
                }
            }
        }
        if !std::mem::replace(&mut user.unread, true) {
            self.unread.push_back(id);
        }
    }

    /// Ends the tunnels of all users, as if they had closed them; what is cut by that is broken.
    pub(in crate::embed) fn close_all(
        &mut self,
        now: Instant,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let all: Vec<_> = self
            .tunnels
            .values()
            .map(|it| Arc::clone(&it.held.0))
            .collect();
        for shared in all {
            match (shared.terms().protocol, shared.terms().elsewhere) {
                (Protocol::Tcp, Some(_)) => shared.begin_reset(),
                (Protocol::Tcp, None) | (Protocol::Udp | Protocol::Ip, _) => shared.begin_close(),
            }
            self.attend(now, &shared, machine, out);
        }
    }
}

/// What tunnels and time do.
impl Users {
    /// Whether there are no tunnels.
    pub(in crate::embed) fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// Something happened to a tunnel of a handle.
    pub(in crate::embed) fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let id = event.tunnel();
        let Some(user) = self.tunnels.get_mut(&id) else {
            return;
        };
        let shared = Arc::clone(&user.held.0);
        match event {
            LocalEvent::Opened(_) => {
                if user.stage == Stage::Opening {
                    user.stage = Stage::Open;
                    self.set_deadline(id, None);
                }
                shared.handle_ip_described(machine.ip_info(id, End::Downstream));
                shared.handle_opened(describe(id, machine));
                // What was written before, and the wish to close perhaps.
                self.attend(now, &shared, machine, out);
            }
            LocalEvent::Refused(_, refused) => {
                self.remove(id, CloseReason::Refused(failure::refused(*refused)));
            }
            LocalEvent::Payload(_, payload) => shared.handle_datagram(payload.into()),
            LocalEvent::Context(..)
                if shared.terms().protocol == Protocol::Ip && !shared.is_carried_ip() =>
            {
                shared.handle_context_dropped();
            }
            LocalEvent::Context(_, context, payload) => {
                shared.handle_datagram(Datagram::new(context, payload));
            }
            LocalEvent::Capsule(_, kind, value) => {
                shared.handle_capsule(Capsule::new(kind, value));
            }
            LocalEvent::Ip(_, event) => {
                if let IpEvent::Mtu(_) = event {
                    shared.handle_described(describe(id, machine));
                }
                shared.handle_ip_event(event, machine.ip_info(id, End::Downstream));
            }
            LocalEvent::Readable(_) => self.read(now, id, machine, out),
            LocalEvent::Writable(_) => self.attend(now, &shared, machine, out),
            LocalEvent::Closed(_, closed) => {
                // What came before the end, over any bound: there will be no other time to read it.
                while let LocalRead::Data(bytes) = machine.read_local(now, id, usize::MAX, out) {
                    shared.handle_bytes(bytes);
                }
                let protocol = shared.terms().protocol;
                self.remove(id, close_reason(protocol, closed));
            }
        }
    }

    /// Once per turn. Returns whether there is more to do right away.
    pub(in crate::embed) fn turn(
        &mut self,
        now: Instant,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        for _ in 0..self.unread.len() {
            let Some(id) = self.unread.pop_front() else {
                break;
            };
            if let Some(user) = self.tunnels.get_mut(&id) {
                user.unread = false;
            }
            self.read(now, id, machine, out);
        }
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(user) = self.tunnels.get_mut(&id) else {
                continue;
            };
            user.deadline = None;
            if user.stage == Stage::Opening {
                self.remove(id, CloseReason::Refused(failure::open_timeout()));
            }
            machine.reset_local(now, id, out);
        }
        !self.unread.is_empty()
    }

    /// When [`Users::turn`] is wanted at the latest.
    pub(in crate::embed) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, id: TunnelId, reason: CloseReason) {
        self.set_deadline(id, None);
        if let Some(user) = self.tunnels.remove(&id) {
            user.held.0.handle_closed(reason);
        }
    }

    fn set_deadline(&mut self, id: TunnelId, deadline: Option<Instant>) {
        let Some(user) = self.tunnels.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut user.deadline, deadline) {
            self.deadlines.remove(&(before, id));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
    }
}

/// Moves what was written; what the user wants of the tunnel.
fn send_bytes(
    now: Instant,
    (id, stage): (TunnelId, Stage),
    shared: &Arc<Shared>,
    machine: &mut Machine,
    out: &mut World<'_>,
) -> Wish {
    loop {
        let room = match stage {
            Stage::Opening => 0,
            Stage::Open | Stage::Closing => machine.local_room(id),
        };
        let work = shared.take_work(&mut VecDeque::new(), room);
        let moved = !work.bytes.is_empty();
        let wish = Wish::of(&work);
        machine.write_local(now, id, work.bytes, out);
        send_capsules(shared, work.capsules, |kind, value| {
            machine.send_capsule(now, id, End::Downstream, kind, value)
        });
        if work.finish && wish != Wish::Break {
            machine.finish_local(now, id, out);
        }
        if !(moved && work.is_partial) {
            return wish;
        }
    }
}

/// Gives capsules to `send`; those for which the stream has no room now wait for the next occasion.
fn send_capsules(
    shared: &Shared,
    mut capsules: VecDeque<Capsule>,
    mut send: impl FnMut(CapsuleType, &[u8]) -> CapsuleSent,
) {
    while let Some(Capsule { kind, value }) = capsules.front() {
        match send(CapsuleType(*kind), value) {
            CapsuleSent::Blocked => return shared.return_capsules(capsules),
            // What cannot be sent was refused by the handle, unless the tunnel has ended meanwhile.
            CapsuleSent::Sent
            | CapsuleSent::Unsupported
            | CapsuleSent::Reserved(_)
            | CapsuleSent::Gone => {
                capsules.pop_front();
            }
        }
    }
}

fn describe(id: TunnelId, machine: &mut Machine) -> Opened {
    match machine.describe(id, End::Downstream) {
        Some(description) => Opened {
            carrier: Some(description.carrier),
            peer: description.peer,
            size_max: description.payload_size_max,
        },
        None => Opened::default(),
    }
}

fn close_reason(protocol: Protocol, closed: Closed) -> CloseReason {
    match closed {
        Closed::Finished => CloseReason::Finished,
        Closed::Aborted { abort, code } => failure::aborted(protocol, abort, code),
    }
}
