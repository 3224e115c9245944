//! A span of time as operators write it: `"30s"`, `"150ms"`, `"2m"`, `"1h"`, or whole seconds as an integer.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A duration in the file format. Bounds are the business of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) Duration);

impl Period {
    pub(super) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number = number.parse::<u64>().ok()?;
        let milliseconds = match unit {
            "ms" => number,
            "s" => number.checked_mul(1_000)?,
            "m" => number.checked_mul(60_000)?,
            "h" => number.checked_mul(3_600_000)?,
            _ => return None,
        };
        Some(Self(Duration::from_millis(milliseconds)))
    }
}

/// Prints what the parser reads back: whole seconds as `"30s"`, everything else as `"150ms"`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "\"{}s\"", self.0.as_secs()),
            _ => write!(f, "\"{}ms\"", self.0.as_millis()),
        }
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PeriodVisitor;

        impl Visitor<'_> for PeriodVisitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration such as \"30s\", \"150ms\", \"2m\", \"1h\", or whole seconds",
                )
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Period, E> {
                u64::try_from(seconds)
                    .map(Period::from_secs)
                    .map_err(|_| E::custom("a duration is not negative"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Period, E> {
                Period::parse(text).ok_or_else(|| {
                    E::custom("not a duration such as \"30s\", \"150ms\", \"2m\" or \"1h\"")
                })
            }
        }

        deserializer.deserialize_any(PeriodVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units() {
        for (text, milliseconds) in [
            ("150ms", 150),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(
                Period::parse(text),
                Some(Period(Duration::from_millis(milliseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_not_a_duration() {
        for text in [
            "",
            "s",
            "30",
            "30 s",
            "1.5s",
            "-1s",
            "+1s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_reads_back(milliseconds in 0..u64::from(u32::MAX)) {
            let period = Period(Duration::from_millis(milliseconds));
            prop_assert_eq!(Period::parse(period.to_string().trim_matches('"')), Some(period));
        }

        #[test]
        fn garbage_never_panics(text in ".{0,24}") {
            let _: Option<Period> = Period::parse(&text);
        }
    }
}
