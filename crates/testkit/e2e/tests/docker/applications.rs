//! Programs that others wrote for Docker: its Python library, and docker-compose with an application of three services.
//!
//! They are in `clients/docker/`; what they need is installed once, by `scripts/clients.sh`.

use crate::images::{locked_registry_on, registry_on};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, install_clients, run_command_within};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Using each part of the library, or bringing the application up and down.
const RUN_LIMIT: Duration = Duration::from_secs(400);

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(command: Command) -> Result<()> {
    let told = run_command_within(command, "", RUN_LIMIT)?;
    ensure!(told.status.success(), "{}\n{}\n{}", told.status, told.stdout, told.stderr);
    Ok(())
}

pub fn docker_py(engine: &Engine) -> Result<()> {
    let python = install_clients("docker")?.join("docker-library/bin/python");
    let _registries = (registry_on(engine, 5002)?, locked_registry_on(engine, 5003)?);
    let mut command = engine.command(&python.to_string_lossy());
    command.arg(own("clients/docker/test_docker.py")).env("TEST_IMAGE", BUSYBOX).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("TEST_REGISTRY", "127.0.0.1:5002").env("TEST_LOCKED", "127.0.0.1:5003");
    run(command)
}

pub fn compose(engine: &Engine) -> Result<()> {
    let installed = install_clients("docker")?;
    let _registry = registry_on(engine, 5004)?;
    let folder = engine.path("compose");
    std::fs::create_dir_all(&folder)?;
    let mut command = engine.command("sh");
    command.arg(own("clients/docker/compose.sh")).arg(folder).arg(installed.join("docker-compose/bin/docker-compose"));
    command.arg(own("clients/docker")).arg(installed.join("docker-packages/root")).arg("127.0.0.1:5004");
    run(command).context("docker-compose")
}
