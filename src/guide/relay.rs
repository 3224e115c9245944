//! Chapter 2: a relay.
//!
//! A [`Listener`] has an address, a certificate and a [`Handler`](crate::Handler), which decides what becomes of
//! requests. [`Proxies`] is the handler of an ordinary relay: it opens UDP and TCP tunnels to their targets.
//!
//! ```no_run
//! use bauta::{Identity, Listener, Proxies};
//!
//! fn main() -> Result<(), bauta::Error> {
//!     let relay = Listener::all(([0, 0, 0, 0], 443))
//!         .identity(Identity::load("chain.pem", "key.pem")?)
//!         .handler(Proxies::new())
//!         .start()?;
//!     println!("listening on {}", relay.local_addr());
//!     loop {
//!         std::thread::park();
//!     }
//! }
//! ```
//!
//! [`Listener::all`] serves HTTP/3 on a UDP port and HTTP/2 and HTTP/1.1 on the TCP port of the same number, so that
//! clients in networks that block QUIC fall back by themselves. [`h3`](crate::Listener::h3),
//! [`h2`](crate::Listener::h2) and [`h1`](crate::Listener::h1) serve one of them. When
//! [`start`](crate::ListenerBuilder::start) returns, clients can connect; the relay runs on threads of its own, one per
//! core, until it is dropped.
//!
//! # Who may go where
//!
//! This relay serves everybody ([chapter 5](super::authentication) changes that), but does not let anybody in: targets
//! have to be public addresses, never this machine or the network that it stands in (RFC 9298 §7). What is judged is
//! the very address that is connected to, whatever a name says. Rules open and close targets beyond that, and hooks
//! decide in code:
//!
//! ```
//! use bauta::{Family, Proxies};
//!
//! # fn main() -> Result<(), bauta::Error> {
//! let proxies = Proxies::new()
//!     // Nobody sends mail from here.
//!     .deny_rule("*:25")?
//!     .deny_rule(".ads.example")?
//!     // And only what the table has is allowed.
//!     .allow(|target| matches!(target.port, 53 | 443))
//!     .family(Family::V4);
//! # let _ = proxies;
//! # Ok(())
//! # }
//! ```
//!
//! Mind what the first rule that allows does: it closes everything else. Your own network beside the public one takes
//! two rules, and a test on one machine is best opened with `public_only(false)`:
//!
//! | handler | reaches |
//! |---|---|
//! | `Proxies::new()` | every public address |
//! | `.allow_rule("*")?.allow_rule("10.0.0.0/8")?` | every public address, and that network |
//! | `.allow_rule("127.0.0.0/8")?` | this machine and nothing else |
//! | `.allow_rule("*:443")?` | port 443 of public addresses |
//! | `.allow_rule("db.internal")?` | that name, if it leads to a public address: names open nothing |
//! | `.public_only(false)` | whatever this machine reaches, its own services included |
//!
//! ```
//! # fn main() -> Result<(), bauta::Error> {
//! let public_and_lan = bauta::Proxies::new()
//!     .allow_rule("*")?
//!     .allow_rule("10.0.0.0/8")?;
//! # let _ = public_and_lan;
//! # Ok(())
//! # }
//! ```
//!
//! `allow` and [`resolver`](crate::Proxies::resolver) run on the worker thread; their `_async` twins are for those that
//! have to ask somebody. [`UdpProxy`](crate::UdpProxy) and [`TcpProxy`](crate::TcpProxy) serve one protocol and refuse
//! the other, [`Chain`](crate::Chain) goes through a further relay. All of them are handlers like your own and can be
//! wrapped, so that yours looks at a request first and hands it on: see [`Handler`](crate::Handler).
//!
//! # Its end
//!
//! A relay that is to go away tells its clients first. [`drain`](crate::Listener::drain) lets open tunnels go on and
//! sends new ones elsewhere, and [`stats`](crate::Listener::stats) tells what is going on:
//!
//! ```
//! # use bauta::{Identity, Listener, Proxies};
//! # fn main() -> Result<(), bauta::Error> {
//! # let (identity, _) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0))
//! #     .workers(1)
//! #     .identity(identity)
//! #     .handler(Proxies::new())
//! #     .start()?;
//! relay.drain();
//! assert!(relay.is_draining());
//! assert_eq!(relay.stats().tunnels_opened, 0);
//! # Ok(())
//! # }
//! ```
//!
//! [`Listener`]: crate::Listener
//! [`Listener::all`]: crate::Listener::all
//! [`Proxies`]: crate::Proxies
