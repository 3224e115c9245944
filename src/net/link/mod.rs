//! What is changed in the system around a TUN interface, and how all of it is undone.
//!
//! ```text
//!                       ┌─► Links ─────► netlink: MTU, up
//!   control thread ─► Changes                     addresses, routes┐
//!                       ├─► nat ───────► nft: one table ───────────┤          outlive the process:
//!                       ├─► sysctl ────► /proc/sys: forwarding ────┼─► Journal ─► a file, written before the change
//!                       └─► dns ───────► resolvectl, or resolv.conf┘
//! ```
//!
//! An interface of ours goes with its descriptor, however the process ends, and takes along what belongs to it; one
//! that was made beforehand (`ip tuntap add`) stays. So everything but its MTU and its being up is written down in the
//! [`Journal`] before it is done: [`Changes::undo`] takes it back in reverse order, and the next start in the same
//! network namespace does so for a process that was killed. Nothing is taken back that is no longer as it was left:
//! somebody else has changed it since.
//!
//! Processes see each other by their journals: what two of them need (forwarding) is undone by the last one, and what
//! only one can have (the file with the name servers) is refused to the second.
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
mod routes;
mod run;
mod sysctl;

pub use changes::Changes;
pub use dns::{DnsOutcome, LinkDns};
pub use error::LinkError;
pub use journal::{Change, Journal, ResolvConf, state_directory};
pub use nat::NatTable;
pub use netlink::Links;
pub use prefixes::{covers, host, prefixes_of};
pub use routes::{HostRoute, Lead, WayTo};
pub use sysctl::{Forwarding, forwards};
