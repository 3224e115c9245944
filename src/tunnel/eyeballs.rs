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
mod tests;
