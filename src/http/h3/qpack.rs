//! QPACK without a dynamic table (RFC 9204): field sections made of the static table and literals,
//! and the checks on the two instruction streams that follow from a table capacity of 0.
//!
//! ```text
//!   field section   Required Insert Count (8+) = 0 │ S (1) = 0, Delta Base (7+) │ lines
//!   indexed         1 T=1  index (6+)
//!   static name     0 1 N T=1  index (4+)           │ H (1), length (7+), value
//!   literal name    0 0 1 N H  length (3+), name    │ H (1), length (7+), value
//!   post-base       0 0 0 …                           refused, as is everything with T=0
//! ```
//!
//! `n+` is an integer with a prefix of n bits (section 4.1.1), H says that a string is in Huffman
//! code, N that no hop may put the line in a dynamic table. Whether a field is a good HTTP field
//! is decided in [`fields`](super::fields).

use bytes::Bytes;

use super::code::Code;
use super::huffman;
use super::static_table::{self, Found};

/// The most field lines in a section; the size of a section is bounded by the caller.
pub const LINES_MAX: usize = 256;

/// What each line counts besides its name and value, in octets (RFC 9114 section 4.2.2).
pub const LINE_OVERHEAD: u64 = 32;

/// The largest integer on the wire (RFC 9204 section 4.1.1).
const INTEGER_MAX: u64 = (1 << 62) - 1;

/// A decoded field line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// The name, with its colon if it is a pseudo-header field.
    pub name: Bytes,
    /// The value.
    pub value: Bytes,
    /// The N bit: must be sent on as a literal with the bit set (RFC 9204 section 4.5.4).
    pub never_indexed: bool,
}

impl FieldLine {
    /// Octets that this line adds to the size of its section (RFC 9114 section 4.2.2).
    pub fn size(&self) -> u64 {
        line_size(&self.name, &self.value)
    }
}

/// Why a field section was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a field section of an encoder that was told a table capacity of 0: connection error
    /// `QPACK_DECOMPRESSION_FAILED`.
    #[error("the field section cannot be decoded: {0}")]
    Decompression(&'static str),
    /// The section is larger than wanted: to be answered with 431, no connection error.
    #[error("the field section is at least {size} octets long, {max} are accepted")]
    TooLarge {
        /// Octets up to the line that exceeded the limit, uncompressed.
        size: u64,
        /// The limit in octets.
        max: u64,
    },
    /// The section has more than [`LINES_MAX`] lines: to be answered like `TooLarge`.
    #[error("the field section has more than {LINES_MAX} lines")]
    TooManyLines,
}

impl Error {
    /// The code of the connection error, or `None` when only this message is refused.
    pub const fn code(self) -> Option<Code> {
        match self {
            Self::Decompression(_) => Some(Code::QPACK_DECOMPRESSION_FAILED),
            Self::TooLarge { .. } | Self::TooManyLines => None,
        }
    }
}

/// Octets that a line adds to the size of its section: name, value and 32 (RFC 9114 section 4.2.2).
pub fn line_size(name: &[u8], value: &[u8]) -> u64 {
    name.len() as u64 + value.len() as u64 + LINE_OVERHEAD
}

/// Decodes the field section `block`, which may have up to [`LINES_MAX`] lines and `size_max`
/// octets uncompressed, as MAX_FIELD_SECTION_SIZE counts them.
///
/// Allocates at most 8/5 of the length of `block` for one line beyond `size_max`.
///
/// # Errors
///
/// See [`Error`]; with a capacity of 0 every dynamic reference is an error
/// (RFC 9204 sections 2.2.3, 3.1 and 4.5).
pub fn decode(block: &[u8], size_max: u64) -> Result<Vec<FieldLine>, Error> {
    let mut input = Input(block);
    let first = input.octet()?;
    if input.integer(first, 8)? != 0 {
        return Err(Error::Decompression("required insert count is not 0"));
    }
    let first = input.octet()?;
    if first & 0x80 != 0 {
        return Err(Error::Decompression("the sign of the base is 1"));
    }
    input.integer(first, 7)?;

    let mut lines = Vec::new();
    let mut size = 0;
    while !input.0.is_empty() {
        if lines.len() == LINES_MAX {
            return Err(Error::TooManyLines);
        }
        let line = input.line()?;
        size += line.size();
        if size > size_max {
            return Err(Error::TooLarge {
                size,
                max: size_max,
            });
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Appends a field section with these lines: name in lower case, value, and whether the line must
/// never be indexed by any hop.
pub fn encode<'a>(lines: impl IntoIterator<Item = (&'a [u8], &'a [u8], bool)>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
    for (name, value, never_indexed) in lines {
        let n = u8::from(never_indexed);
        match static_table::find(name, value) {
            Found::Line(index) if !never_indexed => encode_integer(0xc0, 6, index, out),
            Found::Line(index) | Found::Name(index) => {
                encode_integer(0x50 | (n << 5), 4, index, out);
                encode_string(0, 7, value, out);
            }
            Found::Nothing => {
                encode_string(0x20 | (n << 4), 3, name, out);
                encode_string(0, 7, value, out);
            }
        }
    }
}

/// Checks what the peer sends on its encoder stream (RFC 9204 section 4.3).
///
/// The only instruction that a capacity of 0 permits is to set the capacity to 0, which is the
/// single octet 0x20, so there is nothing to remember between two pieces.
#[derive(Debug, Default)]
pub struct EncoderStream(());

impl EncoderStream {
    /// Takes the next octets of the stream, the type of the stream excluded.
    ///
    /// # Errors
    ///
    /// `QPACK_ENCODER_STREAM_ERROR` for a larger capacity and for inserts and duplicates.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), Code> {
        const SET_CAPACITY_0: u8 = 0x20;
        if octets.iter().all(|&octet| octet == SET_CAPACITY_0) {
            Ok(())
        } else {
            Err(Code::QPACK_ENCODER_STREAM_ERROR)
        }
    }
}

/// Checks what the peer sends on its decoder stream (RFC 9204 section 4.4).
///
/// As we never insert anything, it can only cancel streams: `0 1` and the stream id (6+).
#[derive(Debug, Default)]
pub struct DecoderStream {
    stream_id: Option<Integer>,
}

impl DecoderStream {
    /// Takes the next octets of the stream, the type of the stream excluded.
    ///
    /// # Errors
    ///
    /// `QPACK_DECODER_STREAM_ERROR` for acknowledgments, increments, and ids above 62 bits.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), Code> {
        for &octet in octets {
            let step = match &mut self.stream_id {
                None if octet & 0xc0 == 0x40 => {
                    let (integer, step) = Integer::start(octet, 6);
                    self.stream_id = Some(integer);
                    Ok(step)
                }
                None => return Err(Code::QPACK_DECODER_STREAM_ERROR),
                Some(integer) => integer.push(octet),
            };
            match step {
                Ok(Step::Done(_)) => self.stream_id = None,
                Ok(Step::More) => {}
                Err(IntegerTooLong) => return Err(Code::QPACK_DECODER_STREAM_ERROR),
            }
        }
        Ok(())
    }
}

/// A prefix integer, octet by octet (RFC 9204 section 4.1.1, RFC 7541 section 5.1).
#[derive(Debug)]
struct Integer {
    value: u64,
    /// Where the seven bits of the next octet belong.
    shift: u32,
}

enum Step {
    More,
    Done(u64),
}

/// The integer has more than 62 bits or more than 10 octets after its prefix.
struct IntegerTooLong;

impl Integer {
    fn start(first: u8, prefix_bits: u32) -> (Self, Step) {
        let all_ones = u8::MAX >> (8 - prefix_bits);
        let value = u64::from(first & all_ones);
        let step = if value == u64::from(all_ones) {
            Step::More
        } else {
            Step::Done(value)
        };
        (Self { value, shift: 0 }, step)
    }

    fn push(&mut self, octet: u8) -> Result<Step, IntegerTooLong> {
        let bits = u64::from(octet & 0x7f);
        if self.shift > 63 || (bits << self.shift) >> self.shift != bits {
            return Err(IntegerTooLong);
        }
        // Both terms are below 2^64, but their sum need not be.
        self.value = self
            .value
            .checked_add(bits << self.shift)
            .filter(|&value| value <= INTEGER_MAX)
            .ok_or(IntegerTooLong)?;
        self.shift += 7;
        Ok(if octet & 0x80 == 0 {
            Step::Done(self.value)
        } else {
            Step::More
        })
    }
}

/// What is left of a field section.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn octet(&mut self) -> Result<u8, Error> {
        let (&octet, rest) = self
            .0
            .split_first()
            .ok_or(Error::Decompression("cut short"))?;
        self.0 = rest;
        Ok(octet)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Error> {
        let (taken, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.0.split_at_checked(len))
            .ok_or(Error::Decompression("a string is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn integer(&mut self, first: u8, prefix_bits: u32) -> Result<u64, Error> {
        let (mut integer, mut step) = Integer::start(first, prefix_bits);
        loop {
            match step {
                Step::Done(value) => return Ok(value),
                Step::More => {
                    step = integer
                        .push(self.octet()?)
                        .map_err(|IntegerTooLong| Error::Decompression("an integer is too long"))?;
                }
            }
        }
    }

    /// A string whose length has a prefix of `prefix_bits` in `first`, right after the H bit.
    fn string(&mut self, first: u8, prefix_bits: u32) -> Result<Bytes, Error> {
        let len = self.integer(first, prefix_bits)?;
        let octets = self.take(len)?;
        if first & (1 << prefix_bits) == 0 {
            return Ok(Bytes::copy_from_slice(octets));
        }
        match huffman::decode(octets) {
            Ok(decoded) => Ok(decoded.into()),
            Err(huffman::Error::Eos) => Err(Error::Decompression("EOS inside a string")),
            Err(huffman::Error::Padding) => Err(Error::Decompression("bad Huffman padding")),
        }
    }

    fn value(&mut self) -> Result<Bytes, Error> {
        let first = self.octet()?;
        self.string(first, 7)
    }

    fn line(&mut self) -> Result<FieldLine, Error> {
        let first = self.octet()?;
        match first {
            0b1100_0000.. => {
                let (name, value) = static_entry(self.integer(first, 6)?)?;
                Ok(FieldLine {
                    name: Bytes::from_static(name.as_bytes()),
                    value: Bytes::from_static(value.as_bytes()),
                    never_indexed: false,
                })
            }
            0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
                let (name, _) = static_entry(self.integer(first, 4)?)?;
                Ok(FieldLine {
                    name: Bytes::from_static(name.as_bytes()),
                    value: self.value()?,
                    never_indexed: first & 0b0010_0000 != 0,
                })
            }
            0b0010_0000..=0b0011_1111 => Ok(FieldLine {
                name: self.string(first, 3)?,
                value: self.value()?,
                never_indexed: first & 0b0001_0000 != 0,
            }),
            0b1000_0000..=0b1011_1111
            | 0b0100_0000..=0b0100_1111
            | 0b0110_0000..=0b0110_1111
            | 0b0000_0000..=0b0001_1111 => {
                Err(Error::Decompression("a reference to the dynamic table"))
            }
        }
    }
}

fn static_entry(index: u64) -> Result<(&'static str, &'static str), Error> {
    static_table::entry(index).ok_or(Error::Decompression("static index above 98"))
}

/// Appends `value` with a prefix of `prefix_bits` below the bits of `flags`.
#[expect(clippy::cast_possible_truncation, reason = "masked or compared before")]
fn encode_integer(flags: u8, prefix_bits: u32, value: u64, out: &mut Vec<u8>) {
    let all_ones = u8::MAX >> (8 - prefix_bits);
    if value < u64::from(all_ones) {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | all_ones);
    let mut rest = value - u64::from(all_ones);
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string, in Huffman code when that is shorter; the H bit is right above the prefix.
fn encode_string(flags: u8, prefix_bits: u32, string: &[u8], out: &mut Vec<u8>) {
    let encoded_len = huffman::encoded_len(string);
    if encoded_len < string.len() {
        encode_integer(
            flags | (1 << prefix_bits),
            prefix_bits,
            encoded_len as u64,
            out,
        );
        huffman::encode(string, out);
    } else {
        encode_integer(flags, prefix_bits, string.len() as u64, out);
        out.extend_from_slice(string);
    }
}

#[cfg(test)]
mod tests;
