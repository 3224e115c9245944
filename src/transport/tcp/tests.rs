//! Hubs against each other, and against raw bytes, over in-memory byte pipes.

mod bounds;
mod h1;
mod tunnels;
mod world;
