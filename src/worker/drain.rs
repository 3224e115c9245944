//! The graceful end of a worker: GOAWAY, time for tunnels to finish, CONNECTION_CLOSE (RFC 9114 §5.2).

use std::time::{Duration, Instant};

use super::machine::{Machine, Outside};
use crate::error::Abort;
use crate::http::h3;

/// How long the first GOAWAY has to reach clients before requests are refused: generous round trips.
const GOAWAY_SETTLES: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
pub(super) enum Drain {
    No,
    /// GOAWAY that names no stream was sent; the final one follows.
    Announced {
        settle: Instant,
        deadline: Instant,
    },
    Refusing {
        deadline: Instant,
    },
    Done,
}

impl Machine {
    /// Starts a graceful end: no new connections, no new requests, tunnels may finish (RFC 9114 §5.2).
    pub fn drain(&mut self, now: Instant) {
        if !matches!(self.drain, Drain::No) {
            return;
        }
        self.drain = Drain::Announced {
            settle: now + GOAWAY_SETTLES,
            deadline: now + self.limits.drain,
        };
        self.carriers.drain();
        self.carriers.goaway(now, h3::GoAway::Soft);
    }

    pub(super) fn progress_drain(&mut self, now: Instant, out: &mut impl Outside) {
        match self.drain {
            Drain::Announced { settle, deadline } if settle <= now => {
                self.carriers.goaway(now, h3::GoAway::Final);
                self.drain = Drain::Refusing { deadline };
                self.progress_drain(now, out);
            }
            Drain::Refusing { deadline } if self.is_unused() || deadline <= now => {
                let left: Vec<_> = self.tunnels.iter().map(|(id, _)| id).collect();
                for tunnel in left {
                    self.abort(now, tunnel, Abort::Drain, out);
                }
                self.stop(now, out);
            }
            Drain::No | Drain::Announced { .. } | Drain::Refusing { .. } | Drain::Done => {}
        }
    }

    /// Closes every connection and tells the peers.
    pub fn stop(&mut self, now: Instant, out: &mut impl Outside) {
        self.drain = Drain::Done;
        self.carriers.close_all(now, out);
    }

    /// Whether there are no tunnels but those that carry connections of ours.
    fn is_unused(&self) -> bool {
        self.tunnels.len() == self.nested.len()
    }

    /// Whether a drain has come to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.drain, Drain::Done)
    }
}
