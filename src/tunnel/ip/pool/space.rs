//! The free addresses of one version, as a buddy system: a free block is a prefix, and two free halves are one block.
//!
//! ```text
//!   /30 free ──take /32──►  ▓ used   /32 free   /31 free          and back when it is given back
//! ```
//!
//! Invariants: blocks are disjoint, and no two of them are the halves of one prefix; so a prefix of some length is free
//! exactly if there is a block of that length or a shorter one. Every operation costs a logarithm of the number of
//! blocks, whatever the size of the space.
//!
//! Single addresses are taken round and round, so that one which is given back rests as long as it can: packets to its
//! last user may still be under way.

use std::collections::{BTreeMap, BTreeSet};

use crate::tunnel::ip::bits;

/// How many blocks are looked at for one at or after the cursor, before the smallest that fits is taken.
const SCAN_MAX: usize = 16;

/// Free prefixes of one version.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// By address: the length.
    blocks: BTreeMap<u128, u8>,
    /// The same by length, shorter prefixes first.
    by_len: BTreeSet<(u8, u128)>,
    /// Behind what was taken last.
    cursor: u128,
}

impl Space {
    /// Adds a prefix, none of which is free.
    pub(super) fn give(&mut self, mut address: u128, mut len: u8) {
        while len > 0 && self.remove(address ^ bits::half(len), len) {
            len -= 1;
            address &= bits::mask(len);
        }
        self.insert(address, len);
    }

    /// Takes any free prefix of this length.
    pub(super) fn take(&mut self, len: u8) -> Option<u128> {
        let behind = self.blocks.range(self.cursor..);
        let round = behind.chain(self.blocks.range(..self.cursor));
        let near = round.take(SCAN_MAX).find(|(_, free)| **free <= len);
        let (address, free) = match near {
            Some((&address, &free)) => (address, free),
            None => {
                let (free, address) = *self.by_len.range(..=(len, u128::MAX)).next_back()?;
                (address, free)
            }
        };
        self.remove(address, free);
        self.split(address, free, address, len);
        self.cursor = address | !bits::mask(len);
        Some(address)
    }

    /// Takes this prefix, if all of it is free.
    pub(super) fn take_exact(&mut self, address: u128, len: u8) -> bool {
        let Some((&start, &free)) = self.blocks.range(..=address).next_back() else {
            return false;
        };
        let holds = free <= len && address & bits::mask(free) == start;
        if holds {
            self.remove(start, free);
            self.split(start, free, address, len);
        }
        holds
    }

    /// The length of the largest free prefix.
    pub(super) fn shortest(&self) -> Option<u8> {
        self.by_len.first().map(|(len, _)| *len)
    }

    /// Puts back a block that was removed, but for one prefix in it.
    fn split(&mut self, mut start: u128, mut free: u8, address: u128, len: u8) {
        while free < len {
            free += 1;
            let upper = start | bits::half(free);
            let (keep, other) = match address & bits::half(free) {
                0 => (start, upper),
                _ => (upper, start),
            };
            self.insert(other, free);
            start = keep;
        }
    }

    fn insert(&mut self, address: u128, len: u8) {
        self.blocks.insert(address, len);
        self.by_len.insert((len, address));
    }

    /// Whether there was this block.
    fn remove(&mut self, address: u128, len: u8) -> bool {
        let found = self.by_len.remove(&(len, address));
        if found {
            self.blocks.remove(&address);
        }
        found
    }
}
