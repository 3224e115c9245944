//! What a group of flows did: counts, histograms, and a sample per second.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longest time that is told apart: a minute, in nanoseconds.
const TIME_MAX_NS: u64 = 60_000_000_000;

/// Why histograms can be added up.
const ONE_SHAPE: &str = "all histograms have one range";

/// Times in nanoseconds, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(TIME_MAX_NS, 3).expect("three digits are within bounds")
}

/// What one group did.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Datagrams sent while the run was measured.
    pub(crate) sent: u64,
    /// Of those, how many arrived, be it after the end.
    pub(crate) arrived: u64,
    /// Datagrams that arrived while the run was measured, whenever they were sent.
    pub(crate) delivered: u64,
    /// Their payload bytes.
    pub(crate) delivered_bytes: u64,
    /// Datagrams of an open loop that left more than a millisecond after they were due.
    pub(crate) late: u64,
    /// For `echo` the round trip, for the others one way; from the time at which each was due.
    pub(crate) times: Histogram<u64>,
    /// Those of the running second, which are not in `times` yet.
    current: Histogram<u64>,
    /// One entry per second.
    pub(crate) slices: Vec<Slice>,
}

/// What happened in a second.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) start: Instant,
    pub(crate) delivered: u64,
    pub(crate) times: Histogram<u64>,
}

impl Slice {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            delivered: 0,
            times: Histogram::new_with_max(TIME_MAX_NS, 2).expect("two digits are within bounds"),
        }
    }
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            arrived: 0,
            delivered: 0,
            delivered_bytes: 0,
            late: 0,
            times: histogram(),
            current: histogram(),
            slices: Vec::new(),
        }
    }

    /// A datagram arrived while the run was measured.
    pub(super) fn count(&mut self, bytes: usize) {
        self.delivered += 1;
        self.delivered_bytes += bytes as u64;
        if let Some(slice) = self.slices.last_mut() {
            slice.delivered += 1;
        }
    }

    /// A datagram that was sent while the run was measured took this long.
    pub(super) fn time(&mut self, nanoseconds: u64) {
        self.arrived += 1;
        self.current.saturating_record(nanoseconds);
    }

    /// A datagram that was due never left, for at least this long.
    pub(super) fn unsent(&mut self, waited: Duration) {
        self.sent += 1;
        self.late += 1;
        self.current.saturating_record(waited.as_nanos() as u64);
    }

    /// Ends the running second.
    pub(super) fn settle(&mut self) {
        self.times.add(&self.current).expect(ONE_SHAPE);
        if let Some(slice) = self.slices.last_mut() {
            slice.times.add(&self.current).expect(ONE_SHAPE);
        }
        self.current.reset();
    }

    /// Begins a second.
    pub(super) fn begin_slice(&mut self, start: Instant) {
        self.settle();
        self.slices.push(Slice::new(start));
    }

    /// Adds what another thread did in the same group.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.late += other.late;
        self.times.add(&other.times).expect(ONE_SHAPE);
        for (mine, other) in self.slices.iter_mut().zip(&other.slices) {
            mine.delivered += other.delivered;
            mine.times.add(&other.times).expect(ONE_SHAPE);
        }
    }
}
