use proptest::prelude::*;

use super::*;

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(PROXY_STATUS, line.parse().unwrap());
    }
    headers
}

fn parse(lines: &[&str]) -> Vec<Member> {
    ProxyStatus::parse(&headers(lines)).members
}

fn value(headers: &HeaderMap) -> &str {
    assert_eq!(headers.get_all(PROXY_STATUS).iter().count(), 1);
    headers.get(PROXY_STATUS).unwrap().to_str().unwrap()
}

// spec: 9209-2-a; section 1 of the Proxy-Status digest
#[test]
fn the_example() {
    let line =
        r#""relay-3.example.net"; error=dns_error; rcode="NXDOMAIN"; next-hop="target.example""#;
    let mut member = Member::new("relay-3.example.net");
    member.error = Some(ProxyError::DnsError);
    member.rcode = Some("NXDOMAIN".into());
    member.next_hop = Some("target.example".into());
    assert_eq!(parse(&[line]), std::slice::from_ref(&member));
    assert_eq!(member.to_string().replace(';', "; "), line);
}

#[test]
fn every_parameter() {
    let line = concat!(
        r#"relay.example;error=tls_alert_received;rcode="SERVFAIL";info-code=22;alert-id=40;"#,
        r#"next-hop="192.0.2.6";next-protocol=h3;received-status=503;details="a \"b\" \\c""#
    );
    let member = Member {
        name: Name::Token("relay.example".into()),
        error: Some(ProxyError::TlsAlertReceived),
        next_hop: Some("192.0.2.6".into()),
        next_protocol: Some(b"h3"[..].into()),
        received_status: Some(503),
        rcode: Some("SERVFAIL".into()),
        info_code: Some(22),
        alert_id: Some(40),
        details: Some(r#"a "b" \c"#.into()),
    };
    assert_eq!(parse(&[line]), std::slice::from_ref(&member));
    assert_eq!(member.to_string(), line);
}

// spec: 9651-4.2-b
#[test]
fn members_of_all_lines_in_order() {
    let names = |lines| {
        parse(lines)
            .iter()
            .map(|m| m.name.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&["a, \"b\"", "c;error=dns_timeout"]), ["a", "b", "c"]);
    assert_eq!(names(&["  a  ,\tb "]), ["a", "b"]);
    // Neither Token nor String: no intermediary, but the others are.
    assert_eq!(names(&["a, 192, (x y), ?1, :AA==:, d"]), ["a", "d"]);
}

// spec: 9651-4.2-a
#[test]
fn what_does_not_parse_is_absent() {
    for lines in [
        &["192.0.2.6;error=dns_error"][..],
        &["a,"],
        &["a", ""],
        &["a;Error=dns_error"],
        &["\"a"],
        &["\"é\""],
        &["a b"],
        &[""],
        &[],
    ] {
        assert_eq!(parse(lines), [], "{lines:?}");
    }
}

// spec: 9209-2.1-a, 9209-2.1.4-a; section 7 of the Proxy-Status digest
#[test]
fn parameters_of_the_wrong_type_are_ignored() {
    let ignored = [
        r#"a;error="dns_error""#,
        "a;error",
        "a;error=new_type",
        "a;rcode=NXDOMAIN",
        "a;received-status=\"502\"",
        "a;received-status=70000",
        "a;received-status=-1",
        "a;received-status=502.0",
        "a;next-hop=?1",
        "a;details=text",
        "a;next-hop-aliases=\"b,c\";x=1",
    ];
    let plain = Member {
        name: Name::Token("a".into()),
        ..Member::new("")
    };
    for line in ignored {
        assert_eq!(parse(&[line]), std::slice::from_ref(&plain), "{line}");
    }
    // Of a repeated parameter the last counts.
    let member = parse(&["a;received-status=1;received-status=502"])
        .pop()
        .unwrap();
    assert_eq!(member.received_status, Some(502));
}

// spec: 9209-2.1.3-a
#[test]
fn next_protocol_is_a_token_if_it_can_be() {
    let mut member = Member::new("a");
    for (id, text) in [
        (&b"h2"[..], "h2"),
        (b"http/1.1", "http/1.1"),
        (b"2h", ":Mmg=:"),
        (b"h\xff", ":aP8=:"),
    ] {
        member.next_protocol = Some(id.into());
        let line = format!("\"a\";next-protocol={text}");
        assert_eq!(member.to_string(), line);
        assert_eq!(parse(&[&line]), std::slice::from_ref(&member));
    }
}

// spec: 9209-2-b; section 7 of the Proxy-Status digest
#[test]
fn append_keeps_the_others() {
    let mut own = Member::new("ingress.example");
    own.received_status = Some(502);
    let text = r#""ingress.example";received-status=502"#;

    let mut map = HeaderMap::new();
    append(&mut map, &own).unwrap();
    assert_eq!(value(&map), text);

    let mut map = headers(&["a;x=1; y", "\"b\""]);
    append(&mut map, &own).unwrap();
    assert_eq!(value(&map), format!("a;x=1; y, \"b\", {text}"));

    for useless in [&["a b"][..], &["a", ""], &["", ""], &[""]] {
        let mut map = headers(useless);
        append(&mut map, &own).unwrap();
        assert_eq!(value(&map), text);
    }
}

// spec: 9209-2-g
#[test]
fn unprintable_text_is_dropped() {
    let mut member = Member::new("büro\r\n\"1\"");
    member.details = Some("tab\there \u{7f}~".into());
    assert_eq!(member.to_string(), r#""bro\"1\"";details="tabhere ~""#);
    member = Member {
        name: Name::Token("192.0.2.6".into()),
        ..Member::new("")
    };
    assert_eq!(member.to_string(), r#""192.0.2.6""#);
}

#[test]
fn an_empty_list_is_not_sent() {
    assert_eq!(ProxyStatus::default().serialize(), None);
}

fn members() -> impl Strategy<Value = Member> {
    let text = || proptest::option::of("[ -~]{0,12}".prop_map(Box::from));
    let name = prop_oneof![
        "[a-zA-Z*][a-z0-9.:/_-]{0,12}".prop_map(|name| Name::Token(name.into())),
        "[ -~]{0,12}".prop_map(|name| Name::String(name.into())),
    ];
    let error = proptest::option::of(proptest::sample::select(ProxyError::ALL));
    let id = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8).prop_map(Box::from));
    (
        name,
        error,
        text(),
        id,
        any::<Option<u16>>(),
        text(),
        any::<Option<u16>>(),
        any::<Option<u8>>(),
        text(),
    )
        .prop_map(
            |(
                name,
                error,
                next_hop,
                next_protocol,
                received_status,
                rcode,
                info_code,
                alert_id,
                details,
            )| Member {
                name,
                error,
                next_hop,
                next_protocol,
                received_status,
                rcode,
                info_code,
                alert_id,
                details,
            },
        )
}

proptest! {
    #[test]
    fn round_trip(members in proptest::collection::vec(members(), 1..4)) {
        let status = ProxyStatus { members };
        let line = status.serialize().unwrap();
        prop_assert_eq!(&ProxyStatus::parse(&headers(&[&line])), &status);

        let mut map = HeaderMap::new();
        for member in &status.members {
            append(&mut map, member).unwrap();
        }
        prop_assert_eq!(value(&map), line);
    }

    #[test]
    fn any_lines(lines in proptest::collection::vec("[a-z0-9\";=,?:() *\\\\.-]{0,40}", 0..4)) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut map = headers(&lines);
        let mut status = ProxyStatus::parse(&map);
        let own = Member::new("own");
        append(&mut map, &own).unwrap();
        status.members.push(own);
        prop_assert_eq!(ProxyStatus::parse(&map), status);
    }
}
