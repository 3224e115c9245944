//! TCP sockets as the layers above see them: names, events, and what a read or a write found.
//!
//! ```text
//!   listener ─► Accepted ─┐
//!   connect ──► Connected ┴─► Ready … read, write, shutdown … ─► close
//!                   └ Failed
//! ```
//!
//! Readiness is edge-triggered: [`TcpEvent::Ready`] says that what was blocked may go on, never that something is left.
//! Whoever stops reading before a read said [`TcpRead::Blocked`] remembers that there may be more. A new connection may
//! be written to at once; to read it waits for [`TcpEvent::Ready`]. Asking too early, or too often, is harmless and
//! cheap: what would block makes no system call.

use std::io;
use std::net::SocketAddr;

/// Names a TCP socket of one [`Driver`](super::Driver); a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl TcpId {
    /// A name in another [`Network`](super::Network) than a driver: a simulated one numbers its sockets by itself.
    #[must_use]
    pub const fn from_parts(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// The two numbers of [`TcpId::from_parts`].
    #[must_use]
    pub const fn parts(self) -> (u32, u32) {
        (self.slot, self.generation)
    }
}

/// What happened to a TCP socket.
#[derive(Debug)]
pub enum TcpEvent {
    /// A listener has a new connection, which has no tag of its own yet; it carries the listener's.
    Accepted {
        /// The new socket.
        socket: TcpId,
        /// The other end.
        peer: SocketAddr,
    },
    /// A connection that we asked for is established. Before, it is neither read, written nor shut down.
    Connected,
    /// What was blocked may go on. `readable` is also set by an end and by an error, which the next read tells.
    Ready {
        /// A read may find something.
        readable: bool,
        /// A write may find room.
        writable: bool,
    },
    /// A connection that we asked for cannot be had. The socket is closed, its name stale.
    Failed(io::Error),
    /// A connection whose peer had ended its direction is over: no read would tell.
    Broken(io::Error),
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpRead {
    /// This many bytes, at least one, were appended.
    Bytes(usize),
    /// Nothing now; [`TcpEvent::Ready`] follows.
    Blocked,
    /// The peer has ended its direction (FIN). Every read from now on says so.
    End,
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpClose {
    /// What was written still goes out, then FIN. If the peer sent what was not read, it gets RST instead, and may miss
    /// some of what was written (RFC 2525 section 2.17): read to the end first where that matters.
    Orderly,
    /// RST; what waits is thrown away.
    Abort,
}
