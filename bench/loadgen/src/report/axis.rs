//! Axes of charts: from values to positions, with ticks that people can read.
//!
//! Positions are linear on paper; logarithms are taken here, so that a value without a place (nothing measured, zero
//! on a logarithmic axis, 100 % of a tail) is left out before anything is drawn.

use super::number;

/// Ticks that a linear axis aims at.
const TICKS: f64 = 5.0;
/// Labels that fit beside each other on a logarithmic axis.
const LABELS_MAX: usize = 7;

/// How values become positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero up.
    Linear,
    /// Like `Linear`, for shares of 0 to 1 that are shown as percentages.
    Percent,
    /// Values above zero.
    Log,
    /// Quantiles below 1, spread by 1/(1-q): every nine takes the same room.
    Tail,
}

impl Scale {
    /// Where `value` stands, if it has a place.
    pub(crate) fn position(self, value: f64) -> Option<f64> {
        let position = match self {
            Self::Linear => value,
            Self::Percent => value * 100.0,
            Self::Log => value.log10(),
            Self::Tail => -(1.0 - value).log10(),
        };
        let in_range = match self {
            Self::Log => value > 0.0,
            Self::Linear | Self::Percent => value >= 0.0,
            Self::Tail => (0.0..1.0).contains(&value),
        };
        (in_range && position.is_finite()).then_some(position)
    }
}

/// The range that is drawn, and its ticks; all in positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that covers `positions`, which come from [`Scale::position`].
    pub(crate) fn covering(scale: Scale, positions: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for position in positions {
            low = low.min(position);
            high = high.max(position);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match scale {
            Scale::Linear => linear(high, number::tick),
            Scale::Percent => linear(high, |value| format!("{} %", number::tick(value))),
            Scale::Log => log(low, high),
            Scale::Tail => tail(high),
        }
    }

    /// The label of the tick at `position`.
    pub(crate) fn label(&self, position: f64) -> String {
        let distance = |tick: &(f64, String)| (tick.0 - position).abs();
        self.ticks
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .map(|(_, label)| label.clone())
            .unwrap_or_default()
    }
}

/// From zero to the tick at or above `high`, in steps of 1, 2 or 5.
fn linear(high: f64, label: impl Fn(f64) -> String) -> Axis {
    let high = if high > 0.0 { high } else { 1.0 };
    let unit = 10_f64.powf((high / TICKS).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * unit)
        .into_iter()
        .find(|step| step * TICKS >= high)
        .unwrap_or(high);
    let steps = (high / step - 1e-9).ceil().max(1.0);
    let ticks = (0..=steps as u32)
        .map(|index| f64::from(index) * step)
        .map(|position| (position, label(position)))
        .collect();
    Axis {
        low: 0.0,
        high: steps * step,
        ticks,
    }
}

/// Between two round numbers around the values: decades, or 1, 2 and 5 where there are few.
fn log(low: f64, high: f64) -> Axis {
    // A margin, so that rounding does not add an empty decade to a value that is a round number.
    let (low, high) = (low + 1e-9, high - 1e-9);
    let few = high - low < 2.0;
    let factors: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let decades = (low.floor() as i32)..=(high.ceil() as i32);
    let rungs: Vec<f64> = decades
        .flat_map(|decade| {
            factors
                .iter()
                .map(move |factor| f64::from(decade) + factor.log10())
        })
        .collect();
    let below = rungs.iter().rposition(|rung| *rung <= low).unwrap_or(0);
    let above = rungs
        .iter()
        .position(|rung| *rung >= high)
        .unwrap_or(rungs.len() - 1)
        .max(below + 1)
        .min(rungs.len() - 1);
    let rungs = &rungs[below..=above];
    // Too many labels: only the decades, or every second of them and so on.
    let labelled: Vec<f64> = rungs
        .iter()
        .copied()
        .filter(|rung| rungs.len() <= LABELS_MAX || rung.fract() == 0.0)
        .collect();
    let ticks = labelled
        .iter()
        .step_by(labelled.len().div_ceil(LABELS_MAX).max(1))
        .map(|rung| (*rung, number::tick(10_f64.powf(*rung))))
        .collect();
    Axis {
        low: rungs[0],
        high: rungs[rungs.len() - 1],
        ticks,
    }
}

/// From the median's side of nothing, 0 %, to one nine more than there are.
fn tail(high: f64) -> Axis {
    let nines = (high - 1e-9).ceil().max(1.0) as usize;
    let every = nines.div_ceil(LABELS_MAX);
    let ticks = (0..=nines)
        .step_by(every)
        .map(|nines| (nines as f64, share_of_nines(nines)))
        .collect();
    Axis {
        low: 0.0,
        high: nines as f64,
        ticks,
    }
}

fn share_of_nines(nines: usize) -> String {
    match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        nines => format!("99.{} %", "9".repeat(nines - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        let positions = values.iter().filter_map(|value| scale.position(*value));
        let axis = Axis::covering(scale, positions);
        assert!(
            axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite(),
            "{axis:?}"
        );
        axis.ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            labels(Scale::Linear, &[208_000.0]),
            ["0", "50k", "100k", "150k", "200k", "250k"]
        );
        assert_eq!(
            labels(Scale::Linear, &[10.0]),
            ["0", "2", "4", "6", "8", "10"]
        );
        assert_eq!(
            labels(Scale::Percent, &[0.003]),
            ["0 %", "0.1 %", "0.2 %", "0.3 %"]
        );
        assert_eq!(
            labels(Scale::Log, &[150.0, 21_791.0]),
            ["100", "1,000", "10k", "100k"]
        );
        assert_eq!(labels(Scale::Log, &[120.0, 450.0]), ["100", "200", "500"]);
        assert_eq!(
            labels(Scale::Log, &[131.0, 12_900.0]),
            ["100", "1,000", "10k"]
        );
        assert_eq!(
            labels(Scale::Tail, &[0.5, 0.9991, 1.0]),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn degenerate_data_has_an_axis() {
        for scale in [Scale::Linear, Scale::Percent, Scale::Log, Scale::Tail] {
            for values in [
                &[][..],
                &[0.0],
                &[1.0],
                &[100.0, 100.0],
                &[f64::NAN, f64::INFINITY, -1.0],
                &[1e-12, 1e15],
            ] {
                let labels = labels(scale, values);
                assert!(
                    (1..=9).contains(&labels.len()),
                    "{scale:?} {values:?} {labels:?}"
                );
            }
        }
    }

    #[test]
    fn values_without_a_place() {
        assert_eq!(Scale::Log.position(0.0), None);
        assert_eq!(Scale::Tail.position(1.0), None);
        assert_eq!(Scale::Tail.position(0.0), Some(0.0));
        assert_eq!(Scale::Linear.position(f64::NAN), None);
        assert_eq!(Scale::Percent.position(0.5), Some(50.0));
    }
}
