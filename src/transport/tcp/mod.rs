//! HTTP/2 and HTTP/1.1 of one worker: TLS over a byte link, and the streams above it.

/// Names one connection of a `TcpHub`; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

impl ConnectionId {
    /// The name as one integer that fits beside a two-bit tag: 31 bits of slot, 31 bits of generation.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 31 | u64::from(self.index)
    }

    /// The reverse of [`ConnectionId::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            index: (bits & 0x7fff_ffff) as u32,
            generation: (bits >> 31 & 0x7fff_ffff) as u32,
        }
    }
}

/// Names one request stream of a connection: the stream identifier of HTTP/2, or 0 on HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);
