//! Listeners, what handlers are asked, and what they answer.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bauta::{
    Accept, Carrier, Chain, CloseReason, ErrorKind, Handler, Identity, Listener, ListenerBuilder,
    Protocol, Proxies, Reject, Request, TcpForm,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::world::{
    PATIENCE, Server, any_port, echo, exchange, pattern, tcp_echo, udp_echo, until,
};

/// The listener of one carrier alone.
fn listener(carrier: Carrier, address: SocketAddr) -> ListenerBuilder {
    match carrier {
        Carrier::H3 => Listener::h3(address),
        Carrier::H2 => Listener::h2(address),
        Carrier::H1 => Listener::h1(address),
    }
}

fn loopback() -> Proxies {
    Proxies::new().public_only(false)
}

/// Starts, serves, drains, and stops a listener of one carrier.
fn start_and_stop(carrier: Carrier) {
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let relay = Server::start(listener(carrier, any_port()).handler(loopback()));
    let address = relay.address();
    assert_ne!(address.port(), 0);
    let client = relay.client(carrier);
    let udp = client.udp_blocking(udp_target).unwrap();
    echo(&udp, "hello");
    exchange(&client.tcp_blocking(tcp_target).unwrap(), b"hello");
    // Nobody else is served.
    for other in Carrier::ALL.into_iter().filter(|it| *it != carrier) {
        let builder = relay.builder().carriers([other]);
        let client = builder.handshake_timeout(Duration::from_millis(500));
        let error = client.build().unwrap().udp_blocking(udp_target);
        let error = error.unwrap_err();
        assert_eq!(error.status(), None, "{carrier} {other} {error:?}");
    }
    // Draining accepts nothing new, and leaves alone what is there.
    assert!(!relay.listener.is_draining());
    relay.listener.drain();
    assert!(relay.listener.is_draining());
    until("a refusal", || client.udp_blocking(udp_target).err());
    echo(&udp, "still here");
    relay.listener.undrain();
    assert!(!relay.listener.is_draining());
    let fresh = relay.client(carrier);
    let again = until("a tunnel", || fresh.udp_blocking(udp_target).ok());
    echo(&again, "hello");
    let stats = relay.listener.stats();
    assert!(
        stats.tunnels_opened >= 3 && stats.handler_panics == 0,
        "{stats:?}"
    );
    assert!(stats.connections_opened >= 1);
    // The end closes what is open, and gives the address back.
    let Server { listener, ca_pem } = relay;
    listener.stop_blocking();
    match again.closed_blocking() {
        CloseReason::Finished => {}
        CloseReason::Aborted(error) => assert_eq!(error.kind(), ErrorKind::Aborted),
        other => panic!("{other}"),
    }
    match carrier {
        Carrier::H3 => drop(UdpSocket::bind(address).unwrap()),
        // Connections in TIME_WAIT still have it.
        Carrier::H2 | Carrier::H1 => {
            let (identity, _) = Identity::development(&[]).unwrap();
            let again = self::listener(carrier, address).identity(identity);
            again.handler(loopback()).start().unwrap().stop_blocking();
        }
    }
    drop(ca_pem);
}

#[test]
fn start_and_stop_listener_h3() {
    start_and_stop(Carrier::H3);
}

#[test]
fn start_and_stop_listener_h2() {
    start_and_stop(Carrier::H2);
}

#[test]
fn start_and_stop_listener_h1() {
    start_and_stop(Carrier::H1);
}

#[test]
fn a_listener_that_cannot_start_says_why() {
    let refused = |builder: ListenerBuilder| {
        let error = builder.start().unwrap_err();
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        (error.kind(), text)
    };
    let identity = || Identity::development(&[]).unwrap().0;
    let (kind, text) = refused(Listener::all(any_port()).identity(identity()));
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(text.contains("handler"), "{text}");
    let (kind, text) = refused(Listener::all(any_port()).handler(loopback()));
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(text.contains("identity"), "{text}");
    let wrong = Listener::h3(any_port())
        .identity(identity())
        .handler(loopback());
    let (kind, text) = refused(
        wrong
            .udp_template("/{target_host")
            .max_tunnels_per_connection(0),
    );
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(text.contains("tunnels_per_connection"), "{text}");
    let taken = TcpListener::bind(any_port()).unwrap();
    let taken = Listener::h2(taken.local_addr().unwrap()).identity(identity());
    let kind = refused(taken.handler(loopback())).0;
    assert_eq!(kind, ErrorKind::Io);
    for (chain, key) in [("", ""), ("no PEM", "no PEM")] {
        let error = Identity::from_pem(chain, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}

/// A listener of one carrier in front of another one.
fn chain(carrier: Carrier) {
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let exit = Server::relay();
    for upstream in Carrier::ALL {
        let chain = Chain::through(exit.builder().carriers([upstream])).unwrap();
        let entry = Server::start(listener(carrier, any_port()).handler(chain));
        let client = entry.client(carrier);
        let tunnel = client.udp_blocking(udp_target).unwrap();
        echo(&tunnel, "hello");
        assert_eq!(tunnel.info().peer, Some(entry.address()));
        let tcp = client.tcp_blocking(tcp_target).unwrap();
        exchange(&tcp, &pattern(0, 50_000));
        tcp.shutdown_write().unwrap();
        assert_eq!((&tcp).read(&mut [0; 8]).unwrap(), 0, "{carrier} {upstream}");
        let stats = entry.listener.stats();
        assert_eq!((stats.tunnels_opened, stats.requests_refused), (2, 0));
    }
    assert_eq!(exit.listener.stats().tunnels_opened, 6);
}

#[test]
fn chain_listener_h3() {
    chain(Carrier::H3);
}

#[test]
fn chain_listener_h2() {
    chain(Carrier::H2);
}

#[test]
fn chain_listener_h1() {
    chain(Carrier::H1);
}

#[test]
fn request_map_shows_what_was_asked() {
    let seen = Arc::new(OnceLock::new());
    let noted = Arc::clone(&seen);
    let server = Server::new(move |request: &Request| -> Result<Accept, Reject> {
        let cell: &OnceLock<std::sync::mpsc::Sender<Request>> = &noted;
        drop(cell.get().unwrap().send(request.clone()));
        Err(Reject::forbidden())
    });
    let (sender, requests) = std::sync::mpsc::channel();
    seen.set(sender).unwrap();
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let udp = client.connect("dns.example:53").header("x-key", "sesame");
        udp.udp_blocking().unwrap_err();
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert_eq!(request.method(), http::Method::CONNECT);
        assert_eq!(request.protocol(), Some(Protocol::Udp));
        assert_eq!(request.token(), Some("connect-udp"));
        assert_eq!(request.target().unwrap().to_string(), "dns.example:53");
        let path = "/.well-known/masque/udp/dns.example/53/";
        assert_eq!(request.path(), Some(path), "{carrier}");
        assert_eq!(request.authority(), Some(&*server.address().to_string()));
        assert_eq!(request.scheme(), Some("https"));
        assert_eq!(request.headers()["x-key"], "sesame");
        assert_eq!(request.carrier(), carrier);
        let from = request.client().unwrap();
        assert!(from.ip().is_loopback() && from.port() != 0);
        assert!(request.certificate().is_none());

        let tcp = client.connect("[2001:db8::42]:443").tcp_form(TcpForm::Raw);
        tcp.tcp_blocking().unwrap_err();
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert_eq!(request.protocol(), Some(Protocol::Tcp));
        assert!(
            request
                .token()
                .is_some_and(|token| token.starts_with("connect-tcp"))
        );
        assert_eq!(request.target().unwrap().to_string(), "[2001:db8::42]:443");
        assert!(
            request
                .path()
                .is_some_and(|path| path.contains("tcp/2001%3Adb8%3A%3A42/443"))
        );

        let classic = client.connect("web.example:80").tcp_form(TcpForm::Classic);
        classic.tcp_blocking().unwrap_err();
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            (request.token(), request.path(), request.scheme()),
            (None, None, None)
        );
        assert_eq!(request.authority(), Some("web.example:80"), "{carrier}");
    }
}

/// Lets in who answers the challenge, and then does what the inner handler does.
struct Guarded<H> {
    inner: H,
}

const CHALLENGE: &str = "PrivateToken challenge=\"xyz\", token-key=\"abc\"";
const ANSWER: &str = "PrivateToken token=\"secret\"";

impl<H: Handler> Handler for Guarded<H> {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        let name = match request.token() {
            Some(_) => "authorization",
            None => "proxy-authorization",
        };
        if request.headers().get(name).is_some_and(|it| it == ANSWER) {
            return self.inner.accept(request);
        }
        let challenge = HeaderValue::from_static(CHALLENGE);
        let reject = match request.token() {
            Some(_) => Reject::unauthorized(challenge),
            None => Reject::proxy_unauthorized(challenge),
        };
        let more = HeaderValue::from_static("tea");
        Err(reject.reason("a token, please").header("x-more", more))
    }
}

#[test]
fn reject_with_extra_headers_and_the_clients_answer() {
    let server = Server::new(Guarded { inner: loopback() });
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let error = client.udp_blocking(udp_target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED), "{carrier}");
        let headers = error.headers().unwrap();
        assert_eq!(headers["www-authenticate"], CHALLENGE);
        assert_eq!(headers["x-more"], "tea");
        let status = error.proxy_status().unwrap();
        assert!(status.contains("details=\"a token, please\""), "{status}");
        let answered = client.connect(udp_target).header("authorization", ANSWER);
        echo(&answered.udp_blocking().unwrap(), "hello");
        let answered = client.connect(tcp_target).header("authorization", ANSWER);
        exchange(&answered.tcp_blocking().unwrap(), b"hello");

        let classic = client.connect(tcp_target).tcp_form(TcpForm::Classic);
        let error = classic.clone().tcp_blocking().unwrap_err();
        assert_eq!(error.status().unwrap(), 407, "{carrier}");
        assert_eq!(error.headers().unwrap()["proxy-authenticate"], CHALLENGE);
        let answered = classic.header("proxy-authorization", ANSWER);
        exchange(&answered.tcp_blocking().unwrap(), b"hello");
    }
}

#[test]
fn reject_has_a_word_for_each_occasion() {
    let rejects = || {
        [
            (Reject::bad_request(), 400, false),
            (Reject::forbidden(), 403, false),
            (Reject::not_found(), 404, false),
            (Reject::too_many_requests(7), 429, true),
            (Reject::unsupported(), 501, false),
            (Reject::bad_gateway(), 502, false),
            (Reject::unavailable(), 503, true),
            (Reject::new(StatusCode::IM_A_TEAPOT), 418, false),
            (Reject::new(StatusCode::NO_CONTENT), 500, false),
        ]
    };
    let server = Server::new(move |request: &Request| -> Result<Accept, Reject> {
        let index = request.target().unwrap().port - 1;
        Err(rejects().into_iter().nth(index.into()).unwrap().0)
    });
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        for (port, (_, status, retryable)) in (1..).zip(rejects()) {
            let error = client.udp_blocking(("a.example", port)).unwrap_err();
            let told = (error.status().unwrap().as_u16(), error.is_retryable());
            assert_eq!(told, (status, retryable), "{carrier}");
            let delay = error.headers().unwrap().get("retry-after");
            assert_eq!(
                delay.map(HeaderValue::as_bytes),
                (status == 429).then_some(&b"7"[..])
            );
        }
    }
}

#[test]
fn accept_adds_headers_to_the_answer() {
    // Only the other side of a chain sees the fields of a 2xx; what is framing is left out and the tunnel works.
    let target = udp_echo();
    let server = Server::new(move |request: &Request| {
        let accept = loopback().accept(request)?;
        let accept = accept.header("content-length", HeaderValue::from_static("0"));
        Ok(accept.header("x-let-in", HeaderValue::from_static("yes")))
    });
    for carrier in Carrier::ALL {
        echo(
            &server.client(carrier).udp_blocking(target).unwrap(),
            "hello",
        );
    }
}

#[test]
fn fallback_answers_what_is_no_tunnel() {
    use std::net::TcpStream;
    let plain = |request: &Request| {
        assert!(request.protocol().is_none() && request.target().is_none());
        let text = format!("{} {}", request.method(), request.path().unwrap());
        http::Response::new(Bytes::from(text))
    };
    let server = Listener::all(any_port())
        .handler(loopback())
        .fallback(plain);
    let server = Server::start(server);
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(server.ca_pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let request = "GET /page?a=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("GET /page?a=b"), "{answer}");
    // Tunnels are none of the fallback's business.
    let target = udp_echo();
    echo(
        &server.client(Carrier::H1).udp_blocking(target).unwrap(),
        "hello",
    );
}
