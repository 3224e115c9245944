//! How a client reaches a relay: `connect` with defaults, and with every option.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bauta::{
    Accept, Carrier, Client, ClientAuth, Credentials, ErrorKind, Event, Events, Host, Identity,
    Listener, Mode, Proxies, Reject, Request, Side, Target, TcpForm, Trust, Worker,
};
use http::HeaderValue;

use crate::world::{
    PATIENCE, Server, any_port, echo, exchange, now, shared_worker, tcp_echo, udp_echo, until,
};

/// Everything that is said about an error, the causes included.
fn in_full(error: &bauta::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn connect_2_with_nothing_but_a_url_and_trust() {
    let (relay, udp_target, tcp_target) = (Server::relay(), udp_echo(), tcp_echo());
    let client = Client::builder(relay.url()).trust(Trust::pem(&relay.ca_pem));
    let client = client.build().unwrap();
    // Every form of a target is the same one.
    let port = udp_target.port();
    let host = Host::Ip(Ipv4Addr::LOCALHOST.into());
    for tunnel in [
        client.udp_blocking(udp_target).unwrap(),
        client.udp_blocking(udp_target.to_string()).unwrap(),
        client.udp_blocking(&*udp_target.to_string()).unwrap(),
        client.udp_blocking(("127.0.0.1", port)).unwrap(),
        client.udp_blocking(Target { host, port }).unwrap(),
        smol::block_on(client.udp(udp_target)).unwrap(),
    ] {
        assert_eq!(tunnel.info().target, Some(udp_target.into()));
        echo(&tunnel, "hello");
    }
    exchange(&client.tcp_blocking(tcp_target).unwrap(), b"hello");
    let tunnel = smol::block_on(client.tcp(tcp_target)).unwrap();
    exchange(&tunnel, b"hello");
    for wrong in [
        "",
        "a",
        "a:0",
        "a:65536",
        "a b:1",
        "a\r\nvia: x:1",
        "[::1:1",
    ] {
        let error = client.udp_blocking(wrong).unwrap_err();
        let told = (error.kind(), error.side());
        assert_eq!(told, (ErrorKind::Configuration, Side::Local), "{wrong:?}");
    }
    // Nobody trusts a relay whose authority is unknown.
    let error = Client::builder(relay.url()).build().unwrap();
    let error = error.udp_blocking(udp_target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
}

#[test]
fn connect_3_carriers_in_their_order() {
    let target = udp_echo();
    let all = Server::relay();
    for carrier in Carrier::ALL {
        let others = Carrier::ALL.into_iter().filter(|it| *it != carrier);
        let order: Vec<_> = [carrier].into_iter().chain(others).collect();
        let client = all.builder().carriers(order).build().unwrap();
        let tunnel = client.udp_blocking(target).unwrap();
        assert_eq!(tunnel.info().carrier, Some(carrier));
        echo(&tunnel, "hello");
    }
    // Whoever is first in the list and not there gives way.
    let handler = || Proxies::new().public_only(false);
    let only_h1 = Server::start(Listener::h1(any_port()).handler(handler()));
    let soon = Duration::from_millis(1);
    let client = only_h1.builder().head_starts(soon, soon).build().unwrap();
    let tunnel = client.udp_blocking(target).unwrap();
    assert_eq!(tunnel.info().carrier, Some(Carrier::H1));
    echo(&tunnel, "hello");
    // Where nobody is, every attempt is told.
    let client = only_h1.builder().carriers([Carrier::H2]).build().unwrap();
    let error = client.udp_blocking(target).unwrap_err();
    assert_eq!(error.attempts().len(), 1, "{error:?}");
    assert_eq!(error.attempts()[0].carrier, Carrier::H2);
}

#[test]
fn connect_3_trust() {
    let (relay, target) = (Server::relay(), udp_echo());
    let build = |trust: Trust, carrier| {
        let client = Client::builder(relay.url()).worker(shared_worker());
        client.trust(trust).carriers([carrier]).build().unwrap()
    };
    for carrier in Carrier::ALL {
        for trust in [Trust::pem(&relay.ca_pem), Trust::dangerous_anybody()] {
            echo(
                &build(trust, carrier).udp_blocking(target).unwrap(),
                "hello",
            );
        }
        let (_, stranger) = Identity::development(&[]).unwrap();
        let unknown = "the certificate of the relay is from an unknown issuer \
                       (ClientBuilder::trust says whom to believe)";
        let unpinned = "the key in the certificate of the relay is not pinned";
        for (trust, reason) in [
            (Trust::pem(stranger), unknown),
            (Trust::pinned([[7; 32]]), unpinned),
            (Trust::system(), unknown),
        ] {
            let client = build(trust, carrier);
            let error = client.udp_blocking(target).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tls, "{carrier} {error:?}");
            assert!(!error.is_retryable());
            assert_eq!(error.relay(), Some(&*relay.url()));
            let said = format!("TLS with {} failed: {reason}", relay.url());
            assert_eq!(format!("{error:#}"), said, "{carrier}");
            // For a moment nothing is tried, and whoever asks hears why.
            let error = client.udp_blocking(target).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tls, "{carrier} {error:?}");
            assert!(error.is_retryable());
            assert!(format!("{error:#}").contains("; not tried again for "));
        }
    }
    for (nothing, what) in [
        (Trust::pem("no PEM"), "certificate authority"),
        (Trust::pinned([]), "no key is pinned"),
    ] {
        let error = Client::builder(relay.url())
            .trust(nothing)
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(in_full(&error).contains(what), "{}", in_full(&error));
    }
}

#[test]
fn connect_3_trust_in_pinned_keys() {
    // A key whose fingerprint is known: SHA-256 of its SubjectPublicKeyInfo.
    let key = rcgen::KeyPair::generate().unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let pin = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
    let pin: [u8; 32] = pin.as_ref().try_into().unwrap();
    let certificate = rcgen::CertificateParams::new(["any.example".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let identity = Identity::from_pem(certificate.pem(), key.serialize_pem()).unwrap();
    let relay = Listener::all(any_port())
        .identity(identity)
        .handler(Proxies::new().public_only(false))
        .workers(1)
        .start()
        .unwrap();
    let target = udp_echo();
    for carrier in Carrier::ALL {
        let client = Client::builder(format!("https://{}", relay.local_addr()))
            .trust(Trust::pinned([[7; 32], pin]))
            .carriers([carrier])
            .worker(shared_worker())
            .build()
            .unwrap();
        echo(&client.udp_blocking(target).unwrap(), "hello");
    }
}

#[test]
fn connect_3_templates_per_protocol() {
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let relay = Listener::all(any_port())
        .udp_template("/u/{target_host}/{target_port}")
        .tcp_template("/t{?target_host,target_port}")
        .handler(|request: &Request| {
            let path = request.path().unwrap_or("classic").to_owned();
            let own = path.starts_with("/u/") || path.starts_with("/t?");
            let accept = bauta::Handler::accept(&Proxies::new().public_only(false), request);
            accept.and_then(|it| own.then_some(it).ok_or_else(Reject::not_found))
        });
    let relay = Server::start(relay);
    for carrier in Carrier::ALL {
        let templated = relay
            .builder()
            .carriers([carrier])
            .udp_template(format!("{}/u/{{target_host}}/{{target_port}}", relay.url()))
            .tcp_template(format!("{}/t{{?target_host,target_port}}", relay.url()))
            .build()
            .unwrap();
        echo(&templated.udp_blocking(udp_target).unwrap(), "hello");
        exchange(&templated.tcp_blocking(tcp_target).unwrap(), b"hello");
        // The well-known paths are served too, though not by this handler.
        let well_known = relay.client(carrier);
        let error = well_known.udp_blocking(udp_target).unwrap_err();
        assert_eq!(error.status().unwrap(), 404);
    }
    let wrong = relay.builder().udp_template("{target_host").build();
    let text = in_full(&wrong.unwrap_err());
    assert!(text.contains("udp_template"), "{text}");
}

/// A server that notes what it was asked, and refuses.
fn inquisitive() -> (Server, std::sync::mpsc::Receiver<Request>) {
    let (sender, requests) = std::sync::mpsc::channel();
    let handler = move |request: &Request| -> Result<Accept, Reject> {
        drop(sender.send(request.clone()));
        Err(Reject::forbidden())
    };
    (Server::new(handler), requests)
}

#[test]
fn connect_3_extra_headers() {
    let (server, requests) = inquisitive();
    for carrier in Carrier::ALL {
        let client = server
            .builder()
            .carriers([carrier])
            .header("x-client", "all")
            .header("x-both", "client")
            .build()
            .unwrap();
        let connect = client.connect("web.example:80").header("x-both", "tunnel");
        let connect = connect.header("x-tunnel", "one");
        for form in [TcpForm::Capsules, TcpForm::Raw, TcpForm::Classic] {
            connect.clone().tcp_form(form).tcp_blocking().unwrap_err();
            let request = requests.recv_timeout(PATIENCE).unwrap();
            let field = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
            assert_eq!(field("x-client"), ["all"], "{carrier} {form:?}");
            assert_eq!(field("x-both"), ["tunnel"], "{carrier} {form:?}");
            assert_eq!(field("x-tunnel"), ["one"], "{carrier} {form:?}");
        }
        client.udp_blocking("dns.example:53").unwrap_err();
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert_eq!(request.headers()["x-both"], "client");
        assert!(!request.headers().contains_key("x-tunnel"));
    }
}

#[test]
fn connect_3_reserved_headers_are_named() {
    let (server, requests) = inquisitive();
    let reserved = [
        ":authority",
        "host",
        "connection",
        "upgrade",
        "te",
        "transfer-encoding",
        "keep-alive",
        "proxy-connection",
        "content-length",
        "content-type",
        "capsule-protocol",
        "via",
    ];
    for name in reserved {
        let error = server.builder().header(name, "x").build().unwrap_err();
        let told = (error.kind(), error.side());
        assert_eq!(told, (ErrorKind::Configuration, Side::Local), "{name}");
        let text = in_full(&error);
        assert!(text.contains(name), "{name}: {text}");
    }
    let client = server.client(Carrier::H2);
    for name in reserved {
        let connect = client.connect("a.example:1").header(name, "x");
        let text = in_full(&connect.start_udp().unwrap_err());
        assert!(text.contains(name), "{name}: {text}");
    }
    for value in ["a\r\nx: b", "a\nb", "a\rb", "a\0b"] {
        let error = server.builder().header("x-injected", value).build();
        let text = in_full(&error.unwrap_err());
        assert!(text.contains("x-injected"), "{value:?}: {text}");
        assert!(!text.contains('\n') && !text.contains('\r'), "{text:?}");
    }
    let error = server.builder().header("x y", "v").build().unwrap_err();
    assert!(in_full(&error).contains("x y"), "{}", in_full(&error));
    assert!(requests.try_recv().is_err(), "nothing was sent");
}

#[test]
fn connect_3_credentials() {
    let (server, requests) = inquisitive();
    for carrier in Carrier::ALL {
        for (credentials, value) in [
            (Credentials::bearer("t0ken").unwrap(), "Bearer t0ken"),
            (
                Credentials::basic("ann", "secret").unwrap(),
                "Basic YW5uOnNlY3JldA==",
            ),
        ] {
            let client = server
                .builder()
                .carriers([carrier])
                .credentials(credentials);
            let client = client.build().unwrap();
            let templated = client.udp_blocking("dns.example:53").unwrap_err();
            assert!(!format!("{templated:?}").contains("YW5u"));
            let request = requests.recv_timeout(PATIENCE).unwrap();
            assert_eq!(request.headers()["authorization"], value);
            let classic = client.connect("web.example:80").tcp_form(TcpForm::Classic);
            classic.tcp_blocking().unwrap_err();
            let request = requests.recv_timeout(PATIENCE).unwrap();
            assert_eq!(request.headers()["proxy-authorization"], value);
            assert!(!request.headers().contains_key("authorization"));
        }
    }
    assert!(Credentials::bearer("two words").is_err());
    assert!(Credentials::basic("a:b", "c").is_err());
}

#[test]
fn connect_3_timeouts() {
    let hole = UdpSocket::bind(any_port()).unwrap();
    let silent = TcpListener::bind(any_port()).unwrap();
    let udp_at = hole.local_addr().unwrap();
    let tcp_at = silent.local_addr().unwrap();
    let short = Duration::from_millis(50);
    for (carrier, address) in [
        (Carrier::H3, udp_at),
        (Carrier::H2, tcp_at),
        (Carrier::H1, tcp_at),
    ] {
        let builder = || {
            Client::builder(format!("https://{address}"))
                .carriers([carrier])
                .trust(Trust::dangerous_anybody())
                .worker(shared_worker())
        };
        let opening = builder().open_timeout(short).build().unwrap();
        let started = now();
        let error = opening.udp_blocking("192.0.2.1:9").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{carrier}");
        assert!(error.is_retryable());
        // One tunnel's own time comes before the client's.
        let patient = builder().build().unwrap();
        let connect = patient.connect("192.0.2.1:9").timeout(short);
        let error = connect.tcp_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{carrier}");
        let handshake = builder().handshake_timeout(short).build().unwrap();
        let error = handshake.udp_blocking("192.0.2.1:9").unwrap_err();
        let timed_out = error.kind() == ErrorKind::Timeout || error.kind() == ErrorKind::Connect;
        assert!(timed_out, "{carrier} {error:?}");
        assert!(now() - started < PATIENCE, "{carrier}");
    }
    let wrong = Client::builder("https://a.example").open_timeout(Duration::ZERO);
    let text = in_full(&wrong.build().unwrap_err());
    assert!(text.contains("open_timeout"), "{text}");
}

#[test]
fn connect_3_pooled_or_separate_connections() {
    let target = udp_echo();
    // Pooled, the streams of one connection at most, connections that three tunnels make.
    let cases = [(true, None, 1), (true, Some(2), 2), (false, None, 3)];
    for carrier in [Carrier::H3, Carrier::H2] {
        for (pooled, streams, expected) in cases {
            let relay = Server::relay();
            let mut builder = relay.builder().carriers([carrier]).pooled(pooled);
            if let Some(streams) = streams {
                builder = builder.streams_per_connection(streams);
            }
            let client = builder.build().unwrap();
            let tunnels = [(); 3].map(|()| client.udp_blocking(target).unwrap());
            for tunnel in &tunnels {
                echo(tunnel, "hello");
            }
            let stats = relay.listener.stats();
            let told = (stats.tunnels_opened, stats.connections_opened);
            assert_eq!(told, (3, expected), "{carrier} {pooled} {streams:?}");
        }
    }
}

#[test]
fn connect_3_idle_connections_are_closed() {
    let target = udp_echo();
    for carrier in [Carrier::H3, Carrier::H2] {
        let relay = Server::relay();
        let build = |idle| {
            let builder = relay.builder().carriers([carrier]);
            builder.pool_idle_timeout(idle).build().unwrap()
        };
        let kept = build(Duration::from_secs(3_600));
        kept.udp_blocking(target).unwrap().close_blocking();
        kept.udp_blocking(target).unwrap().close_blocking();
        assert_eq!(relay.listener.stats().connections_opened, 1, "{carrier}");
        let dropped = build(Duration::ZERO);
        // As soon as the first connection is gone, a tunnel makes another one.
        until("a new connection", || {
            dropped.udp_blocking(target).unwrap().close_blocking();
            (relay.listener.stats().connections_opened >= 3).then_some(())
        });
    }
}

/// A relay over HTTP/1.1 that agrees without saying `Capsule-Protocol`.
fn terse_relay(tunnels: usize) -> (String, Trust) {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (chain, private) = (key.cert.der().clone(), key.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ));
    let mut config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], private.try_into().unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind(any_port()).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for _ in 0..tunnels {
            let (mut socket, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend_from_slice(&byte);
            }
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: connect-udp\r\n\r\n\x00\x06\x00hello";
            stream.write_all(answer.as_bytes()).unwrap();
            // Until the client goes.
            drop(stream.read_to_end(&mut Vec::new()));
        }
    });
    (url, Trust::dangerous_anybody())
}

#[test]
fn connect_3_a_missing_capsule_protocol_may_be_an_error() {
    let (url, trust) = terse_relay(2);
    let build = |required| {
        Client::builder(&*url)
            .trust(trust.clone())
            .carriers([Carrier::H1])
            .require_capsule_protocol(required)
            .build()
            .unwrap()
    };
    let tunnel = build(false).udp_blocking("dns.example:53").unwrap();
    let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap().unwrap();
    assert_eq!(received.payload, "hello");
    let error = build(true).udp_blocking("dns.example:53").unwrap_err();
    assert_eq!(error.side(), Side::Upstream, "{error:?}");
    let text = in_full(&error);
    assert!(!text.is_empty() && !error.is_retryable(), "{text}");
}

#[test]
fn connect_3_further_hops() {
    let (near, far) = (Server::relay(), Server::relay());
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    for carrier in Carrier::ALL {
        // Two authorities: the client believes both.
        let trust = Trust::pem(format!("{}{}", near.ca_pem, far.ca_pem));
        let client = near.builder().carriers([carrier]).hop(far.url());
        let client = client.trust(trust).build().unwrap();
        let tunnel = client.udp_blocking(udp_target).unwrap();
        echo(&tunnel, "hello");
        let info = tunnel.info();
        assert_eq!(info.relays.len(), 2);
        assert!(info.relays[0].starts_with(&near.url()) && info.relays[1].starts_with(&far.url()));
        exchange(&client.tcp_blocking(tcp_target).unwrap(), b"hello");
    }
    let stats = (near.listener.stats(), far.listener.stats());
    assert!(
        stats.0.tunnels_opened > 0 && stats.1.tunnels_opened == 6,
        "{stats:?}"
    );
    let builder = (0..4).fold(near.builder(), |it, _| it.hop(far.url()));
    let text = in_full(&builder.build().unwrap_err());
    assert!(text.contains("hop: 5: must be from 1 to 4"), "{text}");
}

#[test]
fn connect_3_mode_and_worker() {
    let (relay, target) = (Server::relay(), udp_echo());
    let worker = Worker::new().unwrap();
    for carrier in Carrier::ALL {
        let events = Events::new();
        let client = relay.builder().carriers([carrier]).worker(&worker);
        let connect = client.build().unwrap().connect(target);
        let mode = Mode::Events(events.clone());
        let tunnel = connect.mode(mode).udp_blocking().unwrap();
        let first = events.recv_timeout_blocking(PATIENCE);
        assert!(matches!(first, Some((id, Event::Opened)) if id == tunnel.id()));
        tunnel.send("hello").unwrap();
        let second = events.recv_timeout_blocking(PATIENCE);
        assert!(matches!(second, Some((_, Event::Datagram(it))) if it.payload == "hello"));
    }
    // Clients whose worker was stopped are of no use any more.
    let client = relay.builder().worker(&worker).build().unwrap();
    let tunnel = client.udp_blocking(target).unwrap();
    worker.stop_blocking();
    assert!(matches!(
        tunnel.closed_blocking(),
        bauta::CloseReason::Local
    ));
    let error = client.udp_blocking(target).unwrap_err();
    assert_eq!(error.side(), Side::Local);
}

#[test]
fn connect_3_every_wrong_option_is_named() {
    let error = Client::builder("http://relay.example")
        .carriers([])
        .head_starts(Duration::from_secs(11), Duration::ZERO)
        .handshake_timeout(Duration::ZERO)
        .open_timeout(Duration::from_secs(301))
        .pool_idle_timeout(Duration::from_secs(3_601))
        .streams_per_connection(0)
        .receive_queue(0)
        .header("host", "x")
        .trust(Trust::pinned([]))
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let text = in_full(&error);
    for key in [
        "http://relay.example",
        "carriers",
        "head_starts.first",
        "handshake_timeout",
        "open_timeout",
        "pool_idle_timeout",
        "streams_per_connection",
        "receive_queue",
        "host",
        "trust",
    ] {
        assert!(text.contains(key), "{key}: {text}");
    }
}

#[test]
fn connect_3_a_clients_own_certificate_is_asked_for() {
    let (_, ca_pem) = Identity::development(&[]).unwrap();
    let handler = |_: &Request| -> Result<Accept, Reject> {
        Err(Reject::new(http::StatusCode::IM_A_TEAPOT)
            .header("x-seen", HeaderValue::from_static("yes")))
    };
    let asked = Listener::all(any_port()).handler(handler);
    let optional = Server::start(asked.client_auth(ClientAuth::Optional(ca_pem.clone())));
    let error = optional
        .client(Carrier::H3)
        .udp_blocking("a.example:1")
        .unwrap_err();
    assert_eq!(error.status().unwrap(), 418);
    assert_eq!(error.headers().unwrap()["x-seen"], "yes");
    let asked = Listener::all(any_port()).handler(handler);
    let required = Server::start(asked.client_auth(ClientAuth::Required(ca_pem)));
    for carrier in Carrier::ALL {
        let error = required
            .client(carrier)
            .udp_blocking("a.example:1")
            .unwrap_err();
        assert_eq!(error.status(), None, "{carrier}");
    }
}

#[test]
fn connect_3_a_clients_own_certificate_is_seen_by_the_handler() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let expected = certificate.der().clone();
    let handler = move |request: &Request| -> Result<Accept, Reject> {
        let seen = match request.certificate() {
            Some(certificate) if *certificate == expected => "the client's",
            Some(_) => "another",
            None => "none",
        };
        let seen = HeaderValue::from_static(seen);
        Err(Reject::forbidden().header("x-certificate", seen))
    };
    let asks = ClientAuth::Optional(certificate.pem());
    let relay = Server::start(Listener::all(any_port()).handler(handler).client_auth(asks));
    for carrier in Carrier::ALL {
        let identity = Identity::from_pem(certificate.pem(), key.serialize_pem()).unwrap();
        let shows = relay.builder().carriers([carrier]).identity(identity);
        for (client, seen) in [
            (shows.build().unwrap(), "the client's"),
            (relay.client(carrier), "none"),
        ] {
            let error = client.udp_blocking("a.example:1").unwrap_err();
            let headers = error.headers().unwrap();
            assert_eq!(headers["x-certificate"], seen, "{carrier}");
        }
    }
}

#[test]
fn connect_3_each_relay_has_an_authority_of_its_own() {
    let (first, second, target) = (Server::relay(), Server::relay(), udp_echo());
    for carrier in Carrier::ALL {
        let two = || first.builder().carriers([carrier]).hop(second.url());
        let client = two().hop_trust(Trust::pem(&second.ca_pem)).build().unwrap();
        echo(&client.udp_blocking(target).unwrap(), "hello");
        let error = two().build().unwrap().udp_blocking(target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{carrier}: {error:#}");
    }
}
