//! Module `transport`.

pub mod tls;
