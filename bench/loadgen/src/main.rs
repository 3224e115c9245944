//! Load generator for MASQUE relays.
//!
//! Without arguments it runs the canonical workload, client → ingress → egress → target on this machine, and prints
//! throughput and latency. `idle` measures what tunnels cost that carry nothing.

mod compare;
mod hgrm;
mod idle;
mod outcome;
mod report;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use bauta::config::Io;
use bauta::program::demo::{self, Demo};
use clap::{Parser, Subcommand};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  loadgen
  loadgen --duration 30 --json
  loadgen idle --connections 100 --tunnels 100";

/// Measures MASQUE relays on this machine.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    workload: Option<Workload>,

    /// Seconds of the canonical workload
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    duration: u32,

    /// Print the result as one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Memory of a relay per idle connection and per idle tunnel
    Idle {
        /// Connections to the relay
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        connections: u32,
        /// Tunnels on each connection
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        tunnels: u32,
    },
    /// A relay in a process of its own, for `idle`
    #[command(hide = true)]
    Relay,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.workload {
        None => canonical(arguments.duration, arguments.json),
        Some(Workload::Idle {
            connections,
            tunnels,
        }) => idle::measure(connections, tunnels).and_then(|result| result.show(arguments.json)),
        Some(Workload::Relay) => idle::relay(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn canonical(duration: u32, json: bool) -> io::Result<()> {
    let demo = Demo {
        duration: Duration::from_secs(duration.into()),
        hops: 2,
        nested: false,
        size: 1200,
        rate: None,
        workers: NonZeroUsize::MIN,
        io: Io::Auto,
    };
    let outcome = demo::run(&demo, &mut io::stderr()).map_err(io::Error::other)?;
    if json {
        print_json(&outcome)
    } else {
        outcome.print(&mut io::stdout())
    }
}

fn print_json(result: &impl Serialize) -> io::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(result)?)
}
