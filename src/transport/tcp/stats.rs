//! What a hub of TCP carriers counts.

use super::CloseReason;
use crate::counters::counters;
use crate::http::h3::code::Code;

counters! {
    /// What a [`TcpHub`](super::TcpHub) counts, from its start.
    pub struct TcpHubStats {
        /// Connections whose handshake finished, HTTP included.
        tcp_connections_opened,
        /// Connections that ended, for whatever reason.
        tcp_connections_closed,
        /// Connections that we closed because the peer broke HTTP.
        tcp_connections_misbehaved,
        /// Connections refused because of [`TcpHubLimits::connections_max`](super::TcpHubLimits::connections_max).
        tcp_connections_refused,
        /// Connections refused because of
        /// [`TcpHubLimits::connections_per_address_max`](super::TcpHubLimits::connections_per_address_max).
        tcp_connections_refused_address,
        /// Connections refused because the hub drains.
        tcp_connections_refused_draining,
        /// Handshakes given up after [`TcpHubLimits::handshake_timeout`](super::TcpHubLimits::handshake_timeout).
        tcp_handshakes_timed_out,
        /// Handshakes in which TLS failed.
        tcp_handshakes_failed,
        /// Connections closed because a head took longer than
        /// [`TcpHubLimits::head_timeout`](super::TcpHubLimits::head_timeout).
        tcp_heads_timed_out,
        /// Connections closed because they had no stream for
        /// [`TcpHubLimits::idle_timeout`](super::TcpHubLimits::idle_timeout).
        tcp_idle_timed_out,
        /// Connections closed because the peer took nothing for
        /// [`TcpHubLimits::write_timeout`](super::TcpHubLimits::write_timeout).
        tcp_writes_timed_out,
        /// Connections closed because of [`TcpHubLimits::control_frames_max`](super::TcpHubLimits::control_frames_max).
        tcp_floods,
        /// Connections closed with ENHANCE_YOUR_CALM: floods, and too many resets, refusals or empty frames.
        tcp_calmed,
        /// Connections that ended without a closure alert of TLS: what they carried may be cut short.
        tcp_truncated,
        /// Requests and responses refused because they were malformed.
        tcp_malformed,
        /// Streams on which a whole window of data arrived and waited to be read.
        tcp_streams_stalled,
        /// Turns at whose end HTTP had more to write than may wait for the link.
        tcp_writes_blocked,
        /// Tunnel datagrams given to a stream as capsules.
        tcp_capsules_sent,
        /// Tunnel datagrams that had to wait because their stream had no room.
        tcp_datagrams_queued,
        /// Dropped because the tunnel's queue was full, oldest first.
        tcp_dropped_queue_full,
        /// Dropped because no capsule may be that large.
        tcp_dropped_too_large,
        /// Dropped because the tunnel ended while they waited.
        tcp_dropped_closed,
        /// Bytes read from links.
        tcp_bytes_received,
        /// Bytes written to links.
        tcp_bytes_sent,
    }
}

impl TcpHubStats {
    /// Counts the end of a connection by its reason.
    pub(super) fn count_end(&mut self, reason: &CloseReason, is_handshaking: bool) {
        let counter = match reason {
            CloseReason::Misbehaved(error) => {
                self.tcp_connections_misbehaved += 1;
                if error.code == Code::H3_EXCESSIVE_LOAD {
                    &mut self.tcp_calmed
                } else {
                    return;
                }
            }
            CloseReason::Truncated => &mut self.tcp_truncated,
            CloseReason::HandshakeTimeout => &mut self.tcp_handshakes_timed_out,
            CloseReason::HeadTimeout => &mut self.tcp_heads_timed_out,
            CloseReason::IdleTimeout => &mut self.tcp_idle_timed_out,
            CloseReason::WriteTimeout => &mut self.tcp_writes_timed_out,
            CloseReason::Tls(_) if is_handshaking => &mut self.tcp_handshakes_failed,
            CloseReason::Tls(_)
            | CloseReason::Peer(_)
            | CloseReason::Lost(_)
            | CloseReason::Aborted(_)
            | CloseReason::Local => {
                return;
            }
        };
        *counter += 1;
    }
}
