//! Code of users, called so that a panic of theirs stays theirs.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

/// Code of a user panicked; this was logged and counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked;

thread_local! {
    /// How deep this thread is in code of users.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether this thread runs code of a user, and cannot wait for what only the thread itself can do.
pub(super) fn is_in_user_code() -> bool {
    DEPTH.get() > 0
}

/// Calls `code`. Whoever calls this throws away what `code` may have left half done.
pub(super) fn guarded<T>(
    what: &'static str,
    panics: &AtomicU64,
    code: impl FnOnce() -> T,
) -> Result<T, Panicked> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(code));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|panic| caught(what, panics, panic))
}

/// Awaits `future`, which is dropped under the same guard.
pub(super) async fn guarded_future<F: Future>(
    what: &'static str,
    panics: &AtomicU64,
    future: F,
) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(
        |context| match guarded(what, panics, || future.as_mut().poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        },
    )
    .await
}

fn caught(what: &'static str, panics: &AtomicU64, panic: Box<dyn Any + Send>) -> Panicked {
    panics.fetch_add(1, Ordering::Relaxed);
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        what,
        panic = text.unwrap_or("not a text"),
        "code of a user panicked"
    );
    // The payload is the user's too, and may panic when it is dropped.
    if catch_unwind(AssertUnwindSafe(|| drop(panic))).is_err() {
        tracing::error!(what, "and once more");
    }
    Panicked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_goes_no_further() {
        let panics = AtomicU64::new(0);
        assert_eq!(guarded("test", &panics, || 7), Ok(7));
        let result: Result<(), _> = guarded("test", &panics, || panic!("as it should"));
        assert_eq!(result, Err(Panicked));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let result: Result<(), _> = runtime.block_on(guarded_future("test", &panics, async {
            tokio::task::yield_now().await;
            panic!("as it should")
        }));
        assert_eq!(result, Err(Panicked));
        assert_eq!(panics.load(Ordering::Relaxed), 2);
    }
}
