//! `bauta udp` through one relay, a chain and a nest: sizes, several local programs, names, and the end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::thread;

use support::network::{Client, Nat, Target};
use support::{LOCAL_TARGETS, PATIENCE, Site, url};

/// From nothing to what the second of two nested tunnels still carries.
const SIZES: [usize; 4] = [0, 1, 64, 1200];
/// Local programs that share a forwarder.
const CLIENTS: u8 = 6;

/// Several local programs at once, each of which gets its own datagrams back and nobody else's.
#[track_caller]
fn exchange(forwarder: SocketAddr) {
    thread::scope(|scope| {
        for mark in 0..CLIENTS {
            scope.spawn(move || {
                let client = Client::new(forwarder, mark);
                for size in SIZES.into_iter().chain(SIZES.into_iter().rev()) {
                    client.echo(size);
                }
            });
        }
    });
}

#[test]
fn through_one_relay() {
    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay("egress", LOCAL_TARGETS);
    let forwarder = site.udp(&[egress.url()], target.address);
    exchange(forwarder.address);

    forwarder.program.signal("TERM");
    forwarder.program.finish().assert_code(0);
    let finished = egress.stop();
    finished.assert_code(0);
    assert_eq!(
        (
            finished.count("connections_opened"),
            finished.count("requests_refused")
        ),
        (1, 0)
    );
    assert_eq!(finished.count("tunnels_opened"), u64::from(CLIENTS));
}

#[test]
fn through_a_chain() {
    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay("egress", LOCAL_TARGETS);
    let ingress = site.ingress(&egress, LOCAL_TARGETS);
    let forwarder = site.udp(&[ingress.url()], target.address);
    exchange(forwarder.address);

    for relay in [ingress, egress] {
        let finished = relay.stop();
        finished.assert_code(0);
        assert_eq!(finished.count("tunnels_opened"), u64::from(CLIENTS));
    }
}

#[test]
fn nested() {
    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay("egress", LOCAL_TARGETS);
    let ingress = site.relay("ingress", LOCAL_TARGETS);
    let forwarder = site.udp(&[ingress.url(), egress.url()], target.address);
    exchange(forwarder.address);

    // One tunnel for the connection to the egress, whatever it carries.
    let finished = ingress.stop();
    assert_eq!(finished.assert_code(0).count("tunnels_opened"), 1);
    let finished = egress.stop();
    assert_eq!(
        finished.assert_code(0).count("tunnels_opened"),
        u64::from(CLIENTS)
    );
}

/// Every relay learns its neighbours only: the first two carry one tunnel each.
#[test]
fn nested_three_deep() {
    let (site, target) = (Site::new(), Target::new());
    let relays = ["first", "second", "third"].map(|name| site.relay(name, LOCAL_TARGETS));
    let via = [relays[0].url(), relays[1].url(), relays[2].url()];
    let forwarder = site.udp(&via, target.address);
    exchange(forwarder.address);
    let tunnels = relays.map(|relay| relay.stop().assert_code(0).count("tunnels_opened"));
    assert_eq!(tunnels, [1, 1, u64::from(CLIENTS)]);
}

#[test]
fn on_epoll() {
    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay("egress", &format!("io = \"epoll\"\n{LOCAL_TARGETS}"));
    let forwarder = site.udp(&[egress.url()], target.address);
    exchange(forwarder.address);
}

#[test]
fn without_offloads() {
    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay(
        "egress",
        &format!("gso = \"off\"\ngro = \"off\"\n{LOCAL_TARGETS}"),
    );
    let forwarder = site.udp(&[egress.url()], target.address);
    exchange(forwarder.address);
}

// spec: 9298-7-b
#[test]
fn a_name_is_judged_by_its_address() {
    let (site, target) = (Site::new(), Target::on_every_address());
    let localhost = format!("localhost:{}", target.address.port());
    let refused = site.udp_refused(&[site.relay("strict", "").url()], &localhost);
    assert!(refused.contains("403 Forbidden"), "{refused}");
    assert!(
        refused.contains("error=destination_ip_prohibited"),
        "{refused}"
    );

    let settings = "[policy]\nallow = [\"127.0.0.0/8\", \"[::1/128]\"]\n";
    let egress = site.relay("egress", settings);
    let forwarder = site.udp(&[egress.url()], &localhost);
    Client::new(forwarder.address, 1).echo(64);
}

#[test]
fn a_signal_ends_it_with_success() {
    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay("egress", LOCAL_TARGETS);
    for signal in ["TERM", "INT"] {
        let forwarder = site.udp(&[egress.url()], target.address);
        Client::new(forwarder.address, 1).echo(64);
        forwarder.program.signal(signal);
        let finished = forwarder.program.finish();
        finished.assert_code(0);
        assert!(finished.stderr.is_empty(), "{finished:#?}");
    }
}

/// A local program that says nothing but listens costs nothing, and gets what the target sends late.
#[test]
fn targets_may_speak_without_being_asked_again() {
    let site = Site::new();
    let target = std::net::UdpSocket::bind(support::any_port()).unwrap();
    target.set_read_timeout(Some(PATIENCE)).unwrap();
    let egress = site.relay("egress", LOCAL_TARGETS);
    let forwarder = site.udp(&[egress.url()], target.local_addr().unwrap());
    let client = Client::new(forwarder.address, 9);
    client.send(3);
    let mut buffer = [0; 64];
    let (length, relay) = target.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], [9; 3]);
    for size in 1..=5 {
        target.send_to(&[9; 5][..size], relay).unwrap();
        assert_eq!(client.recv(PATIENCE), Some(size));
    }
}

/// A path that swallows large packets for a while makes QUIC fall back to its smallest packets, into which a payload of
/// 1,200 bytes does not fit. The tunnel lives on, and the size comes back with the path.
#[test]
fn the_size_comes_back_after_a_black_hole() {
    /// Between QUIC's smallest packet and one with 1,200 bytes of payload.
    const SIZE_MAX_BYTES: usize = 1210;
    /// Large ones for QUIC to lose, each with a small one whose acknowledgement tells it so.
    const LOSSES: usize = 60;

    let (site, target) = (Site::new(), Target::new());
    let egress = site.relay("egress", LOCAL_TARGETS);
    let nat = Nat::new(egress.address);
    let forwarder = site.udp(&[url(nat.address)], target.address);
    let client = Client::new(forwarder.address, 1);
    client.echo(1200);
    nat.swallow_above(SIZE_MAX_BYTES);
    for _ in 0..LOSSES {
        client.send(1200);
        client.echo(64);
    }
    nat.swallow_above(usize::MAX);
    client.echo(1200);
}
