//! The clients of other languages work with a cluster: Python's, JavaScript's, kube-rs, and operators made with kopf.
//!
//! Their programs are in `clients/`; what they need is installed once, by `scripts/clients.sh`.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Output, run_command, run_command_within, suite};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Building kube-rs on a small machine.
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);

fn main() -> ExitCode {
    suite(&[
        ("kube-rs", rust),
        ("the Python client", python),
        ("an operator made with kopf", kopf),
        ("the JavaScript client", javascript),
    ])
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// Installs a client, if that is still to do; answers where it is.
fn install(name: &str) -> Result<PathBuf> {
    let mut script = Command::new(root().join("scripts/clients.sh"));
    script.arg(name).env_remove("RUSTFLAGS");
    // Variables that cargo sets for tests are not meant for another workspace.
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("CARGO_")) {
        if !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&variable.as_str()) {
            script.env_remove(variable);
        }
    }
    run_command_within(script, "", INSTALL_LIMIT)?.ok()?;
    Ok(root().join("target/clients").join(name))
}

/// Runs a program in a namespace of its own; it must end well.
fn run(cluster: &Cluster, name: &str, program: &Path, arguments: &[&Path]) -> Result<()> {
    let space = cluster.space(name)?;
    let mut command = cluster.host.command(&program.to_string_lossy());
    command.args(arguments).env("KUBECONFIG", cluster.path("kubeconfig")).env("HOME", cluster.path(""));
    command.env("TEST_NAMESPACE", &space.name).env("TEST_IMAGE", BUSYBOX).env("PYTHONDONTWRITEBYTECODE", "1");
    let Output { status, stdout, stderr, .. } = run_command(command, "")?;
    ensure!(status.success(), "{status}\n{stdout}\n{stderr}");
    Ok(())
}

fn with_python(cluster: &Cluster, name: &str, file: &str) -> Result<()> {
    let installed = install("python")?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python").join(file);
    run(cluster, name, &installed.join("bin/python"), &[&program])
}

fn python(cluster: &Cluster) -> Result<()> {
    with_python(cluster, "python", "test_client.py")
}

fn kopf(cluster: &Cluster) -> Result<()> {
    with_python(cluster, "kopf", "test_operator.py")
}

fn javascript(cluster: &Cluster) -> Result<()> {
    let installed = install("javascript")?;
    let node = std::env::split_paths(&std::env::var_os("PATH").context("PATH")?)
        .map(|folder| folder.join("node"))
        .find(|file| file.exists());
    let node = node.context("node is missing: run scripts/prepare.sh test")?;
    run(
        cluster,
        "javascript",
        &node,
        &[
            Path::new("--test"),
            Path::new("--test-force-exit"),
            Path::new("--test-timeout=100000"),
            &installed.join("client.test.mjs"),
        ],
    )
}

fn rust(cluster: &Cluster) -> Result<()> {
    let installed = install("rust")?;
    run(cluster, "rust", &installed.join("debug/pintle-kube-client"), &[])
}
