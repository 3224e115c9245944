//! What a worker does for the handles and handlers of users: the [`App`] of every worker of the library.
//!
//! ```text
//!   handles ── Command ──► Host ─┬─ users      tunnels that begin at a handle      ─┬─► Machine
//!     (any thread)               ├─ sessions   tunnels that end in a handler       ─┘
//!                                └─ timers     deadlines of those who wait
//! ```
//!
//! The channel of commands has no bound of its own: a handle sends "look at me" once until it was looked at, and
//! everything else is one command per call of a user.

pub(super) mod sessions;
mod sessions_live;
pub(super) mod timers;
pub(super) mod users;

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use crossbeam::channel::{Receiver, Sender, unbounded};
use event_listener::Event;

use self::sessions::{SessionCommand, Sessions, SessionsSetup};
use self::timers::Timers;
use self::users::{Open, Users};
use super::ip::{Replier, Saying};
use super::ip_proxy::Injected;
use super::tunnel::Shared;
use crate::worker::mailbox::Address;
use crate::worker::run::{App, World};
use crate::worker::{HandlerEvent, LocalEvent, Machine};

/// Commands carried out per turn.
const COMMANDS_PER_TURN: usize = 1_024;

/// What handles tell a worker.
pub(super) enum Command {
    /// Open a tunnel.
    Open(Box<Open>),
    /// A handle was used.
    Attend(Arc<Shared>),
    /// Say something on an IP tunnel.
    Say {
        /// Whose it is.
        shared: Arc<Shared>,
        /// What.
        saying: Box<Saying>,
        /// Who waits for what comes of it.
        replier: Replier,
    },
    /// The clients or chains of a route are gone.
    Forget(u64),
    /// Notify an event at a time.
    Timer {
        /// When.
        at: Instant,
        /// What; forgotten when nobody else holds it.
        event: Arc<Event>,
    },
    /// A packet from outside for a client.
    Inject(Injected),
    /// For the sessions.
    Session(SessionCommand),
    /// Whether to accept new connections and requests.
    SetAccepting(bool),
    /// Accept nothing new, and end when the tunnels have.
    Drain,
    /// Close everything and end.
    Stop,
}

/// How handles reach one worker. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct HostSender {
    commands: Sender<Command>,
    address: Address,
}

impl HostSender {
    /// Sends a command. A worker that has ended drops it.
    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.address.wake();
        }
    }

    /// Whether both reach the same worker.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.commands.same_channel(&other.commands)
    }
}

/// The channel to a worker whose mailbox is `address`.
pub(super) fn channel(address: Address) -> (HostSender, Receiver<Command>) {
    let (commands, receiver) = unbounded();
    (HostSender { commands, address }, receiver)
}

/// The app of a worker of the library.
pub(super) struct Host {
    commands: Receiver<Command>,
    users: Users,
    sessions: Sessions,
    timers: Timers,
    /// The end is wanted, and comes when no user waits for the last bytes of a tunnel.
    stopping: bool,
    stopped: bool,
}

impl Host {
    /// Takes what a worker starts with.
    pub(super) fn new(commands: Receiver<Command>, sessions: SessionsSetup) -> Self {
        Self {
            commands,
            users: Users::default(),
            sessions: Sessions::new(sessions),
            timers: Timers::default(),
            stopping: false,
            stopped: false,
        }
    }

    fn carry_out(
        &mut self,
        now: Instant,
        command: Command,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match command {
            // Whoever waits for it hears of the end when it is dropped.
            Command::Open(open) if self.stopping => drop(open),
            Command::Open(open) => {
                (self.users).open(now, *open, &mut self.sessions, machine, out);
            }
            Command::Say {
                shared,
                saying,
                replier,
            } => replier.answer(self.users.say(now, &shared, *saying, machine, out)),
            Command::Attend(shared) => self.users.attend(now, &shared, machine, out),
            Command::Forget(route) => {
                self.users.forget(now, route, machine);
                self.sessions.forget(now, route, machine);
            }
            Command::Timer { at, event } => self.timers.insert(at, &event),
            Command::Inject(injected) => {
                let packet = BytesMut::from(injected.take());
                machine.handle_packet(now, packet, out);
            }
            Command::Session(command) => self.sessions.command(now, command, machine, out),
            Command::SetAccepting(true) => machine.accept_again(),
            Command::SetAccepting(false) => machine.stop_accepting(now),
            Command::Drain => machine.drain(now),
            Command::Stop => {
                self.users.close_all(now, machine, out);
                self.stopping = true;
            }
        }
    }
}

impl App for Host {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.users.handle(now, event, machine, out);
    }

    fn handle_handler(
        &mut self,
        now: Instant,
        event: HandlerEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        self.sessions.handle(now, event, machine, out);
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        let mut room = COMMANDS_PER_TURN;
        while room > 0
            && let Ok(command) = self.commands.try_recv()
        {
            self.carry_out(now, command, machine, out);
            room -= 1;
        }
        self.timers.expire(now);
        let users_busy = self.users.turn(now, machine, out);
        let sessions_busy = self.sessions.turn(now, machine, out);
        if self.stopping && self.users.is_empty() {
            machine.stop(now, out);
            self.stopped = true;
        }
        room == 0 || users_busy || sessions_busy
    }

    fn next_timeout(&self) -> Option<Instant> {
        let parts = [
            self.timers.next_timeout(),
            self.users.next_timeout(),
            self.sessions.next_timeout(),
        ];
        parts.into_iter().flatten().min()
    }

    fn is_finished(&self) -> bool {
        self.stopped
    }
}
