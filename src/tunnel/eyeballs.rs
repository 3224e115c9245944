//! Which address of a target to try when (RFC 8305): families take turns, and the next address starts when the one
//! before failed or was silent for a while.
//!
//! ```text
//!   addresses ─► start ─► attempt ─┬─ connected ─► the winner; the others are closed by the caller
//!                  ▲               ├─ failed ────► the next one starts at once
//!                  └─ 250 ms ──────┘
//! ```
//!
//! Opens nothing itself: the caller does, and names its attempts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long an address may be silent before the next one is tried as well (RFC 8305 §5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The addresses of one target, and the attempts `A` under way.
#[derive(Debug)]
pub struct Eyeballs<A> {
    untried: VecDeque<SocketAddr>,
    attempts: Vec<A>,
    /// When the next address may start although an attempt is under way.
    next: Option<Instant>,
}

impl<A: Copy + PartialEq> Eyeballs<A> {
    /// All addresses in the order of preference; the families are interleaved, the first one's first (RFC 8305 §4).
    pub fn new(addresses: &[SocketAddr]) -> Self {
        let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
        let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = addresses
            .iter()
            .partition(|address| address.is_ipv6() == first_is_v6);
        let mut untried = VecDeque::with_capacity(addresses.len());
        while let Some(address) = first.pop_front() {
            untried.push_back(address);
            untried.extend(second.pop_front());
        }
        untried.extend(second);
        Self {
            untried,
            attempts: Vec::new(),
            next: None,
        }
    }

    /// The address to try now, if any is due. Tell of the attempt with [`Eyeballs::started`]; one that failed at once
    /// needs no word: ask again.
    pub fn start(&mut self, now: Instant) -> Option<SocketAddr> {
        if !self.attempts.is_empty() && self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.untried.pop_front()
    }

    /// An attempt is under way.
    pub fn started(&mut self, now: Instant, attempt: A) {
        self.attempts.push(attempt);
        self.next = Some(now + ATTEMPT_DELAY);
    }

    /// An attempt came to nothing: the next address may start at once.
    pub fn failed(&mut self, attempt: A) {
        self.attempts.retain(|other| *other != attempt);
        self.next = None;
    }

    /// Whether no attempt is under way and no address is left.
    pub fn is_exhausted(&self) -> bool {
        self.attempts.is_empty() && self.untried.is_empty()
    }

    /// When [`Eyeballs::start`] has an address without anything happening before.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next.filter(|_| !self.untried.is_empty())
    }

    /// The attempts under way.
    pub fn attempts(&self) -> &[A] {
        &self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let all = addresses(&[
            "192.0.2.1:1",
            "192.0.2.2:1",
            "192.0.2.3:1",
            "[2001:db8::1]:1",
        ]);
        let mut eyeballs = Eyeballs::<u8>::new(&all);
        let now = Instant::now();
        let order: Vec<_> = std::iter::from_fn(|| eyeballs.start(now)).collect();
        assert_eq!(order, [all[0], all[3], all[1], all[2]]);
        assert!(eyeballs.is_exhausted());
        assert!(Eyeballs::<u8>::new(&[]).is_exhausted());
    }

    // spec: ctcp-4.1-e
    #[test]
    fn the_next_starts_after_silence_or_a_failure() {
        let all = addresses(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]);
        let mut eyeballs = Eyeballs::new(&all);
        let now = Instant::now();
        assert_eq!(eyeballs.start(now), Some(all[0]));
        eyeballs.started(now, 'a');
        assert_eq!(eyeballs.start(now), None);
        let later = now + ATTEMPT_DELAY;
        assert_eq!(eyeballs.next_timeout(), Some(later));
        assert_eq!(eyeballs.start(later), Some(all[1]));
        eyeballs.started(later, 'b');
        assert_eq!(eyeballs.start(later), None);
        eyeballs.failed('a');
        assert_eq!(eyeballs.start(later), Some(all[2]));
        eyeballs.started(later, 'c');
        assert_eq!(eyeballs.next_timeout(), None);
        assert_eq!(eyeballs.attempts(), ['b', 'c']);
        eyeballs.failed('b');
        assert!(!eyeballs.is_exhausted());
        eyeballs.failed('c');
        assert!(eyeballs.is_exhausted());
    }
}
