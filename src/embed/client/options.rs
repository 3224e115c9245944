//! Options that are wrong, and the bounds of those that are numbers.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use ::http::HeaderMap;

use crate::config::{HeaderError, Problem, parse_header};
use crate::error::{Error, ErrorKind, Side};

/// Everything that is wrong, in the order in which it was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// An option whose value is not accepted.
    pub(super) fn value(
        &mut self,
        key: &str,
        value: impl fmt::Display,
        message: impl fmt::Display,
    ) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: Some(value.to_string()),
            message: message.to_string(),
        });
    }

    /// An option whose value may be a secret.
    pub(super) fn secret(&mut self, key: &str, message: impl fmt::Display) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: None,
            message: message.to_string(),
        });
    }

    /// What was read from text, if it could be.
    pub(super) fn text<T, E: fmt::Display>(
        &mut self,
        key: &str,
        text: &str,
        parsed: Result<T, E>,
    ) -> Option<T> {
        let refused = |error| self.value(key, format_args!("{text:?}"), error);
        parsed.map_err(refused).ok()
    }

    /// Checks a number against its bounds.
    pub(super) fn number(&mut self, key: &str, value: usize, range: RangeInclusive<usize>) {
        if !range.contains(&value) {
            let message = format!("must be from {} to {}", range.start(), range.end());
            self.value(key, value, message);
        }
    }

    /// Checks a duration against its bounds.
    pub(super) fn duration(&mut self, key: &str, value: Duration, range: RangeInclusive<Duration>) {
        if !range.contains(&value) {
            let message = format!("must be from {:?} to {:?}", range.start(), range.end());
            self.value(key, format_args!("{value:?}"), message);
        }
    }

    /// Adds a field to requests.
    pub(super) fn header(&mut self, headers: &mut HeaderMap, name: &str, value: &str) {
        match request_header(name, value) {
            Ok((name, value)) => {
                headers.append(name, value);
            }
            Err(error) => self.secret("header", error),
        }
    }

    /// An error, if anything is wrong.
    pub(super) fn into_result(self) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Configuration, Side::Local).with_source(self)),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A field of a tunnel's request. Besides those that no user of bauta may set, what describes a content is refused: the
/// tunnel's bytes are none (RFC 9110 §9.3.6).
fn request_header(
    name: &str,
    value: &str,
) -> Result<(::http::HeaderName, ::http::HeaderValue), HeaderError> {
    let (name, value) = parse_header(name, value)?;
    match name.as_str().starts_with("content-") {
        true => Err(HeaderError::Reserved(name)),
        false => Ok((name, value)),
    }
}
