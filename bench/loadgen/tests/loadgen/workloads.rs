//! Kinds of load beside the plain ones, and workloads that are more than one run.

use crate::support::{SHORT, assert_shape, measured, number, roles, run, swept};

#[test]
fn a_mix_of_sizes() {
    let result = measured(&["--topology", "hop", "--payload", "imix", "--rate", "2000"]);
    assert!((number(&result, "payload_bytes") - 329.3).abs() < 0.1);
    let bits = number(&result, "gbit_per_s") * 1e9 / number(&result, "delivered_pps");
    assert!(bits > 64.0 * 8.0 && bits < 1200.0 * 8.0, "{result}");
}

#[test]
fn small_payloads() {
    for (size, bytes) in [("21", 21.0), ("64", 64.0), ("1250", 1250.0)] {
        let result = measured(&["--topology", "hop", "--payload", size, "--rate", "500"]);
        assert_eq!(number(&result, "payload_bytes"), bytes);
        let bits = number(&result, "gbit_per_s") * 1e9 / number(&result, "delivered_pps");
        assert!(
            (bits / 8.0 - number(&result, "payload_bytes")).abs() < 0.01,
            "{result}"
        );
    }
}

#[test]
fn many_tunnels_over_several_connections() {
    let result = measured(&[
        "--topology",
        "chain",
        "--tunnels",
        "40",
        "--connections",
        "4",
        "--rate",
        "2000",
    ]);
    assert_eq!(
        (&result["tunnels"], &result["connections"]),
        (&40.into(), &4.into())
    );
}

#[test]
fn more_connections_than_tunnels_are_as_many_as_tunnels() {
    let result = measured(&["--topology", "hop", "--connections", "9", "--rate", "500"]);
    assert_eq!(
        (&result["tunnels"], &result["connections"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn a_closed_loop() {
    let result = measured(&["--topology", "hop", "--window", "4", "--workload", "echo"]);
    // No datagram is sent before there is room for it.
    assert_eq!(result["generator"]["late"], 0);
    assert!(number(&result["rtt_us"], "count") > 0.0);
}

#[test]
fn bursts_and_bunches() {
    let run = [
        "--topology",
        "hop",
        "--tunnels",
        "4",
        "--bunch",
        "8",
        "--tick",
        "10ms",
        "--rate",
        "2000",
    ];
    measured(&run);
}

#[test]
fn several_generators() {
    let result = measured(&[
        "--topology",
        "hop",
        "--generators",
        "2",
        "--tunnels",
        "4",
        "--rate",
        "2000",
    ]);
    assert_eq!(result["tunnels"], 4);
}

#[test]
fn a_sweep_ends_at_its_upper_bound() {
    let rates = ["--topology", "direct", "--from", "500", "--to", "700"];
    let result = swept(&[&rates[..], &["--json"]].concat()).json();
    assert_shape(&result);
    assert_eq!(result["workload"], "up-sweep");
    let points = result["points"].as_array().unwrap();
    let rates: Vec<_> = points
        .iter()
        .map(|point| number(point, "offered_pps"))
        .collect();
    assert!(
        rates.contains(&500.0) && rates.contains(&700.0),
        "{rates:?}"
    );
    assert!(
        rates.is_sorted() && rates.iter().all(|rate| (500.0..=700.0).contains(rate)),
        "{rates:?}"
    );
    assert!(rates.contains(&number(&result, "offered_pps")));
}

#[test]
fn slow_tunnels_beside_a_flood() {
    let arguments = [
        "fairness",
        "--topology",
        "hop",
        "--window",
        "16",
        "--slow",
        "5",
        "--slow-rate",
        "50",
    ];
    let result = measured(&arguments);
    assert_eq!(result["workload"], "fairness");
    let beside = result["beside"].as_array().unwrap();
    assert_eq!(beside.len(), 1, "{result}");
    assert_eq!(beside[0]["tunnels"], 5);
    assert_eq!(number(&beside[0], "offered_pps"), 250.0);
    assert!(number(&beside[0], "delivered_pps") > 0.0, "{result}");
}

#[test]
fn beginnings() {
    let arguments = ["setup", "--connections", "5", "--tunnels", "20", "--json"];
    let result = run(arguments).json();
    for (key, count) in [
        ("connections_with_one_tunnel", 5),
        ("tunnels_on_an_open_connection", 20),
    ] {
        assert_eq!(result[key]["count"], count);
        assert!(number(&result[key], "per_second") > 0.0, "{result}");
        assert!(number(&result[key], "cpu_us_each") > 0.0, "{result}");
    }
    let table = run(["setup", "--connections", "1", "--tunnels", "1"]);
    assert_eq!(table.code, Some(0));
    assert!(
        table.stdout.contains("new connection with a tunnel"),
        "{table:#?}"
    );
}

#[test]
fn beginnings_over_tcp() {
    for carrier in ["h2", "h1"] {
        let arguments = ["setup", "--connections", "5", "--tunnels", "20", "--json"];
        let result = run(arguments.iter().chain(&["--carrier", carrier])).json();
        assert_eq!(result["carrier"], carrier);
        assert_eq!(result["connections_with_one_tunnel"]["count"], 5);
        // On HTTP/1.1 a connection carries one tunnel.
        let further = &result["tunnels_on_an_open_connection"];
        assert_eq!(further.is_null(), carrier == "h1", "{result}");
    }
}

#[test]
fn idle_memory() {
    let arguments = ["idle", "--connections", "3", "--tunnels", "4", "--json"];
    let result = run(arguments).json();
    assert_eq!(
        (&result["connections"], &result["tunnels"]),
        (&3.into(), &12.into())
    );
    let memory = [
        "rss_bytes_start",
        "rss_bytes_one_tunnel_each",
        "rss_bytes_all_tunnels",
    ];
    assert!(
        memory.iter().all(|key| number(&result, key) > 1e6),
        "{result}"
    );
    assert!(number(&result, "bytes_per_connection_with_one_tunnel") >= 0.0);
    assert!(number(&result, "bytes_per_further_tunnel") >= 0.0);
}

#[test]
fn sockets_by_number() {
    let arguments = ["sockets", "--sockets", "1,40", "--datagrams-each", "3"];
    let result = run(arguments.iter().chain(&["--json"])).json();
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{result}");
    for (row, tunnels) in rows.iter().zip([1, 40]) {
        assert_eq!(row["tunnels"], tunnels);
        for what in [
            "receive_connected_ns",
            "receive_shared_ns",
            "send_connected_ns",
            "send_shared_ns",
        ] {
            let [min, median, max] = ["min", "median", "max"].map(|key| number(&row[what], key));
            assert!(0.0 < min && min <= median && median <= max, "{result}");
        }
    }
    let table = run(["sockets", "--sockets", "2"]);
    assert_eq!(table.code, Some(0), "{table:#?}");
    assert!(table.stdout.contains("receive_shared_ns"), "{table:#?}");
}

#[test]
fn a_soak_looks_at_memory() {
    let arguments = [
        "soak",
        "--topology",
        "chain",
        "--rate",
        "1000",
        "--warm-up",
        "100ms",
        "--duration",
        "2s",
    ];
    let result = run(arguments.iter().chain(&["--json"])).json();
    assert_eq!(result["workload"], "up-soak");
    assert_eq!(roles(&result), ["ingress", "egress"]);
    let series = result["series"].as_array().unwrap();
    assert!(!series.is_empty(), "{result}");
    assert!(
        series
            .iter()
            .all(|sample| number(sample, "rss_bytes") > 1e6),
        "{result}"
    );
}

#[test]
fn both_kinds_of_waiting() {
    for io in ["auto", "epoll"] {
        let result = measured(&["--topology", "hop", "--io", io, "--rate", "500"]);
        assert!(
            ["uring", "io_uring", "epoll"].contains(&result["io"].as_str().unwrap()),
            "{result}"
        );
        assert!(io == "auto" || result["io"] == io, "{result}");
    }
}

#[test]
fn a_run_without_pinning_that_parks() {
    let flags = [
        "--no-pin",
        "--spin",
        "false",
        "--topology",
        "hop",
        "--rate",
        "500",
    ];
    measured(&flags);
}

#[test]
fn the_table_says_the_two_numbers_first() {
    let arguments = ["--topology", "hop", "--rate", "500"];
    let table = run(arguments.iter().chain(&SHORT));
    assert_eq!(table.code, Some(0), "{table:#?}");
    for text in ["datagrams/s", "p99", "segments/send", "Saturated:"] {
        assert!(table.stdout.contains(text), "{text:?}: {table:#?}");
    }
}
