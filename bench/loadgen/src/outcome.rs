//! What a run found out: the one JSON object that `--json` prints, and what tables, charts and comparisons are made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The result of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Version of bauta.
    pub(crate) version: String,
    /// Where it was measured.
    #[serde(default)]
    pub(crate) machine: Machine,
    /// `direct`, `forwarder`, `hop`, `chain` or `nested`.
    pub(crate) topology: String,
    /// `up`, `down`, `echo`, or the name of a workload of its own.
    pub(crate) workload: String,
    /// HTTP version under the tunnels; `udp` where there are none.
    pub(crate) carrier: String,
    /// UDP payload, in bytes; the mean of a mix.
    pub(crate) payload_bytes: f64,
    /// Tunnels that carry load, and the connections under them.
    pub(crate) tunnels: u32,
    pub(crate) connections: u32,
    /// What watched the sockets of the relays: `io_uring` or `epoll`; `unknown` for relays that are not ours, empty
    /// without any.
    pub(crate) io: String,
    /// How long was measured, after the warm-up.
    pub(crate) duration_s: f64,
    /// Share of all cores' time that the host of a virtual machine gave to others meanwhile, 0 to 1: beyond some per
    /// cent the figures say little.
    #[serde(default)]
    pub(crate) stolen: f64,
    /// Ended by Ctrl-C; everything here covers the time until then.
    pub(crate) interrupted: bool,
    /// Datagrams per second that the schedule wanted sent; with a window, those that were sent.
    pub(crate) offered_pps: f64,
    /// Datagrams per second that arrived; round trips for `echo`.
    pub(crate) delivered_pps: f64,
    /// UDP payload that arrived.
    pub(crate) gbit_per_s: f64,
    /// Share of the datagrams sent that did not arrive, 0 to 1.
    pub(crate) loss: f64,
    /// Losses between two neighbours on the way of the datagrams, in their direction.
    pub(crate) loss_per_hop: Vec<HopLoss>,
    /// Round trips, measured from the time at which the schedule wanted each datagram sent; of `up` and `down` those
    /// of a slow probe on a tunnel of its own.
    pub(crate) rtt_us: Quantiles,
    /// One way, from the time at which the schedule wanted each datagram sent.
    pub(crate) one_way_us: Quantiles,
    /// The relays, client side first.
    pub(crate) relays: Vec<Relay>,
    /// Client and target.
    pub(crate) generator: Generator,
    /// UDP drops of the whole network namespace, by the kernel's names.
    pub(crate) kernel_drops: BTreeMap<String, u64>,
    /// What had no more to give: `none`, `generator`, a role, or `core N (roles)` where several share one core.
    pub(crate) saturated: String,
    /// Whether `delivered_pps` may be called the limit of a relay.
    pub(crate) is_relay_limit: bool,
    /// One entry per second or so.
    pub(crate) series: Vec<Sample>,
    /// Quantiles of the round trips (of the one-way times where there are none), for charts.
    pub(crate) distribution: Vec<QuantilePoint>,
    /// Load of another kind that ran beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) beside: Vec<Beside>,
    /// The runs that a sweep or a curve consists of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) points: Vec<Self>,
}

impl Outcome {
    /// The same with these points.
    pub(crate) fn with_points(self, points: Vec<Self>) -> Self {
        Self { points, ..self }
    }
}

/// Quantiles in microseconds; all zero when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// How many were measured.
    pub(crate) count: u64,
}

/// Load that ran beside the one that the result is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Beside {
    pub(crate) workload: String,
    pub(crate) tunnels: u32,
    pub(crate) offered_pps: f64,
    pub(crate) delivered_pps: f64,
    pub(crate) loss: f64,
    /// Round trips of `echo`, one way of the others.
    pub(crate) time_us: Quantiles,
}

/// Loss between two parties.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HopLoss {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Share of what `from` sent that `to` did not get, 0 to 1.
    pub(crate) loss: f64,
}

/// What one relay process did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Relay {
    /// `ingress`, `egress`, `relay` or `forwarder`.
    pub(crate) role: String,
    /// CPU time of the process by the operating system, divided by the datagrams delivered end to end (by round trips
    /// for `echo`).
    pub(crate) cpu_us_per_datagram: f64,
    /// CPU time of the process divided by the time measured: 1 is one core.
    pub(crate) cpu_share: f64,
    pub(crate) rss_bytes: u64,
    /// Datagrams per call; zero for a relay that is not ours.
    pub(crate) segments_per_send: f64,
    pub(crate) segments_per_receive: f64,
    /// Counters of dropped datagrams that are not zero.
    pub(crate) drops: BTreeMap<String, u64>,
}

/// What the load cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) cpu_us_per_datagram: f64,
    /// CPU time divided by the time measured, spinning not counted: 1 is one core.
    pub(crate) cpu_share: f64,
    /// Datagrams that the schedule wanted sent and that left more than a millisecond late.
    pub(crate) late: u64,
}

/// A slice of the time measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// End of the slice, from the start.
    pub(crate) at_s: f64,
    pub(crate) delivered_pps: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// Resident memory of all relays together.
    pub(crate) rss_bytes: u64,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct QuantilePoint {
    /// 0 to 1.
    pub(crate) quantile: f64,
    pub(crate) us: f64,
}
