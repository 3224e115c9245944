//! What the input so far has cut, and the next piece completes: a variable-length integer, a value.

use bytes::{Buf, Bytes};

use crate::wire::varint;

/// The first bytes of a variable-length integer whose end has not arrived.
#[derive(Debug, Default)]
pub(super) struct CutVarint {
    bytes: [u8; varint::SIZE_MAX],
    len: usize,
}

impl CutVarint {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Completes the integer from the front of `input`, or keeps all of `input`; gives the value and its encoded
    /// length.
    pub(super) fn take(&mut self, input: &mut Bytes) -> Option<(u64, usize)> {
        if self.is_empty()
            && let Some((value, used)) = varint::decode(input)
        {
            input.advance(used);
            return Some((value, used));
        }
        while let Some(slot) = self.bytes.get_mut(self.len)
            && let Ok(byte) = input.try_get_u8()
        {
            *slot = byte;
            self.len += 1;
            if let Some(found) = self.bytes.get(..self.len).and_then(varint::decode) {
                self.len = 0;
                return Some(found);
            }
        }
        None
    }
}

/// The declared length of a value, if it is one to hold.
pub(super) fn within(len: u64, max: usize) -> Option<usize> {
    usize::try_from(len).ok().filter(|len| *len <= max)
}

/// The first bytes of a value whose end has not arrived. Its length is [`within`] a limit.
#[derive(Debug, Default)]
pub(super) struct CutValue {
    bytes: Vec<u8>,
}

impl CutValue {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Completes a value of `len` bytes from the front of `input`, or keeps what there is of it. A value that lies in
    /// one piece is not copied.
    pub(super) fn take(&mut self, len: usize, input: &mut Bytes) -> Option<Bytes> {
        if self.bytes.is_empty() && input.len() >= len {
            return Some(input.split_to(len));
        }
        let piece = input.split_to(input.len().min(len - self.bytes.len()));
        let held = self.bytes.len() + piece.len();
        if held > self.bytes.capacity() {
            // By doubling, so that many small pieces cost little, and never past the length of the value.
            let wanted = held.max(2 * self.bytes.capacity()).min(len);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(&piece);
        (held == len).then(|| std::mem::take(&mut self.bytes).into())
    }
}
