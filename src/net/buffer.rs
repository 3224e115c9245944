//! The pool of receive buffers of one worker.
//!
//! ```text
//!   current   [ ··· datagrams in use ··· | next receive: at least 64 KiB ]   one chunk of 256 KiB
//!   retired   [ ··· ] [ ··· ] [ ··· ]                                        until their last datagram is dropped
//! ```
//!
//! A received train is split off the front of the current chunk without a copy. A chunk whose tail has become too short
//! waits in line; when it comes to the front and nobody holds a part of it any more, it is used again. In a steady
//! state nothing is allocated and a handful of warm chunks goes round.
//!
//! Invariant: a receive always has room for the largest train, so the kernel never has to cut a datagram.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Room that every receive gets: the largest UDP payload, and what GRO may coalesce, is below 64 KiB.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;

/// Size of a chunk: four full trains, or some 160 single datagrams.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks kept for reuse, so a pool idles at 4 MiB at most. More may be alive for as long as their datagrams are.
const RETIRED_MAX: usize = 15;

/// Chunks to receive into.
pub(super) struct Pool {
    current: BytesMut,
    retired: VecDeque<BytesMut>,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            current: BytesMut::with_capacity(CHUNK_BYTES),
            retired: VecDeque::with_capacity(RETIRED_MAX),
        }
    }

    /// An empty buffer with at least [`RECEIVE_BYTES`] of room; split off what was filled.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        debug_assert!(self.current.is_empty(), "the last train was split off");
        if self.current.capacity() < RECEIVE_BYTES && !self.current.try_reclaim(CHUNK_BYTES) {
            self.rotate();
        }
        &mut self.current
    }

    fn rotate(&mut self) {
        let fresh = match self.retired.pop_front() {
            Some(mut oldest) => {
                if oldest.try_reclaim(CHUNK_BYTES) {
                    oldest
                } else {
                    // The younger ones are unlikely to be free before the oldest: it keeps its place, unless the line
                    // is full, in which case its datagrams take it along when they go.
                    if self.retired.len() + 1 < RETIRED_MAX {
                        self.retired.push_front(oldest);
                    }
                    BytesMut::with_capacity(CHUNK_BYTES)
                }
            }
            None => BytesMut::with_capacity(CHUNK_BYTES),
        };
        let spent = std::mem::replace(&mut self.current, fresh);
        self.retired.push_back(spent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(pool: &mut Pool, length: usize) -> BytesMut {
        let buffer = pool.buffer();
        assert!(buffer.capacity() >= RECEIVE_BYTES);
        buffer.resize(length, 7);
        buffer.split()
    }

    #[test]
    fn chunks_are_reused_when_their_datagrams_are_gone() {
        let mut pool = Pool::new();
        let first = receive(&mut pool, 1200).as_ptr();
        let mut seen = 0;
        for _ in 0..1000 {
            let train = receive(&mut pool, 60_000);
            seen += usize::from(train.as_ptr() == first);
        }
        assert!(seen > 200, "the only chunk starts over: {seen}");
        assert!(pool.retired.is_empty());
    }

    #[test]
    fn held_datagrams_stay_intact_and_the_pool_stays_small() {
        let mut pool = Pool::new();
        let mut held = Vec::new();
        for round in 0..200usize {
            let buffer = pool.buffer();
            buffer.resize(50_000, round as u8);
            held.push(buffer.split());
            assert!(pool.retired.len() <= RETIRED_MAX);
        }
        for (round, train) in held.iter().enumerate() {
            assert!(train.iter().all(|&byte| byte == round as u8));
        }
        drop(held);
        let retired = pool.retired.len();
        for _ in 0..200 {
            drop(receive(&mut pool, 50_000));
        }
        assert_eq!(pool.retired.len(), retired, "no further chunk was needed");
    }
}
