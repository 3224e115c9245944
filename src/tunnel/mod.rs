//! Tunnels as machines without I/O: one accepted request is one tunnel.
//!
//! ```text
//!   HTTP Datagram payload ─► context id ─► size ─► UDP payload ─► the other leg
//!   data stream ─► capsules ─┘
//!
//!   data stream ─► raw, or DATA and FINAL_DATA ─► bytes of TCP ─► the other leg
//! ```
//!
//! `table` names tunnels so that a stale name finds nothing; `udp` reads what arrives on a CONNECT-UDP request
//! (RFC 9298), `tcp` on one for TCP; `early` keeps what arrives before the answer. No clock, no socket, no carrier in
//! here.

mod early;
pub mod eyeballs;
pub mod ip;
mod table;
pub mod tcp;
mod udp;

pub use self::early::{Early, EarlyLimits};
pub use self::table::{Table, TunnelId};
pub use self::tcp::{Framing, TcpError};
pub use self::udp::{Arrival, Delivery, Inbound, UdpError, arrival};
