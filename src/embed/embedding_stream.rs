//! The bytes of a request stream that somebody else carries.
//!
//! ```text
//!   write ─► capsules read ─► UDP payloads, packets, bytes ─► tunnel
//!   read  ◄─ capsules made ◄─ UDP payloads, packets, bytes ◄─ tunnel
//! ```
//!
//! Reads are pulled from the tunnel, so that a stream which is not read holds a TCP tunnel back; datagrams that find
//! their queue full displace the oldest ones. Whatever ends before it has come to its end is reset towards the target:
//! a stream that was cut must not look complete.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::Response;
use bytes::{Buf, Bytes, BytesMut};
use event_listener::EventListener;
use futures_io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::tunnel::{
    Capsule, CloseReason, Datagram, Handle, Info, IpTunnel, Shared, TcpTunnel, UdpTunnel,
};
use super::wait;
use crate::error::{Error, ErrorKind};
use crate::http::request::ResponseHead;
use crate::server;
use crate::tunnel::ip::{self, Delivery};
use crate::tunnel::tcp::{self, Outbound, Piece, Progress};
use crate::wire::capsule::{
    CapsuleEvent, CapsuleReader, CapsuleType, UNKNOWN_VALUE_MAX, encode_datagram_head, encode_head,
};
use crate::wire::datagram::{ContextId, UDP_PAYLOAD_MAX, split_context_id};

/// Bytes of a TCP tunnel that go into one capsule at most.
const CAPSULE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one write that are looked at at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// A tunnel of an [`Embedding`](super::Embedding), as the bytes of its request stream: reading gives what is for the
/// client, writing takes what came from it. The framing is done in here: capsules, or none on a classic CONNECT.
///
/// Made for `copy_bidirectional` with hyper's `Upgraded`, or with a stream of h2 or h3. Closing the writing side is the
/// end of the client's direction, and the end of what is read is ours.
///
/// Dropping it earlier breaks the tunnel: a TCP target sees a reset, a session hears
/// [`CloseReason::Aborted`]. So when reading from the client fails, drop it and do not close it; and when reading from
/// it fails, reset the client's stream. A UDP or IP tunnel has come to its end with either direction.
///
/// An IP tunnel gives and takes packets of any size. Those that the server does not read in time displace older ones
/// after 1,000; capsules about addresses and routes are never lost, and a client that lets 64 of them wait loses the
/// tunnel instead.
///
/// hyper's `Upgraded` over HTTP/2 reports a stream that the client resets with CANCEL as one that has ended. Capsules
/// tell the two apart, as their end is marked; a classic CONNECT whose cut matters should run on h2 itself.
#[must_use = "dropping it breaks the tunnel"]
pub struct EmbeddedTunnel {
    carried: Carried,
    shared: Arc<Shared>,
    answer: ResponseHead,
    /// For the client, framed.
    outgoing: BytesMut,
    /// Nothing follows `outgoing`.
    ended: bool,
    /// The client has ended its direction in order.
    given: bool,
    listener: Option<EventListener>,
    writing: Option<EventListener>,
    /// Among the tunnels that may be open.
    _place: OwnedSemaphorePermit,
}

enum Carried {
    Udp {
        tunnel: UdpTunnel,
        reader: Box<CapsuleReader>,
    },
    Ip {
        tunnel: IpTunnel,
        reader: ip::Inbound,
    },
    Tcp {
        tunnel: TcpTunnel,
        reader: tcp::Inbound,
        writer: Outbound,
        /// The client has said its last byte, while its stream may go on.
        incoming_ended: bool,
    },
}

impl EmbeddedTunnel {
    pub(super) fn new(
        handle: Handle,
        shared: Arc<Shared>,
        protocol: server::Protocol,
        answer: ResponseHead,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let carried = match protocol {
            server::Protocol::Ip => Carried::Ip {
                tunnel: IpTunnel::new(handle),
                reader: {
                    let mut reader = ip::Inbound::default();
                    reader.keep_unknown(UNKNOWN_VALUE_MAX);
                    reader
                },
            },
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
                incoming_ended: false,
            },
        };
        Self {
            carried,
            shared,
            answer,
            outgoing: BytesMut::new(),
            ended: false,
            given: false,
            listener: None,
            writing: None,
            _place: place,
        }
    }

    pub(super) async fn opened(&self) -> Result<(), Error> {
        match &self.carried {
            Carried::Udp { tunnel, .. } => tunnel.opened().await,
            Carried::Ip { tunnel, .. } => tunnel.opened().await,
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
            Carried::Ip { tunnel, .. } => tunnel.info(),
            Carried::Tcp { tunnel, .. } => tunnel.info(),
        }
    }

    /// Waits until the tunnel is over.
    pub async fn closed(&self) -> CloseReason {
        match &self.carried {
            Carried::Udp { tunnel, .. } => tunnel.closed().await,
            Carried::Ip { tunnel, .. } => tunnel.closed().await,
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
            Carried::Udp { .. } | Carried::Ip { .. } => {
                let attempt = || next_capsule(shared, outgoing);
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
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(context))?.min(WRITE_BYTES_MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let read = self.handle_bytes(Bytes::copy_from_slice(bytes));
        self.unbroken(read)?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// How many bytes of the client have room. No more are taken than go on at once: what waited in here would wait for
    /// a call that may never come.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self {
            carried,
            shared,
            writing,
            ..
        } = self;
        match carried {
            // Datagrams do not wait, nor does what follows the last byte.
            Carried::Udp { .. }
            | Carried::Tcp {
                incoming_ended: true,
                ..
            } => Poll::Ready(Ok(WRITE_BYTES_MAX)),
            Carried::Ip { .. } => {
                let room = || Some(shared.carry_room()?.map_err(io::Error::from));
                let room = wait::poll_until(writing, shared.writable(), context, room);
                room.map_ok(|()| WRITE_BYTES_MAX)
            }
            Carried::Tcp { .. } => {
                wait::poll_until(writing, shared.writable(), context, || shared.write_room())
            }
        }
    }

    /// Takes bytes of the client apart.
    fn handle_bytes(&mut self, mut data: Bytes) -> io::Result<()> {
        match &mut self.carried {
            Carried::Udp { tunnel, reader } => {
                while let Some(event) = reader.read(&mut data) {
                    match event {
                        CapsuleEvent::Datagram(datagram) => send_datagram(tunnel, datagram)?,
                        CapsuleEvent::Unknown {
                            capsule_type,
                            value,
                        } => drop(tunnel.send_capsule(capsule_type.0, value)),
                        CapsuleEvent::Oversize {
                            context_id,
                            payload_len,
                        } => check_payload(context_id, payload_len)?,
                        // No type is wanted more than others here.
                        CapsuleEvent::TooLong { .. } => {}
                    }
                }
                Ok(())
            }
            Carried::Ip { reader, .. } => {
                let mut carried = Ok(());
                let carry = |delivery| {
                    let outcome = carry(&self.shared, delivery);
                    carried = std::mem::replace(&mut carried, Ok(())).and(outcome);
                };
                reader.handle_data(data, carry).map_err(invalid)?;
                carried
            }
            Carried::Tcp {
                tunnel,
                reader,
                incoming_ended,
                ..
            } => {
                let mut written = Ok(());
                let mut deliver = |piece| match piece {
                    Piece::Data(bytes) => {
                        let taken = self.shared.write(&bytes).transpose();
                        debug_assert!(!matches!(taken, Ok(None)), "there was room");
                        written = taken.map(drop);
                    }
                    // A capsule that finds no room is lost; nobody else waits for it.
                    Piece::Capsule { kind, value } => drop(tunnel.send_capsule(kind, value)),
                };
                // What it says of the end it says again when the stream has ended.
                let progress = reader.handle_data(data, &mut deliver).map_err(invalid)?;
                written?;
                *incoming_ended = progress == Progress::Ended;
                if *incoming_ended {
                    // FINAL_DATA. It may be over already.
                    self.shared.shut().ok();
                }
                Ok(())
            }
        }
    }

    /// The client has ended its direction.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let whole = match &mut self.carried {
            Carried::Udp { reader, .. } => reader.finish().map_err(invalid),
            Carried::Ip { reader, .. } => reader.handle_finished().map_err(invalid),
            Carried::Tcp { reader, .. } => reader.handle_finished().map_err(invalid),
        };
        self.unbroken(whole)?;
        match &mut self.carried {
            // A tunnel of datagrams has no half to go on with.
            Carried::Udp { .. } | Carried::Ip { .. } => self.shared.begin_close(),
            Carried::Tcp { tunnel, .. } => {
                ready!(AsyncWrite::poll_close(Pin::new(tunnel), context))?;
            }
        }
        self.given = true;
        Poll::Ready(Ok(()))
    }

    /// A client that breaks the framing breaks the tunnel: there is nothing to go on with.
    fn unbroken(&self, read: io::Result<()>) -> io::Result<()> {
        read.inspect_err(|_| self.shared.begin_reset())
    }

    /// Whether the tunnel has come to its end.
    fn is_complete(&self) -> bool {
        let taken = self.ended && self.outgoing.is_empty();
        match self.carried {
            Carried::Udp { .. } | Carried::Ip { .. } => self.given || taken,
            Carried::Tcp { .. } => self.given && taken,
        }
    }
}

impl Drop for EmbeddedTunnel {
    fn drop(&mut self) {
        if !self.is_complete() {
            self.shared.begin_reset();
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Frames the next thing that is for the client. `false` at the end.
fn next_capsule(shared: &Shared, out: &mut BytesMut) -> Option<io::Result<bool>> {
    if let Some(Ok(capsule)) = shared.recv_capsule() {
        encode_head(CapsuleType(capsule.kind), capsule.value.len() as u64, out);
        out.extend_from_slice(&capsule.value);
        return Some(Ok(true));
    }
    match shared.recv()? {
        Ok(datagram) => {
            let context = ContextId(datagram.context);
            encode_datagram_head(context, datagram.payload.len(), out);
            out.extend_from_slice(&datagram.payload);
            Some(Ok(true))
        }
        Err(error) if error.kind() == ErrorKind::Closed => Some(Ok(false)),
        Err(error) => Some(Err(io::Error::other(error))),
    }
}

/// Refuses a UDP payload that no UDP datagram holds (RFC 9298 §5).
fn check_payload(context: ContextId, len: u64) -> io::Result<()> {
    match context == ContextId::UDP_PAYLOAD && len > UDP_PAYLOAD_MAX as u64 {
        true => Err(invalid("a UDP payload of more than 65,527 bytes")),
        false => Ok(()),
    }
}

/// Passes an HTTP Datagram on; one that does not fit is lost, as anywhere.
fn send_datagram(tunnel: &UdpTunnel, mut datagram: Bytes) -> io::Result<()> {
    let Some((context, used)) = split_context_id(&datagram) else {
        return Err(invalid("a DATAGRAM capsule without a Context ID"));
    };
    datagram.advance(used);
    check_payload(context, datagram.len() as u64)?;
    unless_over(tunnel.send_with_context(context.0, datagram))
}

/// Passes on what a client has sent in an IP tunnel.
fn carry(shared: &Arc<Shared>, delivery: Delivery) -> io::Result<()> {
    unless_over(match delivery {
        Delivery::Packet(packet) => shared.carry(packet.into()),
        Delivery::Context { id, payload } => shared.carry(Datagram::new(id, payload)),
        Delivery::Ip(capsule) => {
            let kind = capsule.capsule_type().0;
            shared.carry_capsule(Capsule::new(kind, capsule.value()))
        }
        Delivery::Capsule { kind, value } => shared.carry_capsule(Capsule::new(kind, value)),
        Delivery::Dropped => Ok(()),
    })
}

/// Nothing but the end of the tunnel is an error for its stream.
fn unless_over(sent: Result<(), Error>) -> io::Result<()> {
    match sent {
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

/// Flushing does nothing: the tunnel has taken what was written. Closing ends the client's direction.
impl AsyncWrite for EmbeddedTunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_give(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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

/// Flushing does nothing: the tunnel has taken what was written. Shutting down ends the client's direction.
#[cfg(feature = "tokio")]
impl tokio::io::AsyncWrite for EmbeddedTunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_give(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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
