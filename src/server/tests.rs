use super::*;
use crate::policy::Policy;

fn server(origins: &[&str]) -> Server {
    let templates = vec![
        PathTemplate::well_known(),
        PathTemplate::parse("/masque{?target_host,target_port}").unwrap(),
    ];
    let origins = origins.iter().map(|&origin| origin.into()).collect();
    let policy = Policy {
        public_only: false,
        ..Policy::default()
    };
    Server::new("relay-a", templates, origins, Handler::Direct(policy))
}

fn request(path: &str) -> RequestHead {
    RequestHead::extended_connect("connect-udp", "https", "relay.example", path)
}

fn refusal(head: &RequestHead) -> Refusal {
    server(&["relay.example", "relay.example:443"])
        .plan(head)
        .unwrap_err()
}

// spec: 9298-2-k, 9298-2-m, 9298-3.1-b, rc-chromium-b
#[test]
fn finds_the_target_in_every_template() {
    for path in [
        "/.well-known/masque/udp/2001%3adb8%3A%3A42/443/",
        "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443",
        "/masque?target_host=2001%3Adb8%3A%3A42&target_port=443",
        "/masque?target_port=443&target_host=2001%3Adb8%3A%3A42",
    ] {
        match server(&[]).plan(&request(path)) {
            Ok(Plan::Direct(target)) => assert_eq!(target.to_string(), "[2001:db8::42]:443"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

// spec: map-1, map-2, map-5, map-6, map-8, 9220-3-a
#[test]
fn refuses_each_mistake_with_its_own_answer() {
    let path = "/.well-known/masque/udp/192.0.2.6/443/";
    assert_eq!(refusal(&request("/elsewhere")), Refusal::NoTemplateMatch);
    assert_eq!(
        refusal(&request("/.well-known/masque/udp/192.0.2.6/0/")),
        Refusal::MalformedTarget
    );
    assert_eq!(
        refusal(&request("/.well-known/masque/udp//443/")),
        Refusal::MalformedTarget
    );

    let mut other = request(path);
    other.protocol = Some("websocket".into());
    assert_eq!(refusal(&other), Refusal::UnknownProtocol);
    assert_eq!(
        refusal(&RequestHead::classic_connect("192.0.2.6:443")),
        Refusal::UnknownProtocol
    );

    let mut get = request(path);
    (get.method, get.protocol) = (::http::Method::GET, None);
    assert_eq!(refusal(&get), Refusal::MethodNotAllowed);

    let mut elsewhere = request(path);
    elsewhere.authority = Some("other.example".into());
    assert_eq!(refusal(&elsewhere), Refusal::UnknownOrigin);
    let mut same = request(path);
    same.authority = Some("Relay.Example:443".into());
    assert!(server(&["relay.example:443"]).plan(&same).is_ok());
    assert!(server(&["relay.example"]).plan(&same).is_ok());
    same.authority = Some("relay.example:4433".into());
    assert!(server(&["relay.example"]).plan(&same).is_err());
}

// spec: map-23
#[test]
fn sees_itself_in_via() {
    let mut head = request("/.well-known/masque/udp/192.0.2.6/443/");
    head.headers
        .insert(header::VIA, HeaderValue::from_static("2 other, 3 relay-a"));
    assert_eq!(refusal(&head), Refusal::LoopDetected);
    head.headers
        .insert(header::VIA, HeaderValue::from_static("2 other, 3 relay-b"));
    assert!(server(&[]).plan(&head).is_ok());
    let via = server(&[]).via(&head.headers).unwrap();
    assert_eq!(via, "2 other, 3 relay-b, 3 relay-a");
}

// spec: 9298-3.5-a, 9298-3.5-b, 9298-3.5-c, 9297-3.2-g, 9297-3.2-h, 9297-3.4-g, rc-chromium-a, map-32
#[test]
fn only_a_proper_2xx_opens_a_tunnel() {
    let answer = |status: u16| ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
    };
    assert_eq!(check_accepted(&accepted()), Ok(()));
    assert_eq!(accepted().status, StatusCode::OK);
    assert_eq!(check_accepted(&answer(200)), Ok(()));
    assert_eq!(check_accepted(&answer(299)), Ok(()));
    for status in [204, 205, 206] {
        assert_eq!(
            check_accepted(&answer(status)),
            Err(Refusal::NextHopProtocol)
        );
    }
    for status in [301, 401, 403, 404, 502, 508] {
        let status = StatusCode::from_u16(status).unwrap();
        let refused = check_accepted(&answer(status.as_u16()));
        assert_eq!(refused, Err(Refusal::NextHopStatus { status }));
    }
    let mut content = accepted();
    content
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
    assert_eq!(check_accepted(&content), Err(Refusal::NextHopProtocol));
}
