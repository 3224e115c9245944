//! The `bauta` program: arguments → checked configuration → the library.
//!
//! Exit codes: 0 success, 1 failure while running, 2 wrong arguments or configuration.

mod cli;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use bauta::config::{self, Bytes, Checked, Environment, MemoryTerm, worst_case_memory};
use bauta::policy::Rule;
use bauta::transport::tls::{
    ClientTls, Identity, TlsError, Trust, client_config, quic_client, quic_server, server_config,
};
use cli::{Cli, Command, DemoArgs, RelayArgs, UdpArgs};

/// Something failed while running.
const FAILURE: u8 = 1;
/// Arguments or configuration are wrong; clap uses the same code.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::from_process().command {
        Command::Relay(arguments) => relay(&arguments),
        Command::Demo(arguments) => demo(&arguments),
        Command::Udp(arguments) => udp(&arguments),
    }
}

/// `bauta relay`: the configuration is checked whole before anything is opened.
fn relay(arguments: &RelayArgs) -> ExitCode {
    let checked = match configuration(arguments) {
        Ok(checked) => checked,
        Err(error) => return fail(USAGE, &error),
    };
    if let Err(error) = load_certificates(&checked) {
        return fail(USAGE, &error.to_string());
    }
    if arguments.check {
        return print(&report(&checked));
    }
    run_relay(&checked)
}

/// Hands a checked configuration to the relay.
fn run_relay(_: &Checked) -> ExitCode {
    fail(FAILURE, "relay: not wired")
}

/// `bauta demo`.
fn demo(_: &DemoArgs) -> ExitCode {
    fail(FAILURE, "demo: not wired")
}

/// `bauta udp`.
fn udp(_: &UdpArgs) -> ExitCode {
    fail(FAILURE, "udp: not wired")
}

/// The configuration that the arguments name; in development mode none is needed.
fn configuration(arguments: &RelayArgs) -> Result<Checked, String> {
    let file = arguments.config.as_deref();
    let directory = file.and_then(Path::parent).unwrap_or_else(|| Path::new(""));
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut environment = Environment::new(directory, cores, pseudonym());
    environment.rule = |text| {
        text.parse::<Rule>()
            .map(drop)
            .map_err(|error| error.problem.to_string())
    };
    environment.dev_listen = arguments.dev.then_some(arguments.listen);
    let checked = match file {
        Some(path) => config::load(path, &environment),
        None => config::parse("", &environment),
    };
    checked.map_err(|error| error.to_string())
}

/// A name for `Via` and `Proxy-Status` that says nothing about the machine and differs between two relays.
fn pseudonym() -> String {
    // The standard library seeds its hash maps from the system's random numbers.
    format!(
        "bauta-{:08x}",
        RandomState::new().build_hasher().finish() >> 32
    )
}

/// Opens all certificates that the configuration names and builds the TLS sides from them.
fn load_certificates(checked: &Checked) -> Result<(), TlsError> {
    for certificate in checked
        .listen
        .iter()
        .filter_map(|listener| listener.certificate.as_ref())
    {
        let identity = Identity::load(&certificate.chain, &certificate.key)?;
        quic_server(server_config(&identity, false)?)?;
    }
    let upstream = &checked.upstream;
    if !upstream.hops.is_empty() {
        let trust = match &upstream.ca {
            Some(path) => Trust::File(path.clone()),
            None if upstream.dangerous_insecure => Trust::DangerousAnybody,
            None => Trust::System,
        };
        quic_client(client_config(&ClientTls::new(trust))?)?;
    }
    Ok(())
}

/// What `--check` prints: what the relay would do, what is questionable, and the most memory it can use.
fn report(checked: &Checked) -> String {
    let mut lines = vec!["configuration is good".to_owned()];
    for listener in &checked.listen {
        let certificate = match &listener.certificate {
            Some(certificate) => certificate.chain.display().to_string(),
            None => "made at start, for development".to_owned(),
        };
        lines.push(format!(
            "listen    {} (certificate: {certificate})",
            listener.address
        ));
    }
    lines.extend(
        checked
            .upstream
            .hops
            .iter()
            .map(|hop| format!("next hop  {hop}")),
    );
    lines.extend(
        checked
            .warnings
            .iter()
            .map(|warning| format!("warning   {warning}")),
    );
    lines.push(format!(
        "\nworst-case memory, every limit reached at once, workers: {}",
        checked.workers
    ));
    let terms = worst_case_memory(checked);
    lines.extend(terms.iter().map(|term| format!("  {term}")));
    let sum = terms
        .iter()
        .map(MemoryTerm::bytes)
        .fold(0, u64::saturating_add);
    lines.push(format!("  {:<51} = {:>10}\n", "sum", Bytes(sum)));
    lines.join("\n")
}

/// Prints to standard output; a reader that went away is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(FAILURE, &error.to_string()),
    }
}

/// Prints each line of `message` as an error and returns `code`.
fn fail(code: u8, message: &str) -> ExitCode {
    for line in message.lines() {
        eprintln!("error: {line}");
    }
    ExitCode::from(code)
}
