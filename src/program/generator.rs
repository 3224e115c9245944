//! The near end of the demo: one tunnel full of data, another with a slow probe for the round-trip time.
//!
//! Without a fixed rate it sends as much as the path carries: QUIC's congestion control decides on the first hop, and
//! the target's reports bound what is under way end to end, as the acknowledgements of an inner transport would. A
//! report that falls behind what was sent says that datagrams were lost, and the window shrinks.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use hdrhistogram::Histogram;

use super::traffic::Traffic;
use crate::client::RouteId;
use crate::error::Refusal;
use crate::transport::quic::SendOutcome;
use crate::tunnel::TunnelId;
use crate::wire::target::Target;
use crate::worker::run::{App, World};
use crate::worker::{LocalEvent, Machine};

/// Most data datagrams that are under way: some milliseconds at full speed, and less than any buffer on the way.
const WINDOW: u64 = 512;
/// Data datagrams given to the machine in one turn.
const BURST: u64 = 64;
/// Pause between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// How long after the last datagram the generator waits for stragglers.
const GRACE: Duration = Duration::from_millis(300);
/// How long the first tunnel may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Longest round trip that is told apart: a minute.
const ROUND_TRIP_MAX_NS: u64 = 60_000_000_000;
/// Datagrams without a report for this long count as lost, so that a lost report cannot stop the demo.
const REPORT_OVERDUE: Duration = Duration::from_millis(200);

/// What to send.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) target: Target,
    pub(super) size: usize,
    /// Datagrams per second; `None` is as many as the path carries.
    pub(super) rate: Option<u32>,
    pub(super) duration: Duration,
}

/// What the generator tells the thread that watches it.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// Both tunnels are open, data flows.
    Started,
    /// A tunnel was refused, or did not open in time.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Sending { since: Instant, until: Instant },
    Waiting { until: Instant },
    Over,
}

/// The app.
pub(super) struct Generator {
    hop: RouteId,
    load: Load,
    progress: crossbeam::channel::Sender<Progress>,
    phase: Phase,
    deadline: Option<Instant>,
    bulk: Option<TunnelId>,
    echo: Option<TunnelId>,
    opened: usize,
    pub(super) sent: std::sync::Arc<std::sync::atomic::AtomicU64>,
    count: u64,
    /// What the target reported, plus what was written off.
    settled: u64,
    reported: u64,
    last_report: Option<Instant>,
    probes: std::collections::VecDeque<(u64, Instant)>,
    probe_number: u64,
    next_probe: Option<Instant>,
    buffer: BytesMut,
    /// Round-trip times in nanoseconds.
    pub(super) round_trips: Histogram<u64>,
}

impl Generator {
    pub(super) fn new(
        hop: RouteId,
        load: Load,
        progress: crossbeam::channel::Sender<Progress>,
        sent: std::sync::Arc<std::sync::atomic::AtomicU64>,
    ) -> Self {
        Self {
            hop,
            load,
            progress,
            phase: Phase::Opening,
            deadline: None,
            bulk: None,
            echo: None,
            opened: 0,
            sent,
            count: 0,
            settled: 0,
            reported: 0,
            last_report: None,
            probes: Default::default(),
            probe_number: 0,
            next_probe: None,
            buffer: BytesMut::new(),
            round_trips: Histogram::new_with_max(ROUND_TRIP_MAX_NS, 3)
                .expect("three digits are within bounds"),
        }
    }

    fn fail(&mut self, text: String) {
        // Nobody listens any more if the demo gave up.
        drop(self.progress.try_send(Progress::Failed(text)));
        self.phase = Phase::Over;
    }

    fn handle_payload(&mut self, now: Instant, payload: &[u8]) {
        match Traffic::parse(payload) {
            Some(Traffic::Report(received)) => {
                let news = received.saturating_sub(self.reported);
                self.reported += news;
                self.settled = (self.settled + news).min(self.count);
                self.last_report = Some(now);
            }
            Some(Traffic::Probe(number)) => {
                while let Some((probe, sent)) = self.probes.pop_front() {
                    if probe == number {
                        let nanos = now.duration_since(sent).as_nanos();
                        self.round_trips.saturating_record(nanos as u64);
                        break;
                    }
                }
            }
            Some(Traffic::Data(_)) | None => {}
        }
    }

    fn send_data(
        &mut self,
        now: Instant,
        since: Instant,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> bool {
        let Some(bulk) = self.bulk else {
            return false;
        };
        let allowed = match self.load.rate {
            Some(rate) => {
                let due = now.duration_since(since).as_secs_f64() * f64::from(rate);
                (due as u64).saturating_sub(self.count)
            }
            None => {
                let overdue = self
                    .last_report
                    .is_none_or(|last| now > last + REPORT_OVERDUE);
                if overdue && self.settled < self.count {
                    self.settled = self.count;
                    self.last_report = Some(now);
                }
                (self.settled + WINDOW).saturating_sub(self.count)
            }
        };
        let mut left = allowed.min(BURST);
        while left > 0 {
            let data = self.write(Traffic::Data(self.count));
            self.count += 1;
            left -= 1;
            if machine.send_local(now, bulk, data, out) != SendOutcome::Sent {
                break;
            }
        }
        self.sent
            .store(self.count, std::sync::atomic::Ordering::Relaxed);
        allowed > BURST && left == 0
    }

    fn send_probe(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) {
        if self.next_probe.is_some_and(|next| now < next) {
            return;
        }
        if let Some(echo) = self.echo {
            let probe = self.write(Traffic::Probe(self.probe_number));
            self.probes.push_back((self.probe_number, now));
            self.probe_number += 1;
            // A probe that waits is late, not lost.
            machine.send_local(now, echo, probe, out);
        }
        self.next_probe = Some(now + PROBE_EVERY);
    }

    fn write(&mut self, traffic: Traffic) -> bytes::Bytes {
        if self.buffer.capacity() < self.load.size {
            self.buffer = BytesMut::with_capacity(64 * 1024);
        }
        traffic.write(self.load.size, &mut self.buffer);
        self.buffer.split().freeze()
    }
}

impl App for Generator {
    fn handle(&mut self, now: Instant, event: LocalEvent, _: &mut Machine, _: &mut World<'_>) {
        match event {
            LocalEvent::Opened(_) => {
                self.opened += 1;
                if self.opened == 2 {
                    drop(self.progress.try_send(Progress::Started));
                    self.last_report = Some(now);
                    let until = now + self.load.duration;
                    self.phase = Phase::Sending { since: now, until };
                }
            }
            LocalEvent::Payload(_, payload) => self.handle_payload(now, &payload),
            LocalEvent::Refused(_, refused) => {
                self.fail(format!("tunnel refused: {}", refused.refusal));
            }
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
            LocalEvent::Closed(_, _) => self.fail("a tunnel ended early".to_owned()),
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        match self.phase {
            Phase::Opening => {
                let deadline = *self.deadline.get_or_insert(now + OPEN_WITHIN);
                if self.bulk.is_none() {
                    let target = self.load.target.clone();
                    self.bulk = Some(machine.open_local(now, self.hop, target.clone(), out));
                    self.echo = Some(machine.open_local(now, self.hop, target, out));
                } else if now >= deadline {
                    self.fail(Refusal::ConnectTimeout.to_string());
                }
                false
            }
            Phase::Sending { since, until } => {
                if now >= until {
                    self.phase = Phase::Waiting { until: now + GRACE };
                    return false;
                }
                self.send_probe(now, machine, out);
                self.send_data(now, since, machine, out)
            }
            Phase::Waiting { until } => {
                if now >= until {
                    self.phase = Phase::Over;
                }
                false
            }
            Phase::Over => false,
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening => self.deadline,
            Phase::Sending { since, until } => {
                let paced = self.load.rate.map(|rate| {
                    let due = (self.count + 1) as f64 / f64::from(rate);
                    since + Duration::from_secs_f64(due)
                });
                let overdue = self.last_report.map(|last| last + REPORT_OVERDUE);
                [paced, overdue, self.next_probe, Some(until)]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Phase::Waiting { until } => Some(until),
            Phase::Over => None,
        }
    }

    fn is_finished(&self) -> bool {
        self.phase == Phase::Over
    }
}
