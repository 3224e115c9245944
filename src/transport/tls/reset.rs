//! Stateless resets that outlive the process: their key comes out of a private key.
//!
//! ```text
//!   private key ─HKDF─► ResetSecret ─HKDF, host name and address─► key of a listener ─HMAC, connection ID─► token
//! ```
//!
//! A relay that was killed and started again knows nothing of its clients' connections. It answers their packets with
//! the tokens that the process before it had announced, and they connect anew at once instead of waiting for a timeout
//! (RFC 9000 §10.3.2).
//!
//! Whoever has the key of a listener can end its connections, so nobody but their owner may answer with it
//! (RFC 9000 §21.11): each listener has a key of its own, and so has each host, even if a certificate serves several.
//!
//! Deliberately absent: one key for different private keys. Connections from before a change of keys end by their
//! timeout.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac::{HMAC_SHA256, Key};
use quinn_proto::crypto::HmacKey;
use rustls::pki_types::PrivateKeyDer;

/// Tells this use of a private key from every other one.
const LABEL: &[u8] = b"bauta stateless reset";
/// Length of a secret, in bytes.
const SECRET_LEN: usize = 32;

/// What the reset keys of an identity are made of. Nothing leads from it back to the private key.
#[derive(Clone)]
pub(super) struct ResetSecret(Prk);

impl ResetSecret {
    /// Equal for equal encodings of a key.
    pub(super) fn new(key: &PrivateKeyDer<'_>) -> Self {
        // A Prk that was extracted keeps what it was extracted from; one of these bytes keeps nothing else.
        let extracted = Salt::new(HKDF_SHA256, LABEL).extract(key.secret_der());
        let mut secret = [0; SECRET_LEN];
        extracted
            .expand(&[b"secret"], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut secret))
            .expect("as long as a hash");
        Self(Prk::new_less_safe(HKDF_SHA256, &secret))
    }

    /// The key of the listener at `address` on this host.
    pub(super) fn key(&self, host: &[u8], address: SocketAddr) -> Arc<dyn HmacKey> {
        let address = address.to_string();
        // No address has a zero byte in it, so no two pairs are written the same.
        let info = [b"key", address.as_bytes(), &[0], host];
        let okm = self.0.expand(&info, HMAC_SHA256);
        Arc::new(Key::from(okm.expect("as long as a hash")))
    }
}

#[cfg(test)]
mod tests {
    use crate::transport::tls::{DevCa, Identity};

    /// What a listener signs a connection ID with.
    fn token(identity: &Identity, host: &str, address: &str) -> Vec<u8> {
        let key = identity.reset_key(host.as_bytes(), address.parse().unwrap());
        let mut token = vec![0; key.signature_len()];
        key.sign(b"8 bytes.", &mut token);
        token
    }

    fn ca() -> DevCa {
        DevCa::new(&[], std::time::SystemTime::UNIX_EPOCH).unwrap()
    }

    // spec: 9000-10.3-d, 9000-21.11-a
    #[test]
    fn tokens_are_those_of_the_key_the_host_and_the_address() {
        let ca = ca();
        let before = token(&ca.identity, "alpha", "[::]:443");
        // Another process reads the same files.
        let again = Identity::from_pem(ca.chain_pem.as_bytes(), ca.key_pem.as_bytes()).unwrap();
        assert_eq!(token(&again, "alpha", "[::]:443"), before);

        let others = [
            token(&ca.identity, "beta", "[::]:443"),
            token(&ca.identity, "alpha", "[::]:444"),
            token(&ca.identity, "alpha", "0.0.0.0:443"),
            token(&self::ca().identity, "alpha", "[::]:443"),
        ];
        assert!(others.iter().all(|other| *other != before));
    }

    /// Renewed with the same key, as some clients of certificate authorities do.
    #[test]
    fn the_certificate_does_not_count() {
        let key = rcgen::KeyPair::generate().unwrap();
        let identity = |name: &str| {
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
                .unwrap()
        };
        let [old, new] = ["old.test", "new.test"].map(identity);
        assert_ne!(old, new);
        assert_eq!(token(&old, "", "[::]:443"), token(&new, "", "[::]:443"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let ca = ca();
        assert_eq!(
            format!("{:?}", ca.identity),
            format!("Identity {{ chain: {:?}, .. }}", ca.identity.chain())
        );
    }
}
