//! Names, client certificates and pins, each in a handshake.

use ::aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, HandshakeKind};

use super::*;

/// What a test signs with.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn signs(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose) -> (Identity, [u8; 32]) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let pin = spki_pin(&key);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let identity = Identity::from_der(vec![certificate.into()], key.into()).unwrap();
        (identity, pin)
    }

    fn server(&self, names: &[&str]) -> Identity {
        self.signs(names, ExtendedKeyUsagePurpose::ServerAuth).0
    }

    fn client(&self) -> Identity {
        self.signs(&["client"], ExtendedKeyUsagePurpose::ClientAuth)
            .0
    }
}

fn spki_pin(key: &KeyPair) -> [u8; 32] {
    let digest = digest(&SHA256, &key.subject_public_key_info());
    digest.as_ref().try_into().unwrap()
}

fn believing(trust: Trust, identity: Option<Identity>) -> Arc<rustls::ClientConfig> {
    client_config(&ClientTls {
        identity,
        ..ClientTls::new(trust)
    })
    .unwrap()
}

#[test]
fn the_name_chooses_the_identity() {
    let authority = Authority::new();
    let identities = vec![
        authority.server(&["first.test"]),
        authority.server(&["exact.test", "other.test"]),
        authority.server(&["*.wild.test"]),
        authority.server(&["deep.wild.test", "192.0.2.1"]),
    ];
    let listener = ListenerTls {
        identities: identities.clone(),
        client_auth: ClientAuth::None,
    };
    let quic = listener.quic_config(false).unwrap();
    let tcp = listener.tcp_config(&[Carrier::H2], false).unwrap();
    let anybody = ClientTls::new(Trust::DangerousAnybody);
    for (name, chosen) in [
        ("first.test", 0),
        ("exact.test", 1),
        ("EXACT.test", 1),
        ("other.test", 1),
        ("a.wild.test", 2),
        // Both are for it: the first counts.
        ("deep.wild.test", 2),
        // A wildcard stands for one label.
        ("a.b.wild.test", 0),
        ("wild.test", 0),
        ("unknown.test", 0),
        // Addresses are not sent (RFC 6066 §3).
        ("192.0.2.1", 0),
    ] {
        let on_tcp = tcp_client_config(&anybody, Carrier::H2).unwrap();
        for (client, server) in [(client_config(&anybody).unwrap(), &quic), (on_tcp, &tcp)] {
            let (client, _) = handshake(&client, server, name).unwrap();
            let shown = client.peer_certificates().unwrap();
            assert_eq!(shown, identities[chosen].chain(), "{name}");
        }
    }
}

#[test]
fn a_listener_has_an_identity() {
    let listener = ListenerTls {
        identities: Vec::new(),
        client_auth: ClientAuth::None,
    };
    let error = listener.quic_config(false).unwrap_err().to_string();
    assert_eq!(
        error,
        "the given identities of a listener: no certificate in it"
    );
    let listener = |text: &str| ListenerTls {
        client_auth: ClientAuth::Required(text.to_owned()),
        ..ca().identity.into()
    };
    let error = listener("").tcp_config(&[], false).unwrap_err().to_string();
    assert_eq!(
        error,
        "the given certificate authority of clients: no certificate in it"
    );
}

#[test]
fn clients_show_what_they_are_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = ca();
    let (ours, foreign) = (authority.client(), stranger.client());
    let (not_for_clients, _) = authority.signs(&["client"], ExtendedKeyUsagePurpose::ServerAuth);
    let connect = |client_auth: &ClientAuth, identity: Option<&Identity>| {
        let listener = ListenerTls {
            identities: vec![ca.identity.clone()],
            client_auth: client_auth.clone(),
        };
        let client = believing(Trust::Pem(ca.ca_pem.clone()), identity.cloned());
        let server = listener.quic_config(false).unwrap();
        let (_, server) = handshake(&client, &server, "localhost")?;
        Ok(server.peer_certificates().map(<[_]>::to_vec))
    };
    let optional = ClientAuth::Optional(authority.pem());
    let required = ClientAuth::Required(authority.pem());
    // Nobody asks, nobody shows.
    assert_eq!(connect(&ClientAuth::None, Some(&ours)), Ok(None));
    assert_eq!(connect(&optional, None), Ok(None));
    assert_eq!(
        connect(&required, None),
        Err(rustls::Error::NoCertificatesPresented)
    );
    for auth in [&optional, &required] {
        assert_eq!(connect(auth, Some(&ours)), Ok(Some(ours.chain().to_vec())));
        for wrong in [&foreign, &not_for_clients] {
            let refused = connect(auth, Some(wrong));
            assert!(
                matches!(refused, Err(rustls::Error::InvalidCertificate(_))),
                "{refused:?}"
            );
        }
    }
}

#[test]
fn a_quic_session_remembers_the_certificate_and_nothing_else() {
    let ca = ca();
    let listener = ListenerTls {
        client_auth: ClientAuth::Required(ca.ca_pem.clone()),
        ..ca.identity.clone().into()
    };
    let client = ClientTls {
        identity: Some(ca.identity.clone()),
        ..ClientTls::new(Trust::Pem(ca.ca_pem))
    };
    for end in quic_handshake(&listener, &client) {
        let shown = end.peer_identity().unwrap();
        let shown = shown.downcast::<Vec<CertificateDer<'static>>>().unwrap();
        assert_eq!(*shown, ca.identity.chain());
    }
}

#[test]
fn clients_with_certificates_get_no_tickets() {
    let ca = ca();
    let trust = Trust::Pem(ca.ca_pem.clone());
    let resumes = |client_auth| {
        let listener = ListenerTls {
            client_auth,
            ..ca.identity.clone().into()
        };
        let server = listener.tcp_config(&[Carrier::H2], false).unwrap();
        let options = ClientTls::new(trust.clone());
        let mut client =
            rustls::ClientConfig::clone(&*tcp_client_config(&options, Carrier::H2).unwrap());
        client.resumption = rustls::client::Resumption::in_memory_sessions(8);
        let client = Arc::new(client);
        handshake(&client, &server, "localhost").unwrap();
        let (_, server) = handshake(&client, &server, "localhost").unwrap();
        server.handshake_kind() == Some(HandshakeKind::Resumed)
    };
    assert!(resumes(ClientAuth::None));
    assert!(!resumes(ClientAuth::Optional(ca.ca_pem.clone())));
}

#[test]
fn a_pin_is_the_key_and_nothing_else() {
    let authority = Authority::new();
    let (identity, pin) = authority.signs(&["relay.test"], ExtendedKeyUsagePurpose::ServerAuth);
    let server = server_config(&identity, false).unwrap();
    let connect = |pins: &[[u8; 32]]| {
        let client = believing(Trust::Pinned(pins.to_vec()), None);
        handshake(&client, &server, "other.test").map(|_| ())
    };
    assert_eq!(connect(&[[0; 32], pin]), Ok(()));
    let authority_pin = spki_pin(authority.0.key());
    let refused =
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    for wrong in [[0; 32], authority_pin] {
        assert_eq!(connect(&[wrong]), Err(refused.clone()));
    }
    let none = client_config(&ClientTls::new(Trust::Pinned(Vec::new())));
    assert!(matches!(none, Err(TlsError::NoPin)));
}

#[test]
fn authorities_may_be_binary() {
    let ca = ca();
    let der = CertificateDer::from_pem_slice(ca.ca_pem.as_bytes()).unwrap();
    let server = server_config(&ca.identity, false).unwrap();
    let client = believing(Trust::Der(vec![der]), None);
    assert!(handshake(&client, &server, "relay.example").is_ok());
    assert!(handshake(&client, &server, "other.example").is_err());
    let error = |der| client_config(&ClientTls::new(Trust::Der(der))).unwrap_err();
    assert!(matches!(
        error(Vec::new()),
        TlsError::NoCertificate { origin } if origin == Origin::Given("certificate authority")
    ));
    let nonsense = CertificateDer::from(vec![0; 3]);
    assert!(matches!(error(vec![nonsense]), TlsError::Authority { .. }));
}

#[test]
fn identities_from_memory() {
    let (ca, other) = (ca(), ca());
    let [chain, key, foreign] = [&ca.chain_pem, &ca.key_pem, &other.key_pem].map(String::as_bytes);
    assert_eq!(Identity::from_pem(chain, key).unwrap(), ca.identity);
    let both = [key, chain].concat();
    assert_eq!(Identity::from_pem(&both, &both).unwrap(), ca.identity);
    assert_ne!(ca.identity, other.identity);
    for (chain, key, expected) in [
        (
            key,
            key,
            "the given certificate chain: no certificate in it",
        ),
        (chain, chain, "the given private key: no private key in it"),
        (&chain[..100], key, "the given certificate chain: not PEM: "),
        (chain, &key[..100], "the given private key: not PEM: "),
        (
            chain,
            foreign,
            "the given certificate chain and the given private key do not work together: ",
        ),
    ] {
        let error = Identity::from_pem(chain, key).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    let chain = ca.identity.chain();
    let key = |pem: &str| PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let binary =
        |chain: &[CertificateDer<'static>], pem| Identity::from_der(chain.to_vec(), key(pem));
    assert_eq!(binary(chain, &ca.key_pem).unwrap(), ca.identity);
    assert!(matches!(
        binary(&[], &ca.key_pem),
        Err(TlsError::NoCertificate { .. })
    ));
    assert!(matches!(
        binary(chain, &other.key_pem),
        Err(TlsError::Identity { .. })
    ));
}
