//! The bytes of a request stream that somebody else carries.
//!
//! ```text
//!   write ─► capsules read ─► UDP payloads, bytes ─► tunnel
//!   read  ◄─ capsules made ◄─ UDP payloads, bytes ◄─ tunnel
//! ```
//!
//! Reads are pulled from the tunnel, so that a stream which is not read holds a TCP tunnel back; datagrams that find
//! their queue full displace the oldest ones.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::Response;
use bytes::{Buf, Bytes, BytesMut};
use event_listener::EventListener;
use futures_io::{AsyncRead, AsyncWrite};

use super::tunnel::{CloseReason, Handle, Info, Shared, TcpTunnel, UdpTunnel};
use super::wait;
use crate::error::{Error, ErrorKind};
use crate::http::request::ResponseHead;
use crate::server;
use crate::tunnel::tcp::{self, Outbound, Piece, Progress};
use crate::wire::capsule::{
    CapsuleEvent, CapsuleReader, CapsuleType, UNKNOWN_VALUE_MAX, encode_datagram_head, encode_head,
};
use crate::wire::datagram::{ContextId, split_context_id};

/// Bytes of a TCP tunnel that go into one capsule at most.
const CAPSULE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one write that are looked at at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// A tunnel of an [`Embedding`](super::Embedding), as the bytes of its request stream: reading gives what is for the
/// client, writing takes what came from it. The framing is done in here: capsules, or none on a classic CONNECT.
///
/// Made for `copy_bidirectional` with hyper's `Upgraded`, or with a stream of h2 or h3. Closing the writing side is the
/// end of the client's direction, and the end of what is read is ours. Dropping ends the tunnel.
#[must_use = "dropping it ends the tunnel"]
pub struct EmbeddedTunnel {
    carried: Carried,
    shared: Arc<Shared>,
    answer: ResponseHead,
    /// For the client, framed.
    outgoing: BytesMut,
    /// Nothing follows `outgoing`.
    ended: bool,
    listener: Option<EventListener>,
}

enum Carried {
    Udp {
        tunnel: UdpTunnel,
        reader: Box<CapsuleReader>,
    },
    Tcp {
        tunnel: TcpTunnel,
        reader: tcp::Inbound,
        writer: Outbound,
        /// From the client, for the tunnel.
        incoming: VecDeque<Bytes>,
        /// Nothing follows `incoming`.
        incoming_ended: bool,
    },
}

impl EmbeddedTunnel {
    pub(super) fn new(
        handle: Handle,
        shared: Arc<Shared>,
        protocol: server::Protocol,
        answer: ResponseHead,
    ) -> Self {
        let carried = match protocol {
            server::Protocol::Udp => Carried::Udp {
                tunnel: UdpTunnel::new(handle),
                reader: {
                    let mut reader = CapsuleReader::default();
                    reader.keep_unknown(UNKNOWN_VALUE_MAX);
                    Box::new(reader)
                },
            },
            server::Protocol::Tcp(framing) => Carried::Tcp {
                tunnel: TcpTunnel::new(handle),
                reader: {
                    let mut reader = tcp::Inbound::new(framing);
                    reader.keep_unknown(UNKNOWN_VALUE_MAX);
                    reader
                },
                writer: Outbound::new(framing),
                incoming: VecDeque::new(),
                incoming_ended: false,
            },
        };
        Self {
            carried,
            shared,
            answer,
            outgoing: BytesMut::new(),
            ended: false,
            listener: None,
        }
    }

    pub(super) async fn opened(&self) -> Result<(), Error> {
        match &self.carried {
            Carried::Udp { tunnel, .. } => tunnel.opened().await,
            Carried::Tcp { tunnel, .. } => tunnel.opened().await,
        }
    }

    /// The head to answer the request with: 200, or 101 to an upgrade of HTTP/1.1, with all fields that belong to it.
    #[must_use]
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.answer.status;
        *response.headers_mut() = self.answer.headers.clone();
        response
    }

    /// What is known of the tunnel now.
    #[must_use]
    pub fn info(&self) -> Info {
        match &self.carried {
            Carried::Udp { tunnel, .. } => tunnel.info(),
            Carried::Tcp { tunnel, .. } => tunnel.info(),
        }
    }

    /// Waits until the tunnel is over.
    pub async fn closed(&self) -> CloseReason {
        match &self.carried {
            Carried::Udp { tunnel, .. } => tunnel.closed().await,
            Carried::Tcp { tunnel, .. } => tunnel.closed().await,
        }
    }

    /// Waits for something to be for the client, and frames it.
    fn poll_outgoing(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            carried,
            shared,
            outgoing,
            ended,
            listener,
            ..
        } = self;
        match carried {
            Carried::Udp { tunnel, .. } => {
                let attempt = || next_capsule(tunnel, outgoing);
                let more = wait::poll_until(listener, shared.readable(), context, attempt);
                *ended = !ready!(more)?;
            }
            Carried::Tcp { tunnel, writer, .. } => {
                let mut bytes = [0; CAPSULE_BYTES_MAX];
                let len = ready!(AsyncRead::poll_read(Pin::new(tunnel), context, &mut bytes))?;
                match bytes.get(..len) {
                    None | Some([]) => {
                        *ended = true;
                        writer.final_capsule(outgoing);
                    }
                    Some(bytes) => {
                        writer.frame(len, outgoing);
                        outgoing.extend_from_slice(bytes);
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        mut put: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        while self.outgoing.is_empty() && !self.ended {
            ready!(self.poll_outgoing(context))?;
        }
        let len = put(&self.outgoing);
        self.outgoing.advance(len);
        Poll::Ready(Ok(len))
    }

    fn poll_give(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_incoming(context))?;
        let bytes = bytes.get(..WRITE_BYTES_MAX).unwrap_or(bytes);
        let mut data = Bytes::copy_from_slice(bytes);
        match &mut self.carried {
            Carried::Udp { tunnel, reader } => {
                while let Some(event) = reader.read(&mut data) {
                    match event {
                        CapsuleEvent::Datagram(datagram) => send_datagram(tunnel, datagram)?,
                        CapsuleEvent::Unknown {
                            capsule_type,
                            value,
                        } => drop(tunnel.send_capsule(capsule_type.0, value)),
                        CapsuleEvent::Oversize { .. } => {}
                    }
                }
            }
            Carried::Tcp {
                tunnel,
                reader,
                incoming,
                incoming_ended,
                ..
            } => {
                let mut deliver = |piece| match piece {
                    Piece::Data(bytes) => incoming.push_back(bytes),
                    // A capsule that finds no room is lost; nobody else waits for it.
                    Piece::Capsule { kind, value } => drop(tunnel.send_capsule(kind, value)),
                };
                match reader.handle_data(data, &mut deliver) {
                    Ok(progress) => *incoming_ended = progress == Progress::Ended,
                    Err(error) => return Poll::Ready(Err(self.broken(error))),
                }
                // As far as there is room it goes on at once. What is left waits for the next write, or a flush.
                if let Poll::Ready(Err(error)) = self.poll_incoming(context) {
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Waits until the tunnel has taken what came from the client, the end included: FINAL_DATA ends the bytes, while
    /// the stream may go on.
    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Carried::Tcp {
            tunnel,
            incoming,
            incoming_ended,
            ..
        } = &mut self.carried
        else {
            return Poll::Ready(Ok(()));
        };
        while let Some(first) = incoming.front_mut() {
            let len = ready!(AsyncWrite::poll_write(
                Pin::new(&mut *tunnel),
                context,
                first
            ))?;
            first.advance(len);
            if first.is_empty() {
                incoming.pop_front();
            }
        }
        match incoming_ended {
            true => AsyncWrite::poll_close(Pin::new(tunnel), context),
            false => Poll::Ready(Ok(())),
        }
    }

    /// The client has ended its direction.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_incoming(context))?;
        match &mut self.carried {
            Carried::Udp { reader, .. } => {
                let cut = reader.finish().err();
                // A UDP tunnel has no half to go on with.
                self.shared.begin_close();
                Poll::Ready(cut.map_or(Ok(()), |error| Err(invalid(error))))
            }
            Carried::Tcp { tunnel, reader, .. } => match reader.handle_finished() {
                Ok(()) => AsyncWrite::poll_close(Pin::new(tunnel), context),
                Err(error) => Poll::Ready(Err(self.broken(error))),
            },
        }
    }

    /// The client has broken the framing: there is nothing to go on with.
    fn broken(&self, error: tcp::TcpError) -> io::Error {
        self.shared.begin_close();
        invalid(error)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Frames the next thing that is for the client. `false` at the end.
fn next_capsule(tunnel: &UdpTunnel, out: &mut BytesMut) -> Option<io::Result<bool>> {
    if let Ok(Some(capsule)) = tunnel.try_recv_capsule() {
        encode_head(CapsuleType(capsule.kind), capsule.value.len() as u64, out);
        out.extend_from_slice(&capsule.value);
        return Some(Ok(true));
    }
    match tunnel.try_recv() {
        Ok(Some(datagram)) => {
            let context = ContextId(datagram.context);
            encode_datagram_head(context, datagram.payload.len(), out);
            out.extend_from_slice(&datagram.payload);
            Some(Ok(true))
        }
        Ok(None) => None,
        Err(error) if error.kind() == ErrorKind::Closed => Some(Ok(false)),
        Err(error) => Some(Err(io::Error::other(error))),
    }
}

/// Passes an HTTP Datagram on; one that does not fit is lost, as anywhere.
fn send_datagram(tunnel: &UdpTunnel, mut datagram: Bytes) -> io::Result<()> {
    let Some((context, used)) = split_context_id(&datagram) else {
        return Err(invalid("a DATAGRAM capsule without a Context ID"));
    };
    datagram.advance(used);
    match tunnel.send_with_context(context.0, datagram) {
        Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Aborted) => {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl AsyncRead for EmbeddedTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_take(context, |bytes| {
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            len
        })
    }
}

/// Flushing waits until the tunnel has taken everything. Closing ends the client's direction.
impl AsyncWrite for EmbeddedTunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_give(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_incoming(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(context)
    }
}

#[cfg(feature = "tokio")]
impl tokio::io::AsyncRead for EmbeddedTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.poll_take(context, |bytes| {
            let len = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..len]);
            len
        });
        read.map_ok(|_| ())
    }
}

/// Flushing waits until the tunnel has taken everything. Shutting down ends the client's direction.
#[cfg(feature = "tokio")]
impl tokio::io::AsyncWrite for EmbeddedTunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_give(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_incoming(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(context)
    }
}

impl fmt::Debug for EmbeddedTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedTunnel")
            .field("status", &self.answer.status)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
