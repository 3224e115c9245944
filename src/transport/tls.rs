//! Certificates, trust and the TLS 1.3 configurations of both directions of QUIC and TCP.
//!
//! ```text
//!  chain.pem + key.pem ──► Identity ──► server_config ──► quic_server ──► quinn-proto, downstream
//!                                  └──► tcp_server_config ──► HTTP/2 and HTTP/1.1, downstream
//!  system roots / CA / dangerous ──► ClientTls ──► client_config ──► quic_client ──► quinn-proto, upstream
//!                                             └──► tcp_client_config ──► HTTP/2 or HTTP/1.1, upstream
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

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{KeyLogFile, RootCertStore};

use crate::wire::carrier::Carrier;

mod dangerous;
mod session;

pub use self::session::QuicServer;

/// Protocol name of HTTP/3 in ALPN (RFC 9114 section 3.1).
pub const ALPN_H3: &[u8] = b"h3";

/// How long a [`DevCa`] and its certificate are valid. Short, so that a forgotten one does no harm.
const DEV_VALIDITY: Duration = Duration::from_secs(14 * 86_400);
/// How far the clock of a client may lag behind the one that made a [`DevCa`].
const DEV_CLOCK_SKEW: Duration = Duration::from_secs(3_600);

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
    /// The file is not well-formed PEM.
    #[error("{}: not PEM: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file is PEM, but holds no certificate.
    #[error("{}: no certificate in it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file is PEM, but holds no private key.
    #[error("{}: no private key in it", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are readable, but do not fit each other or are of an unsupported kind.
    #[error("{} and {} do not work together: {source}", chain.display(), key.display())]
    Identity {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// A certificate authority cannot be used as one.
    #[error("{}: not a certificate authority: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The system offers no usable certificate authority.
    #[error("no certificate authorities found on this system; name a CA file")]
    NoSystemRoots,
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

/// A certificate chain with its private key, known to fit each other.
#[derive(Clone, Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads a PEM chain, own certificate first, and its PEM key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// When a file is missing, unreadable, not PEM or empty of what it should hold, and when the key is not the
    /// certificate's. Each names its path.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let certificates = read_certificates(chain)?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| {
            let path = key.to_owned();
            if matches!(source, pem::Error::NoItemsFound) {
                TlsError::NoKey { path }
            } else {
                TlsError::Pem { path, source }
            }
        })?;
        Self::from_der(certificates, private).map_err(|source| TlsError::Identity {
            chain: chain.to_owned(),
            key: key.to_owned(),
            source,
        })
    }

    fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        CertifiedKey::from_der(chain, key, &provider()).map(|identity| Self(Arc::new(identity)))
    }
}

/// Whom a client believes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The certificate authorities of the operating system.
    System,
    /// The certificate authorities in a PEM file, and no others.
    File(PathBuf),
    /// The certificate authorities in PEM text, and no others.
    Pem(String),
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
}

/// What decides about the TLS side of an upstream connection.
///
/// Two connections may be shared only when these are equal; [`ClientTls::client_hash`] is the short form of that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Whom to believe.
    pub trust: Trust,
    /// Write session secrets to the file that `SSLKEYLOGFILE` names: whoever reads it reads the traffic.
    pub dangerous_key_log: bool,
}

impl ClientTls {
    /// Options with the given trust and without key logging.
    pub const fn new(trust: Trust) -> Self {
        Self {
            trust,
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

/// The TLS side of a listener. `dangerous_key_log` is as in [`ClientTls`].
///
/// # Errors
/// When the provider refuses the parameters, which only a broken build does.
pub fn server_config(
    identity: &Identity,
    dangerous_key_log: bool,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.0))));
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    // The server pays for every hop, so its order counts, not the client's.
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    if dangerous_key_log {
        config.key_log = Arc::new(KeyLogFile::new());
    }
    Ok(Arc::new(config))
}

/// The TLS side of a TCP listener that speaks `carriers`, in the order of preference, and otherwise as
/// [`server_config`]. Tickets go out, so that a client that comes back saves a signature of ours; they are encrypted
/// with keys that live as long as the process and change every six hours.
///
/// # Errors
/// As [`server_config`], and when the system has no random bytes.
pub fn tcp_server_config(
    identity: &Identity,
    carriers: &[Carrier],
    dangerous_key_log: bool,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let mut config = rustls::ServerConfig::clone(&*server_config(identity, dangerous_key_log)?);
    config.alpn_protocols = carriers.iter().copied().map(alpn).collect();
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
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

fn alpn(carrier: Carrier) -> Vec<u8> {
    carrier.alpn().as_bytes().to_vec()
}

/// The TLS side of an upstream connection.
///
/// # Errors
/// When the certificate authorities cannot be read, or there are none.
pub fn client_config(options: &ClientTls) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?;
    let roots = match &options.trust {
        Trust::System => Some(system_roots()?),
        Trust::File(path) => Some(authorities(path, read_certificates(path)?)?),
        Trust::Pem(text) => {
            let path = Path::new("given certificate authority");
            Some(authorities(
                path,
                parse_certificates(path, text.as_bytes())?,
            )?)
        }
        Trust::DangerousAnybody => None,
    };
    let mut config = match roots {
        Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(dangerous::AcceptAnybody(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    if options.dangerous_key_log {
        config.key_log = Arc::new(KeyLogFile::new());
    }
    Ok(Arc::new(config))
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

/// A throw-away certificate authority and one certificate for this machine, both valid for two weeks.
///
/// The authority's key is gone as soon as the certificate is made.
#[derive(Debug)]
pub struct DevCa {
    /// The authority's certificate, PEM: what a client has to trust.
    pub ca_pem: String,
    /// The certificate, PEM.
    pub chain_pem: String,
    /// The certificate's private key, PEM.
    pub key_pem: String,
    /// Certificate and key, ready for [`server_config`].
    pub identity: Identity,
}

impl DevCa {
    /// Makes certificates for `localhost`, `127.0.0.1`, `::1` and `names` (host names and IP addresses), valid from
    /// an hour before `now`.
    ///
    /// # Errors
    /// When one of `names` can stand in no certificate.
    pub fn new(names: &[&str], now: SystemTime) -> Result<Self, TlsError> {
        use rcgen::{
            BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
            IsCa, KeyPair, KeyUsagePurpose,
        };

        let params = |names: Vec<String>, title: &str| -> Result<CertificateParams, rcgen::Error> {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, title);
            params.not_before = (now - DEV_CLOCK_SKEW).into();
            params.not_after = (now + DEV_VALIDITY).into();
            Ok(params)
        };

        let mut authority = params(Vec::new(), "bauta development CA")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let names = ["localhost", "127.0.0.1", "::1"]
            .iter()
            .chain(names)
            .map(ToString::to_string)
            .collect();
        let mut leaf = params(names, "bauta development relay")?;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &authority)?;

        Ok(Self {
            ca_pem: authority.pem(),
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            identity: Identity::from_der(vec![certificate.into()], key.into())?,
        })
    }
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

fn authorities(
    path: &Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Authority {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parse_certificates(path, &read(path)?)
}

fn parse_certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem {
            path: path.to_owned(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
