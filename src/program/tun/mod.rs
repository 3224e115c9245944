//! `bauta tun`: an interface whose packets come out of a relay.
//!
//! ```text
//!   kernel ─► TUN ─► worker: app ─► IP tunnel ─► relay(s) ─► the world
//!                             │
//!                             └─ Report ─► control thread: addresses, routes, DNS, MTU of the system
//! ```
//!
//! The tunnel is opened again whenever it ends, and interface, addresses and routes stay meanwhile: what is sent then
//! is lost, and does not go another way. Routes to the relays themselves lead past the interface. Where everything is
//! to go through the tunnel, an IP version that the tunnel lacks leads nowhere.
//!
//! Deliberately absent: watching for other networks. Each attempt to connect asks the system anew.

mod app;
mod plan;
mod system;

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::app::{Report, Setup, TunApp};
use self::system::System;
use super::threads::{StartError, Workers, control_runtime, resolver};
use crate::config::{Checked, Offload};
use crate::net::resolve::Resolver;
use crate::net::tun::{Tun, TunOptions};
use crate::wire::ip::Scope;
use crate::wire::target::Host;
use crate::worker::build::{Plan, RouteOptions, hops};
use crate::worker::mailbox::Letter;

/// How long a relay may be silent, and how often it is asked for a sign of life: all that this machine sends is lost
/// until it is noticed that a relay is gone. One that was started again says so by itself, unless its key is new.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the first QUIC packets may have: a tunnel in a tunnel has to carry 1,280 bytes from the beginning. Where the
/// path has less, QUIC finds out.
const INITIAL_MTU: u16 = 1_400;

/// What QUIC and HTTP add to a packet at most (51 bytes by RFC 9484 §7.2), rounded up: paths are probed until a full
/// packet of the interface fits.
const OVERHEAD_MAX: u16 = 60;

/// Which packets to tunnel, and through whom.
#[derive(Clone, Debug)]
pub struct Client {
    /// The way to the relay that assigns the addresses.
    pub route: RouteOptions,
    /// What to ask it for.
    pub scope: Scope,
    /// Name of the interface; `%d` in it stands for a number that the kernel chooses.
    pub name: String,
    /// Most bytes of a packet, 1280 or more. The interface follows the tunnel below it.
    pub mtu: u16,
    /// Whether trains of packets cross the interface whole.
    pub offload: Offload,
    /// What goes through the tunnel; everything that the relay offers if empty.
    pub routes: Vec<IpNet>,
    /// Networks behind this machine that the other side is told of.
    pub advertise: Vec<IpNet>,
    /// Whether to use the name servers that the relay names.
    pub dns: bool,
}

/// Tunnels until a signal comes. Prints a line to `out` for each change: `interface NAME`, `up …`, `routes …`,
/// `unreachable …`, `dns …`, `down …`. Everything that was changed in the system is as before in the end, but that an
/// interface which was made beforehand stays up, with its MTU.
///
/// # Errors
/// What keeps the program from starting. That a relay is out of reach does not; that it refuses the first request as
/// wrong does.
pub fn run(client: Client, mut checked: Checked, out: &mut dyn Write) -> Result<(), StartError> {
    checked.quic.idle_timeout = IDLE_TIMEOUT;
    checked.quic.keep_alive = KEEP_ALIVE;
    checked.quic.initial_mtu = checked.quic.initial_mtu.max(INITIAL_MTU);
    let largest = client.mtu.saturating_add(OVERHEAD_MAX);
    checked.quic.mtu_upper_bound = checked.quic.mtu_upper_bound.max(largest);
    let runtime = control_runtime()?;
    // Signals are ours before anything is changed.
    let mut signals = {
        let _context = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ]
    };
    let tun = Tun::open(&TunOptions {
        name: Some(client.name.clone()),
        queues: 1,
        offload: client.offload == Offload::Auto,
        mtu: Some(client.mtu),
    })?;
    let Tun {
        name,
        index,
        queues,
        ..
    } = tun;
    // First of all, so that name servers are the system's own again if a crash left others.
    let system = runtime.block_on(System::begin(&client, &name, index))?;

    let outcome = runtime.block_on(async {
        let relay = Relay::new(&client, resolver(&checked)?);
        relay.learn().await;
        let resolves_max = checked.limits.resolves;
        let mut plan = Plan::new(checked, None)?;
        plan.set_hops(hops(client.route.clone())?);
        let (reporter, reports) = mpsc::unbounded_channel();
        let queue = crossbeam::channel::bounded(1);
        for tun in queues {
            // There is one, and room for it.
            drop(queue.0.try_send(tun));
        }
        let setup = Setup {
            scope: client.scope.clone(),
            advertise: client.advertise.clone(),
        };
        let mut threads = Workers::start(&mut plan, "tun", None, move |_, route, driver| {
            let tun = queue.1.try_recv().map_err(io::Error::other)?;
            let route = route.expect("the arguments name a relay");
            TunApp::new(route, setup.clone(), tun, driver, reporter.clone())
        })?;
        let lookups = relay.clone();
        let lookup = move |name: Box<str>| {
            let lookups = lookups.clone();
            async move { lookups.lookup(&name).await }
        };
        tokio::spawn(threads.answer_by(lookup, resolves_max));
        writeln!(out, "interface {name}")?;
        out.flush()?;
        serve(&mut threads, reports, system, &relay, &mut signals, out).await
    });
    // What spawned tasks still hold ends here; the interface went with the worker.
    drop(runtime);
    outcome
}

/// Carries out what the worker reports, until it ends or a signal comes; then undoes everything.
async fn serve(
    threads: &mut Workers<TunApp>,
    mut reports: mpsc::UnboundedReceiver<Report>,
    mut system: System,
    relay: &Relay,
    [terminate, interrupt]: &mut [tokio::signal::unix::Signal; 2],
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let mut known = relay.addresses.subscribe();
    // What the end of the tunnel causes is no news then.
    let mut stopping = false;
    let outcome = loop {
        tokio::select! {
            Some(report) = reports.recv(), if !stopping => {
                match &report {
                    Report::Down(_) => relay.learn_again(),
                    Report::Refused(text) => break Err(io::Error::other(text.clone()).into()),
                    Report::Up { .. } => {}
                }
                let addresses = relay.addresses.borrow().clone();
                let lines = system.handle(report, &addresses).await;
                // Whoever reads no more must not keep the system from being made as it was.
                if let Err(error) = print(&lines, out) {
                    break Err(error.into());
                }
            }
            Ok(()) = known.changed() => {
                let addresses = known.borrow_and_update().clone();
                system.keep_outside(&addresses).await;
            }
            outcome = threads.outcomes.recv() => break match outcome {
                Some(Err(error)) => Err(StartError::Worker(error)),
                Some(Ok(_)) | None => Ok(()),
            },
            _ = terminate.recv() => {
                stopping = true;
                threads.tell(|| Letter::Stop);
            }
            _ = interrupt.recv() => {
                stopping = true;
                threads.tell(|| Letter::Stop);
            }
        }
    };
    system.undo().await;
    outcome
}

fn print(lines: &[String], out: &mut dyn Write) -> io::Result<()> {
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// The relay that is spoken to from outside the tunnel, and where it is.
///
/// Once its routes are set, questions for its name may lead into the tunnel that is not there yet: so addresses that
/// were found are remembered, and asked for again in the background.
#[derive(Clone)]
struct Relay {
    host: Option<Host>,
    resolver: Resolver,
    addresses: watch::Sender<Vec<IpAddr>>,
}

impl Relay {
    fn new(client: &Client, resolver: Resolver) -> Self {
        let first = client.route.relays.first();
        Self {
            host: first.map(|relay| relay.udp.host().clone()),
            resolver,
            addresses: watch::Sender::new(Vec::new()),
        }
    }

    /// Finds out where it is; what is known stays when nobody answers.
    async fn learn(&self) {
        let found = match &self.host {
            Some(Host::Ip(address)) => vec![*address],
            Some(Host::Name(name)) => self.resolver.lookup(name).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let differs = |known: &mut Vec<IpAddr>| {
            let differs = !found.is_empty() && *known != found;
            if differs {
                known.clone_from(&found);
            }
            differs
        };
        self.addresses.send_if_modified(differs);
    }

    fn learn_again(&self) {
        let relay = self.clone();
        tokio::spawn(async move { relay.learn().await });
    }

    async fn lookup(&self, name: &str) -> crate::policy::resolve::Resolution {
        let is_relay = matches!(&self.host, Some(Host::Name(own)) if **own == *name);
        if is_relay {
            let known = self.addresses.borrow().clone();
            if !known.is_empty() {
                return Ok(known);
            }
        }
        let found = self.resolver.lookup(name).await;
        if is_relay && let Ok(found) = &found {
            self.addresses.send_replace(found.clone());
        }
        found
    }
}
