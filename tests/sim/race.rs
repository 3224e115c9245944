//! Carriers race for a tunnel: which one wins, when the next one starts, and what the others leave behind.

use std::time::Duration;

use bauta::client::{Hop, TcpForm};
use bauta::config::HeadStarts;
use bauta::error::{CertificateFault, Refusal, TlsFault};
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;

use crate::host::{Behaviour, End};
use crate::net::{Link, NodeId, UdpCut};
use crate::node::{STRANGER, Settings, hop_on};
use crate::sim::{Sim, ms, payload, secs};

const TARGET: &str = "target.test:80";

/// A client that may choose, one relay, and a target for TCP.
struct Scene {
    sim: Sim,
    client: NodeId,
    relay: NodeId,
    target: NodeId,
}

impl Scene {
    fn new(seed: u64) -> Self {
        Self::with(seed, |_| {}, |_| {})
    }

    fn with(
        seed: u64,
        at_relay: impl FnOnce(&mut Settings),
        at_client: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay_with("egress.test", &[], at_relay);
        let client = sim.client_with_hops(vec![any_carrier()], at_client);
        let target = sim.tcp_host("target.test", 80, Behaviour::Echo);
        Self {
            sim,
            client,
            relay,
            target,
        }
    }

    fn open(&mut self) -> TunnelId {
        self.sim.open_tcp(self.client, TARGET, Some(TcpForm::Raw))
    }

    /// Opens a tunnel; how long that took.
    #[track_caller]
    fn open_now(&mut self) -> (TunnelId, Duration) {
        let began = self.sim.net.now;
        let form = Some(TcpForm::Raw);
        let tunnel = self.sim.open_tcp_now(self.client, TARGET, form);
        let opened = self.sim.tunnel(self.client, tunnel).opened;
        (tunnel, opened.expect("it is open") - began)
    }

    /// Stops UDP between client and relay for good.
    fn without_udp(mut self) -> Self {
        self.cut_udp_after(0);
        self
    }

    fn cut_udp_after(&mut self, packets: u64) {
        let cut = Some(UdpCut::AfterPackets(packets));
        self.sim.net.cut_udp(self.client, self.relay, cut);
    }

    /// TCP connections that the client has dialled.
    fn dialled_tcp(&self) -> usize {
        self.sim.net.log(self.client).connected_tcp.len()
    }

    /// The carriers on which the relay has heard requests, one per request.
    fn requests(&self) -> u64 {
        self.sim.stats(self.relay).requests
    }

    /// Connections of the target that have not ended.
    fn held_by_target(&self) -> usize {
        let conversations = &self.sim.tcp_target(self.target).conversations;
        conversations.iter().filter(|c| c.end.is_none()).count()
    }

    #[track_caller]
    fn assert_echoes(&mut self, tunnel: TunnelId) {
        let before = self.sim.tunnel(self.client, tunnel).received.len();
        let data = payload(7, 1000);
        self.sim.write(self.client, tunnel, data.clone(), false);
        let client = self.client;
        let came = self.sim.run_until(secs(5), |sim| {
            sim.tunnel(client, tunnel).received.len() >= before + 1000
        });
        assert!(came, "no echo");
        assert_eq!(self.sim.tunnel(client, tunnel).received[before..], data);
    }

    fn attempts(&self, tunnel: TunnelId) -> Vec<(Carrier, Refusal)> {
        self.sim.tunnel(self.client, tunnel).attempts.clone()
    }
}

fn any_carrier() -> Hop {
    hop_on("egress.test", &Carrier::ALL)
}

#[test]
fn http3_wins_and_nothing_else_is_dialled() {
    let mut scene = Scene::new(201);
    let (tunnel, took) = scene.open_now();
    assert!(took < ms(250), "{took:?}");
    scene.assert_echoes(tunnel);
    scene.sim.run_for(secs(2));
    assert_eq!(scene.dialled_tcp(), 0);
    assert_eq!(scene.sim.stats(scene.relay).tunnels_opened, 1);
}

#[test]
fn without_udp_http2_starts_after_the_first_head_start() {
    let mut scene = Scene::new(202).without_udp();
    let (tunnel, took) = scene.open_now();
    assert!(took > ms(250) && took < ms(400), "{took:?}");
    scene.assert_echoes(tunnel);
    scene.sim.run_for(secs(5));
    assert_eq!(scene.dialled_tcp(), 1, "HTTP/1.1 was not needed");
    assert_eq!((scene.requests(), scene.held_by_target()), (1, 1));
}

#[test]
fn http11_starts_after_the_second_head_start() {
    // A relay whose TCP is silent for whoever comes first.
    let mut scene = Scene::with(203, |settings| settings.serves = vec![Carrier::H1], |_| {});
    scene = scene.without_udp();
    let (tunnel, took) = scene.open_now();
    // HTTP/2 fails by ALPN at once, which is no reason to wait any longer.
    assert!(took > ms(250) && took < ms(450), "{took:?}");
    scene.assert_echoes(tunnel);
    assert_eq!(scene.dialled_tcp(), 2);
    assert_eq!(scene.sim.tcp_connections(scene.relay), 1);

    // Both are silent: nothing comes of anything, and each starts in its time.
    let mut scene = Scene::new(203).without_udp();
    let (client, relay) = (scene.client, scene.relay);
    scene.sim.net.set_link(client, relay, Link::DEAD);
    let began = scene.sim.net.now;
    scene.open();
    let mut dials = Vec::new();
    scene.sim.run_until(secs(9), |sim| {
        let count = sim.net.log(client).connected_tcp.len();
        while dials.len() < count {
            dials.push((sim.net.now - began).as_millis());
        }
        false
    });
    // Resolving takes ten.
    assert_eq!(dials, [260, 760]);
}

#[test]
fn head_starts_are_a_setting() {
    let limit: fn(&mut _) = |limits: &mut bauta::worker::MachineLimits| {
        limits.head_starts = HeadStarts {
            first: ms(40),
            second: ms(60),
        };
    };
    let mut scene = Scene::with(204, |_| {}, |settings| settings.limit = limit).without_udp();
    let (_, took) = scene.open_now();
    assert!(took > ms(40) && took < ms(150), "{took:?}");

    // None at all: everything starts at once, and one is left.
    let limit: fn(&mut _) = |limits: &mut bauta::worker::MachineLimits| {
        limits.head_starts = HeadStarts {
            first: Duration::ZERO,
            second: Duration::ZERO,
        };
    };
    let mut scene = Scene::with(205, |_| {}, |settings| settings.limit = limit);
    let (tunnel, _) = scene.open_now();
    scene.assert_echoes(tunnel);
    scene.sim.run_for(secs(2));
    assert_eq!(scene.held_by_target(), 1);
    assert_eq!(scene.sim.node(scene.relay).machine.tunnel_count(), 1);
}

/// Some networks let QUIC begin and stop it then.
#[test]
fn a_network_that_stops_quic_after_any_packet_falls_back() {
    let mut fell_back = 0;
    for packets in 0..40 {
        let mut scene = Scene::new(206);
        scene.cut_udp_after(packets);
        // The request needs an answer that takes a while: the network stops in the middle of it.
        scene.sim.net.dns_delay = ms(100);
        let (tunnel, took) = scene.open_now();
        assert!(took < ms(1500), "{packets}: {took:?}");
        if scene.dialled_tcp() == 0 {
            continue;
        }
        fell_back += 1;
        scene.assert_echoes(tunnel);
        scene.sim.run_for(secs(400));
        assert_eq!(scene.held_by_target(), 1, "{packets}: a loser is left");
        let relay = scene.relay;
        assert_eq!(scene.sim.node(relay).machine.tunnel_count(), 1, "{packets}");
    }
    assert!(fell_back > 5, "{fell_back}");
}

#[test]
fn losers_leave_no_trace() {
    // The path of QUIC is slower than its head start; its request arrives all the same.
    for seed in 0..10 {
        let mut scene = Scene::new(210 + seed);
        scene.sim.net.link.jitter = ms(60);
        scene.sim.net.link.delay = ms(70);
        let (tunnel, _) = scene.open_now();
        scene.sim.run_for(secs(3));
        scene.assert_echoes(tunnel);
        assert_eq!(scene.held_by_target(), 1, "{seed}");
        let conversations = &scene.sim.tcp_target(scene.target).conversations;
        for loser in conversations.iter().filter(|c| c.end.is_some()) {
            assert!(matches!(loser.how(), Some(End::Broken(_))), "{loser:?}");
            assert!(loser.received.is_empty());
        }
        let stats = scene.sim.stats(scene.relay);
        assert_eq!(stats.requests_refused, 0);
        let residue = scene.sim.node(scene.relay).machine.residue();
        assert_eq!(
            (residue.tunnels, residue.bound, residue.target_sockets),
            (1, 1, 1)
        );
        let residue = scene.sim.node(scene.client).machine.residue();
        assert_eq!(
            (
                residue.tunnels,
                residue.bound,
                residue.streams,
                residue.waiting
            ),
            (1, 1, 1, 0)
        );
    }
}

#[test]
fn when_all_fail_each_says_why() {
    let mut scene = Scene::with(
        221,
        |settings| {
            settings.identity = &STRANGER;
        },
        |_| {},
    );
    let tunnel = scene.open();
    scene.sim.run_for(secs(15));
    let attempts = scene.attempts(tunnel);
    let fault = TlsFault::Certificate(CertificateFault::UnknownIssuer);
    let certificate = Refusal::NextHopTls { fault };
    assert_eq!(attempts, Carrier::ALL.map(|carrier| (carrier, certificate)));

    // Nobody says anything: time runs out for all three.
    let mut scene = Scene::new(222);
    let (client, relay) = (scene.client, scene.relay);
    scene.sim.net.set_link(client, relay, Link::DEAD);
    let tunnel = scene.open();
    scene.sim.run_for(secs(15));
    let mut attempts = scene.attempts(tunnel);
    attempts.sort_by_key(|(carrier, _)| *carrier as u8);
    let silent = Refusal::ConnectTimeout;
    assert_eq!(attempts, Carrier::ALL.map(|carrier| (carrier, silent)));
}

/// Two relays of one name: HTTP/3 at the first, the others at the second.
fn divided(seed: u64, at_first: impl FnOnce(&mut Settings)) -> (Sim, NodeId, [NodeId; 2]) {
    let mut sim = Sim::new(seed);
    let first = sim.relay_with("egress.test", &[], |settings| {
        settings.serves = vec![Carrier::H3];
        at_first(settings);
    });
    let second = sim.relay_with("egress.test", &[], |settings| {
        settings.serves = vec![Carrier::H2, Carrier::H1];
    });
    let addresses = [first, second].map(|node| sim.net.ip(node));
    sim.net.set_name("egress.test", Ok(addresses.to_vec()));
    sim.tcp_host("target.test", 80, Behaviour::Echo);
    let client = sim.client_with_hops(vec![any_carrier()], |_| {});
    (sim, client, [first, second])
}

#[test]
fn a_final_refusal_decides_and_nobody_else_is_asked() {
    let (mut sim, client, [first, second]) = divided(231, |settings| {
        settings.policy.public_only = true;
        settings.policy.own = vec![];
    });
    // An address that is not public: 403.
    let private = "10.0.0.1".parse().unwrap();
    sim.net.set_name("private.test", Ok(vec![private]));
    let tunnel = sim.open_tcp(client, "private.test:80", None);
    sim.run_for(secs(5));
    let local = sim.tunnel(client, tunnel);
    assert_eq!(local.status(), Some(403));
    let carriers: Vec<_> = local.attempts.iter().map(|(carrier, _)| *carrier).collect();
    assert_eq!(carriers, [Carrier::H3], "the one that decided");
    assert_eq!(
        [first, second].map(|relay| sim.stats(relay).requests),
        [1, 0]
    );
    assert!(sim.net.log(client).connected_tcp.is_empty());
}

#[test]
fn an_answer_about_the_carrier_does_not_decide() {
    // The first relay says 421: the name is not one of its own.
    let (mut sim, client, [first, second]) = divided(232, |settings| {
        settings.origins = vec!["elsewhere.test".into()];
    });
    let tunnel = sim.open_tcp(client, TARGET, Some(TcpForm::Raw));
    sim.run_for(secs(5));
    let local = sim.tunnel(client, tunnel);
    assert!(local.is_open(), "{local:?}");
    assert_eq!(
        [first, second].map(|relay| sim.stats(relay).requests),
        [1, 1]
    );
}

// What worked is tried first, in that network, and not for ever.
#[test]
fn a_network_without_udp_costs_its_head_start_once() {
    let mut scene = Scene::new(233).without_udp();
    let (_, took) = scene.open_now();
    assert!(took > ms(250), "{took:?}");
    // The pooled connection is closed by now, and so is the pause behind the failed dial over.
    let open_after = |scene: &mut Scene, pause| {
        scene.sim.run_for(pause);
        scene.open_now().1
    };
    let took = open_after(&mut scene, secs(200));
    assert!(took < ms(150), "{took:?}");
    // Somewhere else nothing is known.
    scene.sim.net.elsewhere = Some("198.51.100.200".parse().unwrap());
    let took = open_after(&mut scene, secs(100));
    assert!(took > ms(250), "{took:?}");
    scene.sim.net.elsewhere = None;
    let took = open_after(&mut scene, secs(200));
    assert!(took < ms(150), "{took:?}");
    // Ten minutes after the first success HTTP/3 gets its chance again, and takes it where it can.
    let took = open_after(&mut scene, secs(200));
    assert!(took > ms(250), "{took:?}");
    let (client, relay) = (scene.client, scene.relay);
    scene.sim.net.cut_udp(client, relay, None);
    let tcp = scene.dialled_tcp();
    let took = open_after(&mut scene, secs(700));
    assert!(took < ms(150), "{took:?}");
    assert_eq!(scene.dialled_tcp(), tcp, "HTTP/3 is back");
    // What was remembered is forgotten with it.
    scene.cut_udp_after(0);
    let took = open_after(&mut scene, secs(400));
    assert!(took > ms(250), "{took:?}");
}

#[test]
fn a_slow_target_is_asked_for_once_and_a_dead_path_is_left() {
    let mut scene = Scene::new(234);
    scene.open_now();
    scene.sim.net.dns_delay = secs(3);
    let slow = scene.open();
    let client = scene.client;
    let opened = scene
        .sim
        .run_until(secs(5), |sim| sim.tunnel(client, slow).is_open());
    assert!(opened);
    assert_eq!((scene.dialled_tcp(), scene.requests()), (0, 2));

    // The request has arrived and was acknowledged; then the network stops carrying UDP.
    let slow = scene.open();
    scene.sim.run_for(ms(100));
    assert_eq!(scene.requests(), 3);
    scene.sim.net.dns_delay = ms(10);
    scene.cut_udp_after(0);
    let asked_again = scene
        .sim
        .run_until(secs(2), |sim| !sim.net.log(client).connected_tcp.is_empty());
    assert!(asked_again, "a dead path counted as alive");
    let opened = scene
        .sim
        .run_until(secs(8), |sim| sim.tunnel(client, slow).is_open());
    assert!(opened);
    scene.assert_echoes(slow);
}
