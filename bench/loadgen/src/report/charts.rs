//! Which charts a report has: runs overlaid, one colour each; a single run shows its quantiles instead.

use super::axis::Scale;
use super::chart::{Bars, Lines, SERIES_MAX, Series};
use super::facts::{self, Varying};
use crate::outcome::{Outcome, Quantiles, Sample};

/// A picture with its caption and legend.
#[derive(Clone, Debug)]
pub(crate) enum Chart {
    Lines(Lines),
    Bars(Bars),
}

impl Chart {
    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Lines(lines) => &lines.title,
            Self::Bars(bars) => &bars.title,
        }
    }

    /// What is drawn, with the index of its colour.
    pub(crate) fn legend(&self) -> Vec<(usize, &str)> {
        match self {
            Self::Lines(lines) => lines.drawn().collect(),
            Self::Bars(bars) => bars.names.iter().map(String::as_str).enumerate().collect(),
        }
    }

    /// See [`Lines::svg`] and [`Bars::svg`].
    ///
    /// # Errors
    ///
    /// As those.
    pub(crate) fn svg(&self) -> std::io::Result<Option<String>> {
        match self {
            Self::Lines(lines) => lines.svg(),
            Self::Bars(bars) => bars.svg(),
        }
    }
}

/// A curve that a run has several of.
type Curve<T> = (&'static str, fn(&T) -> f64);

/// The charts of `outcomes`, of which the first [`SERIES_MAX`] are drawn.
pub(crate) fn of(outcomes: &[Outcome]) -> Vec<Chart> {
    let outcomes = &outcomes[..outcomes.len().min(SERIES_MAX)];
    let mut charts = vec![over_time(
        "Delivered per second over time".to_owned(),
        Scale::Linear,
        by_run(outcomes, |run| samples(run, |s| s.delivered_pps)),
    )];
    charts.push(Lines {
        title: "Latency distribution, us".to_owned(),
        x_name: "percentile",
        x: Scale::Tail,
        y: Scale::Log,
        series: by_run(outcomes, |run| {
            let points = run.distribution.iter();
            points.map(|point| (point.quantile, point.us)).collect()
        }),
    });
    let curves: [Curve<Sample>; 3] = [
        ("p50", |s| s.p50_us),
        ("p99", |s| s.p99_us),
        ("max", |s| s.max_us),
    ];
    for (suffix, series) in by_curve(outcomes, &curves, samples) {
        let title = format!("Latency over time{suffix}, us");
        charts.push(over_time(title, Scale::Log, series));
    }
    charts.extend(against_load(outcomes));
    let mut charts: Vec<_> = charts.into_iter().map(Chart::Lines).collect();
    charts.push(Chart::Bars(cpu(outcomes)));
    charts.push(Chart::Lines(over_time(
        "Resident memory of all relays over time, bytes".to_owned(),
        Scale::Linear,
        by_run(outcomes, |run| samples(run, |s| s.rss_bytes as f64)),
    )));
    charts
}

/// What a run is called where several stand beside each other.
pub(crate) fn names(outcomes: &[Outcome]) -> Vec<String> {
    let names = (1_u32..).zip(outcomes);
    names
        .map(|(number, run)| {
            if outcomes.len() == 1 {
                facts::label(run)
            } else {
                format!("{number}: {}", facts::label(run))
            }
        })
        .collect()
}

fn by_run(outcomes: &[Outcome], points: impl Fn(&Outcome) -> Vec<(f64, f64)>) -> Vec<Series> {
    names(outcomes)
        .into_iter()
        .zip(outcomes)
        .map(|(name, run)| Series {
            name,
            points: points(run),
        })
        .collect()
}

/// One chart with all curves for a single run; one chart per curve for several, so that colours keep meaning runs.
fn by_curve<T>(
    outcomes: &[Outcome],
    curves: &[Curve<T>],
    points: impl Fn(&Outcome, fn(&T) -> f64) -> Vec<(f64, f64)>,
) -> Vec<(String, Vec<Series>)> {
    if let [run] = outcomes {
        let series = curves.iter().map(|(name, value)| Series {
            name: (*name).to_owned(),
            points: points(run, *value),
        });
        return vec![(String::new(), series.collect())];
    }
    let curves = curves.iter();
    curves
        .map(|(name, value)| {
            let series = by_run(outcomes, |run| points(run, *value));
            (format!(", {name}"), series)
        })
        .collect()
}

fn samples(run: &Outcome, value: fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let samples = run.series.iter();
    samples.map(|sample| (sample.at_s, value(sample))).collect()
}

fn over_time(title: String, y: Scale, series: Vec<Series>) -> Lines {
    Lines {
        title,
        x_name: "seconds",
        x: Scale::Linear,
        y,
        series,
    }
}

/// Latency, loss and cost of sweeps. The horizontal axis is what was swept.
fn against_load(outcomes: &[Outcome]) -> Vec<Lines> {
    let sweeps: Vec<_> = outcomes.iter().map(|run| &run.points[..]).collect();
    let vary = |what: fn(Varying) -> bool| sweeps.iter().any(|s| what(Varying::of(s)));
    let (what, x_name, x, swept): (_, _, _, fn(&Outcome) -> f64) = if vary(|v| v.tunnels) {
        ("tunnels", "tunnels", Scale::Log, |p| p.tunnels.into())
    } else if vary(|v| v.payload) {
        ("payload", "bytes", Scale::Linear, |p| p.payload_bytes)
    } else {
        ("load", "offered per second", Scale::Linear, |p| {
            p.offered_pps
        })
    };
    let sorted = |run: &Outcome, value: &dyn Fn(&Outcome) -> f64| {
        let points = run.points.iter();
        let mut points: Vec<_> = points.map(|p| (swept(p), value(p))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let quantiles: [Curve<Quantiles>; 3] = [
        ("p50", |q| q.p50),
        ("p99", |q| q.p99),
        ("p99.9", |q| q.p999),
    ];
    let latency = by_curve(outcomes, &quantiles, |run, quantile| {
        sorted(run, &|point| quantile(&facts::times(point).1))
    });
    let mut charts: Vec<_> = latency
        .into_iter()
        .map(|(suffix, series)| Lines {
            title: format!("Latency against {what}{suffix}, us"),
            x_name,
            x,
            y: Scale::Log,
            series,
        })
        .collect();
    let mut push = |title, y, series| {
        charts.push(Lines {
            title,
            x_name,
            x,
            y,
            series,
        });
    };
    push(
        format!("Loss against {what}"),
        Scale::Percent,
        by_run(outcomes, |run| sorted(run, &|point| point.loss)),
    );
    let cost = format!("CPU time per {} against {what}", each(outcomes));
    let relays = facts::all_relay_names(sweeps.iter().copied().flatten());
    let cpu = |run: &Outcome, relay: &str| {
        sorted(run, &|point| {
            facts::relay_cpu(point, relay).unwrap_or(f64::NAN)
        })
    };
    if let [run] = outcomes {
        let series = relays.into_iter().map(|relay| Series {
            points: cpu(run, &relay),
            name: relay,
        });
        push(format!("{cost}, us"), Scale::Linear, series.collect());
    } else {
        for relay in relays {
            let series = by_run(outcomes, |run| cpu(run, &relay));
            push(format!("{cost}, {relay}, us"), Scale::Linear, series);
        }
    }
    charts
}

/// What the CPU time is divided by.
fn each(outcomes: &[Outcome]) -> &'static str {
    if outcomes.iter().all(facts::is_echo) {
        "round trip"
    } else {
        "datagram"
    }
}

fn cpu(outcomes: &[Outcome]) -> Bars {
    let names = facts::all_relay_names(outcomes);
    let label = |(number, run): (u32, &Outcome)| {
        if outcomes.len() == 1 {
            facts::label(run)
        } else {
            format!("run {number}")
        }
    };
    let groups = (1_u32..).zip(outcomes).map(|(number, run)| {
        let heights = names.iter().map(|name| facts::relay_cpu(run, name));
        (label((number, run)), heights.collect())
    });
    Bars {
        title: format!("CPU time per {}, us", each(outcomes)),
        groups: groups.collect(),
        names,
    }
}
