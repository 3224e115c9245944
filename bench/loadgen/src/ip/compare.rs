//! Two results with IP packets side by side.

use std::io::{self, Write};

use super::IpOutcome;
use super::outcome::Relay;
use crate::compare::{Aim, Figure, figures_grid, settings_grid};
use crate::report::number::{bytes, integer, measure, percent};

impl IpOutcome {
    /// Writes what ran, and the figures with their ratios. That the two measured different things is said.
    ///
    /// # Errors
    /// What writing to `out` fails with.
    pub(crate) fn compare(&self, other: &Self, out: &mut impl Write) -> io::Result<()> {
        let both = |value: fn(&Self) -> String| (value(self), value(other));
        let differing = settings_grid(
            &[
                ("version", false, both(|o| o.version.clone())),
                ("topology", true, both(|o| o.topology.clone())),
                ("workload", true, both(|o| o.workload.clone())),
                ("carrier", true, both(|o| o.carrier.clone())),
                ("family", true, both(|o| integer(o.family.into()))),
                (
                    "packet, bytes",
                    true,
                    both(|o| integer(o.packet_bytes as f64)),
                ),
                ("flows", true, both(|o| integer(o.flows.into()))),
                ("connections", true, both(|o| integer(o.connections.into()))),
                ("offered, pps", false, both(|o| measure(o.offered_pps))),
                ("measured, s", false, both(|o| measure(o.duration_s))),
            ],
            out,
        )?;
        figures_grid(self.figures(other), &differing, out)
    }

    fn figures(&self, other: &Self) -> Vec<Figure> {
        let figure = |name: String, aim, show, a, b| Figure {
            name,
            aim,
            a,
            b,
            show,
            floor: 0.0,
        };
        let both = |name: &str, aim, show: fn(f64) -> String, value: fn(&Self) -> f64| {
            let (a, b) = (Some(value(self)), Some(value(other)));
            figure(name.to_owned(), aim, show, a, b)
        };
        let mut figures = vec![
            both("packets/s", Aim::Up, measure, |o| o.delivered_pps),
            both("Gbit/s", Aim::Up, measure, |o| o.gbit_per_s),
            both("loss", Aim::Down, percent, |o| o.loss),
            both("one way p50, us", Aim::Down, measure, |o| o.one_way_us.p50),
            both("one way p99, us", Aim::Down, measure, |o| o.one_way_us.p99),
            both("round trip p50, us", Aim::Down, measure, |o| o.rtt_us.p50),
            both("round trip p99, us", Aim::Down, measure, |o| o.rtt_us.p99),
        ];
        let rows = self.relays.len().max(other.relays.len());
        for number in 0..rows {
            let relays = [self.relays.get(number), other.relays.get(number)];
            let role = relays.iter().flatten().next().map(|relay| &relay.role);
            let role = role.cloned().unwrap_or_default();
            let mut row = |name: &str, aim, show: fn(f64) -> String, value: fn(&Relay) -> f64| {
                let [a, b] = relays.map(|relay| relay.map(value));
                figures.push(figure(format!("{role}: {name}"), aim, show, a, b));
            };
            row("CPU ns/packet", Aim::Down, measure, |r| r.cpu_ns_per_packet);
            row("of a core", Aim::Open, percent, |r| r.cpu_share);
            row(
                "memory",
                Aim::Down,
                |v| bytes(v as u64),
                |r| r.rss_bytes as f64,
            );
        }
        figures.push(both("generator: CPU ns/packet", Aim::Down, measure, |o| {
            o.generator.cpu_ns_per_packet
        }));
        figures
    }
}
