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
//! off was never acted upon. A file that has become long is replaced by one with what is pending. Where processes look
//! at each other's journals, they lock the directory.
//!
//! Deliberately absent: surviving a loss of power. Its directory is in memory, as almost all of the changes are.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::error::LinkError;
use super::routes::HostRoute;
use super::sysctl::Forwarding;

/// Where journals are unless the environment says otherwise.
const DIRECTORY: &str = "/run/bauta";
/// Names the directory, for processes that may not write to the default one.
const DIRECTORY_VARIABLE: &str = "BAUTA_STATE_DIR";
const EXTENSION: &str = "journal";
/// Of a journal that is about to take the place of a longer one.
const EXTENSION_BESIDE: &str = "new";
/// Bytes above which a journal is written anew without what was undone: a relay that changes its mind all the time
/// does not fill the memory.
const REWRITE_BYTES_MIN: u64 = 1024 * 1024;
/// Bytes of a journal that are read. A file above this is not one of ours.
const JOURNAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A change of the system that does not end with the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An address of an interface.
    Address {
        /// Index of the interface.
        interface: u32,
        /// The address.
        address: IpNet,
    },
    /// Routes into an interface, however many.
    Routes {
        /// Index of the interface.
        interface: u32,
    },
    /// A route that leads nowhere.
    Unreachable {
        /// What cannot be reached.
        prefix: IpNet,
    },
    /// A route to a relay outside the tunnel.
    Route(HostRoute),
    /// A table of nftables.
    Nat {
        /// Its name, in family `inet`.
        table: String,
    },
    /// A setting of the kernel, which several processes may need.
    Forwarding {
        /// The setting.
        setting: Forwarding,
        /// Its value before the first of them.
        before: String,
        /// Its value since.
        ours: String,
    },
    /// What systemd-resolved knows about the interface of the journal.
    Resolved,
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
    /// Bytes of the file, and how many are too many.
    bytes: u64,
    bytes_max: u64,
}

/// What the journal of another process says.
#[derive(Debug)]
pub(super) enum Other {
    /// The process lives.
    Alive {
        interface: String,
        pending: Vec<Change>,
    },
    /// It is gone, and nobody has undone what it left.
    Left(Journal),
}

/// No other process looks at journals, or changes what several share, while this is held. Never across an await.
#[derive(Debug)]
pub(super) struct Guard {
    /// The lock goes with it.
    _directory: File,
}

/// What a file says.
#[derive(Default)]
struct Content {
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
        let _guard = Guard::take(directory)?;
        let namespace = namespace()?;
        let path = directory.join(format!("{interface}.{namespace}.{EXTENSION}"));
        let busy = || LinkError::Busy {
            interface: interface.to_owned(),
            path: path.clone(),
        };
        let mut journal = Self::lock(&path)?.ok_or_else(busy)?;
        interface.clone_into(&mut journal.interface);
        // What follows is of this boot, whatever is above.
        journal.append(&Line::Head {
            boot: boot(),
            interface: interface.to_owned(),
        })?;
        Ok(journal)
    }

    /// Journals that processes left behind which are gone, of the network namespace of this thread.
    ///
    /// # Errors
    /// [`LinkError::File`] when the directory cannot be read. One that is not there holds none.
    pub fn abandoned(directory: &Path) -> Result<Vec<Self>, LinkError> {
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let _guard = Guard::take(directory)?;
        let mut journals = Vec::new();
        for path in files(directory, &format!(".{}.{EXTENSION}", namespace()?))? {
            journals.extend(Self::lock(&path)?);
        }
        Ok(journals)
    }

    /// The same directory's journals of other processes in the network namespace of this thread.
    ///
    /// # Errors
    /// [`LinkError::File`] when one cannot be read.
    pub(super) fn others(&self, guard: &Guard) -> Result<Vec<Other>, LinkError> {
        self.others_with(&format!(".{}.{EXTENSION}", namespace()?), guard)
    }

    /// Those in other network namespaces too.
    ///
    /// # Errors
    /// [`LinkError::File`] when one cannot be read.
    pub(super) fn others_anywhere(&self, guard: &Guard) -> Result<Vec<Other>, LinkError> {
        self.others_with(&format!(".{EXTENSION}"), guard)
    }

    fn others_with(&self, ending: &str, _: &Guard) -> Result<Vec<Other>, LinkError> {
        let mut others = Vec::new();
        for path in files(self.directory(), ending)? {
            if path == self.path {
                continue;
            }
            if let Some(journal) = Self::lock(&path)? {
                others.push(Other::Left(journal));
                continue;
            }
            let file = File::open(&path).map_err(LinkError::file(&path))?;
            let (content, _) = Content::read(&path, &file)?;
            let pending = content.pending.into_iter().map(|(_, change)| change);
            others.push(Other::Alive {
                interface: content.interface,
                pending: pending.collect(),
            });
        }
        Ok(others)
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("."))
    }

    /// Makes the others wait.
    ///
    /// # Errors
    /// [`LinkError::File`] when the directory cannot be locked.
    pub(super) fn guard(&self) -> Result<Guard, LinkError> {
        Guard::take(self.directory())
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
        let (content, text) = Content::read(path, &file)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            interface: content.interface,
            pending: content.pending,
            next_id: content.next_id,
            bytes: text.len() as u64,
            bytes_max: REWRITE_BYTES_MIN,
        };
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
        let guard = self.guard()?;
        self.close_within(&guard)
    }

    /// The same for who has the others wait already.
    pub(super) fn close_within(self, _: &Guard) -> Result<(), LinkError> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(LinkError::file(&self.path))
    }

    fn append(&mut self, line: &Line) -> Result<(), LinkError> {
        let text = self.text(line)?;
        self.write(&text)?;
        if self.bytes > self.bytes_max {
            // What is there is good, only long.
            drop(self.rewrite());
            self.bytes_max = REWRITE_BYTES_MIN.max(2 * self.bytes);
        }
        Ok(())
    }

    fn text(&self, line: &Line) -> Result<Vec<u8>, LinkError> {
        let mut text = serde_json::to_vec(line)
            .map_err(|error| LinkError::file(&self.path)(io::Error::other(error)))?;
        text.push(b'\n');
        Ok(text)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        // One call for a line: a process that ends in between leaves whole lines.
        let mut file = &self.file;
        self.bytes += bytes.len() as u64;
        file.write_all(bytes).map_err(LinkError::file(&self.path))
    }

    /// Puts a file in place of this one that has only what is pending, locked before it is there.
    fn rewrite(&mut self) -> Result<(), LinkError> {
        let mut text = self.text(&Line::Head {
            boot: boot(),
            interface: self.interface.clone(),
        })?;
        for (id, change) in &self.pending {
            let (id, change) = (*id, change.clone());
            text.extend(self.text(&Line::Made { id, change })?);
        }
        let beside = self.path.with_extension(EXTENSION_BESIDE);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        // Left by a process that was killed at this very point.
        drop(fs::remove_file(&beside));
        let mut file = options.open(&beside).map_err(LinkError::file(&beside))?;
        let written = file.write_all(&text).and_then(|()| {
            file.try_lock().map_err(io::Error::from)?;
            fs::rename(&beside, &self.path)
        });
        if written.is_err() {
            drop(fs::remove_file(&beside));
        }
        written.map_err(LinkError::file(&beside))?;
        (self.file, self.bytes) = (file, text.len() as u64);
        Ok(())
    }
}

impl Guard {
    /// Waits for whoever has it, which is never for long; creates the directory too.
    fn take(directory: &Path) -> Result<Self, LinkError> {
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(directory);
        let locked = created.and_then(|()| {
            let file = File::open(directory)?;
            file.lock()?;
            Ok(Self { _directory: file })
        });
        locked.map_err(LinkError::file(directory))
    }
}

impl Content {
    /// Reads a journal; returns its bytes as well.
    fn read(path: &Path, file: &File) -> Result<(Self, Vec<u8>), LinkError> {
        let mut text = Vec::new();
        let mut limited = file.take(JOURNAL_BYTES_MAX);
        limited
            .read_to_end(&mut text)
            .map_err(LinkError::file(path))?;
        let mut content = Self {
            next_id: 1,
            ..Self::default()
        };
        let mut is_of_this_boot = true;
        for line in text.split(|b| *b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Head {
                    boot: then,
                    interface,
                }) => {
                    is_of_this_boot = then == boot();
                    content.interface = interface;
                }
                Ok(Line::Made { id, change }) => {
                    content.next_id = content.next_id.max(id + 1);
                    // A boot undoes everything that is not a file.
                    if is_of_this_boot || matches!(change, Change::ResolvConf { .. }) {
                        content.pending.push((id, change));
                    }
                }
                Ok(Line::Undone { undone }) => content.pending.retain(|(id, _)| *id != undone),
                // The end of a process in the middle of a line.
                Err(_) => {}
            }
        }
        Ok((content, text))
    }
}

/// The files of a directory whose names end so.
fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, LinkError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(LinkError::file(directory))? {
        let entry = entry.map_err(LinkError::file(directory))?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            files.push(entry.path());
        }
    }
    Ok(files)
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

    #[test]
    fn a_journal_does_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), "t").unwrap();
        journal.record(route()).unwrap();
        let text = "x".repeat(100_000);
        for _ in 0..100 {
            let id = journal.record(nat(&text)).unwrap();
            journal.undone(id).unwrap();
            assert!(fs::metadata(&journal.path).unwrap().len() < 2 * REWRITE_BYTES_MIN);
        }
        journal.record(nat("a")).unwrap();
        // It is as locked as before, and says the same.
        assert!(matches!(
            Journal::open(directory.path(), "t"),
            Err(LinkError::Busy { .. })
        ));
        drop(journal);
        let again = Journal::open(directory.path(), "t").unwrap();
        assert_eq!(changes(&again), [route(), nat("a")]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn processes_see_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let own = Journal::open(directory.path(), "own").unwrap();
        let mut other = Journal::open(directory.path(), "other").unwrap();
        other.record(nat("a")).unwrap();
        let guard = own.guard().unwrap();
        let others = own.others(&guard).unwrap();
        assert!(
            matches!(&others[..], [Other::Alive { interface, pending }]
                if interface == "other" && *pending == [nat("a")]),
            "{others:?}"
        );
        drop(other);
        let others = own.others_anywhere(&guard).unwrap();
        assert!(
            matches!(&others[..], [Other::Left(journal)] if changes(journal) == [nat("a")]),
            "{others:?}"
        );
    }
}
