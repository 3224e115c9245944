//! A tunnel as its worker serves it: what the user queued is taken, what the tunnel brings is queued.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::info::{Capsule, CloseReason, Datagram};
use super::super::queues::READ_BYTES;
use super::{Opened, Phase, RECEIVED, SENT, Shared, Terms};
use crate::tunnel::TunnelId as MachineId;

/// What a worker takes from a handle.
#[derive(Debug)]
pub(in crate::embed) struct Work {
    /// Capsules to send.
    pub(in crate::embed) capsules: VecDeque<Capsule>,
    /// Bytes to send.
    pub(in crate::embed) bytes: Bytes,
    /// The direction to the target ends here.
    pub(in crate::embed) finish: bool,
    /// The user has closed the tunnel.
    pub(in crate::embed) closing: bool,
    /// The tunnel is to be broken.
    pub(in crate::embed) broken: bool,
    /// Bytes are left, for which the machine had no room.
    pub(in crate::embed) is_partial: bool,
}

/// The worker's side.
impl Shared {
    /// The tunnel's id in the machine, once the machine has it.
    pub(in crate::embed) fn machine_id(&self) -> Option<MachineId> {
        self.machine.get().copied()
    }

    /// What is agreed.
    pub(in crate::embed) const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The machine has the tunnel.
    pub(in crate::embed) fn set_machine_id(&self, id: MachineId) {
        let first = self.machine.set(id).is_ok();
        debug_assert!(first, "a tunnel is opened once");
    }

    /// Whether the user gave it up already.
    pub(in crate::embed) fn is_given_up(&self) -> bool {
        matches!(self.inner.lock().phase, Phase::Closing | Phase::Closed(_))
    }

    /// Takes what the user has queued, datagrams into the empty `datagrams`, at most `room` bytes.
    pub(in crate::embed) fn take_work(
        self: &Arc<Self>,
        datagrams: &mut VecDeque<Datagram>,
        room: usize,
    ) -> Work {
        self.asked.swap(false, Ordering::AcqRel);
        let work = self.update(|inner| {
            inner.outbound.datagrams.swap(datagrams);
            let opening = matches!(inner.phase, Phase::Opening);
            let outbound = &mut inner.outbound;
            let len = outbound.bytes.len().min(room);
            let bytes = outbound.bytes.split_to(len).freeze();
            let is_partial = !outbound.bytes.is_empty();
            let finish = outbound.shut && !outbound.finished && !is_partial && !opening;
            outbound.finished |= finish;
            let capsules = std::mem::take(&mut outbound.capsules);
            inner.count(SENT, 0, len);
            Work {
                capsules,
                bytes,
                finish,
                closing: matches!(inner.phase, Phase::Closing),
                broken: inner.broken,
                is_partial,
            }
        });
        if !work.bytes.is_empty() || !datagrams.is_empty() || !work.capsules.is_empty() {
            self.writable.notify(usize::MAX);
        }
        work
    }

    /// Puts back capsules for which there was no room.
    pub(in crate::embed) fn return_capsules(&self, mut capsules: VecDeque<Capsule>) {
        let mut inner = self.inner.lock();
        capsules.append(&mut inner.outbound.capsules);
        inner.outbound.capsules = capsules;
    }

    /// How many bytes may be read from the machine now; at `None` the tunnel is looked at again when there is room.
    pub(in crate::embed) fn read_room(&self) -> Option<usize> {
        let mut inner = self.inner.lock();
        let room = match inner.phase {
            // Nobody wants them any more, and the far end shall come to its end.
            Phase::Closing | Phase::Closed(_) => READ_BYTES,
            Phase::Opening | Phase::Open => inner.inbound.room().min(READ_BYTES),
        };
        inner.inbound.paused = room == 0;
        (room > 0).then_some(room)
    }

    /// It is open.
    pub(in crate::embed) fn handle_opened(self: &Arc<Self>, opened: Opened) {
        self.update(|inner| {
            inner.opened = opened;
            if matches!(inner.phase, Phase::Opening) {
                inner.phase = Phase::Open;
                inner.was_open = true;
            }
        });
        self.changed.notify(usize::MAX);
    }

    /// What is known about it has changed.
    pub(in crate::embed) fn handle_described(&self, opened: Opened) {
        self.inner.lock().opened = opened;
    }

    /// A datagram came.
    pub(in crate::embed) fn handle_datagram(self: &Arc<Self>, datagram: Datagram) {
        self.update(|inner| {
            inner.count(RECEIVED, 1, datagram.payload.len());
            if !matches!(inner.phase, Phase::Closing | Phase::Closed(_)) {
                inner.inbound.datagrams.push(datagram);
            }
        });
        self.readable.notify(usize::MAX);
    }

    /// A capsule came.
    pub(in crate::embed) fn handle_capsule(self: &Arc<Self>, capsule: Capsule) {
        let kept = self.update(|inner| inner.inbound.push_capsule(capsule));
        self.readable.notify(usize::MAX);
        // What changes addresses or routes is heard or ends the tunnel.
        if !kept && self.is_carried_ip() {
            self.begin_reset();
        }
    }

    /// Bytes came.
    pub(in crate::embed) fn handle_bytes(self: &Arc<Self>, bytes: Bytes) {
        self.update(|inner| {
            inner.count(RECEIVED, 0, bytes.len());
            if !matches!(inner.phase, Phase::Closing | Phase::Closed(_)) {
                inner.inbound.push_bytes(bytes);
            }
        });
        self.readable.notify(usize::MAX);
    }

    /// The far end has ended its direction.
    pub(in crate::embed) fn handle_end(self: &Arc<Self>) {
        self.update(|inner| inner.inbound.ended = true);
        self.readable.notify(usize::MAX);
    }

    /// It is over. The first reason counts.
    pub(in crate::embed) fn handle_closed(self: &Arc<Self>, reason: CloseReason) {
        self.update(|inner| {
            let reason = match &inner.phase {
                Phase::Closed(_) => return,
                Phase::Closing => CloseReason::Local,
                Phase::Opening | Phase::Open => reason,
            };
            inner.phase = Phase::Closed(reason);
        });
        self.notify();
    }

    pub(super) fn notify(&self) {
        for notice in [&self.readable, &self.writable, &self.changed] {
            notice.notify(usize::MAX);
        }
    }
}
