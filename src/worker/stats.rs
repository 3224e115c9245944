//! What one worker counts: plain integers, read by the worker alone and added up when it hands them out.

use crate::counters::counters;
use crate::net;
use crate::transport::quic::HubStats;
use crate::transport::tcp::TcpHubStats;
use crate::tunnel::ip::Violation;

counters! {
    /// Counters of one [`Machine`](super::Machine), from its start.
    pub struct Stats {
        /// Requests of clients.
        requests,
        /// Requests of clients that were refused, for whatever reason.
        requests_refused,
        /// Requests that asked for no tunnel and were answered.
        requests_answered,
        /// Responses whose body nobody read for too long.
        bodies_unread,
        /// Messages that broke the rules of HTTP.
        requests_malformed,
        /// Requests and responses whose field section was too large.
        field_sections_refused,
        /// Tunnels that opened.
        tunnels_opened,
        /// Tunnels that ended, opened or not.
        tunnels_ended,
        /// Tunnels refused because there were [`MachineLimits::tunnels_max`](super::MachineLimits::tunnels_max).
        tunnels_refused,
        /// Tunnels ended because nothing came for too long.
        tunnels_idle,
        /// Tunnels ended because the peer broke the rules of datagrams or capsules.
        tunnels_misbehaved,
        /// Tunnels refused because of [`MachineLimits::target_sockets_max`](super::MachineLimits::target_sockets_max).
        target_sockets_refused,
        /// Errors of target sockets that ended a tunnel.
        target_errors,
        /// Names that were not looked up
        /// because of [`MachineLimits::resolves_max`](super::MachineLimits::resolves_max).
        resolves_refused,
        /// Passwords that were not checked because too many were being checked.
        password_checks_refused,
        /// Passwords forgotten before their time, to make room for others.
        verified_passwords_evicted,
        /// Payloads relayed towards the target.
        upstream_datagrams,
        /// Their bytes.
        upstream_bytes,
        /// Payloads relayed towards the client.
        downstream_datagrams,
        /// Their bytes.
        downstream_bytes,
        /// Bytes of TCP relayed towards the target.
        tcp_upstream_bytes,
        /// Bytes of TCP relayed towards the client.
        tcp_downstream_bytes,
        /// Times that a direction of a TCP tunnel held
        /// [`MachineLimits::tcp_buffer_bytes`](super::MachineLimits::tcp_buffer_bytes), and its far end took no more.
        tcp_buffers_full,
        /// Datagrams with an unknown Context ID, or none.
        dropped_context,
        /// Payloads that came before the tunnel was open and found its hold full.
        dropped_early,
        /// IP packets without a header that can be read.
        ip_dropped_malformed,
        /// IP packets from an address that was not given to their sender (BCP 38).
        ip_dropped_source,
        /// IP packets for a destination outside the scope of their tunnel.
        ip_dropped_destination,
        /// IP packets of a protocol outside the scope of their tunnel.
        ip_dropped_protocol,
        /// IP packets for a destination that policy forbids.
        ip_dropped_prohibited,
        /// IP packets whose hop limit came to its end here.
        ip_dropped_hop_limit,
        /// IP packets that are larger than their tunnel carries.
        ip_dropped_too_big,
        /// IP packets for an address that no client has.
        ip_dropped_unassigned,
        /// IP packets that found the stream full which had to carry them.
        ip_dropped_blocked,
        /// IP packets that went on the stream because no QUIC datagram takes them.
        ip_sent_in_capsules,
        /// ICMP errors about packets of clients, or for them.
        ip_errors_sent,
        /// ICMP errors that were not sent because there were too many.
        ip_errors_suppressed,
        /// Addresses and prefixes given to clients.
        ip_addresses_assigned,
        /// Requests for one that were refused.
        ip_assignments_refused,
        /// Those of them by users who have as many as one user may have.
        ip_shares_refused,
        /// Routes of clients that were not theirs to advertise.
        ip_routes_refused,
        /// IP tunnels ended because their peer took no capsules.
        ip_capsules_refused,
        /// Packets that belonged to another worker.
        strays_forwarded,
        /// Trains of them that found the other worker's mailbox full.
        dropped_mailbox_full,
    }
}

/// Every counter of a worker, or of several added up, by its name.
pub fn named(
    machine: &Stats,
    hub: &HubStats,
    tcp: &TcpHubStats,
    net: &net::Stats,
) -> impl Iterator<Item = (&'static str, u64)> {
    let connections = hub.named().chain(tcp.named());
    machine.named().chain(connections).chain(net.named())
}

impl Stats {
    /// Counts a packet that may not pass.
    pub(super) fn count_violation(&mut self, violation: Violation) {
        *match violation {
            Violation::Source => &mut self.ip_dropped_source,
            Violation::Destination => &mut self.ip_dropped_destination,
            Violation::Protocol => &mut self.ip_dropped_protocol,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::limits;

    #[test]
    fn every_limit_counts_its_hits_under_a_name_of_its_own() {
        let (machine, net) = (Stats::default(), net::Stats::default());
        let (hub, tcp) = (HubStats::default(), TcpHubStats::default());
        let all: Vec<_> = named(&machine, &hub, &tcp, &net)
            .map(|(name, _)| name)
            .collect();
        let names: HashSet<_> = all.iter().copied().collect();
        assert_eq!(names.len(), all.len(), "two counters of one name");
        for limit in limits::ALL.iter().chain(limits::TCP).chain(limits::IP) {
            assert!(
                names.contains(limit.metric),
                "{}: {}",
                limit.key,
                limit.metric
            );
        }
    }
}
