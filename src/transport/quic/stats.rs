//! What a hub counts.

use crate::counters::counters;

counters! {
    /// What a [`Hub`](super::Hub) counts, from its start.
    pub struct HubStats {
        /// Connections whose handshake finished.
        connections_opened,
        /// Connections that ended, for whatever reason.
        connections_closed,
        /// Connections that we closed because the peer broke HTTP/3.
        connections_misbehaved,
        /// Connections refused because of [`HubLimits::connections_max`](super::HubLimits::connections_max).
        connections_refused,
        /// Connections refused because the hub drains.
        connections_refused_draining,
        /// Handshakes answered with Retry.
        retries_sent,
        /// Handshakes refused because of [`HubLimits::handshakes_max`](super::HubLimits::handshakes_max).
        handshakes_refused,
        /// Handshakes that failed with their first packet.
        handshakes_failed,
        /// Handshakes given up after [`HubLimits::handshake_timeout`](super::HubLimits::handshake_timeout).
        handshakes_timed_out,
        /// UDP datagrams that belong to no connection, or are not QUIC, and were not answered.
        packets_ignored,
        /// Stateless resets sent: somebody uses a connection that we do not have, or have no more.
        resets_sent,
        /// Connections that a stateless reset of the peer ended: it has lost its state.
        connections_reset,
        /// Tunnel datagrams received.
        quic_datagrams_received,
        /// Tunnel datagrams given to QUIC.
        quic_datagrams_sent,
        /// Tunnel datagrams sent as capsules because the peer takes no QUIC datagrams.
        capsules_sent,
        /// Tunnel datagrams that had to wait because QUIC's send buffer was full, or SETTINGS had not arrived.
        datagrams_queued,
        /// Received datagrams dropped: their stream is gone, or not yet known and the hold is full.
        dropped_unroutable,
        /// Received datagrams that fell out of QUIC's receive buffer, or lay in it when the connection ended.
        dropped_receive_buffer_full,
        /// Dropped because the tunnel's queue was full, oldest first.
        dropped_queue_full,
        /// Dropped because they do not fit the path (RFC 9298 §6.1).
        dropped_too_large,
        /// Dropped because the stream that carries capsules was blocked.
        dropped_stream_blocked,
        /// Dropped because the tunnel ended while they waited.
        dropped_closed,
        /// STREAMS_BLOCKED frames received: a client wants more requests than it may have.
        streams_blocked,
        /// STREAM_DATA_BLOCKED frames received: a peer wants more credit on one stream.
        stream_data_blocked,
        /// DATA_BLOCKED frames received: a peer wants more credit on a connection.
        data_blocked,
    }
}
