//! `bauta relay`: an ingress or an egress, until a signal says otherwise.

use std::io::{self, Write};
use std::path::PathBuf;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{self, Surroundings};
use super::threads::{StartError, Workers, control_runtime, resolver};
use crate::config::Checked;
use crate::net::{self, raise_file_limit};
use crate::transport::quic::HubStats;
use crate::transport::tcp::TcpHubStats;
use crate::transport::tls::DevCa;
use crate::worker::build::{BuildError, Plan};
use crate::worker::mailbox::Letter;
use crate::worker::run::{NoApp, Report};
use crate::worker::stats::{self, Stats};

/// Runs a relay until SIGTERM or SIGINT. The first signal drains: GOAWAY, no new tunnels, the end when the last tunnel
/// is gone or the deadline passes. A second one ends it at once.
///
/// Prints `listening on ADDRESS` for every listener to `out`, and a line of counters at the end. With `development`
/// listeners without a certificate get a throw-away one, and `out` learns how a client trusts it.
///
/// # Errors
/// What keeps the relay from starting, or ends it.
pub fn run(checked: Checked, development: bool, out: &mut dyn Write) -> Result<(), StartError> {
    raise_file_limit()?;
    let runtime = control_runtime()?;
    // Signals are ours before anybody can know that the relay runs.
    let mut signals = {
        let _context = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ]
    };
    let ca = if development {
        Some(development_ca(&checked)?)
    } else {
        None
    };
    let mut plan = Plan::new(checked, ca.as_ref().map(|ca| &ca.identity))?;
    let exit = plan.checked().ip.as_ref().zip(plan.tun.clone());
    let changes = match exit.map(|(ip, tun)| Surroundings::new(ip, tun)) {
        Some(surroundings) => Some(runtime.block_on(surroundings.prepare(out))?),
        None => None,
    };
    let outcome = serve(&mut plan, ca.as_ref(), &runtime, &mut signals, out);
    if let Some(changes) = changes {
        runtime.block_on(exit::undo(changes));
    }
    outcome
}

/// From the start of the workers to their end.
fn serve(
    plan: &mut Plan,
    ca: Option<&DevCa>,
    runtime: &Runtime,
    [terminate, interrupt]: &mut [Signal; 2],
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let checked = plan.checked();
    let (pin, drain_limit) = (checked.pin, checked.timeouts.drain);
    let resolver = resolver(checked)?;
    let workers = checked.workers.get();
    let resolves_max = checked.limits.resolves * workers;
    let warnings = checked.warnings.clone();
    // A single worker gains nothing from a pin and loses the choice of an idle core.
    let first_core = (pin && workers > 1).then_some(0);
    let mut threads = Workers::start(plan, "relay", first_core, |_, _, _| {
        Ok::<_, io::Error>(NoApp)
    })?;

    for warning in warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(io = threads.io.driver, reason = %threads.io.reason, workers, "relay started");
    for address in &plan.addresses {
        writeln!(out, "listening on {address}")?;
    }
    if let (Some(ca), Some(address)) = (ca, plan.addresses.first()) {
        let path = write_ca(ca, address.port())?;
        writeln!(out, "ca {}", path.display())?;
        writeln!(
            out,
            "try: bauta udp --via https://{address} --ca {} --listen 127.0.0.1:5353 --target HOST:PORT",
            path.display()
        )?;
    }
    out.flush()?;

    let mut reports = runtime.block_on(async {
        tokio::spawn(threads.answer(resolver, resolves_max));
        let mut reports = Vec::new();
        let mut draining = false;
        while reports.len() < workers {
            tokio::select! {
                outcome = threads.outcomes.recv() => match outcome {
                    Some(outcome) => {
                        reports.push(outcome.map_err(StartError::Worker)?.0);
                        continue;
                    }
                    None => break,
                },
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if draining {
                threads.tell(|| Letter::Stop);
            } else {
                draining = true;
                tracing::info!(
                    ?drain_limit,
                    "draining; a second signal ends the relay at once"
                );
                threads.tell(|| Letter::Drain);
            }
        }
        Ok::<_, StartError>(reports)
    })?;
    reports.sort_unstable_by_key(|report| report.worker);
    writeln!(out, "{}", summary(&reports))?;
    Ok(())
}

/// An authority and a certificate for this machine, and for the addresses that it listens on.
fn development_ca(checked: &Checked) -> Result<DevCa, StartError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates are dated by the wall clock"
    )]
    let now = std::time::SystemTime::now();
    let listeners = checked.listen.iter().map(|listener| listener.address.ip());
    let names: Vec<_> = listeners
        .filter(|address| !address.is_unspecified() && !address.is_loopback())
        .map(|address| address.to_string())
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    Ok(DevCa::new(&names, now).map_err(BuildError::from)?)
}

/// Writes the certificate of the development CA where only its port distinguishes it from another relay's.
fn write_ca(ca: &DevCa, port: u16) -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("bauta-dev-ca-{port}.pem"));
    // Somebody else's file of that name must not be followed or kept.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::File::create_new(&path)?.write_all(ca.ca_pem.as_bytes())?;
    Ok(path)
}

/// One line: what the relay did in its life, every counter by its name, and how many of the connections
/// each worker had.
fn summary(reports: &[Report]) -> String {
    let (mut machine, mut net) = (Stats::default(), net::Stats::default());
    let (mut hub, mut tcp) = (HubStats::default(), TcpHubStats::default());
    for report in reports {
        machine += report.machine;
        hub += report.hub;
        tcp += report.tcp;
        net += report.net;
    }
    let mut line = "summary".to_owned();
    for (name, value) in stats::named(&machine, &hub, &tcp, &net) {
        line.push_str(&format!(" {name}={value}"));
    }
    let by_worker: Vec<_> = reports
        .iter()
        .map(|report| report.hub.connections_opened.to_string())
        .collect();
    line.push_str(&format!(" by_worker={}", by_worker.join(",")));
    line
}
