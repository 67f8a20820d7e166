//! The one binary: reads the configuration, makes the parts and joins them.

fn main() {}
