//! A UDP forwarder without any crypto, in a process of its own: what a relay's latency is compared with.
//!
//! It does what a relay does around its crypto: receive trains, find the socket of the peer, send trains.

use std::io;
use std::net::SocketAddr;

use bauta::net::runtime::{self, IoChoice, yield_now};
use bauta::net::{Driver, DriverConfig, Network, Outgoing, Received, SocketId, SocketKind, listen};
use clap::Args;
use crossbeam::channel::bounded;
use rustc_hash::FxHashMap;

use crate::child::{Counters, Hello, ignore_interrupts, serve};
use crate::place;

/// Arguments of a forwarder child.
#[derive(Clone, Debug, Args)]
pub(crate) struct ForwarderChild {
    /// Where to forward to
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Forward TCP
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Core to pin it to
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

/// The number of the socket that peers send to; theirs are above it.
const FRONT: u64 = 0;

/// Forwards until stdin ends.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn run(arguments: &ForwarderChild) -> io::Result<()> {
    ignore_interrupts()?;
    bauta::net::raise_file_limit()?;
    let any = SocketAddr::new(arguments.target.ip(), 0);
    let group = listen::bind_group(any, 1, listen::Sharing::default())?;
    let socket = group.into_iter().next().ok_or(io::ErrorKind::Other)?;
    let address = socket.local_addr()?;
    let (started, selected) = bounded(1);
    let (target, core) = (arguments.target, arguments.core);
    std::thread::Builder::new()
        .name("forwarder".to_owned())
        .spawn(move || {
            if let Some(core) = core.and_then(|core| place::cores().get(core).copied()) {
                core_affinity::set_for_current(core);
            }
            let ended = runtime::run(IoChoice::Auto, move |selected| {
                started.send(selected.driver).ok();
                forward(socket, target)
            });
            if let Ok(Err(error)) | Err(error) = ended {
                eprintln!("error: forwarder: {error}");
                std::process::exit(1);
            }
        })?;
    let hello = Hello {
        address,
        ca: String::new(),
        io: selected.recv().unwrap_or_default().to_owned(),
    };
    serve(&hello, Counters::new)
}

async fn forward(socket: std::net::UdpSocket, target: SocketAddr) -> io::Result<()> {
    let mut driver = Driver::new(DriverConfig::default())?;
    let front = driver.add(socket, SocketKind::Shared, FRONT)?;
    let mut by_peer = FxHashMap::<SocketAddr, (u64, SocketId)>::default();
    let mut peers: Vec<SocketAddr> = Vec::new();
    let mut inbox = Vec::new();
    loop {
        let more = driver.receive(&mut |_, tag, received| inbox.push((tag, received)));
        for (tag, received) in inbox.drain(..) {
            let Received::Train(train) = received else {
                continue;
            };
            let out = |peer| Outgoing {
                peer,
                local_ip: None,
                ecn: None,
                segment_size: Some(train.segment_size),
                contents: &train.data,
            };
            if tag != FRONT {
                let peer = peers.get(tag as usize - 1).copied();
                Network::send(&mut driver, front, &out(peer));
                continue;
            }
            let socket = match by_peer.get(&train.peer) {
                Some(&(_, socket)) => socket,
                None => {
                    peers.push(train.peer);
                    let tag = peers.len() as u64;
                    let socket = driver.connect(target, tag)?;
                    by_peer.insert(train.peer, (tag, socket));
                    socket
                }
            };
            Network::send(&mut driver, socket, &out(None));
        }
        // Whoever woke it, the ready sockets are read next.
        let _woken = if more {
            yield_now().await;
            driver.poll_ready_nonblocking()?
        } else {
            driver.ready().await?
        };
    }
}
