//! Being told to stop, in the middle of a measurement.

use std::io;
use std::time::Duration;

/// Ctrl-C, and SIGTERM.
pub(crate) struct Interrupt {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    happened: bool,
}

impl Interrupt {
    /// From now on neither ends the process by itself.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            happened: false,
        })
    }

    /// Whether it has happened.
    pub(crate) fn happened(&self) -> bool {
        self.happened
    }

    /// Until it happens.
    pub(crate) async fn wait(&mut self) {
        if !self.happened {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            self.happened = true;
        }
    }

    /// Whether it happened before `pause` was over.
    pub(crate) async fn sleep(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = self.wait() => true,
            () = tokio::time::sleep(pause) => false,
        }
    }
}
