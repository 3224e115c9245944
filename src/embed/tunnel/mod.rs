//! Tunnels in the hands of users.
//!
//! ```text
//!   UdpTunnel, TcpTunnel, Events          Shared                                      worker
//!   send, write ───────────────► outbound queue, bounded ─── "look at me" once ───► Users ─► Machine
//!   recv, read ◄──────────────── inbound queue, bounded  ◄─────────────────────────────┘
//! ```
//!
//! Datagrams that find a queue full displace the oldest one and are counted. Bytes are never dropped: a full queue
//! holds back whoever wants to add to it, as far as the other end of the tunnel.

mod common;
mod events;
mod info;
mod ip;
mod queues;
mod shared;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

pub use self::events::{Event, Events, Mode};
pub use self::info::{
    Capsule, CloseReason, Datagram, Info, Protocol, ShutdownError, State, TunnelId,
};
pub use self::ip::IpTunnel;
pub use self::tcp::{TcpReadHalf, TcpTunnel, TcpWriteHalf};
pub use self::udp::UdpTunnel;

pub(super) use self::info::CLOSE_TIMEOUT;
pub(super) use self::shared::{Handle, Held, Opened, Shared, Terms, Work};
