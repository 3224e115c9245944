//! TCP in virtual time: handshakes, byte streams with a bounded window, ends and resets, in the terms of `net::tcp`.
//!
//! ```text
//!   a: connect ── Syn ──► b: listener          a: write ── Data ──► b: unread ─► read
//!   a: Connected ◄─ SynAck                     a: room  ◄── Read ──────────────────┘
//!       └──────── Ack ──► b: Accepted          in flight + unread <= window
//! ```
//!
//! The link delays and limits the rate, which datagrams share. A segment that it loses is sent again after a time that
//! doubles, until the sender gives up; one that overtakes waits for its turn. RST is sent once. Readiness is what
//! `net::driver` makes of Linux: an event tells news only, and a short read is the last one until the next event.
//!
//! Deliberately absent: congestion control, TIME_WAIT, simultaneous opens.

mod segment;
mod stream;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use bauta::net::{TcpClose, TcpEvent, TcpId, TcpRead};
use bytes::{Buf, BytesMut};

use self::segment::Content;
pub(super) use self::segment::Segment;
use self::stream::{News, Phase, Stream};
use super::{Net, NodeId};

/// Payload of a segment.
const SEGMENT_BYTES_MAX: usize = 1448;

/// All sockets.
pub(crate) struct Tcp {
    /// Bytes that a connection carries in one direction before somebody reads them; for connections made from now on.
    pub(crate) window: usize,
    sockets: HashMap<TcpId, Socket>,
    listeners: HashMap<SocketAddr, Vec<TcpId>>,
    /// Those whose segments are not sent again.
    aborted: HashSet<TcpId>,
    slots: u32,
    ports: u16,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            window: 256 << 10,
            sockets: HashMap::new(),
            listeners: HashMap::new(),
            aborted: HashSet::new(),
            slots: 0,
            ports: 32_768,
        }
    }
}

struct Socket {
    node: NodeId,
    tag: u64,
    local: SocketAddr,
    /// The node has it on its list.
    queued: bool,
    state: State,
}

enum State {
    /// Connections that nobody has heard of yet.
    Listener(VecDeque<TcpId>),
    Stream(Box<Stream>),
}

impl Tcp {
    fn insert(&mut self, node: NodeId, tag: u64, local: SocketAddr, state: State) -> TcpId {
        self.slots += 1;
        let id = TcpId::from_parts(self.slots, 1);
        let socket = Socket {
            node,
            tag,
            local,
            queued: false,
            state,
        };
        self.sockets.insert(id, socket);
        id
    }

    fn stream(&mut self, id: TcpId) -> Option<&mut Stream> {
        match &mut self.sockets.get_mut(&id)?.state {
            State::Stream(stream) => Some(stream),
            State::Listener(_) => None,
        }
    }
}

/// What a node does with its sockets.
impl Net {
    /// Listens. Several sockets may share an address.
    pub(crate) fn listen_tcp(&mut self, node: NodeId, port: u16, tag: u64) -> TcpId {
        let local = SocketAddr::new(self.ip(node), port);
        let state = State::Listener(VecDeque::new());
        let id = self.tcp.insert(node, tag, local, state);
        self.tcp.listeners.entry(local).or_default().push(id);
        id
    }

    /// TCP connections of a node whose tag says so.
    pub(crate) fn tcp_sockets(&self, node: NodeId, is_meant: impl Fn(u64) -> bool) -> usize {
        let counts = |socket: &&Socket| match &socket.state {
            State::Stream(stream) => {
                let is_known = matches!(stream.phase, Phase::Connecting | Phase::Open);
                is_known && socket.node == node && is_meant(socket.tag)
            }
            State::Listener(_) => false,
        };
        self.tcp.sockets.values().filter(counts).count()
    }

    pub(super) fn connect_tcp(
        &mut self,
        node: NodeId,
        target: SocketAddr,
        tag: u64,
    ) -> io::Result<TcpId> {
        let log = &mut self.ports[node.0].log;
        log.connected_tcp.push(target);
        if self.unroutable.contains(&target.ip()) {
            return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        }
        log.peers.insert(target.ip());
        self.tcp.ports = self.tcp.ports.checked_add(1).unwrap_or(32_768);
        let local = SocketAddr::new(self.ip(node), self.tcp.ports);
        let stream = Stream::new(Phase::Connecting, target, None, self.tcp.window);
        let id = self
            .tcp
            .insert(node, tag, local, State::Stream(Box::new(stream)));
        self.send_segment(id, Content::Syn);
        Ok(id)
    }

    pub(super) fn set_tcp_tag(&mut self, id: TcpId, tag: u64) {
        if let Some(socket) = self.tcp.sockets.get_mut(&id) {
            socket.tag = tag;
        }
    }

    pub(super) fn read_tcp(
        &mut self,
        id: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead> {
        assert!(bytes_max > 0, "reading nothing looks like the end");
        let stream = self.tcp.stream(id).ok_or(io::ErrorKind::NotFound)?;
        if stream.readable && !stream.unread.is_empty() {
            let length = stream.unread.len().min(bytes_max);
            buffer.extend_from_slice(&stream.unread.split_to(length));
            stream.readable = length == bytes_max || stream.end || stream.broken.is_some();
            self.send_segment(id, Content::Read(length));
            return Ok(TcpRead::Bytes(length));
        }
        match stream.broken {
            _ if stream.end => {
                stream.end_read = true;
                if stream.broken.is_some() {
                    self.make_tcp_ready(id);
                }
                Ok(TcpRead::End)
            }
            Some(kind) => Err(kind.into()),
            None => {
                stream.readable = false;
                Ok(TcpRead::Blocked)
            }
        }
    }

    pub(super) fn write_tcp(&mut self, id: TcpId, data: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.tcp.stream(id).ok_or(io::ErrorKind::NotFound)?;
        if let Some(kind) = stream.broken {
            return Err(kind.into());
        }
        if stream.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !stream.writable {
            return Ok(0);
        }
        let mut data: BytesMut = data.iter().flat_map(|slice| slice.iter()).collect();
        stream.writable = data.len() <= stream.room;
        data.truncate(stream.room);
        stream.room -= data.len();
        let (written, mut data) = (data.len(), data.freeze());
        while data.has_remaining() {
            let bytes = data.split_to(data.len().min(SEGMENT_BYTES_MAX));
            if let Some(stream) = self.tcp.stream(id) {
                let number = stream.take_number();
                self.send_segment(id, Content::Data(number, bytes));
            }
        }
        Ok(written)
    }

    pub(super) fn shutdown_tcp(&mut self, id: TcpId) {
        if let Some(stream) = self.tcp.stream(id)
            && stream.broken.is_none()
            && !std::mem::replace(&mut stream.ended, true)
        {
            let number = stream.take_number();
            self.send_segment(id, Content::Fin(number));
        }
    }

    pub(super) fn close_tcp(&mut self, id: TcpId, how: TcpClose) {
        let Some(socket) = self.tcp.sockets.get_mut(&id) else {
            return;
        };
        match &mut socket.state {
            State::Listener(waiting) => {
                let waiting = std::mem::take(waiting);
                let local = socket.local;
                if let Some(group) = self.tcp.listeners.get_mut(&local) {
                    group.retain(|other| *other != id);
                }
                for stream in waiting {
                    self.close_tcp(stream, TcpClose::Abort);
                }
            }
            State::Stream(stream) => {
                if how == TcpClose::Abort || !stream.unread.is_empty() {
                    self.tcp.aborted.insert(id);
                    self.send_segment(id, Content::Reset(io::ErrorKind::ConnectionReset));
                } else {
                    self.shutdown_tcp(id);
                }
            }
        }
        self.tcp.sockets.remove(&id);
    }

    /// Closes all sockets of a node, in the order in which they were opened.
    pub(super) fn close_tcp_sockets(&mut self, node: NodeId) {
        let of_node = |(_, socket): &(&TcpId, &Socket)| socket.node == node;
        let mut ids: Vec<_> = self
            .tcp
            .sockets
            .iter()
            .filter(of_node)
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        for id in ids {
            self.close_tcp(id, TcpClose::Orderly);
        }
    }

    /// The next thing that happened to a TCP socket of this node, as `Driver::poll_tcp` tells it.
    pub(crate) fn poll_tcp(&mut self, node: NodeId) -> Option<(TcpId, u64, TcpEvent)> {
        while let Some(id) = self.ports[node.0].tcp_ready.pop_front() {
            let Some(socket) = self.tcp.sockets.get_mut(&id) else {
                continue;
            };
            socket.queued = false;
            let tag = socket.tag;
            let event = match &mut socket.state {
                State::Listener(waiting) => {
                    let next = waiting.pop_front();
                    self.accept(id, tag, next)
                }
                State::Stream(stream) => {
                    let News {
                        connected,
                        readable,
                        writable,
                    } = std::mem::take(&mut stream.news);
                    match stream.broken {
                        Some(kind) if stream.end_read && !stream.told => {
                            stream.told = true;
                            Some(TcpEvent::Broken(kind.into()))
                        }
                        Some(kind) if stream.phase == Phase::Connecting => {
                            self.tcp.sockets.remove(&id);
                            Some(TcpEvent::Failed(kind.into()))
                        }
                        Some(_) | None if connected => {
                            stream.news.readable = readable;
                            self.make_tcp_ready(id);
                            Some(TcpEvent::Connected)
                        }
                        Some(_) | None => {
                            (readable || writable).then_some(TcpEvent::Ready { readable, writable })
                        }
                    }
                }
            };
            if let Some(event) = event {
                return Some((id, tag, event));
            }
        }
        None
    }

    fn accept(&mut self, listener: TcpId, tag: u64, next: Option<TcpId>) -> Option<TcpEvent> {
        let id = next?;
        self.make_tcp_ready(listener);
        let stream = self.tcp.stream(id)?;
        stream.phase = Phase::Open;
        let peer = stream.remote;
        self.set_tcp_tag(id, tag);
        self.make_tcp_ready(id);
        Some(TcpEvent::Accepted { socket: id, peer })
    }

    fn make_tcp_ready(&mut self, id: TcpId) {
        if let Some(socket) = self.tcp.sockets.get_mut(&id)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.ports[socket.node.0].tcp_ready.push_back(id);
        }
    }
}
