//! The reference surface: one test per row, through the public interface alone.
//!
//! | Row | Item | Test |
//! |---|---|---|

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builtin;
mod connect;
mod server;
mod sessions;
mod tunnels;
mod world;
