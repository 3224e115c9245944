//! Module `wire`.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod proxy_status;
pub mod target;
