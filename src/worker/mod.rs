//! One core's worth of relay: everything a worker owns, and the loop that drives it.
//!
//! ```text
//!   run ──┬─► net::Driver ── trains, bytes ─► Machine ── trains, bytes ─► net::Driver
//!         │                                     ├─ transport::Carriers   connections: QUIC, and TLS over TCP
//!         ├─► Mailbox ── strays, answers ─────► ├─ client::Pool          next hops
//!         └─► App (udp, tcp, proxy, demo: ────► ├─ server::Server        who may open what
//!             local legs)                       └─ tunnels: a leg each way
//! ```
//!
//! [`Machine`] is sans-IO: it has no clock and no socket, so the simulator runs the very code that production
//! runs. [`run`] adds both. Workers share nothing; what crosses threads goes through [`mailbox`].

mod batch;
pub mod build;
mod close;
mod decide;
mod drain;
mod ends;
mod fallback;
mod ip;
mod leg;
mod machine;
pub mod mailbox;
mod open;
mod pipe;
mod race;
mod relay;
mod residue;
mod rest;
mod route;
pub mod run;
pub mod secrets;
mod splice;
pub mod stats;
mod turn;

pub use self::decide::{Direct, Family, Incoming, Rejection};
pub use self::ends::{CapsuleSent, Description, LocalRead};
pub use self::fallback::PlainRequest;
pub use self::ip::{
    DropReason, Elsewhere, Exit, Gateway, GatewayEvent, GatewaySettings, IpInfo, IpRequestError,
    MTU_MIN, Site,
};
pub use self::machine::{
    Closed, End, HandlerEvent, LocalEvent, Machine, MachineLimits, Outside, Refused, Resolve,
    Setup, Tag, TcpTag,
};
pub use self::residue::Residue;
