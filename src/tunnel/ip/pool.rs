//! The addresses that a process gives to IP tunnels, and who has them.
//!
//! ```text
//!              assign                          release, holder has no name
//!   free ─────────────────► assigned to a tunnel ───────────────────────► at rest ── QUARANTINE is over ──► free
//!     ▲                          ▲      │ release, holder has a name
//!     │ grace is over    assign, │      ▼
//!     └───────────────────── same name: kept
//! ```
//!
//! When nothing is free, what is kept or at rest is given away, the one whose tunnel ended longest ago first: nobody
//! goes without an address for the sake of somebody who is not there. Until then nobody else can have it, not even by a
//! wish.
//!
//! Shared by all workers, behind one lock that is held for a few look-ups and never while anything else is called; a
//! worker asks when tunnels open and close, and for a packet to an address that is not one of its own tunnels'.
//!
//! Invariants: no address is in two states, or assigned twice; the network address, the first host (the gateway's own)
//! and, in IPv4, the broadcast address of a pool are never given away; a closed tunnel has nothing. Besides assigned
//! addresses, a tunnel may own prefixes that its peer advertises (a site); longest prefix first, the latest first, and
//! below all assigned ones.
//!
//! Not decided here: what to answer to a request ([`Peer`](super::Peer)), and whether a site's prefix is believed.

mod kept;
mod space;
mod state;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use thiserror::Error;

use self::state::State;
use super::bits;
use crate::wire::ip::overlap;

/// Most prefixes of the network behind one tunnel.
pub const SITE_PREFIXES_MAX: usize = 1024;

/// How long a prefix is given to nobody else after its tunnel has ended, if there are others: packets for its last user
/// are still under way, of connections that nobody has closed. As long as Linux stays in TIME-WAIT.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// Most prefixes of each version of IP that are kept or at rest in a process; the oldest is free then.
pub const KEPT_MAX: usize = 65_536;

/// What a process has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Where addresses come from, of both versions. They do not overlap.
    pub prefixes: Vec<IpNet>,
    /// The prefix length in IPv4 of who wishes for nothing.
    pub prefix_len_v4: u8,
    /// The same in IPv6.
    pub prefix_len_v6: u8,
    /// The shortest prefix in IPv4 that may be wished for.
    pub prefix_len_min_v4: u8,
    /// The same in IPv6.
    pub prefix_len_min_v6: u8,
    /// Most prefixes of one tunnel; never more than [`ADDRESSES_MAX`](super::ADDRESSES_MAX).
    pub assignments_max: usize,
    /// Most prefixes of one [`Holder`], in all tunnels together.
    pub assignments_per_user_max: usize,
    /// How long a prefix is kept for a name whose tunnel has ended.
    pub grace: Duration,
}

impl Default for PoolConfig {
    /// No address; single addresses only, eight of them per tunnel and 16,384 per user, kept for five minutes.
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            prefix_len_v4: 32,
            prefix_len_v6: 128,
            prefix_len_min_v4: 32,
            prefix_len_min_v6: 128,
            assignments_max: 8,
            assignments_per_user_max: 16_384,
            grace: Duration::from_secs(300),
        }
    }
}

/// Why a configuration gives nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PoolError {
    /// Bits of a pool behind its prefix length are not zero.
    #[error("pool {prefix} has bits behind its prefix length")]
    HostBits {
        /// The pool.
        prefix: IpNet,
    },
    /// There is nothing to give beside the addresses that are set aside.
    #[error("pool {prefix} is too small: at most /30 in IPv4 and /126 in IPv6")]
    TooSmall {
        /// The pool.
        prefix: IpNet,
    },
    /// Two pools have addresses in common.
    #[error("pools {first} and {second} overlap")]
    Overlap {
        /// One.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// No prefix of this version has such a length.
    #[error("prefix length {len} is not in {min}..={max}")]
    Length {
        /// The default length, or the shortest.
        len: u8,
        /// The least that would do.
        min: u8,
        /// The most.
        max: u8,
    },
}

/// A tunnel of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The worker that owns it.
    pub worker: u32,
    /// Its name there.
    pub tunnel: u64,
}

/// Who a tunnel is of, as far as addresses go: all tunnels of one holder have one share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Somebody whom the relay knows by this name. Prefixes are kept for them.
    Named(Arc<str>),
    /// Nobody in particular who comes from this network: one address of IPv4, or a /64 of IPv6, which is what a host
    /// has to choose from (RFC 7934). Nothing is kept: the next one from there may be somebody else.
    Unnamed(IpNet),
}

impl Holder {
    /// The holder of a tunnel of a client at this address.
    #[must_use]
    pub fn new(name: Option<&str>, address: IpAddr) -> Self {
        match name {
            Some(name) => Self::Named(name.into()),
            None => {
                let address = IpNet::from(address.to_canonical());
                let len = address.max_prefix_len().min(64);
                Self::Unnamed(bits::prefix(bits::of(address.addr()), len, address))
            }
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Unnamed(_) => None,
        }
    }
}

/// Why a tunnel gets no address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AssignError {
    /// There is no pool of this version of IP.
    #[error("no pool of this version of IP")]
    NotDelegable,
    /// The tunnel has its share.
    #[error("the tunnel has {max} prefixes already")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// The tunnels of its holder have their share.
    #[error("the tunnels of this user have {max} prefixes already")]
    TooManyOfUser {
        /// The most.
        max: usize,
    },
    /// Tunnels have everything of this length.
    #[error("no prefix of length {len} is left")]
    Exhausted {
        /// The length after it was brought within what may be given.
        len: u8,
    },
}

/// How much of the pools is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Prefixes that tunnels have.
    pub assigned: usize,
    /// Prefixes that are kept for names.
    pub kept: usize,
    /// Prefixes at rest, which nobody has a claim to.
    pub resting: usize,
    /// Prefixes of sites.
    pub site_prefixes: usize,
}

/// The address pools of a process. Clones are the same pools.
#[derive(Clone, Debug)]
pub struct Pools {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateways: Vec<IpAddr>,
    defaults: Vec<IpNet>,
    #[expect(
        clippy::disallowed_types,
        reason = "an address is given once per process, so workers have to agree on it"
    )]
    state: std::sync::RwLock<State>,
}

impl Pools {
    /// Pools with everything free.
    ///
    /// # Errors
    /// [`PoolError`]: what is wrong with the first bad part of the configuration.
    pub fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        check(config)?;
        let mut defaults = Vec::new();
        for (len, any) in [
            (config.prefix_len_v4, IpNet::V4(ipnet::Ipv4Net::default())),
            (config.prefix_len_v6, IpNet::V6(ipnet::Ipv6Net::default())),
        ] {
            let is_alike = |p: &IpNet| p.max_prefix_len() == any.max_prefix_len();
            if config.prefixes.iter().any(is_alike) {
                defaults.push(bits::prefix(0, len, any));
            }
        }
        let gateways = config.prefixes.iter().map(first_host).collect();
        #[expect(clippy::disallowed_types, reason = "as above")]
        let state = std::sync::RwLock::new(State::new(config));
        let shared = Arc::new(Shared {
            gateways,
            defaults,
            state,
        });
        Ok(Self { shared })
    }

    /// The gateway's own address in each pool, in the order of the configuration: the first host.
    #[must_use]
    pub fn gateway_addresses(&self) -> &[IpAddr] {
        &self.shared.gateways
    }

    /// What to wish for on behalf of a tunnel that has said nothing: one prefix per version that there is a pool of.
    #[must_use]
    pub fn default_wishes(&self) -> &[IpNet] {
        &self.shared.defaults
    }

    /// Gives a tunnel a prefix of the version and, within what may be delegated, of the length of `wish`.
    ///
    /// It is the address of `wish`, if that is not all zero and free; else one that is kept for the name of `holder`;
    /// else any that is free; else one that is kept or at rest.
    ///
    /// # Errors
    /// [`AssignError`].
    pub fn assign(
        &self,
        now: Instant,
        owner: Owner,
        wish: IpNet,
        holder: &Holder,
    ) -> Result<IpNet, AssignError> {
        self.write().assign(now, owner, wish, holder)
    }

    /// Takes back everything of a tunnel, the prefixes of its site included. Gives what had been assigned.
    pub fn release(&self, now: Instant, owner: Owner) -> Vec<IpNet> {
        self.write().release(now, owner)
    }

    /// Says which networks are behind a tunnel: the full list, which replaces the one before. At most
    /// [`SITE_PREFIXES_MAX`] count; whether all of them did.
    ///
    /// Where two tunnels advertise the same prefix, the later has it, and the earlier again when that is gone.
    pub fn advertise(&self, owner: Owner, prefixes: &[IpNet]) -> bool {
        let mut state = self.write();
        state.withdraw(owner);
        state.advertise(owner, prefixes)
    }

    /// The tunnel that a packet to this address goes to, if any.
    #[must_use]
    pub fn owner_of(&self, address: IpAddr) -> Option<Owner> {
        self.read().owner_of(address)
    }

    /// How much is taken at the moment.
    #[must_use]
    pub fn usage(&self) -> PoolUsage {
        self.read().usage()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        (self.shared.state.read()).unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        (self.shared.state.write()).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gateway's address in a pool.
fn first_host(pool: &IpNet) -> IpAddr {
    let last_bit = bits::half(pool.max_prefix_len());
    let network = bits::of(pool.network());
    bits::prefix(network | last_bit, pool.max_prefix_len(), *pool).addr()
}

fn check(config: &PoolConfig) -> Result<(), PoolError> {
    for (index, &prefix) in config.prefixes.iter().enumerate() {
        if prefix != prefix.trunc() {
            return Err(PoolError::HostBits { prefix });
        }
        if prefix.prefix_len() > prefix.max_prefix_len() - 2 {
            return Err(PoolError::TooSmall { prefix });
        }
        let mut before = config.prefixes.iter().take(index);
        if let Some(&first) = before.find(|other| overlap(other, &prefix)) {
            let second = prefix;
            return Err(PoolError::Overlap { first, second });
        }
    }
    for (len, shortest, max) in [
        (config.prefix_len_v4, config.prefix_len_min_v4, 32),
        (config.prefix_len_v6, config.prefix_len_min_v6, 128),
    ] {
        for (len, min) in [(shortest, 1), (len, shortest)] {
            if !(min..=max).contains(&len) {
                return Err(PoolError::Length { len, min, max });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
