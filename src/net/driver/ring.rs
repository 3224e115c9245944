//! Connected sockets through an io_uring of the worker's own: the second way to a socket.
//!
//! ```text
//!   connect ─► fresh ───┐ arm                 completions           ┌─► backlog ─► receive(f): one copy, recycle
//!   remove ──► cancels ─┼──► submit() ─► kernel ─► drain_ring() ────┼─► starved ─► armed again when buffers are free
//!   send ──────────────►┘  once per turn                            └─► sends: counted, or tried again by a call
//! ```
//!
//! A receive stays armed and takes a buffer from the common ring for each datagram or train; what it brought waits in
//! the backlog, is copied once into the worker's own pool, and the buffer goes back. The copy is the price of a small
//! set of buffers that circulates quickly while trains may live as long as they like.
//!
//! Invariants:
//! - A descriptor stays open until the last operation that was queued on it has ended, so its number is not used again.
//! - The backlog holds at most one entry per buffer, and one error per socket.
//! - While anything waits that no further completion would announce (a backlog, something to submit), the worker does
//!   not park.
//! - A receive that found no buffer is armed again when one is free, and no more of them than there are free ones.
//!
//! What the kernel reports of a send comes after `send` has returned. A send that failed is tried once more by a plain
//! call, which deals with segmentation, sizes and pending errors as ever; datagrams that were queued behind it may
//! overtake it. The receive budget of a single socket does not apply: the backlog is served in the order of arrival.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use socket2::Socket;

use super::receive::Reader;
use super::send::{SendError, may_be_pending, send_plainly};
use super::{Driver, Received, Reception, SocketId, find};
use crate::net::control;
use crate::net::socket::ends_socket;
use crate::net::sys::{Buffer, Completion, Full, Ring, Ticket};
use crate::net::train::{Train, run_length};

/// Settings of the ring that serves connected sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingConfig {
    /// Buffers that take part at first, 66 KiB each, of which only touched pages cost memory.
    pub buffers: u16,
    /// Buffers that may take part when many sockets receive small datagrams at once; rounded up to a power of two, at
    /// most 32,768.
    pub buffers_max: u16,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            buffers: 64,
            buffers_max: 1024,
        }
    }
}

/// Whether this kernel has what a [`RingConfig`] needs.
///
/// # Errors
/// When io_uring is forbidden, or older than Linux 6.0.
pub fn check_ring() -> io::Result<()> {
    Ring::new(1, 1).map(drop)
}

/// The ring and what waits around it.
pub(super) struct TargetRing {
    ring: Ring,
    /// What receives have brought, in the order of arrival.
    backlog: VecDeque<(SocketId, io::Result<Option<Buffer>>)>,
    /// Sockets without an armed receive; and some that have been removed since.
    fresh: VecDeque<SocketId>,
    /// Sockets whose receive ended for want of a buffer; and some that have been removed since.
    starved: VecDeque<SocketId>,
    /// Receives of removed sockets.
    cancels: VecDeque<Ticket>,
    /// Removed sockets whose receive has not ended yet.
    closing: FxHashMap<u64, Socket>,
    /// Removed sockets that are of no use once everything has been submitted.
    doomed: Vec<Socket>,
}

impl TargetRing {
    pub(super) fn new(config: RingConfig) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(config.buffers, config.buffers_max)?,
            backlog: VecDeque::new(),
            fresh: VecDeque::new(),
            starved: VecDeque::new(),
            cancels: VecDeque::new(),
            closing: FxHashMap::default(),
            doomed: Vec::new(),
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Lets the next `submit` arm a receive.
    pub(super) fn open(&mut self, id: SocketId) {
        self.fresh.push_back(id);
    }

    /// Takes a removed socket, to be closed when nothing refers to it any more.
    pub(super) fn close(&mut self, id: SocketId, socket: Socket, armed: Option<Ticket>) {
        match armed {
            Some(ticket) => {
                self.cancels.push_back(ticket);
                self.closing.insert(id.token(), socket);
            }
            None => self.doomed.push(socket),
        }
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether there is something to do that no completion is going to announce.
    pub(super) fn has_work(&mut self) -> bool {
        self.has_backlog() || self.ring.has_submissions() || self.can_queue()
    }

    /// Removed sockets that are still open.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> usize {
        self.closing.len() + self.doomed.len()
    }

    /// What dropping the ring does. Returns whether the kernel has let go of everything.
    #[cfg(test)]
    pub(super) fn quiesce(&mut self) -> bool {
        self.ring.quiesce()
    }

    fn can_queue(&self) -> bool {
        let starved = !self.starved.is_empty() && self.ring.free_buffers() > 0;
        starved || !self.fresh.is_empty() || !self.cancels.is_empty()
    }
}

impl Driver {
    /// Gives the ring everything that was put off until the end of the turn, and takes what it has done.
    ///
    /// # Errors
    /// None that a working kernel gives.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.queue_receives();
        let Some(ring) = &mut self.ring else {
            return Ok(());
        };
        if ring.ring.has_submissions() {
            self.stats.ring_submissions += 1;
            ring.ring.submit()?;
        }
        // What the kernel is too busy for waits for the next turn.
        if !ring.ring.has_submissions() {
            ring.doomed.clear();
        }
        self.drain_ring();
        Ok(())
    }

    /// Queues cancellations, and receives for the sockets that have none.
    fn queue_receives(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        while let Some(&ticket) = ring.cancels.front() {
            if ring.ring.cancel(ticket).is_err() {
                return;
            }
            ring.cancels.pop_front();
        }
        let mut room = ring.ring.free_buffers();
        loop {
            let starved = ring.fresh.is_empty();
            let line = if starved && room > 0 {
                &mut ring.starved
            } else {
                &mut ring.fresh
            };
            let Some(&id) = line.front() else { return };
            if let Some(entry) = find(&mut self.sockets, id) {
                let socket = entry.socket.as_fd();
                let Ok(ticket) = ring.ring.arm(socket, entry.coalescing, id.token()) else {
                    return;
                };
                entry.reception = Reception::Ring(Some(ticket));
                room -= usize::from(starved);
            }
            line.pop_front();
        }
    }

    /// Takes everything that the ring has done: receives go to the backlog, sends are settled.
    pub(super) fn drain_ring(&mut self) {
        while let Some(completion) = self.ring.as_mut().and_then(|ring| ring.ring.completion()) {
            match completion {
                Completion::Received {
                    token,
                    result,
                    more,
                } => self.received(SocketId::from_token(token), result, more),
                Completion::Sent {
                    token,
                    result,
                    payload,
                } => self.sent(SocketId::from_token(token), result, payload),
            }
        }
    }

    fn received(&mut self, id: SocketId, result: io::Result<Option<Buffer>>, more: bool) {
        let Some(ring) = &mut self.ring else { return };
        let entry = find(&mut self.sockets, id);
        let open = entry.is_some();
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        if !more {
            match entry {
                Some(entry) => {
                    entry.reception = Reception::Ring(None);
                    let line = match errno {
                        Some(libc::ENOBUFS) => &mut ring.starved,
                        _ => &mut ring.fresh,
                    };
                    line.push_back(id);
                    self.stats.ring_rearmed += 1;
                }
                // This closes it.
                None => drop(ring.closing.remove(&id.token())),
            }
        }
        match (result, errno) {
            (_, Some(libc::ENOBUFS)) => {
                self.stats.ring_no_buffers += 1;
                ring.ring.grow();
            }
            (_, Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN)) => {}
            (result, _) if open => ring.backlog.push_back((id, result)),
            (Ok(Some(buffer)), _) => ring.ring.recycle(buffer),
            (Ok(None) | Err(_), _) => {}
        }
    }

    /// Hands out what has arrived through the ring, up to about `budget` datagrams.
    pub(super) fn receive_from_ring(
        &mut self,
        budget: usize,
        f: &mut impl FnMut(SocketId, u64, Received),
    ) {
        // The calls that other sockets needed have given the kernel the opportunity to post more.
        self.drain_ring();
        let Some(ring) = &mut self.ring else { return };
        let mut spent = 0;
        while spent < budget.max(1) {
            let Some((id, result)) = ring.backlog.pop_front() else {
                return;
            };
            let Some(entry) = find(&mut self.sockets, id) else {
                if let Ok(Some(buffer)) = result {
                    ring.ring.recycle(buffer);
                }
                continue;
            };
            let mut reader = Reader {
                id,
                entry,
                pool: &mut self.pool,
                stats: &mut self.stats,
                datagrams: 0,
            };
            reader.stats.receive_calls += 1;
            match result {
                Ok(buffer) => {
                    if let Some(train) = reader.copy(buffer, &mut ring.ring) {
                        f(id, reader.entry.tag, Received::Train(train));
                    }
                }
                Err(error) => reader.error(error, f),
            }
            spent += reader.datagrams;
        }
    }

    /// Queues datagrams for the end of the turn, and returns how many the ring had room for.
    pub(super) fn queue(&mut self, id: SocketId, datagrams: &[Bytes]) -> usize {
        let mut queued = 0;
        while let Some(rest) = datagrams.get(queued..).filter(|rest| !rest.is_empty()) {
            let count = match self.queue_message(id, rest) {
                Ok(count) => count,
                // A batch that is as long as it may be leaves early.
                Err(Full) => match self.submit().map(|()| self.queue_message(id, rest)) {
                    Ok(Ok(count)) => count,
                    Ok(Err(Full)) | Err(_) => {
                        self.stats.ring_bypassed += 1;
                        break;
                    }
                },
            };
            queued += count;
        }
        queued
    }

    /// Queues the first datagram, or the train that begins with it; returns how many datagrams those are.
    fn queue_message(&mut self, id: SocketId, datagrams: &[Bytes]) -> Result<usize, Full> {
        let (Some(ring), Some(entry)) = (&mut self.ring, find(&mut self.sockets, id)) else {
            return Err(Full);
        };
        let size = datagrams.first().map_or(0, Bytes::len);
        let run = match run_length(datagrams.iter().map(Bytes::len)) {
            count if entry.segmentation => count,
            _ => 1,
        };
        let segment_size = u16::try_from(size).ok().filter(|_| run > 1);
        let message = datagrams.get(..run).unwrap_or(datagrams);
        let socket = entry.socket.as_fd();
        ring.ring.send(socket, segment_size, message, id.token())?;
        self.stats.send_calls += 1;
        Ok(run)
    }

    fn sent(&mut self, id: SocketId, result: io::Result<usize>, payload: Vec<Bytes>) {
        let count = payload.len() as u64;
        match (result, find(&mut self.sockets, id)) {
            (Ok(bytes), _) => {
                self.stats.sent_datagrams += count;
                self.stats.sent_bytes += bytes as u64;
            }
            (Err(error), _) if is_blocked(&error) => self.stats.send_blocked += count,
            (Err(_), None) => self.stats.send_failed += count,
            (Err(error), Some(entry)) => {
                let again = send_plainly(entry, &mut self.stats, &payload);
                let report = match again {
                    Err(SendError::Failed(again)) => Some(again).filter(ends_socket),
                    _ => Some(error).filter(may_be_pending),
                };
                entry.send_error = entry.send_error.take().or(report);
                self.remember_error(id);
            }
        }
        if let Some(ring) = &mut self.ring {
            ring.ring.reuse(payload);
        }
    }
}

impl Reader<'_> {
    /// Copies a train out of a buffer, which goes back to the kernel; `None` for one that had to be dropped. No buffer
    /// is an empty datagram.
    fn copy(&mut self, buffer: Option<Buffer>, ring: &mut Ring) -> Option<Train> {
        let data = self.pool.buffer();
        let (mut control, mut truncated) = (control::Received::default(), false);
        if let Some(buffer) = buffer {
            match ring.read(&buffer) {
                Some(filled) => {
                    data.extend_from_slice(filled.payload);
                    (control, truncated) = (filled.control, filled.truncated);
                }
                None => truncated = true,
            }
            ring.recycle(buffer);
        }
        let data = data.split();
        // The ring serves connected sockets, which all have a peer.
        self.check(self.entry.peer?, data, &control, truncated)
    }
}

fn is_blocked(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
}
