//! Holds a pid namespace: does nothing but reap.
fn main() {}
