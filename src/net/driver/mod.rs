//! The driver of one worker: owns its UDP and TCP sockets and TUN queues, receives and sends, and parks the worker.
//!
//! ```text
//!   loop {                                        one turn
//!       let more = driver.receive(f);             every ready UDP socket, each up to its budget
//!       while let Some(…) = driver.poll_tcp(now)  what happened to TCP sockets (`tcp`)
//!       … feed machines, expire timers …
//!       driver.send(id, …);                       trains, packets for a TUN
//!       driver.set_timer(earliest deadline, now);
//!       more |= driver.has_tcp_events();
//!       woken = if more { yield_now().await; driver.poll_ready_nonblocking() } else { driver.ready().await };
//!   }
//! ```
//!
//! It asks for readiness and then makes plain system calls. Whoever calls it sees trains and [`SocketId`]s, never a
//! descriptor or a buffer. PERF.md has the figures
//! of a driver with an own io_uring, which brought nothing.
//!
//! Invariants:
//! - A socket that had something to read is in `ready` until a receive call found it empty.
//! - A [`SocketId`] names one socket for ever; after `remove` it names none.
//! - No ICMP error of a connected socket is lost: one that a send call ran into is handed out by the next `receive`.

mod receive;
mod send;
mod tcp;
#[cfg(test)]
mod tests;
mod tun;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::Socket;

use super::buffer::Pool;
use super::poll::{FIRST_SOCKET_TOKEN, Poller, Waker, Woken};
use super::socket::{self, Offload, SocketKind, SocketOptions};
use super::train::Train;
use super::tun::Packets;
use crate::counters::counters;

pub use send::SendError;

/// Names a socket of one [`Driver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    slot: u32,
    generation: u32,
}

impl SocketId {
    /// A name in another [`Network`](super::Network) than a driver: a simulated one numbers its sockets by itself.
    #[must_use]
    pub const fn from_parts(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// The number under which the epoll set knows the socket. Generations begin at 1 and have 31 bits, so it is never
    /// below 2^32, and the top bit is free to mark TCP sockets.
    fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    fn from_token(token: u64) -> Self {
        debug_assert!(token >= FIRST_SOCKET_TOKEN);
        Self {
            slot: (token & u64::from(u32::MAX)) as u32,
            generation: (token >> 32) as u32,
        }
    }
}

/// Settings of a [`Driver`].
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// Cutting trains up on sending (`UDP_SEGMENT`).
    pub gso: Offload,
    /// Coalescing on receiving (`UDP_GRO`).
    pub gro: Offload,
    /// Datagrams that one socket may bring per turn, exceeded by at most one train. More than 64 gain nothing and cost
    /// cache.
    pub receive_budget_datagrams: usize,
    /// Datagrams that all sockets together may bring per turn, exceeded by at most one train.
    pub turn_budget_datagrams: usize,
    /// Kernel receive buffer of a shared socket: bridges the time in which the worker is busy with something else.
    pub socket_receive_buffer_bytes: usize,
    /// Kernel send buffer of a shared socket.
    pub socket_send_buffer_bytes: usize,
    /// Kernel receive buffer of a connected socket, a bound and not an allocation.
    pub target_receive_buffer_bytes: usize,
    /// Kernel send buffer of a connected socket.
    pub target_send_buffer_bytes: usize,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            gso: Offload::Auto,
            gro: Offload::Auto,
            receive_budget_datagrams: 64,
            turn_budget_datagrams: 256,
            socket_receive_buffer_bytes: 4 << 20,
            socket_send_buffer_bytes: 4 << 20,
            target_receive_buffer_bytes: 1 << 20,
            target_send_buffer_bytes: 1 << 20,
        }
    }
}

/// What [`Driver::receive`] hands out.
#[derive(Debug)]
pub enum Received {
    /// Datagrams.
    Train(Train),
    /// Whole IP packets, from a TUN.
    Packets(Packets),
    /// An ICMP error of a connected socket, or a failure of the socket itself. [`ends_socket`](super::ends_socket)
    /// tells which ones end it. From a TUN: the interface is gone.
    Error(io::Error),
}

counters! {
    /// What a [`Driver`] has done so far. Datagrams are counted where they end: sent, or under one of the
    /// reasons why not.
    pub struct Stats {
        /// Receive calls, those that found nothing included.
        receive_calls,
        /// Of those, the ones that found nothing.
        receive_empty,
        /// Datagrams received.
        received_datagrams,
        /// Payload bytes received.
        received_bytes,
        /// Receive calls that brought more than one datagram.
        received_trains,
        /// Receive calls whose bytes were cut, and dropped here. Not zero is a bug.
        truncated,
        /// Errors handed out by `receive`.
        receive_errors,
        /// Send calls, failed ones included.
        send_calls,
        /// Datagrams given to the kernel.
        sent_datagrams,
        /// Payload bytes given to the kernel.
        sent_bytes,
        /// Datagrams dropped because the kernel's send buffer was full.
        send_blocked,
        /// Datagrams dropped because they exceed the path MTU.
        send_too_large,
        /// Datagrams dropped because the peer's port is closed.
        send_refused,
        /// Datagrams dropped because there is no way to the peer.
        send_unreachable,
        /// Datagrams dropped for any other reason.
        send_failed,
        /// Sockets that were switched to single sends because segmentation failed on them.
        segmentation_failures,
        /// Times the worker parked and was woken.
        wakeups,
        /// TCP connections accepted.
        tcp_accepted,
        /// Accept calls that failed: connections that were gone already, and times that no descriptor was left.
        tcp_accept_failed,
        /// TCP connections asked for.
        tcp_connects,
        /// Of those, the ones that could not be had.
        tcp_connects_failed,
        /// Read calls on TCP connections.
        tcp_read_calls,
        /// Bytes that they brought.
        tcp_read_bytes,
        /// Write calls on TCP connections.
        tcp_write_calls,
        /// Bytes that they took.
        tcp_written_bytes,
        /// Read calls on TUN queues, those that found nothing included.
        tun_read_calls,
        /// Of those, the ones that found nothing.
        tun_read_empty,
        /// Packets that came from TUN queues, once they were cut up.
        tun_packets_read,
        /// Bytes of those packets.
        tun_read_bytes,
        /// Read calls that brought more than one packet.
        tun_read_super_packets,
        /// What the kernel handed out on a TUN and made no sense: dropped. Not zero is a bug, there or here.
        tun_read_malformed,
        /// Write calls on TUN queues, failed ones included.
        tun_write_calls,
        /// Packets given to TUN queues.
        tun_packets_written,
        /// Bytes of those packets, with the headers of a super-packet counted once.
        tun_written_bytes,
        /// Write calls that took more than one packet.
        tun_write_super_packets,
        /// Packets dropped because a TUN queue was full (`EAGAIN`, `ENOBUFS`).
        tun_write_blocked,
        /// Packets dropped because the interface of a TUN is down (`EIO`).
        tun_write_down,
        /// Packets dropped because they make no sense to the kernel (`EINVAL`).
        tun_write_invalid,
        /// Packets dropped for any other reason.
        tun_write_failed,
    }
}

/// A socket and what the driver knows about it.
struct Entry {
    socket: Socket,
    generation: u32,
    kind: SocketKind,
    tag: u64,
    /// The peer of a connected socket.
    peer: Option<SocketAddr>,
    /// Whether trains are cut up by the kernel.
    segmentation: bool,
    /// Whether the socket is in the ready list.
    queued: bool,
    /// An ICMP error that a send call met; the next `receive` hands it out.
    send_error: Option<io::Error>,
}

/// The driver of one worker. Not shared between threads; only its [`Waker`] leaves the thread.
pub struct Driver {
    config: DriverConfig,
    /// The kernel and the configuration allow segmentation.
    segmentation: bool,
    sockets: Slab<Entry>,
    generation: u32,
    /// The sockets that may have something to read, each at most once, in the order of their turns; and some that have
    /// been removed since.
    ready: VecDeque<SocketId>,
    pool: Pool,
    tuns: tun::Queues,
    tcp: tcp::Sockets,
    poller: Poller,
    stats: Stats,
}

impl Driver {
    /// Makes a driver without sockets.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(config: DriverConfig) -> io::Result<Self> {
        Ok(Self {
            segmentation: config.gso == Offload::Auto && socket::segmentation_supported(),
            config,
            sockets: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            pool: Pool::new(),
            tuns: tun::Queues::default(),
            tcp: tcp::Sockets::default(),
            poller: Poller::new()?,
            stats: Stats::default(),
        })
    }

    /// Takes over a bound (and, for [`SocketKind::Connected`], connected) socket. `tag` comes back with everything that
    /// it receives.
    ///
    /// # Errors
    /// When the kernel refuses an option that correctness rests on (path MTU discovery, packet information, ECN).
    pub fn add(&mut self, socket: UdpSocket, kind: SocketKind, tag: u64) -> io::Result<SocketId> {
        let local = socket.local_addr()?;
        let peer = match kind {
            SocketKind::Shared => None,
            SocketKind::Connected => Some(socket.peer_addr()?),
        };
        socket.set_nonblocking(true)?;
        let socket = Socket::from(socket);
        let config = &self.config;
        let buffers = match kind {
            SocketKind::Shared => (
                config.socket_receive_buffer_bytes,
                config.socket_send_buffer_bytes,
            ),
            SocketKind::Connected => (
                config.target_receive_buffer_bytes,
                config.target_send_buffer_bytes,
            ),
        };
        let id = self.insert(socket, kind, local.is_ipv6(), peer, buffers, tag)?;
        if kind == SocketKind::Shared {
            self.log_buffers(id, local)?;
        }
        Ok(id)
    }

    /// Opens a socket connected to `target`: never fragments, sends Not-ECT, hears nobody else.
    ///
    /// # Errors
    /// `ENETUNREACH` and the like when there is no route, `EMFILE` when the process is out of descriptors.
    pub fn connect(&mut self, target: SocketAddr, tag: u64) -> io::Result<SocketId> {
        self.connect_with(target, &SocketOptions::default(), tag)
    }

    /// The same with options.
    ///
    /// # Errors
    /// Those of [`Driver::connect`], and what the system says of the options: `EADDRNOTAVAIL` for an address that is
    /// not ours, `EPERM` for a mark.
    pub fn connect_with(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: u64,
    ) -> io::Result<SocketId> {
        let socket = socket::connected(target, options)?;
        let kind = SocketKind::Connected;
        let buffers = (
            options
                .receive_buffer_bytes
                .unwrap_or(self.config.target_receive_buffer_bytes),
            options
                .send_buffer_bytes
                .unwrap_or(self.config.target_send_buffer_bytes),
        );
        self.insert(socket, kind, target.is_ipv6(), Some(target), buffers, tag)
    }

    fn insert(
        &mut self,
        socket: Socket,
        kind: SocketKind,
        ipv6: bool,
        peer: Option<SocketAddr>,
        (receive_bytes, send_bytes): (usize, usize),
        tag: u64,
    ) -> io::Result<SocketId> {
        socket::configure(&socket, kind, ipv6, self.config.gro)?;
        socket::set_buffers(&socket, Some(receive_bytes), Some(send_bytes))?;
        self.generation = next_generation(self.generation);
        let vacant = self.sockets.vacant_entry();
        let id = SocketId {
            slot: u32::try_from(vacant.key()).map_err(|_| io::ErrorKind::OutOfMemory)?,
            generation: self.generation,
        };
        self.poller.add(socket.as_fd(), id.token())?;
        vacant.insert(Entry {
            socket,
            generation: id.generation,
            kind,
            tag,
            peer,
            segmentation: self.segmentation,
            queued: false,
            send_error: None,
        });
        Ok(id)
    }

    fn log_buffers(&self, id: SocketId, address: SocketAddr) -> io::Result<()> {
        let Some(entry) = self.entry(id) else {
            return Ok(());
        };
        // The kernel reports twice the size, because it counts its own bookkeeping (socket(7)).
        let receive_bytes = entry.socket.recv_buffer_size()? / 2;
        let send_bytes = entry.socket.send_buffer_size()? / 2;
        tracing::debug!(%address, receive_bytes, send_bytes, "socket buffers");
        if receive_bytes < self.config.socket_receive_buffer_bytes {
            tracing::warn!(
                %address,
                receive_bytes,
                wanted_bytes = self.config.socket_receive_buffer_bytes,
                "the receive buffer is smaller than configured: raise net.core.rmem_max"
            );
        }
        Ok(())
    }

    /// Closes a socket or a TUN queue; what it still had to read is lost. Returns whether there was one.
    pub fn remove(&mut self, id: SocketId) -> bool {
        if tun::is_tun(id) {
            return self.remove_tun(id);
        }
        if self.entry(id).is_none() {
            return false;
        }
        let entry = self.sockets.remove(id.slot as usize);
        // Closing the last descriptor takes the socket out of the set; a duplicate that the caller of `add` kept would
        // not let it go.
        let removed = self.poller.remove(entry.socket.as_fd());
        debug_assert!(removed.is_ok(), "the socket was in the set: {removed:?}");
        drop(entry);
        self.tcp.resume();
        true
    }

    /// The local address of a socket, with the port that the kernel chose.
    ///
    /// # Errors
    /// `NotFound` for a stale id.
    pub fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        let entry = self.entry(id).ok_or(io::ErrorKind::NotFound)?;
        let address = entry.socket.local_addr()?.as_socket();
        Ok(address.ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Number of open UDP sockets.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// Counters since the driver was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// A handle that wakes this driver from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Sets the time at which [`ready`](Self::ready) returns at the latest; `None` sets nothing, and does not take an
    /// earlier deadline back: the driver may wake up early, never late. Call it with the earliest deadline before
    /// parking.
    ///
    /// # Errors
    /// None that a working kernel gives.
    pub fn set_timer(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<()> {
        let deadline = deadline.into_iter().chain(self.tcp.next_timeout()).min();
        self.poller.set_timer(deadline, now)
    }

    /// Parks until a socket is ready, the timer fires, or the waker is used; returns at once if sockets are still
    /// waiting for their turn. Needs a monoio runtime.
    ///
    /// May return without a reason. May be dropped: nothing is lost, at the price of cancelling the poll.
    ///
    /// # Errors
    /// When the poll itself fails; the worker cannot go on.
    pub async fn ready(&mut self) -> io::Result<Woken> {
        if self.ready.is_empty() && !self.tcp.has_events() {
            self.poller.readable().await?;
            self.stats.wakeups += 1;
        }
        self.poll_ready_nonblocking()
    }

    /// Learns what has become ready, without waiting. What a busy worker calls between turns.
    ///
    /// # Errors
    /// When the poll itself fails; the worker cannot go on.
    pub fn poll_ready_nonblocking(&mut self) -> io::Result<Woken> {
        self.collect(Duration::ZERO)
    }

    fn collect(&mut self, timeout: Duration) -> io::Result<Woken> {
        let (sockets, tuns, ready) = (&mut self.sockets, &mut self.tuns, &mut self.ready);
        let tcp = &mut self.tcp;
        self.poller.collect(timeout, |token, readiness| {
            if tcp::is_token(token) {
                return tcp.note(token, readiness);
            }
            let id = SocketId::from_token(token);
            if tun::is_tun(id) {
                tuns.enqueue(id, ready);
            } else if let Some(entry) = find(sockets, id) {
                entry.enqueue(id, ready);
            }
        })
    }

    fn entry(&self, id: SocketId) -> Option<&Entry> {
        let entry = self.sockets.get(id.slot as usize)?;
        (entry.generation == id.generation).then_some(entry)
    }
}

impl Entry {
    fn enqueue(&mut self, id: SocketId, ready: &mut VecDeque<SocketId>) {
        if !self.queued {
            self.queued = true;
            ready.push_back(id);
        }
    }
}

/// The next generation, for a slot of either kind. Zero is kept for the tokens that are not sockets, the top bit for
/// those of TCP.
fn next_generation(generation: u32) -> u32 {
    (generation.wrapping_add(1) & (u32::MAX >> 1)).max(1)
}

fn find(sockets: &mut Slab<Entry>, id: SocketId) -> Option<&mut Entry> {
    let entry = sockets.get_mut(id.slot as usize)?;
    (entry.generation == id.generation).then_some(entry)
}
