//! QUIC variable-length integers (RFC 9000 §16): the first two bits give the length.
//!
//! ```text
//!   00 → 1 byte, 6 bits     01 → 2 bytes, 14 bits     10 → 4 bytes, 30 bits     11 → 8 bytes, 62 bits
//! ```
//!
//! Encoding always takes the shortest form; decoding accepts every form (RFC 9297 §1.1).

use bytes::BufMut;

/// The largest value: 2^62 − 1.
pub const MAX: u64 = (1 << 62) - 1;

/// The length in bytes of the longest form.
pub const SIZE_MAX: usize = 8;

/// The length in bytes of the shortest form of `v`: 1, 2, 4 or 8. `v` is at most [`MAX`].
#[must_use]
pub const fn size(v: u64) -> usize {
    match v {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends the shortest form of `v`, which is at most [`MAX`]; a larger value is a mistake of the caller.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each arm casts to a width that its size holds"
)]
pub fn encode(v: u64, out: &mut impl BufMut) {
    debug_assert!(v <= MAX, "{v} does not fit a varint");
    match size(v) {
        1 => out.put_u8(v as u8),
        2 => out.put_u16(0x4000 | v as u16),
        4 => out.put_u32(0x8000_0000 | v as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | v),
    }
}

/// Reads the integer at the start of `buf`; gives the value and the number of bytes it took.
///
/// `None` means that `buf` ends inside the integer. Longer forms than necessary are accepted.
#[must_use]
pub fn decode(buf: &[u8]) -> Option<(u64, usize)> {
    match buf.first()? >> 6 {
        0 => buf.first_chunk().map(|&[b]| (u64::from(b), 1)),
        1 => (buf.first_chunk()).map(|b| (u64::from(u16::from_be_bytes(*b)) & 0x3fff, 2)),
        2 => (buf.first_chunk()).map(|b| (u64::from(u32::from_be_bytes(*b)) & 0x3fff_ffff, 4)),
        _ => (buf.first_chunk()).map(|b| (u64::from_be_bytes(*b) & MAX, 8)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(v: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(v, &mut out);
        out
    }

    #[test]
    fn borders() {
        for (v, bytes) in [
            (0, "00"),
            (63, "3f"),
            (64, "4040"),
            (16_383, "7fff"),
            (16_384, "80004000"),
            ((1 << 30) - 1, "bfffffff"),
            (1 << 30, "c000000040000000"),
            (MAX, "ffffffffffffffff"),
        ] {
            let hex: String = encoded(v).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, bytes);
            assert_eq!(decode(&encoded(v)), Some((v, bytes.len() / 2)));
            assert_eq!(size(v), bytes.len() / 2);
        }
    }

    // spec: 9297-1.1-a
    #[test]
    fn longer_forms_are_accepted() {
        assert_eq!(decode(&[0x40, 0x06]), Some((6, 2)));
        assert_eq!(decode(&[0x80, 0, 0, 6]), Some((6, 4)));
        assert_eq!(decode(&[0xc0, 0, 0, 0, 0, 0, 0, 6]), Some((6, 8)));
    }

    proptest! {
        #[test]
        fn round_trip(shift in 2u32..64, bits: u64) {
            let v = bits >> shift;
            let mut bytes = encoded(v);
            prop_assert_eq!(bytes.len(), size(v));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(bytes.get(..cut).unwrap()), None);
            }
            bytes.push(0xff);
            prop_assert_eq!(decode(&bytes), Some((v, size(v))));
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Some((v, used)) = decode(&bytes) {
                prop_assert!(v <= MAX);
                prop_assert!(size(v) <= used && used <= bytes.len());
            } else {
                prop_assert!(bytes.len() < SIZE_MAX);
            }
        }
    }
}
