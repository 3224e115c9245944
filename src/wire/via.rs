//! The `Via` field (RFC 9110 §7.6.3), as far as it tells whether a request has come back.
//!
//! ```text
//!   via: 1.1 gateway.example:8080 (edge, north), HTTP/2 abc123
//!        │   └ received-by        └ comment
//!        └ received-protocol
//! ```
//!
//! A relay appends its own pseudonym to each request it forwards and refuses one that holds it already. Parsing is
//! lenient: a member that is not understood is not ours. Peers can drop or forge the field; it stops accidents, not
//! attacks.

use ::http::header::{HeaderMap, HeaderValue, VIA};

use super::field::FieldError;

/// Whether a member of the field was added by `pseudonym`. Upper and lower case are the same, as in host names.
#[must_use]
pub fn contains(headers: &HeaderMap, pseudonym: &str) -> bool {
    let mut lines = headers.get_all(VIA).iter();
    lines.any(|line| {
        members(line.as_bytes()).any(|member| {
            received_by(member).is_some_and(|name| name.eq_ignore_ascii_case(pseudonym.as_bytes()))
        })
    })
}

/// Appends the member of this relay behind the others.
///
/// `version` is the HTTP version in which the message was received: `1.1`, `2` or `3`. `pseudonym` is a token or a host
/// with an optional port.
///
/// # Errors
/// [`FieldError`] when the pseudonym is not legal in a field, or the message cannot hold another line.
pub fn append(headers: &mut HeaderMap, version: &str, pseudonym: &str) -> Result<(), FieldError> {
    let member = HeaderValue::try_from(format!("{version} {pseudonym}"))?;
    headers.try_append(VIA, member)?;
    Ok(())
}

/// Splits a line at its commas, those in comments excepted.
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut depth = 0usize;
    let mut escaped = false;
    line.split(move |&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if depth > 0 => escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        byte == b',' && depth == 0
    })
}

/// The second word of a member; a comment can follow it without a blank.
fn received_by(member: &[u8]) -> Option<&[u8]> {
    let mut words = member
        .split(|b| b.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    let name = words.nth(1)?;
    name.split(|&b| b == b'(').next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VIA, line.parse().unwrap());
        }
        contains(&headers, "relay-7f3a")
    }

    #[test]
    fn own_member() {
        for lines in [
            &["3 relay-7f3a"][..],
            &[
                "1.0 fred, 1.1 p.example.net",
                "2 x, HTTP/3 Relay-7F3A (any, thing)",
            ],
            &["3\t relay-7f3a(x)"],
            &[",, 3 relay-7f3a ,"],
            &["1.1 a (b \\) , (c)), 3 relay-7f3a"],
            &["1.1 a), 3 relay-7f3a"],
        ] {
            assert!(found(lines), "{lines:?}");
        }
    }

    #[test]
    fn other_members() {
        for lines in [
            &[][..],
            &[""],
            &["relay-7f3a"],
            &["3 relay-7f3ab"],
            &["3 relay-7f3a:443"],
            &["3 x relay-7f3a"],
            &["1.1 x (1.1 relay-7f3a)"],
            &["1.1 x (a, 1.1 relay-7f3a)"],
            &["1.1 x (a \\), 1.1 relay-7f3a)"],
        ] {
            assert!(!found(lines), "{lines:?}");
        }
    }

    // spec: 9110-7.6.3-a
    #[test]
    fn append_and_find() {
        let mut headers = HeaderMap::new();
        headers.append(VIA, "1.1 other".parse().unwrap());
        assert!(!contains(&headers, "relay"));
        append(&mut headers, "3", "relay").unwrap();
        assert!(contains(&headers, "relay"));
        assert!(contains(&headers, "other"));
        let lines: Vec<_> = headers.get_all(VIA).iter().collect();
        assert_eq!(lines, ["1.1 other", "3 relay"]);
        assert!(append(&mut headers, "3", "a\r\nb").is_err());
    }

    proptest! {
        #[test]
        fn ours_is_found_behind_any_balanced_line(line in "[a-z0-9 ,./;]{0,40}") {
            let mut headers = HeaderMap::new();
            headers.append(VIA, format!("{line}, 2 relay-7f3a").parse().unwrap());
            prop_assert!(contains(&headers, "relay-7f3a"));
        }
    }
}
