//! Outcomes made by hand, for tests.

use std::collections::BTreeMap;

use crate::outcome::{
    Beside, Generator, HopLoss, Outcome, QuantilePoint, Quantiles, Relay, Sample,
};

fn drops<const N: usize>(drops: [(&str, u64); N]) -> BTreeMap<String, u64> {
    drops
        .into_iter()
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}

fn relay(role: &str, cpu_us_per_datagram: f64) -> Relay {
    Relay {
        role: role.to_owned(),
        cpu_us_per_datagram,
        cpu_share: 0.887,
        rss_bytes: 31_234_567,
        segments_per_send: 19.2,
        segments_per_receive: 13.1,
        drops: BTreeMap::new(),
    }
}

/// Ten seconds of the canonical workload, with a stall in the fifth.
pub(crate) fn chain() -> Outcome {
    let mut ingress = relay("ingress", 3.43);
    ingress.drops = drops([("queue_full", 1_234), ("oversize", 2)]);
    let hop = |from: &str, to: &str, loss| HopLoss {
        from: from.to_owned(),
        to: to.to_owned(),
        loss,
    };
    let rtt_us = Quantiles {
        p50: 219.4,
        p90: 402.0,
        p99: 1_322.5,
        p999: 4_810.0,
        max: 21_791.0,
        count: 10_000,
    };
    Outcome {
        version: "0.1.0".to_owned(),
        machine: Default::default(),
        topology: "chain".to_owned(),
        workload: "up".to_owned(),
        carrier: "h3".to_owned(),
        payload_bytes: 1_200.0,
        tunnels: 1,
        connections: 1,
        io: "uring".to_owned(),
        duration_s: 10.0,
        interrupted: false,
        offered_pps: 200_123.0,
        delivered_pps: 199_999.6,
        gbit_per_s: 1.92,
        loss: 0.000_62,
        loss_per_hop: vec![
            hop("client", "ingress", 0.0),
            hop("ingress", "egress", 0.000_62),
            hop("egress", "target", 0.0),
        ],
        rtt_us,
        one_way_us: Quantiles {
            p50: 120.0,
            count: 1_999_996,
            ..rtt_us
        },
        relays: vec![ingress, relay("egress", 2.25)],
        generator: Generator {
            cpu_us_per_datagram: 1.1,
            cpu_share: 0.61,
            late: 12,
        },
        kernel_drops: drops([("RcvbufErrors", 77)]),
        saturated: "core 0 (ingress)".to_owned(),
        is_relay_limit: true,
        series: (1..=10).map(second).collect(),
        distribution: distribution(219.4),
        beside: Vec::new(),
        points: Vec::new(),
    }
}

fn second(at: u32) -> Sample {
    let stalled = at == 5;
    Sample {
        at_s: at.into(),
        delivered_pps: if stalled {
            61_000.0
        } else {
            200_000.0 + f64::from(at * 7_919 % 9_000)
        },
        p50_us: 200.0 + f64::from(at * 37 % 50),
        p99_us: if stalled { 19_000.0 } else { 900.0 },
        max_us: if stalled { 21_791.0 } else { 1_900.0 },
        rss_bytes: 62_000_000 + u64::from(at) * 20_000,
    }
}

/// A long tail on top of `p50` us.
fn distribution(p50: f64) -> Vec<QuantilePoint> {
    let tail = (0..=50_i32).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 10.0));
    tail.chain([1.0])
        .map(|quantile| {
            let distance = (1.0 - quantile).max(1e-5);
            QuantilePoint {
                quantile,
                us: p50 * 0.6 * distance.powf(-0.4),
            }
        })
        .collect()
}

/// The same over one hop, twice as fast.
pub(crate) fn hop() -> Outcome {
    let mut outcome = chain();
    outcome.topology = "hop".to_owned();
    outcome.delivered_pps = 332_000.0;
    outcome.relays.remove(0);
    outcome.loss_per_hop.remove(0);
    outcome.distribution = distribution(90.0);
    outcome.saturated = "generator".to_owned();
    outcome.is_relay_limit = false;
    for sample in &mut outcome.series {
        sample.delivered_pps *= 1.66;
        sample.p50_us *= 0.4;
        sample.p99_us *= 0.3;
    }
    outcome
}

/// 99 slow tunnels beside a flooding one.
pub(crate) fn fairness() -> Outcome {
    let mut outcome = chain();
    outcome.workload = "fairness".to_owned();
    outcome.beside = vec![Beside {
        workload: "echo".to_owned(),
        tunnels: 99,
        offered_pps: 1_980.0,
        delivered_pps: 1_979.9,
        loss: 0.0,
        time_us: outcome.rtt_us,
    }];
    outcome
}

/// A sweep over the load, up to twice what the relay can.
pub(crate) fn sweep() -> Outcome {
    let mut outcome = chain();
    outcome.points = (1..=8_u32)
        .map(|step| {
            let mut point = chain();
            let load = f64::from(step) / 5.0;
            point.offered_pps = 50_000.0 * f64::from(step);
            point.delivered_pps = point.offered_pps.min(250_000.0);
            point.loss = 1.0 - point.delivered_pps / point.offered_pps;
            point.rtt_us.p50 = 180.0 / (1.05 - load.min(1.0));
            point.rtt_us.p99 = point.rtt_us.p50 * 4.0;
            point.rtt_us.p999 = point.rtt_us.p50 * 9.0;
            point.saturated = if load < 1.0 { "none" } else { "ingress" }.to_owned();
            point.is_relay_limit = load >= 1.0;
            point.series.clear();
            point.distribution.clear();
            point
        })
        .collect();
    outcome
}

/// Ended before anything was measured: every figure is zero, every list empty.
pub(crate) fn nothing() -> Outcome {
    let mut outcome = chain();
    outcome.duration_s = 0.0;
    outcome.interrupted = true;
    outcome.offered_pps = 0.0;
    outcome.delivered_pps = 0.0;
    outcome.gbit_per_s = 0.0;
    outcome.loss = 0.0;
    outcome.loss_per_hop.clear();
    outcome.rtt_us = Quantiles::default();
    outcome.one_way_us = Quantiles::default();
    outcome.relays.clear();
    outcome.generator = Generator::default();
    outcome.kernel_drops.clear();
    outcome.saturated = "none".to_owned();
    outcome.is_relay_limit = false;
    outcome.series.clear();
    outcome.distribution.clear();
    outcome
}
