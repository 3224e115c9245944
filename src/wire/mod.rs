//! Pure codecs: bytes in, values out; no state, no time.

pub mod varint;
