use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(start: &str, end: &str, protocol: u8) -> AddressRange {
    AddressRange {
        start: ip(start),
        end: ip(end),
        protocol,
    }
}

fn packet(address: IpAddr, protocol: u8) -> PacketFacts {
    PacketFacts {
        source: address,
        destination: address,
        protocol,
    }
}

// spec: 9484-4.7.3-d
#[test]
fn ranges_are_put_in_order() {
    let routes = Routes::new(vec![
        range("2001:db8::", "2001:db8::ff", 0),
        range("192.0.2.7", "192.0.2.9", 17),
        range("192.0.2.128", "192.0.2.255", 6),
        range("192.0.2.0", "192.0.2.127", 6),
        range("192.0.2.7", "192.0.2.9", 132),
        range("10.0.0.0", "10.255.255.255", 0),
    ]);
    let expected = [
        range("10.0.0.0", "10.255.255.255", 0),
        range("192.0.2.0", "192.0.2.127", 6),
        range("192.0.2.128", "192.0.2.255", 6),
        range("192.0.2.7", "192.0.2.9", 17),
        range("192.0.2.7", "192.0.2.9", 132),
        range("2001:db8::", "2001:db8::ff", 0),
    ];
    assert_eq!(routes.unwrap().ranges(), expected);
}

// spec: 9484-4.7.3-b, 9484-4.7.3-d, 9484-4.7.3-f
#[test]
fn lists_that_no_peer_would_take() {
    let error = |list: &[AddressRange]| Routes::new(list.to_vec()).unwrap_err();
    let (start, end) = (ip("192.0.2.9"), ip("192.0.2.1"));
    assert_eq!(
        error(&[range("192.0.2.9", "192.0.2.1", 0)]),
        IpCapsuleError::Range { start, end }.into()
    );
    let end = ip("2001:db8::");
    assert_eq!(
        error(&[range("192.0.2.9", "2001:db8::", 0)]),
        IpCapsuleError::Range { start, end }.into()
    );
    for (first, second) in [
        (
            range("192.0.2.0", "192.0.2.127", 0),
            range("192.0.2.127", "192.0.2.255", 0),
        ),
        (
            range("192.0.2.0", "192.0.2.255", 6),
            range("192.0.2.7", "192.0.2.7", 6),
        ),
        (
            range("192.0.2.0", "192.0.2.255", 0),
            range("192.0.2.1", "192.0.2.1", 17),
        ),
        (
            range("192.0.2.7", "192.0.2.7", 0),
            range("192.0.2.0", "192.0.2.255", 17),
        ),
        (range("::", "::1", 0), range("::1", "::2", 255)),
    ] {
        let expected = IpError::RangesOverlap { first, second };
        assert_eq!(error(&[first, second]), expected);
        assert_eq!(error(&[second, first]), expected);
    }
    let text = IpError::RangesOverlap {
        first: range("::", "::1", 0),
        second: range("::1", "::2", 17),
    };
    assert_eq!(
        text.to_string(),
        "ranges overlap: :: to ::1 (protocol 0) and ::1 to ::2 (protocol 17)"
    );
}

// spec: 9484-4.6-e, 9484-4.7.3-c, 9484-4.8-c
#[test]
fn protocols() {
    let routes = Routes::new(vec![
        range("192.0.2.0", "192.0.2.127", 17),
        range("192.0.2.64", "192.0.2.99", 6),
        range("192.0.2.128", "192.0.2.255", 0),
        range("2001:db8::", "2001:db8::ff", 58),
    ]);
    let routes = routes.unwrap();
    for (address, protocol, expected) in [
        ("192.0.2.1", 17, Reach::Open),
        ("192.0.2.1", 6, Reach::OtherProtocol),
        // Hop-by-Hop Options, which nobody names: not "all".
        ("192.0.2.1", 0, Reach::OtherProtocol),
        ("192.0.2.64", 6, Reach::Open),
        ("192.0.2.100", 6, Reach::OtherProtocol),
        // ICMP, and what is ICMP in the other version only.
        ("192.0.2.1", 1, Reach::Open),
        ("192.0.2.1", 58, Reach::OtherProtocol),
        ("2001:db8::1", 1, Reach::OtherProtocol),
        ("2001:db8::1", 58, Reach::Open),
        ("192.0.2.200", 0, Reach::Open),
        ("192.0.2.200", 250, Reach::Open),
        ("192.0.3.0", 1, Reach::Absent),
        ("192.0.1.255", 17, Reach::Absent),
        ("2001:db8::100", 58, Reach::Absent),
    ] {
        let address = ip(address);
        let found = routes.reach(address, &packet(address, protocol));
        assert_eq!(found, expected, "{address} {protocol}");
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u8>().prop_map(|host| IpAddr::from([192, 0, 2, host]));
    let v6 = any::<u8>().prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()]));
    prop_oneof![v4, v6]
}

fn any_range() -> impl Strategy<Value = AddressRange> {
    let protocol = prop::sample::select(&[0, 1, 6, 17, 58][..]);
    (address(), address(), protocol).prop_map(|(start, end, protocol)| AddressRange {
        start: start.min(end),
        end: if start.is_ipv4() == end.is_ipv4() {
            end.max(start)
        } else {
            start.min(end)
        },
        protocol,
    })
}

/// Whether two ranges may not be in one list.
fn clash(a: &AddressRange, b: &AddressRange) -> bool {
    let alike = a.start.is_ipv4() == b.start.is_ipv4();
    let meet = a.start <= b.end && b.start <= a.end;
    alike && meet && (a.protocol == b.protocol || a.protocol == 0 || b.protocol == 0)
}

proptest! {
    #[test]
    fn as_a_list_that_is_searched(
        list in vec(any_range(), 0..12),
        questions in vec((address(), prop::sample::select(&[0, 1, 6, 17, 50, 58][..])), 32),
    ) {
        let pairs = list.iter().enumerate();
        let clashes = pairs.flat_map(|(n, a)| list[..n].iter().map(move |b| (a, b)));
        let clashes = clashes.filter(|(a, b)| clash(a, b)).count() > 0;
        let built = Routes::new(list.clone());
        prop_assert_eq!(built.is_err(), clashes);
        // Without what clashes with something before it.
        let mut fitting: Vec<AddressRange> = Vec::new();
        for range in list {
            if !fitting.iter().any(|other| clash(other, &range)) {
                fitting.push(range);
            }
        }
        let routes = Routes::new(fitting.clone()).unwrap();
        for (address, protocol) in questions {
            let mut holding = fitting.iter().filter(|r| r.start <= address && address <= r.end);
            let is_icmp = protocol == if address.is_ipv4() { 1 } else { 58 };
            let expected = match holding.clone().next() {
                None => Reach::Absent,
                Some(_) if is_icmp => Reach::Open,
                Some(_) if holding.any(|r| r.protocol == 0 || r.protocol == protocol) => Reach::Open,
                Some(_) => Reach::OtherProtocol,
            };
            prop_assert_eq!(routes.reach(address, &packet(address, protocol)), expected);
        }
    }

    #[test]
    fn prefixes_as_a_list_that_is_searched(
        prefixes in vec((address(), 24u8..=32), 0..12),
        questions in vec(address(), 32),
    ) {
        let prefixes: Vec<IpNet> = prefixes
            .into_iter()
            .map(|(address, len)| {
                let len = if address.is_ipv6() { len + 96 } else { len };
                IpNet::new(address, len).unwrap().trunc()
            })
            .collect();
        let set: AddressSet = prefixes.iter().copied().collect();
        prop_assert!(set.ranges.len() <= prefixes.len());
        for address in questions {
            let expected = prefixes.iter().any(|prefix| prefix.contains(&address));
            prop_assert_eq!(set.contains(address), expected);
        }
    }
}
