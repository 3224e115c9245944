//! Chapter 7: what went wrong, on whose side, and whether to try again.
//!
//! There is one [`Error`](crate::Error). It answers four questions, of which most programs ask the last:
//!
//! | question | answer |
//! |---|---|
//! | what kind of thing? | [`kind`](crate::Error::kind): [`ErrorKind`](crate::ErrorKind) |
//! | whose side? | [`side`](crate::Error::side): this process, or towards the relay and the target |
//! | what did the relay say? | [`status`](crate::Error::status), [`headers`](crate::Error::headers), [`proxy_error`](crate::Error::proxy_error), [`proxy_status`](crate::Error::proxy_status), [`code`](crate::Error::code) |
//! | is it worth another try? | [`is_retryable`](crate::Error::is_retryable) |
//!
//! ```
//! use bauta::{Carrier, Client, ErrorKind, Identity, Listener, Proxies, Side, Trust};
//! use http::StatusCode;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A relay that does not let anybody into its own network.
//! let (identity, ca_pem) = Identity::development(&[])?;
//! let relay = Listener::all(([127, 0, 0, 1], 0))
//!     .identity(identity)
//!     .handler(Proxies::new())
//!     .start()?;
//! let client = Client::builder(format!("https://{}", relay.local_addr()))
//!     .trust(Trust::pem(ca_pem))
//!     .build()?;
//! let error = client.udp_blocking("10.0.0.1:53").unwrap_err();
//! assert_eq!((error.kind(), error.side()), (ErrorKind::Refused, Side::Upstream));
//! assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
//! assert_eq!(error.proxy_error(), Some("destination_ip_prohibited"));
//! assert!(!error.is_retryable());
//!
//! // A relay that is not there: each carrier has its own reason.
//! let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
//! let client = Client::builder(format!("https://{nobody}"))
//!     .carriers([Carrier::H2, Carrier::H1])
//!     .build()?;
//! let error = client.tcp_blocking("origin.example:443").unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Connect);
//! for attempt in error.attempts() {
//!     println!("{}: {}", attempt.carrier, attempt.error);
//! }
//! assert_eq!(error.attempts().len(), 2);
//!
//! // Options that make no sense are told when the client is built, all at once.
//! let error = Client::builder("http://relay.example")
//!     .receive_queue(0)
//!     .build()
//!     .unwrap_err();
//! assert_eq!((error.kind(), error.side()), (ErrorKind::Configuration, Side::Local));
//! # Ok(())
//! # }
//! ```
//!
//! # Printing
//!
//! Print `{error:#}`: the causes, what the relay answered and what became of each carrier, on one line.
//!
//! ```
//! let error = bauta::Client::builder("http://relay.example").build().unwrap_err();
//! println!("{error:#}");
//! assert!(format!("{error:#}").starts_with("invalid configuration: "));
//! assert_eq!(error.to_string(), "invalid configuration");
//! ```
//!
//! Plain `{error}` names the kind and no more. The cause is in [`source`](std::error::Error::source), as everywhere in
//! Rust, so that `anyhow` and `eyre`, which walk it, say nothing twice; the answer of the relay and the carriers are
//! not in that chain.
//!
//! # Trying again
//!
//! Retryable is what can succeed without anybody repairing anything: a relay that is overloaded or draining, a
//! connection that broke, an answer of 408, 421, 425, 429 or 503. A target that is forbidden, or down, is not. Wait in
//! between, longer each time.
//!
//! Behind your back the client asks again in two cases only. Over the next carrier, when one fails or is answered with
//! 421, 501 or 505, which speak of the carrier rather than of the tunnel: a relay that serves no tunnels of that form
//! is asked for it up to three times. And with its [`credentials`](crate::ClientBuilder::credentials), when 401 or 407
//! asks for them in a field that the request did not have.
//!
//! ```
//! use std::time::Duration;
//!
//! use bauta::{Client, Error, UdpTunnel};
//!
//! async fn open(client: &Client, target: &str) -> Result<UdpTunnel, Error> {
//!     let mut delay = Duration::from_millis(200);
//!     loop {
//!         match client.udp(target).await {
//!             Err(error) if error.is_retryable() && delay < Duration::from_secs(10) => {
//!                 tokio::time::sleep(delay).await;
//!                 delay *= 2;
//!             }
//!             result => return result,
//!         }
//!     }
//! }
//! # let _ = open;
//! ```
//!
//! # A relay that is not there
//!
//! A machine without a relay refuses TCP at once, but over UDP silence is all that tells: HTTP/3 has failed when its
//! [`handshake_timeout`](crate::ClientBuilder::handshake_timeout) is over, 5 s by default, and the error comes when the
//! last carrier has failed. A shorter time brings it earlier, and so does leaving HTTP/3 out of
//! [`carriers`](crate::ClientBuilder::carriers). Tunnels to a relay that serves only TCP do not wait for it: the next
//! carrier starts after its head start and wins.
//!
//! ```
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), bauta::Error> {
//! let client = bauta::Client::builder("https://relay.example")
//!     .handshake_timeout(Duration::from_millis(800))
//!     .build()?;
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
//!
//! # Ends of tunnels
//!
//! How a tunnel ended is a [`CloseReason`](crate::CloseReason), from `closed` or
//! [`Event::Closed`](crate::Event::Closed): this side closed it, it came to its end, it never opened, or it broke. The
//! last two carry an [`Error`](crate::Error). An operation on a tunnel that is over fails with the same error, or with
//! [`ErrorKind::Closed`](crate::ErrorKind::Closed) after an end in order. What came before the end can be received
//! first.
//!
//! A [`TcpTunnel`](crate::TcpTunnel) gives a [`std::io::Error`] from reading and writing, as streams do, with the
//! [`Error`](crate::Error) inside ([`get_ref`](std::io::Error::get_ref)). A stream that was cut never looks like one
//! that ended: end of file means that the target said so.
//!
//! # Other types
//!
//! Where only few things can go wrong, the type says which: [`SendError`](crate::SendError) in sessions and their
//! handles, [`ShutdownError`](crate::ShutdownError) for half-closes, [`TargetError`](crate::TargetError) and
//! [`CredentialsError`](crate::CredentialsError) for text. A server rejects with a [`Reject`](crate::Reject), which
//! becomes a status, fields, and a `Proxy-Status` field (RFC 9209) that tells its client who refused and why.
