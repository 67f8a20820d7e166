//! What the engine tells of itself, what it cleans up, and what it refuses.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine};
use serde_json::Value;

pub fn tell(engine: &Engine) -> Result<()> {
    let events = engine.spawn(&["events", "-f", "label=e2e=tell", "--format", "{{.Type}} {{.Action}}"])?;
    let since = engine.ok(&["info", "-f", "{{.SystemTime}}"])?;
    engine.run_detached(&["--name", "e2e-tell", "--label", "e2e=tell"], &["sleep", "3600"])?;
    let stats: Value = serde_json::from_str(&engine.ok(&["stats", "--no-stream", "--format", "json", "e2e-tell"])?)?;
    ensure!(stats["Name"] == "e2e-tell" && stats["PIDs"] == "1", "{stats}");
    engine.ok(&["rm", "-f", "e2e-tell"])?;
    let told = events.expect("container destroy", SOON)?;
    let told: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("container ")).collect();
    ensure!(told == ["create", "start", "kill", "die", "destroy"], "{told:?}");
    let past = engine.shell(&format!(
        "timeout 20 docker events --since {since} --until $(($(date +%s) + 1)) -f container=e2e-tell"
    ))?;
    ensure!(past.lines().count() == told.len(), "{past}");
    let usage = engine.ok(&["system", "df", "--format", "{{.Type}}"])?;
    ensure!(usage == "Images\nContainers\nLocal Volumes\nBuild Cache", "{usage}");
    ensure!(engine.ok(&["system", "df", "-v"])?.contains("busybox"));
    let info: Value = serde_json::from_str(&engine.ok(&["info", "--format", "json"])?)?;
    ensure!(
        info["OSType"] == "linux" && info["NCPU"].as_u64() > Some(0) && info["Swarm"]["LocalNodeState"] == "inactive"
    );
    let version: Value = serde_json::from_str(&engine.ok(&["version", "--format", "json"])?)?;
    ensure!(version["Server"]["MinAPIVersion"] == "1.24", "{version}");
    let old = engine.shell("DOCKER_API_VERSION=1.24 docker version -f '{{.Client.APIVersion}}' && DOCKER_API_VERSION=1.24 docker ps -q -f name=e2e-none")?;
    ensure!(old == "1.24", "{old}");
    Ok(())
}

pub fn prune(engine: &Engine) -> Result<()> {
    let label = ["--label", "e2e=prune"];
    engine.ok(&["create", "--name", "e2e-prune", "--label", "e2e=prune", BUSYBOX])?;
    engine.run_detached(&["--name", "e2e-keep", "--label", "e2e=prune"], &["sleep", "3600"])?;
    engine.ok(&["network", "create", label[0], label[1], "e2e-prune"])?;
    engine.ok(&["volume", "create", label[0], label[1], "e2e-prune"])?;
    engine.shell("printf 'FROM e2e/busybox:1\\nLABEL e2e=prune\\n' | docker build -q -t e2e/prune -")?;
    let filter = ["-f", "--filter", "label=e2e=prune"];
    let pruned = |what: &str, more: &[&str]| engine.ok(&[&[what, "prune"][..], &filter, more].concat());
    let containers = pruned("container", &[])?;
    ensure!(
        containers.starts_with("Deleted Containers:") && containers.contains("Total reclaimed space: "),
        "{containers}"
    );
    ensure!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "e2e-keep"])? == "true");
    ensure!(pruned("network", &[])?.contains("e2e-prune"));
    ensure!(pruned("volume", &["-a"])?.contains("e2e-prune"));
    ensure!(pruned("image", &["-a"])?.contains("e2e/prune"));
    engine.refused(&["inspect", "e2e/prune"])?;
    engine.ok(&["rm", "-f", "e2e-keep"])?;
    Ok(())
}

pub fn refusals(engine: &Engine) -> Result<()> {
    let swarm = engine.refused(&["swarm", "init"])?;
    ensure!(swarm.contains("Error response from daemon"), "{swarm}");
    for command in [&["service", "ls"][..], &["node", "ls"], &["plugin", "install", "x"], &["secret", "ls"]] {
        let said = engine.refused(command)?;
        ensure!(said.contains("Error response from daemon"), "{command:?}: {said}");
    }
    let gpus = engine.refused(&["run", "--rm", "--gpus", "all", BUSYBOX, "true"])?;
    ensure!(gpus.contains("could not select device driver"), "{gpus}");
    let twice = engine.ok(&["create", "--name", "e2e-twice", BUSYBOX])?;
    let again = engine.refused(&["create", "--name", "e2e-twice", BUSYBOX])?;
    ensure!(again.contains("is already in use by container") && again.contains(&twice), "{again}");
    engine.ok(&["rm", "e2e-twice"])?;
    let socket = engine.path("run/docker.sock").to_string_lossy().into_owned();
    let asked = engine.shell(&format!(
        "curl -s --unix-socket {socket} http://d/v1.99/info; curl -s --unix-socket {socket} http://d/none"
    ))?;
    ensure!(asked.contains("client version 1.99 is too new") && asked.contains("page not found"), "{asked}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).context("the socket")?.permissions());
    ensure!(mode & 0o777 == 0o660, "{mode:o}");
    Ok(())
}
