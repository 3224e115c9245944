//! What the end of a connection to a next hop means for the tunnels that waited for it.

use std::time::Duration;

use rustls::CertificateError;

use crate::error::{CertificateFault, Refusal, TlsFault};
use crate::http::request::ResponseHead;
use crate::transport::quic::CloseReason;
use crate::transport::tcp;
use crate::wire::ip::Destination;
use crate::wire::target::Target;

/// Why there is no stream at a relay for a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason.
    pub refusal: Refusal,
    /// What a relay answered, if one did: the one that was asked, or an earlier one on the way to it.
    pub response: Option<Box<ResponseHead>>,
    /// Which relay it is about, if it is about one.
    pub relay: Option<Target>,
    /// What that relay was asked for, if it was asked.
    pub target: Option<Destination>,
    /// Nobody was asked now: `refusal` is why the last attempt failed, and this long none is made.
    pub pause: Option<Duration>,
}

impl Failure {
    /// A failure about a relay that was not asked for anything.
    pub fn at(relay: Target, refusal: Refusal) -> Self {
        Self {
            relay: Some(relay),
            ..refusal.into()
        }
    }

    /// Whether a relay on the way has answered for good: the way is there, and on any carrier it would say the same.
    ///
    /// Answers about the way in which it was asked are not: a relay may know CONNECT only, and CONNECT-UDP is what
    /// HTTP/3 at the next relay takes.
    pub(crate) fn is_final(&self) -> bool {
        /// Bad Request, Not Found, Method Not Allowed, Misdirected Request, Upgrade Required.
        const ABOUT_THE_FORM: [u16; 5] = [400, 404, 405, 421, 426];
        self.response.as_ref().is_some_and(|response| {
            let status = response.status;
            status.is_client_error() && !ABOUT_THE_FORM.contains(&status.as_u16())
        })
    }

    /// Whether it says nothing of the hop itself: an earlier relay had the say.
    pub(super) fn is_of_another(&self) -> bool {
        self.pause.is_some() || self.is_final()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            response: None,
            relay: None,
            target: None,
            pause: None,
        }
    }
}

/// Why a connection to a next hop is over.
#[derive(Clone, Copy, Debug)]
pub enum Failed<'a> {
    /// One that carried HTTP/3.
    Quic(&'a CloseReason),
    /// One that carried HTTP/2 or HTTP/1.1.
    Tcp(&'a tcp::CloseReason),
}

impl Failed<'_> {
    /// What it means for the tunnels that waited for the connection.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Quic(reason) => refusal_of(reason),
            Self::Tcp(reason) => refusal_of_tcp(reason),
        }
    }

    /// Whether the path may have swallowed our larger packets.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Quic(CloseReason::HandshakeTimeout))
    }
}

/// What a failed dial means for the tunnels that waited for it.
fn refusal_of(reason: &CloseReason) -> Refusal {
    use quinn_proto::ConnectionError;
    /// QUIC error codes from here on carry a TLS alert in the low byte (RFC 9001 §4.8).
    const CRYPTO_ERROR: u64 = 0x100;
    /// The alerts that say that a certificate was not accepted (RFC 8446 §6.2). rustls sends decrypt_error (51) when
    /// its signature is not that of the authority which it names.
    const CERTIFICATE_ALERTS: [u64; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 113];
    let tls = |code: u64, ours: Option<&str>| match code.checked_sub(CRYPTO_ERROR) {
        Some(alert) if ours.is_some() && CERTIFICATE_ALERTS.contains(&alert) => {
            let fault = TlsFault::Certificate(fault_of_alert(alert, ours.unwrap_or_default()));
            Some(Refusal::NextHopTls { fault })
        }
        Some(alert) if ours.is_none() && alert <= 0xff => Some(Refusal::NextHopTls {
            fault: TlsFault::Alert { id: alert as u8 },
        }),
        Some(alert) if alert <= 0xff => Some(Refusal::NextHopTls {
            fault: TlsFault::Protocol,
        }),
        Some(_) | None => None,
    };
    match reason {
        CloseReason::HandshakeTimeout | CloseReason::Lost(ConnectionError::TimedOut) => {
            Refusal::ConnectTimeout
        }
        CloseReason::Misbehaved(_) => Refusal::NextHopProtocol,
        CloseReason::Lost(ConnectionError::TransportError(error)) => {
            tls(error.code.into(), Some(&error.reason)).unwrap_or(Refusal::NextHopProtocol)
        }
        CloseReason::Lost(ConnectionError::ConnectionClosed(close)) => {
            tls(close.error_code.into(), None).unwrap_or(Refusal::ConnectionRefused)
        }
        CloseReason::Lost(
            ConnectionError::VersionMismatch
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted,
        )
        | CloseReason::Local => Refusal::DestinationUnavailable,
    }
}

/// What the alert that rustls sends says about a certificate, and its text where the alert says too little.
fn fault_of_alert(alert: u64, text: &str) -> CertificateFault {
    match alert {
        // bad_certificate is also sent when the name is another one.
        42 if text.contains("not valid for name") || text.contains("NotValidForName") => {
            CertificateFault::WrongName
        }
        45 => CertificateFault::Expired,
        48 | 51 => CertificateFault::UnknownIssuer,
        // access_denied is what a verifier of pins comes to.
        49 => CertificateFault::NotPinned,
        _ => CertificateFault::Other,
    }
}

/// Why a certificate was not accepted.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of rustls are many, and not ours"
)]
const fn fault_of(error: &CertificateError) -> CertificateFault {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            CertificateFault::UnknownIssuer
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFault::WrongName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => CertificateFault::Expired,
        CertificateError::ApplicationVerificationFailure => CertificateFault::NotPinned,
        _ => CertificateFault::Other,
    }
}

fn refusal_of_tcp(reason: &tcp::CloseReason) -> Refusal {
    use std::io::ErrorKind;
    use tcp::{CloseReason, TlsFailure};
    match reason {
        CloseReason::Tls(failure) => Refusal::NextHopTls {
            fault: match failure {
                TlsFailure::Certificate(error) => TlsFault::Certificate(fault_of(error)),
                TlsFailure::Alert { id } => TlsFault::Alert { id: *id },
                TlsFailure::Protocol => TlsFault::Protocol,
            },
        },
        CloseReason::Misbehaved(_) => Refusal::NextHopProtocol,
        CloseReason::HandshakeTimeout | CloseReason::Lost(ErrorKind::TimedOut) => {
            Refusal::ConnectTimeout
        }
        CloseReason::Lost(ErrorKind::ConnectionRefused) => Refusal::ConnectionRefused,
        CloseReason::Lost(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            Refusal::Unroutable
        }
        CloseReason::Lost(_)
        | CloseReason::Peer(_)
        | CloseReason::Truncated
        | CloseReason::Aborted(_)
        | CloseReason::HeadTimeout
        | CloseReason::IdleTimeout
        | CloseReason::WriteTimeout
        | CloseReason::Local => Refusal::DestinationUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stacks_tell_the_same_of_a_certificate() {
        for (error, fault) in [
            (
                CertificateError::UnknownIssuer,
                CertificateFault::UnknownIssuer,
            ),
            (
                CertificateError::BadSignature,
                CertificateFault::UnknownIssuer,
            ),
            (
                CertificateError::NotValidForName,
                CertificateFault::WrongName,
            ),
            (CertificateError::Expired, CertificateFault::Expired),
            (CertificateError::NotValidYet, CertificateFault::Expired),
            (
                CertificateError::ApplicationVerificationFailure,
                CertificateFault::NotPinned,
            ),
            (CertificateError::BadEncoding, CertificateFault::Other),
        ] {
            assert_eq!(fault_of(&error), fault, "{error:?}");
            let alert = u8::from(rustls::AlertDescription::from(error.clone()));
            let text = rustls::Error::from(error).to_string();
            assert_eq!(fault_of_alert(alert.into(), &text), fault, "{text}");
        }
    }

    #[test]
    fn only_an_answer_to_who_asks_is_final() {
        for (status, is_final) in [
            (401, true),
            (403, true),
            (407, true),
            (429, true),
            (400, false),
            (404, false),
            (405, false),
            (421, false),
            (501, false),
            (502, false),
            (503, false),
        ] {
            let status = ::http::StatusCode::from_u16(status).unwrap();
            let failure = Failure {
                response: Some(ResponseHead::new(status).into()),
                ..Refusal::NextHopStatus { status }.into()
            };
            assert_eq!(failure.is_final(), is_final, "{status}");
        }
    }
}
