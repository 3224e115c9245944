//! Every tunnel on every carrier, directly, through a chain, and nested: bytes both ways, half-closes, resets.
//!
//! ```text
//!   {udp, classic CONNECT, templated raw, templated capsules}
//!     × {h3, h2, h1} of the client
//!     × {direct, chained over h3, h2, h1, nested over h3, h2, h1}
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};

use bauta::client::TcpForm;
use bauta::wire::carrier::Carrier;
use bytes::Bytes;

use crate::host::{Behaviour, End, stream_bytes};
use crate::net::NodeId;
use crate::node::hop_on;
use crate::sim::{Sim, payload, secs};

/// What a tunnel carries, and how it is asked for.
const KINDS: [Option<TcpForm>; 4] = [
    None,
    Some(TcpForm::Classic),
    Some(TcpForm::Raw),
    Some(TcpForm::Capsules),
];
const TCP: &str = "tcp.test:80";
const UDP: &str = "udp.test:7";
/// More than any buffer on the way holds.
const BULK: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
enum Topology {
    Direct,
    Chained(Carrier),
    Nested(Carrier),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    carrier: Carrier,
    topology: Topology,
}

/// A client, its relays in the order of travel, and a target for each kind.
struct Scene {
    sim: Sim,
    client: NodeId,
    relays: Vec<NodeId>,
    tcp: NodeId,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let topologies = || {
            let chained = Carrier::ALL.into_iter().map(Topology::Chained);
            let nested = Carrier::ALL.into_iter().map(Topology::Nested);
            [Topology::Direct].into_iter().chain(chained).chain(nested)
        };
        Carrier::ALL
            .into_iter()
            .flat_map(move |carrier| topologies().map(move |topology| Self { carrier, topology }))
    }

    fn scene(self, form: Option<TcpForm>, behaviour: Behaviour) -> Scene {
        let mut sim = Sim::new(7);
        let form = form.unwrap_or_default();
        let hop = |name, carrier| {
            let mut hop = hop_on(name, &[carrier]);
            hop.tcp_form = form;
            hop
        };
        let first = hop("ingress.test", self.carrier);
        let (relays, hops) = match self.topology {
            Topology::Direct => (vec![sim.relay("ingress.test", &[])], vec![first]),
            Topology::Chained(carrier) => {
                let egress = sim.relay("egress.test", &[]);
                let next = vec![hop("egress.test", carrier)];
                let ingress = sim.relay_with_hops("ingress.test", next, |_| {});
                (vec![ingress, egress], vec![first])
            }
            Topology::Nested(carrier) => {
                let egress = sim.relay("egress.test", &[]);
                let ingress = sim.relay("ingress.test", &[]);
                let second = hop("egress.test", carrier);
                (vec![ingress, egress], vec![first, second])
            }
        };
        let client = sim.client_with_hops(hops, |_| {});
        let tcp = sim.tcp_host("tcp.test", 80, behaviour);
        sim.host("udp.test", 7, true);
        Scene {
            sim,
            client,
            relays,
            tcp,
        }
    }
}

impl Scene {
    /// Nothing is left of the tunnels of the test; those that carry connections may be.
    #[track_caller]
    fn finish(mut self, what: &str) {
        let nested = |sim: &Sim, relay| sim.node(relay).machine.tunnel_count();
        let (client, relays) = (self.client, self.relays.clone());
        let kept = usize::from(self.sim.node(client).machine.tunnel_count() > 0);
        let settled = self.sim.run_until(secs(10), |sim| {
            sim.node(client).machine.tunnel_count() <= 1
                && relays.iter().all(|relay| nested(sim, *relay) <= kept)
        });
        let left: Vec<_> = relays
            .iter()
            .map(|relay| nested(&self.sim, *relay))
            .collect();
        let ours = self.sim.node(client).machine.tunnel_count();
        assert!(
            settled,
            "{what}: {ours} tunnels at the client, {left:?} at the relays"
        );
    }
}

/// Runs a check for every case of every TCP form.
fn every_tcp(behaviour: Behaviour, check: impl Fn(&mut Scene, TcpForm, &str)) {
    let cases =
        Case::all().flat_map(|case| KINDS.into_iter().flatten().map(move |form| (case, form)));
    every(cases, |(case, form)| {
        let what = format!("{form:?} on {case:?}");
        let mut scene = case.scene(Some(form), behaviour);
        check(&mut scene, form, &what);
        scene.finish(&what);
    });
}

/// Runs a check for all cases, and tells of all that fail.
fn every<T: Copy + std::fmt::Debug>(cases: impl Iterator<Item = T>, check: impl Fn(T)) {
    let failed: Vec<_> = cases
        .filter(|case| {
            eprintln!("CASE {case:?}");
            catch_unwind(AssertUnwindSafe(|| check(*case))).is_err()
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} cases failed: {failed:#?}",
        failed.len()
    );
}

#[test]
fn datagrams_go_both_ways() {
    every(Case::all(), |case| {
        let what = format!("udp on {case:?}");
        let mut scene = case.scene(None, Behaviour::SINK);
        let (sim, client) = (&mut scene.sim, scene.client);
        let tunnel = sim.open_now(client, UDP);
        let sent: Vec<_> = (0..20).map(|n| payload(n, 1000)).collect();
        for payload in &sent {
            sim.send(client, tunnel, payload.clone());
        }
        let all = sim.run_until(secs(5), |sim| {
            sim.tunnel(client, tunnel).payloads.len() == 20
        });
        assert!(
            all,
            "{what}: {:?}",
            sim.tunnel(client, tunnel).payloads.len()
        );
        assert_eq!(sim.tunnel(client, tunnel).payloads, sent, "{what}");
        sim.close(client, tunnel);
        scene.finish(&what);
    });
}

// spec: ctcp-3.4-a, ctcp-3.4-b, ctcp-3.4-c, 9113-8.5-b, 9113-8.5-d
#[test]
fn bytes_go_both_ways_and_end_in_order() {
    every_tcp(Behaviour::Echo, |scene, form, what| {
        let (sim, client) = (&mut scene.sim, scene.client);
        let tunnel = sim.open_tcp_now(client, TCP, Some(form));
        let data = stream_bytes(BULK);
        sim.write(client, tunnel, Bytes::from(data.clone()), true);
        let done = sim.run_until(secs(60), |sim| sim.tunnel(client, tunnel).closed.is_some());
        let local = sim.tunnel(client, tunnel);
        assert!(done, "{what}: {} bytes came back", local.received.len());
        assert!(local.ended, "{what}: no end");
        assert!(local.received == data, "{what}: other bytes came back");
        let conversation = sim.conversation(scene.tcp, 0);
        assert_eq!(conversation.how(), Some(End::Fin), "{what}");
        assert!(conversation.received == data, "{what}: other bytes arrived");
    });
}

/// The client says all it has to say, and then a megabyte comes.
// spec: ctcp-3.4-b
#[test]
fn the_client_ends_first() {
    every_tcp(Behaviour::Source { bytes: BULK }, |scene, form, what| {
        let (sim, client) = (&mut scene.sim, scene.client);
        let tunnel = sim.open_tcp_now(client, TCP, Some(form));
        sim.write(client, tunnel, Bytes::from_static(b"request"), true);
        let done = sim.run_until(secs(60), |sim| sim.tunnel(client, tunnel).closed.is_some());
        let local = sim.tunnel(client, tunnel);
        assert!(
            done && local.ended,
            "{what}: {} bytes, {:?}",
            local.received.len(),
            local.reason
        );
        assert!(local.received == stream_bytes(BULK), "{what}");
        let conversation = sim.conversation(scene.tcp, 0);
        assert_eq!(conversation.received, b"request", "{what}");
        assert_eq!(conversation.how(), Some(End::Fin), "{what}");
    });
}

// spec: ctcp-3.4-a, map-41
#[test]
fn the_target_ends_first() {
    every_tcp(Behaviour::HALF_CLOSED, |scene, form, what| {
        let (sim, client) = (&mut scene.sim, scene.client);
        let tunnel = sim.open_tcp_now(client, TCP, Some(form));
        let ended = sim.run_until(secs(5), |sim| sim.tunnel(client, tunnel).ended);
        assert!(ended, "{what}: no end");
        let data = stream_bytes(BULK);
        sim.write(client, tunnel, Bytes::from(data.clone()), true);
        let target = scene.tcp;
        let done = sim.run_until(secs(60), |sim| {
            let closed = sim.tunnel(client, tunnel).closed.is_some();
            closed && sim.conversation(target, 0).end.is_some()
        });
        let conversation = sim.conversation(target, 0);
        assert!(done, "{what}: {} bytes", conversation.received.len());
        assert_eq!(conversation.how(), Some(End::Fin), "{what}");
        assert!(conversation.received == data, "{what}");
    });
}

// spec: ctcp-3.4-d, map-40, conn-9114-a, 9113-8.5-f
#[test]
fn a_target_that_resets_is_seen_to_reset() {
    every_tcp(
        Behaviour::ResetAfter { bytes: 10_000 },
        |scene, form, what| {
            let (sim, client) = (&mut scene.sim, scene.client);
            let tunnel = sim.open_tcp_now(client, TCP, Some(form));
            sim.write(client, tunnel, Bytes::from(stream_bytes(BULK)), false);
            let done = sim.run_until(secs(10), |sim| sim.tunnel(client, tunnel).closed.is_some());
            assert!(done, "{what}: the tunnel goes on");
            assert!(
                !sim.tunnel(client, tunnel).ended,
                "{what}: it looks like an end"
            );
        },
    );
}

// spec: ctcp-3.4-e, 9113-8.5-f, map-49
#[test]
fn a_client_that_resets_is_seen_to_reset() {
    every_tcp(Behaviour::SINK, |scene, form, what| {
        let (sim, client) = (&mut scene.sim, scene.client);
        let tunnel = sim.open_tcp_now(client, TCP, Some(form));
        sim.write(client, tunnel, Bytes::from_static(b"half a request"), false);
        let target = scene.tcp;
        let arrived = sim.run_until(secs(5), |sim| {
            let conversation = sim.tcp_target(target).conversations.first();
            conversation.is_some_and(|conversation| conversation.received.len() == 14)
        });
        assert!(arrived, "{what}");
        sim.reset(client, tunnel);
        let ended = |sim: &Sim| sim.conversation(target, 0).how();
        let done = sim.run_until(secs(10), |sim| ended(sim).is_some());
        assert!(done, "{what}: the target hears nothing");
        let broken = matches!(ended(sim), Some(End::Broken(_)));
        assert!(broken, "{what}: {:?}", ended(sim));
    });
}

/// The first relay dies under a nested connection: nothing of it stays, and nobody is woken for it.
#[test]
fn a_nested_connection_goes_with_its_tunnel() {
    let nested = Case::all().filter(|case| matches!(case.topology, Topology::Nested(_)));
    every(nested, |case| {
        let mut scene = case.scene(Some(TcpForm::Capsules), Behaviour::SINK);
        let (sim, client) = (&mut scene.sim, scene.client);
        let tunnel = sim.open_tcp_now(client, TCP, None);
        sim.write(client, tunnel, Bytes::from_static(b"hello"), false);
        sim.run_for(secs(1));
        sim.stop(scene.relays[0]);
        let done = sim.run_until(secs(60), |sim| sim.tunnel(client, tunnel).closed.is_some());
        assert!(done, "{case:?}: the tunnel goes on");
        sim.run_for(secs(60));
        let machine = &sim.node(client).machine;
        assert_eq!(machine.tunnel_count(), 0, "{case:?}");
        assert_eq!(machine.tcp_hub().connection_count(), 0, "{case:?}");
        let overdue = machine.next_timeout().is_some_and(|due| due < sim.net.now);
        assert!(!overdue, "{case:?}: a deadline stays behind");
    });
}
