//! The clients of other languages work with a cluster: Python's, JavaScript's, kube-rs, and operators made with kopf.
//!
//! Their programs are in `clients/`; what they need is installed once, by `scripts/clients.sh`.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Output, install_clients, run_command, suite};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    suite(&[
        ("kube-rs", rust),
        ("the Python client", python),
        ("an operator made with kopf", kopf),
        ("the JavaScript client", javascript),
    ])
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
    let installed = install_clients("python")?.join("python");
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
    let installed = install_clients("javascript")?.join("javascript");
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
    let installed = install_clients("rust")?.join("rust");
    run(cluster, "rust", &installed.join("debug/pintle-kube-client"), &[])
}
