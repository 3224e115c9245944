//! A listener with two workers, and pages beside tunnels over HTTP/2 and HTTP/3.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, ThreadId};

use bauta::{
    Accept, Actions, Carrier, Client, CloseReason, Identity, Listener, Proxies, Request, Session,
    Trust,
};
use bytes::{Buf, Bytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::Server;
use crate::raw::{PATIENCE, Raw};

/// Connections until both workers have one, at most: the kernel chooses by the client's port.
const CLIENTS_MAX: usize = 128;

/// Echoes, and notes the threads that it runs on.
struct Echo {
    opened: Sender<ThreadId>,
    closed: Sender<()>,
}

impl Session for Echo {
    fn on_open(&mut self, _: &mut Actions<'_>) {
        self.opened.send(thread::current().id()).unwrap();
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        actions.send_data(data).unwrap();
    }

    fn on_close(&mut self, _: CloseReason) {
        self.closed.send(()).ok();
    }
}

#[test]
fn two_workers_serve_drain_and_stop_together() {
    let (opened, opens) = channel();
    let (closed, closes) = channel();
    let handler = move |_: &Request| {
        let (opened, closed) = (opened.clone(), closed.clone());
        Ok(Accept::session(Echo { opened, closed }))
    };
    let (identity, ca_pem) = Identity::development(&[]).unwrap();
    let listener = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        .handler(handler)
        .workers(2)
        .start()
        .unwrap();
    let address = listener.local_addr();
    let mut tunnels = Vec::new();
    for carrier in Carrier::ALL {
        let mut threads = HashSet::new();
        while threads.len() < 2 {
            assert!(tunnels.len() < 3 * CLIENTS_MAX, "{carrier:?}");
            let client = Client::builder(format!("https://{address}"))
                .trust(Trust::pem(&ca_pem))
                .carriers([carrier])
                .build()
                .unwrap();
            let tunnel = client.tcp_blocking("192.0.2.1:80").unwrap();
            echo(&tunnel);
            threads.insert(opens.recv_timeout(PATIENCE).unwrap());
            tunnels.push(tunnel);
        }
    }
    assert_eq!(listener.stats().tunnels_opened, tunnels.len() as u64);

    listener.drain();
    // Orders reach each worker one after the other.
    drop(listener.stats());
    for _ in 0..16 {
        assert!(Raw::connect_to(address, &ca_pem, "localhost").is_err());
    }
    tunnels.iter().for_each(echo);
    listener.undrain();
    drop(listener.stats());
    for _ in 0..16 {
        let mut raw = Raw::connect(address, &ca_pem);
        assert_eq!(raw.ask_tcp("192.0.2.1:80", "").status, 200);
    }
    for _ in 0..16 {
        closes.recv_timeout(PATIENCE).unwrap();
    }
    listener.stop_blocking();
    for _ in &tunnels {
        closes.recv_timeout(PATIENCE).unwrap();
    }
}

#[track_caller]
fn echo(mut tunnel: &bauta::TcpTunnel) {
    tunnel.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    tunnel.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn page(request: &Request) -> http::Response<Bytes> {
    let text = format!("{} {}", request.carrier().as_str(), request.path().unwrap());
    http::Response::new(text.into())
}

fn tls(ca_pem: &str, alpn: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

#[track_caller]
fn run(exchange: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await.unwrap() });
}

fn get() -> http::Request<()> {
    let request = http::Request::get("https://localhost/page");
    request.body(()).unwrap()
}

#[test]
fn pages_over_http_2() {
    let listener = Listener::h2(([127, 0, 0, 1], 0)).handler(Proxies::new());
    let server = Server::build(listener.fallback(page));
    run(async {
        let stream = tokio::net::TcpStream::connect(server.listener.local_addr());
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(&server.ca_pem, "h2")));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream.await.unwrap()).await;
        let (mut client, connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
        tokio::spawn(connection);
        let (response, _) = client.send_request(get(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "8");
        let body = response.into_body().data().await.unwrap().unwrap();
        assert_eq!(body, "h2 /page");
    });
}

#[test]
fn pages_over_http_3() {
    let listener = Listener::h3(([127, 0, 0, 1], 0)).handler(Proxies::new());
    let server = Server::build(listener.fallback(page));
    run(async {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls(&server.ca_pem, "h3"));
        let config = quinn::ClientConfig::new(Arc::new(crypto.unwrap()));
        let address = server.listener.local_addr();
        let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
        let connection = h3_quinn::Connection::new(connecting.await.unwrap());
        let (mut driver, mut client) = h3::client::new(connection).await.unwrap();
        tokio::spawn(async move { std::future::poll_fn(|it| driver.poll_close(it)).await });
        let mut stream = client.send_request(get()).await.unwrap();
        stream.finish().await.unwrap();
        let response = stream.recv_response().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "8");
        let mut body = stream.recv_data().await.unwrap().unwrap();
        assert_eq!(body.copy_to_bytes(body.remaining()), "h3 /page");
    });
}

/// Two listeners have one address if both want it so, and each gets clients; otherwise the second is refused.
#[test]
fn an_address_is_shared_by_those_who_agree() {
    let (identity, ca_pem) = Identity::development(&[]).unwrap();
    let (opened, opens) = channel();
    let (closed, _closes) = channel();
    let start = |address, reuseport| {
        let (opened, closed) = (opened.clone(), closed.clone());
        Listener::all(address)
            .identity(identity.clone())
            .handler(move |_: &Request| {
                let (opened, closed) = (opened.clone(), closed.clone());
                Ok(Accept::session(Echo { opened, closed }))
            })
            .workers(1)
            .reuseport(reuseport)
            .start()
    };
    let first = start(([127, 0, 0, 1], 0).into(), true).unwrap();
    let address = first.local_addr();
    let error = start(address, false).unwrap_err();
    assert_eq!(error.kind(), bauta::ErrorKind::Io);
    assert!(format!("{error:#}").contains(&address.to_string()));
    let second = start(address, true).unwrap();
    for carrier in Carrier::ALL {
        let mut threads = HashSet::new();
        let mut tunnels = Vec::new();
        while threads.len() < 2 {
            assert!(tunnels.len() < CLIENTS_MAX, "{carrier:?}");
            let client = Client::builder(format!("https://{address}"))
                .trust(Trust::pem(&ca_pem))
                .carriers([carrier])
                .build()
                .unwrap();
            let tunnel = client.tcp_blocking("192.0.2.1:80").unwrap();
            echo(&tunnel);
            threads.insert(opens.recv_timeout(PATIENCE).unwrap());
            tunnels.push(tunnel);
        }
    }
    drop(second);
}
