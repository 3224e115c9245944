//! Bytes in bulk over TCP tunnels: goodput, what a gigabyte costs each relay, and how evenly streams share.
//!
//! ```text
//!   target ─► relays ─► client ─► warm up ─┬─► measure ─┬─► the end of every stream ─► TcpOutcome
//!                                  snapshot┘    snapshot┘
//! ```
//!
//! Every byte is compared with the one that was sent, at both ends; a run in which one is missing is no result.

mod args;
mod compare;
mod forwarder;
mod outcome;
mod plain;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bauta::client::{Hop, TcpForm};
use bauta::net::{clock, raise_file_limit};
use bauta::program::bulk::{Control, Direction, Load, Progress, Streams, Tallies, Target};
use bauta::program::threads::Workers;
use bauta::transport::tls::Trust;
use bauta::worker::build::Plan;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

pub(crate) use self::args::TcpArgs;
pub(crate) use self::forwarder::run as forward;
pub(crate) use self::outcome::TcpOutcome;
use crate::child::settings;
use crate::engine::Way;
use crate::interrupt::Interrupt;
use crate::place::cores;
use crate::process::{self, Ticks};
use crate::progress::Line;
use crate::run::{Plans, Scene, Topology};

/// How long the end of all streams may take.
const END_WITHIN: Duration = Duration::from_secs(15);
/// How long to wait between two looks at the client.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is wanted.
pub(crate) struct Wanted {
    pub(crate) plans: Plans,
    /// A proxy without tunnels, and how to trust it.
    pub(crate) tls_proxy: Option<(SocketAddr, Trust)>,
    /// Where the target listens.
    pub(crate) target: SocketAddr,
    pub(crate) direction: Direction,
    pub(crate) streams: u32,
    /// Of each stream, instead of a time.
    pub(crate) bytes: Option<u64>,
    pub(crate) form: TcpForm,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) scene: Scene,
    pub(crate) duration: Duration,
    /// Bytes of each stream: up, down.
    pub(crate) moved: Vec<(u64, u64)>,
    /// CPU time of this process: client and target.
    pub(crate) generator: Duration,
    pub(crate) stolen: f64,
    pub(crate) interrupted: bool,
}

/// The thread or threads of the client.
enum Client {
    Tunnels(Box<Workers<Streams>>),
    Plain(JoinHandle<()>),
}

/// The client, and how to talk to it.
struct Running {
    client: Client,
    control: Arc<Control>,
    news: Receiver<Progress>,
}

/// Runs what is wanted.
///
/// # Errors
/// What keeps it from running to its end; a byte that is lost or out of place.
pub(crate) async fn measure(
    mut wanted: Wanted,
    interrupt: &mut Interrupt,
) -> io::Result<TcpOutcome> {
    raise_file_limit()?;
    let tallies = Tallies::new(wanted.streams);
    let places = wanted.plans.places();
    let pin = pin_to(places.engines);
    let target = Target::start(wanted.target, Arc::clone(&tallies), pin)?;
    wanted.plans.tcp_target = Some(target.address);
    let mut scene = Scene::new(&wanted.plans)?;
    let mut running = start(&wanted, &scene, target.address, &tallies)?;
    let measured = run(&wanted, &mut scene, &mut running, &tallies, interrupt).await;
    let (times, moved, generator, stolen, interrupted) =
        measured.map_err(|error| wanted.plans.named(error))?;
    running.end(interrupted).await?;
    // Now nothing is under way any more.
    drop(target);
    let (lost, wrong) = (tallies.lost(), tallies.wrong());
    let is_whole = !interrupted && wanted.tls_proxy.is_none();
    if wrong > 0 || (is_whole && lost > 0) {
        return Err(io::Error::other(format!(
            "{lost} bytes were lost, and {wrong} pieces are not what was sent"
        )));
    }
    let measured = Measured {
        scene,
        duration: times,
        moved,
        generator,
        stolen,
        interrupted,
    };
    Ok(TcpOutcome::new(&wanted, &measured))
}

/// Keeps the thread that calls it on this core.
fn pin_to(core: Option<usize>) -> impl FnOnce() + Send + 'static {
    let core = core.and_then(|core| cores().get(core).copied());
    move || {
        if let Some(core) = core {
            core_affinity::set_for_current(core);
        }
    }
}

fn start(
    wanted: &Wanted,
    scene: &Scene,
    target: SocketAddr,
    tallies: &Arc<Tallies>,
) -> io::Result<Running> {
    let control = Arc::new(Control::default());
    let (progress, news) = bounded(8);
    let load = Load {
        target: target.into(),
        form: Some(wanted.form),
        direction: wanted.direction,
        streams: wanted.streams,
        bytes: wanted.bytes.unwrap_or(0),
    };
    let plain = |address, trust| {
        let way = plain::Way { address, trust };
        let ends = (Arc::clone(tallies), Arc::clone(&control));
        plain::start(way, &load, ends, progress.clone(), scene.places.engines)
    };
    let client = match (&wanted.tls_proxy, &scene.way) {
        (Some((address, trust)), _) => Client::Plain(plain(*address, Some(trust.clone()))?),
        (None, Way::Plain(front)) => Client::Plain(plain(front.unwrap_or(target), None)?),
        (None, Way::Tunnels { hops, connections }) => {
            let ends = (Arc::clone(tallies), Arc::clone(&control));
            let workers = tunnels(wanted, hops, *connections, load.clone(), ends, progress)?;
            Client::Tunnels(Box::new(workers))
        }
    };
    Ok(Running {
        client,
        control,
        news,
    })
}

fn tunnels(
    wanted: &Wanted,
    hops: &[Hop],
    connections: u32,
    load: Load,
    (tallies, control): (Arc<Tallies>, Arc<Control>),
    progress: Sender<Progress>,
) -> io::Result<Workers<Streams>> {
    let ways: Vec<Vec<Hop>> = (0..connections)
        .map(|number| {
            // Hops that differ in what stands for their trust never share a connection.
            let apart = hops.iter().cloned().map(|mut hop| {
                hop.tls_hash = hop.tls_hash.wrapping_add(number.into());
                hop
            });
            apart.collect()
        })
        .collect();
    let one = wanted.plans.engines;
    let checked = settings("loadgen", one, false, &wanted.plans.client_set)?;
    let mut plan = Plan::new(checked, None).map_err(io::Error::other)?;
    let app = move |_, _, _: &mut _| {
        let (tallies, control) = (Arc::clone(&tallies), Arc::clone(&control));
        let progress = progress.clone();
        Ok(Streams::new(
            &ways,
            load.clone(),
            tallies,
            control,
            progress,
        ))
    };
    Workers::start(&mut plan, "load", wanted.plans.places().engines, app).map_err(io::Error::other)
}

/// What happened meanwhile: the time measured, the bytes that moved, CPU time of the generator, stolen time, whether it
/// was interrupted.
type Run = (Duration, Vec<(u64, u64)>, Duration, f64, bool);

async fn run(
    wanted: &Wanted,
    scene: &mut Scene,
    running: &mut Running,
    tallies: &Tallies,
    interrupt: &mut Interrupt,
) -> io::Result<Run> {
    let mut line = Line::new(wanted.plans.progress);
    while !running.look()?.is_some_and(|news| news == News::Started) {
        if interrupt.sleep(LOOK_AGAIN).await {
            let text = "interrupted before anything was measured";
            return Err(io::Error::new(io::ErrorKind::Interrupted, text));
        }
    }
    let mut interrupted = false;
    if wanted.bytes.is_none() {
        interrupted = interrupt.sleep(wanted.plans.warm_up).await;
    }
    scene.snapshot_before()?;
    let (ticks, cpu) = (Ticks::now(), process::own_cpu_time()?);
    let (began, before) = (
        clock::now(),
        match wanted.bytes {
            // Some may have arrived between the start and now.
            Some(_) => vec![(0, 0); wanted.streams as usize],
            None => tallies.arrived(),
        },
    );
    // A client that has ended every stream has handed over its last bytes; the target may still be reading them.
    let mut arrive_until = None;
    let mut said = began;
    while !interrupted {
        let is_over = match (wanted.bytes, arrive_until) {
            (None, _) => began.elapsed() >= wanted.plans.duration,
            (Some(_), None) => false,
            // A TLS proxy need not pass an end on.
            (Some(_), Some(_)) if wanted.tls_proxy.is_some() => true,
            (Some(_), Some(until)) => tallies.lost() == 0 || clock::now() >= until,
        };
        if is_over {
            break;
        }
        interrupted = interrupt.sleep(LOOK_AGAIN).await;
        if running.look()? == Some(News::Finished) {
            arrive_until = Some(clock::now() + END_WITHIN);
        }
        if said.elapsed() >= Duration::from_secs(1) {
            said = clock::now();
            line.text(&progress(&before, &tallies.arrived(), began.elapsed()));
        }
    }
    let duration = began.elapsed();
    let moved = difference(&before, &tallies.arrived());
    let generator = process::own_cpu_time()?.saturating_sub(cpu);
    scene.snapshot_after()?;
    line.end();
    let stolen = Ticks::now().stolen_since(ticks);
    Ok((duration, moved, generator, stolen, interrupted))
}

fn difference(before: &[(u64, u64)], after: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let both = before.iter().zip(after);
    both.map(|(before, after)| (after.0 - before.0, after.1 - before.1))
        .collect()
}

fn progress(before: &[(u64, u64)], now: &[(u64, u64)], since: Duration) -> String {
    let moved = difference(before, now);
    let bytes: u64 = moved.iter().map(|(up, down)| up + down).sum();
    let gbit = bytes as f64 * 8.0 / since.as_secs_f64() / 1e9;
    format!("{:.0} s  {gbit:.2} Gbit/s", since.as_secs_f64())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Started,
    Finished,
}

impl Running {
    /// What the client had to say since it was asked last.
    fn look(&self) -> io::Result<Option<News>> {
        match self.news.try_recv() {
            Ok(Progress::Started) => Ok(Some(News::Started)),
            Ok(Progress::Finished) => Ok(Some(News::Finished)),
            Ok(Progress::Failed(text)) => Err(io::Error::other(text)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(io::Error::other("the generator ended too early"))
            }
        }
    }

    /// Has every stream end, and waits for it unless the run was given up.
    async fn end(self, given_up: bool) -> io::Result<()> {
        self.control.stop();
        let until = clock::now() + END_WITHIN;
        match self.client {
            Client::Tunnels(mut workers) => {
                workers.peers.iter().for_each(|peer| peer.wake());
                let ended = tokio::time::timeout(END_WITHIN, workers.outcomes.recv()).await;
                if !matches!(ended, Ok(Some(Ok(_)))) && !given_up {
                    return Err(io::Error::other("the streams did not end"));
                }
            }
            Client::Plain(thread) => {
                while !thread.is_finished() && clock::now() < until && !given_up {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
        // Whatever else it said, the last word counts.
        match self.news.try_iter().last() {
            Some(Progress::Failed(text)) if !given_up => Err(io::Error::other(text)),
            Some(_) | None => Ok(()),
        }
    }
}

impl Wanted {
    /// HTTP version under the tunnels, or what is there instead.
    fn carrier(&self) -> &'static str {
        match (&self.tls_proxy, self.plans.topology) {
            (Some(_), _) => "tls",
            (None, Topology::Direct | Topology::Forwarder) if self.plans.running.is_none() => "tcp",
            (None, _) => self.plans.carrier.as_str(),
        }
    }
}
