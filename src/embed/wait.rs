//! Waiting for something to become true, by tasks of any executor and by threads.
//!
//! Each function tries, listens, tries again, and only then waits: what happens between a try and the wait is not
//! missed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use event_listener::{Event, EventListener, Listener};

use super::host::{Command, HostSender};

/// Waits until `attempt` gives something; `event` tells when to try again.
pub(super) async fn until<T>(event: &Event, mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut listener = None;
    poll_fn(|context| poll_until(&mut listener, event, context, &mut attempt)).await
}

/// As [`until`], at most until `at`; then there is `None`. A worker keeps the time: while it is gone time stands still,
/// but then `attempt` has to know.
pub(super) async fn until_time<T>(
    event: &Event,
    (worker, at): (&HostSender, Instant),
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(value) = attempt() {
        return Some(value);
    }
    let due = Arc::new(Event::new());
    let mut is_due = pin!(due.listen());
    worker.send(Command::Timer {
        at,
        event: Arc::clone(&due),
    });
    let mut listener = None;
    poll_fn(|context| {
        if let Poll::Ready(value) = poll_until(&mut listener, event, context, &mut attempt) {
            return Poll::Ready(Some(value));
        }
        is_due.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// As [`until`], for a thread.
pub(super) fn until_blocking<T>(event: &Event, mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        let listener = event.listen();
        if let Some(value) = attempt() {
            return value;
        }
        listener.wait();
    }
}

/// As [`until_time`], for a thread, which keeps the time itself.
pub(super) fn until_time_blocking<T>(
    event: &Event,
    at: Instant,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        let listener = event.listen();
        if let Some(value) = attempt() {
            return Some(value);
        }
        if listener.wait_deadline(at).is_none() {
            return attempt();
        }
    }
}

/// As [`until`], one step of it. `listener` is what a handle keeps from one call to the next.
pub(super) fn poll_until<T>(
    listener: &mut Option<EventListener>,
    event: &Event,
    context: &mut Context<'_>,
    mut attempt: impl FnMut() -> Option<T>,
) -> Poll<T> {
    loop {
        if let Some(value) = attempt() {
            *listener = None;
            return Poll::Ready(value);
        }
        match listener {
            None => *listener = Some(event.listen()),
            Some(waiting) => {
                ready!(Pin::new(waiting).poll(context));
                *listener = None;
            }
        }
    }
}
