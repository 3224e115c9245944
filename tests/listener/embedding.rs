//! Tunnels of servers that are the user's own: hyper over HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bauta::{Accept, Actions, Embedding, Handler, Protocol, Proxies, Reject, Request, Session};
use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::proxies::AsksElsewhere;
use crate::raw::PATIENCE;

struct Echo;

impl Session for Echo {
    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        actions.send_on(context, payload).unwrap();
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        actions.send_data(data).unwrap();
    }

    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {
        actions.send_capsule(kind, &value).unwrap();
    }
}

fn echo(request: &Request) -> Result<Accept, Reject> {
    match request.target().map(|target| target.port) {
        Some(81) => Err(Reject::forbidden().reason("not there")),
        Some(82) => Ok(Accept::init(async {
            tokio::task::yield_now().await;
            Ok(Echo)
        })),
        Some(83) => panic!("as it should"),
        _ => {
            Ok(Accept::session(Echo).header("x-from", http::HeaderValue::from_static("a session")))
        }
    }
}

/// A service of the user's: tunnels go to the embedding, with its bytes copied by tokio.
async fn serve(
    embedding: Embedding,
    mut request: hyper::Request<hyper::body::Incoming>,
    client: SocketAddr,
) -> Result<hyper::Response<String>, Infallible> {
    let protocol = request.extensions().get::<hyper::ext::Protocol>().cloned();
    let tunnel = match protocol {
        Some(protocol) => {
            let protocol = protocol.as_str();
            embedding.accept_extended(&request, protocol, client).await
        }
        None => embedding.accept(&request, client).await,
    };
    let mut tunnel = match tunnel {
        Ok(tunnel) => tunnel,
        Err(response) => return Ok(response.map(|()| String::new())),
    };
    let response = tunnel.response().map(|()| String::new());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let mut upgraded = TokioIo::new(upgraded);
        // A client may break off.
        tokio::io::copy_bidirectional(&mut upgraded, &mut tunnel)
            .await
            .ok();
    });
    Ok(response)
}

/// Tells HTTP/2 by its first letters, as there is no TLS to say it.
async fn serve_connection<S, F>(stream: tokio::net::TcpStream, service: S) -> hyper::Result<()>
where
    S: hyper::service::Service<
            hyper::Request<hyper::body::Incoming>,
            Response = hyper::Response<String>,
            Error = Infallible,
            Future = F,
        > + Send
        + 'static,
    F: Future<Output = Result<hyper::Response<String>, Infallible>> + Send + 'static,
{
    let mut first = [0; 2];
    stream.peek(&mut first).await.unwrap();
    let stream = TokioIo::new(stream);
    if &first == b"PR" {
        return hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .enable_connect_protocol()
            .serve_connection(stream, service)
            .await;
    }
    hyper::server::conn::http1::Builder::new()
        .serve_connection(stream, service)
        .with_upgrades()
        .await
}

/// Runs hyper for one connection after the other, on a thread of its own.
fn start(handler: impl Handler) -> (Embedding, SocketAddr) {
    let embedding = Embedding::new(handler).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let served = embedding.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, client)) = listener.accept().await {
                let embedding = served.clone();
                let service = service_fn(move |request| serve(embedding.clone(), request, client));
                tokio::spawn(async move {
                    // A client may break off.
                    serve_connection(stream, service).await.ok();
                });
            }
        });
    });
    (embedding, address)
}

/// Asks over HTTP/1.1 without TLS; gives the connection and the head of the answer.
fn ask(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

fn udp(port: u16) -> String {
    format!(
        "GET /.well-known/masque/udp/192.0.2.1/{port}/ HTTP/1.1\r\nHost: localhost\r\n\
         Connection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n"
    )
}

fn tcp(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

#[track_caller]
fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn datagrams_and_capsules_through_hyper() {
    let (embedding, address) = start(echo);
    for port in [53, 82] {
        let (mut stream, head) = ask(address, &udp(port));
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("upgrade: connect-udp"), "{head}");
        assert!(head.contains("capsule-protocol: ?1"), "{head}");
        assert_eq!(head.contains("x-from: a session"), port == 53);
        for capsule in [&b"\0\x06\0hello"[..], b"\0\x03\x02ab", b"\x29\x02ab"] {
            stream.write_all(capsule).unwrap();
            expect(&mut stream, capsule);
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(embedding.handler_panics(), 0);
}

#[test]
fn bytes_through_hyper_to_sessions_and_sockets() {
    let target = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxied = target.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = target.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let proxies = Proxies::new().public_only(false);
    for (target, (_embedding, address)) in [
        ("192.0.2.1:80".to_owned(), start(echo)),
        (proxied, start(proxies)),
    ] {
        let (mut stream, head) = ask(address, &tcp(&target));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let sent = vec![7; 1024 * 1024];
        let (mut writer, given) = (stream.try_clone().unwrap(), sent.clone());
        let writing = thread::spawn(move || {
            writer.write_all(&given).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        writing.join().unwrap();
        assert_eq!(read.len(), sent.len());
    }
}

/// FINAL_DATA ends the bytes of a client that keeps its stream open.
#[test]
fn final_data_is_the_end_of_the_bytes() {
    const DATA: &[u8] = b"\xa0\x28\xd7\xf2\x05hello";
    const FINAL_DATA: &[u8] = b"\xa0\x28\xd7\xf3\x00";
    let (_embedding, address) = start(echo);
    let (mut stream, head) = ask(
        address,
        "GET /.well-known/masque/tcp/192.0.2.1/80/ HTTP/1.1\r\nHost: localhost\r\n\
         Connection: Upgrade\r\nUpgrade: connect-tcp\r\nCapsule-Protocol: ?1\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(DATA).unwrap();
    expect(&mut stream, DATA);
    stream.write_all(FINAL_DATA).unwrap();
    expect(&mut stream, FINAL_DATA);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// A content that is not `Sync`, as those of some servers, keeps nobody from accepting on any thread.
#[test]
fn requests_have_any_content() {
    let embedding = Embedding::new(echo).unwrap();
    let request = http::Request::connect("192.0.2.1:80");
    let request = request.body(std::cell::Cell::new(0)).unwrap();
    let client = SocketAddr::from(([192, 0, 2, 2], 1234));
    let accepting = async move {
        let accepted = embedding.accept(&request, client).await;
        accepted.map(|tunnel| tunnel.response().status())
    };
    let accepted = thread::spawn(|| smol::block_on(accepting)).join().unwrap();
    assert_eq!(accepted.unwrap(), http::StatusCode::OK);
}

#[test]
fn refusals_are_answers_of_hyper() {
    let (embedding, address) = start(echo);
    for (request, status) in [
        (udp(81), 403),
        (udp(83), 500),
        (tcp("192.0.2.1:81"), 403),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        (udp(53).replace("connect-udp", "connect-ip"), 501),
    ] {
        let (_stream, head) = ask(address, &request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(head.contains("proxy-status: bauta-"), "{head}");
    }
    assert_eq!(embedding.handler_panics(), 1);
    let (_embedding, address) = start(Proxies::new());
    let (_stream, head) = ask(address, &tcp("127.0.0.1:1"));
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[test]
fn a_server_tells_tunnels_from_pages() {
    let is_tunnel = |request: http::request::Builder| {
        let request = request.body(()).unwrap();
        Embedding::is_tunnel(&request)
    };
    let extended = |token| {
        let path = "https://localhost/.well-known/masque/udp/192.0.2.1/53/";
        let request = http::Request::connect(path).version(http::Version::HTTP_2);
        request.extension(h2::ext::Protocol::from_static(token))
    };
    let upgrade = |token| {
        let request = http::Request::get("/").header("connection", "keep-alive, Upgrade");
        request.header("upgrade", token)
    };
    assert!(is_tunnel(http::Request::connect("192.0.2.1:80")));
    for token in ["connect-udp", "connect-tcp"] {
        assert!(is_tunnel(extended(token)) && is_tunnel(upgrade(token)));
    }
    assert!(!is_tunnel(extended("websocket")) && !is_tunnel(upgrade("websocket")));
    assert!(!is_tunnel(http::Request::get("/")));
    // An upgrade that `Connection` does not name is none (RFC 9110 §7.8).
    assert!(!is_tunnel(
        http::Request::get("/").header("upgrade", "connect-udp")
    ));
}

#[test]
fn a_handler_that_asks_elsewhere_first() {
    let target = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let name = target.local_addr().unwrap().to_string();
    let inner = Proxies::new().public_only(false);
    let (_embedding, address) = start(AsksElsewhere(Arc::new(inner)));
    let (_stream, head) = ask(address, &tcp(&name));
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let token = "Authorization: PrivateToken token=\"abc\"\r\n\r\n";
    let request = tcp(&name).replace("\r\n\r\n", &format!("\r\n{token}"));
    let (mut stream, head) = ask(address, &request);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for by in ["the outer one", "the inner one"] {
        assert!(head.contains(&format!("x-by: {by}")), "{head}");
    }
    let (mut connection, _) = target.accept().unwrap();
    connection.write_all(b"hello").unwrap();
    expect(&mut stream, b"hello");
}

#[test]
fn extended_and_classic_connect_over_http_2() {
    let (embedding, address) = start(|request: &Request| {
        assert_eq!(request.carrier().as_str(), "h2");
        let templated = request.protocol() == Some(Protocol::Udp);
        assert_eq!(request.token().is_some(), templated);
        echo(request)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        while !client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let path = "https://localhost/.well-known/masque/udp/192.0.2.1/53/";
        let udp = http::Request::connect(path)
            .extension(h2::ext::Protocol::from_static("connect-udp"))
            .header("capsule-protocol", "?1");
        let tcp = http::Request::connect("192.0.2.1:80");
        for (request, bytes) in [(udp, &b"\0\x06\0hello"[..]), (tcp, b"hello")] {
            let (response, mut send) = client
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            send.send_data(Bytes::copy_from_slice(bytes), false)
                .unwrap();
            let mut body = response.into_body();
            let mut read = Vec::new();
            while read.len() < bytes.len() {
                read.extend(body.data().await.unwrap().unwrap());
            }
            assert_eq!(read, bytes);
            send.send_data(Bytes::new(), true).unwrap();
            while let Some(data) = body.data().await {
                assert_eq!(data.unwrap(), "");
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await.unwrap() });
    assert_eq!(embedding.handler_panics(), 0);
    embedding.stop_blocking();
}

#[test]
fn an_embedding_has_the_options_of_a_listener() {
    let embedding = Embedding::builder(echo)
        .udp_template("/masque?h={target_host}&p={target_port}")
        .tcp_template("/tcp/{target_host}/{target_port}")
        .origin("relay.example")
        .workers(2)
        .max_tunnels(1)
        .open_timeout(std::time::Duration::from_secs(5))
        .start()
        .unwrap();
    let accept = |path: &str, host: &str, token: &str| {
        let request = http::Request::get(path)
            .header("host", host)
            .header("connection", "upgrade")
            .header("upgrade", token)
            .header("capsule-protocol", "?1")
            .body(())
            .unwrap();
        smol::block_on(embedding.accept(&request, ([192, 0, 2, 7], 7).into()))
    };
    let path = "/masque?h=a.example&p=1";
    // One on each worker, which have room for one.
    let first = accept(path, "relay.example", "connect-udp").unwrap();
    let second = accept("/tcp/a.example/1", "relay.example", "connect-tcp").unwrap();
    assert_eq!(
        (first.response().status(), second.response().status()),
        (101.try_into().unwrap(), 101.try_into().unwrap())
    );
    for (path, host, status) in [
        (path, "relay.example", 503),
        (path, "other.example", 421),
        ("/nothing", "relay.example", 404),
    ] {
        let refused = accept(path, host, "connect-udp").unwrap_err();
        assert_eq!(refused.status(), status, "{path} {host}");
    }
    let error = Embedding::builder(echo)
        .max_tunnels(0)
        .workers(5_000)
        .start();
    let text = std::error::Error::source(&error.unwrap_err())
        .unwrap()
        .to_string();
    assert!(
        text.contains("limits.tunnels: 0:") && text.contains("workers: 5000"),
        "{text}"
    );
}
