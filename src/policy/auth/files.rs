//! The files that hold secrets: one on each line, comments behind `#` at the start of a line.
//!
//! ```text
//!   tokens      9f2c51d0                       passwords     alice:$argon2id$v=19$m=19456,t=2,p=1$…$…
//!               alice:77e1a3b2
//!               bob:PrivateToken token="AAEC"
//! ```
//!
//! Errors name the line and never show it.

use super::{BEARER, password};

/// A line of a file with secrets is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct FileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// No name where there has to be one, or one with other characters than letters, digits, `.`, `_`, `-` and `@`.
    #[error(
        "the name in front of the colon must be letters, digits, \".\", \"_\", \"-\" and \"@\", at least one"
    )]
    Name,
    /// A token that is empty or holds characters that no field value holds.
    #[error("the token is empty or not printable ASCII")]
    Token,
    /// No hash of Argon2id, or one that costs too much.
    #[error(
        "not USER:HASH with an argon2id hash of at most 64 MiB and 16 passes, as `bauta passwd` prints it"
    )]
    Hash,
    /// The token or the user is in the file already.
    #[error("it is in the file twice")]
    Repeated,
}

/// One line of a file of tokens.
pub(super) struct TokenLine<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) scheme: &'a str,
    pub(super) token: &'a str,
}

/// The tokens of a file with the numbers of their lines.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, TokenLine<'_>)>, FileError> {
    let parsed = lines(text).map(|(line, text)| match token(text) {
        Ok(token) => Ok((line, token)),
        Err(problem) => Err(FileError { line, problem }),
    });
    parsed.collect()
}

/// The users and hashes of a file with the numbers of their lines.
pub(super) fn passwords(text: &str) -> Result<Vec<(usize, &str, &str)>, FileError> {
    let parsed = lines(text).map(|(line, text)| {
        let wrong = |problem| FileError { line, problem };
        let (name, hash) = text
            .split_once(':')
            .ok_or_else(|| wrong(FileProblem::Hash))?;
        if !is_user_name(name) {
            return Err(wrong(FileProblem::Name));
        }
        if !password::is_hash(hash) {
            return Err(wrong(FileProblem::Hash));
        }
        Ok((line, name, hash))
    });
    parsed.collect()
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text
        .lines()
        .zip(1..)
        .map(|(text, line)| (line, text.trim()));
    numbered.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
}

fn token(text: &str) -> Result<TokenLine<'_>, FileProblem> {
    // A colon behind a blank belongs to the token.
    let word = text.split(' ').next().unwrap_or_default();
    let (name, text) = match word.find(':').and_then(|end| text.split_at_checked(end)) {
        Some((name, text)) if is_user_name(name) => {
            (Some(name), text.trim_start_matches(':').trim())
        }
        Some(_) => return Err(FileProblem::Name),
        None => (None, text),
    };
    let (scheme, token) = match text.split_once(' ') {
        Some((scheme, token)) => (scheme, token.trim_start()),
        None => (BEARER, text),
    };
    if token.is_empty() || !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Err(FileProblem::Token);
    }
    Ok(TokenLine {
        name,
        scheme,
        token,
    })
}

/// Whether text can stand in front of the colon of a line.
#[must_use]
pub fn is_user_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}
