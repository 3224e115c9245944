//! `bauta demo --tcp`: bytes through one TCP tunnel, both ways at once, every one of them compared.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use serde::Serialize;

use super::{Demo, Relay, Stage, path, settings, stop};
use crate::net::{clock, raise_file_limit};
use crate::program::bulk::{Control, Direction, Load, Progress, Streams, Tallies, Target};
use crate::program::threads::{StartError, Workers};
use crate::worker::build::Plan;
use crate::worker::run::Report;

/// What one relay did.
#[derive(Clone, Debug, Serialize)]
pub struct RelayResult {
    /// `ingress` or `egress`.
    pub role: &'static str,
    /// CPU time of the relay's own threads for 10^9 bytes end to end, in seconds.
    pub cpu_s_per_gigabyte: f64,
    /// CPU time of the relay's own threads divided by the time measured: 1 is one core.
    pub cpu_share: f64,
}

/// The result; with `--json` this is the output.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Version of bauta.
    pub version: &'static str,
    /// Relays on the way.
    pub hops: u8,
    /// Whether the second was nested in the first.
    pub nested: bool,
    /// HTTP version on every hop: `h3`, `h2` or `h1`.
    pub carrier: &'static str,
    /// What watched the sockets.
    pub io: String,
    /// How long was measured, in seconds.
    pub duration_s: f64,
    /// Bytes that reached the target meanwhile.
    pub up_bytes: u64,
    /// Bytes that reached the client meanwhile.
    pub down_bytes: u64,
    /// Both together, in Gbit/s.
    pub gbit_per_s: f64,
    /// The relays, client side first.
    pub relays: Vec<RelayResult>,
}

/// Runs the demonstration of TCP. A line per second goes to `live`.
///
/// # Errors
/// What keeps it from running, in a line; a single byte that is lost or out of place.
pub fn run(demo: &Demo, live: &mut dyn Write) -> Result<Outcome, StartError> {
    raise_file_limit()?;
    let tallies = Tallies::new(1);
    let target = Target::start(([127, 0, 0, 1], 0).into(), Arc::clone(&tallies), || {})?;
    let Stage { mut relays, hops } = Stage::new(demo)?;
    let load = Load {
        target: target.address.into(),
        form: None,
        direction: Direction::Both,
        streams: 1,
        bytes: 0,
    };
    let control = Arc::new(Control::default());
    let (progress, news) = bounded(4);
    let mut plan = Plan::new(settings(demo, "client", NonZeroUsize::MIN, None)?, None)?;
    let app = {
        let (tallies, control) = (Arc::clone(&tallies), Arc::clone(&control));
        move |_, _, _: &mut _| {
            let (tallies, control) = (Arc::clone(&tallies), Arc::clone(&control));
            let ways = std::slice::from_ref(&hops);
            Ok(Streams::new(
                ways,
                load.clone(),
                tallies,
                control,
                progress.clone(),
            ))
        }
    };
    let mut client = Workers::start(&mut plan, "client", None, app)?;

    match news.recv() {
        Ok(Progress::Started) => {}
        Ok(Progress::Failed(text)) => return Err(io::Error::other(text).into()),
        Ok(Progress::Finished) | Err(_) => return Err(early()),
    }
    let before: Vec<_> = relays.iter().map(cpu).collect();
    let began = clock::now();
    watch(demo.duration, &news, &tallies, live)?;
    let measured = clock::now() - began;
    let after: Vec<_> = relays.iter().map(cpu).collect();
    let arrived = tallies.arrived();
    control.stop();
    client.peers.iter().for_each(|peer| peer.wake());
    if client.outcomes.blocking_recv().is_none() {
        return Err(early());
    }
    if let Ok(Progress::Failed(text)) = news.recv() {
        return Err(io::Error::other(text).into());
    }
    stop(&mut relays);
    drop(target);
    if tallies.lost() > 0 || tallies.wrong() > 0 {
        let text = format!(
            "{} bytes were lost, {} pieces are wrong",
            tallies.lost(),
            tallies.wrong()
        );
        return Err(io::Error::other(text).into());
    }

    let (up_bytes, down_bytes) = arrived.first().copied().unwrap_or_default();
    let bytes = (up_bytes + down_bytes) as f64;
    let seconds = measured.as_secs_f64();
    let results = relays.iter().zip(before.iter().zip(&after));
    let results = results.map(|(relay, (before, after))| {
        let cpu = after.saturating_sub(*before).as_secs_f64();
        RelayResult {
            role: relay.role,
            cpu_s_per_gigabyte: if bytes > 0.0 { cpu * 1e9 / bytes } else { 0.0 },
            cpu_share: cpu / seconds,
        }
    });
    Ok(Outcome {
        version: env!("CARGO_PKG_VERSION"),
        hops: demo.hops,
        nested: demo.nested && demo.hops == 2,
        carrier: demo.carrier.as_str(),
        io: client.io.driver.to_owned(),
        duration_s: seconds,
        up_bytes,
        down_bytes,
        gbit_per_s: bytes * 8.0 / seconds / 1e9,
        relays: results.collect(),
    })
}

fn early() -> StartError {
    io::Error::other("the client ended early").into()
}

fn cpu(relay: &Relay) -> Duration {
    let reports: Vec<Report> = relay.workers.reports();
    reports.iter().map(|report| report.cpu).sum()
}

/// A line per second until the time is over.
fn watch(
    duration: Duration,
    news: &Receiver<Progress>,
    tallies: &Tallies,
    live: &mut dyn Write,
) -> Result<(), StartError> {
    let began = clock::now();
    let mut last = (began, (0, 0));
    while last.0 < began + duration {
        let pause = Duration::from_secs(1).min(began + duration - last.0);
        match news.recv_timeout(pause) {
            Ok(Progress::Failed(text)) => return Err(io::Error::other(text).into()),
            Ok(Progress::Finished) | Err(RecvTimeoutError::Disconnected) => return Err(early()),
            Ok(Progress::Started) | Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock::now();
        let (up, down) = tallies.arrived().first().copied().unwrap_or_default();
        let seconds = (now - last.0).as_secs_f64().max(1e-3);
        let rate = |bytes: u64| bytes as f64 * 8.0 / seconds / 1e9;
        writeln!(
            live,
            "{:5.1} s  up {:>6.2} Gbit/s  down {:>6.2} Gbit/s",
            (now - began).as_secs_f64(),
            rate(up - last.1.0),
            rate(down - last.1.1),
        )?;
        last = (now, (up, down));
    }
    Ok(())
}

impl Outcome {
    /// For people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let path = path(self.hops, self.nested);
        writeln!(out, "\n{path}, TCP over {}, {}", self.carrier, self.io)?;
        let rate = |bytes: u64| bytes as f64 * 8.0 / self.duration_s / 1e9;
        writeln!(
            out,
            "  throughput  {:.2} Gbit/s up, {:.2} Gbit/s down, every byte compared",
            rate(self.up_bytes),
            rate(self.down_bytes)
        )?;
        for relay in &self.relays {
            writeln!(
                out,
                "  {:<10}  {:.2} s of CPU per gigabyte, {:.0} % of a core",
                relay.role,
                relay.cpu_s_per_gigabyte,
                relay.cpu_share * 100.0
            )?;
        }
        Ok(())
    }
}
