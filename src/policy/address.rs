//! Which addresses are public: the IANA special-purpose registries as tables, IPv4 inside IPv6 included.
//!
//! The most specific row that holds an address decides. IPv6 starts from "nothing is public" (`::/0`) and opens
//! `2000::/3`, the only space that IANA hands out as global unicast; the registry's rows cut holes in it.
//!
//! Forms that carry an IPv4 address are judged by that address as well, because the packet ends up there:
//!
//! | form | judged as |
//! |---|---|
//! | `::ffff:a.b.c.d` (IPv4-mapped) | the IPv4 address alone; it is the same destination |
//! | `64:ff9b::/96` (NAT64), `2002::/16` (6to4) | public in themselves, then the IPv4 address |
//! | `2001::/32` (Teredo) | public in itself, then server and client |
//! | `64:ff9b:1::/48` (local NAT64), `::/96` (IPv4-compatible) | not public; opened by rule, still the IPv4 address |
//!
//! References: RFC 6890 and RFC 8190 (registries), RFC 9298 section 7, RFC 6052, RFC 3056, RFC 4380.
//! It does not know which addresses are the relay's own, nor any rule: see [`super::rules`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address range that is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{range} addresses are not public")]
pub struct Special {
    /// The name of the range, in the words of the registry.
    pub range: &'static str,
    /// Whether an explicit rule can open the range. False for what is no unicast destination at all:
    /// unspecified, multicast and broadcast.
    pub can_open: bool,
}

/// How far packets to a range get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Everywhere.
    Global,
    /// Within some administrative domain, or nowhere defined.
    Special,
    /// To no single host.
    Never,
}

use Reach::{Global, Never, Special as Local};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len)
}

const fn v6(segments: [u16; 8], prefix_len: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_len)
}

/// IANA IPv4 Special-Purpose Address Registry, without the rows that agree with the row around them, and multicast from
/// the IPv4 address space registry.
#[rustfmt::skip]
const V4_RANGES: &[(Ipv4Net, Reach, &str)] = &[
    (v4(0, 0, 0, 0, 0), Global, "Global Unicast"),
    (v4(0, 0, 0, 0, 8), Local, "This network"),
    (v4(0, 0, 0, 0, 32), Never, "Unspecified"),
    (v4(10, 0, 0, 0, 8), Local, "Private-Use"),
    (v4(100, 64, 0, 0, 10), Local, "Shared Address Space"),
    (v4(127, 0, 0, 0, 8), Local, "Loopback"),
    (v4(169, 254, 0, 0, 16), Local, "Link Local"),
    (v4(172, 16, 0, 0, 12), Local, "Private-Use"),
    (v4(192, 0, 0, 0, 24), Local, "IETF Protocol Assignments"),
    (v4(192, 0, 0, 9, 32), Global, "Port Control Protocol Anycast"),
    (v4(192, 0, 0, 10, 32), Global, "TURN Anycast"),
    (v4(192, 0, 2, 0, 24), Local, "Documentation (TEST-NET-1)"),
    (v4(192, 88, 99, 0, 24), Local, "Deprecated (6to4 Relay Anycast)"),
    (v4(192, 168, 0, 0, 16), Local, "Private-Use"),
    (v4(198, 18, 0, 0, 15), Local, "Benchmarking"),
    (v4(198, 51, 100, 0, 24), Local, "Documentation (TEST-NET-2)"),
    (v4(203, 0, 113, 0, 24), Local, "Documentation (TEST-NET-3)"),
    (v4(224, 0, 0, 0, 4), Never, "Multicast"),
    (v4(240, 0, 0, 0, 4), Local, "Reserved"),
    (v4(255, 255, 255, 255, 32), Never, "Limited Broadcast"),
];

/// IANA IPv6 Special-Purpose Address Registry, likewise, and what the IPv6 address space registry reserves.
#[rustfmt::skip]
const V6_RANGES: &[(Ipv6Net, Reach, &str)] = &[
    (v6([0; 8], 0), Local, "Reserved by IETF"),
    (v6([0; 8], 96), Local, "IPv4-Compatible"),
    (v6([0; 8], 128), Never, "Unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Local, "Loopback"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), Local, "IPv4-mapped"),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), Local, "IPv4-Translated"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), Global, "IPv4-IPv6 Translation"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Local, "Local IPv4-IPv6 Translation"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), Local, "Discard-Only"),
    (v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64), Local, "Dummy IPv6 Prefix"),
    (v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), Global, "Global Unicast"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Local, "IETF Protocol Assignments"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), Global, "Teredo"),
    (v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128), Global, "Port Control Protocol Anycast"),
    (v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128), Global, "TURN Anycast"),
    (v6([0x2001, 1, 0, 0, 0, 0, 0, 3], 128), Global, "DNS-SD SRP Anycast"),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), Local, "Benchmarking"),
    (v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32), Global, "AMT"),
    (v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48), Global, "AS112-v6"),
    (v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28), Local, "Deprecated (ORCHID)"),
    (v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28), Global, "ORCHIDv2"),
    (v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28), Global, "Drone Remote ID"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Local, "Documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), Global, "6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Local, "Documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), Local, "Segment Routing SIDs"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Local, "Unique-Local"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Local, "Link-Local Unicast"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Local, "Deprecated (Site-Local)"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Never, "Multicast"),
];

/// Whether `address`, and every IPv4 address inside it, can be reached from anywhere.
///
/// # Errors
/// The range that is not public, of the first address of [`unmap`] that is in one.
pub fn is_public(address: IpAddr) -> Result<(), Special> {
    unmap(address).try_for_each(judge)
}

/// The addresses that a packet to `address` can end up at, the one to connect to first (an IPv4-mapped address in its
/// IPv4 form), then those embedded in it. One to three addresses.
pub fn unmap(address: IpAddr) -> impl Iterator<Item = IpAddr> + Clone {
    let address = address.to_canonical();
    let embedded = match address {
        IpAddr::V4(_) => [None; 2],
        IpAddr::V6(ip) => embedded(ip),
    };
    std::iter::once(address).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

/// The IPv4 addresses inside a transition address, apart from the IPv4-mapped form.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let at =
        |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        (0x2002, _) => [at(b, c), None],
        // RFC 4380 section 4: the server in clear, the client with all its bits inverted.
        (0x2001, 0) => [at(c, d), at(!g, !h)],
        // RFC 6052 section 2.2. The local prefix leaves the layout to its operator; /96 is what NAT64 boxes ship with.
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) || c == 1 => [at(g, h), None],
        // `::` and `::1` are addresses in their own right.
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) && (g, h) > (0, 1) => [at(g, h), None],
        _ => [None; 2],
    }
}

/// The ranges that are judged differently from those around them.
pub(super) fn ranges() -> impl Iterator<Item = IpNet> {
    let v4 = V4_RANGES.iter().map(|(net, ..)| IpNet::V4(*net));
    v4.chain(V6_RANGES.iter().map(|(net, ..)| IpNet::V6(*net)))
}

/// Judges one address by the most specific range that holds it.
pub(super) fn judge(address: IpAddr) -> Result<(), Special> {
    let row = match address {
        IpAddr::V4(ip) => V4_RANGES
            .iter()
            .filter(|(net, ..)| net.contains(&ip))
            .max_by_key(|(net, ..)| net.prefix_len())
            .map(|&(_, reach, range)| (reach, range)),
        IpAddr::V6(ip) => V6_RANGES
            .iter()
            .filter(|(net, ..)| net.contains(&ip))
            .max_by_key(|(net, ..)| net.prefix_len())
            .map(|&(_, reach, range)| (reach, range)),
    };
    // Both tables start with a row for everything, so a row is always found.
    let (reach, range) = row.unwrap_or((Local, "Unknown"));
    match reach {
        Global => Ok(()),
        Local => Err(Special {
            range,
            can_open: true,
        }),
        Never => Err(Special {
            range,
            can_open: false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(text: &str) -> Option<&'static str> {
        is_public(ip(text)).err().map(|special| special.range)
    }

    // spec: 9298-7-b, 9298-7-c
    #[test]
    fn ranges_are_named() {
        for (text, expected) in [
            ("8.8.8.8", None),
            ("1.1.1.1", None),
            ("0.0.0.0", Some("Unspecified")),
            ("0.1.2.3", Some("This network")),
            ("9.255.255.255", None),
            ("10.0.0.0", Some("Private-Use")),
            ("10.255.255.255", Some("Private-Use")),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.1", Some("Shared Address Space")),
            ("100.128.0.0", None),
            ("127.0.0.1", Some("Loopback")),
            ("127.255.255.254", Some("Loopback")),
            ("169.254.169.254", Some("Link Local")),
            ("172.15.255.255", None),
            ("172.31.255.255", Some("Private-Use")),
            ("172.32.0.0", None),
            ("192.0.0.8", Some("IETF Protocol Assignments")),
            ("192.0.0.9", None),
            ("192.0.0.170", Some("IETF Protocol Assignments")),
            ("192.0.2.6", Some("Documentation (TEST-NET-1)")),
            ("192.31.196.1", None),
            ("192.88.99.1", Some("Deprecated (6to4 Relay Anycast)")),
            ("192.168.1.1", Some("Private-Use")),
            ("198.19.255.255", Some("Benchmarking")),
            ("198.20.0.0", None),
            ("203.0.113.1", Some("Documentation (TEST-NET-3)")),
            ("224.0.0.1", Some("Multicast")),
            ("239.255.255.255", Some("Multicast")),
            ("240.0.0.1", Some("Reserved")),
            ("255.255.255.255", Some("Limited Broadcast")),
            ("2606:4700::1111", None),
            ("2a00:1450::1", None),
            ("::", Some("Unspecified")),
            ("::1", Some("Loopback")),
            ("::2", Some("IPv4-Compatible")),
            ("::8.8.8.8", Some("IPv4-Compatible")),
            ("::ffff:0:8.8.8.8", Some("IPv4-Translated")),
            ("100::1", Some("Discard-Only")),
            ("100:0:0:1::1", Some("Dummy IPv6 Prefix")),
            ("2001:1::1", None),
            ("2001:1::4", Some("IETF Protocol Assignments")),
            ("2001:2::1", Some("Benchmarking")),
            ("2001:3::1", None),
            ("2001:4:112::1", None),
            ("2001:4:113::1", Some("IETF Protocol Assignments")),
            ("2001:10::1", Some("Deprecated (ORCHID)")),
            ("2001:20::1", None),
            ("2001:db8::42", Some("Documentation")),
            ("2001:200::1", None),
            ("3fff::1", Some("Documentation")),
            ("3fff:1000::1", None),
            ("4000::1", Some("Reserved by IETF")),
            ("5f00::1", Some("Segment Routing SIDs")),
            ("fd00::1", Some("Unique-Local")),
            ("fe80::1", Some("Link-Local Unicast")),
            ("fec0::1", Some("Deprecated (Site-Local)")),
            ("ff02::1", Some("Multicast")),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    // spec: 9298-7-c
    #[test]
    fn embedded_addresses_are_judged() {
        for (text, expected) in [
            ("::ffff:8.8.8.8", None),
            ("::ffff:127.0.0.1", Some("Loopback")),
            ("::ffff:0.0.0.0", Some("Unspecified")),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b::10.0.0.1", Some("Private-Use")),
            ("64:ff9b::169.254.169.254", Some("Link Local")),
            ("64:ff9b:0:0:0:1:808:808", Some("Reserved by IETF")),
            ("64:ff9b:1::8.8.8.8", Some("Local IPv4-IPv6 Translation")),
            ("2002:808:808::1", None),
            ("2002:a00:1::1", Some("Private-Use")),
            ("2002:7f00:1::1", Some("Loopback")),
            // Server 65.54.227.120, client 192.0.2.45 (the example of RFC 4380 uses a documentation address).
            (
                "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                Some("Documentation (TEST-NET-1)"),
            ),
            ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", None),
            ("2001:0:a00:1:8000:63bf:f7f7:f7f7", Some("Private-Use")),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
        let all = |text: &str| unmap(ip(text)).collect::<Vec<_>>();
        assert_eq!(all("::ffff:1.2.3.4"), [ip("1.2.3.4")]);
        assert_eq!(
            all("64:ff9b:1::1.2.3.4"),
            [ip("64:ff9b:1::102:304"), ip("1.2.3.4")]
        );
        assert_eq!(all("::1"), [ip("::1")]);
        assert_eq!(all("2001:0:102:304::fefd:fcfb").len(), 3);
        assert_eq!(
            all("2001:0:102:304::fefd:fcfb")[1..],
            [ip("1.2.3.4"), ip("1.2.3.4")]
        );
    }

    #[test]
    fn only_what_is_no_unicast_destination_stays_closed() {
        for text in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "64:ff9b::224.0.0.1",
        ] {
            assert!(!is_public(ip(text)).unwrap_err().can_open, "{text}");
        }
        for text in ["10.0.0.1", "127.0.0.1", "::1", "fd00::1", "240.0.0.1"] {
            assert!(is_public(ip(text)).unwrap_err().can_open, "{text}");
        }
    }

    #[test]
    fn tables_are_well_formed() {
        for (index, (net, ..)) in V4_RANGES.iter().enumerate() {
            assert_eq!(net.trunc(), *net);
            assert!(
                V4_RANGES[..index].iter().all(|(other, ..)| other != net),
                "{net}"
            );
        }
        for (index, (net, ..)) in V6_RANGES.iter().enumerate() {
            assert_eq!(net.trunc(), *net);
            assert!(
                V6_RANGES[..index].iter().all(|(other, ..)| other != net),
                "{net}"
            );
        }
        assert_eq!(V4_RANGES[0].0.prefix_len(), 0);
        assert_eq!(V6_RANGES[0].0.prefix_len(), 0);
    }

    proptest! {
        // The standard library's stable predicates are a second opinion.
        #[test]
        fn agrees_with_std_v4(bits in any::<u32>()) {
            let ip = Ipv4Addr::from_bits(bits);
            if ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
                || ip.is_documentation() || ip.is_unspecified() || ip.is_broadcast() {
                prop_assert!(is_public(IpAddr::V4(ip)).is_err());
            }
        }

        #[test]
        fn embedding_never_makes_an_address_public(bits in any::<u32>()) {
            let ip = Ipv4Addr::from_bits(bits);
            let public = is_public(IpAddr::V4(ip));
            let [a, b, c, d] = ip.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            prop_assert_eq!(is_public(IpAddr::V6(ip.to_ipv6_mapped())), public);
            for v6 in [
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, 0, !high, !low),
            ] {
                prop_assert_eq!(is_public(IpAddr::V6(v6)), public);
            }
        }

        #[test]
        fn global_unicast_is_all_there_is(bits in any::<u128>()) {
            let ip = Ipv6Addr::from_bits(bits);
            if is_public(IpAddr::V6(ip)).is_ok() {
                let nat64 = ip.segments()[..2] == [0x64, 0xff9b];
                prop_assert!(bits >> 125 == 1 || nat64 || ip.to_ipv4_mapped().is_some());
            }
        }
    }
}
