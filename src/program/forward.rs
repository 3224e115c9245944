//! What the programs with a local port have in common: relays to go through, one worker, and words for refusals.
//!
//! ```text
//!   arguments ─► Client ─┬─► worker: the program's app, tunnels through the route
//!                        └─► this thread: signals, names, `listening on ADDRESS`
//! ```

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::threads::{StartError, Workers, control_runtime, resolver};
use crate::client::RouteId;
use crate::config::Checked;
use crate::error::Unreachable;
use crate::net::{Driver, Network, Outgoing, SocketId};
use crate::wire::proxy_status::PROXY_STATUS;
use crate::worker::Refused;
use crate::worker::build::{Plan, RouteOptions, hops};
use crate::worker::mailbox::Letter;
use crate::worker::run::{App, World};

/// Most local connections of one program at once, those included that wait for their tunnel.
pub(super) const CONNECTIONS_MAX: usize = 4_096;

/// A program that serves one local port.
pub(super) struct Client {
    /// What its thread is called.
    pub(super) title: &'static str,
    /// The way to the targets.
    pub(super) route: RouteOptions,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What has to happen before it says so.
    pub(super) first: First,
}

/// When a program says that it listens.
pub(super) enum First {
    /// At once: a tunnel would bother the target.
    Nothing,
    /// When its app has opened a tunnel; a refusal ends the program.
    Probe(mpsc::Receiver<Result<(), String>>),
}

impl Client {
    /// Runs `app` on a worker until a signal comes or the worker ends. Prints `listening on ADDRESS` to `out`.
    ///
    /// # Errors
    /// What keeps the program from starting; why the probe was refused; what the worker died of.
    pub(super) fn run<A: App + Send + 'static>(
        self,
        checked: Checked,
        out: &mut dyn Write,
        app: impl Fn(RouteId, &mut Driver) -> io::Result<A> + Send + Sync + 'static,
    ) -> Result<(), StartError> {
        let resolver = resolver(&checked)?;
        let resolves_max = checked.limits.resolves;
        let mut plan = Plan::new(checked, None)?;
        plan.set_hops(hops(self.route)?);
        let mut threads = Workers::start(&mut plan, self.title, None, move |_, hop, driver| {
            app(hop.expect("the arguments name a relay"), driver)
        })?;
        let mut listening = || {
            writeln!(out, "listening on {}", self.address)?;
            out.flush()
        };
        let (_, nobody) = mpsc::channel(1);
        let mut probed = match self.first {
            First::Nothing => {
                listening()?;
                nobody
            }
            First::Probe(probed) => probed,
        };

        control_runtime()?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::spawn(threads.answer(resolver, resolves_max));
            loop {
                tokio::select! {
                    Some(probed) = probed.recv() => match probed {
                        Ok(()) => listening()?,
                        Err(refused) => return Err(io::Error::other(refused).into()),
                    },
                    outcome = threads.outcomes.recv() => {
                        return match outcome {
                            Some(Err(error)) => Err(StartError::Worker(error)),
                            Some(Ok(_)) | None => Ok(()),
                        };
                    }
                    _ = terminate.recv() => threads.tell(|| Letter::Stop),
                    _ = interrupt.recv() => threads.tell(|| Letter::Stop),
                }
            }
        })
    }
}

/// Datagrams of one turn for one local program, while they have one size.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: Vec<u8>,
    segment_size: usize,
}

impl Outbox {
    /// Adds a datagram made of two parts, behind which nothing of another size is kept. Returns whether it is the first
    /// one, and [`Outbox::flush`] wanted at the end of the turn.
    pub(super) fn push(
        &mut self,
        to: (SocketId, SocketAddr),
        header: &[u8],
        payload: &[u8],
        out: &mut World<'_>,
    ) -> bool {
        let len = header.len() + payload.len();
        if len != self.segment_size || len == 0 {
            self.flush(to, out);
        }
        let is_first = self.datagrams.is_empty() && len > 0;
        self.segment_size = len;
        self.datagrams.extend_from_slice(header);
        self.datagrams.extend_from_slice(payload);
        if len == 0 {
            self.send(to, out);
        }
        is_first
    }

    /// Sends what is there.
    pub(super) fn flush(&mut self, to: (SocketId, SocketAddr), out: &mut World<'_>) {
        if !self.datagrams.is_empty() {
            self.send(to, out);
        }
    }

    fn send(&mut self, (socket, peer): (SocketId, SocketAddr), out: &mut World<'_>) {
        let outgoing = Outgoing {
            peer: Some(peer),
            local_ip: None,
            ecn: None,
            segment_size: Some(self.segment_size),
            contents: &self.datagrams,
        };
        out.send(socket, &outgoing);
        self.datagrams.clear();
    }
}

/// One line that says who refused and why.
pub fn explain(refused: &Refused) -> String {
    let Some(response) = &refused.response else {
        let reason = Unreachable(refused.refusal).to_string();
        let attempts = refused.attempts.iter();
        let attempts: Vec<_> = attempts
            .map(|(carrier, failure)| (carrier, Unreachable(failure.refusal).to_string()))
            .collect();
        // With a choice of carriers each may have failed in its own way.
        if attempts.iter().all(|(_, text)| *text == reason) {
            return format!("no tunnel: {reason}");
        }
        let texts: Vec<_> = attempts
            .iter()
            .map(|(carrier, text)| format!("{carrier}: {text}"))
            .collect();
        return format!("no tunnel: {}", texts.join("; "));
    };
    // A chain has a member for each relay, in any number of lines (RFC 9209 section 2).
    let members: Vec<_> = response
        .headers
        .get_all(PROXY_STATUS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let text = format!("tunnel refused by the relay: {}", response.status);
    if members.is_empty() {
        text
    } else {
        format!("{text} ({})", members.join(", "))
    }
}
