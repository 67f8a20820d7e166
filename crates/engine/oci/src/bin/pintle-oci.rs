//! The command line of an OCI runtime; see the library for what it does.

fn main() {}
