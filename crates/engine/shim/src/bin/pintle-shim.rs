//! The process beside a sandbox's containers; see the library for what it does.

fn main() {
    std::process::exit(pintle_shim::server::run());
}
