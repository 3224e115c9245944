//! The TLS side of listeners: who we are, to whom, and whether clients have to say who they are.
//!
//! ```text
//!   ClientHello ─ server_name ─► the first identity whose certificate is for that name
//!                 none, unknown ► the first identity
//! ```

use std::sync::Arc;

use rustls::KeyLogFile;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use super::identity::{Identity, Origin, parse_authorities};
use super::{ALPN_H3, TlsError, alpn, provider};
use crate::wire::carrier::Carrier;

/// Whether clients have to show a certificate, and who must have signed it.
///
/// What a client shows is checked against the authorities, for its dates and for the purpose `clientAuth`; a
/// certificate that fails ends the handshake, even where none is required. Revocation is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Clients are not asked.
    #[default]
    None,
    /// Clients may show one, signed by an authority of this PEM text.
    Optional(String),
    /// Clients must show one, signed by an authority of this PEM text.
    Required(String),
}

impl ClientAuth {
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let (text, required) = match self {
            Self::None => return Ok(WebPkiClientVerifier::no_client_auth()),
            Self::Optional(text) => (text, false),
            Self::Required(text) => (text, true),
        };
        let origin = Origin::Given("certificate authority of clients");
        let roots = Arc::new(parse_authorities(text.as_bytes(), &origin)?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        // Fails for roots that are empty, which they are not, and for revocation lists, which there are none of.
        let refused = |error: rustls::server::VerifierBuilderError| {
            TlsError::Config(rustls::Error::General(error.to_string()))
        };
        builder.build().map_err(refused)
    }
}

/// Who a listener is, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// The certificates to choose from, at least one. A client that names the server (RFC 6066 section 3) gets the
    /// first whose certificate is for that name, exactly or by a wildcard for one label (RFC 9525 section 6.3); all
    /// others get the first.
    pub identities: Vec<Identity>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
}

impl From<Identity> for ListenerTls {
    fn from(identity: Identity) -> Self {
        Self {
            identities: vec![identity],
            client_auth: ClientAuth::None,
        }
    }
}

impl ListenerTls {
    /// The TLS side of HTTP/3. `dangerous_key_log` is as in [`ClientTls`](super::ClientTls).
    ///
    /// # Errors
    /// When there is no identity, or the authorities of clients cannot be used.
    pub fn quic_config(
        &self,
        dangerous_key_log: bool,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        Ok(Arc::new(self.config(dangerous_key_log)?))
    }

    /// The TLS side of a TCP listener that speaks `carriers`, in the order of preference. Tickets go out, so that a
    /// client that comes back saves a signature of ours; they are encrypted with keys that live as long as the process
    /// and change every six hours. Where clients show certificates they show them each time, and there are no tickets.
    ///
    /// # Errors
    /// As [`ListenerTls::quic_config`], and when the system has no random bytes.
    pub fn tcp_config(
        &self,
        carriers: &[Carrier],
        dangerous_key_log: bool,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let mut config = self.config(dangerous_key_log)?;
        config.alpn_protocols = carriers.iter().copied().map(alpn).collect();
        if self.client_auth == ClientAuth::None {
            config.ticketer = aws_lc_rs::Ticketer::new()?;
            config.send_tls13_tickets = 1;
        }
        Ok(Arc::new(config))
    }

    fn config(&self, dangerous_key_log: bool) -> Result<rustls::ServerConfig, TlsError> {
        let origin = Origin::Given("identities of a listener");
        if self.identities.is_empty() {
            return Err(TlsError::NoCertificate { origin });
        }
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.client_auth.verifier()?)
            .with_cert_resolver(Arc::new(ByName(self.identities.clone())));
        config.alpn_protocols = vec![ALPN_H3.to_vec()];
        // The server pays for every hop, so its order counts, not the client's.
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        if dangerous_key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}

/// The TLS side of a listener on HTTP/3 with one identity. `dangerous_key_log` is as in
/// [`ClientTls`](super::ClientTls).
///
/// # Errors
/// When the provider refuses the parameters, which only a broken build does.
pub fn server_config(
    identity: &Identity,
    dangerous_key_log: bool,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    ListenerTls::from(identity.clone()).quic_config(dangerous_key_log)
}

/// The same on TCP, see [`ListenerTls::tcp_config`].
///
/// # Errors
/// As [`server_config`], and when the system has no random bytes.
pub fn tcp_server_config(
    identity: &Identity,
    carriers: &[Carrier],
    dangerous_key_log: bool,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    ListenerTls::from(identity.clone()).tcp_config(carriers, dangerous_key_log)
}

/// Chooses among identities by the name that a client asks for.
#[derive(Debug)]
struct ByName(Vec<Identity>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = match &self.0[..] {
            [_] => None,
            several => hello
                .server_name()
                .and_then(|name| ServerName::try_from(name).ok())
                .and_then(|name| several.iter().find(|identity| is_for(identity, &name))),
        };
        named
            .or_else(|| self.0.first())
            .map(|identity| Arc::clone(&identity.certified))
    }
}

fn is_for(identity: &Identity, name: &ServerName<'_>) -> bool {
    let Some(leaf) = identity.chain().first() else {
        return false;
    };
    ParsedCertificate::try_from(leaf)
        .is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}
