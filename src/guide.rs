//! How to use the library, in nine chapters. Every example of theirs is compiled, and those that need nothing but
//! this machine are run.
//!
//! 1. [First tunnel](first_tunnel): a client, UDP and TCP through a relay, tasks, threads and messages.
//! 2. [A relay](relay): a server in twenty lines, what it lets through, and how it ends.
//! 3. [Two hops](two_hops): nested and chained relays, so that nobody knows both ends.
//! 4. [Handlers](handlers): tunnels that end in your code.
//! 5. [Authentication](authentication): challenges, and answers to them.
//! 6. [Embedding](embedding): tunnels in a server that is yours already.
//! 7. [Errors](errors): what went wrong, on whose side, and whether to try again.
//! 8. [Performance](performance): what is cheap, what is not, and every queue with its bound.
//! 9. [IP](ip): whole packets, addresses and routes, a relay with a hook, site to site.
//!
//! # Words
//!
//! A **tunnel** is one request that was answered with 2xx, and what flows on it: the datagrams of one UDP target, the
//! bytes of one TCP connection, or whole IP packets. A **relay** is a server of tunnels; several in a row are
//! **hops**. A **carrier** is the HTTP version under a tunnel: h3, h2 or h1, one connection of which carries many
//! tunnels (h1: one). A **template** is the URI template by which a client names a target (RFC 9298 §2). A **capsule**
//! is a typed message on the request's own stream (RFC 9297 §3). A **worker** is a thread of this library, which owns
//! its connections and tunnels.

pub mod authentication;
pub mod embedding;
pub mod errors;
pub mod first_tunnel;
pub mod handlers;
pub mod ip;
pub mod performance;
pub mod relay;
pub mod two_hops;
