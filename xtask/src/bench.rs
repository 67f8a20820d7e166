//! Builds what a benchmark measures, in release mode, and runs it.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

/// Each benchmark's name and the program that runs it.
const BENCHMARKS: [(&str, &str); 1] = [("first-cluster", "bench-first-cluster")];

pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    let Some((_, program)) = BENCHMARKS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(name, _)| *name).collect();
        bail!("no benchmark {name:?}; there are: {}", known.join(", "));
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let build = ["build", "--release", "--locked", "-p", "pintle", "-p", "pintle-e2e", "--bins"];
    let built = Command::new(cargo).args(build).current_dir(root).status().context("run cargo")?;
    ensure!(built.success(), "the build failed");
    let measured = Command::new(root.join("target/release").join(program)).status().context("run the benchmark")?;
    ensure!(measured.success(), "the benchmark failed");
    Ok(())
}
