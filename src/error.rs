//! Errors at the face of the crate.
