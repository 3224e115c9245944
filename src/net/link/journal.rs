//! What has to be undone, in a file that outlives the process.
//!
//! ```text
//!   bauta0.4026531840.journal           one file for each interface and network namespace
//!     {"boot":"…","interface":"bauta0"}
//!     {"id":1,"change":{"route":{…}}}   appended before the change is made
//!     {"undone":1}                      appended when it is taken back
//! ```
//!
//! The process holds a lock on its file, which the kernel drops when the process ends, however it ends: a file without
//! lock is what a crash left. Lines are only appended, so that no moment is without a record; a last line that was cut
//! off was never acted upon.
//!
//! Deliberately absent: surviving a loss of power. Its directory is in memory, as almost all of the changes are.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::LinkError;
use super::netlink::HostRoute;
use super::sysctl::Forwarding;

/// Where journals are unless the environment says otherwise.
const DIRECTORY: &str = "/run/bauta";
/// Names the directory, for processes that may not write to the default one.
const DIRECTORY_VARIABLE: &str = "BAUTA_STATE_DIR";
const EXTENSION: &str = "journal";
/// Bytes of a journal that are read. A file above this is not one of ours.
const JOURNAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A change of the system that does not end with the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A route to a relay outside the tunnel.
    Route(HostRoute),
    /// A table of nftables.
    Nat {
        /// Its name, in family `inet`.
        table: String,
    },
    /// A setting of the kernel.
    Forwarding {
        /// The setting.
        setting: Forwarding,
        /// Its value before.
        before: String,
        /// Its value since.
        ours: String,
    },
    /// The file with the name servers.
    ResolvConf {
        /// What was there before.
        before: ResolvConf,
        /// The text since.
        ours: String,
    },
}

/// What the file with the name servers was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvConf {
    /// Not there.
    Absent,
    /// A file.
    Text(String),
    /// A symbolic link.
    Link(PathBuf),
}

/// The changes of one process that are not undone yet.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    interface: String,
    pending: Vec<(u64, Change)>,
    next_id: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Head { boot: String, interface: String },
    Made { id: u64, change: Change },
    Undone { undone: u64 },
}

/// The directory of journals: `$BAUTA_STATE_DIR`, else `/run/bauta`.
#[must_use]
pub fn state_directory() -> PathBuf {
    std::env::var_os(DIRECTORY_VARIABLE).map_or_else(|| DIRECTORY.into(), PathBuf::from)
}

impl Journal {
    /// The journal for `interface` in the network namespace of this thread; creates the directory too. What an older
    /// one holds that nobody undid is in it.
    ///
    /// # Errors
    /// [`LinkError::Busy`] when a living process has it; [`LinkError::File`] when it cannot be written.
    pub fn open(directory: &Path, interface: &str) -> Result<Self, LinkError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(LinkError::file(directory))?;
        let namespace = namespace()?;
        let path = directory.join(format!("{interface}.{namespace}.{EXTENSION}"));
        let busy = || LinkError::Busy {
            interface: interface.to_owned(),
            path: path.clone(),
        };
        let mut journal = Self::lock(&path)?.ok_or_else(busy)?;
        if journal.interface.is_empty() {
            interface.clone_into(&mut journal.interface);
            journal.append(&Line::Head {
                boot: boot(),
                interface: interface.to_owned(),
            })?;
        }
        Ok(journal)
    }

    /// Journals that processes left behind which are gone, of the network namespace of this thread.
    ///
    /// # Errors
    /// [`LinkError::File`] when the directory cannot be read. One that is not there holds none.
    pub fn abandoned(directory: &Path) -> Result<Vec<Self>, LinkError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LinkError::file(directory)(error)),
        };
        let ending = format!(".{}.{EXTENSION}", namespace()?);
        let mut journals = Vec::new();
        for entry in entries {
            let entry = entry.map_err(LinkError::file(directory))?;
            if entry.file_name().to_string_lossy().ends_with(&ending) {
                journals.extend(Self::lock(&entry.path())?);
            }
        }
        Ok(journals)
    }

    /// Opens and locks a file; `None` when somebody else has locked it.
    fn lock(path: &Path) -> Result<Option<Self>, LinkError> {
        loop {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true).mode(0o600);
            let file = options.open(path).map_err(LinkError::file(path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(LinkError::file(path)(error)),
            }
            // Between opening and locking, the former owner may have removed the file.
            let opened = file.metadata().map_err(LinkError::file(path))?;
            let is_there = fs::metadata(path).is_ok_and(|there| there.ino() == opened.ino());
            if is_there {
                return Self::read(path, file).map(Some);
            }
        }
    }

    fn read(path: &Path, file: File) -> Result<Self, LinkError> {
        let mut text = Vec::new();
        let mut limited = (&file).take(JOURNAL_BYTES_MAX);
        limited
            .read_to_end(&mut text)
            .map_err(LinkError::file(path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            interface: String::new(),
            pending: Vec::new(),
            next_id: 1,
        };
        let mut is_of_this_boot = true;
        for line in text.split(|b| *b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Head {
                    boot: then,
                    interface,
                }) => {
                    is_of_this_boot = then == boot();
                    journal.interface = interface;
                }
                Ok(Line::Made { id, change }) => {
                    journal.next_id = journal.next_id.max(id + 1);
                    // A boot undoes everything that is not a file.
                    if is_of_this_boot || matches!(change, Change::ResolvConf { .. }) {
                        journal.pending.push((id, change));
                    }
                }
                Ok(Line::Undone { undone }) => journal.pending.retain(|(id, _)| *id != undone),
                // The end of a process in the middle of a line.
                Err(_) => {}
            }
        }
        if text.last().is_some_and(|last| *last != b'\n') {
            journal.write(b"\n")?;
        }
        Ok(journal)
    }

    /// The interface that the changes were made for.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What is not undone, in the order in which it was made.
    #[must_use]
    pub fn pending(&self) -> &[(u64, Change)] {
        &self.pending
    }

    /// Writes down a change that is about to be made. The number stands for it in [`Journal::undone`].
    ///
    /// # Errors
    /// [`LinkError::File`]: the change must not be made then.
    pub fn record(&mut self, change: Change) -> Result<u64, LinkError> {
        let id = self.next_id;
        self.next_id += 1;
        self.append(&Line::Made {
            id,
            change: change.clone(),
        })?;
        self.pending.push((id, change));
        Ok(id)
    }

    /// Writes down that a change is no longer there.
    ///
    /// # Errors
    /// [`LinkError::File`]: it will be undone once more, which does no harm.
    pub fn undone(&mut self, id: u64) -> Result<(), LinkError> {
        self.pending.retain(|(other, _)| *other != id);
        self.append(&Line::Undone { undone: id })
    }

    /// Removes the file, when everything is undone.
    ///
    /// # Errors
    /// [`LinkError::File`] when it cannot be removed.
    pub fn close(self) -> Result<(), LinkError> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(LinkError::file(&self.path))
    }

    fn append(&mut self, line: &Line) -> Result<(), LinkError> {
        let mut text = serde_json::to_vec(line)
            .map_err(|error| LinkError::file(&self.path)(io::Error::other(error)))?;
        text.push(b'\n');
        self.write(&text)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        // One call for a line: a process that ends in between leaves whole lines.
        let mut file = &self.file;
        file.write_all(bytes).map_err(LinkError::file(&self.path))
    }
}

/// The number of this thread's network namespace. Two of them share the directory, but no routes.
fn namespace() -> Result<String, LinkError> {
    let path = "/proc/thread-self/ns/net";
    let link = fs::read_link(path).map_err(LinkError::file(path))?;
    let link = link.to_string_lossy();
    Ok(link.chars().filter(char::is_ascii_digit).collect())
}

/// What distinguishes this boot of the machine from all others; nothing where the kernel does not tell.
fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(table: &str) -> Change {
        Change::Nat {
            table: table.to_owned(),
        }
    }

    fn route() -> Change {
        Change::Route(HostRoute {
            destination: "192.0.2.1".parse().unwrap(),
            gateway: Some("192.0.2.254".parse().unwrap()),
            interface: 7,
        })
    }

    fn changes(journal: &Journal) -> Vec<Change> {
        let pending = journal.pending().iter();
        pending.map(|(_, change)| change.clone()).collect()
    }

    #[test]
    fn what_a_crash_leaves_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), "bauta0").unwrap();
        let first = journal.record(nat("a")).unwrap();
        journal.record(route()).unwrap();
        journal.record(nat("b")).unwrap();
        journal.undone(first).unwrap();
        assert!(Journal::abandoned(directory.path()).unwrap().is_empty());
        assert!(matches!(
            Journal::open(directory.path(), "bauta0"),
            Err(LinkError::Busy { .. })
        ));
        // The lock goes with the descriptor, as it does when a process ends.
        drop(journal);

        let left = Journal::abandoned(directory.path()).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].interface(), "bauta0");
        assert_eq!(changes(&left[0]), [route(), nat("b")]);
        drop(left);

        // Whoever takes the name takes what is left with it, and goes on counting.
        let mut again = Journal::open(directory.path(), "bauta0").unwrap();
        assert_eq!(changes(&again), [route(), nat("b")]);
        let ids: Vec<u64> = again.pending().iter().map(|(id, _)| *id).collect();
        let new = again.record(nat("c")).unwrap();
        assert!(!ids.contains(&new));
        for id in ids.into_iter().chain([new]) {
            again.undone(id).unwrap();
        }
        again.close().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_line_that_was_cut_off_never_happened() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), "t").unwrap();
        journal.record(nat("a")).unwrap();
        journal.record(nat("b")).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let mut journal = Journal::open(directory.path(), "t").unwrap();
            let before = changes(&journal);
            assert!([&[][..], &[nat("a")], &[nat("a"), nat("b")]].contains(&&*before));
            // What comes after it is read.
            journal.record(route()).unwrap();
            drop(journal);
            let journal = Journal::open(directory.path(), "t").unwrap();
            assert_eq!(changes(&journal).len(), before.len() + 1, "{len}");
        }
    }

    #[test]
    fn a_boot_undoes_all_but_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), "t").unwrap();
        let file = Change::ResolvConf {
            before: ResolvConf::Link("../run/resolv.conf".into()),
            ours: "nameserver 10.0.0.1\n".to_owned(),
        };
        journal.record(route()).unwrap();
        journal.record(file.clone()).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&boot(), "another")).unwrap();
        let left = Journal::abandoned(directory.path()).unwrap();
        assert_eq!(changes(&left[0]), [file]);
    }

    #[test]
    fn a_directory_that_is_not_there_holds_none() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a/b");
        assert!(Journal::abandoned(&inside).unwrap().is_empty());
        drop(Journal::open(&inside, "t").unwrap());
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);
    }
}
