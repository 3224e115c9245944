//! Ranges of addresses as prefixes, which is what routes are made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// What never goes through a tunnel: loopback, link-local, multicast, and what is no address at all. First and last.
const SPECIAL_V4: [RangeInclusive<u128>; 4] = [
    0x0000_0000..=0x00ff_ffff,
    0x7f00_0000..=0x7fff_ffff,
    0xa9fe_0000..=0xa9fe_ffff,
    0xe000_0000..=0xffff_ffff,
];
const SPECIAL_V6: [RangeInclusive<u128>; 3] = [
    0..=1,
    (0xfe80 << 112)..=((0xfec0 << 112) - 1),
    (0xff00 << 112)..=u128::MAX,
];

/// The prefix of a single address.
#[must_use]
pub fn host(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::from(address).into(),
        IpAddr::V6(address) => Ipv6Net::from(address).into(),
    }
}

/// The fewest prefixes for `ranges` (first and last address each; a range that ends before it starts, or in another IP
/// version, counts for nothing), without loopback, link-local and multicast addresses.
///
/// A whole IP version is its two halves: they win over the default route that is there and leave it alone. What is
/// special keeps the more specific routes that the system has for it.
#[must_use]
pub fn prefixes_of(ranges: &[(IpAddr, IpAddr)]) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    for is_v6 in [false, true] {
        for range in merged(ranges, is_v6) {
            if range == (0..=last(is_v6)) {
                let half = last(is_v6) / 2;
                subnets(0..=half, is_v6, &mut prefixes);
                subnets(half + 1..=last(is_v6), is_v6, &mut prefixes);
            } else {
                for range in without_special(range, is_v6) {
                    subnets(range, is_v6, &mut prefixes);
                }
            }
        }
    }
    prefixes
}

/// Whether all of `prefix` is in `ranges`.
#[must_use]
pub fn covers(ranges: &[(IpAddr, IpAddr)], prefix: &IpNet) -> bool {
    let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
    let mut ranges = merged(ranges, prefix.addr().is_ipv6()).into_iter();
    ranges.any(|range| *range.start() <= first && last <= *range.end())
}

/// The ranges of one IP version in order, those that meet made one.
fn merged(ranges: &[(IpAddr, IpAddr)], is_v6: bool) -> Vec<RangeInclusive<u128>> {
    let mut numbers: Vec<_> = ranges
        .iter()
        .filter(|(first, last)| first.is_ipv6() == is_v6 && last.is_ipv6() == is_v6)
        .map(|(first, last)| number(*first)..=number(*last))
        .filter(|range| !range.is_empty())
        .collect();
    numbers.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u128>> = Vec::with_capacity(numbers.len());
    for range in numbers {
        match merged.last_mut() {
            Some(previous) if *range.start() <= previous.end().saturating_add(1) => {
                *previous = *previous.start()..=*previous.end().max(range.end());
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

fn without_special(range: RangeInclusive<u128>, is_v6: bool) -> Vec<RangeInclusive<u128>> {
    let specials: &[RangeInclusive<u128>] = if is_v6 { &SPECIAL_V6 } else { &SPECIAL_V4 };
    let (mut start, end) = range.into_inner();
    let mut rest = Vec::new();
    for special in specials {
        if *special.end() < start || *special.start() > end {
            continue;
        }
        if start < *special.start() {
            rest.push(start..=*special.start() - 1);
        }
        match special.end().checked_add(1) {
            Some(next) => start = next,
            None => return rest,
        }
    }
    if start <= end {
        rest.push(start..=end);
    }
    rest
}

fn subnets(range: RangeInclusive<u128>, is_v6: bool, prefixes: &mut Vec<IpNet>) {
    let (first, last) = range.into_inner();
    if is_v6 {
        let range = Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0);
        prefixes.extend(range.map(IpNet::V6));
    } else {
        let range = Ipv4Subnets::new(small(first), small(last), 0);
        prefixes.extend(range.map(IpNet::V4));
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn small(number: u128) -> Ipv4Addr {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}

const fn last(is_v6: bool) -> u128 {
    if is_v6 { u128::MAX } else { u32::MAX as u128 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(texts: &[(&str, &str)]) -> Vec<(IpAddr, IpAddr)> {
        let parse = |text: &str| text.parse().unwrap();
        texts.iter().map(|(a, b)| (parse(a), parse(b))).collect()
    }

    fn printed(texts: &[(&str, &str)]) -> Vec<String> {
        let prefixes = prefixes_of(&ranges(texts));
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_is_two_halves() {
        assert_eq!(
            printed(&[
                ("0.0.0.0", "255.255.255.255"),
                ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ]),
            ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]
        );
        // In two parts that meet.
        assert_eq!(
            printed(&[
                ("0.0.0.0", "9.255.255.255"),
                ("10.0.0.0", "255.255.255.255")
            ]),
            ["0.0.0.0/1", "128.0.0.0/1"]
        );
    }

    #[test]
    fn ranges_become_prefixes() {
        for (texts, expected) in [
            (&[("192.0.2.0", "192.0.2.255")][..], &["192.0.2.0/24"][..]),
            (&[("192.0.2.42", "192.0.2.42")], &["192.0.2.42/32"]),
            (&[("10.0.0.0", "10.0.0.5")], &["10.0.0.0/30", "10.0.0.4/31"]),
            (&[("2001:db8::", "2001:db8::ffff")], &["2001:db8::/112"]),
            (&[("10.0.0.2", "10.0.0.1"), ("10.0.0.0", "::1")], &[]),
            // Special addresses are cut out.
            (&[("127.0.0.0", "127.255.255.255")], &[]),
            (
                &[("126.255.255.255", "128.0.0.0")],
                &["126.255.255.255/32", "128.0.0.0/32"],
            ),
            (
                &[("223.255.255.255", "255.255.255.255")],
                &["223.255.255.255/32"],
            ),
            (&[("fe00::", "ffff::")], &["fe00::/9", "fec0::/10"]),
            (&[("::", "::2")], &["::2/128"]),
        ] {
            assert_eq!(printed(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn what_is_covered() {
        let ranges = ranges(&[
            ("10.0.0.0", "10.127.255.255"),
            ("10.128.0.0", "10.255.255.255"),
            ("2001:db8::", "2001:db8::ff"),
        ]);
        for (prefix, expected) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("0.0.0.0/0", false),
            ("10.0.0.0/7", false),
            ("2001:db8::/120", true),
            ("2001:db8::/119", false),
            ("::a00:0/128", false),
        ] {
            assert_eq!(
                covers(&ranges, &prefix.parse().unwrap()),
                expected,
                "{prefix}"
            );
        }
    }

    proptest! {
        /// Every address of the ranges that is not special is in exactly one prefix, and no other is in any.
        #[test]
        fn prefixes_hold_what_the_ranges_hold(
            ranges in prop::collection::vec((any::<u32>(), any::<u32>()), 0..6),
            probes in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let prefixes = prefixes_of(
                &ranges
                    .iter()
                    .map(|(a, b)| (Ipv4Addr::from(*a).into(), Ipv4Addr::from(*b).into()))
                    .collect::<Vec<_>>(),
            );
            let edges = ranges.iter().flat_map(|(a, b)| [*a, *b, a.wrapping_sub(1), b.wrapping_add(1)]);
            for probe in probes.iter().copied().chain(edges) {
                let special = SPECIAL_V4.iter().any(|special| special.contains(&u128::from(probe)));
                let wanted = !special && ranges.iter().any(|(a, b)| (a..=b).contains(&&probe));
                let address = IpAddr::from(Ipv4Addr::from(probe));
                let holding = prefixes.iter().filter(|prefix| prefix.contains(&address)).count();
                prop_assert_eq!(holding, usize::from(wanted), "{}", address);
            }
        }
    }
}
