//! Prints the tables of `docs/balancing.md`.
fn main() {}
