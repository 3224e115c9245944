//! `bauta demo`: target, egress, ingress and client on this machine, over real sockets and real TLS.
//!
//! ```text
//!   client ─── h3 ──► ingress ─── h3 ──► egress ─── UDP ──► target        chained: the ingress asks the egress
//!      └───────────── h3 inside the tunnel ──►┘                           nested: the client does
//! ```
//!
//! Every hop is on the carrier that was asked for, h3 by default; TCP in place of UDP is in [`tcp`].

pub mod tcp;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use serde::Serialize;

use super::generator::{Generator, Load, Progress};
use super::target::{Counters, Target};
use super::threads::{StartError, Workers, io_choice};
use crate::client::Hop;
use crate::config::{self, Checked, Environment, Io};
use crate::net::clock;
use crate::net::raise_file_limit;
use crate::transport::tls::{DevCa, Trust};
use crate::wire::carrier::Carrier;
use crate::wire::template::RelayTemplates;
use crate::worker::build::{BuildError, Plan, RouteOptions, hops};
use crate::worker::mailbox::Letter;
use crate::worker::run::{NoApp, Report};

/// What to demonstrate.
#[derive(Clone, Debug)]
pub struct Demo {
    /// How long to send.
    pub duration: Duration,
    /// Relays on the way: 1 or 2.
    pub hops: u8,
    /// Whether the client opens the second hop itself, inside the first.
    pub nested: bool,
    /// HTTP version on every hop.
    pub carrier: Carrier,
    /// Bytes of each payload.
    pub size: u16,
    /// Datagrams per second; as many as the path carries if `None`.
    pub rate: Option<u32>,
    /// Workers of each relay.
    pub workers: NonZeroUsize,
    /// How workers wait for sockets.
    pub io: Io,
}

/// Round-trip times of the probe, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RoundTrip {
    /// Median.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// 999 of 1000 were faster.
    pub p999: f64,
}

/// What one relay did.
#[derive(Clone, Debug, Serialize)]
pub struct RelayResult {
    /// `ingress` or `egress`.
    pub role: &'static str,
    /// CPU time of the relay's own threads, divided by the datagrams that it relayed (by those that reached the target,
    /// where the relay only saw bytes), in nanoseconds.
    pub cpu_ns_per_datagram: f64,
    /// Datagrams relayed, both directions.
    pub datagrams: u64,
    /// UDP datagrams per send call.
    pub segments_per_send: f64,
    /// UDP datagrams per receive call that found something.
    pub segments_per_receive: f64,
    /// Datagrams that it dropped, for whatever reason.
    pub dropped: u64,
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
    /// How long data was sent, in seconds.
    pub duration_s: f64,
    /// Bytes of each payload.
    pub payload_bytes: u16,
    /// Datagrams given to the first tunnel.
    pub sent: u64,
    /// Datagrams that reached the target.
    pub delivered: u64,
    /// Share of those sent that did not, 0 to 1.
    pub loss: f64,
    /// Datagrams delivered per second.
    pub delivered_pps: f64,
    /// Payload delivered, in Gbit/s.
    pub gbit_per_s: f64,
    /// The probe.
    pub rtt_us: RoundTrip,
    /// The relays, client side first.
    pub relays: Vec<RelayResult>,
}

struct Relay {
    role: &'static str,
    workers: Workers<NoApp>,
    address: SocketAddr,
    before: Vec<Report>,
}

/// Runs the demonstration of UDP. A line per second goes to `live`.
///
/// # Errors
/// What keeps it from running, in a line.
pub fn run(demo: &Demo, live: &mut dyn Write) -> Result<Outcome, StartError> {
    raise_file_limit()?;
    let target = Target::bind()?;
    let (address, counters) = (target.address, Arc::clone(&target.counters));
    let (ready, started) = bounded(1);
    let io = io_choice(demo.io);
    let serve = move || {
        target.run(io, move |waker| {
            // The demo waits for it.
            drop(ready.send(waker));
        })
    };
    let target_thread = thread::Builder::new()
        .name("target".to_owned())
        .spawn(serve)?;
    let Ok(target_waker) = started.recv() else {
        let reason = match target_thread.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("the target did not start"),
        };
        return Err(StartError::Worker(reason));
    };

    let Stage { mut relays, hops } = Stage::new(demo)?;
    let sent = Arc::new(AtomicU64::new(0));
    let load = Load {
        target: address.into(),
        size: demo.size.into(),
        rate: demo.rate,
        duration: demo.duration,
    };
    let (progress, news) = bounded(4);
    let mut plan = Plan::new(settings(demo, "client", NonZeroUsize::MIN, None)?, None)?;
    plan.set_hops(hops);
    let count = Arc::clone(&sent);
    let mut client = Workers::start(&mut plan, "client", None, move |_, hop, _| {
        let hop = hop.expect("the client has a route");
        Ok(Generator::new(
            hop,
            load.clone(),
            progress.clone(),
            Arc::clone(&count),
        ))
    })?;

    wait_for_start(&news)?;
    for relay in &mut relays {
        relay.before = relay.workers.reports();
    }
    let began = clock::now();
    watch(demo, &news, &sent, &counters, live)?;
    let (_, generator) = match client.outcomes.blocking_recv() {
        Some(outcome) => outcome.map_err(StartError::Worker)?,
        None => {
            return Err(StartError::Worker(io::Error::other(
                "the client ended early",
            )));
        }
    };
    let measured = demo.duration.min(clock::now() - began);
    let delivered = counters.delivered.load(Ordering::Relaxed);
    let results = relays
        .iter()
        .map(|relay| relay_result(relay, delivered))
        .collect();

    counters.stop.store(true, Ordering::Relaxed);
    target_waker.wake();
    stop(&mut relays);
    if let Ok(ended) = target_thread.join() {
        ended?;
    }

    let (sent, delivered) = (
        sent.load(Ordering::Relaxed),
        counters.delivered.load(Ordering::Relaxed),
    );
    let seconds = measured.as_secs_f64();
    let quantile = |q| generator.round_trips.value_at_quantile(q) as f64 / 1_000.0;
    Ok(Outcome {
        version: env!("CARGO_PKG_VERSION"),
        hops: demo.hops,
        nested: demo.nested && demo.hops == 2,
        carrier: demo.carrier.as_str(),
        io: client.io.driver.to_owned(),
        duration_s: seconds,
        payload_bytes: demo.size,
        sent,
        delivered,
        loss: if sent == 0 {
            0.0
        } else {
            1.0 - delivered.min(sent) as f64 / sent as f64
        },
        delivered_pps: delivered as f64 / seconds,
        gbit_per_s: counters.bytes.load(Ordering::Relaxed) as f64 * 8.0 / seconds / 1e9,
        rtt_us: RoundTrip {
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
        },
        relays: results,
    })
}

/// What stands between client and target.
struct Stage {
    /// Client side first.
    relays: Vec<Relay>,
    /// The client's way through them.
    hops: Vec<Hop>,
}

impl Stage {
    /// Starts the relays, the last first, because the others point to it.
    fn new(demo: &Demo) -> Result<Self, StartError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates are dated by the wall clock"
        )]
        let today = std::time::SystemTime::now();
        let ca = DevCa::new(&[], today).map_err(BuildError::from)?;
        let trust = Trust::Pem(ca.ca_pem.clone());
        let mut relays = vec![start_relay(demo, "egress", &ca, None)?];
        let egress = url(relays[0].address)?;
        if demo.hops == 2 {
            let upstream = (!demo.nested).then(|| (vec![egress.clone()], trust.clone()));
            relays.insert(0, start_relay(demo, "ingress", &ca, upstream)?);
        }
        let first = url(relays[0].address)?;
        let via = if demo.nested && demo.hops == 2 {
            vec![first, egress]
        } else {
            vec![first]
        };
        let hops = hops(route(demo, via, trust))?;
        Ok(Self { relays, hops })
    }
}

/// Ends relays and waits until they have ended.
fn stop(relays: &mut [Relay]) {
    for relay in relays {
        relay.workers.tell(|| Letter::Stop);
        while relay.workers.outcomes.blocking_recv().is_some() {}
    }
}

fn start_relay(
    demo: &Demo,
    role: &'static str,
    ca: &DevCa,
    upstream: Option<(Vec<RelayTemplates>, Trust)>,
) -> Result<Relay, StartError> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let checked = settings(demo, role, demo.workers, Some(listen))?;
    let mut plan = Plan::new(checked, Some(&ca.identity))?;
    if let Some((via, trust)) = upstream {
        plan.set_hops(hops(route(demo, via, trust))?);
    }
    let address = plan.addresses[0];
    let workers = Workers::start(&mut plan, role, None, |_, _, _| Ok::<_, io::Error>(NoApp))?;
    Ok(Relay {
        role,
        workers,
        address,
        before: Vec::new(),
    })
}

/// A configuration that differs from the defaults in what the demo needs: targets on this machine, no pinning.
fn settings(
    demo: &Demo,
    role: &str,
    workers: NonZeroUsize,
    listen: Option<SocketAddr>,
) -> Result<Checked, StartError> {
    let mut environment = Environment::new("", workers, format!("{role}-{}", std::process::id()));
    environment.dev_listen = Some(listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))));
    let text = "pin = false\n[policy]\nallow = [\"127.0.0.0/8\"]\n";
    let mut checked =
        config::parse(text, &environment).map_err(|error| io::Error::other(error.to_string()))?;
    checked.io = demo.io;
    checked.workers = workers;
    if listen.is_none() {
        checked.listen.clear();
    }
    Ok(checked)
}

/// The way through these relays, on the carrier that is demonstrated.
fn route(demo: &Demo, via: Vec<RelayTemplates>, trust: Trust) -> RouteOptions {
    RouteOptions {
        carriers: vec![demo.carrier],
        ..RouteOptions::new(via, trust)
    }
}

fn url(address: SocketAddr) -> Result<RelayTemplates, StartError> {
    let templates = RelayTemplates::from_relay_url(&format!("https://{address}"));
    Ok(templates.map_err(BuildError::from)?)
}

fn wait_for_start(news: &Receiver<Progress>) -> Result<(), StartError> {
    match news.recv() {
        Ok(Progress::Started) => Ok(()),
        Ok(Progress::Failed(text)) => Err(io::Error::other(text).into()),
        Err(_) => Err(io::Error::other("the client ended before it began").into()),
    }
}

/// A line per second until the time is over.
fn watch(
    demo: &Demo,
    news: &Receiver<Progress>,
    sent: &AtomicU64,
    counters: &Counters,
    live: &mut dyn Write,
) -> Result<(), StartError> {
    let began = clock::now();
    let mut last = (began, 0);
    while last.0 < began + demo.duration {
        let pause = Duration::from_secs(1).min(began + demo.duration - last.0);
        match news.recv_timeout(pause) {
            Ok(Progress::Failed(text)) => return Err(io::Error::other(text).into()),
            Ok(Progress::Started)
            | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let now = clock::now();
        let delivered = counters.delivered.load(Ordering::Relaxed);
        let seconds = (now - last.0).as_secs_f64().max(1e-3);
        let rate = (delivered - last.1) as f64 / seconds;
        writeln!(
            live,
            "{:5.1} s  {:>9.0} datagrams/s  {:>6.2} Gbit/s  sent {}  delivered {delivered}",
            (now - began).as_secs_f64(),
            rate,
            rate * f64::from(demo.size) * 8.0 / 1e9,
            sent.load(Ordering::Relaxed),
        )?;
        last = (now, delivered);
    }
    Ok(())
}

/// `delivered` stands in for the datagrams of a relay that saw none, because a nested hop over TCP hides them in bytes.
fn relay_result(relay: &Relay, delivered: u64) -> RelayResult {
    let after = relay.workers.reports();
    let sum = |value: &dyn Fn(&Report) -> u64| -> u64 {
        let total = |reports: &[Report]| reports.iter().map(value).sum::<u64>();
        total(&after) - total(&relay.before)
    };
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let datagrams =
        sum(&|report| report.machine.upstream_datagrams + report.machine.downstream_datagrams);
    let cpu = sum(&|report| report.cpu.as_nanos() as u64);
    RelayResult {
        role: relay.role,
        cpu_ns_per_datagram: ratio(cpu, if datagrams == 0 { delivered } else { datagrams }),
        datagrams,
        segments_per_send: ratio(sum(&|r| r.net.sent_datagrams), sum(&|r| r.net.send_calls)),
        segments_per_receive: ratio(
            sum(&|r| r.net.received_datagrams),
            sum(&|r| r.net.receive_calls),
        ),
        dropped: sum(&|report| {
            let (hub, tcp) = (&report.hub, &report.tcp);
            hub.dropped_queue_full
                + hub.dropped_too_large
                + hub.dropped_unroutable
                + hub.dropped_stream_blocked
                + hub.dropped_closed
                + tcp.tcp_dropped_queue_full
                + tcp.tcp_dropped_too_large
                + tcp.tcp_dropped_closed
                + report.machine.dropped_early
                + report.machine.dropped_context
        }),
    }
}

/// The way of the demo, for people.
fn path(hops: u8, nested: bool) -> &'static str {
    match (hops, nested) {
        (1, _) => "client → relay → target",
        (_, false) => "client → ingress → egress → target",
        (_, true) => "client → ingress → egress → target, nested",
    }
}

impl Outcome {
    /// For people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let path = path(self.hops, self.nested);
        writeln!(
            out,
            "\n{path}, {}, {} bytes, {}",
            self.carrier, self.payload_bytes, self.io
        )?;
        writeln!(
            out,
            "  throughput  {:.0} datagrams/s, {:.2} Gbit/s, loss {:.3} %",
            self.delivered_pps,
            self.gbit_per_s,
            self.loss * 100.0
        )?;
        let RoundTrip { p50, p99, p999 } = self.rtt_us;
        writeln!(
            out,
            "  round trip  p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us, under this load"
        )?;
        for relay in &self.relays {
            writeln!(
                out,
                "  {:<10}  {:.2} us of CPU per datagram, {:.1} segments per send, {:.1} per receive, {} dropped",
                relay.role,
                relay.cpu_ns_per_datagram / 1_000.0,
                relay.segments_per_send,
                relay.segments_per_receive,
                relay.dropped
            )?;
        }
        Ok(())
    }
}
