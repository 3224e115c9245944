//! The bounded queues between a handle and its worker.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::info::{Capsule, Datagram};

/// Datagrams that wait for the worker, at most.
pub(super) const SEND_DATAGRAMS_MAX: usize = 1_000;
/// Bytes of a TCP tunnel that wait for the worker, at most.
pub(super) const SEND_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a TCP tunnel that wait for the user, before the worker stops reading; it may exceed this by one read.
pub(super) const RECEIVE_BYTES_MAX: usize = 256 * 1024;
/// Bytes that the worker reads at once.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Capsules that wait, per direction, at most.
pub(super) const CAPSULES_MAX: usize = 64;
/// Bytes of the value of one capsule, at most.
pub(super) const CAPSULE_BYTES_MAX: usize = 16 * 1024;

/// Datagrams in order; when there is no room the oldest one gives way.
#[derive(Debug)]
pub(super) struct Datagrams {
    queue: VecDeque<Datagram>,
    max: usize,
    /// How many gave way.
    pub(super) dropped: u64,
}

impl Datagrams {
    pub(super) const fn new(max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            max,
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, datagram: Datagram) {
        if self.queue.len() >= self.max {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(datagram);
    }

    pub(super) fn pop(&mut self) -> Option<Datagram> {
        self.queue.pop_front()
    }

    /// Whether the next one would displace another.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes everything, and leaves the empty `spare` in its place.
    pub(super) fn swap(&mut self, spare: &mut VecDeque<Datagram>) {
        debug_assert!(spare.is_empty(), "datagrams must not get lost");
        std::mem::swap(&mut self.queue, spare);
    }
}

/// What came from the far end and waits for the user.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) datagrams: Datagrams,
    bytes: VecDeque<Bytes>,
    bytes_len: usize,
    pub(super) capsules: VecDeque<Capsule>,
    pub(super) capsules_dropped: u64,
    /// The far end has ended its direction behind `bytes`.
    pub(super) ended: bool,
    /// The worker reads no more until there is room.
    pub(super) paused: bool,
}

impl Inbound {
    pub(super) const fn new(datagrams_max: usize) -> Self {
        Self {
            datagrams: Datagrams::new(datagrams_max),
            bytes: VecDeque::new(),
            bytes_len: 0,
            capsules: VecDeque::new(),
            capsules_dropped: 0,
            ended: false,
            paused: false,
        }
    }

    pub(super) fn push_bytes(&mut self, bytes: Bytes) {
        self.bytes_len += bytes.len();
        self.bytes.push_back(bytes);
    }

    pub(super) fn push_capsule(&mut self, capsule: Capsule) -> bool {
        let has_room = self.capsules.len() < CAPSULES_MAX;
        if has_room {
            self.capsules.push_back(capsule);
        } else {
            self.capsules_dropped += 1;
        }
        has_room
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// How much the worker may add. Below the half of it the worker is not woken: fewer turns move more.
    pub(super) fn room(&self) -> usize {
        RECEIVE_BYTES_MAX.saturating_sub(self.bytes_len)
    }

    /// Copies as much as there is room for into `buffer`.
    pub(super) fn copy_to(&mut self, buffer: &mut [u8]) -> usize {
        let mut copied = 0;
        while let Some(first) = self.bytes.front_mut()
            && copied < buffer.len()
        {
            let len = first.len().min(buffer.len() - copied);
            first.copy_to_slice(&mut buffer[copied..copied + len]);
            copied += len;
            if first.is_empty() {
                self.bytes.pop_front();
            }
        }
        self.bytes_len -= copied;
        copied
    }

    /// The next piece, as it arrived.
    pub(super) fn pop_bytes(&mut self) -> Option<Bytes> {
        let bytes = self.bytes.pop_front()?;
        self.bytes_len -= bytes.len();
        Some(bytes)
    }

    /// Whether a paused worker should read again.
    pub(super) fn wants_more(&self) -> bool {
        self.paused && self.room() >= RECEIVE_BYTES_MAX / 2
    }
}

/// What the user sent and the worker has not taken yet.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) datagrams: Datagrams,
    pub(super) bytes: BytesMut,
    pub(super) capsules: VecDeque<Capsule>,
    /// The user has ended the direction behind `bytes`.
    pub(super) shut: bool,
    /// The machine has been told.
    pub(super) finished: bool,
    /// Somebody found no room for bytes, and waits for an event that there is some.
    pub(super) starved: bool,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self {
            datagrams: Datagrams::new(SEND_DATAGRAMS_MAX),
            bytes: BytesMut::new(),
            capsules: VecDeque::new(),
            shut: false,
            finished: false,
            starved: false,
        }
    }

    pub(super) fn room(&self) -> usize {
        SEND_BYTES_MAX.saturating_sub(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_datagram_gives_way() {
        let mut datagrams = Datagrams::new(2);
        for payload in ["a", "b", "c"] {
            datagrams.push(Bytes::from(payload).into());
        }
        assert_eq!(datagrams.dropped, 1);
        assert_eq!(datagrams.pop().unwrap().payload, "b");
        assert_eq!(datagrams.pop().unwrap().payload, "c");
        assert!(datagrams.is_empty() && datagrams.pop().is_none());
    }

    #[test]
    fn bytes_stay_in_order_over_any_cut() {
        let mut inbound = Inbound::new(1);
        inbound.push_bytes(Bytes::from_static(b"hello, "));
        inbound.push_bytes(Bytes::from_static(b"world"));
        let mut seen = Vec::new();
        for size in [3, 0, 6, 1, 9] {
            let mut buffer = vec![0; size];
            let len = inbound.copy_to(&mut buffer);
            seen.extend_from_slice(&buffer[..len]);
        }
        assert_eq!(seen, b"hello, world");
        assert_eq!(inbound.room(), RECEIVE_BYTES_MAX);
        assert!(!inbound.has_bytes());
    }

    #[test]
    fn a_paused_worker_reads_again_at_the_half() {
        let mut inbound = Inbound::new(1);
        for _ in 0..4 {
            inbound.push_bytes(Bytes::from(vec![0; RECEIVE_BYTES_MAX / 4]));
        }
        inbound.paused = true;
        assert_eq!(inbound.room(), 0);
        inbound.pop_bytes();
        assert!(!inbound.wants_more());
        inbound.pop_bytes();
        assert!(inbound.wants_more());
    }
}
