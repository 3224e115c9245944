//! Certificates, trust and the TLS 1.3 configurations of both directions of QUIC and TCP.
//!
//! ```text
//!  chain + key ──► Identity ──► ListenerTls ──► server_config ──► quic_server ──► quinn-proto, downstream
//!                     │                  └─────► tcp_server_config ──► HTTP/2 and HTTP/1.1, downstream
//!  roots / pins ──► ClientTls ──► client_config ──► quic_client ──► quinn-proto, upstream
//!                          └────► tcp_client_config ──► HTTP/2 or HTTP/1.1, upstream
//!  DevCa: a throw-away CA and its leaf, for `--dev`, the demo and tests
//! ```
//!
//! Invariants: TLS 1.3 only, on QUIC ALPN `h3` only (RFC 9001 section 8.1, RFC 9114 section 3.1), AES-128-GCM before
//! all other suites (ChaCha20 doubles the cost of a hop), no 0-RTT (CONNECT is not safe to replay, RFC 8470 section
//! 4). Key logging happens only where a field asks for it, never because of the environment alone.
//!
//! Deliberately not here: session resumption on QUIC and as a client. Tickets would let a relay link a client's
//! connections, and a cache would be a lock between workers; a full handshake costs one signature more. On TCP a client
//! that wants to be resumed may: it decides by itself whether it uses the ticket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem;

use crate::wire::carrier::Carrier;

mod dev;
mod identity;
mod listener;
mod reset;
mod session;
mod trust;
mod verify;

pub use self::dev::DevCa;
pub use self::identity::{Identity, Origin};
pub use self::listener::{ClientAuth, ListenerTls, server_config, tcp_server_config};
pub use self::session::QuicServer;
pub use self::trust::{ClientTls, Trust, client_config, tcp_client_config};

/// Protocol name of HTTP/3 in ALPN (RFC 9114 section 3.1).
pub const ALPN_H3: &[u8] = b"h3";

/// Why certificates or a TLS configuration could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing or unreadable.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is not well-formed PEM.
    #[error("{origin}: not PEM: {source}")]
    Pem {
        /// Where it comes from.
        origin: Origin,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is no certificate.
    #[error("{origin}: no certificate in it")]
    NoCertificate {
        /// Where it comes from.
        origin: Origin,
    },
    /// It is PEM, but holds no private key.
    #[error("{origin}: no private key in it")]
    NoKey {
        /// Where it comes from.
        origin: Origin,
    },
    /// Certificate and key are readable, but do not fit each other or are of an unsupported kind.
    #[error("{chain} and {key} do not work together: {source}")]
    Identity {
        /// The chain.
        chain: Origin,
        /// The key.
        key: Origin,
        /// What rustls said.
        source: rustls::Error,
    },
    /// A certificate authority cannot be used as one.
    #[error("{origin}: not a certificate authority: {source}")]
    Authority {
        /// Where it comes from.
        origin: Origin,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The system offers no usable certificate authority.
    #[error("no certificate authorities found on this system; name a CA file")]
    NoSystemRoots,
    /// A list of pinned keys is empty.
    #[error("no key is pinned")]
    NoPin,
    /// The provider refused the configuration.
    #[error("TLS configuration refused: {0}")]
    Config(#[from] rustls::Error),
    /// The cipher suite of QUIC's first packets is missing (RFC 9001 section 5.2).
    #[error("TLS configuration without AES-128-GCM cannot start QUIC")]
    NoInitialSuite(#[from] NoInitialCipherSuite),
    /// The throw-away certificates could not be made.
    #[error("cannot make development certificates: {0}")]
    Development(#[from] rcgen::Error),
}

/// Wraps a [`server_config`] for quinn-proto. What TLS remembers is given up when the handshake is complete.
///
/// # Errors
/// When the configuration lacks the suite of QUIC's first packets, which one made here never does.
pub fn quic_server(config: Arc<rustls::ServerConfig>) -> Result<Arc<QuicServer>, TlsError> {
    Ok(Arc::new(QuicServer::new(config)?))
}

/// Wraps a [`client_config`] for quinn-proto.
///
/// # Errors
/// As [`quic_server`].
pub fn quic_client(config: Arc<rustls::ClientConfig>) -> Result<Arc<QuicClientConfig>, TlsError> {
    Ok(Arc::new(QuicClientConfig::try_from(config)?))
}

fn alpn(carrier: Carrier) -> Vec<u8> {
    carrier.alpn().as_bytes().to_vec()
}

/// aws-lc-rs with our order of cipher suites.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    })
}

#[cfg(test)]
mod tests;
