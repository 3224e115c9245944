//! Accepting: a bounded number of connections per turn, and a pause when the system has no descriptor for another.

use std::io;
use std::time::{Duration, Instant};

use super::{Sockets, State, Stream, canonical};
use crate::net::driver::Driver;
use crate::net::sys;
use crate::net::tcp::{TcpEvent, TcpId};

/// Accept calls per turn, of all listeners together.
const ACCEPT_BUDGET: usize = 64;
/// How long a listener waits for descriptors before it tries again, unless a socket is closed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time between two warnings about that.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

impl Sockets {
    /// When the listeners that wait for descriptors try again.
    pub(in crate::net::driver) fn next_timeout(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Lets the listeners that wait for descriptors try again.
    pub(in crate::net::driver) fn resume(&mut self) {
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

impl Driver {
    /// Takes one connection, and leaves the listener in the list where it belongs.
    pub(super) fn accept(&mut self, listener: TcpId, tag: u64, now: Instant) -> Option<TcpEvent> {
        while self.tcp.accept_calls < ACCEPT_BUDGET {
            self.tcp.accept_calls += 1;
            let entry = self.tcp.find(listener)?;
            let accepted = sys::accept(&entry.socket).and_then(|(socket, peer)| {
                let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
                let stream = State::Connected(Stream::established());
                let socket = self.insert_tcp(socket, tag, stream)?;
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
