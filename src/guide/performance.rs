//! Chapter 8: what is cheap, what is not, and where things wait.
//!
//! # Threads
//!
//! ```text
//!   Client, or Worker          1 worker thread + 1 control thread, shared by all clones and tunnels
//!   Listener                   n worker threads (default: one per core) + 1 control thread
//!   Embedding                  as a Client
//! ```
//!
//! A worker owns its connections and their tunnels and shares them with nobody. It handles what arrives from receive
//! call to send call in one turn, so that a tunnel of the built-in handlers has no lock, no task switch and no
//! allocation of ours per datagram. The control thread resolves names and runs your futures
//! ([`Accept::init`](crate::Accept::init), the `_async` hooks): a future that blocks holds up names and other requests,
//! and a callback that blocks holds up a worker with everything on it.
//!
//! # What things cost
//!
//! Measured on two virtual cores at 2.8 GHz with payloads of 1,200 bytes over HTTP/3; the method, the ranges and the
//! commands are in `PERF.md` of the repository.
//!
//! | what | cost of a relay |
//! |---|---|
//! | a datagram through one relay, up, under full load | 1.39 µs of CPU time, 666,000/s on one core |
//! | the same at 50,000/s, in bursts of 200 µs | 5.67 µs: a wake-up is shared by fewer |
//! | a tunnel on an open connection | 17.55 µs |
//! | a new connection with a tunnel | 464.58 µs, most of it the handshake |
//! | memory per connection with one tunnel | 26.66 KB |
//! | memory per further tunnel on it | 1.50 KB |
//!
//! These are the relay's own ways. What ends in your process costs more: a tunnel in a handle crosses a lock and wakes
//! your thread or task, once for all that came in a turn of the worker; a session costs a call per event, on the
//! worker.
//!
//! So:
//!
//! - **Keep the [`Client`](crate::Client).** Its tunnels share connections, which is the difference between 18 and 465
//!   µs. A client per tunnel also costs two threads each; clients of several relays can share a
//!   [`Worker`](crate::Worker).
//! - **Leave to the built-in handlers what they can do.** A handler that checks a request and hands it to
//!   [`Proxies`](crate::Proxies) costs its tunnels nothing.
//! - **Send [`Bytes`](bytes::Bytes).** They are passed on without a copy; a slice of a `Vec` is copied.
//! - **Send in bunches.** What a callback sends, or what is sent to a handle before its worker wakes up, leaves
//!   together, in few system calls.
//! - **Write big pieces** to TCP tunnels, 16 KiB or more where there are as many.
//! - **Raise the limit of open files** for a relay: each TCP connection and each target is a descriptor.
//!
//! # Where things wait, and for how much
//!
//! Every queue has a bound. Datagrams that find one full displace the oldest, since the newest are worth more; bytes
//! wait, and their source is not read; orders and capsules are refused. Only this tunnel notices: no queue is shared
//! between tunnels.
//!
//! | where | bound | then |
//! |---|---|---|
//! | [`UdpTunnel::send`](crate::UdpTunnel::send), towards the worker | 1,000 datagrams | the oldest goes, [`Info::send_dropped`](crate::Info::send_dropped) |
//! | [`UdpTunnel::recv`](crate::UdpTunnel::recv), towards you | 1,000 datagrams ([`receive_queue`](crate::ClientBuilder::receive_queue)) | the oldest goes, [`Info::receive_dropped`](crate::Info::receive_dropped) |
//! | [`TcpTunnel`](crate::TcpTunnel), each direction | 256 KiB | writers wait, the target is not read |
//! | capsules of a handle, each direction | 64 of up to 16 KiB | sending fails; received ones are dropped, [`Info::capsules_dropped`](crate::Info::capsules_dropped) |
//! | [`Events`](crate::Events) | none of its own | what waits is in the tunnels |
//! | [`Actions::send_data`](crate::Actions::send_data) | [256 KiB](crate::SESSION_WAITING_BYTES_MAX) | the session gets no more bytes |
//! | [`TunnelHandle`](crate::TunnelHandle), towards its worker | 1,024 orders, 1 MiB | [`SendError::NoRoom`](crate::SendError::NoRoom) |
//! | a worker, per UDP tunnel and direction | 256 datagrams, 256 KiB | the oldest goes |
//! | a worker, per TCP tunnel and direction | 128 KiB ([`max_tcp_buffer_bytes`](crate::ListenerBuilder::max_tcp_buffer_bytes)) | the source is not read |
//! | a relay, before a UDP tunnel is open | 16 datagrams, 32 KiB | the newest goes |
//!
//! And what a relay has at most, per worker unless it says otherwise:
//!
//! | what | bound | then |
//! |---|---|---|
//! | open requests per connection | 1,024 ([`max_tunnels_per_connection`](crate::ListenerBuilder::max_tunnels_per_connection)) | the client waits |
//! | tunnels | 16,384 ([`max_tunnels`](crate::ListenerBuilder::max_tunnels)) | 503 |
//! | QUIC connections | 4,096 ([`max_connections`](crate::ListenerBuilder::max_connections)) | refused |
//! | TCP connections | 4,096 | closed at once |
//! | sockets towards targets | 16,384 ([`max_target_sockets`](crate::ListenerBuilder::max_target_sockets)) | 503 |
//! | fields of a request | 16 KiB ([`max_field_section_bytes`](crate::ListenerBuilder::max_field_section_bytes)) | 431 |
//!
//! # The size of a datagram
//!
//! Over HTTP/3 a payload has to fit the path's packets: [`Info::datagram_size_max`](crate::Info::datagram_size_max)
//! says what does now, about 1,150 bytes at first and more when path MTU discovery has found it. Longer ones are
//! refused with [`ErrorKind::Limit`](crate::ErrorKind::Limit) and never cut. Over HTTP/2 and HTTP/1.1 everything fits
//! that UDP has (65,527 bytes, RFC 9298 §5), but the relay still sends it to the target as one packet.
