//! Kills the engine fifty times at random moments of a load: the suite's own test of it, for longer.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

const KILLS: &str = "50";

/// Runs the test; the seed chooses the moments.
pub(crate) fn run(root: &Path, seed: Option<&str>) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    for words in [&["build", "-p", "pintle"][..], &["test", "-p", "pintle-e2e", "--test", "chaos"]] {
        let mut command = Command::new(&cargo);
        command.args(words).arg("--locked").current_dir(root).env("PINTLE_E2E_KILLS", KILLS);
        if let Some(seed) = seed {
            command.env("PINTLE_E2E_SEED", seed);
        }
        let status = command.status().context("run cargo")?;
        ensure!(status.success(), "cargo {} failed", words.join(" "));
    }
    Ok(())
}
