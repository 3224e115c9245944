//! A MASQUE relay, client and library: UDP (CONNECT-UDP, RFC 9298) and TCP (CONNECT, connect-tcp) over HTTP/3, HTTP/2
//! and HTTP/1.1, a thread per core.
//!
//! ```text
//!            h3, h2 or h1            h3, h2 or h1           UDP, TCP
//!   client ───────────────► ingress ───────────────► egress ─────────► target
//!      ╰──── a tunnel: one request, with datagrams or a stream of bytes ────╯
//!
//!   ingress, egress   the same relay: with next hops it chains, without it connects
//!   nesting           the client opens the second tunnel itself, inside the first
//! ```
//!
//! A worker thread owns everything that its tunnels need, and what arrives is handled from receive call to send call in
//! one turn of one worker:
//!
//! ```text
//!   net ───────┬► transport::quic ─► http::h3 ────┬► tunnel ────► worker: relay, splice ─► net, or transport again
//!   sockets,   └► transport::tcp ──► h2, http::h1 ┘  what a       where a datagram goes,   one flush per turn,
//!   trains        TLS over TCP       streams         request is   where bytes go           by trains
//! ```
//!
//! Below these lie [`wire`] (codecs) and [`config`]; [`policy`], [`handler`] and [`server`] decide who may open what;
//! [`client`] keeps connections to next hops; [`program`] is what the binary runs.
//!
//! # Stability
//!
//! This crate has no public interface yet: every module is internal, public only for the tests, the fuzz targets and
//! the load generator of this repository, and may change with any version. What is stable is the program.
//!
//! # Where to start reading
//!
//! `ARCHITECTURE.md` follows a datagram with the function to open at each step. In the code, [`worker`] has the picture
//! of a worker and [`worker::Machine`] is the heart; [`http::h3`], [`http::h1`], [`transport::quic`],
//! [`transport::tcp`] and [`tunnel`] open with what they do and what they deliberately do not. `tests/sim` shows all of
//! it at work in virtual time.

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
#[doc(hidden)]
pub mod handler;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod policy;
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
    Accept, Actions, Attempt, Capsule, Carrier, Chain, Client, ClientAuth, ClientBuilder,
    CloseReason, Connect, Credentials, CredentialsError, Datagram, EmbeddedTunnel, Embedding,
    Error, ErrorKind, Event, Events, Family, Handler, Host, Identity, Info, Listener,
    ListenerBuilder, ListenerStats, Mode, Protocol, Proxies, Reject, Request,
    SESSION_WAITING_BYTES_MAX, SendError, Session, ShutdownError, Side, State, Target, TargetError,
    TcpForm, TcpProxy, TcpReadHalf, TcpTunnel, TcpWriteHalf, Trust, TunnelHandle, TunnelId,
    UdpProxy, UdpTunnel, VERSION, Worker, version,
};
