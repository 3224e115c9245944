use std::collections::HashSet;

use proptest::prelude::*;
use sfv::{BareItem, ListEntry};

use super::*;

const RELAY: &str = "relay-3.example.net";

/// One value of every variant and of every fact that changes the answer.
fn all() -> Vec<Refusal> {
    use Refusal::*;
    let mut all = vec![
        NoTemplateMatch,
        MalformedTarget,
        MalformedRequest,
        UnknownProtocol,
        MethodNotAllowed,
        UpgradeRequired {
            token: "connect-tcp",
        },
        UnknownOrigin,
        Unauthorized,
        ProxyUnauthorized,
        Forbidden,
        DeniedByRule,
        AddressProhibited { range: "Loopback" },
        DnsTimeout,
        Unroutable,
        ConnectionRefused,
        ConnectTimeout,
        DestinationUnavailable,
        ConnectionLimit,
        Overloaded,
        QuotaExceeded,
        HeadTooLarge,
        TargetTooLong,
        LoopDetected,
        EarlyData,
        Draining,
        NextHopTls {
            fault: TlsFault::Protocol,
        },
        NextHopTls {
            fault: TlsFault::Certificate(CertificateFault::Other),
        },
        NextHopTls {
            fault: TlsFault::Alert { id: 48 },
        },
        NextHopProtocol,
        NextHopUpgrade,
        NextHopStatus {
            status: StatusCode::FORBIDDEN,
        },
        NextHopTimeout,
        NoAddressLeft,
        PathTooSmall,
        Internal,
        Misconfigured,
    ];
    let rcodes = [
        Rcode::NoError,
        Rcode::ServFail,
        Rcode::NxDomain,
        Rcode::Refused,
    ];
    all.extend(rcodes.map(|rcode| DnsError { rcode: Some(rcode) }));
    all.push(DnsError { rcode: None });
    all
}

/// The row of the specification: id, status, error type. A new variant has to name its own.
fn spec(refusal: &Refusal) -> (&'static str, u16, &'static str) {
    use Refusal::*;
    match refusal {
        NoTemplateMatch => ("map-1", 404, "http_request_error"),
        MalformedTarget => ("map-2", 400, "http_request_error"),
        MalformedRequest => ("map-4", 400, ""),
        UnknownProtocol => ("map-5", 501, "proxy_internal_response"),
        MethodNotAllowed => ("map-6", 405, "http_request_error"),
        UpgradeRequired { .. } => ("map-7", 426, "http_request_error"),
        UnknownOrigin => ("map-8", 421, "http_request_error"),
        Unauthorized => ("map-9", 401, "http_request_error"),
        ProxyUnauthorized => ("map-10", 407, "http_request_error"),
        // Either of the two without a challenge.
        Forbidden => ("map-9", 403, "http_request_error"),
        DeniedByRule => ("map-11", 403, "http_request_denied"),
        // The decision of traps.md overrides 502.
        AddressProhibited { .. } => ("map-12", 403, "destination_ip_prohibited"),
        DnsError { .. } => ("map-13", 502, "dns_error"),
        DnsTimeout => ("map-14", 504, "dns_timeout"),
        Unroutable | PathTooSmall => ("map-15", 502, "destination_ip_unroutable"),
        ConnectionRefused => ("map-16", 502, "connection_refused"),
        ConnectTimeout => ("map-17", 504, "connection_timeout"),
        DestinationUnavailable => ("map-18", 503, "destination_unavailable"),
        ConnectionLimit => ("map-19", 503, "connection_limit_reached"),
        Overloaded => ("map-20", 503, "proxy_internal_response"),
        QuotaExceeded => ("map-21", 429, "http_request_error"),
        HeadTooLarge => ("map-22", 431, "http_request_error"),
        TargetTooLong => ("map-22", 414, "http_request_error"),
        // Decision 11 overrides 502.
        LoopDetected => ("map-23", 508, "proxy_loop_detected"),
        EarlyData => ("map-24", 425, "http_request_error"),
        Draining => ("map-25", 503, "proxy_internal_response"),
        NextHopTls {
            fault: TlsFault::Protocol,
        } => ("map-26", 502, "tls_protocol_error"),
        NextHopTls {
            fault: TlsFault::Certificate(_),
        } => ("map-26", 502, "tls_certificate_error"),
        NextHopTls {
            fault: TlsFault::Alert { .. },
        } => ("map-26", 502, "tls_alert_received"),
        NextHopProtocol => ("map-27", 502, "http_protocol_error"),
        NextHopUpgrade => ("map-27", 502, "http_upgrade_failed"),
        NextHopStatus { status } => ("map-28", status.as_u16(), ""),
        NextHopTimeout => ("map-29", 504, "http_response_timeout"),
        NoAddressLeft => ("map-30", 503, "proxy_internal_response"),
        Internal => ("map-31", 500, "proxy_internal_error"),
        Misconfigured => ("map-31", 500, "proxy_configuration_error"),
    }
}

fn list(headers: &HeaderMap) -> List {
    let lines: Vec<_> = headers
        .get_all(PROXY_STATUS)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    Parser::new(&lines.join(&b", "[..])).parse().unwrap()
}

/// Name and parameters of the last member.
fn last(headers: &HeaderMap) -> (BareItem, Vec<(String, BareItem)>) {
    let Some(ListEntry::Item(item)) = list(headers).pop() else {
        panic!("{headers:?}");
    };
    let params = item
        .params
        .into_iter()
        .map(|(key, value)| (key.as_str().to_owned(), value));
    (item.bare_item, params.collect())
}

fn line(refusal: Refusal) -> String {
    let (_, headers) = refusal.head(RELAY);
    let lines: Vec<_> = headers.get_all(PROXY_STATUS).iter().collect();
    assert_eq!(lines.len(), 1);
    lines[0].to_str().unwrap().to_owned()
}

// spec: map-1 to map-31, 9209-2.1.1-a, 9209-2.1.1-b, 9209-2-g
#[test]
fn every_row_follows_the_map() {
    let mut ids = HashSet::new();
    for refusal in all() {
        let (id, status, error) = spec(&refusal);
        ids.insert(id);
        let (found, headers) = refusal.head(RELAY);
        assert_eq!(found.as_u16(), status, "{id} {refusal:?}");
        // spec: 9297-3.2-f
        assert!(!headers.contains_key("capsule-protocol"));
        // spec: map-32
        assert!(!found.is_success());
        if matches!(refusal, Refusal::MalformedRequest) {
            assert!(!headers.contains_key(PROXY_STATUS));
            continue;
        }
        let (name, params) = last(&headers);
        // spec: 9209-2-a
        assert_eq!(name.as_token().unwrap().as_str(), RELAY);
        let found = params.iter().find(|(key, _)| key == "error");
        assert_eq!(
            found.map_or("", |(_, value)| value.as_token().unwrap().as_str()),
            error,
            "{id}"
        );
        // spec: 9209-4-b
        let details = params.iter().find(|(key, _)| key == "details").unwrap();
        assert_eq!(
            details.1.as_string().unwrap().as_str(),
            refusal.row().details
        );
        assert!(params.iter().all(|(key, _)| !key.starts_with("next-")));
    }
    // map-3 is connect-ip's malformed target, answered like map-2; map-32 is checked on every row.
    let expected: HashSet<_> = (1..=31)
        .filter(|id| *id != 3)
        .map(|id| format!("map-{id}"))
        .collect();
    assert_eq!(
        ids.into_iter().map(str::to_owned).collect::<HashSet<_>>(),
        expected
    );
}

// spec: 9209-2.1.4-a, section 7 of the error map: error is a Token, rcode a String
#[test]
fn members_are_spelled_as_the_rfc_does() {
    let nxdomain = Refusal::DnsError {
        rcode: Some(Rcode::NxDomain),
    };
    assert_eq!(
        line(nxdomain),
        r#"relay-3.example.net;error=dns_error;rcode="NXDOMAIN";details="the name does not resolve""#
    );
    assert!(!line(Refusal::DnsError { rcode: None }).contains("rcode"));
    assert_eq!(
        line(Refusal::NextHopTls {
            fault: TlsFault::Alert { id: 48 }
        }),
        "relay-3.example.net;error=tls_alert_received;alert-id=48;\
         details=\"the next hop ended the TLS handshake\""
    );
    assert_eq!(
        line(Refusal::NextHopStatus {
            status: StatusCode::IM_A_TEAPOT
        }),
        "relay-3.example.net;details=\"the next hop refused the request\";received-status=418"
    );
    assert!(!line(Refusal::AddressProhibited { range: "Loopback" }).contains("Loopback"));
}

#[test]
fn statuses_come_with_the_fields_they_require() {
    let field = |refusal: Refusal, name: &str| {
        let (_, headers) = refusal.head(RELAY);
        headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    for refusal in all() {
        let status = refusal.row().status.as_u16();
        // spec: map-6, 9110-15.5.2-a, 9110-11.7.1-a
        assert_eq!(
            field(refusal, "allow").is_some(),
            status == 405,
            "{refusal:?}"
        );
        assert_eq!(
            field(refusal, "www-authenticate").is_some(),
            status == 401,
            "{refusal:?}"
        );
        assert_eq!(
            field(refusal, "proxy-authenticate").is_some(),
            status == 407,
            "{refusal:?}"
        );
        assert_eq!(
            field(refusal, "upgrade").is_some(),
            status == 426,
            "{refusal:?}"
        );
        // spec: map-20, map-21
        let busy = matches!(refusal, Refusal::Overloaded | Refusal::QuotaExceeded);
        assert_eq!(field(refusal, "retry-after").is_some(), busy, "{refusal:?}");
    }
    assert_eq!(
        field(Refusal::MethodNotAllowed, "allow").unwrap(),
        "CONNECT"
    );
    let token = "connect-tcp";
    let upgrade = Refusal::UpgradeRequired { token };
    assert_eq!(field(upgrade, "upgrade").unwrap(), token);
    assert_eq!(field(Refusal::Overloaded, "retry-after").unwrap(), "2");
}

// spec: map-4, map-50
#[test]
fn streams_are_reset_where_a_response_would_be_wrong() {
    for refusal in all() {
        let expected = match spec(&refusal).0 {
            "map-4" => Some(StreamCode {
                h3: 0x010e,
                h2: 0x1,
            }),
            "map-25" => Some(StreamCode {
                h3: 0x010b,
                h2: 0x7,
            }),
            _ => None,
        };
        assert_eq!(refusal.reset(), expected, "{refusal:?}");
    }
}

#[test]
fn labels_and_details_are_a_fixed_catalogue() {
    let labels: HashSet<_> = all().iter().map(Refusal::label).collect();
    // Five DNS values share one row.
    assert_eq!(labels.len(), all().len() - 4);
    for refusal in all() {
        let Row { details, label, .. } = refusal.row();
        assert!(label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()));
        assert!(
            details
                .bytes()
                .all(|b| matches!(b, b' '..=b'~') && b != b'"')
        );
        assert_eq!(refusal.to_string(), details);
    }
}

// spec: 9209-2-b, 9651-4.2-a, 9651-4.2-b, map-28
#[test]
fn the_next_hops_members_are_kept() {
    let mut existing = HeaderMap::new();
    let first = "target.example;error=connection_refused";
    existing.append(PROXY_STATUS, HeaderValue::from_static(first));
    existing.append(
        PROXY_STATUS,
        HeaderValue::from_static("\"hop 2\"; received-status=502"),
    );
    existing.append(RETRY_AFTER, HeaderValue::from_static("7"));
    existing.append("set-cookie", HeaderValue::from_static("a=b"));
    existing.append("capsule-protocol", HeaderValue::from_static("?1"));

    let refusal = Refusal::NextHopStatus {
        status: StatusCode::BAD_GATEWAY,
    };
    let (status, headers) = refusal.head_with(&existing, RELAY);
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(list(&headers).len(), 3);
    assert_eq!(headers.get(PROXY_STATUS).unwrap(), first);
    assert_eq!(last(&headers).0.as_token().unwrap().as_str(), RELAY);
    assert_eq!(headers.get(RETRY_AFTER).unwrap(), "7");
    assert!(!headers.contains_key("set-cookie"));
    assert!(!headers.contains_key("capsule-protocol"));

    // A line that does not parse would take ours with it.
    for broken in ["", "a;;", "a,", "A=\"", "\u{e9}"] {
        existing.insert(PROXY_STATUS, HeaderValue::try_from(broken).unwrap());
        let (_, headers) = refusal.head_with(&existing, RELAY);
        assert_eq!(list(&headers).len(), 1, "{broken:?}");
    }

    // Only an answer of the next hop is passed on.
    let (_, headers) = Refusal::NextHopProtocol.head_with(&existing, RELAY);
    assert_eq!(headers.len(), 1);
}

#[test]
fn a_refusal_never_turns_into_success() {
    for code in [100, 101, 200, 204, 299, 600, 999] {
        let status = StatusCode::from_u16(code).unwrap();
        assert_eq!(
            Refusal::NextHopStatus { status }.head(RELAY).0,
            StatusCode::BAD_GATEWAY
        );
    }
}

proptest! {
    #[test]
    fn any_pseudonym_gives_one_valid_member(pseudonym in "\\PC{0,16}|[ -~]{0,16}") {
        let (_, headers) = Refusal::DnsTimeout.head(&pseudonym);
        prop_assert_eq!(list(&headers).len(), 1);
        prop_assert_eq!(last(&headers).1.len(), 2);
    }

    #[test]
    fn any_fields_of_the_next_hop_give_a_valid_list(value in "[a-z\";=(), ?:*-]{0,24}") {
        let mut existing = HeaderMap::new();
        existing.append(PROXY_STATUS, HeaderValue::try_from(value).unwrap());
        let refusal = Refusal::NextHopStatus { status: StatusCode::FORBIDDEN };
        let (_, headers) = refusal.head_with(&existing, RELAY);
        let (name, _) = last(&headers);
        prop_assert_eq!(name.as_token().unwrap().as_str(), RELAY);
    }
}
