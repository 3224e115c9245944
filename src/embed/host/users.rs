//! Tunnels that begin at a handle of the user's, on one worker.

use std::time::Instant;

use crate::worker::run::World;
use crate::worker::{LocalEvent, Machine};

/// The tunnels of handles.
#[derive(Debug, Default)]
pub(in crate::embed) struct Users {}

impl Users {
    /// Something happened to a tunnel of a handle.
    pub(in crate::embed) fn handle(
        &mut self,
        _now: Instant,
        _event: LocalEvent,
        _machine: &mut Machine,
        _out: &mut World<'_>,
    ) {
    }
}
