//! Ctrl-C, the ends of processes, and a relay that stops in the middle of a run.

use std::process::Command;

use crate::support::{
    Finished, Program, assert_shape, children, is_running, loadgen, number, roles, signal, until,
};

const LONG: [&str; 6] = ["--duration", "1h", "--warm-up", "100ms", "--rate", "1000"];

/// A long run that measures, and the relays under it.
#[track_caller]
fn measuring(arguments: &[&str], relays: usize) -> (Program, Vec<u32>) {
    let mut program = Program::start(loadgen(arguments.iter().chain(&LONG)));
    program.wait_until_measuring();
    let children = children(program.pid());
    assert_eq!(children.len(), relays);
    (program, children)
}

/// Asserts that a run was cut short and its result printed.
#[track_caller]
fn assert_interrupted(finished: &Finished, children: &[u32]) {
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    let result = finished.object();
    assert_shape(&result);
    assert_eq!(result["interrupted"], true);
    assert_eq!(roles(&result).len(), children.len());
    let seconds = number(&result, "duration_s");
    assert!((0.9..3600.0).contains(&seconds), "{result}");
    for child in children {
        assert!(!is_running(*child), "process {child} is left behind");
    }
}

#[test]
fn an_interrupt_prints_what_was_measured() {
    let (program, children) = measuring(&["--topology", "chain", "--json"], 2);
    signal("INT", program.pid().into());
    assert_interrupted(&program.finish(), &children);
}

#[test]
fn an_interrupt_of_the_whole_group_prints_it_too() {
    // As a terminal does it, and as `timeout` does.
    for name in ["INT", "TERM"] {
        let (program, children) = measuring(&["--topology", "chain", "--json"], 2);
        signal(name, -i64::from(program.pid()));
        assert_interrupted(&program.finish(), &children);
    }
}

#[test]
fn an_interrupted_table_says_so() {
    let (program, children) = measuring(&["--topology", "forwarder"], 1);
    signal("INT", program.pid().into());
    let finished = program.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert!(finished.stdout.contains("interrupted"), "{finished:#?}");
    assert!(!is_running(children[0]));
}

#[test]
fn an_interrupted_sweep_has_no_highest_rate_to_name() {
    let sweep = [
        "sweep",
        "--topology",
        "hop",
        "--from",
        "500",
        "--duration",
        "1h",
        "--json",
    ];
    let mut program = Program::start(loadgen(sweep));
    program.wait_until_measuring();
    let children = children(program.pid());
    signal("INT", program.pid().into());
    let finished = program.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    // If the one rate that was being tried passed until then, it is the result.
    if finished.stdout.is_empty() {
        assert!(
            finished
                .stderr
                .contains("interrupted before any rate had passed"),
            "{finished:#?}"
        );
    } else {
        assert_eq!(finished.object()["interrupted"], true);
    }
    assert!(children.iter().all(|child| !is_running(*child)));
}

#[test]
fn an_interrupt_before_anything_is_measured() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", socket.local_addr().unwrap());
    let mut program = Program::start(loadgen(["--relay", &url, "--insecure"]));
    program.wait_for("0 of 2 flows");
    signal("INT", program.pid().into());
    program
        .finish()
        .assert_failed(130, &["interrupted before anything was measured"]);
}

#[test]
fn an_interrupt_ends_memory_and_set_up_runs() {
    for arguments in [
        ["idle", "--connections", "1000", "--tunnels", "2"],
        ["setup", "--connections", "1", "--tunnels", "1000000"],
    ] {
        let program = Program::start(loadgen(arguments));
        until("a relay", || !children(program.pid()).is_empty());
        let relays = children(program.pid());
        signal("INT", program.pid().into());
        let finished = program.finish();
        assert_eq!(finished.code, None, "{finished:#?}");
        until("the end of the relay", || {
            !relays.iter().any(|relay| is_running(*relay))
        });
    }
}

#[test]
fn relays_end_with_the_program() {
    for (topology, relays) in [("chain", 2), ("forwarder", 1)] {
        let (program, children) = measuring(&["--topology", topology], relays);
        signal("KILL", program.pid().into());
        assert_eq!(program.finish().code, None);
        until("the end of the relays", || {
            !children.iter().any(|child| is_running(*child))
        });
    }
}

#[test]
fn a_relay_that_dies_ends_the_run() {
    let (program, children) = measuring(&["--topology", "chain", "--json"], 2);
    signal("KILL", children[0].into());
    let finished = program.finish();
    finished.assert_failed(1, &["ended in the middle of the run"]);
    assert!(children.iter().all(|child| !is_running(*child)));
}

/// Coordinated omission: a generator that waits for a stalled relay before it sends the next datagram would record one
/// slow datagram, and none of those that should have been sent meanwhile.
#[test]
fn a_stall_shows_in_an_open_loop() {
    for topology in ["forwarder", "hop"] {
        let load = [
            "--topology",
            topology,
            "--workload",
            "echo",
            "--payload",
            "64",
            "--rate",
            "500",
        ];
        let measure = ["--duration", "4s", "--warm-up", "100ms", "--json"];
        let mut program = Program::start(loadgen(load.iter().chain(&measure)));
        program.wait_until_measuring();
        let relay = children(program.pid());
        // The pause is what is measured.
        let stall = "kill -s STOP \"$0\"; sleep 0.3; kill -s CONT \"$0\"";
        let stalled = Command::new("sh")
            .args(["-c", stall, &relay[0].to_string()])
            .status();
        assert!(stalled.unwrap().success());
        let result = program.finish().json();
        let rtt = &result["rtt_us"];
        assert!(number(rtt, "max") >= 250e3, "{result}");
        // Of 500 a second, 50 were due so early in the stall that they took more than 200 ms: 2 % of all.
        assert!(
            number(rtt, "p99") >= 200e3 && number(rtt, "p999") >= 200e3,
            "{result}"
        );
        let due = 500.0 * number(&result, "duration_s");
        assert!(number(rtt, "count") >= 0.9 * due, "{result}");
    }
}
