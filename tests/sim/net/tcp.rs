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

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use bauta::net::{TcpClose, TcpEvent, TcpId, TcpRead};
use bytes::{Buf, Bytes, BytesMut};

use super::{Event, Net, NodeId, Rng};

/// Payload of a segment.
const SEGMENT_BYTES_MAX: usize = 1448;
/// First time after which a lost segment is sent again, beyond the round trip.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The same for the first segment of a connection.
const RETRANSMIT_SYN: Duration = Duration::from_secs(1);
/// Longest such time.
const RETRANSMIT_MAX: Duration = Duration::from_secs(120);
/// How often a segment is sent again, as Linux has it by default (tcp_retries2, tcp_syn_retries).
const RETRIES: u32 = 15;
const RETRIES_SYN: u32 = 6;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// Answered by this listener.
    Answered(TcpId),
    /// Established, and in the queue of this listener.
    Waiting(TcpId),
    Open,
}

struct Stream {
    phase: Phase,
    remote: SocketAddr,
    /// The socket at the other end, once it is known.
    peer: Option<TcpId>,
    /// Number of the segment that is read next, and those that came before their turn.
    next_in: u64,
    early: BTreeMap<u64, Content>,
    unread: BytesMut,
    /// The peer has ended its direction.
    end: bool,
    /// What broke the connection.
    broken: Option<io::ErrorKind>,
    next_out: u64,
    /// Bytes that may be written before the peer has to read.
    room: usize,
    /// We have ended our direction.
    ended: bool,
    readable: bool,
    writable: bool,
    news: News,
}

#[derive(Default)]
struct News {
    connected: bool,
    readable: bool,
    writable: bool,
}

/// What travels, with the addresses for the link and the names for the sockets.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    from: (SocketAddr, TcpId),
    to: (SocketAddr, Option<TcpId>),
    /// How often it was lost.
    lost: u32,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Syn,
    SynAck,
    Ack,
    Data(u64, Bytes),
    Fin(u64),
    /// The peer has read this many bytes.
    Read(usize),
    Reset(io::ErrorKind),
}

impl Stream {
    fn new(phase: Phase, remote: SocketAddr, peer: Option<TcpId>, window: usize) -> Self {
        Self {
            phase,
            remote,
            peer,
            next_in: 0,
            early: BTreeMap::new(),
            unread: BytesMut::new(),
            end: false,
            broken: None,
            next_out: 0,
            room: window,
            ended: false,
            readable: false,
            writable: phase != Phase::Connecting,
            news: News::default(),
        }
    }

    /// Something can be read; `over` if that is an end or an error.
    fn note_readable(&mut self, over: bool) {
        self.news.readable |= !self.readable || over;
        self.readable = true;
    }

    fn note_writable(&mut self) {
        self.news.writable |= !self.writable;
        self.writable = true;
    }

    /// Takes in what has its turn.
    fn sort_in(&mut self, number: u64, content: Content) {
        self.early.insert(number, content);
        while let Some(content) = self.early.remove(&self.next_in) {
            self.next_in += 1;
            if let Content::Data(_, bytes) = content {
                self.unread.extend_from_slice(&bytes);
            } else {
                self.end = true;
            }
            self.note_readable(self.end);
        }
    }

    fn break_off(&mut self, kind: io::ErrorKind) {
        // Who has sent an end before has ended well; it just takes nothing more.
        let kind = if self.end {
            io::ErrorKind::BrokenPipe
        } else {
            kind
        };
        self.broken.get_or_insert(kind);
        self.note_readable(true);
        self.note_writable();
    }

    fn take_number(&mut self) -> u64 {
        self.next_out += 1;
        self.next_out - 1
    }
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
            _ if stream.end => Ok(TcpRead::End),
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
}

/// What travels.
impl Net {
    fn send_segment(&mut self, id: TcpId, content: Content) {
        if let Some(segment) = self.tcp.segment(id, content) {
            self.transmit_tcp(segment);
        }
    }

    /// Puts a segment on its way, or its next try on the calendar.
    pub(super) fn transmit_tcp(&mut self, segment: Segment) {
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
    pub(super) fn arrive_tcp(&mut self, segment: Segment) -> Option<NodeId> {
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

    fn make_tcp_ready(&mut self, id: TcpId) {
        if let Some(socket) = self.tcp.sockets.get_mut(&id)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.ports[socket.node.0].tcp_ready.push_back(id);
        }
    }
}
