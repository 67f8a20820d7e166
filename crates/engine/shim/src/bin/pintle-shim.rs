//! The process beside a pod's containers.
fn main() {}
