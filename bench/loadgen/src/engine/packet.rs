//! The datagrams that client and target exchange: a header that says whose they are and when they were due, and filler.
//!
//! ```text
//!   kind (1) | flow (4) | sequence number in the flow (8) | due, ns since the start of the engine (8) | filler
//! ```
//!
//! Client and target run in one thread, so both read the same clock and no time has to be corrected.

use bytes::{BufMut, BytesMut};

/// Shortest payload, in bytes: the header.
pub(crate) const SIZE_MIN: usize = 21;
/// Longest payload, in bytes: what two nested hops carry at the default MTU.
pub(crate) const SIZE_MAX: usize = 1_250;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Client to target: tells the target where the flow comes from. Sent back as it is.
    Hello,
    /// To be counted where it arrives, in either direction.
    Data,
    /// Client to target, which sends it back as it is.
    Echo,
}

/// The header of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Sent while the run was measured.
    pub(crate) measured: bool,
    pub(crate) flow: u32,
    pub(crate) sequence: u64,
    /// When the schedule wanted it sent, in nanoseconds since the start of the engine.
    pub(crate) due_ns: u64,
}

const MEASURED: u8 = 0x80;
const FILLER: [u8; SIZE_MAX] = [0xb5; SIZE_MAX];

impl Header {
    /// Appends a datagram of `size` bytes, which are between [`SIZE_MIN`] and [`SIZE_MAX`].
    pub(crate) fn write(self, size: usize, out: &mut BytesMut) {
        let kind = match self.kind {
            Kind::Hello => 0,
            Kind::Data => 1,
            Kind::Echo => 2,
        };
        out.put_u8(if self.measured { kind | MEASURED } else { kind });
        out.put_u32(self.flow);
        out.put_u64(self.sequence);
        out.put_u64(self.due_ns);
        out.put_slice(&FILLER[..size.clamp(SIZE_MIN, SIZE_MAX) - SIZE_MIN]);
    }

    /// Reads the header of a datagram; `None` for one that is not ours.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (head, _) = payload.split_first_chunk::<SIZE_MIN>()?;
        let (&[kind], rest) = head.split_first_chunk::<1>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (due, _) = rest.split_first_chunk::<8>()?;
        let measured = kind & MEASURED != 0;
        let kind = match kind & !MEASURED {
            0 => Kind::Hello,
            1 => Kind::Data,
            2 => Kind::Echo,
            _ => return None,
        };
        Some(Self {
            kind,
            measured,
            flow: u32::from_be_bytes(*flow),
            sequence: u64::from_be_bytes(*sequence),
            due_ns: u64::from_be_bytes(*due),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (kind, measured, size) in [
            (Kind::Hello, false, SIZE_MIN),
            (Kind::Data, true, 1200),
            (Kind::Echo, true, 64),
        ] {
            let header = Header {
                kind,
                measured,
                flow: u32::MAX,
                sequence: 1 << 60,
                due_ns: 7,
            };
            let mut bytes = BytesMut::new();
            header.write(size, &mut bytes);
            assert_eq!(bytes.len(), size);
            assert_eq!(Header::parse(&bytes), Some(header));
            assert_eq!(Header::parse(&bytes[..SIZE_MIN - 1]), None);
        }
        assert_eq!(Header::parse(&[9; 64]), None);
    }
}
