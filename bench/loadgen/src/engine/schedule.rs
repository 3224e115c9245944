//! When the datagrams of a group are due.
//!
//! ```text
//!   open loop    datagram k is due at start + k / rate, whatever happened to the others: a stall shows as lateness
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
pub(super) struct Clockwork {
    start: Instant,
    rate: f64,
    sent: u64,
}

impl Clockwork {
    pub(super) fn new(start: Instant, rate: f64) -> Self {
        Self {
            start,
            rate,
            sent: 0,
        }
    }

    /// How many datagrams are due and not sent.
    pub(super) fn due(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        // The first is due at once.
        let total = (elapsed * self.rate) as u64 + 1;
        total.saturating_sub(self.sent)
    }

    /// Takes the next datagram; the time at which it was due.
    pub(super) fn take(&mut self) -> Instant {
        let due = self.next();
        self.sent += 1;
        due
    }

    /// When the next datagram is due.
    pub(super) fn next(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.sent as f64 / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_leaves_the_schedule_as_it_was() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut clockwork = Clockwork::new(start, 1_000.0);
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
}
