//! Starting the program, and looking at what it says and what it leaves behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a busy machine before its test fails.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long to leave the processor to others between two looks at something.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A short run.
pub(crate) const SHORT: [&str; 4] = ["--duration", "300ms", "--warm-up", "100ms"];

#[expect(clippy::disallowed_methods, reason = "tests run in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Looks until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !is_so() {
        assert!(now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::park_timeout(LOOK_AGAIN);
    }
}

/// The program, ready for arguments, in a process group of its own.
pub(crate) fn loadgen<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(arguments);
    command
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Finished {
    Program::start(loadgen(arguments)).finish()
}

/// A short run with `--json`, whose result has the shape of every result.
#[track_caller]
pub(crate) fn measured(arguments: &[&str]) -> Value {
    let arguments = arguments.iter().chain(&SHORT).chain(&["--json"]);
    let result = run(arguments).json();
    assert_shape(&result);
    result
}

/// Runs a sweep with a short run at each rate. A busy machine may not keep up with the first of them; then it is tried
/// again.
#[track_caller]
pub(crate) fn swept(arguments: &[&str]) -> Finished {
    let mut swept = None;
    until("a rate that is kept up with", || {
        let arguments = ["sweep"].iter().chain(arguments).chain(&SHORT);
        let finished = run(arguments);
        let too_fast = finished.stderr.contains("too many already");
        swept = Some(finished);
        !too_fast
    });
    swept.unwrap()
}

/// A running program, killed when dropped.
pub(crate) struct Program {
    child: Child,
    /// A relay ends with it.
    _stdin: Option<ChildStdin>,
    lines: Receiver<(Stream, String)>,
    seen: Vec<(Stream, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// What is left of a program.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// What it printed: one JSON object and nothing else.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.object()
    }

    /// The same, whatever the exit code.
    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:#?}");
        let value: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(value.is_object(), "{self:#?}");
        value
    }

    /// Asserts that it failed with `code`, printed no result, and said all of `texts` in its error.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        let errors = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        let errors: Vec<_> = errors.collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        for text in texts {
            assert!(errors[0].contains(text), "{text:?} is not in {self:#?}");
        }
    }
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let readers: [(Stream, Box<dyn BufRead + Send>); 2] = [
            (Stream::Stdout, Box::new(stdout)),
            (Stream::Stderr, Box::new(stderr)),
        ];
        for (stream, reader) in readers {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in reader.lines().map_while(Result::ok) {
                    // Nobody listens any more once the test is over.
                    drop(sender.send((stream, line)));
                }
            });
        }
        Self {
            _stdin: child.stdin.take(),
            child,
            lines,
            seen: Vec::new(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with `text` in it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.duration_since(now())) {
                Ok((stream, line)) => {
                    self.seen.push((stream, line.clone()));
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no {text:?}: {error}; it said {:#?}", self.seen),
            }
        }
    }

    /// Waits until it measures: the progress line comes with the first second.
    #[track_caller]
    pub(crate) fn wait_until_measuring(&mut self) {
        self.wait_for(" s  ");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let deadline = now() + PATIENCE;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(now()))
        {
            self.seen.push(line);
        }
        assert!(now() < deadline, "it does not end: {:#?}", self.seen);
        let status = self.child.wait().unwrap();
        let all = |wanted| {
            let lines = self.seen.iter().filter(|(stream, _)| *stream == wanted);
            lines.map(|(_, line)| format!("{line}\n")).collect()
        };
        Finished {
            code: status.code(),
            stdout: all(Stream::Stdout),
            stderr: all(Stream::Stderr),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has ended cannot be killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A relay that runs already, as far as a measuring program knows.
pub(crate) struct Relay {
    program: Program,
    pub(crate) url: String,
    authority: TempDir,
}

impl Relay {
    pub(crate) fn start(settings: &[&str]) -> Self {
        let settings = settings.iter().flat_map(|line| ["--set", line]);
        let arguments = ["relay", "--role", "relay"].into_iter().chain(settings);
        let mut program = Program::start(loadgen(arguments));
        let hello: Value = serde_json::from_str(&program.wait_for("address")).unwrap();
        let authority = tempfile::tempdir().unwrap();
        let pem = hello["ca"].as_str().unwrap();
        fs::write(authority.path().join("ca.pem"), pem).unwrap();
        Self {
            program,
            url: format!("https://{}", hello["address"].as_str().unwrap()),
            authority,
        }
    }

    pub(crate) fn pid(&self) -> String {
        self.program.pid().to_string()
    }

    /// Its authority as a file.
    pub(crate) fn ca(&self) -> String {
        let path = self.authority.path().join("ca.pem");
        path.to_str().unwrap().to_owned()
    }
}

/// State and parent of a process, if there is one.
fn status(pid: u32) -> Option<(char, u32)> {
    let mut text = String::new();
    let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    file.read_to_string(&mut text).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The processes that `pid` has started and that have not ended.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse().ok());
    pids.filter(|child| status(*child).is_some_and(|(_, parent)| parent == pid))
        .filter(|child| is_running(*child))
        .collect()
}

/// Whether a process has not ended. One that nobody has asked how it ended counts as ended.
pub(crate) fn is_running(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Sends a signal by its name, such as INT; to a whole group if the number is negative.
#[track_caller]
pub(crate) fn signal(name: &str, pid: i64) {
    // The shell's own kill is there where no package with a program of that name is.
    let script = "kill -s \"$0\" -- \"$1\"";
    let sent = Command::new("sh")
        .args(["-c", script, name, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success(), "no signal {name} to {pid}");
}

/// Asserts that a result has every field that a result promises, with a value of its kind.
#[track_caller]
pub(crate) fn assert_shape(result: &Value) {
    let object = result.as_object().unwrap();
    for key in ["topology", "workload", "carrier", "saturated"] {
        assert!(
            object[key].as_str().is_some_and(|text| !text.is_empty()),
            "{key}: {result}"
        );
    }
    for key in [
        "payload_bytes",
        "tunnels",
        "connections",
        "duration_s",
        "offered_pps",
        "delivered_pps",
        "gbit_per_s",
    ] {
        assert!(number(result, key) > 0.0, "{key}: {result}");
    }
    assert!((0.0..=1.0).contains(&number(result, "loss")), "{result}");
    let mut below = 0.0;
    for key in ["p50", "p90", "p99", "p999", "max"] {
        let quantile = number(&result["rtt_us"], key);
        assert!(quantile > 0.0 && quantile >= below, "{key}: {result}");
        below = quantile;
    }
    for relay in result["relays"].as_array().unwrap() {
        assert!(relay["role"].is_string(), "{result}");
        for key in ["cpu_us_per_datagram", "rss_bytes"] {
            assert!(number(relay, key) > 0.0, "{key}: {result}");
        }
        for key in ["segments_per_send", "segments_per_receive"] {
            assert!(number(relay, key) >= 0.0, "{key}: {result}");
        }
    }
}

#[track_caller]
pub(crate) fn number(value: &Value, key: &str) -> f64 {
    let number = value[key].as_f64();
    number.unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

/// The roles of the relays, client side first.
pub(crate) fn roles(result: &Value) -> Vec<&str> {
    let relays = result["relays"].as_array().unwrap();
    relays
        .iter()
        .map(|relay| relay["role"].as_str().unwrap())
        .collect()
}
