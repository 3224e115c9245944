//! What `loadgen` runs in processes of their own: relays, and a forwarder without any crypto to compare them with.
//!
//! ```text
//!   parent ── arguments ──────────────► child
//!          ◄─ one line: how to reach it ─┤
//!          ── "\n" on its stdin ────────►│
//!          ◄─ one line: its counters ────┤   and so on, until stdin ends
//! ```

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use bauta::config::{self, Checked, Environment};
use bauta::net::raise_file_limit;
use bauta::program::threads::Workers;
use bauta::transport::tls::{DevCa, Trust};
use bauta::wire::carrier::Carrier;
use bauta::wire::template::RelayTemplates;
use bauta::worker::build::{Plan, RouteOptions, hops};
use bauta::worker::mailbox::Letter;
use bauta::worker::run::{NoApp, Report};
use bauta::worker::stats;
use clap::Args;
use serde::{Deserialize, Serialize};

/// How a child is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) address: SocketAddr,
    /// Its authority, PEM; empty where there is no TLS.
    pub(crate) ca: String,
    /// What watches its sockets.
    pub(crate) io: String,
}

/// Every counter of a child by its name.
pub(crate) type Counters = BTreeMap<String, u64>;

/// Arguments of a relay child.
#[derive(Clone, Debug, Args)]
pub(crate) struct RelayChild {
    /// Name of the relay in Via and Proxy-Status
    #[arg(long)]
    pub(crate) role: String,
    /// Next hop
    #[arg(long, requires = "ca")]
    pub(crate) via: Option<String>,
    /// Authorities that the next hop's certificate may come from, PEM
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// HTTP version to the next hop
    #[arg(long, default_value = "h3")]
    pub(crate) carrier: Carrier,
    /// First core to pin workers to
    #[arg(long)]
    pub(crate) core: Option<usize>,
    /// Worker threads
    #[arg(long, default_value = "1")]
    pub(crate) workers: NonZeroUsize,
    /// Lines of configuration
    #[arg(long)]
    pub(crate) set: Vec<String>,
}

/// A configuration with room for many tunnels and targets on this machine. `set` are lines `key = value`, and win.
///
/// # Errors
/// What is wrong with them, by key.
pub(crate) fn settings(
    name: &str,
    workers: NonZeroUsize,
    listens: bool,
    set: &[String],
) -> io::Result<Checked> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut environment = Environment::new("", workers, format!("{name}-{}", std::process::id()));
    environment.dev_listen = Some(listen);
    let defaults = [
        ("pin", "false".to_owned()),
        ("workers", workers.to_string()),
        ("policy.allow", "[\"127.0.0.0/8\", \"::1/128\"]".to_owned()),
        ("limits.tunnels", "1000000".to_owned()),
        ("limits.connections", "100000".to_owned()),
        ("tcp.connections", "100000".to_owned()),
        ("tcp.connections_per_address", "100000".to_owned()),
        ("limits.target_sockets", "1000000".to_owned()),
        ("limits.tunnels_per_connection", "16384".to_owned()),
    ];
    let mut text = String::new();
    let key_of = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    for (key, value) in defaults {
        if !set.iter().any(|line| key_of(line) == key) {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    for line in set {
        text.push_str(line);
        text.push('\n');
    }
    let option = if listens { "--set" } else { "--client-set" };
    let mut checked = config::parse(&text, &environment).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{option}: {error}"))
    })?;
    if !listens {
        checked.listen.clear();
    }
    Ok(checked)
}

/// Runs a relay until stdin ends.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn relay(arguments: &RelayChild) -> io::Result<()> {
    ignore_interrupts()?;
    // As in the product: without a subscriber, spans of quinn-proto cost more than with one that wants none of them.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
    raise_file_limit()?;
    let checked = settings(&arguments.role, arguments.workers, true, &arguments.set)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates are dated by the wall clock"
    )]
    let today = std::time::SystemTime::now();
    let ca = DevCa::new(&[], today).map_err(io::Error::other)?;
    let mut plan = Plan::new(checked, Some(&ca.identity)).map_err(io::Error::other)?;
    if let (Some(via), Some(trust)) = (&arguments.via, &arguments.ca) {
        let via = RelayTemplates::from_relay_url(via).map_err(io::Error::other)?;
        let route = hops(RouteOptions {
            carriers: vec![arguments.carrier],
            ..RouteOptions::new(vec![via], Trust::File(trust.clone()))
        })
        .map_err(io::Error::other)?;
        plan.set_hops(route);
    }
    let address = plan.addresses[0];
    let workers = Workers::start(&mut plan, "relay", arguments.core, |_, _, _| {
        Ok::<_, io::Error>(NoApp)
    })
    .map_err(io::Error::other)?;
    let hello = Hello {
        address,
        ca: ca.ca_pem,
        io: workers.io.driver.to_owned(),
    };
    serve(&hello, || {
        let mut counters = Counters::new();
        for report in workers.reports() {
            let Report {
                machine,
                hub,
                tcp,
                net,
                ..
            } = &report;
            for (name, value) in stats::named(machine, hub, tcp, net) {
                *counters.entry(name.to_owned()).or_default() += value;
            }
        }
        counters
    })?;
    workers.tell(|| Letter::Stop);
    Ok(())
}

/// Says how it is reached, then answers every line on stdin with its counters.
pub(crate) fn serve(hello: &Hello, mut counters: impl FnMut() -> Counters) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(hello)?)?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        line?;
        writeln!(out, "{}", serde_json::to_string(&counters())?)?;
        out.flush()?;
    }
    Ok(())
}

/// Ctrl-C goes to every process of a terminal, and `timeout` ends all of a group; it is the parent that ends children,
/// after it has asked them for their last counters.
pub(crate) fn ignore_interrupts() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _context = runtime.enter();
    // tokio keeps the handlers after the streams are gone.
    drop(signal(SignalKind::interrupt())?);
    drop(signal(SignalKind::terminate())?);
    Ok(())
}
