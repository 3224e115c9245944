//! Proxy error types of RFC 9209 section 2.3.

/// A proxy error type, the value of the `error` parameter of `Proxy-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyError {
    /// RFC 9209 section 2.3.1.
    DnsTimeout,
    /// RFC 9209 section 2.3.2.
    DnsError,
    /// RFC 9209 section 2.3.3.
    DestinationNotFound,
    /// RFC 9209 section 2.3.4.
    DestinationUnavailable,
    /// RFC 9209 section 2.3.5.
    DestinationIpProhibited,
    /// RFC 9209 section 2.3.6.
    DestinationIpUnroutable,
    /// RFC 9209 section 2.3.7.
    ConnectionRefused,
    /// RFC 9209 section 2.3.8.
    ConnectionTerminated,
    /// RFC 9209 section 2.3.9.
    ConnectionTimeout,
    /// RFC 9209 section 2.3.10.
    ConnectionReadTimeout,
    /// RFC 9209 section 2.3.11.
    ConnectionWriteTimeout,
    /// RFC 9209 section 2.3.12.
    ConnectionLimitReached,
    /// RFC 9209 section 2.3.13.
    TlsProtocolError,
    /// RFC 9209 section 2.3.14.
    TlsCertificateError,
    /// RFC 9209 section 2.3.15.
    TlsAlertReceived,
    /// RFC 9209 section 2.3.16.
    HttpRequestError,
    /// RFC 9209 section 2.3.17.
    HttpRequestDenied,
    /// RFC 9209 section 2.3.18.
    HttpResponseIncomplete,
    /// RFC 9209 section 2.3.19.
    HttpResponseHeaderSectionSize,
    /// RFC 9209 section 2.3.20.
    HttpResponseHeaderSize,
    /// RFC 9209 section 2.3.21.
    HttpResponseBodySize,
    /// RFC 9209 section 2.3.22.
    HttpResponseTrailerSectionSize,
    /// RFC 9209 section 2.3.23.
    HttpResponseTrailerSize,
    /// RFC 9209 section 2.3.24.
    HttpResponseTransferCoding,
    /// RFC 9209 section 2.3.25.
    HttpResponseContentCoding,
    /// RFC 9209 section 2.3.26.
    HttpResponseTimeout,
    /// RFC 9209 section 2.3.27.
    HttpUpgradeFailed,
    /// RFC 9209 section 2.3.28.
    HttpProtocolError,
    /// RFC 9209 section 2.3.29.
    ProxyInternalResponse,
    /// RFC 9209 section 2.3.30.
    ProxyInternalError,
    /// RFC 9209 section 2.3.31.
    ProxyConfigurationError,
    /// RFC 9209 section 2.3.32.
    ProxyLoopDetected,
}

impl ProxyError {
    /// The token on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DnsTimeout => "dns_timeout",
            Self::DnsError => "dns_error",
            Self::DestinationNotFound => "destination_not_found",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::DestinationIpProhibited => "destination_ip_prohibited",
            Self::DestinationIpUnroutable => "destination_ip_unroutable",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionReadTimeout => "connection_read_timeout",
            Self::ConnectionWriteTimeout => "connection_write_timeout",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::TlsProtocolError => "tls_protocol_error",
            Self::TlsCertificateError => "tls_certificate_error",
            Self::TlsAlertReceived => "tls_alert_received",
            Self::HttpRequestError => "http_request_error",
            Self::HttpRequestDenied => "http_request_denied",
            Self::HttpResponseIncomplete => "http_response_incomplete",
            Self::HttpResponseHeaderSectionSize => "http_response_header_section_size",
            Self::HttpResponseHeaderSize => "http_response_header_size",
            Self::HttpResponseBodySize => "http_response_body_size",
            Self::HttpResponseTrailerSectionSize => "http_response_trailer_section_size",
            Self::HttpResponseTrailerSize => "http_response_trailer_size",
            Self::HttpResponseTransferCoding => "http_response_transfer_coding",
            Self::HttpResponseContentCoding => "http_response_content_coding",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpUpgradeFailed => "http_upgrade_failed",
            Self::HttpProtocolError => "http_protocol_error",
            Self::ProxyInternalResponse => "proxy_internal_response",
            Self::ProxyInternalError => "proxy_internal_error",
            Self::ProxyConfigurationError => "proxy_configuration_error",
            Self::ProxyLoopDetected => "proxy_loop_detected",
        }
    }
}
