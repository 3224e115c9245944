//! The client half of every hop: which connections to the next relay exist, and how a request gets onto one.
//!
//! A relay that chains, the forwarders, the proxy and the demo all open tunnels through the same [`Pool`]. It is
//! sans-IO like the connections it drives: names to resolve, sockets to open and tunnels to nest come out as events.
//!
//! ```text
//!   open(hop, tunnel, request) ─► waiting ─► a connection with room for a stream ─► Opened
//!                                    │ none
//!                                    └─► dial: resolve │ tunnel through the hop before ─► handshake ─► SETTINGS
//! ```

mod credentials;
mod failure;
mod hop;
mod pool;

pub use self::credentials::{Credentials, CredentialsError};
pub use self::failure::{Failed, Failure};
pub use self::hop::{Hop, HopKey, HopTls, Pooling, Request, TcpForm, TunnelKind};
pub use self::pool::{DialId, HopId, Pool, PoolEvent, PoolLimits, RouteId, Ticket};
