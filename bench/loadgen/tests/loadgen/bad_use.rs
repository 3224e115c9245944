//! What goes wrong is said once, with what is needed to put it right.

use std::fs;
use std::process::Command;

use crate::support::{Program, SHORT, run};

/// A port on which nobody listens any more.
fn closed_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn no_such_relay() {
    let url = format!("https://127.0.0.1:{}", closed_port());
    let failed = run(["--relay", &url, "--insecure", "--json"]);
    let address = url.trim_start_matches("https://");
    failed.assert_failed(1, &[address, "the relay did not answer in time"]);
}

#[test]
fn no_such_name() {
    let failed = run(["--relay", "https://relay.invalid:4433", "--insecure"]);
    failed.assert_failed(1, &["relay.invalid:4433"]);
}

#[test]
fn a_refused_tunnel() {
    let policy = "policy.allow=[\"192.0.2.0/24\"]";
    for topology in ["hop", "chain", "nested"] {
        let failed = run(["--topology", topology, "--set", policy, "--json"]);
        // What the first of two relays says reaches us like the answer of the last one.
        let said = [
            "403 Forbidden",
            "error=http_request_denied",
            "a rule forbids the target",
        ];
        failed.assert_failed(1, &said);
    }
}

#[test]
fn a_wrong_setting() {
    for command in [&[][..], &["setup"], &["idle"], &["fairness"]] {
        let failed = run(command.iter().chain(&["--set", "polcy.allow=[]"]));
        failed.assert_failed(2, &["--set", "polcy", "unknown key"]);
    }
    run(["--set", "limits.tunnels=\"many\""]).assert_failed(2, &["--set", "limits.tunnels"]);
    run(["--io", "telepathy"]).assert_failed(2, &["io", "telepathy"]);
    let client = run(["--topology", "hop", "--client-set", "polcy=1"]);
    client.assert_failed(2, &["--client-set", "polcy"]);
}

/// Starts with at most `files` descriptors.
fn with_files(files: u32, arguments: &[&str]) -> Program {
    let script = "ulimit -n \"$0\" && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args([
        "-c",
        script,
        &files.to_string(),
        env!("CARGO_BIN_EXE_loadgen"),
    ]);
    command.args(arguments);
    Program::start(command)
}

#[test]
fn too_few_file_descriptors() {
    for (arguments, wanted) in [
        (&["--topology", "hop", "--tunnels", "1000"][..], "1257"),
        (&["--topology", "direct", "--tunnels", "1000"], "1257"),
        (&["idle", "--connections", "10", "--tunnels", "100"], "1256"),
    ] {
        let failed = with_files(300, arguments).finish();
        failed.assert_failed(1, &["file descriptors", "300", wanted, "ulimit -n"]);
    }
}

#[test]
fn files_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("x");
    let path = path.to_str().unwrap();
    for option in ["--html", "--hgrm"] {
        // Told before the run, which would take an hour.
        let failed = run(["--topology", "direct", "--duration", "1h", option, path]);
        failed.assert_failed(1, &[path, "No such file or directory"]);
        let soak = run(["soak", "--topology", "direct", option, path]);
        soak.assert_failed(1, &[path, "No such file or directory"]);
    }
    let path = folder.path().to_str().unwrap();
    run(["--topology", "direct", "--html", path]).assert_failed(1, &[path, "directory"]);
}

#[test]
fn files_that_cannot_be_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (missing, empty, other) = (path("missing.json"), path("empty.json"), path("other.json"));
    fs::write(&empty, "").unwrap();
    fs::write(&other, "{\"a\": [1, 2]}").unwrap();
    for (a, b, named, reason) in [
        (&missing, &other, &missing, "No such file"),
        (&empty, &other, &empty, "not a result of loadgen --json"),
        (&other, &missing, &other, "not a result of loadgen --json"),
    ] {
        run(["--compare", a, b]).assert_failed(1, &[named, reason]);
    }
}

#[test]
fn contradictions() {
    for (arguments, text) in [
        (&["sweep", "--from", "600", "--to", "500"][..], "--to"),
        (&["sweep", "--hgrm", "x"], "--hgrm"),
        (&["sweep", "--rate", "5000"], "--rate 5000: a sweep"),
        (&["curve", "--window", "64"], "--window 64: a sweep"),
        (&["targets", "--only", "T99"], "T99"),
        (
            &["--topology", "forwarder", "--generators", "2"],
            "--generators",
        ),
    ] {
        run(arguments).assert_failed(2, &[text]);
    }
}

#[test]
fn a_first_rate_that_is_too_high() {
    let sweep = ["sweep", "--topology", "direct", "--from", "100000000"];
    let failed = run(sweep.iter().chain(&SHORT));
    failed.assert_failed(1, &["too many already", "--from"]);
}
