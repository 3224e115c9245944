//! The Internet checksum (RFC 1071).
//!
//! ```text
//!   bytes ─► Sum: 32-bit words in eight 64-bit lanes ─► folded to 16 bits ─► complement
//! ```
//!
//! The sum of 16-bit words with end-around carry is the value modulo 65,535, so wider words may be added and folded
//! late, and the order of bytes matters only in the end (RFC 1071 §2): the lanes add words as the machine reads them.
//! They are independent of each other, which is what lets the compiler use vector instructions.

use std::net::IpAddr;

/// Lanes of the inner loop, each of which adds four bytes per round.
const LANES: usize = 8;

/// A sum of 16-bit words that still goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The sum of these bytes. A last odd byte counts as if a zero followed.
    pub fn of(bytes: &[u8]) -> Self {
        Self::default().bytes(bytes)
    }

    /// The pseudo-header of TCP, UDP (RFC 9293 §3.1, RFC 768) and ICMPv6 (RFC 8200 §8.1) for `len` bytes of upper
    /// layer. Its two forms add up to the same.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Self {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::of(&source.octets()).bytes(&destination.octets())
            }
            (source, destination) => {
                let [source, destination] = [source, destination].map(|address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                });
                Self::of(&source.octets()).bytes(&destination.octets())
            }
        };
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        addresses
            .word(u16::from(protocol))
            .bytes(&len.to_be_bytes())
    }

    /// Goes on with these bytes. An even number came before.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut lanes = [0u64; LANES];
        let (rounds, rest) = bytes.as_chunks::<{ LANES * 4 }>();
        for round in rounds {
            let (words, _) = round.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum += u64::from(u32::from_ne_bytes(last));
        // Far from overflow for whatever is added next.
        Self(self.0 + (sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Goes on with a word. An even number of bytes came before.
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// The sum itself, not complemented: what the checksum field holds where somebody else completes it.
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let [low, high, ..] = sum.to_le_bytes();
        u16::from_be(u16::from_le_bytes([low, high]))
    }

    /// What goes into the checksum field, if that was zero or left out so far.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether the checksum is right, if its field is part of the sum.
    #[must_use]
    pub const fn is_right(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum after one word under it has changed (RFC 1624 §3, equation 3). One that was wrong stays wrong.
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !Sum(0).word(!checksum).word(!old).word(new).fold()
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that is wrong about a length fails"
)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 §4.1 has it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(word));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), !0xddf2);
        assert!(Sum::of(&bytes).word(!0xddf2).is_right());
        assert!(!Sum::of(&bytes).word(0xddf2).is_right());
    }

    #[test]
    fn the_longest_packet_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 65_536];
        assert_eq!(Sum::of(&bytes).bytes(&bytes).fold(), 0xffff);
        assert_eq!(Sum::of(&[0; 100]).fold(), 0);
    }

    #[test]
    fn pseudo_headers() {
        let (source, destination) = (Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(198, 51, 100, 2));
        let bytes = [192, 0, 2, 11, 198, 51, 100, 2, 0, 17, 0, 14];
        let sum = Sum::pseudo_header(source.into(), destination.into(), 17, 14);
        assert_eq!(sum.fold(), plain(&bytes));

        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let mut bytes = [address.octets(), address.octets()].concat();
        bytes.extend([0, 1, 0, 2, 0, 0, 0, 58]);
        let sum = Sum::pseudo_header(address.into(), address.into(), 58, 0x1_0002);
        assert_eq!(sum.fold(), plain(&bytes));
    }

    proptest! {
        #[test]
        fn wide_words_add_up_to_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..150,
        ) {
            prop_assert_eq!(Sum::of(&bytes).fold(), plain(&bytes));
            let (before, after) = bytes.split_at((2 * cut).min(bytes.len()));
            prop_assert_eq!(Sum::of(before).bytes(after).fold(), plain(&bytes));
        }

        #[test]
        fn an_update_is_as_good_as_a_new_sum(
            mut words in proptest::collection::vec(any::<u16>(), 1..40),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            // A header that sums up to nothing at all does not exist: its version is not zero.
            words.push(0x4500);
            let at = at.index(words.len() - 1);
            let sum = |words: &[u16]| words.iter().fold(Sum::default(), |sum, word| sum.word(*word));
            let checksum = sum(&words).checksum();
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(update(checksum, old, new), sum(&words).checksum());
        }
    }
}
