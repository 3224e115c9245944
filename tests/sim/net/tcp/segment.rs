//! What travels between two sockets: segments, when they arrive, and what becomes of those that do not.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bauta::net::{TcpClose, TcpId};
use bytes::Bytes;

use super::stream::{Phase, Stream};
use super::{State, Tcp};
use crate::net::{Event, Net, NodeId, Rng};

/// First time after which a lost segment is sent again, beyond the round trip.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The same for the first segment of a connection.
const RETRANSMIT_SYN: Duration = Duration::from_secs(1);
/// Longest such time.
const RETRANSMIT_MAX: Duration = Duration::from_secs(120);
/// How often a segment is sent again, as Linux has it by default (tcp_retries2, tcp_syn_retries).
const RETRIES: u32 = 15;
const RETRIES_SYN: u32 = 6;

/// What travels, with the addresses for the link and the names for the sockets.
#[derive(Clone, Debug)]
pub(in crate::net) struct Segment {
    from: (SocketAddr, TcpId),
    to: (SocketAddr, Option<TcpId>),
    /// How often it was lost.
    lost: u32,
    content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Syn,
    SynAck,
    Ack,
    Data(u64, Bytes),
    Fin(u64),
    /// The peer has read this many bytes.
    Read(usize),
    Reset(io::ErrorKind),
}

impl Tcp {
    /// A segment of this socket to its peer.
    fn segment(&self, id: TcpId, content: Content) -> Option<Segment> {
        let socket = self.sockets.get(&id)?;
        let State::Stream(stream) = &socket.state else {
            return None;
        };
        // Without a peer there is nobody to send anything else to.
        let travels = stream.peer.is_some() || matches!(content, Content::Syn);
        travels.then_some(Segment {
            from: (socket.local, id),
            to: (stream.remote, stream.peer),
            lost: 0,
            content,
        })
    }
}

impl Net {
    pub(super) fn send_segment(&mut self, id: TcpId, content: Content) {
        if let Some(segment) = self.tcp.segment(id, content) {
            self.transmit_tcp(segment);
        }
    }

    /// Puts a segment on its way, or its next try on the calendar.
    pub(in crate::net) fn transmit_tcp(&mut self, segment: Segment) {
        if segment.lost > 0 && self.tcp.aborted.contains(&segment.from.1) {
            return;
        }
        let (from, to) = (segment.from.0, segment.to.0);
        self.note_sent(from, to);
        let link = self.link_between(from.ip(), to.ip());
        if self.rng.chance(link.loss) {
            return self.lose(segment);
        }
        let mut due = self.now + link.delay;
        if let Content::Data(_, bytes) = &segment.content {
            // Unlike datagrams it waits for as long as it takes: the window is the bound.
            let leaves = self.take_rate(from.ip(), to.ip(), bytes.len(), Duration::MAX);
            due = leaves.expect("nothing is too long to wait") + link.delay;
        }
        due += self.jitter(&link);
        self.schedule(due, Event::Segment(segment));
    }

    fn lose(&mut self, mut segment: Segment) {
        let (first, retries) = match segment.content {
            Content::Syn => (RETRANSMIT_SYN, RETRIES_SYN),
            Content::Reset(_) => return,
            Content::SynAck
            | Content::Ack
            | Content::Data(..)
            | Content::Fin(_)
            | Content::Read(_) => {
                let link = self.link_between(segment.from.0.ip(), segment.to.0.ip());
                (RETRANSMIT + link.delay * 2, RETRIES)
            }
        };
        let pause = (first * 2u32.pow(segment.lost)).min(RETRANSMIT_MAX);
        segment.lost += 1;
        if segment.lost > retries {
            // Whoever waits for the answer gives up: the sender, but in the case of an acknowledgement its receiver.
            if !matches!(segment.content, Content::Read(_)) {
                segment.to = (segment.from.0, Some(segment.from.1));
            }
            segment.content = Content::Reset(io::ErrorKind::TimedOut);
            self.schedule(self.now + pause, Event::Segment(segment));
        } else {
            self.schedule(self.now + pause, Event::Resend(segment));
        }
    }

    /// What arrives; whose turn it is then.
    pub(in crate::net) fn arrive_tcp(&mut self, segment: Segment) -> Option<NodeId> {
        let (to, from) = (segment.to.0, segment.from);
        let Some(id) = segment.to.1 else {
            self.arrive_syn(segment);
            return None;
        };
        let Some(stream) = self.tcp.stream(id) else {
            if !matches!(segment.content, Content::Reset(_) | Content::Read(_)) {
                self.reset(segment, io::ErrorKind::ConnectionReset);
            }
            return None;
        };
        let woken = match (stream.phase, &segment.content) {
            (Phase::Answered(_), Content::Reset(_)) => {
                self.tcp.sockets.remove(&id);
                return None;
            }
            // Whatever it is, it says that our answer has arrived.
            (Phase::Answered(listener), _) => {
                stream.phase = Phase::Waiting(listener);
                let listening = self.tcp.sockets.get_mut(&listener);
                let Some(State::Listener(waiting)) = listening.map(|socket| &mut socket.state)
                else {
                    self.close_tcp(id, TcpClose::Abort);
                    return None;
                };
                waiting.push_back(id);
                listener
            }
            (Phase::Waiting(listener), _) => listener,
            (Phase::Connecting | Phase::Open, _) => id,
        };
        let stream = self.tcp.stream(id)?;
        match segment.content {
            Content::Syn | Content::Ack => {}
            Content::SynAck => {
                stream.phase = Phase::Open;
                stream.peer = Some(from.1);
                stream.writable = true;
                stream.news.connected = true;
                self.send_segment(id, Content::Ack);
            }
            // What comes behind an RST is not for us any more.
            Content::Data(..) | Content::Fin(_) if stream.broken.is_some() => {}
            Content::Data(number, bytes) => {
                stream.sort_in(number, Content::Data(number, bytes));
            }
            Content::Fin(number) => stream.sort_in(number, Content::Fin(number)),
            Content::Read(length) => {
                stream.room += length;
                stream.note_writable();
            }
            Content::Reset(kind) => {
                stream.break_off(kind);
                self.tcp.aborted.insert(id);
            }
        }
        let node = self.tcp.sockets.get(&woken)?.node;
        self.ports[node.0].log.peers.insert(from.0.ip());
        debug_assert_eq!(self.ip(node), to.ip());
        self.make_tcp_ready(woken);
        Some(node)
    }

    fn arrive_syn(&mut self, segment: Segment) {
        let (to, from) = (segment.to.0, segment.from);
        let group = self.tcp.listeners.get(&to).map_or(&[][..], Vec::as_slice);
        let flow = Rng::new(u64::from(from.0.port())).next() as usize;
        let Some(&listener) = group.get(flow % group.len().max(1)) else {
            if self.ports.iter().any(|port| port.ip == to.ip()) {
                self.reset(segment, io::ErrorKind::ConnectionRefused);
            } else {
                self.lose(segment);
            }
            return;
        };
        let node = self.tcp.sockets[&listener].node;
        let phase = Phase::Answered(listener);
        let stream = Stream::new(phase, from.0, Some(from.1), self.tcp.window);
        let state = State::Stream(Box::new(stream));
        let id = self.tcp.insert(node, 0, to, state);
        self.send_segment(id, Content::SynAck);
    }

    /// Answers a segment that belongs to no connection.
    fn reset(&mut self, segment: Segment, kind: io::ErrorKind) {
        let nobody = TcpId::from_parts(0, 0);
        self.transmit_tcp(Segment {
            from: (segment.to.0, nobody),
            to: (segment.from.0, Some(segment.from.1)),
            lost: 0,
            content: Content::Reset(kind),
        });
    }
}
