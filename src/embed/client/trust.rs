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
