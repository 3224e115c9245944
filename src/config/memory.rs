//! What the limits add up to: the memory of a relay whose every limit is reached at once.
//!
//! A bound, not a forecast: buffers grow with what is in them, and an idle connection has none of them full.

use std::fmt;

use ipnet::IpNet;

use super::Checked;
use super::Service;
use super::limits::{
    CONNECTIONS_PER_HOP, EARLY_CONNECTION_BYTES, HANDSHAKE_BUFFER_BYTES, IP_KEPT, IP_SAID_BYTES,
    IP_SITE_PREFIXES, IP_UNSENT_BYTES, STREAM_WRITE_BYTES,
};
use crate::wire::capsule::DATAGRAM_VALUE_MAX;

/// State of one connection without its buffers, stream tables and tunnels, of QUIC, TLS and HTTP/3 together (measured:
/// resident memory of 1,000 idle clients, see PERF.md).
const CONNECTION_BYTES: u64 = 20 * 1024;
/// Two entries of hash tables for each stream that a client may open (sizes of quinn-proto 0.11).
const STREAM_ENTRY_BYTES: u64 = (16 + 1) + (24 + 1);
/// State of one tunnel without its queues (measured: 1.3 to 1.6 KB of resident memory).
const TUNNEL_BYTES: u64 = 2 * 1024;
/// Kernel memory of one connected UDP socket with empty buffers (measured: 2.6 KiB).
const SOCKET_BYTES: u64 = 2_662;
/// The largest train that one receive call returns, the payload of a mailbox entry.
const TRAIN_BYTES: u64 = 64 * 1024;
/// One request waiting for addresses: the name and who asked (estimate).
const RESOLVE_BYTES: u64 = 1024;

/// State of one connection over TCP without what it holds of HTTP and TLS: rustls, h2, tables (estimate).
const TCP_CONNECTION_BYTES: u64 = 48 * 1024;
/// One password that waits for its check: name, password and the digest (the longest pair is 1 KiB).
const PASSWORD_CHECK_BYTES: u64 = 2 * 1024;
/// What Argon2 may use for one check, of which one runs at a time.
const PASSWORD_HASH_BYTES: u64 = 64 * 1024 * 1024;
/// One prefix assigned to an IP tunnel: in its own tables, those of its worker and the pools of the process (estimate).
const ASSIGNMENT_BYTES: u64 = 256;
/// One network behind a client: in the lists of its tunnel and, with its owners, that of the process (estimate).
const SITE_PREFIX_BYTES: u64 = 160;
/// One prefix that is kept or at rest: in five tables (estimate).
const KEPT_BYTES: u64 = 384;
/// One password remembered as right: its digest and the user.
const VERIFIED_PASSWORD_BYTES: u64 = 256;

/// One summand of the worst-case memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTerm {
    /// Who uses it.
    pub user: &'static str,
    /// How many of them there can be, over all workers.
    pub count: u64,
    /// What one of them can use.
    pub bytes_each: u64,
}

impl MemoryTerm {
    /// The whole summand.
    pub const fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.bytes_each)
    }
}

/// `connections: state    8192 x   16.0 KiB =  128.0 MiB`
impl fmt::Display for MemoryTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            count,
            bytes_each,
        } = self;
        write!(
            f,
            "{user:<28} {count:>9} x {:>10} = {:>10}",
            Bytes(*bytes_each),
            Bytes(self.bytes())
        )
    }
}

/// Bytes for people: `512 B`, `16.0 KiB`, `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tenths of the unit, in integers: the largest sum is far below u64::MAX / 10.
        let tenths = |unit: u64| self.0.saturating_mul(10) / unit;
        let text = match self.0 {
            0..=1023 => return f.pad(&format!("{} B", self.0)),
            1024..=0xf_ffff => (tenths(1 << 10), "KiB"),
            0x10_0000..=0x3fff_ffff => (tenths(1 << 20), "MiB"),
            _ => (tenths(1 << 30), "GiB"),
        };
        f.pad(&format!("{}.{} {}", text.0 / 10, text.0 % 10, text.1))
    }
}

/// The summands of the worst case; their sum is what `--check` prints last.
pub fn worst_case_memory(config: &Checked) -> Vec<MemoryTerm> {
    let Checked {
        limits,
        quic,
        tcp,
        auth,
        ip,
        ..
    } = config;
    let workers = size(config.workers.get());
    let upstream = workers * size(config.upstream.hops.len() * CONNECTIONS_PER_HOP);
    let connections = workers * size(limits.connections) + upstream;
    let tcp_connections = workers * size(tcp.connections) + upstream;
    let has_passwords = auth.as_ref().is_some_and(|auth| auth.passwords.is_some());
    let tunnels = workers * size(limits.tunnels);
    let has_way = ip.is_some() || !config.upstream.hops.is_empty();
    let serves_ip = has_way && config.policy.services.contains(&Service::ConnectIp);
    let ip_tunnels = if serves_ip { tunnels } else { 0 };
    let ip = ip.as_ref().filter(|_| serves_ip);
    let has_sites = ip.is_some_and(|ip| !ip.sites.is_empty());
    let term = |user, count, bytes_each| MemoryTerm {
        user,
        count,
        bytes_each,
    };
    vec![
        term("connections: state", connections, CONNECTION_BYTES),
        term(
            "connections: stream tables",
            connections,
            stream_tables(u64::from(limits.tunnels_per_connection)),
        ),
        term(
            "connections: datagrams out",
            connections,
            size(quic.datagram_send_buffer),
        ),
        term(
            "connections: datagrams in",
            connections,
            size(quic.datagram_receive_buffer),
        ),
        term(
            "connections: streams out",
            connections,
            u64::from(quic.send_window),
        ),
        term(
            "connections: streams in",
            connections,
            u64::from(quic.receive_window),
        ),
        term(
            "connections: early datagrams",
            connections,
            size(EARLY_CONNECTION_BYTES),
        ),
        term("TCP: state", tcp_connections, TCP_CONNECTION_BYTES),
        term("TCP: records out", tcp_connections, size(tcp.pending_bytes)),
        term(
            "TCP: streams in",
            tcp_connections,
            u64::from(tcp.connection_window),
        ),
        term(
            "handshakes: first packets",
            workers * size(quic.max_pending_handshakes),
            HANDSHAKE_BUFFER_BYTES,
        ),
        term(
            "requests: field sections",
            tunnels,
            limits.field_section_bytes,
        ),
        term("tunnels: state", tunnels, TUNNEL_BYTES),
        term(
            "tunnels: queues, both ways",
            tunnels * 2,
            size(limits.queue_bytes),
        ),
        term(
            "tunnels: TCP, both ways",
            tunnels * 2,
            size(limits.tcp_buffer_bytes),
        ),
        term(
            "tunnels: capsules in",
            tunnels * 2,
            size(DATAGRAM_VALUE_MAX),
        ),
        term(
            "tunnels: capsules out",
            tunnels * 2,
            size(STREAM_WRITE_BYTES),
        ),
        term(
            "tunnels: early datagrams",
            tunnels,
            size(limits.early_bytes),
        ),
        term(
            "target sockets: kernel",
            workers * size(limits.target_sockets),
            SOCKET_BYTES,
        ),
        term(
            "mailboxes: stray trains",
            workers * size(limits.mailbox),
            TRAIN_BYTES,
        ),
        term(
            "names being resolved",
            workers * size(limits.resolves),
            RESOLVE_BYTES,
        ),
        term(
            "passwords: to be checked",
            workers * size(limits.password_checks),
            PASSWORD_CHECK_BYTES,
        ),
        term(
            "passwords: being hashed",
            u64::from(has_passwords),
            PASSWORD_HASH_BYTES,
        ),
        term(
            "passwords: remembered",
            workers * size(limits.verified_passwords),
            VERIFIED_PASSWORD_BYTES,
        ),
        term(
            "IP tunnels: addresses",
            tunnels * ip.map_or(0, |ip| size(ip.assignments_max)),
            ASSIGNMENT_BYTES,
        ),
        // Each end has told and was told, and between two relays there are two streams.
        term(
            "IP tunnels: said by peers",
            ip_tunnels * 4,
            size(IP_SAID_BYTES),
        ),
        term(
            "IP tunnels: capsules unsent",
            ip_tunnels * 2,
            size(IP_UNSENT_BYTES),
        ),
        term(
            "IP tunnels: sites",
            if has_sites { ip_tunnels } else { 0 },
            size(IP_SITE_PREFIXES) * SITE_PREFIX_BYTES,
        ),
        term(
            "IP pools: kept and at rest",
            ip.map_or(0, |ip| kept(&ip.pools)),
            KEPT_BYTES,
        ),
    ]
}

/// How many prefixes of some pools can be remembered at once.
fn kept(pools: &[IpNet]) -> u64 {
    let of = |is_wanted: fn(&IpNet) -> bool| {
        let wanted = pools.iter().filter(|pool| is_wanted(pool));
        let addresses = wanted.map(|pool| {
            let bits = pool.max_prefix_len() - pool.prefix_len();
            1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX)
        });
        addresses.fold(0, u64::saturating_add).min(size(IP_KEPT))
    };
    of(|pool| pool.addr().is_ipv4()) + of(|pool| pool.addr().is_ipv6())
}

/// What quinn-proto keeps for `streams` streams that are permitted: tables with a power of two of places, of which
/// seven eighths are used at most.
fn stream_tables(streams: u64) -> u64 {
    (streams * 8).div_ceil(7).next_power_of_two() * STREAM_ENTRY_BYTES
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
