//! `[ip]`: what a relay assigns to clients with IP tunnels.

use super::*;

const POOL: &str = "[ip]\npools = [\"10.89.0.0/16\"]\n";

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn pools_are_enough() {
    let config = parse(&format!("{MINIMAL}{POOL}"), &environment()).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let ip = config.ip.unwrap();
    assert_eq!(ip.pools, nets(&["10.89.0.0/16"]));
    assert_eq!(ip.gateways(), nets(&["10.89.0.1/16"]));
    assert_eq!((ip.prefix_len_min_v4, ip.prefix_len_min_v6), (32, 64));
    assert_eq!(
        (ip.assignments_max, ip.grace, &*ip.tun, ip.mtu),
        (8, Duration::from_secs(300), "bauta0", 1500)
    );
    assert_eq!(ip.assignments_per_user_max, 16_384);
    assert_eq!((ip.offload, ip.nat), (Offload::Auto, Nat::Off));
    assert!(ip.unprompted && !ip.forwarding && !ip.client_to_client);
    // Of the IP versions that there are addresses of.
    assert_eq!(ip.routes, nets(&["0.0.0.0/0"]));

    let text = format!("{MINIMAL}[ip]\npools = [\"2001:db8:1::/48\", \"10.89.0.0/16\"]");
    let ip = parse(&text, &environment()).unwrap().ip.unwrap();
    assert_eq!(ip.routes, nets(&["0.0.0.0/0", "::/0"]));
    assert_eq!(ip.gateways(), nets(&["2001:db8:1::1/48", "10.89.0.1/16"]));
}

#[test]
fn every_key_is_read() {
    let text = r#"
        [auth]
        tokens = "tokens.txt"

        [ip]
        pools = ["10.89.0.0/16", "fd00:ba::/40"]
        prefix_len_min_v4 = 28
        prefix_len_min_v6 = 56
        assignments_max = 4
        assignments_per_user_max = 1000
        grace = "90s"
        tun = "vpn%d"
        offload = "off"
        mtu = 9000
        nat = "apply"
        forwarding = true
        routes = ["10.0.0.0/8", "fd00::/8"]
        client_to_client = true
        dns = ["10.89.0.1", "fd00:ba::1"]
        search = ["Corp.Example."]
        internal_domains = ["example", "lab.test"]
        pref64 = ["64:ff9b::/96"]
        unprompted = false

        [[ip.site]]
        user = "alice"
        prefixes = ["192.168.7.0/24", "fd07::/64"]

        [[ip.site]]
        prefixes = ["192.168.8.0/24"]
    "#;
    let config = parse(&format!("{MINIMAL}{text}"), &environment()).unwrap();
    let expected = Ip {
        pools: nets(&["10.89.0.0/16", "fd00:ba::/40"]),
        prefix_len_min_v4: 28,
        prefix_len_min_v6: 56,
        assignments_max: 4,
        assignments_per_user_max: 1000,
        grace: Duration::from_secs(90),
        tun: "vpn%d".to_owned(),
        offload: Offload::Off,
        mtu: 9000,
        nat: Nat::Apply,
        forwarding: true,
        routes: nets(&["10.0.0.0/8", "fd00::/8"]),
        client_to_client: true,
        dns: vec!["10.89.0.1".parse().unwrap(), "fd00:ba::1".parse().unwrap()],
        search: vec!["corp.example".into()],
        internal_domains: vec!["example".into(), "lab.test".into()],
        pref64: vec!["64:ff9b::/96".parse().unwrap()],
        unprompted: false,
        sites: vec![
            IpSite {
                user: Some("alice".to_owned()),
                prefixes: nets(&["192.168.7.0/24", "fd07::/64"]),
            },
            IpSite {
                user: None,
                prefixes: nets(&["192.168.8.0/24"]),
            },
        ],
    };
    assert_eq!(config.ip, Some(expected));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn values() {
    for (text, expected) in [
        (
            "pools = [\"10.89.0.0\"]",
            "ip.pools[0]: \"10.89.0.0\": not a prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\"",
        ),
        (
            "pools = [\"10.89.0.1/16\"]",
            "ip.pools[0]: \"10.89.0.1/16\": has bits behind its prefix length, 10.89.0.0/16 has none",
        ),
        (
            "pools = [\"10.89.0.0/16\", \"10.89.128.0/17\"]",
            "ip.pools[1]: \"10.89.128.0/17\": overlaps 10.89.0.0/16, which is named before it",
        ),
        (
            "pools = [\"10.89.0.0/31\"]",
            "ip.pools[0]: \"10.89.0.0/31\": prefix length must be at most 30",
        ),
        (
            "pools = [\"fd00::/127\"]",
            "ip.pools[0]: \"fd00::/127\": prefix length must be at most 126",
        ),
        (
            "pools = [\"0.0.0.0/0\"]",
            "ip.pools[0]: \"0.0.0.0/0\": must be unicast addresses that are neither loopback nor link-local",
        ),
        (
            "pools = [\"ff02::/64\"]",
            "ip.pools[0]: \"ff02::/64\": must be unicast addresses that are neither loopback nor link-local",
        ),
        (
            "prefix_len_min_v4 = 7",
            "ip.prefix_len_min_v4: 7: must be 8 to 32",
        ),
        (
            "prefix_len_min_v6 = 129",
            "ip.prefix_len_min_v6: 129: must be 48 to 128",
        ),
        (
            "grace = \"25h\"",
            "ip.grace: \"90000s\": must be \"0s\" to \"86400s\"",
        ),
        (
            "tun = \"a/b\"",
            "ip.tun: \"a/b\": must be 1 to 15 letters, digits, \".\", \"_\" and \"-\", with one \"%d\" at most",
        ),
        ("mtu = 1279", "ip.mtu: 1279: must be 1280 to 65535"),
        (
            "nat = \"on\"",
            "ip.nat: \"on\": unknown variant `on`, expected one of `off`, `print`, `apply`",
        ),
        (
            "dns = [\"0.0.0.0\"]",
            "ip.dns[0]: \"0.0.0.0\": not an address such as \"192.0.2.53\"",
        ),
        (
            "search = [\"a.example\"]",
            "ip.search: has no effect without ip.dns, which must name a server",
        ),
        (
            "dns = [\"::1\"]\ninternal_domains = [\"a b\"]",
            "ip.internal_domains[0]: \"a b\": not a domain such as \"corp.example\"",
        ),
        (
            "pref64 = [\"64:ff9b::/97\"]",
            "ip.pref64[0]: \"64:ff9b::/97\": must be IPv6 with a prefix length of 32, 40, 48, 56, 64 or 96",
        ),
        (
            "[[ip.site]]",
            "ip.site[0].prefixes: missing: the networks behind the client",
        ),
        (
            "[[ip.site]]\nuser = \"bob\"\nprefixes = [\"10.1.0.0/16\"]",
            "ip.site[0].user: \"bob\": names a user, and [auth] knows none",
        ),
    ] {
        assert_eq!(problems_of(&format!("[ip]\n{text}")), [expected], "{text}");
    }
    for name in ["%d%d", "%s", "", "..", "abcdefghijklmnop", "a b"] {
        let found = problems_of(&format!("[ip]\ntun = \"{name}\""));
        assert!(found.concat().starts_with("ip.tun: "), "{name}: {found:?}");
    }
}

#[test]
fn relations() {
    for (text, expected) in [
        (
            format!("{POOL}routes = [\"::/0\"]"),
            "ip.routes: must be of an IP version that ip.pools has",
        ),
        (
            format!("{POOL}[[ip.site]]\nprefixes = [\"10.0.0.0/8\"]"),
            "ip.site[0].prefixes: \"10.0.0.0/8\": overlaps 10.89.0.0/16, which belongs to somebody else",
        ),
        (
            format!(
                "{POOL}[[ip.site]]\nprefixes = [\"10.1.0.0/16\"]\n[[ip.site]]\nuser = \"a\"\n\
                 prefixes = [\"10.1.2.0/24\"]\n[auth]\ntokens = \"t\""
            ),
            "ip.site[1].prefixes: \"10.1.2.0/24\": overlaps 10.1.0.0/16, which belongs to somebody else",
        ),
        (
            format!("{POOL}[upstream]\nurls = [\"https://a\"]"),
            "ip.pools: has no effect with upstream.urls: the last relay assigns the addresses",
        ),
        (
            "[policy]\nservices = [\"connect-ip\"]".to_owned(),
            "policy.services: \"connect-ip\" assigns addresses: ip.pools must name some",
        ),
    ] {
        assert_eq!(problems_of(&text), [expected], "{text}");
    }
    // Somebody else assigns them.
    let chained = "[policy]\nservices = [\"connect-ip\"]\n[upstream]\nurls = [\"https://a\"]";
    assert_eq!(problems_of(chained), [""; 0]);
}

#[test]
fn warnings() {
    for (text, expected) in [
        (
            "[ip]\npools = [\"fd00:ba::/64\"]",
            "ip.prefix_len_min_v6: 64: one client may take everything of fd00:ba::/64",
        ),
        (
            "[ip]\npools = [\"10.89.0.0/16\"]\n[policy]\nservices = [\"connect-udp\"]",
            "ip.pools: has no effect, \"connect-ip\" is not among policy.services",
        ),
    ] {
        let config = parse(&format!("{MINIMAL}{text}"), &environment()).unwrap();
        assert_eq!(config.warnings, [expected]);
    }
}

#[test]
fn rules_with_names_are_no_rules_for_packets() {
    let environment = Environment {
        rule: |rule| match rule.starts_with('.') {
            true => Ok(RuleKind::Names),
            false => Ok(RuleKind::Addresses),
        },
        ..environment()
    };
    let rules = "[policy]\nallow = [\"*\"]\ndeny = [\"*:25\", \".ads.example\"]\n";
    let warnings = |text: &str| {
        parse(&format!("{MINIMAL}{rules}{text}"), &environment)
            .unwrap()
            .warnings
    };
    assert_eq!(warnings(""), [""; 0]);
    assert_eq!(warnings("services = [\"connect-udp\"]"), [""; 0]);
    assert_eq!(
        warnings(POOL),
        [
            "policy.deny[1]: \".ads.example\": holds for tunnels that ask for the name; packets of other IP tunnels \
             show addresses alone"
        ]
    );
}

#[test]
fn without_pools_nothing_is_assigned() {
    let config = parse(&format!("{MINIMAL}[ip]\nmtu = 1400"), &environment()).unwrap();
    assert_eq!(config.ip, None);
    let many: Vec<String> = (0..33).map(|i| format!("\"10.{i}.0.0/16\"")).collect();
    let text = format!("[ip]\npools = [{}]", many.join(","));
    assert_eq!(
        problems_of(&text),
        ["ip.pools: 33 prefixes, must be at most 32"]
    );
}

/// What IP tunnels hold is in the sum, where there are any.
#[test]
fn memory_of_ip_tunnels() {
    let sum = |text: &str| -> u64 {
        let config = parse(
            &format!("{MINIMAL}[limits]\ntunnels = 1\n{text}"),
            &environment(),
        )
        .unwrap();
        let terms = worst_case_memory(&config);
        let of_ip = terms.iter().filter(|term| term.user.starts_with("IP "));
        of_ip.map(MemoryTerm::bytes).sum()
    };
    assert_eq!(sum(""), 0);
    assert_eq!(
        sum("[policy]\nservices = [\"connect-udp\"]\n[upstream]\nurls = [\"https://a\"]"),
        0
    );
    // An ingress holds what both ends say, and what either has not taken.
    let workers = u64::try_from(environment().cores.get()).unwrap();
    let said = workers * (4 * 144 + 2 * 128) * 1024;
    assert_eq!(sum("[upstream]\nurls = [\"https://a\"]"), said);
    let pool = sum("[ip]\npools = [\"10.89.0.0/26\"]\nassignments_max = 1");
    assert_eq!(pool, said + workers * 256 + 64 * 384);
    let site = "[[ip.site]]\nprefixes = [\"10.1.0.0/16\"]";
    let sites = sum(&format!(
        "[ip]\npools = [\"10.89.0.0/26\"]\nassignments_max = 1\n{site}"
    ));
    assert_eq!(sites, pool + workers * 1024 * 160);
}
