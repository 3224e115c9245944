//! The `bauta` program: arguments → checked configuration → the library.
//!
//! Exit codes: 0 success, 1 failure while running, 2 wrong arguments or configuration.

mod cli;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use bauta::client::TcpForm;
use bauta::config::{self, Bytes, Checked, Environment, LogLevel, MemoryTerm, worst_case_memory};
use bauta::net;
use bauta::policy::auth::{SALT_LEN, hash_password};
use bauta::program::demo::{self, Demo};
use bauta::program::proxy::{self, Proxy};
use bauta::program::{StartError, relay, tcp, tun, udp};
use bauta::transport::tls::{
    ClientTls, Identity, TlsError, Trust, client_config, quic_client, quic_server, server_config,
};
use bauta::worker::build::{RouteOptions, rule_kind};
use bauta::worker::secrets::{self, SecretsError};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use cli::{
    Cli, Command, DemoArgs, PasswdArgs, ProxyArgs, RelayArgs, TcpArgs, TunArgs, UdpArgs, ViaArgs,
};

/// Something failed while running.
const FAILURE: u8 = 1;
/// Arguments or configuration are wrong; clap uses the same code.
const USAGE: u8 = 2;
/// Bytes of a password line that are read: more than a relay takes.
const PASSWORD_BYTES_MAX: u64 = 1024;

fn main() -> ExitCode {
    match Cli::from_process().command {
        Command::Relay(arguments) => run_relay(&arguments),
        Command::Demo(arguments) => run_demo(&arguments),
        Command::Udp(arguments) => run_udp(&arguments),
        Command::Tcp(arguments) => run_tcp(&arguments),
        Command::Proxy(arguments) => run_proxy(&arguments),
        Command::Tun(arguments) => run_tun(&arguments),
        Command::Passwd(arguments) => run_passwd(&arguments),
    }
}

/// `bauta relay`: the configuration is checked whole before anything is opened.
fn run_relay(arguments: &RelayArgs) -> ExitCode {
    let checked = match configuration(arguments) {
        Ok(checked) => checked,
        Err(error) => return fail(USAGE, &error),
    };
    if let Err(error) = load_certificates(&checked) {
        return fail(USAGE, &error.to_string());
    }
    if let Err(error) = load_secrets(&checked) {
        return fail(USAGE, &error.to_string());
    }
    if arguments.check {
        return print(&report(&checked));
    }
    log_to_stderr(checked.log);
    match relay::run(checked, arguments.dev, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILURE, &error.to_string()),
    }
}

/// `bauta demo`.
fn run_demo(arguments: &DemoArgs) -> ExitCode {
    let demo = Demo {
        duration: Duration::from_secs(arguments.duration.into()),
        hops: arguments.hops,
        nested: arguments.nested,
        carrier: arguments.carrier,
        size: arguments.size,
        rate: arguments.rate,
        workers: NonZeroUsize::new(arguments.workers.into()).unwrap_or(NonZeroUsize::MIN),
        io: arguments.io,
    };
    log_to_stderr(LogLevel::Warn);
    // With --json nothing but the object goes to standard output.
    let live = &mut io::stderr();
    if arguments.tcp {
        match demo::tcp::run(&demo, live) {
            Ok(outcome) => show(arguments.json, &outcome, |out| outcome.print(out)),
            Err(error) => fail(FAILURE, &error.to_string()),
        }
    } else {
        match demo::run(&demo, live) {
            Ok(outcome) => show(arguments.json, &outcome, |out| outcome.print(out)),
            Err(error) => fail(FAILURE, &error.to_string()),
        }
    }
}

/// Prints a result as one JSON object, or for people.
fn show(
    json: bool,
    outcome: &impl Serialize,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> ExitCode {
    if json {
        return match serde_json::to_string(outcome) {
            Ok(json) => print(&format!("{json}\n")),
            Err(error) => fail(FAILURE, &error.to_string()),
        };
    }
    let mut out = Vec::new();
    match text(&mut out) {
        Ok(()) => print(&String::from_utf8_lossy(&out)),
        Err(error) => fail(FAILURE, &error.to_string()),
    }
}

/// `bauta udp`.
fn run_udp(arguments: &UdpArgs) -> ExitCode {
    // Only `tcp` and `proxy` open TCP tunnels.
    run_client(&arguments.relays, TcpForm::default(), |route, checked| {
        let forward = udp::Forward {
            route,
            listen: arguments.listen,
            target: arguments.target.clone(),
        };
        udp::run(forward, checked, &mut io::stdout())
    })
}

/// `bauta tcp`.
fn run_tcp(arguments: &TcpArgs) -> ExitCode {
    run_client(&arguments.relays, arguments.tcp_form, |route, checked| {
        let forward = tcp::Forward {
            route,
            listen: arguments.listen,
            target: arguments.target.clone(),
        };
        tcp::run(forward, checked, &mut io::stdout())
    })
}

/// `bauta proxy`.
fn run_proxy(arguments: &ProxyArgs) -> ExitCode {
    run_client(&arguments.relays, arguments.tcp_form, |route, checked| {
        let proxy = Proxy {
            route,
            listen: arguments.listen,
        };
        proxy::run(proxy, checked, &mut io::stdout())
    })
}

/// `bauta tun`.
fn run_tun(arguments: &TunArgs) -> ExitCode {
    run_client(&arguments.relays, TcpForm::default(), |route, checked| {
        tun::run(arguments.client(route), checked, &mut io::stdout())
    })
}

/// Prepares what all programs need that go through relays, and runs one of them.
fn run_client(
    relays: &ViaArgs,
    tcp_form: TcpForm,
    run: impl FnOnce(RouteOptions, Checked) -> Result<(), StartError>,
) -> ExitCode {
    log_to_stderr(LogLevel::Warn);
    let route = relays.route(tcp_form);
    // Authorities that cannot be read are a wrong argument; the system's may be missing for reasons of its own.
    if let Trust::File(_) = route.trust
        && let Err(error) = client_config(&ClientTls::new(route.trust.clone()))
    {
        return fail(USAGE, &error.to_string());
    }
    let checked = match client_settings() {
        Ok(mut checked) => {
            checked.upstream.head_starts = relays.head_start;
            checked
        }
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    match run(route, checked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILURE, &error.to_string()),
    }
}

/// The defaults of a relay fit a client, which listens for no HTTP and has one worker.
fn client_settings() -> Result<Checked, config::LoadError> {
    let mut environment = Environment::new("", NonZeroUsize::MIN, pseudonym());
    environment.dev_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut checked = config::parse("", &environment)?;
    checked.listen.clear();
    Ok(checked)
}

/// `bauta passwd`: nothing of the password is printed or kept.
fn run_passwd(arguments: &PasswdArgs) -> ExitCode {
    let mut line = String::new();
    if io::stdin().is_terminal() {
        eprintln!("password (it is shown as you type):");
    }
    if let Err(error) = io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_line(&mut line)
    {
        return fail(FAILURE, &error.to_string());
    }
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return fail(USAGE, "no password on standard input");
    }
    let mut salt = [0; SALT_LEN];
    match net::random::words() {
        Ok(words) => {
            for (bytes, word) in salt.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
        }
        Err(error) => return fail(FAILURE, &error.to_string()),
    }
    match hash_password(password.as_bytes(), &salt) {
        Ok(hash) => print(&format!("{}:{hash}\n", arguments.user)),
        Err(error) => fail(FAILURE, &error.to_string()),
    }
}

/// Lets log lines of `level` and above out, to standard error; the variable RUST_LOG says otherwise. Colours are for
/// terminals.
fn log_to_stderr(level: LogLevel) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.as_str()));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .init();
}

/// The configuration that the arguments name; in development mode none is needed.
fn configuration(arguments: &RelayArgs) -> Result<Checked, String> {
    let file = arguments.config.as_deref();
    let directory = file.and_then(Path::parent).unwrap_or_else(|| Path::new(""));
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut environment = Environment::new(directory, cores, pseudonym());
    environment.rule = |text| rule_kind(text).map_err(|error| error.problem.to_string());
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
        let trust = Trust::from_options(upstream.ca.clone(), upstream.dangerous_insecure);
        quic_client(client_config(&ClientTls::new(trust))?)?;
    }
    Ok(())
}

/// Reads all files with secrets that the configuration names.
fn load_secrets(checked: &Checked) -> Result<(), SecretsError> {
    if let Some(files) = &checked.auth {
        secrets::load(files)?;
    }
    secrets::load_credentials(checked)?;
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
        let carriers: Vec<_> = listener.carriers.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "listen    {} {} (certificate: {certificate})",
            listener.address,
            carriers.join(" ")
        ));
    }
    lines.extend(
        checked
            .upstream
            .hops
            .iter()
            .map(|hop| format!("next hop  {}", hop.udp)),
    );
    if let Some(ip) = &checked.ip {
        let pools: Vec<_> = ip.pools.iter().map(ToString::to_string).collect();
        lines.push(format!("ip        {} by {}", pools.join(" "), ip.tun));
    }
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
