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
//! Prefixes of one length are taken round and round, so that one which is given back is given again as late as can be.

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
    /// By length: behind what was taken last.
    cursors: BTreeMap<u8, u128>,
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
        let (address, free) = self.find(len)?;
        self.remove(address, free);
        self.split(address, free, address, len);
        self.cursors.insert(len, address | !bits::mask(len));
        Some(address)
    }

    /// A free prefix of this length or a shorter one, and its length.
    pub(super) fn find(&self, len: u8) -> Option<(u128, u8)> {
        let cursor = self.cursors.get(&len).copied().unwrap_or(0);
        let behind = self.blocks.range(cursor..);
        let round = behind.chain(self.blocks.range(..cursor));
        let near = round.take(SCAN_MAX).find(|(_, free)| **free <= len);
        match near {
            Some((&address, &free)) => Some((address, free)),
            None => {
                let (free, address) = *self.by_len.range(..=(len, u128::MAX)).next_back()?;
                Some((address, free))
            }
        }
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Addresses of a space of six bits, by number.
    const BITS: u8 = 6;
    const SIZE: usize = 1 << BITS;

    fn numbers(address: u128, len: u8) -> std::ops::Range<usize> {
        let first = (address >> (128 - BITS)) as usize;
        first..first + (SIZE >> len)
    }

    fn starts(len: u8) -> impl Iterator<Item = u128> {
        let step = SIZE >> len;
        (0..SIZE)
            .step_by(step)
            .map(|first| (first as u128) << (128 - BITS))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u8),
        TakeExact(u8, usize),
        Give(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..=BITS).prop_map(Step::Take),
            Just(Step::Take(BITS)),
            (0..=BITS, 0..SIZE).prop_map(|(len, number)| Step::TakeExact(len, number)),
            (0..SIZE).prop_map(Step::Give),
        ]
    }

    proptest! {
        // Something is given exactly if there is something, nothing twice, and in the end all is one block again.
        #[test]
        fn as_a_table_of_flags(steps in vec(step(), 0..200)) {
            let mut space = Space::default();
            space.give(0, 0);
            let mut is_free = [true; SIZE];
            let mut taken: Vec<(u128, u8)> = Vec::new();
            for step in steps {
                let got = match step {
                    Step::Take(len) => {
                        let got = space.take(len);
                        let could = starts(len).any(|start| numbers(start, len).all(|n| is_free[n]));
                        prop_assert_eq!(got.is_some(), could);
                        got.map(|address| (address, len))
                    }
                    Step::TakeExact(len, number) => {
                        let address = (number as u128) << (128 - BITS) & bits::mask(len);
                        let could = numbers(address, len).all(|n| is_free[n]);
                        prop_assert_eq!(space.take_exact(address, len), could);
                        could.then_some((address, len))
                    }
                    Step::Give(index) => {
                        if !taken.is_empty() {
                            let (address, len) = taken.swap_remove(index % taken.len());
                            space.give(address, len);
                            is_free[numbers(address, len)].fill(true);
                        }
                        None
                    }
                };
                if let Some((address, len)) = got {
                    prop_assert_eq!(address, address & bits::mask(len));
                    let range = numbers(address, len);
                    prop_assert!(is_free[range.clone()].iter().all(|free| *free));
                    is_free[range].fill(false);
                    taken.push((address, len));
                }
                let blocks = space.blocks.iter().map(|(address, len)| (*len, *address));
                prop_assert_eq!(blocks.collect::<BTreeSet<_>>(), space.by_len.clone());
            }
            for (address, len) in taken {
                space.give(address, len);
            }
            prop_assert_eq!(space.blocks, BTreeMap::from([(0, 0)]));
        }
    }

    #[test]
    fn what_is_given_back_rests() {
        let mut space = Space::default();
        space.give(0, 120);
        let all: Vec<u128> = (0..256).map(|_| space.take(128).unwrap()).collect();
        assert!(all.iter().copied().eq(0..256));
        for address in [7, 200, 3] {
            space.give(address, 128);
        }
        assert_eq!(space.take(128), Some(3));
        assert_eq!(space.take(128), Some(7));
        space.give(3, 128);
        assert_eq!(space.take(128), Some(200));
        assert_eq!(space.take(128), Some(3));
        assert_eq!(space.take(128), None);
    }

    #[test]
    fn small_pieces_do_not_break_large_ones() {
        let mut space = Space::default();
        space.give(0, 120);
        // One of the eight blocks of 32 addresses is for the single ones.
        for expected in 0..32 {
            assert_eq!(space.take(128), Some(expected));
            assert_eq!(space.take(123).is_some(), expected < 7);
        }
        assert_eq!(space.take(128), None);
    }
}
