//! Who holds a tunnel: the worker that serves it, and the user.

use std::sync::Arc;
use std::time::Duration;

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
