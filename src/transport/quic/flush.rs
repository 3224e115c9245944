//! The end of a turn: every connection that has something to say sends it, in trains.

use std::time::Instant;

use super::connection::End;
use bytes::Bytes;

use super::super::carriers::RequestStream;
use super::{Hub, Link, outgoing};
use crate::net::{Network, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX};

impl Hub {
    /// Sends what the dirty connections have to send. A nested connection's packets become datagrams of its
    /// outer connection, which is flushed after it in the same call.
    pub fn flush(&mut self, now: Instant, net: &mut impl Network) {
        while let Some(index) = self.dirty.pop_front() {
            if self.connections.contains(index as usize) {
                self.flush_connection(now, index, net);
            }
        }
    }

    fn flush_connection(&mut self, now: Instant, index: u32, net: &mut impl Network) {
        let mut transmit_buffer = std::mem::take(&mut self.transmit);
        let connection = &mut *self.connections[index as usize];
        connection.dirty = false;
        let link = connection.link;
        loop {
            let connection = &mut *self.connections[index as usize];
            let endpoint = &mut self.endpoints[connection.endpoint.0].quinn;
            while let Some(event) = connection.quic.poll_endpoint_events() {
                if let Some(event) = endpoint.handle_event(connection.handle, event) {
                    connection.quic.handle_event(event);
                }
            }
            transmit_buffer.clear();
            let mtu = usize::from(connection.quic.current_mtu());
            let segments_max = (TRAIN_BYTES_MAX / mtu).clamp(1, TRAIN_SEGMENTS_MAX);
            match connection
                .quic
                .poll_transmit(now, segments_max, &mut transmit_buffer)
            {
                Some(transmit) => match link {
                    Link::Socket(socket) => {
                        net.send(socket, &outgoing(&transmit, &transmit_buffer))
                    }
                    Link::Tunnel(stream) => {
                        let segment_size = transmit.segment_size.unwrap_or(transmit.size).max(1);
                        let packets = transmit_buffer[..transmit.size].chunks(segment_size);
                        self.send_nested(stream, packets);
                    }
                },
                None if connection.feed(&mut self.stats) => {}
                None => break,
            }
        }
        self.transmit = transmit_buffer;
        self.settle(index);
    }

    /// Sends packets of a nested connection as datagrams of the tunnel that it lives in.
    fn send_nested<'a>(&mut self, tunnel: RequestStream, packets: impl Iterator<Item = &'a [u8]>) {
        match tunnel {
            // After the end of the tunnel nothing may be sent in it (RFC 9297 §2.1).
            RequestStream::Quic(outer, stream) if self.owner(outer, stream).is_none() => {}
            RequestStream::Quic(outer, stream) => {
                for packet in packets {
                    // QUIC finds out by itself what was lost.
                    self.send_datagram(outer, stream, packet);
                }
            }
            RequestStream::Tcp(outer, stream) => {
                let packets = packets.map(|packet| (outer, stream, Bytes::copy_from_slice(packet)));
                self.detours.extend(packets);
            }
        }
    }

    /// Re-arms the connection's timer, or removes the connection when nobody needs it any more.
    fn settle(&mut self, index: u32) {
        let connection = &mut *self.connections[index as usize];
        if connection.quic.is_drained() {
            match connection.end {
                End::Open => self.touch(index),
                End::Announced => {}
                End::Polled => self.remove(index),
            }
            return;
        }
        let due = connection
            .quic
            .poll_timeout()
            .into_iter()
            .chain(connection.handshake_deadline)
            .min();
        if let Some(due) = due
            && connection.timer.is_none_or(|armed| due < armed)
        {
            // A deadline that moves later is noticed when the earlier one fires: most only move later.
            if let Some(armed) = connection.timer.replace(due) {
                self.timers.remove(&(armed, index));
            }
            self.timers.insert((due, index));
        }
    }

    fn remove(&mut self, index: u32) {
        let connection = self.connections.remove(index as usize);
        self.served -= usize::from(connection.quic.side().is_server());
        self.stats.connections_closed += 1;
        connection.add_quic_counters(&mut self.stats);
        self.endpoints[connection.endpoint.0].slots[connection.handle.0] = None;
        if let Some(armed) = connection.timer {
            self.timers.remove(&(armed, index));
        }
    }
}
