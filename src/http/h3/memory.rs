//! An in-memory [`Transport`] for tests and fuzzing: one end of a QUIC connection without QUIC.
//!
//! ```text
//!   machine ◄─Transport─► MemoryTransport ◄── inject_*   what the peer sends, in any pieces
//!                               │         ──► take_sent, sent_*   what the machine sent
//!                               └───────────► poll_event
//! ```
//!
//! It behaves as quinn-proto does where the machine can notice: events only for accepted streams, a writable event only
//! after a write was blocked, streams forgotten once read to their end or stopped. Credit is one window per stream,
//! given back by [`MemoryTransport::take_sent`].

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quinn_proto::{Dir, Side, StreamEvent, StreamId};

use super::code::Code;
use super::transport::{Read, Transport, WriteError};

/// One end of the connection.
#[derive(Debug)]
pub struct MemoryTransport {
    side: Side,
    /// Streams opened by us, and how many the peer allows; by direction.
    opened: [u64; 2],
    open_max: [u64; 2],
    /// Streams opened by the peer, and how many of them were accepted; by direction.
    peer_opened: [u64; 2],
    accepted: [u64; 2],
    send_window: usize,
    sending: BTreeMap<StreamId, Sending>,
    receiving: BTreeMap<StreamId, Receiving>,
    stops: BTreeMap<StreamId, Code>,
    events: VecDeque<StreamEvent>,
    datagram_size_max: Option<usize>,
}

#[derive(Debug, Default)]
struct Sending {
    bytes: VecDeque<u8>,
    fin: bool,
    reset: Option<Code>,
    stopped: Option<Code>,
    /// A write was refused, so the next credit makes an event.
    blocked: bool,
}

#[derive(Debug, Default)]
struct Receiving {
    pieces: VecDeque<Bytes>,
    fin: bool,
    reset: Option<Code>,
    /// Read to its end, or stopped: nothing more is kept.
    over: bool,
}

impl MemoryTransport {
    /// An end on which the peer allows 1000 streams of each direction and 1 MiB in flight on each of them.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            opened: [0; 2],
            open_max: [1000; 2],
            peer_opened: [0; 2],
            accepted: [0; 2],
            send_window: 1 << 20,
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            stops: BTreeMap::new(),
            events: VecDeque::new(),
            datagram_size_max: Some(1200),
        }
    }

    /// Sets how many octets of each stream may be in flight.
    pub fn set_send_window(&mut self, bytes: usize) {
        self.send_window = bytes;
        let ids: Vec<StreamId> = self.sending.keys().copied().collect();
        ids.into_iter().for_each(|id| self.unblock(id));
    }

    /// Sets how many streams of one direction may be opened by this end in total.
    pub fn set_open_max(&mut self, dir: Dir, count: u64) {
        let [bidi, uni] = &mut self.open_max;
        *pick(dir, bidi, uni) = count;
        self.events.push_back(StreamEvent::Available { dir });
    }

    /// Sets the largest QUIC DATAGRAM payload, or takes the extension away.
    pub fn set_datagram_size_max(&mut self, bytes: Option<usize>) {
        self.datagram_size_max = bytes;
    }

    /// The next event for the machine.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// The peer sends `bytes` on a stream, opening it and all before it if it is one of its own.
    pub fn inject(&mut self, id: StreamId, bytes: &[u8]) {
        if let Some(stream) = self.arrive(id)
            && !bytes.is_empty()
        {
            stream.pieces.push_back(Bytes::copy_from_slice(bytes));
            self.readable(id);
        }
    }

    /// The peer ends its side of a stream in order.
    pub fn inject_fin(&mut self, id: StreamId) {
        if let Some(stream) = self.arrive(id) {
            stream.fin = true;
            self.readable(id);
        }
    }

    /// The peer resets its side of a stream.
    pub fn inject_reset(&mut self, id: StreamId, code: Code) {
        if let Some(stream) = self.arrive(id) {
            stream.pieces.clear();
            stream.reset = Some(code);
            self.readable(id);
        }
    }

    /// The peer asks us to stop sending.
    pub fn inject_stop(&mut self, id: StreamId, code: Code) {
        self.open_by_peer(id);
        if let Some(stream) = self.sending.get_mut(&id)
            && stream.stopped.is_none()
        {
            stream.stopped = Some(code);
            self.events.push_back(StreamEvent::Stopped {
                id,
                error_code: code.into(),
            });
        }
    }

    /// Takes up to `bytes_max` octets that the machine wrote to a stream, and gives their credit back.
    pub fn take_sent(&mut self, id: StreamId, bytes_max: usize) -> Vec<u8> {
        let Some(stream) = self.sending.get_mut(&id) else {
            return Vec::new();
        };
        let count = bytes_max.min(stream.bytes.len());
        let taken = stream.bytes.drain(..count).collect();
        self.unblock(id);
        taken
    }

    /// True once the machine ended its side of the stream.
    pub fn sent_fin(&self, id: StreamId) -> bool {
        self.sending.get(&id).is_some_and(|stream| stream.fin)
    }

    /// True when everything that was written to the stream is taken.
    pub fn is_drained(&self, id: StreamId) -> bool {
        self.sending
            .get(&id)
            .is_none_or(|stream| stream.bytes.is_empty())
    }

    /// The code of the RESET_STREAM that the machine sent.
    pub fn sent_reset(&self, id: StreamId) -> Option<Code> {
        self.sending.get(&id)?.reset
    }

    /// The code of the STOP_SENDING that the machine sent.
    pub fn sent_stop(&self, id: StreamId) -> Option<Code> {
        self.stops.get(&id).copied()
    }

    /// The streams that the machine writes to, in the order of their ids.
    pub fn sending_ids(&self) -> Vec<StreamId> {
        self.sending.keys().copied().collect()
    }

    /// The streams that the machine stopped, in the order of their ids.
    pub fn stopped_ids(&self) -> Vec<StreamId> {
        self.stops.keys().copied().collect()
    }

    /// How many octets wait for the machine to read them.
    pub fn unread_bytes(&self) -> usize {
        self.receiving
            .values()
            .flat_map(|stream| &stream.pieces)
            .map(Bytes::len)
            .sum()
    }

    /// The receiving side of a stream, unless it is over or the peer ended it before.
    fn arrive(&mut self, id: StreamId) -> Option<&mut Receiving> {
        self.open_by_peer(id);
        let stream = self.receiving.get_mut(&id)?;
        (!stream.over && !stream.fin && stream.reset.is_none()).then_some(stream)
    }

    fn open_by_peer(&mut self, id: StreamId) {
        if id.initiator() == self.side {
            return;
        }
        let [bidi, uni] = &mut self.peer_opened;
        let opened = pick(id.dir(), bidi, uni);
        if id.index() < *opened {
            return;
        }
        let first = *opened;
        *opened = id.index() + 1;
        for index in first..=id.index() {
            let id = StreamId::new(!self.side, id.dir(), index);
            self.receiving.insert(id, Receiving::default());
            if id.dir() == Dir::Bi {
                self.sending.insert(id, Sending::default());
            }
        }
        self.events.push_back(StreamEvent::Opened { dir: id.dir() });
    }

    fn readable(&mut self, id: StreamId) {
        let [bidi, uni] = &mut self.accepted;
        if id.initiator() == self.side || id.index() < *pick(id.dir(), bidi, uni) {
            self.events.push_back(StreamEvent::Readable { id });
        }
    }

    fn unblock(&mut self, id: StreamId) {
        if let Some(stream) = self.sending.get_mut(&id)
            && stream.blocked
            && stream.bytes.len() < self.send_window
        {
            stream.blocked = false;
            self.events.push_back(StreamEvent::Writable { id });
        }
    }

    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let [open_max_bidi, open_max_uni] = &mut self.open_max;
        let [bidi, uni] = &mut self.opened;
        let opened = pick(dir, bidi, uni);
        if *opened >= *pick(dir, open_max_bidi, open_max_uni) {
            return None;
        }
        let id = StreamId::new(self.side, dir, *opened);
        *opened += 1;
        self.sending.insert(id, Sending::default());
        if dir == Dir::Bi {
            self.receiving.insert(id, Receiving::default());
        }
        Some(id)
    }

    fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let [opened_bidi, opened_uni] = &mut self.peer_opened;
        let [bidi, uni] = &mut self.accepted;
        let accepted = pick(dir, bidi, uni);
        if *accepted >= *pick(dir, opened_bidi, opened_uni) {
            return None;
        }
        let id = StreamId::new(!self.side, dir, *accepted);
        *accepted += 1;
        Some(id)
    }
}

impl Transport for MemoryTransport {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.open(Dir::Uni)
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.open(Dir::Bi)
    }

    fn accept_uni(&mut self) -> Option<StreamId> {
        self.accept(Dir::Uni)
    }

    fn accept_bidi(&mut self) -> Option<StreamId> {
        self.accept(Dir::Bi)
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let stream = self.sending.get_mut(&id).ok_or(WriteError::Closed)?;
        if stream.fin || stream.reset.is_some() {
            return Err(WriteError::Closed);
        }
        if let Some(code) = stream.stopped {
            return Err(WriteError::Stopped(code));
        }
        let count = self
            .send_window
            .saturating_sub(stream.bytes.len())
            .min(data.len());
        if count == 0 {
            stream.blocked = true;
            return Err(WriteError::Blocked);
        }
        stream.bytes.extend(data.iter().take(count));
        Ok(count)
    }

    fn read(&mut self, id: StreamId, bytes_max: usize) -> Read {
        let Some(stream) = self.receiving.get_mut(&id).filter(|stream| !stream.over) else {
            return Read::Closed;
        };
        if let Some(code) = stream.reset {
            stream.over = true;
            return Read::Reset(code);
        }
        match stream.pieces.front_mut() {
            Some(piece) if piece.len() > bytes_max => Read::Data(piece.split_to(bytes_max)),
            Some(_) => Read::Data(stream.pieces.pop_front().unwrap_or_default()),
            None if stream.fin => {
                stream.over = true;
                Read::Finished
            }
            None => Read::Blocked,
        }
    }

    fn received_reset(&mut self, id: StreamId) -> Option<Code> {
        let stream = self.receiving.get_mut(&id).filter(|stream| !stream.over)?;
        let code = stream.reset?;
        stream.over = true;
        Some(code)
    }

    fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.sending.get_mut(&id)
            && stream.reset.is_none()
        {
            match stream.stopped {
                Some(code) => self.reset(id, code),
                None => stream.fin = true,
            }
        }
    }

    fn reset(&mut self, id: StreamId, code: Code) {
        if let Some(stream) = self.sending.get_mut(&id) {
            stream.bytes.clear();
            stream.reset.get_or_insert(code);
        }
    }

    fn stop(&mut self, id: StreamId, code: Code) {
        if let Some(stream) = self.receiving.get_mut(&id)
            && !stream.over
        {
            stream.over = true;
            stream.pieces.clear();
            self.stops.insert(id, code);
        }
    }

    fn datagram_size_max(&mut self) -> Option<usize> {
        self.datagram_size_max
    }
}

fn pick<'a>(dir: Dir, bidi: &'a mut u64, uni: &'a mut u64) -> &'a mut u64 {
    match dir {
        Dir::Bi => bidi,
        Dir::Uni => uni,
    }
}

/// Carries what `from` sent to `to`, up to `cut` octets of each stream, and the ends,
/// resets and stops behind them.
pub fn carry(from: &mut MemoryTransport, to: &mut MemoryTransport, cut: usize) {
    for id in from.sending_ids() {
        let bytes = from.take_sent(id, cut);
        to.inject(id, &bytes);
        if let Some(code) = from.sent_reset(id) {
            to.inject_reset(id, code);
        } else if from.sent_fin(id) && from.is_drained(id) {
            to.inject_fin(id);
        }
    }
    for id in from.stopped_ids() {
        if let Some(code) = from.sent_stop(id) {
            to.inject_stop(id, code);
        }
    }
}
