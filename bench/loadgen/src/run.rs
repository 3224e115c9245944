//! One run: start what is needed, warm up, measure, and say what came out.
//!
//! ```text
//!   start processes ─► open flows ─► warm up ─┬─► measure ─┬─► stragglers ─► Outcome
//!                                     snapshot┘    snapshot┘   (of every process and of the kernel)
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bauta::client::Hop;
use bauta::net::{Driver, clock, raise_file_limit};
use bauta::program::threads::{Workers, resolver};
use bauta::transport::tls::Trust;
use bauta::wire::carrier::Carrier;
use bauta::wire::template::RelayTemplates;
use bauta::worker::build::{Plan, RouteOptions, hops};
use crossbeam::channel::{Sender, unbounded};
use tokio::sync::mpsc;

use crate::child::{Counters, RelayChild, settings};
use crate::engine::{self, Engine, Generator, Group, Live, News, Order, Record, Seat, Spec, Way};
use crate::interrupt::Interrupt;
use crate::place::{Places, cores};
use crate::process::{self, Process};
use crate::progress::Line;
use crate::summary;

/// What stands between client and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Nothing: UDP from socket to socket.
    Direct,
    /// A UDP forwarder without crypto.
    Forwarder,
    /// One relay.
    Hop,
    /// Two relays, the first asks the second.
    Chain,
    /// Two relays, the client asks the second through the first.
    Nested,
}

impl Topology {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Forwarder => "forwarder",
            Self::Hop => "hop",
            Self::Chain => "chain",
            Self::Nested => "nested",
        }
    }

    fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Direct => &[],
            Self::Forwarder => &["forwarder"],
            Self::Hop => &["relay"],
            Self::Chain | Self::Nested => &["ingress", "egress"],
        }
    }
}

/// Relays that run already.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Their templates, the second nested in the first.
    pub(crate) urls: Vec<RelayTemplates>,
    /// How to trust them.
    pub(crate) trust: Trust,
    /// Fields of every request.
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Their processes on this machine, if there are any to be looked at.
    pub(crate) pids: Vec<u32>,
}

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Plans {
    pub(crate) topology: Topology,
    /// Instead of processes of our own.
    pub(crate) running: Option<Running>,
    /// What is called the workload.
    pub(crate) workload: String,
    /// The first is what the result is about; the others run beside it.
    pub(crate) groups: Vec<Group>,
    pub(crate) connections: u32,
    /// HTTP version on every hop.
    pub(crate) carrier: Carrier,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Worker threads of each relay.
    pub(crate) workers: NonZeroUsize,
    /// Threads of the generator.
    pub(crate) engines: NonZeroUsize,
    /// Never park the generator; `None` is: if it has cores to itself.
    pub(crate) spin: Option<bool>,
    pub(crate) pin: bool,
    /// Where targets listen.
    pub(crate) target_ip: IpAddr,
    /// Where a TCP target listens, when it is TCP that is measured.
    pub(crate) tcp_target: Option<SocketAddr>,
    /// Lines of configuration of the relays, and of the client.
    pub(crate) set: Vec<String>,
    pub(crate) client_set: Vec<String>,
    /// Print a progress line.
    pub(crate) progress: bool,
}

impl Plans {
    /// Which core runs what.
    pub(crate) fn places(&self) -> Places {
        let roles = self.topology.roles().len();
        if !self.pin {
            return Places::new(1, roles, 1, 1);
        }
        let relays = if self.running.is_some() { 0 } else { roles };
        Places::new(
            cores().len(),
            relays,
            self.workers.get(),
            self.engines.get(),
        )
    }

    /// Says which relays an error is about, where they are not ours.
    pub(crate) fn named(&self, error: io::Error) -> io::Error {
        match &self.running {
            Some(running) if error.kind() == io::ErrorKind::Other => {
                let authorities = running.urls.iter().map(|relay| relay.udp.authority());
                let relays = authorities.collect::<Vec<_>>().join(", then ");
                io::Error::other(format!("{relays}: {error}"))
            }
            Some(_) | None => error,
        }
    }
}

/// How a process stood at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// When it was taken.
    pub(crate) at: Option<Instant>,
    pub(crate) cpu: Duration,
    pub(crate) counters: Counters,
}

/// One relay of a run.
pub(crate) struct Party {
    pub(crate) role: String,
    pub(crate) pid: u32,
    /// The core that it is pinned to, if it has one worker.
    pub(crate) core: Option<usize>,
    pub(crate) process: Option<Process>,
    pub(crate) before: Snapshot,
    pub(crate) after: Snapshot,
    /// Its counters when nothing was under way any more.
    pub(crate) last: Counters,
    pub(crate) rss_bytes: u64,
}

impl Party {
    fn snapshot(&mut self) -> io::Result<Snapshot> {
        Ok(Snapshot {
            at: Some(clock::now()),
            counters: match &mut self.process {
                Some(process) => process.counters()?,
                None => Counters::new(),
            },
            cpu: process::cpu_time(self.pid).map_err(|error| self.ended(&error))?,
        })
    }

    fn rss_bytes(&self) -> io::Result<u64> {
        process::rss_bytes(self.pid).map_err(|error| self.ended(&error))
    }

    /// What it means that the system cannot say anything about it.
    fn ended(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!(
            "the process of the {} ended in the middle of the run: {error}",
            self.role
        ))
    }
}

/// What was measured, before it is put into words.
pub(crate) struct Measured {
    pub(crate) parties: Vec<Party>,
    pub(crate) io: String,
    pub(crate) ends: engine::Ends,
    pub(crate) records: Vec<Record>,
    pub(crate) effort: engine::Effort,
    pub(crate) engine_core: Option<usize>,
    pub(crate) duration: Duration,
    pub(crate) stolen: f64,
    pub(crate) interrupted: bool,
    pub(crate) kernel_drops: BTreeMap<String, u64>,
    /// Resident memory of all relays together, second by second.
    pub(crate) rss_bytes: Vec<u64>,
}

/// The processes and sockets of a run.
pub(crate) struct Scene {
    pub(crate) parties: Vec<Party>,
    pub(crate) io: String,
    pub(crate) way: Way,
    pub(crate) places: Places,
    pub(crate) targets: Vec<UdpSocket>,
    authorities: Vec<PathBuf>,
}

/// The threads of the generator, and how to talk to them.
struct Engines<G> {
    workers: Workers<G>,
    orders: Vec<Sender<Order>>,
    news: mpsc::UnboundedReceiver<News>,
    live: Arc<Live>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for path in &self.authorities {
            // Nothing depends on it any more.
            drop(std::fs::remove_file(path));
        }
    }
}

impl Scene {
    /// Starts what `plans` needs.
    ///
    /// # Errors
    /// What cannot be started, or trusted.
    pub(crate) fn new(plans: &Plans) -> io::Result<Self> {
        if plans.running.is_none()
            && plans.topology == Topology::Forwarder
            && plans.engines.get() > 1
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "--generators: a forwarder leads to one target, that of a single generator",
            ));
        }
        let files = raise_file_limit()?;
        let wanted = plans
            .groups
            .iter()
            .map(|group| u64::from(group.flows))
            .sum::<u64>()
            + 256;
        if files < wanted {
            return Err(io::Error::other(format!(
                "{wanted} file descriptors are needed, and the limit is {files}: raise it with `ulimit -n {wanted}`"
            )));
        }
        let mut targets = Vec::new();
        for _ in 0..plans.engines.get() {
            targets.push(engine::bind(SocketAddr::new(plans.target_ip, 0))?);
        }
        let places = plans.places();
        let mut scene = Self {
            parties: Vec::new(),
            io: String::new(),
            way: Way::Plain(None),
            places,
            targets,
            authorities: Vec::new(),
        };
        match &plans.running {
            Some(running) => scene.meet(plans, running)?,
            None => scene.start(plans)?,
        }
        Ok(scene)
    }

    /// Relays that run already.
    fn meet(&mut self, plans: &Plans, running: &Running) -> io::Result<()> {
        let hops = hops(RouteOptions {
            headers: running.headers.clone(),
            carriers: vec![plans.carrier],
            ..RouteOptions::new(running.urls.clone(), running.trust.clone())
        })
        .map_err(io::Error::other)?;
        self.way = Way::Tunnels {
            hops,
            connections: plans.connections,
        };
        self.io = "unknown".to_owned();
        for (number, &pid) in running.pids.iter().enumerate() {
            process::cpu_time(pid).map_err(|error| {
                io::Error::new(error.kind(), format!("--relay-pid {pid}: {error}"))
            })?;
            self.parties.push(Party {
                role: format!("relay {}", number + 1),
                pid,
                core: None,
                process: None,
                before: Snapshot::default(),
                after: Snapshot::default(),
                last: Counters::new(),
                rss_bytes: 0,
            });
        }
        Ok(())
    }

    /// Relays of our own, the last first, because the others point to it.
    fn start(&mut self, plans: &Plans) -> io::Result<()> {
        let roles = plans.topology.roles();
        let mut reachable: Vec<(RelayTemplates, String)> = Vec::new();
        for (index, role) in roles.iter().enumerate().rev() {
            let core = self.places.relays.get(index).copied().flatten();
            let process = if plans.topology == Topology::Forwarder {
                let udp = self.targets[0].local_addr()?;
                let target = plans.tcp_target.unwrap_or(udp);
                Process::forwarder(target, plans.tcp_target.is_some(), core)?
            } else {
                let next = (plans.topology == Topology::Chain)
                    .then(|| reachable.first())
                    .flatten();
                Process::relay(&RelayChild {
                    role: (*role).to_owned(),
                    via: next.map(|(relay, _)| relay.udp.to_string()),
                    ca: next.map(|(_, ca)| self.authority(ca)).transpose()?,
                    carrier: plans.carrier,
                    core,
                    workers: plans.workers,
                    set: plans.set.clone(),
                })?
            };
            self.io.clone_from(&process.hello.io);
            let url = format!("https://{}", process.hello.address);
            let template = RelayTemplates::from_relay_url(&url).map_err(io::Error::other)?;
            reachable.insert(0, (template, process.hello.ca.clone()));
            self.parties.insert(
                0,
                Party {
                    role: (*role).to_owned(),
                    pid: process.pid(),
                    core: core.filter(|_| plans.workers.get() == 1),
                    process: Some(process),
                    before: Snapshot::default(),
                    after: Snapshot::default(),
                    last: Counters::new(),
                    rss_bytes: 0,
                },
            );
        }
        self.way = match plans.topology {
            Topology::Direct => Way::Plain(None),
            Topology::Forwarder => {
                let process = self.parties[0].process.as_ref();
                Way::Plain(process.map(|process| process.hello.address))
            }
            Topology::Hop | Topology::Chain => {
                let (template, ca) = reachable.swap_remove(0);
                self.tunnels(plans, vec![template], ca)?
            }
            Topology::Nested => {
                let authorities: String = reachable.iter().map(|(_, ca)| ca.as_str()).collect();
                let templates = reachable
                    .into_iter()
                    .map(|(template, _)| template)
                    .collect();
                self.tunnels(plans, templates, authorities)?
            }
        };
        Ok(())
    }

    fn tunnels(
        &self,
        plans: &Plans,
        templates: Vec<RelayTemplates>,
        ca: String,
    ) -> io::Result<Way> {
        let hops: Vec<Hop> = hops(RouteOptions {
            carriers: vec![plans.carrier],
            ..RouteOptions::new(templates, Trust::Pem(ca))
        })
        .map_err(io::Error::other)?;
        Ok(Way::Tunnels {
            hops,
            connections: plans.connections,
        })
    }

    /// A file with the authority of a relay, for the next one.
    fn authority(&mut self, pem: &str) -> io::Result<PathBuf> {
        let name = format!(
            "loadgen-{}-{}.pem",
            std::process::id(),
            self.authorities.len()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, pem)?;
        self.authorities.push(path.clone());
        Ok(path)
    }

    /// Looks at every relay as the measured time begins.
    ///
    /// # Errors
    /// One has ended.
    pub(crate) fn snapshot_before(&mut self) -> io::Result<()> {
        for party in &mut self.parties {
            party.before = party.snapshot()?;
        }
        Ok(())
    }

    /// Looks at every relay as the measured time ends.
    ///
    /// # Errors
    /// One has ended.
    pub(crate) fn snapshot_after(&mut self) -> io::Result<()> {
        for party in &mut self.parties {
            party.after = party.snapshot()?;
            party.rss_bytes = party.rss_bytes()?;
        }
        Ok(())
    }

    /// Whether the generator never parks while it sends.
    pub(crate) fn spins(&self, plans: &Plans) -> bool {
        // Where a relay that runs already has its threads is not known.
        let alone = self.places.engines_alone && plans.running.is_none();
        plans.spin.unwrap_or(alone)
    }

    /// Starts the engines of the run.
    fn engines<G, F>(&mut self, plans: &Plans, make: F) -> io::Result<Engines<G>>
    where
        G: Generator,
        F: Fn(Seat, &mut Driver) -> io::Result<G> + Send + Sync + 'static,
    {
        let checked = settings("loadgen", plans.engines, false, &plans.client_set)?;
        let (news, heard) = mpsc::unbounded_channel();
        let live = Arc::new(Live::default());
        let (mut orders, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..plans.engines.get() {
            let (sender, receiver) = unbounded();
            orders.push(sender);
            inboxes.push(receiver);
        }
        let names = resolver(&checked);
        let resolves_max = checked.limits.resolves;
        let mut plan = Plan::new(checked, None).map_err(io::Error::other)?;
        let count = plans.engines.get() as u32;
        let targets: Vec<_> = self.targets.drain(..).collect();
        let shared = Arc::clone(&live);
        let mut workers = Workers::start(
            &mut plan,
            "load",
            self.places.engines,
            move |number, _, driver| {
                let seat = Seat {
                    place: (number, count),
                    target: targets[number as usize].try_clone()?,
                    orders: inboxes[number as usize].clone(),
                    news: news.clone(),
                    live: Arc::clone(&shared),
                };
                make(seat, driver)
            },
        )
        .map_err(io::Error::other)?;
        // Without a resolver relays are reached by address only, and a name fails as one that does not exist.
        if let Ok(names) = names {
            tokio::spawn(workers.answer(names, resolves_max));
        }
        Ok(Engines {
            workers,
            orders,
            news: heard,
            live,
        })
    }
}

/// Makes the run and measures.
///
/// # Errors
/// What keeps it from running to its end: a relay that is not there, that refuses, or that ends.
pub(crate) async fn measure(plans: &Plans, interrupt: &mut Interrupt) -> io::Result<Measured> {
    let engine = |scene: &Scene| {
        let spec = Arc::new(Spec {
            way: scene.way.clone(),
            groups: plans.groups.clone(),
            spin: scene.spins(plans),
        });
        move |seat, driver: &mut Driver| Engine::new(&spec, seat, driver)
    };
    let (mut measured, engines) = measure_with(plans, interrupt, engine).await?;
    for engine in engines {
        measured.ends += engine.ends();
    }
    Ok(measured)
}

/// Makes the run with a load of any kind: `make` has what starts an engine at a seat. Returns the engines too.
///
/// # Errors
/// As [`measure`].
pub(crate) async fn measure_with<G, F>(
    plans: &Plans,
    interrupt: &mut Interrupt,
    make: impl FnOnce(&Scene) -> F,
) -> io::Result<(Measured, Vec<G>)>
where
    G: Generator,
    F: Fn(Seat, &mut Driver) -> io::Result<G> + Send + Sync + 'static,
{
    let mut scene = Scene::new(plans)?;
    let make = make(&scene);
    let Engines {
        mut workers,
        orders,
        mut news,
        live,
    } = scene.engines(plans, make)?;
    let order = |order| {
        for inbox in &orders {
            // An engine that has ended has said why.
            inbox.send(order).ok();
        }
        workers.peers.iter().for_each(|peer| peer.wake());
    };
    let flows: u64 = plans
        .groups
        .iter()
        .map(|group| u64::from(group.flows))
        .sum();
    let named = |error| plans.named(error);
    let mut line = Line::new(plans.progress);
    for _ in 0..orders.len() {
        wait_until_ready::<G>(&mut news, interrupt, &mut line, &live, flows)
            .await
            .map_err(named)?;
    }
    order(Order::Begin);
    let mut interrupted = interrupt.sleep(plans.warm_up).await;
    failed(&mut news).map_err(named)?;
    if interrupted {
        return Err(interrupted_early());
    }

    scene.snapshot_before()?;
    let kernel_before = process::kernel_drops();
    let ticks = process::Ticks::now();
    order(Order::Measure);
    let began = clock::now();
    let mut rss_bytes = Vec::new();
    while !interrupted && began.elapsed() < plans.duration {
        let pause = Duration::from_secs(1).min(plans.duration.saturating_sub(began.elapsed()));
        interrupted = interrupt.sleep(pause).await;
        failed(&mut news).map_err(named)?;
        let memory = scene.parties.iter().map(Party::rss_bytes);
        rss_bytes.push(memory.sum::<io::Result<u64>>()?);
        line.show(began, plans.duration, &live);
    }
    order(Order::End);
    let duration = began.elapsed();
    let stolen = process::Ticks::now().stolen_since(ticks);
    scene.snapshot_after()?;
    line.end();

    let mut records: Vec<Record> = Vec::new();
    let mut effort = engine::Effort::default();
    let mut engines = Vec::new();
    for _ in 0..orders.len() {
        let ended = workers.outcomes.recv().await;
        let (_, engine) = ended.ok_or_else(|| io::Error::other("the generator ended early"))??;
        effort.add(engine.course().effort());
        for (index, record) in engine.course().records().enumerate() {
            match records.get_mut(index) {
                Some(sum) => sum.add(record),
                None => records.push(record.clone()),
            }
        }
        engines.push(engine);
    }
    failed(&mut news).map_err(named)?;
    for party in &mut scene.parties {
        if let Some(process) = &mut party.process {
            party.last = process.counters()?;
        }
    }
    let measured = Measured {
        ends: engine::Ends::default(),
        io: scene.io.clone(),
        records,
        effort,
        engine_core: scene.places.engines.filter(|_| plans.engines.get() == 1),
        duration,
        stolen,
        interrupted,
        kernel_drops: process::difference(&process::kernel_drops(), &kernel_before),
        rss_bytes,
        parties: std::mem::take(&mut scene.parties),
    };
    Ok((measured, engines))
}

/// Makes the run and puts it into words.
///
/// # Errors
/// As [`measure`].
pub(crate) async fn run(
    plans: &Plans,
    interrupt: &mut Interrupt,
) -> io::Result<(crate::outcome::Outcome, Vec<Record>)> {
    let measured = measure(plans, interrupt).await?;
    let outcome = summary::outcome(plans, &measured);
    Ok((outcome, measured.records))
}

async fn wait_until_ready<G: Generator>(
    news: &mut mpsc::UnboundedReceiver<News>,
    interrupt: &mut Interrupt,
    line: &mut Line,
    live: &Live,
    flows: u64,
) -> io::Result<()> {
    let within = Duration::from_secs(20) + Duration::from_millis(2) * flows.min(100_000) as u32;
    let limit = clock::now() + within;
    loop {
        tokio::select! {
            heard = news.recv() => {
                return match heard {
                    Some(News::Ready) => Ok(()),
                    Some(News::Failed(text)) => Err(io::Error::other(text)),
                    Some(News::Wrong(text)) => Err(wrong(text)),
                    None => Err(io::Error::other("the generator ended before it began")),
                };
            }
            () = interrupt.wait() => {
                return Err(interrupted_early());
            }
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let ready = live.ready.load(Ordering::Relaxed);
                line.text(&format!("{ready} of {flows} flows reach the target"));
                if clock::now() > limit {
                    return Err(io::Error::other(format!(
                        "only {ready} of {flows} flows reached the target and back within {} s: {}",
                        within.as_secs(),
                        G::UNREACHED
                    )));
                }
            }
        }
    }
}

fn failed(news: &mut mpsc::UnboundedReceiver<News>) -> io::Result<()> {
    match news.try_recv() {
        Ok(News::Failed(text)) => Err(io::Error::other(text)),
        Ok(News::Wrong(text)) => Err(wrong(text)),
        Ok(News::Ready) | Err(_) => Ok(()),
    }
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn interrupted_early() -> io::Error {
    let text = "interrupted before anything was measured";
    io::Error::new(io::ErrorKind::Interrupted, text)
}
