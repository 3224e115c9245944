//! Every bound on what peers can make a relay use: name, default, reason, and the metric that counts its hits.
//!
//! A limit is configured under its `key`; the file format takes its default from here, `check` its range, and
//! `bauta relay --check` adds the limits up to the worst-case memory. What is "per worker" multiplies with `workers`.

use std::ops::RangeInclusive;

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;

/// One bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Full key in the configuration.
    pub key: &'static str,
    /// Value when the configuration names none.
    pub default: i64,
    /// Smallest value with which a relay works.
    pub min: i64,
    /// Largest value that makes sense, and that every type it is stored in can hold.
    pub max: i64,
    /// Metric that counts how often the bound was hit.
    pub metric: &'static str,
    /// What happens at the bound, and why the default is what it is.
    pub reason: &'static str,
}

impl Limit {
    /// The accepted values.
    pub const fn range(&self) -> RangeInclusive<i64> {
        self.min..=self.max
    }
}

/// All limits, in the order of the documentation.
pub const ALL: &[&Limit] = &[
    &CONNECTIONS,
    &TUNNELS_PER_CONNECTION,
    &TUNNELS,
    &TARGET_SOCKETS,
    &EARLY_DATAGRAMS,
    &EARLY_BYTES,
    &QUEUE_DATAGRAMS,
    &QUEUE_BYTES,
    &TCP_BUFFER_BYTES,
    &FIELD_SECTION_BYTES,
    &MAILBOX,
    &RESOLVES,
    &PASSWORD_CHECKS,
    &VERIFIED_PASSWORDS,
    &PENDING_HANDSHAKES,
    &RETRY_HANDSHAKES,
    &DATAGRAM_SEND_BUFFER,
    &DATAGRAM_RECEIVE_BUFFER,
    &STREAM_RECEIVE_WINDOW,
    &RECEIVE_WINDOW,
    &SEND_WINDOW,
];

/// Downstream connections per worker.
pub const CONNECTIONS: Limit = Limit {
    key: "limits.connections",
    default: 4_096,
    min: 1,
    max: 1_000_000,
    metric: "connections_refused",
    reason: "a new connection is refused with CONNECTION_REFUSED; the buffers below are paid once per connection",
};

/// Requests open at once on one connection: the bidirectional stream credit, of which a client gets 100 first and more
/// as it uses them.
pub const TUNNELS_PER_CONNECTION: Limit = Limit {
    key: "limits.tunnels_per_connection",
    default: 1_024,
    min: 1,
    max: 65_536,
    metric: "streams_blocked",
    reason: "the client waits for stream credit; a browser behind one connection opens hundreds of tunnels",
};

/// Open tunnels per worker.
pub const TUNNELS: Limit = Limit {
    key: "limits.tunnels",
    default: 16_384,
    min: 1,
    max: 1_000_000,
    metric: "tunnels_refused",
    reason: "a request is refused with 503; four tunnels per connection at the default number of connections",
};

/// UDP sockets towards targets per worker.
pub const TARGET_SOCKETS: Limit = Limit {
    key: "limits.target_sockets",
    default: 16_384,
    min: 1,
    max: 1_000_000,
    metric: "target_sockets_refused",
    reason: "a request is refused with 503; each socket is a file descriptor, so LimitNOFILE must be above the sum",
};

/// Datagrams held per tunnel while its request is being decided.
pub const EARLY_DATAGRAMS: Limit = Limit {
    key: "limits.early_datagrams",
    default: 16,
    min: 0,
    max: 1_024,
    metric: "dropped_early",
    reason: "the newest is dropped; a QUIC client sends its first flight of up to ten packets along with the request",
};

/// Bytes of datagrams held per tunnel while its request is being decided.
pub const EARLY_BYTES: Limit = Limit {
    key: "limits.early_bytes",
    default: 32 * KIB,
    min: 0,
    max: 16 * MIB,
    metric: "dropped_early",
    reason: "the newest is dropped; room for sixteen datagrams of a common path MTU",
};

/// Datagrams queued per tunnel and direction.
pub const QUEUE_DATAGRAMS: Limit = Limit {
    key: "limits.queue_datagrams",
    default: 256,
    min: 16,
    max: 65_536,
    metric: "dropped_queue_full",
    reason: "the oldest is dropped; four turns of 64 datagrams absorb a burst without adding standing delay",
};

/// Bytes of datagrams queued per tunnel and direction.
pub const QUEUE_BYTES: Limit = Limit {
    key: "limits.queue_bytes",
    default: 256 * KIB,
    min: 64 * KIB,
    max: 64 * MIB,
    metric: "dropped_queue_full",
    reason: "the oldest is dropped; the least value holds one datagram of the largest size",
};

/// Bytes held per TCP tunnel and direction.
pub const TCP_BUFFER_BYTES: Limit = Limit {
    key: "limits.tcp_buffer_bytes",
    default: 128 * KIB,
    min: 16 * KIB,
    max: 64 * MIB,
    metric: "tcp_buffers_full",
    reason: "the source is not read until its far end takes more; nothing is lost, and one record of TLS always fits",
};

/// Decoded size of a field section (RFC 9114 section 4.2.2), announced to the peer.
pub const FIELD_SECTION_BYTES: Limit = Limit {
    key: "limits.field_section_bytes",
    default: 16 * KIB,
    min: KIB,
    max: MIB,
    metric: "field_sections_refused",
    reason: "a request is refused with 431; requests for a tunnel are below 1 KiB, tokens for authentication some KiB",
};

/// Entries of a worker's mailbox.
pub const MAILBOX: Limit = Limit {
    key: "limits.mailbox",
    default: 1_024,
    min: 64,
    max: 65_536,
    metric: "dropped_mailbox_full",
    reason: "a stray train is dropped as if the network had lost it; the owner empties its mailbox every turn",
};

/// Names being resolved at once per worker.
pub const RESOLVES: Limit = Limit {
    key: "limits.resolves",
    default: 1_024,
    min: 1,
    max: 65_536,
    metric: "resolves_refused",
    reason: "a request is refused with 503; a slow name server must not collect requests without bound",
};

/// Passwords waiting for their check at once per worker.
pub const PASSWORD_CHECKS: Limit = Limit {
    key: "limits.password_checks",
    default: 32,
    min: 1,
    max: 4_096,
    metric: "password_checks_refused",
    reason: "a request is refused with 503; at 30 ms each one thread needs a second for them",
};

/// Passwords remembered as right per worker.
pub const VERIFIED_PASSWORDS: Limit = Limit {
    key: "limits.verified_passwords",
    default: 1_024,
    min: 0,
    max: 1_000_000,
    metric: "verified_passwords_evicted",
    reason: "the one that expires first is forgotten, and checked again when it comes back; 0 remembers none",
};

/// Handshakes in progress per worker.
pub const PENDING_HANDSHAKES: Limit = Limit {
    key: "quic.max_pending_handshakes",
    default: 1_024,
    min: 1,
    max: 65_536,
    metric: "handshakes_refused",
    reason: "a new connection is refused; at 300 us each a core needs a third of a second for them",
};

/// Handshakes in progress per worker from which on clients prove their address with a Retry (RFC 9000 section 8.1.2).
pub const RETRY_HANDSHAKES: Limit = Limit {
    key: "quic.retry_handshakes",
    default: 128,
    min: 0,
    max: 65_536,
    metric: "retries_sent",
    reason: "Retry costs a round trip, so only under load (spec row 9000-8.1-b); 0 asks always",
};

/// Bytes of datagrams that wait in a connection for the congestion controller.
pub const DATAGRAM_SEND_BUFFER: Limit = Limit {
    key: "quic.datagram_send_buffer",
    default: 512 * KIB,
    min: 128 * KIB,
    max: 64 * MIB,
    metric: "datagrams_queued",
    reason: "datagrams stay in the queues of their tunnels; 64 KiB lost a third of a flood, 256 KiB nothing (PERF.md)",
};

/// Bytes of received datagrams that wait in a connection to be read.
pub const DATAGRAM_RECEIVE_BUFFER: Limit = Limit {
    key: "quic.datagram_receive_buffer",
    default: 512 * KIB,
    min: 128 * KIB,
    max: 64 * MIB,
    metric: "dropped_receive_buffer_full",
    reason: "the oldest is dropped; it is read empty every turn, and a turn holds 64 datagrams per socket",
};

/// Unread bytes that a peer may have in flight on one stream.
pub const STREAM_RECEIVE_WINDOW: Limit = Limit {
    key: "quic.stream_receive_window",
    default: MIB,
    min: 16 * KIB,
    max: 64 * MIB,
    metric: "stream_data_blocked",
    reason: "the peer waits; 160 Mbit/s over 50 ms for one TCP tunnel, datagrams do not count",
};

/// Unread bytes that a peer may have in flight on all streams of a connection.
pub const RECEIVE_WINDOW: Limit = Limit {
    key: "quic.receive_window",
    default: 4 * MIB,
    min: 64 * KIB,
    max: 256 * MIB,
    metric: "data_blocked",
    reason: "the peer waits; two or three stalled tunnels do not stop the others",
};

/// Bytes that a connection holds for sending until they are acknowledged, over all streams.
pub const SEND_WINDOW: Limit = Limit {
    key: "quic.send_window",
    default: 4 * MIB,
    min: 64 * KIB,
    max: 256 * MIB,
    metric: "dropped_stream_blocked",
    reason: "heads and bytes wait, and a capsule that finds no room is dropped; 640 Mbit/s over 50 ms",
};

/// Connections of one worker to one next hop. Another one is opened only when the peer's own stream credit is used up.
///
/// Not configurable: with a thousand tunnels on each it is more than a worker carries.
pub const CONNECTIONS_PER_HOP: usize = 64;

/// Bytes of datagrams that one connection holds for requests which have not arrived yet.
///
/// Not configurable: they are held for half a second, and the largest datagram fits.
pub const EARLY_CONNECTION_BYTES: usize = 64 * 1024;

/// Bytes of DATA frames that wait on one stream for credit.
///
/// Not configurable: only capsules come to wait, and a capsule that finds no room is dropped.
pub const STREAM_WRITE_BYTES: usize = 32 * 1024;

/// Bytes that quinn-proto may buffer for one handshake before it is accepted: a few Initial packets.
///
/// Not configurable: a handshake is accepted or refused in the turn in which it arrives.
pub const HANDSHAKE_BUFFER_BYTES: u64 = 16 * 1024;

/// Bounds on HTTP/2 and HTTP/1.1 over TCP. Those whose key ends in `_timeout` count milliseconds.
pub const TCP: &[&Limit] = &[
    &TCP_CONNECTIONS,
    &TCP_CONNECTIONS_PER_ADDRESS,
    &TCP_HANDSHAKE_TIMEOUT,
    &TCP_HEAD_TIMEOUT,
    &TCP_IDLE_TIMEOUT,
    &TCP_WRITE_TIMEOUT,
    &TCP_STREAM_WINDOW,
    &TCP_CONNECTION_WINDOW,
    &TCP_PENDING_BYTES,
    &TCP_CONTROL_FRAMES,
    &TCP_PENDING_RESETS,
];

/// Downstream TCP connections per worker.
pub const TCP_CONNECTIONS: Limit = Limit {
    key: "tcp.connections",
    default: 4_096,
    min: 1,
    max: 1_000_000,
    metric: "tcp_connections_refused",
    reason: "a new connection is closed at once; each is a file descriptor, and has the buffers below",
};

/// Downstream TCP connections of one client per worker: an IPv4 address, or an IPv6 network of 64 bits.
pub const TCP_CONNECTIONS_PER_ADDRESS: Limit = Limit {
    key: "tcp.connections_per_address",
    default: 256,
    min: 1,
    max: 1_000_000,
    metric: "tcp_connections_refused_address",
    reason: "a new connection is closed at once; a browser opens one, an office some dozens over HTTP/1.1",
};

/// Milliseconds for the handshakes of TLS and HTTP/2 together.
pub const TCP_HANDSHAKE_TIMEOUT: Limit = Limit {
    key: "tcp.handshake_timeout",
    default: 10_000,
    min: 100,
    max: 600_000,
    metric: "tcp_handshakes_timed_out",
    reason: "the connection is closed; three round trips of a second each, and some lost segments",
};

/// Milliseconds from the first byte of a request head to its last.
pub const TCP_HEAD_TIMEOUT: Limit = Limit {
    key: "tcp.head_timeout",
    default: 10_000,
    min: 100,
    max: 600_000,
    metric: "tcp_heads_timed_out",
    reason: "the connection is closed; a head fits in one or two segments",
};

/// Milliseconds that a connection lives without a request.
pub const TCP_IDLE_TIMEOUT: Limit = Limit {
    key: "tcp.idle_timeout",
    default: 120_000,
    min: 1_000,
    max: 3_600_000,
    metric: "tcp_idle_timed_out",
    reason: "the connection is closed; long enough for a client between two pages",
};

/// Milliseconds in which a peer takes at least a part of what waits for it.
pub const TCP_WRITE_TIMEOUT: Limit = Limit {
    key: "tcp.write_timeout",
    default: 30_000,
    min: 1_000,
    max: 600_000,
    metric: "tcp_writes_timed_out",
    reason: "the connection is closed; a path that is down for longer is given up by most clients too",
};

/// Unread bytes that a peer may have in flight on one stream of HTTP/2.
pub const TCP_STREAM_WINDOW: Limit = Limit {
    key: "tcp.stream_window",
    default: MIB,
    min: 64 * KIB,
    max: 256 * MIB,
    metric: "tcp_streams_stalled",
    reason: "the peer waits; 160 Mbit/s over 50 ms for one tunnel, and credit comes back as its owner reads",
};

/// Unread bytes that a peer may have in flight on all streams of an HTTP/2 connection.
pub const TCP_CONNECTION_WINDOW: Limit = Limit {
    key: "tcp.connection_window",
    default: 16 * MIB,
    min: 64 * KIB,
    max: 1_024 * MIB,
    metric: "tcp_streams_stalled",
    reason: "the peer waits; sixteen stalled tunnels do not stop the others",
};

/// Encrypted bytes of one connection that wait for TCP.
pub const TCP_PENDING_BYTES: Limit = Limit {
    key: "tcp.pending_bytes",
    default: 128 * KIB,
    min: 32 * KIB,
    max: 16 * MIB,
    metric: "tcp_writes_blocked",
    reason: "HTTP waits, and datagrams stay in the queues of their tunnels; a full turn of 64 datagrams fits",
};

/// HTTP/2 control frames beyond those that data and time pay for.
pub const TCP_CONTROL_FRAMES: Limit = Limit {
    key: "tcp.control_frames",
    default: 2_000,
    min: 100,
    max: 1_000_000,
    metric: "tcp_floods",
    reason: "the connection is closed with ENHANCE_YOUR_CALM; 512 bytes of data pay for one, time for a tenth a second",
};

/// Requests that a client resets before they were looked at.
pub const TCP_PENDING_RESETS: Limit = Limit {
    key: "tcp.pending_resets",
    default: 20,
    min: 1,
    max: 10_000,
    metric: "tcp_calmed",
    reason: "the connection is closed with ENHANCE_YOUR_CALM; honest clients reset requests that were answered",
};

/// Bytes of capsules about addresses and routes that wait for room on one stream; twice the longest, and its peer is
/// not reading.
pub const IP_UNSENT_BYTES: usize = 128 * 1024;

/// Bytes that are held of what one end of an IP tunnel has told the other: no less than
/// [`SAID_BYTES_MAX`](crate::tunnel::ip::SAID_BYTES_MAX).
pub const IP_SAID_BYTES: usize = 144 * 1024;

/// Networks behind one client: [`SITE_PREFIXES_MAX`](crate::tunnel::ip::SITE_PREFIXES_MAX).
pub const IP_SITE_PREFIXES: usize = 1_024;

/// Prefixes of each version of IP that are remembered when their tunnel has ended:
/// [`KEPT_MAX`](crate::tunnel::ip::KEPT_MAX).
pub const IP_KEPT: usize = 65_536;

/// MTU of a TUN interface where nothing says otherwise. What a tunnel carries is less most of the time.
pub const TUN_MTU_DEFAULT: u16 = 1_500;

/// Bounds on IP tunnels.
pub const IP: &[&Limit] = &[&IP_ASSIGNMENTS, &IP_ASSIGNMENTS_PER_USER];

/// Prefixes assigned to one IP tunnel.
pub const IP_ASSIGNMENTS: Limit = Limit {
    key: "ip.assignments_max",
    default: 8,
    min: 1,
    max: 512,
    metric: "ip_assignments_refused",
    reason: "a request for more is answered with the empty address; one for each IP version and some temporary ones",
};

/// Prefixes assigned to all IP tunnels of one user.
pub const IP_ASSIGNMENTS_PER_USER: Limit = Limit {
    key: "ip.assignments_per_user_max",
    default: 16_384,
    min: 1,
    max: 1_000_000,
    metric: "ip_shares_refused",
    reason: "a request for more is answered with the empty address; an ingress is one user with all its clients, and \
             needs two for each of them",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_makes_sense() {
        for limit in ALL {
            assert!(limit.range().contains(&limit.default), "{}", limit.key);
            assert!(
                limit.min >= 0 && limit.max <= i64::from(u32::MAX),
                "{}",
                limit.key
            );
            assert!(
                !limit.metric.is_empty() && limit.reason.len() > 20,
                "{}",
                limit.key
            );
        }
    }

    #[test]
    fn keys_are_unique() {
        let mut keys: Vec<&str> = ALL.iter().map(|limit| limit.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), ALL.len());
    }
}
