//! What the lock of the pools protects.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::kept::Kept;
use super::space::Space;
use super::{AssignError, Holder, Owner, PoolConfig, PoolUsage, SITE_PREFIXES_MAX, first_host};
use crate::tunnel::ip::{ADDRESSES_MAX, PrefixMap, bits};

/// A prefix that a tunnel has.
#[derive(Clone, Debug)]
struct Lease {
    prefix: IpNet,
    holder: Holder,
}

/// All states of all addresses.
#[derive(Debug)]
pub(super) struct State {
    v4: Version,
    v6: Version,
    assignments_max: usize,
    assignments_per_user_max: usize,
    grace: Duration,
    leases: HashMap<Owner, Vec<Lease>>,
    /// How many of them a holder has, never zero.
    shares: HashMap<Holder, usize>,
    /// The leases by prefix. They do not overlap.
    assigned: PrefixMap<Owner>,
    sites: HashMap<Owner, Vec<IpNet>>,
    /// The same by prefix; the latest owner last, never none.
    site_prefixes: PrefixMap<Vec<Owner>>,
}

/// What there is of one version of IP.
#[derive(Debug, Default)]
struct Version {
    free: Space,
    /// What is not free and no tunnel has.
    kept: Kept,
    /// Both of them: all that no tunnel has.
    idle: Space,
    /// The shortest prefix that may be given and, with everything free, could be; None without a pool.
    len_min: Option<u8>,
}

impl Version {
    fn new<'a>(pools: impl Iterator<Item = &'a IpNet> + Clone, len_min: u8) -> Self {
        let space = || {
            let mut space = Space::default();
            for pool in pools.clone() {
                space.give(bits::of(pool.network()), pool.prefix_len());
                for reserved in reserved(pool) {
                    space.take_exact(bits::of(reserved), pool.max_prefix_len());
                }
            }
            space
        };
        let (free, idle) = (space(), space());
        let len_min = free.shortest().map(|shortest| shortest.max(len_min));
        let kept = Kept::default();
        Self {
            free,
            kept,
            idle,
            len_min,
        }
    }

    /// Takes a prefix of the version and length of `wished`; that one itself if it `matters` and can be had.
    fn take(
        &mut self,
        now: Instant,
        wished: IpNet,
        matters: bool,
        name: Option<&str>,
    ) -> Option<IpNet> {
        self.forget(now);
        let prefix = self.choose(now, wished, matters, name)?;
        let was_idle = (self.idle).take_exact(bits::of(prefix.addr()), prefix.prefix_len());
        debug_assert!(was_idle, "{prefix} is assigned");
        Some(prefix)
    }

    fn choose(
        &mut self,
        now: Instant,
        wished: IpNet,
        matters: bool,
        name: Option<&str>,
    ) -> Option<IpNet> {
        let len = wished.prefix_len();
        if matters && self.free.take_exact(bits::of(wished.addr()), len) {
            return Some(wished);
        }
        if let Some(name) = name {
            let mut claimed = |is_it: &dyn Fn(IpNet) -> bool| {
                self.kept
                    .take_claimed(now, name, |p| p.prefix_len() == len && is_it(p))
            };
            let same = claimed(&|prefix| matters && prefix == wished);
            if let Some(prefix) = same.or_else(|| claimed(&|_| true)) {
                return Some(prefix);
            }
        }
        let address = self.free.take(len).or_else(|| self.reclaim(len))?;
        Some(bits::prefix(address, len, wished))
    }

    /// Takes what is kept or at rest, since nothing of this length is free.
    fn reclaim(&mut self, len: u8) -> Option<u128> {
        if let Some(prefix) = self.kept.take_oldest(len) {
            self.free(prefix);
            // Whatever is free of this length now is in that prefix.
            return self.free.take(len);
        }
        // None is large enough alone; neighbours may be together.
        let (address, _) = self.idle.find(len)?;
        while let Some(prefix) = self.kept.take_within(address, len) {
            self.free(prefix);
        }
        (self.free.take_exact(address, len)).then_some(address)
    }

    /// A tunnel does not have a prefix any longer.
    fn give(&mut self, now: Instant, prefix: IpNet, claim: Option<(Arc<str>, Duration)>) {
        self.idle.give(bits::of(prefix.addr()), prefix.prefix_len());
        self.kept.add(now, prefix, claim);
        self.forget(now);
    }

    /// Frees what has been kept for long enough.
    fn forget(&mut self, now: Instant) {
        while let Some(prefix) = self.kept.take_ended(now) {
            self.free(prefix);
        }
    }

    fn free(&mut self, prefix: IpNet) {
        self.free.give(bits::of(prefix.addr()), prefix.prefix_len());
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
            // A client has to be told of all.
            assignments_max: config.assignments_max.min(ADDRESSES_MAX),
            assignments_per_user_max: config.assignments_per_user_max,
            grace: config.grace,
            leases: HashMap::new(),
            shares: HashMap::new(),
            assigned: PrefixMap::default(),
            sites: HashMap::new(),
            site_prefixes: PrefixMap::default(),
        }
    }

    pub(super) fn assign(
        &mut self,
        now: Instant,
        owner: Owner,
        wish: IpNet,
        holder: &Holder,
    ) -> Result<IpNet, AssignError> {
        let has = self.leases.get(&owner).map_or(0, Vec::len);
        if has >= self.assignments_max {
            let max = self.assignments_max;
            return Err(AssignError::TooMany { max });
        }
        let share = self.shares.get(holder).copied().unwrap_or(0);
        if share >= self.assignments_per_user_max {
            let max = self.assignments_per_user_max;
            return Err(AssignError::TooManyOfUser { max });
        }
        let version = self.version(wish);
        let len_min = version.len_min.ok_or(AssignError::NotDelegable)?;
        let len = wish.prefix_len().max(len_min);
        let wished = bits::prefix(bits::of(wish.addr()), len, wish);
        let matters = !wish.addr().is_unspecified();
        let prefix = (version.take(now, wished, matters, holder.name()))
            .ok_or(AssignError::Exhausted { len })?;
        let leases = self.leases.entry(owner).or_default();
        let holder = holder.clone();
        *self.shares.entry(holder.clone()).or_default() += 1;
        leases.push(Lease { prefix, holder });
        self.assigned.insert(prefix, owner);
        Ok(prefix)
    }

    pub(super) fn release(&mut self, now: Instant, owner: Owner) -> Vec<IpNet> {
        self.withdraw(owner);
        let leases = self.leases.remove(&owner).unwrap_or_default();
        let prefixes = leases.iter().map(|lease| lease.prefix).collect();
        for lease in leases {
            self.end(now, lease);
        }
        prefixes
    }

    /// A prefix that a tunnel had is kept or at rest from now on.
    fn end(&mut self, now: Instant, lease: Lease) {
        let Lease { prefix, holder } = lease;
        self.assigned.remove(prefix);
        if let Some(share) = self.shares.get_mut(&holder) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&holder);
            }
        }
        let claim = match holder {
            Holder::Named(name) => Some((name, self.grace)),
            Holder::Unnamed(_) => None,
        };
        self.version(prefix).give(now, prefix, claim);
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
            kept: self.v4.kept.claimed() + self.v6.kept.claimed(),
            resting: [&self.v4.kept, &self.v6.kept]
                .map(|kept| kept.len() - kept.claimed())
                .iter()
                .sum(),
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
