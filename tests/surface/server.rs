//! Listeners, what handlers see, and what sessions do.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bauta::{
    Accept, Actions, Carrier, Chain, CloseReason, ErrorKind, Handler, Identity, Listener,
    ListenerBuilder, Protocol, Proxies, Reject, Request, SESSION_WAITING_BYTES_MAX, SendError,
    Session, TcpForm,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::sessions::{Order, Stage, Told};
use crate::world::{
    PATIENCE, Server, any_port, echo, exchange, pattern, payload, tcp_echo, udp_echo, until,
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
fn handler_callbacks_of_a_udp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.udp(carrier);
        tunnel.send("packet").unwrap();
        assert_eq!(stage.told(), Told::Packet(0, "packet".into()));
        tunnel.send_with_context(2, "context").unwrap();
        assert_eq!(stage.told(), Told::Packet(2, "context".into()));
        tunnel.send_capsule(0x29, "capsule").unwrap();
        assert_eq!(stage.told(), Told::Capsule(0x29, "capsule".into()));
        handle.message(Order::Say("message")).unwrap();
        assert_eq!(stage.told(), Told::Message("message"));
        tunnel.close_blocking();
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        assert!(handle.is_closed());
        let error = handle.message(Order::Say("late")).unwrap_err();
        assert_eq!(error, SendError::Closed);
    }
}

#[test]
fn handler_callbacks_of_a_tcp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.tcp(carrier);
        (&tunnel).write_all(b"data").unwrap();
        assert_eq!(stage.told(), Told::Data("data".into()));
        handle.message(Order::Say("message")).unwrap();
        assert_eq!(stage.told(), Told::Message("message"));
        tunnel.shutdown_write().unwrap();
        assert_eq!(stage.told(), Told::Eof);
        handle.finish("").unwrap();
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        assert!(matches!(tunnel.closed_blocking(), CloseReason::Finished));
    }
}

/// Has the session do something, and tells what came of it.
#[track_caller]
fn did(stage: &Stage, handle: &bauta::TunnelHandle, order: Order) -> Result<(), SendError> {
    handle.message(order).unwrap();
    match stage.told() {
        Told::Did(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn handler_actions_on_a_udp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.udp(carrier);
        assert_eq!(did(&stage, &handle, Order::Send("packet".into())), Ok(()));
        assert_eq!(payload(&tunnel), "packet");
        let order = Order::SendOn(2, "context".into());
        assert_eq!(did(&stage, &handle, order), Ok(()));
        let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap().unwrap();
        assert_eq!((received.context, &*received.payload), (2, &b"context"[..]));
        let order = Order::Capsule(0x29, "capsule".into());
        assert_eq!(did(&stage, &handle, order), Ok(()));
        assert_eq!(tunnel.recv_capsule_blocking().unwrap().value, "capsule");
        // What does not belong here.
        let unsupported = Err(SendError::Unsupported);
        assert_eq!(
            did(&stage, &handle, Order::SendData("x".into())),
            unsupported
        );
        assert_eq!(did(&stage, &handle, Order::Finish("x".into())), unsupported);
        assert_eq!(
            did(&stage, &handle, Order::Capsule(0, "x".into())),
            unsupported
        );
        let error = did(&stage, &handle, Order::Send(vec![0; 65_528].into())).unwrap_err();
        assert!(
            matches!(error, SendError::TooLong { max } if max <= 65_527),
            "{error}"
        );
        assert_eq!(did(&stage, &handle, Order::Close), Ok(()));
        assert!(
            matches!(tunnel.closed_blocking(), CloseReason::Finished),
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("local"));

        let (tunnel, handle) = stage.udp(carrier);
        handle.message(Order::CloseWith(0x10f)).unwrap();
        let reason = tunnel.closed_blocking();
        assert!(
            matches!(reason, CloseReason::Aborted(_)),
            "{carrier} {reason:?}"
        );
        assert_eq!(stage.told(), Told::Close("local"));
    }
}

#[test]
fn handler_actions_on_a_tcp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.tcp(carrier);
        let mut buffer = [0; 4];
        assert_eq!(did(&stage, &handle, Order::SendData("data".into())), Ok(()));
        (&tunnel).read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"data");
        let order = Order::Capsule(0x29, "capsule".into());
        assert_eq!(did(&stage, &handle, order), Ok(()));
        assert_eq!(tunnel.recv_capsule_blocking().unwrap().value, "capsule");
        let unsupported = Err(SendError::Unsupported);
        assert_eq!(did(&stage, &handle, Order::Send("x".into())), unsupported);
        assert_eq!(
            did(&stage, &handle, Order::SendOn(2, "x".into())),
            unsupported
        );
        assert_eq!(did(&stage, &handle, Order::Finish("last".into())), Ok(()));
        let mut rest = Vec::new();
        (&tunnel).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last", "{carrier}");
        let closed = Err(SendError::Closed);
        assert_eq!(did(&stage, &handle, Order::SendData("x".into())), closed);
        assert_eq!(did(&stage, &handle, Order::Finish("x".into())), closed);
        // The client's direction goes on.
        (&tunnel).write_all(b"more").unwrap();
        assert_eq!(stage.told(), Told::Data("more".into()));
        assert_eq!(did(&stage, &handle, Order::Close), Ok(()));
        tunnel.shutdown_write().unwrap();
        assert!(
            matches!(tunnel.closed_blocking(), CloseReason::Finished),
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("local"));

        let (tunnel, handle) = stage.tcp(carrier);
        handle.message(Order::CloseWith(0x10f)).unwrap();
        let error = (&tunnel).read(&mut buffer).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("local"));
    }
}

#[test]
fn handler_actions_from_other_threads() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (udp, handle) = stage.udp(carrier);
        thread::scope(|scope| {
            let elsewhere = handle.clone();
            scope.spawn(move || {
                elsewhere.send("packet").unwrap();
                elsewhere.send_on(2, "context").unwrap();
                elsewhere.send_capsule(0x29, "capsule").unwrap();
            });
            assert_eq!(payload(&udp), "packet");
            assert_eq!(payload(&udp), "context");
            assert_eq!(udp.recv_capsule_blocking().unwrap().value, "capsule");
        });
        handle.close();
        assert!(matches!(udp.closed_blocking(), CloseReason::Finished));
        assert_eq!(stage.told(), Told::Close("local"));

        let (tcp, handle) = stage.tcp(carrier);
        thread::spawn(move || {
            handle.send_data("da").unwrap();
            handle.finish("ta").unwrap();
        });
        let mut bytes = Vec::new();
        (&tcp).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"data");
        tcp.shutdown_write().unwrap();
        assert_eq!(stage.told(), Told::Eof);
        assert_eq!(stage.told(), Told::Close("finished"));

        let (tcp, handle) = stage.tcp(carrier);
        handle.close_with(0x10f);
        assert!(matches!(tcp.closed_blocking(), CloseReason::Aborted(_)));
        assert_eq!(stage.told(), Told::Close("local"));
    }
}

/// Talks on its own, as long as there is room.
struct Talker {
    left: usize,
    writable: Arc<AtomicUsize>,
}

impl Talker {
    fn talk(&mut self, actions: &mut Actions<'_>) {
        loop {
            let piece = actions.room().min(self.left);
            if piece == 0 {
                break;
            }
            self.left -= piece;
            actions.send_data(vec![7; piece]).unwrap();
        }
        if self.left == 0 {
            actions.close();
        }
    }
}

impl Session for Talker {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        assert_eq!(actions.room(), SESSION_WAITING_BYTES_MAX);
        self.talk(actions);
    }

    fn on_writable(&mut self, actions: &mut Actions<'_>) {
        self.writable.fetch_add(1, Ordering::Relaxed);
        self.talk(actions);
    }
}

#[test]
fn handler_callbacks_pace_a_session_that_talks() {
    const TOTAL: usize = 4 * 1024 * 1024;
    for carrier in Carrier::ALL {
        let writable = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&writable);
        let server = Server::new(move |_: &Request| {
            let writable = Arc::clone(&counted);
            Ok(Accept::session(Talker {
                left: TOTAL,
                writable,
            }))
        });
        let tunnel = server
            .client(carrier)
            .tcp_blocking("web.example:80")
            .unwrap();
        let mut bytes = Vec::new();
        (&tunnel).read_to_end(&mut bytes).unwrap();
        assert!(
            bytes.len() == TOTAL && bytes.iter().all(|byte| *byte == 7),
            "{carrier}"
        );
        assert!(writable.load(Ordering::Relaxed) > 0, "{carrier}");
    }
}

#[test]
fn handler_callbacks_that_panic_hurt_nobody_else() {
    let stage = Stage::new();
    for (index, carrier) in Carrier::ALL.into_iter().enumerate() {
        let (broken, handle) = stage.udp(carrier);
        let (other, _) = stage.udp(carrier);
        handle.message(Order::Panic).unwrap();
        let reason = broken.closed_blocking();
        assert!(
            matches!(reason, CloseReason::Aborted(_)),
            "{carrier} {reason:?}"
        );
        assert!(handle.is_closed());
        other.send("still here").unwrap();
        assert_eq!(stage.told(), Told::Packet(0, "still here".into()));
        let panics = stage.server.listener.stats().handler_panics;
        assert_eq!(panics, index as u64 + 1);
        other.close_blocking();
        assert!(matches!(stage.told(), Told::Close(_)));
    }
    // Before there is a tunnel, a panic is an answer.
    let server = Server::new(
        |request: &Request| match request.target().map(|it| it.port) {
            Some(1) => panic!("as it should"),
            Some(2) => Ok(Accept::init(async {
                tokio::task::yield_now().await;
                if true {
                    panic!("as it should");
                }
                Ok(Silent)
            })),
            _ => Ok(Accept::session(Silent)),
        },
    );
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        for target in ["a.example:1", "a.example:2"] {
            let error = client.udp_blocking(target).unwrap_err();
            assert_eq!(error.status().unwrap(), 500, "{carrier}");
            assert!(!format!("{error:?}").contains("should"), "{error:?}");
        }
        client.udp_blocking("a.example:3").unwrap();
    }
    assert_eq!(server.listener.stats().handler_panics, 6);
}

/// Ignores everything.
struct Silent;

impl Session for Silent {}

#[test]
fn handler_init_is_asynchronous_and_may_fail() {
    let server = Server::new(|request: &Request| {
        let port = request.target().unwrap().port;
        let init = async move {
            // The runtime has timers and I/O.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let dialled = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            drop(dialled.map_err(|_| Reject::bad_gateway())?);
            match port {
                1 => Err(Reject::unavailable().reason("the database is away")),
                _ => Ok(Silent),
            }
        };
        Ok(Accept::init(init).header("x-made", HeaderValue::from_static("by init")))
    });
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let error = client.tcp_blocking("a.example:1").unwrap_err();
        assert_eq!(error.status().unwrap(), 503, "{carrier}");
        assert!(
            error
                .proxy_status()
                .unwrap()
                .contains("the database is away")
        );
        client.tcp_blocking("a.example:2").unwrap();
        client.udp_blocking("a.example:2").unwrap();
    }
    let never = |_: &Request| {
        Ok(Accept::init(
            std::future::pending::<Result<Silent, Reject>>(),
        ))
    };
    let bounded = Listener::all(any_port()).open_timeout(Duration::from_secs(1));
    let bounded = Server::start(bounded.handler(never));
    let error = bounded.client(Carrier::H3).udp_blocking("a.example:1");
    let status = error.unwrap_err().status().unwrap();
    assert!(matches!(status.as_u16(), 503 | 504), "{status}");
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
