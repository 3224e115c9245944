//! What the `bauta` program runs: a relay, forwarders, IP tunnels of a machine, a local proxy, a demonstration. The
//! binary parses arguments. `exit` is the system around a relay's TUN interface, and `bulk` the TCP load of the
//! demonstration.
//!
//! ```text
//!   control thread (tokio, one thread): signals · names · passwords ──► mailboxes ──► worker threads
//! ```

pub mod bulk;
pub mod demo;
pub mod exit;
pub mod forward;
mod generator;
pub mod proxy;
pub mod relay;
mod target;
pub mod tcp;
pub mod threads;
mod traffic;
pub mod tun;
pub mod udp;

pub use self::threads::StartError;
