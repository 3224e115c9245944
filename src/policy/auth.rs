//! Who may ask at all: credentials in a request, judged before anything is spent on it.
//!
//! ```text
//!   Authorization │ Proxy-Authorization │ a configured field
//!        │
//!        ├─ TOKEN, SCHEME TOKEN ─► keyed digest ─► table ──────────────────► Granted │ Denied
//!        └─ Basic user:password ─► keyed digest ─► verified before? ───────► Granted
//!                                                └► Verify(Job) ─► elsewhere: Argon2 ─► Verdict ─► handle_verdict
//! ```
//!
//! Invariants: secrets are compared as digests under a key that nobody outside of the process has, in constant time, so
//! that neither their bytes nor their lengths show in the time that a comparison takes. Argon2 never runs in here: a
//! [`Job`] is for a thread that may be busy for a while. There are at most [`AuthLimits::checks_max`] jobs at once, one
//! for all requests with the same password, and a name that does not exist costs the same work as one that does. What
//! is remembered is a digest, for [`AuthLimits::lifetime`]. Values are in no log line and in no error.
//!
//! No clock, no file, no random numbers: times, texts and the key come in as arguments. Whether 401 or 407 answers is
//! for `server`.

mod basic;
mod files;
pub(crate) mod password;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use ::http::{HeaderMap, HeaderName, HeaderValue};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

pub use self::files::{FileError, FileProblem, is_user_name};
pub use self::password::{HashError, Job, SALT_LEN, Verdict, hash_password};

/// The scheme of a token that names none (RFC 6750).
const BEARER: &str = "Bearer";
/// Fields of one kind in a request that are looked at: each costs a digest.
const VALUES_MAX: usize = 4;
/// Bytes of a digest.
const DIGEST_LEN: usize = 32;

/// The digest of a credential under the key of the process: fit for tables and comparisons, and says nothing itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CheckKey([u8; DIGEST_LEN]);

/// Who was granted access: the name next to the secret in its file, or `token#N` for the token that is the N-th there
/// and has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User(Arc<str>);

impl User {
    /// The name. It is an operator's word, not a peer's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

#[derive(Debug)]
struct Token {
    digest: CheckKey,
    user: User,
}

/// The secrets of a relay, shared by its workers.
pub struct Secrets {
    key: hmac::Key,
    /// By the first bytes of their digests, which only who has the key can choose.
    tokens: HashMap<u64, Token>,
    /// Schemes of the tokens, in the order of their first use.
    schemes: Vec<Box<str>>,
    /// In the order of the file, for a choice by number.
    passwords: Vec<(User, Arc<str>)>,
    users: HashMap<User, usize>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("tokens", &self.tokens.len())
            .field("passwords", &self.passwords.len())
            .finish_non_exhaustive()
    }
}

impl Secrets {
    /// No secret yet: nobody is granted anything. `key` is random and made for this process.
    #[must_use]
    pub fn new(key: &[u8; DIGEST_LEN]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            tokens: HashMap::new(),
            schemes: Vec::new(),
            passwords: Vec::new(),
            users: HashMap::new(),
        }
    }

    /// Adds the tokens of a file, one per line: `TOKEN`, `SCHEME TOKEN`, each with `NAME:` in front or without. The
    /// scheme is `Bearer` if it is not said. Blank lines and those that start with `#` do not count. Gives the number
    /// of tokens. Tokens of one name are one user; each token without a name is a user of its own.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn add_tokens(&mut self, text: &str) -> Result<usize, FileError> {
        let entries = files::tokens(text)?;
        let count = entries.len();
        for (line, entry) in entries {
            let digest = self.token_digest(entry.scheme, entry.token.as_bytes());
            // "#" is in no name of a file, so whoever has this token is nobody else.
            let number = self.tokens.len() + 1;
            let user = User(match entry.name {
                Some(name) => name.into(),
                None => format!("token#{number}").into(),
            });
            let token = Token { digest, user };
            if self.tokens.insert(index(&digest), token).is_some() {
                let problem = FileProblem::Repeated;
                return Err(FileError { line, problem });
            }
            let mut known = self.schemes.iter();
            if !known.any(|scheme| scheme.eq_ignore_ascii_case(entry.scheme)) {
                self.schemes.push(entry.scheme.into());
            }
        }
        Ok(count)
    }

    /// Adds the passwords of a file, one per line: `USER:$argon2id$…`, as [`hash_password`] makes them. Gives their
    /// number.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn add_passwords(&mut self, text: &str) -> Result<usize, FileError> {
        let entries = files::passwords(text)?;
        let count = entries.len();
        for (line, name, hash) in entries {
            let user = User(name.into());
            if (self.users.insert(user.clone(), self.passwords.len())).is_some() {
                let problem = FileProblem::Repeated;
                return Err(FileError { line, problem });
            }
            self.passwords.push((user, hash.into()));
        }
        Ok(count)
    }

    /// Whether nobody can be granted anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.passwords.is_empty()
    }

    fn digest(&self, parts: &[&[u8]]) -> CheckKey {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        let mut digest = [0; DIGEST_LEN];
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        CheckKey(digest)
    }

    /// Schemes are compared without regard to case (RFC 9110 §11.1).
    fn token_digest(&self, scheme: &str, token: &[u8]) -> CheckKey {
        let scheme = scheme.to_ascii_lowercase();
        self.digest(&[b"token\0", scheme.as_bytes(), b" ", token])
    }

    fn token(&self, digest: &CheckKey) -> Option<&User> {
        let token = self.tokens.get(&index(digest))?;
        let same = verify_slices_are_equal(&token.digest.0, &digest.0).is_ok();
        same.then_some(&token.user)
    }

    /// The user of that name and the hash to compare with. A stranger gets the hash of somebody else, always of the
    /// same one, so that it takes as long as for a user; the answer is decided already.
    fn password(&self, name: &str) -> Option<(Option<User>, Arc<str>)> {
        let user = User(name.into());
        if let Some((user, hash)) = (self.users.get(&user)).and_then(|at| self.passwords.get(*at)) {
            return Some((Some(user.clone()), Arc::clone(hash)));
        }
        let stranger = self.digest(&[b"stranger\0", name.as_bytes()]);
        let count = u64::try_from(self.passwords.len()).unwrap_or(u64::MAX);
        let at = usize::try_from(index(&stranger).checked_rem(count)?).ok()?;
        let (_, hash) = self.passwords.get(at)?;
        Some((None, Arc::clone(hash)))
    }
}

fn index(digest: &CheckKey) -> u64 {
    digest
        .0
        .first_chunk()
        .copied()
        .map_or(0, u64::from_ne_bytes)
}

/// How a relay asks for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOptions {
    /// One more field to look for credentials in; its value may be a token without a scheme.
    pub header: Option<HeaderName>,
    /// Whether a refusal says what to send: 401 or 407 with challenges, in place of a plain 403.
    pub challenge: bool,
    /// The `realm` of Basic: characters that need no quoting.
    pub realm: Box<str>,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            header: None,
            challenge: true,
            realm: "bauta".into(),
        }
    }
}

/// What passwords may cost a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthLimits {
    /// Passwords being checked at once.
    pub checks_max: usize,
    /// Passwords remembered as right; the one that expires first makes room.
    pub verified_max: usize,
    /// How long one is remembered.
    pub lifetime: Duration,
}

/// What the credentials of a request are worth.
#[derive(Debug)]
pub enum Check {
    /// They are good.
    Granted(User),
    /// They are wrong, or nothing that is known here.
    Denied,
    /// There are none.
    Missing,
    /// It takes a thread to say. Wait for the [`Verdict`] with this key.
    Verify {
        /// What the verdict will carry; several requests may wait for the same.
        key: CheckKey,
        /// To be run, unless an earlier request has brought it already.
        job: Option<Job>,
    },
    /// Too many passwords are being checked.
    Busy,
}

#[derive(Clone, Debug)]
struct Verified {
    user: User,
    until: Instant,
}

/// The judgement of one worker.
#[derive(Clone, Debug)]
pub struct Auth {
    secrets: Arc<Secrets>,
    options: AuthOptions,
    limits: AuthLimits,
    /// Passwords that were right, by digest.
    verified: HashMap<CheckKey, Verified>,
    /// Jobs under way.
    pending: HashMap<CheckKey, ()>,
    /// Passwords forgotten before their time.
    evicted: u64,
}

impl Auth {
    /// Judges by `secrets`.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>, options: AuthOptions, limits: AuthLimits) -> Self {
        Self {
            secrets,
            options,
            limits,
            verified: HashMap::new(),
            pending: HashMap::new(),
            evicted: 0,
        }
    }

    /// Whether refusals carry challenges.
    #[must_use]
    pub const fn challenges(&self) -> bool {
        self.options.challenge
    }

    /// The challenges to send, one for each scheme (RFC 9110 §11.6.1). Never empty: 401 and 407 need one.
    pub fn challenge_values(&self) -> impl Iterator<Item = HeaderValue> + '_ {
        let has_none = self.secrets.schemes.is_empty() && self.secrets.passwords.is_empty();
        let schemes = self.secrets.schemes.iter().map(|scheme| &**scheme);
        let schemes = schemes.chain(has_none.then_some(BEARER)).map(str::to_owned);
        let basic = !self.secrets.passwords.is_empty();
        let basic = basic.then(|| basic::challenge(&self.options.realm));
        // curl looks at the first field only when it asks over HTTP/2, and has passwords more often than tokens.
        let values = basic.into_iter().chain(schemes);
        values.filter_map(|value| HeaderValue::try_from(value).ok())
    }

    /// Judges the credentials of a request. Of several, the best counts.
    pub fn check(&mut self, now: Instant, headers: &HeaderMap) -> Check {
        let names = [
            self.options.header.as_ref(),
            Some(&PROXY_AUTHORIZATION),
            Some(&AUTHORIZATION),
        ];
        let names = names.into_iter().flatten();
        let values = names.flat_map(|name| headers.get_all(name).iter().take(VALUES_MAX));
        let mut is_missing = true;
        let mut password = None;
        for value in values {
            is_missing = false;
            let (scheme, credential) = split_scheme(value.as_bytes());
            let digest = self.secrets.token_digest(scheme, credential);
            if let Some(user) = self.secrets.token(&digest) {
                return Check::Granted(user.clone());
            }
            if !self.secrets.passwords.is_empty()
                && let Some(given) = basic::parse(scheme, credential)
            {
                let parts = [b"basic\0", given.user.as_bytes(), b":", &given.password];
                let key = self.secrets.digest(&parts);
                match self.verified.get(&key) {
                    Some(verified) if now < verified.until => {
                        return Check::Granted(verified.user.clone());
                    }
                    Some(_) | None => password = password.or(Some((key, given))),
                }
            }
        }
        match password {
            Some((key, given)) => self.verify(key, given),
            None if is_missing => Check::Missing,
            None => Check::Denied,
        }
    }

    fn verify(&mut self, key: CheckKey, given: basic::Basic) -> Check {
        if self.pending.contains_key(&key) {
            return Check::Verify { key, job: None };
        }
        if self.pending.len() >= self.limits.checks_max {
            return Check::Busy;
        }
        let Some((user, hash)) = self.secrets.password(&given.user) else {
            return Check::Denied;
        };
        self.pending.insert(key, ());
        let job = Some(Job::new(key, user, hash, given.password));
        Check::Verify { key, job }
    }

    /// A job has been run. Who waits for its key gets what this returns: the user, or `None` for a refusal.
    pub fn handle_verdict(&mut self, now: Instant, verdict: Verdict) -> Option<User> {
        self.pending.remove(&verdict.key);
        let user = verdict.user?;
        let until = now + self.limits.lifetime;
        if self.limits.verified_max > 0 {
            self.make_room(now);
            let verified = Verified {
                user: user.clone(),
                until,
            };
            self.verified.insert(verdict.key, verified);
        }
        Some(user)
    }

    /// A job could not be run: nobody waits for it any longer.
    pub fn handle_dropped(&mut self, key: CheckKey) {
        self.pending.remove(&key);
    }

    /// Jobs under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many passwords were forgotten before their time because of [`AuthLimits::verified_max`].
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn make_room(&mut self, now: Instant) {
        if self.verified.len() < self.limits.verified_max {
            return;
        }
        self.verified.retain(|_, verified| now < verified.until);
        if self.verified.len() >= self.limits.verified_max {
            let first = self.verified.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(key) = first.map(|(key, _)| *key) {
                self.verified.remove(&key);
                self.evicted += 1;
            }
        }
    }
}

/// Scheme and the rest of a credential. A value of one word is a token of the default scheme, for fields that carry
/// nothing but a token.
fn split_scheme(value: &[u8]) -> (&str, &[u8]) {
    let value = value.trim_ascii();
    let end = value.iter().position(|b| *b == b' ');
    let parts = end.and_then(|end| value.split_at_checked(end));
    match parts.map(|(scheme, rest)| (std::str::from_utf8(scheme), rest.trim_ascii_start())) {
        Some((Ok(scheme), rest)) => (scheme, rest),
        Some((Err(_), _)) | None => (BEARER, value),
    }
}

#[cfg(test)]
mod tests;
