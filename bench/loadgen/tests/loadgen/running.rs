//! Relays that run already.

use crate::support::{Relay, SHORT, measured, number, run};

#[test]
fn a_running_relay_is_measured() {
    let relay = Relay::start(&[]);
    let trust = ["--relay", &relay.url, "--ca", &relay.ca(), "--rate", "1000"];
    for workload in ["up", "down", "echo"] {
        let result = measured(&[&trust[..], &["--workload", workload]].concat());
        assert_eq!(
            (&result["topology"], &result["carrier"]),
            (&"running".into(), &"h3".into())
        );
        assert_eq!(
            result["relays"],
            serde_json::json!([]),
            "nobody said which process it is"
        );
    }
}

#[test]
fn the_process_of_a_running_relay_is_looked_at() {
    let relay = Relay::start(&[]);
    let (ca, pid) = (relay.ca(), relay.pid());
    let load = [
        "--relay",
        &relay.url,
        "--ca",
        &ca,
        "--relay-pid",
        &pid,
        "--rate",
        "1000",
    ];
    let result = measured(&load);
    assert_eq!(result["relays"][0]["role"], "relay 1");
    assert!(number(&result["relays"][0], "rss_bytes") > 1e6);
    let missing = run([
        "--relay",
        &relay.url,
        "--ca",
        &ca,
        "--relay-pid",
        "4294967295",
    ]);
    missing.assert_failed(1, &["--relay-pid 4294967295"]);
}

#[test]
fn running_relays_are_nested() {
    let (first, second) = (Relay::start(&[]), Relay::start(&[]));
    let load = [
        "--relay",
        &first.url,
        "--relay",
        &second.url,
        "--insecure",
        "--rate",
        "500",
    ];
    measured(&load);
    drop(second);
}

#[test]
fn a_relay_that_nobody_trusts() {
    let (relay, other) = (Relay::start(&[]), Relay::start(&[]));
    let reason = "the certificate of the relay is from an unknown issuer";
    let address = relay.url.trim_start_matches("https://").to_owned();
    run(["--relay", &relay.url, "--ca", &other.ca()]).assert_failed(1, &[&address, reason]);
    let missing = run(["--relay", &relay.url, "--ca", "/missing.pem"]);
    missing.assert_failed(1, &["/missing.pem"]);
}

#[test]
fn a_running_relay_that_refuses() {
    let relay = Relay::start(&["policy.allow=[\"192.0.2.0/24\"]"]);
    let failed = run(["--relay", &relay.url, "--ca", &relay.ca()]
        .iter()
        .chain(&SHORT));
    let address = relay.url.trim_start_matches("https://");
    failed.assert_failed(1, &[address, "403 Forbidden", "error=http_request_denied"]);
}
