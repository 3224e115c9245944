//! Bytes in bulk over TCP: who sends them, who takes them, and how both know that none was lost.
//!
//! ```text
//!   Streams, an app of a worker ───── tunnels ─────► Target, threads
//!     head, pattern                                    counts, compares
//!     counts, compares                                 pattern
//! ```
//!
//! A stream begins with a head from the client; after it both directions are one pattern, so that any byte that is
//! lost, doubled or out of place is seen:
//!
//! ```text
//!   direction (1) | number of the stream (4) | bytes each way, 0 for "until the client ends" (8)
//! ```

mod client;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

pub use self::client::{Control, Load, Progress, Streams};
pub use self::target::Target;

/// Length of a head, in bytes.
pub const HEAD_LEN: usize = 13;
/// Length of the pattern: a prime, so that no buffer of ours is a multiple of it.
const PERIOD: usize = 65_521;
/// Bytes of the pattern in one piece.
const CHUNK_BYTES_MAX: usize = 128 * 1024;

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
    /// Both at the same time.
    Both,
}

impl Direction {
    /// The name on command lines and in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }

    /// Whether the client sends.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Both)
    }

    /// Whether the target sends.
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the bytes go.
    pub direction: Direction,
    /// Which stream it is.
    pub stream: u32,
    /// Bytes each way; 0 until the client ends its direction.
    pub bytes: u64,
}

impl Head {
    /// As it is sent.
    pub fn to_bytes(self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[0] = match self.direction {
            Direction::Up => 0,
            Direction::Down => 1,
            Direction::Both => 2,
        };
        out[1..5].copy_from_slice(&self.stream.to_be_bytes());
        out[5..].copy_from_slice(&self.bytes.to_be_bytes());
        out
    }

    /// The reverse; `None` for what is no head.
    pub fn parse(bytes: [u8; HEAD_LEN]) -> Option<Self> {
        let [direction, a, b, c, d, bytes @ ..] = bytes;
        Some(Self {
            direction: match direction {
                0 => Direction::Up,
                1 => Direction::Down,
                2 => Direction::Both,
                _ => return None,
            },
            stream: u32::from_be_bytes([a, b, c, d]),
            bytes: u64::from_be_bytes(bytes),
        })
    }
}

/// What every direction of every stream consists of.
#[derive(Clone, Debug)]
pub struct Pattern {
    bytes: Bytes,
}

impl Default for Pattern {
    fn default() -> Self {
        let mut state = 1u32;
        let mut bytes = Vec::with_capacity(PERIOD + CHUNK_BYTES_MAX);
        for _ in 0..PERIOD {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push((state >> 24) as u8);
        }
        while bytes.len() < PERIOD + CHUNK_BYTES_MAX {
            let part = PERIOD.min(PERIOD + CHUNK_BYTES_MAX - bytes.len());
            bytes.extend_from_within(..part);
        }
        Self {
            bytes: bytes.into(),
        }
    }
}

impl Pattern {
    /// Up to `len` bytes from `offset` on, without a copy.
    pub fn at(&self, offset: u64, len: usize) -> Bytes {
        let start = (offset % PERIOD as u64) as usize;
        self.bytes.slice(start..start + len.min(CHUNK_BYTES_MAX))
    }

    /// Whether `data` is what stands at `offset`.
    pub fn is_at(&self, mut offset: u64, data: &[u8]) -> bool {
        data.chunks(CHUNK_BYTES_MAX).all(|chunk| {
            let expected = self.at(offset, chunk.len());
            offset += chunk.len() as u64;
            expected == chunk
        })
    }
}

/// Bytes of one stream, heads not counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Given to the tunnel by the client.
    pub up_sent: AtomicU64,
    /// Read by the target.
    pub up_received: AtomicU64,
    /// Written by the target.
    pub down_sent: AtomicU64,
    /// Read from the tunnel by the client.
    pub down_received: AtomicU64,
}

/// What both ends of all streams count.
#[derive(Debug, Default)]
pub struct Tallies {
    /// By the number of the stream.
    pub streams: Vec<Tally>,
    /// Pieces that were not what the pattern has at their place.
    pub wrong: AtomicU64,
}

impl Tallies {
    /// Room for `streams`.
    pub fn new(streams: u32) -> Arc<Self> {
        Arc::new(Self {
            streams: (0..streams).map(|_| Tally::default()).collect(),
            wrong: AtomicU64::new(0),
        })
    }

    /// Bytes that arrived so far on each stream: up, down.
    pub fn arrived(&self) -> Vec<(u64, u64)> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let arrived = |tally: &Tally| (load(&tally.up_received), load(&tally.down_received));
        self.streams.iter().map(arrived).collect()
    }

    /// Bytes that were sent and did not arrive. Says something once both ends are done.
    pub fn lost(&self) -> u64 {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lost = |tally: &Tally| {
            load(&tally.up_sent).abs_diff(load(&tally.up_received))
                + load(&tally.down_sent).abs_diff(load(&tally.down_received))
        };
        self.streams.iter().map(lost).sum()
    }

    /// Pieces that were not what was sent.
    pub fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_parsed_back() {
        for direction in [Direction::Up, Direction::Down, Direction::Both] {
            let head = Head {
                direction,
                stream: 7,
                bytes: 1 << 40,
            };
            assert_eq!(Head::parse(head.to_bytes()), Some(head));
        }
        assert_eq!(Head::parse([3; HEAD_LEN]), None);
    }

    #[test]
    fn the_pattern_knows_its_place() {
        let pattern = Pattern::default();
        let offset = 10 * PERIOD as u64 - 5;
        let piece = pattern.at(offset, 1_000);
        assert_eq!(piece.len(), 1_000);
        assert!(pattern.is_at(offset, &piece));
        assert!(pattern.is_at(offset + 10, &piece[10..]));
        assert!(!pattern.is_at(offset + 1, &piece));
        let long: Vec<u8> = [
            pattern.at(0, usize::MAX),
            pattern.at(CHUNK_BYTES_MAX as u64, 99),
        ]
        .concat();
        assert!(pattern.is_at(0, &long));
    }

    #[test]
    fn what_is_missing_is_lost() {
        let tallies = Tallies::new(2);
        tallies.streams[0].up_sent.store(10, Ordering::Relaxed);
        tallies.streams[0].up_received.store(7, Ordering::Relaxed);
        tallies.streams[1].down_received.store(1, Ordering::Relaxed);
        assert_eq!(tallies.lost(), 4);
        assert_eq!(tallies.arrived(), [(7, 0), (0, 1)]);
    }
}
