//! Throw-away certificates, for `--dev`, the demo and tests.

use std::time::{Duration, SystemTime};

use super::{Identity, TlsError};

/// How long a [`DevCa`] and its certificate are valid. Short, so that a forgotten one does no harm.
const VALIDITY: Duration = Duration::from_secs(14 * 86_400);
/// How far the clock of a client may lag behind the one that made a [`DevCa`].
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

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
    /// Certificate and key, for either end of a connection.
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
            params.not_before = (now - CLOCK_SKEW).into();
            params.not_after = (now + VALIDITY).into();
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
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
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
