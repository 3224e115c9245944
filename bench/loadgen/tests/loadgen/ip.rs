//! Whole IP packets from client to client: every topology, carrier and version of IP passes them undamaged.

use serde_json::Value;

use crate::support::{Relay, SHORT, number, roles, run};

/// A short run, slow enough for any machine, whose result has the shape of every result.
#[track_caller]
fn passed(arguments: &[&str]) -> Value {
    let paced = arguments.contains(&"--rate") || arguments.contains(&"--window");
    let pace = if paced { &[][..] } else { &["--rate", "300"] };
    let arguments = ["ip"].iter().chain(arguments).chain(pace);
    let result = run(arguments.chain(&SHORT).chain(&["--json"])).json();
    for key in [
        "packet_bytes",
        "mtu_bytes",
        "duration_s",
        "offered_pps",
        "delivered_pps",
        "gbit_per_s",
        "sent",
        "delivered",
    ] {
        assert!(number(&result, key) > 0.0, "{key}: {result}");
    }
    assert_eq!(result["damaged"], 0, "{result}");
    let of = |key| number(&result, key);
    assert_eq!(of("sent"), of("delivered") + of("lost"), "{result}");
    assert!(of("mtu_bytes") >= of("packet_bytes"), "{result}");
    let bits = of("gbit_per_s") * 1e9 / of("delivered_pps");
    assert!((bits / 8.0 - of("packet_bytes")).abs() < 0.01, "{result}");
    let is_echo = result["workload"] == "ip-echo";
    assert_eq!(number(&result["one_way_us"], "count") == 0.0, is_echo);
    assert!(number(&result["rtt_us"], "p50") > 0.0, "{result}");
    for relay in result["relays"].as_array().unwrap() {
        for key in ["cpu_ns_per_packet", "packets_per_s_per_core", "rss_bytes"] {
            assert!(number(relay, key) > 0.0, "{key}: {result}");
        }
    }
    result
}

#[test]
fn every_carrier_in_every_direction() {
    for carrier in ["h3", "h2", "h1"] {
        for workload in ["up", "down", "both", "echo"] {
            let result = passed(&["--carrier", carrier, "--workload", workload]);
            assert_eq!(result["carrier"], carrier);
            assert_eq!(result["workload"], format!("ip-{workload}"));
            assert_eq!(result["packet_bytes"], 1_400);
            assert_eq!(roles(&result), ["relay"]);
            let directions = if workload == "both" { 2.0 } else { 1.0 };
            assert_eq!(number(&result, "offered_pps"), directions * 300.0);
        }
    }
}

#[test]
fn through_two_relays() {
    for topology in ["chain", "nested"] {
        for carrier in ["h3", "h2", "h1"] {
            let way = ["--topology", topology, "--carrier", carrier];
            let result = passed(&[&way[..], &["--size", "1280"]].concat());
            assert_eq!(result["topology"], topology);
            assert_eq!(roles(&result), ["ingress", "egress"]);
        }
    }
}

#[test]
fn both_versions_and_every_size() {
    for (family, carrier, sizes) in [
        ("4", "h3", ["49", "576", "1401"]),
        ("6", "h3", ["69", "1280", "1401"]),
        ("4", "h2", ["49", "9000", "65527"]),
        ("6", "h1", ["69", "9000", "65527"]),
    ] {
        for size in sizes {
            let way = ["--family", family, "--carrier", carrier, "--size", size];
            let result = passed(&[&way[..], &["--rate", "50"]].concat());
            assert_eq!(result["family"].to_string(), family);
            assert_eq!(result["packet_bytes"].to_string(), size);
        }
    }
}

#[test]
fn many_clients_over_several_connections() {
    let many = ["--flows", "5", "--connections", "2"];
    let threads = ["--workers", "2", "--generators", "2"];
    let result = passed(&[&many[..], &threads, &["--workload", "both"]].concat());
    assert_eq!(
        (&result["flows"], &result["connections"]),
        (&5.into(), &2.into())
    );
}

#[test]
fn a_closed_loop() {
    let result = passed(&["--window", "4", "--workload", "echo"]);
    assert_eq!(result["generator"]["late"], 0);
}

#[test]
fn larger_packets_where_both_ends_look_for_the_room() {
    let bound = "quic.mtu_upper_bound=1600";
    let result = passed(&["--size", "1500", "--set", bound, "--client-set", bound]);
    assert!(number(&result, "mtu_bytes") < 1_600.0, "{result}");
}

#[test]
fn packets_that_the_tunnels_do_not_carry() {
    // What our own way carries, and what a relay tells about its own.
    for (size, set) in [
        ("1500", "quic.mtu_upper_bound=1452"),
        ("1400", "quic.mtu_upper_bound=1360"),
    ] {
        let failed = run(["ip", "--size", size, "--set", set]);
        let said = format!("--size {size}: the tunnel carries packets of at most 1");
        failed.assert_failed(2, &[&said, "quic.mtu_upper_bound"]);
    }
}

#[test]
fn bad_arguments() {
    run(["ip", "--size", "60", "--family", "6"])
        .assert_failed(2, &["--size 60", "at least 69", "--family 6"]);
    run(["ip", "--set", "ip.pols=1"]).assert_failed(2, &["--set", "pols"]);
    run(["ip", "--client-set", "polcy=1"]).assert_failed(2, &["--client-set", "polcy"]);
    let size = run(["ip", "--size", "65528"]);
    assert_eq!(size.code, Some(2), "{size:#?}");
    assert!(size.stderr.contains("65528 is not in 49..=65527"));
}

#[test]
fn relays_that_do_not_pass_packets_on() {
    for (set, said) in [
        ("ip.client_to_client=false", "ip.client_to_client"),
        ("policy.services=[\"connect-udp\"]", "404 Not Found"),
        ("ip.pools=[\"2001:db8::/64\"]", "--family 4"),
    ] {
        run(["ip", "--set", set, "--json"]).assert_failed(1, &[said]);
    }
}

#[test]
fn a_relay_that_runs_already() {
    let relay = Relay::start(&[
        "ip.pools=[\"198.18.0.0/24\"]",
        "ip.tun=\"off\"",
        "ip.client_to_client=true",
    ]);
    let (ca, pid) = (relay.ca(), relay.pid());
    let way = ["--relay", &relay.url, "--ca", &ca, "--relay-pid", &pid];
    // Twice: the first run gives its addresses back.
    for carrier in ["h3", "h2"] {
        let result = passed(&[&way[..], &["--carrier", carrier]].concat());
        assert_eq!(result["topology"], "running");
        assert_eq!(roles(&result), ["relay 1"]);
    }
}

#[test]
fn a_table_for_people() {
    let table = run(["ip", "--rate", "300"].iter().chain(&SHORT));
    assert_eq!(table.code, Some(0), "{table:#?}");
    for text in [
        "packets/s",
        "0 damaged",
        "up to 1",
        "one way",
        "round trip",
        "ns of CPU per packet",
        "Saturated:",
    ] {
        assert!(table.stdout.contains(text), "{text:?}: {table:#?}");
    }
}

#[test]
fn results_are_compared_and_versions_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |family: &str| {
        let path = folder.path().join(family);
        let result = passed(&["--family", family]);
        std::fs::write(&path, result.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (file("4"), file("6"));
    let table = run(["--compare", &a, &b]);
    assert_eq!(table.code, Some(0), "{table:#?}");
    for text in ["Not the same load (family)", "relay: CPU ns/packet"] {
        assert!(table.stdout.contains(text), "{text:?}: {table:#?}");
    }
    assert!(!run(["--compare", &a, &a]).stdout.contains("Not the same"));
}
