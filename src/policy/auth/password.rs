//! Passwords behind Argon2id (RFC 9106), as PHC strings: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use super::{CheckKey, User};

/// Bytes of a salt.
pub const SALT_LEN: usize = 16;
/// KiB that one check of a password may use.
pub(super) const MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Passes over that memory.
pub(super) const PASSES_MAX: u32 = 16;

/// A password could not be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password cannot be hashed: it is too long, or memory ran out")]
pub struct HashError;

/// The PHC string of a password: Argon2id with 19 MiB and two passes, some tens of milliseconds of one core.
///
/// # Errors
/// [`HashError`], when Argon2 refuses.
pub fn hash_password(password: &[u8], salt: &[u8; SALT_LEN]) -> Result<String, HashError> {
    let salt = SaltString::encode_b64(salt).map_err(|_| HashError)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    let hash = argon2.hash_password(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|_| HashError)
}

/// Whether text is a hash that [`Job::run`] can work with, within its bounds.
pub(super) fn is_hash(text: &str) -> bool {
    let Ok(hash) = PasswordHash::new(text) else {
        return false;
    };
    let bounded = |params: Params| {
        params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX && params.p_cost() <= 16
    };
    hash.algorithm == Algorithm::Argon2id.ident()
        && hash.salt.is_some()
        && hash.hash.is_some()
        && Params::try_from(&hash).is_ok_and(bounded)
}

/// The check of one password: tens of milliseconds and some 20 MiB, so not for a worker.
pub struct Job {
    key: CheckKey,
    user: Option<User>,
    hash: Arc<str>,
    password: Box<[u8]>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// What came out of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The key of the job.
    pub key: CheckKey,
    /// Who it is, if the password was right.
    pub user: Option<User>,
}

impl Job {
    pub(super) fn new(
        key: CheckKey,
        user: Option<User>,
        hash: Arc<str>,
        password: Box<[u8]>,
    ) -> Self {
        Self {
            key,
            user,
            hash,
            password,
        }
    }

    /// What the verdict will carry.
    #[must_use]
    pub const fn key(&self) -> CheckKey {
        self.key
    }

    /// Does the work.
    #[must_use]
    pub fn run(self) -> Verdict {
        let Self {
            key,
            user,
            hash,
            password,
        } = self;
        // The parameters are those of the hash. A stranger's work is done before it is thrown away.
        let is_right = PasswordHash::new(&hash)
            .and_then(|hash| Argon2::default().verify_password(&password, &hash))
            .is_ok();
        Verdict {
            key,
            user: user.filter(|_| is_right),
        }
    }
}

/// The least that Argon2 does, for tests in debug builds.
#[cfg(test)]
pub(crate) fn cheap_hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).expect("the smallest parameters");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = SaltString::encode_b64(&[7; SALT_LEN]).expect("a salt");
    let hash = argon2.hash_password(password.as_bytes(), &salt);
    hash.expect("a hash").to_string()
}
