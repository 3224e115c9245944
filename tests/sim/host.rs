//! A TCP target that behaves well or badly, and remembers what it saw.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use bauta::net::{Network, SocketOptions, TcpClose, TcpEvent, TcpId, TcpRead};
use bauta::worker::{Outside, TcpTag};
use bytes::{Buf, BytesMut};

use crate::net::{Net, NodeId};

/// Bytes of one read.
const READ_BYTES_MAX: usize = 16 << 10;
/// Bytes of one write.
const WRITE_BYTES_MAX: usize = 32 << 10;

/// What a host does with every connection that it has, accepted or dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Sends back what it gets, and ends when that is done and the peer has ended.
    Echo,
    /// Reads so many bytes and then no more; ends when the peer has ended.
    Sink { bytes_max: usize },
    /// Sends so many of [`stream_bytes`], ends its direction, and reads to the end of the other.
    Source { bytes: usize },
    /// Resets the connection when it has got so many bytes.
    ResetAfter { bytes: usize },
}

impl Behaviour {
    /// Reads everything.
    pub(crate) const SINK: Self = Self::Sink {
        bytes_max: usize::MAX,
    };
    /// Ends its direction at once and reads to the end of the other.
    pub(crate) const HALF_CLOSED: Self = Self::Source { bytes: 0 };
}

/// How the direction towards a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order (FIN).
    Fin,
    /// The connection broke, or could not be had.
    Broken(io::ErrorKind),
    /// The host itself has reset it.
    Aborted,
}

/// One connection of a host.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) socket: TcpId,
    pub(crate) peer: SocketAddr,
    /// When it was accepted or established.
    pub(crate) opened: Option<Instant>,
    /// What came, and how that ended.
    pub(crate) received: Vec<u8>,
    pub(crate) end: Option<(Instant, End)>,
    /// How much was given to the network.
    pub(crate) sent_bytes: usize,
    /// What is to be sent, in the case of an echo.
    echo: VecDeque<u8>,
    /// Our direction has ended, the socket is closed.
    ended: bool,
    closed: bool,
}

impl Conversation {
    /// How it ended.
    pub(crate) fn how(&self) -> Option<End> {
        self.end.map(|(_, end)| end)
    }

    fn new(socket: TcpId, peer: SocketAddr, opened: Option<Instant>) -> Self {
        Self {
            socket,
            peer,
            opened,
            received: Vec::new(),
            end: None,
            sent_bytes: 0,
            echo: VecDeque::new(),
            ended: false,
            closed: false,
        }
    }
}

/// A host with one listener.
#[derive(Debug)]
pub(crate) struct TcpHost {
    pub(crate) address: SocketAddr,
    pub(crate) listener: TcpId,
    /// May be changed at any time; connections go on with the new one.
    pub(crate) behaviour: Behaviour,
    /// In the order in which they began.
    pub(crate) conversations: Vec<Conversation>,
}

impl TcpHost {
    pub(crate) fn new(net: &mut Net, node: NodeId, port: u16, behaviour: Behaviour) -> Self {
        Self {
            address: SocketAddr::new(net.ip(node), port),
            listener: net.listen_tcp(node, port, TcpTag::App(0).to_bits()),
            behaviour,
            conversations: Vec::new(),
        }
    }

    /// Connects to somebody; the number of the conversation.
    pub(crate) fn dial(&mut self, net: &mut Net, node: NodeId, target: SocketAddr) -> usize {
        let connected =
            net.world(node)
                .connect_tcp(target, &SocketOptions::default(), TcpTag::App(1));
        let mut conversation = Conversation::new(TcpId::from_parts(0, 0), target, None);
        match connected {
            Ok(socket) => conversation.socket = socket,
            Err(error) => conversation.end = Some((net.now, End::Broken(error.kind()))),
        }
        self.conversations.push(conversation);
        self.conversations.len() - 1
    }

    /// Closes a connection, orderly or not.
    pub(crate) fn close(&mut self, net: &mut Net, node: NodeId, number: usize, how: TcpClose) {
        let conversation = &mut self.conversations[number];
        conversation.closed = true;
        net.world(node).close(conversation.socket, how);
    }

    pub(crate) fn turn(&mut self, net: &mut Net, node: NodeId) -> bool {
        while let Some((socket, tag, event)) = net.poll_tcp(node) {
            match event {
                TcpEvent::Accepted {
                    socket: accepted,
                    peer,
                } => {
                    assert_eq!((socket, tag), (self.listener, TcpTag::App(0).to_bits()));
                    let conversation = Conversation::new(accepted, peer, Some(net.now));
                    net.world(node).set_tcp_tag(accepted, TcpTag::App(1));
                    self.conversations.push(conversation);
                }
                TcpEvent::Connected => self.find(socket).opened = Some(net.now),
                // It has seen the end, and goes on to what it still has to do.
                TcpEvent::Broken(_) => {}
                TcpEvent::Failed(error) => {
                    self.find(socket).end = Some((net.now, End::Broken(error.kind())));
                }
                TcpEvent::Ready { .. } => {
                    assert_eq!(tag, TcpTag::App(1).to_bits());
                }
            }
        }
        for conversation in &mut self.conversations {
            if conversation.opened.is_some() && !conversation.closed {
                conversation.go_on(self.behaviour, net, node);
            }
        }
        false
    }

    fn find(&mut self, socket: TcpId) -> &mut Conversation {
        let found = self.conversations.iter_mut().find(|c| c.socket == socket);
        found.expect("events are about sockets that are there")
    }
}

impl Conversation {
    fn go_on(&mut self, behaviour: Behaviour, net: &mut Net, node: NodeId) {
        self.read(behaviour, net, node);
        if let Behaviour::ResetAfter { bytes } = behaviour
            && self.received.len() >= bytes
            && self.end.is_none()
        {
            self.end = Some((net.now, End::Aborted));
        }
        if matches!(self.how(), None | Some(End::Fin)) {
            self.write(behaviour, net, node);
        }
        if let Some(End::Broken(_) | End::Aborted) = self.how() {
            net.world(node).close(self.socket, TcpClose::Abort);
            self.closed = true;
            return;
        }
        let ends = match behaviour {
            Behaviour::Echo => self.echo.is_empty() && self.end.is_some(),
            Behaviour::Sink { .. } | Behaviour::ResetAfter { .. } => self.end.is_some(),
            Behaviour::Source { bytes } => self.sent_bytes >= bytes,
        };
        if ends && !std::mem::replace(&mut self.ended, true) {
            net.world(node).shutdown(self.socket);
        }
        if self.ended && self.end.is_some() {
            net.world(node).close(self.socket, TcpClose::Orderly);
            self.closed = true;
        }
    }

    fn read(&mut self, behaviour: Behaviour, net: &mut Net, node: NodeId) {
        let bytes_max = match behaviour {
            Behaviour::Sink { bytes_max: bytes } | Behaviour::ResetAfter { bytes } => bytes,
            Behaviour::Echo | Behaviour::Source { .. } => usize::MAX,
        };
        while self.end.is_none() && self.received.len() < bytes_max {
            let wanted = READ_BYTES_MAX.min(bytes_max - self.received.len());
            let mut buffer = BytesMut::new();
            match net.world(node).read(self.socket, &mut buffer, wanted) {
                Ok(TcpRead::Bytes(length)) => {
                    assert_eq!(length, buffer.len());
                    self.received.extend_from_slice(&buffer);
                    if behaviour == Behaviour::Echo {
                        self.echo.extend(&buffer);
                    }
                }
                Ok(TcpRead::Blocked) => break,
                Ok(TcpRead::End) => self.end = Some((net.now, End::Fin)),
                Err(error) => self.end = Some((net.now, End::Broken(error.kind()))),
            }
        }
    }

    fn write(&mut self, behaviour: Behaviour, net: &mut Net, node: NodeId) {
        while !self.ended && self.write_some(behaviour, net, node) > 0 {}
    }

    fn write_some(&mut self, behaviour: Behaviour, net: &mut Net, node: NodeId) -> usize {
        let written = match behaviour {
            Behaviour::Echo => {
                let (front, back) = self.echo.as_slices();
                let slices = [IoSlice::new(front), IoSlice::new(back)];
                let written = net.world(node).write(self.socket, &slices);
                self.echo.advance(*written.as_ref().unwrap_or(&0));
                written
            }
            Behaviour::Source { bytes } => {
                let end = bytes.min(self.sent_bytes + WRITE_BYTES_MAX);
                let piece = stream_piece(self.sent_bytes..end);
                net.world(node).write(self.socket, &[IoSlice::new(&piece)])
            }
            Behaviour::Sink { .. } | Behaviour::ResetAfter { .. } => Ok(0),
        };
        match written {
            Ok(written) => {
                self.sent_bytes += written;
                return written;
            }
            // A peer that has ended and reads no more is told by the end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.ended = true,
            Err(error) => self.end = Some((net.now, End::Broken(error.kind()))),
        }
        0
    }
}

/// The first `len` bytes of a stream in which a byte that is missing, twice there or in the wrong place shows.
pub(crate) fn stream_bytes(len: usize) -> Vec<u8> {
    stream_piece(0..len)
}

fn stream_piece(range: Range<usize>) -> Vec<u8> {
    (range.start as u64..range.end as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}
