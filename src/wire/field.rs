//! The `Capsule-Protocol` field (RFC 9297 §3.4), and what the structured fields of this folder share.
//!
//! ```text
//!   capsule-protocol: ?1        true         capsule-protocol: ?1;a=b     true
//!   capsule-protocol: ?0        as absent    capsule-protocol: 1          as absent
//! ```
//!
//! A field that does not parse counts as absent (RFC 9651 §4.2). The absence of this one never fails a request: the
//! upgrade token alone puts a stream in capsule mode.

use std::borrow::Cow;

use ::http::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue, MaxSizeReached};

/// The name of the field that says that the data stream holds capsules.
pub const CAPSULE_PROTOCOL: HeaderName = HeaderName::from_static("capsule-protocol");

/// The value to send with [`CAPSULE_PROTOCOL`].
pub const CAPSULE_PROTOCOL_TRUE: HeaderValue = HeaderValue::from_static("?1");

/// A field could not be added to a message.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// The value holds bytes that no field value may have.
    #[error("text is no field value")]
    Value(#[from] InvalidHeaderValue),
    /// The message has as many fields as it can hold.
    #[error("message cannot hold another field")]
    Full(#[from] MaxSizeReached),
}

/// Whether the message announces capsules: the field is the Boolean true, whatever its parameters.
///
/// Any other type is ignored, the List that repeated lines make included.
#[must_use]
pub fn capsule_protocol(headers: &HeaderMap) -> bool {
    let Some(value) = joined(headers, &CAPSULE_PROTOCOL) else {
        return false;
    };
    sfv::Parser::new(&*value)
        .parse::<sfv::Item>()
        .is_ok_and(|item| item.bare_item.as_boolean() == Some(true))
}

/// All lines of a field as one value (RFC 9110 §5.3, RFC 9651 §4.2); `None` without any.
pub(super) fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut value = Cow::Borrowed(lines.next()?);
    for line in lines {
        let value = value.to_mut();
        value.extend_from_slice(b", ");
        value.extend_from_slice(line);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CAPSULE_PROTOCOL, line.parse().unwrap());
        }
        capsule_protocol(&headers)
    }

    // spec: 9297-3.4-a, 9297-3.4-b, 9297-3.4-c; section 7 of the RFC 9297 digest
    #[test]
    fn capsule_protocol_cases() {
        for value in ["?1", "?1;a=b", "?1;foo=1", "?1; a; b=\"x\"", " ?1 "] {
            assert!(parsed(&[value]), "{value:?}");
        }
        for value in [
            "", "?0", "?0;a=1", "1", "\"?1\"", "true", "?1, ?1", "?2", "?", "?1;", "?1 ?1", "(?1)",
            "?1\t", "é",
        ] {
            assert!(!parsed(&[value]), "{value:?}");
        }
        assert!(!parsed(&[]));
        assert!(!parsed(&["?1", "?1"]));
        assert!(!parsed(&["?1", ""]));
    }

    #[test]
    fn what_is_sent_is_understood() {
        let headers = HeaderMap::from_iter([(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE)]);
        assert!(capsule_protocol(&headers));
    }
}
