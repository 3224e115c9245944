//! What a run with bytes in bulk found out.

use std::io::{self, Write};

use bauta::client::TcpForm;
use serde::{Deserialize, Serialize};

use super::{Measured, Wanted};
use crate::machine::Machine;
use crate::summary::ratio;

/// The result: the one JSON object that `--json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TcpOutcome {
    pub(super) version: String,
    machine: Machine,
    pub(super) topology: String,
    /// `tcp-up`, `tcp-down` or `tcp-both`.
    pub(super) workload: String,
    /// HTTP version under the tunnels; `tls` or `tcp` where there are none.
    pub(super) carrier: String,
    /// `capsules`, `raw` or `classic`; empty where there are no tunnels.
    pub(super) form: String,
    pub(super) streams: u32,
    pub(super) connections: u32,
    io: String,
    pub(super) duration_s: f64,
    stolen: f64,
    interrupted: bool,
    up_bytes: u64,
    down_bytes: u64,
    /// Both directions together.
    pub(super) gbit_per_s: f64,
    pub(super) fairness: Fairness,
    /// The relays, client side first.
    pub(super) relays: Vec<Relay>,
    pub(super) generator: Generator,
}

/// How evenly streams share, by the bytes of both directions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Fairness {
    /// Jain's index: 1 is all the same, 1/n is one that has everything.
    pub(super) jain: f64,
    min_gbit_per_s: f64,
    max_gbit_per_s: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Relay {
    pub(super) role: String,
    /// CPU time of the process for 10^9 bytes end to end.
    pub(super) cpu_s_per_gigabyte: f64,
    /// What a core that did nothing else would carry at that price.
    gbit_per_s_per_core: f64,
    /// CPU time of the process divided by the time measured: 1 is one core.
    pub(super) cpu_share: f64,
    pub(super) rss_bytes: u64,
}

/// Client and target, which compare every byte.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Generator {
    pub(super) cpu_s_per_gigabyte: f64,
    pub(super) cpu_share: f64,
}

impl TcpOutcome {
    pub(super) fn new(wanted: &Wanted, measured: &Measured) -> Self {
        let seconds = measured.duration.as_secs_f64().max(1e-9);
        let up_bytes: u64 = measured.moved.iter().map(|(up, _)| up).sum();
        let down_bytes: u64 = measured.moved.iter().map(|(_, down)| down).sum();
        let bytes = (up_bytes + down_bytes) as f64;
        let relays = measured.scene.parties.iter().map(|party| {
            let cpu = party.after.cpu.saturating_sub(party.before.cpu);
            let between = party.after.at.zip(party.before.at);
            let between = between.map_or(seconds, |(after, before)| (after - before).as_secs_f64());
            let cpu = cpu.as_secs_f64();
            Relay {
                role: party.role.clone(),
                cpu_s_per_gigabyte: ratio(cpu * 1e9, bytes),
                gbit_per_s_per_core: ratio(bytes * 8.0 / 1e9, cpu),
                cpu_share: cpu / between,
                rss_bytes: party.rss_bytes,
            }
        });
        let carrier = wanted.carrier();
        let generator = measured.generator.as_secs_f64();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::look(),
            topology: match &wanted.plans.running {
                Some(_) => "running".to_owned(),
                None => wanted.plans.topology.name().to_owned(),
            },
            workload: wanted.plans.workload.clone(),
            carrier: carrier.to_owned(),
            form: match (carrier, wanted.form) {
                ("tls" | "tcp", _) => "",
                (_, TcpForm::Capsules) => "capsules",
                (_, TcpForm::Raw) => "raw",
                (_, TcpForm::Classic) => "classic",
            }
            .to_owned(),
            streams: wanted.streams,
            connections: wanted.plans.connections,
            io: measured.scene.io.clone(),
            duration_s: seconds,
            stolen: measured.stolen,
            interrupted: measured.interrupted,
            up_bytes,
            down_bytes,
            gbit_per_s: bytes * 8.0 / seconds / 1e9,
            fairness: fairness(&measured.moved, seconds),
            relays: relays.collect(),
            generator: Generator {
                cpu_s_per_gigabyte: ratio(generator * 1e9, bytes),
                cpu_share: generator / seconds,
            },
        }
    }

    /// For people.
    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} {}, {} {}: {:.2} Gbit/s in {:.1} s, every byte compared",
            self.topology, self.workload, self.carrier, self.form, self.gbit_per_s, self.duration_s
        )?;
        for relay in &self.relays {
            writeln!(
                out,
                "  {:10}  {:6.3} s of CPU per gigabyte   {:6.2} Gbit/s per core   {:3.0} % of a core   {} KiB",
                relay.role,
                relay.cpu_s_per_gigabyte,
                relay.gbit_per_s_per_core,
                relay.cpu_share * 100.0,
                relay.rss_bytes / 1024
            )?;
        }
        writeln!(
            out,
            "  {:10}  {:6.3} s of CPU per gigabyte, client and target, {:.0} % of a core",
            "generator",
            self.generator.cpu_s_per_gigabyte,
            self.generator.cpu_share * 100.0
        )?;
        if self.streams > 1 {
            let Fairness {
                jain,
                min_gbit_per_s,
                max_gbit_per_s,
            } = self.fairness;
            writeln!(
                out,
                "  {} streams from {min_gbit_per_s:.3} to {max_gbit_per_s:.3} Gbit/s, fairness {jain:.3} (Jain)",
                self.streams
            )?;
        }
        Ok(())
    }
}

fn fairness(moved: &[(u64, u64)], seconds: f64) -> Fairness {
    let rates = moved
        .iter()
        .map(|(up, down)| (up + down) as f64 * 8.0 / seconds / 1e9);
    let sum: f64 = rates.clone().sum();
    let squares: f64 = rates.clone().map(|rate| rate * rate).sum();
    Fairness {
        jain: ratio(sum * sum, squares * moved.len() as f64),
        min_gbit_per_s: rates.clone().fold(f64::INFINITY, f64::min),
        max_gbit_per_s: rates.fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_one_for_equals_and_less_for_others() {
        let equal = fairness(&[(5, 0), (0, 5), (2, 3)], 1.0);
        assert!((equal.jain - 1.0).abs() < 1e-9);
        assert_eq!(equal.min_gbit_per_s, equal.max_gbit_per_s);
        let greedy = fairness(&[(10, 0), (0, 0)], 1.0);
        assert!((greedy.jain - 0.5).abs() < 1e-9);
        assert_eq!(fairness(&[(0, 0)], 1.0).jain, 0.0);
    }
}
