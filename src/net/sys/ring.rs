//! An io_uring for connected UDP sockets: receives that stay armed, sends that leave together.
//!
//! ```text
//!   arm, send, cancel ─► submission queue ─submit─► kernel ─► completion queue ─► completion()
//!                                                     │▲
//!                                        filled buffer ▼│ recycle
//!                                                 provided buffers
//! ```
//!
//! Who owns what the kernel touches: buffers, message headers, segment lists and payloads of sends belong to the ring
//! from the moment an operation is queued until its last completion has been taken. An operation that is under way is
//! an entry of `operations`, whose number and serial are its name in the kernel, so a completion can neither be missed
//! nor be taken for that of a later operation. Dropping the ring cancels everything and takes the last completions; if
//! the kernel does not give them, the memory is never freed.
//!
//! A descriptor is only named, not owned: the caller keeps it open until what it queued on it has been submitted.
//!
//! Flags: COOP_TASKRUN, because the ring belongs to a thread that makes system calls anyway; SUBMIT_ALL. Not
//! DEFER_TASKRUN, under which a poll of the ring's descriptor sees nothing, nor SQPOLL, which is a second busy thread.

use std::io;
use std::mem::offset_of;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::provided::{Buffer, CONTROL_BYTES, Filled, GROUP, Provided};
use super::region::Region;
use crate::net::control;
use crate::net::train::TRAIN_SEGMENTS_MAX;

/// Operations that one system call submits at most.
const SUBMISSIONS_MAX: u32 = 512;

/// Completions that fit into memory shared with the kernel. It keeps further ones and hands them over later.
const COMPLETIONS_MAX: u32 = 4096;

/// Sends under way. They end within the call that submits them, so this bounds a batch.
const SENDS_MAX: usize = 256;

/// How often `drop` looks for the last completions without seeing one before it gives up.
const PATIENCE: usize = 100;

/// An operation that is under way: its number in the low half, its serial in the high half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct Ticket(u64);

/// There is no room for another operation; `submit` makes some.
#[derive(Debug)]
pub(in crate::net) struct Full;

/// What the kernel has done.
pub(in crate::net) enum Completion {
    /// A receive has brought a datagram or a train, or has failed.
    Received {
        /// What was given to `arm`.
        token: u64,
        /// No buffer is an empty datagram.
        result: io::Result<Option<Buffer>>,
        /// The receive is still armed.
        more: bool,
    },
    /// A send has ended. Its payload comes back for a second try, or for [`Ring::reuse`].
    Sent {
        /// What was given to `send`.
        token: u64,
        /// The bytes that were sent.
        result: io::Result<usize>,
        payload: Vec<Bytes>,
    },
}

/// What a message header of a send points to, at an address that stays.
#[repr(C)]
struct Message {
    header: libc::msghdr,
    control: control::Outgoing,
    slices: [libc::iovec; TRAIN_SEGMENTS_MAX],
}

enum Operation {
    /// `message` says whether control messages come with the payload.
    Receive {
        token: u64,
        message: bool,
    },
    Send {
        token: u64,
        payload: Vec<Bytes>,
        message: usize,
    },
    Cancel,
}

/// The ring of one worker.
pub(in crate::net) struct Ring {
    uring: IoUring,
    operations: Slab<(u32, Operation)>,
    serial: u32,
    /// Receives and sends under way: what the kernel may use memory for.
    in_flight: usize,
    provided: Provided,
    /// The header of every receive, in the place where the kernel reads it.
    template: Region,
    /// [`SENDS_MAX`] of [`Message`].
    messages: Region,
    free_messages: Vec<usize>,
    free_payloads: Vec<Vec<Bytes>>,
}

impl Ring {
    /// Makes a ring with `buffers` buffers that may become `buffers_max`, and checks that the kernel has what it takes.
    ///
    /// # Errors
    /// When io_uring is forbidden, or too old for provided buffers (Linux 5.19) or receives that stay armed (6.0).
    pub(in crate::net) fn new(buffers: u16, buffers_max: u16) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS_MAX)
            .build(SUBMISSIONS_MAX)?;
        let provided = Provided::register(&uring.submitter(), buffers, buffers_max)?;
        let template = Region::of::<libc::msghdr>(1)?;
        let mut ring = Self {
            uring,
            operations: Slab::new(),
            serial: 0,
            in_flight: 0,
            provided,
            template,
            messages: Region::of::<Message>(SENDS_MAX)?,
            free_messages: (0..SENDS_MAX).rev().collect(),
            free_payloads: Vec::new(),
        };
        ring.template_mut().msg_controllen = CONTROL_BYTES;
        ring.check_multishot()?;
        Ok(ring)
    }

    /// Arms a receive and takes it back. A kernel that cannot keep it armed says so at once.
    fn check_multishot(&mut self) -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let full = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let ticket = self.arm(socket.as_fd(), true, 0).map_err(full)?;
        self.submit()?;
        if let Some(Completion::Received {
            result: Err(error), ..
        }) = self.completion()
        {
            return Err(error);
        }
        self.cancel(ticket).map_err(full)?;
        self.submit()?;
        while self.completion().is_some() {}
        Ok(())
    }

    /// Queues a receive that stays armed. `message` asks for control messages, which a socket with UDP_GRO needs.
    pub(in crate::net) fn arm(
        &mut self,
        socket: BorrowedFd<'_>,
        message: bool,
        token: u64,
    ) -> Result<Ticket, Full> {
        let fd = Fd(socket.as_raw_fd());
        let entry = if message {
            opcode::RecvMsgMulti::new(fd, self.template.at(0), GROUP).build()
        } else {
            opcode::RecvMulti::new(fd, GROUP).build()
        };
        self.push(entry, Operation::Receive { token, message })
            .map_err(|_| Full)
    }

    /// Queues the end of an operation. The completion of the operation itself tells when it has ended.
    pub(in crate::net) fn cancel(&mut self, ticket: Ticket) -> Result<(), Full> {
        let entry = opcode::AsyncCancel::new(ticket.0).build();
        let pushed = self.push(entry, Operation::Cancel);
        pushed.map(drop).map_err(|_| Full)
    }

    /// Queues one message for the peer of a connected socket: one datagram, or a train of `segment_size` bytes each.
    pub(in crate::net) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        segment_size: Option<u16>,
        datagrams: &[Bytes],
        token: u64,
    ) -> Result<(), Full> {
        debug_assert!(datagrams.len() <= TRAIN_SEGMENTS_MAX);
        let Some(message) = self.free_messages.pop() else {
            return Err(Full);
        };
        let mut payload = self.free_payloads.pop().unwrap_or_default();
        payload.extend(datagrams.iter().cloned());
        let fd = Fd(socket.as_raw_fd());
        // Without waiting: a full socket buffer drops datagrams, as it does without a ring.
        let flags = libc::MSG_DONTWAIT;
        let alone = match payload.as_slice() {
            [datagram] => u32::try_from(datagram.len()).ok().zip(Some(datagram)),
            _ => None,
        };
        let entry = match alone {
            // Nothing but bytes, which costs the kernel less than a header to read.
            Some((length, datagram)) => opcode::Send::new(fd, datagram.as_ptr(), length)
                .flags(flags)
                .build(),
            None => {
                let header = self.compose(message, segment_size, &payload);
                opcode::SendMsg::new(fd, header)
                    .flags(flags.cast_unsigned())
                    .build()
            }
        };
        let operation = Operation::Send {
            token,
            payload,
            message,
        };
        match self.push(entry, operation) {
            Ok(_) => Ok(()),
            Err(Operation::Send { payload, .. }) => {
                self.free_messages.push(message);
                self.reuse(payload);
                Err(Full)
            }
            Err(Operation::Receive { .. } | Operation::Cancel) => Err(Full),
        }
    }

    /// Fills message number `index`, which is free.
    fn compose(
        &self,
        index: usize,
        segment_size: Option<u16>,
        payload: &[Bytes],
    ) -> *const libc::msghdr {
        let place: *mut Message = self.messages.at(index);
        // SAFETY: the place is mapped and aligned, zero bytes are a valid `Message`, and neither the kernel nor anybody
        // else uses it: its number was on the list of the free ones.
        let message = unsafe { &mut *place };
        for (slice, datagram) in message.slices.iter_mut().zip(payload) {
            // The kernel only reads what it sends.
            slice.iov_base = datagram.as_ptr().cast_mut().cast();
            slice.iov_len = datagram.len();
        }
        message.control = control::Outgoing::new();
        if let Some(size) = segment_size {
            message.control.segment_size(size);
        }
        let control_length = message.control.as_bytes().len();
        message.header.msg_iov = place.wrapping_byte_add(offset_of!(Message, slices)).cast();
        message.header.msg_iovlen = payload.len().min(TRAIN_SEGMENTS_MAX);
        // The bytes are the first field of the control messages.
        message.header.msg_control = place.wrapping_byte_add(offset_of!(Message, control)).cast();
        message.header.msg_controllen = control_length;
        place.wrapping_byte_add(offset_of!(Message, header)).cast()
    }

    /// Puts an operation into the submission queue, or hands it back.
    fn push(&mut self, entry: squeue::Entry, operation: Operation) -> Result<Ticket, Operation> {
        let in_flight = usize::from(!matches!(operation, Operation::Cancel));
        self.serial = self.serial.wrapping_add(1);
        let number = self.operations.insert((self.serial, operation));
        let ticket = Ticket(u64::from(self.serial) << 32 | number as u64);
        let entry = entry.user_data(ticket.0);
        // SAFETY: what the entry points to is in `template`, `messages` or `operations`, and `self` keeps it until the
        // last completion of the operation; buffers are those of `provided`, kept as long.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        match pushed {
            Ok(()) => {
                self.in_flight += in_flight;
                Ok(ticket)
            }
            Err(_) => Err(self.operations.remove(number).1),
        }
    }

    /// Whether `submit` has something to do.
    pub(in crate::net) fn has_submissions(&mut self) -> bool {
        let queue = self.uring.submission();
        !queue.is_empty() || queue.cq_overflow()
    }

    /// Gives everything that was queued to the kernel. Sends and receives happen within the call as far as they can.
    ///
    /// # Errors
    /// None that a working kernel gives; what it is too busy for stays queued.
    pub(in crate::net) fn submit(&mut self) -> io::Result<()> {
        match self.uring.submit() {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next thing that the kernel has done.
    pub(in crate::net) fn completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.uring.completion().next()?;
            let completion = self.complete(&entry);
            if completion.is_some() {
                return completion;
            }
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let number = (entry.user_data() & u64::from(u32::MAX)) as usize;
        let serial = (entry.user_data() >> 32) as u32;
        let more = cqueue::more(entry.flags());
        let known = self.operations.get(number);
        if known.is_none_or(|(known, _)| *known != serial) {
            debug_assert!(false, "the kernel completes what it was given, once");
            return None;
        }
        let length = usize::try_from(entry.result());
        let result = length.map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        if let Some((_, Operation::Receive { token, message })) = self.operations.get(number) {
            let (token, message) = (*token, *message);
            if !more {
                self.operations.remove(number);
                self.in_flight -= 1;
            }
            let id = cqueue::buffer_select(entry.flags());
            let result = result.map(|length| self.provided.filled(id?, length, message));
            return Some(Completion::Received {
                token,
                result,
                more,
            });
        }
        match self.operations.remove(number).1 {
            Operation::Send {
                token,
                payload,
                message,
            } => {
                self.in_flight -= 1;
                self.free_messages.push(message);
                Some(Completion::Sent {
                    token,
                    result,
                    payload,
                })
            }
            // It says nothing that the completion of the cancelled operation does not say.
            Operation::Receive { .. } | Operation::Cancel => None,
        }
    }

    /// What a filled buffer holds; `None` if what the kernel wrote makes no sense.
    pub(in crate::net) fn read(&self, buffer: &Buffer) -> Option<Filled<'_>> {
        self.provided.read(buffer)
    }

    /// Gives a buffer back to the kernel.
    pub(in crate::net) fn recycle(&mut self, buffer: Buffer) {
        self.provided.recycle(buffer);
    }

    /// Takes the vector of a send back that has ended.
    pub(in crate::net) fn reuse(&mut self, mut payload: Vec<Bytes>) {
        payload.clear();
        if self.free_payloads.len() < SENDS_MAX {
            self.free_payloads.push(payload);
        }
    }

    /// Buffers that wait for datagrams, as far as completions have been taken.
    pub(in crate::net) fn free_buffers(&self) -> usize {
        self.provided.free()
    }

    /// The kernel ran out of buffers: lets more take part if that helps.
    pub(in crate::net) fn grow(&mut self) {
        self.provided.grow();
    }

    fn template_mut(&mut self) -> &mut libc::msghdr {
        let template: *mut libc::msghdr = self.template.at(0);
        // SAFETY: the place is mapped and aligned, and a zeroed header is valid; `new` calls this before the kernel
        // hears of it.
        unsafe { &mut *template }
    }

    /// Ends everything that is under way, and takes the completions. Returns whether that worked.
    pub(in crate::net) fn quiesce(&mut self) -> bool {
        let mut patience = PATIENCE;
        while self.in_flight > 0 && patience > 0 {
            let before = self.in_flight;
            // What fails here fails again, until patience ends.
            drop(self.submit());
            let timeout = Timespec::from(Duration::from_secs(1));
            let submitter = self.uring.submitter();
            drop(submitter.register_sync_cancel(Some(timeout), CancelBuilder::any()));
            while self.completion().is_some() {}
            patience = if self.in_flight < before {
                PATIENCE
            } else {
                patience - 1
            };
        }
        self.in_flight == 0
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.uring.as_raw_fd();
        // SAFETY: the ring's descriptor is open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.quiesce() {
            return;
        }
        tracing::error!(
            operations = self.in_flight,
            "io_uring does not let go of its memory"
        );
        self.provided.leak();
        self.template.leak();
        self.messages.leak();
        for (_, operation) in self.operations.drain() {
            if let Operation::Send { payload, .. } = operation {
                payload.leak();
            }
        }
    }
}
