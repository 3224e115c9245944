//! TCP sockets of the driver: listeners and connections, in the epoll set that the UDP sockets are in.
//!
//! ```text
//!   epoll event ─► note: what is new ─► ready list ─► poll_tcp ─┬─► listener    accept ─► Accepted
//!                                          ▲                    ├─► connecting  SO_ERROR ─► Connected, Failed
//!                    listeners that have   │                    └─► connected   Ready
//!                    spent the turn's budget
//! ```
//!
//! Invariants:
//! - The driver knows of each connection whether a read or a write would block, and then makes no system call. It
//!   learns that from a call that did less than it was asked to (epoll(7)): what arrives after the event was collected
//!   makes another event. Two things hide from such a call and are told by the event instead, after which only a read
//!   that finds nothing proves anything: an end behind the bytes (RDHUP), and urgent data, at which reads stop.
//! - A connection that broke stays broken. The kernel tells an error once, to whoever calls first; a read after a write
//!   that failed must not take the silence behind it for an end.
//! - A listener is on the ready list until accepting found nothing, or it waits because the system is out of
//!   descriptors.
//! - A closed socket brings no event, not even one that was collected before.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slab::Slab;
use socket2::Socket;

use super::{Driver, next_generation};
use crate::net::poll::Readiness;
use crate::net::tcp::{TcpClose, TcpEvent, TcpId, TcpRead};
use crate::net::{socket, sys};

/// Accept calls per turn, of all listeners together.
const ACCEPT_BUDGET: usize = 64;
/// How long a listener waits for descriptors before it tries again, unless a socket is closed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time between two warnings about that.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// Slices of one write call; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;
/// Marks the tokens of TCP sockets.
const TOKEN_BIT: u64 = 1 << 63;

/// Whether a token of the epoll set is that of a TCP socket.
pub(super) fn is_token(token: u64) -> bool {
    token & TOKEN_BIT != 0
}

fn token(id: TcpId) -> u64 {
    TOKEN_BIT | u64::from(id.generation) << 32 | u64::from(id.slot)
}

fn from_token(token: u64) -> TcpId {
    TcpId {
        slot: (token & u64::from(u32::MAX)) as u32,
        generation: ((token & !TOKEN_BIT) >> 32) as u32,
    }
}

/// The TCP sockets of a driver.
#[derive(Default)]
pub(super) struct Sockets {
    entries: Slab<Entry>,
    generation: u32,
    /// The sockets with something to tell, each at most once; and some that have been closed since.
    ready: VecDeque<TcpId>,
    /// Accept calls made in this turn.
    accept_calls: usize,
    /// The listeners that go on in the next turn, because this one has no accept call left.
    unfinished: Vec<TcpId>,
    /// The listeners that wait for descriptors, and until when.
    suspended: Vec<TcpId>,
    resume_at: Option<Instant>,
    warned_at: Option<Instant>,
}

pub(super) struct Entry {
    pub(super) socket: Socket,
    generation: u32,
    tag: u64,
    /// Whether the socket is in one of the lists.
    queued: bool,
    state: State,
}

enum State {
    Listener,
    /// What an event said goes into the stream already.
    Connecting(Stream),
    Connected(Stream),
}

/// What is known of a connection.
#[derive(Default)]
struct Stream {
    /// A read may find something.
    readable: bool,
    /// A write may find room.
    writable: bool,
    /// The peer has ended its direction, or the connection is over.
    closed: bool,
    /// The peer has sent urgent data.
    urgent: bool,
    /// The error that broke the connection.
    broken: Option<i32>,
    /// What the next [`TcpEvent::Ready`] says.
    news: News,
}

#[derive(Default)]
struct News {
    readable: bool,
    writable: bool,
}

impl Sockets {
    pub(super) fn find(&mut self, id: TcpId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        (entry.generation == id.generation).then_some(entry)
    }

    fn connection(&mut self, id: TcpId) -> io::Result<(&Socket, &mut Stream)> {
        match self.find(id) {
            Some(Entry {
                socket,
                state: State::Connecting(stream) | State::Connected(stream),
                ..
            }) => Ok((socket, stream)),
            Some(_) | None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn enqueue(&mut self, id: TcpId) {
        if let Some(entry) = self.find(id)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// An event of the epoll set.
    pub(super) fn note(&mut self, token: u64, readiness: Readiness) {
        let id = from_token(token);
        let Some(entry) = self.find(id) else {
            return;
        };
        let is_news = match &mut entry.state {
            // Whoever waits for descriptors is in a list.
            State::Listener => true,
            State::Connecting(stream) => {
                stream.note(readiness);
                true
            }
            State::Connected(stream) => stream.note(readiness),
        };
        if is_news {
            self.enqueue(id);
        }
    }

    /// Whether there is something to poll.
    pub(super) fn has_events(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the listeners that wait for descriptors try again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Lets the listeners that wait for descriptors try again.
    pub(super) fn resume(&mut self) {
        self.resume_at = None;
        self.ready.extend(self.suspended.drain(..));
    }

    fn suspend(&mut self, listener: TcpId, error: &io::Error, now: Instant) {
        self.suspended.push(listener);
        self.resume_at.get_or_insert(now + ACCEPT_PAUSE);
        if self.warned_at.is_none_or(|at| at + WARN_INTERVAL <= now) {
            self.warned_at = Some(now);
            tracing::warn!(%error, "TCP connections have to wait to be accepted");
        }
    }
}

impl Stream {
    /// Takes an event in; whether it has news.
    fn note(&mut self, readiness: Readiness) -> bool {
        let ends = readiness.closed && !self.closed;
        self.news.readable |= readiness.readable && (!self.readable || ends);
        self.news.writable |= readiness.writable && !self.writable;
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
        self.closed |= readiness.closed;
        self.urgent |= readiness.urgent;
        self.news.readable || self.news.writable
    }

    fn take_news(&mut self) -> Option<TcpEvent> {
        let News { readable, writable } = std::mem::take(&mut self.news);
        (readable || writable).then_some(TcpEvent::Ready { readable, writable })
    }

    /// Remembers what broke the connection. That it takes nothing more (EPIPE) is not a reason to doubt the end that
    /// the peer has sent before, and the kernel tells it again.
    fn fail(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.broken = self.broken.or(error.raw_os_error());
        }
    }

    fn check(&self) -> io::Result<()> {
        self.broken
            .map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

impl Driver {
    /// Takes over a listening socket, as [`listen`](crate::net::listen) binds it. `tag` comes back with everything that
    /// happens to it, and with its connections until they have a tag of their own.
    ///
    /// # Errors
    /// When the process is out of memory for the epoll set, or the socket is no TCP socket.
    pub fn add_tcp_listener(&mut self, listener: TcpListener, tag: u64) -> io::Result<TcpId> {
        listener.set_nonblocking(true)?;
        let listener = Socket::from(listener);
        socket::configure_stream(&listener)?;
        self.insert_tcp(listener, tag, State::Listener)
    }

    /// Starts a TCP connection to `target`; `Connected` or `Failed` follows.
    ///
    /// # Errors
    /// What the system says at once: no route, no descriptor left, and a refusal by this host itself.
    pub fn connect_tcp(&mut self, target: SocketAddr, tag: u64) -> io::Result<TcpId> {
        self.stats.tcp_connects += 1;
        let connected = socket::connecting(target)
            .and_then(|socket| self.insert_tcp(socket, tag, State::Connecting(Stream::default())));
        self.stats.tcp_connects_failed += u64::from(connected.is_err());
        connected
    }

    fn insert_tcp(&mut self, socket: Socket, tag: u64, state: State) -> io::Result<TcpId> {
        let sockets = &mut self.tcp;
        sockets.generation = next_generation(sockets.generation);
        let vacant = sockets.entries.vacant_entry();
        let id = TcpId {
            slot: u32::try_from(vacant.key()).map_err(|_| io::ErrorKind::OutOfMemory)?,
            generation: sockets.generation,
        };
        match state {
            State::Listener => self.poller.add(socket.as_fd(), token(id))?,
            // The first event tells what is true already: nothing that came before is missed.
            State::Connecting(_) | State::Connected(_) => {
                self.poller.add_stream(socket.as_fd(), token(id))?;
            }
        }
        vacant.insert(Entry {
            socket,
            generation: id.generation,
            tag,
            queued: false,
            state,
        });
        Ok(id)
    }

    /// Gives a socket another tag, an accepted one its first of its own. A stale name is ignored.
    pub fn set_tcp_tag(&mut self, socket: TcpId, tag: u64) {
        if let Some(entry) = self.tcp.find(socket) {
            entry.tag = tag;
        }
    }

    /// The local address of a socket, with the port that the kernel chose.
    ///
    /// # Errors
    /// `NotFound` for a stale name.
    pub fn tcp_local_addr(&self, socket: TcpId) -> io::Result<SocketAddr> {
        let entry = self.tcp.entries.get(socket.slot as usize);
        let entry = entry.filter(|entry| entry.generation == socket.generation);
        let address = entry.ok_or(io::ErrorKind::NotFound)?.socket.local_addr()?;
        Ok(canonical(
            address.as_socket().ok_or(io::ErrorKind::InvalidInput)?,
        ))
    }

    /// Number of open TCP sockets, listeners included.
    #[must_use]
    pub fn tcp_socket_count(&self) -> usize {
        self.tcp.entries.len()
    }

    /// The next thing that happened to a TCP socket, and the socket's tag at this moment. Poll it once per turn until it
    /// has nothing more; what is closed in between brings nothing more, so each event may be acted on at once.
    pub fn poll_tcp(&mut self, now: Instant) -> Option<(TcpId, u64, TcpEvent)> {
        if self.tcp.resume_at.is_some_and(|at| at <= now) {
            self.tcp.resume();
        }
        while let Some(id) = self.tcp.ready.pop_front() {
            let Some(entry) = self.tcp.find(id) else {
                continue;
            };
            entry.queued = false;
            let tag = entry.tag;
            let event = match &mut entry.state {
                State::Listener => self.accept(id, tag, now),
                State::Connecting(_) => Some(self.end_connecting(id)),
                State::Connected(stream) => stream.take_news(),
            };
            if let Some(event) = event {
                return Some((id, tag, event));
            }
        }
        self.tcp.accept_calls = 0;
        self.tcp.ready.extend(self.tcp.unfinished.drain(..));
        None
    }

    /// Whether [`poll_tcp`](Self::poll_tcp) has something, which after it had nothing means: in the next turn. The
    /// worker should come back soon, and [`ready`](Self::ready) will not park.
    #[must_use]
    pub fn has_tcp_events(&self) -> bool {
        self.tcp.has_events()
    }

    /// Takes one connection, and leaves the listener in the list where it belongs.
    fn accept(&mut self, listener: TcpId, tag: u64, now: Instant) -> Option<TcpEvent> {
        while self.tcp.accept_calls < ACCEPT_BUDGET {
            self.tcp.accept_calls += 1;
            let entry = self.tcp.find(listener)?;
            let accepted = sys::accept(&entry.socket).and_then(|(socket, peer)| {
                let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
                let stream = Stream {
                    writable: true,
                    ..Stream::default()
                };
                let socket = self.insert_tcp(socket, tag, State::Connected(stream))?;
                Ok((socket, canonical(peer)))
            });
            match accepted {
                Ok((socket, peer)) => {
                    self.stats.tcp_accepted += 1;
                    self.tcp.enqueue(listener);
                    return Some(TcpEvent::Accepted { socket, peer });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if concerns_one_connection(&error) => self.stats.tcp_accept_failed += 1,
                Err(error) => {
                    self.stats.tcp_accept_failed += 1;
                    self.tcp.find(listener)?.queued = true;
                    self.tcp.suspend(listener, &error, now);
                    return None;
                }
            }
        }
        self.tcp.find(listener)?.queued = true;
        self.tcp.unfinished.push(listener);
        None
    }

    fn end_connecting(&mut self, id: TcpId) -> TcpEvent {
        let failure = match self.tcp.find(id) {
            Some(entry) => entry.socket.take_error().unwrap_or_else(Some),
            None => Some(io::ErrorKind::NotFound.into()),
        };
        if let Some(error) = failure {
            self.stats.tcp_connects_failed += 1;
            self.tcp_close(id, TcpClose::Abort);
            return TcpEvent::Failed(error);
        }
        if let Some(entry) = self.tcp.find(id)
            && let State::Connecting(stream) = &mut entry.state
        {
            let mut stream = std::mem::take(stream);
            // That there is room goes without saying.
            stream.news.writable = false;
            let more = stream.news.readable;
            entry.state = State::Connected(stream);
            if more {
                self.tcp.enqueue(id);
            }
        }
        TcpEvent::Connected
    }

    pub(in crate::net) fn tcp_read(
        &mut self,
        socket: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead> {
        debug_assert!(bytes_max > 0, "reading nothing looks like the end");
        let (socket, stream) = self.tcp.connection(socket)?;
        if !stream.readable {
            stream.check()?;
            return Ok(TcpRead::Blocked);
        }
        self.stats.tcp_read_calls += 1;
        match sys::receive_stream(socket, buffer, bytes_max) {
            Ok(0) => stream.check().map(|()| TcpRead::End),
            Ok(length) => {
                self.stats.tcp_read_bytes += length as u64;
                stream.readable = length == bytes_max || stream.closed || stream.urgent;
                Ok(TcpRead::Bytes(length))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.readable = false;
                Ok(TcpRead::Blocked)
            }
            Err(error) => {
                stream.fail(&error);
                Err(error)
            }
        }
    }

    pub(in crate::net) fn tcp_write(
        &mut self,
        socket: TcpId,
        data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let (socket, stream) = self.tcp.connection(socket)?;
        stream.check()?;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let mut written = 0;
        for slices in data.chunks(SLICES_MAX) {
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            if length == 0 {
                continue;
            }
            if !stream.writable {
                break;
            }
            self.stats.tcp_write_calls += 1;
            match socket.send_vectored_with_flags(slices, flags) {
                Ok(sent) => {
                    written += sent;
                    self.stats.tcp_written_bytes += sent as u64;
                    stream.writable = sent == length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable = false,
                Err(error) => {
                    stream.fail(&error);
                    // What went out before counts; the next call tells the error.
                    return if written == 0 {
                        Err(error)
                    } else {
                        Ok(written)
                    };
                }
            }
        }
        Ok(written)
    }

    pub(in crate::net) fn tcp_shutdown(&mut self, socket: TcpId) {
        if let Ok((socket, _)) = self.tcp.connection(socket) {
            // It fails on a connection that is over, which the next read tells.
            drop(socket.shutdown(Shutdown::Write));
        }
    }

    pub(in crate::net) fn tcp_close(&mut self, id: TcpId, how: TcpClose) {
        let Some(entry) = self.tcp.find(id) else {
            return;
        };
        if matches!(entry.state, State::Listener) {
            // A duplicate that the caller kept would stay in the set.
            drop(self.poller.remove(entry.socket.as_fd()));
        } else if how == TcpClose::Abort {
            // Without it the close is an orderly one, which is as good as the kernel lets us.
            drop(entry.socket.set_linger(Some(Duration::ZERO)));
        }
        drop(self.tcp.entries.remove(id.slot as usize));
        self.tcp.resume();
    }
}

/// Whether an accept call failed because of the connection that it would have returned (accept(2)). Everything else
/// concerns the listener, and will be the same at the next call.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

/// A socket of both families names IPv4 addresses in their IPv6 form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
