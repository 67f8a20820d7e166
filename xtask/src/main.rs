//! Runs the project's own checks and benchmarks: `cargo xtask tidy`, `cargo xtask chaos`, `cargo xtask bench NAME`.

mod bench;
mod chaos;
mod tidy;

use anyhow::{Result, bail};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy | cargo xtask chaos [SEED] | \
    cargo xtask bench first-cluster|controllers|engine|node|api|scheduler|store [ARGUMENT…]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever does not read standard error has the exit code.
            let _ = writeln!(std::io::stderr(), "xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["tidy"] => tidy::run(&root()),
        ["chaos"] => chaos::run(&root(), None),
        ["chaos", seed] => chaos::run(&root(), Some(seed)),
        ["bench", name, arguments @ ..] => bench::run(&root(), name, arguments),
        _ => bail!(USAGE),
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}
