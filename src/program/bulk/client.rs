//! The near end of bulk streams: an app that fills its tunnels and empties them.
//!
//! All tunnels open first, so that no stream has a head start; then every stream takes what its tunnel has room for.
//! Streams of a number of bytes end by themselves; others go on until [`Control::stop`], and what is under way then
//! still arrives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::Sender;
use rustc_hash::FxHashMap;

use super::{Direction, Head, Pattern, Tallies};
use crate::client::{Hop, RouteId, TcpForm};
use crate::tunnel::TunnelId;
use crate::wire::target::Target;
use crate::worker::run::{App, World};
use crate::worker::{LocalEvent, LocalRead, Machine};

/// Tunnels that are being opened at the same time.
const OPENING_MAX: usize = 64;
/// How long all tunnels together may take to open, and what is under way to arrive.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
const END_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that a stream moves in one direction before others have their turn.
const BURST_BYTES: u64 = 1 << 20;

/// What to move.
#[derive(Clone, Debug)]
pub struct Load {
    /// A [`super::Target`].
    pub target: Target,
    /// How tunnels are asked for; as the route says if `None`.
    pub form: Option<TcpForm>,
    /// Where the bytes go.
    pub direction: Direction,
    /// How many streams, each on a tunnel of its own.
    pub streams: u32,
    /// Bytes of each stream and direction; 0 until stopped.
    pub bytes: u64,
}

/// What the app tells the thread that watches it.
#[derive(Clone, Debug)]
pub enum Progress {
    /// All tunnels are open, bytes flow.
    Started,
    /// It cannot go on.
    Failed(String),
    /// Every stream has ended in order.
    Finished,
}

/// What the thread that watches the app wants of it; wake its worker after a change.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
}

impl Control {
    /// Sends no more, and ends when everything has arrived.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Flowing,
    Ending { until: Instant },
    Over,
}

#[derive(Debug)]
struct Stream {
    tunnel: TunnelId,
    sent: u64,
    received: u64,
    /// Our direction has ended.
    finished: bool,
    /// It waits in [`Streams::resume`].
    queued: bool,
}

/// The app.
pub struct Streams {
    /// The relays of each connection, until the machine knows them.
    ways: Vec<Vec<Hop>>,
    routes: Vec<RouteId>,
    load: Load,
    tallies: Arc<Tallies>,
    control: Arc<Control>,
    progress: Sender<Progress>,
    pattern: Pattern,
    phase: Phase,
    deadline: Option<Instant>,
    streams: Vec<Stream>,
    by_tunnel: FxHashMap<TunnelId, usize>,
    opened: usize,
    closed: usize,
    /// Streams that gave way to others.
    resume: VecDeque<usize>,
}

impl Streams {
    /// Streams over connections that share nothing, the relays of each given in the order of travel. `tallies` has room
    /// for all streams.
    pub fn new(
        ways: &[Vec<Hop>],
        load: Load,
        tallies: Arc<Tallies>,
        control: Arc<Control>,
        progress: Sender<Progress>,
    ) -> Self {
        Self {
            ways: ways.to_vec(),
            routes: Vec::new(),
            load,
            tallies,
            control,
            progress,
            pattern: Pattern::default(),
            phase: Phase::Opening,
            deadline: None,
            streams: Vec::new(),
            by_tunnel: FxHashMap::default(),
            opened: 0,
            closed: 0,
            resume: VecDeque::new(),
        }
    }

    fn say(&self, progress: Progress) {
        // Nobody listens any more if the run was given up.
        drop(self.progress.try_send(progress));
    }

    fn fail(&mut self, text: String) {
        self.say(Progress::Failed(text));
        self.phase = Phase::Over;
    }

    /// Opens what is left to open.
    fn open(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) {
        for hops in self.ways.drain(..) {
            self.routes.push(machine.add_route(hops));
        }
        let deadline = *self.deadline.get_or_insert(now + OPEN_WITHIN);
        while self.streams.len() < self.load.streams as usize
            && self.streams.len() < self.opened + OPENING_MAX
        {
            let number = self.streams.len();
            let route = self.routes[number % self.routes.len()];
            let target = self.load.target.clone();
            let tunnel = machine.open_local_tcp(now, route, target, self.load.form, out);
            self.by_tunnel.insert(tunnel, number);
            self.streams.push(Stream {
                tunnel,
                sent: 0,
                received: 0,
                finished: false,
                queued: false,
            });
        }
        if now >= deadline {
            let within = OPEN_WITHIN.as_secs();
            let (opened, all) = (self.opened, self.load.streams);
            self.fail(format!(
                "only {opened} of {all} tunnels opened within {within} s"
            ));
        }
    }

    fn start(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) {
        self.phase = Phase::Flowing;
        self.say(Progress::Started);
        for number in 0..self.streams.len() {
            let head = Head {
                direction: self.load.direction,
                stream: number as u32,
                bytes: self.load.bytes,
            };
            let head = Bytes::copy_from_slice(&head.to_bytes());
            machine.write_local(now, self.streams[number].tunnel, head, out);
            self.write(now, number, machine, out);
        }
    }

    /// Bytes that a stream still has to send, if it knows.
    fn left(&self, number: usize) -> Option<u64> {
        match (self.load.direction.is_up(), self.load.bytes) {
            (true, 0) if self.phase == Phase::Flowing => None,
            (true, 0) => Some(0),
            (true, bytes) => Some(bytes - self.streams[number].sent),
            (false, _) => Some(0),
        }
    }

    /// Gives a tunnel what it has room for, and the end behind the last byte.
    fn write(&mut self, now: Instant, number: usize, machine: &mut Machine, out: &mut World<'_>) {
        let tunnel = self.streams[number].tunnel;
        let mut burst = 0;
        while !self.streams[number].finished {
            let left = self.left(number);
            if left == Some(0) {
                // A target that sends until we end is not ended before its time.
                if self.load.bytes > 0 || self.phase != Phase::Flowing {
                    self.streams[number].finished = true;
                    machine.finish_local(now, tunnel, out);
                }
                return;
            }
            if burst >= BURST_BYTES {
                return self.resume_later(number);
            }
            let room = machine.local_room(tunnel);
            if room == 0 {
                return;
            }
            let left = left.and_then(|left| usize::try_from(left).ok());
            let stream = &mut self.streams[number];
            let piece = self.pattern.at(stream.sent, room.min(left.unwrap_or(room)));
            let len = piece.len() as u64;
            stream.sent += len;
            burst += len;
            let tally = &self.tallies.streams[number];
            tally.up_sent.fetch_add(len, Ordering::Relaxed);
            machine.write_local(now, tunnel, piece, out);
        }
    }

    /// Takes what a tunnel has.
    fn read(&mut self, now: Instant, number: usize, machine: &mut Machine, out: &mut World<'_>) {
        let mut burst = 0;
        loop {
            if burst >= BURST_BYTES {
                return self.resume_later(number);
            }
            let stream = &mut self.streams[number];
            match machine.read_local(now, stream.tunnel, BURST_BYTES as usize, out) {
                LocalRead::Data(data) => {
                    if !self.pattern.is_at(stream.received, &data) {
                        self.tallies.wrong.fetch_add(1, Ordering::Relaxed);
                    }
                    let len = data.len() as u64;
                    stream.received += len;
                    burst += len;
                    let tally = &self.tallies.streams[number];
                    tally.down_received.fetch_add(len, Ordering::Relaxed);
                }
                LocalRead::Blocked | LocalRead::End => return,
            }
        }
    }

    fn resume_later(&mut self, number: usize) {
        let stream = &mut self.streams[number];
        if !stream.queued {
            stream.queued = true;
            self.resume.push_back(number);
        }
    }

    /// A tunnel is over, which is as it should be once both directions have ended.
    fn handle_closed(&mut self, number: usize) {
        let stream = &self.streams[number];
        let is_whole = !self.load.direction.is_down()
            || self.load.bytes == 0
            || stream.received == self.load.bytes;
        if !stream.finished || !is_whole {
            let (sent, received) = (stream.sent, stream.received);
            return self.fail(format!(
                "the tunnel of stream {number} ended early, after {sent} bytes up and {received} down"
            ));
        }
        self.closed += 1;
        if self.closed == self.streams.len() {
            self.say(Progress::Finished);
            self.phase = Phase::Over;
        }
    }
}

impl App for Streams {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let Some(&number) = self.by_tunnel.get(&event.tunnel()) else {
            return;
        };
        match event {
            LocalEvent::Opened(_) => {
                self.opened += 1;
                if self.opened == self.load.streams as usize {
                    self.start(now, machine, out);
                }
            }
            LocalEvent::Refused(_, refused) => {
                self.fail(format!("tunnel refused: {}", refused.refusal));
            }
            LocalEvent::Readable(_) => self.read(now, number, machine, out),
            LocalEvent::Writable(_) => self.write(now, number, machine, out),
            LocalEvent::Closed(_, _) => self.handle_closed(number),
            LocalEvent::Payload(..)
            | LocalEvent::Context(..)
            | LocalEvent::Capsule(..)
            | LocalEvent::Ip(..) => {}
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        match self.phase {
            Phase::Opening => self.open(now, machine, out),
            Phase::Flowing if self.control.is_stopped() => {
                let until = now + END_WITHIN;
                self.phase = Phase::Ending { until };
                self.deadline = Some(until);
                for number in 0..self.streams.len() {
                    self.write(now, number, machine, out);
                }
            }
            Phase::Ending { until } if now >= until => {
                let (closed, all) = (self.closed, self.streams.len());
                let within = END_WITHIN.as_secs();
                self.fail(format!(
                    "only {closed} of {all} streams ended within {within} s"
                ));
            }
            Phase::Flowing | Phase::Ending { .. } | Phase::Over => {}
        }
        for number in std::mem::take(&mut self.resume) {
            self.streams[number].queued = false;
            self.write(now, number, machine, out);
            self.read(now, number, machine, out);
        }
        !self.resume.is_empty()
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening | Phase::Ending { .. } => self.deadline,
            Phase::Flowing | Phase::Over => None,
        }
    }

    fn is_finished(&self) -> bool {
        self.phase == Phase::Over
    }
}
