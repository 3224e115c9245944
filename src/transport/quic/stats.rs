//! What a hub counts.

/// What a hub counts. Plain integers: a worker owns them.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubStats {
    /// Connections whose handshake finished.
    pub connections_opened: u64,
    /// Connections that ended, for whatever reason.
    pub connections_closed: u64,
    /// Connections that we closed because the peer broke HTTP/3.
    pub connections_misbehaved: u64,
    /// Handshakes answered with Retry.
    pub retries_sent: u64,
    /// Handshakes refused because the hub drains.
    pub connections_refused_draining: u64,
    /// Handshakes refused because enough connections are open.
    pub connections_refused: u64,
    /// Handshakes that could not be accepted.
    pub handshakes_failed: u64,
    /// Handshakes refused because a limit was reached or the hub drains.
    pub handshakes_refused: u64,
    /// Handshakes given up after [`HubLimits::handshake_timeout`].
    pub handshakes_timed_out: u64,
    /// UDP datagrams that belong to no connection, or are not QUIC.
    pub packets_ignored: u64,
    /// Tunnel datagrams received.
    pub datagrams_received: u64,
    /// Tunnel datagrams given to QUIC.
    pub datagrams_sent: u64,
    /// Tunnel datagrams sent as capsules because the peer takes no QUIC datagrams.
    pub capsules_sent: u64,
    /// Received datagrams dropped: their stream is gone, or not yet known and the hold is full.
    pub dropped_unroutable: u64,
    /// Dropped because the tunnel's queue was full, oldest first.
    pub dropped_queue_full: u64,
    /// Dropped because they do not fit the path (RFC 9298 §6.1).
    pub dropped_too_large: u64,
    /// Dropped because the stream that carries capsules was blocked.
    pub dropped_stream_blocked: u64,
    /// Dropped because the tunnel ended while they waited.
    pub dropped_closed: u64,
}
