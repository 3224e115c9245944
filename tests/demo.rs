//! `bauta demo` with the real binary: what it prints, and that every variant carries datagrams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;

use support::{Finished, Program, bauta, run};

/// Runs the demo for a second with `arguments`; the one object that it prints.
#[track_caller]
fn demo(arguments: &[&str]) -> Value {
    let finished = run([&["demo", "--duration", "1", "--json"], arguments].concat());
    outcome(&finished)
}

#[track_caller]
fn outcome(finished: &Finished) -> Value {
    finished.assert_code(0);
    let outcome: Value = serde_json::from_str(&finished.stdout.join("\n")).unwrap();
    assert!(number(&outcome, "delivered") > 0.0, "{finished:#?}");
    outcome
}

#[track_caller]
fn number(outcome: &Value, key: &str) -> f64 {
    outcome[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key}: {outcome:#}"))
}

fn roles(outcome: &Value) -> Vec<&str> {
    let relays = outcome["relays"].as_array().unwrap();
    relays
        .iter()
        .map(|relay| {
            assert!(number(relay, "cpu_ns_per_datagram") > 0.0, "{outcome:#}");
            relay["role"].as_str().unwrap()
        })
        .collect()
}

#[test]
fn json_has_every_figure() {
    let outcome = demo(&[]);
    assert_eq!(outcome["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&outcome["hops"], &outcome["nested"]),
        (&2.into(), &false.into())
    );
    assert!(["io_uring", "epoll"].contains(&outcome["io"].as_str().unwrap()));
    assert_eq!(outcome["payload_bytes"], 1200);
    assert!(
        (0.9..2.0).contains(&number(&outcome, "duration_s")),
        "{outcome:#}"
    );
    assert!(
        number(&outcome, "sent") >= number(&outcome, "delivered"),
        "{outcome:#}"
    );
    assert!(
        (0.0..=1.0).contains(&number(&outcome, "loss")),
        "{outcome:#}"
    );
    let bits = number(&outcome, "delivered_pps") * 1200.0 * 8.0 / 1e9;
    assert!(
        (bits - number(&outcome, "gbit_per_s")).abs() < 1e-3,
        "{outcome:#}"
    );
    let [p50, p99, p999] = ["p50", "p99", "p999"].map(|key| number(&outcome["rtt_us"], key));
    assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{outcome:#}");
    assert_eq!(roles(&outcome), ["ingress", "egress"]);
}

#[test]
fn one_hop_has_one_relay() {
    let outcome = demo(&["--hops", "1"]);
    assert_eq!(outcome["hops"], 1);
    assert_eq!(roles(&outcome), ["egress"]);
}

#[test]
fn the_second_hop_can_be_nested() {
    let outcome = demo(&["--nested", "--size", "64"]);
    assert_eq!(
        (&outcome["nested"], &outcome["payload_bytes"]),
        (&true.into(), &64.into())
    );
    assert_eq!(roles(&outcome), ["ingress", "egress"]);
}

#[test]
fn every_carrier_carries_datagrams() {
    for carrier in ["h3", "h2", "h1"] {
        for way in [&["--hops", "1"][..], &[], &["--nested"]] {
            let outcome = demo(&[&["--carrier", carrier, "--rate", "500"], way].concat());
            assert_eq!(outcome["carrier"], carrier);
            roles(&outcome);
        }
    }
}

/// More than a relay reads in one turn.
#[test]
fn tcp_carriers_run_at_full_speed() {
    for carrier in ["h2", "h1"] {
        assert_eq!(demo(&["--carrier", carrier])["carrier"], carrier);
    }
}

#[test]
fn tcp_tunnels_lose_nothing_on_any_carrier() {
    for carrier in ["h3", "h2", "h1"] {
        for way in [&["--hops", "1"][..], &[], &["--nested"]] {
            let arguments = [&["demo", "--duration", "1", "--json", "--tcp"], way].concat();
            let finished = run([&arguments[..], &["--carrier", carrier]].concat());
            finished.assert_code(0);
            let outcome: Value = serde_json::from_str(&finished.stdout.join("\n")).unwrap();
            assert_eq!(outcome["carrier"], carrier);
            for key in ["up_bytes", "down_bytes", "gbit_per_s"] {
                assert!(number(&outcome, key) > 0.0, "{outcome:#}");
            }
            let relays = outcome["relays"].as_array().unwrap();
            assert_eq!(relays.len(), if way.contains(&"1") { 1 } else { 2 });
            for relay in relays {
                assert!(number(relay, "cpu_s_per_gigabyte") > 0.0, "{outcome:#}");
            }
        }
    }
}

#[test]
fn relays_can_have_several_workers() {
    let outcome = demo(&["--workers", "2", "--size", "1300"]);
    assert_eq!(roles(&outcome), ["ingress", "egress"]);
}

#[test]
fn epoll_is_used_when_asked_for() {
    assert_eq!(demo(&["--io", "epoll"])["io"], "epoll");
}

/// Containers may forbid io_uring; then the demo says so, and nothing else.
#[test]
fn io_uring_is_used_or_the_demo_fails() {
    let finished = run(["demo", "--duration", "1", "--json", "--io", "uring"]);
    if finished.status.success() {
        assert_eq!(outcome(&finished)["io"], "io_uring");
    } else {
        let error = finished.error(1);
        assert!(
            error.contains("io_uring is configured, but not usable"),
            "{error}"
        );
        assert!(finished.stdout.is_empty(), "{finished:#?}");
    }
}

#[test]
fn without_io_uring_auto_falls_back_and_uring_fails() {
    let without = |io| {
        let mut command = bauta([
            "demo",
            "--duration",
            "1",
            "--hops",
            "1",
            "--json",
            "--io",
            io,
        ]);
        command.env("MONOIO_FORCE_LEGACY_DRIVER", "1");
        Program::start(command).finish()
    };
    assert_eq!(outcome(&without("auto"))["io"], "epoll");
    let finished = without("uring");
    let error = finished.error(1);
    assert!(
        error.contains("io_uring is configured, but not usable"),
        "{error}"
    );
}

/// A rate far below what a busy machine carries: nothing may be lost on the way.
#[test]
fn a_moderate_rate_loses_nothing() {
    let outcome = demo(&["--rate", "2000"]);
    assert_eq!(outcome["loss"], 0.0, "{outcome:#}");
    let sent = number(&outcome, "sent");
    assert!((1_500.0..=2_000.0).contains(&sent), "{outcome:#}");
}

#[test]
fn people_get_live_lines_and_a_summary() {
    let finished = run(["demo", "--duration", "2", "--rate", "1000"]);
    finished.assert_code(0);
    let live = finished
        .stderr
        .iter()
        .filter(|line| line.contains("datagrams/s"));
    assert!(live.count() >= 2, "{finished:#?}");
    let summary = finished.stdout.join("\n");
    for part in [
        "client → ingress → egress → target",
        "throughput",
        "round trip",
        "p99.9",
        "ingress",
        "egress",
    ] {
        assert!(summary.contains(part), "{part}: {finished:#?}");
    }
}
