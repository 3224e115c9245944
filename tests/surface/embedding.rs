//! Servers that are the user's own: hyper over TLS, and h3 on quinn.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use bauta::{Carrier, Client, Embedding, Handler, Proxies, Reject, Request, TcpForm, Trust};
use bytes::{Buf, Bytes};
use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{any_port, echo, exchange, pattern, shared_worker, tcp_echo, udp_echo};

/// What any server of TLS is made of.
fn tls(protocols: &[&str]) -> rustls::ServerConfig {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (chain, private) = (key.cert.der().clone(), key.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], private.try_into().unwrap())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    config
}

/// Runs a server of the user's on a thread of its own, which ends with the test.
fn serve<F: Future<Output = ()>>(server: impl FnOnce() -> F + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(server());
    });
}

type Answer = Result<hyper::Response<String>, Infallible>;

async fn serve_hyper(
    embedding: Embedding,
    mut request: hyper::Request<hyper::body::Incoming>,
    client: SocketAddr,
) -> Answer {
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
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let mut upgraded = TokioIo::new(upgraded);
            // A client may break off.
            let copied = tokio::io::copy_bidirectional(&mut upgraded, &mut tunnel);
            copied.await.ok();
        }
    });
    Ok(response)
}

/// hyper over TLS, HTTP/2 and HTTP/1.1.
pub(crate) fn hyper_server(handler: impl Handler) -> SocketAddr {
    let embedding = Embedding::new(handler).unwrap();
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    serve(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(&["h2", "http/1.1"])));
        while let Ok((stream, client)) = listener.accept().await {
            let (acceptor, embedding) = (acceptor.clone(), embedding.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service =
                    service_fn(move |request| serve_hyper(embedding.clone(), request, client));
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = TokioIo::new(stream);
                if is_h2 {
                    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let http = http.enable_connect_protocol();
                    http.serve_connection(stream, service).await.ok();
                } else {
                    let http = hyper::server::conn::http1::Builder::new();
                    let served = http.serve_connection(stream, service).with_upgrades();
                    served.await.ok();
                }
            });
        }
    });
    address
}

type H3Stream = h3::server::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

async fn serve_h3(
    embedding: Embedding,
    request: http::Request<()>,
    mut stream: H3Stream,
    client: SocketAddr,
) {
    let protocol = request.extensions().get::<h3::ext::Protocol>();
    let tunnel = match protocol {
        Some(protocol) => {
            let protocol = protocol.as_str();
            embedding.accept_extended(&request, protocol, client).await
        }
        None => embedding.accept(&request, client).await,
    };
    let tunnel = match tunnel {
        Ok(tunnel) => tunnel,
        Err(response) => {
            stream.send_response(response).await.unwrap();
            return stream.finish().await.unwrap();
        }
    };
    stream.send_response(tunnel.response()).await.unwrap();
    let (mut send, mut receive) = stream.split();
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(tunnel);
    let up = async {
        // A client may break off.
        while let Ok(Some(mut data)) = receive.recv_data().await {
            while data.has_remaining() {
                let piece = data.chunk().to_vec();
                if to_tunnel.write_all(&piece).await.is_err() {
                    return;
                }
                data.advance(piece.len());
            }
        }
        to_tunnel.shutdown().await.ok();
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(len @ 1..) = from_tunnel.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..len]);
            if send.send_data(data).await.is_err() {
                return;
            }
        }
        send.finish().await.ok();
    };
    futures_util::join!(up, down);
}

/// h3 on quinn.
fn h3_server(handler: impl Handler) -> SocketAddr {
    let embedding = Embedding::new(handler).unwrap();
    let socket = std::net::UdpSocket::bind(any_port()).unwrap();
    let address = socket.local_addr().unwrap();
    serve(move || async move {
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls(&["h3"])).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            Some(config),
            socket,
            Arc::new(quinn::TokioRuntime),
        );
        let endpoint = endpoint.unwrap();
        while let Some(incoming) = endpoint.accept().await {
            let embedding = embedding.clone();
            tokio::spawn(async move {
                let client = incoming.remote_address();
                let Ok(connection) = incoming.await else {
                    return;
                };
                let connection = h3_quinn::Connection::new(connection);
                let mut http = h3::server::builder();
                let http = http.enable_extended_connect(true).build(connection).await;
                let mut http: h3::server::Connection<_, Bytes> = http.unwrap();
                while let Ok(Some(resolver)) = http.accept().await {
                    let embedding = embedding.clone();
                    tokio::spawn(async move {
                        if let Ok((request, stream)) = resolver.resolve_request().await {
                            serve_h3(embedding, request, stream, client).await;
                        }
                    });
                }
            });
        }
    });
    address
}

pub(crate) fn client(address: SocketAddr, carrier: Carrier) -> Client {
    Client::builder(format!("https://{address}"))
        .trust(Trust::dangerous_anybody())
        .carriers([carrier])
        .worker(shared_worker())
        .build()
        .unwrap()
}

/// A relay that port 81 is too holy for.
fn guarded(request: &Request) -> Result<bauta::Accept, Reject> {
    match request.target().map(|target| target.port) {
        Some(81) => Err(Reject::forbidden()
            .reason("not there")
            .header("x-more", HeaderValue::from_static("tea"))),
        _ => Proxies::new().public_only(false).accept(request),
    }
}

/// UDP, TCP in the forms that the server knows, and a rejection.
fn use_server(address: SocketAddr, carrier: Carrier, forms: &[TcpForm]) {
    let client = client(address, carrier);
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let tunnel = client.udp_blocking(udp_target).unwrap();
    assert_eq!(tunnel.info().carrier, Some(carrier));
    for text in ["one", "two", "three"] {
        echo(&tunnel, text);
    }
    for form in forms {
        let connect = client.connect(tcp_target).tcp_form(*form);
        let tunnel = connect.tcp_blocking().unwrap();
        exchange(&tunnel, &pattern(0, 60_000));
        tunnel.shutdown_write().unwrap();
        let read = std::io::Read::read(&mut &tunnel, &mut [0; 8]).unwrap();
        assert_eq!(read, 0, "{carrier} {form:?}");
    }
    let error = client.udp_blocking("127.0.0.1:81").unwrap_err();
    assert_eq!(error.status().unwrap(), 403, "{carrier}");
    assert_eq!(error.headers().unwrap()["x-more"], "tea");
    assert!(error.proxy_status().unwrap().contains("not there"));
}

#[test]
fn h3_handler_for_a_user_owned_server() {
    // The h3 package knows the token of UDP, and none of TCP.
    use_server(h3_server(guarded), Carrier::H3, &[TcpForm::Classic]);
}

#[test]
fn h2_handler_for_a_user_owned_server() {
    let forms = [TcpForm::Capsules, TcpForm::Raw, TcpForm::Classic];
    use_server(hyper_server(guarded), Carrier::H2, &forms);
}

#[test]
fn h1_handler_for_a_user_owned_server() {
    let forms = [TcpForm::Capsules, TcpForm::Raw, TcpForm::Classic];
    use_server(hyper_server(guarded), Carrier::H1, &forms);
}
