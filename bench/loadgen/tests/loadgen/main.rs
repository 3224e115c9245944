//! The program as its users see it: arguments in, a table or one JSON object out, an exit code, and no process left
//! behind.
//!
//! Runs last a third of a second at rates that an unoptimised build on a busy machine keeps up with. Nothing here
//! asserts how fast anything is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_use;
mod ip;
mod output;
mod running;
mod signals;
mod support;
mod tcp;
mod topologies;
mod workloads;
