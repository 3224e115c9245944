//! Datagrams that wait for room on one connection: a bounded queue per stream, emptied round-robin.
//!
//! ```text
//! stream 0  ▒▒▒▒▒▒  (full: the oldest goes)  ─┐
//! stream 4  ▒                                 ├─ one each, in turn ──► the connection's datagram buffer
//! stream 8  ▒▒                               ─┘
//! ```
//!
//! quinn-proto keeps one datagram buffer per connection and, asked to drop, evicts whatever is oldest in it.
//! One noisy tunnel would evict every other tunnel's packets. So the buffer is only filled while it has room,
//! and what has to wait waits here, where a tunnel can only displace its own datagrams (design decision 4).
//! Nothing is allocated for a stream that never waits.

use std::collections::VecDeque;

use bytes::Bytes;
use rustc_hash::FxHashMap;

/// Bounds of one stream's queue.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Most datagrams that wait for one stream.
    pub datagrams_max: usize,
    /// Most payload bytes that wait for one stream.
    pub bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
}

/// The waiting datagrams of one connection.
#[derive(Debug, Default)]
pub(in crate::transport) struct Outbox {
    /// Streams that wait, in the order they are served; each has a non-empty queue.
    ring: VecDeque<u64>,
    queues: FxHashMap<u64, Queue>,
}

impl Outbox {
    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Streams that wait.
    pub(in crate::transport) fn streams(&self) -> usize {
        self.ring.len()
    }

    /// Lets the next stream go behind the others.
    pub(in crate::transport) fn rotate(&mut self) {
        if let Some(stream) = self.ring.pop_front() {
            self.ring.push_back(stream);
        }
    }

    /// Datagrams that wait on `stream`.
    pub(in crate::transport) fn waiting(&self, stream: u64) -> usize {
        self.queues
            .get(&stream)
            .map_or(0, |queue| queue.datagrams.len())
    }

    /// Appends a datagram for `stream` and returns how many older ones of the same stream had to go.
    pub(in crate::transport) fn push(
        &mut self,
        stream: u64,
        datagram: Bytes,
        limits: OutboxLimits,
    ) -> usize {
        let queue = self.queues.entry(stream).or_default();
        if queue.datagrams.is_empty() {
            self.ring.push_back(stream);
        }
        queue.bytes += datagram.len();
        queue.datagrams.push_back(datagram);
        let mut dropped = 0;
        while queue.datagrams.len() > limits.datagrams_max
            || (queue.bytes > limits.bytes_max && queue.datagrams.len() > 1)
        {
            if let Some(oldest) = queue.datagrams.pop_front() {
                queue.bytes -= oldest.len();
                dropped += 1;
            }
        }
        dropped
    }

    /// Takes the next datagram in round-robin order.
    pub(in crate::transport) fn pop(&mut self) -> Option<(u64, Bytes)> {
        let stream = self.ring.pop_front()?;
        let queue = self.queues.get_mut(&stream)?;
        let datagram = queue.datagrams.pop_front()?;
        queue.bytes -= datagram.len();
        if queue.datagrams.is_empty() {
            self.queues.remove(&stream);
        } else {
            self.ring.push_back(stream);
        }
        Some((stream, datagram))
    }

    /// Puts back what [`Outbox::pop`] returned and found no room; it stays the next of its stream.
    pub(in crate::transport) fn unpop(&mut self, stream: u64, datagram: Bytes) {
        let queue = self.queues.entry(stream).or_default();
        if !queue.datagrams.is_empty() {
            self.ring.pop_back();
        }
        queue.bytes += datagram.len();
        queue.datagrams.push_front(datagram);
        self.ring.push_front(stream);
    }

    /// Forgets everything; returns how many datagrams that was.
    pub(in crate::transport) fn clear(&mut self) -> usize {
        self.ring.clear();
        self.queues
            .drain()
            .map(|(_, queue)| queue.datagrams.len())
            .sum()
    }

    /// Forgets a stream; returns how many datagrams it lost.
    pub(in crate::transport) fn remove(&mut self, stream: u64) -> usize {
        let Some(queue) = self.queues.remove(&stream) else {
            return 0;
        };
        self.ring.retain(|&waiting| waiting != stream);
        queue.datagrams.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits {
        datagrams_max: 4,
        bytes_max: 100,
    };

    fn datagram(stream: u64, n: u8) -> Bytes {
        Bytes::from(vec![stream as u8, n])
    }

    // spec: 9221-5.4-b, 9221-5.3-a
    #[test]
    fn a_noisy_stream_displaces_only_its_own_oldest() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(1, datagram(1, 0), LIMITS), 0);
        let dropped: usize = (0..50)
            .map(|n| outbox.push(0, datagram(0, n), LIMITS))
            .sum();
        assert_eq!(dropped, 46);
        assert_eq!(outbox.waiting(0), 4);
        let order: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(order[0], (1, datagram(1, 0)));
        let rest: Vec<u8> = order[1..].iter().map(|(_, d)| d[1]).collect();
        assert_eq!(rest, [46, 47, 48, 49]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn bytes_are_bounded_but_one_datagram_always_fits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(0, Bytes::from(vec![0; 90]), LIMITS), 0);
        assert_eq!(outbox.push(0, Bytes::from(vec![1; 200]), LIMITS), 1);
        assert_eq!(outbox.waiting(0), 1);
        assert_eq!(outbox.remove(0), 1);
        assert!(outbox.is_empty() && outbox.pop().is_none());
    }

    proptest! {
        #[test]
        fn serves_every_stream_in_turn_and_keeps_its_order(
            ops in prop::collection::vec((0u64..4, prop::bool::ANY), 0..200)
        ) {
            let mut outbox = Outbox::default();
            let mut model: std::collections::BTreeMap<u64, VecDeque<Bytes>> = Default::default();
            for (n, (stream, push)) in ops.into_iter().enumerate() {
                if push {
                    let item = datagram(stream, n as u8);
                    let dropped = outbox.push(stream, item.clone(), LIMITS);
                    let queue = model.entry(stream).or_default();
                    queue.push_back(item);
                    for _ in 0..dropped { queue.pop_front(); }
                    prop_assert!(queue.len() <= LIMITS.datagrams_max);
                } else if let Some((stream, item)) = outbox.pop() {
                    if n % 3 == 0 {
                        outbox.unpop(stream, item.clone());
                        prop_assert_eq!(outbox.pop(), Some((stream, item.clone())));
                    }
                    prop_assert_eq!(model.get_mut(&stream).and_then(VecDeque::pop_front), Some(item));
                } else {
                    prop_assert!(model.values().all(VecDeque::is_empty));
                }
                for (stream, queue) in &model {
                    prop_assert_eq!(outbox.waiting(*stream), queue.len());
                }
            }
        }
    }
}
