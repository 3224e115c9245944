//! Chapter 1: a client, and what it does with tunnels.
//!
//! A [`Client`] is a way to a relay. It is made once, is cheap to clone, and opens any number of tunnels. This one
//! talks to a relay that the example starts itself, on this machine; yours has a name, and its certificate comes from
//! an authority, so that neither [`trust`](crate::ClientBuilder::trust) nor anything else has to be set.
//!
//! ```
//! use std::net::UdpSocket;
//! use std::thread;
//!
//! use bauta::{Client, Identity, Listener, Proxies, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The target sends back what it gets.
//! let target = UdpSocket::bind("127.0.0.1:0")?;
//! let address = target.local_addr()?;
//! thread::spawn(move || {
//!     let mut buffer = [0; 2048];
//!     while let Ok((len, from)) = target.recv_from(&mut buffer) {
//!         target.send_to(&buffer[..len], from).ok();
//!     }
//! });
//!
//! // The relay: with a certificate for tests, and open towards this machine.
//! let (identity, ca_pem) = Identity::development(&[])?;
//! let relay = Listener::all(([127, 0, 0, 1], 0))
//!     .identity(identity)
//!     .handler(Proxies::new().public_only(false))
//!     .start()?;
//!
//! // The client.
//! let client = Client::builder(format!("https://{}", relay.local_addr()))
//!     .trust(Trust::pem(ca_pem))
//!     .build()?;
//! let tunnel = client.udp_blocking(address)?;
//! tunnel.send("ping")?;
//! assert_eq!(tunnel.recv_blocking()?.payload, "ping");
//! tunnel.close_blocking();
//! # Ok(())
//! # }
//! ```
//!
//! A target is `"host:port"`, `("host", port)`, a socket address or a [`Target`]. Names go to the relay as they are,
//! which resolves them: nothing about targets reaches the local name server.
//!
//! # Which carrier
//!
//! The client tries HTTP/3 first, HTTP/2 after 250 ms, HTTP/1.1 after a further 500 ms, and takes the first that gets
//! an answer; what worked is remembered. [`carriers`](crate::ClientBuilder::carriers) changes the order or leaves some
//! out, [`head_starts`](crate::ClientBuilder::head_starts) the times, and [`Info::carrier`](crate::Info::carrier) says
//! which one a tunnel has. Tunnels work alike on all of them. But on HTTP/2 and HTTP/1.1 the datagrams of a UDP tunnel
//! travel in TCP, so that a packet which gets lost delays those behind it.
//!
//! # Tasks and threads
//!
//! Every operation that waits has two forms: `recv` is a future, for any executor, and `recv_blocking` is for plain
//! threads. Neither needs a runtime of a certain kind, since the library's own threads do the work: one worker and one
//! control thread per client, or shared by several with [`ClientBuilder::worker`](crate::ClientBuilder::worker). They
//! end when the last client and tunnel is dropped. Futures may be dropped at any time: nothing is lost with them.
//!
//! A [`TcpTunnel`](crate::TcpTunnel) reads and writes like a socket, by the traits of tokio, of the `futures` package
//! and of the standard library:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpListener;
//!
//! use bauta::{Client, Identity, Listener, Proxies, Trust};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(example())
//! # }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let target = TcpListener::bind("127.0.0.1:0")?;
//! let address = target.local_addr()?;
//! std::thread::spawn(move || -> std::io::Result<()> {
//!     let (mut stream, _) = target.accept()?;
//!     let mut question = String::new();
//!     stream.read_to_string(&mut question)?;
//!     write!(stream, "you asked: {question}")
//! });
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0))
//! #     .identity(identity)
//! #     .handler(Proxies::new().public_only(false))
//! #     .start()?;
//! # let client = Client::builder(format!("https://{}", relay.local_addr()))
//! #     .trust(Trust::pem(ca_pem))
//! #     .build()?;
//!
//! let mut tunnel = client.tcp(address).await?;
//! tunnel.write_all(b"why?").await?;
//! // The target sees the end; our direction is over, its direction goes on.
//! tunnel.shutdown_write()?;
//! let mut answer = String::new();
//! tunnel.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "you asked: why?");
//! # Ok(())
//! # }
//! ```
//!
//! The same on smol. Its streams have no timeouts, so a timer races with the reading, as on every executor:
//!
//! ```
//! use std::io;
//! # use std::io::{Read, Write};
//! # use std::net::TcpListener;
//! use std::time::Duration;
//!
//! # use bauta::{Client, Identity, Listener, Proxies, Trust};
//! use smol::Timer;
//! use smol::future::FutureExt;
//! use smol::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = TcpListener::bind("127.0.0.1:0")?;
//! # let address = target.local_addr()?;
//! # std::thread::spawn(move || -> std::io::Result<()> {
//! #     let (mut stream, _) = target.accept()?;
//! #     let mut question = String::new();
//! #     stream.read_to_string(&mut question)?;
//! #     write!(stream, "you asked: {question}")
//! # });
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0))
//! #     .identity(identity)
//! #     .handler(Proxies::new().public_only(false))
//! #     .start()?;
//! # let client = Client::builder(format!("https://{}", relay.local_addr()))
//! #     .trust(Trust::pem(ca_pem))
//! #     .build()?;
//! smol::block_on(async {
//!     let mut tunnel = client.tcp(address).await?;
//!     tunnel.write_all(b"why?").await?;
//!     tunnel.shutdown_write()?;
//!     let mut answer = String::new();
//!     let reading = tunnel.read_to_string(&mut answer);
//!     let too_late = async {
//!         Timer::after(Duration::from_secs(5)).await;
//!         Err(io::ErrorKind::TimedOut.into())
//!     };
//!     reading.or(too_late).await?;
//!     assert_eq!(answer, "you asked: why?");
//!     Ok(())
//! })
//! # }
//! ```
//!
//! On threads `&TcpTunnel` has [`Read`](std::io::Read) and [`Write`](std::io::Write), so that one thread can read while
//! another writes; for two tasks there is [`split`](crate::TcpTunnel::split). A [`UdpTunnel`](crate::UdpTunnel) takes
//! `&self` everywhere, and is a `Stream` and a `Sink` besides.
//!
//! # Messages
//!
//! Who has many tunnels may not want to wait for each. In message mode tunnels report to an [`Events`], as many as you
//! like to the same one:
//!
//! ```
//! use std::collections::HashMap;
//! # use std::net::UdpSocket;
//!
//! use bauta::{Event, Events, Mode};
//! # use bauta::{Client, Identity, Listener, Proxies, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = UdpSocket::bind("127.0.0.1:0")?;
//! # let address = target.local_addr()?;
//! # std::thread::spawn(move || {
//! #     let mut buffer = [0; 2048];
//! #     while let Ok((len, from)) = target.recv_from(&mut buffer) {
//! #         target.send_to(&buffer[..len], from).ok();
//! #     }
//! # });
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0))
//! #     .identity(identity)
//! #     .handler(Proxies::new().public_only(false))
//! #     .start()?;
//! # let client = Client::builder(format!("https://{}", relay.local_addr()))
//! #     .trust(Trust::pem(ca_pem))
//! #     .build()?;
//! let events = Events::new();
//! let mut tunnels = HashMap::new();
//! for name in ["first", "second"] {
//!     // Nothing waits here: what is sent before the tunnel is open follows when it is.
//!     let tunnel = client
//!         .connect(address)
//!         .mode(Mode::Events(events.clone()))
//!         .start_udp()?;
//!     tunnel.send(name)?;
//!     tunnels.insert(tunnel.id(), (name, tunnel));
//! }
//! while !tunnels.is_empty() {
//!     let (id, event) = events.recv_blocking();
//!     match event {
//!         Event::Datagram(datagram) => {
//!             let (name, _closed_by_its_drop) = tunnels.remove(&id).ok_or("an unknown tunnel")?;
//!             assert_eq!(datagram.payload, name);
//!         }
//!         Event::Closed(reason) => panic!("{id} has ended: {reason}"),
//!         // Opened; and what may be added one day.
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A TCP tunnel is written by [`try_write`](crate::TcpTunnel::try_write), which takes what there is room for. When it
//! finds none, [`Event::Writable`](crate::Event::Writable) says when there is some again. What the target sends comes
//! as [`Event::Data`](crate::Event::Data), its end as [`Event::Eof`](crate::Event::Eof), and when both directions have
//! ended there is [`Event::Closed`](crate::Event::Closed):
//!
//! ```
//! use std::io::{self, ErrorKind};
//! # use std::io::{Read, Write};
//! # use std::net::TcpListener;
//!
//! use bauta::{Event, Events, Mode, TcpTunnel};
//! # use bauta::{Client, Identity, Listener, Proxies, Trust};
//!
//! /// Writes what there is room for, and ends the direction behind the last byte.
//! fn upload(tunnel: &TcpTunnel, left: &mut &[u8]) -> io::Result<()> {
//!     while !left.is_empty() {
//!         match tunnel.try_write(left) {
//!             Ok(len) => *left = &left[len..],
//!             // `Event::Writable` follows.
//!             Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
//!             Err(error) => return Err(error),
//!         }
//!     }
//!     tunnel.shutdown_write().map_err(io::Error::other)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let target = TcpListener::bind("127.0.0.1:0")?;
//! # let address = target.local_addr()?;
//! # std::thread::spawn(move || -> std::io::Result<()> {
//! #     let (mut stream, _) = target.accept()?;
//! #     let mut upload = Vec::new();
//! #     stream.read_to_end(&mut upload)?;
//! #     write!(stream, "{} bytes", upload.len())
//! # });
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0))
//! #     .identity(identity)
//! #     .handler(Proxies::new().public_only(false))
//! #     .start()?;
//! # let client = Client::builder(format!("https://{}", relay.local_addr()))
//! #     .trust(Trust::pem(ca_pem))
//! #     .build()?;
//! let events = Events::new();
//! let tunnel = client
//!     .connect(address)
//!     .mode(Mode::Events(events.clone()))
//!     .start_tcp()?;
//! let file = vec![b'x'; 1_000_000];
//! let mut left = &file[..];
//! let mut answer = Vec::new();
//! loop {
//!     match events.recv_blocking().1 {
//!         Event::Opened | Event::Writable => upload(&tunnel, &mut left)?,
//!         Event::Data(bytes) => answer.extend_from_slice(&bytes),
//!         Event::Eof => assert_eq!(answer, b"1000000 bytes"),
//!         Event::Closed(reason) => break println!("{reason}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`set_mode`](crate::UdpTunnel::set_mode) switches back and forth at any time, and loses nothing: events wait in
//! their tunnels, inside the bounds of those, until somebody takes them.
//!
//! # Ends
//!
//! Dropping a tunnel closes it in the background. [`close`](crate::UdpTunnel::close) waits for that, five seconds at
//! most; [`closed`](crate::UdpTunnel::closed) waits for the end, whoever brings it, and says why in a
//! [`CloseReason`](crate::CloseReason).
//!
//! [`Client`]: crate::Client
//! [`Events`]: crate::Events
//! [`Target`]: crate::Target
