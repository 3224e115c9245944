//! Which core runs what.
//!
//! Each relay worker and each engine gets a core of its own while there are enough; otherwise the first relay has core
//! 0 to itself, because it is the one that is measured, and everybody else shares the rest.

/// Cores by party, as indices of the cores that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Of each relay, client side first, its first core; its workers take the ones behind.
    pub(crate) relays: Vec<Option<usize>>,
    /// Of the first engine.
    pub(crate) engines: Option<usize>,
    /// Whether engines have their cores to themselves, so that they may spin.
    pub(crate) engines_alone: bool,
}

impl Places {
    /// Shares `cores` out to `relays` of `workers` threads each and to `engines`.
    pub(crate) fn new(cores: usize, relays: usize, workers: usize, engines: usize) -> Self {
        if cores < 2 {
            return Self {
                relays: vec![None; relays],
                engines: None,
                engines_alone: false,
            };
        }
        let wanted = relays * workers;
        if wanted + engines <= cores {
            return Self {
                relays: (0..relays).map(|relay| Some(relay * workers)).collect(),
                // The last ones: a relay that runs already is most likely to be on the first.
                engines: Some(cores - engines),
                engines_alone: true,
            };
        }
        let first = workers.min(cores - 1);
        let mut places: Vec<_> = (0..relays).map(|_| Some(first)).collect();
        if let Some(relay) = places.first_mut() {
            *relay = Some(0);
        }
        Self {
            engines: Some(first),
            engines_alone: wanted <= first && engines <= cores - first,
            relays: places,
        }
    }
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<core_affinity::CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(
        cores: usize,
        relays: usize,
        workers: usize,
    ) -> (Vec<Option<usize>>, Option<usize>, bool) {
        let places = Places::new(cores, relays, workers, 1);
        (places.relays, places.engines, places.engines_alone)
    }

    #[test]
    fn the_first_relay_has_a_core_to_itself_wherever_there_are_two() {
        assert_eq!(places(1, 2, 1), (vec![None, None], None, false));
        assert_eq!(places(2, 1, 1), (vec![Some(0)], Some(1), true));
        assert_eq!(places(2, 2, 1), (vec![Some(0), Some(1)], Some(1), false));
        assert_eq!(places(3, 2, 1), (vec![Some(0), Some(1)], Some(2), true));
        assert_eq!(places(8, 2, 2), (vec![Some(0), Some(2)], Some(7), true));
        assert_eq!(places(2, 0, 1), (vec![], Some(1), true));
        assert_eq!(places(2, 1, 4), (vec![Some(0)], Some(1), false));
    }
}
