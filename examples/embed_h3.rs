//! Tunnels in an HTTP/3 server of one's own, on quinn and h3 0.0.8: it hands requests for tunnels to an [`Embedding`].
//!
//! ```text
//!   client ─ QUIC ─► quinn ─► h3 ─┬─ GET ───────────────────────────────► a page
//!                                 └─ CONNECT, extended: connect-udp ────► Embedding ─► Handler ─► target
//! ```
//!
//! ```console
//! $ cargo run --example embed_h3
//! ```
//!
//! What h3 0.0.8 does not allow:
//!
//! - connect-tcp (draft-ietf-httpbis-connect-tcp): its `Protocol` knows `connect-udp` and `webtransport` only, and a
//!   request with another `:protocol` is reset before the server sees it. TCP by classic CONNECT works.
//! - QUIC datagrams: h3 leaves them to `h3-datagram`, and an [`EmbeddedTunnel`] is the bytes of a stream. This server
//!   does not offer SETTINGS_H3_DATAGRAM, so clients send UDP payloads in DATAGRAM capsules on the request's stream
//!   (RFC 9297 §3.5): reliable, in order, and slower for it. For UDP in earnest there is
//!   [`Listener::h3`](bauta::Listener::h3) on a port of its own.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bauta::{Carrier, Client, EmbeddedTunnel, Embedding, Proxies, TcpForm, Trust};
use bytes::{Bytes, BytesMut};
use h3::server::RequestStream;
use h3_quinn::BidiStream;
use http::{Method, Request, Response};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Stream = RequestStream<BidiStream<Bytes>, Bytes>;

/// One request. Everything about tunnels is here, and in [`carry`].
async fn answer(
    request: Request<()>,
    mut stream: Stream,
    client: SocketAddr,
    embedding: Embedding,
) -> Result<()> {
    if request.method() != Method::CONNECT {
        stream.send_response(Response::new(())).await?;
        stream
            .send_data(Bytes::from_static(b"a page of h3's"))
            .await?;
        return Ok(stream.finish().await?);
    }
    // h3 puts `:protocol` there.
    let accepted = match request.extensions().get::<h3::ext::Protocol>() {
        Some(protocol) => {
            embedding
                .accept_extended(&request, protocol.as_str(), client)
                .await
        }
        None => embedding.accept(&request, client).await,
    };
    match accepted {
        Ok(tunnel) => {
            stream.send_response(tunnel.response()).await?;
            carry(stream, tunnel).await
        }
        // Who asks for something else, or may not have it, gets a response that says why.
        Err(response) => {
            stream.send_response(response).await?;
            Ok(stream.finish().await?)
        }
    }
}

/// Moves bytes between a stream and a tunnel until both directions have ended, or one has broken.
async fn carry(stream: Stream, tunnel: EmbeddedTunnel) -> Result<()> {
    let (mut to_client, mut from_client) = stream.split();
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(tunnel);
    let up = async {
        while let Some(mut data) = from_client.recv_data().await? {
            to_tunnel.write_all_buf(&mut data).await?;
            // What a tunnel has no room for waits until it is flushed.
            to_tunnel.flush().await?;
        }
        to_tunnel.shutdown().await?;
        Result::Ok(())
    };
    let down = async {
        loop {
            let mut data = BytesMut::with_capacity(16 * 1024);
            if from_tunnel.read_buf(&mut data).await? == 0 {
                return Ok(to_client.finish().await?);
            }
            to_client.send_data(data.freeze()).await?;
        }
    };
    tokio::try_join!(up, down)?;
    Ok(())
}

/// One connection.
async fn serve(incoming: quinn::Incoming, embedding: Embedding) -> Result<()> {
    let client = incoming.remote_address();
    let connection = h3_quinn::Connection::new(incoming.await?);
    let mut server = h3::server::builder();
    // Without this setting no client asks by extended CONNECT (RFC 9220 §3).
    server.enable_extended_connect(true);
    let mut connection = server.build::<_, Bytes>(connection).await?;
    while let Some(resolver) = connection.accept().await? {
        let embedding = embedding.clone();
        tokio::spawn(async move {
            // What is wrong with a request is the client's to know; h3 has reset its stream.
            let (request, stream) = resolver.resolve_request().await?;
            answer(request, stream, client, embedding).await
        });
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
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicServerConfig::try_from(tls)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));

    let embedding = Embedding::new(Proxies::new().public_only(false))?;
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into())?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(serve(incoming, embedding.clone()));
        }
    });

    let client = Client::builder(format!("https://{address}"))
        .trust(Trust::pem(certificate.cert.pem()))
        .carriers([Carrier::H3])
        .build()?;
    let target = start_echo().await?;

    let tunnel = client.udp(target).await?;
    tunnel.send("ping")?;
    let answer = tunnel.recv_timeout(Duration::from_secs(5)).await?;
    let answer = answer.ok_or("no datagram came back")?.payload;
    println!("UDP in capsules says {}", String::from_utf8_lossy(&answer));

    let classic = client.connect(target).tcp_form(TcpForm::Classic);
    let mut tunnel = classic.tcp().await?;
    tunnel.write_all(b"ping").await?;
    tunnel.shutdown().await?;
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await?;
    println!("TCP by classic CONNECT says {answer}");

    match client
        .connect(target)
        .tcp_form(TcpForm::Capsules)
        .tcp()
        .await
    {
        Ok(_) => return Err("h3 has learned connect-tcp".into()),
        Err(error) => println!("TCP by connect-tcp: {error}, as h3 does not know it"),
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
