//! A verifier that knows keys, not authorities: those that are pinned, or any at all.
//!
//! The handshake is still checked: the peer proves that it holds the key of the certificate it shows. Where any key
//! will do, what is missing is any reason to believe it: for tests on networks that nobody else uses.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// The keys that are believed.
#[derive(Debug)]
pub(super) enum Keys {
    /// Every one.
    Any,
    /// Those whose SubjectPublicKeyInfo has one of these SHA-256 digests.
    Pinned(Vec<[u8; 32]>),
}

/// Believes a certificate for its key.
#[derive(Debug)]
pub(super) struct KeyVerifier {
    pub(super) keys: Keys,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let known = match &self.keys {
            Keys::Any => true,
            Keys::Pinned(pins) => {
                let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
                let digest = digest(&SHA256, &key);
                pins.iter().any(|pin| pin == digest.as_ref())
            }
        };
        match known {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
