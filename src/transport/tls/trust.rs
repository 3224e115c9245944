//! Whom a client believes, and the TLS side of the connections it opens.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{KeyLogFile, RootCertStore};

use super::identity::{Identity, Origin, authorities, parse_authorities, read};
use super::verify::{KeyVerifier, Keys};
use super::{ALPN_H3, TlsError, alpn, provider};
use crate::wire::carrier::Carrier;

/// Whom a client believes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The certificate authorities of the operating system.
    System,
    /// The certificate authorities in a PEM file, and no others.
    File(PathBuf),
    /// The certificate authorities in PEM text, and no others.
    Pem(String),
    /// These certificate authorities, and no others.
    Der(Vec<CertificateDer<'static>>),
    /// The holders of these keys, and nobody else. Each is the SHA-256 of a SubjectPublicKeyInfo, as in
    /// RFC 7469 section 2.4.
    ///
    /// The pin stands in place of a certificate authority, not beside one: the key of the peer's own certificate must
    /// be one of these, and the peer proves in the handshake that it holds it. Nothing else of the certificate counts:
    /// neither its names, nor its dates, nor who signed it. A pin of an authority's key matches nothing but that
    /// authority itself.
    Pinned(Vec<[u8; 32]>),
    /// Anybody: the peer is not authenticated. For tests on a network that nobody else uses.
    DangerousAnybody,
}

impl Trust {
    /// What `--ca` and `--insecure`, or the keys of a configuration, ask for.
    #[must_use]
    pub fn from_options(ca: Option<PathBuf>, insecure: bool) -> Self {
        match ca {
            Some(path) => Self::File(path),
            None if insecure => Self::DangerousAnybody,
            None => Self::System,
        }
    }

    fn anchor(&self) -> Result<Anchor, TlsError> {
        let given = Origin::Given("certificate authority");
        Ok(match self {
            Self::System => Anchor::Roots(system_roots()?),
            Self::File(path) => {
                let origin = Origin::File(path.clone());
                Anchor::Roots(parse_authorities(&read(path)?, &origin)?)
            }
            Self::Pem(text) => Anchor::Roots(parse_authorities(text.as_bytes(), &given)?),
            Self::Der(certificates) => Anchor::Roots(authorities(certificates.clone(), &given)?),
            Self::Pinned(pins) if pins.is_empty() => return Err(TlsError::NoPin),
            Self::Pinned(pins) => Anchor::Keys(Keys::Pinned(pins.clone())),
            Self::DangerousAnybody => Anchor::Keys(Keys::Any),
        })
    }
}

/// What a peer's certificate is measured against.
enum Anchor {
    Roots(RootCertStore),
    Keys(Keys),
}

/// What decides about the TLS side of an upstream connection.
///
/// Two connections may be shared only when these are equal; [`ClientTls::client_hash`] is the short form of that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Whom to believe.
    pub trust: Trust,
    /// Who we are, for servers that ask (RFC 8446 section 4.3.2).
    pub identity: Option<Identity>,
    /// Write session secrets to the file that `SSLKEYLOGFILE` names: whoever reads it reads the traffic.
    pub dangerous_key_log: bool,
}

impl ClientTls {
    /// Options with the given trust, without an identity and without key logging.
    pub const fn new(trust: Trust) -> Self {
        Self {
            trust,
            identity: None,
            dangerous_key_log: false,
        }
    }

    /// Hash of all options, for the keys of connection pools. Equal for equal options in every worker and every run
    /// of the same build.
    pub fn client_hash(&self) -> u64 {
        // The fixed keys of DefaultHasher::new are what makes it stable; nobody else chooses the options.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// The TLS side of an upstream TCP connection that is to speak exactly `carrier`.
///
/// # Errors
/// As [`client_config`].
pub fn tcp_client_config(
    options: &ClientTls,
    carrier: Carrier,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let mut config = rustls::ClientConfig::clone(&*client_config(options)?);
    config.alpn_protocols = vec![alpn(carrier)];
    Ok(Arc::new(config))
}

/// The TLS side of an upstream connection.
///
/// # Errors
/// When the certificate authorities cannot be read, or there are none.
pub fn client_config(options: &ClientTls) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?;
    let mut config = match options.trust.anchor()? {
        Anchor::Roots(roots) => builder.with_root_certificates(roots),
        Anchor::Keys(keys) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyVerifier { keys, provider })),
    }
    .with_no_client_auth();
    if let Some(identity) = &options.identity {
        let resolver: Arc<dyn ResolvesClientCert> =
            Arc::new(SingleCertAndKey::from(Arc::clone(&identity.certified)));
        config.client_auth_cert_resolver = resolver;
    }
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    if options.dangerous_key_log {
        config.key_log = Arc::new(KeyLogFile::new());
    }
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Systems carry certificates that webpki does not read; what counts is that some are left.
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        Err(TlsError::NoSystemRoots)
    } else {
        Ok(roots)
    }
}
