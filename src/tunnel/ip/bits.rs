//! Addresses of both versions as integers that prefixes cut from the left.
//!
//! An IPv4 address takes the upper 32 of 128 bits, so that masks and halves are the same for both versions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Bits of an integer that an IPv4 address leaves empty.
const V4_SHIFT: u32 = 96;

/// The address as an integer.
pub(super) fn of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << V4_SHIFT,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first `len` bits; all of them from 128 on.
pub(super) fn mask(len: u8) -> u128 {
    !u128::MAX.checked_shr(len.into()).unwrap_or(0)
}

/// The bit that tells the two halves of a prefix of `len - 1` bits apart; `len` is 1 to 128.
pub(super) fn half(len: u8) -> u128 {
    mask(len) ^ mask(len.saturating_sub(1))
}

/// The prefix of `len` bits that `bits` is in, in the version of `like`; `len` is at most what that version has.
pub(super) fn prefix(bits: u128, len: u8, like: IpNet) -> IpNet {
    let bits = bits & mask(len);
    let address = match like {
        IpNet::V4(_) => {
            let [a, b, c, d, ..] = bits.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    let len = len.min(like.max_prefix_len());
    // The length fits, so this is what `new` gives.
    IpNet::new(address, len).unwrap_or_else(|_| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_halves() {
        assert_eq!(mask(0), 0);
        assert_eq!(mask(1), 1 << 127);
        assert_eq!(mask(128), u128::MAX);
        assert_eq!(half(1), 1 << 127);
        assert_eq!(half(128), 1);
    }

    #[test]
    fn addresses_survive() {
        for text in ["192.0.2.11/32", "0.0.0.0/0", "2001:db8::1/128", "::/0"] {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(prefix(of(net.addr()), net.prefix_len(), net), net);
        }
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let inside: IpAddr = "192.0.2.77".parse().unwrap();
        assert_eq!(prefix(of(inside), 24, net), net);
    }
}
