//! The Basic scheme (RFC 7617): `Basic base64(user ":" password)`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bytes of the longest user name and password together.
const PAIR_MAX: usize = 1024;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A user name and a password as a peer gave them. Not `Debug`: it is a secret.
pub(super) struct Basic {
    pub(super) user: Box<str>,
    pub(super) password: Box<[u8]>,
}

/// The credential of the Basic scheme, if it is one.
pub(super) fn parse(scheme: &str, credential: &[u8]) -> Option<Basic> {
    // Four characters of base64 are three bytes.
    if !scheme.eq_ignore_ascii_case("Basic") || credential.len() > PAIR_MAX.div_ceil(3) * 4 {
        return None;
    }
    let pair = LENIENT.decode(credential).ok()?;
    let colon = pair.iter().position(|b| *b == b':')?;
    let (user, password) = pair.split_at_checked(colon)?;
    let user = std::str::from_utf8(user).ok()?;
    Some(Basic {
        user: user.into(),
        password: password.strip_prefix(b":")?.into(),
    })
}

/// The challenge. Passwords are UTF-8, which the parameter asks for (RFC 7617 §2.1).
pub(super) fn challenge(realm: &str) -> String {
    let realm = realm.replace(['"', '\\'], "");
    format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
}
