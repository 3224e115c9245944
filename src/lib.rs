//! A MASQUE relay, client and server to embed: UDP (CONNECT-UDP, RFC 9298), TCP (CONNECT, connect-tcp) and IP
//! (CONNECT-IP, RFC 9484) over HTTP/3, HTTP/2 and HTTP/1.1, through one relay or several.
//!
//! ```text
//!   your program                    h3, h2 or h1                    UDP, TCP
//!   Client ─► UdpTunnel, TcpTunnel, IpTunnel ────► relay ─► … ─────────────► target
//!                                                  Listener: UdpProxy, TcpProxy, IpProxy, Chain,
//!                                                            or a Handler of yours
//! ```
//!
//! A client:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bauta::{Client, Error};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Error> {
//!     let client = Client::builder("https://relay.example").build()?;
//!     let tunnel = client.udp("192.0.2.53:53").await?;
//!     // Who is example.org? An A record, please.
//!     let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
//!     tunnel.send(&question[..])?;
//!     // Datagrams may get lost: who waits for an answer says how long.
//!     match tunnel.recv_timeout(Duration::from_secs(2)).await? {
//!         Some(answer) => println!("{} bytes over {:?}", answer.payload.len(), tunnel.info().carrier),
//!         None => println!("no answer"),
//!     }
//!     tunnel.close().await;
//!     Ok(())
//! }
//! ```
//!
//! And the relay:
//!
//! ```no_run
//! use bauta::{Error, Identity, Listener, Proxies};
//!
//! fn main() -> Result<(), Error> {
//!     let relay = Listener::all(([0, 0, 0, 0], 443))
//!         .identity(Identity::load("chain.pem", "key.pem")?)
//!         .handler(Proxies::new())
//!         .start()?;
//!     println!("listening on {}", relay.local_addr());
//!     loop {
//!         std::thread::park();
//!     }
//! }
//! ```
//!
//! Nothing here needs an executor of a certain kind: the work is done by threads of the library, futures can be awaited
//! on tokio, smol or any other, and what waits has a blocking twin.
//!
//! # Where to go next
//!
//! The [`guide`] has a chapter for each thing that one wants to do: [a first tunnel](guide::first_tunnel),
//! [a relay](guide::relay), [two hops](guide::two_hops), [handlers](guide::handlers),
//! [authentication](guide::authentication), [embedding](guide::embedding), [errors](guide::errors),
//! [performance](guide::performance) and [IP](guide::ip). The `examples` folder of the repository has programs.
//!
//! # What is public
//!
//! | for | items |
//! |---|---|
//! | clients | [`Client`], [`ClientBuilder`], [`Connect`], [`Worker`], [`Trust`], [`Credentials`], [`TcpForm`] |
//! | their tunnels | [`UdpTunnel`], [`TcpTunnel`], [`TcpReadHalf`], [`TcpWriteHalf`], [`Datagram`], [`Capsule`], [`Info`], [`State`], [`CloseReason`], [`ShutdownError`] |
//! | IP tunnels | [`IpTunnel`], [`Scope`], [`ScopeTarget`], [`ScopeError`], [`IpInfo`], [`IpEvent`], [`AssignedAddress`], [`RequestedAddress`], [`AddressRange`], [`DnsConfig`], [`Nameserver`], [`ServiceKey`], [`IpRuleError`], [`PacketError`] |
//! | messages | [`Mode`], [`Events`], [`Event`], [`TunnelId`] |
//! | servers | [`Listener`], [`ListenerBuilder`], [`ListenerStats`], [`Identity`], [`ClientAuth`] |
//! | servers of others | [`Embedding`], [`EmbeddingBuilder`], [`EmbeddedTunnel`] |
//! | what becomes of requests | [`Handler`], [`Request`], [`Protocol`], [`Accept`], [`Reject`], [`Proxies`], [`UdpProxy`], [`TcpProxy`], [`Chain`], [`Family`], [`SocketOptions`] |
//! | relays of IP | [`IpProxy`], [`IpProxyBuilder`], [`TunExit`], [`IpProxyHandle`], [`IpProxyEvent`], [`IpProxyStats`], [`IpSession`], [`DropReason`] |
//! | tunnels that end in code | [`Session`], [`Actions`], [`TunnelHandle`], [`SendError`], [`SESSION_WAITING_BYTES_MAX`] |
//! | all | [`Target`], [`Host`], [`Carrier`], [`Error`], [`ErrorKind`], [`Side`], [`Attempt`], [`TargetError`], [`CredentialsError`], [`UnknownCarrier`], [`VERSION`], [`version`] |
//!
//! That is all of it, and `PUBLIC-API.txt` lists it in full. Every other module is `#[doc(hidden)]`: it is reachable
//! for the tests, the fuzz targets and the load generator of this repository, and may change with any version. A glob
//! import takes them along, so that after `use bauta::*` a path such as `http::HeaderValue` is ambiguous: import items
//! by name, or write `::http::HeaderValue`.
//!
//! Types of other packages that occur in the interface are those of `bytes` 1, `http` 1, `futures-core` 0.3,
//! `futures-io` 0.3, `futures-sink` 0.3, `ipnet` 2, `rustls-pki-types` 1 (by `rustls` 0.23) and, with the feature,
//! `tokio` 1.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tokio` | yes | `tokio::io::AsyncRead` and `AsyncWrite` for TCP tunnels, beside those of the `futures` package |
//!
//! # Requirements
//!
//! Linux, Rust 1.95 (which may rise with a minor version), and a C compiler for aws-lc. TLS 1.3 only; io_uring where
//! the kernel allows it, otherwise epoll.
//!
//! # Safety
//!
//! Unsafe code is denied in the whole crate but for one file, `src/net/sys.rs`, which calls the kernel; each block
//! there says who guarantees what. Bytes of peers never panic and never allocate past a named limit; parsers are
//! fuzzed. What this library does not do: hide that a tunnel exists, pad, or delay packets. Whoever watches both ends
//! of a relay can tell by times and sizes what belongs together.

#![deny(missing_docs)]

/// Its program is run with the examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The layers, in the way of a packet and below; ARCHITECTURE.md is the map.
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod config;
mod counters;
mod embed;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
#[doc(hidden)]
pub mod handler;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod program;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod tunnel;
#[doc(hidden)]
pub mod wire;
#[doc(hidden)]
pub mod worker;

pub use self::embed::{
    Accept, Actions, AddressRange, AssignedAddress, Attempt, Capsule, Carrier, Chain, Client,
    ClientAuth, ClientBuilder, CloseReason, Connect, Credentials, CredentialsError, Datagram,
    DnsConfig, DropReason, EmbeddedTunnel, Embedding, EmbeddingBuilder, Error, ErrorKind, Event,
    Events, Family, Handler, Host, Identity, Info, IpEvent, IpInfo, IpProxy, IpProxyBuilder,
    IpProxyEvent, IpProxyHandle, IpProxyStats, IpRuleError, IpSession, IpTunnel, Listener,
    ListenerBuilder, ListenerStats, Mode, Nameserver, PacketError, Protocol, Proxies, Reject,
    Request, RequestedAddress, SESSION_WAITING_BYTES_MAX, Scope, ScopeError, ScopeTarget,
    SendError, ServiceKey, Session, ShutdownError, Side, SocketOptions, State, Target, TargetError,
    TcpForm, TcpProxy, TcpReadHalf, TcpTunnel, TcpWriteHalf, Trust, TunExit, TunnelHandle,
    TunnelId, UdpProxy, UdpTunnel, UnknownCarrier, VERSION, Worker, version,
};
