//! Module `handler`.
