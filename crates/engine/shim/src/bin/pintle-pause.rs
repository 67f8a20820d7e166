//! Holds the pid namespace of a sandbox: waits and reaps.

fn main() {
    std::process::exit(pintle_shim::pause::run());
}
