//! One connection: quinn-proto below, HTTP/3 above, and the tunnel datagrams that wait for room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ConnectionHandle, Dir, SendDatagramError, Side, StreamId};
use rustc_hash::FxHashMap;

use super::credit;
use super::{EndpointId, HubStats, Link};
use crate::config::limits::EARLY_CONNECTION_BYTES;
use crate::http::h3::{self, DatagramMode, DatagramRoute, SendData};
use crate::transport::outbox::{Outbox, OutboxLimits};
use crate::wire::{capsule, varint};

/// Most datagrams that one connection holds for request streams it has not seen yet (RFC 9297 §2.1).
const HELD_DATAGRAMS_MAX: usize = 32;
/// How long such a datagram is held: about a round trip, generously.
const HELD_FOR: Duration = Duration::from_millis(500);

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete.
    Connected,
    /// HTTP/3 has something to say.
    Http(h3::Event),
    /// The path takes larger packets than before, or only smaller ones: see [`super::Hub::payload_size_max`].
    Mtu {
        /// The owners of the connection's request streams, in the order of the streams.
        bound: Vec<(StreamId, u64)>,
    },
    /// The connection is over. The last event of every connection, whoever ended it.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The owners of its request streams, see [`super::Hub::bind`], in the order of the streams.
        bound: Vec<(StreamId, u64)>,
    },
}

/// Why a connection is over.
#[derive(Debug)]
pub enum CloseReason {
    /// QUIC says so: closed by the peer or by our user, timed out, TLS failed.
    Lost(quinn_proto::ConnectionError),
    /// We closed it, because the peer broke HTTP/3.
    Misbehaved(h3::ConnectionError),
    /// The handshake took too long.
    HandshakeTimeout,
    /// We closed it, see [`super::Hub::close`].
    Local,
}

/// How far the end of a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// [`Event::Closed`] is the last of its events that wait to be polled.
    Announced,
    /// [`Event::Closed`] was polled: the slot can be reused once QUIC needs it no more.
    Polled,
}

/// What became of a datagram. Whoever has no use for it may ignore it: what was dropped is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// QUIC has it.
    Sent,
    /// It waits for room; the tunnel's oldest may have been dropped for it.
    Queued,
    /// It does not fit the path and was dropped.
    TooLarge,
    /// It was dropped: the stream that carries capsules is blocked.
    Blocked,
    /// The connection is gone.
    Gone,
}

pub(super) struct Connection {
    pub(super) quic: quinn_proto::Connection,
    pub(super) h3: h3::Connection,
    pub(super) endpoint: EndpointId,
    pub(super) handle: ConnectionHandle,
    pub(super) link: Link,
    pub(super) generation: u32,
    /// Set until the handshake ended, one way or the other.
    pub(super) handshake_deadline: Option<Instant>,
    pub(super) end: End,
    /// When the peer was last heard.
    pub(super) heard: Option<Instant>,
    /// The deadline that the hub's heap holds for us.
    pub(super) timer: Option<Instant>,
    pub(super) touched: bool,
    pub(super) dirty: bool,
    pub(super) outbox: Outbox,
    /// Request streams by index, to their owners.
    pub(super) bound: FxHashMap<u64, u64>,
    mode: DatagramMode,
    /// The largest packet that the path took when it was last asked.
    mtu: u16,
    /// Datagrams read from QUIC.
    datagrams_taken: u64,
    held: VecDeque<(Instant, Bytes)>,
    held_bytes: usize,
    /// Whether streams may have become known since the held datagrams were looked at.
    look_at_held: bool,
}

impl Connection {
    pub(super) fn new(
        quic: quinn_proto::Connection,
        h3: h3::Connection,
        endpoint: EndpointId,
        handle: ConnectionHandle,
        link: Link,
        generation: u32,
        handshake_deadline: Instant,
    ) -> Self {
        Self {
            mtu: quic.current_mtu(),
            quic,
            h3,
            endpoint,
            handle,
            link,
            generation,
            handshake_deadline: Some(handshake_deadline),
            heard: None,
            end: End::Open,
            timer: None,
            touched: false,
            dirty: false,
            outbox: Outbox::default(),
            bound: FxHashMap::default(),
            mode: DatagramMode::Pending,
            datagrams_taken: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            look_at_held: false,
        }
    }

    pub(super) fn handshake_overdue(&self, now: Instant) -> bool {
        self.handshake_deadline
            .is_some_and(|deadline| deadline <= now)
    }

    /// Passes an event of QUIC on to HTTP/3.
    ///
    /// # Errors
    /// Why the connection is over.
    pub(super) fn handle_quic_event(
        &mut self,
        event: quinn_proto::Event,
    ) -> Result<(), CloseReason> {
        self.look_at_held = !self.held.is_empty();
        match event {
            quinn_proto::Event::Connected => self.h3.start(&mut self.quic),
            quinn_proto::Event::ConnectionLost { reason } => {
                return Err(CloseReason::Lost(reason));
            }
            quinn_proto::Event::Stream(event) => self.h3.handle_stream_event(&mut self.quic, event),
            quinn_proto::Event::HandshakeDataReady
            | quinn_proto::Event::DatagramReceived
            | quinn_proto::Event::DatagramsUnblocked => Ok(()),
        }
        .map_err(CloseReason::Misbehaved)
    }

    /// Lets the client open more requests if it uses what it has; QUIC tells it with the next packet.
    pub(super) fn raise_stream_credit(&mut self, limit: u32) {
        if self.quic.side().is_client() {
            return;
        }
        let granted = self.quic.max_concurrent_streams(Dir::Bi) as u32;
        // Those of QUIC, not of HTTP/3: a stream takes credit until both ends know that it is over.
        let open = self.quic.streams().remote_open_streams(Dir::Bi) as u32;
        if let Some(credit) = credit::raised(granted, open, limit) {
            self.quic.set_max_concurrent_streams(Dir::Bi, credit.into());
        }
    }

    /// The owners of all request streams.
    pub(super) fn bound(&self) -> Vec<(StreamId, u64)> {
        let bound = self.bound.iter();
        let mut bound: Vec<_> = bound
            .map(|(index, owner)| (request_stream(*index), *owner))
            .collect();
        bound.sort_unstable();
        bound
    }

    /// Whether the path takes packets of another size than when this was last asked.
    pub(super) fn has_other_mtu(&mut self) -> bool {
        let mtu = self.quic.current_mtu();
        std::mem::replace(&mut self.mtu, mtu) != mtu
    }

    /// Keeps what an HTTP/3 event means for datagrams.
    pub(super) fn note(&mut self, event: &h3::Event) {
        if matches!(event, h3::Event::Settings(_)) {
            self.mode = self.h3.datagram_mode(&mut self.quic);
        }
    }

    pub(super) fn recv_datagram(
        &mut self,
        now: Instant,
        stats: &mut HubStats,
    ) -> Result<Option<(StreamId, Bytes)>, h3::ConnectionError> {
        if self.look_at_held {
            if let Some(datagram) = self.recv_held(now, stats)? {
                return Ok(Some(datagram));
            }
            self.look_at_held = false;
        }
        while let Some(mut datagram) = self.quic.datagrams().recv() {
            stats.quic_datagrams_received += 1;
            self.datagrams_taken += 1;
            match self.h3.route_datagram(&mut self.quic, &datagram)? {
                DatagramRoute::Stream { id, header_len } => {
                    bytes::Buf::advance(&mut datagram, header_len);
                    return Ok(Some((id, datagram)));
                }
                DatagramRoute::Early { .. } if self.holds(datagram.len()) => {
                    // A copy: the original pins a receive buffer.
                    self.held_bytes += datagram.len();
                    self.held
                        .push_back((now, Bytes::copy_from_slice(&datagram)));
                }
                DatagramRoute::Early { .. } | DatagramRoute::Drop(_) => {
                    stats.dropped_unroutable += 1
                }
            }
        }
        Ok(None)
    }

    /// Whether a datagram of this length can be held as well.
    fn holds(&self, len: usize) -> bool {
        self.held.len() < HELD_DATAGRAMS_MAX && self.held_bytes + len <= EARLY_CONNECTION_BYTES
    }

    /// The first held datagram whose stream is known by now; those that waited too long go.
    fn recv_held(
        &mut self,
        now: Instant,
        stats: &mut HubStats,
    ) -> Result<Option<(StreamId, Bytes)>, h3::ConnectionError> {
        for _ in 0..self.held.len() {
            let Some((since, mut datagram)) = self.held.pop_front() else {
                break;
            };
            self.held_bytes -= datagram.len();
            match self.h3.route_datagram(&mut self.quic, &datagram)? {
                DatagramRoute::Stream { id, header_len } => {
                    bytes::Buf::advance(&mut datagram, header_len);
                    return Ok(Some((id, datagram)));
                }
                DatagramRoute::Early { .. } if now.duration_since(since) < HELD_FOR => {
                    self.held_bytes += datagram.len();
                    self.held.push_back((since, datagram));
                }
                DatagramRoute::Early { .. } | DatagramRoute::Drop(_) => {
                    stats.dropped_unroutable += 1
                }
            }
        }
        Ok(None)
    }

    /// `framed` is Quarter Stream ID, Context ID, payload.
    pub(super) fn send_datagram(
        &mut self,
        stream: StreamId,
        framed: Bytes,
        limits: OutboxLimits,
        stats: &mut HubStats,
    ) -> SendOutcome {
        let blocked = match self.mode {
            DatagramMode::Frames if self.outbox.is_empty() => {
                match self.quic.datagrams().send(framed, false) {
                    Ok(()) => {
                        stats.quic_datagrams_sent += 1;
                        return SendOutcome::Sent;
                    }
                    Err(SendDatagramError::Blocked(framed)) => framed,
                    Err(
                        SendDatagramError::TooLarge
                        | SendDatagramError::UnsupportedByPeer
                        | SendDatagramError::Disabled,
                    ) => {
                        stats.dropped_too_large += 1;
                        return SendOutcome::TooLarge;
                    }
                }
            }
            DatagramMode::Frames | DatagramMode::Pending => framed,
            DatagramMode::Capsules => return self.send_capsule(stream, &framed, stats),
        };
        // A copy of its own size: the arena's chunk must not be pinned by what waits.
        let waiting = Bytes::copy_from_slice(&blocked);
        stats.datagrams_queued += 1;
        stats.dropped_queue_full += self.outbox.push(stream.index(), waiting, limits) as u64;
        SendOutcome::Queued
    }

    /// For peers without H3_DATAGRAM: the same payload as a DATAGRAM capsule (RFC 9297 §3.5).
    fn send_capsule(
        &mut self,
        stream: StreamId,
        framed: &[u8],
        stats: &mut HubStats,
    ) -> SendOutcome {
        let payload = &framed[varint::size(stream.index())..];
        let mut data = Vec::with_capacity(payload.len() + 8);
        capsule::encode_head(
            capsule::CapsuleType::DATAGRAM,
            payload.len() as u64,
            &mut data,
        );
        data.extend_from_slice(payload);
        match self.h3.send_data(&mut self.quic, stream, &data) {
            SendData::Written => {
                stats.capsules_sent += 1;
                SendOutcome::Sent
            }
            SendData::Blocked => {
                stats.dropped_stream_blocked += 1;
                SendOutcome::Blocked
            }
            SendData::Gone => SendOutcome::Gone,
        }
    }

    /// Moves waiting datagrams on while there is room; whether any moved.
    pub(super) fn feed(&mut self, stats: &mut HubStats) -> bool {
        let mut fed = false;
        while !matches!(self.mode, DatagramMode::Pending)
            && let Some((index, framed)) = self.outbox.pop()
        {
            if matches!(self.mode, DatagramMode::Capsules) {
                let stream = request_stream(index);
                fed |= self.send_capsule(stream, &framed, stats) == SendOutcome::Sent;
                continue;
            }
            match self.quic.datagrams().send(framed, false) {
                Ok(()) => {
                    stats.quic_datagrams_sent += 1;
                    fed = true;
                }
                Err(SendDatagramError::Blocked(framed)) => {
                    self.outbox.unpop(index, framed);
                    break;
                }
                Err(
                    SendDatagramError::TooLarge
                    | SendDatagramError::UnsupportedByPeer
                    | SendDatagramError::Disabled,
                ) => stats.dropped_too_large += 1,
            }
        }
        fed
    }

    /// Adds what QUIC counted since the connection began.
    pub(super) fn add_quic_counters(&self, stats: &mut HubStats) {
        let frames = self.quic.stats().frame_rx;
        stats.streams_blocked += frames.streams_blocked_bidi;
        stats.stream_data_blocked += frames.stream_data_blocked;
        stats.data_blocked += frames.data_blocked;
        stats.dropped_receive_buffer_full += frames.datagram.saturating_sub(self.datagrams_taken);
    }

    pub(super) fn payload_size_max(&mut self, stream: StreamId) -> Option<usize> {
        let framed = self.quic.datagrams().max_size()?;
        framed.checked_sub(varint::size(stream.index()) + 1)
    }
}

/// The request stream of that index: client-initiated and bidirectional.
fn request_stream(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, index)
}
