use super::*;
use crate::policy::Policy;
use crate::policy::auth::{AuthLimits, AuthOptions, Secrets, password::cheap_hash};

const UDP_PATH: &str = "/.well-known/masque/udp/192.0.2.6/443/";
const TCP_PATH: &str = "/.well-known/masque/tcp/192.0.2.6/443/";

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn server(origins: &[&str]) -> Server {
    let both = || PathTemplate::parse("/masque{?target_host,target_port}").unwrap();
    let services = Services {
        udp: vec![PathTemplate::well_known(), both()],
        ip: Vec::new(),
        tcp: vec![PathTemplate::well_known_tcp(), both()],
        classic: true,
    };
    let origins = origins.iter().map(|&origin| origin.into()).collect();
    let policy = Policy {
        public_only: false,
        ..Policy::default()
    };
    Server::new("relay-a", services, origins, Handler::Direct(policy))
}

fn request(path: &str) -> RequestHead {
    RequestHead::extended_connect("connect-udp", "https", "relay.example", path)
}

fn connect_tcp(token: &str, capsules: bool) -> RequestHead {
    let mut head = RequestHead::extended_connect(token, "https", "relay.example", TCP_PATH);
    if capsules {
        head.headers.insert(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE);
    }
    head
}

fn get(path: &str) -> RequestHead {
    let mut head = request(path);
    (head.method, head.protocol) = (::http::Method::GET, None);
    head
}

fn refusal_over(head: &RequestHead, carrier: Carrier) -> Refusal {
    server(&["relay.example", "relay.example:443"])
        .plan(head, carrier)
        .unwrap_err()
}

/// The refusal, which has to be the same on every carrier.
fn refusal(head: &RequestHead) -> Refusal {
    let [h3, h2, h1] = Carrier::ALL.map(|carrier| refusal_over(head, carrier));
    assert_eq!((h3, h3), (h2, h1));
    h3
}

// spec: 9298-2-k, 9298-2-m, 9298-3.1-b, rc-chromium-b, rc-all-d
#[test]
fn finds_the_target_in_every_template() {
    for path in [
        "/.well-known/masque/udp/2001%3adb8%3A%3A42/443/",
        "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443",
        "/masque?target_host=2001%3Adb8%3A%3A42&target_port=443",
        "/masque?target_port=443&target_host=2001%3Adb8%3A%3A42",
    ] {
        let plan = server(&[]).plan(&request(path), Carrier::H3).unwrap();
        assert_eq!(plan.protocol, Protocol::Udp);
        assert_eq!(plan.route, Route::Direct);
        assert_eq!(plan.destination.to_string(), "[2001:db8::42]:443");
    }
}

// spec: ctcp-3-b, ctcp-3.1-b, ctcp-3.2-b
#[test]
fn the_token_and_the_field_say_how_tcp_is_carried() {
    for revision in &crate::wire::codepoints::CONNECT_TCP {
        for (capsules, framing) in [(true, Framing::Capsules(revision)), (false, Framing::Raw)] {
            let head = connect_tcp(revision.token, capsules);
            let plan = server(&[]).plan(&head, Carrier::H2).unwrap();
            assert_eq!(plan.protocol, Protocol::Tcp(framing));
            assert_eq!(plan.destination.to_string(), "192.0.2.6:443");
        }
    }
    // One path serves both if it is configured so.
    let path = "/masque?target_host=192.0.2.6&target_port=443";
    for (token, protocol) in [
        ("connect-udp", Protocol::Udp),
        ("Connect-UDP", Protocol::Udp),
        ("connect-tcp", Protocol::Tcp(Framing::Raw)),
    ] {
        let head = RequestHead::extended_connect(token, "https", "relay.example", path);
        let plan = server(&[]).plan(&head, Carrier::H1).unwrap();
        assert_eq!(plan.protocol, protocol);
    }
    // And does not if it is not.
    let mut head = connect_tcp("connect-tcp", true);
    head.path = Some(UDP_PATH.into());
    assert_eq!(refusal(&head), Refusal::UnknownProtocol);
    assert_eq!(refusal(&request(TCP_PATH)), Refusal::UnknownProtocol);
}

// spec: conn-9110-a, 9110-15.5.20-a, rc-apple-a
#[test]
fn classic_connect_names_its_target() {
    let server = server(&["relay.example"]);
    for authority in ["192.0.2.6:443", "target.example:1", "[2001:db8::1]:65535"] {
        let head = RequestHead::classic_connect(authority);
        for carrier in Carrier::ALL {
            let plan = server.plan(&head, carrier).unwrap();
            assert_eq!(plan.protocol, Protocol::Tcp(Framing::Raw));
            assert_eq!(plan.destination.to_string(), authority);
        }
    }
    for authority in [
        "",
        "target.example",
        "target.example:",
        "target.example:0",
        "target.example:65536",
        "target.example:x",
        ":443",
        "user@target.example:443",
        "2001:db8::1:443",
    ] {
        let head = RequestHead::classic_connect(authority);
        assert_eq!(refusal(&head), Refusal::MalformedTarget, "{authority}");
    }
    let mut off = server;
    off.services.classic = false;
    let refused = off.plan(&RequestHead::classic_connect("192.0.2.6:443"), Carrier::H1);
    assert_eq!(refused, Err(Refusal::UnknownProtocol));
}

// spec: map-1, map-2, map-5, map-8, 9220-3-a
#[test]
fn refuses_each_mistake_with_its_own_answer() {
    assert_eq!(refusal(&request("/elsewhere")), Refusal::NoTemplateMatch);
    for path in [
        "/.well-known/masque/udp/192.0.2.6/0/",
        "/.well-known/masque/udp//443/",
    ] {
        assert_eq!(refusal(&request(path)), Refusal::MalformedTarget);
    }
    let mut tcp = connect_tcp("connect-tcp", true);
    tcp.path = Some("/.well-known/masque/tcp/192.0.2.6,192.0.2.7/443/".into());
    assert_eq!(refusal(&tcp), Refusal::MalformedTarget);

    for token in ["websocket", "connect-ip", "connect-tcp-06", ""] {
        let mut other = request(UDP_PATH);
        other.protocol = Some(token.into());
        assert_eq!(refusal(&other), Refusal::UnknownProtocol);
        other.path = Some(TCP_PATH.into());
        assert_eq!(refusal(&other), Refusal::UnknownProtocol);
    }

    let mut elsewhere = request(UDP_PATH);
    elsewhere.authority = Some("other.example".into());
    assert_eq!(refusal(&elsewhere), Refusal::UnknownOrigin);
    let mut same = request(UDP_PATH);
    let known = |head: &RequestHead, origin| server(&[origin]).plan(head, Carrier::H3).is_ok();
    same.authority = Some("Relay.Example:443".into());
    assert!(known(&same, "relay.example:443"));
    assert!(known(&same, "relay.example"));
    same.authority = Some("relay.example:4433".into());
    assert!(!known(&same, "relay.example"));
}

// spec: map-6, map-7, 9110-7.8-h, rc-chromium-e
#[test]
fn requests_that_ask_for_no_tunnel() {
    for (path, token) in [(UDP_PATH, "connect-udp"), (TCP_PATH, "connect-tcp")] {
        for method in [::http::Method::GET, ::http::Method::POST] {
            let mut head = get(path);
            head.method = method;
            let refused = |carrier| refusal_over(&head, carrier);
            assert_eq!(refused(Carrier::H3), Refusal::MethodNotAllowed);
            assert_eq!(refused(Carrier::H2), Refusal::MethodNotAllowed);
            assert_eq!(refused(Carrier::H1), Refusal::UpgradeRequired { token });
        }
    }
    assert_eq!(refusal(&get("/")), Refusal::NoTemplateMatch);

    let mut forward = get("/index.html");
    forward.scheme = Some("http".into());
    forward.authority = Some("site.example".into());
    assert_eq!(refusal(&forward), Refusal::MethodNotAllowed);
}

// spec: map-23, 9110-7.6.3-a
#[test]
fn sees_itself_in_via() {
    let server = server(&[]);
    for mut head in [
        request(UDP_PATH),
        connect_tcp("connect-tcp", true),
        RequestHead::classic_connect("192.0.2.6:443"),
    ] {
        let loops = HeaderValue::from_static("2 other, 3 relay-a");
        head.headers.insert(header::VIA, loops);
        assert_eq!(refusal(&head), Refusal::LoopDetected);
        let passed = HeaderValue::from_static("2 other, 3 relay-b");
        head.headers.insert(header::VIA, passed);
        assert!(server.plan(&head, Carrier::H3).is_ok());
        for (carrier, version) in Carrier::ALL.into_iter().zip(["3", "2", "1.1"]) {
            let via = server.via(&head.headers, carrier).unwrap();
            let expected = format!("2 other, 3 relay-b, {version} relay-a");
            assert_eq!(via, expected.as_str());
        }
    }
}

// spec: rc-all-a, rc-all-e, map-32, conn-9110-b
#[test]
fn answers_say_what_they_have_to() {
    let server = server(&[]).with_h3_port(4433);
    let capsules = Protocol::Tcp(Framing::Capsules(Revision::newest()));
    for carrier in Carrier::ALL {
        let is_tcp = carrier != Carrier::H3;
        for protocol in [Protocol::Udp, capsules] {
            let head = server.accepted(protocol, carrier);
            assert_eq!(head.status, StatusCode::OK);
            assert_eq!(head.headers.get(CAPSULE_PROTOCOL).unwrap(), "?1");
            let alt_svc = head.headers.get(header::ALT_SVC);
            assert_eq!(alt_svc.is_some(), is_tcp);
            assert!(alt_svc.is_none_or(|value| value == "h3=\":4433\"; ma=86400"));
        }
        let head = server.accepted(Protocol::Tcp(Framing::Raw), carrier);
        assert_eq!(head, ResponseHead::new(StatusCode::OK));
        for (refusal, expected) in [
            (Refusal::NoTemplateMatch, is_tcp),
            (Refusal::ProxyUnauthorized, false),
        ] {
            let head = server.refusal(refusal, None, carrier);
            assert_eq!(head.headers.contains_key(header::ALT_SVC), expected);
        }
    }
}

// spec: 9298-3.5-a, 9298-3.5-b, 9298-3.5-c, 9297-3.2-g, 9297-3.2-h, 9297-3.4-g, rc-chromium-a
#[test]
fn only_a_proper_2xx_opens_a_tunnel() {
    let answer = |status: u16| ResponseHead::new(StatusCode::from_u16(status).unwrap());
    let accepted = || server(&[]).accepted(Protocol::Udp, Carrier::H3);
    let check = |head: &ResponseHead| check_accepted(head, Protocol::Udp);
    assert_eq!(check(&accepted()), Ok(Protocol::Udp));
    assert_eq!(check(&answer(200)), Ok(Protocol::Udp));
    assert_eq!(check(&answer(299)), Ok(Protocol::Udp));
    for status in [204, 205, 206] {
        assert_eq!(check(&answer(status)), Err(Refusal::NextHopProtocol));
    }
    for status in [301, 401, 403, 404, 407, 502, 508] {
        let head = answer(status);
        let status = head.status;
        assert_eq!(check(&head), Err(Refusal::NextHopStatus { status }));
    }
    let mut content = accepted();
    content
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
    assert_eq!(check(&content), Err(Refusal::NextHopProtocol));
}

// spec: ctcp-3.1-b, conn-9110-b
#[test]
fn the_answer_says_how_tcp_is_carried() {
    let capsules = Protocol::Tcp(Framing::Capsules(Revision::newest()));
    let raw = Protocol::Tcp(Framing::Raw);
    let with = server(&[]).accepted(capsules, Carrier::H2);
    let mut without = server(&[]).accepted(raw, Carrier::H2);
    assert_eq!(check_accepted(&with, capsules), Ok(capsules));
    assert_eq!(check_accepted(&without, capsules), Ok(raw));
    assert_eq!(check_accepted(&with, raw), Ok(raw));

    let zero = HeaderValue::from_static("0");
    without.headers.insert(header::CONTENT_LENGTH, zero);
    assert_eq!(check_accepted(&without, raw), Ok(raw));
    let malformed = Err(Refusal::NextHopProtocol);
    assert_eq!(check_accepted(&without, capsules), malformed);
}

fn guarded(challenge: bool) -> Server {
    let mut secrets = Secrets::new(&[9; 32]);
    secrets.add_tokens("alice:abc").unwrap();
    let hash = cheap_hash("secret");
    secrets.add_passwords(&format!("bob:{hash}")).unwrap();
    let options = AuthOptions {
        challenge,
        ..AuthOptions::default()
    };
    let limits = AuthLimits {
        checks_max: 1,
        verified_max: 8,
        lifetime: std::time::Duration::from_secs(60),
    };
    let auth = Auth::new(std::sync::Arc::new(secrets), options, limits);
    server(&[]).with_auth(auth)
}

// spec: map-9, map-10, rc-all-c, ctcp-3.3.2-a, 9110-15.5.20-a
#[test]
fn strangers_are_asked_for_credentials() {
    let now = start();
    let classic = RequestHead::classic_connect("192.0.2.6:443");
    for (head, status, field) in [
        (request(UDP_PATH), 401, header::WWW_AUTHENTICATE),
        (
            connect_tcp("connect-tcp", true),
            401,
            header::WWW_AUTHENTICATE,
        ),
        (classic, 407, header::PROXY_AUTHENTICATE),
    ] {
        let mut server = guarded(true);
        let refusal = server.authorize(now, &head).unwrap_err();
        let answer = server.refusal(refusal, None, Carrier::H2);
        assert_eq!(answer.status.as_u16(), status);
        let challenges: Vec<_> = answer.headers.get_all(&field).iter().collect();
        let basic = "Basic realm=\"bauta\", charset=\"UTF-8\"";
        assert_eq!(challenges, [basic, "Bearer"]);

        let refusal = guarded(false).authorize(now, &head).unwrap_err();
        let answer = guarded(false).refusal(refusal, None, Carrier::H2);
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(!answer.headers.contains_key(&field));

        // Either field does, whatever the form of the request.
        for name in [header::AUTHORIZATION, header::PROXY_AUTHORIZATION] {
            let mut head = head.clone();
            let value = HeaderValue::from_static("Bearer abc");
            head.headers.insert(name, value);
            match server.authorize(now, &head) {
                Ok(Access::Granted(Some(user))) => assert_eq!(user.name(), "alice"),
                other => panic!("{other:?}"),
            }
        }
    }
    // What a next hop asks for is passed on as it is.
    let received =
        HeaderMap::from_iter([(header::WWW_AUTHENTICATE, HeaderValue::from_static("Other"))]);
    let status = StatusCode::UNAUTHORIZED;
    let refusal = Refusal::NextHopStatus { status };
    let answer = guarded(true).refusal(refusal, Some(&received), Carrier::H1);
    assert_eq!(
        answer.headers.get(header::WWW_AUTHENTICATE).unwrap(),
        "Other"
    );
}

#[test]
fn passwords_are_checked_elsewhere() {
    let (mut server, now) = (guarded(true), start());
    let mut head = RequestHead::classic_connect("192.0.2.6:443");
    let basic = |pair: &str| {
        use base64::Engine;
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        HeaderValue::try_from(format!("Basic {pair}")).unwrap()
    };
    let mut ask = |server: &mut Server, pair| {
        head.headers
            .insert(header::PROXY_AUTHORIZATION, basic(pair));
        server.authorize(now, &head)
    };
    let Ok(Access::Verify { job: Some(job), .. }) = ask(&mut server, "bob:secret") else {
        panic!("no job");
    };
    // There is room for one.
    let busy = ask(&mut server, "bob:other");
    assert!(matches!(busy, Ok(Access::Busy)));
    let user = server.handle_verdict(now, job.run()).unwrap();
    assert_eq!(user.name(), "bob");
    let again = ask(&mut server, "bob:secret");
    assert!(matches!(again, Ok(Access::Granted(Some(_)))));
    let Ok(Access::Verify {
        job: Some(job),
        key,
    }) = ask(&mut server, "bob:other")
    else {
        panic!("no job");
    };
    drop(job);
    server.handle_check_dropped(key);
    assert!(ask(&mut server, "bob:third").is_ok());
}

#[test]
fn without_secrets_everybody_is_welcome() {
    let access = server(&[]).authorize(start(), &request(UDP_PATH));
    assert!(matches!(access, Ok(Access::Granted(None))));
    let access = guarded(true).authorize(start(), &get("/"));
    assert!(matches!(access, Ok(Access::Granted(None))));
}
