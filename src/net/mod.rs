//! Module `net`.
