//! Arguments: what can be measured, within which bounds, with an example for each.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bauta::config::parse_header;
use bauta::transport::tls::Trust;
use bauta::wire::carrier::Carrier;
use bauta::wire::template::RelayTemplates;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::child::RelayChild;
use crate::engine::{Direction, Group, Pace, Payload, SIZE_MAX, SIZE_MIN};
use crate::forwarder::ForwarderChild;
use crate::ip::IpArgs;
use crate::run::{Plans, Running, Topology};
use crate::tcp::TcpArgs;

/// Most tunnels of a run: what one address has ports for.
const TUNNELS_MAX: i64 = 50_000;
/// Datagrams under way in a closed loop when nothing else is said: some milliseconds at full speed, and less than any
/// buffer on the way holds.
pub(crate) const WINDOW: u64 = 1_024;
/// Round trips per second of the probe beside a one-way load.
pub(crate) const PROBE_RATE: f64 = 200.0;

const EXAMPLES: &str = "\
Examples:
  loadgen                                                  two hops, one tunnel, as much as they carry
  loadgen --topology hop --workload echo --rate 25000      open loop: lateness counts as latency
  loadgen --topology nested --payload imix --json
  loadgen --tunnels 1000 --connections 10 --html report.html
  loadgen --topology hop --carrier h2                      over TLS and TCP instead of QUIC
  loadgen --topology direct                                raw UDP on the same machine, for reference
  loadgen --relay https://relay.example:4433 --target-ip 192.0.2.7 --workload echo --rate 1000
  loadgen sweep --topology hop --workload echo             highest rate with little loss
  loadgen curve --topology hop                             latency against load
  loadgen setup --connections 1000 --tunnels 5000          new connections and tunnels per second
  loadgen setup --carrier h1 --connections 1000            the same over HTTP/1.1
  loadgen idle --connections 100 --tunnels 100             memory
  loadgen tcp --carrier h2 --workload down --streams 8     bytes in bulk over TCP tunnels
  loadgen tcp --topology forwarder --bytes 1000000000      the same without HTTP and TLS, for reference
  loadgen ip --topology chain --carrier h2                 whole IP packets from one client to another
  loadgen ip --family 6 --size 1280 --workload echo --rate 5000
  loadgen fairness                                         99 slow tunnels beside a flooding one
  loadgen soak --duration 10m --rate 50000                 does memory grow?
  loadgen sockets --datagrams-each 4                       a socket per tunnel against one for all
  loadgen targets --rounds 5                               every target of the project, in interleaved rounds
  loadgen --compare before.json after.json

Exit codes: 0 success, 1 failure while running, 2 wrong arguments, 130 interrupted (what was measured is printed)";

/// Measures MASQUE relays: its own, which it starts and pins, or any that runs already.
///
/// Without arguments: client, ingress, egress and target on this machine, as much as they carry for ten seconds.
/// Prints throughput and latency first, then the details.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) load: Load,

    #[command(flatten)]
    pub(crate) output: Output,

    /// Compare two results of --json instead of running anything
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"])]
    pub(crate) compare: Option<Vec<PathBuf>>,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The highest rate with loss under a bound
    Sweep {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        output: Output,
        /// Share of datagrams that may be lost, 0 to 1
        #[arg(long, default_value_t = 0.01, value_parser = share)]
        max_loss: f64,
        /// First rate, in datagrams per second
        #[arg(long, default_value_t = 20_000.0, value_parser = rate)]
        from: f64,
        /// Highest rate to try, in datagrams per second [default: until one fails]
        #[arg(long, value_name = "PPS", value_parser = rate)]
        to: Option<f64>,
    },
    /// Latency against load: at shares of the highest rate, and beyond it
    Curve {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        output: Output,
        /// Share of datagrams that may be lost at the highest rate, 0 to 1
        #[arg(long, default_value_t = 0.001, value_parser = share)]
        max_loss: f64,
    },
    /// CPU and rate of new connections with a tunnel, and of new tunnels on an open connection
    Setup {
        /// Connections to open, each with one tunnel
        #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=50_000))]
        connections: u32,
        /// Tunnels to open and close on one connection
        #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
        tunnels: u32,
        /// HTTP version under the tunnels
        #[arg(long, value_name = "h3|h2|h1", default_value = "h3")]
        carrier: Carrier,
        /// How many are being opened at the same time
        #[arg(long, default_value_t = 32, value_parser = value_parser!(u32).range(1..=1_000))]
        concurrency: u32,
        /// Line of configuration of the relay, KEY=VALUE
        #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
        set: Vec<String>,
        /// Print the result as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Memory of a relay per idle connection and per idle tunnel
    Idle {
        /// Connections to the relay
        #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
        connections: u32,
        /// HTTP version under the tunnels; on h1 each tunnel has a connection of its own
        #[arg(long, value_name = "h3|h2|h1", default_value = "h3")]
        carrier: Carrier,
        /// Tunnels on each connection
        #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
        tunnels: u32,
        /// Line of configuration of the relay, KEY=VALUE
        #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
        set: Vec<String>,
        /// Print the result as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Slow tunnels beside one that floods, on one worker
    Fairness {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        output: Output,
        /// How many slow ones
        #[arg(long, default_value_t = 99, value_parser = value_parser!(u32).range(1..=10_000))]
        slow: u32,
        /// Round trips per second of each slow one
        #[arg(long, default_value_t = 20.0, value_parser = rate)]
        slow_rate: f64,
    },
    /// A long run that looks at the relays' memory
    Soak {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        output: Output,
    },
    /// Every target of the project in interleaved rounds, medians against the targets
    Targets {
        /// Rounds
        #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Seconds per run
        #[arg(long, default_value = "2s", value_parser = duration)]
        duration: Duration,
        /// Only these, such as T1,T6
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Line of configuration of the relays, KEY=VALUE
        #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
        set: Vec<String>,
        /// Print the result as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Bytes in bulk over TCP tunnels: goodput, CPU per gigabyte, fairness
    Tcp(TcpArgs),
    /// Whole IP packets from one client of a relay to another: rate, loss, CPU per packet
    Ip(IpArgs),
    /// CPU of one connected socket per tunnel against one socket for all, without any relay
    Sockets {
        /// Numbers of tunnels
        #[arg(
            long,
            value_name = "N",
            value_delimiter = ',',
            default_value = "1,1000,10000"
        )]
        #[arg(value_parser = value_parser!(u32).range(1..=25_000))]
        sockets: Vec<u32>,
        /// Datagrams that arrive at once for each
        #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
        datagrams_each: u32,
        /// Print the result as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// A relay in a process of its own
    #[command(hide = true)]
    Relay(RelayChild),
    /// A forwarder in a process of its own
    #[command(hide = true)]
    Forwarder(ForwarderChild),
}

impl Command {
    /// What its result is written to, if to files at all.
    pub(crate) fn output(&self) -> Option<&Output> {
        match self {
            Self::Sweep { output, .. }
            | Self::Curve { output, .. }
            | Self::Fairness { output, .. }
            | Self::Soak { output, .. } => Some(output),
            Self::Setup { .. }
            | Self::Idle { .. }
            | Self::Targets { .. }
            | Self::Tcp(_)
            | Self::Ip(_)
            | Self::Sockets { .. }
            | Self::Relay(_)
            | Self::Forwarder(_) => None,
        }
    }
}

/// What to print, and where.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the distribution of the latency (HdrHistogram percentile format)
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,

    /// Write a report with charts, in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// What to send, and through what.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// What stands between client and target
    #[arg(long, value_enum, default_value = "chain", conflicts_with = "relay")]
    pub(crate) topology: TopologyArg,

    /// Direction of the load
    #[arg(long, value_enum, default_value = "up")]
    pub(crate) workload: WorkloadArg,

    /// UDP payload: bytes, or imix (seven of 64, four of 576, one of 1200)
    #[arg(long, value_name = "BYTES|imix", default_value = "1200", value_parser = payload)]
    pub(crate) payload: Payload,

    /// Tunnels that carry the load
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=TUNNELS_MAX))]
    pub(crate) tunnels: u32,

    /// Connections under the tunnels
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=TUNNELS_MAX))]
    pub(crate) connections: u32,

    /// Open loop: datagrams per second, all tunnels together, by the clock
    #[arg(long, value_name = "PPS", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    /// Open loop: send in bursts, what became due since the last tick, such as 200us
    #[arg(long, value_name = "DURATION", default_value = "0us", value_parser = tick)]
    pub(crate) tick: Duration,

    /// Closed loop: datagrams under way, all tunnels together [default: 1024]
    #[arg(long, value_name = "DATAGRAMS", conflicts_with = "rate")]
    #[arg(value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub(crate) window: Option<u64>,

    /// Datagrams in a row on one tunnel before the next has its turn
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) bunch: u32,

    /// How long to measure, such as 10s or 10m [default: 10s, each point of a sweep 2s, soak 10m]
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// How long to send before that
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) warm_up: Duration,

    /// HTTP version under the tunnels
    #[arg(long, value_name = "h3|h2|h1", default_value = "h3")]
    pub(crate) carrier: Carrier,

    /// Worker threads of each relay
    #[arg(long, default_value = "1", conflicts_with = "relay")]
    pub(crate) workers: NonZeroUsize,

    /// Threads of the generator, each with targets of its own
    #[arg(long, default_value = "1")]
    pub(crate) generators: NonZeroUsize,

    /// How the relays wait for sockets: auto, uring, epoll
    #[arg(long, value_name = "IO", conflicts_with = "relay")]
    pub(crate) io: Option<String>,

    /// Measure this relay instead of starting some; give a second one to nest it in the first
    #[arg(long, value_name = "URL", value_parser = template)]
    pub(crate) relay: Vec<RelayTemplates>,

    /// Authorities that its certificate may come from, in place of the system's (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "relay",
        conflicts_with = "insecure"
    )]
    pub(crate) ca: Option<PathBuf>,

    /// Accept any certificate
    #[arg(long, requires = "relay")]
    pub(crate) insecure: bool,

    /// Field to send with each request, such as a token
    #[arg(long, value_name = "NAME:VALUE", requires = "relay", value_parser = header)]
    pub(crate) header: Vec<(http::HeaderName, http::HeaderValue)>,

    /// Process of that relay on this machine, for CPU time and memory
    #[arg(long, value_name = "PID", requires = "relay")]
    pub(crate) relay_pid: Vec<u32>,

    /// Address of this machine where the relay reaches the target
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) target_ip: IpAddr,

    /// Line of configuration of the relays, KEY=VALUE, such as quic.congestion='"bbr"'
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, conflicts_with = "relay")]
    pub(crate) set: Vec<String>,

    /// Line of configuration of the client, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub(crate) client_set: Vec<String>,

    /// Leave it to the system which core runs what
    #[arg(long)]
    pub(crate) no_pin: bool,

    /// Never park the generator [default: if it has a core to itself]
    #[arg(long, value_name = "BOOL")]
    pub(crate) spin: Option<bool>,
}

/// [`Topology`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TopologyArg {
    /// Raw UDP
    Direct,
    /// A UDP forwarder without crypto
    Forwarder,
    /// One relay
    Hop,
    /// Two relays, the first asks the second
    Chain,
    /// Two relays, the client asks the second through the first
    Nested,
}

/// [`Direction`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum WorkloadArg {
    /// Client to target
    Up,
    /// Target to client
    Down,
    /// To the target and back
    Echo,
}

impl Load {
    /// The plans of one run, which takes `duration` if nothing was said.
    pub(crate) fn plans(&self, duration: Duration) -> Plans {
        let direction = match self.workload {
            WorkloadArg::Up => Direction::Up,
            WorkloadArg::Down => Direction::Down,
            WorkloadArg::Echo => Direction::Echo,
        };
        let pace = match self.rate {
            Some(rate) => Pace::Rate(rate),
            None => Pace::Window(self.window.unwrap_or(WINDOW)),
        };
        let load = Group {
            direction,
            pace,
            tick: self.tick,
            flows: self.tunnels,
            payload: self.payload,
            bunch: self.bunch,
        };
        let mut groups = vec![load];
        if direction != Direction::Echo {
            groups.push(probe());
        }
        let mut set = self.set.clone();
        set.extend(self.io.iter().map(|io| format!("io = {io:?}")));
        Plans {
            topology: self.topology.into(),
            running: self.running(),
            workload: direction.name().to_owned(),
            groups,
            connections: self.connections.min(self.tunnels.max(1)),
            carrier: self.carrier,
            warm_up: self.warm_up,
            duration: self.duration.unwrap_or(duration),
            workers: self.workers,
            engines: self.generators,
            spin: self.spin,
            pin: !self.no_pin,
            target_ip: self.target_ip,
            tcp_target: None,
            set,
            client_set: self.client_set.clone(),
            progress: true,
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

/// A slow echo beside the load, for the round-trip time.
pub(crate) fn probe() -> Group {
    Group {
        direction: Direction::Echo,
        pace: Pace::Rate(PROBE_RATE),
        tick: Duration::ZERO,
        flows: 1,
        payload: Payload::Fixed(64),
        bunch: 1,
    }
}

impl From<TopologyArg> for Topology {
    fn from(argument: TopologyArg) -> Self {
        match argument {
            TopologyArg::Direct => Self::Direct,
            TopologyArg::Forwarder => Self::Forwarder,
            TopologyArg::Hop => Self::Hop,
            TopologyArg::Chain => Self::Chain,
            TopologyArg::Nested => Self::Nested,
        }
    }
}

fn payload(text: &str) -> Result<Payload, String> {
    if text == "imix" {
        return Ok(Payload::Imix);
    }
    match text.parse() {
        Ok(bytes) if (SIZE_MIN..=SIZE_MAX).contains(&bytes) => Ok(Payload::Fixed(bytes)),
        Ok(_) | Err(_) => Err(format!(
            "must be imix or a number of bytes in {SIZE_MIN}..={SIZE_MAX}"
        )),
    }
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=100e6).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("must be a number in 0.1..=100000000".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("must be in 0..1".to_owned()),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = seconds(text).filter(|seconds| (0.1..=86_400.0).contains(seconds));
    let wrong = || "must be a number with ms, s, m or h, from 100ms to 24h".to_owned();
    Ok(Duration::from_secs_f64(duration.ok_or_else(wrong)?))
}

fn tick(text: &str) -> Result<Duration, String> {
    let duration = seconds(text).filter(|seconds| (0.0..=1.0).contains(seconds));
    let wrong = || "must be a number with us, ms or s, up to 1s".to_owned();
    Ok(Duration::from_secs_f64(duration.ok_or_else(wrong)?))
}

/// A number and its unit; seconds if there is none.
fn seconds(text: &str) -> Option<f64> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    Some(number * unit)
}

pub(crate) fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
            Ok(text.to_owned())
        }
        Some(_) | None => Err("must be KEY=VALUE, with the value as in TOML".to_owned()),
    }
}

pub(crate) fn template(text: &str) -> Result<RelayTemplates, String> {
    RelayTemplates::from_relay_url(text).map_err(|error| error.to_string())
}

pub(crate) fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME:VALUE")?;
    parse_header(name, value.trim_matches([' ', '\t'])).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| {
            assert_eq!(error.exit_code(), 2, "{line}");
            error.to_string()
        })
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_of_the_help_parse() {
        let lines = EXAMPLES.lines().filter_map(|line| line.strip_prefix("  "));
        let mut examples = 0;
        for line in lines.filter(|line| line.starts_with("loadgen")) {
            let command = line.split("   ").next().unwrap();
            parse(command).unwrap();
            examples += 1;
        }
        assert_eq!(examples, 21);
    }

    #[test]
    fn bounds_are_named() {
        for (line, message) in [
            ("loadgen --payload 20", "bytes in 21..=1250"),
            ("loadgen --payload 1251", "bytes in 21..=1250"),
            ("loadgen --rate 0", "0.1..=100000000"),
            ("loadgen --rate 10 --window 5", "cannot be used with"),
            ("loadgen --duration 10x", "s, m or h"),
            ("loadgen --tick 2s", "up to 1s"),
            ("loadgen --tunnels 0", "0 is not in 1..=50000"),
            ("loadgen --ca x", "--relay <URL>"),
            ("loadgen --relay nowhere", "not an absolute URI template"),
            ("loadgen --set x", "KEY=VALUE"),
            ("loadgen sweep --max-loss 1", "must be in 0..1"),
            ("loadgen --compare a.json", "--compare"),
            (
                "loadgen --relay https://a --topology hop",
                "cannot be used with",
            ),
            (
                "loadgen --relay https://a --workers 2",
                "cannot be used with",
            ),
            ("loadgen tcp --bytes 5 --duration 1s", "cannot be used with"),
            ("loadgen tcp --tls-proxy 127.0.0.1:1", "--target <ADDR>"),
            ("loadgen --carrier h4", "is no carrier: h3, h2 or h1"),
            ("loadgen ip --size 48", "48 is not in 49..=65527"),
            ("loadgen ip --size 65528", "65528 is not in 49..=65527"),
            ("loadgen ip --family 5", "'5' for '--family <FAMILY>'"),
            ("loadgen ip --flows 10001", "10001 is not in 1..=10000"),
            ("loadgen ip --rate 10 --window 5", "cannot be used with"),
            ("loadgen ip --topology direct", "[possible values: hop"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(message), "{line}: {error}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(tick("200us"), Ok(Duration::from_micros(200)));
        assert!(duration("0").is_err() && duration("s").is_err() && duration("25h").is_err());
    }
}
