//! Who a listener is.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, ErrorKind, Side};
use crate::transport::tls::{self, DevCa, TlsError};

/// A certificate chain with its private key, which are known to fit each other.
///
/// The key has a second use. When a listener was killed and another takes its place, on the same host, address and port
/// and with the same (first) key, clients on HTTP/3 that go on are told by stateless resets (RFC 9000 §10.3) to connect
/// anew. With another key they wait for a timeout.
#[derive(Clone)]
pub struct Identity(pub(super) tls::Identity);

impl Identity {
    /// Reads a PEM chain, own certificate first, and its PEM key (PKCS#8, PKCS#1 or SEC1), from files.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] with the path, when a file cannot be read or used, or they do not fit.
    pub fn load(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, Error> {
        let identity = tls::Identity::load(chain.as_ref(), key.as_ref());
        identity.map(Self).map_err(configuration)
    }

    /// The same from text in memory. Both may be the same text.
    ///
    /// # Errors
    /// As [`load`](Self::load), without a path.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let identity = tls::Identity::from_pem(chain.as_ref(), key.as_ref());
        identity.map(Self).map_err(configuration)
    }

    /// An identity from a chain, own certificate first, and its key, both DER.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], when the chain is empty, the key is of an unsupported kind, or they do not fit.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let identity = tls::Identity::from_der(chain, key);
        identity.map(Self).map_err(configuration)
    }

    /// For tests and first steps: a throw-away identity for `localhost`, `127.0.0.1`, `::1` and `names`, and the
    /// certificate of the authority that a client has to trust for it, PEM. Both are valid for two weeks, and nobody
    /// has the authority's key.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], when one of `names` can stand in no certificate.
    pub fn development(names: &[&str]) -> Result<(Self, String), Error> {
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates are dated by the wall clock"
        )]
        let now = SystemTime::now();
        let ca = DevCa::new(names, now).map_err(configuration)?;
        Ok((Self(ca.identity), ca.ca_pem))
    }
}

impl fmt::Debug for Identity {
    /// Shows nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn configuration(error: TlsError) -> Error {
    Error::new(ErrorKind::Configuration, Side::Local).with_source(error)
}
