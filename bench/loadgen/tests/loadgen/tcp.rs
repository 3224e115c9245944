//! Bytes in bulk over TCP tunnels: every topology, carrier and form moves them whole.

use serde_json::Value;

use crate::support::{Relay, number, roles, run};

/// A short run; the program itself fails it if a byte is lost.
#[track_caller]
fn moved(arguments: &[&str]) -> Value {
    let timed = ["--warm-up", "100ms", "--duration", "300ms", "--json"];
    let counted = ["--json"];
    let rest = match arguments.contains(&"--bytes") {
        true => &counted[..],
        false => &timed[..],
    };
    let arguments = ["tcp"].iter().chain(arguments).chain(rest);
    let result = run(arguments).json();
    assert!(number(&result, "gbit_per_s") > 0.0, "{result}");
    for relay in result["relays"].as_array().unwrap() {
        for key in ["cpu_s_per_gigabyte", "gbit_per_s_per_core", "rss_bytes"] {
            assert!(number(relay, key) > 0.0, "{key}: {result}");
        }
    }
    result
}

#[test]
fn every_carrier_in_every_direction() {
    for carrier in ["h3", "h2", "h1"] {
        for workload in ["up", "down", "both"] {
            let result = moved(&["--carrier", carrier, "--workload", workload]);
            assert_eq!(result["carrier"], carrier);
            assert_eq!(result["workload"], format!("tcp-{workload}"));
            assert_eq!(roles(&result), ["relay"]);
            assert_eq!(number(&result, "up_bytes") > 0.0, workload != "down");
            assert_eq!(number(&result, "down_bytes") > 0.0, workload != "up");
        }
    }
}

#[test]
fn every_form_through_two_relays() {
    for form in ["capsules", "raw", "classic"] {
        for carrier in ["h3", "h2", "h1"] {
            let way = ["--topology", "chain", "--carrier", carrier, "--form", form];
            let result = moved(&way);
            assert_eq!(result["form"], form);
            assert_eq!(roles(&result), ["ingress", "egress"]);
        }
    }
}

#[test]
fn one_hop_nested_in_another() {
    for carrier in ["h3", "h2", "h1"] {
        let result = moved(&["--topology", "nested", "--carrier", carrier]);
        assert_eq!(roles(&result), ["ingress", "egress"]);
    }
}

#[test]
fn without_relays() {
    for (topology, relays) in [("direct", &[][..]), ("forwarder", &["forwarder"])] {
        for workload in ["up", "down"] {
            let result = moved(&["--topology", topology, "--workload", workload]);
            assert_eq!(
                (&result["carrier"], &result["form"]),
                (&"tcp".into(), &"".into())
            );
            assert_eq!(roles(&result), relays);
        }
    }
    run(["tcp", "--topology", "direct", "--workload", "both"]).assert_failed(2, &["up or down"]);
}

#[test]
fn a_number_of_bytes_on_each_of_several_streams() {
    for carrier in ["h3", "h2", "h1"] {
        let bytes = ["--bytes", "300000", "--streams", "5", "--workload", "both"];
        let result = moved(&[&bytes[..], &["--carrier", carrier, "--connections", "2"]].concat());
        assert_eq!(
            (&result["up_bytes"], &result["down_bytes"]),
            (&1_500_000.into(), &1_500_000.into())
        );
        assert_eq!(
            (&result["streams"], &result["connections"]),
            (&5.into(), &2.into())
        );
        let jain = number(&result["fairness"], "jain");
        assert!((jain - 1.0).abs() < 1e-9, "{result}");
    }
}

#[test]
fn a_relay_that_runs_already() {
    let relay = Relay::start(&[]);
    let (ca, pid) = (relay.ca(), relay.pid());
    let result = moved(&[
        "--relay",
        &relay.url,
        "--ca",
        &ca,
        "--relay-pid",
        &pid,
        "--carrier",
        "h2",
    ]);
    assert_eq!(result["topology"], "running");
    assert_eq!(roles(&result), ["relay 1"]);
}

#[test]
fn a_table_for_people() {
    let arguments = [
        "tcp",
        "--bytes",
        "100000",
        "--streams",
        "2",
        "--carrier",
        "h2",
    ];
    let table = run(arguments);
    assert_eq!(table.code, Some(0), "{table:#?}");
    for text in ["Gbit/s", "s of CPU per gigabyte", "fairness"] {
        assert!(table.stdout.contains(text), "{text:?}: {table:#?}");
    }
}

#[test]
fn results_are_compared_and_carriers_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |carrier: &str| {
        let path = folder.path().join(carrier);
        let result = moved(&["--carrier", carrier, "--bytes", "100000"]);
        std::fs::write(&path, result.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (file("h2"), file("h1"));
    let table = run(["--compare", &a, &b]);
    assert_eq!(table.code, Some(0), "{table:#?}");
    for text in ["Not the same load (carrier)", "relay: CPU s/gigabyte"] {
        assert!(table.stdout.contains(text), "{text:?}: {table:#?}");
    }
    assert!(!run(["--compare", &a, &a]).stdout.contains("Not the same"));
}
