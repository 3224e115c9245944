//! Module `transport`.
