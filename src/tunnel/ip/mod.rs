//! IP tunnels as machines without I/O (RFC 9484): what arrives, what both ends have agreed on, who has which address.
//!
//! ```text
//!   data stream ─► Inbound ─┬─ packets ───────────────────► Peer: may it pass? ─► the other leg, the gateway
//!   QUIC DATAGRAM ─ arrival ┘    └ capsules of IP ────────► Peer: addresses, requests, routes ─► IpEvent
//!
//!   Pools     the addresses of a process, shared by its workers: given to tunnels, owned by tunnels
//!   IdMap     the requests of a client under their names at the next hop
//!   PrefixMap longest prefix match
//! ```
//!
//! Packets are not read here; [`PacketFacts`] is all that the checks need of one. Time comes in as an argument.

mod bits;
mod error;
mod ids;
mod inbound;
mod peer;
mod pool;
mod prefix_map;
mod routes;

pub use self::error::IpError;
pub use self::ids::IdMap;
pub use self::inbound::{Arrival, Delivery, IP_PACKET_MAX, IP_VALUE_MAX, Inbound, arrival};
pub use self::peer::{
    ADDRESSES_MAX, IpEvent, NAMES_MAX, PENDING_MAX, PacketFacts, Peer, REQUESTS_MAX, ROUTES_MAX,
    SAID_BYTES_MAX, Violation, refusal,
};
pub use self::pool::{
    AssignError, Holder, KEPT_MAX, Owner, PoolConfig, PoolError, PoolUsage, Pools, QUARANTINE,
    SITE_PREFIXES_MAX,
};
pub use self::prefix_map::PrefixMap;
