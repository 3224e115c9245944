//! Tunnels that end in a handler of the user's, on one worker.

use std::time::Instant;

use crate::worker::Machine;
use crate::worker::run::World;

/// What a worker needs to know about handlers.
#[derive(Debug, Default)]
pub(in crate::embed) struct SessionsSetup {}

/// What other threads tell the sessions of a worker.
#[derive(Debug)]
pub(in crate::embed) enum SessionCommand {}

/// The sessions of one worker.
#[derive(Debug)]
pub(in crate::embed) struct Sessions {}

impl Sessions {
    /// No sessions yet.
    pub(in crate::embed) fn new(_setup: SessionsSetup) -> Self {
        Self {}
    }

    /// Does what another thread asks for.
    pub(in crate::embed) fn command(
        &mut self,
        _now: Instant,
        command: SessionCommand,
        _machine: &mut Machine,
        _out: &mut World<'_>,
    ) {
        match command {}
    }

    /// Once per turn. Returns whether there is more to do right away.
    pub(in crate::embed) fn turn(
        &mut self,
        _now: Instant,
        _machine: &mut Machine,
        _out: &mut World<'_>,
    ) -> bool {
        false
    }

    /// When [`Sessions::turn`] is wanted at the latest.
    pub(in crate::embed) fn next_timeout(&self) -> Option<Instant> {
        None
    }
}
