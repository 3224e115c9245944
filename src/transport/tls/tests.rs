//! Handshakes in memory, and every way in which certificate files can be wrong.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::SystemTime;

use quinn_proto::crypto::{ClientConfig as _, ServerConfig as _, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{Side, TransportErrorCode};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{CipherSuite, ProtocolVersion};
use tempfile::TempDir;

use super::*;

mod listeners;

#[expect(
    clippy::disallowed_methods,
    reason = "rustls compares certificates with the clock of the machine"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn ca() -> DevCa {
    DevCa::new(&["relay.example", "192.0.2.1"], now()).unwrap()
}

fn trusting(ca: &DevCa) -> Arc<rustls::ClientConfig> {
    client_config(&ClientTls::new(Trust::Pem(ca.ca_pem.clone()))).unwrap()
}

type Ends = (rustls::ClientConnection, rustls::ServerConnection);

/// Runs a handshake until both ends are content or one of them refuses.
fn handshake(
    client: &Arc<rustls::ClientConfig>,
    server: &Arc<rustls::ServerConfig>,
    name: &str,
) -> Result<Ends, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::clone(client), name)?;
    let mut server = rustls::ServerConnection::new(Arc::clone(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let mut unread = flight.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut unread = flight.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

#[test]
fn a_handshake_is_tls13_with_h3_and_aes128() {
    // spec: 9001-8.1-a
    let ca = ca();
    let server = server_config(&ca.identity, false).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "relay.example",
        "192.0.2.1",
    ] {
        let (client, server) = handshake(&trusting(&ca), &server, name).unwrap();
        assert_eq!(client.alpn_protocol(), Some(ALPN_H3), "{name}");
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(
            server.negotiated_cipher_suite().map(|suite| suite.suite()),
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256)
        );
    }
}

#[test]
fn the_servers_order_of_suites_counts() {
    let ca = ca();
    let provider = CryptoProvider {
        cipher_suites: vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(
            identity::parse_authorities(ca.ca_pem.as_bytes(), &Origin::Given("ca")).unwrap(),
        )
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN_H3.to_vec()];
    let (_, server) = handshake(
        &Arc::new(client),
        &server_config(&ca.identity, false).unwrap(),
        "localhost",
    )
    .unwrap();
    assert_eq!(
        server.negotiated_cipher_suite().map(|suite| suite.suite()),
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256)
    );
}

#[test]
fn a_client_without_h3_is_refused() {
    // spec: 9001-8.1-a
    let ca = ca();
    let mut client = rustls::ClientConfig::clone(&trusting(&ca));
    client.alpn_protocols = vec![b"h2".to_vec()];
    let refused = handshake(
        &Arc::new(client),
        &server_config(&ca.identity, false).unwrap(),
        "localhost",
    );
    assert!(
        matches!(refused, Err(rustls::Error::NoApplicationProtocol)),
        "{refused:?}"
    );
}

#[test]
fn no_early_data_and_no_tickets() {
    // spec: 9001-9.2-a
    let ca = ca();
    let server = server_config(&ca.identity, false).unwrap();
    assert_eq!(
        (server.max_early_data_size, server.send_tls13_tickets),
        (0, 0)
    );
    assert!(!trusting(&ca).enable_early_data);
    let (mut client, _) = handshake(&trusting(&ca), &server, "localhost").unwrap();
    assert!(client.early_data().is_none());
}

#[test]
fn strangers_and_wrong_names_are_refused() {
    let (ca, stranger) = (ca(), ca());
    let server = server_config(&ca.identity, false).unwrap();
    for (client, name) in [
        (trusting(&stranger), "localhost"),
        (trusting(&ca), "other.example"),
    ] {
        let refused = handshake(&client, &server, name);
        assert!(
            matches!(refused, Err(rustls::Error::InvalidCertificate(_))),
            "{refused:?}"
        );
    }
    let anybody = client_config(&ClientTls::new(Trust::DangerousAnybody)).unwrap();
    assert!(handshake(&anybody, &server, "other.example").is_ok());
}

#[test]
fn quinn_takes_both() {
    let ca = ca();
    assert!(quic_server(server_config(&ca.identity, false).unwrap()).is_ok());
    assert!(quic_client(trusting(&ca)).is_ok());
}

/// Everything that one end of QUIC's TLS has to say, read by the other.
fn carry(from: &mut dyn Session, to: &mut dyn Session) {
    loop {
        let mut flight = Vec::new();
        let keys = from.write_handshake(&mut flight);
        if !flight.is_empty() {
            to.read_handshake(&flight).unwrap();
        } else if keys.is_none() {
            return;
        }
    }
}

/// A handshake of QUIC's TLS to its end.
fn quic_handshake(server: &ListenerTls, client: &ClientTls) -> [Box<dyn Session>; 2] {
    const QUIC_V1: u32 = 1;
    let none: &[u8] = &[];
    let parameters = TransportParameters::read(Side::Server, &mut Cursor::new(none)).unwrap();
    let server = quic_server(server.quic_config(false).unwrap()).unwrap();
    let mut server = server.start_session(QUIC_V1, &parameters);
    let client = quic_client(client_config(client).unwrap()).unwrap();
    let mut client = client
        .start_session(QUIC_V1, "localhost", &parameters)
        .unwrap();
    carry(&mut *client, &mut *server);
    assert!(server.is_handshaking() && server.peer_identity().is_none());
    assert!(server.transport_parameters().unwrap().is_some());
    carry(&mut *server, &mut *client);
    carry(&mut *client, &mut *server);
    carry(&mut *server, &mut *client);
    assert!(!server.is_handshaking() && !client.is_handshaking());
    [client, server]
}

#[test]
fn the_session_of_a_server_ends_with_the_handshake() {
    let ca = ca();
    let trust = Trust::Pem(ca.ca_pem.clone());
    let ends = quic_handshake(&ca.identity.into(), &ClientTls::new(trust));
    let [_, mut server] = ends;
    assert!(server.transport_parameters().unwrap().is_none());
    assert!(server.peer_identity().is_none());

    // What is left: keys for ever, and no ear for TLS. This is a KeyUpdate, which QUIC forbids (RFC 9001 §6).
    assert!((0..3).all(|_| server.next_1rtt_keys().is_some()));
    let refused = server.read_handshake(&[24, 0, 0, 1, 0]).unwrap_err();
    assert_eq!(refused.code, TransportErrorCode::crypto(10));
}

/// Writes `text` to a file of its own.
fn file(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_are_loaded() {
    let (directory, ca) = (TempDir::new().unwrap(), ca());
    let chain = file(&directory, "chain.pem", &ca.chain_pem);
    let key = file(&directory, "key.pem", &ca.key_pem);
    let roots = file(&directory, "ca.pem", &ca.ca_pem);
    let server = server_config(&Identity::load(&chain, &key).unwrap(), false).unwrap();
    let client = client_config(&ClientTls::new(Trust::File(roots))).unwrap();
    assert!(handshake(&client, &server, "localhost").is_ok());
}

#[test]
fn wrong_files_are_named() {
    let (directory, ca, other) = (TempDir::new().unwrap(), ca(), ca());
    let chain = file(&directory, "chain.pem", &ca.chain_pem);
    let key = file(&directory, "key.pem", &ca.key_pem);
    let foreign = file(&directory, "foreign.pem", &other.key_pem);
    let empty = file(&directory, "empty.pem", "");
    let cut = file(&directory, "cut.pem", &ca.chain_pem[..100]);
    let missing = directory.path().join("missing.pem");

    let load = |chain: &Path, key: &Path| Identity::load(chain, key).unwrap_err();
    let errors = [
        (load(&missing, &key), "missing.pem: "),
        (load(&chain, &missing), "missing.pem: "),
        (load(directory.path(), &key), ": "),
        (load(&empty, &key), "empty.pem: no certificate in it"),
        (load(&key, &key), "key.pem: no certificate in it"),
        (load(&chain, &empty), "empty.pem: no private key in it"),
        (load(&chain, &chain), "chain.pem: no private key in it"),
        (load(&cut, &key), "cut.pem: not PEM: "),
        (load(&chain, &foreign), "foreign.pem do not work together: "),
    ];
    for (error, text) in errors {
        let printed = error.to_string();
        assert!(
            printed.contains(text) && printed.contains(directory.path().to_str().unwrap()),
            "{printed}"
        );
    }

    let trust =
        |path: &Path| client_config(&ClientTls::new(Trust::File(path.to_owned()))).unwrap_err();
    assert!(matches!(trust(&missing), TlsError::Read { .. }));
    assert!(matches!(trust(&key), TlsError::NoCertificate { .. }));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        trust(&file(&directory, "nonsense.pem", nonsense)),
        TlsError::Authority { .. }
    ));
}

#[test]
fn names_that_fit_no_certificate() {
    assert!(matches!(
        DevCa::new(&["ä.example"], now()),
        Err(TlsError::Development(_))
    ));
}

#[test]
fn pool_keys_differ_exactly_where_options_do() {
    let all = [
        ClientTls::new(Trust::System),
        ClientTls::new(Trust::DangerousAnybody),
        ClientTls::new(Trust::File("a.pem".into())),
        ClientTls::new(Trust::File("b.pem".into())),
        ClientTls::new(Trust::Pem("a.pem".to_owned())),
        ClientTls::new(Trust::Der(ca().identity.chain().to_vec())),
        ClientTls::new(Trust::Der(ca().identity.chain().to_vec())),
        ClientTls::new(Trust::Pinned(vec![[1; 32]])),
        ClientTls::new(Trust::Pinned(vec![[2; 32]])),
        ClientTls {
            dangerous_key_log: true,
            ..ClientTls::new(Trust::System)
        },
        ClientTls {
            identity: Some(ca().identity),
            ..ClientTls::new(Trust::System)
        },
        ClientTls {
            identity: Some(ca().identity),
            ..ClientTls::new(Trust::System)
        },
    ];
    for (i, one) in all.iter().enumerate() {
        assert_eq!(one.client_hash(), one.clone().client_hash());
        for other in all.iter().skip(i + 1) {
            assert_ne!(one.client_hash(), other.client_hash(), "{one:?} {other:?}");
        }
    }
}
