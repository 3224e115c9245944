//! TUN queues of the driver, in the epoll set and in the line of turns that the UDP sockets are in.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use bytes::Bytes;
use slab::Slab;

use super::{Driver, Received, SocketId, Stats, next_generation};
use crate::net::tun::{
    HEADER_BYTES, Header, Malformed, Merger, Packets, SUPER_PACKET_BYTES_MAX, TunQueue, Write,
    split,
};

/// Marks the slots of TUN queues.
const SLOT_BIT: u32 = 1 << 31;

/// Whether a name is that of a TUN queue.
pub(super) const fn is_tun(id: SocketId) -> bool {
    id.slot & SLOT_BIT != 0
}

/// The TUN queues of a driver.
#[derive(Default)]
pub(super) struct Queues {
    entries: Slab<Entry>,
    merger: Merger,
    /// What reads go into before they are cut up; empty until there is a queue.
    read: Vec<u8>,
}

struct Entry {
    queue: TunQueue,
    generation: u32,
    tag: u64,
    /// Whether the queue is in the ready list.
    queued: bool,
}

impl Queues {
    fn find(&mut self, id: SocketId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut((id.slot & !SLOT_BIT) as usize)?;
        (entry.generation == id.generation).then_some(entry)
    }

    pub(super) fn enqueue(&mut self, id: SocketId, ready: &mut VecDeque<SocketId>) {
        if let Some(entry) = self.find(id)
            && !entry.queued
        {
            entry.queued = true;
            ready.push_back(id);
        }
    }
}

impl Driver {
    /// Takes over a queue of a TUN. `tag` comes back with everything that it brings, as [`Received::Packets`].
    ///
    /// # Errors
    /// When the kernel is out of memory.
    pub fn add_tun(&mut self, queue: TunQueue, tag: u64) -> io::Result<SocketId> {
        self.generation = next_generation(self.generation);
        self.tuns.read.resize(SUPER_PACKET_BYTES_MAX, 0);
        let vacant = self.tuns.entries.vacant_entry();
        let slot = u32::try_from(vacant.key()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let id = SocketId {
            slot: slot | SLOT_BIT,
            generation: self.generation,
        };
        self.poller.add(queue.as_fd(), id.token())?;
        vacant.insert(Entry {
            queue,
            generation: id.generation,
            tag,
            queued: false,
        });
        Ok(id)
    }

    /// Closes a queue. Returns whether there was one.
    pub(super) fn remove_tun(&mut self, id: SocketId) -> bool {
        if self.tuns.find(id).is_none() {
            return false;
        }
        let entry = self.tuns.entries.remove((id.slot & !SLOT_BIT) as usize);
        let removed = self.poller.remove(entry.queue.as_fd());
        debug_assert!(removed.is_ok(), "the queue was in the set: {removed:?}");
        drop(entry);
        self.tcp.resume();
        true
    }

    /// Visits one queue of the ready list. Returns how many packets it has brought: at most `budget`, exceeded by at
    /// most one super-packet.
    pub(super) fn receive_tun(
        &mut self,
        id: SocketId,
        budget: usize,
        f: &mut impl FnMut(SocketId, u64, Received),
    ) -> usize {
        let mut read = std::mem::take(&mut self.tuns.read);
        let Some(entry) = self.tuns.find(id) else {
            self.tuns.read = read;
            return 0;
        };
        let stats = &mut self.stats;
        let mut packets = 0;
        let more = loop {
            if packets >= budget.max(1) {
                break true;
            }
            let mut header = [0; HEADER_BYTES];
            stats.tun_read_calls += 1;
            let len = match entry.queue.read(&mut header, &mut read) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stats.tun_read_empty += 1;
                    break false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The interface is gone, and so it stays.
                Err(error) => {
                    stats.receive_errors += 1;
                    f(id, entry.tag, Received::Error(error));
                    break false;
                }
            };
            let before = packets;
            let mut count = |brought: Packets| {
                packets += brought.len();
                stats.tun_read_bytes += brought.bytes() as u64;
                f(id, entry.tag, Received::Packets(brought));
            };
            let bytes = read.get_mut(..len).unwrap_or_default();
            let result = match Header::parse(header) {
                Some(header) => split(&header, bytes, &mut self.pool, &mut count),
                None => Err(Malformed),
            };
            stats.tun_packets_read += (packets - before) as u64;
            stats.tun_read_super_packets += u64::from(packets - before > 1);
            if let Err(Malformed) = result {
                stats.tun_read_malformed += 1;
                packets += 1;
            }
        };
        entry.queued = more;
        if more {
            self.ready.push_back(id);
        }
        self.tuns.read = read;
        packets
    }

    /// Gives packets to the kernel, merged where the queue can do that, and empties `packets`. What cannot be written
    /// is lost and counted: the interface may be down, and packets may get lost.
    pub fn send_packets(&mut self, id: SocketId, packets: &mut Vec<Bytes>) {
        let mut merger = std::mem::take(&mut self.tuns.merger);
        if let Some(entry) = self.tuns.find(id) {
            let (queue, stats) = (&entry.queue, &mut self.stats);
            if queue.has_header() {
                let mut write = |w: &Write<'_>| write(queue, w.slices, w.packets, stats);
                merger.merge(packets, queue.offloads(), &mut write);
            } else {
                for packet in packets.iter() {
                    write(queue, &[IoSlice::new(packet)], 1, stats);
                }
            }
        }
        self.tuns.merger = merger;
        packets.clear();
    }
}

/// Writes what stands for `packets` packets.
fn write(queue: &TunQueue, slices: &[IoSlice<'_>], packets: usize, stats: &mut Stats) {
    let packets = packets as u64;
    let result = loop {
        stats.tun_write_calls += 1;
        match queue.write(slices) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    match result {
        Ok(bytes) => {
            stats.tun_packets_written += packets;
            stats.tun_written_bytes += bytes as u64;
            stats.tun_write_super_packets += u64::from(packets > 1);
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS) => stats.tun_write_blocked += packets,
            Some(libc::EIO) => stats.tun_write_down += packets,
            Some(libc::EINVAL) => stats.tun_write_invalid += packets,
            _ => stats.tun_write_failed += packets,
        },
    }
}
