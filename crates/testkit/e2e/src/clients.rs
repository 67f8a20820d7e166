//! What programs of others need that drive a cluster or an engine, installed once by `scripts/clients.sh`.

use crate::command::run_within;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Building kube-rs on a small machine, or fetching Debian's packages.
const LIMIT: Duration = Duration::from_secs(1200);

/// Installs what goes by a name in the script, if that is still to do; answers the folder that everything is in.
pub fn install_clients(name: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut script = Command::new(root.join("scripts/clients.sh"));
    script.arg(name).env_remove("RUSTFLAGS");
    // Variables that cargo sets for tests are not meant for another workspace.
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("CARGO_")) {
        if !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&variable.as_str()) {
            script.env_remove(variable);
        }
    }
    run_within(script, "", LIMIT)?.ok()?;
    Ok(root.join("target/clients"))
}
