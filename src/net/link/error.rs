//! What goes wrong when the system is changed, in words that say what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the system was not changed as asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The process lacks a capability.
    #[error(
        "{doing} needs the capability {capability}: run as root, or `setcap {}+ep` the program",
        capability.to_ascii_lowercase()
    )]
    Privilege {
        /// What was tried.
        doing: String,
        /// What it takes.
        capability: &'static str,
    },
    /// The kernel refuses a request.
    #[error("{doing}: {source}")]
    Refused {
        /// What was tried.
        doing: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel's answer was none that this request has.
    #[error("{doing}: {message}")]
    Netlink {
        /// What was tried.
        doing: String,
        /// What is odd about it.
        message: String,
    },
    /// There is no interface of that name.
    #[error("there is no interface {name}")]
    NoInterface {
        /// The name.
        name: String,
    },
    /// A program that does a part of the work is not installed.
    #[error("{program} is not installed, which {doing} needs")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// What it is for.
        doing: &'static str,
    },
    /// Such a program failed.
    #[error("{program}: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// The first line of what it says.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has an interface of that name in this network namespace.
    #[error("interface {interface} belongs to another process ({} is locked)", path.display())]
    Busy {
        /// The interface.
        interface: String,
        /// The journal of that process.
        path: PathBuf,
    },
    /// Another process has put its name servers there, and what was there before comes back when it ends.
    #[error(
        "/etc/resolv.conf has the name servers of bauta for {interface}, which still runs: end that one, or let one of \
         them leave the name servers alone (--no-dns)"
    )]
    DnsTaken {
        /// The interface of that process.
        interface: String,
    },
    /// The kernel does not pass packets on between interfaces.
    #[error(
        "{} is 0, so packets of clients go nowhere: set it to 1, or have it set: `forwarding = true` in [ip], \
         TunExit::forwarding in the library",
        path.display()
    )]
    NotForwarding {
        /// The setting.
        path: PathBuf,
    },
}

impl LinkError {
    /// An error of the kernel, which is about privilege when it says EPERM.
    pub(super) fn refused(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::Privilege {
                doing,
                capability: "CAP_NET_ADMIN",
            },
            Some(_) | None => Self::Refused { doing, source },
        }
    }

    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    /// The number of the kernel's error, if it is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::File { source, .. } => source.raw_os_error(),
            Self::Privilege { .. } => Some(libc::EPERM),
            Self::Netlink { .. } | Self::NoInterface { .. } | Self::NoProgram { .. } => None,
            Self::Program { .. } | Self::Busy { .. } => None,
            Self::DnsTaken { .. } | Self::NotForwarding { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_privilege_says_what_to_do() {
        let refused = |errno| {
            LinkError::refused("adding a route", io::Error::from_raw_os_error(errno)).to_string()
        };
        assert_eq!(
            refused(libc::EPERM),
            "adding a route needs the capability CAP_NET_ADMIN: run as root, or `setcap cap_net_admin+ep` the program"
        );
        assert!(refused(libc::EEXIST).starts_with("adding a route: File exists"));
    }
}
