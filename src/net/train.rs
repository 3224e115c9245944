//! Runs of datagrams: what one receive call brings and what one send call takes.
//!
//! ```text
//!   ┌──────────────┬──────────────┬──────────────┬─────────┐
//!   │ segment_size │ segment_size │ segment_size │ shorter │   one peer, one buffer, one call
//!   └──────────────┴──────────────┴──────────────┴─────────┘
//! ```
//!
//! All datagrams of a train have one size, except the last, which may be shorter. An empty datagram is a train of its
//! own: between others it would have no bytes to be found by.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

/// The most datagrams that one send call may carry (`UDP_MAX_SEGMENTS` of the oldest kernels with UDP_SEGMENT).
pub const TRAIN_SEGMENTS_MAX: usize = 64;

/// The most bytes that one send call may carry: what IPv4's length field leaves for the payload of one packet.
pub const TRAIN_BYTES_MAX: usize = 65_507;

/// One or more datagrams that one peer sent, in the order of arrival.
///
/// The bytes are a part of a pooled chunk of 256 KiB: nobody copies them, and whoever keeps them keeps the whole chunk.
/// Copy what has to wait longer than a turn.
#[derive(Debug)]
pub struct Train {
    /// Who sent it. For a connected socket the peer it is connected to.
    pub peer: SocketAddr,
    /// The address the peer sent to, where the socket reports it ([`SocketKind::Shared`](super::SocketKind::Shared)).
    pub local_ip: Option<IpAddr>,
    /// The two ECN bits, where the socket reports them; all datagrams of a train carry the same.
    pub ecn: Option<u8>,
    /// Bytes of every datagram but the last. Zero only if `data` is empty.
    pub segment_size: usize,
    /// The datagrams, one behind the other; no bytes are one empty datagram.
    pub data: BytesMut,
}

impl Train {
    /// Number of datagrams, at least one.
    #[must_use]
    pub fn datagram_count(&self) -> usize {
        datagram_count(self.data.len(), self.segment_size)
    }

    /// The datagrams one by one, as parts of the same buffer.
    #[must_use]
    pub fn segments(self) -> Segments {
        Segments::new(self.data, self.segment_size)
    }
}

/// Datagrams in `bytes` bytes cut at every `segment_size`.
pub(super) fn datagram_count(bytes: usize, segment_size: usize) -> usize {
    bytes.div_ceil(segment_size.max(1)).max(1)
}

/// The datagrams of a [`Train`].
#[derive(Debug)]
pub struct Segments {
    segment_size: usize,
    rest: Option<BytesMut>,
}

impl Segments {
    /// What lies in `data`, cut at every `segment_size`.
    pub(super) fn new(data: BytesMut, segment_size: usize) -> Self {
        Self {
            segment_size: segment_size.max(1),
            rest: Some(data),
        }
    }

    /// Bytes of those that are left.
    pub(super) fn bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, BytesMut::len)
    }
}

impl Iterator for Segments {
    type Item = BytesMut;

    fn next(&mut self) -> Option<BytesMut> {
        let rest = self.rest.as_mut()?;
        if rest.len() <= self.segment_size {
            return self.rest.take();
        }
        Some(rest.split_to(self.segment_size))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.rest {
            Some(rest) => datagram_count(rest.len(), self.segment_size),
            None => 0,
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Segments {}

/// Datagrams to send, one behind the other in a buffer that the caller owns.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to; `None` on a connected socket.
    pub peer: Option<SocketAddr>,
    /// The address to send from; `None` leaves it to the routing table. Ignored on a connected socket.
    pub local_ip: Option<IpAddr>,
    /// The two ECN bits; `None` is Not-ECT. Ignored on a connected socket, which always sends Not-ECT
    /// (RFC 9298 section 6.2).
    pub ecn: Option<u8>,
    /// Bytes of every datagram but the last, which may be shorter; `None` for a single datagram.
    pub segment_size: Option<usize>,
    /// The datagrams. Any length: the driver splits what one call cannot carry. No bytes are one empty datagram.
    pub contents: &'a [u8],
}

/// How many datagrams of `segment_size` bytes fit into one call; at least one, which may then turn out too large.
pub(super) fn segments_per_call(segment_size: usize) -> usize {
    (TRAIN_BYTES_MAX / segment_size.max(1)).clamp(1, TRAIN_SEGMENTS_MAX)
}

/// How many of the first datagrams, given their lengths, can leave as one train: equal ones, and then at most one that
/// is shorter but not empty.
pub(super) fn run_length(lengths: impl IntoIterator<Item = usize>) -> usize {
    let mut lengths = lengths.into_iter();
    let Some(first) = lengths.next() else {
        return 0;
    };
    if first == 0 {
        return 1;
    }
    let mut count = 1;
    let mut bytes = first;
    for length in lengths {
        bytes += length;
        if length == 0 || length > first || count == TRAIN_SEGMENTS_MAX || bytes > TRAIN_BYTES_MAX {
            break;
        }
        count += 1;
        if length < first {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn train(length: usize, segment_size: usize) -> Train {
        let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        Train {
            peer: SocketAddr::from(([127, 0, 0, 1], 9)),
            local_ip: None,
            ecn: None,
            segment_size,
            data: BytesMut::from(&data[..]),
        }
    }

    fn lengths(length: usize, segment_size: usize) -> Vec<usize> {
        let segments = train(length, segment_size).segments();
        assert_eq!(segments.len(), train(length, segment_size).datagram_count());
        segments.map(|segment| segment.len()).collect()
    }

    #[test]
    fn segments_of_every_shape() {
        assert_eq!(lengths(2500, 1000), [1000, 1000, 500]);
        assert_eq!(lengths(2000, 1000), [1000, 1000]);
        assert_eq!(lengths(3, 1000), [3]);
        assert_eq!(lengths(0, 0), [0]);
        assert_eq!(lengths(0, 1000), [0]);
        assert_eq!(lengths(2, 0), [1, 1], "never an endless loop");
    }

    #[test]
    fn runs_end_where_a_train_must() {
        assert_eq!(run_length([]), 0);
        assert_eq!(run_length([5]), 1);
        assert_eq!(run_length([5, 5, 5]), 3);
        assert_eq!(run_length([5, 5, 4, 5]), 3);
        assert_eq!(run_length([5, 5, 6]), 2);
        assert_eq!(run_length([5, 5, 0, 5]), 2);
        assert_eq!(run_length([0, 0]), 1);
        assert_eq!(run_length([1200; 100]), 54);
        assert_eq!(run_length([64; 100]), 64);
        assert_eq!(run_length([70_000, 70_000]), 1);
        assert_eq!(segments_per_call(1200), 54);
        assert_eq!(segments_per_call(1), 64);
        assert_eq!(segments_per_call(0), 64);
        assert_eq!(segments_per_call(70_000), 1);
    }

    proptest! {
        #[test]
        fn segments_are_the_bytes(length in 0usize..4000, segment_size in 1usize..1500) {
            let whole = train(length, segment_size).data;
            let joined: Vec<u8> = train(length, segment_size).segments().flatten().collect();
            prop_assert_eq!(joined, whole);
        }

        #[test]
        fn runs_can_be_sent(lengths in proptest::collection::vec(0usize..1500, 1..200)) {
            let count = run_length(lengths.iter().copied());
            prop_assert!((1..=TRAIN_SEGMENTS_MAX).contains(&count));
            let run = &lengths[..count];
            prop_assert!(run.iter().sum::<usize>() <= TRAIN_BYTES_MAX);
            let (last, equal) = run.split_last().unwrap();
            prop_assert!(equal.iter().all(|length| *length == run[0]));
            prop_assert!(count == 1 || (1..=run[0]).contains(last));
        }
    }
}
