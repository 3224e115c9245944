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
