//! The datagrams of the demo: what generator and target say to each other.
//!
//! ```text
//!   data    00 | sequence (8) | filler        generator → target
//!   probe   01 | sequence (8) | filler        → target, which sends it back as it is
//!   report  02 | received (8)                 target → generator, after every REPORT_EVERY data
//! ```

use bytes::{BufMut, BytesMut};

/// Shortest payload, in bytes: a kind and a number.
pub(super) const SIZE_MIN: usize = 9;
/// Data datagrams between two reports.
pub(super) const REPORT_EVERY: u64 = 32;

/// A datagram of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Data(u64),
    Probe(u64),
    Report(u64),
}

impl Traffic {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (head, _) = payload.split_first_chunk::<SIZE_MIN>()?;
        let (kind, number) = head.split_first()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match kind {
            0 => Some(Self::Data(number)),
            1 => Some(Self::Probe(number)),
            2 => Some(Self::Report(number)),
            _ => None,
        }
    }

    /// Appends the datagram, filled up to `size` bytes.
    pub(super) fn write(self, size: usize, out: &mut BytesMut) {
        let (kind, number) = match self {
            Self::Data(number) => (0, number),
            Self::Probe(number) => (1, number),
            Self::Report(number) => (2, number),
        };
        out.put_u8(kind);
        out.put_u64(number);
        out.put_bytes(0, size.saturating_sub(SIZE_MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for traffic in [
            Traffic::Data(7),
            Traffic::Probe(u64::MAX),
            Traffic::Report(0),
        ] {
            for size in [SIZE_MIN, 64, 1200] {
                let mut bytes = BytesMut::new();
                traffic.write(size, &mut bytes);
                assert_eq!(bytes.len(), size);
                assert_eq!(Traffic::parse(&bytes), Some(traffic));
            }
        }
        assert_eq!(Traffic::parse(&[0; 8]), None);
        assert_eq!(Traffic::parse(&[9; 20]), None);
    }
}
