//! Sending: trains cut to what one call may carry, by the kernel where it can, one by one where it cannot.
//!
//! ```text
//!   contents ─► trains (≤ 64 datagrams, ≤ 65,507 bytes) ─► sendmsg + UDP_SEGMENT ─► sent
//!                                                             │ EIO, EINVAL, EMSGSIZE
//!                                                             └─► sendmsg for each datagram
//! ```
//!
//! UDP may lose what it likes, so nothing is queued or retried here beyond two cases in which the kernel has not tried:
//! segmentation that the route cannot do, and an ICMP error that was waiting for the next call.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use socket2::{MsgHdr, SockAddr};

use super::{Driver, Entry, SocketId, Stats, find};
use crate::net::control;
use crate::net::socket::SocketKind;
use crate::net::train::{
    Outgoing, TRAIN_SEGMENTS_MAX, datagram_count, run_length, segments_per_call,
};

/// Why datagrams were not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The id names no open socket.
    #[error("the socket is closed")]
    Stale,
    /// The kernel's send buffer is full (`EAGAIN`, `ENOBUFS`). What had not been sent was dropped; later sends may
    /// work.
    #[error("the kernel's send buffer is full")]
    Blocked,
    /// At least one datagram exceeds the path MTU (`EMSGSIZE`) and was dropped; the others were sent.
    #[error("a datagram exceeds the path MTU")]
    TooLarge,
    /// The kernel refused, twice on a connected socket. What had not been sent was dropped.
    /// [`ends_socket`](crate::net::ends_socket) tells whether the socket is of any further use.
    #[error("sending failed: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS) => Self::Blocked,
            Some(libc::EMSGSIZE) => Self::TooLarge,
            _ => Self::Failed(error),
        }
    }
}

impl Driver {
    /// Sends the datagrams of one buffer.
    ///
    /// # Errors
    /// [`SendError`]; what could not be sent is dropped and counted.
    pub fn send(&mut self, id: SocketId, outgoing: &Outgoing<'_>) -> Result<(), SendError> {
        let contents = outgoing.contents;
        let segment_size = outgoing.segment_size.unwrap_or(contents.len()).max(1);
        let entry = find(&mut self.sockets, id).ok_or(SendError::Stale)?;
        let mut sender = Sender::new(entry, outgoing, &mut self.stats);
        let sent = if contents.is_empty() {
            sender.single(contents)
        } else {
            contents
                .chunks(segment_size * segments_per_call(segment_size))
                .try_for_each(|train| {
                    let datagrams = train.chunks(segment_size);
                    sender.train(&[IoSlice::new(train)], segment_size, datagrams)
                })
        };
        let result = sender.finish(sent, datagram_count(contents.len(), segment_size));
        self.remember_error(id);
        result
    }

    /// Sends datagrams that lie in different buffers to the peer of a connected socket, in order, without copying them.
    /// Runs of equal size, each with at most one shorter datagram at its end, share a call.
    ///
    /// # Errors
    /// [`SendError`]; what could not be sent is dropped and counted.
    pub fn send_vectored<D: AsRef<[u8]>>(
        &mut self,
        id: SocketId,
        datagrams: &[D],
    ) -> Result<(), SendError> {
        let entry = find(&mut self.sockets, id).ok_or(SendError::Stale)?;
        debug_assert_eq!(entry.kind, SocketKind::Connected);
        let outgoing = Outgoing {
            peer: None,
            local_ip: None,
            ecn: None,
            segment_size: None,
            contents: &[],
        };
        let mut sender = Sender::new(entry, &outgoing, &mut self.stats);
        let mut rest = datagrams;
        let mut sent = Ok(());
        while !rest.is_empty() && sent.is_ok() {
            let (run, after) = rest.split_at(run_length(rest.iter().map(|d| d.as_ref().len())));
            let mut slices = [IoSlice::new(&[]); TRAIN_SEGMENTS_MAX];
            for (slice, datagram) in slices.iter_mut().zip(run) {
                *slice = IoSlice::new(datagram.as_ref());
            }
            let slices = &slices[..run.len()];
            let segment_size = slices.first().map_or(0, |slice| slice.len());
            sent = sender.train(slices, segment_size, run.iter().map(AsRef::as_ref));
            rest = after;
        }
        let result = sender.finish(sent, datagrams.len());
        self.remember_error(id);
        result
    }

    /// Lets the next `receive` visit a socket whose ICMP error a send call ran into.
    fn remember_error(&mut self, id: SocketId) {
        if let Some(entry) = find(&mut self.sockets, id)
            && entry.send_error.is_some()
        {
            entry.enqueue(id, &mut self.ready);
        }
    }
}

/// One call of [`Driver::send`] or [`Driver::send_vectored`]: a socket and what all messages have in common.
struct Sender<'a> {
    entry: &'a mut Entry,
    stats: &'a mut Stats,
    peer: Option<SockAddr>,
    /// The peer is reached by IPv4, whatever the family of the socket.
    ipv4: bool,
    local_ip: Option<IpAddr>,
    ecn: Option<u8>,
    sent: usize,
    too_large: usize,
}

impl<'a> Sender<'a> {
    fn new(entry: &'a mut Entry, outgoing: &Outgoing<'_>, stats: &'a mut Stats) -> Self {
        let shared = entry.kind == SocketKind::Shared;
        let peer = outgoing.peer.filter(|_| shared);
        Self {
            ipv4: peer.is_some_and(is_ipv4),
            peer: peer.map(SockAddr::from),
            local_ip: outgoing.local_ip.filter(|_| shared),
            ecn: outgoing.ecn.filter(|_| shared),
            entry,
            stats,
            sent: 0,
            too_large: 0,
        }
    }

    /// Sends a train that one call may carry. `datagrams` are the same bytes, one by one.
    fn train<'d>(
        &mut self,
        train: &[IoSlice<'_>],
        segment_size: usize,
        datagrams: impl ExactSizeIterator<Item = &'d [u8]>,
    ) -> Result<(), SendError> {
        let count = datagrams.len();
        let Some(size) = u16::try_from(segment_size).ok().filter(|_| count > 1) else {
            return self.singles(datagrams);
        };
        if !self.entry.segmentation {
            return self.singles(datagrams);
        }
        let Err(error) = self.message(train, Some(size)) else {
            self.sent += count;
            return Ok(());
        };
        match error.raw_os_error() {
            // The last datagram is shorter and may fit.
            Some(libc::EMSGSIZE) => self.singles(datagrams),
            // No checksum offload, or a transform on the route; EINVAL is also how kernels before 6.10 say that a
            // segment exceeds the MTU. Whether segmentation is to blame shows when the datagrams pass without it.
            Some(libc::EIO | libc::EINVAL) => {
                let before = self.sent;
                self.singles(datagrams)?;
                if self.sent - before == count {
                    self.switch_segmentation_off(&error);
                }
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    fn switch_segmentation_off(&mut self, error: &io::Error) {
        self.entry.segmentation = false;
        if self.stats.segmentation_failures == 0 {
            tracing::warn!(%error, "segmentation offload failed; sockets that meet this send single datagrams");
        }
        self.stats.segmentation_failures += 1;
    }

    fn singles<'d>(
        &mut self,
        mut datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<(), SendError> {
        datagrams.try_for_each(|datagram| self.single(datagram))
    }

    /// Sends one datagram. One that is too large is counted and does not end the train.
    fn single(&mut self, datagram: &[u8]) -> Result<(), SendError> {
        match self.message(&[IoSlice::new(datagram)], None) {
            Ok(()) => self.sent += 1,
            Err(error) => match SendError::from(error) {
                SendError::TooLarge => self.too_large += 1,
                error @ (SendError::Blocked | SendError::Failed(_) | SendError::Stale) => {
                    return Err(error);
                }
            },
        }
        Ok(())
    }

    /// Gives one message to the kernel. A connected socket reports an ICMP error that came in earlier through whatever
    /// call comes next, which then does nothing else: that call is made once more.
    fn message(&mut self, slices: &[IoSlice<'_>], segment_size: Option<u16>) -> io::Result<()> {
        let Err(error) = self.call(slices, segment_size) else {
            return Ok(());
        };
        let pending = self.entry.kind == SocketKind::Connected
            && !matches!(
                error.raw_os_error(),
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EIO | libc::EINVAL)
            );
        if !pending {
            return Err(error);
        }
        self.call(slices, segment_size)?;
        self.entry.send_error = Some(error);
        Ok(())
    }

    fn call(&mut self, slices: &[IoSlice<'_>], segment_size: Option<u16>) -> io::Result<()> {
        let mut control = control::Outgoing::new();
        if let Some(size) = segment_size {
            control.segment_size(size);
        }
        if let Some(ecn) = self.ecn {
            control.ecn(ecn, self.ipv4);
        }
        if let Some(address) = self.local_ip {
            control.local_ip(address);
        }
        let mut message = MsgHdr::new()
            .with_buffers(slices)
            .with_control(control.as_bytes());
        if let Some(peer) = &self.peer {
            message = message.with_addr(peer);
        }
        loop {
            self.stats.send_calls += 1;
            match self.entry.socket.sendmsg(&message, libc::MSG_DONTWAIT) {
                Ok(bytes) => {
                    self.stats.sent_bytes += bytes as u64;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Settles the counters: each of `total` datagrams was sent, was too large, or fell to the error that ended the
    /// call.
    fn finish(self, result: Result<(), SendError>, total: usize) -> Result<(), SendError> {
        let stats = self.stats;
        stats.sent_datagrams += self.sent as u64;
        stats.send_too_large += self.too_large as u64;
        let dropped = total.saturating_sub(self.sent + self.too_large) as u64;
        match &result {
            Ok(()) if self.too_large > 0 => return Err(SendError::TooLarge),
            Ok(()) | Err(SendError::Stale) => {}
            Err(SendError::Blocked) => stats.send_blocked += dropped,
            Err(SendError::TooLarge) => stats.send_too_large += dropped,
            Err(SendError::Failed(error)) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => stats.send_refused += dropped,
                Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => stats.send_unreachable += dropped,
                _ => stats.send_failed += dropped,
            },
        }
        result
    }
}

/// Whether packets to this address are IPv4 packets: the traffic class has another name there.
fn is_ipv4(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(address) => address.ip().to_ipv4_mapped().is_some(),
    }
}
