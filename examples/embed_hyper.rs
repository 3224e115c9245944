//! Tunnels in an HTTPS server of one's own, on hyper: it keeps its port, its certificate and its pages, and hands
//! requests for tunnels to an [`Embedding`].
//!
//! ```text
//!   client ─ TLS ─► hyper ─┬─ GET ───────────────────────────────► a page
//!                          ├─ HTTP/1.1: CONNECT, Upgrade ──┐
//!                          └─ HTTP/2: CONNECT, extended ───┴─────► Embedding ─► Handler ─► target
//! ```
//!
//! ```console
//! $ cargo run --example embed_hyper
//! ```
//!
//! UDP goes in capsules on the request's stream, as TCP carries no datagrams (RFC 9297 §3.5). bauta's own client proves
//! it, on loopback.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bauta::{Carrier, Client, Embedding, Proxies, TcpForm, Trust};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One request, of either version. Everything about tunnels is here.
async fn answer(
    request: Request<Incoming>,
    client: SocketAddr,
    embedding: Embedding,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::CONNECT && !request.headers().contains_key(UPGRADE) {
        return Ok(Response::new(Full::from("a page of hyper's")));
    }
    // On HTTP/2 hyper puts `:protocol` there.
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    let accepted = match protocol {
        Some(protocol) => {
            embedding
                .accept_extended(&request, protocol.as_str(), client)
                .await
        }
        None => embedding.accept(&request, client).await,
    };
    let mut tunnel = match accepted {
        Ok(tunnel) => tunnel,
        // Who asks for something else, or may not have it, gets a response that says why.
        Err(response) => return Ok(response.map(|()| Full::default())),
    };
    let response = tunnel.response().map(|()| Full::default());
    tokio::spawn(async move {
        // Ready when the response is on its way. Either side may break off; then the tunnel ends, and that is all.
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            copy_bidirectional(&mut TokioIo::new(upgraded), &mut tunnel)
                .await
                .ok();
        }
    });
    Ok(response)
}

/// One connection. ALPN has chosen the version.
async fn serve(socket: TcpStream, tls: TlsAcceptor, embedding: Embedding) -> Result<()> {
    let client = socket.peer_addr()?;
    let stream = tls.accept(socket).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let service = service_fn(|request| answer(request, client, embedding.clone()));
    if is_h2 {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // Without this setting no client asks by extended CONNECT (RFC 8441 §3).
        server.enable_connect_protocol();
        server.serve_connection(stream, service).await?;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server
            .serve_connection(stream, service)
            .with_upgrades()
            .await?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(tls));

    let embedding = Embedding::new(Proxies::new().public_only(false))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, tls.clone(), embedding.clone()));
        }
    });

    println!("GET: {}", get(address, &certificate.cert).await?);
    let target = start_echo().await?;
    for carrier in [Carrier::H2, Carrier::H1] {
        let client = Client::builder(format!("https://{address}"))
            .trust(Trust::pem(certificate.cert.pem()))
            .carriers([carrier])
            .build()?;
        exchange(&client, target, carrier).await?;
    }
    Ok(())
}

/// Asks for a page, as any client does.
async fn get(address: SocketAddr, certificate: &rcgen::Certificate) -> Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, socket)
        .await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/").header("host", address.to_string());
    let response = sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?;
    let content = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(content.to_vec())?)
}

/// A datagram, and a stream in each form, there and back.
async fn exchange(client: &Client, target: SocketAddr, carrier: Carrier) -> Result<()> {
    let tunnel = client.udp(target).await?;
    tunnel.send("ping")?;
    let answer = tunnel.recv_timeout(Duration::from_secs(5)).await?;
    let answer = answer.ok_or("no datagram came back")?.payload;
    println!("{carrier}: UDP says {}", String::from_utf8_lossy(&answer));

    for form in [TcpForm::Capsules, TcpForm::Raw, TcpForm::Classic] {
        let mut tunnel = client.connect(target).tcp_form(form).tcp().await?;
        tunnel.write_all(b"ping").await?;
        tunnel.shutdown().await?;
        let mut answer = String::new();
        tunnel.read_to_string(&mut answer).await?;
        println!("{carrier}: TCP, {form:?}, says {answer}");
    }
    Ok(())
}

/// A target that sends back what it gets, by UDP and by TCP.
async fn start_echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let socket = UdpSocket::bind(address).await?;
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((len, sender)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..len], sender).await.ok();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.ok();
        }
    });
    Ok(address)
}
