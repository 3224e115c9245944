//! TCP tunnels at their bounds: nothing is left of any of them, however it ended; slow readers cost bounded memory.

use std::net::IpAddr;

use bauta::client::TcpForm;
use bauta::net::TcpClose;
use bauta::policy::resolve::ResolveError;
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;
use bauta::worker::{Closed, MachineLimits, Residue};
use bytes::Bytes;

use crate::host::{Behaviour, End, stream_bytes};
use crate::net::{Link, NodeId, Rng};
use crate::node::hop_on;
use crate::sim::{Sim, ms, payload, secs};

const FORMS: [TcpForm; 3] = [TcpForm::Classic, TcpForm::Raw, TcpForm::Capsules];

/// Client, ingress, egress and several targets.
struct Chain {
    sim: Sim,
    client: NodeId,
    ingress: NodeId,
    egress: NodeId,
}

impl Chain {
    fn new(
        seed: u64,
        first: &[Carrier],
        second: &[Carrier],
        limit: fn(&mut MachineLimits),
    ) -> Self {
        let mut sim = Sim::new(seed);
        let egress = sim.relay_with("egress.test", &[], |settings| settings.limit = limit);
        let next = vec![hop_on("egress.test", second)];
        let ingress = sim.relay_with_hops("ingress.test", next, |settings| settings.limit = limit);
        let client = sim.client_with_hops(vec![hop_on("ingress.test", first)], |settings| {
            settings.limit = limit;
        });
        Self {
            sim,
            client,
            ingress,
            egress,
        }
    }

    fn machines(&self) -> [NodeId; 3] {
        [self.client, self.ingress, self.egress]
    }

    /// What every count of the machines and of the network says must agree, at any time.
    #[track_caller]
    fn assert_consistent(&self, what: &str) {
        for node in self.machines() {
            let residue = self.sim.node(node).machine.residue();
            assert_eq!(residue.timers, residue.tunnels, "{what}: {node:?}");
            let sockets = self.sim.target_connections(node) + self.sim.net.udp_targets(node);
            assert_eq!(residue.target_sockets, sockets, "{what}: {node:?}");
            assert!(
                residue.bound <= 3 * residue.tunnels,
                "{what}: {node:?} {residue:?}"
            );
        }
    }

    /// Nothing is left of any tunnel.
    #[track_caller]
    fn assert_nothing_left(&self, what: &str) {
        self.assert_consistent(what);
        for node in self.machines() {
            let residue = self.sim.node(node).machine.residue();
            assert_eq!(residue, Residue::default(), "{what}: {node:?}");
        }
    }
}

/// What a test does to a tunnel.
fn act_at_random(chain: &mut Chain, rng: &mut Rng, tunnel: TunnelId) {
    let client = chain.client;
    let local = chain.sim.tunnel(client, tunnel);
    let (open, idle) = (
        local.is_open(),
        local.unwritten.is_empty() && !local.finishes,
    );
    match rng.below(6) {
        0 => chain.sim.reset(client, tunnel),
        1 => chain.sim.close(client, tunnel),
        2 if open && idle => {
            let bytes = Bytes::from(stream_bytes(rng.below(200_000) as usize + 1));
            chain.sim.write(client, tunnel, bytes, rng.chance(0.5));
        }
        3 if open && idle => chain.sim.write(client, tunnel, Bytes::new(), true),
        4 => chain.sim.pause_tunnel(client, tunnel, rng.chance(0.5)),
        _ => {}
    }
}

/// Whatever happens to tunnels in whatever order, at the end no tunnel, no deadline, no socket, no bound stream and no
/// ticket of a pool is left at any machine; meanwhile every count agrees with what there is.
#[test]
fn nothing_is_left_of_any_tunnel() {
    for seed in 0..16 {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut pick = |some: &[&'static [Carrier]]| some[rng.below(some.len() as u64) as usize];
        let sets: [&[Carrier]; 5] = [
            &[Carrier::H3],
            &[Carrier::H2],
            &[Carrier::H1],
            &Carrier::ALL,
            &[Carrier::H2, Carrier::H1],
        ];
        let (first, second) = (pick(&sets), pick(&sets));
        let limit: fn(&mut MachineLimits) = |limits| {
            limits.tcp_idle = secs(60);
            limits.target_sockets_max = 12;
        };
        let mut chain = Chain::new(seed, first, second, limit);
        let what = format!("seed {seed}: {first:?}, {second:?}");
        let behaviours = [
            Behaviour::Echo,
            Behaviour::SINK,
            Behaviour::Sink { bytes_max: 1000 },
            Behaviour::Source { bytes: 300_000 },
            Behaviour::HALF_CLOSED,
            Behaviour::ResetAfter { bytes: 10_000 },
        ];
        for (number, behaviour) in behaviours.into_iter().enumerate() {
            let name = format!("t{number}.test");
            chain.sim.tcp_host(&name, 80, behaviour);
        }
        chain.sim.host("udp.test", 7, true);
        chain
            .sim
            .net
            .set_name("broken.test", Err(ResolveError::ServFail));
        let nobody: IpAddr = "203.0.113.250".parse().unwrap();
        chain.sim.net.set_name("silent.test", Ok(vec![nobody]));
        if rng.chance(0.3) {
            chain.sim.net.link.loss = 0.02;
        }
        let mut tunnels = Vec::new();
        for _ in 0..60 {
            match rng.below(10) {
                0..4 => {
                    let target = match rng.below(10) {
                        0 => "broken.test:80".to_owned(),
                        1 => "silent.test:80".to_owned(),
                        // A port where nobody listens.
                        2 => "t0.test:81".to_owned(),
                        number => format!("t{}.test:80", number % 6),
                    };
                    let form = FORMS[rng.below(3) as usize];
                    tunnels.push(chain.sim.open_tcp(chain.client, &target, Some(form)));
                }
                4 => {
                    chain.sim.open(chain.client, "udp.test:7");
                }
                _ if !tunnels.is_empty() => {
                    let tunnel = tunnels[rng.below(tunnels.len() as u64) as usize];
                    act_at_random(&mut chain, &mut rng, tunnel);
                }
                _ => {}
            }
            chain.sim.run_for(ms(rng.below(120)));
            chain.assert_consistent(&what);
        }
        // The end comes in one of several ways.
        match rng.below(4) {
            0 => {
                chain.sim.drain(chain.ingress);
                chain.sim.run_for(secs(40));
            }
            1 => {
                chain.sim.drain(chain.egress);
                chain.sim.run_for(secs(40));
            }
            2 => chain.sim.stop(chain.client),
            _ => {}
        }
        chain.assert_consistent(&what);
        // Idle timeouts of TCP and of UDP, and everything that follows.
        chain.sim.run_for(secs(700));
        chain.assert_nothing_left(&what);
    }
}

/// A direct relay, and a client that reaches it on one carrier.
fn direct(seed: u64, carrier: Carrier, limit: fn(&mut MachineLimits)) -> (Sim, NodeId, NodeId) {
    let mut sim = Sim::new(seed);
    let relay = sim.relay_with("egress.test", &[], |settings| settings.limit = limit);
    let client = sim.client_with_hops(vec![hop_on("egress.test", &[carrier])], |settings| {
        settings.checked.timeouts.open = secs(60);
    });
    (sim, client, relay)
}

// spec: ctcp-4.1-e
#[test]
fn a_silent_address_costs_a_quarter_of_a_second() {
    for carrier in Carrier::ALL {
        let (mut sim, client, relay) = direct(301, carrier, |_| {});
        let target = sim.tcp_host("target.test", 80, Behaviour::Echo);
        let silent: IpAddr = "2001:db8::1".parse().unwrap();
        let addresses = vec![silent, sim.net.ip(target)];
        sim.net.set_name("target.test", Ok(addresses));
        let began = sim.net.now;
        let tunnel = sim.open_tcp_now(client, "target.test:80", None);
        let took = sim.tunnel(client, tunnel).opened.unwrap() - began;
        assert!(took > ms(250) && took < ms(450), "{carrier:?}: {took:?}");
        assert_eq!(sim.net.log(relay).connected_tcp.len(), 2);
        assert_eq!(sim.target_connections(relay), 1, "the loser is closed");
    }
}

#[test]
fn targets_that_cannot_be_had_each_have_their_status() {
    for carrier in Carrier::ALL {
        let (mut sim, client, relay) = direct(302, carrier, |_| {});
        sim.tcp_host("target.test", 80, Behaviour::Echo);
        let silent: IpAddr = "203.0.113.250".parse().unwrap();
        sim.net.set_name("silent.test", Ok(vec![silent]));
        let unroutable: IpAddr = "203.0.113.251".parse().unwrap();
        sim.net.set_unroutable(unroutable);
        sim.net.set_name("unroutable.test", Ok(vec![unroutable]));
        for (target, status, error) in [
            ("target.test:81", 502, "connection_refused"),
            ("silent.test:80", 504, "connection_timeout"),
            ("unroutable.test:80", 502, "destination_ip_unroutable"),
        ] {
            for form in FORMS {
                let tunnel = sim.open_tcp(client, target, Some(form));
                sim.run_for(secs(12));
                let local = sim.tunnel(client, tunnel);
                let what = format!("{target} as {form:?} on {carrier:?}");
                assert_eq!(local.status(), Some(status), "{what}");
                let (_, response) = local.refused.as_ref().unwrap();
                let field = &response.as_ref().unwrap().headers["proxy-status"];
                let field = field.to_str().unwrap();
                assert!(field.contains(error), "{what}: {field}");
            }
        }
        assert_eq!(sim.target_connections(relay), 0);
    }
}

#[test]
fn sockets_towards_targets_are_bounded_and_come_back() {
    for carrier in Carrier::ALL {
        let limit: fn(&mut MachineLimits) = |limits| limits.target_sockets_max = 3;
        let (mut sim, client, relay) = direct(303, carrier, limit);
        sim.tcp_host("target.test", 80, Behaviour::Echo);
        let silent: IpAddr = "203.0.113.250".parse().unwrap();
        sim.net.set_name("silent.test", Ok(vec![silent]));
        // One that is open, and two that are still connecting.
        let open = sim.open_tcp_now(client, "target.test:80", None);
        let connecting = [0, 1].map(|_| sim.open_tcp(client, "silent.test:80", None));
        sim.run_for(ms(200));
        let refused = sim.open_tcp(client, "target.test:80", None);
        sim.run_for(ms(200));
        assert_eq!(
            sim.tunnel(client, refused).status(),
            Some(503),
            "{carrier:?}"
        );
        assert_eq!(sim.stats(relay).target_sockets_refused, 1);
        // Giving up counts as soon as the relay hears of it.
        sim.reset(client, connecting[0]);
        sim.run_for(ms(100));
        assert_eq!(sim.node(relay).machine.residue().target_sockets, 2);
        let second = sim.open_tcp_now(client, "target.test:80", None);
        for tunnel in [open, second, connecting[1]] {
            sim.reset(client, tunnel);
        }
        sim.run_for(secs(1));
        let residue = sim.node(relay).machine.residue();
        assert_eq!(residue, Residue::default(), "{carrier:?}");
    }
}

#[test]
fn a_tcp_tunnel_on_which_nothing_moves_ends_as_a_reset() {
    for carrier in Carrier::ALL {
        let limit: fn(&mut MachineLimits) = |limits| limits.tcp_idle = secs(30);
        let (mut sim, client, relay) = direct(304, carrier, limit);
        let target = sim.tcp_host("target.test", 80, Behaviour::Echo);
        let tunnel = sim.open_tcp_now(client, "target.test:80", None);
        // A byte now and then is enough.
        for _ in 0..5 {
            sim.run_for(secs(20));
            sim.write(client, tunnel, Bytes::from_static(b"x"), false);
        }
        sim.run_for(secs(29));
        assert!(sim.tunnel(client, tunnel).is_open(), "{carrier:?}");
        sim.run_for(secs(2));
        let local = sim.tunnel(client, tunnel);
        assert!(local.closed.is_some() && !local.ended, "{carrier:?}");
        let how = sim.conversation(target, 0).how();
        assert!(matches!(how, Some(End::Broken(_))), "{carrier:?}: {how:?}");
        assert_eq!(sim.stats(relay).tunnels_idle, 1);
    }
}

/// However much a target has to say, a client that stops reading stops the target, two relays further; when it goes
/// on, nothing is missing.
#[test]
fn a_reader_that_stops_costs_bounded_memory() {
    let bytes = 12 << 20;
    for (first, second) in [
        (Carrier::H3, Carrier::H3),
        (Carrier::H2, Carrier::H2),
        (Carrier::H3, Carrier::H2),
        (Carrier::H2, Carrier::H3),
        (Carrier::H1, Carrier::H1),
        (Carrier::H1, Carrier::H3),
        (Carrier::H2, Carrier::H1),
    ] {
        for form in [TcpForm::Raw, TcpForm::Capsules] {
            let what = format!("{form:?} on {first:?}, {second:?}");
            let mut chain = Chain::new(305, &[first], &[second], |_| {});
            let target = chain
                .sim
                .tcp_host("target.test", 80, Behaviour::Source { bytes });
            let client = chain.client;
            let tunnel = chain.sim.open_tcp(client, "target.test:80", Some(form));
            chain.sim.pause_tunnel(client, tunnel, true);
            chain.sim.run_for(secs(20));
            let sent = chain.sim.conversation(target, 0).sent_bytes;
            // Windows of TCP (256 KiB) and of streams, and what three machines keep.
            assert!(sent < 4 << 20, "{what}: {sent}");
            chain.sim.run_for(secs(20));
            assert_eq!(chain.sim.conversation(target, 0).sent_bytes, sent, "{what}");
            chain.sim.pause_tunnel(client, tunnel, false);
            let ended = chain
                .sim
                .run_until(secs(120), |sim| sim.tunnel(client, tunnel).ended);
            let received = &chain.sim.tunnel(client, tunnel).received;
            assert!(ended, "{what}: {} bytes", received.len());
            assert!(*received == stream_bytes(bytes), "{what}: damaged");
        }
    }
}

/// A target that has ended its direction and then resets the connection has no use for the other one.
#[test]
fn a_reset_behind_the_targets_end_breaks_the_tunnel() {
    for (seed, carrier) in (760..).zip(Carrier::ALL) {
        let mut sim = Sim::new(seed);
        sim.relay("egress.test", &[]);
        let client = sim.client_with_hops(vec![hop_on("egress.test", &[carrier])], |_| {});
        let target = sim.tcp_host("target.test", 80, Behaviour::HALF_CLOSED);
        let tunnel = sim.open_tcp_now(client, "target.test:80", None);
        let ended = sim.run_until(secs(5), |sim| sim.tunnel(client, tunnel).ended);
        assert!(ended, "{carrier:?}");
        sim.act_on_tcp(target, |host, net| {
            host.close(net, target, 0, TcpClose::Abort)
        });
        let closed = sim.run_until(secs(5), |sim| sim.tunnel(client, tunnel).closed.is_some());
        assert!(closed, "{carrier:?}");
        let reason = sim.tunnel(client, tunnel).reason;
        assert!(
            matches!(reason, Some(Closed::Aborted { .. })),
            "{carrier:?} {reason:?}"
        );
    }
}

/// The same with the client of a handler: over HTTP/1.1 its connection is the tunnel.
#[test]
fn a_reset_behind_the_clients_end_breaks_the_tunnel() {
    for (seed, carrier) in (770..).zip(Carrier::ALL) {
        let mut sim = Sim::new(seed);
        let relay = sim.relay("egress.test", &[]);
        let client = sim.client_with_hops(vec![hop_on("egress.test", &[carrier])], |_| {});
        sim.tcp_host("target.test", 80, Behaviour::Sink { bytes_max: 0 });
        let tunnel = sim.open_tcp_now(client, "target.test:80", None);
        sim.write(client, tunnel, payload(1, 10), true);
        sim.run_for(secs(1));
        sim.reset(client, tunnel);
        let gone = sim.run_until(secs(5), |sim| sim.node(relay).machine.tunnel_count() == 0);
        assert!(gone, "{carrier:?}");
    }
}

/// Over 50 ms the windows of QUIC let one tunnel have most of a path of 100 Mbit/s, in either direction. (The TCP of
/// the simulation has a window of its own.)
#[test]
fn one_tunnel_fills_a_long_path() {
    let bytes = 6 << 20;
    let path = Link {
        delay: ms(25),
        rate: Some(12_500_000),
        queue: ms(50),
        ..Link::default()
    };
    for up in [false, true] {
        let mut sim = Sim::new(780);
        let relay = sim.relay("egress.test", &[]);
        let client = sim.client_with_hops(vec![hop_on("egress.test", &[Carrier::H3])], |_| {});
        let behaviour = match up {
            true => Behaviour::SINK,
            false => Behaviour::Source { bytes },
        };
        let target = sim.tcp_host("target.test", 80, behaviour);
        sim.net.set_link(client, relay, path);
        let tunnel = sim.open_tcp_now(client, "target.test:80", None);
        let began = sim.net.now;
        if up {
            sim.write(client, tunnel, payload(1, bytes), true);
        }
        let arrived = |sim: &Sim| match up {
            true => sim.conversation(target, 0).received.len(),
            false => sim.tunnel(client, tunnel).received.len(),
        };
        assert!(sim.run_until(secs(60), |sim| arrived(sim) == bytes));
        let mbit_per_s = bytes as f64 * 8.0 / 1e6 / (sim.net.now - began).as_secs_f64();
        assert!(mbit_per_s > 50.0, "up {up}: {mbit_per_s:.0} Mbit/s");
    }
}
