use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| rule(text)).collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    Policy {
        allow: rules(allow),
        deny: rules(deny),
        ..Policy::default()
    }
}

fn target(host: &str, port: u16) -> Target {
    let host = match host.parse() {
        Ok(ip) => Host::Ip(ip),
        Err(_) => Host::Name(host.into()),
    };
    Target { host, port }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn special(result: Result<(), Denied>) -> Option<&'static str> {
    match result {
        Err(Denied::Special(special)) => Some(special.range),
        _ => None,
    }
}

#[test]
fn rules_are_printed_as_written() {
    for text in [
        "*",
        "*:53",
        "10.0.0.0/8:53",
        "192.0.2.1",
        "192.0.2.1:1-1023",
        "2001:db8::/32",
        "[2001:db8::/32]:443-500",
        "::1",
        "[::1]:65535",
        "example.com",
        "_dns.resolver-1.example:853",
        ".example.com:443",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
    for (text, canonical) in [
        ("[::1]", "::1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("example.com.", "example.com"),
        ("*:443-443", "*:443"),
        ("*:1-65535", "*"),
    ] {
        assert_eq!(rule(text).to_string(), canonical);
    }
}

#[test]
fn rule_errors_name_text_and_problem() {
    for (text, message) in [
        ("", "the host is missing"),
        (":53", "the host is missing"),
        ("*:", "\"\" is not a port"),
        ("*:0", "\"0\" is not a port"),
        ("*:65536", "\"65536\" is not a port"),
        ("*:+1", "\"+1\" is not a port"),
        ("*:1-", "\"\" is not a port"),
        ("*:500-443", "ends before it starts"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("10.0.0.0/33", "not an IP network"),
        ("2001:db8::/32:443", "not an IP network"),
        ("[2001:db8::/32", "brackets"),
        ("[2001:db8::/32]443", "brackets"),
        ("[10.0.0.0/8]:53", "brackets"),
        ("::ffff:10.0.0.0/104", "IPv4 form"),
        ("10.0.0", "ends in a number"),
        ("0177.0x1", "ends in a number"),
        ("*.example.com", "* stands alone"),
        ("exa mple", "not a DNS name"),
        ("a..b", "not a DNS name"),
        (".", "not a DNS name"),
        ("münchen.example", "not a DNS name"),
    ] {
        let error = text.parse::<Rule>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("rule {text:?}: ")), "{error}");
        assert!(error.contains(message), "{error}");
    }
    assert!("a".repeat(64).parse::<Rule>().is_err());
    assert!("a.".repeat(127).parse::<Rule>().is_ok());
    assert!("a.".repeat(128).parse::<Rule>().is_err());
}

#[test]
fn names_match_by_label_without_case() {
    let deny = policy(&[], &[".Example.com", "only.test"]);
    for (name, denied) in [
        ("example.com", true),
        ("example.COM.", true),
        ("a.b.example.com", true),
        ("notexample.com", false),
        ("example.com.evil", false),
        ("com", false),
        ("only.test", true),
        ("a.only.test", false),
    ] {
        let expected = if denied { Err(Denied::ByRule) } else { Ok(()) };
        assert_eq!(deny.check_target(&target(name, 443)), expected, "{name}");
        assert_eq!(
            deny.check_address(address("8.8.8.8:443"), Some(name)),
            expected,
            "{name}"
        );
    }
}

// spec: 9298-7-b
#[test]
fn default_is_public_only() {
    let policy = Policy::default();
    assert_eq!(policy.check_target(&target("8.8.8.8", 53)), Ok(()));
    assert_eq!(policy.check_target(&target("example.com", 443)), Ok(()));
    assert_eq!(
        special(policy.check_target(&target("127.0.0.1", 53))),
        Some("Loopback")
    );
    assert_eq!(
        special(policy.check_target(&target("::ffff:10.0.0.1", 53))),
        Some("Private-Use")
    );
    let local = policy.check_address(address("127.0.0.1:53"), Some("localhost"));
    assert_eq!(special(local), Some("Loopback"));
}

#[test]
fn only_an_explicit_network_opens_what_is_not_public() {
    let open = policy(&["10.0.0.0/8:53", "[fd00::/8]", "*"], &[]);
    assert_eq!(open.check_address(address("10.1.2.3:53"), None), Ok(()));
    assert_eq!(
        open.check_address(address("[64:ff9b::10.1.2.3]:53"), None),
        Ok(())
    );
    assert_eq!(
        open.check_address(address("[fd12::1]:9"), Some("intern.example")),
        Ok(())
    );
    assert_eq!(
        special(open.check_address(address("10.1.2.3:54"), None)),
        Some("Private-Use")
    );
    assert_eq!(
        special(open.check_address(address("192.168.1.1:53"), None)),
        Some("Private-Use")
    );
    for rule in [
        "*",
        "intern.example",
        ".example",
        "0.0.0.0/0",
        "0.0.0.0/0:53",
    ] {
        let closed = policy(&[rule], &[]);
        let result = closed.check_address(address("10.1.2.3:53"), Some("intern.example"));
        assert_eq!(special(result), Some("Private-Use"), "{rule}");
    }
    // Being opened is not enough for what is no unicast destination.
    let wide = policy(&["224.0.0.0/3", "0.0.0.0/8", "::/96"], &[]);
    assert_eq!(
        special(wide.check_address(address("224.0.0.1:53"), None)),
        Some("Multicast")
    );
    assert_eq!(
        special(wide.check_address(address("0.0.0.0:53"), None)),
        Some("Unspecified")
    );
    assert_eq!(
        special(wide.check_address(address("[::]:53"), None)),
        Some("Unspecified")
    );
    assert_eq!(wide.check_address(address("240.0.0.1:53"), None), Ok(()));
    let anything = Policy {
        public_only: false,
        ..Policy::default()
    };
    assert_eq!(anything.check_address(address("10.1.2.3:53"), None), Ok(()));
    assert_eq!(
        special(anything.check_address(address("[ff02::1]:53"), None)),
        Some("Multicast")
    );
}

#[test]
fn allow_rules_close_everything_else() {
    let allow = policy(&["*:53", ".example.com:443", "192.0.9.0/24"], &[]);
    assert_eq!(allow.check_target(&target("8.8.8.8", 53)), Ok(()));
    assert_eq!(
        allow.check_target(&target("8.8.8.8", 443)),
        Err(Denied::ByRule)
    );
    assert_eq!(
        allow.check_address(address("8.8.8.8:443"), Some("www.example.com")),
        Ok(())
    );
    // The network rule may match once the name is resolved.
    assert_eq!(allow.check_target(&target("other.example", 80)), Ok(()));
    assert_eq!(
        allow.check_address(address("192.0.9.1:80"), Some("other.example")),
        Ok(())
    );
    let other = allow.check_address(address("8.8.8.8:80"), Some("other.example"));
    assert_eq!(other, Err(Denied::ByRule));
    // Without a network rule for the port, the name decides at once.
    let names = policy(&[".example.com", "192.0.9.0/24:53"], &[]);
    assert_eq!(
        names.check_target(&target("other.example", 80)),
        Err(Denied::ByRule)
    );
    // A Teredo address is not the server inside it.
    let server = policy(&["8.8.8.8"], &[]);
    let teredo = address("[2001:0:808:808::fefe:fefe]:53");
    assert_eq!(server.check_address(teredo, None), Err(Denied::ByRule));
}

#[test]
fn deny_beats_allow() {
    let both = policy(&["10.0.0.0/8", "*"], &["10.9.0.0/16", "*:25", "8.8.8.8"]);
    assert_eq!(both.check_address(address("10.8.0.1:53"), None), Ok(()));
    assert_eq!(
        both.check_address(address("10.9.0.1:53"), None),
        Err(Denied::ByRule)
    );
    assert_eq!(
        both.check_target(&target("mail.example", 25)),
        Err(Denied::ByRule)
    );
    for spelled in [
        "[::ffff:8.8.8.8]:53",
        "[64:ff9b::8.8.8.8]:53",
        "[2002:808:808::]:53",
    ] {
        assert_eq!(
            both.check_address(address(spelled), None),
            Err(Denied::ByRule),
            "{spelled}"
        );
    }
}

// spec: map-23
#[test]
fn own_addresses_are_always_refused() {
    let listeners = [
        address("0.0.0.0:443"),
        address("198.51.100.7:8443"),
        address("[::]:853"),
    ];
    let interfaces = [
        "203.0.113.9".parse().unwrap(),
        "2001:db8::9".parse().unwrap(),
    ];
    let own = own_addresses(&listeners, &interfaces);
    let policy = Policy {
        own,
        public_only: false,
        ..policy(&["127.0.0.0/8", "::/1", "*"], &[])
    };
    for text in [
        "127.0.0.1:443",
        "127.9.9.9:443",
        "0.0.0.0:443",
        "203.0.113.9:443",
        "[::ffff:203.0.113.9]:443",
        "[64:ff9b::203.0.113.9]:443",
        "198.51.100.7:8443",
        "[::1]:853",
        "127.0.0.1:853",
        "203.0.113.9:853",
        "[2001:db8::9]:853",
    ] {
        assert_eq!(
            policy.check_address(address(text), None),
            Err(Denied::OwnAddress),
            "{text}"
        );
    }
    for text in [
        "127.0.0.1:8443",
        "203.0.113.9:444",
        "[::1]:443",
        "[2001:db8::9]:443",
    ] {
        assert_eq!(policy.check_address(address(text), None), Ok(()), "{text}");
    }
}

// spec: 9298-3-g
#[test]
fn numeric_names_and_port_zero_are_refused() {
    let policy = Policy::default();
    for name in [
        "127.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "a.0x7f",
        "example.1.",
    ] {
        let found = policy.check_target(&Target {
            host: Host::Name(name.into()),
            port: 1,
        });
        assert_eq!(found, Err(Denied::NumericName), "{name}");
    }
    assert_eq!(policy.check_target(&target("1e100.net", 1)), Ok(()));
    assert_eq!(
        policy.check_target(&target("example.com", 0)),
        Err(Denied::PortZero)
    );
    assert_eq!(
        policy.check_target(&target("8.8.8.8", 0)),
        Err(Denied::PortZero)
    );
    assert_eq!(
        policy.check_address(address("8.8.8.8:0"), None),
        Err(Denied::PortZero)
    );
}

// spec: 9298-7-c
#[test]
fn the_first_acceptable_address_is_chosen() {
    let policy = policy(&[], &["8.8.4.4"]);
    let ips = |texts: &[&str]| {
        texts
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect::<Vec<_>>()
    };
    let name = target("example.com", 443);
    let choose = |texts: &[&str]| policy.choose(&name, &ips(texts));
    assert_eq!(
        choose(&["2606:4700::1", "8.8.8.8"]),
        Ok(address("[2606:4700::1]:443"))
    );
    assert_eq!(
        choose(&["fe80::1", "8.8.4.4", "8.8.8.8"]),
        Ok(address("8.8.8.8:443"))
    );
    assert_eq!(choose(&["::ffff:8.8.8.8"]), Ok(address("8.8.8.8:443")));
    assert_eq!(
        choose(&["8.8.4.4", "127.0.0.1"]),
        Err(Refusal::DeniedByRule)
    );
    let prohibited = Err(Refusal::AddressProhibited { range: "Loopback" });
    assert_eq!(choose(&["127.0.0.1", "8.8.4.4"]), prohibited);
    assert_eq!(
        choose(&[]),
        Err(Refusal::DnsError {
            rcode: Some(Rcode::NoError)
        })
    );
}

// The model: a rule as plain numbers and labels, decided the long way.
#[derive(Clone, Debug)]
enum ModelHost {
    Any,
    V4 {
        bits: u32,
        prefix_len: u8,
    },
    Name {
        labels: Vec<&'static str>,
        below: bool,
    },
}

#[derive(Clone, Debug)]
struct ModelRule {
    host: ModelHost,
    start: u16,
    end: u16,
}

impl ModelRule {
    fn text(&self) -> String {
        let host = match &self.host {
            ModelHost::Any => "*".to_owned(),
            ModelHost::V4 { bits, prefix_len } => {
                format!("{}/{prefix_len}", Ipv4Addr::from_bits(*bits))
            }
            ModelHost::Name { labels, below } => {
                format!("{}{}", if *below { "." } else { "" }, labels.join("."))
            }
        };
        format!("{host}:{}-{}", self.start, self.end)
    }

    fn matches(&self, ip: u32, name: &[&str], port: u16) -> bool {
        let host = match &self.host {
            ModelHost::Any => true,
            ModelHost::V4 { bits, prefix_len } => {
                let size = 1u64 << (32 - prefix_len);
                (u64::from(*bits)..u64::from(*bits) + size).contains(&u64::from(ip))
            }
            ModelHost::Name {
                labels,
                below: true,
            } => name.ends_with(labels),
            ModelHost::Name {
                labels,
                below: false,
            } => name == labels,
        };
        host && self.start <= port && port <= self.end
    }

    fn opens(&self, ip: u32, port: u16) -> bool {
        match self.host {
            ModelHost::V4 { prefix_len, .. } => prefix_len > 0 && self.matches(ip, &[], port),
            ModelHost::Any | ModelHost::Name { .. } => false,
        }
    }
}

fn labels() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 1..4)
}

/// Few distinct values, so that rules and addresses meet.
fn bits() -> impl Strategy<Value = u32> {
    (
        prop::sample::select(vec![8u8, 10, 11, 127, 192, 224]),
        0..4u8,
        0..4u8,
        0..4u8,
    )
        .prop_map(|(a, b, c, d)| u32::from_be_bytes([a, b, c, d]))
}

fn model_rule() -> impl Strategy<Value = ModelRule> {
    let net = (
        bits(),
        prop::sample::select(vec![0u8, 7, 8, 15, 24, 31, 32]),
    )
        .prop_map(|(bits, prefix_len)| ModelHost::V4 {
            bits: bits
                & u32::MAX
                    .checked_shl(u32::from(32 - prefix_len))
                    .unwrap_or(0),
            prefix_len,
        });
    let name =
        (labels(), any::<bool>()).prop_map(|(labels, below)| ModelHost::Name { labels, below });
    (
        prop_oneof![Just(ModelHost::Any), net, name],
        1..5u16,
        0..3u16,
    )
        .prop_map(|(host, start, more)| ModelRule {
            host,
            start,
            end: start + more,
        })
}

proptest! {
    #[test]
    fn decides_like_the_model(
        allow in prop::collection::vec(model_rule(), 0..4),
        deny in prop::collection::vec(model_rule(), 0..3),
        public_only in any::<bool>(),
        bits in bits(),
        name in labels(),
        port in 1..7u16,
    ) {
        let parse = |rules: &[ModelRule]| rules.iter().map(|model| rule(&model.text())).collect();
        let rules = (parse(&allow), parse(&deny));
        let policy = Policy { allow: rules.0, deny: rules.1, public_only, ..Policy::default() };
        let ip = IpAddr::V4(Ipv4Addr::from_bits(bits));

        let permitted = allow.is_empty() || allow.iter().any(|rule| rule.matches(bits, &name, port));
        let denied = deny.iter().any(|rule| rule.matches(bits, &name, port));
        let reachable = match address::is_public(ip) {
            Ok(()) => true,
            Err(special) => special.can_open
                && (!public_only || allow.iter().any(|rule| rule.opens(bits, port))),
        };
        let text = name.join(".");
        let found = policy.check_address(SocketAddr::new(ip, port), Some(&text));
        prop_assert_eq!(found.is_ok(), permitted && !denied && reachable, "{:?}", found);

        // The early check never refuses what the late one would accept.
        if found.is_ok() {
            prop_assert_eq!(policy.check_target(&target(&text, port)), Ok(()));
        }
        let literal = policy.check_address(SocketAddr::new(ip, port), None);
        prop_assert_eq!(policy.check_target(&Target { host: Host::Ip(ip), port }), literal);
    }

    #[test]
    fn printed_rules_read_back(model in model_rule()) {
        let rule = rule(&model.text());
        prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-*.:/\\[\\]0-9a-fx]{0,24}|\\PC{0,24}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }
}
