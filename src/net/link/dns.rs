//! Name servers: told to systemd-resolved for one interface, or written to the file that everybody reads.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use super::error::LinkError;
use super::journal::ResolvConf;
use super::run::run;

const DOING: &str = "DNS";
/// The file of the C library.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Mode of the file where none was there.
const MODE: u32 = 0o644;
/// The directory of systemd-resolved, and the address where it answers.
const RESOLVED: &str = "/run/systemd/resolve";
const RESOLVED_STUB: &str = "127.0.0.53";

/// What is known about DNS behind an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkDns {
    /// The servers, the first one asked first.
    pub servers: Vec<IpAddr>,
    /// What is appended to short names.
    pub search: Vec<String>,
    /// The only names that the servers answer for; all if empty.
    pub internal: Vec<String>,
}

/// How the servers were made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsOutcome {
    /// systemd-resolved asks them for the names that they answer for.
    Resolved,
    /// The file with the name servers was replaced.
    ResolvConf,
    /// The same, and all names go to servers that answer only for some.
    ResolvConfForAll,
}

/// Whether systemd-resolved answers the questions of this system.
pub(super) fn has_resolved() -> bool {
    if !Path::new(RESOLVED).exists() {
        return false;
    }
    let points_there = fs::canonicalize(RESOLV_CONF).is_ok_and(|path| path.starts_with(RESOLVED));
    points_there || fs::read_to_string(RESOLV_CONF).is_ok_and(|text| text.contains(RESOLVED_STUB))
}

/// Tells systemd-resolved. What it knows about an interface goes with the interface.
pub(super) async fn tell_resolved(interface: &str, dns: &LinkDns) -> Result<(), LinkError> {
    let with = |verb: &str, rest: Vec<String>| {
        let mut arguments = vec![verb.to_owned(), interface.to_owned()];
        arguments.extend(rest);
        run("resolvectl", DOING, arguments, String::new())
    };
    with("dns", dns.servers.iter().map(ToString::to_string).collect()).await?;
    with("domain", domains(dns)).await
}

/// Makes systemd-resolved forget what it was told. It has forgotten what it knew of an interface that is gone.
pub(super) async fn revert_resolved(interface: &str) -> Result<(), LinkError> {
    if !has_resolved() || nix::net::if_::if_nametoindex(interface).is_err() {
        return Ok(());
    }
    let arguments = vec!["revert".to_owned(), interface.to_owned()];
    run("resolvectl", DOING, arguments, String::new()).await
}

/// A tilde leads names to the servers of the interface without being appended to short ones.
fn domains(dns: &LinkDns) -> Vec<String> {
    let search = dns.search.iter().cloned();
    let internal = dns.internal.iter().map(|domain| format!("~{domain}"));
    let all = dns.internal.is_empty().then(|| "~.".to_owned());
    search.chain(internal).chain(all).collect()
}

/// The text of a file with these servers, for the C library.
pub(super) fn resolv_conf(interface: &str, dns: &LinkDns) -> String {
    let mut text = format!(
        "# Written by bauta for {interface}. What was here before comes back when it ends.\n"
    );
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.search.is_empty() {
        text.push_str(&format!("search {}\n", dns.search.join(" ")));
    }
    text
}

/// What the file is now.
pub(super) fn current() -> Result<ResolvConf, LinkError> {
    let path = Path::new(RESOLV_CONF);
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ResolvConf::Absent),
        other => other.map_err(LinkError::file(path))?,
    };
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(LinkError::file(path))?;
        Ok(ResolvConf::Link(target))
    } else {
        let text = fs::read_to_string(path).map_err(LinkError::file(path))?;
        Ok(ResolvConf::Text(text))
    }
}

/// Puts a file there, a link or nothing.
pub(super) fn put(state: &ResolvConf) -> Result<(), LinkError> {
    let path = Path::new(RESOLV_CONF);
    let beside = PathBuf::from(format!("{RESOLV_CONF}.bauta"));
    // Left by a process that was killed at this very point.
    drop(fs::remove_file(&beside));
    match state {
        ResolvConf::Absent => fs::remove_file(path).map_err(LinkError::file(path)),
        ResolvConf::Link(target) => {
            symlink(target, &beside).map_err(LinkError::file(&beside))?;
            fs::rename(&beside, path).map_err(LinkError::file(path))
        }
        ResolvConf::Text(text) => {
            write_like(&beside, text, path).map_err(LinkError::file(&beside))?;
            match fs::rename(&beside, path) {
                // Containers mount the file, and what is mounted cannot be replaced.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    drop(fs::remove_file(&beside));
                    fs::write(path, text).map_err(LinkError::file(path))
                }
                outcome => outcome.map_err(LinkError::file(path)),
            }
        }
    }
}

/// Writes a new file with mode and owner of the one that it is to take the place of; in place of anything else it is
/// one that everybody reads.
fn write_like(new: &Path, text: &str, former: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(text.as_bytes())?;
    let mut mode = MODE;
    if let Ok(former) = fs::symlink_metadata(former)
        && former.is_file()
    {
        mode = former.mode() & 0o7777;
        let created = file.metadata()?;
        if (former.uid(), former.gid()) != (created.uid(), created.gid()) {
            fchown(&file, Some(former.uid()), Some(former.gid()))?;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Puts back what was there, unless somebody else has changed the file since.
pub(super) fn restore(before: &ResolvConf, ours: &str) -> Result<(), LinkError> {
    match current()? {
        ResolvConf::Text(text) if text == ours => put(before),
        ResolvConf::Text(_) | ResolvConf::Link(_) | ResolvConf::Absent => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let mut dns = LinkDns {
            servers: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            search: vec!["corp.example".to_owned(), "example".to_owned()],
            internal: Vec::new(),
        };
        assert_eq!(
            resolv_conf("tun0", &dns),
            "# Written by bauta for tun0. What was here before comes back when it ends.\n\
             nameserver 10.0.0.1\nnameserver fd00::1\nsearch corp.example example\n"
        );
        assert_eq!(domains(&dns), ["corp.example", "example", "~."]);
        dns.internal.push("lab.test".to_owned());
        assert_eq!(domains(&dns), ["corp.example", "example", "~lab.test"]);
        dns.search.clear();
        assert!(!resolv_conf("tun0", &dns).contains("search"));
    }
}
