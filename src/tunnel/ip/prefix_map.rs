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
    use super::*;
}
