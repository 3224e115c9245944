//! Pure codecs: bytes in, small valid values out, and back.
//!
//! ```text
//!   varint ─► datagram   Quarter Stream ID, Context ID          RFC 9297 §2, RFC 9298 §5
//!          └► capsule    capsules out of a byte stream          RFC 9297 §3
//!   codepoints           numbers of drafts
//!   carrier              the HTTP versions, by their ALPN        RFC 7301
//!   target ─► template   who is asked for, and under which URI  RFC 9298 §2, §3
//!   ip                   scopes, capsules, packets of CONNECT-IP RFC 9484
//!   field                Capsule-Protocol                       RFC 9297 §3.4
//!   proxy_status         why a relay said no                    RFC 9209
//!   via                  which relays a request has passed      RFC 9110 §7.6.3
//! ```
//!
//! Invariants: no state beyond incremental parsing, no clock, no socket. Bytes of a peer never panic and never make a
//! codec hold more than its named limit. A value that parses can be encoded, and the encoding parses to the same value.
//!
//! Nothing here decides what a mistake of the peer costs: errors carry the facts, the layers above map them to codes.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod capsule;
pub mod carrier;
pub mod codepoints;
pub mod datagram;
pub mod field;
pub mod ip;
pub mod proxy_status;
pub mod target;
pub mod template;
pub mod varint;
pub mod via;
