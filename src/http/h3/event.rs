//! What the HTTP/3 machine tells its owner: events, results and errors, all closed sets.

use bytes::Bytes;
use quinn_proto::StreamId;

use super::code::Code;
use super::qpack;
use super::settings::Settings;
use crate::http::request::{HeadError, RequestHead, ResponseHead};

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We opened the connection and send requests.
    Client,
    /// We accepted the connection and answer requests.
    Server,
}

/// Something that happened. Streams are request streams; for each id the last event is one of `Aborted` or `Reset`,
/// or none when both directions ended in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The peer's SETTINGS arrived; requests with `:protocol` and the datagram mode depend on them.
    Settings(Settings),
    /// Server: a complete and well-formed request. Data may follow at once, so read once now.
    Request {
        /// The stream, to be answered with `respond`.
        id: StreamId,
        /// The head.
        head: Box<RequestHead>,
    },
    /// Client: the final response. Data may follow at once, so read once now.
    Response {
        /// The stream of the request.
        id: StreamId,
        /// The head.
        head: Box<ResponseHead>,
    },
    /// Data, the end or both wait on this stream: `recv_data` until it says blocked.
    Readable {
        /// The stream.
        id: StreamId,
    },
    /// A stream on which `send_data` said blocked takes data again.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The peer reset its sending side. The other direction stands until `reset` or `finish`; before the head of the
    /// request or the final response the whole stream is over.
    Reset {
        /// The stream.
        id: StreamId,
        /// The peer's code; H3_REQUEST_REJECTED says that a retry is safe.
        code: Code,
    },
    /// The peer reads no more of this stream. Our sending side is reset, the receiving side stands.
    Stopped {
        /// The stream.
        id: StreamId,
        /// The peer's code.
        code: Code,
    },
    /// The machine ended the stream itself, both directions; forget it. A server also hears of streams for which no
    /// `Request` came, so that they can be counted.
    Aborted {
        /// The stream.
        id: StreamId,
        /// Why, which also gives the code that was sent.
        reason: Abort,
    },
    /// Client: the peer grants more request streams after `RequestError::StreamsExhausted`.
    StreamsAvailable,
    /// The peer shuts down. For a client `id` is the first request stream that was not processed, and requests that
    /// wait at or above it are aborted as [`Abort::NotProcessed`]; for a server it is a push id without effect.
    GoAway {
        /// Stream or push id.
        id: u64,
    },
}

/// Why the machine ended a request stream by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Abort {
    /// The head is malformed (RFC 9114 section 4.1.2).
    #[error("malformed head: {0}")]
    Malformed(HeadError),
    /// The stream ended before the head was complete (RFC 9114 section 4.1).
    #[error("the stream ended before its head")]
    Incomplete,
    /// The field section exceeds a limit of ours. A server answered with 431.
    #[error("{0}")]
    TooLarge(qpack::Error),
    /// Server: the request came after our final GOAWAY. Client: it is at or above the id of the server's GOAWAY.
    /// Nobody processed it, a retry elsewhere is safe (RFC 9114 section 5.2).
    #[error("not processed, the connection is going away")]
    NotProcessed,
    /// A datagram arrived for a request without datagrams (RFC 9297 section 2).
    #[error("datagram on a request without datagrams")]
    DatagramUnexpected,
}

impl Abort {
    /// The code in our RESET_STREAM and STOP_SENDING. A server sends none for `TooLarge`: it answers.
    pub const fn code(&self, role: Role) -> Code {
        match (self, role) {
            (Self::Malformed(_), _) | (Self::Incomplete, Role::Client) => Code::H3_MESSAGE_ERROR,
            (Self::Incomplete, Role::Server) => Code::H3_REQUEST_INCOMPLETE,
            (Self::TooLarge(_), Role::Server) => Code::H3_NO_ERROR,
            (Self::NotProcessed, Role::Server) => Code::H3_REQUEST_REJECTED,
            (Self::TooLarge(_) | Self::NotProcessed, Role::Client) => Code::H3_REQUEST_CANCELLED,
            (Self::DatagramUnexpected, _) => Code::H3_DATAGRAM_ERROR,
        }
    }
}

/// An error of the whole connection: close QUIC with this application code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct ConnectionError {
    /// The application error code of CONNECTION_CLOSE.
    pub code: Code,
    /// What the peer did, for logs and the reason phrase.
    pub reason: &'static str,
}

impl ConnectionError {
    pub(super) const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Extended CONNECT has to wait for the peer's SETTINGS (RFC 8441 section 3).
    #[error("the peer's SETTINGS have not arrived")]
    NoSettingsYet,
    /// The peer does not offer extended CONNECT.
    #[error("the peer does not support extended CONNECT")]
    ExtendedConnectUnsupported,
    /// One of the two ends sent GOAWAY.
    #[error("the connection is going away")]
    GoingAway,
    /// The peer grants no stream; `Event::StreamsAvailable` follows.
    #[error("no request stream available")]
    StreamsExhausted,
    /// The head exceeds what the peer accepts.
    #[error("field section of {size} bytes, the peer accepts {max}")]
    TooLarge {
        /// Size of the head in bytes.
        size: u64,
        /// The peer's limit in bytes.
        max: u64,
    },
}

/// Why a response was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RespondError {
    /// The sending side is over: stopped by the peer, finished or reset.
    #[error("the stream is gone")]
    Gone,
    /// A final response went out before.
    #[error("the request has been answered")]
    Answered,
    /// The head exceeds what the peer accepts. Nothing was sent.
    #[error("field section of {size} bytes, the peer accepts {max}")]
    TooLarge {
        /// Size of the head in bytes.
        size: u64,
        /// The peer's limit in bytes.
        max: u64,
    },
}

/// What `recv_data` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecvData {
    /// The next bytes of the data stream; never empty.
    Data(Bytes),
    /// Nothing at the moment; `Event::Readable` follows.
    Blocked,
    /// The peer ended its side in order.
    Finished,
    /// The peer reset its side with this code.
    Reset(Code),
    /// The receiving side was over before: an end was reported, or we stopped it.
    Gone,
}

/// What became of the bytes given to `send_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendData {
    /// All taken.
    Written,
    /// None taken; `Event::Writable` follows.
    Blocked,
    /// None taken, and none ever will be.
    Gone,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAway {
    /// Announces the end, rejects nothing yet: the largest id.
    Soft,
    /// Names the first request that is not processed any more.
    Final,
}

/// How HTTP datagrams travel towards the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramMode {
    /// The peer's SETTINGS are not known; hold datagrams, or use capsules.
    Pending,
    /// QUIC DATAGRAM frames.
    Frames,
    /// DATAGRAM capsules on the stream: one end has no QUIC datagrams.
    Capsules,
}

/// Where the payload of a QUIC DATAGRAM frame belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramRoute {
    /// To this open request. On a request without a response yet, hold it within bounds.
    Stream {
        /// The request stream.
        id: StreamId,
        /// Where the HTTP datagram payload starts, in bytes.
        header_len: usize,
    },
    /// To a request that has not arrived yet: hold it within bounds for about one round trip, or drop it.
    Early {
        /// The stream that the request will have.
        id: StreamId,
        /// Where the HTTP datagram payload starts, in bytes.
        header_len: usize,
    },
    /// Nowhere.
    Drop(DatagramDrop),
}

/// Why a datagram goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramDrop {
    /// The stream is over.
    StreamGone,
    /// The peer ended or reset its side of the stream.
    ReceiveClosed,
    /// Client: we have not opened this stream.
    NotOpened,
    /// The request has no datagrams; its stream was aborted.
    Unexpected,
}
