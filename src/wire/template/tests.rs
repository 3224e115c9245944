mod ip;

use proptest::prelude::*;

use super::*;

fn target(host: &str, port: u16) -> Target {
    let host = Host::parse(host).unwrap();
    Target { host, port }
}

fn error(text: &str) -> TemplateError {
    Template::parse(text).expect_err(text)
}

fn matched(template: &str, path: &str) -> Match {
    PathTemplate::parse(template)
        .expect(template)
        .match_path(path)
}

fn udp(rest: &str) -> Match {
    PathTemplate::well_known().match_path(&format!("/.well-known/masque/udp/{rest}"))
}

// spec: 9298-2-l, 9298-3-b, 9298-3-d; section 10 of the RFC 9298 digest
#[test]
fn expansion() {
    let default = Template::default_for("relay.example").unwrap();
    for (path, host, expanded) in [
        (
            DEFAULT_PATH,
            "192.0.2.6",
            "/.well-known/masque/udp/192.0.2.6/443/",
        ),
        (
            DEFAULT_PATH,
            "2001:db8::42",
            "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/",
        ),
        (
            "/masque{?target_host,target_port}",
            "2001:db8::42",
            "/masque?target_host=2001%3Adb8%3A%3A42&target_port=443",
        ),
        (
            "/masque?h={target_host}&p={target_port}",
            "target.example",
            "/masque?h=target.example&p=443",
        ),
        (
            "/m?v=1{&target_port,target_host}",
            "a",
            "/m?v=1&target_port=443&target_host=a",
        ),
        ("/m/{target_host,target_port}", "a", "/m/a,443"),
        // Undefined variables vanish with their separators.
        (
            "/m{x}/{x,target_host}{?y,target_port,z}{&x}",
            "a",
            "/m/a?target_port=443",
        ),
        // Literals stay as they are.
        (
            "/~a%2f!$&'()*+,;=:@/{target_host}/{target_port}",
            "a",
            "/~a%2f!$&'()*+,;=:@/a/443",
        ),
        (
            "/{target_host}/{target_port}/{target_host}",
            "a",
            "/a/443/a",
        ),
    ] {
        let template = Template::parse(&format!("https://relay.example{path}")).expect(path);
        assert_eq!(template.expand_path(&target(host, 443)), expanded);
        assert_eq!(template == default, path == DEFAULT_PATH);
    }
}

#[test]
fn relay_authority() {
    for (authority, host, port) in [
        ("relay.example", "relay.example", 443),
        ("Relay.Example:4433", "relay.example", 4433),
        ("192.0.2.6:1", "192.0.2.6", 1),
        ("[2001:db8::42]", "2001:db8::42", 443),
        ("[2001:db8::42]:4433", "2001:db8::42", 4433),
    ] {
        let url = format!("https://{authority}");
        let template = Template::from_authority_or_template(&url).unwrap();
        assert_eq!(template.authority(), authority);
        assert_eq!(template.host(), &Host::parse(host).unwrap());
        assert_eq!(template.port(), port);
        assert_eq!(template.to_string(), format!("{url}{DEFAULT_PATH}"));
        assert_eq!(Template::parse(&template.to_string()), Ok(template));
    }
}

// spec: 9298-2-j
#[test]
fn authority_or_template() {
    let parse = Template::from_authority_or_template;
    let default = Template::default_for("relay.example:4433");
    assert_eq!(parse("https://relay.example:4433"), default);
    assert_eq!(parse("HTTPS://relay.example:4433/"), default);
    let template = "https://relay.example/{target_host}/{target_port}";
    assert_eq!(parse(template), Template::parse(template));
    assert_eq!(
        parse("https://relay.example/masque"),
        Err(TemplateError::MissingVariable {
            name: "target_host"
        })
    );
    assert_eq!(parse("https://relay.example?x"), Err(TemplateError::Path));
    assert_eq!(parse("relay.example:4433"), Err(TemplateError::NotAbsolute));
    assert_eq!(
        Template::default_for("relay.example/x"),
        Err(TemplateError::Authority(TargetError::Byte { byte: b'/' }))
    );
}

// spec: 9298-2-a to 9298-2-g, 9298-2-i; section 10 of the RFC 9298 digest
#[test]
fn refused_templates() {
    use TemplateError::*;
    let authority = |e| Authority(e);
    for (text, violation) in [
        ("", NotAbsolute),
        ("/udp/{target_host}/{target_port}", NotAbsolute),
        ("://relay.example/{target_host}/{target_port}", NotAbsolute),
        ("//relay.example/{target_host}/{target_port}", NotAbsolute),
        ("http://relay.example/{target_host}/{target_port}", Scheme),
        (
            "{s}://relay.example/{target_host}/{target_port}",
            VariableOutsidePath,
        ),
        ("https://{target_host}/x/{target_port}", VariableOutsidePath),
        (
            "https://p.example:{target_port}/{target_host}",
            VariableOutsidePath,
        ),
        (
            "https://p.example{+target_host}/{target_port}",
            VariableOutsidePath,
        ),
        (
            "https:///{target_host}/{target_port}",
            authority(TargetError::EmptyHost),
        ),
        (
            "https://u@p.example/{target_host}/{target_port}",
            authority(TargetError::UserInfo),
        ),
        (
            "https://p.example:0/{target_host}/{target_port}",
            authority(TargetError::Port),
        ),
        (
            "https://p.example:/{target_host}/{target_port}",
            authority(TargetError::EmptyPort),
        ),
        ("https://p.example", Path),
        ("https://p.example?{target_host}/{target_port}", Path),
        (
            "https://p.example/{/target_host,target_port}",
            Operator { operator: '/' },
        ),
        (
            "https://p.example/{+target_host}/{target_port}",
            Operator { operator: '+' },
        ),
        (
            "https://p.example/{#target_host}/{target_port}",
            Operator { operator: '#' },
        ),
        (
            "https://p.example/x{.target_host,target_port}",
            Operator { operator: '.' },
        ),
        (
            "https://p.example/x{;target_host,target_port}",
            Operator { operator: ';' },
        ),
        (
            "https://p.example/x{|target_host,target_port}",
            Operator { operator: '|' },
        ),
        (
            "https://p.example/{target_host:3}/{target_port}",
            Modifier { modifier: ':' },
        ),
        (
            "https://p.example/{target_host*}/{target_port}",
            Modifier { modifier: '*' },
        ),
        (
            "https://p.example/{target_host}",
            MissingVariable {
                name: "target_port",
            },
        ),
        (
            "https://p.example/{target_port}",
            MissingVariable {
                name: "target_host",
            },
        ),
        ("https://p.example/{target_host}/{target_port", Brace),
        ("https://p.example/{target_host}/target_port}", Brace),
        (
            "https://p.example/{target_host}/{{target_port}}",
            VariableName,
        ),
        (
            "https://p.example/{target_host,}/{target_port}",
            VariableName,
        ),
        (
            "https://p.example/{}/{target_host}/{target_port}",
            VariableName,
        ),
        (
            "https://p.example/{a b}/{target_host}/{target_port}",
            Byte { byte: b' ' },
        ),
        (
            "https://p.example/{a-b}/{target_host}/{target_port}",
            VariableName,
        ),
        (
            "https://p.example/{a%4}/{target_host}/{target_port}",
            VariableName,
        ),
        (
            "https://p.example/é/{target_host}/{target_port}",
            Byte { byte: 0xc3 },
        ),
        (
            "https://p.example/<{target_host}>/{target_port}",
            Byte { byte: b'<' },
        ),
        ("https://p.example/%4/{target_host}/{target_port}", Escape),
        ("https://p.example/{target_host}/{target_port}#x", Fragment),
    ] {
        assert_eq!(error(text), violation, "{text}");
    }
    assert_eq!(
        PathTemplate::parse("x/{target_host}/{target_port}"),
        Err(Path)
    );
}

// spec: 9298-2-k, rc-chromium-b
#[test]
fn the_well_known_path() {
    let v4 = Match::Target(target("192.0.2.6", 443));
    let v6 = Match::Target(target("2001:db8::42", 443));
    assert_eq!(udp("192.0.2.6/443/"), v4);
    assert_eq!(udp("192.0.2.6/443"), v4);
    assert_eq!(udp("2001%3Adb8%3A%3A42/443/"), v6);
    assert_eq!(udp("2001%3adb8%3a%3a42/443/"), v6);
    assert_eq!(udp("2001:db8::42/443/"), v6);
    assert_eq!(
        udp("Target.Example./443/"),
        Match::Target(target("target.example", 443))
    );
    assert_eq!(udp("%61/%34%34%33/"), Match::Target(target("a", 443)));
    for path in [
        "192.0.2.6/443//",
        "192.0.2.6/443/x",
        "192.0.2.6/443/?",
        "192.0.2.6/443/?x=1",
        "192.0.2.6",
        "",
    ] {
        assert_eq!(udp(path), Match::NoMatch, "{path}");
    }
    let well_known = PathTemplate::well_known();
    assert_eq!(well_known.match_path(""), Match::NoMatch);
    assert_eq!(
        well_known.match_path("/.well-known/masque/ip/a/443/"),
        Match::NoMatch
    );
    assert_eq!(
        well_known.match_path("/x/.well-known/masque/udp/a/443/"),
        Match::NoMatch
    );
    assert_eq!(
        PathTemplate::parse(DEFAULT_PATH.strip_suffix('/').unwrap()),
        Ok(well_known)
    );
}

// spec: 9298-3-a, 9298-3-c, 9298-3-g, 9298-2-m; section 10 of the RFC 9298 digest
#[test]
fn malformed_targets() {
    use TargetError::*;
    for (path, error) in [
        ("/443/", EmptyHost),
        ("192.0.2.6//", EmptyPort),
        ("192.0.2.6/0/", Port),
        ("192.0.2.6/65536/", Port),
        ("192.0.2.6/+443/", Port),
        ("192.0.2.6/%2B443/", Port),
        ("192.0.2.6/%20443/", Port),
        ("%5B%3A%3A1%5D/443/", Brackets),
        ("[::1]/443/", Brackets),
        ("fe80%3A%3A1%25eth0/443/", Zone),
        ("a%00b/443/", Byte { byte: 0 }),
        ("a%0D%0Ab/443/", Byte { byte: b'\r' }),
        ("a+b/443/", Byte { byte: b'+' }),
        ("a%2Fb/443/", Byte { byte: b'/' }),
        // Decoded once, this is not "a.b".
        ("a%252Eb/443/", Byte { byte: b'%' }),
        ("a%C3%A9/443/", Byte { byte: 0xc3 }),
        ("a%/443/", Escape),
        ("a%4/443/", Escape),
        ("a%4g/443/", Escape),
        ("a%+4/443/", Escape),
        ("127.1/443/", Numeric),
        ("%30x7f.1/443/", Numeric),
    ] {
        assert_eq!(udp(path), Match::Malformed(error), "{path}");
    }
}

#[test]
fn queries() {
    let hit = Match::Target(target("2001:db8::42", 443));
    for template in [
        "/m{?target_host,target_port}",
        "/m?target_host={target_host}{&target_port}",
    ] {
        let matched = |path| matched(template, path);
        assert_eq!(
            matched("/m?target_host=2001%3Adb8%3A%3A42&target_port=443"),
            hit
        );
        assert_eq!(
            matched("/m?target_port=443&target_host=2001%3adb8%3a%3a42"),
            hit
        );
        assert_eq!(
            matched("/m?target_host=a&target_port=443&x=1"),
            Match::NoMatch
        );
        assert_eq!(matched("/m/?target_host=a&target_port=443"), Match::NoMatch);
        assert_eq!(matched("/m"), Match::Malformed(TargetError::EmptyHost));
        assert_eq!(
            matched("/m?target_host=a"),
            Match::Malformed(TargetError::EmptyPort)
        );
        assert_eq!(
            matched("/m?target_host&target_port=1"),
            Match::Malformed(TargetError::EmptyHost)
        );
        assert_eq!(
            matched("/m?target_host=a&target_host=b&target_port=1"),
            Match::Malformed(TargetError::Twice)
        );
    }
    let hit = Match::Target(target("a", 1));
    assert_eq!(
        matched("/m?h={target_host}&p={target_port}", "/m?p=1&h=a"),
        hit
    );

    // Fixed fields must be there, undefined variables need not.
    let matched = |path| matched("/m?v=1&w{&x,target_host,target_port}", path);
    assert_eq!(matched("/m?target_host=a&w&target_port=1&v=1"), hit);
    assert_eq!(matched("/m?target_host=a&w=&target_port=1&v=1&x=2"), hit);
    assert_eq!(
        matched("/m?v=1&v=1&target_host=a&target_port=1"),
        Match::NoMatch
    );
    assert_eq!(
        matched("/m?v=2&w&target_host=a&target_port=1"),
        Match::NoMatch
    );
    assert_eq!(
        matched("/m?v=1&w&&target_host=a&target_port=1"),
        Match::NoMatch
    );
}

#[test]
fn paths_with_other_delimiters() {
    let hit = Match::Target(target("a-1.example", 1));
    assert_eq!(matched("/{target_host,target_port}", "/a-1.example,1"), hit);
    assert_eq!(
        matched("/{target_host}:{target_port}/x", "/a-1.example:1/x"),
        hit
    );
    assert_eq!(
        matched("/{x}/{target_host}/{target_port}", "//a-1.example/1"),
        hit
    );
    assert_eq!(
        matched("/{x}/{target_host}/{target_port}", "/y/a-1.example/1"),
        hit
    );
    // The last slash is part of every template but the well-known one.
    assert_eq!(
        matched("/{target_host}/{target_port}/", "/a/1"),
        Match::NoMatch
    );
    assert_eq!(
        matched("/{target_host}/{target_port}", "/a/1/"),
        Match::NoMatch
    );
    assert_eq!(
        matched("/{target_host}{?target_port}", "/a-1.example?target_port=1"),
        hit
    );
}

#[test]
fn unmatchable_templates() {
    use TemplateError::*;
    for (path, error) in [
        ("/{target_host}{target_port}", Undelimited),
        ("/{target_host}-{target_port}", Undelimited),
        ("/{target_host}%20{target_port}", Undelimited),
        ("/{x,target_host}/{target_port}", Undelimited),
        ("/m{&target_host,target_port}", Undelimited),
        ("/m{?x}{&target_host,target_port}", Undelimited),
        ("/m{?x}&h={target_host}&p={target_port}", Undelimited),
        ("/m?t={target_host}:{target_port}", Undelimited),
        ("/m?{target_host}={target_port}", Undelimited),
        ("/m?v=1{?target_host,target_port}", Undelimited),
        ("/m?{?target_host,target_port}", Undelimited),
        ("/{target_host}/{target_port}?{?x}", Undelimited),
        ("/m?h={target_host}&h={target_port}", Undelimited),
        (
            "/{target_host}/{target_port}/{target_host}",
            RepeatedVariable {
                name: "target_host",
            },
        ),
        (
            "/{target_host}/{target_port}{?target_port}",
            RepeatedVariable {
                name: "target_port",
            },
        ),
    ] {
        let template = Template::parse(&format!("https://relay.example{path}")).expect(path);
        assert_eq!(template.path_template(), Err(error), "{path}");
    }
}

fn hosts() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<std::net::IpAddr>().prop_map(Host::Ip),
        "[a-z_][a-z0-9_]{0,20}(\\.[a-z][a-z0-9-]{0,10}[a-z]){0,3}"
            .prop_map(|name| Host::parse(&name).unwrap()),
    ]
}

proptest! {
    #[test]
    fn servers_read_what_clients_send(host in hosts(), port in 1u16.., which in 0usize..7) {
        let path = [
            DEFAULT_PATH,
            "/masque{?target_host,target_port}",
            "/masque?h={target_host}&p={target_port}",
            "/{target_host}/{x}/{target_port}{?y}",
            "/{target_host,target_port}",
            "/{target_host}:{target_port}",
            "/m?v=1{&target_port,z,target_host}",
        ].get(which).copied().unwrap();
        let template = Template::parse(&format!("https://relay.example{path}")).unwrap();
        let target = Target { host, port };
        let request = template.expand_path(&target);
        prop_assert!(request.bytes().all(|b| b.is_ascii_graphic()));
        prop_assert_eq!(template.path_template().unwrap().match_path(&request), Match::Target(target));
    }

    #[test]
    fn any_text(text in "https://a/[{}?&a-c/=%0-9]{0,30}|.{0,40}", path in ".{0,60}") {
        if let Ok(template) = Template::from_authority_or_template(&text) {
            prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
        }
        let rest = format!("/.well-known/masque/udp/{path}");
        for path in [path, rest] {
            // A match is a target that clients can ask for.
            if let Match::Target(target) = PathTemplate::well_known().match_path(&path) {
                let template = Template::default_for("relay.example").unwrap();
                let again = PathTemplate::well_known().match_path(&template.expand_path(&target));
                prop_assert_eq!(again, Match::Target(target));
            }
        }
    }
}

// spec: ctcp-3-a, ctcp-3-c, ctcp-5.2-b
#[test]
fn templates_of_all_services() {
    let target: Target = "[2001:db8::1]:443".parse().unwrap();
    let path = "/.well-known/masque/tcp/2001%3Adb8%3A%3A1/443/";
    for url in [
        "https://relay.example:4433",
        "https://relay.example:4433/",
        "https://relay.example:4433/.well-known/masque/udp/{target_host}/{target_port}/",
    ] {
        let templates = RelayTemplates::from_relay_url(url).unwrap();
        assert_eq!(templates.udp.authority(), "relay.example:4433");
        assert_eq!(templates.tcp.unwrap().expand_path(&target), path);
        let ip = Template::default_ip_for("relay.example:4433").unwrap();
        assert_eq!(templates.ip, Some(ip));
    }
    for url in [
        "https://relay.example/udp/{target_host}/{target_port}/",
        "https://relay.example/masque{?target_host,target_port}",
    ] {
        let templates = RelayTemplates::from_relay_url(url).unwrap();
        assert_eq!((templates.tcp, templates.ip), (None, None), "{url}");
    }

    let matched = |path| PathTemplate::well_known_tcp().match_path(path);
    assert_eq!(matched(path), Match::Target(target.clone()));
    assert_eq!(matched(&path[..path.len() - 1]), Match::Target(target));
    assert_eq!(
        matched("/.well-known/masque/udp/192.0.2.1/443/"),
        Match::NoMatch
    );
    assert!(matches!(
        matched("/.well-known/masque/tcp/192.0.2.1/0/"),
        Match::Malformed(_)
    ));
}

#[test]
fn relay_urls_that_are_wrong_say_how() {
    for (url, expected) in [
        (
            "https://relay.example:99999",
            "port is not a decimal number from 1 to 65535",
        ),
        ("https://relay.example:", "port is missing"),
        (
            "https://user:pw@relay.example",
            "user and password do not belong here: credentials are an option of their own",
        ),
        ("https://::1", "IPv6 address must be in brackets here"),
        (
            "https://bücher.example",
            "byte 0xc3 is not allowed in a URI template: international names are written in ASCII, as xn--…",
        ),
        ("https://a b", "byte 0x20 is not allowed in a URI template"),
    ] {
        let error = Template::from_authority_or_template(url).unwrap_err();
        assert_eq!(error.to_string(), expected, "{url}");
    }
}
