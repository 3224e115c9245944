//! The graceful end of a worker: GOAWAY, time for tunnels to finish, CONNECTION_CLOSE (RFC 9114 §5.2). The same without
//! the end, for a process that stops to accept for a while.
//!
//! ```text
//!   No ──drain, stop_accepting──► Announced ──settled──► Refusing ──unused or deadline (drain only)──► Done
//!    └◄──────────────────── accept_again ◄─────────────────┘
//! ```
//!
//! A connection that has said GOAWAY goes on refusing what comes on it, whatever follows: its client comes again on
//! another one.

use std::time::{Duration, Instant};

use super::machine::{Machine, Outside};
use crate::error::{Abort, Refusal};
use crate::http::h3;
use crate::transport::carriers::RequestStream;

/// How long the first GOAWAY has to reach clients before requests are refused: generous round trips.
const GOAWAY_SETTLES: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
pub(super) enum Drain {
    No,
    /// GOAWAY that names no stream was sent; the final one follows.
    Announced {
        settle: Instant,
        /// When the worker ends, if it shall.
        deadline: Option<Instant>,
    },
    Refusing {
        deadline: Option<Instant>,
    },
    Done,
}

impl Machine {
    /// Starts a graceful end: no new connections, no new requests, tunnels may finish (RFC 9114 §5.2).
    pub fn drain(&mut self, now: Instant) {
        self.start_drain(now, Some(now + self.limits.drain));
    }

    /// Accepts neither connections nor requests until [`Machine::accept_again`]: clients are told by GOAWAY, and
    /// refused once that has had time to arrive. Tunnels go on, and the worker does not end.
    pub fn stop_accepting(&mut self, now: Instant) {
        self.start_drain(now, None);
    }

    fn start_drain(&mut self, now: Instant, end: Option<Instant>) {
        match &mut self.drain {
            Drain::No => {
                let settle = now + GOAWAY_SETTLES;
                let deadline = end;
                self.drain = Drain::Announced { settle, deadline };
                self.carriers.drain();
                self.carriers.goaway(now, h3::GoAway::Soft);
            }
            Drain::Announced { deadline, .. } | Drain::Refusing { deadline } => {
                *deadline = deadline.or(end);
            }
            Drain::Done => {}
        }
    }

    /// Takes [`Machine::stop_accepting`] back. A graceful end goes on.
    pub fn accept_again(&mut self) {
        match self.drain {
            Drain::Announced { deadline: None, .. } | Drain::Refusing { deadline: None } => {
                self.drain = Drain::No;
                self.carriers.undrain();
            }
            Drain::No | Drain::Announced { .. } | Drain::Refusing { .. } | Drain::Done => {}
        }
    }

    /// Whether the worker accepts nothing new, for a while or for good.
    pub fn is_draining(&self) -> bool {
        !matches!(self.drain, Drain::No)
    }

    /// Whether requests come too late.
    pub(super) fn is_refusing(&self) -> bool {
        match self.drain {
            Drain::No | Drain::Announced { .. } => false,
            Drain::Refusing { .. } | Drain::Done => true,
        }
    }

    /// The refusal of a request that comes too late. Connections refuse most of them by themselves, but not those whose
    /// handshake was under way when the others said GOAWAY: they say it now.
    pub(super) fn refuse_late(
        &mut self,
        now: Instant,
        stream: RequestStream,
    ) -> Result<(), Refusal> {
        let connection = stream.connection();
        self.carriers.goaway_on(now, connection, h3::GoAway::Final);
        Err(Refusal::Draining)
    }

    pub(super) fn progress_drain(&mut self, now: Instant, out: &mut impl Outside) {
        match self.drain {
            Drain::Announced { settle, deadline } if settle <= now => {
                self.carriers.goaway(now, h3::GoAway::Final);
                self.drain = Drain::Refusing { deadline };
                self.progress_drain(now, out);
            }
            Drain::Refusing {
                deadline: Some(deadline),
            } if self.is_unused() || deadline <= now => {
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

    /// Whether nobody waits for anything: there are no tunnels but those that carry connections of ours.
    fn is_unused(&self) -> bool {
        self.tunnels.len() == self.nested.len() && self.fallback.len() == 0
    }

    /// Whether a drain has come to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.drain, Drain::Done)
    }
}
