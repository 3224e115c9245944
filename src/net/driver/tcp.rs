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
//! - A reset behind an end makes no read fail. It is told as [`TcpEvent::Broken`], once the end was read.
//! - A closed socket brings no event, not even one that was collected before.

mod accept;
mod stream;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::Socket;

use self::stream::Stream;
use super::{Driver, next_generation};
use crate::net::poll::Readiness;
use crate::net::socket::{self, SocketOptions};
use crate::net::tcp::{TcpClose, TcpEvent, TcpId};

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
        self.connect_tcp_with(target, &SocketOptions::default(), tag)
    }

    /// The same with options.
    ///
    /// # Errors
    /// Those of [`Driver::connect_tcp`], and what the system says of the options: `EADDRNOTAVAIL` for an address that
    /// is not ours, `EPERM` for a mark.
    pub fn connect_tcp_with(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: u64,
    ) -> io::Result<TcpId> {
        self.stats.tcp_connects += 1;
        let connected = socket::connecting(target, options)
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

    /// The next thing that happened to a TCP socket, and the socket's tag at this moment. Poll it once per turn until
    /// it has nothing more; what is closed in between brings nothing more, so each event may be acted on at once.
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
                State::Connected(stream) => match stream.examine(&entry.socket) {
                    Some(broken) => Some(broken),
                    None => stream.take_news(),
                },
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

/// A socket of both families names IPv4 addresses in their IPv6 form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
