//! One machine per kind of carrier: bytes of sockets on one side, HTTP heads and what tunnels carry on the other.
//!
//! `quic` carries HTTP/3. It turns trains of UDP datagrams into events and back; it knows connections and
//! streams, never tunnels, targets or policy. `tcp` does the same for HTTP/2 and HTTP/1.1 over TLS. Neither reads a
//! clock: every entry point takes `now`. `carriers` shows both as one. `tls` loads certificates and makes the crypto
//! configurations of all.

pub mod carriers;
mod outbox;
pub mod quic;
pub mod tcp;
pub mod tls;
