//! Datagrams that arrive before the answer: kept in order, within bounds (RFC 9298 §5).
//!
//! A client may send before the 2xx. While names are resolved or the next hop is dialled, the first packets of
//! the inner protocol wait here, so that the client needs no retransmission. When a bound is reached the newest
//! is dropped: the first packets are the ones that start something.

use bytes::Bytes;

/// Bounds of what one tunnel keeps before it is open.
#[derive(Clone, Copy, Debug)]
pub struct EarlyLimits {
    /// Most datagrams.
    pub datagrams_max: usize,
    /// Most bytes of payload.
    pub bytes_max: usize,
}

/// UDP payloads that wait for their tunnel to open.
#[derive(Debug, Default)]
pub struct Early {
    payloads: Vec<Bytes>,
    bytes: usize,
}

impl Early {
    /// Keeps a payload if the bounds allow; whether they did. The payload is copied, since the original pins
    /// the buffer it was received into.
    pub fn push(&mut self, payload: &[u8], limits: EarlyLimits) -> bool {
        let fits = self.payloads.len() < limits.datagrams_max
            && self.bytes + payload.len() <= limits.bytes_max;
        if fits {
            self.bytes += payload.len();
            self.payloads.push(Bytes::copy_from_slice(payload));
        }
        fits
    }

    /// Everything kept, in order of arrival.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.payloads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: 9298-5-h, 9298-5-j, 9297-2.1-i
    #[test]
    fn keeps_the_first_in_order_within_both_bounds() {
        let limits = EarlyLimits {
            datagrams_max: 3,
            bytes_max: 10,
        };
        let mut early = Early::default();
        assert!(early.push(b"abcd", limits));
        assert!(!early.push(b"too long", limits));
        assert!(early.push(b"", limits));
        assert!(early.push(b"efghij", limits));
        assert!(!early.push(b"", limits));
        assert_eq!(early.take(), [&b"abcd"[..], b"", b"efghij"]);
        assert!(early.push(b"0123456789", limits));
    }
}
