//! Many runs in a row that look for the highest rate, or for what happens on the way there.

use std::io;
use std::ops::RangeInclusive;

use crate::engine::Pace;
use crate::interrupt::Interrupt;
use crate::outcome::Outcome;
use crate::run::{self, Plans};

/// How much faster each step is until one fails.
const STEP: f64 = 1.6;
/// Halvings of the last step, by ratio: the result is known to six per cent.
const HALVINGS: u32 = 3;
/// A point that delivers less than this share of what was offered has failed, whatever its loss: something queues.
const KEPT_UP: f64 = 0.97;
/// Shares of the highest rate for the curve of latency against load.
const SHARES: [f64; 9] = [0.02, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.3];

/// The highest rate at which no more than `max_loss` is lost; its result, with every point that was tried.
///
/// # Errors
/// As [`highest_within`].
pub(crate) async fn highest(
    plans: &Plans,
    from: f64,
    max_loss: f64,
    interrupt: &mut Interrupt,
) -> io::Result<Outcome> {
    highest_within(plans, from..=f64::INFINITY, max_loss, interrupt).await
}

/// The same among `rates`: the search begins at the lowest, and ends at the highest if even that one passes.
///
/// # Errors
/// What keeps a run from ending, that even the first rate is too high, or that Ctrl-C came before any rate had passed.
pub(crate) async fn highest_within(
    plans: &Plans,
    rates: RangeInclusive<f64>,
    max_loss: f64,
    interrupt: &mut Interrupt,
) -> io::Result<Outcome> {
    let (from, to) = rates.into_inner();
    let mut points: Vec<Outcome> = Vec::new();
    let (mut good, mut bad) = (0.0, None);
    let mut rate = from;
    let mut halvings = 0;
    while !interrupt.happened() {
        let point = match at(plans, rate, interrupt).await {
            Err(_) if interrupt.happened() => break,
            point => point?,
        };
        if point.interrupted {
            break;
        }
        let kept_up = point.delivered_pps >= point.offered_pps * KEPT_UP * (1.0 - max_loss);
        let passed = point.loss <= max_loss && kept_up;
        if passed && rate > good {
            good = rate;
        }
        if !passed {
            bad = Some(rate);
        }
        points.push(point);
        rate = match bad {
            None if rate >= to => break,
            None => (rate * STEP).min(to),
            Some(_) if good == 0.0 => break,
            Some(bad) => {
                halvings += 1;
                if halvings > HALVINGS {
                    break;
                }
                (good * bad).sqrt()
            }
        };
    }
    points.sort_by(|a, b| a.offered_pps.total_cmp(&b.offered_pps));
    // Nothing was offered at zero, where `good` began.
    match points.iter().find(|point| point.offered_pps == good) {
        Some(best) => Ok(Outcome {
            workload: format!("{}-sweep", best.workload),
            interrupted: interrupt.happened(),
            ..best.clone()
        }
        .with_points(points)),
        None if interrupt.happened() => Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "interrupted before any rate had passed",
        )),
        None => Err(io::Error::other(format!(
            "{from:.0} datagrams/s are too many already: start lower with --from"
        ))),
    }
}

/// Latency at shares of the highest rate.
///
/// # Errors
/// As [`highest`].
pub(crate) async fn curve(
    plans: &Plans,
    from: f64,
    max_loss: f64,
    interrupt: &mut Interrupt,
) -> io::Result<Outcome> {
    let highest = highest(plans, from, max_loss, interrupt).await?;
    let mut points = Vec::new();
    for share in SHARES {
        if interrupt.happened() {
            break;
        }
        match at(plans, highest.offered_pps * share, interrupt).await {
            Err(_) if interrupt.happened() => break,
            point => points.push(point?),
        }
    }
    Ok(Outcome {
        workload: format!("{}-curve", plans.workload),
        interrupted: interrupt.happened(),
        ..highest
    }
    .with_points(points))
}

async fn at(plans: &Plans, rate: f64, interrupt: &mut Interrupt) -> io::Result<Outcome> {
    let mut plans = plans.clone();
    plans.groups[0].pace = Pace::Rate(rate);
    Ok(run::run(&plans, interrupt).await?.0)
}
