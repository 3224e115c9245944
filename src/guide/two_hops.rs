//! Chapter 3: two relays in a row, so that nobody knows both ends.
//!
//! One relay knows who you are and where you go. With two, run by people who do not talk to each other, the first knows
//! the client and not the target, and the second knows the target and not the client. There are two ways:
//!
//! ```text
//!   nested    client ══════ tunnel to the second relay ══════ first ══╗
//!             client ──────── tunnel to the target, inside ──────────── second ──► target
//!
//!   chained   client ── tunnel ── first ── tunnel ── second ──► target
//! ```
//!
//! **Nested**, the client opens the second tunnel itself, inside the first. The first relay sees packets to the second
//! and nothing of their content. This needs no cooperation between the relays, and is what a client that wants to be
//! sure does. **Chained**, the first relay asks the second. It sees the name of the target, and the content if the
//! client does not encrypt it; the client needs to know the first relay only, and packets are encrypted once per link.
//!
//! # Nested
//!
//! [`hop`](crate::ClientBuilder::hop) adds a relay behind those named before, up to four in all. Fields, credentials
//! and templates that follow are for that relay.
//!
//! ```
//! use bauta::{Client, Handler, Identity, Listener, Proxies, Trust};
//! # use std::net::UdpSocket;
//! #
//! # /// A target that sends back what it gets.
//! # fn echo() -> std::io::Result<std::net::SocketAddr> {
//! #     let target = UdpSocket::bind("127.0.0.1:0")?;
//! #     let address = target.local_addr()?;
//! #     std::thread::spawn(move || {
//! #         let mut buffer = [0; 2048];
//! #         while let Ok((len, from)) = target.recv_from(&mut buffer) {
//! #             target.send_to(&buffer[..len], from).ok();
//! #         }
//! #     });
//! #     Ok(address)
//! # }
//!
//! /// A relay on this machine with its URL and the certificate to trust.
//! fn relay(handler: impl Handler) -> Result<(Listener, String, String), bauta::Error> {
//!     let (identity, ca_pem) = Identity::development(&[])?;
//!     let relay = Listener::all(([127, 0, 0, 1], 0))
//!         .workers(1)
//!         .identity(identity)
//!         .handler(handler)
//!         .start()?;
//!     let url = format!("https://{}", relay.local_addr());
//!     Ok((relay, url, ca_pem))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = echo()?;
//! let open = Proxies::new().public_only(false);
//! let (_first, first_url, first_ca) = relay(open.clone())?;
//! let (_second, second_url, second_ca) = relay(open)?;
//!
//! let client = Client::builder(first_url)
//!     .hop(second_url)
//!     .trust(Trust::pem(first_ca + &second_ca))
//!     .build()?;
//! let tunnel = client.udp_blocking(target)?;
//! tunnel.send("through two relays")?;
//! assert_eq!(tunnel.recv_blocking()?.payload, "through two relays");
//! assert_eq!(tunnel.info().relays.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! A field for one tunnel, by [`Connect::header`](crate::Connect::header), goes to the last relay. What the others are
//! to see is said to the client, before the next `hop`: their tunnels lead to a relay, and are shared.
//!
//! # Chained
//!
//! [`Chain`](crate::Chain) is a handler that opens what is asked for at another relay. What it knows of the way,
//! certificates, credentials and carriers, it is told in the words of a client:
//! [`Chain::through`](crate::Chain::through) takes a [`ClientBuilder`](crate::ClientBuilder).
//!
//! ```
//! use bauta::{Chain, Client, Handler, Identity, Listener, Proxies, Trust};
//! # use std::net::UdpSocket;
//! #
//! # /// A target that sends back what it gets.
//! # fn echo() -> std::io::Result<std::net::SocketAddr> {
//! #     let target = UdpSocket::bind("127.0.0.1:0")?;
//! #     let address = target.local_addr()?;
//! #     std::thread::spawn(move || {
//! #         let mut buffer = [0; 2048];
//! #         while let Ok((len, from)) = target.recv_from(&mut buffer) {
//! #             target.send_to(&buffer[..len], from).ok();
//! #         }
//! #     });
//! #     Ok(address)
//! # }
//! #
//! # /// A relay on this machine with its URL and the certificate to trust.
//! # fn relay(handler: impl Handler) -> Result<(Listener, String, String), bauta::Error> {
//! #     let (identity, ca_pem) = Identity::development(&[])?;
//! #     let relay = Listener::all(([127, 0, 0, 1], 0))
//! #         .workers(1)
//! #         .identity(identity)
//! #         .handler(handler)
//! #         .start()?;
//! #     let url = format!("https://{}", relay.local_addr());
//! #     Ok((relay, url, ca_pem))
//! # }
//! #
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = echo()?;
//! // `relay` and `target` are those from above.
//! let (_egress, egress_url, egress_ca) = relay(Proxies::new().public_only(false))?;
//!
//! // The ingress has one handler: the way to the egress.
//! let next = Client::builder(egress_url).trust(Trust::pem(egress_ca));
//! let (_ingress, ingress_url, ingress_ca) = relay(Chain::through(next)?)?;
//!
//! // Its clients know the ingress alone.
//! let client = Client::builder(ingress_url)
//!     .trust(Trust::pem(ingress_ca))
//!     .build()?;
//! let tunnel = client.udp_blocking(target)?;
//! tunnel.send("through a chain")?;
//! assert_eq!(tunnel.recv_blocking()?.payload, "through a chain");
//! # Ok(())
//! # }
//! ```
//!
//! Its rules and hooks judge targets by name; addresses are judged by the relay that connects. Loops are found by the
//! `Via` field and answered with 508.
//!
//! # What it costs
//!
//! A hop that is nested takes some forty bytes of every packet for its own headers, which
//! [`Info::datagram_size_max`](crate::Info::datagram_size_max) accounts for, and the first relay has to let clients
//! reach the second: as the second one is public, [`Proxies::new`](crate::Proxies::new) does. Where QUIC does not pass,
//! the connection to the first relay is made over TCP and the second goes through a TCP tunnel of it. Whichever way,
//! each hop adds a round trip to opening.
