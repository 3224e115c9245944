//! The sentences and grids that an outcome consists of, for any medium.

use std::collections::BTreeMap;

use super::grid::Grid;
use super::number::{NOTHING, bytes, count, integer, measure, percent};
use crate::outcome::{Outcome, Quantiles};

/// Name of the saturated party when it was client or target.
const GENERATOR: &str = "generator";
/// Name of the saturated party when there was none.
const NONE: &str = "none";

/// Whether figures are per round trip.
pub(crate) fn is_echo(outcome: &Outcome) -> bool {
    // Workloads of several runs put their own name behind it: `echo-sweep`.
    outcome.workload.split('-').next() == Some("echo")
}

/// What is counted: one way or there and back.
fn unit(outcome: &Outcome) -> &'static str {
    if is_echo(outcome) {
        "round trips"
    } else {
        "datagrams"
    }
}

/// First of the two numbers.
pub(crate) fn throughput(outcome: &Outcome) -> String {
    format!(
        "{} {}/s, {} Gbit/s, loss {}",
        integer(outcome.delivered_pps),
        unit(outcome),
        measure(outcome.gbit_per_s),
        percent(outcome.loss),
    )
}

/// Second of the two numbers.
pub(crate) fn latency(outcome: &Outcome) -> String {
    let (name, quantiles) = times(outcome);
    if quantiles.count == 0 {
        return "not measured".to_owned();
    }
    format!(
        "{name} p50 {} us, p99 {} us",
        measure(quantiles.p50),
        measure(quantiles.p99)
    )
}

/// The times that stand for the run: round trips, or one-way times where there are none.
pub(crate) fn times(outcome: &Outcome) -> (&'static str, Quantiles) {
    if outcome.rtt_us.count == 0 && outcome.one_way_us.count > 0 {
        ("one-way", outcome.one_way_us)
    } else {
        ("RTT", outcome.rtt_us)
    }
}

/// What tells the run from others.
pub(crate) fn label(outcome: &Outcome) -> String {
    format!(
        "{} {} {}, {} B, {}",
        outcome.topology,
        outcome.workload,
        outcome.carrier,
        measure(outcome.payload_bytes),
        plural(outcome.tunnels, "tunnel")
    )
}

fn plural(count: u32, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", integer(count.into()))
}

/// Names of the relays by position: their roles, numbered where a role stands more than once.
pub(crate) fn relay_names(outcome: &Outcome) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut name = |role| {
        let number = seen.entry(role).and_modify(|n| *n += 1).or_insert(1);
        let times = outcome.relays.iter().filter(|r| r.role == role).count();
        if times > 1 {
            format!("{role} {number}")
        } else {
            role.to_owned()
        }
    };
    outcome.relays.iter().map(|r| name(&r.role)).collect()
}

/// Names of all relays of several outcomes, each once.
pub(crate) fn all_relay_names<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Vec<String> {
    let mut names = Vec::new();
    for name in outcomes.into_iter().flat_map(relay_names) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// CPU time per datagram of the relay called `name`.
pub(crate) fn relay_cpu(outcome: &Outcome, name: &str) -> Option<f64> {
    let index = relay_names(outcome).iter().position(|n| n == name)?;
    Some(outcome.relays.get(index)?.cpu_us_per_datagram)
}

/// Who was saturated, and what that makes of the figure.
pub(crate) fn verdict(outcome: &Outcome) -> String {
    let rate = format!("{} {}/s", integer(outcome.delivered_pps), unit(outcome));
    let who = &outcome.saturated;
    let sentence = if outcome.is_relay_limit {
        format!("Saturated: {who}. {rate} is the limit of this relay under this load.")
    } else if who == GENERATOR {
        format!(
            "Saturated: the generator. {rate} is a limit of the generator, not of the relay: a relay's limit needs \
             more or faster cores for client and target."
        )
    } else if who == NONE {
        format!("Saturated: nobody. {rate} is what this load came to, not the limit of a relay.")
    } else {
        format!(
            "Saturated: {who}. The run does not show that one relay alone was in the way, so {rate} may not be called \
             a relay's limit."
        )
    };
    if outcome.interrupted {
        format!(
            "{sentence} The run was interrupted after {} s; everything here covers the time until then.",
            measure(outcome.duration_s)
        )
    } else {
        sentence
    }
}

/// Everything of one outcome, in reading order; grids that would be empty are left out.
pub(crate) fn grids(outcome: &Outcome) -> Vec<Grid> {
    let mut grids = vec![
        run(outcome),
        times_grid(outcome),
        beside(outcome),
        hops(outcome),
        parties(outcome),
        drops(outcome),
        points(outcome),
    ];
    grids.retain(|grid| !grid.is_empty());
    grids
}

fn run(outcome: &Outcome) -> Grid {
    let share = if outcome.offered_pps > 0.0 {
        format!(
            " ({} of it)",
            percent(outcome.delivered_pps / outcome.offered_pps)
        )
    } else {
        String::new()
    };
    let late = if outcome.generator.late == 0 {
        String::new()
    } else {
        format!(", {} sent over 1 ms late", count(outcome.generator.late))
    };
    let mut grid = Grid::new("run").text(format!("loadgen {}", outcome.version));
    for (name, value) in [
        ("topology", outcome.topology.clone()),
        ("workload", outcome.workload.clone()),
        ("carrier", outcome.carrier.clone()),
        ("io", outcome.io.clone()),
        (
            "payload",
            format!("{} bytes", measure(outcome.payload_bytes)),
        ),
        (
            "load on",
            format!(
                "{}, {}",
                plural(outcome.tunnels, "tunnel"),
                plural(outcome.connections, "connection")
            ),
        ),
        (
            "measured",
            format!(
                "{} s{}",
                measure(outcome.duration_s),
                if outcome.interrupted {
                    ", interrupted"
                } else {
                    ""
                }
            ),
        ),
        (
            "offered",
            format!("{} {}/s{late}", integer(outcome.offered_pps), unit(outcome)),
        ),
        (
            "delivered",
            format!(
                "{} {}/s{share}",
                integer(outcome.delivered_pps),
                unit(outcome)
            ),
        ),
    ] {
        grid.row([name.to_owned(), value]);
    }
    grid
}

fn times_grid(outcome: &Outcome) -> Grid {
    let mut grid = Grid::new("time, us");
    for head in ["p50", "p90", "p99", "p99.9", "max", "measured"] {
        grid = grid.number(head);
    }
    for (name, times) in [
        ("round trip", outcome.rtt_us),
        ("one way", outcome.one_way_us),
    ] {
        if times.count > 0 {
            let quantiles = [times.p50, times.p90, times.p99, times.p999, times.max];
            let cells = quantiles.map(measure).into_iter();
            grid.row(
                std::iter::once(name.to_owned())
                    .chain(cells)
                    .chain([count(times.count)]),
            );
        }
    }
    grid
}

/// Load of another kind on the same relays.
fn beside(outcome: &Outcome) -> Grid {
    let mut grid = Grid::new("beside");
    for head in [
        "tunnels",
        "offered/s",
        "delivered/s",
        "loss",
        "p50, us",
        "p99, us",
    ] {
        grid = grid.number(head);
    }
    for load in &outcome.beside {
        grid.row([
            load.workload.clone(),
            integer(load.tunnels.into()),
            integer(load.offered_pps),
            integer(load.delivered_pps),
            percent(load.loss),
            time(&load.time_us, load.time_us.p50),
            time(&load.time_us, load.time_us.p99),
        ]);
    }
    grid
}

/// One of `times`, if any were measured.
fn time(times: &Quantiles, us: f64) -> String {
    if times.count == 0 {
        NOTHING.to_owned()
    } else {
        measure(us)
    }
}

fn hops(outcome: &Outcome) -> Grid {
    let mut grid = Grid::new("hop").number("loss");
    for hop in &outcome.loss_per_hop {
        grid.row([format!("{} → {}", hop.from, hop.to), percent(hop.loss)]);
    }
    grid
}

fn parties(outcome: &Outcome) -> Grid {
    let each = unit(outcome).trim_end_matches('s');
    let mut grid = Grid::new("party")
        .number(format!("CPU us/{each}"))
        .number("of a core")
        .number("memory")
        .number("segments/send")
        .number("segments/receive");
    let unknown_if_zero = |value: f64| {
        if value == 0.0 {
            NOTHING.to_owned()
        } else {
            measure(value)
        }
    };
    for (name, relay) in relay_names(outcome).into_iter().zip(&outcome.relays) {
        grid.row([
            name,
            measure(relay.cpu_us_per_datagram),
            percent(relay.cpu_share),
            bytes(relay.rss_bytes),
            unknown_if_zero(relay.segments_per_send),
            unknown_if_zero(relay.segments_per_receive),
        ]);
    }
    grid.row([
        GENERATOR.to_owned(),
        measure(outcome.generator.cpu_us_per_datagram),
        percent(outcome.generator.cpu_share),
        NOTHING.to_owned(),
        NOTHING.to_owned(),
        NOTHING.to_owned(),
    ]);
    grid
}

fn drops(outcome: &Outcome) -> Grid {
    let mut grid = Grid::new("drops by").text("reason").number("datagrams");
    let mut add = |party: &str, drops: &BTreeMap<String, u64>| {
        for (reason, &dropped) in drops.iter().filter(|(_, dropped)| **dropped > 0) {
            grid.row([party.to_owned(), reason.clone(), count(dropped)]);
        }
    };
    for (name, relay) in relay_names(outcome).iter().zip(&outcome.relays) {
        add(name, &relay.drops);
    }
    add("kernel", &outcome.kernel_drops);
    grid
}

/// One row per run of a sweep; what varies besides the load gets a column.
fn points(outcome: &Outcome) -> Grid {
    let points = &outcome.points;
    let relays = all_relay_names(points);
    let vary = Varying::of(points);
    let mut grid = Grid::of_numbers("offered/s");
    if vary.tunnels {
        grid = grid.number("tunnels");
    }
    if vary.payload {
        grid = grid.number("bytes");
    }
    for head in ["delivered/s", "loss", "p50, us", "p99, us"] {
        grid = grid.number(head);
    }
    for name in &relays {
        grid = grid.number(format!("{name} CPU us"));
    }
    grid = grid.text("saturated");
    for point in points {
        let (_, times) = times(point);
        let mut cells = vec![integer(point.offered_pps)];
        if vary.tunnels {
            cells.push(integer(point.tunnels.into()));
        }
        if vary.payload {
            cells.push(measure(point.payload_bytes));
        }
        cells.extend([
            integer(point.delivered_pps),
            percent(point.loss),
            time(&times, times.p50),
            time(&times, times.p99),
        ]);
        cells.extend(
            relays
                .iter()
                .map(|name| relay_cpu(point, name).map_or_else(|| NOTHING.to_owned(), measure)),
        );
        cells.push(point.saturated.clone());
        grid.row(cells);
    }
    grid
}

/// What differs between the points of a sweep besides the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Varying {
    pub(crate) tunnels: bool,
    pub(crate) payload: bool,
}

impl Varying {
    pub(crate) fn of(points: &[Outcome]) -> Self {
        let varies = |value: fn(&Outcome) -> f64| {
            points
                .windows(2)
                .any(|pair| pair.iter().map(value).reduce(|a, b| a - b) != Some(0.0))
        };
        Self {
            tunnels: varies(|point| point.tunnels.into()),
            payload: varies(|point| point.payload_bytes),
        }
    }
}

/// One row per run, for a page with several.
pub(crate) fn runs(outcomes: &[Outcome]) -> Grid {
    let relays = all_relay_names(outcomes);
    let mut grid = Grid::new("run");
    for head in [
        "delivered/s",
        "Gbit/s",
        "loss",
        "p50, us",
        "p99, us",
        "p99.9, us",
    ] {
        grid = grid.number(head);
    }
    for name in &relays {
        grid = grid.number(format!("{name} CPU us"));
    }
    grid = grid.text("saturated");
    for (number, outcome) in (1_u32..).zip(outcomes) {
        let (_, times) = times(outcome);
        let mut cells = vec![
            format!("{number}: {}", label(outcome)),
            integer(outcome.delivered_pps),
            measure(outcome.gbit_per_s),
            percent(outcome.loss),
        ];
        cells.extend([times.p50, times.p99, times.p999].map(|us| time(&times, us)));
        cells.extend(
            relays
                .iter()
                .map(|name| relay_cpu(outcome, name).map_or_else(|| NOTHING.to_owned(), measure)),
        );
        cells.push(outcome.saturated.clone());
        grid.row(cells);
    }
    grid
}
