//! A UDP tunnel in the hands of its user.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use event_listener::EventListener;
use futures_core::Stream;
use futures_sink::Sink;

use super::events::Mode;
use super::info::{Capsule, CloseReason, Datagram, Info, TunnelId};
use super::shared::Handle;
use crate::embed::wait;
use crate::error::{Error, ErrorKind};
use crate::net::clock;

/// A UDP tunnel: datagrams to one target and back (RFC 9298).
///
/// Every method takes `&self` and may be called from any thread and any executor: threads and tasks share a tunnel in
/// an [`Arc`](std::sync::Arc). As a `futures_core::Stream` it gives what [`recv`](Self::recv) gives and ends when the
/// tunnel does; as a `futures_sink::Sink` it takes payloads. Dropping it closes the tunnel.
///
/// ```no_run
/// # async fn example(client: bauta::Client) -> Result<(), bauta::Error> {
/// use std::time::Duration;
///
/// let tunnel = client.udp(("dns.example", 53)).await?;
/// tunnel.send(vec![0; 12])?;
/// match tunnel.recv_timeout(Duration::from_secs(1)).await? {
///     Some(datagram) => println!("{} bytes", datagram.payload.len()),
///     None => println!("no answer"),
/// }
/// tunnel.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpTunnel {
    handle: Handle,
    /// What the `Stream` waits for.
    listener: Option<EventListener>,
    /// What closing the `Sink` waits for.
    closing: Option<EventListener>,
    /// The `Stream` has told of the end.
    ended: bool,
}

impl UdpTunnel {
    pub(in crate::embed) const fn new(handle: Handle) -> Self {
        Self {
            handle,
            listener: None,
            closing: None,
            ended: false,
        }
    }

    /// Which tunnel this is, among the [`Events`](crate::Events) of many.
    #[must_use]
    pub fn id(&self) -> TunnelId {
        self.handle.shared.id()
    }

    /// Waits until the relay has agreed; at once for a tunnel that was waited for.
    ///
    /// # Errors
    /// Why it did not.
    pub async fn opened(&self) -> Result<(), Error> {
        self.handle.opened().await
    }

    /// As [`opened`](Self::opened), on a plain thread.
    ///
    /// # Errors
    /// Why it did not.
    pub fn opened_blocking(&self) -> Result<(), Error> {
        self.handle.opened_blocking()
    }

    /// Sends a UDP payload. It never waits: a payload that finds the queue full (1,000 payloads) displaces the oldest
    /// one there, which [`Info::send_dropped`] counts.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when the payload is longer than [`Info::datagram_size_max`], with both sizes; and when the
    /// tunnel is over, why.
    pub fn send(&self, payload: impl Into<Bytes>) -> Result<(), Error> {
        self.send_with_context(0, payload)
    }

    /// Sends a payload in a context that an extension has agreed with the relay (RFC 9298 §4).
    ///
    /// # Errors
    /// As [`send`](Self::send), and when `context` exceeds 2^62 - 1.
    pub fn send_with_context(&self, context: u64, payload: impl Into<Bytes>) -> Result<(), Error> {
        self.handle.shared.send(Datagram::new(context, payload))
    }

    /// The next datagram from the target. Cancel-safe: a future that is dropped has taken nothing.
    ///
    /// In message mode this and [`Events`](crate::Events) take from one queue, and a datagram goes to whoever comes
    /// first: ask one of them.
    ///
    /// # Errors
    /// Why the tunnel is over, once everything that came before was received.
    pub async fn recv(&self) -> Result<Datagram, Error> {
        let shared = &self.handle.shared;
        wait::until(shared.readable(), || shared.recv()).await
    }

    /// As [`recv`](Self::recv), at most for `timeout`; then there is `None`, also where the datagrams went to
    /// [`Events`](crate::Events). The worker keeps the time: any executor will do.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_timeout(&self, timeout: Duration) -> Result<Option<Datagram>, Error> {
        let shared = &self.handle.shared;
        let Some(at) = clock::now().checked_add(timeout) else {
            return self.recv().await.map(Some);
        };
        let received = wait::until_time(shared.readable(), (shared.worker(), at), || shared.recv());
        received.await.transpose()
    }

    /// The next datagram, if it is there already.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Datagram>, Error> {
        self.handle.shared.recv().transpose()
    }

    /// As [`recv`](Self::recv), on a plain thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_blocking(&self) -> Result<Datagram, Error> {
        let shared = &self.handle.shared;
        wait::until_blocking(shared.readable(), || shared.recv())
    }

    /// As [`recv_timeout`](Self::recv_timeout), on a plain thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_timeout_blocking(&self, timeout: Duration) -> Result<Option<Datagram>, Error> {
        let shared = &self.handle.shared;
        let Some(at) = clock::now().checked_add(timeout) else {
            return self.recv_blocking().map(Some);
        };
        wait::until_time_blocking(shared.readable(), at, || shared.recv()).transpose()
    }

    /// Has the tunnel report to [`Events`](crate::Events), or be asked; what is queued stays and is received either
    /// way.
    pub fn set_mode(&self, mode: Mode) {
        self.handle.shared.set_mode(mode);
    }

    /// Sends a capsule on the tunnel's stream (RFC 9297 §3.2).
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] for a value of more than 16 KiB, and while 64 capsules wait already;
    /// [`ErrorKind::Unsupported`] for the types that the tunnel itself uses; and when the tunnel is over, why.
    pub fn send_capsule(&self, kind: u64, value: impl Into<Bytes>) -> Result<(), Error> {
        self.handle.shared.send_capsule(Capsule::new(kind, value))
    }

    /// The next capsule of a type that bauta itself has no use for. Those that find 64 of them waiting are dropped and
    /// counted.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_capsule(&self) -> Result<Capsule, Error> {
        let shared = &self.handle.shared;
        wait::until(shared.readable(), || shared.recv_capsule()).await
    }

    /// As [`recv_capsule`](Self::recv_capsule), on a plain thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_capsule_blocking(&self) -> Result<Capsule, Error> {
        let shared = &self.handle.shared;
        wait::until_blocking(shared.readable(), || shared.recv_capsule())
    }

    /// The next capsule, if it is there already.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv_capsule(&self) -> Result<Option<Capsule>, Error> {
        self.handle.shared.recv_capsule().transpose()
    }

    /// The tunnel at this moment.
    #[must_use]
    pub fn info(&self) -> Info {
        self.handle.shared.info()
    }

    /// Closes the tunnel: what was sent goes out, what waits can still be received. Returns when that is done, within
    /// five seconds whatever happens.
    pub async fn close(&self) {
        self.handle.close().await;
    }

    /// As [`close`](Self::close), on a plain thread.
    pub fn close_blocking(&self) {
        self.handle.close_blocking();
    }

    /// Waits until the tunnel is over, and says why.
    pub async fn closed(&self) -> CloseReason {
        self.handle.closed().await
    }

    /// As [`closed`](Self::closed), on a plain thread.
    #[must_use]
    pub fn closed_blocking(&self) -> CloseReason {
        self.handle.closed_blocking()
    }
}

/// Ends after a tunnel that was closed in order; one that broke gives its error first.
impl Stream for UdpTunnel {
    type Item = Result<Datagram, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            handle,
            listener,
            ended,
            ..
        } = &mut *self;
        if *ended {
            return Poll::Ready(None);
        }
        let shared = &handle.shared;
        let received = wait::poll_until(listener, shared.readable(), context, || shared.recv());
        received.map(|received| {
            *ended = received.is_err();
            match received {
                Err(error) if error.kind() == ErrorKind::Closed => None,
                received => Some(received),
            }
        })
    }
}

/// Is always ready; flushing does nothing, as the worker sends what it is given by itself.
impl Sink<Bytes> for UdpTunnel {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, payload: Bytes) -> Result<(), Error> {
        self.send(payload)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            handle, closing, ..
        } = &mut *self;
        let shared = &handle.shared;
        shared.begin_close();
        wait::poll_until(closing, shared.changed(), context, || shared.close_reason())
            .map(|_| Ok(()))
    }
}
