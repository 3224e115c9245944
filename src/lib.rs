//! A MASQUE relay, client and library.

mod client;
mod config;
mod error;
mod handler;
mod http;
#[doc(hidden)]
pub mod net;
mod policy;
mod server;
mod transport;
mod tunnel;
mod wire;
mod worker;
