//! The loop of a worker thread: the machine, its sockets and its clock.
//!
//! ```text
//!   ┌─► receive ─► machine, app ─► mailbox ─► turn ─► app ─► flush ─┬─► work left: look, yield, go on
//!   └────────────────────────────────────────────────────────────────┴─► else: spin a while, arm the timer, park
//! ```

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use crossbeam::channel::Sender;
use tokio::sync::mpsc;

use super::machine::{HandlerEvent, LocalEvent, Machine, Outside, Resolve, Tag, TcpTag};
use super::mailbox::{Address, Letter, Mailbox, PostError};
use super::stats::Stats;
use crate::net::runtime::{Selected, yield_now};
use crate::net::{
    self, Driver, Network, Outgoing, Received, SocketId, SocketOptions, TcpClose, TcpEvent, TcpId,
    TcpRead, Train, TrainOutcome, Woken, clock,
};
use crate::policy::auth::Job;
use crate::transport::quic::HubStats;
use crate::transport::tcp::TcpHubStats;

/// Letters read per turn.
const LETTERS_PER_TURN: usize = 256;
/// Busy turns between two looks at the descriptors of other tasks.
const TURNS_PER_YIELD: u32 = 8;

/// What a worker wants to know from the control thread.
#[derive(Debug)]
pub struct Question {
    /// Which worker asks.
    pub worker: u32,
    /// What.
    pub ask: Ask,
}

/// The kinds of questions.
#[derive(Debug)]
pub enum Ask {
    /// The addresses of a name.
    Addresses {
        /// Who wants them.
        asker: Resolve,
        /// The name.
        name: Box<str>,
    },
    /// Whether a password is right.
    Verdict(Job),
}

/// A program that uses a worker's machine for tunnels of its own.
pub trait App {
    /// A tunnel of ours opened, brought something, or ended.
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    );

    /// A handler of ours is asked, or its end of a tunnel brought something. Without a handler nothing comes.
    fn handle_handler(
        &mut self,
        _now: Instant,
        _event: HandlerEvent,
        _machine: &mut Machine,
        _out: &mut World<'_>,
    ) {
    }

    /// A socket of ours, tagged [`Tag::App`], received something.
    fn handle_received(
        &mut self,
        _now: Instant,
        _socket: (SocketId, u32),
        _received: Received,
        _machine: &mut Machine,
        _out: &mut World<'_>,
    ) {
    }

    /// Something happened to a TCP socket of ours, tagged [`TcpTag::App`].
    fn handle_tcp(
        &mut self,
        _now: Instant,
        _socket: (TcpId, u32),
        _event: TcpEvent,
        _machine: &mut Machine,
        _out: &mut World<'_>,
    ) {
    }

    /// Once per turn, before everything is sent. Returns whether there is more to do right away.
    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool;

    /// When [`App::turn`] is wanted at the latest.
    fn next_timeout(&self) -> Option<Instant>;

    /// Whether the worker should stop.
    fn is_finished(&self) -> bool;
}

/// The app of a worker that only relays.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoApp;

impl App for NoApp {
    fn handle(&mut self, _: Instant, _: LocalEvent, _: &mut Machine, _: &mut World<'_>) {}

    fn turn(&mut self, _: Instant, _: &mut Machine, _: &mut World<'_>) -> bool {
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_finished(&self) -> bool {
        false
    }
}

/// What a machine sees of its thread and of the others.
pub struct World<'a> {
    /// The sockets.
    pub driver: &'a mut Driver,
    worker: u32,
    peers: &'a [Address],
    questions: &'a mpsc::Sender<Question>,
    strays_dropped: &'a mut u64,
}

impl Network for World<'_> {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        Network::send(self.driver, socket, outgoing);
    }

    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome {
        self.driver.send_train(socket, datagrams)
    }

    fn send_packets(&mut self, tun: SocketId, packets: &mut Vec<Bytes>) {
        self.driver.send_packets(tun, packets);
    }

    fn read(
        &mut self,
        socket: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead> {
        Network::read(self.driver, socket, buffer, bytes_max)
    }

    fn write(&mut self, socket: TcpId, data: &[IoSlice<'_>]) -> io::Result<usize> {
        Network::write(self.driver, socket, data)
    }

    fn shutdown(&mut self, socket: TcpId) {
        Network::shutdown(self.driver, socket);
    }

    fn close(&mut self, socket: TcpId, how: TcpClose) {
        Network::close(self.driver, socket, how);
    }
}

impl Outside for World<'_> {
    fn connect(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: Tag,
    ) -> io::Result<SocketId> {
        self.driver.connect_with(target, options, tag.to_bits())
    }

    fn remove(&mut self, socket: SocketId) {
        self.driver.remove(socket);
    }

    fn resolve(&mut self, name: &str, asker: Resolve) -> bool {
        let question = Question {
            worker: self.worker,
            ask: Ask::Addresses {
                asker,
                name: name.into(),
            },
        };
        self.questions.try_send(question).is_ok()
    }

    fn forward(&mut self, worker: u32, listener: u32, train: Train) -> Option<Train> {
        let letter = Letter::Stray {
            listener,
            train: Box::new(train),
        };
        match self.peers[worker as usize].post(letter) {
            Ok(()) => None,
            Err(PostError::Gone(Letter::Stray { train, .. })) => Some(*train),
            Err(PostError::Gone(_) | PostError::Full(_)) => {
                *self.strays_dropped += 1;
                None
            }
        }
    }

    fn forward_packet(&mut self, worker: u32, packet: Bytes) {
        if !self.peers[worker as usize].post_packet(packet) {
            *self.strays_dropped += 1;
        }
    }

    fn connect_tcp(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: TcpTag,
    ) -> io::Result<TcpId> {
        self.driver.connect_tcp_with(target, options, tag.to_bits())
    }

    fn set_tcp_tag(&mut self, socket: TcpId, tag: TcpTag) {
        self.driver.set_tcp_tag(socket, tag.to_bits());
    }

    fn local_ip_towards(&mut self, peer: SocketAddr) -> Option<IpAddr> {
        net::local_ip_towards(peer)
    }

    fn verify(&mut self, job: Job) -> bool {
        let question = Question {
            worker: self.worker,
            ask: Ask::Verdict(job),
        };
        self.questions.try_send(question).is_ok()
    }
}

/// Everything that a worker thread owns.
pub struct Worker<A> {
    /// Which one.
    pub worker: u32,
    /// Tunnels and connections.
    pub machine: Machine,
    /// Sockets.
    pub driver: Driver,
    /// The UDP socket of each listener, for strays.
    pub listeners: Vec<Option<SocketId>>,
    /// Tunnels of our own.
    pub app: A,
    /// Letters.
    pub mailbox: Mailbox,
    /// The mailboxes of all workers, this one's included.
    pub peers: Vec<Address>,
    /// Where names are resolved.
    pub questions: mpsc::Sender<Question>,
    /// How long it looks for more before it parks.
    pub spin: Duration,
}

/// What a worker did, from its start to its end or to the time of asking.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which one.
    pub worker: u32,
    /// Tunnels.
    pub machine: Stats,
    /// Connections of QUIC.
    pub hub: HubStats,
    /// Connections over TCP.
    pub tcp: TcpHubStats,
    /// Sockets.
    pub net: net::Stats,
    /// CPU time of the thread.
    pub cpu: Duration,
    /// What watches the sockets.
    pub io: Selected,
}

impl<A: App> Worker<A> {
    /// Runs until told to stop, drained, or the app is finished.
    ///
    /// # Errors
    /// When the driver fails as a whole.
    pub async fn run(mut self, io: Selected) -> io::Result<(Report, A)> {
        self.mailbox.attach(self.driver.waker());
        let mut inbox = Vec::new();
        let mut busy_turns = 0;
        let mut last_input = clock::now();
        loop {
            let more = self.driver.receive(&mut |socket, tag, received| {
                inbox.push((socket, Tag::from_bits(tag), received));
            });
            let now = clock::now();
            if !inbox.is_empty() || self.driver.has_tcp_events() {
                last_input = now;
            }
            // Every turn reads the mailbox until it is empty, so it does not matter what woke the worker.
            match self.turn(now, &mut inbox, &io) {
                Next::End => return Ok((self.report(io), self.app)),
                Next::Wait
                    if !more && !self.driver.has_tcp_events() && now >= last_input + self.spin =>
                {
                    let _woken = self.park().await?;
                }
                Next::Wait | Next::GoOn => {
                    let _woken = self.driver.poll_ready_nonblocking()?;
                    busy_turns = (busy_turns + 1) % TURNS_PER_YIELD;
                    if busy_turns == 0 {
                        yield_now().await;
                    }
                }
            }
        }
    }

    /// Everything between receiving and waiting.
    fn turn(
        &mut self,
        now: Instant,
        inbox: &mut Vec<(SocketId, Tag, Received)>,
        io: &Selected,
    ) -> Next {
        let Self {
            machine,
            app,
            mailbox,
            ..
        } = self;
        let mut strays_dropped = 0;
        let mut world = World {
            driver: &mut self.driver,
            worker: self.worker,
            peers: &self.peers,
            questions: &self.questions,
            strays_dropped: &mut strays_dropped,
        };
        for (socket, tag, received) in inbox.drain(..) {
            match tag {
                Tag::App(number) => {
                    app.handle_received(now, (socket, number), received, machine, &mut world);
                }
                Tag::Listener(_) | Tag::Dialler | Tag::Target(_) | Tag::Tun => {
                    machine.handle_received(now, socket, tag, received, &mut world);
                }
            }
        }
        // The tag is that of this moment, and what was closed a moment ago brings nothing more.
        while let Some((socket, tag, event)) = world.driver.poll_tcp(now) {
            match TcpTag::from_bits(tag) {
                TcpTag::App(number) => {
                    app.handle_tcp(now, (socket, number), event, machine, &mut world);
                }
                tag @ (TcpTag::Target(_) | TcpTag::Listener(_) | TcpTag::Carrier(_)) => {
                    machine.handle_tcp(now, socket, tag, event, &mut world);
                }
            }
        }
        let mut asked = Vec::new();
        let read = read_letters(
            now,
            mailbox,
            machine,
            &self.listeners,
            &mut asked,
            &mut world,
        );
        machine.turn(now, &mut world);
        while let Some(event) = machine.poll_local() {
            app.handle(now, event, machine, &mut world);
        }
        while let Some(event) = machine.poll_handler() {
            app.handle_handler(now, event, machine, &mut world);
        }
        let app_busy = app.turn(now, machine, &mut world);
        machine.flush(now, &mut world);
        machine.stats.dropped_mailbox_full += strays_dropped;
        for asker in asked {
            // Whoever asked may have left.
            drop(asker.try_send(self.report(io.clone())));
        }
        if read == Read::Stop || self.machine.is_finished() || self.app.is_finished() {
            Next::End
        } else if read == Read::Some || app_busy || self.machine.is_busy() {
            Next::GoOn
        } else {
            Next::Wait
        }
    }

    /// Waits until there is something to do.
    async fn park(&mut self) -> io::Result<Woken> {
        let deadline = [self.machine.next_timeout(), self.app.next_timeout()];
        let deadline = deadline.into_iter().flatten().min();
        self.driver.set_timer(deadline, clock::now())?;
        self.driver.ready().await
    }

    fn report(&self, io: Selected) -> Report {
        Report {
            worker: self.worker,
            machine: self.machine.stats,
            hub: self.machine.hub().counters(),
            tcp: self.machine.tcp_hub().stats,
            net: self.driver.stats(),
            cpu: clock::thread_cpu_time(),
            io,
        }
    }
}

/// What follows a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another, at once.
    GoOn,
    /// Nothing, until something arrives or is due.
    Wait,
    /// The worker is done.
    End,
}

/// How reading the mailbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// It is empty.
    All,
    /// There may be more, which the waker does not announce again.
    Some,
    /// A letter said to stop at once.
    Stop,
}

/// Reads letters.
fn read_letters(
    now: Instant,
    mailbox: &Mailbox,
    machine: &mut Machine,
    listeners: &[Option<SocketId>],
    asked: &mut Vec<Sender<Report>>,
    world: &mut World<'_>,
) -> Read {
    for _ in 0..LETTERS_PER_TURN {
        match mailbox.take() {
            None => return Read::All,
            Some(Letter::Stray { listener, train }) => {
                if let Some(&Some(socket)) = listeners.get(listener as usize) {
                    machine.handle_stray(now, listener, socket, *train, world);
                }
            }
            Some(Letter::Packet(packet)) => {
                machine.handle_packet(now, BytesMut::from(packet), world);
            }
            Some(Letter::Resolved { asker, resolution }) => {
                machine.handle_resolved(now, asker, resolution, world);
            }
            Some(Letter::Verdict(verdict)) => machine.handle_verdict(now, verdict, world),
            Some(Letter::Report(asker)) => asked.push(asker),
            Some(Letter::Drain) => machine.drain(now),
            Some(Letter::Stop) => {
                machine.stop(now, world);
                return Read::Stop;
            }
        }
    }
    Read::Some
}
