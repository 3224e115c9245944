//! Packets find the worker of their connection, whatever address they come from.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::network::{Client, Nat, Target};
use support::{Finished, LOCAL_TARGETS, Program, Relay, Site, url};

/// How often a client's port changes: with several workers some change leads to another worker's socket.
const REBINDS: usize = 6;

fn egress(site: &Site, steering: &str, workers: usize) -> Relay {
    let settings = format!("workers = {workers}\nsteering = \"{steering}\"\n{LOCAL_TARGETS}");
    site.relay("egress", &settings)
}

/// A tunnel whose client moves to another port again and again.
fn migrate(steering: &str, workers: usize) -> Finished {
    let (site, target) = (Site::new(), Target::new());
    let relay = egress(&site, steering, workers);
    let mut nat = Nat::new(relay.address);
    let forwarder = site.udp(&[url(nat.address)], target.address);
    let client = Client::new(forwarder.address, 1);
    client.echo(1200);
    for _ in 0..REBINDS {
        nat.rebind();
        client.echo(64);
        client.echo(1200);
    }
    drop(forwarder);
    let finished = relay.stop();
    // It was the same tunnel all the time, nothing was dialled again.
    assert_eq!(finished.count("connections_opened"), 1, "{finished:#?}");
    assert_eq!(finished.count("tunnels_opened"), 1, "{finished:#?}");
    assert!(
        finished.count("upstream_datagrams") >= 2 * REBINDS as u64,
        "{finished:#?}"
    );
    finished
}

// spec: 9000-9.3-a
#[test]
fn one_worker_survives_a_rebinding() {
    assert_eq!(migrate("auto", 1).count("strays_forwarded"), 0);
}

#[test]
fn the_kernel_steers_rebound_clients() {
    assert_eq!(migrate("kernel", 4).count("strays_forwarded"), 0);
}

#[test]
fn mailboxes_carry_rebound_clients_home() {
    let finished = migrate("mailbox", 4);
    assert!(finished.count("strays_forwarded") > 0, "{finished:#?}");
}

/// Connections of `many` clients, all open at once, per worker.
fn spread(steering: &str, many: u8) -> Vec<u64> {
    let (site, target) = (Site::new(), Target::new());
    let relay = egress(&site, steering, 4);
    let via = [relay.url()];
    let start = |_| Program::start(site.udp_command(&via, target.address));
    let mut forwarders: Vec<_> = (0..many).map(start).collect();
    for (forwarder, mark) in forwarders.iter_mut().zip(0..) {
        Client::new(forwarder.address(), mark).echo(64);
    }
    let finished = relay.stop();
    assert_eq!(
        finished.count("connections_opened"),
        u64::from(many),
        "{finished:#?}"
    );
    let by_worker = &finished.summary()["by_worker"];
    by_worker
        .split(',')
        .map(|count| count.parse().unwrap())
        .collect()
}

/// Twenty connections on fewer than three of four workers happen once in 150,000 times.
#[track_caller]
fn assert_spread(by_worker: &[u64]) {
    assert_eq!(by_worker.len(), 4);
    assert!(
        by_worker.iter().filter(|count| **count > 0).count() >= 3,
        "{by_worker:?}"
    );
}

#[test]
fn the_kernel_spreads_connections() {
    assert_spread(&spread("kernel", 20));
}

#[test]
fn mailboxes_spread_connections() {
    assert_spread(&spread("mailbox", 20));
}
