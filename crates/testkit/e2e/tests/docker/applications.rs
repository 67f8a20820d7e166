//! Programs that others wrote for Docker: its Python library, and docker-compose with an application of three services.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, run_command, run_command_within};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder where the Python library is, installed when it is not there yet.
fn installed() -> Result<PathBuf> {
    let folder = own("../../../target/clients/docker-py");
    let mut install = Command::new("sh");
    install.args(["-ec", "test -e \"$0/done\" || { python3 -m venv \"$0\"; \"$0/bin/pip\" -q install docker==7.2.0; touch \"$0/done\"; }"]);
    install.arg(&folder);
    run_command_within(install, "", Duration::from_secs(300))?.ok()?;
    Ok(folder)
}

pub fn docker_py(engine: &Engine) -> Result<()> {
    let python = installed()?.join("bin/python");
    let mut command = engine.command(&python.to_string_lossy());
    command.arg(own("clients/docker/test_docker.py")).env("TEST_IMAGE", BUSYBOX).env("PYTHONDONTWRITEBYTECODE", "1");
    let told = run_command(command, "")?;
    ensure!(told.status.success(), "{}\n{}\n{}", told.status, told.stdout, told.stderr);
    Ok(())
}

pub fn compose(engine: &Engine) -> Result<()> {
    let program = std::env::var("DOCKER_COMPOSE").unwrap_or_else(|_| "docker-compose".to_owned());
    let mut command = engine.command("sh");
    command.arg(own("clients/docker/compose.sh")).arg(engine.path("compose")).arg(program).arg(own("clients/docker"));
    let told = run_command_within(command, "", Duration::from_secs(300)).context("docker-compose")?;
    ensure!(told.status.success(), "{}\n{}\n{}", told.status, told.stdout, told.stderr);
    Ok(())
}
