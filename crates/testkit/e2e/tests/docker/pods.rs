//! What `docker` does with the containers of pods, which belong to a kubelet.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Engine, Spawned, left_out, run_command};
use std::process::Command;

/// Says something again and again until a file tells it to end.
const TICKS: &str = "echo begun; until test -e /tmp/end; do echo tick; sleep 0.1; done; echo done; exit 7";

fn docker(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = cluster.client().command("docker");
    command.args(words).env("DOCKER_HOST", format!("unix://{}", cluster.path("run/docker.sock").display()));
    command.env("DOCKER_CONFIG", cluster.path("docker-config"));
    command
}

pub fn pods(_: &Engine) -> Result<()> {
    let cluster = Cluster::start()?;
    if cluster.is_on_containerd() {
        cluster.finish()?;
        return Err(left_out("docker sees the containers of our own engine, and these pods are containerd's"));
    }
    let outcome = look(&cluster);
    outcome.with_context(|| cluster.server_log())?;
    cluster.finish()
}

fn look(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("seen")?;
    space.ok(&["run", "ticks", "--image", BUSYBOX, "--restart=Never", "--command", "--", "sh", "-c", TICKS])?;
    space.ok(&["wait", "--for=condition=Ready", "pod/ticks", "--timeout=60s"])?;
    let ok = |words: &[&str]| anyhow::Ok(run_command(docker(cluster, words), "")?.ok()?.trim_end().to_owned());
    let listed = ok(&["ps", "--format", "{{.Names}}"])?;
    let name = listed.lines().find(|n| n.starts_with("k8s_ticks_ticks_")).with_context(|| listed.clone())?;
    ensure!(ok(&["inspect", "-f", "{{.State.Running}}", name])? == "true");
    ensure!(ok(&["exec", name, "echo", "in"])? == "in");
    ensure!(ok(&["top", name])?.contains("until test -e"));
    ensure!(ok(&["stats", "--no-stream", "--format", "{{.PIDs}}", name])?.parse::<u32>()? > 0);
    ensure!(ok(&["logs", "--timestamps", name])?.lines().next().is_some_and(|l| l.ends_with("Z begun")));
    ensure!(ok(&["logs", "--tail", "1", name])? == "tick");
    let file = cluster.path("copied");
    std::fs::write(&file, "copied")?;
    ok(&["cp", "-q", &file.to_string_lossy(), &format!("{name}:/tmp/there")])?;
    ensure!(ok(&["exec", name, "cat", "/tmp/there"])? == "copied");
    let back = cluster.path("back");
    ok(&["cp", "-q", &format!("{name}:/tmp/there"), &back.to_string_lossy()])?;
    ensure!(std::fs::read_to_string(&back)? == "copied");
    let missing = run_command(docker(cluster, &["cp", &format!("{name}:/none"), "-"]), "")?.failed()?;
    ensure!(missing.contains(&format!("Could not find the file /none in container {name}")), "{missing}");
    let stop = run_command(docker(cluster, &["stop", name]), "")?.failed()?;
    ensure!(stop.contains("belongs to a pod"), "{stop}");

    let mut followed = Spawned::start(docker(cluster, &["logs", "--follow", "--tail", "0", name]))?;
    let mut attached = Spawned::start(docker(cluster, &["attach", "--no-stdin", name]))?;
    let mut waited = Spawned::start(docker(cluster, &["wait", name]))?;
    followed.expect("tick", SOON)?;
    attached.expect("tick", SOON)?;
    // Detached, as what is sent in may be killed with the container that it ends.
    ok(&["exec", "-d", name, "touch", "/tmp/end"])?;
    for (what, stream) in [("followed", &followed), ("attached", &attached)] {
        stream.expect("done", SOON).with_context(|| what.to_owned())?;
    }
    ensure!(followed.wait()?.success() && attached.wait()?.code() == Some(7) && waited.wait()?.success());
    ensure!(waited.output().trim_end() == "7", "{}", waited.output());
    ensure!(ok(&["wait", name])? == "7" && ok(&["logs", "-f", "--tail", "1", name])? == "done");
    Ok(())
}
