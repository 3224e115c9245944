//! What a run with IP packets found out.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bauta::wire::ip::IpVersion;
use serde::{Deserialize, Serialize};

use super::Wanted;
use super::engine::Packets;
use crate::engine::{Direction, Group, Pace, Record};
use crate::machine::Machine;
use crate::outcome::Quantiles;
use crate::process::difference;
use crate::run::{Measured, Party};
use crate::summary::{is_drop, quantiles, ratio, saturated};

/// The result: the one JSON object that `--json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IpOutcome {
    pub(super) version: String,
    machine: Machine,
    pub(super) topology: String,
    /// `ip-up`, `ip-down`, `ip-both` or `ip-echo`.
    pub(super) workload: String,
    /// HTTP version under the tunnels.
    pub(super) carrier: String,
    /// Version of IP: 4 or 6.
    pub(super) family: u8,
    /// Bytes of a whole packet.
    pub(super) packet_bytes: usize,
    /// The largest packet that every tunnel carried when the run ended.
    mtu_bytes: usize,
    /// Pairs of clients, and the connections of each side.
    pub(super) flows: u32,
    pub(super) connections: u32,
    io: String,
    pub(super) duration_s: f64,
    stolen: f64,
    interrupted: bool,
    /// Packets per second that the schedule wanted sent; with a window, those that were sent.
    pub(super) offered_pps: f64,
    /// Packets per second that arrived; round trips for `echo`.
    pub(super) delivered_pps: f64,
    /// IP that arrived, headers included.
    pub(super) gbit_per_s: f64,
    /// Packets sent while the run was measured, and of those how many arrived and did not.
    sent: u64,
    delivered: u64,
    lost: u64,
    /// Packets that arrived and were not what was sent, of the whole run.
    damaged: u64,
    /// Share of the packets sent that did not arrive, 0 to 1.
    pub(super) loss: f64,
    /// One way, from the time at which the schedule wanted each packet sent; all zero for `echo`.
    pub(super) one_way_us: Quantiles,
    /// Round trips; of anything but `echo` those of a slow probe between clients of its own.
    pub(super) rtt_us: Quantiles,
    /// The relays, client side first.
    pub(super) relays: Vec<Relay>,
    /// All clients.
    pub(super) generator: Generator,
    /// UDP drops of the whole network namespace, by the kernel's names.
    kernel_drops: BTreeMap<String, u64>,
    /// What had no more to give: `none`, `generator`, a role, or `core N (roles)` where several share one core.
    saturated: String,
    /// Whether `delivered_pps` may be called the limit of a relay.
    is_relay_limit: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Relay {
    pub(super) role: String,
    /// CPU time of the process for a packet from one client to another, of which a round trip has two.
    pub(super) cpu_ns_per_packet: f64,
    /// What a core that did nothing else would pass on at that price.
    packets_per_s_per_core: f64,
    /// CPU time of the process divided by the time measured: 1 is one core.
    pub(super) cpu_share: f64,
    pub(super) rss_bytes: u64,
    /// Counters of dropped packets and datagrams that are not zero.
    drops: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Generator {
    pub(super) cpu_ns_per_packet: f64,
    /// CPU time divided by the time measured, spinning not counted: 1 is one core.
    cpu_share: f64,
    /// Packets that the schedule wanted sent and that left more than a millisecond late.
    late: u64,
}

impl IpOutcome {
    pub(super) fn new(wanted: &Wanted, measured: &Measured, engines: &[Packets]) -> Self {
        let plans = &wanted.plans;
        let seconds = measured.duration.as_secs_f64().max(1e-9);
        let groups = || plans.groups.iter().zip(&measured.records);
        let passed: u64 = groups()
            .map(|(group, it)| passes(group) * it.delivered)
            .sum();
        let per_packet = |cpu_s: f64| ratio(cpu_s * 1e9, passed as f64);
        let relay = |party| relay(party, seconds, &per_packet);
        let relays: Vec<_> = measured.parties.iter().map(relay).collect();
        // The probe is the last, if there is one.
        let is_echo = plans.groups[0].direction == Direction::Echo;
        let loads = if is_echo { 1 } else { plans.groups.len() - 1 };
        let mut load = Record::new();
        for (_, record) in groups().take(loads) {
            load.add(record);
        }
        let offered = groups()
            .take(loads)
            .map(|(group, record)| match group.pace {
                Pace::Rate(rate) => rate,
                Pace::Window(_) => record.sent as f64 / seconds,
            });
        let times = quantiles(&load.times);
        let rtt_us = match measured.records.last() {
            Some(probe) if !is_echo => quantiles(&probe.times),
            Some(_) | None => times,
        };
        let lost = load.sent.saturating_sub(load.arrived);
        let busy = measured.effort.busy.as_secs_f64();
        let shares: Vec<_> = relays.iter().map(|relay| relay.cpu_share).collect();
        let saturated = saturated(plans, measured, &shares, measured.effort.share);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::look(),
            topology: match &plans.running {
                Some(_) => "running".to_owned(),
                None => plans.topology.name().to_owned(),
            },
            workload: plans.workload.clone(),
            carrier: plans.carrier.as_str().to_owned(),
            family: match wanted.version {
                IpVersion::V4 => 4,
                IpVersion::V6 => 6,
            },
            packet_bytes: wanted.size,
            mtu_bytes: engines.iter().filter_map(Packets::mtu).min().unwrap_or(0),
            flows: plans.groups[0].flows,
            connections: plans.connections,
            io: measured.io.clone(),
            duration_s: seconds,
            stolen: measured.stolen,
            interrupted: measured.interrupted,
            offered_pps: offered.sum(),
            delivered_pps: load.delivered as f64 / seconds,
            gbit_per_s: load.delivered_bytes as f64 * 8.0 / seconds / 1e9,
            sent: load.sent,
            delivered: load.arrived,
            lost,
            damaged: engines.iter().map(Packets::damaged).sum(),
            loss: ratio(lost as f64, load.sent as f64),
            one_way_us: if is_echo { Quantiles::default() } else { times },
            rtt_us,
            is_relay_limit: plans.running.is_none()
                && relays.iter().any(|relay| relay.role == saturated),
            relays,
            generator: Generator {
                cpu_ns_per_packet: per_packet(busy),
                cpu_share: measured.effort.share,
                late: load.late,
            },
            kernel_drops: measured.kernel_drops.clone(),
            saturated,
        }
    }

    /// For people.
    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} {}, {}, IPv{} packets of {} bytes: {:.0} packets/s, {:.2} Gbit/s in {:.1} s, every packet checked",
            self.topology,
            self.workload,
            self.carrier,
            self.family,
            self.packet_bytes,
            self.delivered_pps,
            self.gbit_per_s,
            self.duration_s
        )?;
        writeln!(
            out,
            "  {} of {} packets lost ({:.3} %), {} damaged; the tunnels carry packets of up to {} bytes",
            self.lost,
            self.sent,
            self.loss * 100.0,
            self.damaged,
            self.mtu_bytes
        )?;
        for (what, times) in [("one way", self.one_way_us), ("round trip", self.rtt_us)] {
            if times.count > 0 {
                writeln!(
                    out,
                    "  {what:10}  p50 {:.0} us  p90 {:.0} us  p99 {:.0} us  p99.9 {:.0} us  max {:.0} us",
                    times.p50, times.p90, times.p99, times.p999, times.max
                )?;
            }
        }
        for relay in &self.relays {
            writeln!(
                out,
                "  {:10}  {:6.0} ns of CPU per packet   {:8.0} packets/s per core   {:3.0} % of a core   {} KiB",
                relay.role,
                relay.cpu_ns_per_packet,
                relay.packets_per_s_per_core,
                relay.cpu_share * 100.0,
                relay.rss_bytes / 1024
            )?;
            for (name, count) in &relay.drops {
                writeln!(out, "              {name}: {count}")?;
            }
        }
        writeln!(
            out,
            "  {:10}  {:6.0} ns of CPU per packet, all clients, {:.0} % of a core, {} late",
            "generator",
            self.generator.cpu_ns_per_packet,
            self.generator.cpu_share * 100.0,
            self.generator.late
        )?;
        writeln!(out, "  Saturated: {}", self.saturated)
    }
}

/// Times that what is counted as delivered went through the relays.
fn passes(group: &Group) -> u64 {
    match group.direction {
        Direction::Up | Direction::Down => 1,
        Direction::Echo => 2,
    }
}

fn relay(party: &Party, seconds: f64, per_packet: &impl Fn(f64) -> f64) -> Relay {
    let cpu = party.after.cpu.saturating_sub(party.before.cpu);
    let cpu = cpu.as_secs_f64();
    let between = party.after.at.zip(party.before.at);
    let between = between.map_or(seconds, |(after, before)| (after - before).as_secs_f64());
    let last = difference(&party.last, &party.before.counters);
    Relay {
        role: party.role.clone(),
        cpu_ns_per_packet: per_packet(cpu),
        packets_per_s_per_core: ratio(1e9, per_packet(cpu)),
        cpu_share: cpu / between,
        rss_bytes: party.rss_bytes,
        drops: last.into_iter().filter(|(name, _)| is_drop(name)).collect(),
    }
}
