//! The example programs, the example configurations, and the exit codes of `bauta relay --check`, with the real binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime};

use bauta::transport::tls::DevCa;
use tempfile::TempDir;

/// How long a program may run on a busy machine. They end by themselves within a second or two.
const PATIENCE: Duration = Duration::from_secs(60);
/// Certificates are only loaded here, not judged, so that any time will do.
const SOME_TIME: Duration = Duration::from_secs(1_700_000_000);

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples")
}

fn check(config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bauta"))
        .args(["relay", "--check", "--config"])
        .arg(config)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Puts an example into an empty directory, with the certificates that it names.
fn install(example: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("relay.toml");
    fs::copy(examples().join(example), &config).unwrap();
    let ca = DevCa::new(&[], SystemTime::UNIX_EPOCH + SOME_TIME).unwrap();
    for (suffix, pem) in [
        ("chain", &ca.chain_pem),
        ("key", &ca.key_pem),
        ("ca", &ca.ca_pem),
    ] {
        for relay in ["ingress", "egress"] {
            fs::write(directory.path().join(format!("{relay}-{suffix}.pem")), pem).unwrap();
        }
    }
    for (name, text) in [
        ("egress-tokens.txt", "# ingress\ningress:9f2c51d0\n"),
        ("egress-credentials.txt", "bearer:9f2c51d0\n"),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    (directory, config)
}

#[test]
fn every_example_is_accepted() {
    let mut checked = 0;
    for entry in fs::read_dir(examples()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (_directory, config) = install(&name);
        let output = check(&config);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(
            !report.contains("warning") && report.contains("  sum "),
            "{name}: {report}"
        );
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn a_missing_certificate_is_named() {
    let (directory, config) = install("egress.toml");
    fs::remove_file(directory.path().join("egress-key.pem")).unwrap();
    let output = check(&config);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("egress-key.pem: "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_empty_certificate_authority_is_named() {
    let (directory, config) = install("ingress.toml");
    fs::write(directory.path().join("egress-ca.pem"), "").unwrap();
    let output = check(&config);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("egress-ca.pem: no certificate in it"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn files_with_secrets_are_read_by_the_check() {
    let failure = |config: &Path| {
        let output = check(config);
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    let (directory, config) = install("egress.toml");
    let tokens = directory.path().join("egress-tokens.txt");
    fs::write(&tokens, "abc\nb\u{f6}b:secret\n").unwrap();
    let error = failure(&config);
    assert!(
        error.contains("egress-tokens.txt: line 2: the name"),
        "{error}"
    );
    assert!(!error.contains("secret\n"), "{error}");
    fs::write(&tokens, "# nobody\n").unwrap();
    let error = failure(&config);
    assert!(
        error.contains("egress-tokens.txt: no secret in it"),
        "{error}"
    );

    let (directory, config) = install("ingress.toml");
    fs::remove_file(directory.path().join("egress-credentials.txt")).unwrap();
    let error = failure(&config);
    assert!(error.contains("egress-credentials.txt: "), "{error}");
}

#[test]
fn a_password_becomes_a_line_of_the_file() {
    use std::io::Write;
    use std::process::Stdio;
    let run = |user: &str, input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bauta"))
            .args(["passwd", "--user", user])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let output = run("alice", "open sesame\n");
    assert_eq!(output.status.code(), Some(0));
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(
        line.starts_with("alice:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{line}"
    );

    let (directory, config) = install("egress.toml");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("# passwords =", "passwords =");
    fs::write(&config, text).unwrap();
    fs::write(directory.path().join("egress-passwords.txt"), line).unwrap();
    assert_eq!(check(&config).status.code(), Some(0));

    assert_eq!(run("alice", "\n").status.code(), Some(2));
}

#[test]
fn every_problem_is_one_line() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("relay.toml");
    fs::write(
        &config,
        "workers = -1\nnmae = \"x\"\n[[listen]]\naddress = \"x\"\n",
    )
    .unwrap();
    let output = check(&config);
    assert_eq!(output.status.code(), Some(2));
    let lines: Vec<String> = stderr(&output).lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "error: nmae: unknown key, did you mean `name`?",
            "error: workers: -1: must be 0 to 1024",
            "error: listen[0].address: \"x\": not an address such as \"[::]:443\"",
            "error: listen[0].certificate: missing: path of the certificate chain (PEM)",
            "error: listen[0].key: missing: path of the private key (PEM)",
        ]
    );
}

#[test]
fn policy_rules_are_read_with_the_rest() {
    let (directory, config) = install("egress.toml");
    let text = fs::read_to_string(&config).unwrap().replace("*:25", ":25");
    fs::write(directory.path().join("relay.toml"), text).unwrap();
    let output = check(&config);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output).trim_end(),
        "error: policy.deny[0]: \":25\": the host is missing; write * for any"
    );
}

#[test]
fn wrong_arguments_are_code_2_and_help_is_code_0() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_bauta"))
            .args(arguments)
            .output()
            .unwrap()
    };
    assert_eq!(run(&["relay"]).status.code(), Some(2));
    assert_eq!(run(&["demo", "--size", "1"]).status.code(), Some(2));
    assert_eq!(
        run(&["relay", "--config", "/nonexistent/relay.toml", "--check"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(run(&["relay", "--dev", "--check"]).status.code(), Some(0));
    for command in ["relay", "demo", "udp", "passwd"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("Examples:"),
            "{command}"
        );
    }
}

/// A program of `examples/`. `cargo test` builds them all; `cargo test --test examples` alone does not.
fn program(name: &str) -> Command {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
    // This test is `deps/examples-…` of the same profile.
    let test = env::current_exe().unwrap();
    let built = test.parent().unwrap().with_file_name("examples").join(name);
    let modified = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    assert!(
        modified(&built) >= modified(&source),
        "{} is out of date: cargo build --examples",
        built.display()
    );
    Command::new(built)
}

/// Runs a program to its end, which has to come in time.
#[track_caller]
fn run_to_end(mut command: Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (ended, output) = channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    match output.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let killed = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("it runs on after {PATIENCE:?}; killed: {killed:?}");
        }
    }
}

/// What a program says when it runs without arguments, and succeeds.
#[track_caller]
fn says(name: &str) -> String {
    let output = run_to_end(program(name));
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
    assert_eq!(errors, "", "{name}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn udp_dig_finds_an_address() {
    let text = says("udp_dig");
    assert!(
        text.starts_with("example.org has address 192.0.2.7\n"),
        "{text}"
    );
    assert!(text.contains(" over h"), "{text}");
}

#[test]
fn udp_dig_fails_with_a_word() {
    let mut wrong = program("udp_dig");
    wrong.arg("--help");
    let output = run_to_end(wrong);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("usage: "), "{}", stderr(&output));

    let mut nowhere = program("udp_dig");
    nowhere.args(["--via", "http://relay.example", "--server", "192.0.2.1:53"]);
    let output = run_to_end({
        nowhere.arg("example.org");
        nowhere
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("http://relay.example"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn echo_relay_answers_on_every_carrier() {
    let text = says("echo_relay");
    for carrier in ["h3", "h2", "h1"] {
        let line = format!("\n{carrier}: a datagram and a stream came back\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn ip_client_is_answered_on_every_carrier() {
    let text = says("ip_client");
    for carrier in ["h3", "h2", "h1"] {
        let own = format!("{carrier}: we are 10.89.0.");
        let answer = format!("\n{carrier}: 10.89.0.1 answers\n");
        assert!(text.contains(&own) && text.contains(&answer), "{text}");
    }
}

#[test]
fn two_hop_nests_and_chains() {
    let text = says("two_hop");
    let relays = |title: &str| {
        let rest = text.split_once(title).unwrap().1;
        let relays = rest
            .lines()
            .skip(1)
            .take_while(|it| it.starts_with("  by "));
        relays.count()
    };
    assert_eq!(relays("nested: first tunnel open in "), 2, "{text}");
    assert_eq!(relays("nested: second tunnel open in "), 2, "{text}");
    assert_eq!(relays("chained: first tunnel open in "), 1, "{text}");
    assert_eq!(relays("chained: second tunnel open in "), 1, "{text}");
}

#[test]
fn custom_handler_rejects_serves_and_delegates() {
    assert_eq!(
        says("custom_handler").lines().collect::<Vec<_>>(),
        [
            "without a key: 403 Forbidden, x-help: send x-key",
            "Hello Ali.",
            "News: masks are back.",
            "News: relays forget.",
            "through the proxy: a page",
        ]
    );
}

#[test]
fn auth_challenge_gets_in_with_a_token() {
    let text = says("auth_challenge");
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("401 Unauthorized, challenge "),
        "{text}"
    );
    assert!(lines[1].starts_with("asking again with token "), "{text}");
    assert_eq!(lines[2..], ["welcome"]);
}

#[test]
#[cfg(feature = "tokio")]
fn tokio_client_reads_writes_and_selects() {
    let text = says("tokio_client");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "GET through a tunnel: HTTP/1.1 200 OK");
    assert_eq!(
        lines[1],
        "GET through a forwarded port: 59 bytes there, 62 back"
    );
    assert!(lines[2].starts_with("datagrams: "), "{text}");
    assert_eq!(lines[3..], ["tunnel: closed by this side"]);
}

#[test]
#[cfg(feature = "tokio")]
fn embed_hyper_has_pages_and_tunnels() {
    let mut lines = vec!["GET: a page of hyper's".to_owned()];
    for carrier in ["h2", "h1"] {
        lines.push(format!("{carrier}: UDP says ping"));
        for form in ["Capsules", "Raw", "Classic"] {
            lines.push(format!("{carrier}: TCP, {form}, says ping"));
        }
    }
    assert_eq!(says("embed_hyper").lines().collect::<Vec<_>>(), lines);
}

#[test]
#[cfg(feature = "tokio")]
fn embed_h3_has_what_h3_allows() {
    assert_eq!(
        says("embed_h3").lines().collect::<Vec<_>>(),
        [
            "UDP in capsules says ping",
            "TCP by classic CONNECT says ping",
            "TCP by connect-tcp: protocol error, as h3 does not know it",
        ]
    );
}

/// A program that nobody runs here would rot.
#[test]
fn every_program_has_a_test() {
    let tests = include_str!("examples.rs");
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".rs").unwrap();
        assert!(tests.contains(&format!("says(\"{name}\")")), "{name}");
    }
}
