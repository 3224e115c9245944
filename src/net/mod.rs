//! Sockets, buffers and system calls: how datagrams and the bytes of TCP connections enter and leave a worker.
//!
//! ```text
//!                    one Driver per worker
//!   QUIC sockets ───┐                        ┌─► receive(f): trains, by turns, out of pooled 256 KiB chunks
//!   target sockets ─┤                        ├─► poll_tcp: what happened to listeners and connections
//!   TCP sockets ────┤                        │
//!   TUN queues ─────┤                        │      (`tun`: whole packets, split and merged as trains are)
//!   timerfd ────────┼─► one epoll set ─► ready list
//!   eventfd ────────┘        ▲               │
//!                            │               └─◄ send(id, …): trains, split to what one call may carry
//!            monoio watches this one descriptor
//!            (io_uring poll, or epoll inside epoll)
//! ```
//!
//! A *train* is a run of datagrams of one size for or from one peer: the kernel coalesces them on the way in
//! (`UDP_GRO`) and cuts them up on the way out (`UDP_SEGMENT`). Trains are worth six times the throughput of single
//! datagrams; the choice between plain calls and ring operations is worth nothing that can be measured. So the driver
//! makes plain calls and asks monoio only when it has nothing left to do.
//!
//! Invariants:
//! - `unsafe` is in `sys.rs`, nowhere else.
//! - A datagram is never cut: every receive has room for the largest train, and truncation is counted.
//! - Nothing is fragmented (RFC 9298 section 3.1): IPv4 sends DF, IPv6 does not fragment at the source.
//! - Sockets towards targets are connected and send Not-ECT (RFC 9298 section 6.2).
//!
//! Deliberately absent: TLS, buffers for the bytes of TCP connections, retransmission, pacing, and any knowledge of
//! QUIC beyond the place of a connection ID in a packet (`steer`).

pub mod clock;
pub mod link;
pub mod listen;
pub mod random;
pub mod resolve;
pub mod runtime;
pub mod steer;
pub mod tun;

mod buffer;
mod control;
mod driver;
mod interfaces;
mod network;
mod poll;
mod socket;
mod sys;
mod tcp;
mod train;

pub use driver::{Driver, DriverConfig, Received, SendError, SocketId, Stats};
pub use interfaces::{host_name, local_ip_towards, own_interfaces};
pub use network::{Network, TrainOutcome};
pub use poll::{Waker, Woken};
pub use socket::{Offload, SocketKind, SocketOptions, ends_socket};
pub use sys::raise_file_limit;
pub use tcp::{TcpClose, TcpEvent, TcpId, TcpRead};
pub use train::{Outgoing, Segments, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, Train};
pub use tun::{Packets, Tun, TunError, TunOffloads, TunOptions, TunQueue};
