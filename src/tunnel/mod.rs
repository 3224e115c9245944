//! Module `tunnel`.
