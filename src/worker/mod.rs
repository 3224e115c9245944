//! Module `worker`.
