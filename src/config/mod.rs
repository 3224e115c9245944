//! The relay's configuration: a TOML file in, values that cannot be wrong out.
//!
//! ```text
//!  text ──► toml::Table ──► reader (key by key) ──► relay::File ──► check ──► Checked
//!               │                  │                                  │
//!             syntax         unknown keys, types               bounds, relations
//!               └─────────── LoadError: everything that is wrong, in one go
//! ```
//!
//! Each problem names the full key, the value and the bound, and reading goes on after a problem, so that one run of
//! `bauta relay --check` shows all of them.
//!
//! Invariants: code behind [`Checked`] never meets a value outside its bounds; every bound on what peers can use up is
//! a [`limits::Limit`] with a metric; the environment (cores, random names, directories) comes in as [`Environment`].
//!
//! Deliberately not here: opening certificates (`transport::tls`), the meaning of policy rules (a function in
//! [`Environment`] judges them), reloading.

mod check;
mod checked;
mod duration;
mod head_starts;
mod header;
pub mod limits;
mod memory;
mod reader;
mod relay;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub use checked::{
    AuthFiles, Certificate, Checked, Dns, Ip, IpSite, Limits, Listener, PolicyText, Quic, Tcp,
    Timeouts, Upstream,
};
pub use head_starts::HeadStarts;
pub use header::{HeaderError, parse_header};
pub use memory::{Bytes, MemoryTerm, worst_case_memory};
pub use relay::{Congestion, Io, LogLevel, Nat, Offload, Service, Steering};

/// What a rule of `policy.allow` or `policy.deny` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Addresses, or everything.
    Addresses,
    /// Names, which packets do not show.
    Names,
}

/// Says what a rule is about, or what is wrong with it: its meaning belongs to another layer.
pub type Judge = fn(&str) -> Result<RuleKind, String>;

/// What the configuration needs to know about the process that reads it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Relative paths in the file start here: the directory of the file.
    pub directory: PathBuf,
    /// Number of usable cores, the meaning of `workers = 0`.
    pub cores: NonZeroUsize,
    /// Pseudonym used when the file gives none; a random suffix keeps two relays apart in `Via`.
    pub name: String,
    /// In development mode, the address to listen on when the file names none. Certificates are then optional.
    pub dev_listen: Option<SocketAddr>,
    /// Judges one rule of `policy.allow` and `policy.deny`.
    pub rule: Judge,
}

impl Environment {
    /// An environment for `directory` that accepts every policy rule that is not blank.
    pub fn new(
        directory: impl Into<PathBuf>,
        cores: NonZeroUsize,
        name: impl Into<String>,
    ) -> Self {
        fn not_blank(text: &str) -> Result<RuleKind, String> {
            if text.trim().is_empty() {
                Err("must not be blank".to_owned())
            } else {
                Ok(RuleKind::Addresses)
            }
        }
        Self {
            directory: directory.into(),
            cores,
            name: name.into(),
            dev_listen: None,
            rule: not_blank,
        }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// When the file cannot be read, is not TOML, or holds keys and values that are not accepted (all of them).
pub fn load(path: &Path, environment: &Environment) -> Result<Checked, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, environment)
}

/// Checks a configuration given as text. The empty text is a full configuration in development mode.
///
/// # Errors
/// As [`load`], without the reading.
pub fn parse(text: &str, environment: &Environment) -> Result<Checked, LoadError> {
    let table = text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| {
            text.bytes()
                .take(span.start)
                .filter(|b| *b == b'\n')
                .count()
                + 1
        });
        LoadError::Syntax {
            line,
            message: error.message().to_owned(),
        }
    })?;
    let mut problems = Problems::default();
    let file = relay::File::read(table, &mut problems);
    let checked = check::check(file, environment, &mut problems);
    if problems.list.is_empty() {
        Ok(checked)
    } else {
        Err(LoadError::Invalid(problems.list))
    }
}

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The text is not TOML; nothing behind this place could be judged.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line of the problem, from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// Keys or values are wrong: all of them, in the order of the file format.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong: `listen[0].address: "x": not an address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full key, with the index of the table where there are several.
    pub key: String,
    /// The value as TOML; `None` when the key is missing or the value may be a secret.
    pub value: Option<String>,
    /// What is wrong, with the bound.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value}: {}", self.key, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}

/// Collects problems; the first one about a key is the one worth reading.
#[derive(Debug, Default)]
struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Records a problem with a value that may be shown.
    fn value(
        &mut self,
        key: impl Into<String>,
        value: impl fmt::Display,
        message: impl Into<String>,
    ) {
        self.push(Problem {
            key: key.into(),
            value: Some(value.to_string()),
            message: message.into(),
        });
    }

    /// Records a problem without a value: it is missing, or it may be a secret.
    fn key(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.push(Problem {
            key: key.into(),
            value: None,
            message: message.into(),
        });
    }

    fn push(&mut self, problem: Problem) {
        if !self.list.iter().any(|known| known.key == problem.key) {
            self.list.push(problem);
        }
    }
}
