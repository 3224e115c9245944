//! Bounds and settings of a hub of TCP carriers.

use std::time::Duration;

use crate::config::limits;
use crate::transport::outbox::OutboxLimits;

/// Bounds of a [`TcpHub`](super::TcpHub). The defaults are those of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct TcpHubLimits {
    /// Most connections of clients. Connections that we dial are not counted: their owner has a limit of its own.
    pub connections_max: usize,
    /// Most connections of one client: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_address_max: usize,
    /// Most requests that a client may have open on one connection.
    pub streams_max: u32,
    /// Decoded size of a field section.
    pub field_section_bytes: u32,
    /// Unread bytes that a peer may have in flight on one stream.
    pub stream_window: u32,
    /// Unread bytes that a peer may have in flight on all streams of a connection.
    pub connection_window: u32,
    /// Encrypted bytes of one connection that wait for the link; one record more at most.
    pub pending_bytes_max: usize,
    /// Control frames beyond those that data and time pay for.
    pub control_frames_max: u32,
    /// Requests that a client may reset before we have looked at them.
    pub pending_resets_max: usize,
    /// How long TCP's other end may take for the handshake of TLS and HTTP.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take from its first byte to its last.
    pub head_timeout: Duration,
    /// How long a connection lives without a stream.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what waits for it.
    pub write_timeout: Duration,
    /// How long a connection that is over waits for the peer to end it as well (RFC 9112 section 9.6).
    pub linger: Duration,
    /// The waiting room of each tunnel's datagrams towards its stream.
    pub outbox: OutboxLimits,
}

impl Default for TcpHubLimits {
    fn default() -> Self {
        let count = |limit: &limits::Limit| usize::try_from(limit.default).unwrap_or(usize::MAX);
        let word = |limit: &limits::Limit| u32::try_from(limit.default).unwrap_or(u32::MAX);
        let millis = |limit: &limits::Limit| Duration::from_millis(u64::from(word(limit)));
        Self {
            connections_max: count(&limits::TCP_CONNECTIONS),
            connections_per_address_max: count(&limits::TCP_CONNECTIONS_PER_ADDRESS),
            streams_max: word(&limits::TUNNELS_PER_CONNECTION),
            field_section_bytes: word(&limits::FIELD_SECTION_BYTES),
            stream_window: word(&limits::TCP_STREAM_WINDOW),
            connection_window: word(&limits::TCP_CONNECTION_WINDOW),
            pending_bytes_max: count(&limits::TCP_PENDING_BYTES),
            control_frames_max: word(&limits::TCP_CONTROL_FRAMES),
            pending_resets_max: count(&limits::TCP_PENDING_RESETS),
            handshake_timeout: millis(&limits::TCP_HANDSHAKE_TIMEOUT),
            head_timeout: millis(&limits::TCP_HEAD_TIMEOUT),
            idle_timeout: millis(&limits::TCP_IDLE_TIMEOUT),
            write_timeout: millis(&limits::TCP_WRITE_TIMEOUT),
            linger: Duration::from_secs(2),
            outbox: OutboxLimits {
                datagrams_max: count(&limits::QUEUE_DATAGRAMS),
                bytes_max: count(&limits::QUEUE_BYTES),
            },
        }
    }
}
