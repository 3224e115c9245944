//! What end-to-end tests share: the real program, relays with certificates, targets, and patience.
//!
//! ```text
//!   Client ── UDP ──► bauta udp ── QUIC ──► [Nat] ──► bauta relay … ── UDP ──► Target
//! ```
//!
//! Everything listens on loopback, on ports that the system picks, and dies with its test. Nothing waits for a time to
//! pass: every wait is for an event, and [`PATIENCE`] only bounds it.

#![allow(
    dead_code,
    reason = "each test crate uses its own part of what is here"
)]

pub(crate) mod network;
pub(crate) mod stream;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bauta::transport::tls::DevCa;
use tempfile::TempDir;

/// How long anything may take on a busy machine before its test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// An address that the certificates name besides those of the system's loopback.
pub(crate) const OTHER_IP: &str = "127.0.0.2";
/// Settings of a relay that may reach targets on this machine.
pub(crate) const LOCAL_TARGETS: &str = "[policy]\nallow = [\"127.0.0.0/8\"]\n";

#[expect(clippy::disallowed_methods, reason = "tests run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Tries until something comes of it; every attempt waits a little by itself.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(now() < deadline, "{what}: not within {PATIENCE:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Stdout,
    Stderr,
}

/// A running `bauta`, killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<(From, String)>,
    seen: Vec<(From, String)>,
}

/// What is left of a program.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

/// The program, ready for arguments.
pub(crate) fn bauta<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bauta"));
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("MONOIO_FORCE_LEGACY_DRIVER")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Finished {
    Program::start(bauta(arguments)).finish()
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        read_lines(From::Stdout, child.stdout.take().unwrap(), sender.clone());
        read_lines(From::Stderr, child.stderr.take().unwrap(), sender);
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// The first line, past or future, of either output from which `pick` takes something.
    #[track_caller]
    pub(crate) fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        if let Some(value) = self.seen.iter().find_map(|(_, line)| pick(line)) {
            return value;
        }
        let deadline = now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.duration_since(now())) {
                Ok((from, line)) => {
                    let value = pick(&line);
                    self.seen.push((from, line));
                    if let Some(value) = value {
                        return value;
                    }
                }
                Err(error) => panic!("{what}: {error}; the program said {:#?}", self.seen),
            }
        }
    }

    /// Waits for a line with `text` in it.
    #[track_caller]
    pub(crate) fn wait_for_text(&mut self, text: &str) -> String {
        self.wait_for(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// The address of the first `listening on ADDRESS`.
    #[track_caller]
    pub(crate) fn address(&mut self) -> SocketAddr {
        self.wait_for("listening on", |line| {
            line.strip_prefix("listening on ")?.parse().ok()
        })
    }

    /// Whether `text` was printed so far.
    pub(crate) fn said(&mut self, text: &str) -> bool {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().any(|(_, line)| line.contains(text))
    }

    /// Sends a signal by its name: TERM, INT, STOP, CONT.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own kill is there where no package with a program of that name is.
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name])
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success(), "no signal {name}: {sent}");
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let deadline = now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.duration_since(now())) {
                Ok(line) => self.seen.push(line),
                // Both outputs are closed.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it does not end; the program said {:#?}", self.seen)
                }
            }
        }
        let status = self.child.wait().unwrap();
        let lines = |wanted| {
            let lines = self.seen.iter().filter(|(from, _)| *from == wanted);
            lines.map(|(_, line)| line.clone()).collect()
        };
        Finished {
            status,
            stdout: lines(From::Stdout),
            stderr: lines(From::Stderr),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that ended by itself cannot be killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_lines(from: From, output: impl Read + Send + 'static, lines: Sender<(From, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send((from, line)).is_err() {
                break;
            }
        }
    });
}

impl Finished {
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// Asserts that the program failed with `code` and one line that says why, and returns that line.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> &str {
        self.assert_code(code);
        let errors: Vec<&str> = self
            .stderr
            .iter()
            .filter_map(|line| line.strip_prefix("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        errors[0]
    }

    /// The counters of the one summary line that a relay prints at its end.
    #[track_caller]
    pub(crate) fn summary(&self) -> HashMap<String, String> {
        let mut lines = self
            .stdout
            .iter()
            .filter_map(|line| line.strip_prefix("summary "));
        let (summary, second) = (lines.next(), lines.next());
        assert!(summary.is_some() && second.is_none(), "{self:#?}");
        let pairs = summary.unwrap_or_default().split(' ');
        pairs
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap();
                (key.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// One counter of the summary.
    #[track_caller]
    pub(crate) fn count(&self, key: &str) -> u64 {
        self.summary()[key].parse().unwrap()
    }
}

/// A directory with a certificate authority, and a certificate and a key for this machine.
pub(crate) struct Site {
    directory: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates are dated by the wall clock"
        )]
        let ca = DevCa::new(&[OTHER_IP], SystemTime::now()).unwrap();
        let site = Self { directory };
        site.write("ca.pem", &ca.ca_pem);
        site.write("chain.pem", &ca.chain_pem);
        site.write("key.pem", &ca.key_pem);
        site
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a configuration of `settings` with a listener on `address`, and names it on the command line.
    pub(crate) fn relay_command(&self, name: &str, address: SocketAddr, settings: &str) -> Command {
        let text = format!("pin = false\n{settings}\n{}", listener(address));
        let config = self.write(&format!("{name}.toml"), &text);
        let mut command = bauta(["relay", "--config"]);
        command.arg(config);
        command
    }

    /// Starts a relay and waits until it listens.
    #[track_caller]
    pub(crate) fn relay(&self, name: &str, settings: &str) -> Relay {
        let mut program = Program::start(self.relay_command(name, any_port(), settings));
        let address = program.address();
        Relay { program, address }
    }

    /// A relay in front of `next` that opens every tunnel there. A busy machine is no reason for a second carrier, here
    /// and below: it would be one more tunnel to count.
    #[track_caller]
    pub(crate) fn ingress(&self, next: &Relay, settings: &str) -> Relay {
        let upstream = format!(
            "[upstream]\nurls = [\"{}\"]\nca = \"ca.pem\"\nhead_starts = [\"10s\", \"10s\"]\n",
            next.url()
        );
        self.relay("ingress", &format!("{settings}{upstream}"))
    }

    /// The command line of a forwarder that believes this site's authority.
    pub(crate) fn udp_command(&self, via: &[String], target: impl Display) -> Command {
        let mut command = bauta(["udp", "--listen", "127.0.0.1:0", "--ca"]);
        command.arg(self.directory.path().join("ca.pem"));
        command.args(["--head-start", "10s,10s"]);
        command.args(["--target", &target.to_string()]);
        command.args(via.iter().flat_map(|url| ["--via", url]));
        command
    }

    /// Starts a forwarder and waits until its first tunnel is open.
    #[track_caller]
    pub(crate) fn udp(&self, via: &[String], target: impl Display) -> Forwarder {
        let mut program = Program::start(self.udp_command(via, target));
        let address = program.address();
        Forwarder { program, address }
    }

    /// Starts a forwarder for TCP and waits until it listens. `extra` are further arguments.
    #[track_caller]
    pub(crate) fn tcp(&self, via: &[String], target: impl Display, extra: &[&str]) -> Forwarder {
        let target = target.to_string();
        self.client(&["tcp", "--target", &target], via, extra)
    }

    /// Starts a local proxy and waits until it listens. `extra` are further arguments.
    #[track_caller]
    pub(crate) fn proxy(&self, via: &[String], extra: &[&str]) -> Forwarder {
        self.client(&["proxy"], via, extra)
    }

    #[track_caller]
    fn client(&self, command: &[&str], via: &[String], extra: &[&str]) -> Forwarder {
        let mut command = bauta(command);
        command.args(["--listen", "127.0.0.1:0", "--ca"]);
        command.arg(self.directory.path().join("ca.pem"));
        command.args(via.iter().flat_map(|url| ["--via", url]));
        command.args(extra);
        let mut program = Program::start(command);
        let address = program.address();
        Forwarder { program, address }
    }

    /// Runs a forwarder whose tunnel is refused; the reason.
    #[track_caller]
    pub(crate) fn udp_refused(&self, via: &[String], target: impl Display) -> String {
        let finished = Program::start(self.udp_command(via, target)).finish();
        finished.error(1).to_owned()
    }
}

/// A running `bauta relay`.
pub(crate) struct Relay {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
}

impl Relay {
    pub(crate) fn url(&self) -> String {
        url(self.address)
    }

    /// Ends the relay with two signals and returns what it said.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Finished {
        self.program.signal("TERM");
        self.program.wait_for_text("draining");
        self.program.signal("TERM");
        self.program.finish()
    }
}

/// A running `bauta udp`, `tcp` or `proxy`.
pub(crate) struct Forwarder {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
}

/// A listener with the site's certificate, as part of a configuration.
pub(crate) fn listener(address: impl Display) -> String {
    format!("[[listen]]\naddress = \"{address}\"\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n")
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
