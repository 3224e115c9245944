//! Requests that a user's handler decides, and the tunnels that end in its sessions, on one worker.
//!
//! ```text
//!   HandlerEvent::Request ─► Handler::accept ─┬─► session ──────────────────────────────────┬─► Live
//!                                             ├─► future ─► control thread ─► Command ──────┤
//!                                             └─► way: the machine moves the tunnel itself ◄┘
//!   HandlerEvent::End ─► Live: callbacks
//! ```
//!
//! Code of users runs under `catch_unwind` only: what panics ends its own tunnel or request.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ::http::StatusCode;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::sessions_live::{Engine, Live, Next};
use super::{Command, HostSender};
use crate::client::RouteId;
use crate::embed::client::Route;
use crate::embed::handler::{Handler, Ready, Reject, Served};
use crate::embed::handler_guard::{Panicked, guarded, guarded_future};
use crate::embed::ip::Saying;
use crate::embed::ip_proxy::{Exit, InstallError};
use crate::embed::proxy::{Gate, Hook, Later, Way};
use crate::embed::request::Request;
use crate::embed::session::{Ending, Session};
use crate::embed::session_handle::TunnelHandle;
use crate::embed::{CloseReason, Protocol};
use crate::http::request::ResponseHead;
use crate::net::Driver;
use crate::policy::Policy;
use crate::tunnel::TunnelId;
use crate::worker::run::World;
use crate::worker::{Closed, Direct, HandlerEvent, Incoming, LocalEvent, Machine, PlainRequest};

/// How long a client may take, after a session has closed a TCP tunnel, to end its direction, or to take more of what
/// is left.
const LINGER: Duration = Duration::from_secs(5);
/// Policies that a worker remembers; those of handlers that make more are put together anew each time.
const REMEMBERED_MAX: usize = 64;

/// Who answers requests that are no tunnels.
pub(in crate::embed) type Fallback = Hook<Request, Page>;

/// What a worker needs to know about handlers.
#[derive(Default)]
pub(in crate::embed) struct SessionsSetup {
    /// Nothing, where nobody is served.
    pub(in crate::embed) serve: Option<Serve>,
}

/// What a worker needs that serves.
pub(in crate::embed) struct Serve {
    /// Who decides.
    pub(in crate::embed) handler: Arc<dyn Handler>,
    /// Who answers requests that are no tunnels, if anybody does.
    pub(in crate::embed) fallback: Option<Fallback>,
    /// Where futures run.
    pub(in crate::embed) control: Handle,
    /// How others reach this worker.
    pub(in crate::embed) sender: HostSender,
    /// Addresses that are ours, which no tunnel may lead to.
    pub(in crate::embed) own: Arc<[SocketAddr]>,
    /// What all workers count together.
    pub(in crate::embed) counters: Arc<Counters>,
}

/// What the sessions of all workers count together.
#[derive(Debug, Default)]
pub(in crate::embed) struct Counters {
    /// Calls into code of users that panicked.
    pub(in crate::embed) panics: AtomicU64,
}

/// What other threads tell the sessions of a worker.
pub(in crate::embed) enum SessionCommand {
    /// An order of a [`TunnelHandle`].
    Act {
        tunnel: TunnelId,
        handle: TunnelHandle,
        /// Bytes that it has reserved.
        len: usize,
        act: Act,
    },
    /// A future of the fallback is done.
    Answered {
        id: TunnelId,
        outcome: Result<Page, Panicked>,
    },
    /// A future of a handler is done.
    Decided {
        tunnel: TunnelId,
        outcome: Box<Result<Result<Served, Reject>, Panicked>>,
    },
}

/// A response of a fallback.
pub(in crate::embed) type Page = ::http::Response<Bytes>;

/// What a [`TunnelHandle`] wants.
pub(in crate::embed) enum Act {
    Message(Box<dyn Any + Send>),
    Send(u64, Bytes),
    /// Bytes, and whether they are the last.
    Data(Bytes, bool),
    Capsule(u64, Bytes),
    Say(Saying),
    Close(Ending),
}

impl fmt::Debug for SessionCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Act { .. } => "Act",
            Self::Answered { .. } => "Answered",
            Self::Decided { .. } => "Decided",
        })
    }
}

/// A tunnel, from the request on; or a request that is none.
enum Tunnel {
    /// A future of the handler runs.
    Waiting(
        Protocol,
        #[expect(dead_code, reason = "it is only held")] Task,
    ),
    /// A future of the fallback runs.
    Asked(#[expect(dead_code, reason = "it is only held")] Task),
    /// The machine has it; nothing more is heard of it.
    Open(Box<Live>),
}

/// A future that is dropped when its client leaves.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The sessions of one worker.
pub(in crate::embed) struct Sessions {
    serve: Option<Serve>,
    /// The machine knows whether there is a fallback.
    started: bool,
    tunnels: FxHashMap<TunnelId, Tunnel>,
    /// Sessions that have more to read.
    busy: Vec<TunnelId>,
    /// Sessions that have closed, by when their client has to have done so too.
    lingering: BTreeSet<(Instant, TunnelId)>,
    /// Ways to next hops, by their number.
    routes: FxHashMap<u64, RouteId>,
    policies: Vec<(Arc<Policy>, Arc<Policy>)>,
    /// Where IP packets leave, once a tunnel has asked for it.
    exit: Option<Arc<Exit>>,
}

impl Sessions {
    /// No sessions yet.
    pub(in crate::embed) fn new(setup: SessionsSetup) -> Self {
        Self {
            serve: setup.serve,
            started: false,
            tunnels: FxHashMap::default(),
            busy: Vec::new(),
            lingering: BTreeSet::new(),
            routes: FxHashMap::default(),
            policies: Vec::new(),
            exit: None,
        }
    }

    /// Something happened at the upstream end of a tunnel, or somebody wants one.
    pub(in crate::embed) fn handle(
        &mut self,
        now: Instant,
        event: HandlerEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            HandlerEvent::Request(id, incoming) => {
                self.handle_request(now, id, *incoming, machine, out);
            }
            HandlerEvent::Fallback(id, request) => self.handle_plain(now, id, *request, machine),
            HandlerEvent::End(event) => self.handle_end(now, event, machine, out),
            HandlerEvent::Gateway(event) => {
                if let (Some(exit), Some(serve)) = (&self.exit, &self.serve) {
                    exit.handle(machine.worker(), event, &serve.counters.panics);
                }
            }
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        id: TunnelId,
        incoming: Incoming,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Some(serve) = &self.serve else {
            return reject(now, id, Reject::unavailable(), machine, out);
        };
        let protocol = Protocol::of(incoming.protocol);
        let request = Request::of_tunnel(incoming);
        let accepted = guarded("accept", &serve.counters.panics, || {
            serve.handler.accept(&request)
        });
        let accept = match accepted {
            Ok(Ok(accept)) => accept,
            Ok(Err(rejected)) => return reject(now, id, rejected, machine, out),
            Err(Panicked) => return reject(now, id, Reject::panicked(), machine, out),
        };
        match accept.served() {
            Ok(served) => self.go_ahead(now, id, protocol, served, machine, out),
            Err(later) => self.wait(id, protocol, later),
        }
    }

    /// Does what was decided about a request.
    fn go_ahead(
        &mut self,
        now: Instant,
        id: TunnelId,
        protocol: Protocol,
        (ready, headers): Served,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        machine.set_answer(id, headers);
        match ready {
            Ready::Session(session) => self.open(now, id, protocol, session, machine, out),
            Ready::Way(way) => self.proceed(now, id, way, machine, out),
        }
    }

    /// Asks the fallback about a request that is no tunnel.
    fn handle_plain(
        &mut self,
        now: Instant,
        id: TunnelId,
        request: PlainRequest,
        machine: &mut Machine,
    ) {
        let Some((serve, fallback)) = self
            .serve
            .as_ref()
            .and_then(|serve| Some((serve, serve.fallback.as_ref()?)))
        else {
            return;
        };
        let request = Request::of_nothing(request);
        let panics = &serve.counters.panics;
        match guarded("fallback", panics, || fallback.ask(&request)) {
            Ok(Ok(response)) => self.respond(now, id, Ok(response), machine),
            Err(panicked) => self.respond(now, id, Err(panicked), machine),
            Ok(Err(later)) => {
                let (sender, counters) = (serve.sender.clone(), Arc::clone(&serve.counters));
                // It ends with its request, which the machine answers when it takes too long.
                let task = serve.control.spawn(async move {
                    let outcome = guarded_future("fallback", &counters.panics, later).await;
                    let answered = SessionCommand::Answered { id, outcome };
                    sender.send(Command::Session(answered));
                });
                let asked = Tunnel::Asked(Task(task.abort_handle()));
                self.tunnels.insert(id, asked);
            }
        }
    }

    /// Answers a request that is no tunnel.
    fn respond(
        &self,
        now: Instant,
        id: TunnelId,
        outcome: Result<Page, Panicked>,
        machine: &mut Machine,
    ) {
        let (parts, body) = match outcome {
            Ok(page) => page.into_parts(),
            Err(Panicked) => {
                let mut page = Page::default();
                *page.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                page.into_parts()
            }
        };
        let head = ResponseHead {
            status: parts.status,
            headers: parts.headers,
        };
        self.discard(parts.extensions);
        machine.respond(now, id, head, body);
    }

    /// Runs a future for a request.
    fn wait(&mut self, id: TunnelId, protocol: Protocol, future: Later<Result<Served, Reject>>) {
        let Some(serve) = &self.serve else {
            return;
        };
        let (sender, counters) = (serve.sender.clone(), Arc::clone(&serve.counters));
        let task = serve.control.spawn(async move {
            let outcome = guarded_future("init", &counters.panics, future).await;
            sender.send(Command::Session(SessionCommand::Decided {
                tunnel: id,
                outcome: Box::new(outcome),
            }));
        });
        let waiting = Tunnel::Waiting(protocol, Task(task.abort_handle()));
        self.tunnels.insert(id, waiting);
    }

    fn decided(
        &mut self,
        now: Instant,
        id: TunnelId,
        outcome: Result<Result<Served, Reject>, Panicked>,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        // The client may have left in the meantime.
        let Some(&Tunnel::Waiting(protocol, _)) = self.tunnels.get(&id) else {
            return self.discard(outcome);
        };
        self.tunnels.remove(&id);
        match outcome {
            Ok(Ok(served)) => self.go_ahead(now, id, protocol, served, machine, out),
            Ok(Err(rejected)) => reject(now, id, rejected, machine, out),
            Err(Panicked) => reject(now, id, Reject::panicked(), machine, out),
        }
    }

    /// What belongs to users is dropped where a panic is caught.
    fn discard<T>(&self, value: T) {
        if let Some(serve) = &self.serve {
            drop(guarded("drop", &serve.counters.panics, || drop(value)));
        }
    }

    /// Answers 2xx, and tells the session.
    pub(in crate::embed) fn open(
        &mut self,
        now: Instant,
        id: TunnelId,
        protocol: Protocol,
        session: Box<dyn Session>,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        machine.accept_request(now, id, out);
        self.attach(now, id, protocol, session, machine, out);
    }

    /// Gives the upstream end of an open tunnel to a session.
    pub(in crate::embed) fn attach(
        &mut self,
        now: Instant,
        id: TunnelId,
        protocol: Protocol,
        session: Box<dyn Session>,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let live = Box::new(Live::new(id, protocol, session));
        self.tunnels.insert(id, Tunnel::Open(live));
        self.with(now, id, machine, out, Live::open);
    }

    /// Hands a tunnel to the machine.
    fn proceed(
        &mut self,
        now: Instant,
        id: TunnelId,
        way: Way,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match way {
            Way::Direct(mut direct) => {
                direct.policy = self.policy(&direct.policy);
                machine.proceed_direct(now, id, direct, out);
            }
            Way::Chain(chain) => {
                let route = self.route(&chain.route, machine);
                machine.proceed_chain(now, id, route, chain.timeout, out);
            }
            Way::Gateway(gate) => {
                if let Err(error) = self.leave(now, id, gate, machine, out) {
                    let rejected = Reject::new(StatusCode::INTERNAL_SERVER_ERROR);
                    reject(now, id, rejected.reason(error.to_string()), machine, out);
                }
            }
        }
    }

    /// Has an IP tunnel leave by the exit of a proxy.
    pub(in crate::embed) fn leave(
        &mut self,
        now: Instant,
        id: TunnelId,
        gate: Gate,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> Result<(), InstallError> {
        self.install(&gate.exit, machine, out.driver)?;
        let direct = Direct {
            policy: self.policy(&gate.direct.policy),
            ..gate.direct
        };
        machine.set_user(id, gate.user);
        machine.proceed_direct(now, id, direct, out);
        Ok(())
    }

    /// Has IP packets leave by `exit` here, from now on if they did not before.
    fn install(
        &mut self,
        exit: &Arc<Exit>,
        machine: &mut Machine,
        driver: &mut Driver,
    ) -> Result<(), InstallError> {
        if let Some(installed) = &self.exit {
            return match Arc::ptr_eq(installed, exit) {
                true => Ok(()),
                false => Err(InstallError::Elsewhere),
            };
        }
        let Some(serve) = &self.serve else {
            return Err(InstallError::Elsewhere);
        };
        let (counters, sender) = (Arc::clone(&serve.counters), serve.sender.clone());
        let policy = |policy: &Arc<Policy>| self.policy(policy);
        exit.install(&counters, &sender, policy, machine, driver)?;
        self.exit = Some(Arc::clone(exit));
        Ok(())
    }

    /// A policy of a user's that knows our own addresses too.
    pub(in crate::embed) fn policy(&mut self, policy: &Arc<Policy>) -> Arc<Policy> {
        let own = self.serve.as_ref().map(|serve| &*serve.own);
        let Some(own) = own.filter(|own| !own.is_empty()) else {
            return Arc::clone(policy);
        };
        let known = self
            .policies
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, policy));
        if let Some((_, known)) = known {
            return Arc::clone(known);
        }
        let mut complete = Policy::clone(policy);
        complete.own.extend_from_slice(own);
        let complete = Arc::new(complete);
        if self.policies.len() < REMEMBERED_MAX {
            let entry = (Arc::clone(policy), Arc::clone(&complete));
            self.policies.push(entry);
        }
        complete
    }

    /// The route of a chain, which the worker gets to know with its first tunnel.
    fn route(&mut self, route: &Route, machine: &mut Machine) -> RouteId {
        let add = || {
            if let Some(serve) = &self.serve {
                route.known_to(&serve.sender);
            }
            machine.add_route(route.hops.iter().cloned())
        };
        *self.routes.entry(route.id).or_insert_with(add)
    }

    /// No tunnel will be opened on a route any more; those that are there stay.
    pub(in crate::embed) fn forget(&mut self, now: Instant, route: u64, machine: &mut Machine) {
        if let Some(route) = self.routes.remove(&route) {
            machine.remove_route(now, route);
        }
    }

    fn handle_end(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            // The session knows since its request was accepted.
            LocalEvent::Opened(_) => {}
            LocalEvent::Refused(id, _) => {
                self.tunnels.remove(&id);
            }
            LocalEvent::Payload(id, payload) => {
                self.with(now, id, machine, out, |live, engine| {
                    live.packet(0, payload, engine)
                });
            }
            LocalEvent::Context(id, context, payload) => {
                self.with(now, id, machine, out, |live, engine| {
                    live.packet(context, payload, engine)
                });
            }
            LocalEvent::Capsule(id, kind, value) => {
                self.with(now, id, machine, out, |live, engine| {
                    live.capsule(kind, value, engine)
                });
            }
            LocalEvent::Ip(id, event) => {
                self.with(now, id, machine, out, |live, engine| {
                    live.ip_event(event, engine)
                });
            }
            LocalEvent::Readable(id) => self.with(now, id, machine, out, Live::read),
            LocalEvent::Writable(id) => self.with(now, id, machine, out, Live::writable),
            LocalEvent::Closed(id, closed) => self.closed(now, id, closed, machine, out),
        }
    }

    fn closed(
        &mut self,
        now: Instant,
        id: TunnelId,
        closed: Closed,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let (Some(tunnel), Some(serve)) = (self.tunnels.remove(&id), &self.serve) else {
            return;
        };
        match tunnel {
            Tunnel::Waiting(..) | Tunnel::Asked(_) => {}
            Tunnel::Open(mut live) => {
                if let Some(until) = live.lingers {
                    self.lingering.remove(&(until, id));
                }
                let mut engine = Engine {
                    now,
                    machine,
                    out,
                    serve,
                };
                if let Err(Panicked) = live.read_rest(&mut engine) {
                    live.give_up();
                    return self.discard(live);
                }
                let reason = live.reason(closed);
                live.close(reason, serve);
            }
        }
    }

    /// Lets a live session do something, and does what follows.
    fn with(
        &mut self,
        now: Instant,
        id: TunnelId,
        machine: &mut Machine,
        out: &mut World<'_>,
        act: impl FnOnce(&mut Live, &mut Engine<'_, '_>) -> Result<Next, Panicked>,
    ) {
        let (Some(Tunnel::Open(live)), Some(serve)) = (self.tunnels.get_mut(&id), &self.serve)
        else {
            return;
        };
        let mut engine = Engine {
            now,
            machine,
            out,
            serve,
        };
        match act(live, &mut engine) {
            Ok(next) => {
                if live.lingers_anew() {
                    let until = now + LINGER;
                    if let Some(before) = live.lingers.replace(until) {
                        self.lingering.remove(&(before, id));
                    }
                    self.lingering.insert((until, id));
                }
                match next {
                    Next::Nothing => {}
                    Next::ReadOn => self.busy.push(id),
                }
            }
            Err(Panicked) => {
                engine.break_off(id);
                if let Some(Tunnel::Open(live)) = self.tunnels.remove(&id) {
                    live.give_up();
                    self.discard(live);
                }
            }
        }
    }

    /// Does what another thread asks for.
    pub(in crate::embed) fn command(
        &mut self,
        now: Instant,
        command: SessionCommand,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match command {
            SessionCommand::Decided { tunnel, outcome } => {
                self.decided(now, tunnel, *outcome, machine, out);
            }
            SessionCommand::Answered { id, outcome } => {
                self.tunnels.remove(&id);
                self.respond(now, id, outcome, machine);
            }
            SessionCommand::Act {
                tunnel,
                handle,
                len,
                act,
            } => {
                handle.taken(len);
                // Nobody takes a message any more.
                if !matches!(self.tunnels.get(&tunnel), Some(Tunnel::Open(_))) {
                    return self.discard(act);
                }
                self.with(now, tunnel, machine, out, |live, engine| {
                    live.act(act, engine)
                });
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
        if !self.started {
            self.started = true;
            let fallback = (self.serve.as_ref()).and_then(|serve| serve.fallback.as_ref());
            machine.set_fallback(fallback.is_some());
        }
        while let Some(&(until, id)) = self.lingering.first()
            && until <= now
        {
            self.lingering.remove(&(until, id));
            self.with(now, id, machine, out, |live, engine| {
                engine.close(live.id());
                Ok(Next::Nothing)
            });
        }
        for id in std::mem::take(&mut self.busy) {
            self.with(now, id, machine, out, Live::read);
        }
        !self.busy.is_empty()
    }

    /// When [`Sessions::turn`] is wanted at the latest.
    pub(in crate::embed) fn next_timeout(&self) -> Option<Instant> {
        self.lingering.first().map(|(until, _)| *until)
    }
}

impl Drop for Sessions {
    /// Sessions, and the exit of IP packets, hear of the end of their worker too.
    fn drop(&mut self) {
        if let Some(exit) = &self.exit {
            exit.leave();
        }
        let Some(serve) = &self.serve else {
            return;
        };
        for (_, tunnel) in self.tunnels.drain() {
            match tunnel {
                Tunnel::Waiting(..) | Tunnel::Asked(_) => {}
                Tunnel::Open(live) => live.close(CloseReason::Local, serve),
            }
        }
    }
}

fn reject(
    now: Instant,
    id: TunnelId,
    rejected: Reject,
    machine: &mut Machine,
    out: &mut World<'_>,
) {
    machine.reject(now, id, rejected.into_rejection(), out);
}
