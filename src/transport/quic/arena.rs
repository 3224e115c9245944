//! Frames tunnel datagrams without an allocation each.
//!
//! A chunk is filled from the front and frozen piece by piece; the pieces keep it alive. Chunks are small, so
//! that a piece that stays (in the send buffer of a connection that is blocked) pins little memory besides its own.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::varint;

/// Size of a chunk. A datagram that waits pins at most this much.
const CHUNK_BYTES: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(super) struct Arena {
    chunk: BytesMut,
}

impl Arena {
    /// Quarter Stream ID, Context ID 0, payload: an HTTP/3 datagram that proxies UDP (RFC 9297 §2.1, RFC 9298 §5).
    pub(super) fn frame(&mut self, quarter_stream_id: u64, payload: &[u8]) -> Bytes {
        let needed = varint::size(quarter_stream_id) + 1 + payload.len();
        if self.chunk.capacity() < needed {
            self.chunk = BytesMut::with_capacity(needed.max(CHUNK_BYTES));
        }
        varint::encode(quarter_stream_id, &mut self.chunk);
        self.chunk.put_u8(0);
        self.chunk.extend_from_slice(payload);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: 9297-2.1-a
    #[test]
    fn frames_as_the_vectors_say() {
        let mut arena = Arena::default();
        let vectors: [(u64, &[u8]); 5] = [
            (0, &[0x00, 0x00]),
            (11, &[0x0b, 0x00]),
            (63, &[0x3f, 0x00]),
            (64, &[0x40, 0x40, 0x00]),
            (16384, &[0x80, 0x00, 0x40, 0x00, 0x00]),
        ];
        for (quarter, head) in vectors {
            let framed = arena.frame(quarter, b"hello");
            assert_eq!(framed, [head, b"hello"].concat());
        }
        assert_eq!(arena.frame(0, &[7; 65527]).len(), 65529);
        assert_eq!(arena.frame(1, b""), &[1u8, 0][..]);
    }
}
