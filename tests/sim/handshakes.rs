//! Handshakes that pile up: Retry first, refusal above the limit.

use bauta::error::Refusal;
use quinn_proto::{ConnectionError, TransportErrorCode};

use crate::net::{Link, NodeId};
use crate::sim::{Sim, ms, payload, secs};

/// A client whose handshakes stay half open: it hears nothing of the relay.
fn deaf_client(sim: &mut Sim, relay: NodeId) -> NodeId {
    let client = sim.raw_client();
    sim.net.set_one_way(relay, client, Link::DEAD);
    client
}

fn dial(sim: &mut Sim, client: NodeId, relay: NodeId, count: usize) {
    let (now, to) = (sim.net.now, sim.address(relay));
    for _ in 0..count {
        sim.raw(client).connect(now, to, "egress.test");
    }
    sim.run_for(ms(20));
}

// spec: 9000-8.1-b, 9000-8.1.2-a, 9000-8.1.2-b, 9000-17.2.5-a
#[test]
fn under_load_clients_prove_their_address() {
    let mut sim = Sim::new(131);
    let relay = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.quic.retry_handshakes = 10;
    });
    sim.host("target.test", 7, true);
    let deaf = deaf_client(&mut sim, relay);
    dial(&mut sim, deaf, relay, 10);
    assert_eq!(sim.hub(relay).retries_sent, 0);

    // The next ones are asked first, and those who hear the question get in.
    dial(&mut sim, deaf, relay, 5);
    assert_eq!(
        (sim.hub(relay).retries_sent, sim.connections(relay)),
        (5, 10)
    );
    let client = sim.client(&["egress.test"]);
    let tunnel = sim.open_now(client, "target.test:7");
    assert_eq!(
        (sim.hub(relay).retries_sent, sim.connections(relay)),
        (6, 11)
    );
    sim.send(client, tunnel, payload(1, 100));
    sim.run_for(ms(100));
    assert_eq!(sim.tunnel(client, tunnel).payloads.len(), 1);

    // When the load is gone, nobody is asked any more.
    sim.raw(deaf).connections.clear();
    sim.run_for(secs(15));
    let before = sim.hub(relay).retries_sent;
    let client = sim.client(&["egress.test"]);
    sim.open_now(client, "target.test:7");
    assert_eq!(sim.hub(relay).retries_sent, before);
}

// spec: 9000-8.1-b
#[test]
fn a_relay_may_ask_always() {
    let mut sim = Sim::new(132);
    let relay = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.quic.retry_handshakes = 0;
    });
    sim.host("target.test", 7, true);
    let clients = [(); 5].map(|()| sim.client(&["egress.test"]));
    for client in clients {
        sim.open_now(client, "target.test:7");
    }
    let hub = sim.hub(relay);
    assert_eq!((hub.retries_sent, hub.connections_opened), (5, 5));
}

// spec: 9000-5.2.2-b
#[test]
fn too_many_handshakes_are_refused() {
    let mut sim = Sim::new(133);
    let relay = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.quic.max_pending_handshakes = 20;
        settings.checked.quic.retry_handshakes = 1000;
    });
    sim.host("target.test", 7, true);
    let deaf = deaf_client(&mut sim, relay);
    dial(&mut sim, deaf, relay, 20);
    let polite = sim.raw_client();
    dial(&mut sim, polite, relay, 3);
    for connection in &sim.raw(polite).connections {
        let Some(ConnectionError::ConnectionClosed(close)) = &connection.lost else {
            panic!("{:?}", connection.lost);
        };
        assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
    }
    assert_eq!(sim.hub(relay).handshakes_refused, 3);
    assert_eq!(sim.connections(relay), 20);

    // The deaf ones give up, and after their time make room.
    sim.raw(deaf).connections.clear();
    sim.run_for(secs(15));
    assert_eq!(sim.connections(relay), 0);
    let client = sim.client(&["egress.test"]);
    sim.open_now(client, "target.test:7");
}

// spec: 9000-5.2.2-b
#[test]
fn too_many_connections_are_refused() {
    let mut sim = Sim::new(134);
    let relay = sim.relay_with("egress.test", &[], |settings| {
        settings.checked.limits.connections = 3;
    });
    sim.host("target.test", 7, true);
    let clients = [(); 3].map(|()| sim.client(&["egress.test"]));
    let tunnels = clients.map(|client| sim.open_now(client, "target.test:7"));
    let late = sim.client(&["egress.test"]);
    let refused = sim.open(late, "target.test:7");
    sim.run_for(secs(1));
    let (refusal, _) = sim.tunnel(late, refused).refused.as_ref().unwrap();
    assert_eq!(*refusal, Refusal::ConnectionRefused);
    assert_eq!(sim.hub(relay).connections_refused, 1);
    for (client, tunnel) in clients.into_iter().zip(tunnels) {
        sim.send(client, tunnel, payload(1, 100));
        sim.run_for(ms(100));
        assert_eq!(sim.tunnel(client, tunnel).payloads.len(), 1);
    }

    // Whoever leaves makes room.
    sim.close(clients[0], tunnels[0]);
    sim.run_for(secs(70));
    sim.open_now(late, "target.test:7");
}
