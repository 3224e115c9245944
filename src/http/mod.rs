//! Sans-IO HTTP: bytes to and from one request and response head that all versions share.
//!
//! ```text
//!            h3::frame          h3::qpack          h3::fields
//!   stream ───────────► field ───────────► field ───────────► request::RequestHead
//!   bytes    HEADERS    section             lines             request::ResponseHead
//!
//!            h1::scan           httparse           h1::fields
//!   bytes  ───────────► head  ───────────► field ───────────► the same
//!            its end                        lines
//! ```
//!
//! HTTP/2 is the h2 package, in `transport::tcp`.
//!
//! Bytes of a peer never panic here and never allocate past a named limit.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod content;
pub mod h1;
pub mod h3;
pub mod request;
