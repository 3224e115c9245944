//! How many requests a client may have open: few at first, more as it uses them (RFC 9000 §4.6).
//!
//! ```text
//!   100 ──► 200 ──► 400 ──► the limit        doubles when half of it is open
//! ```
//!
//! quinn-proto makes an entry for each stream that the peer is permitted to open, and most clients use a handful of a
//! thousand. Raising in time costs nobody a round trip, unless a client opens the other half at once; then each round
//! trip at least doubles what is open. What was granted is not taken back: the client has shown that it wants as much.

/// What a client may open from the start: what RFC 9114 §6.1 asks of a server at least.
const INITIAL: u32 = 100;

/// The stream credit of a new connection that may ever have `limit` requests open.
pub(super) fn initial(limit: u32) -> u32 {
    step(INITIAL, limit)
}

/// The next credit, if `open` requests of the `granted` ones call for more.
pub(super) fn raised(granted: u32, open: u32, limit: u32) -> Option<u32> {
    let mut credit = granted;
    while credit < limit && open >= credit / 2 {
        credit = step(credit.saturating_mul(2), limit);
    }
    (credit > granted).then_some(credit)
}

/// `wanted`, or everything if little would be left: quinn-proto announces no raise by less than an eighth.
fn step(wanted: u32, limit: u32) -> u32 {
    if wanted >= limit - limit / 4 {
        limit
    } else {
        wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // spec: 9114-6.1-a
    #[test]
    fn doubles_when_half_of_it_is_open() {
        assert_eq!(initial(1024), 100);
        assert_eq!(raised(100, 49, 1024), None);
        assert_eq!(raised(100, 50, 1024), Some(200));
        assert_eq!(raised(200, 50, 1024), None);
        assert_eq!(raised(100, 100, 1024), Some(400));
        assert_eq!(raised(400, 200, 1024), Some(1024), "800 is most of it");
        assert_eq!(raised(1024, 1024, 1024), None);
    }

    #[test]
    fn a_small_limit_is_granted_at_once() {
        for limit in [1, 10, 100, 133] {
            assert_eq!(initial(limit), limit);
            assert_eq!(raised(limit, limit, limit), None);
        }
        assert_eq!(initial(134), 100);
    }

    proptest! {
        #[test]
        fn every_raise_is_announced_and_the_limit_is_reached(
            limit in 1u32..=65_536,
            opened in prop::collection::vec(1u32..400, 0..40),
        ) {
            let (mut granted, mut open) = (initial(limit), 0);
            for more in opened {
                open = granted.min(open + more);
                if let Some(credit) = raised(granted, open, limit) {
                    prop_assert!(credit <= limit);
                    prop_assert!(credit - granted > credit / 8);
                    granted = credit;
                }
                prop_assert!(open < granted || granted == limit);
            }
        }
    }
}
