//! What a machine still holds: what tests compare with nothing, once everything has ended.

use super::machine::Machine;

/// Everything that belongs to a tunnel, counted where it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Tunnels in the table.
    pub tunnels: usize,
    /// Their deadlines.
    pub timers: usize,
    /// Requests for no tunnel that are not done.
    pub plain: usize,
    /// Tunnels that carry connections of ours.
    pub nested: usize,
    /// Sockets towards targets, as the limit counts them.
    pub target_sockets: usize,
    /// Tunnels that wait for addresses, as the limit counts them.
    pub resolves: usize,
    /// Tickets of tunnels that wait for a connection to a next hop.
    pub waiting: usize,
    /// Streams of next hops that are in use, as the pool counts them.
    pub streams: usize,
    /// Streams that have an owner, of all connections.
    pub bound: usize,
}

impl Machine {
    /// What there is now.
    pub fn residue(&self) -> Residue {
        let (waiting, streams) = self.pool.in_use();
        Residue {
            tunnels: self.tunnels.len(),
            plain: self.fallback.len(),
            timers: self.timers.len(),
            nested: self.nested.len(),
            target_sockets: self.target_sockets,
            resolves: self.resolves,
            waiting,
            streams,
            bound: self.carriers.quic.bound_count() + self.carriers.tcp.bound_count(),
        }
    }
}
