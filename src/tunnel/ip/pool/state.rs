//! What the lock of the pools protects.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::space::Space;
use super::{AssignError, Owner, PoolConfig, PoolUsage, SITE_PREFIXES_MAX, first_host};
use crate::tunnel::ip::{PrefixMap, bits};

/// Most prefixes that are kept for one identity; the oldest go first.
pub(super) const KEPT_MAX: usize = 64;

/// A prefix that a tunnel has.
#[derive(Clone, Debug)]
struct Lease {
    prefix: IpNet,
    identity: Option<Arc<str>>,
}

/// A prefix that is kept for who had it.
#[derive(Debug)]
struct Kept {
    prefix: IpNet,
    identity: Arc<str>,
    since: Instant,
}

/// All states of all addresses.
#[derive(Debug)]
pub(super) struct State {
    v4: Version,
    v6: Version,
    assignments_max: usize,
    grace: Duration,
    leases: HashMap<Owner, Vec<Lease>>,
    /// The same by prefix. They do not overlap.
    assigned: PrefixMap<Owner>,
    /// By serial number, so the oldest first.
    kept: BTreeMap<u64, Kept>,
    /// The serial numbers of an identity, in order, not empty.
    kept_for: HashMap<Arc<str>, Vec<u64>>,
    serial: u64,
    sites: HashMap<Owner, Vec<IpNet>>,
    /// The same by prefix; the latest owner last, never none.
    site_prefixes: PrefixMap<Vec<Owner>>,
}

/// What there is of one version of IP.
#[derive(Debug, Default)]
struct Version {
    space: Space,
    /// The shortest prefix that may be given and, with everything free, could be; None without a pool.
    len_min: Option<u8>,
}

impl Version {
    fn new<'a>(pools: impl Iterator<Item = &'a IpNet>, len_min: u8) -> Self {
        let mut space = Space::default();
        for pool in pools {
            space.give(bits::of(pool.network()), pool.prefix_len());
            for reserved in reserved(pool) {
                space.take_exact(bits::of(reserved), pool.max_prefix_len());
            }
        }
        let len_min = space.shortest().map(|shortest| shortest.max(len_min));
        Self { space, len_min }
    }
}

/// The addresses of a pool that are never given away.
fn reserved(pool: &IpNet) -> impl Iterator<Item = IpAddr> {
    let broadcast = matches!(pool, IpNet::V4(_)).then(|| pool.broadcast());
    [pool.network(), first_host(pool)]
        .into_iter()
        .chain(broadcast)
}

impl State {
    pub(super) fn new(config: &PoolConfig) -> Self {
        let all = || config.prefixes.iter();
        let v4 = all().filter(|pool| matches!(pool, IpNet::V4(_)));
        let v6 = all().filter(|pool| matches!(pool, IpNet::V6(_)));
        Self {
            v4: Version::new(v4, config.prefix_len_min_v4),
            v6: Version::new(v6, config.prefix_len_min_v6),
            assignments_max: config.assignments_max,
            grace: config.grace,
            leases: HashMap::new(),
            assigned: PrefixMap::default(),
            kept: BTreeMap::new(),
            kept_for: HashMap::new(),
            serial: 0,
            sites: HashMap::new(),
            site_prefixes: PrefixMap::default(),
        }
    }

    pub(super) fn assign(
        &mut self,
        now: Instant,
        owner: Owner,
        wish: IpNet,
        identity: Option<&str>,
    ) -> Result<IpNet, AssignError> {
        self.forget(now);
        let has = self.leases.get(&owner).map_or(0, Vec::len);
        if has >= self.assignments_max {
            let max = self.assignments_max;
            return Err(AssignError::TooMany { max });
        }
        let len_min = self.version(wish).len_min;
        let len = (wish.prefix_len()).max(len_min.ok_or(AssignError::NotDelegable)?);
        let wished = bits::prefix(bits::of(wish.addr()), len, wish);
        let prefix = (self.take(wished, !wish.addr().is_unspecified(), identity))
            .ok_or(AssignError::Exhausted { len })?;
        let identity = identity.map(Arc::from);
        let leases = self.leases.entry(owner).or_default();
        leases.push(Lease { prefix, identity });
        self.assigned.insert(prefix, owner);
        Ok(prefix)
    }

    /// Takes a prefix of the version and length of `wished`; that one itself if it `matters` and can be had.
    fn take(&mut self, wished: IpNet, matters: bool, identity: Option<&str>) -> Option<IpNet> {
        let len = wished.prefix_len();
        if matters {
            let space = &mut self.version(wished).space;
            if space.take_exact(bits::of(wished.addr()), len) {
                return Some(wished);
            }
            if let Some(identity) = identity
                && let Some(prefix) = self.take_kept(identity, |prefix| prefix == wished)
            {
                return Some(prefix);
            }
        }
        if let Some(identity) = identity {
            let bits = wished.max_prefix_len();
            let is_alike = |p: IpNet| p.max_prefix_len() == bits && p.prefix_len() == len;
            if let Some(prefix) = self.take_kept(identity, is_alike) {
                return Some(prefix);
            }
        }
        let address = self.version(wished).space.take(len)?;
        Some(bits::prefix(address, len, wished))
    }

    /// Takes the oldest prefix that is kept for an identity and that will do.
    fn take_kept(&mut self, identity: &str, will_do: impl Fn(IpNet) -> bool) -> Option<IpNet> {
        let serials = self.kept_for.get(identity)?;
        let kept = &self.kept;
        let serial = serials
            .iter()
            .find(|serial| kept.get(serial).is_some_and(|kept| will_do(kept.prefix)));
        let serial = *serial?;
        self.unkeep(serial)
    }

    /// Takes a prefix out of those that are kept.
    fn unkeep(&mut self, serial: u64) -> Option<IpNet> {
        let Kept {
            prefix, identity, ..
        } = self.kept.remove(&serial)?;
        if let Some(serials) = self.kept_for.get_mut(&identity) {
            serials.retain(|other| *other != serial);
            if serials.is_empty() {
                self.kept_for.remove(&identity);
            }
        }
        Some(prefix)
    }

    /// Frees what has been kept for long enough.
    fn forget(&mut self, now: Instant) {
        while let Some((&serial, kept)) = self.kept.first_key_value()
            && now.saturating_duration_since(kept.since) >= self.grace
            && let Some(prefix) = self.unkeep(serial)
        {
            self.free(prefix);
        }
    }

    pub(super) fn release(&mut self, now: Instant, owner: Owner) -> Vec<IpNet> {
        self.withdraw(owner);
        let leases = self.leases.remove(&owner).unwrap_or_default();
        let prefixes = leases.iter().map(|lease| lease.prefix).collect();
        for lease in leases {
            self.end(now, lease);
        }
        self.forget(now);
        prefixes
    }

    /// A prefix that a tunnel had is kept or free from now on.
    fn end(&mut self, now: Instant, lease: Lease) {
        let Lease { prefix, identity } = lease;
        self.assigned.remove(prefix);
        let Some(identity) = identity else {
            return self.free(prefix);
        };
        self.serial += 1;
        let serials = self.kept_for.entry(Arc::clone(&identity)).or_default();
        serials.push(self.serial);
        let oldest = (serials.len() > KEPT_MAX).then(|| serials[0]);
        let since = now;
        let kept = Kept {
            prefix,
            identity,
            since,
        };
        self.kept.insert(self.serial, kept);
        if let Some(prefix) = oldest.and_then(|oldest| self.unkeep(oldest)) {
            self.free(prefix);
        }
    }

    fn free(&mut self, prefix: IpNet) {
        let address = bits::of(prefix.addr());
        self.version(prefix)
            .space
            .give(address, prefix.prefix_len());
    }

    pub(super) fn advertise(&mut self, owner: Owner, prefixes: &[IpNet]) -> bool {
        let mut own = Vec::new();
        for prefix in prefixes.iter().take(SITE_PREFIXES_MAX).map(IpNet::trunc) {
            match self.site_prefixes.get_exact_mut(prefix) {
                Some(owners) if owners.last() == Some(&owner) => continue,
                Some(owners) => owners.push(owner),
                None => {
                    self.site_prefixes.insert(prefix, vec![owner]);
                }
            }
            own.push(prefix);
        }
        if !own.is_empty() {
            self.sites.insert(owner, own);
        }
        prefixes.len() <= SITE_PREFIXES_MAX
    }

    pub(super) fn withdraw(&mut self, owner: Owner) {
        for prefix in self.sites.remove(&owner).unwrap_or_default() {
            if let Some(owners) = self.site_prefixes.get_exact_mut(prefix) {
                owners.retain(|other| *other != owner);
                if owners.is_empty() {
                    self.site_prefixes.remove(prefix);
                }
            }
        }
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<Owner> {
        let site = || self.site_prefixes.get(address)?.last();
        self.assigned.get(address).or_else(site).copied()
    }

    pub(super) fn usage(&self) -> PoolUsage {
        PoolUsage {
            assigned: self.assigned.len(),
            kept: self.kept.len(),
            site_prefixes: self.site_prefixes.len(),
        }
    }

    fn version(&mut self, like: IpNet) -> &mut Version {
        match like {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}
