//! Arguments of `loadgen tcp`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bauta::client::TcpForm;
use bauta::program::bulk::Direction;
use bauta::transport::tls::Trust;
use bauta::wire::carrier::Carrier;
use bauta::wire::template::RelayTemplates;
use clap::{Args, ValueEnum, value_parser};

use super::Wanted;
use crate::cli::{TopologyArg, duration, header, setting, template};
use crate::run::{Plans, Running, Topology};

/// How long to measure when nothing is said.
const RUN: Duration = Duration::from_secs(10);
/// Most streams: each is a thread of the target, or two.
const STREAMS_MAX: i64 = 1_000;

/// What to move, and through what.
#[derive(Clone, Debug, Args)]
pub(crate) struct TcpArgs {
    /// What stands between client and target
    #[arg(long, value_enum, default_value = "hop", conflicts_with_all = ["relay", "tls_proxy"])]
    topology: TopologyArg,

    /// Direction of the bytes
    #[arg(long, value_enum, default_value = "up")]
    workload: WorkloadArg,

    /// Streams, each on a tunnel of its own
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=STREAMS_MAX))]
    streams: u32,

    /// Connections under the tunnels; on h1 each tunnel has one of its own
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=STREAMS_MAX))]
    connections: u32,

    /// HTTP version of every hop
    #[arg(long, value_name = "h3|h2|h1", default_value = "h3")]
    carrier: Carrier,

    /// How tunnels are asked for
    #[arg(long, value_enum, default_value = "capsules")]
    form: FormArg,

    /// Bytes of each stream and direction, such as 100000000, from the first to the last
    #[arg(long, conflicts_with_all = ["duration", "warm_up"])]
    #[arg(value_parser = value_parser!(u64).range(1..=1 << 44))]
    bytes: Option<u64>,

    /// How long to measure [default: 10s]
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,

    /// How long to send before that
    #[arg(long, default_value = "1s", value_parser = duration)]
    warm_up: Duration,

    /// Worker threads of each relay
    #[arg(long, default_value = "1", conflicts_with = "relay")]
    workers: NonZeroUsize,

    /// Measure this relay instead of starting some; give a second one to nest it in the first
    #[arg(long, value_name = "URL", value_parser = template)]
    relay: Vec<RelayTemplates>,

    /// Measure this proxy that only ends TLS and leads to --target, without any tunnel
    #[arg(
        long,
        value_name = "ADDR",
        requires = "target",
        conflicts_with = "relay"
    )]
    tls_proxy: Option<SocketAddr>,

    /// Authorities that its certificate may come from, in place of the system's (PEM)
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,

    /// Accept any certificate
    #[arg(long)]
    insecure: bool,

    /// Field to send with each request, such as a token
    #[arg(long, value_name = "NAME:VALUE", requires = "relay", value_parser = header)]
    header: Vec<(http::HeaderName, http::HeaderValue)>,

    /// Process of that relay or proxy on this machine, for CPU time and memory
    #[arg(long, value_name = "PID")]
    relay_pid: Vec<u32>,

    /// Address and port of the target [default: any port of 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    target: Option<SocketAddr>,

    /// Line of configuration of the relays, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, conflicts_with = "relay")]
    set: Vec<String>,

    /// Line of configuration of the client, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    client_set: Vec<String>,

    /// Leave it to the system which core runs what
    #[arg(long)]
    no_pin: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`Direction`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum WorkloadArg {
    /// Client to target
    Up,
    /// Target to client
    Down,
    /// Both at the same time
    Both,
}

/// [`TcpForm`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormArg {
    /// connect-tcp, in DATA capsules
    Capsules,
    /// connect-tcp, bytes as they are
    Raw,
    /// CONNECT as every proxy knows it
    Classic,
}

impl TcpArgs {
    /// What they ask for.
    pub(crate) fn wanted(&self) -> Wanted {
        let trust = Trust::from_options(self.ca.clone(), self.insecure);
        let is_running = !self.relay.is_empty() || self.tls_proxy.is_some();
        let running = is_running.then(|| Running {
            urls: self.relay.clone(),
            trust: trust.clone(),
            headers: self.header.clone(),
            pids: self.relay_pid.clone(),
        });
        let target = self
            .target
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let direction = match self.workload {
            WorkloadArg::Up => Direction::Up,
            WorkloadArg::Down => Direction::Down,
            WorkloadArg::Both => Direction::Both,
        };
        let form = match self.form {
            FormArg::Capsules => TcpForm::Capsules,
            FormArg::Raw => TcpForm::Raw,
            FormArg::Classic => TcpForm::Classic,
        };
        let target_ip: IpAddr = target.ip();
        Wanted {
            plans: Plans {
                topology: Topology::from(self.topology),
                running,
                workload: format!("tcp-{}", direction.as_str()),
                groups: Vec::new(),
                connections: self.connections.min(self.streams),
                carrier: self.carrier,
                warm_up: self.warm_up,
                duration: self.duration.unwrap_or(RUN),
                workers: self.workers,
                engines: NonZeroUsize::MIN,
                spin: None,
                pin: !self.no_pin,
                target_ip,
                tcp_target: None,
                set: self.set.clone(),
                client_set: self.client_set.clone(),
                progress: !self.json,
            },
            tls_proxy: self.tls_proxy.map(|address| (address, trust)),
            target,
            direction,
            streams: self.streams,
            bytes: self.bytes,
            form,
        }
    }
}
