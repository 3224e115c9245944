//! Module `client`.
