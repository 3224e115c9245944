//! Worker threads and what they need from the control thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam::channel::Receiver;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use crate::client::RouteId;
use crate::config::{Checked, Io};
use crate::net::Driver;
use crate::net::link::LinkError;
use crate::net::resolve::{Resolver, SetupError};
use crate::net::runtime::{self, IoChoice, Selected};
use crate::net::tun::TunError;
use crate::policy::auth::Job;
use crate::policy::resolve::Resolution;
use crate::worker::Resolve;
use crate::worker::build::{BuildError, Plan};
use crate::worker::mailbox::{Address, Letter, PostError};
use crate::worker::run::{App, Ask, Question, Report};

/// Passwords checked at the same time: each takes a core for tens of milliseconds, and the cores belong to the workers.
const CHECKS_AT_ONCE: usize = 1;

/// Why a program does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Certificates, addresses, rules.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The resolver cannot be set up.
    #[error("dns: {0}")]
    Resolver(#[from] SetupError),
    /// A worker did not start; the text names the reason.
    #[error("worker: {0}")]
    Worker(#[source] io::Error),
    /// There is no TUN interface to be had.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Addresses, routes and what else belongs to an interface.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The system refuses something else.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The outcome of a worker: what it did, and its app.
pub type Outcome<A> = io::Result<(Report, A)>;

/// The running workers of one plan.
pub struct Workers<A> {
    /// The mailboxes of the workers.
    pub peers: Vec<Address>,
    /// One outcome per worker, as they end.
    pub outcomes: mpsc::UnboundedReceiver<Outcome<A>>,
    /// What watches the sockets, the same for all workers.
    pub io: Selected,
    questions: mpsc::Receiver<Question>,
}

impl<A: App + Send + 'static> Workers<A> {
    /// Starts a thread per worker and waits until each has its sockets. `first_core` is where pinning starts, `None`
    /// for no pinning. A worker that panics has failed like any other.
    pub fn start<F>(
        plan: &mut Plan,
        title: &str,
        first_core: Option<usize>,
        app: F,
    ) -> Result<Self, StartError>
    where
        F: Fn(u32, Option<RouteId>, &mut Driver) -> io::Result<A> + Send + Sync + 'static,
    {
        let checked = plan.checked();
        let workers = checked.workers.get() as u32;
        let io = io_choice(checked.io);
        let (asker, questions) = mpsc::channel(
            (checked.limits.resolves + checked.limits.password_checks) * workers as usize,
        );
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let (ready, started) = crossbeam::channel::bounded(workers as usize);
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let app = Arc::new(app);
        for worker in 0..workers {
            let seed = plan.seed(worker);
            let core = first_core
                .filter(|_| !cores.is_empty())
                .map(|first| cores[(first + worker as usize) % cores.len()]);
            let (app, asker) = (Arc::clone(&app), asker.clone());
            let (outcome, ready) = (outcome.clone(), ready.clone());
            let main = move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                let started = ready.clone();
                let run = move || {
                    runtime::run(io, move |selected| async move {
                        let worker = seed.grow(|hop, driver| app(worker, hop, driver), asker)?;
                        // The starter may have given up on another worker.
                        drop(started.send(Ok(selected.clone())));
                        worker.run(selected).await
                    })
                };
                // Nothing of a worker is looked at again after its end.
                let ended = match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(ended)) => ended,
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(io::Error::other("it panicked")),
                };
                if let Err(error) = &ended {
                    drop(ready.send(Err(io::Error::new(error.kind(), error.to_string()))));
                }
                // Nobody waits for a program that ends.
                drop(outcome.send(ended));
            };
            thread::Builder::new()
                .name(format!("{title}-{worker}"))
                .spawn(main)?;
        }
        let io = wait(&started, workers)?;
        Ok(Self {
            peers: plan.peers().to_vec(),
            outcomes,
            io,
            questions,
        })
    }

    /// Tells every worker that still runs. A full mailbox cannot swallow the end of the program: it is tried until it
    /// fits.
    pub fn tell(&self, letter: impl Fn() -> Letter) {
        for peer in &self.peers {
            let mut letter = letter();
            while let Err(PostError::Full(returned)) = peer.post(letter) {
                letter = returned;
                thread::yield_now();
            }
        }
    }

    /// What each worker did so far.
    pub fn reports(&self) -> Vec<Report> {
        let (sender, receiver) = crossbeam::channel::bounded(self.peers.len());
        self.tell(|| Letter::Report(sender.clone()));
        drop(sender);
        receiver.iter().collect()
    }

    /// Answers questions for names until the workers are gone.
    pub fn answer(
        &mut self,
        resolver: Resolver,
        resolves_max: usize,
    ) -> impl Future<Output = ()> + use<A> {
        let lookup = move |name: Box<str>| {
            let resolver = resolver.clone();
            async move { resolver.lookup(&name).await }
        };
        self.answer_by(lookup, resolves_max)
    }

    /// The same with the answers of `lookup`.
    pub fn answer_by<L, F>(
        &mut self,
        lookup: L,
        resolves_max: usize,
    ) -> impl Future<Output = ()> + use<A, L, F>
    where
        L: Fn(Box<str>) -> F,
        F: Future<Output = Resolution> + Send + 'static,
    {
        let (_, nobody) = mpsc::channel(1);
        let mut questions = std::mem::replace(&mut self.questions, nobody);
        let peers = self.peers.clone();
        let permits = Arc::new(Semaphore::new(resolves_max));
        let checks = Arc::new(Semaphore::new(CHECKS_AT_ONCE));
        async move {
            while let Some(question) = questions.recv().await {
                let permit = match &question.ask {
                    Ask::Addresses { .. } => match Arc::clone(&permits).acquire_owned().await {
                        Ok(permit) => Some(permit),
                        Err(_) => return,
                    },
                    // Slow name servers do not keep anybody from showing who they are.
                    Ask::Verdict(_) => None,
                };
                let checks = Arc::clone(&checks);
                let peer = peers.get(question.worker as usize).cloned();
                let ask = match question.ask {
                    Ask::Addresses { asker, name } => Asked::Addresses(asker, lookup(name)),
                    Ask::Verdict(job) => Asked::Verdict(job),
                };
                tokio::spawn(async move {
                    let letter = match ask {
                        Asked::Addresses(asker, found) => {
                            let resolution = found.await;
                            drop(permit);
                            Letter::Resolved { asker, resolution }
                        }
                        Asked::Verdict(job) => {
                            let Ok(_turn) = checks.acquire_owned().await else {
                                return;
                            };
                            // A check that panics leaves its requests to their timeout.
                            let Ok(verdict) = tokio::task::spawn_blocking(|| job.run()).await
                            else {
                                return;
                            };
                            Letter::Verdict(verdict)
                        }
                    };
                    // A worker that takes no letters answers its tunnel when the time for opening is over.
                    drop(peer.map(|peer| peer.post(letter)));
                });
            }
        }
    }
}

/// A question whose answer is on its way.
enum Asked<F> {
    Addresses(Resolve, F),
    Verdict(Job),
}

fn wait(started: &Receiver<io::Result<Selected>>, workers: u32) -> Result<Selected, StartError> {
    let mut selected = None;
    for _ in 0..workers {
        match started.recv() {
            Ok(Ok(io)) => selected = Some(io),
            Ok(Err(error)) => return Err(StartError::Worker(error)),
            Err(_) => break,
        }
    }
    selected.ok_or_else(|| StartError::Worker(io::Error::other("it ended at once")))
}

/// The driver that a configuration asks for.
pub fn io_choice(io: Io) -> IoChoice {
    match io {
        Io::Auto => IoChoice::Auto,
        Io::Uring => IoChoice::Uring,
        Io::Epoll => IoChoice::Epoll,
    }
}

/// The resolver that a configuration asks for.
pub fn resolver(checked: &Checked) -> Result<Resolver, SetupError> {
    let timeout = checked.timeouts.resolve;
    match &*checked.dns.servers {
        [] => Resolver::from_system(timeout),
        servers => Resolver::with_name_servers(servers, timeout),
    }
}

/// The runtime of the control thread.
pub fn control_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config::{self, Environment};
    use crate::worker::run::NoApp;

    #[test]
    fn a_worker_that_panics_is_an_error() {
        let mut environment = Environment::new("", NonZeroUsize::MIN, "test");
        environment.dev_listen = Some(([127, 0, 0, 1], 0).into());
        let mut checked = config::parse("io = \"epoll\"", &environment).unwrap();
        checked.listen.clear();
        let mut plan = Plan::new(checked, None).unwrap();
        let panic = |_, _, _: &mut Driver| -> io::Result<NoApp> { panic!("as it should") };
        let error = Workers::start(&mut plan, "test", None, panic)
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "worker: it panicked");
    }
}
