//! Why no relay answered, in words for its client: the table of refusals speaks of targets, and here it is a relay that
//! is missing.

use std::{error, fmt};

use super::{CertificateFault, ErrorKind, Refusal, TlsFault};

/// A refusal that came without a response of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable(pub Refusal);

impl Unreachable {
    /// What kind of thing went wrong.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else a relay would answer, none answered"
    )]
    pub const fn kind(self) -> ErrorKind {
        match self.0 {
            Refusal::ConnectTimeout | Refusal::NextHopTimeout | Refusal::DnsTimeout => {
                ErrorKind::Timeout
            }
            Refusal::NextHopTls { .. } => ErrorKind::Tls,
            Refusal::NextHopProtocol | Refusal::NextHopUpgrade => ErrorKind::Protocol,
            Refusal::NextHopStatus { .. } => ErrorKind::Refused,
            Refusal::Overloaded | Refusal::ConnectionLimit | Refusal::QuotaExceeded => {
                ErrorKind::Limit
            }
            Refusal::Internal | Refusal::Misconfigured => ErrorKind::Internal,
            _ => ErrorKind::Connect,
        }
    }
}

impl fmt::Display for Unreachable {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the table's own texts fit everything else"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Refusal::ConnectTimeout | Refusal::NextHopTimeout => "the relay did not answer in time",
            Refusal::ConnectionRefused => "the relay refused the connection",
            Refusal::DestinationUnavailable => "the relay is down",
            Refusal::DnsError { .. } => "the name of the relay does not resolve",
            Refusal::Unroutable => "no route to the relay",
            Refusal::NextHopTls {
                fault: TlsFault::Certificate(fault),
            } => match fault {
                CertificateFault::UnknownIssuer => {
                    "the certificate of the relay is from an unknown issuer"
                }
                CertificateFault::WrongName => {
                    "the certificate of the relay is not valid for its name"
                }
                CertificateFault::Expired => "the certificate of the relay is not valid now",
                CertificateFault::NotPinned => {
                    "the key in the certificate of the relay is not pinned"
                }
                CertificateFault::Other => "the certificate of the relay is not acceptable",
            },
            Refusal::NextHopTls { .. } => "the TLS handshake with the relay failed",
            Refusal::NextHopProtocol => "the relay cannot carry the request",
            Refusal::NextHopStatus { status } => return write!(f, "the relay answered {status}"),
            other => return other.fmt(f),
        })
    }
}

impl error::Error for Unreachable {}
