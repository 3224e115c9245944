//! The start of a listener, what it may be asked meanwhile, and its end.

use std::error::Error as _;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, OnceLock, Weak};
use std::time::Duration;

use bauta::{
    Accept, Actions, Carrier, Chain, Client, ClientAuth, CloseReason, ErrorKind, Handler, Identity,
    Listener, Proxies, Reject, Request, Session, Trust,
};
use bytes::Bytes;

use crate::Server;
use crate::raw::{PATIENCE, Raw};

/// Echoes, and tells when it ends.
struct Echo(Sender<()>);

impl Session for Echo {
    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        actions.send_on(context, payload).unwrap();
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        actions.send_data(data).unwrap();
    }

    fn on_close(&mut self, _: CloseReason) {
        self.0.send(()).ok();
    }
}

fn echo(builder: bauta::ListenerBuilder) -> (Server, std::sync::mpsc::Receiver<()>) {
    let (sender, closed) = channel();
    let handler = move |_: &Request| Ok(Accept::session(Echo(sender.clone())));
    (Server::build(builder.handler(handler)), closed)
}

fn client(server: &Server, carrier: Carrier) -> Client {
    client_of(server, carrier).build().unwrap()
}

pub(crate) fn client_of(server: &Server, carrier: Carrier) -> bauta::ClientBuilder {
    Client::builder(format!("https://{}", server.listener.local_addr()))
        .trust(Trust::pem(&server.ca_pem))
        .carriers([carrier])
}

#[test]
fn sessions_serve_every_carrier() {
    let (server, _closed) = echo(Listener::all(([127, 0, 0, 1], 0)));
    for carrier in Carrier::ALL {
        let client = client(&server, carrier);
        let tunnel = client.udp_blocking("192.0.2.1:53").unwrap();
        tunnel.send("hello").unwrap();
        assert_eq!(tunnel.recv_blocking().unwrap().payload, "hello");
        let tunnel = client.tcp_blocking("192.0.2.1:80").unwrap();
        use_tcp(&tunnel);
    }
    let stats = server.listener.stats();
    assert_eq!((stats.tunnels_opened, stats.handler_panics), (6, 0));
}

fn use_tcp(mut tunnel: &bauta::TcpTunnel) {
    use std::io::{Read, Write};
    tunnel.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    tunnel.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_chain_leads_to_another_listener() {
    let (far, _closed) = echo(Listener::all(([127, 0, 0, 1], 0)));
    for carrier in Carrier::ALL {
        let chain = Chain::through(client_of(&far, carrier))
            .unwrap()
            .timeout(PATIENCE)
            .allow(|target| target.port != 81);
        let near = Server::build(Listener::all(([127, 0, 0, 1], 0)).handler(chain));
        let client = client(&near, Carrier::H3);
        use_tcp(&client.tcp_blocking("192.0.2.1:80").unwrap());
        let tunnel = client.udp_blocking("192.0.2.1:53").unwrap();
        tunnel.send("hello").unwrap();
        assert_eq!(tunnel.recv_blocking().unwrap().payload, "hello");
        let error = client.tcp_blocking("192.0.2.1:81").unwrap_err();
        assert_eq!(error.status().unwrap(), 403);
    }
    let error = Chain::new("http://relay.example").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[test]
fn a_chain_that_is_dropped_is_forgotten_by_every_worker() {
    let (far, _closed) = echo(Listener::all(([127, 0, 0, 1], 0)));
    for carrier in Carrier::ALL {
        // A handler that makes a chain for every request, and drops it.
        let (url, ca_pem) = (far.listener.local_addr().to_string(), far.ca_pem.clone());
        let handler = move |request: &Request| {
            let client = Client::builder(format!("https://{url}"))
                .trust(Trust::pem(&ca_pem))
                .carriers([carrier]);
            Chain::through(client).unwrap().accept(request)
        };
        let embedding = bauta::Embedding::new(handler.clone()).unwrap();
        let near = Server::build(Listener::all(([127, 0, 0, 1], 0)).handler(handler));
        let closed = || {
            let stats = near.listener.stats();
            let name = match carrier {
                Carrier::H3 => "connections_closed",
                Carrier::H2 | Carrier::H1 => "tcp_connections_closed",
            };
            let found = stats.counters.iter().find(|(it, _)| *it == name);
            found.unwrap().1
        };
        let client = client(&near, Carrier::H2);
        let tunnel = client.tcp_blocking("192.0.2.1:80").unwrap();
        use_tcp(&tunnel);
        assert_eq!(closed(), 0, "{carrier:?}: its tunnel is not disturbed");
        tunnel.close_blocking();
        assert!((0..200_000).any(|_| closed() > 0), "{carrier:?}");
        let request = http::Request::connect("192.0.2.1:80").body(()).unwrap();
        let address = ([192, 0, 2, 7], 7).into();
        let tunnel = smol::block_on(embedding.accept(&request, address)).unwrap();
        drop(tunnel);
        embedding.stop_blocking();
    }
}

#[test]
fn a_client_reads_the_fields_of_a_rejection() {
    let handler = |_: &Request| -> Result<Accept, Reject> {
        let challenge = http::HeaderValue::from_static("PrivateToken challenge=\"xyz\"");
        Err(Reject::unauthorized(challenge))
    };
    let server = Server::build(Listener::all(([127, 0, 0, 1], 0)).handler(handler));
    for carrier in Carrier::ALL {
        let error = client(&server, carrier)
            .udp_blocking("192.0.2.1:53")
            .unwrap_err();
        assert_eq!(error.status().unwrap(), 401);
        let challenge = &error.headers().unwrap()["www-authenticate"];
        assert_eq!(challenge, "PrivateToken challenge=\"xyz\"");
    }
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_identity() {
    let (one, one_ca) = Identity::development(&["one.example"]).unwrap();
    let (two, two_ca) = Identity::development(&["two.example"]).unwrap();
    let listener = Listener::h1(([127, 0, 0, 1], 0))
        .identity(one)
        .identity(two)
        .handler(Proxies::new())
        .workers(1)
        .start()
        .unwrap();
    let address = listener.local_addr();
    assert!(Raw::connect_to(address, &one_ca, "one.example").is_ok());
    assert!(Raw::connect_to(address, &two_ca, "two.example").is_ok());
    assert!(Raw::connect_to(address, &one_ca, "two.example").is_err());
    assert!(Raw::connect_to(address, &one_ca, "localhost").is_ok());
}

#[test]
fn stop_closes_every_tunnel_and_says_so() {
    let (server, closed) = echo(Listener::h1(([127, 0, 0, 1], 0)));
    let address = server.listener.local_addr();
    let mut client = server.connect();
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    server.listener.stop_blocking();
    closed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.rest().0, b"");
    assert!(Raw::connect_to(address, &server.ca_pem, "localhost").is_err());
}

#[test]
fn stop_and_shutdown_run_under_any_executor() {
    let (server, _closed) = echo(Listener::all(([127, 0, 0, 1], 0)));
    smol::block_on(server.listener.stop());
    let (server, _closed) = echo(Listener::all(([127, 0, 0, 1], 0)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(server.listener.shutdown(PATIENCE));
}

#[test]
fn shutdown_waits_for_tunnels_but_not_for_ever() {
    let (server, closed) = echo(Listener::h1(([127, 0, 0, 1], 0)));
    let mut client = server.connect();
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    let listener = server.listener;
    let ending = std::thread::spawn(move || listener.shutdown_blocking(Duration::from_secs(3_600)));
    client.write("hello");
    assert_eq!(client.read(5), b"hello");
    client.finish();
    assert_eq!(client.rest(), (Vec::new(), true));
    ending.join().unwrap();
    closed.recv_timeout(PATIENCE).unwrap();

    let (server, closed) = echo(Listener::h1(([127, 0, 0, 1], 0)));
    let mut client = server.connect();
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    server.listener.shutdown_blocking(Duration::from_millis(10));
    closed.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn mistakes_are_named_with_their_bounds() {
    let (identity, _) = Identity::development(&[]).unwrap();
    let with = |change: fn(bauta::ListenerBuilder) -> bauta::ListenerBuilder| {
        let builder = Listener::h1(([127, 0, 0, 1], 0))
            .identity(identity.clone())
            .handler(Proxies::new());
        let error = change(builder).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.source().unwrap().to_string()
    };
    let text = with(|builder| builder.max_tunnels(0).open_timeout(Duration::ZERO));
    assert!(text.contains("limits.tunnels: 0:"), "{text}");
    assert!(text.contains("timeouts.open: "), "{text}");
    let text = with(|builder| builder.udp_template("/no/variables"));
    assert!(text.contains("listen[0].templates[0]"), "{text}");
    let text = with(|builder| builder.workers(0));
    assert!(text.contains("workers: 0"), "{text}");
    let text = with(|builder| builder.workers(5_000));
    assert!(text.contains("workers: 5000"), "{text}");
    let text = with(|builder| builder.name("not a token"));
    assert!(text.contains("name: \"not a token\""), "{text}");
    let error = Listener::h1(([127, 0, 0, 1], 0)).start().unwrap_err();
    assert!(error.source().unwrap().to_string().contains("handler"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let error = Listener::h1(taken.local_addr().unwrap())
        .identity(identity.clone())
        .handler(Proxies::new())
        .start()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(Identity::from_pem("no", "key").is_err());
}

#[test]
fn templates_and_origins_are_the_users() {
    let listener = Listener::h1(([127, 0, 0, 1], 0))
        .udp_template("/masque?h={target_host}&p={target_port}")
        .tcp_template("/tcp/{target_host}/{target_port}")
        .origin("relay.example");
    let (server, _closed) = echo(listener);
    for (path, host, token, status) in [
        (
            "/masque?h=a.example&p=1",
            "relay.example",
            "connect-udp",
            101,
        ),
        (
            "/masque?h=a.example&p=1",
            "other.example",
            "connect-udp",
            421,
        ),
        ("/nothing", "relay.example", "connect-udp", 404),
        ("/tcp/a.example/1", "relay.example", "connect-tcp", 101),
    ] {
        let mut client = server.connect();
        client.write(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\
             Capsule-Protocol: ?1\r\n\r\n"
        ));
        assert_eq!(client.head().status, status, "{path} {host}");
    }
}

#[test]
fn a_drained_listener_accepts_again() {
    let (server, _closed) = echo(Listener::h1(([127, 0, 0, 1], 0)));
    let mut open = server.connect();
    assert_eq!(open.ask_tcp("192.0.2.1:80", "").status, 200);
    server.listener.drain();
    assert!(server.listener.is_draining());
    // Orders reach the worker one after the other.
    assert_eq!(server.listener.stats().tunnels_opened, 1);
    let address = server.listener.local_addr();
    assert!(Raw::connect_to(address, &server.ca_pem, "localhost").is_err());
    open.write("hello");
    assert_eq!(open.read(5), b"hello");
    server.listener.undrain();
    assert!(!server.listener.is_draining());
    assert_eq!(server.listener.stats().tunnels_opened, 1);
    assert_eq!(server.connect().ask_tcp("192.0.2.1:80", "").status, 200);
}

#[test]
fn callbacks_read_the_numbers_without_waiting_for_themselves() {
    let (sender, seen) = channel();
    let shared: Arc<OnceLock<Weak<Listener>>> = Arc::default();
    let listener = Arc::clone(&shared);
    let count = move || {
        let listener = listener.get().and_then(Weak::upgrade).unwrap();
        listener.stats().connections_opened
    };
    let handler = move |_: &Request| {
        // Here the only worker cannot answer, because it asks; in the future it can.
        sender.send(count()).unwrap();
        let (count, sender) = (count.clone(), sender.clone());
        Ok(Accept::init(async move {
            sender.send(count()).unwrap();
            Ok(Echo(channel().0))
        }))
    };
    let Server { listener, ca_pem } =
        Server::build(Listener::h1(([127, 0, 0, 1], 0)).handler(handler));
    let listener = Arc::new(listener);
    shared.set(Arc::downgrade(&listener)).unwrap();
    let mut client = Raw::connect(listener.local_addr(), &ca_pem);
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    assert_eq!([seen.recv().unwrap(), seen.recv().unwrap()], [0, 1]);
}

#[test]
fn numbers_do_not_wait_for_a_callback_that_blocks() {
    let (entered, left) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (enter, leave) = (Arc::clone(&entered), Arc::clone(&left));
    let server = Server::start(move |_: &Request| {
        enter.wait();
        leave.wait();
        Err::<Accept, _>(Reject::forbidden())
    });
    let mut client = server.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 403));
        entered.wait();
        assert_eq!(server.listener.stats().connections_opened, 0);
        left.wait();
    });
    assert_eq!(server.listener.stats().connections_opened, 1);
}

#[test]
fn a_fallback_answers_what_is_no_tunnel() {
    let page = |request: &Request| -> http::Response<Bytes> {
        assert_eq!((request.protocol(), request.target()), (None, None));
        match request.path() {
            Some("/panic") => panic!("as it should"),
            path => http::Response::builder()
                .header("content-type", "text/plain")
                .body(format!("{} {}", request.method(), path.unwrap_or_default()).into())
                .unwrap(),
        }
    };
    let later = move |request: Request| async move {
        tokio::task::yield_now().await;
        page(&request)
    };
    let listen = || Listener::all(([127, 0, 0, 1], 0)).handler(Proxies::new());
    for listener in [listen().fallback(page), listen().fallback_async(later)] {
        let server = Server::build(listener);
        let mut client = server.connect();
        client.write("GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = client.head();
        assert_eq!(
            (head.status, head.field("content-length")),
            (200, Some("9"))
        );
        assert_eq!(client.read(9), b"GET /page");
        client.write("GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.head().status, 500);
        assert_eq!(server.listener.stats().handler_panics, 1);
    }
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let (_, ca) = Identity::development(&[]).unwrap();
    let echo = |_: &Request| -> Result<Accept, Reject> { Err(Reject::forbidden()) };
    let listen = |auth| {
        Server::build(
            Listener::h1(([127, 0, 0, 1], 0))
                .client_auth(auth)
                .handler(echo),
        )
    };
    let server = listen(ClientAuth::Required(ca.clone()));
    // In TLS 1.3 the client is through before the server has looked; the first answer tells.
    if let Ok(mut raw) = Raw::connect_to(server.listener.local_addr(), &server.ca_pem, "localhost")
    {
        assert!(!raw.rest().1);
    }
    let server = listen(ClientAuth::Optional(ca));
    assert_eq!(server.connect().ask_tcp("192.0.2.1:80", "").status, 403);
}
