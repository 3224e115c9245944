//! Message mode: what happens to one tunnel or to many, in one place.
//!
//! ```text
//!   tunnel ── its own queues ──┐
//!   tunnel ── its own queues ──┼─ "I have something" ─► Events ── recv ─► (TunnelId, Event)
//!   tunnel ── its own queues ──┘
//! ```
//!
//! Only names of tunnels are queued here; an event is taken out of its tunnel when it is received. That is why nothing
//! is lost when the mode changes, why tunnels take turns, and why a TCP tunnel is not read further while its events
//! wait.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use event_listener::{Event as Notice, EventListener};
use futures_core::Stream;

use super::info::{Capsule, CloseReason, Datagram, TunnelId};
use super::shared::Shared;
use crate::embed::lock::Lock;
use crate::embed::wait;
use crate::net::clock;
use crate::tunnel::ip::IpEvent;

/// What can happen to a tunnel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The relay has agreed. It comes first, also when somebody waited for it already.
    Opened,
    /// A datagram came (UDP).
    Datagram(Datagram),
    /// A whole packet came (IP).
    Packet(Bytes),
    /// The other end said something about addresses, routes or names, or packets of another size pass (IP).
    /// [`IpTunnel::ip_info`](crate::IpTunnel::ip_info) is up to date when it comes.
    Ip(IpEvent),
    /// Bytes came (TCP).
    Data(Bytes),
    /// There is room again after [`try_write`](crate::TcpTunnel::try_write) (TCP) or
    /// [`try_send_ip_packet`](crate::IpTunnel::try_send_ip_packet) (IP) found none. It comes once for that, and not
    /// while there is room anyway.
    Writable,
    /// A capsule came that bauta has no use for.
    Capsule(Capsule),
    /// The target has ended its direction (TCP); no [`Event::Data`] follows.
    Eof,
    /// It is over, and why. It comes once and last, whoever brought the end, [`close`](crate::UdpTunnel::close)
    /// included. A tunnel whose handle was dropped is forgotten and sends none, so that dropping is how to close a
    /// tunnel in which nobody is interested any more.
    Closed(CloseReason),
}

/// How a user learns what a tunnel brings.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Mode {
    /// The user asks the tunnel.
    #[default]
    Pull,
    /// The user asks these events, where other tunnels may report as well.
    Events(Events),
}

/// A queue where any number of tunnels report. Cheap to clone; each event goes to one receiver.
///
/// It has no bound of its own: what waits is in the tunnels, inside their bounds. When the last clone is dropped its
/// tunnels are back in [`Mode::Pull`]. A tunnel whose last handle is dropped is forgotten with all that waits, its
/// [`Event::Closed`] included: who wants to hear of the end closes the tunnel, and keeps the handle until then.
///
/// ```no_run
/// use bauta::{Client, Event, Events, Mode};
///
/// # fn example(client: Client) -> Result<(), bauta::Error> {
/// let events = Events::new();
/// let open = |target| client.connect(target).mode(Mode::Events(events.clone())).start_udp();
/// let tunnels = [open("192.0.2.1:53")?, open("192.0.2.2:53")?];
/// loop {
///     match events.recv_blocking() {
///         (tunnel, Event::Datagram(datagram)) => println!("{tunnel}: {:?}", datagram.payload),
///         (tunnel, Event::Closed(reason)) => println!("{tunnel}: {reason}"),
///         (_, _) => {}
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Lock<Waiting>,
    notice: Notice,
}

/// Below this many entries nobody looks for those that are gone.
const PRUNE_MIN: usize = 64;

/// Tunnels that have something, in the order of their turns.
#[derive(Debug, Default)]
struct Waiting {
    tunnels: VecDeque<Weak<Shared>>,
    prune_at: usize,
}

impl Waiting {
    fn push(&mut self, tunnel: &Arc<Shared>) {
        if self.tunnels.len() >= self.prune_at.max(PRUNE_MIN) {
            self.tunnels.retain(|tunnel| tunnel.strong_count() > 0);
            self.prune_at = self.tunnels.len() * 2;
        }
        self.tunnels.push_back(Arc::downgrade(tunnel));
    }
}

#[derive(Clone, Debug)]
pub(super) struct WeakEvents(Weak<Inner>);

impl WeakEvents {
    pub(super) fn is(&self, events: &Events) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&events.0))
    }

    pub(super) fn upgrade(&self) -> Option<Events> {
        self.0.upgrade().map(Events)
    }
}

impl Events {
    /// A queue without tunnels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next event of any tunnel. It waits as long as nothing happens, also while there are no tunnels.
    pub async fn recv(&self) -> (TunnelId, Event) {
        wait::until(&self.0.notice, || self.try_recv()).await
    }

    /// The next event, if there is one already.
    pub fn try_recv(&self) -> Option<(TunnelId, Event)> {
        loop {
            let tunnel = self.0.waiting.lock().tunnels.pop_front()?;
            let Some(tunnel) = tunnel.upgrade() else {
                continue;
            };
            if let Some((event, more)) = tunnel.next_event(self) {
                let id = tunnel.id();
                if more {
                    self.list(&tunnel);
                }
                return Some((id, event));
            }
        }
    }

    /// As [`Events::recv`], at most for `timeout`. A thread of the library keeps the time for all who wait so; the
    /// first one starts it.
    ///
    /// # Panics
    /// When the system refuses that thread.
    pub async fn recv_timeout(&self, timeout: Duration) -> Option<(TunnelId, Event)> {
        match clock::now().checked_add(timeout) {
            Some(at) => wait::until_kept_time(&self.0.notice, at, || self.try_recv()).await,
            None => Some(self.recv().await),
        }
    }

    /// As [`Events::recv`], on a plain thread.
    pub fn recv_blocking(&self) -> (TunnelId, Event) {
        wait::until_blocking(&self.0.notice, || self.try_recv())
    }

    /// As [`Events::recv_blocking`], at most for `timeout`.
    pub fn recv_timeout_blocking(&self, timeout: Duration) -> Option<(TunnelId, Event)> {
        match clock::now().checked_add(timeout) {
            Some(at) => wait::until_time_blocking(&self.0.notice, at, || self.try_recv()),
            None => Some(self.recv_blocking()),
        }
    }

    /// The events as a stream without an end.
    pub fn stream(&self) -> impl Stream<Item = (TunnelId, Event)> + Send + Sync + Unpin + use<> {
        EventStream {
            events: self.clone(),
            listener: None,
        }
    }

    pub(super) fn list(&self, tunnel: &Arc<Shared>) {
        self.0.waiting.lock().push(tunnel);
        self.0.notice.notify(usize::MAX);
    }

    pub(super) fn downgrade(&self) -> WeakEvents {
        WeakEvents(Arc::downgrade(&self.0))
    }
}

struct EventStream {
    events: Events,
    listener: Option<EventListener>,
}

impl Stream for EventStream {
    type Item = (TunnelId, Event);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { events, listener } = &mut *self;
        wait::poll_until(listener, &events.0.notice, context, || events.try_recv()).map(Some)
    }
}
