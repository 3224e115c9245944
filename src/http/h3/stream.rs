//! One request stream: its two directions, what was read and not delivered, what was written and not sent.
//!
//! ```text
//!   recv   Head ──HEADERS──► Content ──HEADERS──► Trailers ──┐            (not CONNECT, or a refused one)
//!            └────HEADERS──► Tunnel ─────────────────────────┴─FIN─► Closed       (CONNECT: DATA only)
//!            any ──RESET_STREAM, or our STOP_SENDING──► Closed
//!
//!   send   Open ──finish──► Finishing ──all sent──► Closed     (the FIN waits behind what credit holds back)
//!            └──RESET_STREAM, the peer's STOP_SENDING──► Closed
//! ```
//!
//! A stream with both sides closed is forgotten. Idle tunnels hold no buffers, so that ten thousand cost little.

use bytes::{Buf, Bytes};

use super::budget::Balance;
use super::code::Code;
use super::config::Config;
use super::event::ConnectionError;
use super::frame::{FrameEvent, FrameReader};
use super::outgoing::Outgoing;
use crate::http::request::RequestHead;

/// Upgrade tokens that define HTTP datagrams (RFC 9298 section 5, RFC 9484 section 6; the bound-UDP draft shares the
/// first).
const DATAGRAM_PROTOCOLS: [&str; 2] = ["connect-udp", "connect-ip"];

/// The receiving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recv {
    /// Before the complete request, or before the final response.
    Head,
    /// Content of a message that is no tunnel; trailers may follow.
    Content,
    /// The data stream of a CONNECT.
    Tunnel,
    /// After trailers; only the end or unknown frames may follow.
    Trailers,
    /// Ended, reset or stopped.
    Closed,
}

/// The sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Send {
    Open,
    /// The FIN waits until everything before it is sent.
    Finishing,
    Closed,
}

/// What the request asks for, as far as framing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any method but CONNECT, and at a server a request that is not complete.
    Plain,
    ClassicConnect,
    ExtendedConnect {
        datagrams: bool,
    },
}

impl Kind {
    pub(super) fn of(head: &RequestHead) -> Self {
        match &head.protocol {
            Some(protocol) => Self::ExtendedConnect {
                datagrams: DATAGRAM_PROTOCOLS.contains(&&**protocol),
            },
            None if head.is_connect() => Self::ClassicConnect,
            None => Self::Plain,
        }
    }

    pub(super) fn is_connect(self) -> bool {
        self != Self::Plain
    }

    pub(super) fn has_datagrams(self) -> bool {
        self == Self::ExtendedConnect { datagrams: true }
    }
}

/// One open request stream.
#[derive(Debug)]
pub(super) struct Stream {
    reader: FrameReader,
    /// Read from the transport, not yet taken by the reader.
    pub(super) unread: Bytes,
    pub(super) outgoing: Outgoing,
    undelivered: Balance,
    pub(super) recv: Recv,
    pub(super) send: Send,
    pub(super) kind: Kind,
    /// Server: the final response is sent.
    pub(super) answered: bool,
    /// `send_data` said blocked, so the owner waits for `Event::Writable`.
    pub(super) wants_write: bool,
}

impl Stream {
    pub(super) fn new(config: &Config, kind: Kind) -> Self {
        Self {
            reader: FrameReader::new(config.headers_len_max),
            unread: Bytes::new(),
            outgoing: Outgoing::default(),
            undelivered: Balance::default(),
            recv: Recv::Head,
            send: Send::Open,
            kind,
            answered: false,
            wants_write: false,
        }
    }

    /// True when nothing is left to do in either direction.
    pub(super) fn is_over(&self) -> bool {
        self.recv == Recv::Closed && self.send == Send::Closed
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.unread.len() + self.outgoing.len()
    }

    pub(super) fn close_recv(&mut self) {
        self.recv = Recv::Closed;
        self.unread = Bytes::new();
    }

    pub(super) fn close_send(&mut self) {
        self.send = Send::Closed;
        self.outgoing.clear();
    }

    /// The next frame that means something, or piece of DATA of at most `piece_bytes_max`, from what was read.
    ///
    /// `connection` is the balance of the connection, which is charged like that of the stream.
    ///
    /// # Errors
    /// Bad layout, forbidden types, and H3_EXCESSIVE_LOAD of either balance.
    pub(super) fn next_frame(
        &mut self,
        piece_bytes_max: usize,
        connection: &mut Balance,
        config: &Config,
    ) -> Result<Option<FrameEvent>, ConnectionError> {
        let mut window = self.unread.slice(..self.unread.len().min(piece_bytes_max));
        loop {
            let offered = window.len();
            let event = self
                .reader
                .next(&mut window)
                .map_err(|code| ConnectionError::new(code, "bad frame on a request stream"))?;
            let consumed = offered.saturating_sub(window.len());
            self.unread.advance(consumed);
            self.undelivered.settle(
                consumed,
                event.as_ref(),
                config.undelivered_stream_bytes_max,
            )?;
            connection.settle(
                consumed,
                event.as_ref(),
                config.undelivered_connection_bytes_max,
            )?;
            if !matches!(event, Some(FrameEvent::Skipped { .. })) {
                if self.unread.is_empty() {
                    // An empty slice would keep the received packet alive.
                    self.unread = Bytes::new();
                }
                return Ok(event);
            }
        }
    }

    /// Takes an accepted head off both balances.
    pub(super) fn relieve(&mut self, head_len: usize, connection: &mut Balance) {
        self.undelivered.relieve(head_len);
        connection.relieve(head_len);
    }

    /// Checks that the peer may end its side here.
    ///
    /// # Errors
    /// H3_FRAME_ERROR inside a frame (RFC 9114 section 7.1).
    pub(super) fn check_end(&self) -> Result<(), ConnectionError> {
        if self.reader.is_mid_frame() {
            return Err(ConnectionError::new(
                Code::H3_FRAME_ERROR,
                "request stream ended inside a frame",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_is_small() {
        // Ten thousand tunnels on a connection cost two megabytes here.
        assert!(size_of::<Stream>() <= 200, "{}", size_of::<Stream>());
    }

    #[test]
    fn kind_follows_the_upgrade_token() {
        // spec: 9297-2-a
        let udp = RequestHead::extended_connect("connect-udp", "https", "relay.example", "/");
        assert!(Kind::of(&udp).has_datagrams());
        let tcp = RequestHead::extended_connect("connect-tcp", "https", "relay.example", "/");
        assert_eq!(Kind::of(&tcp), Kind::ExtendedConnect { datagrams: false });
        let classic = RequestHead::classic_connect("target.example:443");
        assert_eq!(Kind::of(&classic), Kind::ClassicConnect);
        assert!(Kind::of(&classic).is_connect());
    }
}
