//! Connection IDs that belong to one worker of a SO_REUSEPORT group.
//!
//! ```text
//! random bytes ──► steer hash under a key ──► this worker? ──► use it
//!        ▲                                        │ no
//!        └────────────────────────────────────────┘
//! ```
//!
//! The generator draws random IDs until the keyed hash names its worker (n draws on average for n workers), so
//! an ID carries no readable worker number and two IDs of one connection cannot be linked (RFC 9000 §5.1).
//! The kernel program of [`crate::net::steer`] computes the same hash. The length is fixed, as RFC 9000 §5.1
//! wants of servers that route on it.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, RandomConnectionIdGenerator};

use crate::net::steer::Steer;

/// Length of every connection ID that bauta issues, in bytes: what the steering hash reads.
pub const CID_LEN_BYTES: usize = 8;

/// Draws connection IDs that the steering hash maps to one worker.
#[derive(Debug)]
pub struct SteeredCids {
    random: RandomConnectionIdGenerator,
    steer: Steer,
    worker: u32,
}

impl SteeredCids {
    /// A generator for `worker`, one of `steer.workers()`.
    pub fn new(steer: Steer, worker: u32) -> Self {
        debug_assert!(worker < steer.workers());
        Self {
            random: RandomConnectionIdGenerator::new(CID_LEN_BYTES),
            steer,
            worker,
        }
    }
}

impl ConnectionIdGenerator for SteeredCids {
    fn generate_cid(&mut self) -> ConnectionId {
        loop {
            let cid = self.random.generate_cid();
            if self.steer.worker_of(&cid) == self.worker {
                return cid;
            }
        }
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        // A packet that another worker owns must not be answered with a stateless reset (RFC 9000 §21.11).
        if self.steer.worker_of(cid) == self.worker {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        CID_LEN_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    // spec: 9000-5.1-a, 9000-5.1-c
    #[test]
    fn every_id_names_its_worker_and_none_repeats() {
        let steer = Steer::new([3, 0x9e37_79b1, 77, 0x85eb_ca6b], 4);
        for worker in 0..4 {
            let mut cids = SteeredCids::new(steer, worker);
            let mut seen = HashSet::new();
            for _ in 0..500 {
                let cid = cids.generate_cid();
                assert_eq!(cid.len(), CID_LEN_BYTES);
                assert_eq!(steer.worker_of(&cid), worker);
                assert!(cids.validate(&cid).is_ok());
                assert!(seen.insert(cid));
            }
            let other = SteeredCids::new(steer, (worker + 1) % 4).generate_cid();
            assert!(cids.validate(&other).is_err());
        }
    }
}
