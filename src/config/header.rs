//! Extra request fields that an operator sends to a next hop, such as `proxy-authorization`.
//!
//! Fields that frame a message, choose its route or belong to the relay itself are refused: an operator who sets one
//! of them gets malformed requests (RFC 9297 section 3.2, RFC 9114 section 4.2) or a loop that nobody detects.

use ::http::{HeaderName, HeaderValue};

/// Names that only the relay itself writes.
const RESERVED: [&str; 15] = [
    "capsule-protocol",
    "connection",
    "content-length",
    "content-type",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "proxy-status",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "date",
];

/// Why a field was refused. The value is never part of the message: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Pseudo-header fields are made by the relay.
    #[error("{0:?} is a pseudo-header field, which the relay writes itself")]
    Pseudo(String),
    /// The name is not a token (RFC 9110 section 5.1).
    #[error("{0:?} is not a field name")]
    Name(String),
    /// The relay writes this field itself.
    #[error("{0} is a field that the library writes itself and cannot be set")]
    Reserved(HeaderName),
    /// The value holds CR, LF, NUL or another character that no field value holds (RFC 9110 section 5.5).
    #[error("the value of {0} holds characters that a field value must not hold")]
    Value(HeaderName),
}

/// Checks one field. The value comes back marked as sensitive: never indexed by QPACK, never printed.
///
/// # Errors
/// When the name is reserved, or name or value are not valid.
pub fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HeaderError> {
    if name.starts_with(':') {
        return Err(HeaderError::Pseudo(name.to_owned()));
    }
    let name =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::Name(name.to_owned()))?;
    if RESERVED.contains(&name.as_str()) {
        return Err(HeaderError::Reserved(name));
    }
    match HeaderValue::from_str(value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok((name, value))
        }
        Err(_) => Err(HeaderError::Value(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_credentials_and_hides_them() {
        let (name, value) = parse_header("Proxy-Authorization", "Bearer abc").unwrap();
        assert_eq!(name.as_str(), "proxy-authorization");
        assert_eq!(value, "Bearer abc");
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("abc"));
    }

    #[test]
    fn refuses_what_the_relay_writes() {
        for name in RESERVED {
            assert!(
                matches!(
                    parse_header(&name.to_uppercase(), "x"),
                    Err(HeaderError::Reserved(_))
                ),
                "{name}"
            );
        }
        assert!(matches!(
            parse_header(":authority", "x"),
            Err(HeaderError::Pseudo(_))
        ));
    }

    #[test]
    fn refuses_injection() {
        for value in ["a\r\nvia: x", "a\nb", "a\rb", "a\0b"] {
            let error = parse_header("x-token", value).unwrap_err();
            assert!(matches!(error, HeaderError::Value(_)), "{value:?}");
        }
        for name in ["", "a b", "a:b", "a\r\nb", "ä"] {
            assert!(
                matches!(parse_header(name, "x"), Err(HeaderError::Name(_))),
                "{name:?}"
            );
        }
    }
}
