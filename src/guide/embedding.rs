//! Chapter 6: tunnels in a server that is yours already.
//!
//! Where a server of your own has the port, the certificate and the connections, bauta can still have the tunnels.
//! [`Embedding`](crate::Embedding) is the part of a relay behind HTTP: you hand it a request, and it judges it, asks
//! the [`Handler`](crate::Handler), opens the tunnel and gives you the head of the answer, with an
//! [`EmbeddedTunnel`](crate::EmbeddedTunnel) that reads and writes the bytes of the request's stream. You copy them:
//!
//! ```text
//!   your server ── request ──► Embedding::accept ──► Handler ──► tunnel ──► target, session
//!               ◄── head ────         │
//!               ◄── bytes ──► EmbeddedTunnel: AsyncRead + AsyncWrite, framing inside
//! ```
//!
//! With hyper, where an upgraded connection or stream is such a pair of bytes as well:
//!
//! ```
//! use std::convert::Infallible;
//! use std::net::SocketAddr;
//!
//! use bauta::{Embedding, Proxies};
//! use bytes::Bytes;
//! use http_body_util::Empty;
//! use hyper::body::Incoming;
//! use hyper::server::conn::http1;
//! use hyper::service::service_fn;
//! use hyper::{Request, Response};
//! use hyper_util::rt::TokioIo;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! async fn serve(
//!     embedding: Embedding,
//!     client: SocketAddr,
//!     mut request: Request<Incoming>,
//! ) -> Result<Response<Empty<Bytes>>, Infallible> {
//!     // Your own pages come first; what is left are tunnels.
//!     let mut tunnel = match embedding.accept(&request, client).await {
//!         Ok(tunnel) => tunnel,
//!         Err(response) => return Ok(response.map(|()| Empty::new())),
//!     };
//!     let response = tunnel.response().map(|()| Empty::new());
//!     tokio::spawn(async move {
//!         if let Ok(stream) = hyper::upgrade::on(&mut request).await {
//!             let mut stream = TokioIo::new(stream);
//!             copy_bidirectional(&mut stream, &mut tunnel).await.ok();
//!         }
//!     });
//!     Ok(response)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! #     runtime.block_on(example())
//! # }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let echo = TcpListener::bind("127.0.0.1:0").await?;
//! # let target = echo.local_addr()?;
//! # tokio::spawn(async move {
//! #     while let Ok((mut stream, _)) = echo.accept().await {
//! #         let (mut reader, mut writer) = stream.split();
//! #         tokio::io::copy(&mut reader, &mut writer).await.ok();
//! #     }
//! # });
//! let embedding = Embedding::new(Proxies::new().public_only(false))?;
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! tokio::spawn(async move {
//!     // In earnest there is TLS in between.
//!     while let Ok((stream, client)) = listener.accept().await {
//!         let embedding = embedding.clone();
//!         let service = service_fn(move |request| serve(embedding.clone(), client, request));
//!         let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
//!         tokio::spawn(connection.with_upgrades());
//!     }
//! });
//!
//! // A client that knows CONNECT and nothing else.
//! let mut client = TcpStream::connect(address).await?;
//! let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
//! client.write_all(request.as_bytes()).await?;
//! let mut head = Vec::new();
//! while !head.ends_with(b"\r\n\r\n") {
//!     head.push(client.read_u8().await?);
//! }
//! assert!(head.starts_with(b"HTTP/1.1 200"));
//! client.write_all(b"ping").await?;
//! let mut answer = [0; 4];
//! client.read_exact(&mut answer).await?;
//! assert_eq!(&answer, b"ping");
//! # Ok(())
//! # }
//! ```
//!
//! # Extended CONNECT
//!
//! The `:protocol` of HTTP/2 and HTTP/3 (RFC 8441, RFC 9220) is not part of an `http::Request`; each server keeps it
//! somewhere else. What the `h2` package leaves is found; from others it is passed to
//! [`accept_extended`](crate::Embedding::accept_extended), with hyper `request.extensions()` has it as
//! `hyper::ext::Protocol`. The server has to announce that it takes extended CONNECT: `enable_connect_protocol()` in
//! hyper and h2, `enable_extended_connect(true)` in h3.
//!
//! # What is different
//!
//! - Datagrams of UDP tunnels, and packets of IP tunnels, travel as capsules on the stream (RFC 9297 §3.5): an
//!   embedding does not see the QUIC datagrams of your server. Clients do this by themselves where a server announces
//!   no datagrams.
//! - IP tunnels need a handler for them, an [`IpProxy`](crate::IpProxy) or a [`Session`](crate::Session), and a server
//!   that lets `connect-ip` through: hyper and h2 do, the h3 package knows `connect-udp` alone.
//! - Templates are the well-known ones, and those of [the builder](crate::EmbeddingBuilder::udp_template).
//! - Handlers, sessions, rules and hooks are the same as in a [`Listener`](crate::Listener). The worker is one thread.
//! - Timeouts of connections, limits on requests and floods are for your server to mind, before it asks.
//! - The copying is yours, a task per tunnel: it costs a copy and a switch between threads which a
//!   [`Listener`](crate::Listener) does not have.
