//! The simulated TCP itself, between two hosts: what tests of carriers and of CONNECT-TCP stand on.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use bauta::net::{Network, TcpClose};

use crate::host::{Behaviour, Conversation, End, stream_bytes};
use crate::net::{Link, NodeId, UdpCut};
use crate::sim::{Sim, ms, payload, secs};

/// One way through the link of the simulation.
const DELAY: Duration = ms(5);

/// A host that dials and one that is dialled, and the address of the second.
struct Pair {
    sim: Sim,
    from: NodeId,
    to: NodeId,
    address: SocketAddr,
}

impl Pair {
    fn new(seed: u64, from: Behaviour, to: Behaviour) -> Self {
        let mut sim = Sim::new(seed);
        let from = sim.tcp_host("from.test", 80, from);
        let to = sim.tcp_host("to.test", 80, to);
        let address = sim.tcp_target(to).address;
        Self {
            sim,
            from,
            to,
            address,
        }
    }

    fn dial(&mut self) -> usize {
        self.dial_to(self.address)
    }

    fn dial_to(&mut self, target: SocketAddr) -> usize {
        let from = self.from;
        self.sim
            .act_on_tcp(from, |host, net| host.dial(net, from, target))
    }

    fn dialled(&self) -> &Conversation {
        self.sim.conversation(self.from, 0)
    }

    fn accepted(&self) -> &Conversation {
        self.sim.conversation(self.to, 0)
    }

    fn set_behaviour(&mut self, node: NodeId, behaviour: Behaviour) {
        self.sim
            .act_on_tcp(node, |host, _| host.behaviour = behaviour);
    }

    /// Runs until both directions have ended.
    #[track_caller]
    fn finish(&mut self, limit: Duration) {
        let (from, to) = (self.from, self.to);
        let done = self.sim.run_until(limit, |sim| {
            let ends = [from, to].map(|id| sim.tcp_target(id).conversations.first()?.end);
            ends.iter().all(Option::is_some)
        });
        assert!(done, "still open after {limit:?}");
    }
}

#[test]
fn a_handshake_takes_a_round_trip() {
    let mut pair = Pair::new(1, Behaviour::SINK, Behaviour::SINK);
    let start = pair.sim.net.now;
    pair.dial();
    pair.sim.run_for(secs(1));
    assert_eq!(pair.dialled().opened, Some(start + 2 * DELAY));
    assert_eq!(pair.accepted().opened, Some(start + 3 * DELAY));
    assert_eq!(pair.sim.net.log(pair.from).connected_tcp, [pair.address]);
    assert_eq!(
        pair.accepted().peer.ip(),
        pair.sim.net.ip(pair.from),
        "the acceptor sees the dialler"
    );
}

#[test]
fn what_cannot_be_had_fails_each_in_its_way() {
    let mut pair = Pair::new(2, Behaviour::SINK, Behaviour::SINK);
    let start = pair.sim.net.now;
    let unroutable = "203.0.113.200".parse().unwrap();
    pair.sim.net.set_unroutable(unroutable);
    let closed_port = SocketAddr::new(pair.address.ip(), 81);
    let nobody = "203.0.113.201:80".parse().unwrap();
    for target in [closed_port, SocketAddr::new(unroutable, 80), nobody] {
        pair.dial_to(target);
    }
    let (from, to) = (pair.from, pair.to);
    let ends = |pair: &Pair| {
        let all = pair.sim.tcp_target(from).conversations.iter();
        all.map(|c| c.end.map(|(at, end)| (at - start, end)))
            .collect::<Vec<_>>()
    };
    pair.sim.run_for(secs(1));
    let refused = Some((2 * DELAY, End::Broken(io::ErrorKind::ConnectionRefused)));
    let no_route = Some((
        Duration::ZERO,
        End::Broken(io::ErrorKind::NetworkUnreachable),
    ));
    assert_eq!(ends(&pair), [refused, no_route, None]);

    // A path that carries nothing is silent for as long as an address that nobody has.
    pair.sim.net.set_link(from, to, Link::DEAD);
    pair.dial();
    pair.sim.run_for(secs(200));
    let timed_out = |at| Some((at, End::Broken(io::ErrorKind::TimedOut)));
    let [.., silent, dead] = ends(&pair)[..] else {
        panic!("four conversations");
    };
    assert_eq!(dead, timed_out(secs(1 + 127)));
    assert_eq!(silent, timed_out(secs(127) + DELAY * 7));
    assert!(pair.sim.tcp_target(to).conversations.is_empty());
}

#[test]
fn every_byte_arrives_once_and_in_order() {
    let links = [
        Link::default(),
        Link {
            loss: 0.05,
            jitter: ms(3),
            ..Link::default()
        },
        Link {
            rate: Some(1_000_000),
            ..Link::default()
        },
    ];
    for (seed, link) in links.into_iter().enumerate() {
        let bytes = 1_000_000;
        let mut pair = Pair::new(seed as u64, Behaviour::Source { bytes }, Behaviour::Echo);
        pair.sim.net.link = link;
        pair.dial();
        pair.finish(secs(600));
        assert_eq!(pair.accepted().received, stream_bytes(bytes));
        assert_eq!(pair.dialled().received, stream_bytes(bytes));
        for conversation in [pair.dialled(), pair.accepted()] {
            assert_eq!(conversation.how(), Some(End::Fin));
        }
    }
}

#[test]
fn the_rate_of_the_link_is_kept() {
    let bytes = 2_000_000;
    let mut pair = Pair::new(3, Behaviour::Source { bytes }, Behaviour::SINK);
    pair.sim.net.link.rate = Some(1_000_000);
    let start = pair.sim.net.now;
    pair.dial();
    pair.finish(secs(10));
    let (end, _) = pair.accepted().end.unwrap();
    let took = (end - start).as_secs_f64();
    assert!((2.0..2.1).contains(&took), "{took}");
}

#[test]
fn a_reader_that_stops_holds_the_writer_up() {
    let bytes = 1 << 20;
    let mut pair = Pair::new(
        4,
        Behaviour::Source { bytes },
        Behaviour::Sink { bytes_max: 1000 },
    );
    pair.dial();
    pair.sim.run_for(secs(10));
    assert_eq!(pair.accepted().received.len(), 1000);
    assert_eq!(pair.dialled().sent_bytes, (256 << 10) + 1000);

    pair.set_behaviour(pair.to, Behaviour::SINK);
    pair.finish(secs(10));
    assert_eq!(pair.accepted().received, stream_bytes(bytes));
}

#[test]
fn directions_end_one_by_one() {
    let bytes = 100_000;
    let mut pair = Pair::new(5, Behaviour::Source { bytes }, Behaviour::HALF_CLOSED);
    pair.sim.net.link.rate = Some(1_000_000);
    pair.dial();
    pair.finish(secs(10));
    assert_eq!(pair.dialled().how(), Some(End::Fin));
    assert!(pair.dialled().received.is_empty());
    assert_eq!(pair.accepted().how(), Some(End::Fin));
    assert_eq!(pair.accepted().received, stream_bytes(bytes));
    assert!(
        pair.dialled().end.map(|(at, _)| at) < pair.accepted().end.map(|(at, _)| at),
        "the end came before the bytes had gone"
    );
}

#[test]
fn a_reset_ends_both_directions() {
    let (bytes, most) = (1 << 20, 70_000);
    let mut pair = Pair::new(
        6,
        Behaviour::Source { bytes },
        Behaviour::ResetAfter { bytes: most },
    );
    pair.dial();
    pair.finish(secs(10));
    let reset = End::Broken(io::ErrorKind::ConnectionReset);
    assert_eq!(pair.accepted().how(), Some(End::Aborted));
    assert_eq!(pair.accepted().received, stream_bytes(most));
    assert_eq!(pair.dialled().how(), Some(reset));
}

#[test]
fn closing_with_unread_bytes_resets() {
    // spec: RFC 2525 section 2.17
    for (bytes_max, expected) in [
        (1000, End::Broken(io::ErrorKind::ConnectionReset)),
        (usize::MAX, End::Fin),
    ] {
        let mut pair = Pair::new(7, Behaviour::SINK, Behaviour::Sink { bytes_max });
        let number = pair.dial();
        pair.sim.run_for(ms(100));
        let from = pair.from;
        pair.sim.act_on_tcp(from, |host, net| {
            let socket = host.conversations[number].socket;
            let written = net
                .world(from)
                .write(socket, &[IoSlice::new(&[1; 600]), IoSlice::new(&[2; 600])]);
            assert_eq!(written.unwrap(), 1200);
        });
        pair.sim.run_for(ms(100));
        let to = pair.to;
        pair.sim
            .act_on_tcp(to, |host, net| host.close(net, to, 0, TcpClose::Orderly));
        pair.sim.run_for(ms(100));
        assert_eq!(pair.dialled().how(), Some(expected));
    }
}

#[test]
fn writing_to_somebody_who_has_left_is_answered_by_a_reset() {
    let mut pair = Pair::new(8, Behaviour::SINK, Behaviour::SINK);
    let number = pair.dial();
    pair.sim.run_for(ms(100));
    let (from, to) = (pair.from, pair.to);
    pair.sim
        .act_on_tcp(to, |host, net| host.close(net, to, 0, TcpClose::Orderly));
    // The writer does not know yet.
    let write = |pair: &mut Pair| {
        pair.sim.act_on_tcp(from, |host, net| {
            let socket = host.conversations[number].socket;
            let mut world = net.world(from);
            world.write(socket, &[IoSlice::new(b"anybody there?")])
        })
    };
    pair.sim.pause(from, ms(50));
    assert_eq!(write(&mut pair).unwrap(), 14);
    pair.sim.run_for(ms(49));
    let error = write(&mut pair).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    pair.sim.run_for(ms(100));
    assert_eq!(pair.dialled().how(), Some(End::Fin), "it has ended before");
}

#[test]
fn a_path_that_comes_back_loses_nothing() {
    let bytes = 500_000;
    let mut pair = Pair::new(9, Behaviour::Source { bytes }, Behaviour::SINK);
    pair.dial();
    pair.sim.run_for(ms(12));
    let (from, to) = (pair.from, pair.to);
    pair.sim.net.set_link(from, to, Link::DEAD);
    pair.sim.run_for(secs(20));
    assert!(pair.accepted().received.len() < bytes);
    pair.sim.net.set_link(from, to, Link::default());
    pair.finish(secs(120));
    assert_eq!(pair.accepted().received, stream_bytes(bytes));
}

#[test]
fn a_path_that_does_not_come_back_breaks_the_connection() {
    let bytes = 1 << 20;
    let mut pair = Pair::new(10, Behaviour::Source { bytes }, Behaviour::SINK);
    pair.dial();
    pair.sim.run_for(ms(12));
    let (from, to) = (pair.from, pair.to);
    pair.sim.net.set_link(from, to, Link::DEAD);
    pair.sim.run_for(secs(1200));
    let timed_out = End::Broken(io::ErrorKind::TimedOut);
    assert_eq!(pair.dialled().how(), Some(timed_out));
}

#[test]
fn a_listener_that_is_closed_refuses() {
    let mut pair = Pair::new(11, Behaviour::SINK, Behaviour::SINK);
    let to = pair.to;
    pair.sim.act_on_tcp(to, |host, net| {
        net.world(to).close(host.listener, TcpClose::Orderly);
    });
    pair.dial();
    pair.sim.run_for(secs(1));
    let refused = End::Broken(io::ErrorKind::ConnectionRefused);
    assert_eq!(pair.dialled().how(), Some(refused));
}

/// A network that lets the first packets of UDP through, or UDP for a while, and TCP for ever.
#[test]
fn udp_can_be_cut_and_tcp_goes_on() {
    let mut sim = Sim::new(12);
    let a = sim.tcp_host("a.test", 80, Behaviour::Source { bytes: 50_000 });
    let b = sim.tcp_host("b.test", 80, Behaviour::SINK);
    let (from, to) = ((sim.net.ip(a), 1).into(), (sim.net.ip(b), 2).into());
    let send = |sim: &mut Sim| {
        for number in 0..5 {
            sim.net.inject(from, to, payload(number, 8));
            sim.net.inject(to, from, payload(number, 8));
        }
        std::mem::take(&mut sim.net.stats.cut)
    };
    assert_eq!(send(&mut sim), 0);
    sim.net.cut_udp(a, b, Some(UdpCut::AfterPackets(4)));
    assert_eq!(send(&mut sim), 6);
    let later = sim.net.now + ms(10);
    sim.net.cut_udp(b, a, Some(UdpCut::At(later)));
    assert_eq!(send(&mut sim), 0);
    sim.run_for(ms(10));
    assert_eq!(send(&mut sim), 10);

    let address = sim.tcp_target(b).address;
    sim.act_on_tcp(a, |host, net| host.dial(net, a, address));
    sim.run_for(secs(1));
    assert_eq!(sim.conversation(b, 0).received, stream_bytes(50_000));

    sim.net.cut_udp(a, b, None);
    assert_eq!(send(&mut sim), 0);
}

#[test]
fn a_seed_repeats_the_run() {
    let run = |seed| {
        let mut pair = Pair::new(seed, Behaviour::Source { bytes: 300_000 }, Behaviour::Echo);
        pair.sim.net.link.loss = 0.1;
        pair.dial();
        pair.finish(secs(600));
        (pair.sim.net.digest, pair.sim.net.elapsed())
    };
    assert_eq!(run(77), run(77));
    assert_ne!(run(77), run(78));
}
