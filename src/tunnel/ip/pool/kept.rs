//! Prefixes of one version that no tunnel has any more and that are not free yet: kept for who had them, or at rest.
//!
//! ```text
//!   tunnel ends ──┬─ of somebody with a name ─► claimed until the grace is over ─┐
//!                 └─ of nobody ───────────────► at rest for QUARANTINE ──────────┴─► free
//! ```
//!
//! A prefix rests because packets for its last user are still under way, and should not meet another one. Both kinds
//! come out earlier when nothing else is left, the one whose tunnel ended longest ago first. Prefixes do not overlap.
//! Every operation costs a logarithm of their number, or the [`CLAIMS_MAX`] claims of a name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{KEPT_MAX, QUARANTINE};
use crate::tunnel::ip::bits;

/// Most prefixes that one name has a claim to; the oldest claims go first.
pub(super) const CLAIMS_MAX: usize = 64;

/// A prefix, and when its last tunnel ended.
#[derive(Debug)]
struct Entry {
    prefix: IpNet,
    since: Instant,
    /// When it is free.
    until: Instant,
    claim: Option<Claim>,
}

/// The right to have a prefix again.
#[derive(Debug)]
struct Claim {
    name: Arc<str>,
    until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By serial number, so the oldest first.
    entries: BTreeMap<u64, Entry>,
    /// The serial numbers by the end of their time.
    ends: BTreeSet<(Instant, u64)>,
    /// By prefix length, never none.
    by_len: BTreeMap<u8, BTreeSet<u64>>,
    /// By address.
    at: BTreeMap<u128, u64>,
    /// By name: in order, never none, at most [`CLAIMS_MAX`].
    claims: HashMap<Arc<str>, Vec<u64>>,
    claimed: usize,
    serial: u64,
}

impl Kept {
    /// Puts a prefix in; with a name and a grace that is not zero, it is kept for that name.
    pub(super) fn add(&mut self, now: Instant, prefix: IpNet, claim: Option<(Arc<str>, Duration)>) {
        self.serial += 1;
        let serial = self.serial;
        let claim = claim.filter(|(_, grace)| !grace.is_zero());
        let claim = claim.map(|(name, grace)| Claim {
            name,
            until: now + grace,
        });
        let rested = now + QUARANTINE;
        let until = claim.as_ref().map_or(rested, |it| it.until.max(rested));
        let mut lapsed = None;
        if let Some(claim) = &claim {
            let serials = self.claims.entry(Arc::clone(&claim.name)).or_default();
            serials.push(serial);
            lapsed = (serials.len() > CLAIMS_MAX).then(|| serials[0]);
            self.claimed += 1;
        }
        self.ends.insert((until, serial));
        let of_len = self.by_len.entry(prefix.prefix_len()).or_default();
        of_len.insert(serial);
        self.at.insert(bits::of(prefix.addr()), serial);
        let entry = Entry {
            prefix,
            since: now,
            until,
            claim,
        };
        self.entries.insert(serial, entry);
        if let Some(lapsed) = lapsed {
            self.lapse(lapsed);
        }
    }

    /// Takes the oldest prefix that a name has a claim to, and that will do.
    pub(super) fn take_claimed(
        &mut self,
        now: Instant,
        name: &str,
        will_do: impl Fn(IpNet) -> bool,
    ) -> Option<IpNet> {
        let serials = self.claims.get(name)?.iter();
        let holds = |entry: &Entry| {
            will_do(entry.prefix) && entry.claim.as_ref().is_some_and(|claim| now < claim.until)
        };
        let mut held = serials.filter(|serial| self.entries.get(serial).is_some_and(holds));
        let serial = *held.next()?;
        self.remove(serial)
    }

    /// Takes a prefix whose time is over, or one too many.
    pub(super) fn take_ended(&mut self, now: Instant) -> Option<IpNet> {
        let ended = self.ends.first().filter(|(until, _)| *until <= now);
        let ended = ended.map(|(_, serial)| *serial);
        let oldest = self.entries.first_key_value().map(|(serial, _)| *serial);
        let excess = oldest.filter(|_| self.entries.len() > KEPT_MAX);
        self.remove(ended.or(excess)?)
    }

    /// Takes the oldest prefix of this length or a shorter one.
    pub(super) fn take_oldest(&mut self, len: u8) -> Option<IpNet> {
        let lens = self.by_len.range(..=len);
        let serial = lens.filter_map(|(_, serials)| serials.first()).min()?;
        self.remove(*serial)
    }

    /// Takes any prefix that starts in a prefix.
    pub(super) fn take_within(&mut self, address: u128, len: u8) -> Option<IpNet> {
        let (_, serial) = self.at.range(address..=address | !bits::mask(len)).next()?;
        self.remove(*serial)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Those that are kept for a name.
    pub(super) const fn claimed(&self) -> usize {
        self.claimed
    }

    /// Nobody has a claim to a prefix any longer; it still rests.
    fn lapse(&mut self, serial: u64) {
        let Some(entry) = self.entries.get_mut(&serial) else {
            return;
        };
        let claim = entry.claim.take();
        self.ends.remove(&(entry.until, serial));
        entry.until = entry.since + QUARANTINE;
        self.ends.insert((entry.until, serial));
        self.unclaim(serial, claim);
    }

    fn unclaim(&mut self, serial: u64, claim: Option<Claim>) {
        let Some(claim) = claim else {
            return;
        };
        self.claimed -= 1;
        if let Some(serials) = self.claims.get_mut(&claim.name) {
            serials.retain(|other| *other != serial);
            if serials.is_empty() {
                self.claims.remove(&claim.name);
            }
        }
    }

    fn remove(&mut self, serial: u64) -> Option<IpNet> {
        let entry = self.entries.remove(&serial)?;
        let (prefix, len) = (entry.prefix, entry.prefix.prefix_len());
        self.ends.remove(&(entry.until, serial));
        if let Some(of_len) = self.by_len.get_mut(&len) {
            of_len.remove(&serial);
            if of_len.is_empty() {
                self.by_len.remove(&len);
            }
        }
        self.at.remove(&bits::of(prefix.addr()));
        self.unclaim(serial, entry.claim);
        Some(prefix)
    }
}
