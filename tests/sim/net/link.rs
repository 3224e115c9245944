//! What a link does to datagrams, and the randomness that decides which.

use std::time::{Duration, Instant};

/// SplitMix64: small, and good enough to lose packets with.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True with that probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Thirty-two bytes, for what takes a seed of its own.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()));
        seed
    }
}

/// When a path stops carrying UDP, as some networks do; TCP goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UdpCut {
    /// From this time on.
    At(Instant),
    /// After so many packets of a flow, both directions counted together.
    AfterPackets(u64),
}

/// One direction between two addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// From one end to the other.
    pub(crate) delay: Duration,
    /// Added to the delay at random, up to this much.
    pub(crate) jitter: Duration,
    /// Probability that a datagram is lost.
    pub(crate) loss: f64,
    /// Probability that a datagram arrives twice.
    pub(crate) duplicate: f64,
    /// Probability that a datagram takes one delay more and is overtaken.
    pub(crate) reorder: f64,
    /// Longest UDP payload that passes, in bytes.
    pub(crate) mtu: usize,
    /// Bytes per second, without bound if `None`; what waits longer than `queue` is dropped.
    pub(crate) rate: Option<u64>,
    /// Longest queue in front of a limited rate.
    pub(crate) queue: Duration,
}

impl Link {
    /// A good one.
    const GOOD: Self = Self {
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        mtu: 1472,
        rate: None,
        queue: Duration::from_millis(50),
    };

    /// One that carries nothing.
    pub(crate) const DEAD: Self = Self {
        loss: 1.0,
        ..Self::GOOD
    };
}

impl Default for Link {
    fn default() -> Self {
        Self::GOOD
    }
}
