//! Groups of flows that carry the same kind of load, and where each of them stands.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bauta::net::SocketId;
use bauta::tunnel::TunnelId;

use super::record::Record;
use super::schedule::{Clockwork, Pace};

/// Where the load goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to target.
    Up,
    /// Target to client.
    Down,
    /// To the target and back.
    Echo,
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Echo => "echo",
        }
    }
}

/// Sizes of the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// All the same, in bytes.
    Fixed(usize),
    /// Seven of 64 bytes, four of 576, one of 1200: the usual mix, as far as a tunnel carries it.
    Imix,
}

/// What is due for less than this when a run ends has merely not had its turn.
const GIVEN_UP: Duration = Duration::from_millis(5);

/// Room that a closed loop waits for, in datagrams, unless its window is small.
const TRAIN: u64 = 64;

/// The mix, in the order in which it is sent: large ones apart from each other.
const IMIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1200, 64, 576, 64, 576, 64];

impl Payload {
    /// Size of the `number`th payload.
    fn size(self, number: u64) -> usize {
        match self {
            Self::Fixed(size) => size,
            Self::Imix => IMIX[(number % IMIX.len() as u64) as usize],
        }
    }

    /// Mean size in bytes.
    pub(crate) fn mean_bytes(self) -> f64 {
        match self {
            Self::Fixed(size) => size as f64,
            Self::Imix => IMIX.iter().sum::<usize>() as f64 / IMIX.len() as f64,
        }
    }
}

/// Flows that carry the same kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// Where to.
    pub(crate) direction: Direction,
    /// How fast, all flows together.
    pub(crate) pace: Pace,
    /// Bursts of an open loop: what became due since the last tick leaves at once. Zero is none.
    pub(crate) tick: Duration,
    /// How many, a tunnel or a socket each.
    pub(crate) flows: u32,
    /// How much each time.
    pub(crate) payload: Payload,
    /// Datagrams in a row on one flow before the next has its turn.
    pub(crate) bunch: u32,
}

impl Group {
    /// What the `number`th of `engines` does of it.
    pub(crate) fn share(&self, number: u32, engines: u32) -> Self {
        let flows = self.flows / engines + u32::from(number < self.flows % engines);
        let part = f64::from(flows) / f64::from(self.flows.max(1));
        let pace = match self.pace {
            Pace::Rate(rate) => Pace::Rate(rate * part),
            Pace::Window(window) => Pace::Window(((window as f64 * part) as u64).max(1)),
        };
        Self {
            flows,
            pace,
            ..*self
        }
    }
}

/// How a flow leaves the client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path {
    /// Not at all, yet.
    None,
    Tunnel(TunnelId),
    Plain {
        socket: SocketId,
        peer: SocketAddr,
    },
}

/// One flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) group: usize,
    pub(crate) path: Path,
    /// Where the target sees it come from.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) greeted: bool,
    pub(crate) sent: u64,
    /// Datagrams that arrived or were overtaken.
    settled: u64,
}

impl Flow {
    pub(crate) fn new(group: usize, path: Path) -> Self {
        Self {
            group,
            path,
            peer: None,
            greeted: false,
            sent: 0,
            settled: 0,
        }
    }
}

/// Where a group stands.
#[derive(Debug)]
pub(crate) struct GroupState {
    pub(crate) group: Group,
    pub(crate) record: Record,
    pub(crate) sent: u64,
    /// Number of its first flow.
    first: u32,
    /// The flow that sends next, and how many it has sent in a row.
    turn: (u32, u32),
    clockwork: Option<Clockwork>,
    settled: u64,
    last_arrival: Instant,
}

impl GroupState {
    pub(crate) fn new(group: Group, first: u32) -> Self {
        Self {
            group,
            record: Record::new(),
            sent: 0,
            first,
            turn: (0, 0),
            clockwork: None,
            settled: 0,
            last_arrival: bauta::net::clock::now(),
        }
    }

    /// Starts the schedule. Of a group with fewer flows than there are engines some have none.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.last_arrival = now;
        match self.group.pace {
            Pace::Rate(_) if self.group.flows == 0 => {}
            Pace::Rate(rate) => self.clockwork = Some(Clockwork::new(now, rate, self.group.tick)),
            Pace::Window(_) => {}
        }
    }

    /// How many datagrams may leave now.
    pub(crate) fn allowed(&mut self, now: Instant, stall: Duration) -> u64 {
        if self.group.flows == 0 {
            return 0;
        }
        match (self.group.pace, &self.clockwork) {
            (Pace::Rate(_), Some(clockwork)) => clockwork.due(now),
            (Pace::Rate(_), None) => 0,
            (Pace::Window(window), _) => {
                if self.settled < self.sent && now >= self.last_arrival + stall {
                    self.settled = self.sent;
                    self.last_arrival = now;
                }
                let room = (self.settled + window).saturating_sub(self.sent);
                // Whole trains: a sender that tops up its window by single datagrams measures system calls.
                if room < TRAIN.min(window.div_ceil(4)) {
                    0
                } else {
                    room
                }
            }
        }
    }

    /// Takes the next datagram: its flow, when it was due, and its size.
    pub(crate) fn take(&mut self, now: Instant) -> (u32, Instant, usize) {
        let due = self.clockwork.as_mut().map_or(now, Clockwork::take);
        let (flow, row) = self.turn;
        self.turn = if row + 1 >= self.group.bunch {
            ((flow + 1) % self.group.flows.max(1), 0)
        } else {
            (flow, row + 1)
        };
        let size = self.group.payload.size(self.sent);
        self.sent += 1;
        (self.first + flow, due, size)
    }

    /// Counts what an open loop should have sent since `began` and did not: lost, and late by at least this much.
    pub(crate) fn give_up(&mut self, began: Instant, now: Instant) {
        let Some(clockwork) = &mut self.clockwork else {
            return;
        };
        while clockwork.due(now) > 0 {
            let due = clockwork.take();
            if due >= began && now > due + GIVEN_UP {
                self.record.unsent(now - due);
            }
        }
    }

    /// A datagram of one of its flows arrived: those before it have arrived or are lost.
    pub(crate) fn settle(&mut self, flow: &mut Flow, sequence: u64, now: Instant) {
        self.last_arrival = now;
        let settled = (sequence + 1).min(flow.sent);
        if settled > flow.settled {
            self.settled = (self.settled + settled - flow.settled).min(self.sent);
            flow.settled = settled;
        }
    }

    /// When there is something to do at the latest; `None` without any flow.
    pub(crate) fn next(&self, stall: Duration) -> Option<Instant> {
        let next = || match &self.clockwork {
            Some(clockwork) => clockwork.next(),
            None => self.last_arrival + stall,
        };
        (self.group.flows > 0).then(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(pace: Pace, flows: u32, bunch: u32) -> Group {
        Group {
            direction: Direction::Up,
            pace,
            tick: Duration::ZERO,
            flows,
            payload: Payload::Fixed(100),
            bunch,
        }
    }

    #[test]
    fn shares_add_up() {
        for engines in 1..7 {
            let whole = group(Pace::Rate(1_000.0), 10, 1);
            let shares: Vec<_> = (0..engines).map(|n| whole.share(n, engines)).collect();
            assert_eq!(shares.iter().map(|share| share.flows).sum::<u32>(), 10);
            let rates = shares.iter().map(|share| match share.pace {
                Pace::Rate(rate) => rate,
                Pace::Window(_) => panic!("not a rate"),
            });
            assert!((rates.sum::<f64>() - 1_000.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_share_without_flows_has_nothing_to_do() {
        let now = bauta::net::clock::now();
        let stall = Duration::from_millis(100);
        for pace in [Pace::Rate(200.0), Pace::Window(100)] {
            let mut idle = GroupState::new(group(pace, 1, 1).share(1, 2), 0);
            idle.begin(now);
            assert_eq!(idle.allowed(now + stall, stall), 0);
            assert_eq!(idle.next(stall), None);
        }
    }

    #[test]
    fn flows_take_turns_in_bunches() {
        let mut state = GroupState::new(group(Pace::Window(100), 3, 2), 5);
        let now = bauta::net::clock::now();
        let order: Vec<_> = (0..8).map(|_| state.take(now).0).collect();
        assert_eq!(order, [5, 5, 6, 6, 7, 7, 5, 5]);
    }

    #[test]
    fn a_window_opens_by_arrivals_and_survives_losses() {
        let mut state = GroupState::new(group(Pace::Window(4), 1, 1), 0);
        let mut flow = Flow::new(0, Path::None);
        let now = bauta::net::clock::now();
        let stall = Duration::from_millis(100);
        state.begin(now);
        assert_eq!(state.allowed(now, stall), 4);
        for _ in 0..4 {
            state.take(now);
            flow.sent += 1;
        }
        assert_eq!(state.allowed(now, stall), 0);
        state.settle(&mut flow, 2, now);
        assert_eq!(state.allowed(now, stall), 3, "0 and 1 were overtaken");
        state.settle(&mut flow, 1, now);
        assert_eq!(state.allowed(now, stall), 3, "it was counted before");
        state.settle(&mut flow, 900, now);
        assert_eq!(state.allowed(now, stall), 4, "never more than was sent");
        state.take(now);
        assert_eq!(state.allowed(now + stall, stall), 4, "everything is lost");
    }

    #[test]
    fn the_mix_is_what_it_says() {
        let sizes: Vec<_> = (0..12).map(|n| Payload::Imix.size(n)).collect();
        for (size, count) in [(64, 7), (576, 4), (1200, 1)] {
            assert_eq!(sizes.iter().filter(|s| **s == size).count(), count);
        }
        assert!((Payload::Imix.mean_bytes() - 329.333).abs() < 0.001);
    }
}
