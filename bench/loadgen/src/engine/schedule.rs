//! When the datagrams of a group are due.
//!
//! ```text
//!   open loop    datagram k is due at start + k / rate, whatever happened to the others: a stall shows as lateness;
//!                with a tick, at the first tick from then on: senders with timers send in bursts
//!   closed loop  a datagram is due as soon as fewer than `window` are under way
//! ```

use std::time::{Duration, Instant};

/// How a group is paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Datagrams per second of the whole group, by the clock (open loop).
    Rate(f64),
    /// Datagrams of the whole group that are under way (closed loop).
    Window(u64),
}

/// The schedule of an open loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clockwork {
    start: Instant,
    rate: f64,
    /// In seconds; zero is none.
    tick: f64,
    sent: u64,
}

impl Clockwork {
    pub(crate) fn new(start: Instant, rate: f64, tick: Duration) -> Self {
        Self {
            start,
            rate,
            tick: tick.as_secs_f64(),
            sent: 0,
        }
    }

    /// How many datagrams are due and not sent.
    pub(crate) fn due(&self, now: Instant) -> u64 {
        let mut elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        if self.tick > 0.0 {
            elapsed = (elapsed / self.tick).floor() * self.tick;
        }
        // The first is due at once.
        let total = (elapsed * self.rate) as u64 + 1;
        total.saturating_sub(self.sent)
    }

    /// Takes the next datagram; the time at which it was due.
    pub(crate) fn take(&mut self) -> Instant {
        let due = self.next();
        self.sent += 1;
        due
    }

    /// When the next datagram is due.
    pub(crate) fn next(&self) -> Instant {
        let mut due = self.sent as f64 / self.rate;
        if self.tick > 0.0 {
            due = (due / self.tick).ceil() * self.tick;
        }
        self.start + Duration::from_secs_f64(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_leaves_the_schedule_as_it_was() {
        let start = bauta::net::clock::now();
        let mut clockwork = Clockwork::new(start, 1_000.0, Duration::ZERO);
        assert_eq!(clockwork.due(start), 1);
        assert_eq!(clockwork.take(), start);
        assert_eq!(clockwork.due(start), 0);
        let late = start + Duration::from_micros(100_500);
        assert_eq!(clockwork.due(late), 100);
        for number in 1..=100 {
            assert_eq!(clockwork.take(), start + Duration::from_millis(number));
        }
        assert_eq!(clockwork.due(late), 0);
        assert_eq!(clockwork.next(), start + Duration::from_millis(101));
    }

    #[test]
    fn ticks_make_bursts() {
        let start = bauta::net::clock::now();
        let mut clockwork = Clockwork::new(start, 1_000.0, Duration::from_millis(10));
        assert_eq!(clockwork.due(start), 1);
        clockwork.take();
        assert_eq!(clockwork.next(), start + Duration::from_millis(10));
        assert_eq!(clockwork.due(start + Duration::from_micros(9_900)), 0);
        let tick = start + Duration::from_micros(10_001);
        assert_eq!(clockwork.due(tick), 10);
        for _ in 0..10 {
            assert_eq!(clockwork.take(), start + Duration::from_millis(10));
        }
        assert_eq!(clockwork.next(), start + Duration::from_millis(20));
    }
}
