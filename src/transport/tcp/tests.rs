//! Hubs against each other, and against raw bytes, over in-memory byte pipes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the one event that it wants"
)]

mod bounds;
mod h1;
mod peer;
mod tunnels;
mod world;

use crate::config::limits;
use crate::transport::tcp::TcpHubStats;

#[test]
fn every_bound_counts_its_hits() {
    for limit in limits::TCP {
        let mut counters = TcpHubStats::default().named();
        assert!(
            counters.any(|(name, _)| name == limit.metric),
            "{}",
            limit.metric
        );
    }
}
