//! The account of octets that a peer sends without them ever becoming content (RFC 9114 section 10.5).
//!
//! ```text
//!   unknown frame, empty DATA, part of a head ──charge──► balance ──above the limit──► H3_EXCESSIVE_LOAD
//!   content, accepted head                    ──relieve─► balance, never below zero
//! ```
//!
//! A balance instead of a total: a tunnel may live for weeks with a reserved frame now and then.

use super::code::Code;
use super::event::ConnectionError;
use super::frame::FrameEvent;

/// Two varints of the longest form.
const FRAME_HEADER_LEN_MAX: usize = 16;

/// Octets charged and not yet relieved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Balance(u32);

impl Balance {
    /// # Errors
    /// H3_EXCESSIVE_LOAD once the balance is above `max`.
    pub(super) fn charge(&mut self, bytes: usize, max: u32) -> Result<(), ConnectionError> {
        self.0 = self.0.saturating_add(saturated(bytes));
        if self.0 > max {
            return Err(ConnectionError::new(
                Code::H3_EXCESSIVE_LOAD,
                "too many bytes without content",
            ));
        }
        Ok(())
    }

    /// Takes off what became content, and a frame header, which may have been charged apart from it.
    pub(super) fn relieve(&mut self, bytes: usize) {
        let earned = bytes.saturating_add(FRAME_HEADER_LEN_MAX);
        self.0 = self.0.saturating_sub(saturated(earned));
    }

    /// Accounts for `consumed` octets that gave `event`. A head is charged until somebody accepts it.
    ///
    /// # Errors
    /// As [`Balance::charge`].
    pub(super) fn settle(
        &mut self,
        consumed: usize,
        event: Option<&FrameEvent>,
        max: u32,
    ) -> Result<(), ConnectionError> {
        match event {
            Some(FrameEvent::Data(content)) if !content.is_empty() => {
                self.relieve(content.len());
                Ok(())
            }
            _ => self.charge(consumed, max),
        }
    }
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn content_pays_for_what_is_skipped() {
        // spec: 9114-10.5-a
        let mut balance = Balance::default();
        for _ in 0..1000 {
            balance.settle(90, None, 100).unwrap();
            let content = FrameEvent::Data(Bytes::from_static(&[0; 90]));
            balance.settle(92, Some(&content), 100).unwrap();
        }
        assert_eq!(balance, Balance(0));
        balance.settle(100, None, 100).unwrap();
        let error = balance.settle(1, None, 100).unwrap_err();
        assert_eq!(error.code, Code::H3_EXCESSIVE_LOAD);
    }

    #[test]
    fn empty_content_pays_nothing() {
        let mut balance = Balance::default();
        let empty = FrameEvent::Data(Bytes::new());
        balance.settle(2, Some(&empty), 3).unwrap();
        balance.settle(2, Some(&empty), 3).unwrap_err();
    }
}
