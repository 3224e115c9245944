//! How often a worker wakes up: at once while little happens, at a bounded rate under load.
//!
//! A wake-up costs several microseconds, whatever it brings. Where datagrams trickle in one by one, waking for each is
//! what they deserve; where they come by tens of thousands per second, a worker that lets them gather for a moment
//! handles the same traffic in longer trains and a fraction of the CPU time. What network cards do with their
//! interrupts, for the same reason.

use std::time::{Duration, Instant};

/// Wake-ups that may follow each other closely before the rate is held.
const BURST: u32 = 32;

/// A rate of wake-ups (the generic cell rate algorithm: one instant is all there is to keep).
#[derive(Clone, Copy, Debug)]
pub(super) struct WakeRate {
    /// Time between two wake-ups at the highest rate; zero is no bound.
    interval: Duration,
    /// When the wake-ups so far would be over, had they come at that rate.
    paid_until: Option<Instant>,
}

impl WakeRate {
    /// At most `per_second` wake-ups; 0 is no bound.
    pub(super) fn new(per_second: u32) -> Self {
        let interval = match per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        };
        Self {
            interval,
            paid_until: None,
        }
    }

    /// The worker has woken up.
    pub(super) fn woke(&mut self, now: Instant) {
        let from = self.paid_until.map_or(now, |paid| paid.max(now));
        self.paid_until = Some(from + self.interval);
    }

    /// Until when a worker that has nothing left to do sleeps, whatever arrives; `None` if it may wake at any time.
    pub(super) fn asleep_until(&self, now: Instant) -> Option<Instant> {
        let until = self.paid_until?.checked_sub(self.interval * BURST)?;
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    #[test]
    fn a_trickle_is_never_held_up() {
        let mut rate = WakeRate::new(10_000);
        let mut now = crate::net::clock::now();
        for _ in 0..1_000 {
            assert_eq!(rate.asleep_until(now), None);
            rate.woke(now);
            now += 101 * MICROSECOND;
        }
    }

    #[test]
    fn a_stream_wakes_at_the_rate_after_a_burst() {
        let mut rate = WakeRate::new(10_000);
        let start = crate::net::clock::now();
        let mut now = start;
        let mut wakes = 0;
        while now < start + Duration::from_millis(100) {
            now += 10 * MICROSECOND;
            if let Some(until) = rate.asleep_until(now) {
                now = until;
            }
            rate.woke(now);
            wakes += 1;
        }
        assert!((1_000..=1_000 + BURST + 1).contains(&wakes), "{wakes}");
        // After a pause there is room for a burst again.
        now += Duration::from_secs(1);
        assert_eq!(rate.asleep_until(now), None);
    }

    #[test]
    fn no_bound_is_no_bound() {
        let mut rate = WakeRate::new(0);
        let now = crate::net::clock::now();
        for _ in 0..1_000 {
            rate.woke(now);
            assert_eq!(rate.asleep_until(now), None);
        }
    }
}
