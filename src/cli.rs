//! Arguments of the `bauta` program: what can be asked for, within which bounds, with an example for each command.
//!
//! Everything here is checked before the program does anything; what is wrong ends it with exit code 2.

mod tun;
mod via;

use std::net::SocketAddr;
use std::path::PathBuf;

use bauta::client::TcpForm;
use bauta::config::Io;
use bauta::policy::auth::is_user_name;
use bauta::wire::carrier::Carrier;
use bauta::wire::target::Target;
use clap::{Args, Parser, Subcommand, value_parser};

pub(crate) use tun::TunArgs;
use via::VIA_MAX;
pub(crate) use via::ViaArgs;

/// Bytes of the UDP payloads of `bauta demo`. Below 16 there is no room for sequence number and time; above 1300 they
/// no longer fit through two nested hops at the default MTU.
const SIZE_BYTES: std::ops::RangeInclusive<i64> = 16..=1300;
/// A MASQUE relay: UDP and TCP through HTTP/3, HTTP/2 and HTTP/1.1, in one hop or two.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  bauta demo                                  see it work on this machine, no configuration
  bauta relay --config egress.toml --check    check a configuration and its certificates
  bauta relay --config egress.toml            run a relay

Exit codes: 0 success, 1 failure while running, 2 wrong arguments or configuration";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a relay, ingress or egress
    Relay(RelayArgs),
    /// Run client, ingress, egress and target on this machine and show what passes
    Demo(DemoArgs),
    /// Forward a local UDP port to a target through one relay or two
    Udp(UdpArgs),
    /// Forward a local TCP port to a target through one relay or two
    Tcp(TcpArgs),
    /// Serve SOCKS5 and HTTP CONNECT on a local port, through one relay or two
    Proxy(ProxyArgs),
    /// Send the IP packets of this machine through one relay or two (a VPN); needs CAP_NET_ADMIN
    Tun(TunArgs),
    /// Hash a password from standard input for the password file of a relay
    Passwd(PasswdArgs),
}

/// `bauta relay`.
#[derive(Debug, Args)]
#[command(after_help = RELAY_HELP)]
pub(crate) struct RelayArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", required_unless_present = "dev")]
    pub(crate) config: Option<PathBuf>,

    /// Check the configuration, load its certificates, print the worst-case memory, and stop
    #[arg(long)]
    pub(crate) check: bool,

    /// Make throw-away certificates where the configuration names none, and print what a client needs
    #[arg(long)]
    pub(crate) dev: bool,

    /// Address to listen on when the configuration names none
    #[arg(
        long,
        value_name = "ADDR",
        requires = "dev",
        default_value = "127.0.0.1:4433"
    )]
    pub(crate) listen: SocketAddr,
}

const RELAY_HELP: &str = "\
Examples:
  bauta relay --config egress.toml
  bauta relay --config ingress.toml --check
  bauta relay --dev --listen [::1]:4433";

/// `bauta demo`.
#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// How long to run
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u32).range(1..=86_400))]
    pub(crate) duration: u32,

    /// Relays between client and target
    #[arg(long, value_name = "1|2", default_value_t = 2, value_parser = value_parser!(u8).range(1..=2))]
    pub(crate) hops: u8,

    /// The client opens the second hop inside the first, so that the ingress does not see the target
    #[arg(long)]
    pub(crate) nested: bool,

    /// HTTP version of every hop
    #[arg(long, value_name = "h3|h2|h1", default_value = "h3")]
    pub(crate) carrier: Carrier,

    /// Bytes through a TCP tunnel, both ways at once, in place of UDP
    #[arg(long, conflicts_with_all = ["size", "rate"])]
    pub(crate) tcp: bool,

    /// Bytes of each UDP payload
    #[arg(long, value_name = "BYTES", default_value_t = 1200, value_parser = value_parser!(u16).range(SIZE_BYTES))]
    pub(crate) size: u16,

    /// Datagrams per second; as many as the chain carries when left out
    #[arg(long, value_name = "PPS", value_parser = value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    /// Worker threads of each relay
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,

    /// How workers wait for sockets
    #[arg(long, value_name = "auto|uring|epoll", default_value = "auto", value_parser = io)]
    pub(crate) io: Io,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const DEMO_HELP: &str = "\
Examples:
  bauta demo
  bauta demo --nested --rate 50000 --size 1000
  bauta demo --carrier h2
  bauta demo --carrier h2 --tcp
  bauta demo --hops 1 --duration 30 --io epoll --json";

/// `bauta udp`.
#[derive(Debug, Args)]
#[command(after_help = UDP_HELP)]
pub(crate) struct UdpArgs {
    /// The relays.
    #[command(flatten)]
    pub(crate) relays: ViaArgs,

    /// Local UDP address to forward from
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Where the datagrams should go
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: Target,
}

const UDP_HELP: &str = "\
Examples:
  bauta udp --via https://relay.example --listen 127.0.0.1:5353 --target 192.0.2.53:53
  bauta udp --via https://ingress.example --via https://egress.example:4433 \\
      --listen 127.0.0.1:4000 --target echo.example:7 --header 'proxy-authorization: Bearer TOKEN'
  bauta udp --via https://127.0.0.1:4433 --ca dev-ca.pem --listen 127.0.0.1:5353 --target 192.0.2.53:53";

/// `bauta tcp`.
#[derive(Debug, Args)]
#[command(after_help = TCP_HELP)]
pub(crate) struct TcpArgs {
    /// The relays.
    #[command(flatten)]
    pub(crate) relays: ViaArgs,

    /// Local TCP address to forward from
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// Where the connections should go
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: Target,

    /// How tunnels are asked for: connect-tcp with capsules or without, or CONNECT as every proxy knows it
    #[arg(long, value_name = "capsules|raw|classic", default_value = "capsules", value_parser = via::tcp_form)]
    pub(crate) tcp_form: TcpForm,
}

const TCP_HELP: &str = "\
Examples:
  bauta tcp --via https://relay.example --listen 127.0.0.1:2222 --target host.example:22
  bauta tcp --via https://ingress.example --via https://egress.example:4433 \\
      --listen 127.0.0.1:8080 --target origin.example:80 --credentials @token
  bauta tcp --via https://proxy.example --carrier h2,h1 --tcp-form classic \\
      --listen 127.0.0.1:5432 --target db.example:5432";

/// `bauta proxy`.
#[derive(Debug, Args)]
#[command(after_help = PROXY_HELP)]
pub(crate) struct ProxyArgs {
    /// The relays.
    #[command(flatten)]
    pub(crate) relays: ViaArgs,

    /// Local TCP address to serve on; whoever reaches it may use the relays
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    /// How tunnels are asked for: connect-tcp with capsules or without, or CONNECT as every proxy knows it
    #[arg(long, value_name = "capsules|raw|classic", default_value = "capsules", value_parser = via::tcp_form)]
    pub(crate) tcp_form: TcpForm,
}

const PROXY_HELP: &str = "\
One port for SOCKS5 (CONNECT and UDP ASSOCIATE) and HTTP CONNECT; the relay resolves the names.

Examples:
  bauta proxy --via https://relay.example --listen 127.0.0.1:1080
  bauta proxy --via https://ingress.example --via https://egress.example:4433 \\
      --listen 127.0.0.1:1080 --credentials @token
  bauta proxy --via https://proxy.example --carrier h2 --tcp-form classic --listen [::1]:1080";

/// `bauta passwd`.
#[derive(Debug, Args)]
#[command(after_help = PASSWD_HELP)]
pub(crate) struct PasswdArgs {
    /// Name that clients give with the password: letters, digits, ".", "_", "-" and "@"
    #[arg(long, value_name = "NAME", value_parser = user)]
    pub(crate) user: String,
}

const PASSWD_HELP: &str = "\
Prints the line for the file that [auth] passwords names. The password is the first line of standard input.

Examples:
  bauta passwd --user alice >> passwords";

impl Cli {
    /// Reads the arguments of the process; prints help or what is wrong, and ends the process, when there is nothing
    /// to run.
    pub(crate) fn from_process() -> Self {
        Self::parse().checked().unwrap_or_else(|error| error.exit())
    }

    /// Rules between arguments that clap has no word for.
    fn checked(self) -> Result<Self, clap::Error> {
        let wrong = |message: String| {
            use clap::CommandFactory;
            Err(Self::command().error(clap::error::ErrorKind::ValueValidation, message))
        };
        match &self.command {
            Command::Demo(demo) if demo.nested && demo.hops != 2 => {
                wrong("--nested needs --hops 2: there is nothing to nest in one hop".to_owned())
            }
            Command::Udp(UdpArgs { relays, .. })
            | Command::Tcp(TcpArgs { relays, .. })
            | Command::Proxy(ProxyArgs { relays, .. })
            | Command::Tun(TunArgs { relays, .. })
                if relays.via.len() > VIA_MAX =>
            {
                wrong(format!(
                    "--via was given {} times, at most {VIA_MAX} hops are possible",
                    relays.via.len()
                ))
            }
            Command::Udp(UdpArgs { relays, .. })
            | Command::Tcp(TcpArgs { relays, .. })
            | Command::Proxy(ProxyArgs { relays, .. }) => match relays.only_ip() {
                Some(error) => wrong(format!("--via: {error}")),
                None => Ok(self),
            },
            Command::Tun(_) => Ok(self),
            Command::Relay(_) | Command::Demo(_) | Command::Passwd(_) => Ok(self),
        }
    }
}

fn io(text: &str) -> Result<Io, String> {
    match text {
        "auto" => Ok(Io::Auto),
        "uring" => Ok(Io::Uring),
        "epoll" => Ok(Io::Epoll),
        _ => Err("must be auto, uring or epoll".to_owned()),
    }
}

fn user(text: &str) -> Result<String, String> {
    match is_user_name(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("must be letters, digits, \".\", \"_\", \"-\" and \"@\", at least one".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' '))
            .and_then(Cli::checked)
            .map_err(|error| {
                assert_eq!(error.exit_code(), 2, "{line}");
                error.to_string()
            })
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every line under "Examples:" of every help text parses.
    #[test]
    fn examples_of_the_help_parse() {
        let mut examples = 0;
        for help in [
            AFTER_HELP,
            RELAY_HELP,
            DEMO_HELP,
            UDP_HELP,
            TCP_HELP,
            PROXY_HELP,
            PASSWD_HELP,
            tun::TUN_HELP,
        ] {
            let joined = help
                .replace("\\\n      ", "")
                .replace("'proxy-authorization: Bearer TOKEN'", "a:b")
                .replace("@token", "bearer:a")
                .replace(" >> passwords", "");
            for line in joined
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("bauta "))
            {
                let command: Vec<&str> = line
                    .split("   ")
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
                    .collect();
                parse(&format!("bauta {}", command.join(" "))).unwrap();
                examples += 1;
            }
        }
        assert_eq!(examples, 26);
    }

    #[test]
    fn defaults() {
        let Command::Demo(demo) = parse("bauta demo").unwrap().command else {
            panic!("not demo")
        };
        assert_eq!(
            (demo.duration, demo.hops, demo.size, demo.workers),
            (10, 2, 1200, 1)
        );
        assert_eq!(
            (demo.nested, demo.carrier, demo.rate, demo.io, demo.json),
            (false, Carrier::H3, None, Io::Auto, false)
        );
    }

    #[test]
    fn bounds_are_named() {
        for (line, message) in [
            ("bauta demo --size 15", "15 is not in 16..=1300"),
            ("bauta demo --size 1301", "1301 is not in 16..=1300"),
            ("bauta demo --hops 3", "3 is not in 1..=2"),
            ("bauta demo --rate 0", "0 is not in 1..=10000000"),
            ("bauta demo --duration 0", "0 is not in 1..=86400"),
            ("bauta demo --workers 0", "0 is not in 1..=1024"),
            ("bauta demo --carrier h4", "is no carrier: h3, h2 or h1"),
            ("bauta demo --tcp --rate 5", "cannot be used with"),
            ("bauta demo --io ring", "must be auto, uring or epoll"),
            ("bauta demo --nested --hops 1", "--nested needs --hops 2"),
            ("bauta relay", "--config <FILE>"),
            ("bauta passwd", "--user <NAME>"),
            ("bauta passwd --user a:b", "must be letters"),
            ("bauta relay --config a --listen 127.0.0.1:1", "--dev"),
            (
                "bauta udp --via https://a --listen 127.0.0.1:1 --target a:0",
                "port is not a decimal",
            ),
            (
                "bauta udp --via https://a --listen 127.0.0.1:1 --target a",
                "port is missing",
            ),
            (
                "bauta udp --via a --listen 127.0.0.1:1 --target a:1",
                "not an absolute URI template",
            ),
            ("bauta udp --listen 127.0.0.1:1 --target a:1", "--via <URL>"),
            (
                "bauta udp --via https://a --via https://b --via https://c --via https://d --via https://e \
                 --listen 127.0.0.1:1 --target a:1",
                "given 5 times, at most 4",
            ),
            (
                "bauta udp --via https://a/vpn --listen 127.0.0.1:1 --target a:1",
                "variable target_host is missing",
            ),
            (
                "bauta tun --via https://a --mtu 1279",
                "1279 is not in 1280",
            ),
            (
                "bauta tun --via https://a --route 10.0.0.1/8",
                "10.0.0.0/8 has none",
            ),
            (
                "bauta tun --via https://a --ipproto 256",
                "256 is not in 0..=255",
            ),
            (
                "bauta tun --via https://a --target 10.0.0.1/8",
                "address has bits behind its prefix length of 8",
            ),
            (
                "bauta udp --via https://a --listen 127.0.0.1:1 --target a:1 --ca x --insecure",
                "cannot be used with",
            ),
            (
                "bauta udp --via https://a --listen 127.0.0.1:1 --target a:1 --header via:x",
                "via is a field that",
            ),
            (
                "bauta udp --via https://a --listen 127.0.0.1:1 --target a:1 --credentials token",
                "must be USER:PASSWORD, bearer:TOKEN or @FILE",
            ),
            (
                "bauta tcp --via https://a --listen 127.0.0.1:1 --target a:1 --tcp-form udp",
                "must be capsules, raw or classic",
            ),
            (
                "bauta proxy --via https://a --listen 127.0.0.1:1 --carrier h3,h4",
                "\"h4\" is none of h3, h2 and h1",
            ),
            (
                "bauta proxy --via https://a --listen 127.0.0.1:1 --head-start 1s",
                "must be two durations",
            ),
            (
                "bauta proxy --via https://a --listen localhost:1",
                "invalid socket address",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(message), "{line}: {error}");
        }
    }
}
