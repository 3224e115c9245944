//! A TCP tunnel in the hands of its user, whole or as its two directions.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use event_listener::EventListener;
use futures_io::{AsyncRead, AsyncWrite};

use super::common::common;
use super::events::Mode;
use super::info::{Capsule, CloseReason, Info, ShutdownError, TunnelId};
use super::shared::{Handle, Shared};
use crate::embed::wait;
use crate::error::Error;

/// A TCP tunnel: bytes to one target and back (RFC 9110 §9.3.6, draft-ietf-httpbis-connect-tcp).
///
/// It reads and writes by the traits of the `futures` package and by those of tokio (feature `tokio`, on by default).
/// For plain threads `&TcpTunnel` has [`Read`] and [`Write`], as in `(&tunnel).write_all(…)`, so that two of them can
/// share a tunnel. `TcpTunnel` itself has not: the same names would mean two things where both worlds are imported.
///
/// Nothing is lost and nothing piles up: 256 KiB wait in each direction at most, then writers wait and the target is
/// read no further. When the tunnel breaks, the bytes that came before can still be read, and then the error.
///
/// Dropping it closes the tunnel in the background: what was written still goes out.
///
/// ```no_run
/// use std::io::{Read, Write};
///
/// # fn example(client: bauta::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let tunnel = client.tcp_blocking("www.example:80")?;
/// (&tunnel).write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// tunnel.shutdown_write()?;
/// let mut page = Vec::new();
/// (&tunnel).read_to_end(&mut page)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpTunnel {
    handle: Arc<Handle>,
    reading: Option<EventListener>,
    writing: Option<EventListener>,
}

impl TcpTunnel {
    pub(in crate::embed) fn new(handle: Handle) -> Self {
        Self {
            handle: Arc::new(handle),
            reading: None,
            writing: None,
        }
    }

    /// Ends the direction to the target behind everything written; the other direction goes on. Closing it as an
    /// asynchronous writer does not insist that the tunnel is open, and ends it when it is.
    ///
    /// # Errors
    /// [`ShutdownError`] says why there was nothing to end.
    pub fn shutdown_write(&self) -> Result<(), ShutdownError> {
        self.handle.shared.shut()
    }

    /// The two directions, for two tasks. The tunnel closes when both are dropped.
    #[must_use]
    pub fn split(self) -> (TcpReadHalf, TcpWriteHalf) {
        let read = TcpReadHalf {
            handle: Arc::clone(&self.handle),
            listener: None,
        };
        let write = TcpWriteHalf {
            handle: self.handle,
            listener: None,
        };
        (read, write)
    }

    /// Has the tunnel report to [`Events`](crate::Events), or be read; what is queued stays and is received either way.
    /// Reading in message mode takes from the same queue as the events do, and bytes go to whoever comes first: do one
    /// of the two.
    pub fn set_mode(&self, mode: Mode) {
        self.handle.shared.set_mode(mode);
    }

    /// Writes as much as there is room for, without waiting; for tunnels that report to [`Events`](crate::Events).
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while there is no room, after which [`Event::Writable`](crate::Event::Writable)
    /// follows; otherwise as writing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.shared.try_write(bytes)
    }

    /// Reads what is there, without waiting; 0 is the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while there is nothing, otherwise as reading.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let empty = || Err(io::ErrorKind::WouldBlock.into());
        self.handle.shared.read(buffer).unwrap_or_else(empty)
    }

    /// Sends a capsule on the tunnel's stream, between the bytes (RFC 9297 §3.2).
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the tunnel is not made of capsules, and for the types that
    /// the tunnel itself uses; [`Limit`](crate::ErrorKind::Limit) for a value of more than 16 KiB, and while 64
    /// capsules wait already; and when the tunnel is over, why.
    pub fn send_capsule(&self, kind: u64, value: impl Into<Bytes>) -> Result<(), Error> {
        self.handle.shared.send_capsule(Capsule::new(kind, value))
    }

    /// Closes the tunnel: what was written goes out, both directions come to their end, and what waits can still be
    /// read. A tunnel whose far end does not end its direction is reset. Returns when that is done, within five seconds
    /// whatever happens.
    pub async fn close(&self) {
        self.handle.close().await;
    }
}

common!(TcpTunnel);

/// The direction from the target. Dropping it ends nothing: what arrives then holds back the target.
///
/// On plain threads `&TcpReadHalf` has [`Read`]: `(&half).read(…)`.
#[derive(Debug)]
pub struct TcpReadHalf {
    handle: Arc<Handle>,
    listener: Option<EventListener>,
}

/// The direction to the target. Dropping it ends the direction, as [`TcpTunnel::shutdown_write`] does.
///
/// On plain threads `&TcpWriteHalf` has [`Write`]: `(&half).write_all(…)`.
#[derive(Debug)]
pub struct TcpWriteHalf {
    handle: Arc<Handle>,
    listener: Option<EventListener>,
}

impl TcpReadHalf {
    /// The tunnel at this moment.
    #[must_use]
    pub fn info(&self) -> Info {
        self.handle.shared.info()
    }
}

impl TcpWriteHalf {
    /// As [`TcpTunnel::shutdown_write`].
    ///
    /// # Errors
    /// [`ShutdownError`] says why there was nothing to end.
    pub fn shutdown_write(&self) -> Result<(), ShutdownError> {
        self.handle.shared.shut()
    }

    /// The tunnel at this moment.
    #[must_use]
    pub fn info(&self) -> Info {
        self.handle.shared.info()
    }
}

impl Drop for TcpWriteHalf {
    fn drop(&mut self) {
        self.handle.shared.give_up_writing();
    }
}

fn poll_read(
    listener: &mut Option<EventListener>,
    shared: &Arc<Shared>,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    wait::poll_until(listener, shared.readable(), context, || shared.read(buffer))
}

fn poll_write(
    listener: &mut Option<EventListener>,
    shared: &Arc<Shared>,
    context: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    wait::poll_until(listener, shared.writable(), context, || shared.write(bytes))
}

fn read_blocking(shared: &Arc<Shared>, buffer: &mut [u8]) -> io::Result<usize> {
    wait::until_blocking(shared.readable(), || shared.read(buffer))
}

fn write_blocking(shared: &Arc<Shared>, bytes: &[u8]) -> io::Result<usize> {
    wait::until_blocking(shared.writable(), || shared.write(bytes))
}

/// The traits of both asynchronous worlds and of the blocking one, for a type with the given fields.
macro_rules! reads {
    ($type:ty, $listener:ident) => {
        impl AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let Self {
                    handle, $listener, ..
                } = &mut *self;
                poll_read($listener, &handle.shared, context, buffer)
            }
        }

        #[cfg(feature = "tokio")]
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let Self {
                    handle, $listener, ..
                } = &mut *self;
                let read = poll_read(
                    $listener,
                    &handle.shared,
                    context,
                    buffer.initialize_unfilled(),
                );
                read.map_ok(|len| buffer.advance(len))
            }
        }

        impl Read for &$type {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                read_blocking(&self.handle.shared, buffer)
            }
        }
    };
}

macro_rules! writes {
    ($type:ty, $listener:ident) => {
        /// Flushing does nothing: the worker sends what it is given by itself. Closing ends the direction.
        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let Self {
                    handle, $listener, ..
                } = &mut *self;
                poll_write($listener, &handle.shared, context, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                // Twice is no error of a stream's, and early is none of a closing one's.
                self.handle.shared.give_up_writing();
                Poll::Ready(Ok(()))
            }
        }

        /// Flushing does nothing: the worker sends what it is given by itself. Shutting down ends the direction.
        #[cfg(feature = "tokio")]
        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let Self {
                    handle, $listener, ..
                } = &mut *self;
                poll_write($listener, &handle.shared, context, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                // Twice is no error of a stream's, and early is none of a closing one's.
                self.handle.shared.give_up_writing();
                Poll::Ready(Ok(()))
            }
        }

        impl Write for &$type {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                write_blocking(&self.handle.shared, bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

reads!(TcpTunnel, reading);
writes!(TcpTunnel, writing);
reads!(TcpReadHalf, listener);
writes!(TcpWriteHalf, listener);
