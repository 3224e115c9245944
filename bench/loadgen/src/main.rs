//! Load generator for MASQUE relays.
//!
//! ```text
//!   cli ─► run (processes, engines) ─► summary ─► outcome ─► report, compare, hgrm
//!           ├─ engine   client and target of every flow, one thread
//!           ├─ tcp      bytes in bulk instead of datagrams
//!           ├─ ip       whole IP packets from client to client
//!           ├─ child, forwarder   what runs in processes of their own
//!           └─ sweep, setup, idle, targets   workloads that are more than one run
//!              sockets   what the kernel charges, without any relay
//! ```

mod child;
mod cli;
mod compare;
mod engine;
mod forwarder;
mod hgrm;
mod idle;
mod interrupt;
mod ip;
mod machine;
mod opener;
mod outcome;
mod place;
mod process;
mod progress;
mod report;
mod run;
mod setup;
mod sockets;
mod summary;
mod sweep;
mod targets;
mod tcp;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use crate::cli::{Cli, Command, Load, Output};
use crate::engine::Record;
use crate::interrupt::Interrupt;
use crate::outcome::Outcome;

/// Exit code of a run that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// How long to measure when nothing is said: a run, a point of a sweep, a soak.
const RUN: Duration = Duration::from_secs(10);
const POINT: Duration = Duration::from_secs(2);
const SOAK: Duration = Duration::from_secs(600);
/// Where the curve begins to look for the highest rate.
const CURVE_FROM: f64 = 20_000.0;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            if error.kind() == io::ErrorKind::InvalidInput {
                ExitCode::from(2)
            } else if error.kind() == io::ErrorKind::Interrupted {
                ExitCode::from(INTERRUPTED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(cli: Cli) -> io::Result<ExitCode> {
    if let Some([a, b]) = cli.compare.as_deref() {
        compare::run(a, b, &mut io::stdout())?;
        return Ok(ExitCode::SUCCESS);
    }
    match cli.command {
        // Children have no part in what follows.
        Some(Command::Relay(arguments)) => child::relay(&arguments)?,
        Some(Command::Forwarder(arguments)) if arguments.tcp => {
            tcp::forward(arguments.target, arguments.core)?;
        }
        Some(Command::Forwarder(arguments)) => forwarder::run(&arguments)?,
        // These have no half of a result: Ctrl-C ends them as it ends any process.
        Some(Command::Setup {
            connections,
            tunnels,
            carrier,
            concurrency,
            set,
            json,
        }) => {
            let setup = setup::measure(carrier, (connections, tunnels), concurrency, &set)?;
            show(json, &setup, |out| setup.show(out))?;
        }
        Some(Command::Idle {
            connections,
            carrier,
            tunnels,
            set,
            json,
        }) => {
            let idle = idle::measure(carrier, connections, tunnels, &set)?;
            show(json, &idle, |out| idle.show(out))?;
        }
        Some(Command::Sockets {
            sockets,
            datagrams_each,
            json,
        }) => {
            let sockets = sockets::measure(&sockets, datagrams_each)?;
            show(json, &sockets, |out| sockets.show(out))?;
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let load = (cli.load, cli.output);
            return runtime.block_on(measure(command, load));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(command: Option<Command>, (load, output): (Load, Output)) -> io::Result<ExitCode> {
    let mut interrupt = Interrupt::new()?;
    let chosen = command.as_ref().map_or(Some(&output), Command::output);
    for path in chosen
        .into_iter()
        .flat_map(|output| output.hgrm.iter().chain(&output.html))
    {
        try_file(path)?;
    }
    let interrupt = &mut interrupt;
    match command {
        None => {
            let (outcome, records) = run::run(&load.plans(RUN), interrupt).await?;
            finish(&output, &outcome, records.first())?;
        }
        Some(Command::Sweep {
            load,
            output,
            max_loss,
            from,
            to,
        }) => {
            let to = to.unwrap_or(f64::INFINITY);
            if to < from {
                return Err(wrong(format!("--to {to} is below --from {from}")));
            }
            single_file(&output)?;
            own_rates(&load)?;
            let plans = load.plans(POINT);
            let outcome = sweep::highest_within(&plans, from..=to, max_loss, interrupt).await?;
            finish(&output, &outcome, None)?;
        }
        Some(Command::Curve {
            load,
            output,
            max_loss,
        }) => {
            single_file(&output)?;
            own_rates(&load)?;
            let outcome = sweep::curve(&load.plans(POINT), CURVE_FROM, max_loss, interrupt).await?;
            finish(&output, &outcome, None)?;
        }
        Some(Command::Fairness {
            load,
            output,
            slow,
            slow_rate,
        }) => {
            let mut plans = load.plans(RUN);
            plans.groups = targets::fairness(plans.groups[0], slow, slow_rate);
            plans.connections = load.connections.min(1 + slow);
            plans.workload = "fairness".to_owned();
            let (outcome, records) = run::run(&plans, interrupt).await?;
            finish(&output, &outcome, records.get(1))?;
        }
        Some(Command::Soak { load, output }) => {
            let mut plans = load.plans(SOAK);
            plans.workload = format!("{}-soak", plans.workload);
            let (outcome, records) = run::run(&plans, interrupt).await?;
            finish(&output, &outcome, records.first())?;
        }
        Some(Command::Targets {
            rounds,
            duration,
            only,
            set,
            json,
        }) => {
            let wanted = targets::Wanted {
                rounds,
                duration,
                only,
                set,
            };
            let targets = targets::measure(&wanted, interrupt).await?;
            show(json, &targets, |out| targets.show(out))?;
        }
        Some(Command::Tcp(arguments)) => {
            let outcome = tcp::measure(arguments.wanted(), interrupt).await?;
            show(arguments.json, &outcome, |out| outcome.show(out))?;
        }
        Some(Command::Ip(arguments)) => {
            let outcome = ip::measure(arguments.wanted()?, interrupt).await?;
            show(arguments.json, &outcome, |out| outcome.show(out))?;
        }
        Some(
            Command::Relay(_)
            | Command::Forwarder(_)
            | Command::Setup { .. }
            | Command::Idle { .. }
            | Command::Sockets { .. },
        ) => {}
    }
    Ok(if interrupt.happened() {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// A sweep chooses its rates by itself.
fn own_rates(load: &Load) -> io::Result<()> {
    let said = [
        load.rate.map(|rate| format!("--rate {rate}")),
        load.window.map(|window| format!("--window {window}")),
    ];
    match said.into_iter().flatten().next() {
        Some(said) => Err(wrong(format!(
            "{said}: a sweep and a curve choose the rate themselves, see --from and --to"
        ))),
        None => Ok(()),
    }
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Refuses one file of percentiles for many runs.
fn single_file(output: &Output) -> io::Result<()> {
    match &output.hgrm {
        Some(_) => Err(wrong(
            "--hgrm holds the latency of one run: run the rate in question by itself".to_owned(),
        )),
        None => Ok(()),
    }
}

/// Prints a result, and writes the files that were asked for.
fn finish(output: &Output, outcome: &Outcome, record: Option<&Record>) -> io::Result<()> {
    show(output.json, outcome, |out| report::table(outcome, out))?;
    if let (Some(path), Some(record)) = (&output.hgrm, record) {
        write_file(path, |out| hgrm::write(&record.times, out))?;
    }
    if let Some(path) = &output.html {
        let now = time::OffsetDateTime::now_utc();
        let context = report::Context {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: outcome.machine.to_string(),
            date: now
                .format(&time::format_description::well_known::Rfc3339)
                .map_err(io::Error::other)?,
        };
        let outcomes = std::slice::from_ref(outcome);
        write_file(path, |out| report::html(outcomes, &context, out))?;
    }
    Ok(())
}

/// Whether a file can be written, before minutes are spent on what shall stand in it. One that is there stays as it is.
fn try_file(path: &Path) -> io::Result<()> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    // Its own kind would be taken for that of the arguments.
    io::Error::other(format!("{}: {error}", path.display()))
}

fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let named = |error| named(path, &error);
    let mut out = BufWriter::new(File::create(path).map_err(named)?);
    write(&mut out).and_then(|()| out.flush()).map_err(named)
}

/// Prints one JSON object, or what a person wants to read.
fn show(
    json: bool,
    result: &impl Serialize,
    text: impl FnOnce(&mut io::Stdout) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(result)?)
    } else {
        text(&mut out)
    }
}
