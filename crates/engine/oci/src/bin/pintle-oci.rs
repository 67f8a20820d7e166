//! The command line of an OCI runtime; see the library for what it does.

fn main() {
    let arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    std::process::exit(pintle_oci::run(&arguments));
}
