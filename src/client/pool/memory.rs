//! Which carrier worked in which network.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a memory lasts: after it the preferred carrier gets its chance again.
const LASTS: Duration = Duration::from_secs(600);
/// Networks remembered; the oldest goes.
const NETWORKS_MAX: usize = 16;

/// The carrier to try first, by network. A network is told by our own address in it; `None` is one that is not known
/// yet.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// In the order of their age.
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    network: Option<IpAddr>,
    carrier: super::Carrier,
    until: Instant,
}

impl Memory {
    /// The carrier that worked.
    pub(super) fn recall(&self, now: Instant, network: Option<IpAddr>) -> Option<super::Carrier> {
        let mut kept = self.kept.iter();
        let kept = kept.find(|kept| kept.network == network && now < kept.until)?;
        Some(kept.carrier)
    }

    /// This carrier works, and the preferred one did not.
    pub(super) fn keep(&mut self, now: Instant, network: Option<IpAddr>, carrier: super::Carrier) {
        // The time counts from the first success: the memory must not renew itself for ever.
        if self.recall(now, network) == Some(carrier) {
            return;
        }
        self.forget(network);
        if self.kept.len() == NETWORKS_MAX {
            self.kept.remove(0);
        }
        let until = now + LASTS;
        self.kept.push(Kept {
            network,
            carrier,
            until,
        });
    }

    /// The preferred carrier works.
    pub(super) fn forget(&mut self, network: Option<IpAddr>) {
        self.kept.retain(|kept| kept.network != network);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Carrier;
    use super::*;

    #[test]
    fn remembers_by_network_and_not_for_ever() {
        let start = crate::net::clock::now();
        let [home, away] = ["192.0.2.1", "198.51.100.1"].map(|ip| Some(ip.parse().unwrap()));
        let mut memory = Memory::default();
        memory.keep(start, home, Carrier::H2);
        assert_eq!(memory.recall(start, home), Some(Carrier::H2));
        assert_eq!(memory.recall(start, away), None);
        memory.keep(start + LASTS / 2, home, Carrier::H2);
        assert_eq!(
            memory.recall(start + LASTS, home),
            None,
            "it renewed itself"
        );
        memory.keep(start + LASTS, home, Carrier::H1);
        assert_eq!(memory.recall(start + LASTS, home), Some(Carrier::H1));
        memory.forget(home);
        assert_eq!(memory.recall(start + LASTS, home), None);
    }

    #[test]
    fn the_oldest_network_is_forgotten_first() {
        let now = crate::net::clock::now();
        let network = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        let mut memory = Memory::default();
        for n in 0..=NETWORKS_MAX as u8 {
            memory.keep(now, network(n), Carrier::H2);
        }
        assert_eq!(memory.recall(now, network(0)), None);
        assert_eq!(memory.recall(now, network(1)), Some(Carrier::H2));
        assert_eq!(memory.kept.len(), NETWORKS_MAX);
    }
}
