//! Child processes as their parent sees them, and what the operating system says about any process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::child::{Counters, Hello, RelayChild, settings};

/// A child, ended with its value.
pub(crate) struct Process {
    role: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) hello: Hello,
}

impl Process {
    /// Starts a relay.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong line of configuration; of anything else that keeps it from starting the child has
    /// said on stderr what it is.
    pub(crate) fn relay(arguments: &RelayChild) -> io::Result<Self> {
        settings(&arguments.role, arguments.workers, true, &arguments.set)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay").args(["--role", &arguments.role]);
        command.args(["--workers", &arguments.workers.to_string()]);
        if let Some(core) = arguments.core {
            command.args(["--core", &core.to_string()]);
        }
        if let (Some(via), Some(ca)) = (&arguments.via, &arguments.ca) {
            command.arg("--via").arg(via).arg("--ca").arg(ca);
            command.args(["--carrier", arguments.carrier.as_str()]);
        }
        for line in &arguments.set {
            command.arg("--set").arg(line);
        }
        Self::start(command, &arguments.role)
    }

    /// Starts a forwarder of UDP, or of TCP, to `target`.
    ///
    /// # Errors
    /// As [`Process::relay`].
    pub(crate) fn forwarder(
        target: SocketAddr,
        tcp: bool,
        core: Option<usize>,
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["forwarder", "--target", &target.to_string()]);
        if tcp {
            command.arg("--tcp");
        }
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        Self::start(command, "forwarder")
    }

    fn start(mut command: Command, role: &str) -> io::Result<Self> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn()?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        if output.read_line(&mut line)? == 0 {
            let status = child.wait()?;
            return Err(io::Error::other(format!(
                "the process of the {role} did not start: {status}"
            )));
        }
        Ok(Self {
            role: role.to_owned(),
            child,
            input,
            output,
            hello: serde_json::from_str(&line)?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has counted so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn counters(&mut self) -> io::Result<Counters> {
        let role = &self.role;
        let gone = || {
            io::Error::other(format!(
                "the process of the {role} ended in the middle of the run"
            ))
        };
        let input = self.input.as_mut().ok_or_else(gone)?;
        input.write_all(b"\n").map_err(|_| gone())?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(gone());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed, not asked: it may hang.
        self.input = None;
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// CPU time of all threads of a process, by the scheduler.
///
/// # Errors
/// No such process, or not ours to look at.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut times = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two calls.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split_whitespace().next();
        times.extend(
            first
                .and_then(|ns| ns.parse().ok())
                .map(Duration::from_nanos),
        );
    }
    if times.is_empty() {
        let text = format!("/proc/{pid}/task: no schedstat to read, so no CPU time");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(times.into_iter().sum())
}

/// CPU time of this process, threads that have ended included, in steps of ten milliseconds.
///
/// # Errors
/// The system does not say.
pub(crate) fn own_cpu_time() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may contain anything. Behind it: utime is the twelfth field, stime the next.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
    let ticks = fields.map(|fields| fields.skip(11).take(2).map(str::parse::<u64>));
    let ticks = ticks.and_then(|ticks| ticks.sum::<Result<u64, _>>().ok());
    Ok(Duration::from_millis(
        ticks.ok_or(io::ErrorKind::InvalidData)? * 10,
    ))
}

/// Resident memory of a process.
///
/// # Errors
/// As [`cpu_time`].
pub(crate) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
}

/// UDP error counters of this network namespace, by the kernel's names; IPv6 ones carry a `6`.
pub(crate) fn kernel_drops() -> BTreeMap<String, u64> {
    let mut drops = BTreeMap::new();
    if let Ok(text) = fs::read_to_string("/proc/net/snmp") {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            for (name, value) in names.split(' ').zip(values.split(' ')) {
                note(&mut drops, name, value);
            }
        }
    }
    if let Ok(text) = fs::read_to_string("/proc/net/snmp6") {
        for line in text.lines().filter_map(|line| line.strip_prefix("Udp6")) {
            if let Some((name, value)) = line.split_once(char::is_whitespace) {
                note(&mut drops, &format!("{name}6"), value.trim());
            }
        }
    }
    drops
}

fn note(drops: &mut BTreeMap<String, u64>, name: &str, value: &str) {
    if name.contains("Errors")
        && let Ok(value) = value.parse()
    {
        drops.insert(name.to_owned(), value);
    }
}

/// Time of all cores since the system started, in the kernel's ticks: in all, and what the host of a virtual machine
/// gave to others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ticks {
    total: u64,
    stolen: u64,
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first
            .split_whitespace()
            .filter_map(|tick| tick.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; the two behind are contained in the first two.
        Self {
            total: ticks.iter().take(8).sum(),
            stolen: ticks.get(7).copied().unwrap_or(0),
        }
    }

    /// Share of the time from `earlier` on that was stolen, 0 to 1.
    pub(crate) fn stolen_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        self.stolen.saturating_sub(earlier.stolen) as f64 / (total.max(1) as f64)
    }
}

/// What `after` has more than `before`, without what did not change.
pub(crate) fn difference(after: &Counters, before: &Counters) -> Counters {
    let grown = |(name, value): (&String, &u64)| {
        let more = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        (more > 0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(grown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        let pid = std::process::id();
        assert!(rss_bytes(pid).unwrap() > 100_000);
        let before = cpu_time(pid).unwrap();
        let mut state = 1u64;
        while cpu_time(pid).unwrap() == before {
            state = std::hint::black_box(state.wrapping_mul(3));
        }
        assert!(cpu_time(u32::MAX).is_err());
        assert!(kernel_drops().contains_key("RcvbufErrors"));
    }

    #[test]
    fn differences_name_what_grew() {
        let counters = |list: &[(&str, u64)]| -> Counters {
            list.iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect()
        };
        let before = counters(&[("a", 1), ("b", 2)]);
        let after = counters(&[("a", 1), ("b", 5), ("c", 1)]);
        assert_eq!(difference(&after, &before), counters(&[("b", 3), ("c", 1)]));
    }
}
