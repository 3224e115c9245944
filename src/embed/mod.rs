//! The public face of the library: handles for users' threads and tasks, handlers for users' relays.
//!
//! ```text
//!   Client, UdpTunnel, TcpTunnel ──┐  shared queues + Command + wake  ┌── Machine, the relay's own core
//!   Listener, Handler, Session ────┼────────────────────────────► Host ┤
//!   Embedding ─────────────────────┘ ◄─────── events in queues         └── control thread: names, users' futures
//! ```
//!
//! Workers are threads of their own: nothing here needs an executor, and every handle can be waited for by any
//! executor, or by a plain thread. What a handle shares with its worker is a queue under a short lock; a worker never
//! waits for a user. Handles that wait are told by an event, with deadlines kept by the worker.

mod host;
mod lock;
mod running;
