//! HTTP/3 for endpoints that carry only CONNECT requests (RFC 9114, 9204, 9220, 9297).
//!
//! No server push, no dynamic QPACK table (capacity 0 in both directions), priorities are ignored.

mod budget;
pub mod code;
pub mod config;
pub mod connection;
pub mod event;
pub mod fields;
pub mod frame;
pub mod fuzz_ops;
mod huffman;
pub mod memory;
mod outgoing;
pub mod qpack;
mod quinn;
pub mod settings;
mod static_table;
mod stream;
#[cfg(test)]
mod tests;
pub mod transport;
mod uni;

/// True for the values `0x1f * N + 0x21`, which exist to be ignored: as a frame type, stream type,
/// setting or error code (RFC 9114 sections 6.2.3, 7.2.4.1, 7.2.8 and 8.1).
pub const fn is_reserved(value: u64) -> bool {
    value >= 0x21 && (value - 0x21).is_multiple_of(0x1f)
}
