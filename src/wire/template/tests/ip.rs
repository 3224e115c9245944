//! Templates for CONNECT-IP.

use super::*;
use crate::wire::ip::ScopeError;

fn scope(target: &str, protocol: Option<u8>) -> Scope {
    Scope {
        target: target.parse().unwrap(),
        protocol,
    }
}

fn matched(template: &str, path: &str) -> ScopeMatch {
    PathTemplate::parse_ip(template)
        .expect(template)
        .match_scope(path)
}

fn well_known(rest: &str) -> ScopeMatch {
    PathTemplate::well_known_ip().match_scope(&format!("/.well-known/masque/ip/{rest}"))
}

// spec: 9484-3-c, 9484-3-d, 9484-4.6-b
#[test]
fn expansion() {
    let default = Template::default_ip_for("relay.example").unwrap();
    for (path, target, protocol, expanded) in [
        (
            DEFAULT_IP_PATH,
            "*",
            None,
            "/.well-known/masque/ip/%2A/%2A/",
        ),
        (
            DEFAULT_IP_PATH,
            "192.0.2.42",
            Some(17),
            "/.well-known/masque/ip/192.0.2.42/17/",
        ),
        (
            DEFAULT_IP_PATH,
            "192.0.2.0/24",
            None,
            "/.well-known/masque/ip/192.0.2.0%2F24/%2A/",
        ),
        (
            DEFAULT_IP_PATH,
            "2001:db8::/32",
            Some(0),
            "/.well-known/masque/ip/2001%3Adb8%3A%3A%2F32/0/",
        ),
        (
            "/vpn{?target,ipproto}",
            "target.example",
            Some(132),
            "/vpn?target=target.example&ipproto=132",
        ),
        ("/vpn?t={target}", "*", Some(6), "/vpn?t=%2A"),
        ("/vpn/{ipproto}", "*", Some(6), "/vpn/6"),
        ("/vpn", "*", None, "/vpn"),
        // The variables of other services are none here.
        ("/vpn{?target_host,target}", "a", None, "/vpn?target=a"),
    ] {
        let template = Template::parse_ip(&format!("https://relay.example{path}")).expect(path);
        assert_eq!(template.expand_scope(&scope(target, protocol)), expanded);
        assert_eq!(template == default, path == DEFAULT_IP_PATH);
    }
}

// spec: 9484-3-b
#[test]
fn what_a_template_can_say() {
    let says = |path: &str, target: &str, protocol| {
        let template = Template::parse_ip(&format!("https://relay.example{path}")).expect(path);
        template.expresses(&scope(target, protocol))
    };
    for (path, has_target, has_protocol) in [
        (DEFAULT_IP_PATH, true, true),
        ("/vpn{?target,ipproto,x}", true, true),
        ("/vpn/{target}", true, false),
        ("/vpn/{ipproto}", false, true),
        ("/vpn", false, false),
    ] {
        assert!(says(path, "*", None), "{path}");
        assert_eq!(says(path, "192.0.2.0/24", None), has_target, "{path}");
        assert_eq!(says(path, "*", Some(0)), has_protocol, "{path}");
        let both = has_target && has_protocol;
        assert_eq!(says(path, "a", Some(17)), both, "{path}");
    }
}

// spec: 9484-3-a, 9484-4-b
#[test]
fn refused_templates() {
    use TemplateError::*;
    for (text, violation) in [
        ("/ip/{target}/{ipproto}/", NotAbsolute),
        ("http://relay.example/{target}/{ipproto}", Scheme),
        ("https://{target}/{ipproto}", VariableOutsidePath),
        ("https://relay.example{?target}", VariableOutsidePath),
        ("https://relay.example", Path),
        (
            "https://relay.example/{+target}",
            Operator { operator: '+' },
        ),
        ("https://relay.example{/target}", VariableOutsidePath),
        (
            "https://relay.example/x{/target}",
            Operator { operator: '/' },
        ),
        (
            "https://relay.example/{#target}",
            Operator { operator: '#' },
        ),
        (
            "https://relay.example/{target:3}",
            Modifier { modifier: ':' },
        ),
        (
            "https://relay.example/{target*}",
            Modifier { modifier: '*' },
        ),
        ("https://relay.example/{target}#x", Fragment),
        ("https://relay.example/{target", Brace),
    ] {
        assert_eq!(Template::parse_ip(text), Err(violation), "{text}");
    }
    for (path, violation) in [
        ("/{target}{ipproto}", Undelimited),
        ("/{target}/{target}", RepeatedVariable { name: "target" }),
        ("/{ipproto}{?ipproto}", RepeatedVariable { name: "ipproto" }),
    ] {
        let template = Template::parse_ip(&format!("https://relay.example{path}")).expect(path);
        assert_eq!(template.path_template(), Err(violation), "{path}");
    }
}

// spec: 9484-3-d, 9484-4.6-a, 9484-4.6-d, 9484-4.6-h
#[test]
fn the_well_known_path() {
    let all = ScopeMatch::Scope(Scope::default());
    for path in ["%2A/%2A/", "*/*/", "%2a/*", "*/%2A"] {
        assert_eq!(well_known(path), all, "{path}");
    }
    for (path, target, protocol) in [
        ("192.0.2.42/17/", "192.0.2.42", Some(17)),
        ("192.0.2.0%2F24/%2A/", "192.0.2.0/24", None),
        ("192.0.2.0%2f24/*/", "192.0.2.0/24", None),
        ("2001%3Adb8%3A%3A%2F32/6/", "2001:db8::/32", Some(6)),
        ("2001:db8::%2f32/006", "2001:db8::/32", Some(6)),
        ("Target.Example./132/", "target.example", Some(132)),
        ("%61/%31/", "a", Some(1)),
    ] {
        let scope = scope(target, protocol);
        assert_eq!(well_known(path), ScopeMatch::Scope(scope), "{path}");
    }
    for path in [
        "192.0.2.0/24/17/",
        "a",
        "",
        "a/17/x",
        "a/17/?x=1",
        "../udp/a/17/",
    ] {
        assert_eq!(well_known(path), ScopeMatch::NoMatch, "{path}");
    }
    let unslashed = DEFAULT_IP_PATH.strip_suffix('/').unwrap();
    let well_known = PathTemplate::well_known_ip();
    assert_eq!(PathTemplate::parse_ip(unslashed), Ok(well_known));
}

// spec: 9484-3-c, 9484-4.1-a, 9484-4.6-a, 9484-4.6-c, 9484-4.6-d
#[test]
fn malformed_scopes() {
    use ScopeError::*;
    for (path, error) in [
        ("/17/", Empty { name: "target" }),
        ("a//", Empty { name: "ipproto" }),
        ("192.0.2.1%2F24/17/", HostBits { len: 24 }),
        ("192.0.2.0%2F33/17/", PrefixLength { max: 32 }),
        ("fe80%3A%3A1%25eth0/*/", Target(TargetError::Zone)),
        ("%5B%3A%3A1%5D/*/", Target(TargetError::Brackets)),
        ("127.1/*/", Target(TargetError::Numeric)),
        ("%30x7f.1/*/", Target(TargetError::Numeric)),
        ("a%/17/", Target(TargetError::Escape)),
        ("a/%4g/", Target(TargetError::Escape)),
        ("%252A/*/", Target(TargetError::Byte { byte: b'%' })),
        ("a/%C3%A9/", Target(TargetError::Byte { byte: 0xc3 })),
        ("a/256/", Protocol),
        ("a/%2B6/", Protocol),
    ] {
        assert_eq!(well_known(path), ScopeMatch::Malformed(error), "{path}");
    }
}

// spec: 9484-3-b, 9484-3-c
#[test]
fn queries() {
    let hit = |target, protocol| ScopeMatch::Scope(scope(target, protocol));
    for template in ["/vpn{?target,ipproto}", "/vpn?target={target}{&ipproto}"] {
        let matched = |path| matched(template, path);
        let path = "/vpn?target=192.0.2.0%2F24&ipproto=17";
        assert_eq!(matched(path), hit("192.0.2.0/24", Some(17)));
        assert_eq!(matched("/vpn?ipproto=17&target=*"), hit("*", Some(17)));
        assert_eq!(matched("/vpn?target=%2a&ipproto=*"), hit("*", None));
        // What is absent means `*`, what is empty is wrong.
        assert_eq!(matched("/vpn?ipproto=17"), hit("*", Some(17)));
        assert_eq!(matched("/vpn?target=a"), hit("a", None));
        assert_eq!(matched("/vpn"), hit("*", None));
        for (path, name) in [
            ("/vpn?target=&ipproto=17", "target"),
            ("/vpn?target&ipproto=17", "target"),
            ("/vpn?target=a&ipproto=", "ipproto"),
        ] {
            let empty = ScopeError::Empty { name };
            assert_eq!(matched(path), ScopeMatch::Malformed(empty), "{path}");
        }
        assert_eq!(
            matched("/vpn?target=a&target=b"),
            ScopeMatch::Malformed(ScopeError::Target(TargetError::Twice))
        );
        assert_eq!(matched("/vpn?target=a&x=1"), ScopeMatch::NoMatch);
        assert_eq!(matched("/vpn/?target=a"), ScopeMatch::NoMatch);
    }
    assert_eq!(matched("/vpn", "/vpn"), hit("*", None));
    assert_eq!(matched("/vpn", "/vpn?target=a"), ScopeMatch::NoMatch);
    assert_eq!(matched("/vpn/{ipproto}", "/vpn/6"), hit("*", Some(6)));
    assert_eq!(
        matched("/vpn/{target}{?ipproto}", "/vpn/a?ipproto=6"),
        hit("a", Some(6))
    );
}

fn scopes() -> impl Strategy<Value = Scope> {
    let prefix = (any::<std::net::IpAddr>(), any::<u8>()).prop_map(|(address, len)| {
        let max = if address.is_ipv4() { 33 } else { 129 };
        let prefix = ipnet::IpNet::new(address, len % max).unwrap();
        ScopeTarget::Prefix(prefix.trunc())
    });
    let host = hosts().prop_map(|host| match host {
        Host::Ip(address) => ScopeTarget::Prefix(address.into()),
        Host::Name(name) => ScopeTarget::Name(name),
    });
    let target = prop_oneof![Just(ScopeTarget::Any), prefix, host];
    (target, any::<Option<u8>>()).prop_map(|(target, protocol)| Scope { target, protocol })
}

proptest! {
    #[test]
    fn servers_read_what_clients_send(scope in scopes(), which in 0usize..6) {
        let path = [
            DEFAULT_IP_PATH,
            "/vpn{?target,ipproto}",
            "/vpn?t={target}&p={ipproto}",
            "/{ipproto}/{x}/{target}{?y}",
            "/{target},{ipproto}",
            "/m?v=1{&ipproto,z,target}",
        ].get(which).copied().unwrap();
        let template = Template::parse_ip(&format!("https://relay.example{path}")).unwrap();
        let request = template.expand_scope(&scope);
        prop_assert!(request.bytes().all(|b| b.is_ascii_graphic()));
        prop_assert!(template.expresses(&scope));
        let server = template.path_template().unwrap();
        prop_assert_eq!(server.match_scope(&request), ScopeMatch::Scope(scope));
    }

    #[test]
    fn any_text(text in "https://a/[{}?&a-c/=%0-9]{0,30}|.{0,40}", path in "[0-9a-f:.*/%25F]{0,40}|.{0,60}") {
        if let Ok(template) = Template::parse_ip(&text) {
            prop_assert_eq!(Template::parse_ip(&template.to_string()), Ok(template));
        }
        // A match is a scope that clients can ask for.
        if let ScopeMatch::Scope(scope) = well_known(&path) {
            let template = Template::default_ip_for("relay.example").unwrap();
            let again = PathTemplate::well_known_ip().match_scope(&template.expand_scope(&scope));
            prop_assert_eq!(again, ScopeMatch::Scope(scope));
        }
    }
}
