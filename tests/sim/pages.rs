//! Requests that ask for no tunnel, and relays that accept nothing for a while.

use bauta::http::h3::RecvData;
use bauta::http::h3::code::Code;
use bauta::http::request::{RequestHead, ResponseHead};
use bauta::wire::carrier::Carrier;
use bauta::worker::{PlainRequest, Residue};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::host::{Behaviour, stream_bytes};
use crate::net::NodeId;
use crate::node::hop_on;
use crate::sim::{Sim, ms, secs};

/// More than any window, and than all that lies between.
const LARGE: usize = 6 << 20;

/// The site of these tests.
fn site(request: &PlainRequest) -> Option<(ResponseHead, Bytes)> {
    let path = request.head.path.as_deref().unwrap_or_default();
    let (status, body) = match path {
        "/" => (200, Bytes::from_static(b"hello")),
        "/large" => (200, stream_bytes(LARGE).into()),
        "/empty" => (204, Bytes::from_static(b"not to be sent")),
        "/never" => return None,
        _ => (404, Bytes::from_static(b"nothing here")),
    };
    let mut head = ResponseHead::new(StatusCode::from_u16(status).expect("three digits"));
    // What does not fit the connection does not go out.
    for (name, value) in [
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("content-length", "77"),
        ("transfer-encoding", "chunked"),
        ("content-type", "text/plain"),
    ] {
        head.headers.insert(name, value.parse().expect("a value"));
    }
    Some((head, body))
}

struct Scene {
    sim: Sim,
    relay: NodeId,
    browser: NodeId,
    carrier: Carrier,
}

impl Scene {
    /// A relay with a site, and a browser that is connected to it.
    fn new(seed: u64, carrier: Carrier) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay("egress.test", &[]);
        sim.act(relay, |node, _| {
            node.machine.set_fallback(true);
            node.fallback = site;
        });
        let browser = sim.browser();
        let mut scene = Self {
            sim,
            relay,
            browser,
            carrier,
        };
        scene.connect();
        scene
    }

    fn connect(&mut self) {
        let to = (self.sim.address(self.relay), "egress.test");
        let (browser, carrier) = (self.browser, self.carrier);
        self.sim
            .browse(browser, |it, net| it.connect(net, browser, carrier, to));
    }

    /// Asks for a page; on HTTP/1.1 as text on the last connection.
    fn ask(&mut self, method: &str, path: &str, content: &[u8]) -> usize {
        let carrier = self.carrier;
        self.sim.browse(self.browser, |it, _| match carrier {
            Carrier::H3 | Carrier::H2 => {
                let head = RequestHead {
                    method: Method::from_bytes(method.as_bytes()).expect("a method"),
                    protocol: None,
                    scheme: Some("https".into()),
                    authority: Some("egress.test".into()),
                    path: Some(path.into()),
                    headers: HeaderMap::new(),
                };
                it.ask(head, Bytes::copy_from_slice(content))
            }
            Carrier::H1 => {
                let length = content.len();
                let framing = match length {
                    0 => String::new(),
                    _ => format!("Content-Length: {length}\r\n"),
                };
                let text =
                    format!("{method} {path} HTTP/1.1\r\nHost: egress.test\r\n{framing}\r\n");
                let plain = it.plain.last_mut().expect("a connection");
                plain.say(&[text.as_bytes(), content].concat());
                it.plain.len() - 1
            }
        })
    }

    /// Waits for the end of a response on HTTP/3 or HTTP/2, or for so many bytes on HTTP/1.1: status, fields, body.
    #[track_caller]
    fn response(&mut self, ask: usize, is_head: bool) -> (u16, HeaderMap, Vec<u8>) {
        let (browser, carrier) = (self.browser, self.carrier);
        match carrier {
            Carrier::H3 | Carrier::H2 => {
                let ended = |sim: &Sim| sim.browses(browser).asks[ask].end.is_some();
                assert!(self.sim.run_until(secs(60), ended), "{carrier:?}: no end");
                let ask = &self.sim.browses(browser).asks[ask];
                assert_eq!(ask.end, Some(RecvData::Finished), "{carrier:?}");
                let head = ask.response.clone().expect("a response");
                (head.status.as_u16(), head.headers, ask.body.clone())
            }
            Carrier::H1 => {
                let whole =
                    |sim: &Sim| parse(&sim.browses(browser).plain[ask].received, is_head).is_some();
                let came = self.sim.run_until(secs(60), whole);
                assert!(came, "{}", self.sim.browses(browser).plain[ask].text());
                let (response, rest) = self.sim.browse(browser, |it, _| {
                    let plain = &mut it.plain[ask];
                    let (response, len) = parse(&plain.received, is_head).expect("a response");
                    plain.received.drain(..len);
                    (response, plain.received.len())
                });
                assert_eq!(rest, 0, "bytes behind the response");
                response
            }
        }
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let machine = &self.sim.node(self.relay).machine;
        assert_eq!(machine.residue(), Residue::default(), "{:?}", self.carrier);
    }
}

type Response = (u16, HeaderMap, Vec<u8>);

/// One whole response in front of what came, and its length.
fn parse(received: &[u8], is_head: bool) -> Option<(Response, usize)> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&received[..end]).expect("ASCII");
    let mut lines = text.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?[..3]
        .parse()
        .expect("well-formed");
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").expect("well-formed");
        let name: http::HeaderName = name.parse().expect("well-formed");
        headers.append(name, value.parse().expect("a value"));
    }
    let length = headers.get("content-length");
    let length = length.map_or(0, |value| {
        value
            .to_str()
            .expect("well-formed")
            .parse()
            .expect("well-formed")
    });
    let length: usize = if is_head { 0 } else { length };
    let body = received.get(end..end + length)?.to_vec();
    Some(((status, headers, body), end + length))
}

#[test]
fn every_carrier_answers_with_a_body() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(800, carrier);
        // One connection for all of them, on HTTP/1.1 too.
        for (method, path, status, body, length) in [
            ("GET", "/", 200, "hello", Some("5")),
            ("HEAD", "/", 200, "", Some("5")),
            ("DELETE", "/none?x=y", 404, "nothing here", Some("12")),
            ("GET", "/empty", 204, "", None),
            (
                "GET",
                "/.well-known/masque/udp/192.0.2.1/53/",
                404,
                "nothing here",
                Some("12"),
            ),
        ] {
            let what = format!("{method} {path} on {carrier:?}");
            let ask = scene.ask(method, path, b"");
            let (found, headers, content) = scene.response(ask, method == "HEAD");
            assert_eq!((found, content), (status, body.into()), "{what}");
            let said = headers.get("content-length").map(|it| it.to_str().unwrap());
            assert_eq!(said, length, "{what}");
            assert_eq!(headers["content-type"], "text/plain", "{what}");
            for name in ["connection", "x-hop", "transfer-encoding"] {
                assert!(!headers.contains_key(name), "{what}: {name}");
            }
        }
        let sim = &scene.sim;
        let asked = &sim.node(scene.relay).asked;
        assert_eq!(asked.len(), 5, "{carrier:?}");
        for request in asked {
            assert_eq!(request.carrier, carrier);
            assert_eq!(request.client.unwrap().ip(), sim.net.ip(scene.browser));
            assert_eq!(request.head.authority.as_deref(), Some("egress.test"));
        }
        assert_eq!(sim.stats(scene.relay).requests_answered, 5);
        scene.assert_nothing_left();
    }
}

#[test]
fn without_a_fallback_they_are_refused_and_tunnels_never_go_there() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(801, carrier);
        let hops = vec![hop_on("egress.test", &[carrier])];
        let client = scene.sim.client_with_hops(hops, |_| {});
        scene.sim.tcp_host("target.test", 80, Behaviour::Echo);
        scene.sim.open_tcp_now(client, "target.test:80", None);
        assert!(scene.sim.node(scene.relay).asked.is_empty(), "{carrier:?}");
        scene
            .sim
            .act(scene.relay, |node, _| node.machine.set_fallback(false));
        let ask = scene.ask("GET", "/", b"");
        let (status, ..) = scene.response(ask, false);
        assert_eq!(status, 404, "{carrier:?}");
        assert!(scene.sim.node(scene.relay).asked.is_empty(), "{carrier:?}");
    }
}

#[test]
fn a_body_larger_than_every_window_arrives_whole() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(802, carrier);
        let ask = scene.ask("GET", "/large", b"");
        let (status, headers, body) = scene.response(ask, false);
        assert_eq!(
            (status, &headers["content-length"]),
            (200, &LARGE.to_string()[..].parse().unwrap())
        );
        assert!(body == stream_bytes(LARGE), "{carrier:?}: damaged");
        scene.assert_nothing_left();
        let ask = scene.ask("GET", "/", b"");
        assert_eq!(scene.response(ask, false).2, b"hello", "{carrier:?}");
    }
}

/// A reader that pauses gets everything when it goes on; one that never does is sent away, and costs bounded memory.
#[test]
fn a_body_that_nobody_reads_is_given_up() {
    for carrier in Carrier::ALL {
        for resumes in [true, false] {
            let mut scene = Scene::new(803, carrier);
            // The handshake of HTTP/1.1 must be over before it reads nothing more.
            scene.sim.run_for(ms(300));
            let ask = scene.ask("GET", "/large", b"");
            let pause = |scene: &mut Scene, paused: bool| {
                scene.sim.browse(scene.browser, |it, _| match carrier {
                    Carrier::H3 | Carrier::H2 => it.asks[ask].paused = paused,
                    Carrier::H1 => it.plain[ask].paused = paused,
                });
            };
            pause(&mut scene, true);
            scene.sim.run_for(secs(20));
            let residue = scene.sim.node(scene.relay).machine.residue();
            assert_eq!((residue.plain, residue.bound), (1, 1), "{carrier:?}");
            if resumes {
                pause(&mut scene, false);
                let (.., body) = scene.response(ask, false);
                assert!(body == stream_bytes(LARGE), "{carrier:?}: damaged");
            } else {
                scene.sim.run_for(secs(200));
                assert_eq!(scene.sim.stats(scene.relay).bodies_unread, 1, "{carrier:?}");
            }
            scene.assert_nothing_left();
        }
    }
}

#[test]
fn content_of_a_request_is_thrown_away() {
    for carrier in Carrier::ALL {
        for bytes in [10, 100_000, 3 << 20] {
            let mut scene = Scene::new(804, carrier);
            let ask = scene.ask("POST", "/", &vec![7; bytes]);
            let (status, headers, body) = scene.response(ask, false);
            assert_eq!(
                (status, &body[..]),
                (200, &b"hello"[..]),
                "{bytes} on {carrier:?}"
            );
            scene.assert_nothing_left();
            if carrier == Carrier::H1 {
                // Whatever follows could be content.
                assert_eq!(headers["connection"], "close");
                scene.sim.run_for(secs(5));
                let plain = &scene.sim.browses(scene.browser).plain[0];
                assert!(plain.ended.is_some() && plain.received.is_empty());
                assert_eq!(scene.sim.tcp_connections(scene.relay), 0);
            } else {
                let again = scene.ask("GET", "/", b"");
                assert_eq!(scene.response(again, false).2, b"hello", "{carrier:?}");
            }
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let mut scene = Scene::new(805, Carrier::H1);
    for path in ["/large", "/none", "/"] {
        scene.ask("GET", path, b"");
    }
    let browser = scene.browser;
    let wanted = LARGE + 12 + 5;
    let came = scene.sim.run_until(secs(60), |sim| {
        let received = &sim.browses(browser).plain[0].received;
        received.len() > wanted && received.ends_with(b"\r\n\r\nhello")
    });
    assert!(came);
    let received = &scene.sim.browses(browser).plain[0].received;
    let (large, len) = parse(received, false).unwrap();
    assert!(large.2 == stream_bytes(LARGE));
    let (none, more) = parse(&received[len..], false).unwrap();
    assert_eq!(none.2, b"nothing here");
    assert_eq!(parse(&received[len + more..], false).unwrap().0.2, b"hello");
}

#[test]
fn requests_count_as_tunnels_and_are_refused_when_nobody_answers() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(806, carrier);
        scene.sim.run_for(ms(300));
        let waits = scene.ask("GET", "/never", b"");
        scene.sim.run_for(secs(1));
        assert_eq!(scene.sim.node(scene.relay).machine.residue().plain, 1);
        let (status, ..) = scene.response(waits, false);
        assert_eq!(status, 503, "{carrier:?}");
        // Whoever thinks of an answer hears that there is no need for one.
        assert_eq!(scene.sim.node(scene.relay).handled.len(), 1);
        scene.assert_nothing_left();
        // A client that goes is forgotten.
        let gone = scene.ask("GET", "/never", b"");
        scene.sim.run_for(ms(200));
        assert_eq!(scene.sim.node(scene.relay).machine.residue().plain, 1);
        if carrier == Carrier::H1 {
            scene
                .sim
                .browse(scene.browser, |it, _| it.plain[gone].ended = Some(false));
            scene.sim.run_for(secs(1));
            assert_eq!(scene.sim.node(scene.relay).handled.len(), 2);
            scene.assert_nothing_left();
        }
    }
    let mut sim = Sim::new(807);
    let relay = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.limits.tunnels = 1;
    });
    sim.act(relay, |node, _| node.machine.set_fallback(true));
    let (browser, carrier) = (sim.browser(), Carrier::H2);
    let mut scene = Scene {
        sim,
        relay,
        browser,
        carrier,
    };
    scene.connect();
    scene.ask("GET", "/never", b"");
    let refused = scene.ask("GET", "/never", b"");
    assert_eq!(scene.response(refused, false).0, 503);
    assert_eq!(scene.sim.stats(relay).tunnels_refused, 1);
}

/// A relay that accepts nothing for a while: its tunnels go on, however long, and it does not end.
#[test]
fn a_relay_stops_accepting_and_accepts_again() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(810, carrier);
        let hops = vec![hop_on("egress.test", &[carrier])];
        let client = scene.sim.client_with_hops(hops, |_| {});
        scene.sim.tcp_host("target.test", 80, Behaviour::Echo);
        let stays = scene.sim.open_tcp_now(client, "target.test:80", None);
        let relay = scene.relay;
        scene
            .sim
            .act(relay, |node, net| node.machine.stop_accepting(net.now));
        assert!(scene.sim.node(relay).machine.is_draining());
        scene.sim.run_for(secs(1));
        if carrier != Carrier::H1 {
            assert!(scene.sim.browses(scene.browser).goaway, "{carrier:?}");
        }
        let refused = scene.sim.open_tcp(client, "target.test:80", None);
        scene.sim.run_for(secs(12));
        assert!(!scene.sim.tunnel(client, refused).is_open(), "{carrier:?}");
        let machine = &scene.sim.node(relay).machine;
        assert!(
            machine.is_draining() && !machine.is_finished(),
            "{carrier:?}"
        );
        // Longer than a drain may take.
        for _ in 0..5 {
            scene.sim.run_for(secs(20));
            scene
                .sim
                .write(client, stays, Bytes::from_static(b"still here"), false);
        }
        scene.sim.run_for(secs(1));
        assert_eq!(
            scene.sim.tunnel(client, stays).received.len(),
            50,
            "{carrier:?}"
        );
        scene.sim.act(relay, |node, _| node.machine.accept_again());
        assert!(!scene.sim.node(relay).machine.is_draining());
        scene.sim.open_tcp_now(client, "target.test:80", None);
        scene.connect();
        let ask = scene.ask("GET", "/", b"");
        assert_eq!(scene.response(ask, false).2, b"hello", "{carrier:?}");
        // A drain ends all the same, also one that begins while nothing is accepted.
        scene.sim.act(relay, |node, net| {
            node.machine.stop_accepting(net.now);
            node.machine.drain(net.now);
            node.machine.accept_again();
        });
        scene.sim.run_for(secs(120));
        assert!(scene.sim.node(relay).machine.is_finished(), "{carrier:?}");
    }
}

/// A connection whose handshake was under way when the others heard GOAWAY. QUIC says it in its first flight.
#[test]
fn requests_that_slip_through_are_refused_as_draining() {
    for carrier in [Carrier::H2, Carrier::H1] {
        let mut scene = Scene::new(811, carrier);
        let (relay, browser) = (scene.relay, scene.browser);
        let accepted = scene
            .sim
            .run_until(secs(1), |sim| sim.tcp_connections(relay) == 1);
        assert!(accepted, "{carrier:?}");
        scene
            .sim
            .act(relay, |node, net| node.machine.stop_accepting(net.now));
        let ask = scene.ask("GET", "/", b"");
        scene.sim.pause(browser, secs(1));
        if carrier == Carrier::H1 {
            let (status, headers, _) = scene.response(ask, false);
            assert_eq!(
                (status, &headers["connection"]),
                (503, &"close".parse().unwrap())
            );
        } else {
            scene.sim.run_for(secs(3));
            let browser = scene.sim.browses(browser);
            let rejected = RecvData::Reset(Code::H3_REQUEST_REJECTED);
            assert_eq!(browser.asks[ask].end, Some(rejected));
            assert!(browser.goaway);
        }
        assert!(scene.sim.node(relay).asked.is_empty());
        assert_eq!(scene.sim.stats(relay).requests_refused, 1, "{carrier:?}");
        scene.sim.run_for(secs(5));
        assert_eq!(scene.sim.tcp_connections(relay), 0, "{carrier:?}");
    }
}
