//! What a long run says while it runs.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bauta::net::clock;

use crate::engine::Live;

/// The progress line, on stderr: overwritten on a terminal, one every ten seconds elsewhere.
pub(crate) struct Line {
    wanted: bool,
    terminal: bool,
    last: (Option<Instant>, u64),
}

impl Line {
    /// A line that says nothing unless it is `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            terminal: io::stderr().is_terminal(),
            last: (None, 0),
        }
    }

    /// Shows how far a run is.
    pub(crate) fn show(&mut self, began: Instant, duration: Duration, live: &Live) {
        let now = clock::now();
        let delivered = live.delivered.load(Ordering::Relaxed);
        let due = self.terminal
            || self
                .last
                .0
                .is_none_or(|last| now >= last + Duration::from_secs(10));
        if !due {
            return;
        }
        let since = (now - self.last.0.unwrap_or(began)).as_secs_f64().max(1e-3);
        let rate = delivered.saturating_sub(self.last.1) as f64 / since;
        self.last = (Some(now), delivered);
        self.text(&format!(
            "{:.0} of {} s  {rate:.0} datagrams/s",
            (now - began).as_secs_f64(),
            duration.as_secs()
        ));
    }

    /// Shows something else.
    pub(crate) fn text(&mut self, text: &str) {
        if !self.wanted {
            return;
        }
        let mut out = io::stderr().lock();
        // Progress that cannot be shown is no reason to stop.
        drop(if self.terminal {
            write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        });
    }

    /// Leaves nothing of it on a terminal.
    pub(crate) fn end(&mut self) {
        if self.wanted && self.terminal {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
        }
    }
}
