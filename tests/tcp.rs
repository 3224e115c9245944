//! `bauta tcp` through one relay, a chain and a nest: bytes both ways, half-close, refusals, and the end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::thread;

use support::stream::{DeadTarget, EchoTarget, assert_reset, connect, exchange};
use support::{LOCAL_TARGETS, Relay, Site};

const MIB: usize = 1024 * 1024;
/// Local programs that share a forwarder.
const CLIENTS: usize = 4;
/// Ways to speak with a relay that do not depend on each other.
const CARRIERS: [&str; 3] = ["h3", "h2", "h1"];
const FORMS: [&str; 3] = ["capsules", "raw", "classic"];

/// Several local programs at once, from one that says nothing to one that says much.
#[track_caller]
fn exchange_all(forwarder: SocketAddr) {
    thread::scope(|scope| {
        for size in [0, 1, 4 * MIB, 100_000] {
            scope.spawn(move || exchange(connect(forwarder), size));
        }
    });
}

#[track_caller]
fn assert_tunnels(relay: Relay, tunnels: usize) {
    let finished = relay.stop();
    finished.assert_code(0);
    assert_eq!(finished.count("tunnels_opened"), tunnels as u64);
    assert_eq!(finished.count("requests_refused"), 0);
}

#[test]
fn through_one_relay() {
    let (site, target) = (Site::new(), EchoTarget::new());
    for carrier in CARRIERS {
        for form in FORMS {
            let egress = site.relay("egress", LOCAL_TARGETS);
            let extra = ["--carrier", carrier, "--tcp-form", form];
            let forwarder = site.tcp(&[egress.url()], target.address, &extra);
            exchange_all(forwarder.address);

            forwarder.program.signal("TERM");
            let finished = forwarder.program.finish();
            finished.assert_code(0);
            assert!(
                finished.stderr.is_empty(),
                "{carrier} {form}: {finished:#?}"
            );
            assert_tunnels(egress, CLIENTS);
        }
    }
}

#[test]
fn through_a_chain() {
    let (site, target) = (Site::new(), EchoTarget::new());
    for carrier in CARRIERS {
        let egress = site.relay("egress", LOCAL_TARGETS);
        let ingress = site.ingress(&egress, LOCAL_TARGETS);
        let forwarder = site.tcp(&[ingress.url()], target.address, &["--carrier", carrier]);
        exchange_all(forwarder.address);
        assert_tunnels(ingress, CLIENTS);
        assert_tunnels(egress, CLIENTS);
    }
}

#[test]
fn nested() {
    let (site, target) = (Site::new(), EchoTarget::new());
    for carrier in CARRIERS {
        let egress = site.relay("egress", LOCAL_TARGETS);
        let ingress = site.relay("ingress", LOCAL_TARGETS);
        let via = [ingress.url(), egress.url()];
        let forwarder = site.tcp(&via, target.address, &["--carrier", carrier]);
        exchange_all(forwarder.address);
        // One tunnel for each connection to the egress, which carries one tunnel on HTTP/1.1 and all of them else.
        let connections = if carrier == "h1" { CLIENTS } else { 1 };
        assert_tunnels(ingress, connections);
        assert_tunnels(egress, CLIENTS);
    }
}

#[test]
fn a_refused_target_resets_the_connection() {
    let (site, target) = (Site::new(), DeadTarget::new());
    let egress = site.relay("egress", LOCAL_TARGETS);
    let mut forwarder = site.tcp(&[egress.url()], target.address, &[]);
    assert_reset(connect(forwarder.address));
    let said = forwarder
        .program
        .wait_for_text("tunnel refused by the relay");
    assert!(said.contains("502 Bad Gateway"), "{said}");
    assert!(said.contains("error=connection_refused"), "{said}");
    // Not the end of anything else.
    assert_reset(connect(forwarder.address));
    forwarder.program.signal("TERM");
    forwarder.program.finish().assert_code(0);
}

/// The forwarder listens although its relay is not there, and says so for each connection.
#[test]
fn a_relay_that_is_not_there() {
    let (site, nobody) = (Site::new(), DeadTarget::new());
    let url = support::url(nobody.address);
    let mut forwarder = site.tcp(&[url], nobody.address, &["--carrier", "h2"]);
    assert_reset(connect(forwarder.address));
    let said = forwarder.program.wait_for_text("no tunnel");
    assert!(said.contains("the relay"), "{said}");
}

#[test]
fn a_target_may_speak_first_and_end_first() {
    use std::io::{Read, Write};
    let site = Site::new();
    let listener = std::net::TcpListener::bind(support::any_port()).unwrap();
    let target = listener.local_addr().unwrap();
    let egress = site.relay("egress", LOCAL_TARGETS);
    let forwarder = site.tcp(&[egress.url()], target, &[]);
    let mut client = connect(forwarder.address);
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(support::PATIENCE)).unwrap();
    server.write_all(b"hello").unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    // The other direction goes on.
    client.write_all(b"and goodbye").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    text.clear();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "and goodbye");
}

/// A target that breaks off must not look like one that has finished.
#[test]
fn a_reset_passes_through() {
    use std::io::{Read, Write};
    let site = Site::new();
    let listener = std::net::TcpListener::bind(support::any_port()).unwrap();
    let egress = site.relay("egress", LOCAL_TARGETS);
    let forwarder = site.tcp(&[egress.url()], listener.local_addr().unwrap(), &[]);
    let mut client = connect(forwarder.address);
    client.write_all(b"x").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0]).unwrap();
    let server = socket2::Socket::from(server);
    server.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(server);
    assert_reset(client);
}
