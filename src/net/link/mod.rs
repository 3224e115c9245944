//! What is changed in the system around a TUN interface, and how all of it is undone.
//!
//! ```text
//!                       ┌─► Links ─────► netlink: addresses, routes, MTU      gone with the interface
//!   control thread ─► Changes                     host routes ─────┐
//!                       ├─► nat ───────► nft: one table ───────────┤          outlive the process:
//!                       ├─► sysctl ────► /proc/sys: forwarding ────┼─► Journal ─► a file, written before the change
//!                       └─► dns ───────► resolvectl, or resolv.conf┘
//! ```
//!
//! What belongs to the interface goes with its descriptor, however the process ends. Everything else is written down
//! in the [`Journal`] before it is done: [`Changes::undo`] takes it back in reverse order, and the next start in the
//! same network namespace does so for a process that was killed. Nothing is taken back that is no longer as it was
//! left: somebody else has changed it since.
//!
//! Everything here runs on the control thread. The calls of `nft` and `resolvectl` are made on a blocking thread.
//!
//! Deliberately absent: watching routes and interfaces, firewall rules beyond NAT, anything but Linux.

mod changes;
mod dns;
mod error;
mod journal;
mod nat;
mod netlink;
mod prefixes;
mod run;
mod sysctl;

pub use changes::Changes;
pub use dns::{DnsOutcome, LinkDns};
pub use error::LinkError;
pub use journal::{Change, Journal, ResolvConf, state_directory};
pub use nat::NatTable;
pub use netlink::{HostRoute, Links, WayTo};
pub use prefixes::{covers, host, prefixes_of};
pub use sysctl::{Forwarding, forwards};
