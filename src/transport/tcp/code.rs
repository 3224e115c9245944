//! Stream errors between HTTP/2 and HTTP/3, whose codes the rest of the program uses (RFC 9114 appendix A.4).

use h2::Reason;

use crate::http::h3::code::Code;

/// The code of HTTP/3 for what a peer said on HTTP/2. A code without a name here counts as NO_ERROR.
pub(super) fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::PROTOCOL_ERROR => Code::H3_MESSAGE_ERROR,
        Reason::INTERNAL_ERROR => Code::H3_INTERNAL_ERROR,
        Reason::FRAME_SIZE_ERROR => Code::H3_FRAME_ERROR,
        Reason::FLOW_CONTROL_ERROR | Reason::STREAM_CLOSED | Reason::INADEQUATE_SECURITY => {
            Code::H3_GENERAL_PROTOCOL_ERROR
        }
        Reason::SETTINGS_TIMEOUT => Code::H3_SETTINGS_ERROR,
        Reason::REFUSED_STREAM => Code::H3_REQUEST_REJECTED,
        Reason::CANCEL => Code::H3_REQUEST_CANCELLED,
        Reason::COMPRESSION_ERROR => Code::QPACK_DECOMPRESSION_FAILED,
        Reason::CONNECT_ERROR => Code::H3_CONNECT_ERROR,
        Reason::ENHANCE_YOUR_CALM => Code::H3_EXCESSIVE_LOAD,
        Reason::HTTP_1_1_REQUIRED => Code::H3_VERSION_FALLBACK,
        _ => Code::H3_NO_ERROR,
    }
}

/// The code of HTTP/2 for one of HTTP/3.
pub(super) fn reason_of(code: Code) -> Reason {
    match code {
        Code::H3_NO_ERROR => Reason::NO_ERROR,
        Code::H3_INTERNAL_ERROR => Reason::INTERNAL_ERROR,
        Code::H3_FRAME_ERROR => Reason::FRAME_SIZE_ERROR,
        Code::H3_EXCESSIVE_LOAD => Reason::ENHANCE_YOUR_CALM,
        Code::H3_REQUEST_REJECTED => Reason::REFUSED_STREAM,
        Code::H3_REQUEST_CANCELLED => Reason::CANCEL,
        Code::H3_CONNECT_ERROR => Reason::CONNECT_ERROR,
        Code::H3_VERSION_FALLBACK => Reason::HTTP_1_1_REQUIRED,
        Code::QPACK_DECOMPRESSION_FAILED => Reason::COMPRESSION_ERROR,
        Code(_) => Reason::PROTOCOL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_both_versions() {
        for code in [
            Code::H3_NO_ERROR,
            Code::H3_INTERNAL_ERROR,
            Code::H3_FRAME_ERROR,
            Code::H3_EXCESSIVE_LOAD,
            Code::H3_REQUEST_REJECTED,
            Code::H3_REQUEST_CANCELLED,
            Code::H3_CONNECT_ERROR,
            Code::H3_VERSION_FALLBACK,
            Code::H3_MESSAGE_ERROR,
        ] {
            assert_eq!(code_of(reason_of(code)), code);
        }
        for code in [
            Code::H3_DATAGRAM_ERROR,
            Code::H3_FRAME_UNEXPECTED,
            Code(0x40),
        ] {
            assert_eq!(reason_of(code), Reason::PROTOCOL_ERROR);
        }
        assert_eq!(code_of(Reason::from(0x77)), Code::H3_NO_ERROR);
    }
}
