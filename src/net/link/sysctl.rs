//! Settings of the kernel under /proc/sys.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::LinkError;

const ROOT: &str = "/proc/sys";

/// Whether packets are passed on between interfaces, by IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// `net.ipv4.ip_forward`.
    V4,
    /// `net.ipv6.conf.all.forwarding`. While it is on, the machine takes no default route from router advertisements
    /// unless `accept_ra` is 2.
    V6,
}

impl Forwarding {
    /// The setting, below /proc/sys.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::V4 => "net/ipv4/ip_forward",
            Self::V6 => "net/ipv6/conf/all/forwarding",
        }
    }
}

/// Whether the kernel passes packets on.
///
/// # Errors
/// [`LinkError::NotForwarding`] if not; [`LinkError::File`] when the setting cannot be read.
pub fn forwards(forwarding: Forwarding) -> Result<(), LinkError> {
    match &*read(forwarding.key())? {
        "0" => Err(LinkError::NotForwarding {
            path: path(forwarding.key()),
        }),
        _ => Ok(()),
    }
}

pub(super) fn read(key: &str) -> Result<String, LinkError> {
    let path = path(key);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(LinkError::File { path, source }),
    }
}

pub(super) fn write(key: &str, value: &str) -> Result<(), LinkError> {
    let path = path(key);
    match std::fs::write(&path, value) {
        Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(LinkError::Privilege {
                doing: format!("writing {}", path.display()),
                capability: "CAP_NET_ADMIN",
            })
        }
        Err(source) => Err(LinkError::File { path, source }),
        Ok(()) => Ok(()),
    }
}

fn path(key: &str) -> PathBuf {
    Path::new(ROOT).join(key)
}
