//! Builds what a benchmark measures, in release mode, and runs it.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

/// Each benchmark's name, the program that runs it, and the packages to build for it.
const BENCHMARKS: [(&str, &str, &[&str]); 7] = [
    ("first-cluster", "bench-first-cluster", &["pintle", "pintle-e2e"]),
    ("controllers", "bench-controllers", &["pintle", "pintle-e2e"]),
    ("engine", "bench-engine", &["pintle", "pintle-e2e"]),
    ("node", "bench-node", &["pintle", "pintle-e2e"]),
    ("api", "bench-api", &["pintle-load"]),
    ("scheduler", "bench-scheduler", &["pintle-scheduler-load"]),
    ("store", "bench-store", &["pintle-store-contract"]),
];

/// Runs the benchmark `name`; it gets the other words.
pub(crate) fn run(root: &Path, name: &str, arguments: &[&str]) -> Result<()> {
    let Some((_, program, packages)) = BENCHMARKS.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(name, ..)| *name).collect();
        bail!("no benchmark {name:?}; there are: {}", known.join(", "));
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let packages = packages.iter().flat_map(|package| ["-p", package]);
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--bins"])
        .args(packages)
        .current_dir(root)
        .status()
        .context("run cargo")?;
    ensure!(built.success(), "the build failed");
    let measured = Command::new(root.join("target/release").join(program))
        .args(arguments)
        .status()
        .context("run the benchmark")?;
    ensure!(measured.success(), "the benchmark failed");
    Ok(())
}
