//! Loss, reordering and duplication on every link, from many seeds: tunnels survive, and what arrives is what was sent.

use std::collections::HashSet;

use crate::net::{Link, Rng};
use crate::sim::{Sim, assert_same, ms, number, numbers, payload, secs};

const SEEDS: u64 = 20;
const SENT: u64 = 400;

/// A link that gets everything wrong, but not too often.
fn bad(rng: &mut Rng) -> Link {
    Link {
        delay: ms(1 + rng.below(30)),
        jitter: ms(1 + rng.below(5)),
        loss: rng.below(6) as f64 / 100.0,
        duplicate: rng.below(6) as f64 / 100.0,
        reorder: rng.below(6) as f64 / 100.0,
        rate: rng.chance(0.3).then_some(1 << 20),
        ..Link::default()
    }
}

// spec: 9221-5.2-a, 9298-3-e
#[test]
fn tunnels_survive_bad_links() {
    for seed in 0..SEEDS {
        let mut sim = Sim::new(seed);
        let mut rng = Rng::new(seed);
        let egress = sim.relay("egress.test", &[]);
        let chained = sim.relay("ingress.test", &["egress.test"]);
        let nesting = sim.relay("other.test", &[]);
        let target = sim.host("target.test", 7, true);
        let client = match seed % 3 {
            0 => sim.client(&["egress.test"]),
            1 => sim.client(&["ingress.test"]),
            _ => sim.client(&["other.test", "egress.test"]),
        };
        let ends = [client, chained, nesting, egress];
        for (index, &a) in ends.iter().enumerate() {
            for &b in &ends[index + 1..] {
                sim.net.set_one_way(a, b, bad(&mut rng));
                sim.net.set_one_way(b, a, bad(&mut rng));
            }
        }
        let tunnel = sim.open_now(client, "target.test:7");
        for number in 0..SENT {
            let len = 8 + rng.below(1190) as usize;
            sim.send(client, tunnel, payload(number, len));
            sim.run_for(ms(3));
        }
        // Windows are small after a loss, so some wait for a while.
        sim.run_for(secs(10));
        let what = format!("seed {seed}, {:?}", sim.net.stats);
        let ways = [
            &sim.target(target).payloads(),
            &sim.tunnel(client, tunnel).payloads,
        ];
        for (way, payloads) in ways.into_iter().enumerate() {
            let mut seen = HashSet::new();
            for payload in payloads {
                // Each checked to be intact, and none twice: QUIC drops what the network duplicates.
                let number = number(payload);
                assert!(
                    number < SENT && seen.insert(number),
                    "{what}: {number} again"
                );
            }
            let share = seen.len() * 100 / SENT as usize;
            assert!(share >= 70 - 20 * way, "{what}: {share} %");
        }
        assert!(sim.tunnel(client, tunnel).is_open(), "{what}");

        // On good links everything arrives again, in order.
        for (index, &a) in ends.iter().enumerate() {
            for &b in &ends[index + 1..] {
                sim.net.set_link(a, b, Link::default());
            }
        }
        sim.run_for(secs(1));
        for number in SENT..SENT + 100 {
            sim.send(client, tunnel, payload(number, 500));
            sim.run_for(ms(3));
        }
        sim.run_for(secs(1));
        let expected: Vec<_> = (SENT..SENT + 100).collect();
        let there = sim.target(target).payloads();
        assert_same(&numbers(&there[there.len() - 100..]), &expected, &what);
        let back = &sim.tunnel(client, tunnel).payloads;
        assert_same(&numbers(&back[back.len() - 100..]), &expected, &what);
    }
}

/// What the network between egress and target does is the business of those who talk through the tunnel.
#[test]
fn duplicates_from_the_target_are_passed_on() {
    let mut sim = Sim::new(61);
    let egress = sim.relay("egress.test", &[]);
    let client = sim.client(&["egress.test"]);
    let target = sim.host("target.test", 7, true);
    let twice = Link {
        duplicate: 1.0,
        ..Link::default()
    };
    sim.net.set_one_way(target, egress, twice);
    let tunnel = sim.open_now(client, "target.test:7");
    for number in 0..10 {
        sim.send(client, tunnel, payload(number, 100));
    }
    sim.run_for(secs(1));
    let expected: Vec<_> = (0..10).flat_map(|number| [number, number]).collect();
    assert_same(
        &numbers(&sim.tunnel(client, tunnel).payloads),
        &expected,
        "twice each",
    );
}

// spec: 9000-14-a, 9000-14.2-a, tp-2
#[test]
fn paths_of_every_size() {
    // The smallest path of QUIC, the smallest of IPv6, a PPPoE line, Ethernet, jumbo frames.
    for (mtu, largest) in [
        (1200, 1160),
        (1232, 1192),
        (1400, 1360),
        (1472, 1412),
        (9000, 1412),
    ] {
        let mut sim = Sim::new(62);
        sim.net.link.mtu = mtu;
        let egress = sim.relay_with("egress.test", &[], |settings| {
            settings.checked.quic.initial_mtu = 1200;
        });
        let client = sim.client_with(&["egress.test"], |settings| {
            settings.checked.quic.initial_mtu = 1200;
        });
        // The path between relay and target is another one.
        let target = sim.host("target.test", 7, true);
        sim.net.set_link(egress, target, Link::default());
        let tunnel = sim.open_now(client, "target.test:7");
        sim.run_for(secs(3));
        for len in 1100..1450 {
            sim.send(client, tunnel, payload(1, len));
            sim.run_for(ms(1));
        }
        sim.run_for(secs(1));
        let received = sim
            .target(target)
            .received
            .iter()
            .map(|(_, _, payload)| payload.len());
        let found = received.max().unwrap();
        // Discovery stops when it is close enough.
        assert!((largest - 20..=largest).contains(&found), "{mtu}: {found}");
        assert_eq!(
            sim.tunnel(client, tunnel).payloads.len(),
            sim.target(target).received.len()
        );
    }
}

/// A path that carries the first packets of a handshake, and not the size that both ends start with.
// spec: tp-2
#[test]
fn a_start_that_is_too_large_falls_back() {
    let mut sim = Sim::new(63);
    sim.net.link.mtu = 1260;
    sim.relay("egress.test", &[]);
    let client = sim.client(&["egress.test"]);
    let target = sim.host("target.test", 7, true);
    let tunnel = sim.open_now(client, "target.test:7");
    for number in 0..1000 {
        sim.send(
            client,
            tunnel,
            payload(number, 1100 + number as usize % 101),
        );
        sim.run_for(ms(5));
    }
    sim.run_for(secs(1));
    let full = |payload: &&bytes::Bytes| payload.len() == 1200;
    assert!(sim.target(target).payloads().iter().filter(full).count() > 5);
    assert!(
        sim.tunnel(client, tunnel)
            .payloads
            .iter()
            .filter(full)
            .count()
            > 5
    );
}
