//! Every topology carries every workload.

use crate::support::{measured, number, roles};

/// Runs every workload over a carrier, which the result names.
#[track_caller]
fn carries_over(carrier: &str, topology: &str) {
    for workload in ["up", "down", "echo"] {
        let run = [
            "--topology",
            topology,
            "--carrier",
            carrier,
            "--workload",
            workload,
            "--rate",
            "500",
        ];
        let result = measured(&run);
        assert_eq!(result["carrier"], carrier);
    }
}

/// Runs all three workloads; `relays` stand between client and target.
#[track_caller]
fn carries_everything(topology: &str, carrier: &str, relays: &[&str]) {
    for workload in ["up", "down", "echo"] {
        let run = [
            "--topology",
            topology,
            "--workload",
            workload,
            "--rate",
            "2000",
        ];
        let result = measured(&run);
        assert_eq!(result["topology"], topology);
        assert_eq!(result["workload"], workload);
        assert_eq!(result["carrier"], carrier);
        assert_eq!(roles(&result), relays, "{result}");
        assert_eq!(number(&result, "payload_bytes"), 1200.0);
        assert_eq!(number(&result, "offered_pps"), 2000.0);
        assert_eq!(
            (&result["tunnels"], &result["connections"]),
            (&1.into(), &1.into())
        );
        assert_eq!(result["interrupted"], false);
        // Of neighbours on the way, each to the next; a nested connection hides the datagrams from the first relay.
        let ways = if workload == "echo" { 2 } else { 1 };
        let visible = relays
            .iter()
            .filter(|role| !(topology == "nested" && **role == "ingress"));
        let visible = visible.filter(|role| **role != "forwarder").count();
        let losses = result["loss_per_hop"].as_array().unwrap();
        assert_eq!(losses.len(), ways * (visible + 1), "{result}");
        for relay in result["relays"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|_| carrier == "h3")
        {
            assert!(number(relay, "segments_per_send") >= 1.0, "{result}");
            assert!(number(relay, "segments_per_receive") > 0.0, "{result}");
        }
    }
}

#[test]
fn direct() {
    carries_everything("direct", "udp", &[]);
}

#[test]
fn forwarder() {
    carries_everything("forwarder", "udp", &["forwarder"]);
}

#[test]
fn hop() {
    carries_everything("hop", "h3", &["relay"]);
}

#[test]
fn chain() {
    carries_everything("chain", "h3", &["ingress", "egress"]);
}

#[test]
fn nested() {
    carries_everything("nested", "h3", &["ingress", "egress"]);
}

#[test]
fn over_http_2() {
    for topology in ["hop", "chain", "nested"] {
        carries_over("h2", topology);
    }
}

#[test]
fn over_http_1() {
    for topology in ["hop", "chain", "nested"] {
        carries_over("h1", topology);
    }
}
