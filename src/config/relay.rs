//! The file format of a relay, as serde sees it: types of TOML, defaults, no judgement.
//!
//! Integers are `i64` because that is what TOML has: a value outside its bound is then reported by `check` with the
//! bound, and not by serde with the name of a Rust type. Keys without a default are `Option`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Table;

use super::Problems;
use super::duration::Period;
use super::limits;
use super::reader::Document;

/// How a worker waits for sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring; the relay does not start without it.
    Uring,
    /// epoll.
    Epoll,
}

/// How a packet finds the worker that owns its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// By the kernel where it accepts the program, else by mailbox.
    #[default]
    Auto,
    /// By a BPF program on the SO_REUSEPORT group; the relay does not start without it.
    Kernel,
    /// The worker that received a stray packet passes it on.
    Mailbox,
}

/// Whether trains of datagrams cross the system call boundary whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// Probed once per socket.
    #[default]
    Auto,
    /// Never, for virtual network cards that report it and fail.
    Off,
}

/// Congestion controller of QUIC connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// RFC 9438. The default: BBR takes a load of datagrams for application-limited.
    #[default]
    Cubic,
    /// As quinn-proto implements it, experimental there.
    Bbr,
    /// RFC 9002 section 7.
    NewReno,
}

/// A form of tunnel that clients can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// UDP (RFC 9298).
    ConnectUdp,
    /// TCP under a template (draft-ietf-httpbis-connect-tcp).
    ConnectTcp,
    /// TCP by the CONNECT method (RFC 9110 section 9.3.6).
    Connect,
    /// IP packets (RFC 9484). Served where there are addresses to assign, or a next hop that assigns them.
    ConnectIp,
}

impl Service {
    /// All of them, which is the default.
    pub const ALL: [Self; 4] = [
        Self::ConnectUdp,
        Self::ConnectTcp,
        Self::Connect,
        Self::ConnectIp,
    ];
}

/// What becomes of the addresses of clients behind a relay, which the rest of the network knows no way to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// Nothing: the network around the relay routes the pools to it.
    #[default]
    Off,
    /// The relay prints the rules of nftables that replace them by its own address.
    Print,
    /// The relay installs these rules, and removes them when it ends.
    Apply,
}

/// Least severity of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What the relay could not do.
    Error,
    /// What the operator should look at.
    Warn,
    /// State of the relay.
    #[default]
    Info,
    /// One line per tunnel.
    Debug,
    /// One line per datagram.
    Trace,
}

impl LogLevel {
    /// The level as `tracing` filters spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) process: Process,
    pub(super) listen: Vec<Listen>,
    pub(super) upstream: Upstream,
    pub(super) policy: Policy,
    pub(super) auth: Auth,
    pub(super) dns: Dns,
    pub(super) ip: Ip,
    pub(super) quic: Quic,
    pub(super) tcp: Tcp,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
}

impl File {
    /// Reads what can be read and reports the rest.
    pub(super) fn read(table: Table, problems: &mut Problems) -> Self {
        let mut document = Document::new(table, problems);
        Self {
            listen: document.sections("listen"),
            upstream: document.section("upstream"),
            policy: document.section("policy"),
            auth: document.section("auth"),
            dns: document.section("dns"),
            ip: document.section("ip"),
            quic: document.section("quic"),
            tcp: document.section("tcp"),
            limits: document.section("limits"),
            timeouts: document.section("timeouts"),
            process: document.rest(),
        }
    }
}

/// Keys outside all sections.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Process {
    pub(super) name: Option<String>,
    pub(super) workers: i64,
    pub(super) pin: Option<bool>,
    pub(super) io: Io,
    pub(super) spin_us: i64,
    pub(super) steering: Steering,
    pub(super) gso: Offload,
    pub(super) gro: Offload,
    pub(super) log: LogLevel,
}

/// `[[listen]]`: one address with its certificate.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Option<String>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) carriers: Option<Vec<String>>,
    pub(super) templates: Vec<String>,
    pub(super) tcp_templates: Vec<String>,
    pub(super) ip_templates: Vec<String>,
    pub(super) origins: Vec<String>,
}

/// `[upstream]`: the hops that an ingress goes through.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) urls: Vec<String>,
    pub(super) tcp_urls: Vec<String>,
    pub(super) ip_urls: Vec<String>,
    pub(super) carriers: Option<Vec<String>>,
    pub(super) head_starts: Option<Vec<Period>>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) dangerous_insecure: bool,
    pub(super) headers: BTreeMap<String, String>,
}

/// `[policy]`: what tunnels may reach.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) services: Option<Vec<Service>>,
    pub(super) public_only: bool,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            services: None,
            public_only: true,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

/// `[auth]`: who may use the relay.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) tokens: Option<PathBuf>,
    pub(super) passwords: Option<PathBuf>,
    pub(super) header: Option<String>,
    pub(super) realm: Option<String>,
    pub(super) challenge: Option<bool>,
    pub(super) remember: Period,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            tokens: None,
            passwords: None,
            header: None,
            realm: None,
            challenge: None,
            // Long enough that the check, some tens of milliseconds, does not count.
            remember: Period::from_secs(600),
        }
    }
}

/// `[tcp]`: HTTP/2 and HTTP/1.1, both directions.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tcp {
    pub(super) connections: i64,
    pub(super) connections_per_address: i64,
    pub(super) handshake_timeout: Period,
    pub(super) head_timeout: Period,
    pub(super) idle_timeout: Period,
    pub(super) write_timeout: Period,
    pub(super) stream_window: i64,
    pub(super) connection_window: i64,
    pub(super) pending_bytes: i64,
    pub(super) control_frames: i64,
    pub(super) pending_resets: i64,
}

impl Default for Tcp {
    fn default() -> Self {
        let period = |limit: &limits::Limit| {
            let milliseconds = u64::try_from(limit.default).unwrap_or_default();
            Period(Duration::from_millis(milliseconds))
        };
        Self {
            connections: limits::TCP_CONNECTIONS.default,
            connections_per_address: limits::TCP_CONNECTIONS_PER_ADDRESS.default,
            handshake_timeout: period(&limits::TCP_HANDSHAKE_TIMEOUT),
            head_timeout: period(&limits::TCP_HEAD_TIMEOUT),
            idle_timeout: period(&limits::TCP_IDLE_TIMEOUT),
            write_timeout: period(&limits::TCP_WRITE_TIMEOUT),
            stream_window: limits::TCP_STREAM_WINDOW.default,
            connection_window: limits::TCP_CONNECTION_WINDOW.default,
            pending_bytes: limits::TCP_PENDING_BYTES.default,
            control_frames: limits::TCP_CONTROL_FRAMES.default,
            pending_resets: limits::TCP_PENDING_RESETS.default,
        }
    }
}

/// `[dns]`: how names become addresses.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) servers: Vec<String>,
    pub(super) timeout: Period,
}

impl Default for Dns {
    fn default() -> Self {
        // Two attempts fit into `timeouts.resolve`.
        Self {
            servers: Vec::new(),
            timeout: Period::from_secs(2),
        }
    }
}

/// `[ip]`: addresses for clients with IP tunnels, and the interface that their packets leave by.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ip {
    pub(super) pools: Vec<String>,
    pub(super) prefix_len_min_v4: i64,
    pub(super) prefix_len_min_v6: i64,
    pub(super) assignments_max: i64,
    pub(super) assignments_per_user_max: i64,
    pub(super) grace: Period,
    pub(super) tun: Option<String>,
    pub(super) offload: Offload,
    pub(super) mtu: i64,
    pub(super) nat: Nat,
    pub(super) forwarding: bool,
    pub(super) routes: Vec<String>,
    pub(super) client_to_client: bool,
    pub(super) dns: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) internal_domains: Vec<String>,
    pub(super) pref64: Vec<String>,
    pub(super) unprompted: bool,
    pub(super) site: Vec<IpSite>,
}

impl Default for Ip {
    fn default() -> Self {
        Self {
            pools: Vec::new(),
            // One address, and one network for addresses that a client makes itself (RFC 4862).
            prefix_len_min_v4: 32,
            prefix_len_min_v6: 64,
            assignments_max: limits::IP_ASSIGNMENTS.default,
            assignments_per_user_max: limits::IP_ASSIGNMENTS_PER_USER.default,
            // A client that changes networks or sleeps for a moment finds its connections alive.
            grace: Period::from_secs(300),
            tun: None,
            offload: Offload::default(),
            // What a path carries less than this is learned packet by packet (RFC 1191, RFC 8201).
            mtu: limits::TUN_MTU_DEFAULT.into(),
            nat: Nat::default(),
            forwarding: false,
            routes: Vec::new(),
            client_to_client: false,
            dns: Vec::new(),
            search: Vec::new(),
            internal_domains: Vec::new(),
            pref64: Vec::new(),
            // Some clients cannot ask.
            unprompted: true,
            site: Vec::new(),
        }
    }
}

/// `[[ip.site]]`: networks behind a client.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IpSite {
    pub(super) user: Option<String>,
    pub(super) prefixes: Vec<String>,
}

/// `[quic]`: both directions, downstream and upstream.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Quic {
    pub(super) congestion: Congestion,
    pub(super) initial_mtu: i64,
    pub(super) min_mtu: i64,
    pub(super) mtu_upper_bound: i64,
    pub(super) mtu_black_hole_cooldown: Period,
    pub(super) ack_frequency_threshold: i64,
    pub(super) datagram_send_buffer: i64,
    pub(super) datagram_receive_buffer: i64,
    pub(super) stream_receive_window: i64,
    pub(super) receive_window: i64,
    pub(super) send_window: i64,
    pub(super) idle_timeout: Period,
    pub(super) keep_alive: Period,
    pub(super) retry_handshakes: i64,
    pub(super) max_pending_handshakes: i64,
}

impl Default for Quic {
    fn default() -> Self {
        Self {
            congestion: Congestion::default(),
            // An inner QUIC Initial of 1200 bytes needs 1241, a tunnel for IPv6 1331.
            initial_mtu: 1_350,
            min_mtu: 1_200,
            // Ethernet less the headers of IPv6 and UDP.
            mtu_upper_bound: 1_452,
            // quinn-proto waits a minute; a tunnel whose packets no longer fit cannot.
            mtu_black_hole_cooldown: Period::from_secs(2),
            // Measured: one ACK per ten packets saves a tenth to a fifth of the CPU of slow connections.
            ack_frequency_threshold: 10,
            datagram_send_buffer: limits::DATAGRAM_SEND_BUFFER.default,
            datagram_receive_buffer: limits::DATAGRAM_RECEIVE_BUFFER.default,
            stream_receive_window: limits::STREAM_RECEIVE_WINDOW.default,
            receive_window: limits::RECEIVE_WINDOW.default,
            send_window: limits::SEND_WINDOW.default,
            idle_timeout: Period::from_secs(180),
            // Most NAT bindings live for 30 seconds.
            keep_alive: Period::from_secs(25),
            retry_handshakes: limits::RETRY_HANDSHAKES.default,
            max_pending_handshakes: limits::PENDING_HANDSHAKES.default,
        }
    }
}

/// `[limits]`: see [`limits`] for each.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: i64,
    pub(super) tunnels_per_connection: i64,
    pub(super) tunnels: i64,
    pub(super) target_sockets: i64,
    pub(super) early_datagrams: i64,
    pub(super) early_bytes: i64,
    pub(super) queue_datagrams: i64,
    pub(super) queue_bytes: i64,
    pub(super) tcp_buffer_bytes: i64,
    pub(super) field_section_bytes: i64,
    pub(super) mailbox: i64,
    pub(super) resolves: i64,
    pub(super) password_checks: i64,
    pub(super) verified_passwords: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS.default,
            tunnels_per_connection: limits::TUNNELS_PER_CONNECTION.default,
            tunnels: limits::TUNNELS.default,
            target_sockets: limits::TARGET_SOCKETS.default,
            early_datagrams: limits::EARLY_DATAGRAMS.default,
            early_bytes: limits::EARLY_BYTES.default,
            queue_datagrams: limits::QUEUE_DATAGRAMS.default,
            queue_bytes: limits::QUEUE_BYTES.default,
            tcp_buffer_bytes: limits::TCP_BUFFER_BYTES.default,
            field_section_bytes: limits::FIELD_SECTION_BYTES.default,
            mailbox: limits::MAILBOX.default,
            resolves: limits::RESOLVES.default,
            password_checks: limits::PASSWORD_CHECKS.default,
            verified_passwords: limits::VERIFIED_PASSWORDS.default,
        }
    }
}

/// `[timeouts]`: how long the relay waits for others.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) tunnel_idle: Period,
    pub(super) tcp_idle: Period,
    pub(super) resolve: Period,
    pub(super) open: Period,
    pub(super) drain: Period,
    pub(super) handshake: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // RFC 9298 section 3.1 asks for two minutes or more.
            tunnel_idle: Period::from_secs(180),
            // RFC 5382 section 5 asks those who forget quiet connections to wait two hours and four minutes.
            tcp_idle: Period::from_secs(7_440),
            resolve: Period::from_secs(5),
            open: Period::from_secs(10),
            drain: Period::from_secs(30),
            handshake: Period::from_secs(10),
        }
    }
}
