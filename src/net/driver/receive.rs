//! Receiving: every ready socket in turn, each until it is empty or its budget is spent.

use std::io;
use std::net::SocketAddr;

use super::{Driver, Entry, Received, SocketId, Stats, find, tun};
use crate::net::buffer::Pool;
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
        let mut turn_budget = self.config.turn_budget_datagrams;
        for _ in 0..self.ready.len() {
            if turn_budget == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let budget = self.config.receive_budget_datagrams.min(turn_budget);
            if tun::is_tun(id) {
                turn_budget = turn_budget.saturating_sub(self.receive_tun(id, budget, f));
                continue;
            }
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
            let visit = reader.visit(budget, f);
            turn_budget = turn_budget.saturating_sub(reader.datagrams);
            match visit {
                Visit::Empty => entry.queued = false,
                Visit::Unfinished => self.ready.push_back(id),
            }
        }
        !self.ready.is_empty()
    }
}

/// One visit to one socket.
struct Reader<'a> {
    id: SocketId,
    entry: &'a mut Entry,
    pool: &'a mut Pool,
    stats: &'a mut Stats,
    /// Spent from the budget. Errors count, so that they cannot hold up a turn either.
    datagrams: usize,
}

impl Reader<'_> {
    fn visit(&mut self, budget: usize, f: &mut impl FnMut(SocketId, u64, Received)) -> Visit {
        if let Some(error) = self.entry.send_error.take() {
            self.error(error, f);
        }
        while self.datagrams < budget.max(1) {
            self.stats.receive_calls += 1;
            match self.train() {
                Ok(Some(train)) => f(self.id, self.entry.tag, Received::Train(train)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stats.receive_empty += 1;
                    return Visit::Empty;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.error(error, f),
            }
        }
        Visit::Unfinished
    }

    fn error(&mut self, error: io::Error, f: &mut impl FnMut(SocketId, u64, Received)) {
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
        let segment_size = arrival.control.segment_size.unwrap_or(data.len());
        let Some(peer) = self.entry.peer.or(arrival.peer) else {
            debug_assert!(false, "an Internet socket reports Internet addresses");
            self.datagrams += 1;
            return Ok(None);
        };
        let train = Train {
            // A socket of both families names IPv4 peers in their IPv6 form.
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            local_ip: arrival.control.local_ip.map(|ip| ip.to_canonical()),
            ecn: arrival.control.ecn,
            segment_size,
            data,
        };
        let count = train.datagram_count();
        self.datagrams += count;
        if arrival.truncated {
            self.stats.truncated += 1;
            return Ok(None);
        }
        self.stats.received_datagrams += count as u64;
        self.stats.received_bytes += train.data.len() as u64;
        self.stats.received_trains += u64::from(count > 1);
        Ok(Some(train))
    }
}
