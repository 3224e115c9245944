//! One connection: what is known of its readiness, and the calls that find out more.

use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::BytesMut;
use socket2::Socket;

use crate::net::driver::Driver;
use crate::net::poll::Readiness;
use crate::net::sys;
use crate::net::tcp::{TcpEvent, TcpId, TcpRead};

/// Slices of one write call; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;

/// What is known of a connection.
#[derive(Default)]
pub(super) struct Stream {
    /// A read may find something.
    readable: bool,
    /// A write may find room.
    writable: bool,
    /// The peer has ended its direction, or the connection is over.
    closed: bool,
    /// The connection is over, for whatever reason.
    over: bool,
    /// A read has found the end.
    ended: bool,
    /// It was looked at why the connection is over behind an end.
    examined: bool,
    /// The peer has sent urgent data.
    urgent: bool,
    /// The error that broke the connection.
    broken: Option<i32>,
    /// What the next [`TcpEvent::Ready`] says.
    pub(super) news: News,
}

#[derive(Default)]
pub(super) struct News {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Stream {
    /// A connection that nothing was written to yet.
    pub(super) fn established() -> Self {
        Self {
            writable: true,
            ..Self::default()
        }
    }

    /// Takes an event in; whether it has news.
    pub(super) fn note(&mut self, readiness: Readiness) -> bool {
        let ends = readiness.closed && !self.closed;
        self.news.readable |= readiness.readable && (!self.readable || ends);
        self.news.writable |= readiness.writable && !self.writable;
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
        self.closed |= readiness.closed;
        self.over |= readiness.over;
        self.urgent |= readiness.urgent;
        self.news.readable || self.news.writable || self.is_to_be_examined()
    }

    /// Whether the connection is over behind an end that was read, which nobody knows yet: a reset perhaps.
    fn is_to_be_examined(&self) -> bool {
        self.ended && self.over && !self.examined
    }

    /// Why a connection is over whose end was read, unless that is as it should be.
    pub(super) fn examine(&mut self, socket: &Socket) -> Option<TcpEvent> {
        if !self.is_to_be_examined() {
            return None;
        }
        self.examined = true;
        let error = socket.take_error().unwrap_or_else(Some)?;
        Some(TcpEvent::Broken(error))
    }

    pub(super) fn take_news(&mut self) -> Option<TcpEvent> {
        let News { readable, writable } = std::mem::take(&mut self.news);
        (readable || writable).then_some(TcpEvent::Ready { readable, writable })
    }

    /// Remembers what broke the connection. That it takes nothing more (EPIPE) is not a reason to doubt the end that
    /// the peer has sent before, and the kernel tells it again.
    fn fail(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.broken = self.broken.or_else(|| error.raw_os_error());
        }
    }

    fn check(&self) -> io::Result<()> {
        self.broken
            .map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

impl Driver {
    pub(in crate::net) fn tcp_read(
        &mut self,
        socket: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead> {
        debug_assert!(bytes_max > 0, "reading nothing looks like the end");
        let id = socket;
        let (socket, stream) = self.tcp.connection(id)?;
        if !stream.readable {
            stream.check()?;
            return Ok(TcpRead::Blocked);
        }
        self.stats.tcp_read_calls += 1;
        match sys::receive_stream(socket, buffer, bytes_max) {
            Ok(0) => {
                stream.check()?;
                stream.ended = true;
                if stream.is_to_be_examined() {
                    self.tcp.enqueue(id);
                }
                Ok(TcpRead::End)
            }
            Ok(length) => {
                self.stats.tcp_read_bytes += length as u64;
                stream.readable = length == bytes_max || stream.closed || stream.urgent;
                Ok(TcpRead::Bytes(length))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.readable = false;
                Ok(TcpRead::Blocked)
            }
            Err(error) => {
                stream.fail(&error);
                Err(error)
            }
        }
    }

    pub(in crate::net) fn tcp_write(
        &mut self,
        socket: TcpId,
        data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let (socket, stream) = self.tcp.connection(socket)?;
        stream.check()?;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let mut written = 0;
        for slices in data.chunks(SLICES_MAX) {
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            if length == 0 {
                continue;
            }
            if !stream.writable {
                break;
            }
            self.stats.tcp_write_calls += 1;
            match socket.send_vectored_with_flags(slices, flags) {
                Ok(sent) => {
                    written += sent;
                    self.stats.tcp_written_bytes += sent as u64;
                    stream.writable = sent == length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable = false,
                Err(error) => {
                    stream.fail(&error);
                    // What went out before counts; the next call tells the error.
                    return if written == 0 {
                        Err(error)
                    } else {
                        Ok(written)
                    };
                }
            }
        }
        Ok(written)
    }

    pub(in crate::net) fn tcp_shutdown(&mut self, socket: TcpId) {
        if let Ok((socket, _)) = self.tcp.connection(socket) {
            // It fails on a connection that is over, which the next read tells.
            drop(socket.shutdown(Shutdown::Write));
        }
    }
}
