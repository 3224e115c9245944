//! Chapter 4: tunnels that end in your code.
//!
//! ```text
//!   Request ─► Handler::accept ─► Accept ─► 2xx ─► Session: on_open, on_packet, on_data, …, on_close
//!                     ├─────────► Reject ─► 4xx, 5xx
//!                     └─────────► Accept::later: a future, and then one of these
//! ```
//!
//! A [`Handler`] looks at a [`Request`] and accepts or rejects it. What it accepts with [`Accept::session`] ends in a
//! [`Session`], an object with callbacks, one per tunnel. There is no target behind it: the name that the client asks
//! for is yours to interpret. Closures are handlers.
//!
//! ```
//! use bauta::{Accept, Actions, Client, Identity, Listener, Protocol, Reject, Request, Session, Trust};
//! use bytes::Bytes;
//!
//! /// Says it louder.
//! struct Shout;
//!
//! impl Session for Shout {
//!     fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
//!         // A datagram that finds no room is lost, as it would be in the network.
//!         actions.send_on(context, payload.to_ascii_uppercase()).ok();
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let handler = |request: &Request| match request.protocol() {
//!     Some(Protocol::Udp) => Ok(Accept::session(Shout)),
//!     _ => Err(Reject::unsupported().reason("only UDP is heard here")),
//! };
//! let (identity, ca_pem) = Identity::development(&[])?;
//! let server = Listener::all(([127, 0, 0, 1], 0))
//!     .identity(identity)
//!     .handler(handler)
//!     .start()?;
//!
//! let client = Client::builder(format!("https://{}", server.local_addr()))
//!     .trust(Trust::pem(ca_pem))
//!     .build()?;
//! let tunnel = client.udp_blocking("echo.example:7")?;
//! tunnel.send("hello")?;
//! assert_eq!(tunnel.recv_blocking()?.payload, "HELLO");
//!
//! let error = client.tcp_blocking("echo.example:7").unwrap_err();
//! assert_eq!(error.status().map(|status| status.as_u16()), Some(501));
//! # Ok(())
//! # }
//! ```
//!
//! [`Reject::unsupported`](crate::Reject::unsupported) is a 501, after which clients try their other carriers: a
//! handler sees such a request up to three times.
//!
//! # On whose thread
//!
//! `accept` and all callbacks run on the worker thread that has the client's connection, one at a time per tunnel,
//! between the packets of everybody else. So they must not block: no files, no database, no lock that is held for long.
//! One handler serves all workers and is shared by them (`Sync`); a session belongs to one (`Send` is enough).
//!
//! # A session that is not ready yet
//!
//! Whatever has to wait happens in [`Accept::init`]: a future, on the control thread, with tokio's timers and I/O. The
//! client is answered when it is done. Errors become the answer; when the client leaves, or after
//! [`open_timeout`](crate::ListenerBuilder::open_timeout), the future is dropped.
//!
//! ```
//! use bauta::{Accept, Actions, Handler, Reject, Request, Session};
//! use bytes::Bytes;
//! use tokio::io::AsyncWriteExt;
//! use tokio::net::TcpStream;
//!
//! struct Journal(tokio::sync::mpsc::Sender<Bytes>);
//!
//! impl Session for Journal {
//!     fn on_packet(&mut self, actions: &mut Actions<'_>, _: u64, payload: Bytes) {
//!         // Never `blocking_send`: a queue that is full is a reason to drop, or to end.
//!         if self.0.try_send(payload).is_err() {
//!             actions.close();
//!         }
//!     }
//! }
//!
//! struct Journals;
//!
//! impl Handler for Journals {
//!     fn accept(&self, request: &Request) -> Result<Accept, Reject> {
//!         let target = request.target().ok_or_else(Reject::bad_request)?.to_string();
//!         Ok(Accept::init(async move {
//!             let refused = |_| Reject::bad_gateway().reason("no journal there");
//!             let mut stream = TcpStream::connect(target).await.map_err(refused)?;
//!             let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(64);
//!             tokio::spawn(async move {
//!                 while let Some(entry) = receiver.recv().await {
//!                     if stream.write_all(&entry).await.is_err() {
//!                         return;
//!                     }
//!                 }
//!             });
//!             Ok(Journal(sender))
//!         }))
//!     }
//! }
//! # let _ = Journals;
//! ```
//!
//! Where it is not known yet whether there is a session at all, [`Accept::later`](crate::Accept::later) takes a future
//! that decides: it ends in anything that `accept` could have said, also in what another handler says.
//! [Chapter 5](super::authentication) has an example.
//!
//! # What a session hears and says
//!
//! | tunnel | hears | says |
//! |---|---|---|
//! | UDP | [`on_packet`](crate::Session::on_packet) | [`send`](crate::Actions::send), [`send_on`](crate::Actions::send_on) |
//! | TCP | [`on_data`](crate::Session::on_data), [`on_eof`](crate::Session::on_eof) | [`send_data`](crate::Actions::send_data), [`finish`](crate::Actions::finish) |
//! | both | [`on_capsule`](crate::Session::on_capsule), [`on_message`](crate::Session::on_message) | [`send_capsule`](crate::Actions::send_capsule) |
//! | both | [`on_open`](crate::Session::on_open) first, [`on_close`](crate::Session::on_close) last | [`close`](crate::Actions::close), [`close_with`](crate::Actions::close_with) |
//!
//! Datagrams may get lost in both directions: while a client's connection is congested, its newest are kept. Bytes
//! never get lost: what the client does not take yet waits, and nothing that was accepted is dropped before an abrupt
//! end.
//!
//! # Back-pressure
//!
//! A session that only answers needs no care. While more than
//! [`SESSION_WAITING_BYTES_MAX`](crate::SESSION_WAITING_BYTES_MAX) (256 KiB) of its bytes wait for the client, it gets
//! no more of the client's, whose window closes. A session that talks on its own asks for
//! [`room`](crate::Actions::room), and is called when there is some again:
//!
//! ```
//! use std::io::Read;
//!
//! use bauta::{Accept, Actions, Client, Identity, Listener, Request, Session, Trust};
//!
//! /// Sends a megabyte, as fast as the client reads.
//! struct Download {
//!     left: usize,
//! }
//!
//! impl Download {
//!     fn go_on(&mut self, actions: &mut Actions<'_>) {
//!         while self.left > 0 {
//!             let len = actions.room().min(self.left).min(16 * 1024);
//!             // After this 0, `on_writable` follows.
//!             if len == 0 || actions.send_data(vec![b'x'; len]).is_err() {
//!                 return;
//!             }
//!             self.left -= len;
//!         }
//!         actions.finish(&b""[..]).ok();
//!     }
//! }
//!
//! impl Session for Download {
//!     fn on_open(&mut self, actions: &mut Actions<'_>) {
//!         self.go_on(actions);
//!     }
//!
//!     fn on_writable(&mut self, actions: &mut Actions<'_>) {
//!         self.go_on(actions);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let server = Listener::all(([127, 0, 0, 1], 0))
//! #     .identity(identity)
//! #     .handler(|_: &Request| Ok(Accept::session(Download { left: 1_000_000 })))
//! #     .start()?;
//! # let client = Client::builder(format!("https://{}", server.local_addr()))
//! #     .trust(Trust::pem(ca_pem))
//! #     .build()?;
//! let tunnel = client.tcp_blocking("download.example:1")?;
//! let mut bytes = Vec::new();
//! (&tunnel).read_to_end(&mut bytes)?;
//! assert_eq!(bytes.len(), 1_000_000);
//! # Ok(())
//! # }
//! ```
//!
//! # From other threads
//!
//! [`Actions::handle`] gives a [`TunnelHandle`], for other tunnels, other threads and tasks of any runtime. It sends
//! and closes like `Actions` do, and [`message`](crate::TunnelHandle::message) hands any value to the session. Nothing
//! of it blocks; an order that finds 1,024 others or 1 MiB on the way is refused.
//!
//! ```
//! use std::any::Any;
//! use std::sync::{Arc, Mutex};
//!
//! use bauta::{Accept, Actions, Request, Session, TunnelHandle};
//! use bytes::Bytes;
//!
//! /// Everybody hears what anybody says.
//! #[derive(Clone, Default)]
//! struct Room(Arc<Mutex<Vec<TunnelHandle>>>);
//!
//! impl Session for Room {
//!     fn on_open(&mut self, actions: &mut Actions<'_>) {
//!         self.0.lock().unwrap().push(actions.handle());
//!     }
//!
//!     fn on_packet(&mut self, _: &mut Actions<'_>, _: u64, payload: Bytes) {
//!         let mut members = self.0.lock().unwrap();
//!         members.retain(|member| !member.is_closed());
//!         for member in &*members {
//!             // Who is behind by a thousand messages misses this one.
//!             member.message(payload.clone()).ok();
//!         }
//!     }
//!
//!     fn on_message(&mut self, actions: &mut Actions<'_>, message: Box<dyn Any + Send>) {
//!         if let Ok(payload) = message.downcast::<Bytes>() {
//!             actions.send(*payload).ok();
//!         }
//!     }
//! }
//!
//! let room = Room::default();
//! let handler = move |_: &Request| Ok(Accept::session(room.clone()));
//! # let _ = bauta::Listener::all(([127, 0, 0, 1], 0)).handler(handler);
//! ```
//!
//! # Panics
//!
//! A panic in `accept`, in a hook or in a future of yours answers 500. A panic in a callback ends its tunnel with
//! H3_INTERNAL_ERROR, and no callback of that session follows. Either is logged, counted in
//! [`ListenerStats::handler_panics`](crate::ListenerStats::handler_panics), and nobody else's tunnel notices. This
//! needs unwinding: with `panic = "abort"` the process ends.
//!
//! # Requests that are no tunnels
//!
//! Somebody will open the relay's address in a browser. [`ListenerBuilder::fallback`](crate::ListenerBuilder::fallback)
//! answers with an ordinary response:
//!
//! ```
//! use bauta::{Listener, Request};
//! use bytes::Bytes;
//! use http::{Response, StatusCode};
//!
//! let builder = Listener::all(([127, 0, 0, 1], 0)).fallback(|request: &Request| {
//!     let mut response = Response::new(Bytes::from_static(b"This is a relay.\n"));
//!     if request.path() != Some("/") {
//!         *response.status_mut() = StatusCode::NOT_FOUND;
//!     }
//!     response
//! });
//! # let _ = builder;
//! ```
//!
//! A request in absolute form, `GET http://origin.example/`, never gets there: it takes the relay for a proxy that
//! fetches pages, and the answer is 405.
//!
//! [`Accept::init`]: crate::Accept::init
//! [`Accept::session`]: crate::Accept::session
//! [`Actions::handle`]: crate::Actions::handle
//! [`Handler`]: crate::Handler
//! [`Request`]: crate::Request
//! [`Session`]: crate::Session
//! [`TunnelHandle`]: crate::TunnelHandle
