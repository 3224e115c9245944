//! Clients that break the rules of CONNECT-IP: it costs them their tunnel, and nobody else anything.

use bauta::http::h3::code::Code;
use bauta::http::h3::frame;
use bauta::http::request::RequestHead;

use bauta::wire::carrier::Carrier;

use bauta::wire::template::Template;

use super::*;
use crate::node::hop_on;
use crate::raw::{Ended, frame_of, head_frame};
use crate::sim::{Sim, ms, secs};

/// The malformed capsules of the digest of RFC 9484, section 9, without those that end with the stream.
const MALFORMED: [(&str, &str); 17] = [
    ("bad-version", "01 07 00 05 c0 00 02 0b 20"),
    ("bad-prefix-v4", "01 07 00 04 c0 00 02 0b 21"),
    (
        "bad-prefix-v6",
        "01 13 00 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 81",
    ),
    ("bad-hostbits-v4", "01 07 00 04 c0 00 02 0b 18"),
    (
        "bad-hostbits-v6",
        "01 13 00 06 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 40",
    ),
    ("bad-short", "01 06 00 04 c0 00 02 0b"),
    ("bad-trailing", "01 08 00 04 c0 00 02 0b 20 00"),
    ("ar-empty", "02 00"),
    ("ar-id-0", "02 07 00 04 00 00 00 00 20"),
    (
        "ar-dup-id",
        "02 1a 01 04 00 00 00 00 20 01 06 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 80",
    ),
    ("ra-start-gt-end", "03 0a 04 c0 00 02 09 c0 00 02 01 00"),
    ("ra-version", "03 0a 01 c0 00 02 00 c0 00 02 01 00"),
    (
        "ra-proto-order",
        "03 14 04 c0 00 02 01 c0 00 02 01 11 04 c0 00 02 02 c0 00 02 02 06",
    ),
    (
        "ra-overlap",
        "03 14 04 c0 00 02 00 c0 00 02 7f 00 04 c0 00 02 7f c0 00 02 ff 00",
    ),
    (
        "ra-overlap-0",
        "03 14 04 c0 00 02 00 c0 00 02 ff 00 04 c0 00 02 01 c0 00 02 01 11",
    ),
    ("ra-short", "03 09 04 c0 00 02 00 c0 00 02 01"),
    ("ra-trailing", "03 0b 04 c0 00 02 00 c0 00 02 01 00 06"),
];

fn hex(text: &str) -> Vec<u8> {
    let digits = text.split(' ');
    digits
        .map(|it| u8::from_str_radix(it, 16).expect("hex"))
        .collect()
}

/// A connection that has said what it has to, and nothing else.
fn connect(sim: &mut Sim, relay: NodeId, name: &str) -> (NodeId, usize) {
    let client = sim.raw_client();
    let (now, to) = (sim.net.now, sim.address(relay));
    let index = sim.raw(client).connect(now, to, name);
    sim.run_for(ms(200));
    sim.raw(client).connections[index].open_control();
    (client, index)
}

fn connect_ip(path: &str) -> RequestHead {
    RequestHead::extended_connect("connect-ip", "https", "egress.test", path)
}

// spec: 9484-4.7-b, 9484-4.7.1-c, 9484-4.7.1-d, 9484-4.7.1-e, 9484-4.7.2-a, 9484-4.7.2-b, 9484-4.7.2-h
// spec: 9484-4.7.2-j, 9484-4.7.3-b, 9484-4.7.3-d, 9484-4.7.3-e, 9484-4.7.3-f, 9484-4.7.3-g, map-46
#[test]
fn malformed_capsules_end_their_tunnel_only() {
    let mut sim = Sim::new(11);
    let relay = sim.relay_with("egress.test", &[], with_gateway(|_| {}));
    let (client, index) = connect(&mut sim, relay, "egress.test");
    let head = head_frame(&connect_ip("/.well-known/masque/ip/*/*/"));
    let spared = sim.raw(client).connections[index].open_bi(&head);
    for (name, capsule) in MALFORMED {
        let tunnel = sim.raw(client).connections[index].open_bi(&head);
        sim.run_for(ms(100));
        let connection = &mut sim.raw(client).connections[index];
        assert_eq!(connection.status(tunnel), Some(200), "{name}");
        connection.write(tunnel, &frame_of(frame::DATA, &hex(capsule)));
        sim.run_for(ms(200));
        let found = sim.raw(client).connections[index].ended(tunnel);
        assert_eq!(found.reset, Some(Code::H3_MESSAGE_ERROR), "{name}");
    }
    let connection = &mut sim.raw(client).connections[index];
    assert_eq!(connection.lost, None);
    assert_eq!(connection.ended(spared), Ended::default());
    let misbehaved = sim.stats(relay).tunnels_misbehaved;
    assert_eq!(misbehaved, MALFORMED.len() as u64);
    assert_eq!(sim.node(relay).machine.tunnel_count(), 1);
}

/// Requests that never end are bounded, whoever answers them.
// spec: 9484-4.7.2-j
#[test]
fn request_ids_are_used_once() {
    let mut sim = Sim::new(12);
    let relay = sim.relay_with("egress.test", &[], with_gateway(|_| {}));
    let (client, index) = connect(&mut sim, relay, "egress.test");
    let head = head_frame(&connect_ip("/.well-known/masque/ip/%2A/%2A/"));
    let tunnel = sim.raw(client).connections[index].open_bi(&head);
    sim.run_for(ms(100));
    let request = frame_of(frame::DATA, &hex("02 07 01 04 00 00 00 00 20"));
    for expected in [None, Some(Code::H3_MESSAGE_ERROR)] {
        sim.raw(client).connections[index].write(tunnel, &request);
        sim.run_for(ms(200));
        assert_eq!(
            sim.raw(client).connections[index].ended(tunnel).reset,
            expected
        );
    }
}

/// What a client says before the answer waits until the next hop has given it, on HTTP/1.1 too.
// spec: 9484-11-f
#[test]
fn capsules_wait_for_the_answer() {
    let mut sim = Sim::new(14);
    sim.relay_with("egress.test", &[], with_gateway(|_| {}));
    let next = vec![hop_on("egress.test", &[Carrier::H1])];
    let relay = sim.relay_with_hops("ingress.test", next, |_| {});
    let (client, index) = connect(&mut sim, relay, "ingress.test");
    let mut request = head_frame(&connect_ip("/.well-known/masque/ip/*/*/"));
    request.extend(frame_of(frame::DATA, &hex("02 07 05 04 00 00 00 00 20")));
    let tunnel = sim.raw(client).connections[index].open_bi(&request);
    sim.run_for(secs(2));
    let connection = &sim.raw(client).connections[index];
    assert_eq!(connection.status(tunnel), Some(200));
    // ADDRESS_ASSIGN with the client's own id in front of an address of the pool.
    let answer = hex("05 04 0a 59 00");
    let read = &connection.read[&tunnel];
    assert!(
        read.windows(answer.len()).any(|bytes| bytes == answer),
        "{read:?}"
    );
}

// spec: 9484-4.1-a, 9484-4.6-b, 9484-4.6-c, 9484-4.6-d, 9484-4.6-h, 9484-3-c, map-3
#[test]
fn malformed_scopes_are_refused() {
    let mut sim = Sim::new(13);
    let relay = sim.relay_with("egress.test", &[], with_gateway(|_| {}));
    let (client, index) = connect(&mut sim, relay, "egress.test");
    for (path, status) in [
        ("*/*/", 200),
        ("%2A/%2a/", 200),
        ("203.0.113.0%2F24/17/", 200),
        ("2001%3Adb8%3A%3A%2f32/*/", 200),
        ("203.0.113.1%2F24/17/", 400),
        ("203.0.113.0%2F33/17/", 400),
        ("2001%3Adb8%3A%3A%2F129/*/", 400),
        ("fe80%3A%3A1%25eth0/*/", 400),
        ("*/256/", 400),
        ("*/-1/", 400),
        ("/*/", 400),
        ("*//", 400),
        ("0x7f.1/*/", 400),
    ] {
        let head = connect_ip(&format!("/.well-known/masque/ip/{path}"));
        let tunnel = sim.raw(client).connections[index].open_bi(&head_frame(&head));
        sim.run_for(secs(1));
        let found = sim.raw(client).connections[index].status(tunnel);
        assert_eq!(found, Some(status), "{path}");
    }
}

/// A request that lacks a part, or has an empty one, asks for no tunnel.
// spec: 9484-4.4-b
#[test]
fn requests_have_all_parts() {
    let mut sim = Sim::new(17);
    let relay = sim.relay_with("egress.test", &[], with_gateway(|_| {}));
    let (client, index) = connect(&mut sim, relay, "egress.test");
    let whole = connect_ip("/.well-known/masque/ip/*/*/");
    let with = |change: fn(&mut RequestHead)| {
        let mut head = whole.clone();
        change(&mut head);
        head
    };
    for (name, head) in [
        ("no scheme", with(|head| head.scheme = None)),
        (
            "an empty scheme",
            with(|head| head.scheme = Some("".into())),
        ),
        ("no authority", with(|head| head.authority = None)),
        ("no path", with(|head| head.path = None)),
        ("an empty path", with(|head| head.path = Some("".into()))),
        ("GET", with(|head| head.method = ::http::Method::GET)),
    ] {
        let tunnel = sim.raw(client).connections[index].open_bi(&head_frame(&head));
        sim.run_for(secs(1));
        let connection = &sim.raw(client).connections[index];
        let (status, end) = (connection.status(tunnel), connection.ended(tunnel));
        assert!(
            status == Some(400) || end.reset == Some(Code::H3_MESSAGE_ERROR),
            "{name}: {status:?} {end:?}"
        );
    }
    let spared = sim.raw(client).connections[index].open_bi(&head_frame(&whole));
    sim.run_for(secs(1));
    assert_eq!(sim.raw(client).connections[index].status(spared), Some(200));
}

/// A client that assigns everything to the relay gets no further than its scope.
// spec: 9484-4.6-a, 9484-7.2-a
#[test]
fn assigning_everything_opens_nothing() {
    let scope = Scope {
        target: ScopeTarget::Prefix(net("203.0.113.9/32")),
        protocol: Some(UDP),
    };
    let mut scene = Scene::with(Carrier::H3, scope, |_| {});
    let (client, tunnel) = (scene.client, scene.tunnel);
    let assigned = scene.sim.act(client, |node, net| {
        let everything = AssignedAddress {
            request_id: 0,
            prefix: super::net("0.0.0.0/0"),
        };
        let (now, end) = (net.now, (tunnel, End::Downstream));
        let world = &mut net.world(client);
        node.machine
            .ip_assign_addresses(now, end, vec![everything], world)
    });
    assert_eq!(assigned, Ok(()));
    scene.sim.run_for(secs(1));
    let own = scene.address();
    scene.send(packet(own, ip("8.8.8.8"), UDP, 100));
    scene.send(packet(own, ip(WORLD), 6, 100));
    assert_eq!(scene.left(), Vec::<Bytes>::new());
    scene.inject(&packet(ip("8.8.8.8"), own, UDP, 100));
    let heard = scene.received().iter().filter(|it| it[9] == UDP).count();
    assert_eq!(heard, 0);
}

/// Whoever was given nothing sends nothing.
// spec: 9484-11-c
#[test]
fn nobody_sends_before_having_an_address() {
    let mut scene = scene(
        Carrier::H3,
        Topology::Direct,
        Scope::default(),
        |settings| {
            settings.unprompted = false;
        },
    );
    scene.send(packet(ip("10.89.0.9"), ip(WORLD), UDP, 100));
    scene.sim.run_for(secs(2));
    scene.send(packet(ip("10.89.0.9"), ip(WORLD), UDP, 100));
    assert_eq!(scene.left(), Vec::<Bytes>::new());
    assert_eq!(scene.sim.stats(scene.egress).ip_dropped_source, 2);
}

/// The relay's own address answers to ping and, if it says so, to questions for names.
#[test]
fn the_relay_itself_is_no_target() {
    let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
        settings.policy = Arc::new(Policy::default());
    });
    let own = scene.address();
    let ping = packet(own, ip("10.89.0.1"), 1, 100);
    scene.send(ping.clone());
    scene.send(packet(own, ip("10.89.0.1"), 6, 100));
    scene.send(packet(own, ip("10.89.0.1"), UDP, 100));
    assert_eq!(scene.left(), [ping]);
    assert_eq!(scene.sim.stats(scene.egress).ip_dropped_prohibited, 2);
}

/// Ports that are held back, routers that are named, and IPv4 behind NAT64: nothing gets around the policy.
// spec: 9484-4.8-b
#[test]
fn policy_is_not_gone_around() {
    let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
        settings.policy = Arc::new(Policy {
            deny: vec!["10.0.0.0/8".parse().expect("a rule")],
            public_only: false,
            ..Policy::default()
        });
        settings.pref64 = vec!["2001:db8:64::/96".parse().expect("a prefix")];
    });
    let assigned = scene.assigned();
    let own = assigned.iter().find(|it| it.prefix.addr().is_ipv6());
    let own = own.expect("an address").prefix.addr();
    // Behind the translator 10.0.0.1 and 8.8.8.8.
    scene.send(packet(own, ip("2001:db8:64::a00:1"), UDP, 100));
    let fine = packet(own, ip("2001:db8:64::808:808"), UDP, 100);
    scene.send(fine.clone());
    assert_eq!(scene.left(), [fine]);
    // Fragment, first of several, with no more than a header in front of TCP.
    let mut fragment = BytesMut::from(&packet(own, ip(WORLD_V6), 44, 56)[..]);
    fragment[40..56].copy_from_slice(&[60, 0, 0, 1, 0, 0, 0, 9, 6, 0, 1, 4, 0, 0, 0, 0]);
    scene.send(fragment.freeze());
    // A Routing header with a segment left.
    let mut routed = BytesMut::from(&packet(own, ip(WORLD_V6), 43, 100)[..]);
    routed[40..48].copy_from_slice(&[17, 2, 4, 1, 0, 0, 0, 0]);
    scene.send(routed.freeze());
    // Loose Source Route of IPv4.
    let mut loose = BytesMut::from(&packet(scene.address(), ip(WORLD), UDP, 60)[..]);
    loose[0] = 0x47;
    loose[20..28].copy_from_slice(&[131, 7, 4, 10, 0, 0, 1, 0]);
    scene.send(loose.freeze());
    assert_eq!(scene.left().len(), 1);
    let stats = scene.sim.stats(scene.egress);
    assert_eq!(
        (stats.ip_dropped_prohibited, stats.ip_dropped_malformed),
        (2, 2)
    );
}

/// A relay whose template has no word for what is wanted is not asked for more instead.
// spec: 9484-3-b
#[test]
fn a_template_that_says_less_is_not_used() {
    let narrow = Scope {
        target: ScopeTarget::Any,
        protocol: Some(UDP),
    };
    let template = Template::parse_ip("https://egress.test/ip/{target}/").expect("a template");
    for (ip, scope, opens) in [
        (None, Scope::default(), false),
        (Some(template), narrow, false),
        (hop_on("egress.test", &[]).ip, Scope::default(), true),
    ] {
        let mut sim = Sim::new(15);
        sim.relay_with("egress.test", &[], with_gateway(|_| {}));
        let mut hop = hop_on("egress.test", &[Carrier::H3]);
        hop.ip = ip;
        let client = sim.client_with_hops(vec![hop], |_| {});
        let tunnel = open(&mut sim, client, scope);
        sim.run_for(secs(2));
        let local = sim.tunnel(client, tunnel);
        let refusal = local.refused.as_ref().map(|(refusal, _)| *refusal);
        assert_eq!(local.is_open(), opens);
        assert_eq!(refusal, (!opens).then_some(Refusal::Misconfigured));
    }
}
