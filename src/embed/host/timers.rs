//! Deadlines of those who wait: workers wake them, so that no runtime of the user's is needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use event_listener::Event;

/// Below this many entries nobody looks for those that were given up.
const PRUNE_MIN: usize = 64;

/// Events by the time at which they are due. An event that nobody else holds any more is forgotten.
#[derive(Debug)]
pub(in crate::embed) struct Timers {
    due: BTreeMap<(Instant, u64), Weak<Event>>,
    next: u64,
    prune_at: usize,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            next: 0,
            prune_at: PRUNE_MIN,
        }
    }
}

impl Timers {
    /// Notifies `event` at `at`, if anybody still holds it then.
    pub(in crate::embed) fn insert(&mut self, at: Instant, event: &Arc<Event>) {
        if self.due.len() >= self.prune_at {
            self.due.retain(|_, event| event.strong_count() > 0);
            self.prune_at = (self.due.len() * 2).max(PRUNE_MIN);
        }
        self.due.insert((at, self.next), Arc::downgrade(event));
        self.next += 1;
    }

    /// Notifies what is due.
    pub(in crate::embed) fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            if let Some(event) = entry.remove().upgrade() {
                event.notify(usize::MAX);
            }
        }
    }

    /// When something is due next.
    pub(in crate::embed) fn next_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use event_listener::Listener;

    use super::*;
    use crate::net::clock;

    #[test]
    fn notifies_in_time_and_forgets_those_who_left() {
        let start = clock::now();
        let mut timers = Timers::default();
        let event = Arc::new(Event::new());
        timers.insert(start + Duration::from_secs(2), &event);
        timers.insert(start + Duration::from_secs(1), &Arc::new(Event::new()));
        assert_eq!(timers.next_timeout(), Some(start + Duration::from_secs(1)));
        let mut listener = event.listen();
        timers.expire(start + Duration::from_secs(1));
        assert!(listener.wait_timeout(Duration::ZERO).is_none());
        listener = event.listen();
        timers.expire(start + Duration::from_secs(2));
        assert!(listener.wait_timeout(Duration::ZERO).is_some());
        assert_eq!(timers.next_timeout(), None);
        for _ in 0..10 * PRUNE_MIN {
            timers.insert(start + Duration::from_secs(9), &Arc::new(Event::new()));
        }
        assert!(timers.due.len() <= PRUNE_MIN);
    }
}
