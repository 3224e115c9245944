//! Load generator for MASQUE relays.
fn main() {}
