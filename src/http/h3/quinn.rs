//! [`Transport`] over [`quinn_proto::Connection`].
//!
//! Does not poll events, packets or timers: the owner of the QUIC connection does that and hands the stream
//! events to the HTTP/3 machine.

use quinn_proto::{Dir, FinishError, ReadError, ReadableError, StreamId};

use super::code::Code;
use super::transport::{Read, Transport, WriteError};

impl Transport for quinn_proto::Connection {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.streams().open(Dir::Uni)
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.streams().open(Dir::Bi)
    }

    fn accept_uni(&mut self) -> Option<StreamId> {
        self.streams().accept(Dir::Uni)
    }

    fn accept_bidi(&mut self) -> Option<StreamId> {
        self.streams().accept(Dir::Bi)
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        self.send_stream(id)
            .write(data)
            .map_err(|error| match error {
                quinn_proto::WriteError::Blocked => WriteError::Blocked,
                quinn_proto::WriteError::Stopped(code) => WriteError::Stopped(Code::from(code)),
                quinn_proto::WriteError::ClosedStream => WriteError::Closed,
            })
    }

    fn read(&mut self, id: StreamId, bytes_max: usize) -> Read {
        let mut stream = self.recv_stream(id);
        // Streams are only ever read in order, so the second error cannot occur.
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return Read::Closed;
            }
        };
        // Dropping `chunks` returns the credit and, at the end of a stream, its slot.
        match chunks.next(bytes_max) {
            Ok(Some(chunk)) => Read::Data(chunk.bytes),
            Ok(None) => Read::Finished,
            Err(ReadError::Blocked) => Read::Blocked,
            Err(ReadError::Reset(code)) => Read::Reset(Code::from(code)),
        }
    }

    fn received_reset(&mut self, id: StreamId) -> Option<Code> {
        let code = self.recv_stream(id).received_reset().ok().flatten()?;
        Some(Code::from(code))
    }

    fn finish(&mut self, id: StreamId) {
        match self.send_stream(id).finish() {
            Ok(()) | Err(FinishError::ClosedStream) => {}
            // A stopped stream cannot end in order, and would stay in memory until it is reset.
            Err(FinishError::Stopped(code)) => self.reset(id, code.into()),
        }
    }

    fn reset(&mut self, id: StreamId, code: Code) {
        // Fails when the stream is gone or was reset before, which is what the caller wants.
        self.send_stream(id).reset(code.into()).ok();
    }

    fn stop(&mut self, id: StreamId, code: Code) {
        // Fails when the stream is gone or was stopped before.
        self.recv_stream(id).stop(code.into()).ok();
    }

    fn datagram_size_max(&mut self) -> Option<usize> {
        self.datagrams().max_size()
    }
}
