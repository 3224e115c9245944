//! The bytes of a TCP tunnel: from one leg to the other, at the pace of the slower one.
//!
//! ```text
//!   source ─► reader ─► waiting (bounded) ─► writer ─► sink
//!   stream    capsules                       capsules  socket, stream, local user, nested connection
//! ```
//!
//! Nothing is read that cannot be kept: while the sink has no room, the source gets no credit, and the far end stops.
//! Nothing is ever dropped. The end of a source becomes the end of the sink behind the last byte (half-close), and the
//! other direction goes on; whatever breaks a source breaks the whole tunnel, so that nobody takes a cut stream for a
//! complete one.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::leg::{Flow, Leg};
use super::machine::{Closed, LocalEvent, Machine, Outside};
use super::pipe::{Direction, Pipe, Stage};
use crate::error::Abort;
use crate::http::h3::{RecvData, SendData};
use crate::net::{TcpClose, TcpId, TcpRead};
use crate::transport::carriers::{ConnectionId, RequestStream};
use crate::transport::tcp::LinkOutput;
use crate::tunnel::TunnelId;
use crate::tunnel::tcp::{Piece, Progress};

/// Bytes that one direction moves before others get their turn.
const BYTES_PER_PUMP: usize = 256 * 1024;
/// Bytes that a read of a socket has room for at least.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Size of the buffer that reads of sockets share.
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Pieces that one write takes.
const WRITE_PIECES_MAX: usize = 64;
/// How long a peer may take to end its stream after both directions have ended.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// A step of a direction that broke the tunnel.
struct Broken(Abort);

impl Machine {
    /// The two ends of a direction, and the direction itself.
    pub(super) fn pipe(
        &mut self,
        id: TunnelId,
        direction: Direction,
    ) -> Option<(Leg, Leg, &mut Pipe)> {
        let tunnel = self.tunnels.get_mut(id)?;
        let (source, sink) = match direction {
            Direction::Up => (tunnel.downstream, tunnel.upstream),
            Direction::Down => (tunnel.upstream, tunnel.downstream),
        };
        if !tunnel.is_open() {
            return None;
        }
        match &mut tunnel.flow {
            Flow::Tcp(splice) => Some((source, sink, splice.pipe(direction))),
            Flow::Udp(_) | Flow::Ip(_) => None,
        }
    }

    /// Moves what can be moved in one direction.
    pub(super) fn pump(
        &mut self,
        now: Instant,
        id: TunnelId,
        direction: Direction,
        out: &mut impl Outside,
    ) {
        let mut moved = 0;
        loop {
            let step = self
                .fill(now, id, direction, out)
                .and_then(|filled| Ok((filled, self.drain_waiting(id, direction, out)?)));
            match step {
                Err(Broken(abort)) => return self.abort(now, id, abort, out),
                Ok((0, 0)) => break,
                Ok((filled, drained)) => {
                    moved += drained;
                    self.stats.tcp_buffers_full +=
                        u64::from(filled > 0 && self.is_full(id, direction));
                }
            }
            if moved >= BYTES_PER_PUMP {
                self.resume_later(id, direction);
                break;
            }
        }
        if moved > 0 {
            self.count_moved(now, id, direction, moved);
        }
        if let Err(Broken(abort)) = self.pass_end(now, id, direction, out) {
            self.abort(now, id, abort, out);
        }
    }

    fn is_full(&mut self, id: TunnelId, direction: Direction) -> bool {
        let bytes_max = self.limits.tcp_buffer_bytes;
        let pipe = self.pipe(id, direction);
        pipe.is_some_and(|(_, _, pipe)| pipe.waiting_bytes >= bytes_max)
    }

    pub(super) fn count_moved(
        &mut self,
        now: Instant,
        id: TunnelId,
        direction: Direction,
        moved: usize,
    ) {
        match direction {
            Direction::Up => self.stats.tcp_upstream_bytes += moved as u64,
            Direction::Down => self.stats.tcp_downstream_bytes += moved as u64,
        }
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.last_active = now;
        }
        if let Some((Leg::Local, _, pipe)) = self.pipe(id, direction)
            && std::mem::take(&mut pipe.starved)
        {
            self.tell(direction.source(), LocalEvent::Writable(id));
        }
    }

    fn resume_later(&mut self, id: TunnelId, direction: Direction) {
        if let Some((_, _, pipe)) = self.pipe(id, direction)
            && !pipe.queued
        {
            pipe.queued = true;
            self.resume.push_back((id, direction));
        }
    }

    /// Goes on with directions that gave way to others.
    pub(super) fn resume_pumps(&mut self, now: Instant, out: &mut impl Outside) {
        for (id, direction) in std::mem::take(&mut self.resume) {
            if let Some((_, _, pipe)) = self.pipe(id, direction) {
                pipe.queued = false;
                self.pump(now, id, direction, out);
            }
        }
    }

    /// Reads from the source as much as may wait.
    fn fill(
        &mut self,
        now: Instant,
        id: TunnelId,
        direction: Direction,
        out: &mut impl Outside,
    ) -> Result<usize, Broken> {
        let waiting_max = self.limits.tcp_buffer_bytes;
        let mut filled = 0;
        while let Some((source, _, pipe)) = self.pipe(id, direction) {
            let room = waiting_max.saturating_sub(pipe.waiting_bytes);
            if room == 0 || pipe.source_closed {
                break;
            }
            let read = match source {
                Leg::Stream(stream) => self.read_stream(now, id, direction, stream, room)?,
                Leg::Tcp(socket) => self.read_socket(id, direction, socket, room, out)?,
                Leg::Nested(ConnectionId::Tcp(inner)) => {
                    match self.carriers.tcp.poll_output(now, inner, room) {
                        LinkOutput::Bytes(bytes) => {
                            let len = bytes.len();
                            self.push(id, direction, bytes);
                            len
                        }
                        LinkOutput::Blocked => 0,
                        LinkOutput::Finished => {
                            self.source_ended(id, direction);
                            0
                        }
                        LinkOutput::Aborted => return Err(Broken(Abort::ClientCancelled)),
                    }
                }
                Leg::Local | Leg::None | Leg::Socket(_) | Leg::Gateway => 0,
                Leg::Nested(ConnectionId::Quic(_)) => 0,
            };
            if read == 0 {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }

    fn push(&mut self, id: TunnelId, direction: Direction, bytes: Bytes) {
        if let Some((_, _, pipe)) = self.pipe(id, direction) {
            pipe.push(bytes);
        }
    }

    /// The source has ended in an orderly way.
    pub(super) fn source_ended(&mut self, id: TunnelId, direction: Direction) {
        if let Some((_, _, pipe)) = self.pipe(id, direction) {
            pipe.source_closed = true;
            if pipe.stage == Stage::Flowing {
                pipe.stage = Stage::Ending;
            }
        }
    }

    fn read_stream(
        &mut self,
        now: Instant,
        id: TunnelId,
        direction: Direction,
        stream: RequestStream,
        bytes_max: usize,
    ) -> Result<usize, Broken> {
        let broken = match direction {
            Direction::Up => Broken(Abort::ClientCancelled),
            Direction::Down => Broken(Abort::UpstreamReset),
        };
        let read = self.carriers.recv_data(now, stream, bytes_max);
        let Some((_, _, pipe)) = self.pipe(id, direction) else {
            return Ok(0);
        };
        match read {
            RecvData::Data(data) => {
                let len = data.len();
                let Pipe {
                    reader,
                    waiting,
                    waiting_bytes,
                    ..
                } = pipe;
                let mut capsules = Vec::new();
                let progress = reader.handle_data(data, &mut |piece| match piece {
                    Piece::Data(payload) => {
                        *waiting_bytes += payload.len();
                        waiting.push_back(payload);
                    }
                    Piece::Capsule { kind, value } => capsules.push((kind, value)),
                });
                match progress {
                    Ok(Progress::Ended) if pipe.stage == Stage::Flowing => {
                        pipe.stage = Stage::Ending
                    }
                    Ok(Progress::Open | Progress::Ended) => {}
                    Err(error) => return Err(self.bad_framing(&error)),
                }
                for (kind, value) in capsules {
                    self.pass_capsule(id, direction.sink(), kind, value);
                }
                Ok(len)
            }
            RecvData::Blocked => Ok(0),
            RecvData::Finished => {
                match pipe.reader.handle_finished() {
                    Ok(()) => self.source_ended(id, direction),
                    Err(error) => return Err(self.bad_framing(&error)),
                }
                Ok(0)
            }
            // The end of a stream that has said everything is nobody's loss.
            RecvData::Reset(_) | RecvData::Gone if pipe.stage != Stage::Flowing => {
                pipe.source_closed = true;
                Ok(0)
            }
            RecvData::Reset(_) => Err(broken),
            RecvData::Gone => Ok(0),
        }
    }

    fn bad_framing(&mut self, error: &crate::tunnel::TcpError) -> Broken {
        self.stats.tunnels_misbehaved += 1;
        tracing::debug!(%error, "a tunnel ends");
        Broken(Abort::CapsuleError)
    }

    fn read_socket(
        &mut self,
        id: TunnelId,
        direction: Direction,
        socket: TcpId,
        bytes_max: usize,
        out: &mut impl Outside,
    ) -> Result<usize, Broken> {
        let buffer = &mut self.read_buffer;
        if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
            *buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
        }
        let bytes_max = bytes_max.min(buffer.capacity() - buffer.len());
        match out.read(socket, buffer, bytes_max) {
            Ok(TcpRead::Bytes(count)) => {
                // What is small is copied, so that a byte that waits long does not keep the whole buffer.
                let bytes = if count < READ_BYTES_MIN {
                    let bytes = Bytes::copy_from_slice(buffer);
                    buffer.clear();
                    bytes
                } else {
                    buffer.split().freeze()
                };
                debug_assert_eq!(bytes.len(), count);
                self.push(id, direction, bytes);
                Ok(count)
            }
            Ok(TcpRead::Blocked) => Ok(0),
            Ok(TcpRead::End) => {
                self.source_ended(id, direction);
                Ok(0)
            }
            Err(error) => Err(self.socket_broke(direction, &error)),
        }
    }

    fn socket_broke(&mut self, direction: Direction, error: &std::io::Error) -> Broken {
        tracing::debug!(%error, "a TCP connection broke");
        match direction {
            Direction::Up => Broken(Abort::ClientCancelled),
            Direction::Down => Broken(Abort::UpstreamReset),
        }
    }

    /// Gives the sink what it has room for.
    fn drain_waiting(
        &mut self,
        id: TunnelId,
        direction: Direction,
        out: &mut impl Outside,
    ) -> Result<usize, Broken> {
        let mut drained = 0;
        while let Some((_, sink, pipe)) = self.pipe(id, direction) {
            let before = pipe.waiting_bytes;
            if before == 0 {
                break;
            }
            match sink {
                Leg::Stream(stream) => {
                    let room = self.carriers.send_room(stream);
                    let Some((_, _, pipe)) = self.pipe(id, direction) else {
                        break;
                    };
                    let payload_max = pipe.writer.payload_max(room);
                    if payload_max == 0 {
                        break;
                    }
                    let framed = pipe.take_framed(payload_max);
                    match self.carriers.send_data(stream, framed) {
                        SendData::Written => {}
                        SendData::Blocked | SendData::Gone => return Err(self.sink_gone(direction)),
                    }
                }
                Leg::Tcp(socket) => {
                    let mut pieces = [IoSlice::new(&[]); WRITE_PIECES_MAX];
                    let mut count = 0;
                    for (slot, piece) in pieces.iter_mut().zip(&pipe.waiting) {
                        *slot = IoSlice::new(piece);
                        count += 1;
                    }
                    match out.write(socket, &pieces[..count]) {
                        Ok(0) => break,
                        Ok(written) => pipe.advance(written),
                        Err(error) => {
                            return Err(match direction {
                                Direction::Up => self.socket_broke(Direction::Down, &error),
                                Direction::Down => self.socket_broke(Direction::Up, &error),
                            });
                        }
                    }
                }
                // Whoever is over wants to hear no more.
                Leg::Nested(ConnectionId::Tcp(inner)) if !self.carriers.tcp.is_open(inner) => {
                    if let Some((_, _, pipe)) = self.pipe(id, direction) {
                        pipe.advance(before);
                    }
                }
                Leg::Nested(ConnectionId::Tcp(inner)) => {
                    let room = self.carriers.tcp.receive_room(inner);
                    let Some((_, _, pipe)) = self.pipe(id, direction).filter(|_| room > 0) else {
                        break;
                    };
                    let bytes = pipe.take_framed(room);
                    self.carriers.tcp.handle_bytes(inner, &bytes);
                }
                Leg::Local => {
                    self.announce_readable(id, direction.sink());
                    break;
                }
                Leg::None | Leg::Socket(_) | Leg::Gateway => break,
                Leg::Nested(ConnectionId::Quic(_)) => break,
            }
            let left = self
                .pipe(id, direction)
                .map_or(0, |(_, _, pipe)| pipe.waiting_bytes);
            drained += before - left;
        }
        Ok(drained)
    }

    /// The sink takes nothing more although its direction has not ended.
    fn sink_gone(&self, direction: Direction) -> Broken {
        match direction {
            Direction::Up => Broken(Abort::UpstreamReset),
            Direction::Down => Broken(Abort::ClientCancelled),
        }
    }

    /// Tells the sink that the source has ended, once everything before is passed on.
    fn pass_end(
        &mut self,
        now: Instant,
        id: TunnelId,
        direction: Direction,
        out: &mut impl Outside,
    ) -> Result<(), Broken> {
        let Some((_, sink, pipe)) = self.pipe(id, direction) else {
            return Ok(());
        };
        if pipe.stage == Stage::Ending && pipe.waiting_bytes == 0 {
            let writer = pipe.writer;
            match sink {
                Leg::Stream(stream) if writer.head_len_max() > 0 => {
                    if self.carriers.send_room(stream) < writer.head_len_max() {
                        return Ok(());
                    }
                    let mut last = BytesMut::new();
                    writer.final_capsule(&mut last);
                    match self.carriers.send_data(stream, last.freeze()) {
                        SendData::Written => {}
                        SendData::Blocked | SendData::Gone => return Err(self.sink_gone(direction)),
                    }
                }
                Leg::Stream(stream) => self.carriers.finish(stream),
                Leg::Tcp(socket) => out.shutdown(socket),
                Leg::Nested(ConnectionId::Tcp(inner)) => self.carriers.tcp.handle_end(inner, true),
                // It knows when it has read that far.
                Leg::Local => {
                    self.announce_readable(id, direction.sink());
                    return Ok(());
                }
                Leg::None | Leg::Socket(_) | Leg::Gateway => {}
                Leg::Nested(ConnectionId::Quic(_)) => {}
            }
            if let Some((_, _, pipe)) = self.pipe(id, direction) {
                pipe.stage = Stage::Done;
            }
            self.both_ended(now, id);
        }
        self.close_if_over(now, id, out);
        Ok(())
    }

    /// When both directions have ended, our streams end too: after FINAL_DATA they were still open.
    pub(super) fn both_ended(&mut self, now: Instant, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id) else {
            return;
        };
        let Flow::Tcp(splice) = &tunnel.flow else {
            return;
        };
        if !splice.is_done() {
            return;
        }
        let legs = [
            (tunnel.downstream, splice.down.writer),
            (tunnel.upstream, splice.up.writer),
        ];
        for (leg, writer) in legs {
            match leg {
                Leg::Stream(stream) if writer.head_len_max() > 0 => self.carriers.finish(stream),
                Leg::Stream(_) | Leg::None | Leg::Socket(_) | Leg::Tcp(_) => {}
                Leg::Nested(_) | Leg::Local | Leg::Gateway => {}
            }
        }
        self.arm(id, now + LINGER);
    }

    pub(super) fn close_if_over(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        let over = self
            .tunnels
            .get(id)
            .is_some_and(|tunnel| match &tunnel.flow {
                Flow::Tcp(splice) => splice.is_closed(),
                Flow::Udp(_) | Flow::Ip(_) => false,
            });
        if over {
            self.complete(now, id, out);
        }
    }

    /// Forgets a stream that has said everything and wants to hear no more, although bytes that it brought still wait
    /// for the other leg; whether it was such a stream. It wants no more if it was told everything, or said so in an
    /// orderly way.
    pub(super) fn leave_leg(
        &mut self,
        now: Instant,
        id: TunnelId,
        stream: RequestStream,
        orderly: bool,
        out: &mut impl Outside,
    ) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|it| it.is_open()) else {
            return false;
        };
        let Flow::Tcp(splice) = &mut tunnel.flow else {
            return false;
        };
        let is_upstream = tunnel.downstream != Leg::Stream(stream);
        let (leg, source, sink) = match is_upstream {
            false => (&mut tunnel.downstream, &splice.up, &mut splice.down),
            true => (&mut tunnel.upstream, &splice.down, &mut splice.up),
        };
        if !source.source_closed || (sink.stage != Stage::Done && !orderly) {
            return false;
        }
        sink.abandon();
        *leg = Leg::None;
        self.carriers.unbind(stream);
        if is_upstream {
            self.pool
                .release(now, stream.connection(), &mut self.carriers);
        }
        for direction in Direction::BOTH {
            self.pump(now, id, direction, out);
        }
        true
    }

    /// Whether the connection that lives in a tunnel is over.
    pub(super) fn is_deserted(&self, id: TunnelId) -> bool {
        self.tunnels
            .get(id)
            .is_some_and(|tunnel| match tunnel.downstream {
                Leg::Nested(ConnectionId::Tcp(inner)) => !self.carriers.tcp.is_open(inner),
                Leg::Nested(ConnectionId::Quic(_)) | Leg::None | Leg::Stream(_) => false,
                Leg::Socket(_) | Leg::Tcp(_) | Leg::Local | Leg::Gateway => false,
            })
    }

    /// Whether both directions of a TCP tunnel have ended.
    pub(super) fn is_done(&self, id: TunnelId) -> bool {
        self.tunnels
            .get(id)
            .is_some_and(|tunnel| match &tunnel.flow {
                Flow::Tcp(splice) => splice.is_done(),
                Flow::Udp(_) | Flow::Ip(_) => false,
            })
    }

    /// Takes a tunnel whose directions have both ended out of the table.
    pub(super) fn complete(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        let Some(tunnel) = self.remove_tunnel(id) else {
            return;
        };
        let said_all = match &tunnel.flow {
            Flow::Tcp(splice) => [splice.up.source_closed, splice.down.source_closed],
            Flow::Udp(_) | Flow::Ip(_) => [true; 2],
        };
        for (leg, said_all) in [tunnel.downstream, tunnel.upstream]
            .into_iter()
            .zip(said_all)
        {
            match leg {
                Leg::Stream(stream) => {
                    self.carriers.unbind(stream);
                    // Whoever never ends its stream does not keep it.
                    if !said_all {
                        self.carriers.leave(stream);
                    }
                }
                Leg::Tcp(socket) => out.close(socket, TcpClose::Orderly),
                Leg::Nested(inner) => {
                    self.nested.remove(&inner);
                }
                Leg::None | Leg::Socket(_) | Leg::Local | Leg::Gateway => {}
            }
        }
        if let Leg::Stream(stream) = tunnel.upstream {
            self.pool
                .release(now, stream.connection(), &mut self.carriers);
        }
        self.tell_closed(id, &tunnel, Closed::Finished);
    }
}
