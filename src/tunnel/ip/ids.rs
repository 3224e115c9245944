//! The requests of one side under their names on the other side (RFC 9484 §4.7.2).
//!
//! ```text
//!   client ── ADDRESS_REQUEST 7, 9 ──► ingress ── ADDRESS_REQUEST 1, 2 ──► next hop
//!          ◄─ ADDRESS_ASSIGN 7, 0 ─────        ◄─ ADDRESS_ASSIGN 1, 0 ────
//! ```
//!
//! An intermediary speaks for itself on each stream, so ids are its own there. One map for each direction of requests;
//! what it holds is bounded by the requests that the [`Peer`] on the other side lets through.

use super::error::IpError;
use super::peer::Peer;
use crate::wire::ip::{AssignedAddress, IpCapsule, RequestedAddress};

/// The requests that one side made, and their names on the other.
#[derive(Debug, Default)]
pub struct IdMap {
    /// The name on the other side and that of whoever asked; the former rise.
    names: Vec<(u64, u64)>,
}

impl IdMap {
    /// Asks `to`, always the same, for what the other side has [asked for](super::IpEvent::Requested); gives the
    /// capsule to send.
    ///
    /// # Errors
    /// As [`Peer::request_addresses`]; nothing has changed then.
    pub fn forward(
        &mut self,
        requests: &[RequestedAddress],
        to: &mut Peer,
    ) -> Result<IpCapsule, IpError> {
        let wishes: Vec<_> = requests.iter().map(|request| request.prefix).collect();
        let (ids, capsule) = to.request_addresses(&wishes)?;
        let names = ids.into_iter().zip(requests);
        self.names
            .extend(names.map(|(id, request)| (id, request.request_id)));
        Ok(capsule)
    }

    /// The list that answers with the names of whoever asked; what answers nothing of theirs is unprompted, and a
    /// refusal of that is left out.
    #[must_use]
    pub fn answer(&self, list: &[AssignedAddress]) -> Vec<AssignedAddress> {
        let renamed = list.iter().filter_map(|entry| {
            let request_id = self.asked_as(entry.request_id);
            let answers_nothing = request_id == 0 && entry.is_refusal();
            (!answers_nothing).then_some(AssignedAddress {
                request_id,
                ..*entry
            })
        });
        renamed.collect()
    }

    /// The name that whoever asked used; 0 if they did not.
    fn asked_as(&self, id: u64) -> u64 {
        let found = self.names.binary_search_by_key(&id, |(name, _)| *name);
        found.map_or(0, |index| self.names[index].1)
    }
}

#[cfg(test)]
mod tests;
