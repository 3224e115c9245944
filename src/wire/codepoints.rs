//! Upgrade tokens; numbers and names that are provisional, because the document that brings them is still a draft.
//!
//! ```text
//!   token            DATA          FINAL_DATA    draft-ietf-httpbis-connect-tcp
//!   connect-tcp      0x2028d7f2    0x2028d7f3    the token of the RFC; its capsule types are not assigned yet
//!   connect-tcp-12   0x2028d7f2    0x2028d7f3    -12
//!   connect-tcp-07   0x2028d7f0    0x2028d7f1    -08 to -11, under the token that they kept
//! ```
//!
//! The token of the request chooses the set for both directions. A capsule type of another set is an unknown capsule,
//! which is skipped: numbers are never guessed. The types of -07 itself had no FINAL_DATA and are not served.

use super::capsule::CapsuleType;

/// The upgrade token of CONNECT-UDP (RFC 9298 §3.4).
pub const CONNECT_UDP: &str = "connect-udp";

/// The upgrade token of CONNECT-IP (RFC 9484 §4.4).
pub const CONNECT_IP: &str = "connect-ip";

/// One revision of templated CONNECT for TCP: its upgrade token, and the types of its capsules.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The upgrade token, `:protocol` of an extended CONNECT.
    pub token: &'static str,
    /// Bytes of the TCP stream.
    pub data: CapsuleType,
    /// The last bytes of the TCP stream; its FIN follows.
    pub final_data: CapsuleType,
}

/// All revisions served, the one that a client asks for first.
pub static CONNECT_TCP: [Revision; 3] = [
    Revision {
        token: "connect-tcp",
        data: CapsuleType(0x2028_d7f2),
        final_data: CapsuleType(0x2028_d7f3),
    },
    Revision {
        token: "connect-tcp-12",
        data: CapsuleType(0x2028_d7f2),
        final_data: CapsuleType(0x2028_d7f3),
    },
    Revision {
        token: "connect-tcp-07",
        data: CapsuleType(0x2028_d7f0),
        final_data: CapsuleType(0x2028_d7f1),
    },
];

impl Revision {
    /// The revision that a client asks for unless told otherwise, and the one of tests.
    #[must_use]
    pub fn newest() -> &'static Self {
        let [newest, ..] = &CONNECT_TCP;
        newest
    }

    /// The revision of an upgrade token. Tokens are compared without regard to case (RFC 9110 §7.8).
    #[must_use]
    pub fn of_token(token: &str) -> Option<&'static Self> {
        let mut all = CONNECT_TCP.iter();
        all.find(|revision| revision.token.eq_ignore_ascii_case(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The constants of section 1 of the CONNECT-TCP digest
    #[test]
    fn the_token_chooses_the_numbers() {
        let types = |token| Revision::of_token(token).map(|r| (r.data.0, r.final_data.0));
        assert_eq!(types("connect-tcp"), Some((0x2028_d7f2, 0x2028_d7f3)));
        assert_eq!(types("Connect-TCP-12"), Some((0x2028_d7f2, 0x2028_d7f3)));
        assert_eq!(types("connect-tcp-07"), Some((0x2028_d7f0, 0x2028_d7f1)));
        for token in ["", "connect-tcp-", "connect-tcp-06", "connect-udp", "tcp"] {
            assert_eq!(types(token), None, "{token}");
        }
        assert_eq!(Revision::newest().token, "connect-tcp");
    }
}
