//! Buffers that the kernel picks from when a datagram arrives: one ring of them for all sockets of a worker.
//!
//! ```text
//!   spare ──provide──► with the kernel ──completion──► held ──recycle──► with the kernel
//! ```
//!
//! A receive has no buffer of its own while it waits, so ten thousand idle sockets share what one busy socket needs.
//! Every buffer holds the largest train. Few of them go round at first, and stay warm in the cache; more join when the
//! kernel runs out although little is in those that are held, which is what many sockets with small datagrams look
//! like.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::region::Region;
use crate::net::control;

/// Size of a buffer: what a receive may bring, the control messages and their header before it. More than 64 KiB by a
/// distance that spreads the beginnings of the buffers over the sets of the cache.
const BUFFER_BYTES: usize = 66 * 1024;

/// Room for the control messages of a connected socket, which reports the segment size and nothing else.
pub(super) const CONTROL_BYTES: usize = 64;

/// Lengths and flags that the kernel puts before them.
const HEADER_BYTES: usize = 16;

/// What the buffers in use may hold together for more to join: about a cache of the second level. Beyond, the kernel's
/// socket buffers are the better place to wait in.
const GROW_BELOW_BYTES: usize = 1 << 20;

/// The name of the only buffer ring.
pub(super) const GROUP: u16 = 0;

/// A filled buffer, taken from the kernel until it is recycled.
#[must_use = "a buffer that is not recycled is lost to the ring"]
#[derive(Debug)]
pub(in crate::net) struct Buffer {
    id: u16,
    length: usize,
    /// The kernel has put a header and control messages before the payload.
    message: bool,
}

/// What a filled buffer says.
pub(in crate::net) struct Filled<'a> {
    pub(in crate::net) payload: &'a [u8],
    /// The kernel had more bytes than the buffer had room for.
    pub(in crate::net) truncated: bool,
    pub(in crate::net) control: control::Received,
}

/// The buffers and the ring through which the kernel gets them.
pub(super) struct Provided {
    entries: Region,
    memory: Region,
    mask: u16,
    /// One more than the last entry given to the kernel, before the mask.
    tail: u16,
    /// Buffers that take part; those beyond are spare.
    used: u16,
    held: Box<[bool]>,
    held_count: u16,
    held_bytes: usize,
}

impl Provided {
    /// Registers a ring for up to `max` buffers (a power of two is made of it), of which `first` take part at once.
    pub(super) fn register(submitter: &Submitter<'_>, first: u16, max: u16) -> io::Result<Self> {
        let max = max.clamp(1, 1 << 15).next_power_of_two();
        let entries = Region::of::<BufRingEntry>(max.into())?;
        let memory = Region::of::<[u8; BUFFER_BYTES]>(max.into())?;
        let address = entries.at::<BufRingEntry>(0) as u64;
        // SAFETY: the mapping has room for `max` entries, begins at a page, and outlives the ring: `Ring` drops the
        // one after the other.
        unsafe { submitter.register_buf_ring(address, max, GROUP) }?;
        let mut provided = Self {
            entries,
            memory,
            mask: max - 1,
            tail: 0,
            used: 0,
            held: vec![false; max.into()].into_boxed_slice(),
            held_count: 0,
            held_bytes: 0,
        };
        provided.join(first.clamp(1, max));
        Ok(provided)
    }

    /// Buffers that wait for the kernel, as far as completions have been seen.
    pub(super) fn free(&self) -> usize {
        usize::from(self.used - self.held_count)
    }

    /// The kernel ran out of buffers: lets as many again take part if those in use hold little.
    pub(super) fn grow(&mut self) {
        if self.free() == 0 && self.held_bytes < GROW_BELOW_BYTES {
            self.join(self.used);
        }
    }

    fn join(&mut self, count: u16) {
        let last = self.used.saturating_add(count).min(self.mask + 1);
        for id in self.used..last {
            self.provide(id);
        }
        self.used = last;
    }

    /// Notes that the kernel has filled a buffer; `None` for a buffer that it does not have.
    pub(super) fn filled(&mut self, id: u16, length: usize, message: bool) -> Option<Buffer> {
        let held = self.held.get_mut(usize::from(id)).filter(|held| !**held)?;
        *held = true;
        self.held_count += 1;
        self.held_bytes += length;
        Some(Buffer {
            id,
            length: length.min(BUFFER_BYTES),
            message,
        })
    }

    /// Reads a filled buffer. `None` if what the kernel wrote makes no sense.
    pub(super) fn read(&self, buffer: &Buffer) -> Option<Filled<'_>> {
        let index = usize::from(buffer.id);
        if !self.held.get(index).is_some_and(|held| *held) {
            return None;
        }
        let start: *const u8 = self.memory.at::<[u8; BUFFER_BYTES]>(index).cast();
        // SAFETY: a held buffer is not the kernel's, the bytes are mapped, and they stay as they are until `recycle`,
        // which needs `self` exclusively.
        let bytes = unsafe { std::slice::from_raw_parts(start, buffer.length) };
        if !buffer.message {
            return Some(Filled {
                payload: bytes,
                truncated: false,
                control: control::Received::default(),
            });
        }
        // struct io_uring_recvmsg_out: lengths of name, control messages and payload, flags; then their fields.
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (control, payload) = rest.split_at_checked(CONTROL_BYTES)?;
        let word = |index: usize| {
            let bytes = header.as_chunks::<4>().0.get(index).copied();
            bytes.map(u32::from_ne_bytes)
        };
        let control = control.get(..word(1)? as usize).unwrap_or(control);
        Some(Filled {
            payload: payload.get(..word(2)? as usize).unwrap_or(payload),
            truncated: word(3)? & libc::MSG_TRUNC.cast_unsigned() != 0,
            control: control::Received::parse(control),
        })
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn recycle(&mut self, buffer: Buffer) {
        let Some(held) = self.held.get_mut(usize::from(buffer.id)) else {
            return;
        };
        if std::mem::take(held) {
            self.held_count -= 1;
            self.held_bytes = self.held_bytes.saturating_sub(buffer.length);
            self.provide(buffer.id);
        }
    }

    fn provide(&mut self, id: u16) {
        let address = self.memory.at::<[u8; BUFFER_BYTES]>(id.into()) as u64;
        let entry: *mut BufRingEntry = self.entries.at((self.tail & self.mask).into());
        // SAFETY: the entry lies in the mapping, and the kernel does not read it before the tail has passed it: at most
        // as many buffers are provided as there are entries.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.publish();
    }

    /// Tells the kernel how far it may read.
    fn publish(&self) {
        // SAFETY: the pointer is that of the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.at(0)) };
        // SAFETY: the field is mapped, aligned, and written by nobody else; only the kernel reads it besides.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        fence(Ordering::Release);
        tail.store(self.tail, Ordering::Release);
    }

    /// Gives the memory up: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.entries.leak();
        self.memory.leak();
    }
}
