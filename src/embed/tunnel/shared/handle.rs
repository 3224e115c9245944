//! Who holds a tunnel: the worker that serves it, and the user.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_listener::EventListener;

use super::super::events::Mode;
use super::super::info::CloseReason;
use super::Shared;
use crate::embed::running::Running;
use crate::embed::wait;
use crate::error::{Error, ErrorKind, Side};
use crate::net::clock;

/// How long closing a tunnel takes at most, whatever happens.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// The worker's hold of a tunnel: whatever happens to the worker, the user learns that the tunnel is over.
#[derive(Debug)]
pub(in crate::embed) struct Held(pub(in crate::embed) Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Aborted, Side::Local).with_source("the worker has ended");
        self.0.handle_closed(CloseReason::Aborted(error));
    }
}

/// The user's hold of a tunnel, which closes it in the end, and keeps the threads running until then.
#[derive(Debug)]
pub(in crate::embed) struct Handle {
    pub(in crate::embed) shared: Arc<Shared>,
    #[expect(dead_code, reason = "it is only held")]
    running: Arc<Running>,
}

impl Handle {
    pub(in crate::embed) const fn new(shared: Arc<Shared>, running: Arc<Running>) -> Self {
        Self { shared, running }
    }

    pub(in crate::embed::tunnel) async fn opened(&self) -> Result<(), Error> {
        wait::until(self.shared.changed(), || self.shared.opened()).await
    }

    pub(in crate::embed::tunnel) fn opened_blocking(&self) -> Result<(), Error> {
        wait::until_blocking(self.shared.changed(), || self.shared.opened())
    }

    /// What `attempt` gives once something can be taken.
    pub(in crate::embed::tunnel) async fn taken<T>(&self, attempt: impl FnMut() -> Option<T>) -> T {
        wait::until(self.shared.readable(), attempt).await
    }

    /// As [`taken`](Self::taken), on a plain thread.
    pub(in crate::embed::tunnel) fn taken_blocking<T>(
        &self,
        attempt: impl FnMut() -> Option<T>,
    ) -> T {
        wait::until_blocking(self.shared.readable(), attempt)
    }

    /// As [`taken`](Self::taken), at most for `timeout`.
    pub(in crate::embed::tunnel) async fn taken_within<T>(
        &self,
        timeout: Duration,
        attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let shared = &self.shared;
        match clock::now().checked_add(timeout) {
            Some(at) => wait::until_time(shared.readable(), (shared.worker(), at), attempt).await,
            None => Some(self.taken(attempt).await),
        }
    }

    /// As [`taken_within`](Self::taken_within), on a plain thread.
    pub(in crate::embed::tunnel) fn taken_within_blocking<T>(
        &self,
        timeout: Duration,
        attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        match clock::now().checked_add(timeout) {
            Some(at) => wait::until_time_blocking(self.shared.readable(), at, attempt),
            None => Some(self.taken_blocking(attempt)),
        }
    }

    pub(in crate::embed::tunnel) async fn closed(&self) -> CloseReason {
        wait::until(self.shared.changed(), || self.shared.close_reason()).await
    }

    pub(in crate::embed::tunnel) fn closed_blocking(&self) -> CloseReason {
        wait::until_blocking(self.shared.changed(), || self.shared.close_reason())
    }

    pub(in crate::embed::tunnel) async fn close(&self) {
        self.shared.begin_close();
        let until = (self.shared.worker(), clock::now() + CLOSED_WITHIN);
        let reason = || self.shared.close_reason();
        // After that time it counts as closed all the same.
        drop(wait::until_time(self.shared.changed(), until, reason).await);
    }

    pub(in crate::embed::tunnel) fn close_blocking(&self) {
        self.shared.begin_close();
        let until = clock::now() + CLOSED_WITHIN;
        let reason = || self.shared.close_reason();
        drop(wait::until_time_blocking(
            self.shared.changed(),
            until,
            reason,
        ));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left whom events of this tunnel could concern.
        self.shared.set_mode(Mode::Pull);
        self.shared.begin_close();
    }
}

/// What a tunnel that is a stream keeps from one poll to the next.
#[derive(Debug, Default)]
pub(in crate::embed) struct Receiving {
    listener: Option<EventListener>,
    /// The stream has told of the end.
    ended: bool,
}

impl Receiving {
    /// What `attempt` gives; nothing after an error, and none at all for an end in order.
    pub(in crate::embed::tunnel) fn poll_next<T>(
        &mut self,
        shared: &Shared,
        context: &mut Context<'_>,
        attempt: impl FnMut() -> Option<Result<T, Error>>,
    ) -> Poll<Option<Result<T, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Self { listener, ended } = self;
        let received = wait::poll_until(listener, shared.readable(), context, attempt);
        received.map(|received| {
            *ended = received.is_err();
            match received {
                Err(error) if error.kind() == ErrorKind::Closed => None,
                received => Some(received),
            }
        })
    }
}
