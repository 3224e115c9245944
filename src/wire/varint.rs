//! QUIC variable-length integers (RFC 9000 section 16).

use bytes::BufMut;

/// The largest value: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// Octets of the shortest form of `v`: 1, 2, 4 or 8.
pub const fn size(v: u64) -> usize {
    match v {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Appends `v`, at most [`MAX`], in its shortest form.
pub fn encode(v: u64, out: &mut impl BufMut) {
    debug_assert!(v <= MAX, "varint out of range: {v}");
    let octets = size(v);
    let prefix = u64::from(octets.trailing_zeros()) << (8 * octets - 2);
    out.put_uint(v | prefix, octets);
}

/// Value and octets used, or `None` when `buf` ends early; longer forms are accepted.
pub fn decode(buf: &[u8]) -> Option<(u64, usize)> {
    let (&first, _) = buf.split_first()?;
    let octets = 1_usize << (first >> 6);
    let value = buf
        .get(1..octets)?
        .iter()
        .fold(u64::from(first & 0x3f), |value, &b| {
            (value << 8) | u64::from(b)
        });
    Some((value, octets))
}
