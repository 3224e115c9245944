//! A MASQUE relay, client and library.

mod client;
#[doc(hidden)]
pub mod config;
mod error;
mod handler;
mod http;
mod net;
mod policy;
mod server;
#[doc(hidden)]
pub mod transport;
mod tunnel;
#[doc(hidden)]
pub mod wire;
mod worker;
