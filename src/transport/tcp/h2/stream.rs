//! One request stream of HTTP/2: what h2 holds for it, what waits, and which ends were told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};

use super::super::code::code_of;
use super::super::wake::{Noted, Notes};
use crate::http::h3::code::Code;
use crate::http::h3::{RecvData, SendData};

/// Most bytes of one stream that h2 holds for sending. The largest datagram fits in an empty queue.
const QUEUE_BYTES_MAX: usize = 128 * 1024;

/// Bytes given to h2 for one stream that it has not written yet, and whether somebody waits for room.
///
/// h2 counts capacity that the peer grants; idle streams that hold some take it from the others. So none is reserved:
/// h2 gets a bounded queue of data per stream and shares the peer's credit out among those that have some.
#[derive(Debug)]
pub(super) struct SendQueue {
    stream: u32,
    bytes: Cell<usize>,
    hungry: Cell<bool>,
    roomy: Roomy,
}

/// Streams whose queue has got room for which somebody waited.
pub(super) type Roomy = Rc<RefCell<VecDeque<u32>>>;

impl SendQueue {
    fn room(&self) -> usize {
        QUEUE_BYTES_MAX.saturating_sub(self.bytes.get())
    }

    fn taken(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        if self.hungry.get() && self.bytes.get() <= QUEUE_BYTES_MAX / 2 {
            self.hungry.set(false);
            self.roomy.borrow_mut().push_back(self.stream);
        }
    }
}

/// Data of a stream that tells its queue when it was written or thrown away.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    queue: Rc<SendQueue>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, cnt: usize) {
        self.bytes.advance(cnt);
        self.queue.taken(cnt);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.queue.taken(self.bytes.len());
    }
}

/// How far the answer to the request is.
pub(super) enum Answer {
    /// Server: none was given.
    Owed(SendResponse<Chunk>),
    /// Client: none came.
    Awaited(ResponseFuture),
    /// It was given, or came.
    Done,
}

/// One request stream.
pub(super) struct Stream {
    pub(super) answer: Answer,
    pub(super) recv: Option<RecvStream>,
    pub(super) send: Option<SendStream<Chunk>>,
    queue: Rc<SendQueue>,
    recv_waker: Waker,
    send_waker: Waker,
    /// What is left of a DATA frame of which the owner took a part.
    rest: Bytes,
    /// Capsules of this turn, which go out as one DATA frame.
    staged: BytesMut,
    /// The peer had used up its credit when the owner came to read.
    stalled: bool,
    /// The owner was told to wait for [`Event::Readable`](super::super::Event::Readable).
    read_blocked: bool,
    recv_over: bool,
    send_over: bool,
    /// What the peer sends is thrown away.
    stopped: bool,
    /// Nothing is left to be done but to wait for the peer's end.
    left: bool,
    /// Trailers may follow the data: the request asked for no tunnel.
    takes_trailers: bool,
}

impl Stream {
    pub(super) fn new(id: u32, notes: &Arc<Notes>, roomy: &Roomy, answer: Answer) -> Self {
        let queue = SendQueue {
            stream: id,
            bytes: Cell::new(0),
            hungry: Cell::new(false),
            roomy: Rc::clone(roomy),
        };
        Self {
            answer,
            recv: None,
            send: None,
            queue: Rc::new(queue),
            recv_waker: notes.stream_waker(Noted::Receive(id)),
            send_waker: notes.stream_waker(Noted::Send(id)),
            rest: Bytes::new(),
            staged: BytesMut::new(),
            stalled: false,
            read_blocked: false,
            recv_over: false,
            send_over: false,
            stopped: false,
            left: false,
            takes_trailers: false,
        }
    }

    /// Whether nothing more will happen on the stream.
    pub(super) fn is_over(&self) -> bool {
        self.send_over && (self.recv_over || (self.stopped && !self.left))
    }

    /// The peer's or h2's reset of the stream, once there is one; otherwise h2 tells the waker.
    pub(super) fn poll_reset(&mut self) -> Option<Code> {
        let mut cx = Context::from_waker(&self.send_waker);
        let poll = match (&mut self.answer, &mut self.send) {
            (Answer::Owed(respond), _) => respond.poll_reset(&mut cx),
            (Answer::Awaited(_) | Answer::Done, Some(send)) => send.poll_reset(&mut cx),
            (Answer::Awaited(_) | Answer::Done, None) => return None,
        };
        match poll {
            Poll::Ready(Ok(reason)) => Some(code_of(reason)),
            // The connection is broken, which its end tells.
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Client: the final response, or how the stream ended instead.
    pub(super) fn poll_response(&mut self) -> Poll<Result<::http::response::Parts, Option<Code>>> {
        let Answer::Awaited(response) = &mut self.answer else {
            return Poll::Pending;
        };
        let mut cx = Context::from_waker(&self.recv_waker);
        match std::pin::Pin::new(response).poll(&mut cx) {
            Poll::Ready(Ok(response)) => {
                let (parts, recv) = response.into_parts();
                self.recv = Some(recv);
                self.answer = Answer::Done;
                Poll::Ready(Ok(parts))
            }
            Poll::Ready(Err(error)) => {
                self.answer = Answer::Done;
                Poll::Ready(Err(error.reason().map(code_of)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether the owner waits for data; asks only once.
    pub(super) fn take_read_blocked(&mut self) -> bool {
        std::mem::take(&mut self.read_blocked)
    }

    /// Whether the owner has ended its interest in what the peer sends.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a whole window was full since this was asked last.
    pub(super) fn take_stalled(&mut self) -> bool {
        std::mem::take(&mut self.stalled)
    }

    pub(super) fn recv_data(&mut self, bytes_max: usize) -> RecvData {
        if self.recv_over || self.stopped {
            return RecvData::Gone;
        }
        match self.fill_rest() {
            Poll::Ready(RecvData::Data(_)) => {
                let data = self.rest.split_to(bytes_max.min(self.rest.len()));
                if let Some(recv) = &mut self.recv {
                    // Fails only for more than was received.
                    recv.flow_control().release_capacity(data.len()).ok();
                }
                RecvData::Data(data)
            }
            Poll::Ready(end) => {
                self.recv_over = true;
                end
            }
            Poll::Pending => {
                self.read_blocked = true;
                RecvData::Blocked
            }
        }
    }

    /// Whether data or an orderly end waits for the owner.
    pub(super) fn has_unread(&mut self) -> bool {
        let is_read = self.recv_over || self.stopped;
        let found = |rest: &mut Self| match rest.fill_rest() {
            Poll::Ready(RecvData::Data(_) | RecvData::Finished) => true,
            Poll::Ready(RecvData::Reset(_) | RecvData::Blocked | RecvData::Gone)
            | Poll::Pending => false,
        };
        !is_read && found(self)
    }

    /// Throws away what the peer sends, so that it does not hold credit of the connection.
    pub(super) fn discard(&mut self) {
        loop {
            match self.fill_rest() {
                Poll::Ready(RecvData::Data(_)) => {
                    let data = std::mem::take(&mut self.rest);
                    if let Some(recv) = &mut self.recv {
                        recv.flow_control().release_capacity(data.len()).ok();
                    }
                }
                Poll::Ready(_) => {
                    self.recv_over = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Makes `rest` hold something; `Data` stands for it.
    fn fill_rest(&mut self) -> Poll<RecvData> {
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        let mut cx = Context::from_waker(&self.recv_waker);
        while self.rest.is_empty() {
            match recv.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.stalled |= recv.flow_control().available_capacity() <= 0;
                    self.rest = data;
                }
                Poll::Ready(Some(Err(error))) => {
                    let code = error.reason().map_or(Code::H3_NO_ERROR, code_of);
                    return Poll::Ready(RecvData::Reset(code));
                }
                Poll::Ready(None) => {
                    return Poll::Ready(match recv.poll_trailers(&mut cx) {
                        // On a connected stream only DATA may come (RFC 9113 section 8.5).
                        Poll::Ready(Ok(Some(_))) if !self.takes_trailers => {
                            RecvData::Reset(Code::H3_MESSAGE_ERROR)
                        }
                        Poll::Ready(Ok(_) | Err(_)) | Poll::Pending => RecvData::Finished,
                    });
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(RecvData::Data(Bytes::new()))
    }

    /// Bytes that [`Stream::send_data`] takes now; `None` if it never takes any again.
    pub(super) fn send_room(&self) -> Option<usize> {
        if self.send_over {
            return None;
        }
        Some(match self.send {
            Some(_) => self.queue.room().saturating_sub(self.staged.len()),
            None => 0,
        })
    }

    /// Asks for [`Event::Writable`](super::super::Event::Writable) when there is room again.
    pub(super) fn want_room(&self) {
        self.queue.hungry.set(true);
    }

    pub(super) fn send_data(&mut self, data: Bytes) -> SendData {
        match self.send_room() {
            None => SendData::Gone,
            Some(room) if room < data.len() || room == 0 => {
                self.want_room();
                SendData::Blocked
            }
            Some(_) => {
                self.flush_staged();
                self.give(data, false)
            }
        }
    }

    /// Room for a capsule, which is appended; it goes out with [`Stream::flush_staged`].
    pub(super) fn stage(&mut self, len: usize, encode: impl FnOnce(&mut BytesMut)) -> SendData {
        match self.send_room() {
            None => SendData::Gone,
            Some(room) if room < len => {
                self.want_room();
                SendData::Blocked
            }
            Some(_) => {
                encode(&mut self.staged);
                SendData::Written
            }
        }
    }

    /// Whether capsules wait for [`Stream::flush_staged`].
    pub(super) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Gives the capsules of this turn to h2.
    pub(super) fn flush_staged(&mut self) {
        if !self.staged.is_empty() {
            let staged = self.staged.split().freeze();
            self.give(staged, false);
        }
    }

    fn give(&mut self, data: Bytes, fin: bool) -> SendData {
        let Some(send) = &mut self.send else {
            return SendData::Gone;
        };
        self.queue.bytes.set(self.queue.bytes.get() + data.len());
        let chunk = Chunk {
            bytes: data,
            queue: Rc::clone(&self.queue),
        };
        match send.send_data(chunk, fin) {
            Ok(()) => SendData::Written,
            Err(_) => {
                self.send_over = true;
                SendData::Gone
            }
        }
    }

    /// Ends our direction behind everything that was sent.
    pub(super) fn finish(&mut self) {
        if !self.send_over {
            self.flush_staged();
            self.give(Bytes::new(), true);
            self.send_over = true;
        }
    }

    /// The request asked for no tunnel.
    pub(super) fn set_plain(&mut self) {
        self.takes_trailers = true;
    }

    /// A response that is all there will be was sent.
    pub(super) fn set_send_over(&mut self) {
        self.send_over = true;
    }

    /// Reads nothing more; once our direction has ended too, the stream is over.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.discard();
    }

    /// Has the stream looked at in the next poll: a reset may have waited until everything was read.
    pub(super) fn look_again(&self) {
        self.recv_waker.wake_by_ref();
    }

    /// Reads nothing more, and is over when the peer ends its direction.
    pub(super) fn leave(&mut self) {
        self.left = true;
        self.stop();
    }

    /// Whether the stream only waits for the end of the peer's direction.
    pub(super) fn is_left(&self) -> bool {
        self.left
    }

    pub(super) fn reset(&mut self, reason: h2::Reason) {
        match (&mut self.answer, &mut self.send) {
            (Answer::Owed(respond), _) => respond.send_reset(reason),
            (Answer::Awaited(_) | Answer::Done, Some(send)) => send.send_reset(reason),
            (Answer::Awaited(_) | Answer::Done, None) => {}
        }
    }
}
