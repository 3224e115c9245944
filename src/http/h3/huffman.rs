//! The Huffman code of HPACK and QPACK strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their
//! symbols, so all that a decoder needs is the first code of each length and one sorted list of
//! symbols. Codes and encoder come from `httlib-huffman`. Its decoder accepts padding of zeros,
//! which RFC 7541 forbids, so the decoder is here.

use httlib_huffman::encoder::table::ENCODE_TABLE;

/// The longest code, in bits.
const BITS_MAX: usize = 30;
/// The symbol that ends the list and must never appear in a string.
const EOS: usize = 256;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Length {
    first_code: u32,
    /// How many codes have this length.
    count: u32,
    /// Where their symbols start in [`SYMBOLS`].
    offset: u32,
}

static LENGTHS: [Length; BITS_MAX + 1] = lengths();
/// All symbols, sorted by (length of code, symbol).
static SYMBOLS: [u16; EOS + 1] = symbols();

/// Why a string is not Huffman-coded data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The code of EOS inside the data.
    Eos,
    /// More than 7 bits of padding, or padding with a zero bit.
    Padding,
}

/// Decodes `src`, to at most 8/5 of its length.
pub(super) fn decode(src: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(src.len() + src.len() / 2);
    let mut code = 0_u32;
    let mut bits = 0;
    for octet in src {
        for shift in (0..8).rev() {
            code = (code << 1) | u32::from((octet >> shift) & 1);
            bits += 1;
            if let Some(symbol) = symbol(code, bits) {
                out.push(u8::try_from(symbol).map_err(|_| Error::Eos)?);
                code = 0;
                bits = 0;
            }
        }
    }
    if bits > 7 || code != (1 << bits) - 1 {
        return Err(Error::Padding);
    }
    Ok(out)
}

/// Octets that [`encode`] will append for `src`.
pub(super) fn encoded_len(src: &[u8]) -> usize {
    let bits: usize = src
        .iter()
        .filter_map(|&octet| ENCODE_TABLE.get(usize::from(octet)))
        .map(|&(bits, _)| usize::from(bits))
        .sum();
    bits.div_ceil(8)
}

/// Appends `src` in Huffman code, padded with ones.
pub(super) fn encode(src: &[u8], out: &mut Vec<u8>) {
    let encoded = httlib_huffman::encode(src, out);
    debug_assert!(encoded.is_ok(), "every octet has a code");
}

/// The symbol whose code is the `bits` low bits of `code`.
fn symbol(code: u32, bits: usize) -> Option<u16> {
    let length = LENGTHS.get(bits)?;
    let nth = code.checked_sub(length.first_code)?;
    if nth >= length.count {
        return None;
    }
    SYMBOLS.get((length.offset + nth) as usize).copied()
}

#[expect(
    clippy::indexing_slicing,
    reason = "runs in the compiler, on our own table"
)]
const fn lengths() -> [Length; BITS_MAX + 1] {
    let none = Length {
        first_code: 0,
        count: 0,
        offset: 0,
    };
    let mut lengths = [none; BITS_MAX + 1];
    let mut symbol = 0;
    while symbol <= EOS {
        lengths[ENCODE_TABLE[symbol].0 as usize].count += 1;
        symbol += 1;
    }
    let mut bits = 1;
    while bits <= BITS_MAX {
        let shorter = lengths[bits - 1];
        lengths[bits].first_code = (shorter.first_code + shorter.count) << 1;
        lengths[bits].offset = shorter.offset + shorter.count;
        bits += 1;
    }
    lengths
}

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "runs in the compiler, on our own table"
)]
const fn symbols() -> [u16; EOS + 1] {
    let mut symbols = [0; EOS + 1];
    let mut placed = 0;
    let mut bits = 1;
    while bits <= BITS_MAX {
        let mut symbol = 0;
        while symbol <= EOS {
            if ENCODE_TABLE[symbol].0 as usize == bits {
                symbols[placed] = symbol as u16;
                placed += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    symbols
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::hex;
    use super::*;

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        out
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        let firsts = [
            (5, 0x0),
            (6, 0x14),
            (7, 0x5c),
            (8, 0xf8),
            (10, 0x3f8),
            (11, 0x7fa),
            (12, 0xffa),
            (13, 0x1ff8),
            (14, 0x3ffc),
            (15, 0x7ffc),
            (19, 0x7fff0),
            (20, 0xfffe6),
            (21, 0x1f_ffdc),
            (22, 0x3f_ffd2),
            (23, 0x7f_ffd8),
            (24, 0xff_ffea),
            (25, 0x1ff_ffec),
            (26, 0x3ff_ffe0),
            (27, 0x7ff_ffde),
            (28, 0xfff_ffe2),
            (30, 0x3fff_fffc),
        ];
        let ours: Vec<_> = (0..).zip(&LENGTHS).filter(|(_, l)| l.count > 0).collect();
        assert_eq!(ours.len(), firsts.len());
        for ((bits, length), first) in ours.into_iter().zip(firsts) {
            assert_eq!((bits, length.first_code), first);
        }
        for (code, which) in ENCODE_TABLE.iter().zip(0..) {
            assert_eq!(symbol(code.1, code.0.into()), Some(which));
        }
    }

    #[test]
    fn vectors() {
        let vectors = [
            ("connect-udp", "21 ea a8 a4 4a d6 c9 5f"),
            ("connect-ip", "21 ea a8 a4 4a c6 af"),
            ("capsule-protocol", "20 eb 45 b4 15 6a ec 3a 4e 43 d1"),
            ("?1", "ff 03"),
            ("example.org", "2f 91 d3 5d 05 5c f6 4d"),
            (
                "/.well-known/masque/udp/192.0.2.6/443/",
                "61 7f 05 a2 85 ba d4 7f 15 31 48 d1 da d2 b1 6c 95 b0 17 c4 b8 17 12 ee 30 d3 4c b1",
            ),
            (":protocol", "b9 5d 87 49 c8 7a 3f"),
            ("https", "9d 29 ad 1f"),
            ("proxy-status", "ae c3 f9 f4 b2 12 34 da 8f"),
            ("", ""),
        ];
        for (text, code) in vectors {
            assert_eq!(encoded(text.as_bytes()), hex(code), "{text}");
            assert_eq!(encoded_len(text.as_bytes()), hex(code).len(), "{text}");
            assert_eq!(decode(&hex(code)).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn refuses_eos_and_bad_padding() {
        assert_eq!(decode(&hex("ff ff ff ff")), Err(Error::Eos));
        assert_eq!(decode(&hex("1f ff")), Err(Error::Padding));
        assert_eq!(decode(&hex("18")), Err(Error::Padding));
        assert_eq!(decode(&hex("ff")), Err(Error::Padding));
        assert_eq!(decode(&hex("1f")).unwrap(), b"a");
    }

    proptest! {
        #[test]
        fn round_trip(text: Vec<u8>) {
            let code = encoded(&text);
            prop_assert_eq!(code.len(), encoded_len(&text));
            prop_assert_eq!(decode(&code), Ok(text));
        }

        /// A text has one code only: what decodes is what would have been encoded.
        #[test]
        fn decoding_is_strict(code: Vec<u8>) {
            if let Ok(text) = decode(&code) {
                prop_assert_eq!(encoded(&text), code);
            }
        }
    }
}
