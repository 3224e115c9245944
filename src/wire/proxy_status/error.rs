//! The registry of proxy error types.

macro_rules! proxy_errors {
    ($($variant:ident $token:literal $status:literal $doc:literal,)+) => {
        /// Why an intermediary did not deliver what was asked for: the types of RFC 9209 §2.3.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProxyError {
            $(#[doc = $doc] $variant,)+
        }

        impl ProxyError {
            /// Every type, in the order of the RFC.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The Token that stands in the field.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $token,)+
                }
            }

            /// The status code that the RFC recommends to go with the type.
            ///
            /// Where it leaves the choice, the most general code stands here: 400 for [`Self::HttpRequestError`],
            /// which goes with any 4xx, and 500 for [`Self::ProxyInternalResponse`], which goes with any.
            #[must_use]
            pub const fn recommended_status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)+
                }
            }

            /// The type of this name; `None` for one that RFC 9209 does not define.
            #[must_use]
            pub fn from_token(token: &str) -> Option<Self> {
                match token {
                    $($token => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

proxy_errors! {
    DnsTimeout "dns_timeout" 504 "The resolver did not answer in time.",
    DnsError "dns_error" 502 "The resolver answered with an error; see `rcode`.",
    DestinationNotFound "destination_not_found" 500 "No next hop is known for the request.",
    DestinationUnavailable "destination_unavailable" 503 "The next hop is known to be unavailable.",
    DestinationIpProhibited "destination_ip_prohibited" 502 "The address of the next hop must not be reached.",
    DestinationIpUnroutable "destination_ip_unroutable" 502 "There is no route to the next hop.",
    ConnectionRefused "connection_refused" 502 "The next hop refused the connection.",
    ConnectionTerminated "connection_terminated" 502 "The next hop closed the connection before the response ended.",
    ConnectionTimeout "connection_timeout" 504 "The connection to the next hop took too long.",
    ConnectionReadTimeout "connection_read_timeout" 504 "No data from the next hop in time.",
    ConnectionWriteTimeout "connection_write_timeout" 504 "No data could be written to the next hop in time.",
    ConnectionLimitReached "connection_limit_reached" 503 "There are as many connections to the next hop as allowed.",
    TlsProtocolError "tls_protocol_error" 502 "The TLS handshake with the next hop failed.",
    TlsCertificateError "tls_certificate_error" 502 "The certificate of the next hop is not acceptable.",
    TlsAlertReceived "tls_alert_received" 502 "The next hop sent a TLS alert; see `alert-id`.",
    HttpRequestError "http_request_error" 400 "The request itself is at fault.",
    HttpRequestDenied "http_request_denied" 403 "Policy refuses the request.",
    HttpResponseIncomplete "http_response_incomplete" 502 "The response of the next hop broke off.",
    HttpResponseHeaderSectionSize "http_response_header_section_size" 502 "The header section is too large.",
    HttpResponseHeaderSize "http_response_header_size" 502 "A header line of the response is too large.",
    HttpResponseBodySize "http_response_body_size" 502 "The content of the response is too large.",
    HttpResponseTrailerSectionSize "http_response_trailer_section_size" 502 "The trailer section is too large.",
    HttpResponseTrailerSize "http_response_trailer_size" 502 "A trailer line of the response is too large.",
    HttpResponseTransferCoding "http_response_transfer_coding" 502 "The transfer coding could not be decoded.",
    HttpResponseContentCoding "http_response_content_coding" 502 "The content coding could not be decoded.",
    HttpResponseTimeout "http_response_timeout" 504 "The next hop did not complete its response in time.",
    HttpUpgradeFailed "http_upgrade_failed" 502 "The upgrade towards the next hop failed.",
    HttpProtocolError "http_protocol_error" 502 "The next hop broke the rules of HTTP.",
    ProxyInternalResponse "proxy_internal_response" 500 "The intermediary made the response itself.",
    ProxyInternalError "proxy_internal_error" 500 "The intermediary is at fault.",
    ProxyConfigurationError "proxy_configuration_error" 500 "The configuration of the intermediary is at fault.",
    ProxyLoopDetected "proxy_loop_detected" 502 "The request has passed this intermediary before.",
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_complete() {
        assert_eq!(ProxyError::ALL.len(), 32);
        for error in ProxyError::ALL {
            assert_eq!(ProxyError::from_token(error.as_str()), Some(*error));
            assert!(sfv::TokenRef::from_str(error.as_str()).is_ok());
            assert!((400..600).contains(&error.recommended_status()));
        }
        assert_eq!(ProxyError::from_token("DNS_ERROR"), None);
    }
}
