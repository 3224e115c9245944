//! What the kernel charges for many target sockets: one connected socket per tunnel, as relays have them, against one
//! socket for all, whose datagrams are told apart by their source address.
//!
//! ```text
//!   target 1 ──► socket 1 ─┐                    target 1 ──┐
//!   target 2 ──► socket 2 ─┼─► epoll ─► tunnel  target 2 ──┼─► one socket ─► table ─► tunnel
//!   target N ──► socket N ─┘                    target N ──┘
//! ```
//!
//! One thread, loopback, no relay: the CPU time of the thread inside of the driver that relays use, and nothing else.
//! In it is what loopback makes a sender do for the receiver, and in the receiving of few datagrams at a time the
//! reading of the clock, in both variants alike. The shared socket is of the kind that QUIC has, which also asks for
//! the local address and ECN of what it receives.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::slice;
use std::time::Duration;

use bauta::net::clock::thread_cpu_time;
use bauta::net::{
    Driver, DriverConfig, Network, Outgoing, Received, SocketId, SocketKind, Train,
    raise_file_limit,
};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::place;

/// Rounds, each with every variant once.
const ROUNDS: usize = 5;
/// Datagrams under way at once: fewer than the smallest usual buffer of a socket holds.
const TURN: usize = 128;
/// Datagrams of a round at least.
const DATAGRAMS: usize = 10_000;
const PAYLOAD_BYTES: usize = 1_200;
/// Targets have this address and the ones behind it: all of 127.0.0.0/8 is this machine.
const FIRST_TARGET: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// CPU time of a datagram over all rounds, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    median: f64,
    min: f64,
    max: f64,
}

impl Cost {
    fn new(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        Self {
            median: rounds[rounds.len() / 2],
            min: rounds[0],
            max: rounds[rounds.len() - 1],
        }
    }
}

/// The figures, in the order in which they are shown.
const FIGURES: [&str; 4] = [
    "receive_connected_ns",
    "receive_shared_ns",
    "send_connected_ns",
    "send_shared_ns",
];

/// The costs with some number of tunnels.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    tunnels: u32,
    #[serde(flatten)]
    costs: BTreeMap<&'static str, Cost>,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sockets {
    payload_bytes: usize,
    datagrams_each: u32,
    rounds: usize,
    rows: Vec<Row>,
}

impl Sockets {
    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "CPU per datagram of {} bytes, {} at a time per tunnel: median of {} rounds [min..max]\n\ntunnels  {}",
            self.payload_bytes,
            self.datagrams_each,
            self.rounds,
            FIGURES.map(|figure| format!("{figure:<24}")).concat()
        )?;
        for row in &self.rows {
            write!(out, "{:>7}", row.tunnels)?;
            for figure in FIGURES {
                let Cost { median, min, max } = row.costs[figure];
                write!(out, "  {:<22}", format!("{median:.0} [{min:.0}..{max:.0}]"))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Measures with each of these numbers of tunnels; leaves out those for which there are too few descriptors.
///
/// # Errors
/// Too few descriptors for any of them, what the system refuses, or that it dropped datagrams.
pub(crate) fn measure(tunnels: &[u32], each: u32) -> io::Result<Sockets> {
    if let Some(core) = place::cores().last() {
        core_affinity::set_for_current(*core);
    }
    let files = raise_file_limit()?;
    let mut rows = Vec::new();
    for &count in tunnels {
        let wanted = u64::from(count) + 64;
        if files >= wanted {
            rows.push(row(count, each as usize)?);
            continue;
        }
        eprintln!(
            "without {count} tunnels: {wanted} file descriptors are needed, and the limit is {files}: raise it with \
             `ulimit -n {wanted}`"
        );
    }
    if rows.is_empty() {
        return Err(io::Error::other("too few file descriptors"));
    }
    Ok(Sockets {
        payload_bytes: PAYLOAD_BYTES,
        datagrams_each: each,
        rounds: ROUNDS,
        rows,
    })
}

fn row(tunnels: u32, each: usize) -> io::Result<Row> {
    let (mut connected, mut shared) = (Side::new(tunnels, false)?, Side::new(tunnels, true)?);
    let mut rounds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        rounds[0].push(connected.receive(each)?);
        rounds[1].push(shared.receive(each)?);
        rounds[2].push(connected.send()?);
        rounds[3].push(shared.send()?);
    }
    Ok(Row {
        tunnels,
        costs: FIGURES.into_iter().zip(rounds.map(Cost::new)).collect(),
    })
}

/// A tunnel as its relay knows it.
#[derive(Clone, Copy)]
struct Tunnel {
    socket: SocketId,
    /// Where the target sends to.
    local: SocketAddr,
    target: SocketAddr,
}

/// One of the two variants, and the targets.
struct Side {
    driver: Driver,
    tunnels: Vec<Tunnel>,
    /// Tunnels by their targets, where all have one socket.
    by_target: Option<FxHashMap<SocketAddr, usize>>,
    /// One socket that is every target: each has an address of its own.
    targets: (Driver, SocketId),
    payload: Bytes,
}

impl Side {
    fn new(tunnels: u32, is_shared: bool) -> io::Result<Self> {
        let (targets, target_socket) = driver_and_socket()?;
        let port = targets.local_addr(target_socket)?.port();
        let (mut driver, shared) = driver_and_socket()?;
        let tunnels = (0..tunnels).map(|number| {
            let address = Ipv4Addr::from_bits(FIRST_TARGET.to_bits() + number);
            let target = SocketAddr::from((address, port));
            let socket = if is_shared {
                shared
            } else {
                driver.connect(target, number.into())?
            };
            let port = driver.local_addr(socket)?.port();
            Ok(Tunnel {
                socket,
                local: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                target,
            })
        });
        let tunnels = tunnels.collect::<io::Result<Vec<_>>>()?;
        let table = || {
            tunnels
                .iter()
                .map(|tunnel| tunnel.target)
                .zip(0..)
                .collect()
        };
        Ok(Self {
            by_target: is_shared.then(table),
            driver,
            tunnels,
            targets: (targets, target_socket),
            payload: Bytes::from(vec![0; PAYLOAD_BYTES]),
        })
    }

    /// CPU time of receiving a datagram, `each` at a time per tunnel.
    fn receive(&mut self, each: usize) -> io::Result<f64> {
        let mut cpu = Duration::ZERO;
        let mut received = vec![0; self.tunnels.len()];
        let turn = (TURN / each).clamp(1, self.tunnels.len());
        let (mut sent, mut next) = (0, (0..self.tunnels.len()).cycle());
        while sent < DATAGRAMS.max(self.tunnels.len() * each) {
            for number in next.by_ref().take(turn) {
                let Tunnel { local, target, .. } = self.tunnels[number];
                for _ in 0..each {
                    let outgoing = outgoing(Some(target.ip()), local, &self.payload);
                    Network::send(&mut self.targets.0, self.targets.1, &outgoing);
                    sent += 1;
                }
            }
            let before = thread_cpu_time();
            let by_target = &self.by_target;
            take(&mut self.driver, |tag, train| {
                let number = match by_target {
                    Some(table) => table.get(&train.peer).copied(),
                    None => Some(tag as usize),
                };
                if let Some(count) = number.and_then(|number| received.get_mut(number)) {
                    *count += train.datagram_count();
                }
            })?;
            cpu += thread_cpu_time() - before;
        }
        cost(cpu, sent, received.iter().sum())
    }

    /// CPU time of sending a datagram, one to each target.
    fn send(&mut self) -> io::Result<f64> {
        let mut cpu = Duration::ZERO;
        let (mut sent, mut received) = (0, 0);
        let mut next = (0..self.tunnels.len()).cycle();
        while sent < DATAGRAMS.max(self.tunnels.len()) {
            let before = thread_cpu_time();
            for number in next.by_ref().take(TURN) {
                let Tunnel { socket, target, .. } = self.tunnels[number];
                if self.by_target.is_some() {
                    let outgoing = outgoing(None, target, &self.payload);
                    Network::send(&mut self.driver, socket, &outgoing);
                } else {
                    self.driver
                        .send_train(socket, slice::from_ref(&self.payload));
                }
                sent += 1;
            }
            cpu += thread_cpu_time() - before;
            take(&mut self.targets.0, |_, train| {
                received += train.datagram_count()
            })?;
        }
        cost(cpu, sent, received)
    }
}

/// A driver with a socket for many peers.
fn driver_and_socket() -> io::Result<(Driver, SocketId)> {
    let mut driver = Driver::new(DriverConfig::default())?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let socket = driver.add(socket, SocketKind::Shared, 0)?;
    Ok((driver, socket))
}

fn outgoing(from: Option<IpAddr>, to: SocketAddr, payload: &Bytes) -> Outgoing<'_> {
    Outgoing {
        peer: Some(to),
        local_ip: from,
        ecn: None,
        segment_size: None,
        contents: payload,
    }
}

/// Takes in what there is, as a turn of a worker does.
fn take(driver: &mut Driver, mut f: impl FnMut(u64, &Train)) -> io::Result<()> {
    let mut more = true;
    while more {
        // Nobody uses the waker or the timer.
        let _woken = driver.poll_ready_nonblocking()?;
        more = driver.receive(&mut |_, tag, event| {
            if let Received::Train(train) = event {
                f(tag, &train);
            }
        });
    }
    Ok(())
}

fn cost(cpu: Duration, sent: usize, received: usize) -> io::Result<f64> {
    if received != sent {
        let text = format!("the kernel dropped {} of {sent} datagrams", sent - received);
        return Err(io::Error::other(text));
    }
    Ok(cpu.as_nanos() as f64 / sent as f64)
}
