//! The `bauta` program.
fn main() {}
