//! One tunnel of bytes at rest: its two directions, what waits in each, and how far each has come.
//!
//! Moves nothing itself; that is `splice`.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::machine::End;
use crate::tunnel::Framing;
use crate::tunnel::tcp::{Inbound, Outbound};

/// Pieces below this size are joined with their like.
const SMALL_BYTES: usize = 1024;

/// A direction of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// The end where it begins.
    pub(super) const fn source(self) -> End {
        match self {
            Self::Up => End::Downstream,
            Self::Down => End::Upstream,
        }
    }

    /// The end where it leads.
    pub(super) const fn sink(self) -> End {
        match self {
            Self::Up => End::Upstream,
            Self::Down => End::Downstream,
        }
    }

    /// The one that begins at an end.
    pub(super) const fn from(end: End) -> Self {
        match end {
            End::Downstream => Self::Up,
            End::Upstream => Self::Down,
        }
    }

    /// The one that leads to an end.
    pub(super) const fn towards(end: End) -> Self {
        match end {
            End::Downstream => Self::Down,
            End::Upstream => Self::Up,
        }
    }
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Flowing,
    /// The source has ended; what waits, and the end, are still to be passed on.
    Ending,
    /// The sink knows of the end.
    Done,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) reader: Inbound,
    pub(super) writer: Outbound,
    pub(super) waiting: VecDeque<Bytes>,
    pub(super) waiting_bytes: usize,
    pub(super) stage: Stage,
    /// The source has nothing more to say, not even capsules behind the last byte.
    pub(super) source_closed: bool,
    /// The pipe gave way to others, and waits for its next turn.
    pub(super) queued: bool,
    /// The local user was told that there is no room.
    pub(super) starved: bool,
}

impl Pipe {
    pub(super) fn new(source: Framing, sink: Framing) -> Self {
        Self {
            reader: Inbound::new(source),
            writer: Outbound::new(sink),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            stage: Stage::Flowing,
            source_closed: false,
            queued: false,
            starved: false,
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.waiting_bytes += bytes.len();
        match self.waiting.back_mut() {
            // A source that drips must not collect pieces without number.
            Some(last) if bytes.len() < SMALL_BYTES && last.len() < SMALL_BYTES => {
                let mut merged = BytesMut::with_capacity(last.len() + bytes.len());
                merged.put_slice(last);
                merged.put_slice(&bytes);
                *last = merged.freeze();
            }
            Some(_) | None => self.waiting.push_back(bytes),
        }
    }

    /// Forgets the first `count` bytes.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.waiting_bytes -= count;
        while let Some(first) = self.waiting.front_mut() {
            if count < first.len() {
                drop(first.split_to(count));
                return;
            }
            count -= first.len();
            self.waiting.pop_front();
        }
    }

    /// The sink takes nothing more, and has a right to: whatever still comes goes nowhere.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.stage = Stage::Done;
        self.source_closed = true;
    }

    /// Takes up to `bytes_max` bytes, framed for the sink. Without a frame a single piece is not copied.
    pub(super) fn take_framed(&mut self, bytes_max: usize) -> Bytes {
        let bare = self.writer.head_len_max() == 0;
        match self.waiting.front_mut() {
            Some(first)
                if bare && (self.waiting_bytes == first.len() || first.len() >= bytes_max) =>
            {
                let piece = first.split_to(first.len().min(bytes_max));
                self.advance_taken(piece.len());
                return piece;
            }
            Some(_) | None => {}
        }
        let len = self.waiting_bytes.min(bytes_max);
        let mut framed = BytesMut::with_capacity(self.writer.head_len_max() + len);
        self.writer.frame(len, &mut framed);
        let mut left = len;
        for piece in &self.waiting {
            let part = &piece[..piece.len().min(left)];
            framed.put_slice(part);
            left -= part.len();
            if left == 0 {
                break;
            }
        }
        self.advance(len);
        framed.freeze()
    }

    /// The first piece lost `count` bytes already.
    pub(super) fn advance_taken(&mut self, count: usize) {
        self.waiting_bytes -= count;
        if self.waiting.front().is_some_and(Bytes::is_empty) {
            self.waiting.pop_front();
        }
    }
}

/// Both directions of one tunnel.
#[derive(Debug)]
pub(super) struct Splice {
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    downstream: Framing,
}

impl Splice {
    /// A tunnel whose downstream leg has this framing; what upstream looks like is known later.
    pub(super) fn new(downstream: Framing) -> Self {
        Self {
            up: Pipe::new(downstream, Framing::Raw),
            down: Pipe::new(Framing::Raw, downstream),
            downstream,
        }
    }

    /// The upstream leg is there.
    pub(super) fn set_upstream(&mut self, upstream: Framing) {
        self.up.writer = Outbound::new(upstream);
        self.down.reader = Inbound::new(upstream);
    }

    pub(super) fn downstream(&self) -> Framing {
        self.downstream
    }

    pub(super) fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// Whether both directions have ended.
    pub(super) fn is_done(&self) -> bool {
        self.up.stage == Stage::Done && self.down.stage == Stage::Done
    }

    /// Whether both directions have ended, and nobody has anything more to say.
    pub(super) fn is_closed(&self) -> bool {
        self.is_done() && self.up.source_closed && self.down.source_closed
    }
}
