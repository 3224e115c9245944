//! Figures as people read them.

/// What stands where nothing was measured.
pub(crate) const NOTHING: &str = "-";

/// A whole number with separators: `1,234,567`.
pub(crate) fn integer(value: f64) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value < 0.0 && digits != "0" {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with separators.
pub(crate) fn count(value: u64) -> String {
    integer(value as f64)
}

/// Three digits that matter: `1.23`, `12.3`, `1,234`.
pub(crate) fn measure(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => NOTHING.to_owned(),
        0.0 => "0".to_owned(),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => integer(value),
    }
}

/// A share of 0 to 1 as a percentage; small ones keep enough digits to be told from none.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    match value.abs() {
        size if !size.is_finite() => NOTHING.to_owned(),
        0.0 => "0 %".to_owned(),
        size if size < 0.001 => "< 0.001 %".to_owned(),
        size if size < 1.0 => format!("{value:.3} %"),
        size if size < 99.95 => format!("{value:.1} %"),
        _ => format!("{} %", integer(value)),
    }
}

/// Memory in decimal units.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        0 => NOTHING.to_owned(),
        1..1_000 => format!("{value} B"),
        1_000..1_000_000 => format!("{:.1} KB", value as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value as f64 / 1e6),
        _ => format!("{:.2} GB", value as f64 / 1e9),
    }
}

/// The label of a tick: short, for the edge of a chart.
pub(crate) fn tick(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    if value.abs() >= 1_000.0 {
        return format!("{}{suffix}", integer(value));
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let cases = [
            (integer(0.0), "0"),
            (integer(999.4), "999"),
            (integer(999.5), "1,000"),
            (integer(1_234_567.0), "1,234,567"),
            (integer(-1_234.0), "-1,234"),
            (integer(-0.1), "0"),
            (integer(f64::NAN), "-"),
            (measure(0.0), "0"),
            (measure(3.434), "3.43"),
            (measure(9.999), "10.0"),
            (measure(99.96), "100"),
            (measure(21_791.3), "21,791"),
            (measure(f64::INFINITY), "-"),
            (percent(0.0), "0 %"),
            (percent(0.000_001), "< 0.001 %"),
            (percent(0.000_12), "0.012 %"),
            (percent(0.123), "12.3 %"),
            (percent(1.0), "100 %"),
            (bytes(0), "-"),
            (bytes(31_234_567), "31.2 MB"),
            (tick(0.0), "0"),
            (tick(0.25), "0.25"),
            (tick(1_000.0), "1,000"),
            (tick(200_000.0), "200k"),
            (tick(1_500_000.0), "1.5M"),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }
}
