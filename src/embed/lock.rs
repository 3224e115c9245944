//! The one lock of this crate: between a handle and the worker that serves it, held for moments.
//!
//! Nothing waits, wakes or runs code of users while it is held.

use std::sync::{MutexGuard, PoisonError};

/// A value behind a lock. A panic while it was held leaves the value as it was: everything done under it is short and
/// complete at every step.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(
    #[expect(
        clippy::disallowed_types,
        reason = "users' threads and workers meet in queues that both ends look into"
    )]
    std::sync::Mutex<T>,
);

impl<T> Lock<T> {
    /// Puts a value behind a lock.
    pub(super) const fn new(value: T) -> Self {
        #[expect(clippy::disallowed_types, reason = "as above")]
        Self(std::sync::Mutex::new(value))
    }

    /// The value, as long as the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
