//! Two results side by side, and which differences mean something.
//!
//! One run says little: the machine changes its speed by about 15 % between two runs of the same build. So a ratio
//! inside that band, either way round, is called noise, whatever it looks like; better compare medians of several runs.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::ip::IpOutcome;
use crate::outcome::{Outcome, Quantiles};
use crate::report::grid::Grid;
use crate::report::number::{NOTHING, bytes, integer, measure, percent};
use crate::report::relay_names;
use crate::tcp::TcpOutcome;

/// The larger of two figures divided by the smaller, up to which they count as equal.
const NOISE: f64 = 1.15;
/// Losses below this share count as none.
const LOSS_NOISE: f64 = 0.001;

/// Reads two files, each one object as `--json` prints it, and writes them side by side. That they measured different
/// things is said in the table and is no error; fields that this version does not know are skipped.
///
/// # Errors
///
/// A file that cannot be read or is no such object, named together with the reason; what writing to `out` fails with.
pub(crate) fn run(a: &Path, b: &Path, out: &mut impl Write) -> io::Result<()> {
    // Results of these workloads are told by what no other has.
    let have = |key: &str| {
        [a, b].iter().all(|path| {
            let text = fs::read(path).unwrap_or_default();
            let value = serde_json::from_slice::<serde_json::Value>(&text);
            value.is_ok_and(|value| value.get(key).is_some())
        })
    };
    if have("up_bytes") {
        let (before, after): (TcpOutcome, TcpOutcome) = (read(a)?, read(b)?);
        return before.compare(&after, out);
    }
    if have("packet_bytes") {
        let (before, after): (IpOutcome, IpOutcome) = (read(a)?, read(b)?);
        return before.compare(&after, out);
    }
    let (before, after): (Outcome, Outcome) = (read(a)?, read(b)?);
    let mut files = Grid::new("").text("file").text("loadgen");
    for (letter, path, outcome) in [("A", a, &before), ("B", b, &after)] {
        files.row([
            letter.to_owned(),
            path.display().to_string(),
            outcome.version.clone(),
        ]);
    }
    files.write_text(out)?;
    writeln!(out)?;
    compare(&before, &after, out)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let named = |kind, error: &dyn std::fmt::Display| {
        io::Error::new(kind, format!("{}: {error}", path.display()))
    };
    let text = fs::read(path).map_err(|error| named(error.kind(), &error))?;
    serde_json::from_slice(&text).map_err(|error| {
        let problem = format!("not a result of loadgen --json: {error}");
        named(io::ErrorKind::InvalidData, &problem)
    })
}

/// Writes what ran, and the figures with their ratios.
fn compare(a: &Outcome, b: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let differing = settings_grid(&settings(a, b), out)?;
    figures_grid(figures(a, b), &differing, out)
}

/// Writes settings: name, whether a difference makes two results incomparable, values. Returns the names of those that
/// do.
pub(crate) fn settings_grid(
    settings: &[Setting],
    out: &mut impl Write,
) -> io::Result<Vec<&'static str>> {
    let mut grid = Grid::new("setting").text("A").text("B").text("");
    let mut differing = Vec::new();
    for (name, decides, (before, after)) in settings {
        let differs = *decides && before != after;
        if differs {
            differing.push(*name);
        }
        let mark = if differs { "differs" } else { "" };
        grid.row([
            (*name).to_owned(),
            before.clone(),
            after.clone(),
            mark.to_owned(),
        ]);
    }
    grid.write_text(out)?;
    writeln!(out)?;
    if !differing.is_empty() {
        let what = differing.join(", ");
        writeln!(
            out,
            "Not the same load ({what}): read the ratios as two measurements, not as a change.\n"
        )?;
    }
    Ok(differing)
}

/// Writes figures with their ratios, which are not judged where settings differ.
pub(crate) fn figures_grid(
    figures: Vec<Figure>,
    differing: &[&'static str],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut grid = Grid::new("figure")
        .number("A")
        .number("B")
        .number("B/A")
        .text("");
    for mut figure in figures {
        if !differing.is_empty() {
            figure.aim = Aim::Open;
        }
        grid.row(figure.cells());
    }
    grid.write_text(out)?;
    writeln!(
        out,
        "\nRatios between 1/{NOISE} and {NOISE} are within the noise of a machine between two runs and are no result; \
         losses below {} % count as none.",
        LOSS_NOISE * 100.0
    )
}

/// A line of the settings: name, whether a difference makes two results incomparable, values.
pub(crate) type Setting = (&'static str, bool, (String, String));

/// What was run.
fn settings(a: &Outcome, b: &Outcome) -> Vec<Setting> {
    type Of = (&'static str, bool, fn(&Outcome) -> String);
    let all: [Of; 10] = [
        ("topology", true, |o| o.topology.clone()),
        ("workload", true, |o| o.workload.clone()),
        ("carrier", true, |o| o.carrier.clone()),
        ("payload, bytes", true, |o| measure(o.payload_bytes)),
        ("tunnels", true, |o| integer(o.tunnels.into())),
        ("connections", true, |o| integer(o.connections.into())),
        ("io", false, |o| o.io.clone()),
        ("measured, s", false, |o| {
            let interrupted = if o.interrupted { " (interrupted)" } else { "" };
            format!("{}{interrupted}", measure(o.duration_s))
        }),
        ("saturated", false, |o| o.saturated.clone()),
        ("limit of a relay", false, |o| {
            if o.is_relay_limit { "yes" } else { "no" }.to_owned()
        }),
    ];
    all.into_iter()
        .map(|(name, decides, value)| (name, decides, (value(a), value(b))))
        .collect()
}

/// Which way a figure should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Up,
    Down,
    /// Neither is better by itself.
    Open,
}

/// One line of the comparison.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) aim: Aim,
    pub(crate) a: Option<f64>,
    pub(crate) b: Option<f64>,
    pub(crate) show: fn(f64) -> String,
    /// Values up to this one are all the same.
    pub(crate) floor: f64,
}

impl Figure {
    fn cells(&self) -> [String; 5] {
        let show = |value: Option<f64>| value.map_or_else(|| NOTHING.to_owned(), self.show);
        let ratio = match (self.a, self.b) {
            (Some(a), Some(b)) if a > 0.0 => format!("{:.2}", b / a),
            _ => NOTHING.to_owned(),
        };
        [
            self.name.clone(),
            show(self.a),
            show(self.b),
            ratio,
            self.mark().to_owned(),
        ]
    }

    fn mark(&self) -> &'static str {
        let (Some(a), Some(b)) = (self.a, self.b) else {
            return "";
        };
        let (low, high) = (a.min(b), a.max(b));
        if low == high {
            return "equal";
        }
        if high < self.floor || high <= low * NOISE {
            return "within noise";
        }
        match (self.aim, b > a) {
            (Aim::Open, true) => "higher",
            (Aim::Open, false) => "lower",
            (Aim::Up, true) | (Aim::Down, false) => "better",
            (Aim::Up, false) | (Aim::Down, true) => "worse",
        }
    }
}

fn figures(a: &Outcome, b: &Outcome) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |name: &str, aim, show: fn(f64) -> String, [a, b]: [Option<f64>; 2]| {
        figures.push(Figure {
            name: name.to_owned(),
            aim,
            a,
            b,
            show,
            floor: 0.0,
        });
    };
    let both = |value: fn(&Outcome) -> f64| [Some(value(a)), Some(value(b))];
    add("offered, /s", Aim::Open, integer, both(|o| o.offered_pps));
    add("delivered, /s", Aim::Up, integer, both(|o| o.delivered_pps));
    add("Gbit/s", Aim::Up, measure, both(|o| o.gbit_per_s));
    add("loss", Aim::Down, percent, both(|o| o.loss));

    type Of<T> = fn(&T) -> f64;
    let quantiles: [(&str, Of<Quantiles>); 5] = [
        ("p50", |q| q.p50),
        ("p90", |q| q.p90),
        ("p99", |q| q.p99),
        ("p99.9", |q| q.p999),
        ("max", |q| q.max),
    ];
    for (times, [of_a, of_b]) in [
        ("RTT", [a.rtt_us, b.rtt_us]),
        ("one way", [a.one_way_us, b.one_way_us]),
    ] {
        if of_a.count == 0 && of_b.count == 0 {
            continue;
        }
        for (name, quantile) in quantiles {
            let value = |times: &Quantiles| (times.count > 0).then(|| quantile(times));
            let values = [value(&of_a), value(&of_b)];
            add(&format!("{times} {name}, us"), Aim::Down, measure, values);
        }
    }

    let names = relay_names(a);
    let only_b = relay_names(b)
        .into_iter()
        .filter(|name| !names.contains(name));
    for name in names.iter().cloned().chain(only_b) {
        let find = |outcome: &Outcome| {
            let index = relay_names(outcome).iter().position(|n| *n == name)?;
            outcome.relays.get(index).cloned()
        };
        let relays = [find(a), find(b)];
        let [of_a, of_b] = &relays;
        let mut row = |figure: &str, aim, show, value: fn(&crate::outcome::Relay) -> f64| {
            let values = [of_a.as_ref().map(value), of_b.as_ref().map(value)];
            if values.iter().flatten().any(|value| *value != 0.0) {
                add(&format!("{name}: {figure}"), aim, show, values);
            }
        };
        row("CPU us/datagram", Aim::Down, measure, |r| {
            r.cpu_us_per_datagram
        });
        row("of a core", Aim::Open, percent, |r| r.cpu_share);
        row(
            "memory",
            Aim::Down,
            |v| bytes(v as u64),
            |r| r.rss_bytes as f64,
        );
        row("segments/send", Aim::Up, measure, |r| r.segments_per_send);
        row("segments/receive", Aim::Up, measure, |r| {
            r.segments_per_receive
        });
    }
    let cost = both(|o| o.generator.cpu_us_per_datagram);
    add("generator: CPU us/datagram", Aim::Open, measure, cost);

    for figure in figures.iter_mut().filter(|figure| figure.name == "loss") {
        figure.floor = LOSS_NOISE;
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn compared(a: &Outcome, b: &Outcome) -> String {
        let mut out = Vec::new();
        compare(a, b, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The cells of the row that starts with `name`, the name left out.
    #[track_caller]
    fn row(text: &str, name: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(name));
        let cells = line.unwrap_or_else(|| panic!("no row {name} in\n{text}"));
        cells[name.len()..]
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_run_equals_itself() {
        let text = compared(&samples::chain(), &samples::chain());
        assert_eq!(
            row(&text, "delivered, /s"),
            ["200,000", "200,000", "1.00", "equal"]
        );
        assert_eq!(
            row(&text, "ingress: CPU us/datagram"),
            ["3.43", "3.43", "1.00", "equal"]
        );
        for word in ["differs", "Not the same", "better", "worse", "NaN"] {
            assert!(!text.contains(word), "{word} in\n{text}");
        }
        assert!(
            text.contains("Ratios between 1/1.15 and 1.15 are within the noise"),
            "{text}"
        );
    }

    #[test]
    fn noise_and_results_are_told_apart() {
        let (a, mut b) = (samples::chain(), samples::chain());
        b.delivered_pps *= 1.1;
        b.rtt_us.p99 *= 2.0;
        b.relays[0].cpu_us_per_datagram = 2.4;
        b.relays[1].cpu_share = 0.2;
        b.loss = 0.000_9;
        let text = compared(&a, &b);
        assert_eq!(
            row(&text, "delivered, /s"),
            ["200,000", "220,000", "1.10", "within noise"]
        );
        assert_eq!(
            row(&text, "RTT p99, us"),
            ["1,322", "2,645", "2.00", "worse"]
        );
        assert_eq!(
            row(&text, "ingress: CPU us/datagram"),
            ["3.43", "2.40", "0.70", "better"]
        );
        assert_eq!(
            row(&text, "egress: of a core"),
            ["88.7 %", "20.0 %", "0.23", "lower"]
        );
        assert_eq!(
            row(&text, "loss"),
            ["0.062 %", "0.090 %", "1.45", "within noise"]
        );
    }

    #[test]
    fn the_noise_is_the_same_both_ways() {
        let (a, mut b) = (samples::chain(), samples::chain());
        b.delivered_pps *= 1.16;
        assert_eq!(row(&compared(&a, &b), "delivered, /s")[3], "better");
        assert_eq!(row(&compared(&b, &a), "delivered, /s")[3], "worse");
    }

    #[test]
    fn different_loads_are_named() {
        let text = compared(&samples::chain(), &samples::hop());
        assert_eq!(row(&text, "topology"), ["chain", "hop", "differs"]);
        assert!(text.contains("Not the same load (topology)"), "{text}");
        assert_eq!(
            row(&text, "delivered, /s"),
            ["200,000", "332,000", "1.66", "higher"]
        );
        // The relay that only one of them has.
        assert_eq!(row(&text, "ingress: CPU us/datagram"), ["3.43", "-", "-"]);
    }

    #[test]
    fn nothing_measured_has_no_ratio() {
        let text = compared(&samples::nothing(), &samples::chain());
        assert_eq!(row(&text, "delivered, /s"), ["0", "200,000", "-", "better"]);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn files_are_read_and_blamed() {
        let folder = tempfile::tempdir().unwrap();
        let mut json = serde_json::to_value(samples::chain()).unwrap();
        json["of_a_later_version"] = serde_json::json!({"x": [1]});
        let good = file(&folder, "good.json", &json.to_string());
        let mut out = Vec::new();
        run(&good, &good, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("good.json") && text.contains("delivered, /s"));

        json.as_object_mut().unwrap().remove("topology");
        let lacking = file(&folder, "lacking.json", &json.to_string());
        let broken = file(&folder, "broken.json", "{\"version\": 3");
        let absent = folder.path().join("absent.json");
        for (path, problem) in [
            (&lacking, "missing field `topology`"),
            (&broken, "line 1 column"),
            (&absent, "No such file"),
        ] {
            let error = run(&good, path, &mut io::sink()).unwrap_err().to_string();
            assert!(
                error.starts_with(&path.display().to_string()) && error.contains(problem),
                "{error}"
            );
        }
    }
}
