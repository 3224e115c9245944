//! How much earlier one carrier starts than the next, when several may be spoken with a relay.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::duration::Period;

/// How much earlier one carrier starts than the next. Its text is `250ms,500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStarts {
    /// Of the first carrier before the second.
    pub first: Duration,
    /// Of the second carrier before the third.
    pub second: Duration,
}

impl HeadStarts {
    /// The longest: a carrier that is silent for so long has failed.
    pub const MAX: Duration = Duration::from_secs(10);
}

/// RFC 8305 section 5 waits a quarter of a second for the first; the second may be in the middle of TLS.
impl Default for HeadStarts {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            second: Duration::from_millis(500),
        }
    }
}

impl fmt::Display for HeadStarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}ms,{}ms",
            self.first.as_millis(),
            self.second.as_millis()
        )
    }
}

impl FromStr for HeadStarts {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let period = |text| Period::parse(text).filter(|period| period.0 <= Self::MAX);
        let pair = text.split_once(',');
        match pair.map(|(first, second)| (period(first), period(second))) {
            Some((Some(Period(first)), Some(Period(second)))) => Ok(Self { first, second }),
            Some(_) | None => Err("must be two durations of at most 10s such as 250ms,500ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_durations() {
        let default = HeadStarts::default();
        assert_eq!(default.to_string(), "250ms,500ms");
        assert_eq!("250ms,500ms".parse(), Ok(default));
        let parsed: HeadStarts = "0s,10s".parse().unwrap();
        assert_eq!(
            (parsed.first, parsed.second),
            (Duration::ZERO, HeadStarts::MAX)
        );
        for text in ["", "1s", "1s,", "1s,2s,3s", "1s, 2s", "1,2", "1s,11s"] {
            assert!(text.parse::<HeadStarts>().is_err(), "{text:?}");
        }
    }
}
