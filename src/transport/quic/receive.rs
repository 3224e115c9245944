//! The first half of a turn: packets and deadlines in, events out.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{DatagramEvent, EcnCodepoint};

use super::connection::End;
use super::{
    CloseReason, ConnectionId, Endpoint, EndpointId, Event, Hub, Link, live, open, respond,
};
use crate::http::h3::code::Code;
use crate::net::{Network, SocketId, Train};

impl Hub {
    /// Takes in everything that one receive call returned for `endpoint`.
    pub fn handle_train(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        socket: SocketId,
        train: Train,
        net: &mut impl Network,
    ) {
        let (peer, local_ip) = (train.peer, train.local_ip);
        let ecn = train.ecn.and_then(EcnCodepoint::from_bits);
        let link = Link::Socket(socket);
        // Nearly always all packets of a train are of one connection.
        let mut last = None;
        for segment in train.segments() {
            let origin = (peer, local_ip, ecn);
            let index = self.handle_packet(now, endpoint, link, origin, segment, net);
            if index != last
                && let Some(index) = index
            {
                self.connections[index as usize].heard = Some(now);
                self.touch(index);
                self.mark_dirty(index);
                last = Some(index);
            }
        }
    }

    /// Takes in a packet of a nested connection: the payload of a datagram on `stream` of `outer`.
    pub fn handle_nested(
        &mut self,
        now: Instant,
        inner: ConnectionId,
        payload: Bytes,
        net: &mut impl Network,
    ) {
        let Some(connection) = self.get(inner) else {
            return;
        };
        let (endpoint, link) = (connection.endpoint, connection.link);
        let peer = connection.quic.remote_address();
        let packet = BytesMut::from(payload);
        let index = self.handle_packet(now, endpoint, link, (peer, None, None), packet, net);
        if let Some(index) = index {
            self.connections[index as usize].heard = Some(now);
            self.touch(index);
            self.mark_dirty(index);
        }
    }

    /// Takes in one packet; the connection that has to be touched for it.
    fn handle_packet(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        link: Link,
        (peer, local_ip, ecn): (SocketAddr, Option<IpAddr>, Option<EcnCodepoint>),
        packet: BytesMut,
        net: &mut impl Network,
    ) -> Option<u32> {
        let Endpoint { quinn, slots } = self.endpoints.get_mut(endpoint.0)?;
        self.response.clear();
        match quinn.handle(now, peer, local_ip, ecn, packet, &mut self.response) {
            None => self.stats.packets_ignored += 1,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let index = slots.get(handle.0).copied().flatten()?;
                self.connections[index as usize].quic.handle_event(event);
                return Some(index);
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.handle_incoming(now, endpoint, link, incoming, net);
            }
            Some(DatagramEvent::Response(transmit)) => {
                // What is answered right here is a long header, or the reset of a connection that nobody knows.
                let is_reset = self.response.first().is_some_and(|first| first & 0x80 == 0);
                self.stats.resets_sent += u64::from(is_reset);
                respond(net, link, &transmit, &self.response);
            }
        }
        None
    }

    /// Fires every timer that is due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, index)) = self.timers.first() {
            if deadline > now {
                break;
            }
            self.timers.pop_first();
            let connection = &mut *self.connections[index as usize];
            let generation = connection.generation;
            connection.timer = None;
            if connection.handshake_overdue(now) {
                self.stats.handshakes_timed_out += 1;
                let id = ConnectionId { index, generation };
                self.end(now, id, Code::H3_NO_ERROR, CloseReason::HandshakeTimeout);
            } else if connection.quic.poll_timeout().is_some_and(|due| due <= now) {
                connection.quic.handle_timeout(now);
            }
            self.touch(index);
            self.mark_dirty(index);
        }
    }

    /// When [`Hub::expire`] has work at the earliest. May be early, never late.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Whether a connection waits for [`Hub::advance`].
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty() || !self.events.is_empty()
    }

    /// The next connection that received something or whose timer fired.
    pub fn next_touched(&mut self) -> Option<ConnectionId> {
        while let Some(index) = self.touched.pop_front() {
            if let Some(connection) = self.connections.get_mut(index as usize) {
                connection.touched = false;
                return Some(ConnectionId {
                    index,
                    generation: connection.generation,
                });
            }
        }
        None
    }

    /// Turns what a connection received into events.
    pub fn advance(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = open(&mut self.connections, id) else {
            return;
        };
        let mut over = None;
        while over.is_none()
            && let Some(event) = connection.quic.poll()
        {
            if matches!(event, quinn_proto::Event::Connected) {
                connection.handshake_deadline = None;
                self.handshakes -= usize::from(connection.quic.side().is_server());
                self.stats.connections_opened += 1;
                self.events.push_back((id, Event::Connected));
            }
            over = connection.handle_quic_event(event).err();
        }
        connection.raise_stream_credit(self.limits.streams_max);
        if connection.has_other_mtu() {
            self.events
                .push_back((id, Event::Mtu { bound: Vec::new() }));
        }
        while let Some(event) = connection.h3.poll() {
            connection.note(&event);
            self.events.push_back((id, Event::Http(event)));
        }
        self.mark_dirty(id.index);
        match over {
            Some(CloseReason::Misbehaved(error)) => self.fail(now, id, error),
            Some(reason) => self.end(now, id, Code::H3_NO_ERROR, reason),
            None => {}
        }
    }

    /// The next event, in the order in which they happened.
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Event)> {
        let (id, mut event) = self.events.pop_front()?;
        let connection = live(&mut self.connections, id);
        // Who is bound is looked up only now: it may have become so because of events that came before this one.
        match (&mut event, connection) {
            (Event::Closed { bound, .. }, Some(connection)) => {
                *bound = connection.bound();
                connection.bound.clear();
                connection.end = End::Polled;
                self.mark_dirty(id.index);
            }
            (Event::Mtu { bound }, Some(connection)) => *bound = connection.bound(),
            (Event::Connected | Event::Http(_), Some(_)) | (_, None) => {}
        }
        Some((id, event))
    }
}
