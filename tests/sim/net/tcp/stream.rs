//! One end of a connection: what came, what may be sent, and what its owner was told.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use bauta::net::TcpId;
use bytes::BytesMut;

use super::segment::Content;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    /// Answered by this listener.
    Answered(TcpId),
    /// Established, and in the queue of this listener.
    Waiting(TcpId),
    Open,
}

pub(super) struct Stream {
    pub(super) phase: Phase,
    pub(super) remote: SocketAddr,
    /// The socket at the other end, once it is known.
    pub(super) peer: Option<TcpId>,
    /// Number of the segment that is read next, and those that came before their turn.
    pub(super) next_in: u64,
    pub(super) early: BTreeMap<u64, Content>,
    pub(super) unread: BytesMut,
    /// The peer has ended its direction.
    pub(super) end: bool,
    /// What broke the connection.
    pub(super) broken: Option<io::ErrorKind>,
    /// The end was read; that the connection broke behind it was told.
    pub(super) end_read: bool,
    pub(super) told: bool,
    pub(super) next_out: u64,
    /// Bytes that may be written before the peer has to read.
    pub(super) room: usize,
    /// We have ended our direction.
    pub(super) ended: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) news: News,
}

#[derive(Default)]
pub(super) struct News {
    pub(super) connected: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Stream {
    pub(super) fn new(
        phase: Phase,
        remote: SocketAddr,
        peer: Option<TcpId>,
        window: usize,
    ) -> Self {
        Self {
            phase,
            remote,
            peer,
            next_in: 0,
            early: BTreeMap::new(),
            unread: BytesMut::new(),
            end: false,
            broken: None,
            end_read: false,
            told: false,
            next_out: 0,
            room: window,
            ended: false,
            readable: false,
            writable: phase != Phase::Connecting,
            news: News::default(),
        }
    }

    /// Something can be read; `over` if that is an end or an error.
    pub(super) fn note_readable(&mut self, over: bool) {
        self.news.readable |= !self.readable || over;
        self.readable = true;
    }

    pub(super) fn note_writable(&mut self) {
        self.news.writable |= !self.writable;
        self.writable = true;
    }

    /// Takes in what has its turn.
    pub(super) fn sort_in(&mut self, number: u64, content: Content) {
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

    pub(super) fn break_off(&mut self, kind: io::ErrorKind) {
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

    pub(super) fn take_number(&mut self) -> u64 {
        self.next_out += 1;
        self.next_out - 1
    }
}
