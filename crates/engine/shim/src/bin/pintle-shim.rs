//! The process beside a sandbox's containers; see the library for what it does.

fn main() {
    // It was executed by a descriptor, whose number would be its name otherwise. Only those who list processes care.
    let _ = rustix::thread::set_name(c"pintle-shim");
    std::process::exit(pintle_shim::server::run());
}
