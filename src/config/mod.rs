//! Module `config`.
