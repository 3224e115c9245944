//! Longest prefix match for both versions of IP.
//!
//! One hash table per prefix length in use, the longest first. A look-up asks each in turn, which is one or two
//! questions where prefixes are addresses or delegated with one length, and never more than there are lengths. Keys may
//! come from peers, so the hash is keyed.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::bits;

/// A map from prefixes to values, asked with addresses.
#[derive(Clone, Debug)]
pub struct PrefixMap<T> {
    v4: Vec<Length<T>>,
    v6: Vec<Length<T>>,
}

/// All prefixes of one length; not empty. The slices of lengths are sorted, the longest first.
#[derive(Clone, Debug)]
struct Length<T> {
    len: u8,
    values: HashMap<u128, T>,
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

impl<T> PrefixMap<T> {
    /// Sets the value of a prefix; gives the one before. Bits behind the prefix length do not matter.
    pub fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        let (len, lengths) = (prefix.prefix_len(), self.lengths_mut(prefix));
        let index = match find(lengths, len) {
            Ok(index) => index,
            Err(index) => {
                let values = HashMap::new();
                lengths.insert(index, Length { len, values });
                index
            }
        };
        lengths[index].values.insert(key(prefix), value)
    }

    /// Takes a prefix out, with its value.
    pub fn remove(&mut self, prefix: IpNet) -> Option<T> {
        let lengths = self.lengths_mut(prefix);
        let index = find(lengths, prefix.prefix_len()).ok()?;
        let value = lengths[index].values.remove(&key(prefix));
        if lengths[index].values.is_empty() {
            lengths.remove(index);
        }
        value
    }

    /// The value of the longest prefix that holds an address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&T> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let bits = bits::of(address);
        (lengths.iter()).find_map(|length| length.values.get(&(bits & bits::mask(length.len))))
    }

    /// The value of exactly this prefix.
    #[must_use]
    pub fn get_exact(&self, prefix: IpNet) -> Option<&T> {
        let lengths = match prefix {
            IpNet::V4(_) => &self.v4,
            IpNet::V6(_) => &self.v6,
        };
        let index = find(lengths, prefix.prefix_len()).ok()?;
        lengths[index].values.get(&key(prefix))
    }

    /// The value of exactly this prefix, to change.
    pub fn get_exact_mut(&mut self, prefix: IpNet) -> Option<&mut T> {
        let lengths = self.lengths_mut(prefix);
        let index = find(lengths, prefix.prefix_len()).ok()?;
        lengths[index].values.get_mut(&key(prefix))
    }

    /// How many prefixes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let lengths = self.v4.iter().chain(&self.v6);
        lengths.map(|length| length.values.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn lengths_mut(&mut self, prefix: IpNet) -> &mut Vec<Length<T>> {
        match prefix {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}

fn key(prefix: IpNet) -> u128 {
    bits::of(prefix.addr()) & bits::mask(prefix.prefix_len())
}

fn find<T>(lengths: &[Length<T>], len: u8) -> Result<usize, usize> {
    lengths.binary_search_by(|length| len.cmp(&length.len))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut map = PrefixMap::default();
        assert_eq!(map.get(ip("192.0.2.1")), None);
        assert_eq!(map.insert(net("0.0.0.0/0"), 0), None);
        assert_eq!(map.insert(net("192.0.2.0/24"), 24), None);
        assert_eq!(map.insert(net("192.0.2.128/25"), 25), None);
        assert_eq!(map.insert(net("192.0.2.130/32"), 32), None);
        assert_eq!(map.get(ip("192.0.2.130")), Some(&32));
        assert_eq!(map.get(ip("192.0.2.131")), Some(&25));
        assert_eq!(map.get(ip("192.0.2.127")), Some(&24));
        assert_eq!(map.get(ip("192.0.3.0")), Some(&0));
        // The same bits in IPv6 are another address.
        assert_eq!(map.get(ip("c000:282::")), None);
        assert_eq!(map.insert(net("::/0"), 6), None);
        assert_eq!(map.get(ip("c000:282::")), Some(&6));

        assert_eq!(map.insert(net("192.0.2.99/24"), 1), Some(24));
        assert_eq!(map.get_exact(net("192.0.2.0/24")), Some(&1));
        assert_eq!(map.len(), 5);
        assert_eq!(map.remove(net("192.0.2.0/24")), Some(1));
        assert_eq!(map.remove(net("192.0.2.0/24")), None);
        assert_eq!(map.get(ip("192.0.2.1")), Some(&0));
    }

    /// Few bits, so that prefixes hold each other.
    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..32, 0u8..=32)
            .prop_map(|(bits, len)| IpNet::new(Ipv4Addr::from_bits(bits << 29 | bits).into(), len));
        let v6 = (0u128..32, 0u8..=128).prop_map(|(bits, len)| {
            IpNet::new(Ipv6Addr::from_bits(bits << 125 | bits).into(), len)
        });
        prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
    }

    proptest! {
        #[test]
        fn as_a_list_that_is_searched(
            steps in vec((prefix(), any::<bool>()), 0..48),
            questions in vec(prefix(), 16),
        ) {
            let mut map = PrefixMap::default();
            let mut list: Vec<(IpNet, usize)> = Vec::new();
            for (value, (prefix, inserts)) in steps.into_iter().enumerate() {
                let found = list.iter().position(|(other, _)| *other == prefix);
                let before = found.map(|index| list.swap_remove(index).1);
                if inserts {
                    list.push((prefix, value));
                    prop_assert_eq!(map.insert(prefix, value), before);
                } else {
                    prop_assert_eq!(map.remove(prefix), before);
                }
                prop_assert_eq!(map.len(), list.len());
                prop_assert_eq!(map.is_empty(), list.is_empty());
                for address in questions.iter().map(IpNet::addr) {
                    let holding = list.iter().filter(|(prefix, _)| prefix.contains(&address));
                    let longest = holding.max_by_key(|(prefix, _)| prefix.prefix_len());
                    prop_assert_eq!(map.get(address), longest.map(|(_, value)| value));
                }
                for (prefix, value) in &mut list {
                    prop_assert_eq!(map.get_exact(*prefix), Some(&*value));
                    prop_assert_eq!(map.get_exact_mut(*prefix), Some(value));
                }
            }
        }
    }
}
