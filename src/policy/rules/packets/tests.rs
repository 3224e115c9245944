use ipnet::Ipv4Net;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Policy {
        allow: rules(allow),
        deny: rules(deny),
        ..Policy::default()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Written `TARGET` or `TARGET/ipproto=NUMBER`.
fn scope(text: &str) -> Scope {
    let (target, protocol) = match text.split_once("/ipproto=") {
        Some((target, protocol)) => (target, Some(protocol.parse().unwrap())),
        None => (text, None),
    };
    Scope {
        target: target.parse().unwrap(),
        protocol,
    }
}

/// What is asked for is refused when nothing of it could pass, and not before.
// spec: 9484-4.6-g
#[test]
fn scopes_are_judged_by_what_could_pass() {
    for (allow, deny, text, opens) in [
        (&[][..], &[][..], "8.8.8.8", true),
        (&[], &[], "10.0.0.1", false),
        (&[], &[], "10.0.0.0/8", false),
        (&[], &[], "224.0.0.0/4", false),
        // Both ends are closed, the middle is not.
        (&[], &[], "0.0.0.0/0", true),
        (&[], &[], "0.0.0.0/1", true),
        (&[], &[], "::/0", true),
        (&[], &[], "fc00::/7", false),
        // What is asked for has a small part that is open.
        (&["10.1.2.3"], &[], "10.0.0.0/8", true),
        (&["10.1.2.3"], &["10.1.2.0/24"], "10.0.0.0/8", false),
        (&["10.1.2.0/24"], &["10.1.2.0/25"], "10.0.0.0/8", true),
        (
            &["10.1.2.0/24"],
            &["10.1.2.0/25", "10.1.2.128/25"],
            "10.0.0.0/8",
            false,
        ),
        (&[], &["0.0.0.0/0"], "8.0.0.0/8", false),
        // Some port is enough, and there may be none.
        (&["*:443"], &[], "8.8.8.8", true),
        (&["*:443"], &[], "8.8.8.8/ipproto=6", true),
        (&["*:443"], &[], "8.8.8.8/ipproto=47", false),
        (&["*:443"], &["*:443"], "8.8.8.8", false),
        (&["*:440-450"], &["*:440-449"], "8.8.8.8", true),
        (&[], &["*:443"], "8.8.8.8/ipproto=47", true),
        (
            &[],
            &["8.8.8.8:1-1000", "8.8.8.8:1001-65535"],
            "8.8.8.8",
            true,
        ),
        (&["10.0.0.0/8:22"], &[], "10.0.0.0/24", true),
        // Names, as far as they decide.
        (&[], &["a.example:443"], "a.example", true),
        (&[], &["a.example"], "a.example", false),
        (&["a.example:25"], &[], "a.example", true),
        (&["a.example:25"], &["*:25"], "a.example", false),
        (&["b.example"], &[], "a.example", false),
        (&["8.8.8.8"], &[], "a.example", true),
    ] {
        let found = policy(allow, deny).check_scope(&scope(text));
        assert_eq!(found.is_ok(), opens, "{allow:?} {deny:?} {text}: {found:?}");
    }
}

/// The relay's own pools are open to scopes where clients reach each other, whatever is public.
#[test]
fn scopes_may_name_what_is_behind_the_gateway() {
    let open = Policy {
        inside: vec!["10.89.0.0/16".parse().unwrap()],
        gateways: vec![ip("10.89.0.1")],
        ..policy(&[], &["10.89.7.0/24", "10.89.8.0/24:22"])
    };
    let closed = Policy {
        inside: Vec::new(),
        ..open.clone()
    };
    for (text, opens) in [
        ("10.89.0.0/16", true),
        ("10.89.3.3", true),
        ("10.0.0.0/8", true),
        ("10.88.0.0/16", false),
        ("10.89.7.7", false),
        ("10.89.7.0/24", false),
        ("10.89.8.8", true),
    ] {
        let found = open.check_scope(&scope(text));
        assert_eq!(found.is_ok(), opens, "{text}: {found:?}");
        assert!(closed.check_scope(&scope(text)).is_err(), "{text}");
    }
    // The link itself.
    assert_eq!(closed.check_scope(&scope("10.89.0.1")), Ok(()));

    let inside = |text: &str, port| open.check_inside(ip(text), port, None);
    assert_eq!(inside("10.89.3.3", Some(22)), Ok(()));
    assert_eq!(inside("10.89.7.7", None), Err(Denied::ByRule));
    assert_eq!(inside("10.89.8.8", Some(22)), Err(Denied::ByRule));
    assert_eq!(inside("10.89.8.8", Some(23)), Ok(()));
    assert_eq!(inside("10.89.8.8", None), Ok(()));
}

/// A name holds for the packets of a tunnel that asked for it, port by port.
#[test]
fn names_hold_for_the_packets_of_their_scope() {
    let policy = policy(&["a.example:443", "8.0.0.0/8"], &[".b.example"]);
    let check = |address, port, name| policy.check_packet(ip(address), port, name).is_ok();
    assert!(check("9.9.9.9", Some(443), Some("a.example")));
    assert!(!check("9.9.9.9", Some(80), Some("a.example")));
    assert!(!check("9.9.9.9", None, Some("a.example")));
    assert!(!check("9.9.9.9", Some(443), None));
    assert!(check("8.8.8.8", Some(443), None));
    assert!(!check("8.8.8.8", Some(443), Some("x.b.example")));
    // The same before the tunnel opens: what could pass is kept.
    let addresses = [ip("10.0.0.1"), ip("9.9.9.9"), ip("8.8.8.8")];
    let allowed = |name| policy.allowed_in_scope(&scope(name), &addresses);
    assert_eq!(allowed("a.example"), Ok(addresses[1..].to_vec()));
    assert_eq!(allowed("c.example"), Ok(addresses[2..].to_vec()));
    assert!(allowed("x.b.example").is_err());
}

fn net() -> impl Strategy<Value = Ipv4Net> {
    // Around private and public addresses, some of which are neighbours.
    let corner = prop::sample::select(vec![[9, 255, 255], [10, 0, 0], [10, 255, 255], [11, 0, 0]]);
    (corner, any::<u8>(), 24u8..=32)
        .prop_map(|([a, b, c], d, len)| Ipv4Net::new([a, b, c, d].into(), len).unwrap().trunc())
}

fn rule() -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec!["", ":1-3", ":3", ":4-65535", ":2-4"]);
    (net(), ports).prop_map(|(net, ports)| format!("{net}{ports}"))
}

proptest! {
    // The judgement of a prefix is the sum of those of all packets to it.
    #[test]
    fn a_prefix_is_open_if_a_packet_is(
        allow in vec(rule(), 0..4),
        deny in vec(rule(), 0..5),
        inside in vec(net(), 0..2),
        public_only in any::<bool>(),
        asked in net(),
        protocol in prop::sample::select(vec![None, Some(6), Some(47)]),
    ) {
        let texts = |rules: &[String]| -> Vec<Rule> {
            rules.iter().map(|rule| rule.parse().unwrap()).collect()
        };
        let policy = Policy {
            allow: texts(&allow),
            deny: texts(&deny),
            public_only,
            inside: inside.into_iter().map(IpNet::V4).collect(),
            ..Policy::default()
        };
        let ports = match protocol {
            None | Some(6) => vec![None, Some(1), Some(2), Some(3), Some(4), Some(5)],
            Some(_) => vec![None],
        };
        let addresses = asked.network().to_bits()..=asked.broadcast().to_bits();
        let mut packets = addresses.flat_map(|bits| ports.iter().map(move |port| (bits, *port)));
        let opens = packets.any(|(bits, port)| {
            let address = IpAddr::V4(bits.into());
            match policy.is_inside(address) {
                true => policy.check_inside(address, port, None).is_ok(),
                false => policy.check_packet(address, port, None).is_ok(),
            }
        });
        let target = ScopeTarget::Prefix(IpNet::V4(asked));
        prop_assert_eq!(policy.check_scope(&Scope { target, protocol }).is_ok(), opens);
    }
}
