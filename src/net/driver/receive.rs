//! Receiving: every ready socket in turn, each until it is empty or its budget is spent.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;

use super::{Driver, Entry, Received, Reception, SocketId, Stats, find};
use crate::net::buffer::Pool;
use crate::net::control;
use crate::net::sys;
use crate::net::train::Train;

/// How a visit to a socket ended.
enum Visit {
    /// It has nothing more to read; the next event puts it back in line.
    Empty,
    /// Its budget is spent.
    Unfinished,
}

impl Driver {
    /// Receives from every ready socket once, each up to its budget, and hands everything to `f`: the socket, its tag,
    /// and a train or an error. Sockets take turns, so one that never runs dry does not keep another from being read.
    ///
    /// Reads until a socket is empty, even if it has just given one datagram: looking again costs less than parking and
    /// waking for the next.
    ///
    /// Returns whether work is left: the worker should come back soon, and [`ready`](Self::ready) will not park.
    #[must_use = "a busy worker yields to the other tasks of its thread"]
    pub fn receive(&mut self, f: &mut impl FnMut(SocketId, u64, Received)) -> bool {
        // What the ring has brought is not ready to be read, but has been read: half of the turn is for that.
        let reserved = match &self.ring {
            Some(ring) if ring.has_backlog() => self.config.turn_budget_datagrams / 2,
            Some(_) | None => 0,
        };
        let mut turn_budget = self.config.turn_budget_datagrams - reserved;
        for _ in 0..self.ready.len() {
            if turn_budget == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Some(entry) = find(&mut self.sockets, id) else {
                continue;
            };
            let mut reader = Reader {
                id,
                entry,
                pool: &mut self.pool,
                stats: &mut self.stats,
                datagrams: 0,
            };
            let budget = self.config.receive_budget_datagrams.min(turn_budget);
            let visit = reader.visit(budget, f);
            turn_budget = turn_budget.saturating_sub(reader.datagrams);
            match visit {
                Visit::Empty => entry.queued = false,
                Visit::Unfinished => self.ready.push_back(id),
            }
        }
        self.receive_from_ring(turn_budget + reserved, f);
        self.has_work()
    }
}

/// One visit to one socket.
pub(super) struct Reader<'a> {
    pub(super) id: SocketId,
    pub(super) entry: &'a mut Entry,
    pub(super) pool: &'a mut Pool,
    pub(super) stats: &'a mut Stats,
    /// Spent from the budget. Errors count, so that they cannot hold up a turn either.
    pub(super) datagrams: usize,
}

impl Reader<'_> {
    fn visit(&mut self, budget: usize, f: &mut impl FnMut(SocketId, u64, Received)) -> Visit {
        if let Some(error) = self.entry.send_error.take() {
            self.error(error, f);
        }
        if let Reception::Ring(_) = self.entry.reception {
            return Visit::Empty;
        }
        while self.datagrams < budget.max(1) {
            self.stats.receive_calls += 1;
            match self.train() {
                Ok(Some(train)) => f(self.id, self.entry.tag, Received::Train(train)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Visit::Empty,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.error(error, f),
            }
        }
        Visit::Unfinished
    }

    pub(super) fn error(&mut self, error: io::Error, f: &mut impl FnMut(SocketId, u64, Received)) {
        self.datagrams += 1;
        // A router on the path asks for smaller packets. The kernel has noted the path MTU; the next datagram that
        // exceeds it is refused by the send call.
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            return;
        }
        self.stats.receive_errors += 1;
        f(self.id, self.entry.tag, Received::Error(error));
    }

    /// Receives one train; `None` for one that had to be dropped.
    fn train(&mut self) -> io::Result<Option<Train>> {
        let buffer = self.pool.buffer();
        let arrival = sys::receive(&self.entry.socket, buffer, self.entry.peer.is_none())?;
        let data = buffer.split();
        let Some(peer) = self.entry.peer.or(arrival.peer) else {
            debug_assert!(false, "an Internet socket reports Internet addresses");
            self.datagrams += 1;
            return Ok(None);
        };
        Ok(self.check(peer, data, &arrival.control, arrival.truncated))
    }

    /// Makes a train of what was received, and counts it; `None` for one that had to be dropped.
    pub(super) fn check(
        &mut self,
        peer: SocketAddr,
        data: BytesMut,
        control: &control::Received,
        truncated: bool,
    ) -> Option<Train> {
        let train = Train {
            // A socket of both families names IPv4 peers in their IPv6 form.
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            local_ip: control.local_ip.map(|ip| ip.to_canonical()),
            ecn: control.ecn,
            segment_size: control.segment_size.unwrap_or(data.len()),
            data,
        };
        let count = train.datagram_count();
        self.datagrams += count;
        if truncated {
            self.stats.truncated += 1;
            return None;
        }
        self.stats.received_datagrams += count as u64;
        self.stats.received_bytes += train.data.len() as u64;
        self.stats.received_trains += u64::from(count > 1);
        Some(train)
    }
}
