use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> ScopeTarget {
    ScopeTarget::Prefix(text.parse().unwrap())
}

// spec: 9484-4.6-a, 9484-4.6-b
#[test]
fn targets() {
    for (text, target, written) in [
        ("*", ScopeTarget::Any, "*"),
        ("192.0.2.42", prefix("192.0.2.42/32"), "192.0.2.42"),
        ("192.0.2.42/32", prefix("192.0.2.42/32"), "192.0.2.42"),
        ("192.0.2.0/24", prefix("192.0.2.0/24"), "192.0.2.0/24"),
        ("10.0.0.0/08", prefix("10.0.0.0/8"), "10.0.0.0/8"),
        ("0.0.0.0/0", prefix("0.0.0.0/0"), "0.0.0.0/0"),
        ("2001:DB8::42", prefix("2001:db8::42/128"), "2001:db8::42"),
        ("2001:db8::/32", prefix("2001:db8::/32"), "2001:db8::/32"),
        ("2001:db8::/032", prefix("2001:db8::/32"), "2001:db8::/32"),
        ("::/0", prefix("::/0"), "::/0"),
        ("::1/128", prefix("::1/128"), "::1"),
        (
            "Target.Example.",
            ScopeTarget::Name("target.example".into()),
            "target.example",
        ),
    ] {
        assert_eq!(text.parse().as_ref(), Ok(&target), "{text}");
        assert_eq!(target.to_string(), written);
    }
}

// spec: 9484-4.6-a, 9484-4.6-b, 9484-4.6-c, 9484-4.6-h
#[test]
fn refused_targets() {
    use ScopeError::*;
    let target = |error| Target(error);
    for (text, error) in [
        ("", Empty { name: "target" }),
        ("**", target(TargetError::Byte { byte: b'*' })),
        ("*/0", target(TargetError::Byte { byte: b'*' })),
        ("/24", target(TargetError::EmptyHost)),
        ("target.example/24", NamePrefix),
        ("10/8", target(TargetError::Numeric)),
        ("192.0.2/24", target(TargetError::Numeric)),
        ("127.1", target(TargetError::Numeric)),
        ("0x7f000001", target(TargetError::Numeric)),
        ("[::1]", target(TargetError::Brackets)),
        ("fe80::1%eth0", target(TargetError::Zone)),
        ("fe80::%eth0/64", target(TargetError::Zone)),
        ("fe80::/64%eth0", PrefixLength { max: 128 }),
        ("192.0.2.0/", PrefixLength { max: 32 }),
        ("192.0.2.0/33", PrefixLength { max: 32 }),
        ("192.0.2.0/024", PrefixLength { max: 32 }),
        ("192.0.2.0/+8", PrefixLength { max: 32 }),
        ("192.0.2.0/24/24", PrefixLength { max: 32 }),
        ("192.0.2.0/255.255.255.0", PrefixLength { max: 32 }),
        ("2001:db8::/129", PrefixLength { max: 128 }),
        ("2001:db8::/0032", PrefixLength { max: 128 }),
        ("2001:db8::/256", PrefixLength { max: 128 }),
        ("192.0.2.1/24", HostBits { len: 24 }),
        ("2001:db8::1/64", HostBits { len: 64 }),
        ("0.0.0.1/0", HostBits { len: 0 }),
    ] {
        assert_eq!(text.parse::<ScopeTarget>(), Err(error), "{text:?}");
    }
}

// spec: 9484-4.6-d, 9484-3-c
#[test]
fn protocols() {
    let protocol = |text| Scope::from_variables(None, Some(text)).map(|scope| scope.protocol);
    assert_eq!(protocol("*"), Ok(None));
    assert_eq!(protocol("0"), Ok(Some(0)));
    assert_eq!(protocol("017"), Ok(Some(17)));
    assert_eq!(protocol("255"), Ok(Some(255)));
    assert_eq!(protocol(""), Err(ScopeError::Empty { name: "ipproto" }));
    for text in [
        "256", "0017", "+17", "-1", " 17", "17 ", "udp", "0x11", "**", "1*",
    ] {
        assert_eq!(protocol(text), Err(ScopeError::Protocol), "{text:?}");
    }
}

#[test]
fn absent_variables_are_wildcards() {
    assert_eq!(Scope::from_variables(None, None), Ok(Scope::default()));
    let wildcards = Scope::from_variables(Some("*"), Some("*"));
    assert_eq!(wildcards, Ok(Scope::default()));
    assert_eq!(Scope::default().variables(), ("*".into(), "*".into()));
}

#[test]
fn scopes_in_words() {
    let scope = |target, protocol| Scope::from_variables(target, protocol).unwrap().to_string();
    assert_eq!(scope(None, None), "*");
    assert_eq!(
        scope(Some("192.0.2.0/24"), Some("17")),
        "192.0.2.0/24 (protocol 17)"
    );
    assert_eq!(scope(Some("2001:db8::1/128"), None), "2001:db8::1");
}

proptest! {
    #[test]
    fn any_text(target in "[0-9a-f:./*x%]{0,24}|.{0,24}", protocol in "[0-9*+ ]{0,4}|.{0,4}") {
        if let Ok(scope) = Scope::from_variables(Some(&target), Some(&protocol)) {
            let (target, protocol) = scope.variables();
            prop_assert!(!target.is_empty() && !protocol.is_empty());
            prop_assert_eq!(Scope::from_variables(Some(&target), Some(&protocol)), Ok(scope));
        }
    }
}
