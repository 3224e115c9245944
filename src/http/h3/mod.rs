//! HTTP/3 for endpoints that carry only CONNECT requests (RFC 9114, 9204, 9220, 9297).
//!
//! No server push, no dynamic QPACK table (capacity 0 in both directions), priorities are ignored.

mod budget;
pub mod code;
mod config;
mod connection;
mod event;
pub mod fields;
pub mod frame;
#[doc(hidden)]
pub mod fuzz_entry;
#[doc(hidden)]
pub mod fuzz_ops;
mod huffman;
#[doc(hidden)]
pub mod memory;
mod outgoing;
pub mod qpack;
mod quinn;
pub mod settings;
mod static_table;
mod stream;
pub mod transport;
mod uni;

pub use self::config::Config;
pub use self::connection::Connection;
pub use self::event::{
    Abort, ConnectionError, DatagramDrop, DatagramMode, DatagramRoute, Event, GoAway, RecvData,
    RequestError, RespondError, Role, SendData,
};

/// True for the values `0x1f * N + 0x21`, which exist to be ignored: as a frame type, stream type,
/// setting or error code (RFC 9114 sections 6.2.3, 7.2.4.1, 7.2.8 and 8.1).
pub const fn is_reserved(value: u64) -> bool {
    value >= 0x21 && (value - 0x21).is_multiple_of(0x1f)
}

#[cfg(test)]
mod testing {
    /// The octets of `text`, hexadecimal with white space anywhere between octets.
    pub(super) fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace()
            .map(|octet| u8::from_str_radix(octet, 16).unwrap())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn knows_reserved_values() {
        // spec: 9114-7.2.8-a, 9114-7.2.4.1-a
        for value in [0x21, 0x40, 0x5f, 0x1f * 1_000_000 + 0x21] {
            assert!(super::is_reserved(value), "{value:#x}");
        }
        for value in [0, 0x02, 0x20, 0x22, 0x33, 0x41] {
            assert!(!super::is_reserved(value), "{value:#x}");
        }
    }
}
