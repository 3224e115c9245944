//! The example configurations and the exit codes of `bauta relay --check`, with the real binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use bauta::transport::tls::DevCa;
use tempfile::TempDir;

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
