//! What a client shows to a relay that asks who it is.
//!
//! ```text
//!   bearer:TOKEN     Bearer TOKEN            user:password    Basic dXNlcjpwYXNzd29yZA==
//!   @FILE            the first line of the file, in one of the forms above
//! ```
//!
//! Credentials travel with the first request: all templates of a relay are one protection space, and the round trip of
//! a refusal is saved (connect-tcp draft §3.3.2). They go to the field that the form of the request asks for; a relay
//! that wants the other one says so by 401 or 407, and the request is repeated once with both.

use std::fmt;
use std::path::Path;

use ::http::header::{AUTHORIZATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::request::{RequestHead, ResponseHead};

/// One set of credentials. It prints its scheme only.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    scheme: &'static str,
    value: HeaderValue,
}

/// Why text holds no credentials. The text is never part of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Neither form.
    #[error("must be USER:PASSWORD, bearer:TOKEN or @FILE")]
    Form,
    /// A token with characters that no field value holds.
    #[error("the token is empty or not printable ASCII")]
    Token,
    /// A user name or password with control characters (RFC 7617 §2).
    #[error("user name and password must not hold control characters")]
    Control,
    /// The file cannot be read, or is empty.
    #[error("the file with the credentials cannot be read or is empty")]
    File,
}

impl Credentials {
    /// A user name and a password (RFC 7617).
    ///
    /// # Errors
    /// When the name is empty or holds a colon, and for control characters.
    pub fn basic(user: &str, password: &str) -> Result<Self, CredentialsError> {
        if user.is_empty() || user.contains(':') {
            return Err(CredentialsError::Form);
        }
        if [user, password]
            .iter()
            .any(|text| text.contains(char::is_control))
        {
            return Err(CredentialsError::Control);
        }
        Self::new("Basic", &STANDARD.encode(format!("{user}:{password}")))
    }

    /// A token (RFC 6750).
    ///
    /// # Errors
    /// When it is empty or not printable ASCII.
    pub fn bearer(token: &str) -> Result<Self, CredentialsError> {
        let is_token = |b: u8| matches!(b, b'!'..=b'~');
        match !token.is_empty() && token.bytes().all(is_token) {
            true => Self::new("Bearer", token),
            false => Err(CredentialsError::Token),
        }
    }

    /// Reads the form of the command line; `read` gives the text of a file.
    ///
    /// # Errors
    /// [`CredentialsError`] says what is wrong.
    pub fn parse(
        text: &str,
        read: impl FnOnce(&Path) -> std::io::Result<String>,
    ) -> Result<Self, CredentialsError> {
        let Some(path) = text.strip_prefix('@') else {
            return Self::from_text(text);
        };
        let text = read(Path::new(path)).map_err(|_| CredentialsError::File)?;
        Self::from_file(&text)
    }

    /// Reads the first line of a file that is not blank.
    ///
    /// # Errors
    /// [`CredentialsError`] says what is wrong.
    pub fn from_file(text: &str) -> Result<Self, CredentialsError> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        Self::from_text(line.ok_or(CredentialsError::File)?)
    }

    /// The value of the field, marked as sensitive.
    #[must_use]
    pub const fn value(&self) -> &HeaderValue {
        &self.value
    }

    fn from_text(text: &str) -> Result<Self, CredentialsError> {
        let (user, secret) = text.split_once(':').ok_or(CredentialsError::Form)?;
        match user.eq_ignore_ascii_case("bearer") {
            true => Self::bearer(secret),
            false => Self::basic(user, secret),
        }
    }

    fn new(scheme: &'static str, secret: &str) -> Result<Self, CredentialsError> {
        let value = HeaderValue::try_from(format!("{scheme} {secret}"));
        let mut value = value.map_err(|_| CredentialsError::Token)?;
        value.set_sensitive(true);
        Ok(Self { scheme, value })
    }

    /// Adds the credentials to a request: `Authorization` to one for a resource of the relay, `Proxy-Authorization` to
    /// classic CONNECT. A field that is there already stays: it was set by hand.
    #[doc(hidden)]
    pub fn add_to(&self, request: &mut RequestHead) {
        let name = match request.is_extended_connect() {
            true => AUTHORIZATION,
            false => PROXY_AUTHORIZATION,
        };
        self.fill(&mut request.headers, name);
    }

    /// Whether a refused request is worth repeating: the relay asks for our scheme in a field that the request did not
    /// have, and now has. That is the case once at most.
    #[doc(hidden)]
    pub fn answer(&self, request: &mut RequestHead, response: &ResponseHead) -> bool {
        let (challenge, name) = match response.status {
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, AUTHORIZATION),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => (PROXY_AUTHENTICATE, PROXY_AUTHORIZATION),
            _ => return false,
        };
        let mut challenges = response.headers.get_all(challenge).iter();
        let is_asked = challenges.any(|value| names_scheme(value.as_bytes(), self.scheme));
        is_asked && self.fill(&mut request.headers, name)
    }

    fn fill(&self, headers: &mut HeaderMap, name: HeaderName) -> bool {
        let is_absent = !headers.contains_key(&name);
        if is_absent {
            headers.insert(name, self.value.clone());
        }
        is_absent
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} …)", self.scheme)
    }
}

/// Whether a list of challenges (RFC 9110 §11.6.1) has one of that scheme.
///
/// A challenge starts a member of the list with its scheme; members that start with `name=` are parameters of the
/// challenge before them. Commas in quoted strings separate nothing.
fn names_scheme(value: &[u8], scheme: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    let mut members = value.split(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b',' && !quoted
    });
    members.any(|member| {
        let mut words = member.trim_ascii().split(u8::is_ascii_whitespace);
        let first = words.next().unwrap_or_default();
        first.eq_ignore_ascii_case(scheme.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credentials(text: &str) -> Result<Credentials, CredentialsError> {
        Credentials::parse(text, |_| panic!("no file"))
    }

    fn sent(text: &str) -> String {
        let value = credentials(text).unwrap().value;
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    }

    fn response(status: u16, challenges: &[(&'static str, &'static str)]) -> ResponseHead {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
        for (name, value) in challenges {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    #[test]
    fn forms_of_the_command_line() {
        assert_eq!(sent("bearer:abc:d="), "Bearer abc:d=");
        assert_eq!(sent("Bearer:abc"), "Bearer abc");
        // The example of RFC 7617 section 2.
        assert_eq!(
            sent("Aladdin:open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(sent("test:123\u{a3}"), "Basic dGVzdDoxMjPCow==");
        assert_eq!(sent("user:"), "Basic dXNlcjo=");
        for (text, error) in [
            ("", CredentialsError::Form),
            ("token", CredentialsError::Form),
            (":x", CredentialsError::Form),
            ("bearer:", CredentialsError::Token),
            ("bearer:a b", CredentialsError::Token),
            ("user:a\r\nb", CredentialsError::Control),
        ] {
            assert_eq!(credentials(text), Err(error), "{text:?}");
        }
        let from = |text: &'static str| {
            Credentials::parse("@secret.txt", |path| {
                assert_eq!(path, Path::new("secret.txt"));
                Ok(text.to_owned())
            })
        };
        assert_eq!(from("\n bearer:abc \nmore"), credentials("bearer:abc"));
        assert_eq!(from("\n"), Err(CredentialsError::File));
        let missing = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let error = Credentials::parse("@x", missing);
        assert_eq!(error, Err(CredentialsError::File));
    }

    // spec: ctcp-3.3.2-a, ctcp-3.3.2-b
    #[test]
    fn the_form_of_the_request_chooses_the_field() {
        let ours = credentials("bearer:abc").unwrap();
        let mut templated = RequestHead::extended_connect("connect-tcp", "https", "r", "/");
        ours.add_to(&mut templated);
        assert_eq!(templated.headers.get(AUTHORIZATION).unwrap(), "Bearer abc");
        assert_eq!(templated.headers.len(), 1);
        let mut classic = RequestHead::classic_connect("t:1");
        ours.add_to(&mut classic);
        assert_eq!(
            classic.headers.get(PROXY_AUTHORIZATION).unwrap(),
            "Bearer abc"
        );
        assert_eq!(classic.headers.len(), 1);

        let by_hand = HeaderValue::from_static("Other x");
        classic.headers.insert(PROXY_AUTHORIZATION, by_hand);
        ours.add_to(&mut classic);
        assert_eq!(classic.headers.get(PROXY_AUTHORIZATION).unwrap(), "Other x");
    }

    // spec: rc-all-h
    #[test]
    fn a_request_is_repeated_once_if_its_scheme_is_asked_for() {
        let ours = credentials("user:password").unwrap();
        let mut request = RequestHead::extended_connect("connect-udp", "https", "r", "/");
        ours.add_to(&mut request);
        // The field was there: the credentials are wrong.
        let refused = response(401, &[("www-authenticate", "Basic realm=\"x\"")]);
        assert!(!ours.answer(&mut request, &refused));
        for other in [
            response(407, &[]),
            response(407, &[("proxy-authenticate", "Bearer")]),
            response(407, &[("www-authenticate", "Basic")]),
            response(403, &[("proxy-authenticate", "Basic")]),
        ] {
            assert!(!ours.answer(&mut request, &other), "{other:?}");
        }
        let refused = response(
            407,
            &[
                ("proxy-authenticate", "Bearer realm=\"a, Other\""),
                ("proxy-authenticate", "Negotiate a==, basic realm=\"x\""),
            ],
        );
        assert!(ours.answer(&mut request, &refused));
        assert!(request.headers.contains_key(PROXY_AUTHORIZATION));
        assert!(!ours.answer(&mut request, &refused));
    }

    #[test]
    fn challenges() {
        for (value, expected) in [
            ("Basic", true),
            ("basic realm=\"x\"", true),
            ("Bearer, Basic", true),
            ("Bearer a=\"x\\\", Basic\"", false),
            ("Bearer a=\"Basic\", b=Basic", false),
            (
                "Bearer realm=\"x\", charset=\"UTF-8\", Basic realm=\"y\"",
                true,
            ),
            ("Basically", false),
            ("", false),
            (",, ,", false),
        ] {
            assert_eq!(names_scheme(value.as_bytes(), "Basic"), expected, "{value}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", credentials("user:password").unwrap());
        assert_eq!(printed, "Credentials(Basic …)");
    }

    proptest! {
        #[test]
        fn any_challenge_is_read(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let with = [&value[..], b"\", , Basic"].concat();
            let without = [&value[..], b", Basic"].concat();
            // Behind a quote or not, one of the two ends outside of quotes unless an escape is open.
            let found = names_scheme(&with, "Basic") || names_scheme(&without, "Basic");
            prop_assert!(found || value.contains(&b'\\'));
        }
    }
}
