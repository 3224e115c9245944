//! What the end of a connection to a next hop means for the tunnels that waited for it.

use crate::error::{Refusal, TlsFault};
use crate::transport::quic::CloseReason;
use crate::transport::tcp;

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
    let tls = |code: u64, ours: bool| match code.checked_sub(CRYPTO_ERROR) {
        Some(alert) if ours && CERTIFICATE_ALERTS.contains(&alert) => Some(Refusal::NextHopTls {
            fault: TlsFault::Certificate,
        }),
        Some(alert) if !ours && alert <= 0xff => Some(Refusal::NextHopTls {
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
            tls(error.code.into(), true).unwrap_or(Refusal::NextHopProtocol)
        }
        CloseReason::Lost(ConnectionError::ConnectionClosed(close)) => {
            tls(close.error_code.into(), false).unwrap_or(Refusal::ConnectionRefused)
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

fn refusal_of_tcp(reason: &tcp::CloseReason) -> Refusal {
    use std::io::ErrorKind;
    use tcp::{CloseReason, TlsFailure};
    match reason {
        CloseReason::Tls(failure) => Refusal::NextHopTls {
            fault: match failure {
                TlsFailure::Certificate => TlsFault::Certificate,
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
        | CloseReason::HeadTimeout
        | CloseReason::IdleTimeout
        | CloseReason::WriteTimeout
        | CloseReason::Local => Refusal::DestinationUnavailable,
    }
}
