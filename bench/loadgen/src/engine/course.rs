//! The course of a run as a thread of the generator follows it, whatever its load is made of.
//!
//! ```text
//!   Opening ─► Ready ── Begin ─► Sending ── Measure ─► Sending, recorded ── End ─► Grace ─► Over
//! ```
//!
//! The thread that watches says when to begin, to measure and to end ([`Order`]) and hears how it goes ([`News`]).

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bauta::net::clock;
use bauta::worker::run::App;
use crossbeam::channel::Receiver;
use tokio::sync::mpsc::UnboundedSender;

use super::flow::{Flow, GroupState};
use super::packet::Header;
use super::record::Record;

/// How long after the last datagram stragglers are waited for.
const GRACE: Duration = Duration::from_millis(400);
/// An open loop datagram that leaves later than this after it was due is late.
const LATE: Duration = Duration::from_millis(1);
/// A closed loop without any arrival for this long takes everything under way for lost.
const STALL: Duration = Duration::from_millis(100);
/// Length of a sample.
const SLICE: Duration = Duration::from_secs(1);

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
    /// It cannot go on with these arguments.
    Wrong(String),
}

/// Totals of all engines that the watching thread may look at any time.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Datagrams of the first group delivered.
    pub(crate) delivered: AtomicU64,
    /// Flows that reach their target.
    pub(crate) ready: AtomicU64,
}

/// What an engine gets from the watching thread.
pub(crate) struct Seat {
    /// Which of how many engines it is.
    pub(crate) place: (u32, u32),
    /// Where its flows end, if that is a socket.
    pub(crate) target: UdpSocket,
    pub(crate) orders: Receiver<Order>,
    pub(crate) news: UnboundedSender<News>,
    pub(crate) live: Arc<Live>,
}

/// What makes the load: the app of every thread of the generator.
pub(crate) trait Generator: App + Send + 'static {
    /// What may be the matter when a flow does not reach its other end.
    const UNREACHED: &'static str;

    /// How the run went.
    fn course(&self) -> &Course;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
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

/// Where an engine stands.
pub(crate) struct Course {
    orders: Receiver<Order>,
    news: UnboundedSender<News>,
    live: Arc<Live>,
    /// Never park while sending.
    spin: bool,
    pub(crate) phase: Phase,
    epoch: Instant,
    pub(crate) groups: Vec<GroupState>,
    /// Datagrams of the first group that `live` knows of.
    published: u64,
    /// Whether something happened in this turn.
    pub(crate) active: bool,
    last_turn: Instant,
    measure_began: Option<(Instant, Duration)>,
    effort: Effort,
}

impl Course {
    pub(crate) fn new(
        orders: Receiver<Order>,
        news: UnboundedSender<News>,
        live: Arc<Live>,
        spin: bool,
    ) -> Self {
        let now = clock::now();
        Self {
            orders,
            news,
            live,
            spin,
            phase: Phase::Opening,
            epoch: now,
            groups: Vec::new(),
            published: 0,
            active: false,
            last_turn: now,
            measure_began: None,
            effort: Effort::default(),
        }
    }

    /// What each group did.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.groups.iter().map(|group| &group.record)
    }

    /// What it cost.
    pub(crate) fn effort(&self) -> Effort {
        self.effort
    }

    /// Gives up.
    pub(crate) fn fail(&mut self, news: News) {
        // Nobody listens any more if the run was given up.
        drop(self.news.send(news));
        self.phase = Phase::Over;
    }

    /// One more flow reaches its other end.
    pub(crate) fn reached(&self) {
        self.live.ready.fetch_add(1, Ordering::Relaxed);
    }

    /// All flows do.
    pub(crate) fn ready(&mut self) {
        self.phase = Phase::Ready;
        drop(self.news.send(News::Ready));
    }

    /// Whether what ends now is no surprise.
    pub(crate) fn is_ending(&self) -> bool {
        match self.phase {
            Phase::Grace { .. } | Phase::Over => true,
            Phase::Opening | Phase::Ready | Phase::Sending { .. } => false,
        }
    }

    pub(crate) fn nanoseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Begins a turn. Returns what it is for.
    pub(crate) fn begin_turn(&mut self, now: Instant) -> Phase {
        if self.spin && self.active && self.measure_began.is_some() {
            self.effort.busy += now.saturating_duration_since(self.last_turn);
        }
        self.last_turn = now;
        self.active = false;
        self.take_orders(now);
        match self.phase {
            Phase::Sending { .. } => self.slice(now),
            Phase::Grace { until } if now >= until => {
                self.phase = Phase::Over;
                let records = self.groups.iter_mut();
                records.for_each(|group| group.record.settle());
                // For the last time, so that tunnels are closed.
                return Phase::Grace { until };
            }
            Phase::Grace { .. } | Phase::Opening | Phase::Ready | Phase::Over => {}
        }
        self.phase
    }

    /// How many datagrams of a group may leave now.
    pub(crate) fn allowed(&mut self, group: usize, now: Instant) -> u64 {
        self.groups[group].allowed(now, STALL)
    }

    /// Takes the next datagram of a group: its flow, when it was due, in nanoseconds, and its size.
    pub(crate) fn take(&mut self, group: usize, now: Instant, measured: bool) -> (u32, u64, usize) {
        let group = &mut self.groups[group];
        let (number, due, size) = group.take(now);
        if measured {
            group.record.sent += 1;
            group.record.late += u64::from(now > due + LATE);
        }
        self.active = true;
        (number, self.nanoseconds(due), size)
    }

    /// A datagram of `flow` is at the end of its way.
    pub(crate) fn arrived(&mut self, now: Instant, flow: &mut Flow, header: Header, bytes: usize) {
        let now_ns = self.nanoseconds(now);
        let group = &mut self.groups[flow.group];
        group.settle(flow, header.sequence, now);
        if (self.phase == Phase::Sending { measured: true }) {
            group.record.count(bytes);
        }
        if header.measured {
            group.record.time(now_ns.saturating_sub(header.due_ns));
        }
    }

    /// Ends a turn that sent. Returns whether there is another one right away; `more` is whether there is more to send.
    pub(crate) fn sent(&mut self, more: bool) -> bool {
        if let Some(first) = self.groups.first() {
            let delivered = first.record.delivered;
            let news = delivered - self.published;
            self.live.delivered.fetch_add(news, Ordering::Relaxed);
            self.published = delivered;
        }
        more || self.spin
    }

    /// When there is something to do at the latest; `greeting` is when to greet again.
    pub(crate) fn next_timeout(&self, greeting: Option<Instant>) -> Option<Instant> {
        match self.phase {
            Phase::Opening => greeting,
            Phase::Sending { .. } => {
                let next = self.groups.iter().filter_map(|group| group.next(STALL));
                next.min()
            }
            Phase::Grace { until } => Some(until),
            Phase::Ready | Phase::Over => None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
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
            if !self.spin {
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
