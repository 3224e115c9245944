//! A MASQUE relay, client and library.

mod client;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handler;
#[doc(hidden)]
pub mod http;
mod net;
mod policy;
mod server;
mod transport;
mod tunnel;
#[doc(hidden)]
pub mod wire;
mod worker;
