//! The secrets that a configuration names: read once, at start, by the control thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::client::{Credentials, CredentialsError};
use crate::config::{AuthFiles, Checked};
use crate::net::random;
use crate::policy::auth::{Auth, AuthLimits, AuthOptions, FileError, Secrets};

/// Why the secrets cannot be used. Names files and lines, never what is in them.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("{}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which one and why.
        source: FileError,
    },
    /// A file has no secret in it: nobody could come in.
    #[error("{}: no secret in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The credentials for the next hop are wrong.
    #[error("{}: {source}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CredentialsError,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[source] io::Error),
}

/// Reads the files of `[auth]`.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn load(files: &AuthFiles) -> Result<Secrets, SecretsError> {
    let mut key = [0; 32];
    for half in key.chunks_exact_mut(16) {
        let words = random::words().map_err(SecretsError::Random)?;
        for (bytes, word) in half.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }
    let mut secrets = Secrets::new(&key);
    type Add = fn(&mut Secrets, &str) -> Result<usize, FileError>;
    let kinds: [(&Option<PathBuf>, Add); 2] = [
        (&files.tokens, Secrets::add_tokens),
        (&files.passwords, Secrets::add_passwords),
    ];
    for (path, add) in kinds {
        let Some(path) = path else { continue };
        let added = add(&mut secrets, &read(path)?).map_err(|source| SecretsError::Line {
            path: path.clone(),
            source,
        })?;
        if added == 0 {
            return Err(SecretsError::Empty { path: path.clone() });
        }
    }
    Ok(secrets)
}

/// Reads the credentials for the first hop, if there are any.
///
/// # Errors
/// The file cannot be read, or its first line is no credentials.
pub fn load_credentials(checked: &Checked) -> Result<Option<Credentials>, SecretsError> {
    let Some(path) = &checked.upstream.credentials else {
        return Ok(None);
    };
    let credentials = Credentials::from_file(&read(path)?);
    credentials
        .map(Some)
        .map_err(|source| SecretsError::Credentials {
            path: path.clone(),
            source,
        })
}

fn read(path: &Path) -> Result<String, SecretsError> {
    std::fs::read_to_string(path).map_err(|source| SecretsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The judgement of one worker.
pub fn auth(secrets: Arc<Secrets>, files: &AuthFiles, checked: &Checked) -> Auth {
    let options = AuthOptions {
        header: files.header.clone(),
        challenge: files.challenge,
        realm: files.realm.as_str().into(),
    };
    let limits = AuthLimits {
        checks_max: checked.limits.password_checks,
        verified_max: checked.limits.verified_passwords,
        lifetime: files.remember,
    };
    Auth::new(secrets, options, limits)
}
