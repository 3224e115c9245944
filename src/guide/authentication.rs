//! Chapter 5: who may use a relay.
//!
//! HTTP has a word for this since 1996: a request without credentials is answered with 401 and a challenge, and the
//! client asks again with an answer to it (RFC 9110 §11). Tunnels under a template use it as they are; a classic
//! CONNECT asks a proxy, and uses 407 and the `Proxy-` fields instead.
//!
//! A handler that guards another one:
//!
//! ```
//! use bauta::{Accept, Client, Handler, Identity, Listener, Proxies, Reject, Request, Trust};
//! use http::{HeaderValue, StatusCode};
//!
//! struct Guarded<H>(H);
//!
//! impl<H: Handler> Handler for Guarded<H> {
//!     fn accept(&self, request: &Request) -> Result<Accept, Reject> {
//!         match request.headers().get("authorization") {
//!             // Yours looks it up, and compares in constant time.
//!             Some(answer) if answer == "Bearer sesame" => self.0.accept(request),
//!             _ => Err(Reject::unauthorized(HeaderValue::from_static("Bearer"))),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = std::net::UdpSocket::bind("127.0.0.1:0")?;
//! # let address = target.local_addr()?;
//! let (identity, ca_pem) = Identity::development(&[])?;
//! let relay = Listener::all(([127, 0, 0, 1], 0))
//!     .identity(identity)
//!     .handler(Guarded(Proxies::new().public_only(false)))
//!     .start()?;
//! let client = Client::builder(format!("https://{}", relay.local_addr()))
//!     .trust(Trust::pem(ca_pem))
//!     .build()?;
//!
//! // The first try brings the challenge.
//! let error = client.udp_blocking(address).unwrap_err();
//! assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
//! let challenge = &error.headers().ok_or("no relay answered")?["www-authenticate"];
//! assert_eq!(challenge, "Bearer");
//!
//! // The second one brings the answer.
//! let tunnel = client
//!     .connect(address)
//!     .header("authorization", "Bearer sesame")
//!     .udp_blocking()?;
//! # drop(tunnel);
//! # Ok(())
//! # }
//! ```
//!
//! Any scheme fits in there. For Privacy Pass the challenge is `PrivateToken challenge="…", token-key="…"` (RFC 9577
//! §2.1) and the answer `PrivateToken token="…"`, which the client gets from an issuer between the two requests: a
//! relay then knows that it may serve the client, and not which client it is.
//!
//! # Credentials that are known
//!
//! Who has a password or a token needs no challenge. [`ClientBuilder::credentials`](crate::ClientBuilder::credentials)
//! sends them with the first request, in the field that its form asks for; with several relays each `hop` can have its
//! own. They are never printed, and marked never to be indexed by header compression.
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
//! A handler must not block, so a look-up in a database does not go into `accept`. For tunnels that the relay moves by
//! itself, `allow_async` of [`Proxies`](crate::Proxies) decides about targets; a session is decided upon in
//! [`Accept::init`](crate::Accept::init), whose future sees what you took from the request and fails with a
//! [`Reject`](crate::Reject).
//!
//! # Certificates
//!
//! TLS knows clients as well. With [`ListenerBuilder::client_auth`](crate::ListenerBuilder::client_auth) they have to
//! show a certificate of an authority of yours, and [`Request::certificate`](crate::Request::certificate) has it. In
//! the other direction, [`Trust::pinned`](crate::Trust::pinned) lets a client accept the keys of its relays and nothing
//! else, so that relays of one's own need no authority.
