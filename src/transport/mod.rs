//! One driver per carrier: bytes of sockets on one side, HTTP heads and tunnel datagrams on the other.
//!
//! `quic` carries HTTP/3. It turns trains of UDP datagrams into events and back; it knows connections and
//! streams, never tunnels, targets or policy. It reads no clock: every entry point takes `now`. `tls` loads
//! certificates and makes the crypto configurations of both directions.

pub mod carriers;
pub mod quic;
pub mod tcp;
pub mod tls;
