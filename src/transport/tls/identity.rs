//! Certificates and keys out of files and memory.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn_proto::crypto::HmacKey;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::reset::ResetSecret;
use super::{TlsError, provider};

/// Where a certificate or a key comes from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The program itself, which calls it by this name.
    Given(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Given(what) => write!(f, "the given {what}"),
        }
    }
}

const CHAIN: Origin = Origin::Given("certificate chain");
const KEY: Origin = Origin::Given("private key");

/// A certificate chain with its private key, known to fit each other.
///
/// Equal are identities that show the same chain, whatever else they are.
#[derive(Clone)]
pub struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    reset: ResetSecret,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.chain() == other.chain()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.chain().hash(state);
    }
}

/// Prints what everybody is shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("chain", &self.chain())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a PEM chain, own certificate first, and its PEM key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// When a file is missing, unreadable, not PEM or empty of what it should hold, and when the key is not the
    /// certificate's. Each names its path.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let [chain_origin, key_origin] = [chain, key].map(|path| Origin::File(path.to_owned()));
        let (chain, key) = (read(chain)?, read(key)?);
        Self::parse((&chain, chain_origin), (&key, key_origin))
    }

    /// An identity from the PEM text of a chain, own certificate first, and of its key (PKCS#8, PKCS#1 or SEC1).
    /// Both may be the same text.
    ///
    /// # Errors
    /// As [`Identity::load`], without a path.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::parse((chain, CHAIN), (key, KEY))
    }

    /// An identity from a chain, own certificate first, and its key.
    ///
    /// # Errors
    /// When the chain is empty, the key is of an unsupported kind, or it is not the certificate's.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { origin: CHAIN });
        }
        Self::certified(chain, key).map_err(|source| TlsError::Identity {
            chain: CHAIN,
            key: KEY,
            source,
        })
    }

    fn parse(chain: (&[u8], Origin), key: (&[u8], Origin)) -> Result<Self, TlsError> {
        let certificates = parse_certificates(chain.0, &chain.1)?;
        let origin = key.1;
        let private = match PrivateKeyDer::from_pem_slice(key.0) {
            Ok(private) => private,
            Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { origin }),
            Err(source) => return Err(TlsError::Pem { origin, source }),
        };
        Self::certified(certificates, private).map_err(|source| TlsError::Identity {
            chain: chain.1,
            key: origin,
            source,
        })
    }

    fn certified(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let reset = ResetSecret::new(&key);
        let certified = CertifiedKey::from_der(chain, key, &provider()).map(Arc::new)?;
        Ok(Self { certified, reset })
    }

    /// The certificate chain, own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The key of stateless resets for a listener at `address` on the host of this name: the same in every process
    /// that has the same private key.
    #[must_use]
    pub fn reset_key(&self, host: &[u8], address: SocketAddr) -> Arc<dyn HmacKey> {
        self.reset.key(host, address)
    }
}

/// Makes a store of certificates that others are signed with.
pub(super) fn authorities(
    certificates: Vec<CertificateDer<'static>>,
    origin: &Origin,
) -> Result<RootCertStore, TlsError> {
    if certificates.is_empty() {
        let origin = origin.clone();
        return Err(TlsError::NoCertificate { origin });
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Authority {
                origin: origin.clone(),
                source,
            })?;
    }
    Ok(roots)
}

/// The same from PEM text.
pub(super) fn parse_authorities(text: &[u8], origin: &Origin) -> Result<RootCertStore, TlsError> {
    authorities(parse_certificates(text, origin)?, origin)
}

fn parse_certificates(
    text: &[u8],
    origin: &Origin,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::NoCertificate {
            origin: origin.clone(),
        }),
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(TlsError::Pem {
            origin: origin.clone(),
            source,
        }),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}
