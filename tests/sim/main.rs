//! Client, ingress, egress and target in one thread and in virtual time, with faults from a seed.
//!
//! ```text
//!   client ──link──► ingress ──link──► egress ──link──► target        one Net, one clock
//!   Machine          Machine           Machine          Host          the code of production in between
//! ```
//!
//! The machines are those of production; what is replaced is `worker::run`, the sockets and the clock. Tests read
//! like the story of a few parties: open, send, let time pass, look. A test that fails names its seed.
//!
//! Connection IDs and TLS draw their own randomness, which changes bytes, and the length of a signature by one or two.
//! Everything else repeats with the seed: which packets there are, when, and what becomes of them.

mod auth;
mod browser;
mod early;
mod fair;
mod fallback;
mod faults;
mod handler;
mod handshakes;
mod host;
mod hostile;
mod idle;
mod ip;
mod limits;
mod matrix;
mod migrate;
mod net;
mod node;
#[path = "../support/packets.rs"]
mod packets;
mod pages;
mod pause;
mod pool;
mod race;
mod raw;
mod reach;
mod relay;
mod restart;
mod sim;
mod tcp;
mod tcp_limits;
