//! The client half of every hop: which connections to the next relay exist, and how a request gets onto one.
//!
//! A relay that chains, the `udp` program and the demo all open tunnels through the same [`Pool`]. It is sans-IO
//! like the hub it drives: names to resolve and tunnels to nest come out as events.
//!
//! ```text
//!   open(hop, tunnel, target) ─► waiting ─► a connection with room for a stream ─► Opened
//!                                   │ none
//!                                   └─► dial once: resolve │ tunnel through the hop before ─► handshake ─► SETTINGS
//! ```

mod credentials;
mod failure;
mod hop;
mod pool;

pub use self::credentials::{Credentials, CredentialsError};
pub use self::hop::{Hop, HopKey};
pub use self::pool::{HopId, Pool, PoolEvent, PoolLimits, Request, Ticket};
