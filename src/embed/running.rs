//! The threads behind the handles of users: the workers of one plan, and the control thread that serves them.
//!
//! Whoever holds the last handle lets them go: dropping [`Running`] tells every worker to close its connections and to
//! end, and does not wait for it. The control thread ends when all workers have.

use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use event_listener::Event;
use tokio::runtime::Handle;

use super::handler_guard::is_in_user_code;
use super::host::sessions::SessionsSetup;
use super::host::{Command, Host, HostSender, channel};
use super::lock::Lock;
use super::wait;
use crate::error::{Error, ErrorKind, Side};
use crate::net::clock;
use crate::net::tun::TunError;
use crate::program::threads::{StartError, Workers, control_runtime, resolver};
use crate::worker::build::Plan;
use crate::worker::mailbox::{Address, Letter, PostError};
use crate::worker::run::Report;

/// How long workers have to say what they did.
const REPORTS_WAIT: Duration = Duration::from_secs(1);

/// The running threads of one plan.
pub(super) struct Running {
    senders: Vec<HostSender>,
    peers: Vec<Address>,
    /// The thread of each worker, in the same order.
    threads: Threads,
    addresses: Vec<SocketAddr>,
    control: Handle,
    thread: Lock<Option<JoinHandle<()>>>,
    ended: Arc<Ended>,
}

/// Each slot is filled by the worker itself, when it starts.
type Threads = Arc<[OnceLock<ThreadId>]>;

/// Whether all threads have ended.
#[derive(Debug, Default)]
struct Ended {
    is_true: AtomicBool,
    event: Event,
}

impl Running {
    /// Starts the workers of `plan` and the control thread; returns when all have their sockets. `pin` is the core of
    /// the first worker, if they are pinned. `make` says what the handlers of a worker need,
    /// given how it is reached and where futures of theirs run.
    ///
    /// # Errors
    /// What the system refuses, and name servers that cannot be used.
    pub(super) fn start(
        mut plan: Plan,
        title: &'static str,
        pin: Option<usize>,
        make: impl Fn(&HostSender, &Handle) -> SessionsSetup + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let runtime = control_runtime().map_err(system)?;
        let resolver = resolver(plan.checked()).map_err(|error| not_started(error.into()))?;
        let resolves_max = plan.checked().limits.resolves;
        let peers = plan.peers().to_vec();
        let (senders, receivers): (Vec<_>, Vec<_>) = peers.iter().cloned().map(channel).unzip();
        let addresses = plan.addresses.clone();
        let control = runtime.handle().clone();
        let receivers = Lock::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
        let (hosts, futures) = (senders.clone(), control.clone());
        let threads: Threads = peers.iter().map(|_| OnceLock::new()).collect();
        let slots = Arc::clone(&threads);
        let started = Workers::start(&mut plan, title, pin, move |worker, _, _| {
            let receiver = receivers
                .lock()
                .get_mut(worker as usize)
                .and_then(Option::take);
            let commands = receiver.ok_or_else(|| io::Error::other("a worker started twice"))?;
            slots[worker as usize].get_or_init(|| thread::current().id());
            let setup = make(&hosts[worker as usize], &futures);
            Ok(Host::new(commands, setup))
        });
        let mut workers = match started {
            Ok(workers) => workers,
            Err(error) => {
                abandon(&peers);
                return Err(not_started(error));
            }
        };
        let ended = Arc::new(Ended::default());
        let told = Arc::clone(&ended);
        let serve = move || {
            runtime.block_on(async {
                tokio::spawn(workers.answer(resolver, resolves_max));
                while let Some(outcome) = workers.outcomes.recv().await {
                    if let Err(error) = outcome {
                        tracing::error!(%error, "a worker ended");
                    }
                }
            });
            // Checks of passwords that still run concern nobody any more.
            runtime.shutdown_background();
            told.is_true.store(true, Ordering::Release);
            told.event.notify(usize::MAX);
        };
        let spawned = thread::Builder::new()
            .name(format!("{title}-control"))
            .spawn(serve);
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                abandon(&peers);
                return Err(system(error));
            }
        };
        Ok(Self {
            senders,
            peers,
            threads,
            addresses,
            control,
            thread: Lock::new(Some(thread)),
            ended,
        })
    }

    /// How to reach each worker, in order; at least one.
    pub(super) fn senders(&self) -> &[HostSender] {
        &self.senders
    }

    /// The addresses that are listened on, ports filled in.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The runtime of the control thread, for the asynchronous functions of users.
    pub(super) const fn control(&self) -> &Handle {
        &self.control
    }

    /// What each worker did so far. Blocks for a turn of every worker, for [`REPORTS_WAIT`] at most: who says nothing
    /// in that time is left out. So is the worker on whose thread this is called, which cannot wait for itself.
    pub(super) fn reports(&self) -> Vec<Report> {
        let until = clock::now() + REPORTS_WAIT;
        let here = thread::current().id();
        let (sender, receiver) = crossbeam::channel::bounded(self.peers.len());
        for (peer, thread) in self.peers.iter().zip(&*self.threads) {
            if thread.get() != Some(&here) {
                let letter = Letter::Report(sender.clone());
                post(peer, letter, || clock::now() < until);
            }
        }
        drop(sender);
        iter::from_fn(|| receiver.recv_deadline(until).ok()).collect()
    }

    /// Tells every worker whether to accept what is new.
    pub(super) fn set_accepting(&self, accepting: bool) {
        for sender in &self.senders {
            sender.send(Command::SetAccepting(accepting));
        }
    }

    /// Tells every worker to end when its tunnels have, and does not wait.
    pub(super) fn drain(&self) {
        for sender in &self.senders {
            sender.send(Command::Drain);
        }
    }

    /// Tells every worker to end, and does not wait.
    pub(super) fn stop(&self) {
        for sender in &self.senders {
            sender.send(Command::Stop);
        }
    }

    /// Ends all threads and waits for it. On one of these threads itself it does not wait.
    pub(super) fn stop_and_join(&self) {
        self.stop();
        self.join();
    }

    /// Tells every worker to end after `grace`, and does not wait.
    pub(super) fn stop_after(&self, grace: Duration) {
        let senders = self.senders.clone();
        // The runtime goes with the last worker, and this with it.
        drop(self.control.spawn(async move {
            tokio::time::sleep(grace).await;
            for sender in senders {
                sender.send(Command::Stop);
            }
        }));
    }

    /// Waits until all threads have ended.
    pub(super) async fn ended(&self) {
        let ended = &*self.ended;
        let is_true = || ended.is_true.load(Ordering::Acquire).then_some(());
        wait::until(&ended.event, is_true).await;
    }

    /// Waits for the same on a plain thread; on one of these threads it does not wait.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && !self.is_own_thread()
        {
            // It ends in order even when a worker did not.
            drop(thread.join());
        }
    }

    /// The control thread, for those who want to see its end.
    #[cfg(test)]
    pub(super) fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.thread.lock().take()
    }

    fn is_own_thread(&self) -> bool {
        is_in_user_code()
            || Handle::try_current().is_ok_and(|current| current.id() == self.control.id())
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("workers", &self.peers.len())
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Posts a letter, again and again while the mailbox is full and `patient` says so.
fn post(peer: &Address, mut letter: Letter, patient: impl Fn() -> bool) {
    while let Err(PostError::Full(returned)) = peer.post(letter) {
        if !patient() {
            return;
        }
        letter = returned;
        thread::yield_now();
    }
}

/// Ends the workers that did start, when nobody will have work for them.
fn abandon(peers: &[Address]) {
    for peer in peers {
        post(peer, Letter::Stop, || true);
    }
}

fn system(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, Side::Local).with_source(error)
}

/// What kept threads from starting, or an interface from being there.
pub(super) fn not_started(error: StartError) -> Error {
    let kind = match &error {
        StartError::Build(_) | StartError::Resolver(_) => ErrorKind::Configuration,
        StartError::Tun(TunError::Name { .. } | TunError::Mtu { .. }) => ErrorKind::Configuration,
        StartError::Worker(_) | StartError::System(_) => ErrorKind::Io,
        StartError::Tun(_) | StartError::Link(_) => ErrorKind::Io,
    };
    Error::new(kind, Side::Local).with_source(error)
}
