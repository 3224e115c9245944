//! What one worker counts: plain integers, read by the worker alone and added up when it hands them out.

use std::ops::AddAssign;

/// Counters of one [`super::Machine`], from its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Requests that asked for a tunnel.
    pub requests: u64,
    /// Requests that were refused, for whatever reason.
    pub requests_refused: u64,
    /// Messages that broke the rules of HTTP.
    pub requests_malformed: u64,
    /// Tunnels that opened.
    pub tunnels_opened: u64,
    /// Tunnels that ended, opened or not.
    pub tunnels_ended: u64,
    /// Tunnels ended because nothing came for too long.
    pub tunnels_idle: u64,
    /// Payloads relayed towards the target.
    pub upstream_datagrams: u64,
    /// Their bytes.
    pub upstream_bytes: u64,
    /// Payloads relayed towards the client.
    pub downstream_datagrams: u64,
    /// Their bytes.
    pub downstream_bytes: u64,
    /// Datagrams with an unknown Context ID, or none.
    pub dropped_context: u64,
    /// Payloads that came before the tunnel was open and found its hold full.
    pub dropped_early: u64,
    /// Tunnels ended because the peer broke the rules of datagrams or capsules.
    pub tunnels_misbehaved: u64,
    /// Errors of target sockets that ended a tunnel.
    pub target_errors: u64,
    /// Packets that belonged to another worker.
    pub strays_forwarded: u64,
    /// Strays that found the other worker's mailbox full.
    pub strays_dropped: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            requests,
            requests_refused,
            requests_malformed,
            tunnels_opened,
            tunnels_ended,
            tunnels_idle,
            upstream_datagrams,
            upstream_bytes,
            downstream_datagrams,
            downstream_bytes,
            dropped_context,
            dropped_early,
            tunnels_misbehaved,
            target_errors,
            strays_forwarded,
            strays_dropped,
        } = other;
        self.requests += requests;
        self.requests_refused += requests_refused;
        self.requests_malformed += requests_malformed;
        self.tunnels_opened += tunnels_opened;
        self.tunnels_ended += tunnels_ended;
        self.tunnels_idle += tunnels_idle;
        self.upstream_datagrams += upstream_datagrams;
        self.upstream_bytes += upstream_bytes;
        self.downstream_datagrams += downstream_datagrams;
        self.downstream_bytes += downstream_bytes;
        self.dropped_context += dropped_context;
        self.dropped_early += dropped_early;
        self.tunnels_misbehaved += tunnels_misbehaved;
        self.target_errors += target_errors;
        self.strays_forwarded += strays_forwarded;
        self.strays_dropped += strays_dropped;
    }
}
