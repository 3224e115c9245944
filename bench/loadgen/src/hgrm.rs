//! The percentile text of HdrHistogram (`.hgrm`), as its plotters read it.
//!
//! Values are recorded in nanoseconds and written in microseconds.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Nanoseconds in the unit of the file.
const NS_PER_US: f64 = 1_000.0;
/// Rows for every halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Writes a histogram of nanoseconds. An empty one is a header and a footer without rows.
///
/// # Errors
///
/// What writing to `out` fails with.
pub(crate) fn write(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    let us = |ns: u64| ns as f64 / NS_PER_US;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        // The value of a step is the end of its bucket, which for the last one lies beyond what the readers call max.
        let value = us(step.value_iterated_to().min(histogram.max()));
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(
                out,
                "{value:12.3} {quantile:2.12} {total:10} {inverse:14.2}"
            )?;
        } else {
            writeln!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        histogram.mean() / NS_PER_US,
        histogram.stdev() / NS_PER_US
    )?;
    writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        us(histogram.max()),
        histogram.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        sub_buckets(histogram)
    )
}

/// Linear steps in a bucket: the power of two that resolves two units at the precision of the histogram.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(histogram.sigfig().into())).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(histogram: &Histogram<u64>) -> String {
        let mut out = Vec::new();
        write(histogram, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Value, quantile and total of every row.
    fn rows(text: &str) -> Vec<(f64, f64, u64)> {
        text.lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                let mut fields = line.split_whitespace();
                let mut next = || fields.next().unwrap();
                (
                    next().parse().unwrap(),
                    next().parse().unwrap(),
                    next().parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn rows_rise_to_the_total() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for us in 1..=10_000_u64 {
            histogram.record(us * 1_000).unwrap();
        }
        let text = text(&histogram);
        let rows = rows(&text);
        assert!(rows.len() > 40, "{text}");
        assert!(
            rows.windows(2)
                .all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1 && w[0].2 <= w[1].2),
            "{text}"
        );
        let (value, quantile, total) = rows[rows.len() - 1];
        assert_eq!((quantile, total), (1.0, 10_000));
        assert!((10_000.0..10_010.0).contains(&value), "{text}");
        let half = rows.iter().find(|row| row.1 >= 0.5).unwrap();
        assert!((4_990.0..5_010.0).contains(&half.0), "{text}");
    }

    #[test]
    fn the_layout_is_the_one_of_the_plotters() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        histogram.record_n(2_000, 3).unwrap();
        histogram.record(4_000).unwrap();
        let expected = [
            "       Value     Percentile TotalCount 1/(1-Percentile)",
            "",
            "       2.000 0.000000000000          3           1.00",
            "       2.000 0.100000000000          3           1.11",
        ];
        let text = text(&histogram);
        assert_eq!(text.lines().take(4).collect::<Vec<_>>(), expected, "{text}");
        let footer: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(
            footer,
            [
                "#[Mean    =        2.500, StdDeviation   =        0.866]",
                "#[Max     =        4.001, Total count    =            4]",
                "#[Buckets =           22, SubBuckets     =         2048]",
            ],
            "{text}"
        );
        // The row of 100 % has no fourth column: it would be infinite.
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        assert_eq!(last, "       4.001 1.000000000000          4");
    }

    #[test]
    fn nothing_recorded() {
        let text = text(&Histogram::<u64>::new(3).unwrap());
        assert!(rows(&text).is_empty(), "{text}");
        assert!(text.contains("Total count    =            0]"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }
}
