//! Whom a client believes to be the relay.

use crate::transport::tls;

/// How relays show that they are who they are: by TLS 1.3 certificates, judged by one of these.
#[derive(Clone, Debug)]
pub struct Trust(pub(super) Result<tls::Trust, String>);

impl Trust {
    /// The certificate authorities of the operating system. The default.
    #[must_use]
    pub const fn system() -> Self {
        Self(Ok(tls::Trust::System))
    }

    /// The certificate authorities in PEM text, and no others.
    #[must_use]
    pub fn pem(authorities: impl AsRef<[u8]>) -> Self {
        let text = String::from_utf8(authorities.as_ref().to_vec());
        Self(text.map(tls::Trust::Pem).map_err(|_| "not PEM".to_owned()))
    }

    /// The holders of these keys, and nobody else: each is the SHA-256 of a SubjectPublicKeyInfo (RFC 7469 §2.4), that
    /// of the relay's own certificate. Neither names nor dates nor issuers count, so that a relay of one's own needs no
    /// authority. With several relays in a row each has to have one of the keys.
    #[must_use]
    pub fn pinned(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let keys: Vec<_> = keys.into_iter().collect();
        Self(match keys.is_empty() {
            true => Err("no key is pinned".to_owned()),
            false => Ok(tls::Trust::Pinned(keys)),
        })
    }

    /// Anybody: the relay is not authenticated, and whoever is on the path can read and change everything. For tests on
    /// a network that nobody else uses.
    #[must_use]
    pub const fn dangerous_anybody() -> Self {
        Self(Ok(tls::Trust::DangerousAnybody))
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::system()
    }
}
