//! The vectors and the rules of DNS_ASSIGN and PREF64.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use super::*;
use crate::wire::ip::IpCapsule;

const FULL_TUNNEL: &[u8] = b"\
    \x01\x00\x01\x00\x00\x12masque.example.org\
    \x1e\x00\x01\x00\x06\x02h2\x02h3\x00\x07\x00\x10/dns-query{?dns}\
    \x01\x00\x00";

const SPLIT_TUNNEL: &[u8] = b"\
    \x01\x00\x01\x01\xc0\x00\x02\x21\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x00\
    \x01\x15internal.corp.example\
    \x02\x15internal.corp.example\x0ccorp.example";

fn parse(value: &[u8]) -> Result<Vec<DnsConfig>, IpCapsuleError> {
    let capsule = IpCapsule::parse(CapsuleType::DNS_ASSIGN, value).unwrap()?;
    let IpCapsule::DnsAssign(configs) = capsule else {
        panic!("{capsule:?}");
    };
    Ok(configs)
}

fn parse_pref64(value: &[u8]) -> Result<Vec<Ipv6Net>, IpCapsuleError> {
    let capsule = IpCapsule::parse(CapsuleType::PREF64, value).unwrap()?;
    let IpCapsule::Pref64(prefixes) = capsule else {
        panic!("{capsule:?}");
    };
    Ok(prefixes)
}

/// The whole capsule; `head` is type and length.
fn encoded(capsule: &IpCapsule, head: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    capsule.encode(&mut out);
    assert!(out.starts_with(head), "{out:x?}");
    out.split_off(head.len()).into()
}

fn full_tunnel() -> DnsConfig {
    DnsConfig {
        nameservers: vec![Nameserver {
            priority: 1,
            ipv4: vec![],
            ipv6: vec![],
            authentication_name: "masque.example.org".into(),
            service_parameters: Bytes::from_static(
                b"\0\x01\0\x06\x02h2\x02h3\0\x07\0\x10/dns-query{?dns}",
            ),
        }],
        internal_domains: vec!["".into()],
        search_domains: vec![],
    }
}

fn split_tunnel() -> DnsConfig {
    let addresses = [
        "192.0.2.33".parse().unwrap(),
        "2001:db8::1".parse().unwrap(),
    ];
    DnsConfig {
        nameservers: vec![Nameserver::plain(&addresses)],
        internal_domains: vec!["internal.corp.example".into()],
        search_domains: vec!["internal.corp.example".into(), "corp.example".into()],
    }
}

// The vectors of section 1 of the digest of extensions
// spec: cidns-3.4-a
#[test]
fn examples_of_the_draft() {
    const TYPE: [u8; 4] = [0x9a, 0xce, 0x79, 0xec];
    let assign = |configs: &[DnsConfig]| IpCapsule::DnsAssign(configs.to_vec());
    for (config, head, value) in [
        (
            full_tunnel(),
            &[TYPE.as_slice(), &[0x3a]].concat(),
            FULL_TUNNEL,
        ),
        (
            split_tunnel(),
            &[TYPE.as_slice(), &[0x40, 0x56]].concat(),
            SPLIT_TUNNEL,
        ),
    ] {
        assert_eq!(parse(value).as_deref(), Ok([config.clone()].as_slice()));
        assert_eq!(encoded(&assign(&[config]), head), value);
    }
    let both = [full_tunnel(), split_tunnel()];
    let value = [FULL_TUNNEL, SPLIT_TUNNEL].concat();
    assert_eq!(parse(&value).as_deref(), Ok(both.as_slice()));
    assert_eq!(encoded(&assign(&both), &TYPE)[2..], value);
    assert_eq!(parse(&[]), Ok(vec![]));

    let [doh] = &full_tunnel().nameservers[..] else {
        panic!("one server");
    };
    assert_eq!(doh.parameter(ServiceKey::ALPN), Some(&b"\x02h2\x02h3"[..]));
    assert_eq!(doh.parameter(ServiceKey(7)), Some(&b"/dns-query{?dns}"[..]));
    assert_eq!(doh.parameter(ServiceKey::NO_DEFAULT_ALPN), None);
    assert!(!doh.speaks_plain_dns());
    assert!(split_tunnel().nameservers[0].speaks_plain_dns());
}

// spec: cidns-3.2-a, cidns-3.2-b, cidns-3.2-c, cidns-3.2-d
#[test]
fn refused_nameservers() {
    use DnsError::*;
    const ALPN: &[u8] = b"\0\x01\0\x03\x02h3";
    const NO_DEFAULT: &[u8] = b"\0\x02\0\0";
    let server = |priority, address: &[u8], name: &str, parameters: &[u8]| Nameserver {
        priority,
        ipv4: address
            .first_chunk::<4>()
            .map(|ip| (*ip).into())
            .into_iter()
            .collect(),
        ipv6: vec![],
        authentication_name: name.into(),
        service_parameters: Bytes::copy_from_slice(parameters),
    };
    let here = &[192, 0, 2, 33][..];
    let (alpn, no_default) = (ServiceKey::ALPN, ServiceKey::NO_DEFAULT_ALPN);
    for (server, expected) in [
        (server(1, here, "", b""), Ok(())),
        (server(1, here, "dns.example", ALPN), Ok(())),
        (server(1, here, "dns.example", b""), Ok(())),
        (
            server(1, here, "dns.example", &[ALPN, NO_DEFAULT].concat()),
            Ok(()),
        ),
        (
            server(1, &[], "dns.example", &[ALPN, NO_DEFAULT].concat()),
            Ok(()),
        ),
        (server(1, here, "", b"\0\x03\0\x02\0\x35"), Ok(())),
        (server(0, here, "", b""), Err(Priority)),
        (server(1, &[], "", b""), Err(NoAddress)),
        (server(1, &[], "dns.example", b""), Err(NoAddress)),
        (
            server(1, &[], "dns.example", b"\0\x07\0\x01/"),
            Err(NoAddress),
        ),
        (server(1, here, "", ALPN), Err(NoName { key: alpn })),
        (
            server(1, here, "", NO_DEFAULT),
            Err(NoName { key: no_default }),
        ),
        (
            server(1, here, "", b"\0\x04\0\x04\xc0\0\x02\x21"),
            Err(Hint {
                key: ServiceKey::IPV4_HINT,
            }),
        ),
        (
            server(1, here, "", b"\0\x06\0\0"),
            Err(Hint {
                key: ServiceKey::IPV6_HINT,
            }),
        ),
        (
            server(1, here, "a.example", &[NO_DEFAULT, ALPN].concat()),
            Err(Parameters),
        ),
        (
            server(1, here, "a.example", &[ALPN, ALPN].concat()),
            Err(Parameters),
        ),
        (
            server(1, here, "a.example", b"\0\x01\0\x03\x02h"),
            Err(Parameters),
        ),
        (server(1, here, "a.example", b"\0\x01\0"), Err(Parameters)),
    ] {
        let capsule = IpCapsule::DnsAssign(vec![DnsConfig {
            nameservers: vec![server.clone()],
            ..DnsConfig::default()
        }]);
        let expected = expected.map_err(IpCapsuleError::Dns);
        assert_eq!(capsule.check(), expected, "{server:?}");
        // Type and length are five bytes: the values are short.
        let value = encoded(&capsule, &[0x9a, 0xce, 0x79, 0xec]).split_off(1);
        assert_eq!(parse(&value).map(drop), expected, "{server:?}");
    }
}

#[test]
fn domains() {
    let parse = |name: &[u8]| {
        let len = u8::try_from(name.len()).unwrap();
        let value = [&[0, 1, len], name, &[0]].concat();
        let configs = parse(&value)?;
        Ok(configs[0].internal_domains[0].to_string())
    };
    // spec: cidns-3.5-a
    assert_eq!(parse(b""), Ok(String::new()));
    assert_eq!(parse(b"."), Ok(String::new()));
    assert_eq!(parse(b"Corp.Example."), Ok("corp.example".into()));
    assert_eq!(
        parse(b"_x.10.in-addr.arpa"),
        Ok("_x.10.in-addr.arpa".into())
    );
    for (name, error) in [
        (&b"a..b"[..], TargetError::Label { len: 0 }),
        (b"a b", TargetError::Byte { byte: b' ' }),
        (b"a\0", TargetError::Byte { byte: 0 }),
        (b"b\xc3\xbccher", TargetError::Byte { byte: 0xc3 }),
        (b"b\xff", TargetError::Byte { byte: 0xff }),
        (b"192.0.2.1", TargetError::Numeric),
        (b"::1", TargetError::Numeric),
    ] {
        let error = IpCapsuleError::Dns(DnsError::Domain(error));
        assert_eq!(parse(name), Err(error), "{name:?}");
    }
}

#[test]
fn counts_that_promise_too_much() {
    for value in [
        &b"\x01"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00",
        b"\x01\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xc0\x00\x02\x21",
        b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xffa",
        b"\x00\x00",
    ] {
        assert_eq!(parse(value), Err(IpCapsuleError::Truncated), "{value:x?}");
    }
    for len in 1..SPLIT_TUNNEL.len() {
        let cut = parse(&SPLIT_TUNNEL[..len]);
        assert_eq!(cut, Err(IpCapsuleError::Truncated), "{len}");
    }
}

// spec: cidns-4.1-a, cidns-4.2-a
#[test]
fn pref64() {
    const TYPE: [u8; 4] = [0xa7, 0x4c, 0x0f, 0xbc];
    let entry = |len: u8, octets: [u8; 12]| [&[len][..], &octets].concat();
    let well_known = entry(96, [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]);
    let prefix: Ipv6Net = "64:ff9b::/96".parse().unwrap();
    assert_eq!(parse_pref64(&well_known), Ok(vec![prefix]));
    let capsule = IpCapsule::Pref64(vec![prefix]);
    let head = [TYPE.as_slice(), &[0x0d]].concat();
    assert_eq!(encoded(&capsule, &head), well_known);
    assert_eq!(parse_pref64(&[]), Ok(vec![]));
    let head = [TYPE.as_slice(), &[0]].concat();
    assert!(encoded(&IpCapsule::Pref64(vec![]), &head).is_empty());

    let octets = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x99];
    for len in 0..=u8::MAX {
        let parsed = parse_pref64(&entry(len, octets));
        match len {
            // The suffix stays.
            32 | 40 | 48 | 56 | 64 | 96 => {
                let prefix = Ipv6Net::new("2001:db8::99:0:0".parse().unwrap(), len).unwrap();
                assert_eq!(parsed, Ok(vec![prefix]));
                let capsule = IpCapsule::Pref64(vec![prefix]);
                let head = [TYPE.as_slice(), &[0x0d]].concat();
                assert_eq!(encoded(&capsule, &head), entry(len, octets));
            }
            len => assert_eq!(parsed, Err(DnsError::Pref64Length { len }.into())),
        }
    }
    let two = [entry(96, octets), well_known].concat();
    assert_eq!(parse_pref64(&two).map(|prefixes| prefixes.len()), Ok(2));
    for len in (1..26).filter(|len| *len != 13) {
        assert_eq!(parse_pref64(&two[..len]), Err(IpCapsuleError::Truncated));
    }
}
