//! Waiting for something to become true, by tasks of any executor and by threads.
//!
//! Each function tries, listens, tries again, and only then waits: what happens between a try and the wait is not
//! missed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Instant;

use crossbeam::channel::{Sender, unbounded};
use event_listener::{Event, EventListener, Listener};

use super::host::timers::Timers;
use super::host::{Command, HostSender};
use crate::net::clock;

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
    attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    let keep = |event| worker.send(Command::Timer { at, event });
    until_due(event, keep, attempt).await
}

/// As [`until_time`], for those who have no worker: a thread of its own keeps the time.
pub(super) async fn until_kept_time<T>(
    event: &Event,
    at: Instant,
    attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    // The thread never ends, and so it takes what it is sent.
    let keep = |due| drop(timekeeper().send((at, due)));
    until_due(event, keep, attempt).await
}

/// The thread that keeps time; it is started by the first who asks.
fn timekeeper() -> &'static Sender<(Instant, Arc<Event>)> {
    static TIMEKEEPER: OnceLock<Sender<(Instant, Arc<Event>)>> = OnceLock::new();
    TIMEKEEPER.get_or_init(|| {
        let (sender, receiver) = unbounded();
        let keep = move || {
            let mut timers = Timers::default();
            loop {
                let order = match timers.next_timeout() {
                    Some(at) => receiver.recv_deadline(at).ok(),
                    None => receiver.recv().ok(),
                };
                if let Some((at, event)) = order {
                    timers.insert(at, &event);
                }
                timers.expire(clock::now());
            }
        };
        let thread = thread::Builder::new().name("bauta-time".into()).spawn(keep);
        thread.expect("a thread to keep the time");
        sender
    })
}

/// As [`until`], at most until the event is notified that `keep` is given.
async fn until_due<T>(
    event: &Event,
    keep: impl FnOnce(Arc<Event>),
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(value) = attempt() {
        return Some(value);
    }
    let due = Arc::new(Event::new());
    let mut is_due = pin!(due.listen());
    keep(Arc::clone(&due));
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
