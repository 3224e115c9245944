//! Bytes that waited for the user of an end when its tunnel broke: they came before the end, and are read before it.
//!
//! They are there from the moment in which [`LocalEvent::Closed`] is polled to the next poll. What nobody reads in
//! between nobody wants.

use std::collections::VecDeque;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::machine::LocalEvent;
use crate::tunnel::TunnelId;

/// What is left for the users of one kind of end; for each at most what its tunnel kept.
#[derive(Debug, Default)]
pub(super) struct Rests {
    bytes: FxHashMap<TunnelId, VecDeque<Bytes>>,
    /// The tunnel of whose end the users were told last.
    told: Option<TunnelId>,
}

impl Rests {
    /// Keeps what a tunnel had.
    pub(super) fn keep(&mut self, id: TunnelId, bytes: &VecDeque<Bytes>) {
        if !bytes.is_empty() {
            self.bytes.insert(id, bytes.clone());
        }
    }

    /// The users poll, and are told `event`.
    pub(super) fn polled(&mut self, event: Option<&LocalEvent>) {
        if let Some(id) = self.told.take() {
            self.bytes.remove(&id);
        }
        if let Some(LocalEvent::Closed(id, _)) = event {
            self.told = Some(*id);
        }
    }

    /// The next bytes, at most `bytes_max`.
    pub(super) fn take(&mut self, id: TunnelId, bytes_max: usize) -> Option<Bytes> {
        let pieces = self.bytes.get_mut(&id)?;
        let mut first = pieces.pop_front()?;
        let bytes = first.split_to(first.len().min(bytes_max));
        if !first.is_empty() {
            pieces.push_front(first);
        }
        Some(bytes)
    }
}
