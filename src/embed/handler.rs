//! Who decides what becomes of a request: the user's [`Handler`].
//!
//! ```text
//!   Request ─► Handler::accept ─┬─► Accept::session   ready at once: 2xx, then callbacks
//!                               ├─► Accept::init      a future; its session, then 2xx
//!                               ├─► Accept::later     a future that decides, then as if it had been decided at once
//!                               ├─► what UdpProxy, TcpProxy, Chain, Proxies accept: moved by the worker itself
//!                               └─► Reject            status, fields, reason
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, IntoHeaderName, InvalidHeaderValue, PROXY_AUTHENTICATE,
    RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::proxy::{Later, Way};
use super::request::Request;
use super::session::Session;
use crate::error::Refusal;
use crate::wire::field::CAPSULE_PROTOCOL;
use crate::wire::proxy_status::ProxyError;
use crate::worker::Rejection;

/// Fields that belong to the framing of a response, or to the protocol of the tunnel.
const RESERVED: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CAPSULE_PROTOCOL,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Decides what becomes of the requests for tunnels of a [`Listener`](super::Listener) or an
/// [`Embedding`](super::Embedding).
///
/// One handler serves all workers at once. Closures are handlers, and handlers wrap each other:
///
/// ```
/// use bauta::{Accept, Handler, Proxies, Reject, Request};
///
/// struct Guarded<H> {
///     inner: H,
/// }
///
/// impl<H: Handler> Handler for Guarded<H> {
///     fn accept(&self, request: &Request) -> Result<Accept, Reject> {
///         if request.headers().get("x-key").is_none_or(|key| key != "sesame") {
///             return Err(Reject::forbidden());
///         }
///         self.inner.accept(request)
///     }
/// }
///
/// let handler = Guarded { inner: Proxies::new() };
/// # let _ = handler;
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Accepts or rejects a request.
    ///
    /// Runs on the worker thread, between the packets of everybody else: what takes time, or waits, goes into
    /// [`Accept::init`] or [`Accept::later`]. A panic answers 500, is logged and counted, and hurts nobody else.
    ///
    /// # Errors
    /// The answer to give instead of a tunnel.
    fn accept(&self, request: &Request) -> Result<Accept, Reject>;
}

impl<F> Handler for F
where
    F: Fn(&Request) -> Result<Accept, Reject> + Send + Sync + 'static,
{
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        self(request)
    }
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        (**self).accept(request)
    }
}

/// For handlers that are chosen when the program runs.
impl Handler for Box<dyn Handler> {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        (**self).accept(request)
    }
}

/// How a tunnel is served.
pub(super) enum Ready {
    /// By callbacks.
    Session(Box<dyn Session>),
    /// By the worker itself.
    Way(Way),
}

/// How a tunnel is served, or what will say it.
pub(super) enum Service {
    Ready(Ready),
    Later(Later<Result<Accept, Reject>>),
}

/// How a tunnel is served, and the fields of its 2xx.
pub(super) type Served = (Ready, HeaderMap);

/// A tunnel that will be served, and how.
#[must_use]
pub struct Accept {
    pub(super) service: Service,
    pub(super) headers: HeaderMap,
}

impl Accept {
    fn new(service: Service) -> Self {
        Self {
            service,
            headers: HeaderMap::new(),
        }
    }

    pub(super) fn ready(ready: Ready) -> Self {
        Self::new(Service::Ready(ready))
    }

    /// A tunnel that ends in `session`, which is ready: the 2xx goes out at once.
    pub fn session(session: impl Session) -> Self {
        Self::ready(Ready::Session(Box::new(session)))
    }

    /// A tunnel that ends in the session that `init` makes: opening a database, dialling, asking somebody else whether
    /// the client may.
    ///
    /// The 2xx waits for it. The future runs on the control thread, on a tokio runtime with timers and I/O, and must
    /// not block: it shares the thread with the resolver and other requests. It is dropped when the client leaves, or
    /// when the time for opening is over ([`ListenerBuilder::open_timeout`](super::ListenerBuilder::open_timeout)). A
    /// panic answers 500.
    pub fn init<S, F>(init: F) -> Self
    where
        S: Session,
        F: Future<Output = Result<S, Reject>> + Send + 'static,
    {
        Self::later(async move { Ok(Self::session(init.await?)) })
    }

    /// A decision that takes a while: what `decision` comes to is handled as if [`Handler::accept`] had said it,
    /// whichever handler it comes from. It runs, and is dropped, as the future of [`Accept::init`] is; all futures of
    /// one request share the time for opening.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use bauta::{Accept, Handler, Proxies, Reject, Request};
    ///
    /// # async fn is_known(token: &http::HeaderValue) -> bool {
    /// #     token == "sesame"
    /// # }
    /// struct Guarded<H> {
    ///     inner: Arc<H>,
    /// }
    ///
    /// impl<H: Handler> Handler for Guarded<H> {
    ///     fn accept(&self, request: &Request) -> Result<Accept, Reject> {
    ///         let (inner, request) = (Arc::clone(&self.inner), request.clone());
    ///         Ok(Accept::later(async move {
    ///             match request.headers().get("x-key") {
    ///                 Some(key) if is_known(key).await => inner.accept(&request),
    ///                 _ => Err(Reject::forbidden()),
    ///             }
    ///         }))
    ///     }
    /// }
    ///
    /// let handler = Guarded { inner: Arc::new(Proxies::new()) };
    /// # let _ = handler;
    /// ```
    pub fn later<F>(decision: F) -> Self
    where
        F: Future<Output = Result<Self, Reject>> + Send + 'static,
    {
        Self::new(Service::Later(Box::pin(decision)))
    }

    /// How the tunnel is served, or the future that will say it, of all futures together.
    pub(super) fn served(self) -> Result<Served, Later<Result<Served, Reject>>> {
        let Self { service, headers } = self;
        match service {
            Service::Ready(ready) => Ok((ready, without_reserved(headers))),
            Service::Later(mut later) => Err(Box::pin(async move {
                let mut headers = headers;
                loop {
                    let accept = later.await?;
                    for (name, value) in &accept.headers {
                        headers.append(name, value.clone());
                    }
                    match accept.service {
                        Service::Ready(ready) => return Ok((ready, without_reserved(headers))),
                        Service::Later(next) => later = next,
                    }
                }
            })),
        }
    }

    /// Adds a field to the 2xx.
    ///
    /// Fields that belong to the framing of the response, such as `content-length`, are left out of it, and so is
    /// `capsule-protocol`.
    ///
    /// # Panics
    /// When `name` is a string that is no field name, as everywhere in the `http` package.
    pub fn header(mut self, name: impl IntoHeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = match &self.service {
            Service::Ready(Ready::Session(_)) => "session",
            Service::Ready(Ready::Way(_)) => "proxy",
            Service::Later(_) => "later",
        };
        f.debug_struct("Accept")
            .field("service", &service)
            .field("headers", &self.headers)
            .finish()
    }
}

/// The answer to a request that gets no tunnel.
///
/// It always carries a member of `Proxy-Status` (RFC 9209), by which a client tells this answer from one of somebody
/// behind us: our name, and an error type that goes with the status, such as `http_request_denied` with 401, 403, 407
/// and 429. [`reason`](Self::reason) adds details.
///
/// ```
/// use bauta::Reject;
/// use http::{HeaderValue, StatusCode};
///
/// let closed = Reject::too_many_requests(60).reason("one tunnel a minute");
/// assert_eq!(closed.status(), StatusCode::TOO_MANY_REQUESTS);
///
/// let elsewhere = Reject::new(StatusCode::MISDIRECTED_REQUEST)
///     .header("x-relay", HeaderValue::from_static("relay2.example"));
/// assert_eq!(elsewhere.headers()["x-relay"], "relay2.example");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Reject {
    status: StatusCode,
    error: ProxyError,
    reason: Option<String>,
    /// Boxed, so that a result with a rejection in it stays small.
    headers: Box<HeaderMap>,
}

impl Reject {
    /// Answers with `status`. One outside 3xx to 5xx would not be a rejection, and becomes 500.
    pub fn new(status: StatusCode) -> Self {
        let is_final = status.is_redirection() || status.is_client_error();
        let status = match is_final || status.is_server_error() {
            true => status,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            status,
            error: error_of(status),
            reason: None,
            headers: Box::default(),
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST)
    }

    /// 401 with a challenge (RFC 9110 §11.6.1), such as `Bearer` or `PrivateToken challenge="…"` (RFC 9577 §2.1).
    ///
    /// For tunnels under a template. A classic CONNECT asks us as a proxy: [`Reject::proxy_unauthorized`].
    pub fn unauthorized(challenge: HeaderValue) -> Self {
        Self::new(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, challenge)
    }

    /// 407 with a challenge (RFC 9110 §11.7.1), for a classic CONNECT.
    pub fn proxy_unauthorized(challenge: HeaderValue) -> Self {
        Self::new(StatusCode::PROXY_AUTHENTICATION_REQUIRED).header(PROXY_AUTHENTICATE, challenge)
    }

    /// 403: not for this client.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN)
    }

    /// 404: nothing is served there.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND)
    }

    /// 429: the client asks too much; it may come back after `seconds`.
    pub fn too_many_requests(seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS).header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// 501: this form of tunnel is not served.
    ///
    /// Clients that race carriers take this for a word about the HTTP version, as they do 421 and 505, and ask again on
    /// the next one: with bauta's own client a handler that answers 501 is called up to three times per tunnel, with
    /// another [`Request::carrier`] each time. Who means the target or the client answers
    /// [`forbidden`](Self::forbidden).
    pub fn unsupported() -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED)
    }

    /// 502: what lies behind cannot be reached.
    pub fn bad_gateway() -> Self {
        Self::new(StatusCode::BAD_GATEWAY)
    }

    /// 503: not now.
    pub fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Says why, in the `details` parameter of `Proxy-Status`. It is for people who look for faults, and goes to a
    /// stranger: no secrets, nothing about the network behind. Bytes outside printable ASCII are left out.
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.retain(|c| matches!(c, ' '..='~'));
        self.reason = Some(text);
        self
    }

    /// Adds a field to the answer, as [`Accept::header`] does.
    ///
    /// # Panics
    /// As there.
    pub fn header(mut self, name: impl IntoHeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The status that is answered.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields that were added.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The answer to a request that one of the relay's own rules refuses.
    pub(super) fn of(refusal: Refusal) -> Self {
        let row = refusal.row();
        let mut reject = Self::new(row.status).reason(row.details);
        reject.error = row.error.unwrap_or(reject.error);
        reject
    }

    /// The answer to a request whose handler panicked.
    pub(super) fn panicked() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR).reason("internal fault")
    }

    /// In the words of the worker.
    pub(super) fn into_rejection(self) -> Rejection {
        Rejection {
            status: self.status,
            headers: without_reserved(*self.headers),
            error: self.error,
            details: self.reason.map(Into::into),
        }
    }
}

impl From<InvalidHeaderValue> for Reject {
    /// A handler has made a field that is none: 500.
    fn from(_: InvalidHeaderValue) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR).reason("internal fault")
    }
}

/// The error type of an answer that says no more than its status (RFC 9209 §2.3).
const fn error_of(status: StatusCode) -> ProxyError {
    match status.as_u16() {
        401 | 403 | 407 | 429 => ProxyError::HttpRequestDenied,
        400..=499 => ProxyError::HttpRequestError,
        500 => ProxyError::ProxyInternalError,
        502 => ProxyError::DestinationUnavailable,
        504 => ProxyError::ConnectionTimeout,
        508 => ProxyError::ProxyLoopDetected,
        _ => ProxyError::ProxyInternalResponse,
    }
}

/// What of `headers` may stand in an answer.
fn without_reserved(mut headers: HeaderMap) -> HeaderMap {
    for name in &RESERVED {
        if headers.remove(name).is_some() {
            tracing::warn!(%name, "a handler may not set this field; it is left out");
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_says_who_and_why_and_keeps_its_fields() {
        let challenge = HeaderValue::from_static("PrivateToken challenge=\"abc\"");
        let reject = Reject::unauthorized(challenge.clone())
            .reason("no \u{1F511} token\r\n")
            .header("x-more", HeaderValue::from_static("1"))
            .header(CONTENT_LENGTH, HeaderValue::from_static("5"));
        let rejection = reject.into_rejection();
        assert_eq!(rejection.status, StatusCode::UNAUTHORIZED);
        assert_eq!(rejection.headers[WWW_AUTHENTICATE], challenge);
        assert_eq!(rejection.headers["x-more"], "1");
        assert!(!rejection.headers.contains_key(CONTENT_LENGTH));
        assert_eq!(rejection.details.as_deref(), Some("no  token"));
    }

    #[test]
    fn a_refusal_keeps_its_error_type() {
        for refusal in [Refusal::Draining, Refusal::DnsError { rcode: None }] {
            let rejection = Reject::of(refusal).into_rejection();
            assert_eq!(Some(rejection.error), refusal.row().error);
        }
    }

    #[test]
    fn every_reject_has_an_error_type_that_goes_with_its_status() {
        let challenge = HeaderValue::from_static("Basic");
        for (reject, error) in [
            (
                Reject::new(StatusCode::SEE_OTHER),
                "proxy_internal_response",
            ),
            (Reject::bad_request(), "http_request_error"),
            (
                Reject::unauthorized(challenge.clone()),
                "http_request_denied",
            ),
            (Reject::forbidden(), "http_request_denied"),
            (Reject::not_found(), "http_request_error"),
            (Reject::proxy_unauthorized(challenge), "http_request_denied"),
            (Reject::too_many_requests(1), "http_request_denied"),
            (Reject::panicked(), "proxy_internal_error"),
            (Reject::unsupported(), "proxy_internal_response"),
            (Reject::bad_gateway(), "destination_unavailable"),
            (Reject::unavailable(), "proxy_internal_response"),
            (
                Reject::new(StatusCode::GATEWAY_TIMEOUT),
                "connection_timeout",
            ),
        ] {
            assert_eq!(reject.into_rejection().error.as_str(), error);
        }
    }

    #[test]
    fn a_reject_never_opens_a_tunnel() {
        for status in [100, 101, 200, 204, 299] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                Reject::new(status).status(),
                StatusCode::INTERNAL_SERVER_ERROR
            );
        }
        assert_eq!(Reject::not_found().status(), StatusCode::NOT_FOUND);
    }
}
