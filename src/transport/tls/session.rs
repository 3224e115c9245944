//! The TLS side of a connection that a client opens: over when the handshake is.
//!
//! ```text
//!   rustls ──the client's Finished──► nothing but the secrets of the next key update
//! ```
//!
//! quinn-proto's own session keeps rustls until the connection ends: transcript, buffers and record keys that QUIC
//! never uses, more than 4 KB for each idle client. Here nobody needs them, as there are no tickets and no 0-RTT; a
//! client that goes on speaking TLS makes a mistake (RFC 9001 §6). What stays is the own certificate of a client that
//! showed one.
//!
//! Does not know: certificates and parameters (they are in the [`rustls::ServerConfig`]), connections that we open.

use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::quic::{KeyChange, Secrets, ServerConnection, Version};

/// The TLS side of a listener, as quinn-proto takes it.
pub struct QuicServer {
    tls: Arc<rustls::ServerConfig>,
    /// What does not depend on the session: keys of first packets, tags of Retry packets.
    quinn: QuicServerConfig,
}

impl QuicServer {
    pub(super) fn new(tls: Arc<rustls::ServerConfig>) -> Result<Self, NoInitialCipherSuite> {
        let quinn = QuicServerConfig::try_from(Arc::clone(&tls))?;
        Ok(Self { tls, quinn })
    }
}

impl ServerConfig for QuicServer {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.quinn.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.quinn.retry_tag(version, id, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let mut encoded = Vec::new();
        params.write(&mut encoded);
        // The drafts that quinn-proto speaks; for any other version there is no session.
        let flavour = match version {
            0xff00_001d..=0xff00_0020 => Version::V1Draft,
            _ => Version::V1,
        };
        let tls = ServerConnection::new(Arc::clone(&self.tls), flavour, encoded)
            .expect("TLS 1.3 without early data suits QUIC");
        Box::new(ServerSession {
            config: self,
            version,
            tls: Some(Box::new(tls)),
            next: None,
            leaf: None,
        })
    }
}

struct ServerSession {
    config: Arc<QuicServer>,
    version: u32,
    /// Until the handshake is complete.
    tls: Option<Box<ServerConnection>>,
    /// Once there are 1-RTT keys.
    next: Option<Secrets>,
    /// The client's own certificate, once the handshake is complete.
    leaf: Option<CertificateDer<'static>>,
}

impl ServerSession {
    fn leaf(&self) -> Option<&CertificateDer<'static>> {
        let tls = self.tls.as_ref().filter(|tls| !tls.is_handshaking());
        let shown = tls.and_then(|tls| tls.peer_certificates()?.first());
        shown.or(self.leaf.as_ref())
    }
}

impl Session for ServerSession {
    fn initial_keys(&self, id: &ConnectionId, _: Side) -> Keys {
        self.config
            .initial_keys(self.version, id)
            .unwrap_or_else(|_| unreachable!("the session began with this version"))
    }

    /// Nobody here asks what was negotiated: ALPN can only be h3.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// A `Vec` as that of quinn-proto's own sessions, of the client's own certificate alone.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.leaf()
            .map(|leaf| -> Box<dyn Any> { Box::new(vec![leaf.clone()]) })
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(tls) = &mut self.tls else {
            return Err(alert(
                AlertDescription::UnexpectedMessage,
                "TLS after the handshake",
            ));
        };
        match tls.read_hs(bytes) {
            Ok(()) => Ok(false),
            Err(error) => {
                // rustls names an alert for every mistake of a peer.
                let description = tls.alert().unwrap_or(AlertDescription::InternalError);
                Err(alert(description, &error.to_string()))
            }
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let tls = self.tls.as_ref();
        let Some(encoded) = tls.and_then(|tls| tls.quic_transport_parameters()) else {
            return Ok(None);
        };
        Ok(Some(TransportParameters::read(
            Side::Server,
            &mut Cursor::new(encoded),
        )?))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let tls = self.tls.as_mut()?;
        let Some(change) = tls.write_hs(out) else {
            if out.is_empty() && !tls.is_handshaking() {
                self.leaf = self.leaf().cloned();
                self.tls = None;
            }
            return None;
        };
        let keys = match change {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.next = Some(next);
                keys
            }
        };
        let (local, remote) = (keys.local, keys.remote);
        Some(Keys {
            header: KeyPair {
                local: Box::new(local.header),
                remote: Box::new(remote.header),
            },
            packet: KeyPair {
                local: Box::new(local.packet),
                remote: Box::new(remote.packet),
            },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(keys.local),
            remote: Box::new(keys.remote),
        })
    }

    /// Servers are not told to retry.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// A TLS alert as QUIC carries it (RFC 9001 §4.8).
fn alert(description: AlertDescription, reason: &str) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(description.into()),
        frame: None,
        reason: reason.to_owned(),
    }
}
