//! A UDP tunnel in the hands of its user.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use event_listener::EventListener;
use futures_core::Stream;
use futures_sink::Sink;

use super::common::{common, receives};
use super::events::Mode;
use super::info::{Capsule, CloseReason, Datagram, Info, TunnelId};
use super::shared::{Handle, Receiving};
use crate::embed::wait;
use crate::error::Error;

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
    receiving: Receiving,
    /// What closing the `Sink` waits for.
    closing: Option<EventListener>,
}

impl UdpTunnel {
    pub(in crate::embed) fn new(handle: Handle) -> Self {
        Self {
            handle,
            receiving: Receiving::default(),
            closing: None,
        }
    }

    /// Sends a UDP payload. It never waits: a payload that finds the queue full (1,000 payloads) displaces the oldest
    /// one there, which [`Info::send_dropped`] counts.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) when the payload is longer than [`Info::datagram_size_max`], with
    /// both sizes; and when the tunnel is over, why.
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
        self.handle.taken(|| shared.recv()).await
    }
}

common!(UdpTunnel);
receives!(UdpTunnel, Datagram, recv);

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
