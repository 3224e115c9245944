//! The configuration behind `check`: values in the types and units that the relay uses, all inside their bounds.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv6Net};

use crate::wire::carrier::Carrier;
use crate::wire::template::{PathTemplate, RelayTemplates};

use super::{Congestion, HeadStarts, Io, LogLevel, Nat, Offload, Service, Steering};

/// A relay's whole configuration. Immutable, shared by all workers, swapped whole.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Pseudonym in `Via` and `Proxy-Status`: a token (RFC 9110 section 5.6.2).
    pub name: String,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Whether each worker is pinned to a core.
    pub pin: bool,
    /// How workers wait for sockets.
    pub io: Io,
    /// How long a worker looks for more datagrams after the last ones before it parks. Zero parks at once. Spinning
    /// saves the time of a wake-up, and costs CPU time instead (PERF.md has both).
    pub spin: Duration,
    /// How packets find their worker.
    pub steering: Steering,
    /// Segmentation of sent trains.
    pub gso: Offload,
    /// Coalescing of received trains.
    pub gro: Offload,
    /// Least severity of log lines.
    pub log: LogLevel,
    /// At least one, all with different addresses.
    pub listen: Vec<Listener>,
    /// The next hops.
    pub upstream: Upstream,
    /// What tunnels may reach.
    pub policy: PolicyText,
    /// Who may use the relay; everybody if `None`.
    pub auth: Option<AuthFiles>,
    /// How names become addresses.
    pub dns: Dns,
    /// Addresses for clients with IP tunnels; `None` assigns none, and IP tunnels need a next hop then.
    pub ip: Option<Ip>,
    /// QUIC, downstream and upstream.
    pub quic: Quic,
    /// HTTP/2 and HTTP/1.1, downstream and upstream.
    pub tcp: Tcp,
    /// What peers can use up.
    pub limits: Limits,
    /// How long the relay waits for others.
    pub timeouts: Timeouts,
    /// What is accepted but questionable, one sentence each, for the log and for `--check`.
    pub warnings: Vec<String>,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// UDP and TCP address; port 0 takes a free one.
    pub address: SocketAddr,
    /// What is spoken there, in the order of preference, at least one.
    pub carriers: Vec<Carrier>,
    /// Certificate and key; `None` only in development mode, where the relay makes its own.
    pub certificate: Option<Certificate>,
    /// Templates of the request paths for UDP; the default one is always the first (RFC 9298 §2).
    pub templates: Vec<PathTemplate>,
    /// The same for TCP.
    pub tcp_templates: Vec<PathTemplate>,
    /// The same for IP (RFC 9484 §3).
    pub ip_templates: Vec<PathTemplate>,
    /// Accepted values of `:authority`, in lower case; empty accepts any.
    pub origins: Vec<String>,
    /// Whether other processes of the same user may listen there too; programs that embed a listener ask for it.
    pub reuseport: bool,
}

/// Paths of a certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the relay's own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The next hops of an ingress. Without any, the relay is an egress and opens targets itself.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// Hops in the order in which a datagram towards the target passes them.
    pub hops: Vec<RelayTemplates>,
    /// What may be spoken with them, in the order of preference. Empty, as `hops` is, only by default.
    pub carriers: Vec<Carrier>,
    /// How much earlier one of them starts than the next.
    pub head_starts: HeadStarts,
    /// The file with the credentials for the first hop, in the form of `--credentials`.
    pub credentials: Option<PathBuf>,
    /// Certificate authorities to trust in place of the system's, PEM.
    pub ca: Option<PathBuf>,
    /// Accept any certificate: only for tests, anybody on the path can read and change everything.
    pub dangerous_insecure: bool,
    /// Fields for every request to the first hop, values marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The rules of `[policy]` as text; `policy` gives them a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// The forms of tunnel that are served.
    pub services: Vec<Service>,
    /// Refuse targets outside the public address space unless a rule allows them.
    pub public_only: bool,
    /// Rules that allow.
    pub allow: Vec<String>,
    /// Rules that deny; they win over `allow`.
    pub deny: Vec<String>,
}

/// Where the secrets of clients are, and how clients are asked for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthFiles {
    /// Static tokens, one per line.
    pub tokens: Option<PathBuf>,
    /// Users with hashes of their passwords, one per line.
    pub passwords: Option<PathBuf>,
    /// A field to look for credentials in, besides Authorization and Proxy-Authorization.
    pub header: Option<HeaderName>,
    /// The realm of the challenge for a password.
    pub realm: String,
    /// Whether refusals are 401 and 407 with challenges, or plain 403.
    pub challenge: bool,
    /// How long a password that was right is not checked again.
    pub remember: Duration,
}

/// Name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Servers to ask; empty means those of the system.
    pub servers: Vec<SocketAddr>,
    /// Wait for one answer of one server.
    pub timeout: Duration,
}

/// What clients with IP tunnels get (RFC 9484), and the interface that their packets leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where their addresses are from: at least one, disjoint, without host bits. The first address of each behind the
    /// network's own is the relay's, see [`Ip::gateways`].
    pub pools: Vec<IpNet>,
    /// The shortest prefix of IPv4 that a client gets when it asks for one, 8 to 32.
    pub prefix_len_min_v4: u8,
    /// The same for IPv6, 48 to 128.
    pub prefix_len_min_v6: u8,
    /// Most prefixes that one tunnel holds.
    pub assignments_max: usize,
    /// Most prefixes that all tunnels of one user hold: of a name that [`Checked::auth`] knows or, without one, of an
    /// address of IPv4 or a /64 of IPv6.
    pub assignments_per_user_max: usize,
    /// How long the addresses of an authenticated client are kept for it when its tunnel has ended.
    pub grace: Duration,
    /// Name of the interface, at most 15 characters; `%d` in it stands for a number that the kernel chooses. `off` is
    /// none: clients reach each other and what is behind them.
    pub tun: String,
    /// Whether trains of packets cross the interface whole.
    pub offload: Offload,
    /// MTU of the interface, 1280 or more.
    pub mtu: u16,
    /// What becomes of the addresses behind the relay.
    pub nat: Nat,
    /// Whether the relay switches forwarding on in the kernel while it runs.
    pub forwarding: bool,
    /// What is advertised to clients, in the order given and maybe overlapping; everything by default.
    pub routes: Vec<IpNet>,
    /// Whether clients may send packets to each other.
    pub client_to_client: bool,
    /// Name servers that clients are told of; without any, nothing is said about DNS.
    pub dns: Vec<IpAddr>,
    /// What clients append to short names, in lower case.
    pub search: Vec<Box<str>>,
    /// The names that the servers answer for, in lower case; all if empty.
    pub internal_domains: Vec<Box<str>>,
    /// Prefixes of NAT64 that clients are told of.
    pub pref64: Vec<Ipv6Net>,
    /// Whether a client gets an address of each IP version before it asks.
    pub unprompted: bool,
    /// Networks behind clients.
    pub sites: Vec<IpSite>,
}

impl Ip {
    /// The relay's own addresses on the interface, one in each pool, with the prefix length of the pool.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpNet> {
        self.pools.iter().copied().map(gateway).collect()
    }

    /// What is behind the interface: the pools, and the networks of sites.
    #[must_use]
    pub fn inside(&self) -> Vec<IpNet> {
        let behind = self.sites.iter().flat_map(|site| &site.prefixes);
        self.pools.iter().chain(behind).copied().collect()
    }
}

/// The first address behind that of the network.
fn gateway(pool: IpNet) -> IpNet {
    let next = match pool.network() {
        IpAddr::V4(network) => IpAddr::V4(network.to_bits().wrapping_add(1).into()),
        IpAddr::V6(network) => IpAddr::V6(network.to_bits().wrapping_add(1).into()),
    };
    IpNet::new(next, pool.prefix_len()).unwrap_or(pool)
}

/// Networks that a client may send packets from and advertise, besides what it was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpSite {
    /// Who may; anybody if `None`.
    pub user: Option<String>,
    /// The networks, at least one, none of them in a pool.
    pub prefixes: Vec<IpNet>,
}

/// Parameters of QUIC connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quic {
    /// Congestion controller.
    pub congestion: Congestion,
    /// UDP payload bytes of a packet before discovery.
    pub initial_mtu: u16,
    /// UDP payload bytes that every path is known to carry; a black hole falls back to it.
    pub min_mtu: u16,
    /// UDP payload bytes up to which discovery probes.
    pub mtu_upper_bound: u16,
    /// Wait after a black hole before discovery starts again.
    pub mtu_black_hole_cooldown: Duration,
    /// Packets that the peer may leave unacknowledged (ACK frequency draft); `None` leaves it to the peer.
    pub ack_frequency_threshold: Option<u32>,
    /// Bytes of datagrams waiting to be sent, per connection.
    pub datagram_send_buffer: usize,
    /// Bytes of datagrams waiting to be read, per connection.
    pub datagram_receive_buffer: usize,
    /// Flow control credit per stream, bytes.
    pub stream_receive_window: u32,
    /// Flow control credit per connection, bytes.
    pub receive_window: u32,
    /// Unacknowledged stream bytes per connection.
    pub send_window: u32,
    /// Silence after which a connection is gone (RFC 9000 section 10.1).
    pub idle_timeout: Duration,
    /// Interval of keep-alives on upstream connections.
    pub keep_alive: Duration,
    /// Handshakes in progress from which on a Retry is asked, per worker.
    pub retry_handshakes: usize,
    /// Handshakes in progress, per worker.
    pub max_pending_handshakes: usize,
}

/// Parameters of connections with HTTP/2 and HTTP/1.1; [`super::limits`] has the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Downstream connections per worker.
    pub connections: usize,
    /// Those of one client address, or network of 64 bits.
    pub connections_per_address: usize,
    /// For the handshakes of TLS and HTTP/2.
    pub handshake_timeout: Duration,
    /// From the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// Of a connection without a request.
    pub idle_timeout: Duration,
    /// In which a peer takes at least a part of what waits for it.
    pub write_timeout: Duration,
    /// Flow control credit per stream, bytes.
    pub stream_window: u32,
    /// Flow control credit per connection, bytes.
    pub connection_window: u32,
    /// Encrypted bytes of a connection that wait for TCP.
    pub pending_bytes: usize,
    /// Control frames beyond those that data and time pay for.
    pub control_frames: u32,
    /// Requests that a client may reset before they were looked at.
    pub pending_resets: usize,
}

/// Bounds on what peers can use up; [`super::limits`] has the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Downstream connections per worker.
    pub connections: usize,
    /// Open requests per connection.
    pub tunnels_per_connection: u32,
    /// Open tunnels per worker.
    pub tunnels: usize,
    /// UDP sockets towards targets per worker.
    pub target_sockets: usize,
    /// Datagrams held per undecided request.
    pub early_datagrams: usize,
    /// Bytes held per undecided request.
    pub early_bytes: usize,
    /// Datagrams queued per tunnel and direction.
    pub queue_datagrams: usize,
    /// Bytes queued per tunnel and direction.
    pub queue_bytes: usize,
    /// Bytes held per TCP tunnel and direction.
    pub tcp_buffer_bytes: usize,
    /// Decoded bytes of a field section.
    pub field_section_bytes: u64,
    /// Entries of a worker's mailbox.
    pub mailbox: usize,
    /// Names being resolved at once per worker.
    pub resolves: usize,
    /// Passwords waiting for their check at once per worker.
    pub password_checks: usize,
    /// Passwords remembered as right per worker.
    pub verified_passwords: usize,
}

/// How long the relay waits for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A tunnel without a datagram in either direction is closed (RFC 9298 section 3.1).
    pub tunnel_idle: Duration,
    /// A TCP tunnel on which nothing moves in either direction is closed.
    pub tcp_idle: Duration,
    /// For the addresses of a target, all attempts together.
    pub resolve: Duration,
    /// For the answer of the next hop to a request, connecting included.
    pub open: Duration,
    /// Between the wish to stop and the end of the last tunnel.
    pub drain: Duration,
    /// For a connection to be established.
    pub handshake: Duration,
}
