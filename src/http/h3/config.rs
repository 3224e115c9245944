//! Limits of one HTTP/3 connection, each with the reason for its default.

use std::sync::Arc;

use ::http::StatusCode;

use super::settings::Grease;
use crate::http::request::ResponseHead;

/// Limits and settings of one connection. All sizes are in bytes.
///
/// What a peer can make the machine hold, apart from what QUIC itself buffers: `undelivered_connection_bytes_max`, and
/// for every request stream that QUIC lets it open `pending_write_bytes_max` and less than 200 bytes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest field section that we accept, counted as RFC 9114 section 4.2.2 does; announced in SETTINGS.
    /// A larger request is answered with `too_large`.
    pub field_section_size_max: u64,
    /// The answer to a request with a head that is too large: 431, and what the server says about itself.
    pub too_large: Arc<ResponseHead>,
    /// Longest HEADERS frame that we buffer; a longer one is H3_EXCESSIVE_LOAD. Must be larger than the size above,
    /// otherwise the 431 is never seen.
    pub headers_len_max: u64,
    /// How much of DATA frames waits on one stream for credit. A single frame above it is taken whole when nothing
    /// waits.
    pub pending_write_bytes_max: usize,
    /// How many bytes that never become content one request stream may carry beyond its content: unknown frames,
    /// interim responses, empty DATA frames, and a HEADERS frame until it is accepted. More is H3_EXCESSIVE_LOAD. Must
    /// be above `headers_len_max`.
    pub undelivered_stream_bytes_max: u32,
    /// The same for the whole connection, control and QPACK streams included.
    pub undelivered_connection_bytes_max: u32,
    /// How many unidirectional streams of unknown type a peer may open over the life of the connection.
    pub unknown_streams_max: u32,
    /// A reserved setting, so that peers keep ignoring what they do not know (RFC 9114 section 7.2.4.1).
    pub grease: Grease,
}

impl Config {
    /// CONNECT heads are below 1 KiB; tokens and certificates in fields may need a few more.
    pub const FIELD_SECTION_SIZE_MAX: u64 = 16 * 1024;
    /// Twice the field section: room to tell "too large" (431) from abuse.
    pub const HEADERS_LEN_MAX: u64 = 32 * 1024;
    /// Two reads of a TCP socket; more would only hide that the peer grants no credit.
    pub const PENDING_WRITE_BYTES_MAX: usize = 32 * 1024;
    /// Room for one HEADERS frame and thousands of GREASE frames.
    pub const UNDELIVERED_STREAM_BYTES_MAX: u32 = 64 * 1024;
    /// A thousand heads cut at the same moment, or tens of thousands of PRIORITY_UPDATE frames.
    pub const UNDELIVERED_CONNECTION_BYTES_MAX: u32 = 1024 * 1024;
    /// Peers that send GREASE open one or a few.
    pub const UNKNOWN_STREAMS_MAX: u32 = 256;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            field_section_size_max: Self::FIELD_SECTION_SIZE_MAX,
            too_large: Arc::new(ResponseHead::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            )),
            headers_len_max: Self::HEADERS_LEN_MAX,
            pending_write_bytes_max: Self::PENDING_WRITE_BYTES_MAX,
            undelivered_stream_bytes_max: Self::UNDELIVERED_STREAM_BYTES_MAX,
            undelivered_connection_bytes_max: Self::UNDELIVERED_CONNECTION_BYTES_MAX,
            unknown_streams_max: Self::UNKNOWN_STREAMS_MAX,
            grease: Grease::new(1, 0),
        }
    }
}
