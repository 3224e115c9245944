//! What only IP tunnels have: packets that wait for room, and what is said about addresses and routes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::super::info::{Capsule, Datagram, Protocol};
use super::{Inner, SENT, Shared};
use crate::embed::ip::{Replier, Said, Saying};
use crate::embed::session::SendError;
use crate::embed::{host::Command, wait};
use crate::error::{Error, ErrorKind, Side};
use crate::tunnel::ip::{IpEvent, PENDING_MAX};
use crate::wire::ip::AssignedAddress;
use crate::worker::IpInfo;

/// What both ends have said so far.
pub(in crate::embed) type IpSnapshot = Option<IpInfo>;

/// Things said that wait for the user, at most: all requests that may be open, and what else comes in between.
const EVENTS_MAX: usize = 2 * PENDING_MAX;

/// What an IP tunnel knows beside its packets.
#[derive(Debug, Default)]
pub(super) struct IpSide {
    snapshot: IpSnapshot,
    events: VecDeque<IpEvent>,
}

impl IpSide {
    pub(super) fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn pop_event(&mut self) -> Option<IpEvent> {
        self.events.pop_front()
    }

    /// Queues an event. Most say everything about something, of which the last one counts; what is displaced can still
    /// be asked for.
    fn push_event(&mut self, event: IpEvent) {
        let is_all = matches!(
            event,
            IpEvent::Routes(_) | IpEvent::Dns(_) | IpEvent::Pref64(_) | IpEvent::Mtu(_)
        );
        if is_all {
            let kind = std::mem::discriminant(&event);
            (self.events).retain(|waiting| std::mem::discriminant(waiting) != kind);
        }
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// The user's side.
impl Shared {
    /// Queues a packet, when there is room; who `starves` hears of that by an event.
    pub(in crate::embed::tunnel) fn send_packet(
        self: &Arc<Self>,
        packet: &Bytes,
        starves: bool,
    ) -> Option<Result<(), Error>> {
        let mut inner = self.inner.lock();
        if let Err(error) = inner.check_usable() {
            return Some(Err(error));
        }
        let (size, mtu) = (packet.len(), inner.payload_max());
        if size > mtu {
            // The path may have grown: the worker looks.
            drop(inner);
            self.ask();
            return Some(Err(SendError::PacketTooLarge { size, mtu }.into()));
        }
        if inner.outbound.datagrams.is_full() {
            inner.outbound.starved |= starves;
            return None;
        }
        let datagram = Datagram::new(0, packet.clone());
        inner.outbound.datagrams.push(datagram);
        inner.count(SENT, 1, size);
        drop(inner);
        self.ask();
        Some(Ok(()))
    }

    /// Whether a packet would be taken now, or never.
    pub(in crate::embed::tunnel) fn packet_room(&self) -> Option<Result<(), Error>> {
        let inner = self.inner.lock();
        match inner.check_usable() {
            Ok(()) => (!inner.outbound.datagrams.is_full()).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }

    /// The next packet; an error when none will come.
    pub(in crate::embed::tunnel) fn recv_packet(&self) -> Option<Result<Bytes, Error>> {
        let received = self.recv()?;
        Some(received.map(|datagram| datagram.payload))
    }

    /// What the other end said next; an error when nothing will come.
    pub(in crate::embed::tunnel) fn recv_ip_event(&self) -> Option<Result<IpEvent, Error>> {
        let mut inner = self.inner.lock();
        match inner.ip.as_mut().and_then(IpSide::pop_event) {
            Some(event) => Some(Ok(event)),
            None => inner.over().map(Err),
        }
    }

    /// What both ends have said so far, once the tunnel is open.
    pub(in crate::embed::tunnel) fn ip_info(&self) -> IpSnapshot {
        let inner = self.inner.lock();
        let snapshot = inner.ip.as_ref()?.snapshot.as_ref()?;
        Some(IpInfo {
            mtu: inner.payload_max(),
            ..snapshot.clone()
        })
    }

    /// The addresses of this end, once there are any.
    pub(in crate::embed::tunnel) fn assigned(&self) -> Option<Result<Vec<AssignedAddress>, Error>> {
        let inner = self.inner.lock();
        let snapshot = inner.ip.as_ref().and_then(|ip| ip.snapshot.as_ref());
        match snapshot.map(|info| &info.assigned) {
            Some(assigned) if !assigned.is_empty() => Some(Ok(assigned.clone())),
            Some(_) | None => inner.over().map(Err),
        }
    }

    /// Has the worker say something.
    pub(in crate::embed::tunnel) async fn say(
        self: &Arc<Self>,
        saying: Saying,
    ) -> Result<Vec<u64>, Error> {
        let (replier, reply) = Replier::new();
        self.order(saying, replier);
        let said = wait::until(&reply.event, || reply.take()).await;
        self.said(said)
    }

    /// As [`say`](Self::say), on a plain thread.
    pub(in crate::embed::tunnel) fn say_blocking(
        self: &Arc<Self>,
        saying: Saying,
    ) -> Result<Vec<u64>, Error> {
        let (replier, reply) = Replier::new();
        self.order(saying, replier);
        let said = wait::until_blocking(&reply.event, || reply.take());
        self.said(said)
    }

    fn order(self: &Arc<Self>, saying: Saying, replier: Replier) {
        self.worker.send(Command::Say {
            shared: Arc::clone(self),
            saying: Box::new(saying),
            replier,
        });
    }

    fn said(&self, said: Said) -> Result<Vec<u64>, Error> {
        match said {
            // The tunnel knows better why.
            Err(SendError::Closed) => Err(self.inner.lock().over().unwrap_or_else(not_open)),
            said => said.map_err(Error::from),
        }
    }
}

/// A tunnel whose client comes by somebody else's stream.
impl Shared {
    pub(in crate::embed) fn is_carried_ip(&self) -> bool {
        self.terms.protocol == Protocol::Ip && self.terms.carried.is_some()
    }

    /// Queues what came from the client: a packet, or a payload on another context. The worker judges what fits.
    pub(in crate::embed) fn carry(self: &Arc<Self>, datagram: Datagram) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        inner.check_usable()?;
        let len = datagram.payload.len();
        inner.outbound.datagrams.push(datagram);
        inner.count(SENT, 1, len);
        drop(inner);
        self.ask();
        Ok(())
    }

    /// Queues a capsule of the client, of any type but DATAGRAM.
    pub(in crate::embed) fn carry_capsule(self: &Arc<Self>, capsule: Capsule) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        inner.check_usable()?;
        inner.outbound.capsules.push_back(capsule);
        drop(inner);
        self.ask();
        Ok(())
    }

    /// Whether the worker has taken all capsules: there is no other bound for them.
    pub(in crate::embed) fn carry_room(&self) -> Option<Result<(), Error>> {
        let inner = self.inner.lock();
        match inner.check_usable() {
            Ok(()) => inner.outbound.capsules.is_empty().then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The worker's side.
impl Shared {
    /// What both ends have said so far has changed.
    pub(in crate::embed) fn handle_ip_described(&self, snapshot: IpSnapshot) {
        if let Inner { ip: Some(ip), .. } = &mut *self.inner.lock() {
            ip.snapshot = snapshot;
        }
    }

    /// The other end has said something.
    pub(in crate::embed) fn handle_ip_event(
        self: &Arc<Self>,
        event: IpEvent,
        snapshot: IpSnapshot,
    ) {
        self.update(|inner| {
            if let Some(ip) = &mut inner.ip {
                ip.snapshot = snapshot;
                ip.push_event(event);
            }
        });
        self.readable.notify(usize::MAX);
    }

    /// A datagram came whose context nobody has agreed on.
    pub(in crate::embed) fn handle_context_dropped(&self) {
        self.inner.lock().inbound.datagrams.dropped += 1;
    }

    /// So many packets were larger than the path takes by now.
    pub(in crate::embed) fn handle_send_dropped(&self, packets: u64) {
        self.inner.lock().outbound.datagrams.dropped += packets;
    }
}

fn not_open() -> Error {
    let error = Error::new(ErrorKind::Limit, Side::Local).retryable(true);
    error.with_source("the tunnel is not open yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_replace_each_other_and_requests_do_not() {
        let mut side = IpSide::default();
        side.push_event(IpEvent::Routes(Vec::new()));
        side.push_event(IpEvent::Requested(Vec::new()));
        side.push_event(IpEvent::Requested(Vec::new()));
        side.push_event(IpEvent::Routes(Vec::new()));
        let popped: Vec<_> = std::iter::from_fn(|| side.pop_event()).collect();
        let expected = [
            IpEvent::Requested(Vec::new()),
            IpEvent::Requested(Vec::new()),
            IpEvent::Routes(Vec::new()),
        ];
        assert_eq!(popped, expected);
        for _ in 0..EVENTS_MAX + 1 {
            side.push_event(IpEvent::Requested(Vec::new()));
        }
        assert_eq!(side.events.len(), EVENTS_MAX);
    }
}
