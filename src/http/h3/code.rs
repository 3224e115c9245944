//! The error codes of HTTP/3, QPACK and HTTP datagrams (RFC 9114 section 8.1, RFC 9204 section 6,
//! RFC 9297 section 5.2).

use std::fmt;

use quinn_proto::VarInt;

/// An application error code of a connection or stream, at most 2^62 - 1.
///
/// Codes that have no name here count as [`Code::H3_NO_ERROR`] when a peer sends them
/// (RFC 9114 section 8).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u64);

macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident = $value:literal;)+) => {
        impl Code {
            $($(#[$doc])+ pub const $name: Self = Self($value);)+

            /// The name in the RFC, or `None` for a code without one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// A datagram could not be parsed.
    H3_DATAGRAM_ERROR = 0x33;
    /// Graceful close; also asks to stop sending a request.
    H3_NO_ERROR = 0x0100;
    /// The peer broke the protocol and no better code exists.
    H3_GENERAL_PROTOCOL_ERROR = 0x0101;
    /// Our own fault.
    H3_INTERNAL_ERROR = 0x0102;
    /// A stream that must not be created.
    H3_STREAM_CREATION_ERROR = 0x0103;
    /// The control stream or a QPACK stream was closed.
    H3_CLOSED_CRITICAL_STREAM = 0x0104;
    /// A frame that is not allowed here or now.
    H3_FRAME_UNEXPECTED = 0x0105;
    /// A frame with a bad layout or size.
    H3_FRAME_ERROR = 0x0106;
    /// The peer behaves in a way that creates excessive load.
    H3_EXCESSIVE_LOAD = 0x0107;
    /// A stream id or push id was misused.
    H3_ID_ERROR = 0x0108;
    /// A bad SETTINGS payload.
    H3_SETTINGS_ERROR = 0x0109;
    /// The control stream did not start with SETTINGS.
    H3_MISSING_SETTINGS = 0x010a;
    /// Not processed at all; safe to retry.
    H3_REQUEST_REJECTED = 0x010b;
    /// No longer wanted.
    H3_REQUEST_CANCELLED = 0x010c;
    /// The request was cut short.
    H3_REQUEST_INCOMPLETE = 0x010d;
    /// A malformed message.
    H3_MESSAGE_ERROR = 0x010e;
    /// The connection behind a CONNECT failed.
    H3_CONNECT_ERROR = 0x010f;
    /// Retry over HTTP/1.1.
    H3_VERSION_FALLBACK = 0x0110;
    /// A field section could not be decoded.
    QPACK_DECOMPRESSION_FAILED = 0x0200;
    /// A bad instruction on the encoder stream.
    QPACK_ENCODER_STREAM_ERROR = 0x0201;
    /// A bad instruction on the decoder stream.
    QPACK_DECODER_STREAM_ERROR = 0x0202;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Code {}

impl From<VarInt> for Code {
    fn from(code: VarInt) -> Self {
        Self(code.into_inner())
    }
}

impl From<Code> for VarInt {
    /// A value that no wire can carry becomes the largest one that it can.
    fn from(code: Code) -> Self {
        Self::from_u64(code.0).unwrap_or(Self::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_name_of_the_rfc() {
        assert_eq!(Code(0x10e).to_string(), "H3_MESSAGE_ERROR");
        assert_eq!(
            Code::QPACK_DECOMPRESSION_FAILED.to_string(),
            "QPACK_DECOMPRESSION_FAILED"
        );
        // spec: 9114-8-a
        assert_eq!(Code(0x40).name(), None);
        assert_eq!(Code(0x40).to_string(), "0x40");
    }

    #[test]
    fn converts_to_the_transport() {
        assert_eq!(
            VarInt::from(Code::H3_DATAGRAM_ERROR),
            VarInt::from_u32(0x33)
        );
        assert_eq!(
            Code::from(VarInt::from_u32(0x200)),
            Code::QPACK_DECOMPRESSION_FAILED
        );
        assert_eq!(VarInt::from(Code(u64::MAX)), VarInt::MAX);
    }
}
