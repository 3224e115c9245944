//! From what was measured to what is said: ratios, losses, and who was at the limit.

use hdrhistogram::Histogram;

use crate::engine::{Direction, Group, Pace, Record};
use crate::machine::Machine;
use crate::outcome::{
    Beside, Generator, HopLoss, Outcome, QuantilePoint, Quantiles, Relay, Sample,
};
use crate::process::difference;
use crate::run::{Measured, Party, Plans, Topology};

/// From this share of a core on, whoever runs on it has no more to give. The rest is what the scheduler, and on a
/// virtual machine its host, take away.
const SATURATED: f64 = 0.92;

/// Puts a run into words.
pub(crate) fn outcome(plans: &Plans, measured: &Measured) -> Outcome {
    let seconds = measured.duration.as_secs_f64().max(1e-9);
    let main = &measured.records[0];
    let echo = plans.groups[0].direction == Direction::Echo;
    let delivered_all: u64 = measured.records.iter().map(|record| record.delivered).sum();
    let per_datagram = |cpu_s: f64| ratio(cpu_s * 1e6, delivered_all as f64);
    let relays: Vec<_> = measured
        .parties
        .iter()
        .map(|party| relay(party, seconds, &per_datagram))
        .collect();
    let busy = measured.effort.busy.as_secs_f64();
    let share = measured.effort.share;
    // Round trips: of the load itself, or of a probe beside it.
    let probe = if echo {
        Some(main)
    } else {
        measured.records.get(1)
    };
    let times = probe.unwrap_or(main);
    let shares: Vec<_> = relays.iter().map(|relay| relay.cpu_share).collect();
    let saturated = saturated(plans, measured, &shares, share);
    // How a process that is not ours spreads its work over threads is not known, so neither is its limit.
    let is_relay_limit =
        plans.running.is_none() && relays.iter().any(|relay| relay.role == saturated);
    Outcome {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: Machine::look(),
        topology: match &plans.running {
            Some(_) => "running".to_owned(),
            None => plans.topology.name().to_owned(),
        },
        workload: plans.workload.clone(),
        carrier: match is_plain(plans) {
            true => "udp",
            false => plans.carrier.as_str(),
        }
        .to_owned(),
        payload_bytes: plans.groups[0].payload.mean_bytes(),
        tunnels: plans.groups[0].flows,
        connections: plans.connections,
        io: measured.io.clone(),
        duration_s: seconds,
        stolen: measured.stolen,
        interrupted: measured.interrupted,
        offered_pps: offered(&plans.groups[0], main, seconds),
        delivered_pps: main.delivered as f64 / seconds,
        gbit_per_s: main.delivered_bytes as f64 * 8.0 / seconds / 1e9,
        loss: lost(main.arrived, main.sent),
        loss_per_hop: loss_per_hop(plans, measured),
        rtt_us: probe.map_or_else(Quantiles::default, |record| quantiles(&record.times)),
        one_way_us: if echo {
            Quantiles::default()
        } else {
            quantiles(&main.times)
        },
        relays,
        generator: Generator {
            cpu_us_per_datagram: per_datagram(busy),
            cpu_share: share,
            late: main.late,
        },
        kernel_drops: measured.kernel_drops.clone(),
        saturated,
        is_relay_limit,
        series: series(main, times, &measured.rss_bytes),
        distribution: distribution(&times.times),
        beside: plans
            .groups
            .iter()
            .zip(&measured.records)
            .skip(1)
            .map(|(group, record)| beside(group, record, seconds))
            .collect(),
        points: Vec::new(),
    }
}

/// Whether no relay is on the way.
fn is_plain(plans: &Plans) -> bool {
    plans.running.is_none() && matches!(plans.topology, Topology::Direct | Topology::Forwarder)
}

/// `a / b`, and 0 for nothing.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// What the schedule wanted sent per second.
fn offered(group: &Group, record: &Record, seconds: f64) -> f64 {
    match group.pace {
        Pace::Rate(rate) => rate,
        Pace::Window(_) => record.sent as f64 / seconds,
    }
}

fn beside(group: &Group, record: &Record, seconds: f64) -> Beside {
    Beside {
        workload: group.direction.name().to_owned(),
        tunnels: group.flows,
        offered_pps: offered(group, record, seconds),
        delivered_pps: record.delivered as f64 / seconds,
        loss: lost(record.arrived, record.sent),
        time_us: quantiles(&record.times),
    }
}

fn lost(arrived: u64, sent: u64) -> f64 {
    ratio(sent.saturating_sub(arrived) as f64, sent as f64)
}

fn relay(party: &Party, seconds: f64, per_datagram: &impl Fn(f64) -> f64) -> Relay {
    let cpu = party
        .after
        .cpu
        .saturating_sub(party.before.cpu)
        .as_secs_f64();
    let between = party.after.at.zip(party.before.at);
    let between = between.map(|(after, before)| (after - before).as_secs_f64());
    let counters = difference(&party.after.counters, &party.before.counters);
    let of = |name: &str| counters.get(name).copied().unwrap_or(0) as f64;
    let last = difference(&party.last, &party.before.counters);
    Relay {
        role: party.role.clone(),
        cpu_us_per_datagram: per_datagram(cpu),
        cpu_share: cpu / between.unwrap_or(seconds),
        rss_bytes: party.rss_bytes,
        segments_per_send: ratio(of("sent_datagrams"), of("send_calls")),
        segments_per_receive: ratio(
            of("received_datagrams"),
            of("receive_calls") - of("receive_empty"),
        ),
        drops: last.into_iter().filter(|(name, _)| is_drop(name)).collect(),
    }
}

/// Whether a counter of a relay is of something that did not arrive.
pub(crate) fn is_drop(name: &str) -> bool {
    // Those of TCP carriers and of IP tunnels have a word in front.
    name.contains("dropped_")
        || name == "truncated"
        || (name.starts_with("send_") && name != "send_calls")
}

/// Losses from neighbour to neighbour, each way that carries load.
fn loss_per_hop(plans: &Plans, measured: &Measured) -> Vec<HopLoss> {
    let ends = &measured.ends;
    let counted = |party: &Party, name: &str| party.last.get(name).copied().unwrap_or(0);
    let counts = |party: &&Party| party.last.contains_key("upstream_datagrams");
    let ours = || measured.parties.iter().filter(counts);
    let mut up = vec![("client", ends.client_sent)];
    up.extend(ours().map(|party| (party.role.as_str(), counted(party, "upstream_datagrams"))));
    up.push(("target", ends.target_received));
    let mut down = vec![("client", ends.client_received)];
    down.extend(ours().map(|party| (party.role.as_str(), counted(party, "downstream_datagrams"))));
    down.push(("target", ends.target_sent));
    down.reverse();
    // The datagrams of the tunnel that carries a nested connection are packets of that connection, not payloads.
    if plans.topology == Topology::Nested {
        up.retain(|(role, _)| *role != "ingress");
        down.retain(|(role, _)| *role != "ingress");
    }
    let mut losses = Vec::new();
    let (upwards, downwards) = match plans.groups[0].direction {
        Direction::Up => (true, false),
        Direction::Down => (false, true),
        Direction::Echo => (true, true),
    };
    for (way, wanted) in [(up, upwards), (down, downwards)] {
        for pair in way.windows(2).filter(|_| wanted) {
            if let [(from, sent), (to, got)] = pair {
                losses.push(HopLoss {
                    from: (*from).to_owned(),
                    to: (*to).to_owned(),
                    loss: lost(*got, *sent),
                });
            }
        }
    }
    losses
}

/// Who had no more to give: `shares` are those that each relay had of a core.
pub(crate) fn saturated(
    plans: &Plans,
    measured: &Measured,
    shares: &[f64],
    generator: f64,
) -> String {
    let workers = plans.workers.get() as f64;
    let parties = || measured.parties.iter().zip(shares);
    let full = parties().filter(|(_, share)| **share / workers >= SATURATED);
    let mut full: Vec<_> = full.map(|(party, _)| party.role.clone()).collect();
    if generator >= SATURATED {
        full.push("generator".to_owned());
    }
    // Those who share a core may have nothing left though none of them fills it.
    if let Some(core) = measured.engine_core {
        let sharing = || parties().filter(|(party, _)| party.core == Some(core));
        let sum: f64 = generator + sharing().map(|(_, share)| share).sum::<f64>();
        if sum >= SATURATED && sharing().next().is_some() {
            let roles: Vec<_> = sharing().map(|(party, _)| party.role.as_str()).collect();
            full.push(format!("core {core} ({}, generator)", roles.join(", ")));
        }
    }
    if full.is_empty() {
        return "none".to_owned();
    }
    full.join(" and ")
}

/// The quantiles of times in nanoseconds.
pub(crate) fn quantiles(times: &Histogram<u64>) -> Quantiles {
    if times.is_empty() {
        return Quantiles::default();
    }
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    Quantiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: times.max() as f64 / 1_000.0,
        count: times.len(),
    }
}

fn distribution(times: &Histogram<u64>) -> Vec<QuantilePoint> {
    if times.is_empty() {
        return Vec::new();
    }
    times
        .iter_quantiles(2)
        .map(|step| QuantilePoint {
            quantile: step.quantile_iterated_to(),
            us: step.value_iterated_to() as f64 / 1_000.0,
        })
        .collect()
}

fn series(main: &Record, times: &Record, rss_bytes: &[u64]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (index, slice) in main.slices.iter().enumerate() {
        // The last one is not over.
        let Some(next) = main.slices.get(index + 1) else {
            break;
        };
        let length = (next.start - slice.start).as_secs_f64();
        let times = times.slices.get(index).map(|slice| quantiles(&slice.times));
        let times = times.unwrap_or_default();
        samples.push(Sample {
            at_s: (next.start - main.slices[0].start).as_secs_f64(),
            delivered_pps: slice.delivered as f64 / length,
            p50_us: times.p50,
            p99_us: times.p99,
            max_us: times.max,
            rss_bytes: rss_bytes.get(index).copied().unwrap_or(0),
        });
    }
    samples
}
