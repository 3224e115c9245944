//! What tunnels cost that carry nothing: resident memory of a relay process before, with one tunnel per connection, and
//! with many.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bauta::client::{Hop, HopId};
use bauta::config::{self, Checked, Environment};
use bauta::net::raise_file_limit;
use bauta::program::relay;
use bauta::program::threads::Workers;
use bauta::transport::tls::{ClientTls, Trust, client_config, quic_client};
use bauta::wire::target::Target;
use bauta::wire::template::Template;
use bauta::worker::build::Plan;
use bauta::worker::run::{App, World};
use bauta::worker::{LocalEvent, Machine};
use crossbeam::channel::{Receiver, Sender, bounded};
use serde::Serialize;

/// Tunnels that are being opened at the same time.
const OPENING_MAX: usize = 64;
/// How long all tunnels together may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    connections: u32,
    tunnels: u32,
    rss_bytes_start: u64,
    rss_bytes_one_tunnel_each: u64,
    rss_bytes_all_tunnels: u64,
    bytes_per_connection_with_one_tunnel: u64,
    bytes_per_further_tunnel: u64,
}

impl Idle {
    pub(crate) fn show(&self, json: bool) -> io::Result<()> {
        if json {
            return crate::print_json(self);
        }
        let Self {
            connections,
            tunnels,
            ..
        } = self;
        writeln!(
            io::stdout(),
            "{connections} connections, {tunnels} idle tunnels, resident memory of the relay process\n\
             \x20 per connection with one tunnel  {} bytes\n  per further tunnel              {} bytes",
            self.bytes_per_connection_with_one_tunnel,
            self.bytes_per_further_tunnel
        )
    }
}

/// Runs a relay in this process until it is told to stop.
pub(crate) fn relay() -> io::Result<()> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    relay::run(settings("loadgen-relay", listen)?, true, &mut io::stdout())
        .map_err(io::Error::other)
}

/// A configuration with room for the tunnels, and targets on this machine.
fn settings(name: &str, listen: SocketAddr) -> io::Result<Checked> {
    let mut environment = Environment::new("", NonZeroUsize::MIN, name);
    environment.dev_listen = Some(listen);
    let text = "pin = false\n[policy]\nallow = [\"127.0.0.0/8\"]\n\
                [limits]\ntunnels = 1000000\ntarget_sockets = 1000000\n";
    config::parse(text, &environment).map_err(|error| io::Error::other(error.to_string()))
}

/// A relay in a process of its own, ended with its value.
struct RelayProcess {
    child: Child,
    /// Kept open: the relay prints on.
    _output: BufReader<ChildStdout>,
    url: String,
    ca: String,
}

impl RelayProcess {
    fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("relay").stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let (mut url, mut ca) = (None, None);
        for line in output.by_ref().lines() {
            let line = line?;
            if let Some(address) = line.strip_prefix("listening on ") {
                url = Some(format!("https://{address}"));
            } else if let Some(path) = line.strip_prefix("ca ") {
                ca = Some(path.to_owned());
                break;
            }
        }
        match (url, ca) {
            (Some(url), Some(ca)) => Ok(Self {
                child,
                _output: output,
                url,
                ca,
            }),
            _ => Err(io::Error::other("the relay process did not start")),
        }
    }

    /// Resident memory.
    fn rss_bytes(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.ca));
    }
}

/// Opens `connections` times `tunnels` tunnels to a relay and reads the memory of its process.
pub(crate) fn measure(connections: u32, tunnels: u32) -> io::Result<Idle> {
    raise_file_limit()?;
    let relay = RelayProcess::start()?;
    let target = UdpSocket::bind("127.0.0.1:0")?;
    let template = Template::from_authority_or_template(&relay.url).map_err(io::Error::other)?;
    let tls = ClientTls::new(Trust::File(relay.ca.clone().into()));
    let crypto: Arc<dyn quinn_proto::crypto::ClientConfig> =
        quic_client(client_config(&tls).map_err(io::Error::other)?).map_err(io::Error::other)?;
    // Hops that differ in what stands for their trust never share a connection.
    let hops = (0..connections).map(|number| Hop {
        template: template.clone(),
        crypto: Arc::clone(&crypto),
        crypto_hash: number.into(),
        headers: Default::default(),
    });
    let (orders, inbox) = bounded(1);
    let (outbox, news) = bounded(1);
    let opener = Opener {
        hops: hops.collect(),
        routes: Vec::new(),
        target: target.local_addr()?.into(),
        orders: inbox,
        news: outbox,
        left: 0,
        next: 0,
        opening: 0,
        done: false,
    };
    let mut checked = settings("loadgen", SocketAddr::from(([127, 0, 0, 1], 0)))?;
    checked.listen.clear();
    let mut plan = Plan::new(checked, None).map_err(io::Error::other)?;
    let workers = Workers::start(
        &mut plan,
        "loadgen",
        None,
        move |_, _, _| Ok(opener.clone()),
    )
    .map_err(io::Error::other)?;
    let open = |count: u32| -> io::Result<u64> {
        orders.send(count).map_err(io::Error::other)?;
        workers.peers[0].wake();
        match news.recv_timeout(OPEN_WITHIN) {
            Ok(Ok(())) => relay.rss_bytes(),
            Ok(Err(text)) => Err(io::Error::other(text)),
            Err(_) => Err(io::Error::other("the tunnels did not open in time")),
        }
    };

    let start = relay.rss_bytes()?;
    let one = open(connections)?;
    let further = connections * (tunnels - 1);
    let all = if further > 0 { open(further)? } else { one };
    orders.send(0).map_err(io::Error::other)?;
    workers.peers[0].wake();
    let per = |bytes: u64, count: u32| bytes / u64::from(count.max(1));
    Ok(Idle {
        connections,
        tunnels: connections * tunnels,
        rss_bytes_start: start,
        rss_bytes_one_tunnel_each: one,
        rss_bytes_all_tunnels: all,
        bytes_per_connection_with_one_tunnel: per(one.saturating_sub(start), connections),
        bytes_per_further_tunnel: per(all.saturating_sub(one), further),
    })
}

/// The app: opens tunnels by order, round-robin over the routes.
#[derive(Clone)]
struct Opener {
    hops: Vec<Hop>,
    routes: Vec<HopId>,
    target: Target,
    /// How many tunnels to open; 0 ends the worker.
    orders: Receiver<u32>,
    news: Sender<Result<(), String>>,
    left: u32,
    next: usize,
    opening: usize,
    done: bool,
}

impl App for Opener {
    fn handle(&mut self, _: Instant, event: LocalEvent, _: &mut Machine, _: &mut World<'_>) {
        match event {
            LocalEvent::Opened(_) => {
                self.opening -= 1;
                if self.opening == 0 && self.left == 0 {
                    drop(self.news.try_send(Ok(())));
                }
            }
            LocalEvent::Refused(_, refusal, _) => {
                drop(
                    self.news
                        .try_send(Err(format!("tunnel refused: {refusal}"))),
                );
            }
            LocalEvent::Closed(_) => drop(self.news.try_send(Err("a tunnel ended".to_owned()))),
            LocalEvent::Payload(..) => {}
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        for hop in self.hops.drain(..) {
            self.routes.push(machine.add_route([hop]));
        }
        if let Ok(order) = self.orders.try_recv() {
            self.left = order;
            self.done = order == 0;
        }
        while self.left > 0 && self.opening < OPENING_MAX {
            let route = self.routes[self.next % self.routes.len()];
            self.next += 1;
            self.left -= 1;
            self.opening += 1;
            machine.open_local(now, route, self.target.clone(), out);
        }
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_finished(&self) -> bool {
        self.done
    }
}
