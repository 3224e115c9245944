//! The public face of the library: handles for users' threads and tasks, handlers for users' relays.
//!
//! ```text
//!   Client, UdpTunnel, TcpTunnel ──┐  shared queues + Command + wake  ┌── Machine, the relay's own core
//!   Listener, Handler, Session ────┼────────────────────────────► Host ┤
//!   Embedding ─────────────────────┘ ◄─────── events in queues         └── control thread: names, users' futures
//! ```
//!
//! Workers are threads of their own: nothing here needs an executor, and every handle can be waited for by any
//! executor, or by a plain thread. What a handle shares with its worker is a queue under a short lock; a worker never
//! waits for a user. Handles that wait are told by an event, with deadlines kept by the worker.

mod client;
mod conversions;
mod embedding;
mod embedding_stream;
mod failure;
mod handler;
mod handler_guard;
mod host;
mod ip;
mod ip_proxy;
mod listener;
mod listener_identity;
mod listener_stats;
mod lock;
mod proxy;
mod request;
mod running;
mod scope;
mod serving;
mod session;
mod session_handle;
mod target;
mod tunnel;
mod wait;

pub use self::client::{Client, ClientBuilder, Connect, Trust, Worker};
pub use self::embedding::{Embedding, EmbeddingBuilder};
pub use self::embedding_stream::EmbeddedTunnel;
pub use self::handler::{Accept, Handler, Reject};
pub use self::ip::IpRuleError;
pub use self::ip_proxy::{
    IpProxy, IpProxyBuilder, IpProxyEvent, IpProxyHandle, IpProxyStats, IpSession, TunExit,
};
pub use self::listener::{Listener, ListenerBuilder};
pub use self::listener_identity::Identity;
pub use self::listener_stats::ListenerStats;
pub use self::proxy::{Chain, Proxies, TcpProxy, UdpProxy};
pub use self::request::Request;
pub use self::session::{Actions, SESSION_WAITING_BYTES_MAX, SendError, Session};
pub use self::session_handle::TunnelHandle;
pub use self::tunnel::{
    Capsule, CloseReason, Datagram, Event, Events, Info, IpTunnel, Mode, Protocol, ShutdownError,
    State, TcpReadHalf, TcpTunnel, TcpWriteHalf, TunnelId, UdpTunnel,
};
pub use crate::client::{Credentials, CredentialsError, TcpForm};
pub use crate::error::{Attempt, Error, ErrorKind, Side};
pub use crate::net::SocketOptions;
pub use crate::transport::tls::ClientAuth;
pub use crate::tunnel::ip::IpEvent;
pub use crate::wire::carrier::{Carrier, UnknownCarrier};
pub use crate::wire::ip::{
    AddressRange, AssignedAddress, DnsConfig, Nameserver, PacketError, RequestedAddress, Scope,
    ScopeError, ScopeTarget, ServiceKey,
};
pub use crate::wire::target::{Host, Target, TargetError};
pub use crate::worker::{DropReason, Family, IpInfo};

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of this crate, [`VERSION`].
#[must_use]
pub const fn version() -> &'static str {
    VERSION
}
