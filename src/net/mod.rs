//! Module `net`.

pub mod resolve;
