//! Who may use the relay: where the secrets are, and how clients are asked for them.

use std::time::Duration;

use super::{Checker, DAY, SECOND, quoted};
use crate::config::checked::AuthFiles;
use crate::config::{parse_header, relay};

/// Characters of a realm, which people read.
const REALM_CHARS_MAX: usize = 64;

impl Checker<'_> {
    /// `None` without secrets: everybody may come.
    pub(super) fn auth(&mut self, file: relay::Auth) -> Option<AuthFiles> {
        let relay::Auth {
            tokens,
            passwords,
            header,
            realm,
            challenge,
            remember,
        } = file;
        let has_secrets = tokens.is_some() || passwords.is_some();
        if !has_secrets && (header.is_some() || realm.is_some() || challenge.is_some()) {
            let message =
                "asks for credentials and knows none: tokens or passwords must name a file";
            self.problems.key("auth", message);
        }
        let header = header.and_then(|name| match parse_header(&name, "") {
            Ok((name, _)) => Some(name),
            Err(error) => {
                self.problems
                    .value("auth.header", quoted(name), error.to_string());
                None
            }
        });
        let realm = realm.unwrap_or_else(|| "bauta".to_owned());
        let is_plain = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        if realm.is_empty() || realm.len() > REALM_CHARS_MAX || !realm.chars().all(is_plain) {
            let message = format!(
                "must be 1 to {REALM_CHARS_MAX} characters of ASCII without quotes and backslashes"
            );
            self.problems.value("auth.realm", quoted(&realm), message);
        }
        let remember = self.duration("auth.remember", remember, Duration::ZERO..=DAY);
        if remember < SECOND && passwords.is_some() {
            self.warnings.push(
                "auth.remember: below a second each request costs the check of a password, some tens of milliseconds"
                    .to_owned(),
            );
        }
        has_secrets.then(|| AuthFiles {
            tokens: tokens.map(|path| self.path(&path)),
            passwords: passwords.map(|path| self.path(&path)),
            header,
            realm,
            challenge: challenge.unwrap_or(true),
            remember,
        })
    }
}
