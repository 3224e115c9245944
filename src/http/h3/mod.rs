//! HTTP/3 for endpoints that carry only CONNECT requests (RFC 9114, 9204, 9220, 9297).
//!
//! No server push, no dynamic QPACK table (capacity 0 in both directions), priorities are ignored.

pub mod code;
pub mod fields;
pub mod frame;
mod huffman;
pub mod qpack;
pub mod settings;
mod static_table;

/// True for the values `0x1f * N + 0x21`, which exist to be ignored: as a frame type, stream type,
/// setting or error code (RFC 9114 sections 6.2.3, 7.2.4.1, 7.2.8 and 8.1).
pub const fn is_reserved(value: u64) -> bool {
    value >= 0x21 && (value - 0x21).is_multiple_of(0x1f)
}
