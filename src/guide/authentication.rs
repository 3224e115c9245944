//! Chapter 5: who may use a relay.
//!
//! HTTP has a word for this since 1996: a request without credentials is answered with 401 and a challenge, and the
//! client asks again with an answer to it (RFC 9110 §11). Tunnels under a template use it as they are; a classic
//! CONNECT asks a proxy, and uses 407 and the `Proxy-` fields instead.
//!
//! A handler that guards another one, for both:
//!
//! ```
//! use bauta::{
//!     Accept, Client, Credentials, Handler, Identity, Listener, Proxies, Reject, Request, TcpForm, Trust,
//! };
//! use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
//! use http::{HeaderValue, StatusCode};
//!
//! struct Guarded<H> {
//!     inner: H,
//!     secret: Credentials,
//! }
//!
//! impl<H: Handler> Handler for Guarded<H> {
//!     fn accept(&self, request: &Request) -> Result<Accept, Reject> {
//!         // A classic CONNECT has no upgrade token: curl, browsers.
//!         let is_classic = request.token().is_none();
//!         let field = if is_classic { PROXY_AUTHORIZATION } else { AUTHORIZATION };
//!         let challenge = HeaderValue::from_static("Basic realm=\"relay\"");
//!         match request.headers().get(field) {
//!             // Yours looks it up, and compares in constant time.
//!             Some(answer) if answer == self.secret.value() => self.inner.accept(request),
//!             _ if is_classic => Err(Reject::proxy_unauthorized(challenge)),
//!             _ => Err(Reject::unauthorized(challenge)),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = std::net::UdpSocket::bind("127.0.0.1:0")?;
//! # let address = target.local_addr()?;
//! # let tcp_target = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let tcp_address = tcp_target.local_addr()?;
//! let alice = Credentials::basic("alice", "sesame")?;
//! let (identity, ca_pem) = Identity::development(&[])?;
//! let relay = Listener::all(([127, 0, 0, 1], 0))
//!     .identity(identity)
//!     .handler(Guarded { inner: Proxies::new().public_only(false), secret: alice.clone() })
//!     .start()?;
//! let url = format!("https://{}", relay.local_addr());
//! let client = Client::builder(&url).trust(Trust::pem(&ca_pem)).build()?;
//!
//! // The first try brings the challenge.
//! let error = client.udp_blocking(address).unwrap_err();
//! assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
//! let challenge = &error.headers().ok_or("no relay answered")?["www-authenticate"];
//! assert_eq!(challenge, "Basic realm=\"relay\"");
//!
//! // The second one brings the answer.
//! let tunnel = client
//!     .connect(address)
//!     .header("authorization", alice.value().to_str()?)
//!     .udp_blocking()?;
//! # drop(tunnel);
//!
//! // As `curl -p -x URL --proxy-user alice:sesame` asks: CONNECT, answered with 407 where it has no credentials.
//! let classic = client.connect(tcp_address).tcp_form(TcpForm::Classic);
//! let error = classic.tcp_blocking().unwrap_err();
//! assert_eq!(error.status(), Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED));
//! let client = Client::builder(&url)
//!     .trust(Trust::pem(&ca_pem))
//!     .tcp_form(TcpForm::Classic)
//!     .credentials(alice)
//!     .build()?;
//! let tunnel = client.tcp_blocking(tcp_address)?;
//! # drop(tunnel);
//! # Ok(())
//! # }
//! ```
//!
//! With several relays, [`Connect::header`](crate::Connect::header) answers the last one. The others are asked for ways
//! that many tunnels share, so that what they want to see belongs to the client:
//! [`ClientBuilder::header`](crate::ClientBuilder::header) or credentials, before the next `hop`.
//!
//! Any scheme fits in there. For Privacy Pass the challenge is `PrivateToken challenge="…", token-key="…"` (RFC 9577
//! §2.1) and the answer `PrivateToken token="…"`, which the client gets from an issuer between the two requests: a
//! relay then knows that it may serve the client, and not which client it is.
//!
//! # Credentials that are known
//!
//! Who has a password or a token needs no challenge. [`ClientBuilder::credentials`](crate::ClientBuilder::credentials)
//! sends them with the first request, in the field that its form asks for; with several relays each `hop` can have its
//! own. A relay that answers with 401 or 407 because it looks at the other field is asked once more, with both. They
//! are never printed, and marked never to be indexed by header compression.
//!
//! ```
//! use bauta::{Client, Credentials};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://ingress.example")
//!     .credentials(Credentials::bearer("0a1b2c")?)
//!     .hop("https://egress.example")
//!     .credentials(Credentials::basic("alice", "secret")?)
//!     .build()?;
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
//!
//! # Asking somebody else
//!
//! A handler must not block, so a look-up in a database does not go into `accept` itself but into
//! [`Accept::later`](crate::Accept::later): a future that ends as `accept` does, and so can hand the request to any
//! other handler once it knows who asks.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bauta::{Accept, Handler, Proxies, Reject, Request};
//! use http::HeaderValue;
//!
//! # async fn is_known(answer: &HeaderValue) -> bool {
//! #     answer == "Bearer sesame"
//! # }
//! struct Asked<H>(Arc<H>);
//!
//! impl<H: Handler> Handler for Asked<H> {
//!     fn accept(&self, request: &Request) -> Result<Accept, Reject> {
//!         let answer = request.headers().get("authorization").cloned();
//!         // Whoever shows nothing costs no look-up.
//!         let challenge = || Reject::unauthorized(HeaderValue::from_static("Bearer"));
//!         let answer = answer.ok_or_else(challenge)?;
//!         let (inner, request) = (Arc::clone(&self.0), request.clone());
//!         Ok(Accept::later(async move {
//!             match is_known(&answer).await {
//!                 true => inner.accept(&request),
//!                 false => Err(challenge()),
//!             }
//!         }))
//!     }
//! }
//!
//! let handler = Asked(Arc::new(Proxies::new()));
//! # let _ = bauta::Listener::all(([127, 0, 0, 1], 0)).handler(handler);
//! ```
//!
//! The future runs on the control thread, with tokio's timers and I/O, and shares
//! [`open_timeout`](crate::ListenerBuilder::open_timeout) with everything else that opening takes. If only the target
//! is in question, `allow_async` of [`Proxies`](crate::Proxies) is shorter.
//!
//! # Certificates
//!
//! TLS knows clients as well. With [`ListenerBuilder::client_auth`](crate::ListenerBuilder::client_auth) they have to
//! show a certificate of an authority of yours, and [`Request::certificate`](crate::Request::certificate) has it. In
//! the other direction, [`Trust::pinned`](crate::Trust::pinned) lets a client accept the keys of its relays and nothing
//! else, so that relays of one's own need no authority.
