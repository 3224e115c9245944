//! Arguments of `loadgen ip`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bauta::transport::tls::Trust;
use bauta::wire::carrier::Carrier;
use bauta::wire::ip::IpVersion;
use bauta::wire::template::RelayTemplates;
use clap::{Args, ValueEnum, value_parser};

use super::Wanted;
use super::packet::{PACKET_MAX, size_min};
use crate::cli::{PROBE_RATE, WINDOW, duration, header, rate, setting, template};
use crate::engine::{Direction, Group, Pace, Payload};
use crate::run::{Plans, Running, Topology};

/// How long to measure when nothing is said.
const RUN: Duration = Duration::from_secs(10);
/// Most pairs of clients: each is two tunnels and two addresses.
const FLOWS_MAX: i64 = 10_000;
const SIZE_MIN_V4: i64 = size_min(IpVersion::V4) as i64;
const SIZE_MAX: i64 = PACKET_MAX as i64;
/// Networks for benchmarks (RFC 2544 appendix C.2.2, RFC 5180 section 8).
const POOL_V4: &str = "198.18.0.0/15";
const POOL_V6: &str = "2001:2::/48";

/// What to send, and through what.
#[derive(Clone, Debug, Args)]
pub(crate) struct IpArgs {
    /// What stands between the clients
    #[arg(long, value_enum, default_value = "hop", conflicts_with = "relay")]
    topology: TopologyArg,

    /// Direction of the packets
    #[arg(long, value_enum, default_value = "up")]
    workload: WorkloadArg,

    /// Bytes of a packet, all headers included; no more than the tunnels carry
    #[arg(long, value_name = "BYTES", default_value_t = 1_400)]
    #[arg(value_parser = value_parser!(u32).range(SIZE_MIN_V4..=SIZE_MAX))]
    size: u32,

    /// Version of IP
    #[arg(long, value_enum, default_value = "4")]
    family: FamilyArg,

    /// Pairs of clients, a tunnel each
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=FLOWS_MAX))]
    flows: u32,

    /// Connections under the tunnels of each side; on h1 each tunnel has one of its own
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=FLOWS_MAX))]
    connections: u32,

    /// HTTP version of every hop
    #[arg(long, value_name = "h3|h2|h1", default_value = "h3")]
    carrier: Carrier,

    /// Open loop: packets per second and direction, all flows together, by the clock
    #[arg(long, value_name = "PPS", value_parser = rate)]
    rate: Option<f64>,

    /// Closed loop: packets under way per direction, all flows together [default: 1024]
    #[arg(long, value_name = "PACKETS", conflicts_with = "rate")]
    #[arg(value_parser = value_parser!(u64).range(1..=1_000_000))]
    window: Option<u64>,

    /// How long to measure [default: 10s]
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,

    /// How long to send before that
    #[arg(long, default_value = "1s", value_parser = duration)]
    warm_up: Duration,

    /// Worker threads of each relay
    #[arg(long, default_value = "1", conflicts_with = "relay")]
    workers: NonZeroUsize,

    /// Threads of the generator
    #[arg(long, default_value = "1")]
    generators: NonZeroUsize,

    /// Measure this relay instead of starting some; give a second one to nest it in the first
    #[arg(long, value_name = "URL", value_parser = template)]
    relay: Vec<RelayTemplates>,

    /// Authorities that its certificate may come from, in place of the system's (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "relay",
        conflicts_with = "insecure"
    )]
    ca: Option<PathBuf>,

    /// Accept any certificate
    #[arg(long, requires = "relay")]
    insecure: bool,

    /// Field to send with each request, such as a token
    #[arg(long, value_name = "NAME:VALUE", requires = "relay", value_parser = header)]
    header: Vec<(http::HeaderName, http::HeaderValue)>,

    /// Process of that relay on this machine, for CPU time and memory
    #[arg(long, value_name = "PID", requires = "relay")]
    relay_pid: Vec<u32>,

    /// Line of configuration of the relays, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, conflicts_with = "relay")]
    set: Vec<String>,

    /// Line of configuration of the clients, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    client_set: Vec<String>,

    /// Leave it to the system which core runs what
    #[arg(long)]
    no_pin: bool,

    /// Never park the generator [default: if it has a core to itself]
    #[arg(long, value_name = "BOOL")]
    spin: Option<bool>,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`Topology`] as an argument, as far as it has a relay.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TopologyArg {
    /// One relay
    Hop,
    /// Two relays, the first asks the second
    Chain,
    /// Two relays, the clients ask the second through the first
    Nested,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum WorkloadArg {
    /// Near client to far client
    Up,
    /// Far client to near client
    Down,
    /// Both at the same time, in the same tunnels
    Both,
    /// To the far client and back
    Echo,
}

/// [`IpVersion`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyArg {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

impl IpArgs {
    /// What they ask for.
    ///
    /// # Errors
    /// `InvalidInput`: a packet that has no room for its own headers.
    pub(crate) fn wanted(&self) -> io::Result<Wanted> {
        let (version, pool, family) = match self.family {
            FamilyArg::V4 => (IpVersion::V4, POOL_V4, 4),
            FamilyArg::V6 => (IpVersion::V6, POOL_V6, 6),
        };
        let size = self.size as usize;
        let least = size_min(version);
        if size < least {
            let text = format!("--size {size}: must be at least {least} with --family {family}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let topology = match self.topology {
            TopologyArg::Hop => Topology::Hop,
            TopologyArg::Chain => Topology::Chain,
            TopologyArg::Nested => Topology::Nested,
        };
        // Lines given by hand win: what is a default is not said twice.
        let own = [
            ("ip.pools", format!("[{pool:?}]")),
            ("ip.tun", "\"off\"".to_owned()),
            ("ip.client_to_client", "true".to_owned()),
            // All clients come from one address, or through one ingress.
            ("ip.assignments_per_user_max", "1000000".to_owned()),
        ];
        let is_given = |key: &str| {
            let mut given = self.set.iter().filter_map(|line| line.split_once('='));
            given.any(|(given, _)| given.trim() == key)
        };
        let mut set: Vec<_> = own
            .iter()
            .filter(|(key, _)| !is_given(key))
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        set.extend(self.set.iter().cloned());
        Ok(Wanted {
            plans: Plans {
                topology,
                running: self.running(),
                workload: format!("ip-{}", self.workload.name()),
                groups: self.groups(size, least),
                connections: self.connections.min(self.flows),
                carrier: self.carrier,
                warm_up: self.warm_up,
                duration: self.duration.unwrap_or(RUN),
                workers: self.workers,
                engines: self.generators,
                spin: self.spin,
                pin: !self.no_pin,
                target_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                tcp_target: None,
                set,
                client_set: self.client_set.clone(),
                progress: !self.json,
            },
            version,
            size,
        })
    }

    /// The load in each direction, and beside what is one way a slow echo for the round-trip time.
    fn groups(&self, size: usize, least: usize) -> Vec<Group> {
        let pace = match self.rate {
            Some(rate) => Pace::Rate(rate),
            None => Pace::Window(self.window.unwrap_or(WINDOW)),
        };
        let load = |direction| Group {
            direction,
            pace,
            tick: Duration::ZERO,
            flows: self.flows,
            payload: Payload::Fixed(size),
            bunch: 1,
        };
        let probe = Group {
            pace: Pace::Rate(PROBE_RATE),
            flows: 1,
            payload: Payload::Fixed(least),
            ..load(Direction::Echo)
        };
        match self.workload {
            WorkloadArg::Up => vec![load(Direction::Up), probe],
            WorkloadArg::Down => vec![load(Direction::Down), probe],
            WorkloadArg::Both => vec![load(Direction::Up), load(Direction::Down), probe],
            WorkloadArg::Echo => vec![load(Direction::Echo)],
        }
    }

    fn running(&self) -> Option<Running> {
        let trust = Trust::from_options(self.ca.clone(), self.insecure);
        (!self.relay.is_empty()).then(|| Running {
            urls: self.relay.clone(),
            trust,
            headers: self.header.clone(),
            pids: self.relay_pid.clone(),
        })
    }
}

impl WorkloadArg {
    fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
            Self::Echo => "echo",
        }
    }
}
