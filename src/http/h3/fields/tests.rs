use proptest::prelude::*;

use super::super::frame::{FrameEvent, FrameReader};
use super::super::fuzz_entry;
use super::super::testing::hex;
use super::*;

const PLAIN_UDP: &str = "01 40 65 00 00 cf 27 02 3a 70 72 6f 74 6f 63 6f 6c 0b 63 6f 6e 6e 65 63 \
    74 2d 75 64 70 d7 50 0b 65 78 61 6d 70 6c 65 2e 6f 72 67 51 26 2f 2e 77 65 6c 6c 2d 6b 6e 6f \
    77 6e 2f 6d 61 73 71 75 65 2f 75 64 70 2f 31 39 32 2e 30 2e 32 2e 36 2f 34 34 33 2f 27 09 63 \
    61 70 73 75 6c 65 2d 70 72 6f 74 6f 63 6f 6c 02 3f 31";
const HUFFMAN_UDP: &str = "01 40 4e 00 00 cf 2f 00 b9 5d 87 49 c8 7a 3f 88 21 ea a8 a4 4a d6 c9 5f \
    d7 50 88 2f 91 d3 5d 05 5c f6 4d 51 9c 61 7f 05 a2 85 ba d4 7f 15 31 48 d1 da d2 b1 6c 95 b0 \
    17 c4 b8 17 12 ee 30 d3 4c b1 2f 04 20 eb 45 b4 15 6a ec 3a 4e 43 d1 82 ff 03";
const PLAIN_IP: &str = "01 40 59 00 00 cf 27 02 3a 70 72 6f 74 6f 63 6f 6c 0a 63 6f 6e 6e 65 63 74 \
    2d 69 70 d7 50 0b 65 78 61 6d 70 6c 65 2e 6f 72 67 51 1b 2f 2e 77 65 6c 6c 2d 6b 6e 6f 77 6e \
    2f 6d 61 73 71 75 65 2f 69 70 2f 2a 2f 2a 2f 27 09 63 61 70 73 75 6c 65 2d 70 72 6f 74 6f 63 \
    6f 6c 02 3f 31";
const CLASSIC: &str = "01 17 00 00 cf 50 12 74 61 72 67 65 74 2e 65 78 61 6d 70 6c 65 3a 34 34 33";

const EXTENDED: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "connect-udp"),
    (":scheme", "https"),
    (":authority", "example.org"),
    (":path", "/.well-known/masque/udp/192.0.2.6/443/"),
];
const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "example.org"),
    (":path", "/"),
];

/// The lines of a HEADERS frame.
fn headers(frame: &str) -> Vec<FieldLine> {
    let mut input = Bytes::from(hex(frame));
    match FrameReader::new(4096).next(&mut input) {
        Ok(Some(FrameEvent::Headers(block))) => qpack::decode(&block, 4096).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn field_line(name: &[u8], value: &[u8]) -> FieldLine {
    FieldLine {
        name: Bytes::copy_from_slice(name),
        value: Bytes::copy_from_slice(value),
        never_indexed: false,
    }
}

fn lines<'a>(fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Vec<FieldLine> {
    fields
        .into_iter()
        .map(|(name, value)| field_line(name.as_bytes(), value.as_bytes()))
        .collect()
}

fn request(fields: &[(&str, &str)]) -> Result<RequestHead, HeadError> {
    request_from_lines(lines(fields))
}

fn response(fields: &[(&str, &str)]) -> Result<ResponseHead, HeadError> {
    response_from_lines(lines(fields))
}

/// `base` with one more field at its end.
fn with(base: &[(&str, &str)], name: &str, value: &str) -> Result<RequestHead, HeadError> {
    request_from_lines(lines(base.iter().chain([&(name, value)])))
}

/// `base` with another value for one of its fields; `None` leaves the field out.
fn instead(
    base: &[(&str, &str)],
    name: &str,
    value: Option<&str>,
) -> Result<RequestHead, HeadError> {
    let fields: Vec<_> = base
        .iter()
        .filter_map(|&(n, v)| {
            if n == name {
                Some((n, value?))
            } else {
                Some((n, v))
            }
        })
        .collect();
    request(&fields)
}

fn udp_head() -> RequestHead {
    let mut head = RequestHead::extended_connect(
        "connect-udp",
        "https",
        "example.org",
        "/.well-known/masque/udp/192.0.2.6/443/",
    );
    head.headers
        .insert("capsule-protocol", HeaderValue::from_static("?1"));
    head
}

#[test]
fn connect_udp_vectors() {
    assert_eq!(request_from_lines(headers(PLAIN_UDP)), Ok(udp_head()));
    assert_eq!(request_from_lines(headers(HUFFMAN_UDP)), Ok(udp_head()));

    // The vector with Huffman code also has it for "?1", which does not get shorter.
    let expected = hex(&HUFFMAN_UDP.replace("82 ff 03", "02 3f 31"));
    let mut block = Vec::new();
    encode_request(&udp_head(), &mut block);
    assert_eq!(Some(block.as_slice()), expected.get(3..));
}

#[test]
fn connect_ip_vector() {
    let head = request_from_lines(headers(PLAIN_IP)).unwrap();
    assert_eq!(head.protocol.as_deref(), Some("connect-ip"));
    assert_eq!(head.path.as_deref(), Some("/.well-known/masque/ip/*/*/"));
    assert!(head.is_connect() && head.is_extended_connect());
}

#[test]
fn classic_connect_vector() {
    let head = RequestHead::classic_connect("target.example:443");
    assert_eq!(request_from_lines(headers(CLASSIC)), Ok(head.clone()));
    assert!(head.is_connect() && !head.is_extended_connect());
    let answer = response_from_lines(headers("01 03 00 00 d9"));
    assert_eq!(answer, Ok(ResponseHead::new(StatusCode::OK)));
}

#[test]
fn response_vectors() {
    let mut ok = ResponseHead::new(StatusCode::OK);
    ok.headers
        .insert("capsule-protocol", HeaderValue::from_static("?1"));
    let plain = "01 18 00 00 d9 27 09 63 61 70 73 75 6c 65 2d 70 72 6f 74 6f 63 6f 6c 02 3f 31";
    let huffman = "01 13 00 00 d9 2f 04 20 eb 45 b4 15 6a ec 3a 4e 43 d1 82 ff 03";
    assert_eq!(response_from_lines(headers(plain)), Ok(ok.clone()));
    assert_eq!(response_from_lines(headers(huffman)), Ok(ok.clone()));
    let mut block = Vec::new();
    encode_response(&ok, &mut block);
    let expected = hex(&huffman.replace("82 ff 03", "02 3f 31"));
    assert_eq!(Some(block.as_slice()), expected.get(2..));

    let bad_gateway = response_from_lines(headers(
        "01 40 45 00 00 5f 09 03 35 30 32 27 05 70 72 6f 78 79 2d 73 74 61 74 75 73 2e 72 65 6c \
         61 79 2e 65 78 61 6d 70 6c 65 3b 65 72 72 6f 72 3d 64 6e 73 5f 65 72 72 6f 72 3b 72 63 \
         6f 64 65 3d 22 4e 58 44 4f 4d 41 49 4e 22",
    ))
    .unwrap();
    assert_eq!(bad_gateway.status, StatusCode::BAD_GATEWAY);
    let status = bad_gateway.headers.get("proxy-status").unwrap();
    assert_eq!(status, "relay.example;error=dns_error;rcode=\"NXDOMAIN\"");
}

#[test]
fn requests_other_than_connect_are_read() {
    assert_eq!(request(&GET).unwrap().method, Method::GET);
    assert!(with(&GET, "content-length", "5").is_ok());
    assert!(with(&GET, "content-type", "text/plain").is_ok());
    let options = [
        (":method", "OPTIONS"),
        (":scheme", "https"),
        (":authority", "example.org"),
        (":path", "*"),
    ];
    assert!(request(&options).is_ok());
    // Schemes without a mandatory authority.
    let urn = [(":method", "GET"), (":scheme", "urn"), (":path", "x:y")];
    assert_eq!(request(&urn).unwrap().authority, None);
}

#[test]
fn pseudo_headers_come_first_once_and_are_known() {
    // spec: 9114-4.3-a, 9114-4.3.1-b, 9114-4.1.2-b
    let unknown = |name: &str| HeadError::UnknownPseudo { name: name.into() };
    let late = [("a", "b"), (":method", "GET")];
    let misplaced = HeadError::MisplacedPseudo {
        name: ":method".into(),
    };
    assert_eq!(request(&late), Err(misplaced.clone()));
    assert_eq!(
        trailers_from_lines(lines(&[(":method", "GET")])),
        Err(misplaced)
    );
    assert_eq!(with(&GET, ":status", "200"), Err(unknown(":status")));
    assert_eq!(with(&GET, ":Path", "/"), Err(unknown(":Path")));
    assert_eq!(with(&GET, ":", "/"), Err(unknown(":")));
    for (name, value) in GET {
        let expected = Err(HeadError::DuplicatePseudo { name });
        assert_eq!(with(&GET, name, value), expected);
        let expected = Err(HeadError::MissingPseudo { name });
        assert_eq!(instead(&GET, name, None), expected);
    }
    for (name, _) in EXTENDED {
        let expected = Err(HeadError::InvalidPseudo { name });
        assert_eq!(instead(&EXTENDED, name, Some("")), expected);
        assert_eq!(instead(&EXTENDED, name, Some("a b")), expected);
        assert_eq!(instead(&EXTENDED, name, Some("a\n")), expected);
        assert_eq!(instead(&EXTENDED, name, Some("é")), expected);
    }
    assert_eq!(
        instead(&GET, ":path", Some("x")),
        Err(HeadError::InvalidPseudo { name: ":path" })
    );
    assert_eq!(
        instead(&GET, ":path", Some("*")),
        Err(HeadError::InvalidPseudo { name: ":path" })
    );
}

#[test]
fn classic_connect_has_only_a_target() {
    // spec: 9114-4.4-a, 9113-8.5-a
    let classic = [(":method", "CONNECT"), (":authority", "target.example:443")];
    assert!(request(&classic).is_ok());
    for (name, value) in [(":scheme", "https"), (":path", "/")] {
        let expected = Err(HeadError::ForbiddenPseudo { name });
        assert_eq!(with(&classic, name, value), expected);
    }
    let missing = Err(HeadError::MissingPseudo { name: ":authority" });
    assert_eq!(instead(&classic, ":authority", None), missing);
    let host = [(":method", "CONNECT"), ("host", "target.example:443")];
    assert_eq!(request(&host), missing);
    let invalid = Err(HeadError::InvalidPseudo { name: ":authority" });
    for authority in [
        "target.example",
        ":443",
        "target.example:",
        "target.example:https",
    ] {
        assert_eq!(instead(&classic, ":authority", Some(authority)), invalid);
    }
    assert!(instead(&classic, ":authority", Some("[2001:db8::1]:443")).is_ok());
}

#[test]
fn extended_connect_needs_all_five() {
    // spec: 8441-4-a, 8441-4-b
    assert!(request(&EXTENDED).is_ok());
    for name in [":scheme", ":authority", ":path"] {
        let expected = Err(HeadError::MissingPseudo { name });
        assert_eq!(instead(&EXTENDED, name, None), expected);
    }
    // spec: 9220-3-d
    let forbidden = Err(HeadError::ForbiddenPseudo { name: ":protocol" });
    assert_eq!(instead(&EXTENDED, ":method", Some("GET")), forbidden);
    // spec: 8441-4-c; unknown protocols are answered, not refused here.
    for protocol in ["websocket", "HTTP/3.0"] {
        let head = instead(&EXTENDED, ":protocol", Some(protocol)).unwrap();
        assert_eq!(head.protocol.as_deref(), Some(protocol));
    }
    for protocol in ["a, b", "a/", "/b", "a/b/c"] {
        let expected = Err(HeadError::InvalidPseudo { name: ":protocol" });
        assert_eq!(instead(&EXTENDED, ":protocol", Some(protocol)), expected);
    }
}

#[test]
fn authority_and_host_agree() {
    // spec: 9114-4.3.1-a
    assert!(with(&GET, "host", "example.org").is_ok());
    assert_eq!(
        with(&GET, "host", "example.com"),
        Err(HeadError::HostMismatch)
    );
    let two_hosts = [GET.as_slice(), &[("host", "example.org"); 2]].concat();
    assert_eq!(request(&two_hosts), Err(HeadError::HostMismatch));

    let by_host = |host| {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            ("host", host),
        ];
        request(&fields)
    };
    let head = by_host("example.org").unwrap();
    assert_eq!(head.authority.as_deref(), Some("example.org"));
    let invalid = Err(HeadError::InvalidPseudo { name: ":authority" });
    assert_eq!(by_host(""), invalid);
    assert_eq!(by_host("user@example.org"), Err(HeadError::Userinfo));
    let userinfo = instead(&EXTENDED, ":authority", Some("user@example.org"));
    assert_eq!(userinfo, Err(HeadError::Userinfo));
    for authority in ["a/b", "a?b", "a#b", "a\\b", "\"a\"", "a\tb"] {
        assert_eq!(instead(&GET, ":authority", Some(authority)), invalid);
    }
}

#[test]
fn connection_specific_fields_are_malformed() {
    // spec: 9114-4.2-a, 9114-4.1-c, 9113-8.2.2-a, 8441-5-a
    for name in CONNECTION_SPECIFIC {
        let expected = Err(HeadError::ConnectionSpecific { name });
        assert_eq!(with(&GET, name, "x"), expected);
        assert_eq!(with(&EXTENDED, name, "x"), expected);
        let answer = response(&[(":status", "200"), (name, "x")]);
        assert_eq!(answer, Err(HeadError::ConnectionSpecific { name }));
    }
    assert!(with(&GET, "te", "trailers").is_ok());
    assert!(with(&GET, "te", "Trailers ").is_ok());
    for value in ["", "gzip", "trailers, gzip"] {
        assert_eq!(with(&GET, "te", value), Err(HeadError::InvalidTe));
    }
}

#[test]
fn names_and_values_have_valid_characters() {
    // spec: 9114-4.2-a
    let upper_case = HeadError::UpperCaseName {
        name: "Accept".into(),
    };
    assert_eq!(with(&GET, "Accept", "x"), Err(upper_case));
    // spec: 9114-10.3-a, 9110-5.5-a; a quote passes HeaderName, but is no token character.
    for octet in (0..=b' ').chain(*b"\"(),/:;<=>?@[\\]{}").chain(0x7f..=0xff) {
        let mut fields = lines(&GET);
        fields.push(field_line(&[b'a', octet], b"x"));
        let error = request_from_lines(fields).unwrap_err();
        assert!(matches!(error, HeadError::InvalidName { .. }), "{octet:#x}");
    }
    assert!(with(&GET, "", "x").is_err());
    for octet in (0..b'\t').chain(b'\n'..b' ').chain([0x7f]) {
        let mut fields = lines(&GET);
        fields.push(field_line(b"a", &[b'x', octet]));
        let expected = HeadError::InvalidValue { name: "a".into() };
        assert_eq!(request_from_lines(fields), Err(expected), "{octet:#x}");
    }
    let mut fields = lines(&GET);
    fields.push(field_line(b"a", b"\t x\x80 y \t"));
    let head = request_from_lines(fields).unwrap();
    assert_eq!(head.headers.get("a").unwrap().as_bytes(), b"x\x80 y");
}

#[test]
fn errors_keep_little_of_a_name() {
    let name = "A".repeat(5000);
    let Err(HeadError::UpperCaseName { name }) = with(&GET, &name, "") else {
        panic!("accepted");
    };
    assert_eq!(name.len(), HeadError::NAME_LEN_MAX);
    let Err(HeadError::InvalidName { name }) = with(&GET, "a\n", "") else {
        panic!("accepted");
    };
    assert_eq!(&*name, "a\\n");
}

#[test]
fn capsule_messages_do_not_describe_content() {
    // spec: 9297-3.2-f, 9297-3.2-h
    for name in ["content-length", "content-type"] {
        let expected = Err(HeadError::ContentField { name });
        assert_eq!(with(&EXTENDED, name, "0"), expected);
        let head = response(&[(":status", "200"), (name, "0")]).unwrap();
        let expected = Err(HeadError::ContentField { name });
        assert_eq!(check_capsule_fields(&head.headers), expected);
    }
    assert_eq!(check_capsule_fields(&udp_head().headers), Ok(()));
    // spec: 9110-9.3.6-g
    let classic = [(":method", "CONNECT"), (":authority", "target.example:443")];
    assert!(with(&classic, "content-length", "0").is_ok());
    let content = HeadError::ContentField {
        name: "content-length",
    };
    assert_eq!(with(&classic, "content-length", "5"), Err(content));
}

#[test]
fn content_length_is_one_number() {
    for value in ["", "-1", "+1", "1, 1", "x"] {
        let expected = Err(HeadError::InvalidContentLength);
        assert_eq!(with(&GET, "content-length", value), expected);
    }
    let twice = |first, second| {
        let fields = [("content-length", first), ("content-length", second)];
        request(&[GET.as_slice(), &fields].concat())
    };
    assert!(twice("5", "5").is_ok());
    assert_eq!(twice("5", "6"), Err(HeadError::InvalidContentLength));
}

#[test]
fn a_response_has_one_status() {
    // spec: 9114-4.3.2-a
    let missing = HeadError::MissingPseudo { name: ":status" };
    assert_eq!(response(&[]), Err(missing));
    let duplicate = HeadError::DuplicatePseudo { name: ":status" };
    assert_eq!(response(&[(":status", "200"); 2]), Err(duplicate));
    let invalid = Err(HeadError::InvalidPseudo { name: ":status" });
    for status in ["", "20", "2000", "099", "2x0", " 200"] {
        assert_eq!(response(&[(":status", status)]), invalid, "{status}");
    }
    let unknown = HeadError::UnknownPseudo {
        name: ":path".into(),
    };
    assert_eq!(
        response(&[(":status", "200"), (":path", "/")]),
        Err(unknown)
    );
    // spec: 9114-4.1-g, 9113-8.6-a
    assert!(response(&[(":status", "103")]).unwrap().is_interim());
    assert!(!response(&[(":status", "200")]).unwrap().is_interim());
    let switching = response(&[(":status", "101")]);
    assert_eq!(switching, Err(HeadError::SwitchingProtocols));
}

#[test]
fn secrets_are_never_indexed() {
    // spec: 9204-4.5.4-a
    let mut head = udp_head();
    let mut sensitive = HeaderValue::from_static("s");
    sensitive.set_sensitive(true);
    for (name, value) in [
        ("authorization", HeaderValue::from_static("Bearer x")),
        ("proxy-authorization", HeaderValue::from_static("Bearer x")),
        ("x-own", sensitive),
    ] {
        head.headers.insert(name, value);
    }
    let mut block = Vec::new();
    encode_request(&head, &mut block);
    let lines = qpack::decode(&block, 4096).unwrap();
    let never_indexed: Vec<_> = lines
        .iter()
        .filter(|line| line.never_indexed)
        .map(|line| &*line.name)
        .collect();
    let expected: [&[u8]; 3] = [b"authorization", b"proxy-authorization", b"x-own"];
    assert_eq!(never_indexed, expected);
    // What came in as sensitive goes out as sensitive.
    let head = request_from_lines(lines).unwrap();
    assert!(head.headers.get("x-own").unwrap().is_sensitive());
    assert!(!head.headers.get("capsule-protocol").unwrap().is_sensitive());
    // Credentials are not printed even when their sender left the bit out.
    let head = with(&EXTENDED, "authorization", "Bearer secret").unwrap();
    assert!(!format!("{head:?}").contains("secret"));
}

#[test]
fn measures_a_section_as_the_decoder_does() {
    // spec: 9114-4.2.2-a, 9114-4.2.2-b
    let size: u64 = headers(PLAIN_UDP).iter().map(FieldLine::size).sum();
    assert_eq!(section_size(&udp_head()), size);
    assert_eq!(
        response_section_size(&ResponseHead::new(StatusCode::OK)),
        42
    );
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let line = ("x-[a-z0-9]{1,8}", "([!-~]([ -~]{0,20}[!-~])?)?");
    proptest::collection::vec(line, 0..8).prop_map(|lines| {
        lines
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append::<HeaderName>(name, value);
                headers
            })
    })
}

fn any_request() -> impl Strategy<Value = RequestHead> {
    let authority = "[a-z0-9.-]{1,20}(:[0-9]{1,5})?";
    let classic = "[a-z0-9.-]{1,20}:[0-9]{1,5}".prop_map(RequestHead::classic_connect);
    let extended = ("[a-z-]{1,12}", "https?", authority, "/[!\"$-~]{0,30}").prop_map(
        |(protocol, scheme, authority, path)| {
            RequestHead::extended_connect(protocol, scheme, authority, path)
        },
    );
    let other = ("GET|POST|PURGE", "https?", authority, "/[!\"$-~]{0,30}").prop_map(
        |(method, scheme, authority, path)| RequestHead {
            method: method.parse().unwrap(),
            protocol: None,
            scheme: Some(scheme.into()),
            authority: Some(authority.into()),
            path: Some(path.into()),
            headers: HeaderMap::new(),
        },
    );
    (prop_oneof![classic, extended, other], any_headers())
        .prop_map(|(head, headers)| RequestHead { headers, ..head })
}

proptest! {
    #[test]
    fn requests_round_trip(head in any_request()) {
        let mut block = Vec::new();
        encode_request(&head, &mut block);
        let lines = qpack::decode(&block, section_size(&head)).unwrap();
        prop_assert_eq!(request_from_lines(lines), Ok(head));
    }

    #[test]
    fn responses_round_trip(status in 102..=999_u16, headers in any_headers()) {
        let status = StatusCode::from_u16(status).unwrap();
        let head = ResponseHead { status, headers };
        let mut block = Vec::new();
        encode_response(&head, &mut block);
        let lines = qpack::decode(&block, response_section_size(&head)).unwrap();
        prop_assert_eq!(response_from_lines(lines), Ok(head));
    }

    #[test]
    fn odd_lines_are_read_or_refused(
        extra in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
    ) {
        let extra = extra.iter().map(|(name, value)| field_line(name, value));
        let lines: Vec<_> = lines(&GET).into_iter().chain(extra).collect();
        let mut block = Vec::new();
        let lines = lines.iter().map(|line| (&*line.name, &*line.value, false));
        qpack::encode(lines, &mut block);
        fuzz_entry::fields(&block);
    }

    #[test]
    fn garbage_is_read_or_refused(mut block: Vec<u8>) {
        block.splice(0..0, [0, 0]);
        fuzz_entry::fields(&block);
    }
}
