//! The HTTP server of the example image: answers with the name of its pod.

fn main() {}
