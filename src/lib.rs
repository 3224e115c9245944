//! A MASQUE relay, client and library.

#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod config;
mod counters;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod handler;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod policy;
pub mod program;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod tunnel;
#[doc(hidden)]
pub mod wire;
#[doc(hidden)]
pub mod worker;
