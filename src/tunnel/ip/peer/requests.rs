//! The address requests of one end: which wait, and which ids have been used (RFC 9484 §4.7.2).

use std::ops::Range;

use super::{PENDING_MAX, REQUESTS_MAX};
use crate::tunnel::ip::IpError;
use crate::wire::ip::{AssignedAddress, RequestedAddress};

/// The address requests of one end.
#[derive(Debug, Default)]
pub(super) struct Requests {
    seen: Ids,
    /// At most [`PENDING_MAX`], in order of arrival.
    pending: Vec<RequestedAddress>,
}

impl Requests {
    /// Takes the requests of a capsule, all or none. Within the capsule the ids are different, and none is 0.
    pub(super) fn add(&mut self, list: &[RequestedAddress]) -> Result<(), IpError> {
        if self.pending.len() + list.len() > PENDING_MAX {
            return Err(IpError::TooManyPending);
        }
        if self.seen.len() + list.len() > REQUESTS_MAX {
            return Err(IpError::TooManyRequests);
        }
        let ids = list.iter().map(|request| request.request_id);
        if let Some(id) = ids.clone().find(|id| self.seen.contains(*id)) {
            return Err(IpError::RequestIdReused { id });
        }
        for id in ids {
            self.seen.insert(id);
        }
        self.pending.extend_from_slice(list);
        Ok(())
    }

    /// The next `count` ids of an end that counts from 1 up.
    pub(super) fn next_ids(&self, count: usize) -> Range<u64> {
        let first = 1 + self.seen.len() as u64;
        first..first + count as u64
    }

    /// Whether there has been a request with this id.
    pub(super) fn has_seen(&self, id: u64) -> bool {
        self.seen.contains(id)
    }

    /// Crosses off what a list answers, refusals included.
    pub(super) fn answer(&mut self, list: &[AssignedAddress]) {
        if self.pending.is_empty() {
            return;
        }
        let mut answered: Vec<u64> = list.iter().map(|entry| entry.request_id).collect();
        answered.sort_unstable();
        self.pending
            .retain(|request| answered.binary_search(&request.request_id).is_err());
    }

    pub(super) fn pending(&self) -> &[RequestedAddress] {
        &self.pending
    }
}

/// A set of ids as runs without gaps: one run where they are counted up, at most one per id.
#[derive(Debug, Default)]
struct Ids {
    /// First and last, both included; in order, never adjacent.
    runs: Vec<(u64, u64)>,
    len: usize,
}

impl Ids {
    const fn len(&self) -> usize {
        self.len
    }

    fn contains(&self, id: u64) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= id);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.is_some_and(|(_, last)| id <= *last)
    }

    fn insert(&mut self, id: u64) {
        if self.contains(id) {
            return;
        }
        self.len += 1;
        let index = self.runs.partition_point(|(first, _)| *first <= id);
        self.runs.insert(index, (id, id));
        self.join(index);
        if let Some(before) = index.checked_sub(1) {
            self.join(before);
        }
    }

    /// Makes one run of two that are adjacent.
    fn join(&mut self, index: usize) {
        if let [(_, last), (first, end), ..] = &mut self.runs[index..]
            && last.checked_add(1) == Some(*first)
        {
            *last = *end;
            self.runs.remove(index + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_that_rise_take_one_run() {
        let mut ids = Ids::default();
        for id in (1..=500).chain(502..=1000) {
            ids.insert(id);
        }
        assert_eq!(ids.runs, [(1, 500), (502, 1000)]);
        ids.insert(501);
        ids.insert(501);
        ids.insert(u64::MAX);
        assert_eq!(ids.runs, [(1, 1000), (u64::MAX, u64::MAX)]);
        assert_eq!(ids.len(), 1001);
    }

    proptest! {
        #[test]
        fn as_a_set(added in vec(0u64..40, 0..60)) {
            let (mut ids, mut set) = (Ids::default(), BTreeSet::new());
            for id in added {
                prop_assert_eq!(ids.contains(id), set.contains(&id));
                ids.insert(id);
                set.insert(id);
                prop_assert_eq!(ids.len(), set.len());
                let all = ids.runs.iter().flat_map(|(first, last)| *first..=*last);
                prop_assert!(all.eq(set.iter().copied()));
                let mut pairs = ids.runs.iter().zip(ids.runs.iter().skip(1));
                prop_assert!(pairs.all(|((_, last), (first, _))| last + 1 < *first));
            }
        }
    }
}
