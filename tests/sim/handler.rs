//! A handler of the process decides about requests, and may be the upstream end of a tunnel, on every carrier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use bauta::client::{RouteId, TunnelKind};
use bauta::error::{Abort, Refusal};
use bauta::http::h3::code::Code;
use bauta::policy::Policy;
use bauta::tunnel::TunnelId;
use bauta::wire::capsule::CapsuleType;
use bauta::wire::carrier::Carrier;
use bauta::wire::datagram::ContextId;
use bauta::wire::proxy_status::ProxyError;
use bauta::worker::{
    CapsuleSent, Closed, Direct, End, Family, HandlerEvent, LocalEvent, LocalRead, Machine,
    Rejection,
};
use bytes::Bytes;

use crate::host::Behaviour;
use crate::net::{NodeId, World};
use crate::node::{HandlerFn, Settings, hop_on};
use crate::sim::{Sim, ms, payload, secs};

const TARGET: &str = "target.test:80";
/// A type that nobody has registered, and a context that nobody has agreed on.
const KIND: CapsuleType = CapsuleType(0x2a2a);
const CONTEXT: ContextId = ContextId(2);

/// Sends back whatever comes, as it came.
fn echo(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    let up = End::Upstream;
    let event = match event {
        HandlerEvent::Request(id, incoming) => {
            assert_eq!(incoming.destination.to_string(), TARGET);
            let answer = HeaderMap::from_iter([(header::SERVER, HeaderValue::from_static("echo"))]);
            machine.set_answer(id, answer);
            return machine.accept_request(now, id, out);
        }
        HandlerEvent::End(event) => event,
        HandlerEvent::Fallback(..) | HandlerEvent::Gateway(_) => return,
    };
    match event {
        LocalEvent::Payload(id, payload) => {
            machine.send_end(now, id, up, ContextId::UDP_PAYLOAD, payload, out);
        }
        LocalEvent::Context(id, context, payload) => {
            machine.send_end(now, id, up, ContextId(context), payload, out);
        }
        LocalEvent::Capsule(id, kind, value) => {
            let sent = machine.send_capsule(now, id, up, CapsuleType(kind), &value);
            assert_eq!(sent, CapsuleSent::Sent);
        }
        LocalEvent::Readable(id) | LocalEvent::Writable(id) => loop {
            let room = machine.end_room(id, up);
            if room == 0 {
                return;
            }
            match machine.read_end(now, id, up, room, out) {
                LocalRead::Data(data) => machine.write_end(now, id, up, data, out),
                LocalRead::Blocked => return,
                LocalRead::End => return machine.finish_end(now, id, up, out),
            }
        },
        LocalEvent::Opened(_) | LocalEvent::Closed(..) | LocalEvent::Ip(..) => {}
        LocalEvent::Refused(..) => unreachable!("only users downstream are refused"),
    }
}

/// Takes every tunnel, and closes it with a code when something comes.
fn closes(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    match event {
        HandlerEvent::Request(id, _) => machine.accept_request(now, id, out),
        HandlerEvent::End(LocalEvent::Payload(id, _) | LocalEvent::Readable(id)) => {
            machine.close_end(now, id, End::Upstream, Some(Code(0x4242)), out);
        }
        HandlerEvent::End(_) | HandlerEvent::Fallback(..) | HandlerEvent::Gateway(_) => {}
    }
}

/// Never decides.
fn silent(_: Instant, _: HandlerEvent, _: &mut Machine, _: Option<RouteId>, _: &mut World<'_>) {}

fn refuses(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    if let HandlerEvent::Request(id, _) = event {
        let challenge = HeaderValue::from_static("PrivateToken challenge=\"abc\"");
        let rejection = Rejection {
            status: StatusCode::UNAUTHORIZED,
            headers: HeaderMap::from_iter([(header::WWW_AUTHENTICATE, challenge)]),
            error: ProxyError::HttpRequestDenied,
            details: Some("no token".into()),
        };
        machine.reject(now, id, rejection, out);
    }
}

fn passes_on(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    route: Option<RouteId>,
    out: &mut World<'_>,
) {
    if let HandlerEvent::Request(id, _) = event {
        match route {
            Some(route) => machine.proceed_chain(now, id, route, None, out),
            None => machine.proceed_direct(now, id, direct(Family::Any), out),
        }
    }
}

fn only_v6(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    if let HandlerEvent::Request(id, _) = event {
        machine.proceed_direct(now, id, direct(Family::V6), out);
    }
}

/// Addresses of its own, which are judged all the same.
fn resolves_privately(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    if let HandlerEvent::Request(id, _) = event {
        let direct = Direct {
            addresses: Some(vec![[10, 0, 0, 1].into()]),
            policy: Arc::new(Policy::default()),
            ..direct(Family::Any)
        };
        machine.proceed_direct(now, id, direct, out);
    }
}

fn direct(family: Family) -> Direct {
    let policy = Policy {
        public_only: false,
        ..Policy::default()
    };
    Direct {
        addresses: None,
        socket: bauta::net::SocketOptions::default(),
        policy: Arc::new(policy),
        family,
        timeout: None,
    }
}

struct Scene {
    sim: Sim,
    relay: NodeId,
    client: NodeId,
}

impl Scene {
    fn new(seed: u64, carrier: Carrier, handler: HandlerFn) -> Self {
        Self::with(seed, carrier, &[], |settings| {
            settings.handler = Some(handler)
        })
    }

    fn with(
        seed: u64,
        carrier: Carrier,
        hops: &[&str],
        at_relay: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay_with("ingress.test", hops, at_relay);
        let client = sim.client_with_hops(vec![hop_on("ingress.test", &[carrier])], |_| {});
        Self { sim, relay, client }
    }

    #[track_caller]
    fn refused(&mut self, tunnel: TunnelId) -> (Refusal, HeaderMap) {
        let client = self.client;
        let is_refused = |sim: &Sim| sim.tunnel(client, tunnel).refused.is_some();
        assert!(self.sim.run_until(secs(20), is_refused));
        let (refusal, response) = self
            .sim
            .tunnel(client, tunnel)
            .refused
            .clone()
            .expect("the tunnel was refused");
        (
            refusal,
            response.map(|head| head.headers).unwrap_or_default(),
        )
    }
}

#[test]
fn datagrams_contexts_and_capsules_reach_a_handler_and_come_back() {
    for (seed, carrier) in (900..).zip(Carrier::ALL) {
        let Scene {
            mut sim,
            relay,
            client,
        } = Scene::new(seed, carrier, echo);
        let tunnel = sim.open_now(client, TARGET);
        for number in 0..20 {
            sim.send(client, tunnel, payload(number, 100));
        }
        sim.act(client, |node, net| {
            let (now, world) = (net.now, &mut net.world(client));
            let end = End::Downstream;
            node.machine.send_end(
                now,
                tunnel,
                end,
                CONTEXT,
                Bytes::from_static(b"else"),
                world,
            );
            let sent = node.machine.send_capsule(now, tunnel, end, KIND, b"value");
            assert_eq!(sent, CapsuleSent::Sent);
        });
        sim.run_for(secs(1));
        let local = sim.tunnel(client, tunnel);
        assert_eq!(local.payloads.len(), 20, "{carrier:?}");
        assert_eq!(
            local.contexts,
            [(CONTEXT.0, Bytes::from_static(b"else"))],
            "{carrier:?}"
        );
        assert_eq!(
            local.capsules,
            [(KIND.0, Bytes::from_static(b"value"))],
            "{carrier:?}"
        );
        sim.close(client, tunnel);
        sim.run_for(secs(1));
        // HTTP/2 ends a tunnel by a reset either way.
        let handled = &sim.node(relay).handled;
        assert!(
            matches!(
                handled[..],
                [Closed::Aborted {
                    abort: Abort::ClientClosed | Abort::ClientCancelled,
                    ..
                }]
            ),
            "{carrier:?} {handled:?}"
        );
    }
}

#[test]
fn bytes_reach_a_handler_and_come_back_at_the_readers_pace() {
    for (seed, carrier) in (910..).zip(Carrier::ALL) {
        let Scene {
            mut sim,
            relay,
            client,
        } = Scene::new(seed, carrier, echo);
        let tunnel = sim.open_tcp_now(client, TARGET, None);
        let data = payload(1, 3 << 20);
        sim.pause_tunnel(client, tunnel, true);
        sim.write(client, tunnel, data.clone(), true);
        sim.run_for(secs(2));
        assert!(sim.tunnel(client, tunnel).received.is_empty());
        assert!(
            !sim.tunnel(client, tunnel).unwritten.is_empty(),
            "the handler waits for its reader"
        );
        sim.pause_tunnel(client, tunnel, false);
        let ended = sim.run_until(secs(60), |sim| sim.tunnel(client, tunnel).ended);
        assert!(ended, "{carrier:?}");
        assert!(sim.tunnel(client, tunnel).received == data);
        sim.run_for(secs(1));
        assert_eq!(sim.node(relay).handled, [Closed::Finished], "{carrier:?}");
        assert_eq!(sim.tunnel(client, tunnel).reason, Some(Closed::Finished));
    }
}

#[test]
fn capsules_travel_beside_the_bytes_where_the_stream_has_them() {
    use bauta::client::TcpForm;
    for (seed, (form, expected)) in (920..).zip([
        (TcpForm::Capsules, CapsuleSent::Sent),
        (TcpForm::Raw, CapsuleSent::Unsupported),
        (TcpForm::Classic, CapsuleSent::Unsupported),
    ]) {
        let Scene {
            mut sim, client, ..
        } = Scene::new(seed, Carrier::H2, echo);
        let tunnel = sim.open_tcp_now(client, TARGET, Some(form));
        sim.write(client, tunnel, payload(1, 1000), false);
        let sent = sim.act(client, |node, net| {
            node.machine
                .send_capsule(net.now, tunnel, End::Downstream, KIND, b"value")
        });
        assert_eq!(sent, expected, "{form:?}");
        sim.run_for(secs(1));
        let local = sim.tunnel(client, tunnel);
        assert_eq!(local.received.len(), 1000);
        assert_eq!(
            local.capsules.len(),
            usize::from(expected == CapsuleSent::Sent),
            "{form:?}"
        );
    }
}

#[test]
fn a_handler_closes_with_a_code_of_its_own() {
    for (seed, carrier) in (930..).zip([Carrier::H3, Carrier::H2, Carrier::H1]) {
        let Scene {
            mut sim,
            relay,
            client,
        } = Scene::new(seed, carrier, closes);
        let tunnel = sim.open_tcp_now(client, TARGET, None);
        sim.write(client, tunnel, payload(1, 10), false);
        sim.run_for(secs(1));
        let Some(Closed::Aborted {
            abort: Abort::UpstreamReset,
            code,
        }) = sim.tunnel(client, tunnel).reason
        else {
            panic!("{carrier:?} {:?}", sim.tunnel(client, tunnel).reason);
        };
        if carrier == Carrier::H3 {
            assert_eq!(code, Some(Code(0x4242)));
        }
        let abort = Abort::Closed { code: 0x4242 };
        assert_eq!(
            sim.node(relay).handled,
            [Closed::Aborted { abort, code: None }]
        );
    }
}

#[test]
fn a_refusal_says_what_the_handler_wants_to_be_said() {
    for (seed, carrier) in (940..).zip(Carrier::ALL) {
        let mut scene = Scene::new(seed, carrier, refuses);
        let tunnel = scene.sim.open(scene.client, TARGET);
        let (refusal, headers) = scene.refused(tunnel);
        let status = StatusCode::UNAUTHORIZED;
        assert_eq!(refusal, Refusal::NextHopStatus { status }, "{carrier:?}");
        assert_eq!(
            headers[header::WWW_AUTHENTICATE],
            "PrivateToken challenge=\"abc\""
        );
        assert_eq!(
            headers["proxy-status"],
            "ingress.test;error=http_request_denied;details=\"no token\""
        );
        assert!(scene.sim.node(scene.relay).handled.is_empty(), "it knows");
    }
}

#[test]
fn a_request_that_nobody_decides_about_is_refused_in_time() {
    for (seed, carrier) in (950..).zip(Carrier::ALL) {
        let mut scene = Scene::new(seed, carrier, silent);
        let tunnel = scene.sim.open(scene.client, TARGET);
        // The client gives up at the same time, so either of them may be first.
        scene.refused(tunnel);
        scene.sim.run_for(secs(1));
        let handled = &scene.sim.node(scene.relay).handled;
        assert!(
            matches!(handled[..], [Closed::Aborted { .. }]),
            "{handled:?}"
        );
        assert_eq!(scene.sim.node(scene.relay).machine.tunnel_count(), 0);
    }
}

#[test]
fn what_a_handler_passes_on_is_relayed_as_ever() {
    for (seed, carrier) in (960..).zip(Carrier::ALL) {
        for hops in [&[][..], &["egress.test"]] {
            let Scene {
                mut sim,
                relay,
                client,
            } = Scene::with(seed, carrier, hops, |settings| {
                settings.handler = Some(passes_on)
            });
            if !hops.is_empty() {
                sim.relay("egress.test", &[]);
            }
            sim.tcp_host("target.test", 80, Behaviour::Echo);
            let tunnel = sim.open_tcp_now(client, TARGET, None);
            sim.write(client, tunnel, payload(1, 10_000), true);
            assert!(sim.run_until(secs(5), |sim| sim.tunnel(client, tunnel).ended));
            assert_eq!(sim.tunnel(client, tunnel).received.len(), 10_000);
            assert!(sim.node(relay).handled.is_empty());
        }
    }
}

#[test]
fn addresses_of_a_handler_are_judged_and_chosen_by_family() {
    let status = |refusal| {
        let Refusal::NextHopStatus { status } = refusal else {
            panic!("{refusal:?}");
        };
        status.as_u16()
    };
    let mut scene = Scene::new(970, Carrier::H3, resolves_privately);
    let tunnel = scene.sim.open(scene.client, TARGET);
    assert_eq!(status(scene.refused(tunnel).0), 403);
    let mut scene = Scene::new(971, Carrier::H3, only_v6);
    scene.sim.tcp_host("target.test", 80, Behaviour::Echo);
    let tunnel = scene.sim.open_tcp(scene.client, TARGET, None);
    assert_eq!(status(scene.refused(tunnel).0), 502);
}

#[test]
fn both_ends_of_a_tunnel_may_be_in_one_process() {
    let mut sim = Sim::new(980);
    let both = sim.relay_with("egress.test", &[], |settings| settings.handler = Some(echo));
    let open = |sim: &mut Sim, kind| {
        sim.act(both, |node, net| {
            let (now, target) = (net.now, TARGET.parse().unwrap());
            let tunnel = node
                .machine
                .open_local_handler(now, target, kind, &mut net.world(both));
            node.tunnels.entry(tunnel).or_default();
            tunnel
        })
    };
    let tunnel = open(&mut sim, TunnelKind::TCP);
    sim.run_for(ms(1));
    sim.write(both, tunnel, payload(1, 1 << 20), true);
    assert!(sim.run_until(secs(1), |sim| sim.tunnel(both, tunnel).ended));
    assert_eq!(sim.tunnel(both, tunnel).received.len(), 1 << 20);
    let tunnel = open(&mut sim, TunnelKind::Udp);
    sim.run_for(ms(1));
    sim.send(both, tunnel, payload(7, 50));
    sim.run_for(ms(1));
    assert_eq!(sim.tunnel(both, tunnel).payloads.len(), 1);
}

/// Says much, and breaks the tunnel when it hears something.
fn last_words(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    let up = End::Upstream;
    match event {
        HandlerEvent::End(LocalEvent::Opened(id)) => {
            machine.write_end(now, id, up, payload(1, 10_000), out);
        }
        HandlerEvent::End(LocalEvent::Readable(id)) => {
            machine.close_end(now, id, up, Some(Code(0x4242)), out);
        }
        HandlerEvent::Request(..) | HandlerEvent::End(_) => {}
        HandlerEvent::Fallback(..) | HandlerEvent::Gateway(_) => {}
    }
}

#[test]
fn what_came_before_the_end_is_read_before_it() {
    let mut sim = Sim::new(982);
    let settings = |settings: &mut Settings| settings.handler = Some(last_words);
    let both = sim.relay_with("egress.test", &[], settings);
    let tunnel = sim.act(both, |node, net| {
        let (now, target) = (net.now, TARGET.parse().unwrap());
        let tunnel =
            node.machine
                .open_local_handler(now, target, TunnelKind::TCP, &mut net.world(both));
        node.tunnels.entry(tunnel).or_default().paused = true;
        tunnel
    });
    sim.run_for(ms(1));
    assert_eq!(sim.tunnel(both, tunnel).received.len(), 0);
    sim.write(both, tunnel, payload(1, 1), false);
    sim.run_for(ms(1));
    let local = sim.tunnel(both, tunnel);
    assert_eq!(local.received, payload(1, 10_000));
    assert!(matches!(local.reason, Some(Closed::Aborted { .. })));
}

#[test]
fn a_target_is_reached_from_the_process_itself() {
    let mut sim = Sim::new(981);
    let node = sim.relay("egress.test", &[]);
    sim.tcp_host("target.test", 80, Behaviour::Echo);
    let open = |sim: &mut Sim, name: &str, timeout| {
        sim.act(node, |machine, net| {
            let (now, target) = (net.now, name.parse().unwrap());
            let direct = Direct {
                timeout,
                ..direct(Family::Any)
            };
            let kind = TunnelKind::TCP;
            let tunnel =
                machine
                    .machine
                    .open_local_direct(now, target, kind, direct, &mut net.world(node));
            machine.tunnels.entry(tunnel).or_default();
            tunnel
        })
    };
    let tunnel = open(&mut sim, TARGET, None);
    assert!(sim.run_until(secs(1), |sim| sim.tunnel(node, tunnel).is_open()));
    sim.write(node, tunnel, payload(1, 5000), true);
    assert!(sim.run_until(secs(1), |sim| sim.tunnel(node, tunnel).ended));
    assert_eq!(sim.tunnel(node, tunnel).received.len(), 5000);
    // Nobody answers there, and the caller is in a hurry.
    let tunnel = open(
        &mut sim,
        "203.0.113.201:80",
        Some(Duration::from_millis(300)),
    );
    sim.run_for(ms(299));
    assert!(sim.tunnel(node, tunnel).refused.is_none());
    sim.run_for(ms(2));
    let refused = sim
        .tunnel(node, tunnel)
        .refused
        .clone()
        .expect("the tunnel was refused");
    assert_eq!(refused.0, Refusal::ConnectTimeout);
    assert_eq!(sim.node(node).machine.tunnel_count(), 0);
}
