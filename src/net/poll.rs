//! The epoll set of a worker: its sockets, its timer and its waker, behind one descriptor that monoio can watch.
//!
//! ```text
//!   token 0   timerfd            everything is edge-triggered: an event says "something is new",
//!   token 1   eventfd            never "something is left", so nothing has to be read to be silenced
//!   other     sockets: with the top bit TCP, without it UDP
//! ```
//!
//! Invariants:
//! - Whoever is told that a socket is ready reads it until it would block, or remembers it; the set does not say it
//!   twice.
//! - The timer is never late by more than the kernel's own slack, and may be early: an early wake-up costs a turn, a
//!   timer that is set anew for every packet costs a system call each.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::sys::{Epoll, Timer};

/// Tokens below this one are not sockets.
pub(super) const FIRST_SOCKET_TOKEN: u64 = 2;
const TIMER: u64 = 0;
const WAKER: u64 = 1;

/// Why a worker woke up, apart from sockets.
#[must_use = "a mailbox that is not read now is not announced again"]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    /// The deadline of [`Driver::set_timer`](super::Driver::set_timer), or an earlier one, has passed.
    pub timer: bool,
    /// [`Waker::wake`] was called: read the mailbox until it is empty.
    pub mailbox: bool,
}

/// Wakes a worker from another thread. Cheap to clone; keeps working, without effect, after the worker is gone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Mailbox>);

#[derive(Debug)]
struct Mailbox {
    eventfd: File,
    /// A wake-up is under way: further ones need no system call.
    announced: AtomicBool,
}

impl Waker {
    fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Mailbox {
            eventfd: super::sys::eventfd()?,
            announced: AtomicBool::new(false),
        })))
    }

    /// Makes the worker read its mailbox soon. Call it after putting the message in: a message that was put in before
    /// this call is seen, whichever of several wakers gets through.
    pub fn wake(&self) {
        if self.0.announced.swap(true, Ordering::AcqRel) {
            return;
        }
        let written = (&self.0.eventfd).write(&1u64.to_ne_bytes());
        debug_assert!(written.is_ok(), "the counter overflows after 2^64 writes");
    }

    /// Called by the worker before it reads the mailbox, so that a message put in afterwards is announced again.
    /// The swap makes every message visible whose sender found the flag still set.
    fn take(&self) {
        self.0.announced.swap(false, Ordering::AcqRel);
    }
}

/// What is true of a socket at the moment at which its event was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    /// There is something to read, the end and an error included.
    pub(super) readable: bool,
    /// There is room to write, or an error that writing tells.
    pub(super) writable: bool,
    /// The peer has ended its direction, or the connection is over.
    pub(super) closed: bool,
    /// The connection is over, or has an error to tell.
    pub(super) over: bool,
    /// The peer has sent urgent data (RFC 9293 section 3.8.5).
    pub(super) urgent: bool,
}

impl Readiness {
    fn from_events(events: c_int) -> Self {
        let any = |of: c_int| events & of != 0;
        let over = libc::EPOLLHUP | libc::EPOLLERR;
        let closed = any(libc::EPOLLRDHUP | over);
        Self {
            readable: any(libc::EPOLLIN) || closed,
            writable: any(libc::EPOLLOUT | over),
            closed,
            over: any(over),
            urgent: any(libc::EPOLLPRI),
        }
    }
}

/// The epoll set.
pub(super) struct Poller {
    epoll: Epoll,
    timer: Timer,
    /// When the timer is going to fire; may have passed.
    armed: Option<Instant>,
    waker: Waker,
    /// monoio's handle on a duplicate of the epoll descriptor, made when the worker first parks.
    watch: Option<monoio::net::udp::UdpSocket>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let timer = Timer::new()?;
        let waker = Waker::new()?;
        epoll.add(timer.as_fd(), libc::EPOLLIN, TIMER)?;
        epoll.add(waker.0.eventfd.as_fd(), libc::EPOLLIN, WAKER)?;
        Ok(Self {
            epoll,
            timer,
            armed: None,
            waker,
            watch: None,
        })
    }

    /// Watches a socket for input, which for a listener is a connection.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        debug_assert!(token >= FIRST_SOCKET_TOKEN);
        self.epoll.add(socket, libc::EPOLLIN, token)
    }

    /// Watches a socket for everything that [`Readiness`] tells.
    pub(super) fn add_stream(&self, socket: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        debug_assert!(token >= FIRST_SOCKET_TOKEN);
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI;
        self.epoll.add(socket, interest, token)
    }

    pub(super) fn remove(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.remove(socket)
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Collects events, waiting at most `timeout` for the first one; calls `socket_ready` with the token of each
    /// socket and what there is to know about it.
    pub(super) fn collect(
        &mut self,
        timeout: Duration,
        mut socket_ready: impl FnMut(u64, Readiness),
    ) -> io::Result<Woken> {
        let mut woken = Woken::default();
        for (token, events) in self.epoll.wait(timeout)? {
            match token {
                TIMER => woken.timer = true,
                WAKER => woken.mailbox = true,
                token => socket_ready(token, Readiness::from_events(events)),
            }
        }
        if woken.timer {
            self.armed = None;
        }
        if woken.mailbox {
            self.waker.take();
        }
        Ok(woken)
    }

    /// Parks the task until [`collect`](Self::collect) has something to collect.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => watch_of(self.epoll.as_fd())?,
        };
        // Not relaxed: monoio's epoll driver then asks the descriptor itself instead of trusting an old event.
        self.watch.insert(watch).readable(false).await
    }

    /// Sets the next wake-up. The timer is touched only if it would fire too late: never for a later deadline, which
    /// the wake-up at the earlier one sets again.
    pub(super) fn set_timer(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<()> {
        let Some(deadline) = deadline else {
            return Ok(());
        };
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return Ok(());
        }
        self.timer.arm(deadline.saturating_duration_since(now))?;
        self.armed = Some(deadline);
        Ok(())
    }
}

/// Any descriptor in the form in which monoio waits for it: of its sockets, this one can be made of any descriptor and
/// be asked for readiness alone.
fn watch_of(fd: BorrowedFd<'_>) -> io::Result<monoio::net::udp::UdpSocket> {
    monoio::net::udp::UdpSocket::from_std(fd.try_clone_to_owned()?.into())
}
